"""One-dimensional mixtures: the density of each part in the bins of a histogram, and their sum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from streamgmm.model.families.centroids import CentroidComponents
from streamgmm.model.families.gaussian import GaussianComponents
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats
from streamgmm.summaries.histograms import Grid
from streamgmm.summaries.moments import draw, draws_of, moments_of

FINE = 4  # points of a curve in a bin of a histogram
DRAWN = 65_536
MORE = 16  # times the draws that moments take: a histogram needs more


@dataclass(frozen=True, eq=False)
class Marginal:
    """Densities (a unit of the feature) at points (n,) of one feature.

    `parts` (S, n) are those of the chosen components times their weights, `total` (n,) the sum
    over all components. `draws` rows of each were drawn for them; 0 where they are exact.
    """

    points: Floats
    parts: Floats
    total: Floats
    draws: int


def marginal(mixture: Mixture, grid: Grid, j: int, shown: NDArray[np.intp]) -> Marginal:
    """The mixture along the j-th column of a grid, with the parts of the components `shown`.

    Of Gaussians it is the mean density of narrow bins, so that none is too narrow to be seen. Of
    other families it is exact where there is one feature, and a histogram of draws elsewhere.
    """
    column = int(grid.columns[j])
    components = mixture.components
    if isinstance(components, (GaussianComponents, CentroidComponents)):
        moments = moments_of(mixture)
        fine = np.linspace(grid.edges(j)[0], grid.edges(j)[-1], FINE * int(grid.size[j]) + 1)
        return _gaussian(
            mixture.weights, moments.means[:, column], moments.variances[:, column], fine, shown
        )
    if mixture.n_features == 1:
        return _evaluated(mixture, grid, j, shown)
    return _drawn(mixture, grid, j, shown)


def _gaussian(
    weights: Floats, means: Floats, variances: Floats, fine: Floats, shown: NDArray[np.intp]
) -> Marginal:
    """Σ π [Φ(b) - Φ(a)] / (b - a)."""
    width = fine[1] - fine[0]
    total = np.zeros(len(fine) - 1)
    parts = np.zeros((len(shown), len(fine) - 1))
    place = {int(k): i for i, k in enumerate(shown)}
    for k in np.flatnonzero(weights > 0).tolist():
        below = ndtr((fine - means[k]) / np.sqrt(variances[k]))
        density = weights[k] * np.diff(below) / width
        total += density
        if k in place:
            parts[place[k]] = density
    return Marginal((fine[1:] + fine[:-1]) / 2, parts, total, 0)


def _evaluated(mixture: Mixture, grid: Grid, j: int, shown: NDArray[np.intp]) -> Marginal:
    """The density itself at points, and mean probability of whole numbers in bins of counts."""
    edges, width, n = grid.edges(j), grid.width[j], int(grid.size[j])
    counted = mixture.family.measure(1)[0] == "counting"
    if counted:
        points = np.arange(np.ceil(edges[0]), edges[-1])  # whole numbers, `width` in a bin
        at, shape = (edges[1:] + edges[:-1]) / 2, (n, -1)
    else:
        points = at = np.linspace(edges[0], edges[-1], FINE * n + 1)
        shape = (-1, 1)

    def density(part: Mixture) -> Floats:
        found = np.exp(part.posterior(np.ascontiguousarray(points[:, None])).log_density)
        found = np.where(np.isfinite(found), found, 0.0)  # outside the family: no density
        return np.asarray(found.reshape(shape).sum(axis=1) / (width if counted else 1.0))

    with np.errstate(all="ignore"):
        parts = [
            mixture.weights[k] * density(mixture.take(np.array([k])))
            if mixture.weights[k] > 0
            else np.zeros(len(at))
            for k in shown
        ]
        total = density(mixture)
    return Marginal(at, np.array(parts).reshape(len(shown), -1), total, 0)


def _drawn(mixture: Mixture, grid: Grid, j: int, shown: NDArray[np.intp]) -> Marginal:
    column, edges = int(grid.columns[j]), grid.edges(j)
    n = MORE * draws_of(mixture)

    def density(values: Floats) -> Floats:
        return np.asarray(np.histogram(values, edges)[0] / (len(values) * grid.width[j]))

    parts = [mixture.weights[k] * density(draw(mixture, int(k), n)[:, column]) for k in shown]
    rows, _ = mixture.sample(min(DRAWN, 16 * n), np.random.RandomState(0))
    total = density(np.asarray(rows[:, column], np.float64))
    at = (edges[1:] + edges[:-1]) / 2
    return Marginal(at, np.array(parts).reshape(len(shown), -1), total, n)
