"""Rows that Dask computes: a ``dask.array`` with rows and columns."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError
from streamgmm.sources.base import (
    Block,
    Piece,
    Table,
    as_rows,
    check_shape,
    float_dtype,
    split_piece,
)
from streamgmm.sources.blocks import BlockBase
from streamgmm.sources.readahead import read_ahead
from streamgmm.sources.weights import Reader, Values, WeightPart, Weights, check_weights


def is_dask_array(value: object) -> bool:
    """Whether `value` is a dask array, without importing Dask."""
    module = sys.modules.get("dask.array")
    return module is not None and isinstance(value, module.Array)


def check_known(array: Any, name: str) -> None:
    """Check that Dask knows the sizes of all chunks.

    Raises
    ------
    DataError
        Says how to have them computed.
    """
    if any(math.isnan(size) for sizes in array.chunks for size in sizes):
        raise DataError(
            f"{name} is a dask array of unknown chunk sizes (shape {array.shape}); call its "
            "compute_chunk_sizes() first, or to_dask_array(lengths=True) on a dataframe"
        )


@dataclass(frozen=True)
class Lazy:
    """Some chunks of a dask array: the part of its graph that makes them.

    Attributes
    ----------
    graph : dict
        Culled to what the keys need.
    keys : list
    waiting : tuple
        Keys of results on a cluster that the graph refers to.
    futures : dict
        Those results by key; never pickled.
    """

    graph: dict[Any, Any]
    keys: list[Any]
    waiting: tuple[Any, ...] = ()
    futures: Mapping[Any, Any] = field(default_factory=dict)

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave out the futures: whoever sends the graph fills them in."""
        return Lazy, (self.graph, self.keys, self.waiting)

    def fill(self, values: Mapping[Any, Any]) -> Lazy:
        """Replace the futures by their values."""
        found = {key: values[key] for key in self.waiting}
        return Lazy({**self.graph, **found}, self.keys)

    def compute(self) -> list[NDArray[Any]]:
        """Compute the chunks here, in this thread."""
        import dask.local

        lazy = self
        if self.futures:
            first = next(iter(self.futures.values()))
            lazy = self.fill(first.client.gather(dict(self.futures)))
        return [np.asarray(chunk) for chunk in dask.local.get_sync(lazy.graph, lazy.keys)]


def lazy_parts(array: Any, groups: Sequence[list[Any]]) -> list[Lazy]:
    """Cut the graph of `array` into what each group of its keys needs."""
    import dask.base
    import dask.optimization

    raw = dict(array.__dask_graph__())
    futures = {key: value for key, value in raw.items() if hasattr(value, "add_done_callback")}
    # Dask's optimisation drops the futures of persisted collections from the graph.
    graph = raw if futures else dict(dask.base.optimize(array)[0].__dask_graph__())  # type: ignore[no-untyped-call]
    parts = []
    for keys in groups:
        part, _ = dask.optimization.cull(graph, list(keys))  # type: ignore[no-untyped-call]
        waiting = {key: futures[key] for key in part if key in futures}
        rest = {key: value for key, value in part.items() if key not in waiting}
        parts.append(Lazy(rest, list(keys), tuple(waiting), waiting))
    return parts


@dataclass(frozen=True)
class DaskBlock(BlockBase):
    """A run of whole chunks of a dask array, computed chunk by chunk where it is read.

    Attributes
    ----------
    chunks : tuple of (start, stop, Lazy)
        Each with all its column chunks.
    """

    start: int
    n_rows: int
    chunks: tuple[tuple[int, int, Lazy], ...]
    dtype: np.dtype[Any]
    n_features: int
    name: str
    weights: WeightPart | None

    resident = True

    @property
    def in_memory(self) -> bool:
        """Whether its chunks are results that are in the memory of a cluster."""
        return any(lazy.waiting for _, _, lazy in self.chunks)

    @property
    def futures(self) -> Mapping[Any, Any]:
        """Results on a cluster that the graphs refer to."""
        found = {} if self.weights is None else dict(self.weights.futures)
        for _, _, lazy in self.chunks:
            found.update(lazy.futures)
        return found

    def fill(self, values: Mapping[Any, Any]) -> DaskBlock:
        """Replace the futures by their values."""
        return replace(
            self,
            chunks=tuple((a, b, lazy.fill(values)) for a, b, lazy in self.chunks),
            weights=None if self.weights is None else self.weights.fill(values),
        )

    def pieces(self) -> Iterator[Piece]:
        """Compute chunk by chunk with Dask's synchronous scheduler, with read-ahead of one."""
        read_weight = None if self.weights is None else self.weights.reader()

        def read(chunk: tuple[int, int, Lazy]) -> Piece:
            a, b, lazy = chunk
            columns = lazy.compute()
            rows = columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1)
            if rows.shape != (b - a, self.n_features):
                raise DataError(
                    f"{self.name}, rows {a}:{b}: the computed chunk has shape {rows.shape}, "
                    f"but the array says {(b - a, self.n_features)}"
                )
            weight = None if read_weight is None else read_weight(a, b)
            return Piece(a, as_rows(rows, self.dtype), weight)

        return chain.from_iterable(map(split_piece, read_ahead(read, self.chunks)))


