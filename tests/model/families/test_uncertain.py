"""Gaussians of rows with errors: the laws of families, and the dense reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streamgmm.kernels import deconvolution as kernels
from streamgmm.model.families import Uncertain
from streamgmm.model.families.uncertain import uncertain
from streamgmm.model.mixture import Mixture, e_step, free_energy, m_step
from streamgmm.testing import ComponentsTests
from streamgmm.testing.cases import Case
from tests import deconvolution as dense
from tests.mixtures import TYPES, random_mixture


def noise(rng, n, d, matrices):
    """Variances, a fifth of which are zero; or covariance matrices, flat, a fifth of them zero."""
    if matrices:
        root = rng.normal(size=(n, d, d)) * (rng.random((n, 1, 1)) > 0.2)
        return (root @ root.transpose(0, 2, 1)).reshape(n, -1)
    return rng.gamma(1.0, size=(n, d)) * (rng.random((n, d)) > 0.2)


def of_rows(mixture, matrices):
    """A mixture of Gaussians as one of rows with errors."""
    return Mixture(mixture.weights, uncertain(mixture.components, matrices))


def parameters(mixture):
    inner = mixture.components.inner
    return mixture.weights, inner.means, inner.full_covariances


class UncertainTests(ComponentsTests):
    """The laws, on rows with errors."""

    kind = "full"
    matrices = False
    free = 2

    def mixture(self, rng, k, d):
        seed = int(rng.integers(1 << 30))
        return of_rows(random_mixture(self.kind, k, d, seed), self.matrices)

    def cases(self, least=0):
        for case in super().cases(least):
            d = case.mixture.components.inner.n_features
            n = len(case.rows)
            rng = np.random.default_rng([n, d])
            values = case.rows[:, :d] + rng.normal(size=(n, d))
            rows = np.hstack([values, noise(rng, n, d, self.matrices)])
            yield Case(case.mixture, rows, case.other)

    def latent_kl(self, case, updated):
        """Between Gaussians, in the directions in which there is any noise."""
        d = case.mixture.components.inner.n_features
        X, S = case.rows[:, :d], case.rows[:, d:]
        S = S.reshape(-1, d, d) if self.matrices else dense.matrices(S)
        S = S + 1e-9 * np.eye(d)  # without noise both are the row itself
        _, resp, b, B = dense.posterior(X, S, *parameters(case.mixture))
        _, _, c, C = dense.posterior(X, S, *parameters(updated))
        inverse = np.linalg.inv(C)
        kl = np.einsum("nkij,nkji->nk", inverse, B) - d
        kl += np.einsum("nki,nkij,nkj->nk", c - b, inverse, c - b)
        kl += np.linalg.slogdet(C)[1] - np.linalg.slogdet(B)[1]
        return float(0.5 * np.sum(resp * kl))

    def test_free_energy_plus_kl_is_the_log_likelihood(self):
        """As for all; the reference loses digits where there is little noise."""
        self.rtol = 1e-5
        super().test_free_energy_plus_kl_is_the_log_likelihood()

    def test_samples_are_of_the_density(self):
        """Of true values: rows without noise."""
        mixture = self.mixture(np.random.default_rng(0), 2, 3)
        rows, _ = mixture.sample(4000, np.random.RandomState(0))
        assert rows.shape == (4000, mixture.n_features)
        assert not rows[:, 3:].any()
        fitted = m_step(mixture, e_step(mixture, rows))
        gain = e_step(fitted, rows).log_likelihood - e_step(mixture, rows).log_likelihood
        assert 0 <= gain < mixture.n_parameters


class TestFull(UncertainTests):
    pass


class TestFullMatrices(UncertainTests):
    matrices = True


class TestTied(UncertainTests):
    kind = "tied"


class TestDiag(UncertainTests):
    kind = "diag"


class TestDiagMatrices(UncertainTests):
    kind, matrices = "diag", True


class TestSpherical(UncertainTests):
    kind = "spherical"


@pytest.mark.parametrize("matrices", [False, True])
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("k", "d"), [(1, 1), (3, 2), (2, 4), (3, 7), (2, 9)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_equal_to_the_dense_reference(kind, matrices, k, d, dtype):
    rng = np.random.default_rng([k, d])
    mixture = of_rows(random_mixture(kind, k, d, seed=3), matrices)
    n = 133
    rows = np.hstack([2 * rng.normal(size=(n, d)), noise(rng, n, d, matrices)]).astype(dtype)
    w = rng.random(n)
    X, S = rows[:, :d].astype(float), rows[:, d:].astype(float)
    S = S.reshape(n, d, d) if matrices else dense.matrices(S)
    for weight in (None, w):
        statistics = e_step(mixture, rows, weight)
        updated = m_step(mixture, statistics)
        weights, means, full = dense.step(X, S, *parameters(mixture), weight)
        expected = weights, means, dense.restricted(kind, weights, full)
        for here, there in zip(parameters(updated), expected, strict=True):
            np.testing.assert_allclose(here, there, rtol=1e-10, atol=1e-11)
    log_density, resp, b, B = dense.posterior(X, S, *parameters(mixture))
    found = mixture.posterior(rows, labels=True, resp=True)
    np.testing.assert_allclose(found.log_density, log_density, rtol=1e-11)
    np.testing.assert_allclose(found.resp, resp, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(found.labels, resp.argmax(axis=1))
    mean, variance = mixture.density.denoised(rows, True)
    expected = np.einsum("nk,nki->ni", resp, b)
    off = b - expected[:, None]
    spread = np.einsum("nk,nki->ni", resp, np.einsum("nkii->nki", B) + off**2)
    np.testing.assert_allclose(mean, expected, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(variance, spread, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", TYPES)
def test_without_noise_it_is_the_ordinary_step(kind):
    """Strong correlations and large offsets among them."""
    for spread, offset in ((2.0, 0.0), (2.0, 1e6), (0.0, -3.0)):
        plain = random_mixture(kind, 3, 5, seed=1, spread=spread, offset=offset)
        rng = np.random.default_rng(0)
        X = plain.sample(500, np.random.RandomState(0))[0] + rng.normal(size=(500, 5))
        for matrices in (False, True):
            mixture = of_rows(plain, matrices)
            rows = np.hstack([X, np.zeros((500, 25 if matrices else 5))])
            one, two = e_step(plain, X), e_step(mixture, rows)
            scale = 500 * (1 + abs(offset))
            assert two.log_likelihood == pytest.approx(one.log_likelihood, rel=1e-11)
            assert two.entropy == pytest.approx(one.entropy, abs=1e-9 * scale)
            here, there = m_step(mixture, two), m_step(plain, one)
            for a, b in zip(parameters(here), parameters(of_rows(there, False)), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)
            mean, variance = mixture.density.denoised(rows, True)
            np.testing.assert_allclose(mean, X, rtol=1e-12, atol=1e-10)
            if not matrices:
                assert not variance.any() or variance.max() < 1e-18


def test_thin_components_keep_their_digits():
    """Features that are all but the same, where T⁻¹ in units of the rows loses all of them."""
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    full = (basis * [1.0, 1e-4, 1e-8]) @ basis.T
    plain = Mixture.of("full", np.ones(1), np.zeros((1, 3)), full[None])
    X = np.random.default_rng(1).normal(size=(400, 3)) * np.sqrt([1.0, 1e-4, 1e-8]) @ basis.T
    one = m_step(plain, e_step(plain, X))
    mixture = of_rows(plain, False)
    two = m_step(mixture, e_step(mixture, np.hstack([X, np.zeros((400, 3))])))
    ratio = np.linalg.solve(one.components.covariances[0], two.components.inner.covariances[0])
    np.testing.assert_allclose(np.linalg.eigvals(ratio), 1.0, rtol=1e-6)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("large", [1e12, 1e30, np.inf])
@pytest.mark.parametrize("matrices", [False, True])
def test_infinite_noise_is_a_gap(kind, large, matrices):
    """Against the marginal of what is observed; and however the limit is approached."""
    k, d, n = 3, 4, 60
    rng = np.random.default_rng(0)
    plain = random_mixture(kind, k, d, seed=2)
    mixture = of_rows(plain, matrices)
    gaps = rng.random((n, d)) < 0.4
    gaps[0], gaps[1] = False, True
    X = rng.normal(size=(n, d))
    s = np.where(gaps, -1.0 if large == np.inf else large, 0.3)
    S = dense.matrices(s).reshape(n, -1) if matrices else s
    rows = np.hstack([X, S])
    weights, means, full = parameters(mixture)
    resp, b, B = np.empty((n, k)), np.empty((n, k, d)), np.empty((n, k, d, d))
    log_density = np.empty(n)
    for i in range(n):
        o = ~gaps[i]
        own = full[:, o][:, :, o]
        if o.any():
            noise_there = 0.3 * np.eye(o.sum())[None]
            told = dense.posterior(X[i : i + 1, o], noise_there, weights, means[:, o], own)
            log_density[i], resp[i] = told[0][0], told[1][0]
        else:
            log_density[i], resp[i] = 0.0, weights
        gain = full[:, :, o] @ np.linalg.inv(own + 0.3 * np.eye(o.sum()))
        b[i] = means + np.einsum("kij,kj->ki", gain, X[i, o] - means[:, o])
        B[i] = full - gain @ full[:, o]
    rtol = 1e-10 if large == np.inf else 1e-4 if large == 1e12 else 1e-8
    found = mixture.posterior(rows, resp=True)
    np.testing.assert_allclose(found.resp, resp, rtol=rtol, atol=1e-12)
    free = 0.5 * np.log(2 * np.pi * large) * gaps.sum(axis=1) if large < np.inf else 0.0
    np.testing.assert_allclose(found.log_density + free, log_density, rtol=1e-8, atol=1e-8)
    updated = parameters(m_step(mixture, e_step(mixture, rows)))
    mass = resp.sum(axis=0)
    mean = np.einsum("nk,nki->ki", resp, b) / mass[:, None]
    scatter = np.einsum("nk,nkij->kij", resp, B)
    scatter += np.einsum("nk,nki,nkj->kij", resp, b - mean, b - mean)
    scatter = dense.restricted(kind, mass / n, scatter / mass[:, None, None])
    for here, there in zip(updated, (mass / n, mean, scatter), strict=True):
        np.testing.assert_allclose(here, there, rtol=rtol, atol=rtol)


def test_hard_steps():
    mixture = of_rows(random_mixture("full", 3, 2, seed=4), False)
    rng = np.random.default_rng(0)
    rows = np.hstack([2 * rng.normal(size=(300, 2)), noise(rng, 300, 2, False)])
    statistics = e_step(mixture, rows, hard=True)
    labels = mixture.posterior(rows, labels=True).labels
    np.testing.assert_allclose(statistics.components.weight, np.bincount(labels, minlength=3))
    assert statistics.entropy == 0
    assert free_energy(mixture, statistics) <= statistics.log_likelihood
    assert free_energy(m_step(mixture, statistics), statistics) >= free_energy(mixture, statistics)


def test_large_models_recompute_their_factors():
    """Where the factors of all components would not stay in the cache."""
    k, d = 60, 16
    mixture = of_rows(random_mixture("full", k, d, seed=6), False)
    assert k * (d + 4) * d * kernels.W > kernels.KEPT
    rng = np.random.default_rng(0)
    rows = np.hstack([2 * rng.normal(size=(50, d)), noise(rng, 50, d, False)])
    S = dense.matrices(rows[:, d:])
    _, resp, b, _ = dense.posterior(rows[:, :d], S, *parameters(mixture))
    moments = e_step(mixture, rows).components.moments
    np.testing.assert_allclose(moments.weight, resp.sum(axis=0), rtol=1e-9, atol=1e-18)
    total = np.einsum("nk,nki->ki", resp, b)
    np.testing.assert_allclose(moments.weight[:, None] * moments.mean, total, atol=1e-8)


def test_a_start_takes_the_noise_out_of_the_scatter():
    rng = np.random.default_rng(0)
    n = 20_000
    true = rng.normal(size=(n, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]])
    s = np.broadcast_to([3.0, 0.5], (n, 2))
    rows = np.hstack([true + rng.normal(size=(n, 2)) * np.sqrt(s), s])
    for kind in TYPES:
        family = Uncertain(kind, 0.0)
        start = family.estimate(family.begin(rows, None, np.zeros(n, int), 1)).inner
        expected = np.cov(true.T)
        if kind in ("diag", "spherical"):
            expected = np.diag(np.diagonal(expected))
        if kind == "spherical":
            expected = np.eye(2) * np.trace(expected) / 2
        np.testing.assert_allclose(start.full_covariances[0], expected, atol=0.15)
        loud = replace(family)
        louder = np.hstack([rows[:, :2], 10 * s])
        kept = loud.estimate(loud.begin(louder, None, np.zeros(n, int), 1)).inner
        assert np.linalg.eigvalsh(kept.full_covariances[0]).min() > 0.1


def test_rows_whose_noise_is_no_covariance():
    family = Uncertain(matrices=True)
    good = np.array([[0, 0, 1, 0.5, 0.5, 1], [0, 0, 0, 0, 0, 1], [0, 0, 1, 1, 1, 1]])
    assert family.unsuitable(good) is None
    bad = np.vstack([good, [0, 0, 1, 2, 2, 1]])
    assert family.unsuitable(bad) == (3, "its noise_variance is no covariance matrix")
    assert family.unsuitable(np.array([[0, 0, 0, 0.1, 0.1, 1.0]]))[0] == 0
    assert Uncertain().unsuitable(np.zeros((2, 4))) is None
