"""Open Zarr arrays: an object, a path, or a URL; and say what is there instead."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from streamgmm.errors import ParameterError, SourceError, SourceNotFoundError
from streamgmm.places import Place, ZarrStore
from streamgmm.places.retry import advice, retry
from streamgmm.sources.base import check_shape, float_dtype
from streamgmm.sources.chunks import local_chunks
from streamgmm.sources.shards import local_shards
from streamgmm.sources.zarr_ref import ZarrRef, describe

if TYPE_CHECKING:
    import zarr

_LISTED = 12
"""Arrays of a group that a message names."""


def is_zarr(value: object) -> bool:
    """Whether `value` is a Zarr array or group, or names one, without importing Zarr."""
    if isinstance(value, (str, os.PathLike, Place, ZarrStore)):
        return True
    module = sys.modules.get("zarr")
    return module is not None and isinstance(value, (module.Array, module.Group))


def parse_zarr(X: object, storage_options: dict[str, Any] | None = None) -> ZarrRef:
    """Open a Zarr array of rows and columns.

    Raises
    ------
    SourceNotFoundError, SourceError
        As `open_ref`.
    DataError
        If it is not two-dimensional, empty, or no real number.
    """
    ref = open_ref(X, storage_options)
    check_shape(ref.array.shape, ref.name)
    float_dtype(ref.array.dtype, ref.name)
    return ref


def open_ref(X: object, storage_options: dict[str, Any] | None = None) -> ZarrRef:
    """Open an array, a path, a URL or a store for reading anywhere.

    Parameters
    ----------
    X : zarr.Array, str, path-like, zarr.abc.store.Store, zarr.storage.StorePath or Place
        ``"data.zarr/name"`` names an array in a group.
    storage_options : dict, optional
        For the fsspec file system of a URL.

    Raises
    ------
    SourceNotFoundError
        If there is nothing.
    SourceError
        If what is there is no Zarr array; a group's arrays are listed.
    """
    import zarr

    node, name = open_node(X, storage_options)
    if isinstance(node, zarr.Group):
        raise SourceError(_group_message(node, name))
    return _ref(node, f"array '{name}'")


def open_node(X: object, storage_options: dict[str, Any] | None = None) -> tuple[Any, str]:
    """Open an array or a group; give it and where it is. Raises as `open_ref`."""
    import zarr

    if isinstance(X, (zarr.Array, zarr.Group)):
        return X, str(X.store_path)
    place = Place.parse(X, storage_options)
    return (_open_url(place) if place.directory is None else _open_path(place)), place.name


def _open_path(place: Place) -> Any:
    import zarr

    path, where = place.directory, place.name
    assert path is not None
    if not path.exists():
        raise SourceNotFoundError(f"there is nothing at '{where}'")
    if not path.is_dir():
        hint = "a Zarr array is a directory, or a URL"
        if path.suffix == ".npy":
            hint = f"open it with numpy.load('{where}', mmap_mode='r') and pass that"
        elif path.suffix == ".zip":
            hint = f"open it with zarr.open_array(zarr.storage.ZipStore('{where}')) and pass that"
        elif path.suffix in {".csv", ".txt", ".parquet", ".feather"}:
            hint = "read it as a table, e.g. with pandas, and pass that, or write it to Zarr"
        elif path.suffix == ".nc":
            hint = "open it with xarray.open_dataset and pass that"
        raise SourceError(f"'{where}' is a file, not a Zarr array; {hint}")
    try:
        return zarr.open(place.store(read_only=True), mode="r")
    except FileNotFoundError as error:
        inside = sorted(
            child.name
            for child in path.iterdir()
            if any((child / name).exists() for name in ("zarr.json", ".zarray", ".zgroup"))
        )
        hint = f"; it holds '{where.rstrip('/')}/{inside[0]}', which does" if inside else ""
        raise SourceError(
            f"'{where}' is a directory but no Zarr array: it has no zarr.json or .zarray{hint}"
        ) from error
    except Exception as error:
        raise SourceError(f"'{where}' has unreadable Zarr metadata: {describe(error)}") from error


def _open_url(place: Place) -> Any:
    import zarr

    try:
        return retry(lambda: zarr.open(place.store(read_only=True), mode="r"), f"'{place}'")
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"there is no Zarr array at '{place}'") from error
    except ParameterError as error:
        raise SourceError(str(error)) from error
    except Exception as error:
        what = advice(error)
        more = f"; {what}" if what else ""
        raise SourceError(f"'{place}' cannot be opened: {describe(error)}{more}") from error


def _group_message(group: Any, where: str) -> str:
    """Say that a group is no array, and which arrays it holds."""
    found: list[tuple[str, Any]] = []
    more = ""
    try:
        import zarr

        for name, node in group.members(max_depth=None):
            if isinstance(node, zarr.Array):
                if len(found) == _LISTED:
                    more = ", and more"
                    break
                found.append((name, node))
    except Exception:  # a store that cannot list
        return f"'{where}' is a Zarr group, not an array; add the name of an array to it"
    if not found:
        return f"'{where}' is a Zarr group that holds no array"
    listed = ", ".join(f"'{name}' {node.shape} {node.dtype}" for name, node in sorted(found))
    return (
        f"'{where}' is a Zarr group, not an array; it holds {listed}{more}. Say which are "
        f"features, as in rows(…, features=['{min(found)[0]}']), or name one, e.g. "
        f"'{where.rstrip('/')}/{min(found)[0]}'"
    )


def _ref(array: zarr.Array[Any], name: str) -> ZarrRef:
    """Make an open array fit for other processes, and safe against truncated chunks."""
    import zarr

    from streamgmm.places.retrying import beneath

    store: Any = beneath(array.store)
    local = type(store) is zarr.storage.LocalStore
    resident = isinstance(store, zarr.storage.MemoryStore) or _only_here(store)
    if local and not store.root.is_absolute():
        store = zarr.storage.LocalStore(store.root.absolute(), read_only=True)
    chunks = None
    if local:
        find = local_chunks if array.shards is None else local_shards
        chunks = find(array, store.root)
    blosc = array.shards is None and _ends_in_blosc(array)
    if blosc or array.shards is not None:
        from streamgmm.sources.guard import GuardedStore

        store = GuardedStore(store, blosc)
    if store is not array.store:
        path = zarr.storage.StorePath(store, array.path)
        array = zarr.Array(zarr.AsyncArray(array.metadata, path))
    return ZarrRef(array, name, local, resident, chunks)


def _only_here(store: Any) -> bool:
    """Whether only this process can read a store.

    It is fsspec's ``memory://``, obstore's, or a session of Icechunk's that is being written.
    """
    if type(getattr(store, "store", None)).__name__ == "MemoryStore":
        return True
    if type(store).__module__.partition(".")[0] == "icechunk":
        return not store.session.read_only
    fs = getattr(store, "fs", None)
    protocol = getattr(getattr(fs, "sync_fs", fs), "protocol", ())
    return "memory" in ((protocol,) if isinstance(protocol, str) else protocol)


def _ends_in_blosc(array: zarr.Array[Any]) -> bool:
    compressors: Any = array.compressors
    return bool(compressors) and "blosc" in type(compressors[-1]).__name__.lower()
