"""Rows sorted by what they lack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Patterns:
    """Rows in runs of one pattern each.

    `order` are numbers of rows, `starts` (R + 1,) where the runs begin in it, and `seen` (R, D)
    which features each run has. Rows of a run are in their own order; runs are in that of their
    patterns, so nothing depends on the order of the rows.
    """

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    seen: NDArray[np.bool_]

    def __iter__(self) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.int64]]]:
        """Give (features seen (D,), numbers of rows) of each run."""
        for r, seen in enumerate(self.seen):
            yield seen, self.run(r)

    def run(self, r: int) -> NDArray[np.int64]:
        """Numbers of the rows of one run."""
        return self.order[self.starts[r] : self.starts[r + 1]]

    @property
    def whole(self) -> NDArray[np.bool_]:
        """Which runs have no gaps (R,)."""
        return np.asarray(self.seen.all(axis=1))

    def take(self, runs: NDArray[np.bool_]) -> Patterns:
        """Some of the runs."""
        counts = np.diff(self.starts)
        order = self.order[np.repeat(runs, counts)]
        starts = np.concatenate([[0], np.cumsum(counts[runs])])
        return Patterns(order, starts.astype(np.int64), self.seen[runs])


def has_gaps(X: NDArray[Any]) -> bool:
    """Whether a value of rows (n, D) is NaN; costs one sum where all are finite.

    >>> has_gaps(np.array([[0.0, np.inf]])), has_gaps(np.array([[0.0, np.nan]]))
    (False, True)
    """
    with np.errstate(all="ignore"):
        if np.isfinite(X.sum()):
            return False
    return bool(np.isnan(X).any())


def patterns_of(X: NDArray[Any]) -> Patterns:
    """Sort rows (n, D) by their gaps.

    >>> found = patterns_of(np.array([[0.0, np.nan], [1.0, 2.0], [3.0, np.nan]]))
    >>> [(seen.tolist(), rows.tolist()) for seen, rows in found]
    [([True, False], [0, 2]), ([True, True], [1])]
    """
    n, d = X.shape
    width = -(-d // 8)  # bytes of a row's pattern, in whole numbers where there are such
    width = 1 << (width - 1).bit_length() if width <= 8 else width
    seen = np.zeros((n, 8 * width), np.bool_)
    np.equal(X, X, out=seen[:, :d])  # only NaN is not itself
    packed = np.packbits(seen)  # along an axis it takes ten times as long
    seen = seen[:, :d]
    if width <= 8:
        codes: Any = packed.view(f">u{width}").astype(f"u{width}")
    else:
        codes = np.unique(packed.view(f"V{width}"), return_inverse=True)[1]
    order = np.argsort(codes, kind="stable").astype(np.int64)
    codes = codes[order]
    edges = np.flatnonzero(codes[1:] != codes[:-1]) + 1
    starts = np.concatenate([[0], edges, [n]]).astype(np.int64)
    if n == 0:
        return Patterns(order, np.zeros(1, np.int64), np.zeros((0, d), np.bool_))
    return Patterns(order, starts, seen[order[starts[:-1]]])
