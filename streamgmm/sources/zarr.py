"""Rows and weights in Zarr: blocks of whole chunks or shards, read by the task that uses them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np

from streamgmm.sources.array import ArrayBlock, ArrayPart, ArrayWeights
from streamgmm.sources.base import (
    AUTO_MAX_BYTES,
    PIECE_BYTES,
    Block,
    Piece,
    Table,
    as_rows,
    even_runs,
    fixed_runs,
    float_dtype,
    split_piece,
)
from streamgmm.sources.blocks import BlockBase
from streamgmm.sources.cubes import names_of, open_cube
from streamgmm.sources.readahead import read_ahead
from streamgmm.sources.regions import RegionSource
from streamgmm.sources.weights import Reader, Values, WeightPart, Weights, check_weights
from streamgmm.sources.zarr_ref import ZarrRef

_REMOTE_DEPTH = 3
"""Depth of read-ahead for remote stores, whose latency is larger than a disk's."""

_RUN_ROWS = 4 << 20
"""Weights read at once (32 MiB), so that each of their chunks is decoded about once."""


@dataclass(frozen=True)
class ZarrPart:
    """Weights in a Zarr array, of the rows ``start:stop``."""

    ref: ZarrRef
    stop: int

    futures: Mapping[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def resident(self) -> bool:
        """Whether the store lives in this process's memory."""
        return self.ref.resident

    def fill(self, values: Mapping[Any, Any]) -> ZarrPart:
        """Give this part itself, which has no futures."""
        return self

    def reader(self) -> Reader:
        """Give slices; the weights are read when they are used, a long run at a time."""
        lock = threading.Lock()
        start, run = 0, np.empty(0)

        def read(a: int, b: int) -> Values:
            nonlocal start, run
            with lock:
                if not (start <= a and b <= start + len(run)):
                    start, stop = a, min(max(b, a + _RUN_ROWS), self.stop)
                    run = check_weights(self.ref.read(a, stop), a, self.ref.name)
                return run[a - start : b - start]

        return read


@dataclass(frozen=True)
class ZarrWeights:
    """Weights in a one-dimensional Zarr array."""

    ref: ZarrRef

    def part(self, start: int, stop: int) -> ZarrPart:
        """Give the weights of the rows ``start:stop``; nothing is read yet."""
        return ZarrPart(self.ref, stop)


@dataclass(frozen=True)
class ZarrBlock(BlockBase):
    """A run of whole chunks, or shards, read piece by piece where it is used."""

    ref: ZarrRef
    start: int
    n_rows: int
    weights: WeightPart | None

    @property
    def resident(self) -> bool:
        """Whether the pickle of the block contains its rows, or its weights."""
        return self.ref.resident or (self.weights is not None and self.weights.resident)

    @property
    def in_memory(self) -> bool:
        """Whether its rows are in memory, so that a cache would hold them twice."""
        return self.ref.resident

    @property
    def futures(self) -> Mapping[Any, Any]:
        """Results on a cluster that the weights wait for."""
        return {} if self.weights is None else self.weights.futures

    @property
    def unit(self) -> int:  # type: ignore[override]
        """Rows in a chunk."""
        return int(self.ref.array.chunks[0])

    @property
    def ahead(self) -> int:  # type: ignore[override]
        """More of a store that is far away."""
        return 2 if self.ref.local else 1 + _REMOTE_DEPTH

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
        """Read the stored bytes of some rows without decoding them; give how many."""
        return self.ref.fetch(start, stop)

    def check_seen(self) -> None:
        """Check that this process has access to the array, and to that of the weights."""
        self.ref.check_seen()
        if isinstance(self.weights, ZarrPart):
            self.weights.ref.check_seen()

    def fill(self, values: Mapping[Any, Any]) -> ZarrBlock:
        """Replace the futures by their values."""
        if self.weights is None:
            return self
        return replace(self, weights=self.weights.fill(values))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the rows, and the weights, of a store that no other process can read."""
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
        """Read runs of whole chunks of about ``PIECE_BYTES``, with read-ahead of the next."""
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
        chunks = self.ref.chunks
        if chunks is not None and chunks.codec == "raw" and array.chunks[1] >= array.shape[1]:
            runs = _in_parts(runs, array.shape[1] * dtype.itemsize)
        depth = 1 if self.ref.local else _REMOTE_DEPTH
        local = self.ref.chunks is not None and hasattr(os, "posix_fadvise")

        def warm(run: tuple[int, int]) -> None:
            self.ref.warm((slice(*run), slice(None)))

        given = warm if local else None
        return chain.from_iterable(map(split_piece, read_ahead(read, runs, depth, given)))


def _in_parts(runs: Sequence[tuple[int, int]], row_bytes: int) -> list[tuple[int, int]]:
    """Cut runs as `split_piece` cuts pieces: of what is not compressed, parts can be read."""
    most = max(1, PIECE_BYTES // row_bytes)
    return [
        part
        for a, b in runs
        for part in (fixed_runs(a, b, most) if b - a > 2 * most else [(a, b)])
    ]


@dataclass(frozen=True)
class ZarrSource(Table):
    """A two-dimensional Zarr array.

    An array in a ``MemoryStore`` (or at ``memory://``) can be read by this process alone. So the
    pickles of its blocks contain their rows.

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
    def table(self) -> Any:
        """The rows."""
        return self.ref.array

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """Those that the array's attributes say."""
        return names_of(dict(self.ref.array.attrs), self.n_features)

    def reordered(self, names: Sequence[str]) -> RegionSource:
        """Give the same rows with their features as `names` has them; all must be there."""
        known = self.feature_names
        assert known is not None
        weight: Any = None
        if isinstance(self.weights, ZarrWeights):
            weight = self.weights.ref.array
        elif isinstance(self.weights, ArrayWeights):
            weight = self.weights.values
        elif self.weights is not None:
            weight = self.weights.array  # type: ignore[attr-defined]
        picks = [known.index(name) for name in names]
        cube = open_cube(self.ref.array, features=picks, sample_weight=weight)
        return replace(cube, name=self.name)

    def blocks(
        self, target_bytes: int, start: int = 0, stop: int | None = None
    ) -> Sequence[Block]:
        """Cut the rows evenly between chunks; between shards of up to ``AUTO_MAX_BYTES``."""
        array, row_bytes = self.ref.array, self.n_features * self.dtype.itemsize
        unit = array.chunks[0]
        if array.shards is not None and array.shards[0] * row_bytes <= AUTO_MAX_BYTES:
            unit = array.shards[0]
        return [
            ZarrBlock(
                self.ref, a, b - a, None if self.weights is None else self.weights.part(a, b)
            )
            for a, b in even_runs(
                start, self.n_samples if stop is None else stop, unit, row_bytes, target_bytes
            )
        ]
