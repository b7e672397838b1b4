"""Quantiles of each feature in each class, by t-digests that merge.

Ted Dunning & Otmar Ertl 2019, "Computing extremely accurate quantiles using t-digests". They draw
no random numbers, so the same blocks give the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.fitting.quantiles import new_digest
from streamgmm.model.components import Posterior
from streamgmm.model.moments import Floats
from streamgmm.sources import Piece

HELD_VALUES = 2_000_000  # by a counter, 16 MB of float64
GROUPS = 4096  # into which many values of a class are gathered
ENDS = 256  # values at either end that are not


@dataclass(frozen=True, eq=False)
class QuantileRequest:
    """Features (m,), and the components (S,) whose rows are told apart by their labels.

    Rows count by their weight; those of weight zero are left out.
    """

    columns: NDArray[np.intp]
    shown: NDArray[np.intp]

    posterior = True

    def open(self) -> QuantileCounter:
        """What takes the rows in; raises MissingExtraError."""
        return QuantileCounter(self)


@dataclass(frozen=True, eq=False)
class Quantiles:
    """A digest of each feature in each class, S * m of them: a value that merges.

    `rows` (S,) are the rows of each class.
    """

    request: QuantileRequest
    digests: tuple[Any, ...]
    rows: NDArray[np.int64]

    def merge(self, other: Quantiles) -> Quantiles:
        """Digests of both sets of rows."""
        both = []
        for mine, theirs in zip(self.digests, other.digests, strict=True):
            digest = new_digest()
            digest.merge(mine, theirs)
            both.append(digest)
        return Quantiles(self.request, tuple(both), self.rows + other.rows)

    def at(self, shares: Floats) -> Floats:
        """Quantiles (S, m, q); NaN of a class without rows."""
        s, m = len(self.request.shown), len(self.request.columns)
        out = np.full((s * m, len(shares)), np.nan)
        for i, digest in enumerate(self.digests):
            if digest.size() > 0:
                out[i] = [digest.quantile(float(q)) for q in shares]
        return out.reshape(s, m, len(shares))


class QuantileCounter:
    """Takes pieces of rows in, then gives `Quantiles`.

    Rows are held until they are some million values, and are sorted then, so that a digest takes
    in few sums in the place of many values. What is held is cut by the number of rows alone, so
    the pieces in which they come change no bit.
    """

    def __init__(self, request: QuantileRequest) -> None:
        self._request = request
        s, m = len(request.shown), len(request.columns)
        self._digests = [new_digest() for _ in range(s * m)]
        self._rows = np.zeros(s, np.int64)
        self._most = max(1, HELD_VALUES // max(m, 1))
        self._held: list[tuple[NDArray[np.intp], NDArray[Any], Floats | None]] = []
        self._n_held = 0

    def add(self, piece: Piece, posterior: Posterior | None) -> None:
        """Add rows."""
        assert posterior is not None
        shown = self._request.shown
        place = np.full(max(posterior.labels.max(initial=0), shown.max(initial=0)) + 1, -1)
        place[shown] = np.arange(len(shown))
        labels, weight = place[posterior.labels], piece.sample_weight
        chosen = np.flatnonzero(labels >= 0 if weight is None else (labels >= 0) & (weight > 0))
        labels, rows = labels[chosen], piece.rows[chosen[:, None], self._request.columns]
        weight = None if weight is None else weight[chosen]
        while len(labels):
            n = min(len(labels), self._most - self._n_held)
            self._held.append((labels[:n], rows[:n], None if weight is None else weight[:n]))
            self._n_held += n
            labels, rows, weight = labels[n:], rows[n:], None if weight is None else weight[n:]
            if self._n_held == self._most:
                self._digest()

    def _digest(self) -> None:
        """Put the rows that are held into the digests."""
        if not self._held:
            return
        labels = np.concatenate([each for each, _, _ in self._held])
        rows = np.concatenate([each for _, each, _ in self._held])
        weights = [np.ones(len(a)) if w is None else w for a, _, w in self._held]
        weight = np.concatenate(weights) if any(w is not None for *_, w in self._held) else None
        self._held, self._n_held = [], 0
        order = np.argsort(labels, kind="stable")
        ends = np.cumsum(np.bincount(labels, minlength=len(self._rows)))
        m = len(self._request.columns)
        for s, (stop, n) in enumerate(zip(ends, np.diff(ends, prepend=0), strict=True)):
            mine = order[stop - n : stop]
            self._rows[s] += n
            if not n:
                continue
            columns = np.ascontiguousarray(rows[mine].T, np.float64)
            for j, column in enumerate(columns):
                values, sums = gathered(column, None if weight is None else weight[mine])
                self._digests[s * m + j].update(values, sums)

    def result(self) -> Quantiles:
        """The digests of all rows added."""
        self._digest()
        return Quantiles(self._request, tuple(self._digests), self._rows)


def gathered(values: Floats, weight: Floats | None) -> tuple[Floats, Floats]:
    """Values in order, and their weights: of many, means of neighbours; of few, as they are.

    A mean is of a 4,096th of the values at most, which is what it may put the rank of a quantile
    wrong by; the values of both ends stay as they are.

    >>> gathered(np.array([3.0, 1.0]), None)
    (array([1., 3.]), array([1., 1.]))
    """
    if weight is None:
        values, weight = np.sort(values), np.ones(len(values))
    else:
        order = np.argsort(values, kind="stable")
        values, weight = values[order], weight[order]
    size = len(values) // GROUPS
    if size < 2:
        return values, weight
    first = np.r_[0:ENDS, ENDS : len(values) - ENDS : size, len(values) - ENDS : len(values)]
    sums = np.add.reduceat(weight, first)
    low = values[first]  # means are about the least of each, so that no offset costs digits
    lengths = np.diff(np.append(first, len(values)))
    above = np.add.reduceat((values - np.repeat(low, lengths)) * weight, first)
    return low + above / sums, sums
