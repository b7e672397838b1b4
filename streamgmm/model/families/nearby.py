"""Truncated k-means: each row is compared with the centres about the one that it belongs to.

That is the hard E-step of truncated EM, with the C centres nearest to a row's own as its set
(Agustsson, Timofte & Van Gool 2017, "k²-means for fast and accurate large scale clustering"). So
what is kept of a row from one read to the next is its label, and the rows of a centre share
their candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.kernels import nearby, truncated
from streamgmm.model.components import NO_WEIGHT, BlockSums
from streamgmm.model.covariances.base import scratch
from streamgmm.model.families.nearest import Finish, NearestAccumulator, Table
from streamgmm.model.families.recall import Trail, recall_here
from streamgmm.model.moments import Floats
from streamgmm.model.truncation.guide import Ids
from streamgmm.model.truncation.moments import N_SAMPLED
from streamgmm.model.truncation.steps import KeptAccumulator

_CHUNK = 1 << 22  # scores that are held at a time
_SHARE = 10  # comparing the sampled rows with all centres costs about a twentieth of a pass
_FLOAT, _INT = np.dtype(np.float64), np.dtype(np.int64)


@dataclass(frozen=True, eq=False)
class Nearby:
    """The lists (K, C) of the centres nearest to each: itself first, -1 where there are fewer."""

    lists: Ids

    @classmethod
    def of(cls, centres: Floats, size: int) -> Nearby:
        """From centres (K, D) alone, so that lists are the same wherever they are made.

        Ranked by x·c - |c|²/2 in float32, since they are only candidates.

        >>> Nearby.of(np.array([[0.0], [1.0], [5.0], [7.0]]), 2).lists.tolist()
        [[0, 1], [1, 0], [2, 3], [3, 2]]
        """
        k = len(centres)
        off = centres - centres[0]
        off -= off.mean(axis=0)
        off /= max(float(np.sqrt(np.einsum("kd,kd->", off, off) / k)), 1e-300)
        half = 0.5 * np.einsum("kd,kd->k", off, off)
        rows = np.concatenate([off, np.ones((k, 1))], axis=1).astype(np.float32)
        columns = np.concatenate([off, -half[:, None]], axis=1).T.astype(np.float32, order="C")
        lists = np.empty((k, size), np.int32)
        lists[:, 0] = np.arange(k)
        step = max(1, _CHUNK // k)
        for a in range(0, k, step):
            others = np.empty((min(step, k - a), size - 1), np.int32)
            truncated.largest(rows[a : a + step] @ columns, a, others)
            lists[a : a + step, 1:] = others
        return cls(lists)

    def nearest(self, table: Table, X: NDArray[Any], own: NDArray[Any]) -> NDArray[np.int32]:
        """The nearest centre (n,) to each row, of those in the list of its `own` (n,).

        Its own, where no other is nearer.
        """
        n, (k, size), d8 = len(X), self.lists.shape, len(table.row)
        c8 = -(-size // 8) * 8
        room = (
            scratch("at", k + 2, _INT),
            scratch("order", n, _INT),
            scratch("few", nearby.STRIP, _INT),
            scratch("listed", c8, _INT),
            scratch("packed", c8 * d8, _FLOAT),
            scratch("tile", nearby.STRIP * d8, _FLOAT),
            table.arrays[6],
        )
        labels = np.empty(n, np.int32)
        nearby.nearest_listed(
            X, table.row, table.and_none, self.lists, own.astype(np.int32), room, labels
        )
        return labels


class NearbyAccumulator(KeptAccumulator, NearestAccumulator):
    """A hard E-step in which each row is compared with the centres about its own.

    A row of which nothing is known is compared with all. The label that the read before has left
    is among those that it is compared with, so no row goes to a centre that is farther away.
    """

    def __init__(
        self, listed: Nearby, table: Table, most: int, finish: Finish, trail: Trail
    ) -> None:
        KeptAccumulator.__init__(self, len(listed.lists), 1)
        NearestAccumulator.__init__(self, table, most, finish, trail)
        k, size = listed.lists.shape
        self._listed, self._every = listed, max(1, _SHARE * k // size)
        self._sampled = np.zeros(N_SAMPLED)

    def _assign(self, X: NDArray[Any], weight: Floats) -> tuple[NDArray[np.int32], Any]:
        n, first = len(X), self.begin()
        known = self.known(first, n)
        if known is None:
            labels, sums = self._table.assign(X, weight)
        else:
            labels = self._listed.nearest(self._table, X, known[:, 0])
            settled = np.full(n, np.inf, np.float32)  # none is compared with all centres
            _, sums = self._table.assign(X, weight, (labels, settled))
        self._compare(X, weight, first, labels)
        self.keep(first, labels[:, None])
        recall, trail = recall_here(), self._trail
        if recall is not None and trail is not None and self._next is not None:
            noted = recall.take(trail, first, n)
            noted.labels[:] = labels
            recall.leave(trail, noted)
        self._next = first + n
        return labels, sums

    def _compare(
        self, X: NDArray[Any], weight: Floats, first: int, labels: NDArray[np.int32]
    ) -> None:
        """Compare one row of so many with all centres."""
        chosen = np.arange(-first % self._every, len(X), self._every)
        if len(weight):
            chosen = chosen[weight[chosen] > 0]
        if not len(chosen):
            return
        rows, own = np.ascontiguousarray(X[chosen]), labels[chosen]
        nearest, _ = self._table.assign(rows, NO_WEIGHT)
        w = weight[chosen] if len(weight) else np.ones(len(chosen))
        more = self._table.squares(rows, own) - self._table.squares(rows, nearest)
        more = np.where(own == nearest, 0.0, np.maximum(more, 0.0))
        self._sampled += [len(chosen), w.sum(), w @ more, w @ more**2, w @ (own == nearest)]

    def result(self) -> BlockSums:
        """The sums of all rows added; their labels are left where they are remembered."""
        self.leave()
        found = super().result()
        statistics: Any = found.statistics
        return BlockSums(
            found.log_likelihood, found.entropy, statistics.with_sample(self._sampled)
        )
