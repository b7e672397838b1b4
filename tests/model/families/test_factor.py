"""Factor analysers: laws, a dense reference, and what scikit-learn finds with one component."""

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA, FactorAnalysis

from streamgmm.errors import ParameterError
from streamgmm.model.families import FactorAnalyzer
from streamgmm.model.families.factor import FactorComponents
from streamgmm.model.mixture import Mixture, e_step, m_step
from streamgmm.passes import one_blas_thread
from streamgmm.testing import ComponentsTests


@pytest.fixture(autouse=True)
def _one_thread():
    """Products are small: threads of BLAS would only wait for one another."""
    with one_blas_thread():
        yield


def random_factors(rng, k, d, q=1, noise="diag", spread=3.0):
    family = FactorAnalyzer(q, noise, 1e-10)
    variances = rng.uniform(0.3, 1.5, size=(k, d))
    if noise == "isotropic":
        variances = np.repeat(variances[:, :1], d, axis=1)
    means, loadings = spread * rng.normal(size=(k, d)), rng.normal(size=(k, d, q))
    return Mixture.of(family, rng.dirichlet(np.full(k, 5.0)), means, loadings, variances)


class FactorTests(ComponentsTests):
    noise: str
    sizes = ((1, 2, 40), (2, 2, 80), (2, 4, 300), (3, 6, 900))

    def mixture(self, rng, k, d):
        return random_factors(rng, k, d, max(1, d // 3), self.noise)

    def latent_kl(self, case, updated):
        """KL of Gaussians, summed over rows."""
        resp = case.mixture.posterior(case.rows, resp=True).resp
        total = 0.0
        for j in range(case.mixture.n_components):
            (one, a), (two, b) = (
                posterior_of(m.components, j, case.rows) for m in (case.mixture, updated)
            )
            q = len(a)
            off = two - one
            const = np.trace(np.linalg.solve(b, a)) - q
            const += np.linalg.slogdet(b)[1] - np.linalg.slogdet(a)[1]
            each = 0.5 * (const + np.einsum("nq,nq->n", off, np.linalg.solve(b, off.T).T))
            total += resp[:, j] @ each
        return float(total)


def posterior_of(components, j, X):
    """E[z] (n, q) and the covariance of z, written as a dense reference would."""
    loadings, noise = components.loadings[j], components.noise_variances[j]
    sigma = loadings @ loadings.T + np.diag(noise)
    gain = loadings.T @ np.linalg.inv(sigma)
    return (X - components.means[j]) @ gain.T, np.eye(gain.shape[0]) - gain @ loadings


class TestFactor(FactorTests):
    noise = "diag"


class TestIsotropic(FactorTests):
    noise = "isotropic"

    def near(self, components, rng):
        found = super().near(components, rng)
        if found is None:
            return None
        noise = np.repeat(found.noise_variances[:, :1], found.n_features, axis=1)
        return FactorComponents(found.family, found.means, found.loadings, noise)


def dense_step(X, weights, c, noise):
    """One step of EM, by D × D matrices (Ghahramani & Hinton 1996, eqs. 12-15)."""
    k = len(weights)
    sigma = c.covariances
    log = np.stack(
        [
            np.log(weights[j]) + multivariate_normal(c.means[j], sigma[j]).logpdf(X)
            for j in range(k)
        ]
    ).T
    total = np.logaddexp.reduce(log, axis=1)
    resp = np.exp(log - total[:, None])
    means, loadings, variances = [], [], []
    for j in range(k):
        z, cov = posterior_of(c, j, X)
        r, n = resp[:, j], resp[:, j].sum()
        wide = np.hstack([z, np.ones((len(X), 1))])
        second = np.einsum("n,np,nq->pq", r, wide, wide)
        second[:-1, :-1] += n * cov
        both = np.einsum("n,nd,nq->dq", r, X, wide) @ np.linalg.inv(second)
        psi = np.einsum("n,nd,nd->d", r, X, X) - np.einsum("n,nd,nq,dq->d", r, X, wide, both)
        psi = psi / n
        loadings.append(both[:, :-1])
        means.append(both[:, -1])
        variances.append(psi if noise == "diag" else np.full(len(psi), psi.mean()))
    new = FactorComponents(c.family, np.array(means), np.array(loadings), np.array(variances))
    return resp.mean(axis=0), new, total.sum()


@pytest.mark.parametrize("noise", ["diag", "isotropic"])
def test_a_dense_reference(noise):
    rng = np.random.default_rng(5)
    truth = random_factors(rng, 3, 7, 2, noise)
    X = truth.sample(500, np.random.RandomState(0))[0]
    c = truth.components
    off = c.means + 0.3 * rng.normal(size=c.means.shape), rng.normal(size=c.loadings.shape)
    mixture = Mixture.of(c.family, np.full(3, 1 / 3), *off, c.noise_variances)
    weights, components = mixture.weights, mixture.components
    for _ in range(20):
        statistics = e_step(mixture, X)
        mixture = m_step(mixture, statistics)
        weights, components, log_likelihood = dense_step(X, weights, components, noise)
        assert_allclose(statistics.log_likelihood, log_likelihood, rtol=1e-10)
    assert_allclose(mixture.weights, weights, rtol=1e-8)
    for name, value in mixture.components.arrays().items():
        assert_allclose(value, getattr(components, name), rtol=1e-8, atol=1e-9)


def climbed(mixture, X, n_iter):
    for _ in range(n_iter):
        mixture = m_step(mixture, e_step(mixture, X))
    return mixture


def test_one_component_is_factor_analysis():
    rng = np.random.default_rng(1)
    X = random_factors(rng, 1, 8, 2).sample(2000, np.random.RandomState(1))[0]
    mixture = climbed(random_factors(rng, 1, 8, 2), X, 3000)
    reference = FactorAnalysis(2, tol=1e-10, max_iter=20000, svd_method="lapack").fit(X)
    assert_allclose(mixture.posterior(X).log_density.mean(), reference.score(X), rtol=1e-7)
    assert_allclose(mixture.components.covariances[0], reference.get_covariance(), atol=2e-3)
    assert_allclose(mixture.components.means[0], X.mean(axis=0), rtol=1e-9)


def test_one_component_of_isotropic_noise_is_pca():
    """Its maximum is known in closed form (Tipping & Bishop 1999, eqs. 7 and 8)."""
    rng = np.random.default_rng(2)
    X = random_factors(rng, 1, 6, 2, "isotropic").sample(3000, np.random.RandomState(2))[0]
    mixture = climbed(random_factors(rng, 1, 6, 2, "isotropic"), X, 3000)
    values = np.linalg.eigvalsh(np.cov(X.T, bias=True))
    assert_allclose(mixture.components.noise_variances, values[:-2].mean(), rtol=1e-6)
    reference = PCA(2).fit(X)
    scale = (len(X) - 1) / len(X)  # scikit-learn divides by n - 1
    assert_allclose(
        mixture.components.covariances[0], scale * reference.get_covariance(), atol=1e-5
    )


def test_densities_at_an_offset_and_at_a_steep_signal():
    rng = np.random.default_rng(3)
    mixture = random_factors(rng, 2, 5, 2)
    c = mixture.components
    X = mixture.sample(200, np.random.RandomState(0))[0]
    X = np.round(X * 2**20) / 2**20
    means = np.round(c.means * 2**20) / 2**20
    near = FactorComponents(c.family, means, c.loadings, c.noise_variances)
    far = FactorComponents(c.family, means + 1e6, c.loadings, c.noise_variances)
    assert_allclose(far.log_density(X + 1e6), near.log_density(X), rtol=1e-8)
    steep = FactorComponents(c.family, means, 1e5 * c.loadings, 1e-4 * c.noise_variances)
    rows = steep.draw(0, 50, np.random.RandomState(1))
    found = steep.log_density(rows)[:, 0]
    with mpmath.workdps(60):
        sigma = mpmath.matrix(steep.loadings[0].tolist())
        sigma = sigma * sigma.T + mpmath.diag(steep.noise_variances[0].tolist())
        inverse, log_det = sigma**-1, mpmath.log(mpmath.det(sigma))
        for row, value in zip(rows[:5], found[:5], strict=True):
            off = mpmath.matrix(row.tolist()) - mpmath.matrix(means[0].tolist())
            exact = -((off.T * inverse * off)[0] + log_det + 5 * mpmath.log(2 * mpmath.pi)) / 2
            assert abs(float(exact) - value) < 1e-4


def test_a_feature_that_never_varies_stays_finite():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 5))
    X[:, 2] = 7.0
    family = FactorAnalyzer(2)
    mixture = Mixture(np.ones(1), family.estimate(family.begin(X, None, np.zeros(300, int), 1)))
    mixture = climbed(mixture, X, 50)
    assert_allclose(mixture.components.noise_variances[0, 2], 1e-6)
    assert np.isfinite(mixture.posterior(X).log_density).all()


def test_fewer_rows_than_factors_in_a_start():
    X = np.random.default_rng(0).normal(size=(5, 9))
    family = FactorAnalyzer(4)
    labels = np.array([0, 0, 0, 0, 1])
    found = family.estimate(family.begin(X, None, labels, 3))
    assert all(np.isfinite(value).all() for value in found.arrays().values())
    assert_array_equal(found.loadings.any(axis=1), True)


def test_wrong_use():
    with pytest.raises(ParameterError, match="n_factors=0"):
        FactorAnalyzer(0)
    with pytest.raises(ParameterError, match="'diag' or 'isotropic'"):
        FactorAnalyzer(1, "full")
    with pytest.raises(ParameterError, match="less than the number of features, 3"):
        FactorAnalyzer(3).parameter_shapes(2, 3)
