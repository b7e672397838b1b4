"""The hard E-step of centroids: nearest centres and the sums of their rows, compiled."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.clustering.rows import Model, Rows, padded, prepare, sums_of
from streamgmm.kernels import kmeans
from streamgmm.model.components import NO_WEIGHT, BlockSums
from streamgmm.model.families.recall import Trail, recall_here
from streamgmm.model.moments import Floats

_CHUNK = 1 << 16  # rows whose distances are looked at together

Finish = Callable[[Floats, Floats, float, "Far | None"], tuple[float, Any]]


_own = threading.local()


def _scratch(k: int, d: int) -> tuple[NDArray[Any], ...]:
    """What this thread needs to assign rows of d features to k centres, made once."""
    made: dict[tuple[int, int], tuple[NDArray[Any], ...]] = vars(_own).setdefault("made", {})
    if (k, d) not in made:
        made.clear()
        made[k, d] = Rows(np.empty((0, d)), NO_WEIGHT).scratch(k)
    return made[k, d]


@dataclass(frozen=True, eq=False)
class Table:
    """Centres (K, D), less `ref` (D,) as the kernels take them (see `kernels.kmeans`)."""

    centres: Floats
    ref: Floats
    arrays: tuple[NDArray[Any], ...]
    row: Floats

    @classmethod
    def of(cls, centres: Floats, drift: Any = 0.0) -> Table:
        """From centres (K, D) and how far they have drifted (K,).

        The reference is their mean, in steps of about a percent of their range: differences from
        rows on a grid, such as whole numbers, are exact, so that rows that are equally far from
        two centres stay so.
        """
        spread = np.ptp(centres, axis=0)
        mean = centres[0] + (centres - centres[0]).mean(axis=0)
        step = np.ldexp(1.0, np.frexp(spread)[1] - 7)
        ref = np.where(spread > 0, np.rint(mean / step) * step, mean)
        arrays = Model.of(centres - ref).arrays
        prepare(arrays)
        arrays[5][:] = drift
        return cls(centres, ref, arrays, padded(ref[None]))

    @cached_property
    def and_none(self) -> Floats:
        """Centres less `ref`, padded, and a row of NaN, which is near to nothing (K + 1, D8)."""
        padded = self.arrays[0].reshape(len(self.centres), -1)
        return np.concatenate([padded, np.full((1, padded.shape[1]), np.nan)])

    def assign(
        self,
        X: NDArray[Any],
        weight: Floats,
        known: tuple[NDArray[Any], NDArray[Any]] | None = None,
    ) -> tuple[NDArray[np.int32], Any]:
        """The label of the nearest centre for each row (n,), and the sums of the rows.

        Sums are Σ w (K,), Σ w (x - c) (K, D), and Σ w |x - c|².
        `known` are labels and drifts from the read before (see `kernels.kmeans`), which are
        brought up to date.
        """
        (n, d), k = X.shape, len(self.centres)
        labels, until = known or (np.full(n, -1, np.int32), np.empty(n, np.float32))
        sums = sums_of(1, k, d)
        kmeans.assign(
            (X, weight, self.row), self.arrays, (labels, until), sums, _scratch(k, d),
            max(n, 1), True, 0, 1,
        )  # fmt: skip
        mass, _, first, counts = sums
        return labels, (mass, first.reshape(k, -1)[:, :d], float(counts[0]))

    def squares(self, X: NDArray[Any], labels: NDArray[Any]) -> Floats:
        """|x - c|² (n,) of rows and the centres of their labels."""
        out = np.empty(len(X))
        for a in range(0, len(X), _CHUNK):
            at = slice(a, a + _CHUNK)
            off = (X[at] - self.ref) - (self.centres - self.ref)[labels[at]]
            out[at] = np.einsum("nd,nd->n", off, off)
        return out


@dataclass(frozen=True, eq=False)
class Far:
    """The `most` rows with weight that are farthest from their centres, the farthest first.

    Of equally far ones the first in the data come first. `square` is |x - c|² (m,); `rows`
    (m, D), `weight` and `label` (m,) are theirs.
    """

    most: int
    square: Floats
    rows: Floats
    weight: Floats
    label: NDArray[Any]

    @classmethod
    def of(
        cls, most: int, square: Floats, X: NDArray[Any], weight: Floats, label: NDArray[Any]
    ) -> Far:
        """From all rows of a piece; `weight` may be empty."""
        candidates = np.flatnonzero(weight > 0) if weight.size else np.arange(len(X))
        if len(candidates) > most:
            far = square[candidates]
            candidates = candidates[far >= np.partition(far, -most)[-most]]
        chosen = candidates[np.argsort(-square[candidates], kind="stable")][:most]
        mass = weight[chosen] if weight.size else np.ones(len(chosen))
        return cls(most, square[chosen], X[chosen].astype(np.float64), mass, label[chosen])

    def merge(self, other: Far) -> Far:
        """Those of both sets of rows, `other` the one that follows."""
        square = np.concatenate([self.square, other.square])
        chosen = np.argsort(-square, kind="stable")[: self.most]
        pairs = ("rows", "weight", "label")
        rest = (np.concatenate([getattr(self, n), getattr(other, n)])[chosen] for n in pairs)
        return Far(self.most, square[chosen], *rest)

    def given_away(
        self, weight: Floats, mean: Floats, scatter: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Statistics of centroids when each without rows has got one of these.

        As in scikit-learn: the farthest row goes to the first of them, and no longer counts
        where it was. A row that lies on its centre stays.
        """
        weight, mean, scatter = weight.copy(), mean.copy(), scatter.copy()
        for cluster, i in zip(np.flatnonzero(weight == 0), range(len(self.rows)), strict=False):
            if not self.square[i] > 0:
                break
            x, w, old = self.rows[i], self.weight[i], self.label[i]
            left = weight[old] - w
            off = x - mean[old]
            if left > 1e-9 * w:
                mean[old] -= off * (w / left)
                scatter -= w * weight[old] / left * (off @ off)
            weight[old] = left if left > 1e-9 * w else 0.0
            weight[cluster], mean[cluster] = w, x
        return weight, mean, np.maximum(scatter, 0.0)


