"""Rows in Zarr, format 2 or 3: an array, a path, or a URL that fsspec can open."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, product
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import (
    ChunkError,
    SourceError,
)
from streamgmm.sources.array import ArrayBlock
from streamgmm.sources.base import (
    PIECE_BYTES,
    Block,
    Piece,
    as_rows,
    even_runs,
    fixed_runs,
    float_dtype,
    split_piece,
)
from streamgmm.sources.chunks import LocalChunks
from streamgmm.sources.readahead import read_ahead, run_here
from streamgmm.sources.retry import retry
from streamgmm.sources.weights import ArrayPart, WeightPart, Weights, ZarrPart

if TYPE_CHECKING:
    import zarr

_REMOTE_DEPTH = 3
"""Pieces under way at once from a store whose latency is not a disk's."""

_PROCESS = uuid.uuid4().hex
_seen: set[str] = set()


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
            return np.asarray(run_here(lambda: array.async_array.getitem(selection)))
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
                    f"{describe(found)}; restore it from a copy, or write the array again"
                ) from found
        raise ChunkError(
            f"{self.name}: rows {start}:{stop} could not be read: {describe(error)}; each chunk "
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
                f"({describe(error)}); {advice}"
            ) from error
        if (here.shape, here.dtype, here.chunks) != (array.shape, array.dtype, array.chunks):
            raise SourceError(
                f"{self.name} is {array.shape} {array.dtype} where it was opened, "
                f"but {here.shape} {here.dtype} on this worker; {advice}"
            )
        _seen.add(self.token)


def describe(error: BaseException) -> str:
    """Give the kind of an error and what it says, on one line."""
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
