"""Candidates of the rows of a piece: proposed, evaluated, and the likeliest kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.kernels import truncated
from streamgmm.model.components import NO_WEIGHT
from streamgmm.model.covariances.base import Layout, Parameters, scratch
from streamgmm.model.moments import Floats
from streamgmm.model.truncation.guide import Guide, Ids

TILE_ROWS = 1 << 13  # at least: so few that they stay in the cache
ROUNDS = 12  # of a search from nothing, at most
STRIP = 224  # rows of a component that are worked on together
_FLOAT, _INT = np.dtype(np.float64), np.dtype(np.int32)


@dataclass(frozen=True, eq=False)
class Found:
    """What is known of a run of rows, until the next one is looked at.

    `ids` (n, C) are the sets, the likeliest first, `log_density` (n,) log Σ over the set, `resp`
    (n, C) the responsibilities times the weights, and `entropy` (n,) that of q.
    """

    ids: Ids
    log_density: Floats
    resp: Floats
    entropy: Floats

    def likeliest(self, weight: Floats) -> Found:
        """The same where each row counts for the first of its set alone."""
        resp = weight if len(weight) else np.ones(len(self.ids))
        return Found(
            self.ids[:, :1], self.log_density, resp[:, None].copy(), np.zeros(len(self.ids))
        )


@dataclass(frozen=True, eq=False)
class Search:
    """A search under one model, whose covariances are matrices where `full`; `size` is C."""

    model: Parameters
    full: bool
    guide: Guide
    size: int

    @cached_property
    def layout(self) -> Layout:
        """Padded sizes."""
        k, d = self.model.means.shape
        return Layout(k, d, _FLOAT)

    @cached_property
    def tables(self) -> tuple[Floats, Floats, Floats]:
        """Means, factors and constants as the kernels take them."""
        layout, chol = self.layout, self.model.precisions_cholesky
        if chol.ndim == 1:
            chol = np.repeat(chol[:, None], layout.d, axis=1)
        elif self.full:
            chol = np.broadcast_to(chol, (layout.k, layout.d, layout.d))
        pad = layout.pad_squares if self.full else layout.pad_rows
        return layout.pad_rows(self.model.means), pad(chol), self.model.log_constants

    @property
    def tile_rows(self) -> int:
        """Rows that are looked at together: so many that those of a component fill vectors."""
        return max(TILE_ROWS, 4 * self.layout.k)

    def look(
        self, X: NDArray[Any], weight: Floats = NO_WEIGHT, *, known: Ids | None = None,
        first: int = 0, turn: int = 0,
    ) -> Found:  # fmt: skip
        """Sets of rows (n, D), at most `tile_rows`: from those `known` (n, C), or from nothing.

        `first` is the number of the first row, and `turn` of the read: what chance proposes
        depends on them.
        """
        n, k, guide = len(X), self.layout.k, self.guide
        C, W = self.size, guide.entry.shape[1]
        n_neighbours = guide.graph.shape[1]
        E = W + n_neighbours if known is None else C + 2 + (n_neighbours + 1) // 2
        ids = scratch("ids", n * E, _INT).reshape(n, E)
        values = scratch("values", n * E, _FLOAT)
        marks = scratch("marks", k, _INT)
        if known is not None:
            ids[:, :C] = known
            ids[:, :C][ids[:, :C] >= k] = -1  # as `set_dtype` has those that are missing
            truncated.propose(guide.graph, C, first, turn, marks, ids)
            self._evaluate(X, ids, 0, values)
            truncated.keep(ids, values, C, 0)
        else:
            near = scratch("near", guide.pivots.shape[1], _FLOAT)
            tried = scratch("tried", n * ROUNDS, _INT).reshape(n, ROUNDS)
            truncated.enter(X, guide.scale, guide.pivots, guide.entry, near, W, ids)
            self._evaluate(X, ids, 0, values)
            truncated.keep(ids, values, W, 0)
            for t in range(ROUNDS):
                if not truncated.expand(guide.graph, W, tried, t, marks, ids):
                    break
                self._evaluate(X, ids, W, values)
                truncated.keep(ids, values, W, W)
        found = Found(
            ids[:, :C],
            scratch("log_density", n, _FLOAT),
            scratch("resp", n * C, _FLOAT).reshape(n, C),
            scratch("entropy", n, _FLOAT),
        )
        truncated.share(X, ids, values, C, weight, found.log_density, found.entropy, found.resp)
        return found

    def _evaluate(self, X: NDArray[Any], ids: Ids, begin: int, values: Floats) -> None:
        truncated.evaluate(
            self.full, X, ids, begin, *self.tables, self.layout.D, STRIP, *self._room(ids.size),
            values,
        )  # fmt: skip

    def _room(self, n_pairs: int) -> tuple[NDArray[Any], ...]:
        """Scratch for pairs sorted by component, and for a tile of the rows of one."""
        D = self.layout.D
        return (
            scratch("at", self.layout.k + 2, _INT),
            scratch("rows", n_pairs, _INT),
            scratch("pairs", n_pairs, _INT),
            scratch("work", (2 * D + 5) * STRIP + 32 * D, _FLOAT),
        )

    def add_sums(self, X: NDArray[Any], found: Found, about: Floats, sums: Any) -> None:
        """Add the rows' sums about points (K·D): weights (K,), first and second moments."""
        n, size = found.ids.shape
        ids = scratch("sets", n * size, _INT).reshape(n, size)
        ids[:] = found.ids
        truncated.add_sums(
            self.full, X, ids, size, found.resp.ravel(), about, self.layout.D, STRIP,
            *self._room(ids.size), *sums,
        )  # fmt: skip
