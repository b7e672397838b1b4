"""Histograms of all rows, of single features and of pairs, in one pass.

Bins are laid where the model expects rows, so that one read is enough, and so that a row far off
does not squeeze all others into one bin. Rows beyond them are counted too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.kernels.histograms import count_bins
from streamgmm.model.components import NO_WEIGHT, Posterior
from streamgmm.model.families.centroids import CentroidComponents
from streamgmm.model.families.gaussian import GaussianComponents
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats
from streamgmm.sources import Piece
from streamgmm.summaries.moments import moments_of

BINS = 64
REACH = 4.0  # standard deviations about the mean of a Gaussian
DRAWN = 8192  # rows of the model that show its range where there is no formula
NEGLIGIBLE = 1e-6  # a component of less weight does not widen the range


@dataclass(frozen=True, eq=False)
class Grid:
    """Bins of m columns: `columns` (m,), and of each its edges ``low + i * width``, i = 0..size.

    `pairs` (p, 2) are places in `columns`, of which there are joint counts.
    """

    columns: NDArray[np.intp]
    low: Floats
    width: Floats
    size: NDArray[np.intp]
    pairs: NDArray[np.intp]

    posterior = False

    def open(self) -> BinCounter:
        """What counts rows in these bins."""
        return BinCounter(self)

    def edges(self, j: int) -> Floats:
        """The edges of the bins of the j-th column (size + 1,)."""
        return np.asarray(self.low[j] + self.width[j] * np.arange(self.size[j] + 1))


@dataclass(frozen=True, eq=False)
class Histograms:
    """Weight of rows in the bins of a grid: a value that merges.

    `singles` (m, b + 2) and `joints` (p, b + 2, b + 2), where the first bin holds what is below
    the grid, and the bin after the last what is above; b is the most bins that a column has.
    """

    grid: Grid
    n_rows: int
    weight: float
    singles: Floats
    joints: Floats

    def merge(self, other: Histograms) -> Histograms:
        """Counts of both sets of rows."""
        return Histograms(
            self.grid,
            self.n_rows + other.n_rows,
            self.weight + other.weight,
            self.singles + other.singles,
            self.joints + other.joints,
        )

    def single(self, j: int) -> Floats:
        """Weight of rows in each bin of the j-th column (size,)."""
        return self.singles[j, 1 : self.grid.size[j] + 1]

    def joint(self, q: int) -> Floats:
        """Weight of rows in each bin of the q-th pair (size, size)."""
        a, b = self.grid.size[self.grid.pairs[q]]
        return self.joints[q, 1 : a + 1, 1 : b + 1]

    def outside(self) -> Floats:
        """Share of the weight (m,) that lies beyond the bins of each column."""
        if self.weight <= 0:
            return np.zeros(len(self.grid.columns))
        inside = np.array([self.single(j).sum() for j in range(len(self.grid.columns))])
        return np.maximum(0.0, 1.0 - inside / self.weight)


class BinCounter:
    """Counts pieces of rows, then gives `Histograms`."""

    def __init__(self, grid: Grid) -> None:
        m, p, most = len(grid.columns), len(grid.pairs), int(grid.size.max(initial=0)) + 2
        self.grid = grid
        self._scale = 1.0 / grid.width
        self._singles, self._joints = np.zeros((m, most)), np.zeros((p, most, most))
        self._alone = np.setdiff1d(np.arange(m), grid.pairs)
        self._n_rows, self._weight = 0, 0.0

    def add(self, piece: Piece, posterior: Posterior | None = None) -> None:
        """Add rows, which are finite."""
        grid, X, weight = self.grid, piece.rows, weights_of(piece)
        count_bins(
            X, weight, grid.columns, grid.low, self._scale, grid.size, grid.pairs, self._alone,
            self._singles, self._joints,
        )  # fmt: skip
        self._n_rows += len(X)
        self._weight += float(weight.sum()) if len(weight) else float(len(X))

    def result(self) -> Histograms:
        """The counts of all rows added; those of a column of a pair are sums of the pair's."""
        for (a, b), joint in zip(self.grid.pairs, self._joints, strict=True):
            self._singles[a], self._singles[b] = joint.sum(axis=1), joint.sum(axis=0)
        return Histograms(self.grid, self._n_rows, self._weight, self._singles, self._joints)


def weights_of(piece: Piece) -> Floats:
    """The weights of a piece as kernels take them."""
    return NO_WEIGHT if piece.sample_weight is None else piece.sample_weight


def lay_grid(
    mixture: Mixture, columns: Sequence[int], *, pairs: Any = None, bins: int = BINS
) -> Grid:
    """Lay bins where the model expects rows.

    Of Gaussians that is four standard deviations about the mean of every component; of others
    what 8,192 rows lie in that are drawn of the model. Where a column is counted (integers), a
    bin holds whole numbers.

    Parameters
    ----------
    mixture : Mixture
    columns : sequence of int
    pairs : sequence of (int, int), optional
        Places in `columns`; by default all pairs.
    bins : int, default=64
        The most of a column.
    """
    chosen = np.array(columns, np.intp)
    low, high = _range(mixture, chosen)
    measure = mixture.family.measure(mixture.n_features)
    counted = np.array([measure[c] == "counting" for c in chosen], np.bool_)
    low, high = np.where(counted, np.floor(low), low), np.where(counted, np.ceil(high), high)
    whole = np.maximum(1.0, np.ceil((high - low + 1) / bins))
    least = np.maximum(np.abs(low), np.abs(high)) * 1e-9 + 1e-300
    spread = np.maximum(high - low, least)
    size = np.where(counted, np.ceil((high - low + 1) / whole), bins).astype(np.intp)
    width = np.where(counted, whole, spread / bins)
    low = np.where(counted, low - 0.5, low)
    every = list(combinations(range(len(chosen)), 2)) if pairs is None else list(pairs)
    return Grid(chosen, low, width, size, np.array(every, np.intp).reshape(-1, 2))


def _range(mixture: Mixture, columns: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """The lowest and highest values (m,) that the model expects."""
    used = mixture.weights > NEGLIGIBLE
    if isinstance(mixture.components, (GaussianComponents, CentroidComponents)):
        moments = moments_of(mixture)
        means = moments.means[used][:, columns]
        reach = REACH * np.sqrt(moments.variances[used][:, columns])
        return (means - reach).min(axis=0), (means + reach).max(axis=0)
    rows, _ = mixture.sample(DRAWN, np.random.RandomState(0))
    low, high = np.quantile(np.asarray(rows[:, columns], np.float64), [0.0005, 0.9995], axis=0)
    return low, high
