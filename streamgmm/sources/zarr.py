"""Rows in Zarr, format 2 or 3: an array, a path, or a URL that fsspec can open."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import (
    ChunkError,
    ParameterError,
    SourceError,
    SourceNotFoundError,
)
from streamgmm.sources.array import ArrayBlock
from streamgmm.sources.base import (
    PIECE_BYTES,
    Block,
    Piece,
    as_rows,
    check_shape,
    even_runs,
    fixed_runs,
    float_dtype,
    split_piece,
)
from streamgmm.sources.chunks import LocalChunks, local_chunks
from streamgmm.sources.readahead import read_ahead, run_here
from streamgmm.sources.retry import retry
from streamgmm.sources.weights import ArrayPart, WeightPart, Weights, ZarrPart

if TYPE_CHECKING:
    import zarr

_REMOTE_DEPTH = 3
"""Pieces under way at once from a store whose latency is not a disk's."""

_LISTED = 12
"""Arrays of a group that a message names."""

_PROCESS = uuid.uuid4().hex
_seen: set[str] = set()


def is_zarr(value: object) -> bool:
    """Whether `value` is a Zarr array or group, or names one, without importing Zarr."""
    if isinstance(value, (str, os.PathLike)):
        return True
    module = sys.modules.get("zarr")
    return module is not None and isinstance(value, (module.Array, module.Group))


