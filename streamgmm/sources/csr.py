"""Sparse rows (CSR), in memory or stored: a run of rows is made dense where it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError
from streamgmm.sources.grid import Edges, regular_edges
from streamgmm.sources.variables import Box, Held, HeldPart

DENSE_BYTES = 1 << 20
"""Bytes of dense rows that are made at a time, about."""

STORED_BYTES = 8 << 20
"""Bytes of values and column numbers that are read for them, at the most, about."""


@dataclass(frozen=True)
class Csr:
    """A matrix in compressed sparse rows, of which some columns are wanted.

    Where rows begin is held in memory: 8 bytes a row. Its values and column numbers are read in
    order, each chunk once in a block; so the last chunk of a read is kept for the next.

    Attributes
    ----------
    name : str
    values, indices : Stored
        One-dimensional: the values that are stored, and their columns.
    indptr : ndarray of int64, (rows + 1,)
        Where the values of each row begin.
    width : int
        Columns of the matrix.
    picks : tuple of int or None
        Those that are wanted, in order; None for all.
    """

    name: str
    values: Any
    indices: Any
    indptr: NDArray[np.int64]
    width: int
    picks: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and columns that are wanted."""
        return len(self.indptr) - 1, self.width if self.picks is None else len(self.picks)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        dtype: np.dtype[Any] = self.values.dtype
        return dtype

    @property
    def resident(self) -> bool:
        """Whether no other process can read its values."""
        return bool(self.values.resident or self.indices.resident)

    @property
    def in_memory(self) -> bool:
        """Whether its values are in memory; dense rows are not, so a cache of those is of use."""
        return False

    @property
    def held(self) -> bool:
        """Whether its values are in this process's memory."""
        return isinstance(self.values, Held)

    def edges(self, axis: int) -> Edges | None:
        """Cut rows so that neither what is read nor what is made of it is large."""
        if axis == 1:
            return None
        n_rows, n_columns = self.shape
        item = self.values.dtype.itemsize + self.indices.dtype.itemsize
        row_bytes = max(1, int(self.indptr[-1]) * item // max(1, n_rows))
        dense = DENSE_BYTES // max(1, n_columns * 8)
        return regular_edges(n_rows, max(1, min(dense, STORED_BYTES // row_bytes)))

    def parts(self, runs: Sequence[Sequence[Box]], cuts: Sequence[Edges]) -> list[CsrPart]:
        """Give each run its values, and where its rows begin."""
        spans = [(run[0][0].start, run[-1][0].stop) for run in runs]
        boxes = [[(slice(int(self.indptr[a]), int(self.indptr[b])),)] for a, b in spans]
        step = None
        edges = self.values.edges(0)
        if edges is not None and len(edges) > 1:
            step = edges[1]
        return [
            CsrPart(self.name, values, indices, a, self.indptr[a : b + 1], self.width, self.picks,
                    step)
            for values, indices, (a, b) in zip(
                self.values.parts(boxes, ()), self.indices.parts(boxes, ()), spans, strict=True
            )
        ]  # fmt: skip


@dataclass(frozen=True)
class CsrPart:
    """A run of rows; what was read of their values, and is of the rows that follow, is kept.

    Attributes
    ----------
    start : int
        The first row.
    indptr : ndarray of int64
        Where the values of its rows begin, and where those of the last end.
    step : int or None
        Values in a stored chunk.
    """

    name: str
    values: Any
    indices: Any
    start: int
    indptr: NDArray[np.int64]
    width: int
    picks: tuple[int, ...] | None
    step: int | None
    kept: dict[int, tuple[NDArray[Any], NDArray[Any]]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep open what is to be kept open while it is read."""
        with ExitStack() as stack:
            for part in (self.values, self.indices):
                if hasattr(part, "hold"):
                    stack.enter_context(part.hold())
            yield

    @property
    def any_box(self) -> bool:
        """Whether its values are stored, and any run of its rows can be read."""
        return bool(getattr(self.values, "any_box", False))

    @property
    def futures(self) -> Mapping[Any, Any]:
        """None: its values are stored."""
        return {}

    def fill(self, values: Mapping[Any, Any]) -> CsrPart:
        """Give this part itself."""
        return self

    def check_seen(self) -> None:
        """Check that this process sees the values."""
        self.values.check_seen()
        self.indices.check_seen()

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave out what is kept between reads."""
        return CsrPart, (
            self.name, self.values, self.indices, self.start, self.indptr, self.width, self.picks,
            self.step,
        )  # fmt: skip

    def read(self, i: int, box: Box) -> NDArray[Any]:
        """Read some rows, and make them dense; raises DataError where columns are not there."""
        from scipy.sparse import csr_array

        a, b = box[0].start - self.start, box[0].stop - self.start
        starts = self.indptr[a : b + 1]
        values, indices = self._between(int(starts[0]), int(starts[-1]))
        try:
            rows = csr_array((values, indices, starts - starts[0]), (b - a, self.width))
            rows.check_format(full_check=True)
        except ValueError as error:
            raise DataError(
                f"{self.name}, rows {box[0].start}:{box[0].stop}: no sparse rows ({error})"
            ) from error
        if self.picks is not None:
            rows = rows[:, list(self.picks)]
        dense: NDArray[Any] = rows.toarray()
        return dense[:, box[1]]

    def _between(self, first: int, last: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """The values ``first:last`` and their columns; whole chunks are read, once."""
        left = self.kept.pop(first, None)
        at = first + (0 if left is None else len(left[0]))
        end = last
        if self.step is not None:
            end = min(-(-last // self.step) * self.step, int(self.indptr[-1]))
        if at >= last and left is not None:
            values, indices = left
        else:
            values, indices = (self._read(part, at, end) for part in (self.values, self.indices))
            if left is not None:
                values = np.concatenate([left[0], values])
                indices = np.concatenate([left[1], indices])
        n = last - first
        if len(values) > n:
            self.kept.clear()
            self.kept[last] = (values[n:], indices[n:])
        return values[:n], indices[:n]

    def _read(self, part: Any, first: int, last: int) -> NDArray[Any]:
        if isinstance(part, HeldPart):
            base = int(self.indptr[0])
            return part.views[0][first - base : last - base]
        values: NDArray[Any] = part.read(0, (slice(first, last),))
        return values


def with_picks(stored: Csr, picks: Sequence[int]) -> Csr:
    """Give the same rows with some columns only."""
    return replace(stored, picks=tuple(picks))
