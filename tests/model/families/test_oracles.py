"""Every family against SciPy: its densities, direct maximisation, and what is recovered."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import optimize, stats
from scipy.special import gammaln
from sklearn.datasets import load_iris

from streamgmm.fitting.fit import FitSettings, fit
from streamgmm.model.families import StudentT
from streamgmm.model.families.vonmisesfisher import bessel_ratio, log_normalizer
from streamgmm.model.mixture import Mixture, e_step, m_step
from streamgmm.sources import open_source
from tests.model.families.cases import MIXTURES
from tests.model.families.unconstrained import apart, pack, together

LINEAR = ("bernoulli", "categorical", "multinomial", "poisson", "exponential", "gamma")
KINDS = (*LINEAR, "lognormal", "vonmisesfisher", "student_t")


def density(components, k, X):
    """log p(x | θ_k) as SciPy has it."""
    own = {name: value[k] for name, value in components.arrays().items()}
    name = components.family.name
    if name == "bernoulli":
        return stats.bernoulli(own["probabilities"]).logpmf(X).sum(axis=1)
    if name == "multinomial":
        n = X.sum(axis=1)
        return stats.multinomial(n, own["probabilities"][None]).logpmf(X)
    if name == "categorical":
        columns = zip(components.family.levels, own["probabilities"], X.T, strict=True)
        return sum(np.log(p[np.searchsorted(levels, x)]) for levels, p, x in columns)
    if name == "poisson":
        return stats.poisson(own["rates"]).logpmf(X).sum(axis=1)
    if name == "exponential":
        return stats.expon(scale=1 / own["rates"]).logpdf(X).sum(axis=1)
    if name == "gamma":
        return stats.gamma(own["shapes"], scale=own["scales"]).logpdf(X).sum(axis=1)
    if name == "lognormal":
        return stats.lognorm(own["scales"], scale=np.exp(own["means"])).logpdf(X).sum(axis=1)
    if name == "vonmisesfisher":
        return stats.vonmises_fisher(own["directions"], own["concentrations"]).logpdf(X)
    return stats.multivariate_t(
        own["means"], own["scale_matrices"], own["degrees_of_freedom"]
    ).logpdf(X)


def drawn(kind, k, d, n, seed=5):
    mixture = MIXTURES[kind](np.random.default_rng(seed), k, d)
    rows = mixture.sample(n, np.random.RandomState(seed))[0]
    return mixture, np.ascontiguousarray(np.random.default_rng(0).permutation(rows))


@pytest.mark.parametrize("kind", KINDS)
def test_densities_are_those_of_scipy(kind):
    mixture, X = drawn(kind, 3, 3, 400)
    for k in range(3):
        alone = mixture.take(np.array([k])).posterior(X).log_density
        assert_allclose(alone, density(mixture.components, k, X), rtol=1e-10, atol=1e-10)
        assert_allclose(mixture.components.log_density(X)[:, k], alone, rtol=1e-10, atol=1e-10)


def maximum(start, loss):
    """The arrays where the loss is least, found by BFGS with central differences."""
    shapes = [a.shape for a in start]
    ends = np.cumsum([a.size for a in start])[:-1]

    def parts(v):
        return [p.reshape(s) for p, s in zip(np.split(v, ends), shapes, strict=True)]

    first = np.concatenate([a.ravel() for a in start])
    for _ in range(3):  # again from where it stopped, with a fresh Hessian
        options = {"gtol": 1e-10, "maxiter": 2000}
        first = optimize.minimize(
            lambda v: loss(parts(v)), first, jac="3-point", method="BFGS", options=options
        ).x
    return parts(first)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "student_t"])
def test_the_m_step_is_the_maximum_that_scipy_finds(kind):
    """Of each component of a small mixture, whose rows have responsibilities."""
    mixture, X = drawn(kind, 2, 3, 300)
    resp = np.random.default_rng(1).dirichlet(np.ones(2), len(X))
    family = mixture.family
    ours = family.estimate(family.summarize(X, resp))
    for k in range(2):

        def loss(arrays, r=resp[:, k]):
            return -(r @ density(together(family, arrays), 0, X)) / r.sum()

        at = np.array([k])
        start = apart(mixture.components.take(at))
        theirs = together(family, maximum(start, loss)).arrays()
        for name, value in ours.take(at).arrays().items():
            assert_allclose(value, theirs[name], rtol=1e-6, atol=1e-9)


def climbed(start, X, iterations):
    mixture = start
    for _ in range(iterations):
        mixture = m_step(mixture, e_step(mixture, X))
    return mixture


@pytest.mark.parametrize("given", [None, 3.0])
def test_a_t_distribution_is_the_one_that_scipy_finds(given):
    family = StudentT(given, reg_covar=0.0)
    truth = MIXTURES["student_t"](np.random.default_rng(0), 1, 2, family)
    X = truth.sample(500, np.random.RandomState(0))[0]
    ours = climbed(truth, X, 400).components

    def loss(arrays):
        arrays = arrays if given is None else [*arrays, np.log([[given]])]
        return -density(together(family, arrays), 0, X).mean()

    start = apart(truth.components)
    found = maximum(start if given is None else start[:2], loss)
    theirs = together(family, found if given is None else [*found, np.log([[given]])])
    for name, value in ours.arrays().items():
        assert_allclose(value, theirs.arrays()[name], rtol=1e-6)


def mixture_maximum(start, X, n_given=0):
    """The mixture of most likelihood near `start`, by SciPy's densities and BFGS.

    The last `n_given` parameters stay as they are.
    """
    vector, unpack = pack(start)
    vector, given = np.split(vector, [len(vector) - n_given])

    def loss(v):
        m = unpack(np.append(v, given))
        each = [np.log(w) + density(m.components, k, X) for k, w in enumerate(m.weights)]
        return -np.logaddexp.reduce(each).mean()

    for _ in range(3):
        vector = optimize.minimize(
            loss, vector, jac="3-point", method="BFGS", options={"gtol": 1e-10}
        ).x
    return unpack(np.append(vector, given)), -loss(vector) * len(X)


@pytest.mark.parametrize("kind", ["poisson", "gamma", "student_t"])
def test_a_mixture_is_the_one_that_scipy_finds(kind):
    truth, X = drawn(kind, 2, 2, 600, seed=2)
    ours = climbed(truth, X, 3000)
    theirs, log_likelihood = mixture_maximum(truth, X)
    assert_allclose(e_step(ours, X).log_likelihood, log_likelihood, rtol=1e-10)
    for name, value in ours.components.arrays().items():
        assert_allclose(value, theirs.components.arrays()[name], rtol=1e-5)


def test_two_t_components_of_the_iris_data_are_those_that_scipy_finds():
    """Petals of Fisher's irises, with four degrees of freedom.

    No published fit with a scale matrix for each component was found to compare with.
    """
    X = np.ascontiguousarray(load_iris().data[:, 2:])
    settings = FitSettings(2, StudentT(4.0, reg_covar=0.0), tol=1e-14, max_iter=400)
    result = fit(open_source(X), settings, np.random.RandomState(0))
    theirs, log_likelihood = mixture_maximum(result.mixture, X, n_given=2)
    found = e_step(result.mixture, X).log_likelihood
    assert_allclose(found, log_likelihood, rtol=1e-10)
    assert_allclose(result.mixture.components.means, theirs.components.means, rtol=1e-5)
    assert_allclose(np.sort(result.mixture.weights), [1 / 3, 2 / 3], atol=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_what_made_the_rows_is_recovered(kind):
    off, errors = recover(kind, 100_000)
    assert np.all(np.abs(off) < 5 * errors)
    assert np.all(errors < 1)


def recover(kind, n):
    """How far off a fit of n rows is, without constraints, and the standard errors of that.

    By the scores of the rows: the outer product of gradients.
    """
    d = 5 if kind in LINEAR[:3] else 2  # two flags do not tell two components apart
    truth, X = drawn(kind, 2, d, n, seed=4)
    settings = FitSettings(2, truth.family, tol=1e-10, max_iter=1000)
    result = fit(open_source(X), settings, np.random.RandomState(0), start=truth)
    there, _ = pack(truth)
    here, unpack = pack(result.mixture)
    step = 1e-4
    scores = np.empty((len(X), len(here)))
    for i in range(len(here)):
        off = np.zeros(len(here))
        off[i] = step
        up, down = (unpack(here + s * off).posterior(X).log_density for s in (1, -1))
        scores[:, i] = (up - down) / (2 * step)
    return here - there, np.sqrt(np.diag(np.linalg.inv(scores.T @ scores)))


# Bessel functions


@pytest.mark.parametrize("d", [2, 3, 10, 101, 102, 300, 2000])
def test_normalizers_agree_where_functions_underflow_and_where_they_do_not(d):
    """d log C / dκ is the ratio of Bessel functions, everywhere."""
    kappa = np.geomspace(1e-3, 1e5, 60)
    step = 1e-4 * kappa
    slope = (log_normalizer(d, kappa + step) - log_normalizer(d, kappa - step)) / (2 * step)
    level = log_normalizer(d, kappa)
    noise = 1e-15 * np.abs(level) / step + 1e-6
    assert np.all(np.abs(slope - bessel_ratio(d, kappa)) < noise + 1e-6)
    area = np.log(2) + 0.5 * d * np.log(np.pi) - gammaln(0.5 * d)
    assert_allclose(log_normalizer(d, np.array([1e-9])), area, rtol=1e-9, atol=1e-9)


def test_a_mixture_of_parameters_out_of_order_is_the_same():
    truth, X = drawn("gamma", 3, 2, 200)
    order = np.array([2, 0, 1])
    turned = Mixture(truth.weights[order], truth.components.take(order))
    assert_allclose(turned.posterior(X).log_density, truth.posterior(X).log_density, rtol=1e-12)