@dataclass(frozen=True)
class DaskSource(Table):
    """A two-dimensional dask array.

    Work that several chunks share in the graph, such as a rechunk, is repeated for each chunk.
    Store such an array first, or persist it.

    Parameters
    ----------
    array : dask.array.Array of shape (n_samples, n_features)
    weights : Weights or None
    name : str
    """

    array: Any
    weights: Weights | None
    name: str = "X"

    @property
    def table(self) -> Any:
        """The rows."""
        return self.array

    def blocks(
        self, target_bytes: int, start: int = 0, stop: int | None = None
    ) -> Sequence[Block]:
        """Take whole row chunks together while they fit the target."""
        row_bytes = self.n_features * self.dtype.itemsize
        whole = start == 0 and stop in (None, self.n_samples)
        array = self.array if whole else self.array[start:stop]
        edges = (start + np.concatenate([[0], np.cumsum(array.chunks[0])])).tolist()
        parts = lazy_parts(array, array.__dask_keys__())
        runs: list[list[tuple[int, int, Lazy]]] = []
        for a, b, lazy in zip(edges[:-1], edges[1:], parts, strict=True):
            if a == b:
                continue
            if runs and (b - runs[-1][0][0]) * row_bytes <= target_bytes:
                runs[-1].append((a, b, lazy))
            else:
                runs.append([(a, b, lazy)])
        return [self._block(tuple(run)) for run in runs]

    def _block(self, run: tuple[tuple[int, int, Lazy], ...]) -> DaskBlock:
        start, stop = run[0][0], run[-1][1]
        weights = None if self.weights is None else self.weights.part(start, stop)
        return DaskBlock(start, stop - start, run, self.dtype, self.n_features, self.name, weights)


@dataclass(frozen=True)
class DaskPart:
    """Lazy weights of the rows from `start` on, computed together when first wanted."""

    start: int
    lazy: Lazy

    resident = True

    @property
    def futures(self) -> Mapping[Any, Any]:
        """The results that the graph waits for."""
        return self.lazy.futures

    def fill(self, values: Mapping[Any, Any]) -> DaskPart:
        """Replace the futures by their values."""
        return replace(self, lazy=self.lazy.fill(values))

    def reader(self) -> Reader:
        """Give slices of the weights, computed once."""
        lock = threading.Lock()
        whole: Values | None = None

        def read(a: int, b: int) -> Values:
            nonlocal whole
            with lock:
                if whole is None:
                    whole = check_weights(np.concatenate(self.lazy.compute()), self.start)
            return whole[a - self.start : b - self.start]

        return read


@dataclass(frozen=True)
class DaskWeights:
    """Weights in a one-dimensional dask array."""

    array: Any

    def part(self, start: int, stop: int) -> DaskPart:
        """Give the graph of the weights of the rows ``start:stop``."""
        array = self.array[start:stop]
        return DaskPart(start, lazy_parts(array, [array.__dask_keys__()])[0])


def parse_dask(array: Any, name: str = "X") -> Any:
    """Check that a dask array is a table of real numbers with known sizes.

    Raises
    ------
    DataError
        If it is not two-dimensional, empty, of unknown chunk sizes, or no real number.
    """
    check_known(array, name)
    check_shape(array.shape, name)
    float_dtype(array.dtype, name)
    return array