@dataclass(frozen=True)
class ZarrRef:
    """An open Zarr array that pickles small and reads in any process.

    Attributes
    ----------
    array : zarr.Array
    name : str
        What messages call it.
    local : bool
        Whether its store is a directory, so that reader threads read it themselves.
    resident : bool
        Whether its store is in this process's memory, out of reach for any other.
    chunks : LocalChunks or None
        How to read its chunks without Zarr, where that can be.
    process, token : str
        Who opened it, and which opening it was.
    """

    shared_by_blocks: ClassVar[bool] = True  # a cluster is sent it once, beside its blocks

    array: zarr.Array[Any]
    name: str
    local: bool
    resident: bool
    chunks: LocalChunks | None = None
    process: str = _PROCESS
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Read the rows ``start:stop``, all columns.

        Raises
        ------
        ChunkError
            If a chunk cannot be read or decoded; names it.
        SourceError
            If this process does not see the array that the other one opened.
        """
        self.check_seen()
        selection = (slice(start, stop), *(slice(None) for _ in self.array.shape[1:]))

        def read() -> NDArray[Any]:
            rows = None if self.chunks is None else self.chunks.read(start, stop)
            return self._get(selection) if rows is None else rows

        try:
            return retry(read, f"{self.name}, rows {start}:{stop}")
        except MemoryError:
            raise
        except Exception as error:
            self._name_chunk(start, stop, error)
            raise AssertionError from error

    def _get(self, selection: tuple[slice, ...]) -> NDArray[Any]:
        array = self.array
        if self.local:
            return np.asarray(run_here(lambda: _asynchronous(array).getitem(selection)))
        return np.asarray(array[selection])

    def _name_chunk(self, start: int, stop: int, error: Exception) -> None:
        """Read chunk by chunk to raise the error of the first that cannot be read."""
        array = self.array
        shape = array.shape
        unit = array.shards or array.chunks
        spans = [(start, stop), *((0, n) for n in shape[1:])]
        grid = [
            range(lo // step, -(-hi // step)) for (lo, hi), step in zip(spans, unit, strict=True)
        ]
        for index in product(*grid):
            selection = tuple(
                slice(max(lo, i * step), min(hi, (i + 1) * step))
                for i, step, (lo, hi) in zip(index, unit, spans, strict=True)
            )
            try:
                if self.chunks is not None:
                    self.chunks.read(selection[0].start, selection[0].stop)
                self._get(selection)
            except Exception as found:
                key = array.metadata.encode_chunk_key(index)
                rows = f"{index[0] * unit[0]}:{min(shape[0], (index[0] + 1) * unit[0])}"
                raise ChunkError(
                    f"{self.name}: chunk '{key}' (rows {rows}) cannot be read: "
                    f"{_describe(found)}; restore it from a copy, or write the array again"
                ) from found
        raise ChunkError(
            f"{self.name}: rows {start}:{stop} could not be read: {_describe(error)}; each chunk "
            "could on a second try, so run again, and look at the storage if it recurs"
        ) from error

    def fetch(self, start: int, stop: int) -> int:
        """Get the stored bytes of the rows ``start:stop`` and let them go; give how many.

        Of a chunk or shard that holds other rows too, the part of its bytes that is theirs.
        """
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        array = self.array
        unit = array.shards or array.chunks
        spans = [range(start // unit[0], -(-stop // unit[0]))]
        spans += [range(-(-n // step)) for n, step in zip(array.shape[1:], unit[1:], strict=True)]
        prefix = f"{array.path}/" if array.path else ""

        async def get() -> int:
            size = 0
            for index in product(*spans):
                key = prefix + array.metadata.encode_chunk_key(index)
                value = await array.store.get(key, default_buffer_prototype())
                size += 0 if value is None else len(value)
            return size

        size: int = run_here(get) if self.local else sync(get())
        return size * (stop - start) // (len(spans[0]) * unit[0])

    def check_seen(self) -> None:
        """Check that this process sees the array: what it does not see it would read as empty.

        Zarr gives the fill value for a chunk that is not there, so a worker without access to
        the file system of the client would otherwise read an array of zeros.

        Raises
        ------
        SourceError
        """
        if self.process == _PROCESS or self.token in _seen:
            return
        import zarr

        array = self.array
        store = getattr(array.store, "_store", array.store)
        advice = "give a path or URL that every worker can open, such as a shared file system"
        try:
            here = zarr.open_array(
                store, path=array.path, mode="r", zarr_format=array.metadata.zarr_format
            )
        except Exception as error:
            raise SourceError(
                f"{self.name} was opened elsewhere but is not to be seen from this worker "
                f"({_describe(error)}); {advice}"
            ) from error
        if (here.shape, here.dtype, here.chunks) != (array.shape, array.dtype, array.chunks):
            raise SourceError(
                f"{self.name} is {array.shape} {array.dtype} where it was opened, "
                f"but {here.shape} {here.dtype} on this worker; {advice}"
            )
        _seen.add(self.token)


def _describe(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@dataclass(frozen=True)
class ZarrBlock:
    """A run of whole chunks, or shards, read piece by piece where it is used."""

    ref: ZarrRef
    start: int
    n_rows: int
    weights: WeightPart | None

    @property
    def resident(self) -> bool:
        """Whether pickling the block carries its rows, or its weights."""
        return self.ref.resident or (self.weights is not None and self.weights.resident)

    @property
    def in_memory(self) -> bool:
        """Whether its rows are in memory, so that keeping them would hold them twice."""
        return self.ref.resident

    @property
    def futures(self) -> Mapping[Any, Any]:
        """Results on a cluster that the weights wait for."""
        return {} if self.weights is None else self.weights.futures

    @property
    def unit(self) -> int:
        """Rows in a chunk."""
        return int(self.ref.array.chunks[0])

    @property
    def n_features(self) -> int:
        """Columns."""
        return int(self.ref.array.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64, as the pieces are given."""
        return float_dtype(self.ref.array.dtype, self.ref.name)

    def part(self, start: int, stop: int) -> ZarrBlock:
        """Give the block of some of its rows."""
        return replace(self, start=start, n_rows=stop - start)

    def fetch(self, start: int, stop: int) -> int:
        """Get the stored bytes of some rows without decoding them; give how many."""
        return self.ref.fetch(start, stop)

    def check_seen(self) -> None:
        """Check that this process sees the array, and that of the weights."""
        self.ref.check_seen()
        if isinstance(self.weights, ZarrPart):
            self.weights.ref.check_seen()

    def fill(self, values: Mapping[Any, Any]) -> ZarrBlock:
        """Put values in the place of the futures."""
        if self.weights is None:
            return self
        return replace(self, weights=self.weights.fill(values))

    def __reduce__(self) -> tuple[Any, ...]:
        """Carry the rows, and the weights, of a store that no other process can read."""
        weights = self.weights
        if isinstance(weights, ZarrPart) and weights.resident:
            stop = self.start + self.n_rows
            weights = ArrayPart(self.start, weights.reader()(self.start, stop))
        if self.ref.resident:
            rows = self.ref.read(self.start, self.start + self.n_rows)
            dtype = float_dtype(self.ref.array.dtype, self.ref.name)
            return ArrayBlock, (self.start, rows, dtype, weights)
        return ZarrBlock, (self.ref, self.start, self.n_rows, weights)

    def pieces(self) -> Iterator[Piece]:
        """Read runs of whole chunks of about ``PIECE_BYTES``, the next while one is in use."""
        array = self.ref.array
        dtype = float_dtype(array.dtype, self.ref.name)
        chunk_bytes = array.chunks[0] * array.shape[1] * dtype.itemsize
        step = array.chunks[0] * max(1, PIECE_BYTES // chunk_bytes)
        read_weight = None if self.weights is None else self.weights.reader()

        def read(run: tuple[int, int]) -> Piece:
            a, b = run
            rows = as_rows(self.ref.read(a, b), dtype)
            return Piece(a, rows, None if read_weight is None else read_weight(a, b))

        runs = fixed_runs(self.start, self.start + self.n_rows, step)
        depth = 1 if self.ref.local else _REMOTE_DEPTH
        chunks = self.ref.chunks
        warm = chunks.warm if chunks is not None and hasattr(os, "posix_fadvise") else None
        return chain.from_iterable(map(split_piece, read_ahead(read, runs, depth, warm)))


@dataclass(frozen=True)
class ZarrSource:
    """A two-dimensional Zarr array.

    An array in a ``MemoryStore`` (or at ``memory://``) can be read by this process alone: its
    blocks carry their rows to any other.

    Parameters
    ----------
    ref : ZarrRef
    weights : Weights or None
    """

    ref: ZarrRef
    weights: Weights | None

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.ref.name

    @property
    def n_samples(self) -> int:
        """Rows."""
        return int(self.ref.array.shape[0])

    @property
    def n_features(self) -> int:
        """Columns."""
        return int(self.ref.array.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64, as the pieces are given."""
        return float_dtype(self.ref.array.dtype, self.name)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows, as the pieces are given."""
        return self.n_samples * self.n_features * self.dtype.itemsize

    def blocks(
        self, target_bytes: int, start: int = 0, stop: int | None = None
    ) -> Sequence[Block]:
        """Cut the rows evenly between chunks; between shards, where there are shards."""
        unit = (self.ref.array.shards or self.ref.array.chunks)[0]
        row_bytes = self.n_features * self.dtype.itemsize
        return [
            ZarrBlock(
                self.ref, a, b - a, None if self.weights is None else self.weights.part(a, b)
            )
            for a, b in even_runs(
                start, self.n_samples if stop is None else stop, unit, row_bytes, target_bytes
            )
        ]


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
    """Open an array, a path or a URL for reading anywhere.

    Parameters
    ----------
    X : zarr.Array, str or path-like
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

    if isinstance(X, zarr.Array):
        return _ref(X, f"array '{X.store_path}'")
    if isinstance(X, zarr.Group):
        raise SourceError(_group_message(X, str(X.store_path)))
    where = os.fsdecode(X)  # type: ignore[arg-type]
    if where.startswith(("file://", "local://")):
        where = url2pathname(urlsplit(where).path)
    if "://" in where or "::" in where:
        node = _open_url(where, storage_options)
    elif storage_options:
        raise ParameterError(f"storage_options are for URLs; '{where}' is a local path")
    else:
        node = _open_path(where)
    if isinstance(node, zarr.Group):
        raise SourceError(_group_message(node, where))
    return _ref(node, f"array '{where}'")


def _open_path(where: str) -> Any:
    import zarr

    path = Path(where).absolute()
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
        elif path.suffix in {".h5", ".hdf5", ".nc"}:
            hint = "open it with dask.array or xarray and pass a dask array, or write it to Zarr"
        raise SourceError(f"'{where}' is a file, not a Zarr array; {hint}")
    store = zarr.storage.LocalStore(path, read_only=True)
    try:
        return zarr.open(store, mode="r")
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
        raise SourceError(f"'{where}' has unreadable Zarr metadata: {_describe(error)}") from error


def _open_url(where: str, storage_options: dict[str, Any] | None) -> Any:
    import zarr

    try:
        return zarr.open(where, mode="r", storage_options=storage_options)
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"there is no Zarr array at '{where}'") from error
    except ImportError as error:
        raise SourceError(
            f"'{where}' needs a file system that is not installed: {error}; "
            "pip install 'streamgmm[remote]' has those for s3:// and http://"
        ) from error
    except Exception as error:
        raise SourceError(f"'{where}' cannot be opened: {_describe(error)}") from error


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
        f"'{where}' is a Zarr group, not an array; it holds {listed}{more}. Name one, e.g. "
        f"'{where.rstrip('/')}/{min(found)[0]}'"
    )


def _ref(array: zarr.Array[Any], name: str) -> ZarrRef:
    """Make an open array fit for other processes, and safe against truncated chunks."""
    import zarr

    store: Any = array.store
    local = type(store) is zarr.storage.LocalStore
    resident = isinstance(store, zarr.storage.MemoryStore) or _in_memory(store)
    if local and not store.root.is_absolute():
        store = zarr.storage.LocalStore(store.root.absolute(), read_only=True)
    chunks = local_chunks(array, store.root) if local else None
    blosc = array.shards is None and _ends_in_blosc(array)
    if blosc or array.shards is not None:
        from streamgmm.sources.guard import GuardedStore

        store = GuardedStore(store, blosc)
    if store is not array.store:
        path = zarr.storage.StorePath(store, array.path)
        array = zarr.Array(zarr.AsyncArray(array.metadata, path))
    return ZarrRef(array, name, local, resident, chunks)


def _asynchronous(array: zarr.Array[Any]) -> Any:
    """Give the asynchronous side of an array; before Zarr 3.1 it had no public name."""
    return getattr(array, "async_array", None) or array._async_array


def _in_memory(store: Any) -> bool:
    """Whether a store is fsspec's ``memory://``."""
    fs = getattr(store, "fs", None)
    protocol = getattr(getattr(fs, "sync_fs", fs), "protocol", ())
    return "memory" in ((protocol,) if isinstance(protocol, str) else protocol)


def _ends_in_blosc(array: zarr.Array[Any]) -> bool:
    compressors: Any = array.compressors
    return bool(compressors) and "blosc" in type(compressors[-1]).__name__.lower()
