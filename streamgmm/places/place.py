"""A place: what a person gives for a path, parsed once."""

from __future__ import annotations

import os
import re
from abc import ABC
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from streamgmm.errors import ParameterError


class ZarrStore(ABC):  # noqa: B024
    """What is a Zarr store, or a path in one (`zarr.storage.StorePath`).

    Told by name, without importing Zarr.

    >>> import zarr
    >>> isinstance(zarr.storage.MemoryStore(), ZarrStore), isinstance("data.zarr", ZarrStore)
    (True, False)
    """

    @classmethod
    def __subclasshook__(cls, other: type) -> bool:
        """Whether `other` is one of Zarr's."""
        return any(
            each.__module__.startswith("zarr.") and each.__name__ in ("Store", "StorePath")
            for each in other.__mro__
        )


@dataclass(frozen=True)
class Place:
    """A local path, a URL or a path in a Zarr store, which need not exist yet.

    Attributes
    ----------
    name : str
        The path or URL, as messages give it.
    directory : Path or None
        The absolute local path; None for a URL or a store that is no directory.
    storage_options : dict or None
        For the fsspec file system of a URL.
    held : zarr.storage.StorePath or None
        Where a store was given.
    """

    name: str
    directory: Path | None
    storage_options: dict[str, Any] | None = field(default=None, hash=False)
    held: Any = field(default=None, hash=False, repr=False)

    @classmethod
    def parse(cls, path: Any, storage_options: dict[str, Any] | None = None) -> Place:
        """Parse a path, URL or store. A `Place` is given back as it is. Nothing is opened.

        Parameters
        ----------
        path : str, path-like, zarr.abc.store.Store, zarr.storage.StorePath or Place
            ``file://`` and ``local://`` URLs are local paths. Anything else with ``://``, or
            with ``::`` (URLs chained by fsspec), is a URL. A `zarr.storage.LocalStore` is its
            directory.
        storage_options : dict, optional
            For the fsspec file system of a URL.

        Raises
        ------
        ParameterError
            If there are storage options for a local path or a store; or if it is no place.

        Examples
        --------
        >>> Place.parse("data.zarr").directory == Path("data.zarr").absolute()
        True
        >>> Place.parse("s3://bucket/data.zarr", {"anon": True}).directory is None
        True
        """
        if isinstance(path, Place):
            return path
        if isinstance(path, ZarrStore):
            return cls._in_store(path, storage_options)
        if not isinstance(path, (str, bytes, os.PathLike)):
            raise ParameterError(
                f"a {type(path).__name__} is no place; give a path, a URL or a Zarr store"
            )
        name = os.fsdecode(path)
        if name.startswith(("file://", "local://")):
            name = url2pathname(urlsplit(name).path)
        if "://" in name or "::" in name:
            return cls(name, None, storage_options)
        if storage_options:
            raise ParameterError(f"storage_options are for URLs; '{name}' is a local path")
        return cls(name, Path(name).absolute())

    @classmethod
    def _in_store(cls, given: Any, storage_options: dict[str, Any] | None) -> Place:
        from zarr.storage import LocalStore, StorePath

        held = given if isinstance(given, StorePath) else StorePath(given)
        if storage_options:
            raise ParameterError(
                f"storage_options are for URLs; the store '{held}' has options of its own"
            )
        if type(held.store) is LocalStore:
            path = held.store.root / held.path
            return cls(str(path), path.absolute())
        name = re.sub(r"<(?:\w+\.)*(\w+) object at \w+>", r"\1", str(held))
        return cls(name, None, held=held)

    def __str__(self) -> str:
        """Give its name."""
        return self.name

    def child(self, name: str) -> Place:
        """Give the place of something inside this one.

        >>> Place.parse("s3://bucket/run.zarr").child("lock").name
        's3://bucket/run.zarr/lock'
        """
        directory = None if self.directory is None else self.directory / name
        held = None if self.held is None else self.held / name
        return Place(f"{self.name.rstrip('/')}/{name}", directory, self.storage_options, held)

    def beside(self, suffix: str) -> Place:
        """Give the place next to this one whose name is longer; in a store's root, inside it.

        >>> Place.parse("s3://bucket/state.zarr/").beside(".lock").name
        's3://bucket/state.zarr.lock'
        """
        if self.held is not None:
            path = f"{self.held.path}{suffix}".lstrip("./")
            held = type(self.held)(self.held.store, path)
            return self._in_store(held, None)
        directory = self.directory
        if directory is not None:
            directory = directory.with_name(directory.name + suffix)
        return Place(f"{self.name.rstrip('/')}{suffix}", directory, self.storage_options)

    def store(self, read_only: bool = False) -> Any:
        """Open the Zarr store at this place, or the path in the store that was given.

        One that is far away tries again what fails for a moment.

        Raises
        ------
        ParameterError
            If fsspec does not know the kind of URL, or the package for it is not installed.
        """
        import zarr

        if self.directory is not None:
            return zarr.storage.LocalStore(self.directory, read_only=read_only)
        from streamgmm.places.retrying import retrying

        if self.held is not None:
            return type(self.held)(retrying(self.held.store), self.held.path)
        try:
            store = zarr.storage.FsspecStore.from_url(
                self.name, storage_options=self.storage_options, read_only=read_only
            )
        except ImportError as error:
            raise ParameterError(
                f"'{self.name}' needs a file system that is not installed: {error}; "
                "pip install 'streamgmm[remote]' has those for s3:// and http://"
            ) from error
        except (ValueError, TypeError) as error:
            raise ParameterError(f"'{self.name}' cannot be opened: {error}") from error
        return retrying(store)
