"""E-steps and posteriors over the sets of rows."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamgmm.model.components import NO_WEIGHT, BlockSums, Density, Posterior
from streamgmm.model.moments import Floats, Moments
from streamgmm.model.truncation.moments import N_SAMPLED, TruncatedMoments, with_sample
from streamgmm.model.truncation.search import Search
from streamgmm.model.truncation.sets import Kept, Sets, Turn, set_dtype

_SHARE = 20  # a pass over all components of every sampled row costs a twentieth of the E-step


class Truncated(Protocol):
    """A density whose rows look at sets of components."""

    @property
    def search(self) -> Search:
        """What finds the sets."""

    @property
    def exact(self) -> Density:
        """The same components, all of which a row looks at."""


class KeptAccumulator:
    """What E-steps over sets have in common: they go on from those of the read before.

    `k` components, and sets of `size` numbers. Where the pass remembers none, there are none.
    """

    def __init__(self, k: int, size: int) -> None:
        self._k, self._size = k, size
        self._next: int | None = 0
        self._sets: Sets | None = None
        self._turn, self._begin = Turn(0, 0), 0
        self._before: dict[int, NDArray[Any]] = {}
        self._found: list[tuple[int, NDArray[Any]]] = []

    def remember(self, sets: Sets, turn: Turn) -> None:
        """Go on from the sets that the read before `turn` has left, and leave some."""
        self._sets, self._turn = sets, turn

    def place(self, start: int | None) -> None:
        """Say the number of the first of the rows that are added next."""
        self._next = start

    def begin(self) -> int:
        """The number of the first row of a piece; the sets of a block are read with its first."""
        if self._sets is not None and not self._found and self._next is not None:
            self._begin = self._next
            self._recall(self._sets)
        return 0 if self._next is None else self._next

    def known(self, first: int, n: int) -> NDArray[Any] | None:
        """Sets (n, size) of the rows from `first` on, where the read before has left them."""
        known = self._before.get(first)
        return None if known is None or len(known) != n else known

    def keep(self, first: int, ids: NDArray[Any]) -> None:
        """Take down the sets (n, size) of the rows from `first` on."""
        if self._sets is not None:
            self._found.append((first, ids.astype(set_dtype(self._k))))

    def leave(self) -> None:
        """Leave the sets of the block for the next read, where they are remembered."""
        if self._sets is not None and self._found:
            runs = tuple((first, len(ids)) for first, ids in self._found)
            kept = Kept(self._k, runs, np.concatenate([ids for _, ids in self._found]))
            self._sets.leave(self._turn, self._begin, kept)

    def _recall(self, sets: Sets) -> None:
        """Take up the sets of this block, as the read before has left them."""
        kept = sets.take(Turn(self._turn.candidate, self._turn.read - 1), self._begin)
        if kept is None or (kept.k, kept.ids.shape[1]) != (self._k, self._size):
            return
        at = 0
        for first, n in kept.runs:
            self._before[first] = kept.ids[at : at + n]
            at += n


class SetAccumulator(KeptAccumulator):
    """An E-step over sets of components: see `Accumulator`.

    `sums` are about points (K·D) `about`. Sets go on from those of the read before, where the pass
    remembers them, and are searched from nothing where it does not. Where it is `hard`, a row
    counts for the likeliest component of its set alone.
    """

    def __init__(
        self, density: Truncated, hard: bool, about: Floats, sums: tuple[Floats, ...]
    ) -> None:
        search = density.search
        super().__init__(search.layout.k, search.size)
        self._density, self._hard, self._about, self._sums = density, hard, about, sums
        self._totals = np.zeros(2)
        self._sampled = np.zeros(N_SAMPLED)
        candidates = search.size + search.guide.graph.shape[1] // 2
        self._every = max(1, _SHARE * search.layout.k // candidates)

    def statistics(self) -> Any:
        """Statistics of the rows, and what the sample says."""
        raise NotImplementedError

    def add(self, X: NDArray[Any], sample_weight: Floats = NO_WEIGHT) -> None:
        """Add rows (n, D), and weights (n,) or none."""
        search = self._density.search
        first = self.begin()
        for a in range(0, len(X), search.tile_rows):
            rows = X[a : a + search.tile_rows]
            weight = sample_weight[a : a + search.tile_rows]
            known = self.known(first + a, len(rows))
            found = search.look(rows, weight, known=known, first=first + a, turn=self._turn.read)
            ids, log_density = found.ids, found.log_density
            if self._hard:
                found = found.likeliest(weight)
            if len(weight):
                used = weight > 0  # 0 times what is not finite is nothing
                sums = weight[used] @ found.log_density[used], weight[used] @ found.entropy[used]
                found.resp[~used] = 0.0
            else:
                sums = found.log_density.sum(), found.entropy.sum()
            self._totals += sums
            search.add_sums(rows, found, self._about, self._sums)
            self._compare(rows, weight, first + a, log_density, ids[:, 0])
            self.keep(first + a, ids)
        self._next = first + len(X)

    def _compare(
        self, X: NDArray[Any], weight: Floats, first: int, bound: Floats, likeliest: NDArray[Any]
    ) -> None:
        """Compare one row of so many with all components."""
        chosen = np.arange(-first % self._every, len(X), self._every)
        if len(weight):
            chosen = chosen[weight[chosen] > 0]
        if not len(chosen):
            return
        all_of_them = self._density.exact.posterior(np.ascontiguousarray(X[chosen]), labels=True)
        w = weight[chosen] if len(weight) else np.ones(len(chosen))
        kl = np.maximum(all_of_them.log_density - bound[chosen], 0.0)
        same = all_of_them.labels == likeliest[chosen]
        self._sampled += np.array([len(chosen), w.sum(), w @ kl, w @ kl**2, w @ same])

    def result(self) -> BlockSums:
        """The sums of all rows added; their sets are left where they are remembered."""
        self.leave()
        return BlockSums(float(self._totals[0]), float(self._totals[1]), self.statistics())


class TruncatedAccumulator(SetAccumulator):
    """One of Gaussians, with sums about the means, or about `centres` (K, D)."""

    def __init__(
        self, density: Truncated, kind: Any, centres: Floats | None = None, hard: bool = False
    ) -> None:
        search = density.search
        layout = search.layout
        size = layout.D * layout.D if search.full else layout.D
        about = search.tables[0] if centres is None else layout.pad_rows(centres)
        sums = tuple(np.zeros(layout.k * n) for n in (1, layout.D, size))
        super().__init__(density, hard, about, sums)
        self._kind = kind

    def statistics(self) -> TruncatedMoments:
        """Moments of the rows."""
        layout = self._density.search.layout
        n, first, second = self._sums
        about = layout.restored(np.zeros(layout.d), self._about)
        sums = first.reshape(-1, layout.D)[:, : layout.d]
        with np.errstate(invalid="ignore"):  # rows that are not finite show in the likelihood
            if self._density.search.full:
                moments = Moments.about("full", about, n, sums, layout.squares(second))
            else:
                squares = second.reshape(-1, layout.D)[:, : layout.d]
                moments = Moments.about("diag", about, n, sums, squares)
        if self._kind == "tied":
            moments = Moments("tied", n, moments.mean, moments.scatter.sum(axis=0))
        elif self._kind == "spherical":
            moments = Moments("spherical", n, moments.mean, moments.scatter.sum(axis=1))
        return with_sample(moments, self._sampled)


def truncated_posterior(density: Truncated, X: NDArray[Any], out: Posterior) -> Posterior:
    """Fill log-densities over the set that a search finds, its likeliest, and its shares."""
    search = density.search
    for a in range(0, len(X), search.tile_rows):
        rows = X[a : a + search.tile_rows]
        found = search.look(rows)
        at = slice(a, a + len(rows))
        out.log_density[at] = found.log_density
        if len(out.labels):
            out.labels[at] = found.ids[:, 0]
        if len(out.resp):
            shares = np.zeros((len(rows), out.resp.shape[1] + 1))  # the last for no component
            np.put_along_axis(shares, found.ids.astype(np.intp), found.resp, axis=1)
            out.resp[at] = shares[:, :-1]
    return out
