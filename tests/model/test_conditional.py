"""The mixture of some features given the others, against its closed form."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from streamgmm.errors import ParameterError, SingularCovarianceError
from streamgmm.model.conditional import condition
from streamgmm.model.families import FactorAnalyzer, Product
from streamgmm.model.mixture import Mixture
from tests.mixtures import TYPES, gaussian_mixture, random_mixture

D = 5


def closed_form(weights, means, full, o, m, X):
    """Weights (n, K), means (n, K, m) and covariances (K, m, m) as the textbook has them."""
    joint, expected, left = [], [], []
    for w, mean, cov in zip(weights, means, full, strict=True):
        inside = cov[np.ix_(o, o)]
        gain = cov[np.ix_(m, o)] @ np.linalg.inv(inside)
        density = multivariate_normal(mean[o], inside).logpdf(X)
        joint.append(np.log(w) + np.atleast_1d(density))
        expected.append(mean[m] + (X - mean[o]) @ gain.T)
        left.append(cov[np.ix_(m, m)] - gain @ cov[np.ix_(o, m)])
    joint = np.stack(joint, axis=1)
    resp = np.exp(joint - logsumexp(joint, axis=1)[:, None])
    return resp, np.stack(expected, axis=1), np.array(left)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("given", [[0], [3, 1], [4, 0, 2, 1]])
def test_equal_to_the_closed_form(kind, given):
    mixture = random_mixture(kind, 3, D, seed=1)
    rest = [i for i in range(D) if i not in given]
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(40, len(given))), rng.normal(size=(40, len(rest)))
    parameters = mixture.weights, mixture.components.means, mixture.components.full_covariances
    resp, expected, left = closed_form(*parameters, given, rest, X)
    mean = np.einsum("nk,nkm->nm", resp, expected)
    off = expected - mean[:, None]
    cov = np.einsum("nk,kij->nij", resp, left) + np.einsum("nk,nki,nkj->nij", resp, off, off)
    found = condition(mixture, given)
    assert (found.given, found.targets) == (tuple(given), tuple(rest))
    close = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(found.weights(X), resp, **close)
    np.testing.assert_allclose(found.mean(X), mean, **close)
    np.testing.assert_allclose(found.covariance(X), cov, **close)
    np.testing.assert_allclose(found.variance(X), np.einsum("nii->ni", cov), **close)
    whole = np.empty((40, D))
    whole[:, given], whole[:, rest] = X, Y
    joint = mixture.posterior(whole).log_density
    inside = [
        np.log(w) + multivariate_normal(mu[given], s[np.ix_(given, given)]).logpdf(X)
        for w, mu, s in zip(*parameters, strict=True)
    ]
    expected = joint - logsumexp(np.stack(inside, axis=1), axis=1)
    np.testing.assert_allclose(found.log_density(X, Y), expected, rtol=1e-11, atol=1e-11)


def test_far_rows_have_weights_and_densities():
    """Where every density is zero to rounding, and differences of log-densities have no digits."""
    covariances = np.array([[[1.0, 0.5], [0.5, 2.0]], [[4.0, -1.0], [-1.0, 1.0]]])
    mixture = Mixture.of("full", np.array([0.3, 0.7]), np.array([[0.0, 1], [5, 2]]), covariances)
    found = condition(mixture, [0])
    for x in (1e4, -1e7, 1e12):
        X = np.array([[x]])
        expected = 2 - 0.25 * (x - 5)  # the wider component is nearer to whatever is far
        np.testing.assert_allclose(found.weights(X), [[0, 1]], atol=1e-300)
        np.testing.assert_allclose(found.mean(X), [[expected]], rtol=1e-12)
        np.testing.assert_allclose(found.variance(X), [[0.75]], rtol=1e-12)
        mode = -0.5 * np.log(2 * np.pi * 0.75)
        np.testing.assert_allclose(found.log_density(X, [[expected]]), mode, rtol=1e-3)


def test_a_component_that_is_unlikely_counts_where_the_others_cannot_be():
    covariances = np.array([np.diag([1.0, 1e-6]), np.diag([1.0, 1e-6])])
    mixture = Mixture.of("full", np.full(2, 0.5), np.array([[0.0, 0.0], [30, 9.0]]), covariances)
    found = condition(mixture, [0])
    expected = -450 - 0.5 * np.log(2 * np.pi * 1e-6)  # w = exp(-450), far below what is rounded
    np.testing.assert_allclose(
        found.log_density(np.zeros((1, 1)), np.full((1, 1), 9.0)), [expected], rtol=1e-12
    )


def test_weights_of_zero_and_one_component():
    mixture = gaussian_mixture(
        "full", np.array([0.0, 1]), np.zeros((2, 2)), np.stack([np.eye(2)] * 2)
    )
    X = np.array([[3.0]])
    assert condition(mixture, [1]).weights(X).tolist() == [[0.0, 1.0]]
    assert condition(mixture, [1]).mean(X).tolist() == [[0.0]]


def test_draws_have_the_conditional_moments():
    mixture = random_mixture("full", 3, 3, seed=5)
    found = condition(mixture, [1])
    n = 200_000
    rng = np.random.default_rng(0)
    X = np.full((n, 1), 0.7)
    draws = found.draw(X, rng.random(n), rng.normal(size=(n, 2)))
    cov = found.covariance(X[:1])[0]
    error = np.sqrt(np.diagonal(cov) / n)
    assert np.all(np.abs(draws.mean(axis=0) - found.mean(X[:1])[0]) < 5 * error)
    np.testing.assert_allclose(np.cov(draws.T), cov, rtol=0.05, atol=0.02 * cov.max())


def test_a_product_is_conditioned_part_by_part():
    rng = np.random.default_rng(3)
    means, full = rng.normal(size=(2, 3)), np.stack([np.eye(3) + 0.4, 2 * np.eye(3) - 0.3])
    rates = np.array([[1.0], [6.0]])
    family = Product(counts=("poisson", [2]), sizes=("full", [3, 0, 1]))
    mixture = Mixture.of(family, np.array([0.4, 0.6]), (rates,), (means, full))
    found = condition(mixture, [2, 0])
    X = np.array([[2.0, 0.3], [9.0, -1.0]])
    weights = np.array([0.4, 0.6]) * rates.T ** X[:, :1] * np.exp(-rates.T)
    resp, expected, _ = closed_form(weights[0], means, full, [1], [2, 0], X[:1, 1:])
    # part 'sizes' has the columns 3, 0, 1 of the rows, so column 0 is its second
    np.testing.assert_allclose(found.weights(X[:1]), resp, rtol=1e-12)
    np.testing.assert_allclose(
        found.mean(X[:1]), np.einsum("nk,nkm->nm", resp, expected), rtol=1e-12
    )
    with pytest.raises(ParameterError, match="features 2 are of poisson components"):
        condition(mixture, [0])


def test_factor_analysers_are_gaussians():
    rng = np.random.default_rng(0)
    loadings, noise = rng.normal(size=(2, 4, 1)), rng.gamma(2.0, size=(2, 4))
    means, weights = rng.normal(size=(2, 4)), np.array([0.3, 0.7])
    factors = Mixture.of(FactorAnalyzer(1), weights, means, loadings, noise)
    full = loadings @ loadings.swapaxes(1, 2) + noise[:, :, None] * np.eye(4)
    plain = Mixture.of("full", weights, means, full)
    X = rng.normal(size=(5, 2))
    one, two = (condition(mixture, [3, 0]).mean(X) for mixture in (factors, plain))
    np.testing.assert_allclose(one, two, rtol=1e-12)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], r"none is given"),
        ([0, 1], "all are given"),
        ([2], "there is no feature 2"),
        ([0, 0], "twice"),
    ],
)
def test_features_that_cannot_be_given(given, says):
    with pytest.raises(ParameterError, match=says):
        condition(random_mixture("diag", 2, 2), given)


def test_other_families_are_refused_by_name():
    mixture = Mixture.of("poisson", np.ones(1), np.ones((1, 2)))
    with pytest.raises(ParameterError, match="the components are poisson"):
        condition(mixture, [0])


def test_features_that_determine_the_others():
    cov = np.array([[[1.0, 1.0], [1.0, 1.0 + 1e-17]]])
    mixture = Mixture.of("diag", np.ones(1), np.zeros((1, 2)), np.ones((1, 2)))
    components = Mixture.of("full", np.ones(1), np.zeros((1, 2)), np.eye(2)[None]).components
    object.__setattr__(components, "covariances", cov)
    with pytest.raises(SingularCovarianceError, match="determined by features"):
        condition(Mixture(mixture.weights, components), [0])
