"""Classification EM: each row counts for its likeliest component alone."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_normal

from streamgmm import GaussianMixture, KMeans
from streamgmm.fitting.fit import fit
from streamgmm.fitting.settings import FitSettings
from streamgmm.model.covariances import COVARIANCES
from streamgmm.model.mixture import Mixture, e_step, free_energy, m_step
from streamgmm.sources import open_source
from tests.mixtures import random_mixture


def rows_of(n=2500, seed=0, d=2, apart=2.5):
    rng = np.random.default_rng(seed)
    middles = apart * rng.normal(size=(3, d))
    return middles[rng.integers(3, size=n)] + rng.normal(size=(n, d)) * rng.uniform(0.5, 1.5, d)


def poisson(k, d, seed):
    rng = np.random.default_rng(seed)
    return Mixture.of("poisson", rng.dirichlet(np.full(k, 5.0)), rng.uniform(1, 12, size=(k, d)))


def centroids(k, d, seed):
    rng = np.random.default_rng(seed)
    return Mixture.of("centroids", np.full(k, 1 / k), 2 * rng.normal(size=(k, d)), np.ones(1))


CASES = {name: lambda k, d, s, n=name: random_mixture(n, k, d, s) for name in COVARIANCES}
CASES |= {"poisson": poisson, "centroids": centroids}


@pytest.mark.parametrize("kind", list(CASES))
@pytest.mark.parametrize("weighted", [False, True])
def test_a_hard_e_step_is_the_best_one_hot_q(kind, weighted):
    """F = Σ w max_k log π_k p(x | θ_k), and no other labels have more."""
    mixture = CASES[kind](4, 3, 1)
    X = np.ascontiguousarray(mixture.sample(700, np.random.RandomState(0))[0])
    w = np.random.default_rng(0).uniform(0, 2, 700) * (np.arange(700) % 5 > 0)
    w = w if weighted else np.ones(700)
    found = e_step(mixture, X, w if weighted else None, hard=True)
    out = mixture.posterior(X, labels=True, resp=True)
    best = out.log_density + np.log(out.resp.max(axis=1))
    assert found.entropy == 0
    assert_allclose(free_energy(mixture, found), w @ best, rtol=1e-12)
    assert_allclose(found.components.weight, np.bincount(out.labels, w, 4), rtol=1e-12)
    if kind != "centroids":  # which sum F
        assert_allclose(found.log_likelihood, w @ out.log_density, rtol=1e-12)
    exact = free_energy(mixture, e_step(mixture, X, w if weighted else None))
    assert free_energy(mixture, found) < exact
    halves = [e_step(mixture, X[a], w[a] if weighted else None, hard=True)
              for a in (slice(0, 300), slice(300, 700))]  # fmt: skip
    merged = halves[0].merge(halves[1])
    for name, value in found.components.arrays().items():
        assert_allclose(merged.components.arrays()[name], value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", list(CASES))
def test_both_half_steps_raise_f(kind):
    mixture = CASES[kind](3, 2, 2)
    X = np.ascontiguousarray(CASES[kind](3, 2, 3).sample(900, np.random.RandomState(1))[0])
    reached = []
    for _ in range(8):
        statistics = e_step(mixture, X, hard=True)
        reached.append(free_energy(mixture, statistics))
        mixture = m_step(mixture, statistics)
        reached.append(free_energy(mixture, statistics))
    assert all(b >= a - 1e-10 * abs(a) for a, b in pairwise(reached))


def test_full_covariances_agree_with_a_dozen_lines_of_numpy():
    X = rows_of()
    means, weights = X[:3], np.full(3, 1 / 3)
    covariances = np.repeat(np.eye(2)[None], 3, axis=0)
    start = {"weights_init": weights, "means_init": means, "precisions_init": covariances}
    for _ in range(400):
        joint = [
            np.log(p) + multivariate_normal(m, c).logpdf(X)
            for p, m, c in zip(weights, means, covariances, strict=True)
        ]
        labels = np.argmax(joint, axis=0)
        weights = np.bincount(labels) / len(X)
        means = np.array([X[labels == k].mean(axis=0) for k in range(3)])
        covariances = np.array([np.cov(X[labels == k].T, bias=True) for k in range(3)])
    ours = GaussianMixture(
        3, assignment="hard", tol=1e-13, max_iter=400, reg_covar=0, **start
    ).fit(X)
    assert ours.converged_
    assert_array_equal(ours.predict(X), labels)
    assert_allclose(ours.weights_, weights, rtol=1e-12)
    assert_allclose(ours.means_, means, rtol=1e-10)
    assert_allclose(ours.covariances_, covariances, rtol=1e-10)
    assert_allclose(ours.lower_bound_, np.max(joint, axis=0).mean(), rtol=1e-12)


@pytest.mark.parametrize("kind", list(COVARIANCES))
@pytest.mark.parametrize("algorithm", ["em", "incremental", "auto"])
def test_history_says_f_and_kl(kind, algorithm):
    X = rows_of(seed=4, apart=4.0)
    model = GaussianMixture(
        3, covariance_type=kind, assignment="hard", algorithm=algorithm, tol=1e-7, max_iter=500,
        block_size=4000, random_state=0,
    ).fit(X)  # fmt: skip
    energy, kl = model.history_["free_energy"], model.history_["kl"]
    assert model.converged_
    assert (np.diff(energy) >= -1e-9).all()
    r = model.predict_proba(X)
    assert_allclose(kl[-1], -np.log(r.max(axis=1)).sum(), rtol=1e-3)
    assert_allclose(model.history_["log_likelihood"][-1], len(X) * model.score(X), rtol=1e-12)
    assert (kl[np.isfinite(kl)] > 0).all()
    assert_allclose(model.lower_bound_, energy[-1] / len(X), atol=1e-5)


def test_bits_are_the_same_on_any_number_of_threads_and_with_weights_as_repeats():
    X = rows_of(seed=2)
    settings = {"assignment": "hard", "random_state": 0, "block_size": 4000, "tol": 1e-9}
    one, two = (GaussianMixture(3, n_jobs=n, **settings).fit(X) for n in (1, 2))
    assert one.covariances_.tobytes() == two.covariances_.tobytes()
    counts = np.random.default_rng(0).integers(0, 3, len(X))
    start = {name: getattr(one, name) for name in ("weights_", "means_", "precisions_")}
    start = {f"{name}init": value for name, value in start.items()}
    weighted = GaussianMixture(3, **settings, **start).fit(X, sample_weight=counts)
    repeated = GaussianMixture(3, **settings, **start).fit(np.repeat(X, counts, axis=0))
    assert_allclose(weighted.covariances_, repeated.covariances_, rtol=1e-9)


def test_any_family_through_the_engine():
    truth = Mixture.of("poisson", np.array([0.5, 0.5]), np.array([[2.0, 9.0], [8.0, 3.0]]))
    X = truth.sample(20_000, np.random.RandomState(0))[0]
    settings = FitSettings(2, "poisson", tol=1e-8, max_iter=200, assignment="hard")
    found = fit(open_source(X), settings, np.random.RandomState(0))
    assert found.converged
    assert_allclose(np.sort(found.mixture.components.rates[:, 0]), [2, 8], rtol=0.05)
    assert (np.diff(found.history["free_energy"]) >= -1e-6).all()


def test_lloyds_iterations_are_the_limit_of_em():
    """As the shared variance goes to 0: assignments, means and bound (docs/em.md)."""
    X = rows_of(seed=3)
    centres, n, d, k = X[:5], *X.shape, 5
    near = ((X[:, None] - centres) ** 2).sum(axis=2)
    labels = near.argmin(axis=1)
    inertia = near.min(axis=1).sum()
    moved = np.array([X[labels == j].mean(axis=0) for j in range(k)])
    lloyd = KMeans(k, init=centres, max_iter=1, tol=0).fit(X)
    assert_allclose(lloyd.cluster_centers_, moved, rtol=1e-12)
    gaps = []
    for variance in (1.0, 1e-1, 1e-2, 1e-4, 1e-7):
        mixture = Mixture.of("spherical", np.full(k, 1 / k), centres, np.full(k, variance))
        soft, hard = (e_step(mixture, X, hard=h) for h in (False, True))
        r = mixture.posterior(X, resp=True).resp
        kl = soft.log_likelihood - free_energy(mixture, hard)
        assert_allclose(
            kl, -np.log(r.max(axis=1)).sum(),
            rtol=1e-6, atol=1e-12 * abs(soft.log_likelihood),
        )  # fmt: skip
        constant = n * (d / 2 * np.log(2 * np.pi * variance) + np.log(k))
        assert_allclose(free_energy(mixture, hard), -inertia / (2 * variance) - constant)
        one_hot = labels[:, None] == np.arange(k)
        gaps.append([
            np.abs(r - one_hot).max(),
            np.abs(m_step(mixture, soft).components.means - moved).max(),
            2 * variance * kl / inertia,  # of the bound, times 2σ²
            soft.entropy,
        ])  # fmt: skip
    gaps = np.array(gaps)
    assert (np.diff(gaps, axis=0) <= 0).all()
    assert (gaps[0] > 0.05).all()
    assert (gaps[-1] < 1e-9).all()
