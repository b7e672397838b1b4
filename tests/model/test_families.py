"""One table of families; every law holds for each of them."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax
from scipy.stats import multivariate_normal

from streamgmm.errors import SingularCovarianceError
from streamgmm.model.covariances import COVARIANCES
from streamgmm.model.families import Gaussian
from streamgmm.model.mixture import e_step, free_energy, m_step
from tests.mixtures import TYPES, covariances_of, draw, em_step, gaussian_mixture, random_mixture

K, D = 3, 5


def log_resp(mixture, X):
    """By the definition."""
    full = mixture.components.full_covariances
    parts = zip(mixture.weights, mixture.components.means, full, strict=True)
    log_prob = np.stack(
        [np.log(w) + multivariate_normal(m, c).logpdf(X) for w, m, c in parts], axis=1
    )
    return log_softmax(log_prob, axis=1)


@pytest.fixture(params=TYPES)
def kind(request):
    return request.param


def test_the_likelihood_never_falls_and_f_plus_kl_is_the_log_likelihood(kind):
    X = draw(random_mixture("full", K, D, 1), 600)
    mixture = random_mixture(kind, K, D, 2)
    bound = -np.inf
    for _ in range(20):
        statistics, updated = em_step(mixture, X)
        ll = statistics.log_likelihood
        assert_allclose(free_energy(mixture, statistics), ll, rtol=1e-9)
        after = free_energy(updated, statistics)
        assert bound - 1e-9 * abs(ll) <= ll <= after + 1e-9 * abs(ll)
        log_q, log_p = log_resp(mixture, X), log_resp(updated, X)
        kl = np.sum(np.exp(log_q) * (log_q - log_p))
        assert_allclose(after + kl, updated.posterior(X).log_density.sum(), rtol=1e-9)
        mixture, bound = updated, after


def test_log_density_is_that_of_the_expanded_covariance(kind):
    mixture = random_mixture(kind, K, D, 3)
    full = mixture.components.full_covariances
    same = gaussian_mixture("full", mixture.weights, mixture.components.means, np.array(full))
    X = draw(mixture, 100)
    a, b = (m.posterior(X, labels=True, resp=True) for m in (mixture, same))
    assert_allclose(a.log_density, b.log_density, rtol=1e-12)
    assert_allclose(a.resp, b.resp, rtol=1e-10, atol=1e-15)
    assert_array_equal(a.labels, b.labels)


def test_a_larger_family_started_from_a_smaller_one_takes_the_same_e_step():
    X = draw(random_mixture("full", K, D, 4), 300)
    small = random_mixture("spherical", K, D, 5)
    weight = e_step(small, X).components.weight
    for kind in ("diag", "full"):
        full = np.array(small.components.full_covariances)
        large = gaussian_mixture(
            kind, small.weights, small.components.means, covariances_of(kind, full)
        )
        assert_allclose(e_step(large, X).components.weight, weight, rtol=1e-10)
        # The M-step over the larger set of covariances cannot end lower.
        assert free_energy(m_step(large, e_step(large, X)), e_step(large, X)) >= free_energy(
            m_step(small, e_step(small, X)), e_step(small, X)
        )


def test_one_component_gives_the_moments_of_the_data(kind):
    X = draw(random_mixture("full", 2, D, 6), 400)
    mixture = em_step(random_mixture(kind, 1, D, 7), X)[1]
    full = np.cov(X.T, bias=True)[None]
    assert_allclose(mixture.components.means[0], X.mean(axis=0), rtol=1e-12)
    assert_allclose(
        mixture.components.covariances, covariances_of(kind, full), rtol=1e-10, atol=1e-12
    )


def test_a_single_feature_is_the_same_in_every_family():
    X = draw(random_mixture("full", 1, 1, 8), 200)
    lls = [e_step(em_step(random_mixture(t, 1, 1, 9), X)[1], X).log_likelihood for t in TYPES]
    assert_allclose(lls, lls[0], rtol=1e-12)


@pytest.mark.parametrize(
    ("kind", "count"),
    [("full", 3 * 20 + 2), ("tied", 15 + 15 + 2), ("diag", 30 + 2), ("spherical", 18 + 2)],
)
def test_free_parameters(kind, count):
    assert COVARIANCES[kind].n_parameters(3, 5) == count
    assert random_mixture(kind, 3, 5).n_parameters == count


def test_reg_covar_is_added_to_the_diagonal(kind):
    X = draw(random_mixture("full", K, D, 10), 200)
    mixture = random_mixture(kind, K, D, 11)
    statistics = e_step(mixture, X).components
    plain, ridge = (Gaussian(kind, r).estimate(statistics) for r in (0.0, 0.5))
    full = [m.full_covariances for m in (plain, ridge)]
    assert_allclose(full[1] - full[0], np.broadcast_to(0.5 * np.eye(D), (K, D, D)), atol=1e-12)


def test_shapes_and_variances(kind):
    components = random_mixture(kind, K, D).components
    shape = components.covariance
    assert components.covariances.shape == shape.covariance_shape(K, D)
    full = components.full_covariances
    assert full.shape == (K, D, D)
    assert_array_equal(components.variances, np.einsum("kdd->kd", full))
    assert_allclose(
        shape.log_det(components.precisions_cholesky, K, D),
        -0.5 * np.linalg.slogdet(full)[1],
        rtol=1e-12,
    )


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_a_covariance_that_is_not_positive_definite_is_named(kind, bad):
    good = random_mixture(kind, K, D)
    covariances = good.components.covariances.copy()
    if kind in {"full", "diag"}:
        covariances[1] *= bad
    elif kind == "tied":
        covariances *= bad
    else:
        covariances[1] = bad
    which = 0 if kind == "tied" else 1
    with np.errstate(invalid="ignore"), pytest.raises(SingularCovarianceError, match=f": {which}"):
        gaussian_mixture(kind, good.weights, good.components.means, covariances)


def test_sums_about_other_centres_give_the_same_moments(kind):
    X = draw(random_mixture("full", K, D, 12), 300)
    mixture = random_mixture(kind, K, D, 13)
    here = e_step(mixture, X).components
    there = e_step(mixture, X, centres=mixture.components.means + 0.3).components
    assert_allclose(here.weight, there.weight, rtol=1e-12)
    assert_allclose(here.mean, there.mean, rtol=1e-10)
    assert_allclose(here.scatter, there.scatter, rtol=1e-9, atol=1e-9)
