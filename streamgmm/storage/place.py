"""Where a model lies: its metadata at the root, and its arrays."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
from numpy.typing import NDArray

from streamgmm._version import __version__
from streamgmm.errors import (
    ModelFileError,
    ModelNotFoundError,
    OutputExistsError,
    ParameterError,
)

FORMAT = "streamgmm"
FORMAT_VERSION = 1

_CHUNK_BYTES = 64 << 20


def digest(meta: Mapping[str, Any]) -> str:
    """SHA-256 of metadata, as it would be after a way through JSON."""
    rest = {k: v for k, v in meta.items() if k != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def is_unfinished(meta: Mapping[str, Any]) -> bool:
    """Whether this is what a model has at its root while it is being written."""
    return "kind" in meta and meta["kind"] is None


def describe(array: NDArray[Any]) -> dict[str, Any]:
    """Shape, dtype and SHA-256 of an array, whatever its byte order and layout."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "sha256": hashlib.sha256(little.data).hexdigest(),
    }


@dataclass(frozen=True)
class Place:
    """Where a model lies: a directory, or a store that fsspec opens."""

    name: str
    store: Any
    directory: Path | None

    @classmethod
    def parse(cls, path: str | os.PathLike[str], storage_options: dict[str, Any] | None) -> Place:
        """Open a path or URL, which need not exist yet."""
        import zarr

        name = os.fsdecode(path)
        if name.startswith(("file://", "local://")):
            name = url2pathname(urlsplit(name).path)
        if "://" not in name and "::" not in name:
            if storage_options:
                raise ParameterError(f"storage_options are for URLs; '{name}' is a local path")
            directory = Path(name).absolute()
            return cls(name, zarr.storage.LocalStore(directory), directory)
        try:
            store = zarr.storage.FsspecStore.from_url(name, storage_options=storage_options)
        except ImportError as error:
            raise ParameterError(
                f"'{name}' needs a file system that is not installed: {error}; "
                "pip install 'streamgmm[remote]' has those for s3:// and http://"
            ) from error
        return cls(name, store, None)

    def node(self) -> Any:
        """Open the Zarr array or group that is here, or give None."""
        import zarr

        try:
            return zarr.open(self.store, mode="r")
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            raise ModelFileError(f"'{self.name}' is a file, not a model") from None
        except Exception as error:
            raise ModelFileError(
                f"'{self.name}' is no model that can be read: its zarr.json is damaged ({error})"
            ) from error

    def meta(self) -> dict[str, Any]:
        """Metadata of the model that is here, finished or not.

        Raises
        ------
        ModelNotFoundError, ModelFileError
            If there is nothing; if it is something else, says what.
        """
        import zarr

        if self.directory is not None and self.directory.is_file():
            raise ModelFileError(f"'{self.name}' is a file, not a model")
        node = self.node()
        if isinstance(node, zarr.Array):
            raise ModelFileError(
                f"'{self.name}' is a Zarr array of shape {node.shape}, not a model"
            )
        if node is None:
            if self.directory is None or not self.directory.exists():
                raise ModelNotFoundError(f"there is no model at '{self.name}'")
            raise ModelFileError(f"'{self.name}' is a directory, not a model")
        meta = dict(node.attrs)
        if meta.get("format") != FORMAT:
            arrays = ", ".join(f"'{key}'" for key in sorted(node.array_keys())[:12])
            held = f" that holds {arrays}" if arrays else ""
            raise ModelFileError(f"'{self.name}' is a Zarr group{held}, not a streamgmm model")
        return meta

    def model(self) -> dict[str, Any]:
        """Metadata of the finished model that is here, verified; raises ModelFileError."""
        meta = self.meta()
        version = meta.get("format_version")
        if isinstance(version, int) and version > FORMAT_VERSION:
            writer = meta.get("streamgmm_version")
            wanted = f"streamgmm>={writer}" if isinstance(writer, str) else "streamgmm"
            raise ModelFileError(
                f"the model '{self.name}' has format {version}; streamgmm {__version__} reads "
                f"formats up to {FORMAT_VERSION}: pip install --upgrade '{wanted}'"
            )
        if is_unfinished(meta):
            raise ModelFileError(
                f"the model '{self.name}' is unfinished: what wrote it was ended; save it again"
            )
        if meta.get("sha256") != digest(meta):
            raise self.damaged("its metadata is not what was saved")
        return meta

    def damaged(self, what: str) -> ModelFileError:
        """Make the error for a model that is not what was saved."""
        return ModelFileError(
            f"the model '{self.name}' is damaged: {what}; restore it from a copy or fit it again"
        )

    def check_free(self, overwrite: bool) -> dict[str, Any] | None:
        """Check that a model may be written here; give the metadata of one to replace."""
        folder = self.directory
        if folder is not None and folder.is_dir() and not any(folder.iterdir()):
            return None
        try:
            meta = self.meta()
        except ModelNotFoundError:
            return None
        except ModelFileError as error:
            raise OutputExistsError(
                f"{error}; it is not replaced: give another path, or remove it first"
            ) from error
        if is_unfinished(meta):
            return None
        if not overwrite:
            raise OutputExistsError(
                f"'{self.name}' exists; pass overwrite=True to replace it, or another path"
            )
        return meta

    def write(self, key: str, array: NDArray[Any]) -> None:
        """Write one array, which no metadata refers to yet."""
        import zarr

        rows = max(1, _CHUNK_BYTES // max(1, array[:1].nbytes)) if array.ndim else 0
        chunks = (min(rows, max(1, array.shape[0])), *array.shape[1:]) if array.ndim else ()
        out = zarr.create_array(
            self.store,
            name=key,
            shape=array.shape,
            chunks=tuple(max(1, size) for size in chunks),
            dtype=array.dtype.newbyteorder("="),
            overwrite=True,
        )
        if array.size:
            out[...] = array

    def read(self, key: str, name: str, wanted: Mapping[str, Any]) -> NDArray[Any]:
        """Read one array and compare it with its description; raises ModelFileError."""
        import zarr

        try:
            node = zarr.open_array(self.store, path=key, mode="r")
            array = np.asarray(node[...])
        except FileNotFoundError:
            raise self.damaged(f"its array '{name}' is missing") from None
        except Exception as error:
            raise self.damaged(f"its array '{name}' cannot be read ({error})") from error
        found = describe(array)
        for what in ("shape", "dtype"):
            if found[what] != wanted[what]:
                raise self.damaged(
                    f"its array '{name}' has {what} {found[what]} where {wanted[what]} was saved"
                )
        if found != wanted:
            raise self.damaged(f"the values of its array '{name}' are not those that were saved")
        return array

    def settle(self, key: str = "") -> None:
        """Have all that was written, or what is below `key`, reach the disk."""
        if self.directory is None:
            return
        for parent, _, files in os.walk(self.directory / key):
            for file in files:
                _sync(os.path.join(parent, file))
            _sync(parent)

    def commit(self, meta: Mapping[str, Any]) -> None:
        """Replace the metadata at the root in one step."""
        if self.directory is None:
            import zarr

            zarr.open_group(self.store, mode="a", zarr_format=3).update_attributes(dict(meta))
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        root = {"zarr_format": 3, "node_type": "group", "attributes": meta}
        new = self.directory / "zarr.json.new"
        new.write_text(json.dumps(root, indent=2))
        _sync(new)
        new.replace(self.directory / "zarr.json")
        _sync(self.directory)

    def remove(self, keys: list[str]) -> None:
        """Drop arrays that no metadata refers to any more."""
        import zarr

        group = zarr.open_group(self.store, mode="r+")
        for key in keys:
            if key in group:
                del group[key]

    def clear(self) -> None:
        """Drop an unfinished model; in an object store, what says that it is one may stay."""
        if self.directory is not None:
            shutil.rmtree(self.directory, ignore_errors=True)


def _sync(path: str | os.PathLike[str]) -> None:
    if os.name == "nt" and os.path.isdir(path):
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
