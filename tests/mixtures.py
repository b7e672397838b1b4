"""Mixtures and rows that the tests of kernels, families and steps share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from streamgmm.model.covariances import COVARIANCES
from streamgmm.model.families.gaussian import Gaussian, scatter_error
from streamgmm.model.mixture import Mixture, Statistics, e_step, m_step

TYPES = tuple(COVARIANCES)


def covariances_of(kind, full):
    """What a family keeps of (K, D, D) covariances."""
    if kind == "full":
        return full
    if kind == "tied":
        return full.mean(axis=0)
    diagonals = np.einsum("kdd->kd", full)
    return diagonals.copy() if kind == "diag" else diagonals.mean(axis=1)


def gaussian_mixture(kind, *parameters):
    """Weights, means and covariances as a mixture, whose M-step regularises nothing."""
    return Mixture.of(Gaussian(kind, 0.0), *parameters)


def parameters_of(mixture):
    """Weights and all arrays of the components, by name."""
    return {"weights": mixture.weights, **mixture.components.arrays()}


def random_mixture(kind, k, d, seed=0, *, spread=2.0, offset=0.0):
    """K components with correlated covariances of unit size, `spread` apart."""
    rng = np.random.default_rng([seed, k, d])
    root = rng.normal(size=(k, d, d)) / np.sqrt(d) + np.eye(d)
    full = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(d)
    means = spread * rng.normal(size=(k, d)) + offset
    weights = rng.dirichlet(np.full(k, 5.0))
    return gaussian_mixture(kind, weights, means, covariances_of(kind, full))


def draw(mixture, n, seed=0):
    """Rows of a mixture."""
    rng = np.random.default_rng([seed, n])
    k, d = mixture.components.means.shape
    full = mixture.components.full_covariances
    labels = rng.choice(k, n, p=mixture.weights)
    noise = np.einsum("nij,nj->ni", np.linalg.cholesky(full)[labels], rng.normal(size=(n, d)))
    return np.ascontiguousarray(mixture.components.means[labels] + noise)


def em_step(mixture, X, sample_weight=None, reg_covar=0.0):
    """One exact step, the scatter taken again about the new means where that is needed."""
    family = replace(mixture.family, reg_covar=reg_covar)
    mixture = Mixture(mixture.weights, replace(mixture.components, family=family))
    statistics = e_step(mixture, X, sample_weight)
    updated = m_step(mixture, statistics)
    about = mixture.density.refine(updated.components)
    if about is not None:
        statistics = e_step(mixture, X, sample_weight, centres=about)
        updated = m_step(mixture, statistics)
    return statistics, updated


def step_error(mixture, updated, about=None):
    """What rounding may have left in the covariances of one step."""
    return scatter_error(mixture.density, updated.components, about)


def assert_close(a: Statistics, b: Statistics, rtol=1e-10):
    """Two statistics of the same rows, to rounding."""
    np.testing.assert_allclose(a.weight, b.weight, rtol=rtol)
    np.testing.assert_allclose(a.log_likelihood, b.log_likelihood, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(a.entropy, b.entropy, rtol=rtol, atol=rtol * max(1.0, a.weight))
    p, q = a.components, b.components
    np.testing.assert_allclose(p.weight, q.weight, rtol=rtol, atol=rtol * a.weight)
    used = (p.weight > 1e-8) & (q.weight > 1e-8)
    scale = np.abs(q.mean[used]).max(initial=1.0)
    np.testing.assert_allclose(p.mean[used], q.mean[used], rtol=rtol, atol=rtol * scale)
    np.testing.assert_allclose(
        p.scatter, q.scatter, rtol=rtol, atol=10 * rtol * np.abs(q.scatter).max(initial=1.0)
    )
