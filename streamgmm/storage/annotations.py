"""Outputs in an AnnData store: columns of ``obs`` and arrays of ``obsm``, encoded as AnnData does.

A column is written as any output, and then registered: its name is put into the attribute
``column-order`` of ``obs``, and into the consolidated metadata of the store, one put each. So the
store can be read at any time; a column that is not whole is not in it.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from streamgmm.errors import DataError, ParameterError

ENCODING = {"encoding-type": "array", "encoding-version": "0.2.0"}


@dataclass(frozen=True)
class Annotation:
    """A place in ``obs`` or ``obsm`` of a store.

    Attributes
    ----------
    root : zarr.storage.StorePath
        The store.
    part : {"obs", "obsm"}
    key : str
    zarr_format : {2, 3}
        Of the store, and so of what is put into it.
    """

    root: Any
    part: str
    key: str
    zarr_format: int

    def check(self, shape: tuple[int, ...], name: str) -> None:
        """Check that an array fits; raises DataError, ParameterError."""
        import zarr

        group = zarr.open_group(self.root, mode="r", use_consolidated=False)
        index: Any = group["obs"][str(group["obs"].attrs["_index"])]  # type: ignore[index]
        index = index["values"] if isinstance(index, zarr.Group) else index
        if shape[0] != index.shape[0]:
            raise DataError(
                f"{name} would have {shape[0]} rows, and there are {index.shape[0]} cells in "
                f"'{self.root}'; give a place for what is said of other rows"
            )
        if (len(shape) == 1) != (self.part == "obs"):
            other = "obsm" if self.part == "obs" else "obs"
            raise ParameterError(
                f"{name} would have shape {shape}: obs is for one value a cell, obsm for several; "
                f"give '{self.root}/{other}/{self.key}'"
            )
        if self.part == "obs" and self.key == group["obs"].attrs["_index"]:
            raise ParameterError(f"{name} holds the names of the cells; give another name")

    def register(self, there: bool = True) -> None:
        """Have AnnData see the array, or no longer see it."""
        if self.part == "obs":
            file = "zarr.json" if self.zarr_format == 3 else ".zattrs"
            place = self.root / "obs" / file
            held = _read(place) or {}
            attributes = held["attributes"] if self.zarr_format == 3 else held
            columns = [each for each in attributes["column-order"] if each != self.key]
            attributes["column-order"] = [*columns, self.key] if there else columns
            _write(place, held)
        self._consolidate()

    def _consolidate(self) -> None:
        """Renew the metadata that are kept together, where they are."""
        import zarr

        if self.zarr_format == 3:
            found = (_read(self.root / "zarr.json") or {}).get("consolidated_metadata")
        else:
            found = _read(self.root / ".zmetadata")
        if not found:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that they are no part of format 3 yet
            zarr.consolidate_metadata(
                self.root.store,
                path=self.root.path,
                zarr_format=self.zarr_format,  # type: ignore[arg-type]
            )


def annotation_of(place: Any) -> Annotation | None:
    """Say which part of an AnnData store a place is; None where it is in none."""
    above = _above(place)
    if above is None or above[1] not in ("obs", "obsm"):
        return None
    key = _name(place)
    root = _above(above[0])
    for zarr_format, file in ((3, "zarr.json"), (2, ".zattrs")):
        held = _read(root[0] / file) if root is not None else None
        attributes = (held or {}).get("attributes", {}) if zarr_format == 3 else held
        if root is not None and (attributes or {}).get("encoding-type") == "anndata":
            return Annotation(root[0], above[1], key, zarr_format)
    return None


def _name(place: Any) -> str:
    """The last part of where a place is."""
    return PurePosixPath(place.path or str(_root(place))).name


def _root(place: Any) -> Any:
    """The directory or path that a store begins at."""
    store = getattr(place.store, "_store", place.store)
    return getattr(store, "root", None) or getattr(store, "path", "")


def _above(place: Any) -> tuple[Any, str] | None:
    """The place that another is in, and its name; None where a store says nothing of it."""
    from zarr.storage import FsspecStore, LocalStore, StorePath

    if place.path:
        above = StorePath(place.store, place.path.rpartition("/")[0])
        return above, _name(above)
    store = getattr(place.store, "_store", place.store)  # beneath one that tries again
    if type(store) is LocalStore:
        found: Any = LocalStore(store.root.absolute().parent)
    elif type(store) is FsspecStore and "/" in store.path:
        found = FsspecStore(store.fs, path=store.path.rstrip("/").rpartition("/")[0])
    else:
        return None
    if store is not place.store:
        found = type(place.store)(found)
    above = StorePath(found)
    return above, _name(above)


def _read(place: Any) -> dict[str, Any] | None:
    """Read JSON; None where there is none."""
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    root = _root(place)
    if hasattr(root, "joinpath"):  # opening a store would make its directory
        try:
            held = json.loads((root / place.path).read_bytes())
        except (OSError, ValueError):
            return None
    else:
        try:
            value = sync(place.get(default_buffer_prototype()))
            held = None if value is None else json.loads(value.to_bytes())
        except Exception:
            return None
    return held if isinstance(held, dict) else None


def _write(place: Any, value: dict[str, Any]) -> None:
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    make = default_buffer_prototype().buffer.from_bytes
    sync(place.set(make(json.dumps(value).encode())))
