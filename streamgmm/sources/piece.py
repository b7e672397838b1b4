"""A piece: a bounded run of rows in memory, and which samples they are."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgmm.sources.numbering import Numbers


class Piece(NamedTuple):
    """A bounded run of rows in memory.

    Attributes
    ----------
    start : int
        Index, in the source, of the first row.
    rows : ndarray of shape (n, n_features)
        C-contiguous, native float32 or float64.
    sample_weight : ndarray of shape (n,) or None
        float64, not negative.
    samples : Numbers or None
        Which samples the rows are, where that is not ``start : start + n``: rows of a region of
        a cube, or some rows of a run where others are missing.
    """

    start: int
    rows: NDArray[Any]
    sample_weight: NDArray[np.float64] | None
    samples: Numbers | None = None

    def numbers(self) -> NDArray[np.int64]:
        """Which samples the rows are, in C order of the samples."""
        if self.samples is None:
            return np.arange(self.start, self.start + len(self.rows))
        return self.samples.array()

    def place(self) -> slice | NDArray[np.int64]:
        """The same as an index: a slice where they follow one another."""
        if self.samples is None:
            return slice(self.start, self.start + len(self.rows))
        return self.samples.place()

    def part(self, a: int, b: int) -> Piece:
        """Give the rows ``a:b`` of the piece, as views."""
        weight = None if self.sample_weight is None else self.sample_weight[a:b]
        if self.samples is None:
            return Piece(self.start + a, self.rows[a:b], weight)
        samples = self.samples.part(a, b)
        start = self.start + samples.start - self.samples.start
        return Piece(start, self.rows[a:b], weight, samples)

    def where(self, keep: NDArray[np.bool_]) -> Piece:
        """Give some of the rows, copied; the others are missing."""
        samples = self.samples
        if samples is None:
            stop = self.start + len(self.rows)
            samples = Numbers((stop,), (self.start,), (len(self.rows),), 0, len(self.rows))
        weight = None if self.sample_weight is None else self.sample_weight[keep]
        return Piece(self.start, self.rows[keep], weight, samples.where(keep))

    def spread(self, values: NDArray[Any], fill: float) -> NDArray[Any]:
        """Give values of the rows of the whole run, with `fill` in the place of missing rows."""
        if self.samples is None or self.samples.kept is None:
            return values
        run = np.full((self.samples.span, *values.shape[1:]), fill, values.dtype)
        run[self.samples.kept] = values
        return run

    def say(self, row: int) -> str:
        """Name one row of the piece, as messages do."""
        return f"row {self.start + row}" if self.samples is None else self.samples.say(row)