class NearestAccumulator:
    """A hard E-step: each row belongs to its nearest centre. See `Accumulator`.

    `finish` makes F and the statistics of Σ w, Σ w (x - c), Σ w |x - c|², and the `most` rows that
    are farthest from their centres, where any are asked for. What is
    known of rows is remembered from one read to the next, where this process does, and is told
    their `place`.
    """

    def __init__(
        self, table: Table, most: int, finish: Finish, trail: Trail | None = None
    ) -> None:
        self._table, self._most, self._finish, self._trail = table, most, finish, trail
        self._start: int | None = None
        self._sums: tuple[Floats, Floats, float] | None = None
        self._far: Far | None = None

    def add(self, X: NDArray[Any], sample_weight: Floats = NO_WEIGHT) -> None:
        """Add rows (n, D), and weights (n,) or none."""
        if not len(X):
            return
        labels, (mass, first, square) = self._assign(X, sample_weight)
        if self._sums is not None:
            mass += self._sums[0]
            first += self._sums[1]
            square += self._sums[2]
        self._sums = mass, first, square
        if self._most:
            squares = self._table.squares(X, labels)
            found = Far.of(self._most, squares, X, sample_weight, labels)
            self._far = found if self._far is None else self._far.merge(found)

    def place(self, start: int | None) -> None:
        """Say which is the first of the rows that are added next."""
        self._start = start

    def _assign(self, X: NDArray[Any], weight: Floats) -> tuple[NDArray[np.int32], Any]:
        recall, trail, start = recall_here(), self._trail, self._start
        if recall is None or trail is None or start is None:
            return self._table.assign(X, weight)
        known = recall.take(trail, start, len(X))
        found = self._table.assign(X, weight, (known.labels, known.until))
        recall.leave(trail, known)
        self._start = None
        return found

    def result(self) -> BlockSums:
        """The sums of all rows added, about the centres."""
        centres = self._table.centres
        weight, first, square = self._sums or (np.zeros(len(centres)), 0.0 * centres, 0.0)
        bound, statistics = self._finish(weight, first, square, self._far)
        return BlockSums(bound, 0.0, statistics)
