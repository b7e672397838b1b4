"""How far clusterings of the same rows agree, from contingency tables that merge.

A table (K_a, K_b) holds the weight of the rows that have label i in one clustering and j in the
other. It is counted block by block and summed, so no labels are kept. Weights count as rows:

    T = Σ n_ij² - N,  P = Σ a_i² - N,  Q = Σ b_j² - N  (pairs together in both, in a, in b, twice)

Fowlkes & Mallows (1983): T / √(P Q). Adjusted Rand index: Hubert & Arabie (1985).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.model.moments import Floats

TIED = 0.01
"""Adjusted Rand index within which two numbers of components are equally stable, at least."""

POOR = 0.65
"""Adjusted Rand index below which clusterings agree poorly."""

Pairs = tuple[tuple[int, int], ...]


def count_pairs(
    labels: Mapping[int, NDArray[Any]],
    sizes: Mapping[int, int],
    pairs: Pairs,
    weight: NDArray[Any] | None,
) -> tuple[Floats, ...]:
    """A contingency table (K_a, K_b) for each pair of clusterings of the same rows.

    `labels` (n,) and `sizes` K are by the number of a clustering; `weight` (n,) or None.

    >>> labels = {0: np.array([0, 0, 1]), 1: np.array([1, 0, 0])}
    >>> count_pairs(labels, {0: 2, 1: 2}, ((0, 1),), None)[0].tolist()
    [[1.0, 1.0], [1.0, 0.0]]
    """
    tables = []
    for a, b in pairs:
        joint = labels[a].astype(np.intp) * sizes[b] + labels[b]
        counted = np.bincount(joint, weight, sizes[a] * sizes[b])
        tables.append(counted.astype(np.float64).reshape(sizes[a], sizes[b]))
    return tuple(tables)


def fowlkes_mallows(table: Floats) -> float:
    """Geometric mean of precision and recall of pairs; 0 where no two rows are together.

    >>> fowlkes_mallows(np.array([[2.0, 0.0], [0.0, 3.0]]))
    1.0
    """
    both, in_a, in_b, _ = _twice_the_pairs(table)
    return float(np.sqrt(both / in_a) * np.sqrt(both / in_b)) if both > 0 else 0.0


def adjusted_rand(table: Floats) -> float:
    """The Rand index less what chance gives: 1 for the same clustering, about 0 for unrelated.

    >>> adjusted_rand(np.array([[2.0, 0.0], [0.0, 3.0]]))
    1.0
    """
    tp, in_a, in_b, everything = _twice_the_pairs(table)
    fn, fp = in_a - tp, in_b - tp
    tn = everything - tp - fn - fp
    if fn == 0 and fp == 0:
        return 1.0
    return float(2 * (tp * tn - fn * fp) / ((tp + fn) * (fn + tn) + (tp + fp) * (fp + tn)))


def _twice_the_pairs(table: Floats) -> tuple[float, float, float, float]:
    """Twice the pairs of rows that are together in both, in a, in b, and twice all pairs."""
    n = float(table.sum())
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    squares = (np.sum(table * table), rows @ rows, columns @ columns, n * n)
    both, in_a, in_b, everything = (float(s) - n for s in squares)
    return both, in_a, in_b, everything


@dataclass(frozen=True)
class Comparisons:
    """Which clusterings to compare: the restarts of each candidate, and those of neighbours.

    Attributes
    ----------
    restarts : sequence of sequence of int
        The numbers of the clusterings of each candidate, one a restart.
    neighbours : sequence of (int, int)
        Candidates that follow one another in their number of components.
    """

    restarts: Sequence[Sequence[int]]
    neighbours: Sequence[tuple[int, int]]

    @classmethod
    def of(cls, restarts: Sequence[Sequence[int]], keys: Sequence[tuple[Any, int]]) -> Comparisons:
        """From what candidates are: their kind, and their number of components.

        >>> keys = [("full", 4), ("full", 2), ("diag", 3), ("full", 3)]
        >>> Comparisons.of([[0], [1], [2], [3]], keys).neighbours
        [(1, 3), (3, 0)]
        """
        kinds: dict[Any, list[int]] = {}
        for i, (kind, _) in enumerate(keys):
            kinds.setdefault(kind, []).append(i)
        ordered = (sorted(each, key=lambda i: keys[i][1]) for each in kinds.values())
        return cls(restarts, [pair for each in ordered for pair in pairwise(each)])

    @property
    def pairs(self) -> Pairs:
        """The pairs of clusterings to count: restarts, and neighbours restart by restart."""
        within = [pair for each in self.restarts for pair in combinations(each, 2)]
        beside = [
            pair
            for i, j in self.neighbours
            for pair in zip(self.restarts[i], self.restarts[j], strict=False)
        ]
        return (*within, *beside)

    def columns(
        self, tables: Sequence[Floats], n_components: Sequence[int]
    ) -> dict[str, NDArray[Any]]:
        """A value a candidate: what the tables, in the order of `pairs`, say.

        ``stability`` is the mean adjusted Rand index between restarts and ``stability_error`` its
        standard error (jackknife over restarts); ``fowlkes_mallows`` is the same by the other
        index, and ``neighbours`` the mean adjusted Rand index with the next fewer and the next
        more components. NaN for one component, which always agrees with itself, and where fewer
        than two restarts are there.
        """
        found = dict(zip(self.pairs, tables, strict=True))
        names = ("stability", "stability_error", "fowlkes_mallows", "neighbours")
        out = {name: np.full(len(self.restarts), np.nan) for name in names}
        for i, each in enumerate(self.restarts):
            if n_components[i] < 2:
                continue
            pairs = list(combinations(each, 2))
            if pairs:
                rand = {pair: adjusted_rand(found[pair]) for pair in pairs}
                out["stability"][i] = np.mean(list(rand.values()))
                out["stability_error"][i] = _jackknife(each, rand)
                out["fowlkes_mallows"][i] = np.mean([fowlkes_mallows(found[p]) for p in pairs])
            beside = [
                adjusted_rand(found[pair])
                for a, b in self.neighbours
                if i in (a, b) and min(n_components[a], n_components[b]) > 1
                for pair in zip(self.restarts[a], self.restarts[b], strict=False)
            ]
            if beside:
                out["neighbours"][i] = np.mean(beside)
        return out


def _jackknife(restarts: Sequence[int], index: Mapping[tuple[int, int], float]) -> float:
    """Standard error of the mean over pairs, leaving out one restart at a time."""
    if len(restarts) < 3:
        return float("nan")
    left = np.array([np.mean([v for pair, v in index.items() if r not in pair]) for r in restarts])
    m = len(restarts)
    return float(np.sqrt((m - 1) / m * np.sum((left - left.mean()) ** 2)))


def doubt(stability: Floats) -> str:
    """What to say where no number of components is stable; empty where one is.

    Agreement below 0.65 is poor recovery (Steinley 2004, "Properties of the Hubert-Arabie
    adjusted Rand index").
    """
    best = np.nanmax(stability)
    if best >= POOR:
        return ""
    return (
        f"no number of components is stable: labels of restarts agree to {best:.2f} at best "
        "(adjusted Rand index). The rows may be one cluster, or continuous; compare 'bic' and "
        "'holdout', or try other features"
    )


def most_stable(stability: Floats, error: Floats, n_components: NDArray[Any]) -> int:
    """The candidate with the most components among those as stable as the most stable one.

    That is within one standard error of it, or within `TIED`. Few components are often stable
    since they leave real clusters together; the most that are still found again is what the
    rows support. -1 where no stability is known.

    >>> most_stable(np.array([np.nan, 1.0, 0.999, 0.6]), np.zeros(4), np.array([1, 2, 3, 4]))
    2
    """
    if not np.isfinite(stability).any():
        return -1
    top = int(np.nanargmax(stability))
    room = max(TIED, float(np.nan_to_num(error[top])))
    tied = np.flatnonzero(stability >= stability[top] - room)
    return int(max(tied, key=lambda i: (n_components[i], stability[i])))
