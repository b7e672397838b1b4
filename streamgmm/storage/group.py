"""A Zarr group that is replaced in one step: arrays first, then the metadata that name them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import StoreError
from streamgmm.places import Place
from streamgmm.places.retry import reaching

_CHUNK_BYTES = 64 << 20


class DamagedError(Exception):
    """Something in a group that cannot be read, or is not what was saved; says what."""


def digest(meta: Mapping[str, Any]) -> str:
    """SHA-256 of metadata, as they are after a round trip through JSON."""
    rest = {k: v for k, v in meta.items() if k != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def describe(array: NDArray[Any]) -> dict[str, Any]:
    """Shape, dtype and SHA-256 of an array, whatever its byte order and layout."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "sha256": hashlib.sha256(little.data).hexdigest(),
    }


class AtomicGroup:
    """A Zarr group with an atomic commit.

    Arrays are written where no metadata refer to them yet. `commit` then replaces the metadata
    at the root in one step. A reader, or a process that starts after a crash, sees the old
    group or the new one, and never a mixture of the two.

    Parameters
    ----------
    place : Place
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._store = place.store()

    def _reaching(self) -> contextlib.AbstractContextManager[None]:
        """Name what fails because the store is far away: raises StoreError."""
        local = self.place.directory is not None
        return contextlib.nullcontext() if local else reaching(self.place.name)

    def node(self) -> Any:
        """Open the Zarr array or group that is here; None if nothing is.

        Raises
        ------
        NotADirectoryError
            If a file is here.
        DamagedError
            If its metadata cannot be read.
        StoreError
            If the store refuses access, or does not answer.
        """
        import zarr

        directory = self.place.directory
        if directory is not None and directory.is_file():
            raise NotADirectoryError(f"'{self.place}' is a file")
        try:
            with self._reaching():
                return zarr.open(self._store, mode="r")
        except StoreError:
            raise
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            raise
        except Exception as error:
            raise DamagedError(f"its zarr.json is damaged ({error})") from error

    def write(self, key: str, array: NDArray[Any]) -> None:
        """Write one array, which no metadata refer to yet."""
        import zarr

        rows = max(1, _CHUNK_BYTES // max(1, array[:1].nbytes)) if array.ndim else 0
        chunks = (min(rows, max(1, array.shape[0])), *array.shape[1:]) if array.ndim else ()
        with self._reaching():
            out = zarr.create_array(
                self._store,
                name=key,
                shape=array.shape,
                chunks=tuple(max(1, size) for size in chunks),
                dtype=array.dtype.newbyteorder("="),
                overwrite=True,
            )
            if array.size:
                out[...] = array

    def read(self, key: str, name: str, wanted: Mapping[str, Any]) -> NDArray[Any]:
        """Read one array and compare it with what `describe` gave when it was written.

        Raises
        ------
        DamagedError
            If it cannot be read, or differs.
        """
        import zarr

        try:
            with self._reaching():
                node = zarr.open_array(self._store, path=key, mode="r")
                array = np.asarray(node[...])
        except StoreError:
            raise
        except FileNotFoundError:
            raise DamagedError(f"its array '{name}' is missing") from None
        except Exception as error:
            raise DamagedError(f"its array '{name}' cannot be read ({error})") from error
        found = describe(array)
        for what in ("shape", "dtype"):
            if found[what] != wanted[what]:
                raise DamagedError(
                    f"its array '{name}' has {what} {found[what]} where {wanted[what]} was saved"
                )
        if found != wanted:
            raise DamagedError(f"the values of its array '{name}' are not those that were saved")
        return array

    def sync(self, key: str = "") -> None:
        """Flush what was written below `key` to the disk (fsync); nothing for a URL."""
        if self.place.directory is None:
            return
        for parent, _, files in os.walk(self.place.directory / key):
            for file in files:
                _fsync(os.path.join(parent, file))
            _fsync(parent)

    def commit(self, meta: Mapping[str, Any]) -> None:
        """Replace the metadata at the root in one step."""
        directory = self.place.directory
        if directory is None:
            import zarr

            with self._reaching():
                group = zarr.open_group(self._store, mode="a", zarr_format=3)
                group.update_attributes(dict(meta))
            return
        directory.mkdir(parents=True, exist_ok=True)
        root = {"zarr_format": 3, "node_type": "group", "attributes": meta}
        new = directory / "zarr.json.new"
        new.write_text(json.dumps(root, indent=2))
        _fsync(new)
        new.replace(directory / "zarr.json")
        _fsync(directory)

    def remove(self, keys: Iterable[str]) -> None:
        """Remove arrays that no metadata refer to any more; what cannot be removed is litter."""
        directory = self.place.directory
        if directory is not None:
            for key in keys:
                path = (directory / key).resolve()
                if directory.resolve() in path.parents:  # a damaged file may name any path
                    shutil.rmtree(path, ignore_errors=True)
            return
        import zarr

        with contextlib.suppress(Exception):
            group = zarr.open_group(self._store, mode="r+")
            for key in keys:
                if key in group:
                    del group[key]

    def clear(self) -> None:
        """Remove an unfinished group; in an object store its mark as unfinished may stay."""
        if self.place.directory is not None:
            shutil.rmtree(self.place.directory, ignore_errors=True)


def _fsync(path: str | os.PathLike[str]) -> None:
    if os.name == "nt" and os.path.isdir(path):
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
