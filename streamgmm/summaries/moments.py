"""Means and covariances of components of any family, for chosen features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamgmm.model.families.centroids import CentroidComponents
from streamgmm.model.families.gaussian import GaussianComponents
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats

DRAWS = 1024  # of each component whose family has no formula here
MOST_VALUES = 4_000_000  # drawn at a time: fewer of each component where they are many
LEAST_DRAWS = 64


@dataclass(frozen=True, eq=False)
class ComponentMoments:
    """Means (K, m) and variances (K, m) of components; `draws` of each, 0 where they are exact."""

    means: Floats
    variances: Floats
    draws: int


def moments_of(mixture: Mixture) -> ComponentMoments:
    """Means and variances (K, D) of every component: by formula, or from draws of a fixed seed.

    >>> m = Mixture.of("diag", np.ones(1), np.zeros((1, 2)), np.array([[1.0, 4.0]]))
    >>> moments_of(m).variances.tolist()
    [[1.0, 4.0]]
    """
    components = mixture.components
    if isinstance(components, GaussianComponents):
        return ComponentMoments(components.means, components.variances, 0)
    if isinstance(components, CentroidComponents):
        shape = components.means.shape
        return ComponentMoments(
            components.means, np.broadcast_to(components.variance, shape).copy(), 0
        )
    means, variances = np.empty((2, mixture.n_components, mixture.n_features))
    n = draws_of(mixture)
    for k in range(mixture.n_components):
        rows = draw(mixture, k, n)
        means[k], variances[k] = rows.mean(axis=0), rows.var(axis=0)
    return ComponentMoments(means, variances, n)


def covariances_of(mixture: Mixture, columns: NDArray[np.intp]) -> Floats:
    """Covariances (K, m, m) of some features of every component."""
    components = mixture.components
    k, m = mixture.n_components, len(columns)
    if isinstance(components, GaussianComponents):
        held = components.covariances
        if components.covariance.matrices:
            matrices = held if held.ndim == 3 else held[None]
            chosen = matrices[:, columns[:, None], columns]
            return np.broadcast_to(chosen, (k, m, m)).copy()
        return diagonal(components.variances[:, columns])
    if isinstance(components, CentroidComponents):
        return diagonal(np.broadcast_to(components.variance, (k, m)))
    n = draws_of(mixture)
    each = [np.cov(draw(mixture, i, n)[:, columns].T, bias=True) for i in range(k)]
    return np.array(each).reshape(k, m, m)


def diagonal(variances: Floats) -> Floats:
    """Matrices (K, m, m) of variances (K, m)."""
    return np.asarray(variances[:, :, None] * np.eye(variances.shape[1]))


def draws_of(mixture: Mixture) -> int:
    """How many rows of each component are drawn where there is no formula."""
    values = mixture.n_components * mixture.n_features
    return int(np.clip(MOST_VALUES // values, LEAST_DRAWS, DRAWS))


def draw(mixture: Mixture, k: int, n: int) -> Floats:
    """Draw n rows of one component, always the same ones."""
    counts = np.zeros(mixture.n_components, np.int64)
    counts[k] = n
    rows = mixture.components.sample(counts, np.random.RandomState(k))
    return np.asarray(rows, np.float64)


def separation(mixture: Mixture, moments: ComponentMoments) -> Floats:
    """How much of the variance of each feature (D,) lies between the components, 0 to 1.

    Σ π (μ_k - μ)² over the same plus Σ π σ²_k: the correlation ratio η² (Pearson 1905).
    """
    weights = mixture.weights[:, None]
    centre = (weights * moments.means).sum(axis=0)
    between = (weights * (moments.means - centre) ** 2).sum(axis=0)
    total = between + (weights * moments.variances).sum(axis=0)
    return np.asarray(np.divide(between, total, out=np.zeros_like(total), where=total > 0))


def contrasts(mixture: Mixture, moments: ComponentMoments) -> Floats:
    """How far each component (K, D) lies from all others together, in standard deviations.

    (μ_k - μ_rest) / √((σ²_k + σ²_rest) / 2): Cohen's d (1988). The variance of the rest is that
    of its mixture. NaN where there is no other component, or no spread.
    """
    weights, means, variances = mixture.weights[:, None], moments.means, moments.variances
    rest = 1.0 - weights
    with np.errstate(all="ignore"):
        centre = (weights * means).sum(axis=0)
        shifted = means - centre  # moments about the mean of all: no digits lost to an offset
        second = weights * (variances + shifted**2)
        others = -weights * shifted / rest
        spread = (second.sum(axis=0) - second) / rest - others**2
        pooled = np.sqrt((variances + np.maximum(spread, 0)) / 2)
        found = (shifted - others) / pooled
    return np.where(np.isfinite(found) & (rest > 1e-12), found, np.nan)
