"""Where something is stored: a local path, or a URL that fsspec opens. Parsed in one place.

Rows, models, outputs, checkpoints and states of followers are all given as a path or a URL. Each
is parsed to a `Place` where it enters the package; everything inside is given the `Place`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from streamgmm.errors import ParameterError


@dataclass(frozen=True)
class Place:
    """A local path or a URL, which need not exist yet.

    Attributes
    ----------
    name : str
        The path or URL, as messages give it.
    directory : Path or None
        The absolute local path; None for a URL.
    storage_options : dict or None
        For the fsspec file system of a URL.
    """

    name: str
    directory: Path | None
    storage_options: dict[str, Any] | None = field(default=None, hash=False)

    @classmethod
    def parse(
        cls,
        path: str | os.PathLike[str] | Place,
        storage_options: dict[str, Any] | None = None,
    ) -> Place:
        """Parse a path or URL. A `Place` is given back as it is. Nothing is opened.

        Parameters
        ----------
        path : str, path-like or Place
            ``file://`` and ``local://`` URLs are local paths. Anything else with ``://``, or
            with ``::`` (URLs chained by fsspec), is a URL.
        storage_options : dict, optional
            For the fsspec file system of a URL.

        Raises
        ------
        ParameterError
            If there are storage options for a local path.

        Examples
        --------
        >>> Place.parse("data.zarr").directory == Path("data.zarr").absolute()
        True
        >>> Place.parse("s3://bucket/data.zarr", {"anon": True}).directory is None
        True
        """
        if isinstance(path, Place):
            return path
        name = os.fsdecode(path)
        if name.startswith(("file://", "local://")):
            name = url2pathname(urlsplit(name).path)
        if "://" in name or "::" in name:
            return cls(name, None, storage_options)
        if storage_options:
            raise ParameterError(f"storage_options are for URLs; '{name}' is a local path")
        return cls(name, Path(name).absolute())

    def __str__(self) -> str:
        """Give its name."""
        return self.name

    def child(self, name: str) -> Place:
        """Give the place of something inside this one.

        >>> Place.parse("s3://bucket/run.zarr").child("lock").name
        's3://bucket/run.zarr/lock'
        """
        directory = None if self.directory is None else self.directory / name
        return Place(f"{self.name.rstrip('/')}/{name}", directory, self.storage_options)

    def store(self, read_only: bool = False) -> Any:
        """Open the Zarr store at this place.

        Raises
        ------
        ParameterError
            If fsspec does not know the kind of URL, or the package for it is not installed.
        """
        import zarr

        if self.directory is not None:
            return zarr.storage.LocalStore(self.directory, read_only=read_only)
        try:
            return zarr.storage.FsspecStore.from_url(
                self.name, storage_options=self.storage_options, read_only=read_only
            )
        except ImportError as error:
            raise ParameterError(
                f"'{self.name}' needs a file system that is not installed: {error}; "
                "pip install 'streamgmm[remote]' has those for s3:// and http://"
            ) from error
        except ValueError as error:
            raise ParameterError(f"'{self.name}' cannot be opened: {error}") from error
