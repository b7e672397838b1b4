"""Rows out: a Zarr array that many processes write, and that exists only after a commit.

Zarr knows an array by its metadata. So the chunks are written first, beside metadata that mark
the place as unfinished. The commit replaces these by the metadata of the array, in one step.
Before it, or after a crash or on a full disk, a reader finds no array. This holds on file systems
and in object stores. A long file, since each kind of place must keep one promise, said once.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import OutputError, OutputExistsError, ParameterError
from streamgmm.places import Place, ZarrStore
from streamgmm.places.retry import advice, said
from streamgmm.sources.hdf5 import is_hdf5
from streamgmm.storage.annotations import ENCODING, Annotation, annotation_of

if TYPE_CHECKING:
    import zarr

_seen: set[str] = set()


@dataclass(frozen=True)
class Output:
    """An array that is being written; pickles small and writes from any process.

    Attributes
    ----------
    array : zarr.Array
        Its metadata are in memory only.
    name : str
        What messages call it.
    token : str
        The id of this output, which is in the metadata that mark it as unfinished.
    within : Annotation or None
        The AnnData store that it is a part of.
    """

    array: zarr.Array[Any]
    name: str
    token: str
    within: Annotation | None = None

    @property
    def n_rows(self) -> int:
        """Rows in all."""
        return int(self.array.shape[0])

    @property
    def chunk_rows(self) -> int:
        """Rows in a chunk; writes should be of whole chunks."""
        return int(self.array.chunks[0])

    @property
    def resident(self) -> bool:
        """Whether the store is in this process's memory, so that no other can write to it."""
        from streamgmm.sources.zarr_open import open_ref

        return open_ref(self.array).resident

    def write(self, start: int, values: NDArray[Any]) -> None:
        """Write whole chunks from row `start` on.

        Raises
        ------
        OutputError
            Names the output and the cause.
        """
        self.write_box((slice(start, start + len(values)),), values)

    def write_box(self, box: tuple[slice, ...], values: NDArray[Any]) -> None:
        """Write whole chunks: those of a box, which may leave out the last axes.

        Raises
        ------
        OutputError
            As `write`.
        """
        if self.token not in _seen:
            self._check_seen()
        try:
            self.array[box] = values
        except Exception as error:
            each = ", ".join(f"{part.start}:{part.stop}" for part in box)
            what = f"rows {each}" if len(box) == 1 else f"[{each}]"
            raise self._failed(what, error) from error

    def commit(self) -> zarr.Array[Any]:
        """Write the metadata that make it an array, and open it."""
        import zarr
        from zarr.core.buffer import default_buffer_prototype

        from streamgmm.places.retrying import beneath

        place = self.array.store_path
        try:
            metadata = self.array.metadata.to_buffer_dict(default_buffer_prototype())
            for key, value in reversed(metadata.items()):  # of format 2 attributes first
                _run((place / key).set(value))
            if "zarr.json" not in metadata:
                _run((place / "zarr.json").delete())  # the mark, which hid it
            if self.within is not None:
                self.within.register()
            there = zarr.open_array(place.store, path=place.path, mode="r+")
            where = type(place)(beneath(place.store), place.path)
            return zarr.Array(zarr.AsyncArray(there.metadata, where))
        except Exception as error:
            raise self._failed("its metadata", error) from error

    def note(self, more: dict[str, Any]) -> None:
        """Write something into the mark of an unfinished output: how far its writer is.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        try:
            _mark(self.array.store_path, self.token, more, self.array.metadata)
        except Exception as error:
            raise self._failed("its metadata", error) from error

    def discard(self) -> None:
        """Rollback: remove all that was written. If that fails, what is left is no array."""
        try:
            _run(self.array.store_path.delete_dir())
        except Exception:
            return

    def _failed(self, what: str, error: Exception) -> OutputError:
        more = advice(error)
        return OutputError(
            f"{self.name}: {what} could not be written ({said(error)}); what was written of it is "
            f"removed{f'; {more}' if more else ''}"
        )

    def _check_seen(self) -> None:
        """Check that this process has access to the place that the client opened."""
        attributes = _attributes(self.array.store_path)
        if attributes is None or attributes.get("token") != self.token:
            raise OutputError(
                f"{self.name} was opened elsewhere but is not to be seen from this process; give "
                "a path or URL that every worker can open, such as a shared file system"
            )
        _seen.add(self.token)


def create_output(
    out: object,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    chunks: tuple[int, ...],
    *,
    fill_value: float,
    attributes: dict[str, Any],
    overwrite: bool = False,
    storage_options: dict[str, Any] | None = None,
    beside: Sequence[zarr.Array[Any]] = (),
    dims: Sequence[str] | None = None,
    shards: tuple[int, ...] | None = None,
) -> Output:
    """Begin an array: check that its place is free, and mark it as unfinished.

    Parameters
    ----------
    out : str, path-like, URL, zarr store or zarr.storage.StorePath
    shape, dtype, chunks, fill_value, attributes
        Of the Zarr array (format 3); the attributes as JSON.
    overwrite : bool
        Whether an array, or an unfinished output of an earlier run, may be removed. Anything
        else is never removed.
    storage_options : dict, optional
        For the fsspec file system of a URL.
    beside : sequence of zarr.Array
        Arrays that are read meanwhile, which must not be overwritten.
    dims : sequence of str, optional
        Names of the dimensions.
    shards : tuple of int, optional
        Of the Zarr array; then what is written must be whole shards.

    Raises
    ------
    OutputExistsError
        If there is something at the place.
    ParameterError
        If `out` is no place, or that of `beside`.
    OutputError
        If it cannot be written to.
    """
    name, place = _parse_place(out, storage_options)
    if any(_overlap(place, each.store_path) for each in beside):
        raise ParameterError(f"{name} is where the data are that are read; give another path")
    within = annotation_of(place)
    if within is not None:
        within.check(shape, name)
    _make_free(name, place, overwrite, within)
    metadata = _metadata(shape, dtype, chunks, fill_value, attributes, dims, shards, within)
    output = _output(metadata, place, name, uuid.uuid4().hex, within)
    try:
        _mark(place, output.token, {}, metadata)
    except Exception as error:
        output.discard()
        raise output._failed("its metadata", error) from error
    return output


def taken_up(
    out: str | os.PathLike[str] | Place,
    noted: dict[str, Any],
    *,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    chunks: tuple[int, ...],
    fill_value: float,
    attributes: dict[str, Any],
    dims: Sequence[str] | None = None,
    shards: tuple[int, ...] | None = None,
) -> tuple[Output | None, int]:
    """Take up an output whose writer ended, if it noted the same `noted` with `Output.note`.

    Returns
    -------
    output : Output or None
        None where there is nothing to take up.
    done : int
        Rows that were noted to be written.
    """
    name, place = _parse_place(out, None)
    mark = _attributes(place)
    if mark is None or mark.get("converted") != noted:
        return None, 0
    within = annotation_of(place)
    metadata = _metadata(shape, dtype, chunks, fill_value, attributes, dims, shards, within)
    return _output(metadata, place, name, str(mark["token"]), within), int(mark["done"])


def _metadata(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    chunks: tuple[int, ...],
    fill_value: float,
    attributes: dict[str, Any],
    dims: Sequence[str] | None,
    shards: tuple[int, ...] | None,
    within: Annotation | None,
) -> Any:
    """The metadata that the array will have."""
    import zarr
    from zarr.codecs import ZstdCodec

    compressor: Any = ZstdCodec(level=1)  # the size of the default level, but faster
    zarr_format: Any = 3
    if within is not None:
        attributes, zarr_format = attributes | ENCODING, within.zarr_format
    if zarr_format == 2:
        import numcodecs

        compressor, dims, shards = numcodecs.Zstd(level=1), None, None

    template = zarr.create_array(
        zarr.storage.MemoryStore(),
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        shards=shards,
        compressors=compressor,
        fill_value=fill_value,
        attributes=attributes,
        dimension_names=dims,
        zarr_format=zarr_format,
    )
    return template.async_array.metadata


def _output(metadata: Any, place: Any, name: str, token: str, within: Annotation | None) -> Output:
    import zarr

    return Output(zarr.Array(zarr.AsyncArray(metadata, place)), name, token, within)


def _mark(place: Any, token: str, more: dict[str, Any], metadata: Any) -> None:
    """Mark a place as that of an unfinished output: a group, or in Icechunk an array.

    Icechunk takes chunks of arrays only, and shows nothing to others before it is told to.
    """
    from zarr.core.buffer import default_buffer_prototype

    from streamgmm.places.retrying import beneath

    mark = {"streamgmm": {"unfinished": True, "token": token} | more}
    root = {"zarr_format": 3, "node_type": "group", "attributes": mark}
    if type(beneath(place.store)).__module__.startswith("icechunk."):
        root = metadata.to_dict() | {"attributes": mark}
    make = default_buffer_prototype().buffer.from_bytes
    _run((place / "zarr.json").set(make(json.dumps(root).encode())))


def is_unfinished(path: str | os.PathLike[str] | Place) -> bool:
    """Whether there is an output at `path` that is being written, or was when its writer ended.

    Examples
    --------
    >>> is_unfinished("nowhere.zarr")
    False
    """
    return _attributes(_parse_place(path, None)[1]) is not None


def _parse_place(out: object, storage_options: dict[str, Any] | None) -> tuple[str, Any]:
    """Give the name and the `StorePath` of an output."""
    import zarr
    from zarr.storage import StorePath

    if not isinstance(out, (str, os.PathLike, Place, ZarrStore)):
        kind = " (pass its store_path)" if isinstance(out, (zarr.Array, zarr.Group)) else ""
        raise ParameterError(
            f"out is a {type(out).__name__}{kind}; give a path, a URL or a Zarr store"
        )
    parsed = Place.parse(out, storage_options)
    if is_hdf5(parsed):
        raise ParameterError(
            f"output '{parsed}' would be in HDF5, which threads and processes cannot write "
            "together; give a path of Zarr or Parquet"
        )
    store = parsed.store()
    return f"output '{parsed}'", store if isinstance(store, StorePath) else StorePath(store)


def _make_free(name: str, place: Any, overwrite: bool, within: Annotation | None) -> None:
    """Check that the place is free, or remove what may be replaced."""
    import zarr

    directory = _directory(place)
    if directory is not None and directory.exists() and not directory.is_dir():
        raise OutputExistsError(f"{name} is a file; give another path")
    try:
        if _run(place.is_empty()):
            return
        held = _run(_first_names(place))
    except Exception as error:
        more = advice(error)
        raise OutputError(
            f"{name} cannot be looked at ({said(error)}){f'; {more}' if more else ''}"
        ) from error
    try:
        node: Any = zarr.open(place.store, path=place.path, mode="r")
    except Exception:
        node = None
    unfinished = _attributes(place) is not None
    if isinstance(node, zarr.Array) and not unfinished:
        what = "exists"
    elif unfinished or held == {"c"}:
        what = "is unfinished: it is being written, or was when its writer ended"
    else:
        kind = "a Zarr group" if isinstance(node, zarr.Group) else "something that is no array"
        raise OutputExistsError(f"{name} is {kind}, which is not replaced; give another path")
    if not overwrite:
        raise OutputExistsError(f"{name} {what}; pass overwrite=True to replace it")
    try:
        if within is not None:
            within.register(False)
        _run(place.delete_dir())
    except Exception as error:
        raise OutputError(f"{name} could not be removed ({error})") from error


async def _first_names(place: Any) -> set[str]:
    """List up to two names at a place, to tell whether it holds only chunks."""
    names: set[str] = set()
    async for name in place.store.list_dir(place.path):
        names.add(name.rstrip("/"))
        if len(names) > 1:
            break
    return names


def _attributes(place: Any) -> dict[str, Any] | None:
    """Give the mark of an unfinished output; None if there is none."""
    directory = _directory(place)
    try:
        if directory is not None:  # opening a store would make its directory
            root = json.loads((directory / "zarr.json").read_bytes())
        else:
            value = _run((place / "zarr.json").get())
            root = {} if value is None else json.loads(value.to_bytes())
    except Exception:
        return None
    mark = root.get("attributes", {}).get("streamgmm") if isinstance(root, dict) else None
    return mark if isinstance(mark, dict) and mark.get("unfinished") is True else None


def _directory(place: Any) -> Path | None:
    """Give the directory of a place on a local disk."""
    from zarr.storage import LocalStore

    store = getattr(place.store, "_store", place.store)
    return (store.root / place.path).absolute() if isinstance(store, LocalStore) else None


def _overlap(a: Any, b: Any) -> bool:
    """Whether one of two places is, or is inside, the other."""
    paths = []
    for place in (a, b):
        directory = _directory(place)
        store = getattr(place.store, "_store", place.store)
        where = str(type(place)(store, place.path)) if directory is None else directory.resolve()
        paths.append(str(where).rstrip("/") + "/")
    return paths[0].startswith(paths[1]) or paths[1].startswith(paths[0])


def _run(coroutine: Any) -> Any:
    from zarr.core.sync import sync

    return sync(coroutine)
