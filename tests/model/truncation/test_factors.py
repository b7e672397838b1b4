"""Truncated E-steps of factor analysers."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp

from streamgmm.model.families import FactorAnalyzer, Gaussian
from streamgmm.model.families.factor_sets import FactorScores
from streamgmm.model.mixture import Mixture, e_step, free_energy, m_step
from streamgmm.model.truncation import guide
from streamgmm.testing.cases import joint


def mixture(k, d, q, rng, truncation=None, noise="diag", steep=1.0):
    own = rng.uniform(0.2, 0.8, size=(k, d))
    if noise == "isotropic":
        own = np.repeat(own[:, :1], d, axis=1)
    family = FactorAnalyzer(q, noise, truncation=truncation)
    loadings = steep * rng.normal(size=(k, d, q))
    means = 100 + 3 * rng.normal(size=(k, d))
    return Mixture.of(family, rng.dirichlet(np.full(k, 3.0)), means, loadings, own)


def rows_of(model, n, rng, dtype=np.float64):
    rows, _ = model.sample(n, np.random.RandomState(int(rng.integers(1 << 30))))
    return np.ascontiguousarray(rows[rng.permutation(n)], dtype=dtype)


@pytest.mark.parametrize(
    ("d", "q", "dtype"), [(3, 1, np.float64), (6, 5, np.float32), (17, 4, np.float64)]
)
@pytest.mark.parametrize("steep", [1.0, 1e5])
def test_values_are_those_of_the_components(d, q, dtype, steep):
    rng = np.random.default_rng(d)
    model = mixture(40, d, q, rng, truncation=4, steep=steep)
    rows = rows_of(model, 700, rng, dtype)
    found = model.density.search.look(rows)
    each = np.take_along_axis(joint(model.exact, rows), found.ids.astype(np.intp), axis=1)
    assert_allclose(found.log_density, logsumexp(each, axis=1), rtol=1e-6 if steep > 1 else 1e-10)
    assert_allclose(found.resp.sum(axis=1), 1)


@pytest.mark.parametrize("noise", ["diag", "isotropic"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("hard", [False, True])
def test_sums_are_those_of_the_responsibilities(noise, weighted, hard):
    rng = np.random.default_rng(11)
    model = mixture(30, 7, 3, rng, truncation=5, noise=noise)
    rows = rows_of(model, 2500, rng)
    weight = rng.uniform(size=2500) * (rng.uniform(size=2500) < 0.9) if weighted else None
    found = e_step(model, rows, weight, hard=hard)
    out = model.posterior(rows, labels=True, resp=True)
    resp = np.eye(30)[out.labels] if hard else out.resp
    w = np.ones(2500) if weight is None else weight
    expected = model.exact.components.summarize(rows, resp * w[:, None]).arrays()
    used = expected["weight"] > 1e-6
    for name, value in expected.items():
        mine = getattr(found.components, name)
        scale = np.abs(value[used]).max()
        assert_allclose(mine[used], value[used], rtol=1e-7, atol=1e-9 * scale, err_msg=name)
    assert_allclose(found.log_likelihood, w @ out.log_density, rtol=1e-12)
    assert (found.entropy == 0) == hard


@pytest.mark.parametrize("noise", ["diag", "isotropic"])
def test_free_energy_is_the_bound(noise):
    rng = np.random.default_rng(2)
    model = mixture(50, 6, 2, rng, truncation=3, noise=noise)
    rows = rows_of(model, 2000, rng)
    found = e_step(model, rows)
    assert_allclose(free_energy(model, found), found.log_likelihood, rtol=1e-9)
    assert found.log_likelihood <= model.exact.posterior(rows).log_density.sum() + 1e-6
    assert free_energy(m_step(model, found), found) >= found.log_likelihood - 1e-6


@pytest.mark.parametrize("q", [1, 3])
def test_scores_are_those_of_the_gaussians_that_the_components_are(q):
    rng = np.random.default_rng(1)
    model = mixture(30, 8, q, rng, steep=2.0)
    covariances = model.components.covariances
    alike = Mixture.of(Gaussian("full"), model.weights, model.components.means, covariances)
    centre = alike.density.centre
    scores = FactorScores(model.components, model.weights, centre)
    rows, columns = guide._features(alike.density, True)
    expected = rows @ columns + 4 * np.log(2 * np.pi)
    assert_allclose(scores.of(3, 30), expected[3:], rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    labels = np.arange(30) % 4
    groups = scores.of_groups(labels, 4)
    assert_allclose(groups[1], scores.of(0, 30)[labels == 1].mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("steep", [0.5, 1.0])
def test_a_search_finds_the_likeliest_of_many(steep):
    rng = np.random.default_rng(7)
    model = mixture(500, 10, 3, rng, truncation=5, steep=steep)
    rows = rows_of(model, 3000, rng)
    labels = model.exact.posterior(rows, labels=True).labels
    assert (model.posterior(rows, labels=True).labels == labels).mean() > 0.97


def test_components_without_rows_rows_that_are_not_finite_and_statistics():
    rng = np.random.default_rng(6)
    model = mixture(40, 4, 2, rng, truncation=4)
    weights = model.weights.copy()
    weights[:5] = 0.0
    without = Mixture(weights / weights.sum(), model.components)
    rows = rows_of(model, 500, rng)
    rows[:3] = 1e6
    found = e_step(without, rows)
    assert np.isfinite(found.log_likelihood)
    assert_array_equal(found.components.weight[:5], 0)
    assert_array_equal(m_step(without, found).components.means[:5], model.components.means[:5])
    parts = found.components
    assert_allclose(parts.merge(parts).sampled, 2 * parts.sampled)
    assert_allclose(parts.scale(3.0).sampled, 3 * parts.sampled)
    again = model.family.statistics(**parts.arrays())
    assert_array_equal(again.sampled, parts.sampled)
    assert set(parts.arrays()) == set(model.family.statistic_shapes(40, 4))
    rows[17, 1] = np.nan
    assert np.isnan(e_step(model, rows).log_likelihood)


def test_a_start_takes_each_component_by_itself():
    rng = np.random.default_rng(8)
    rows = rng.normal(size=(600, 5)) + 4 * rng.normal(size=(6, 5)).repeat(100, axis=0)
    labels = np.arange(6).repeat(100)
    weight = rng.uniform(0.5, 2, 600)
    few = FactorAnalyzer(2, truncation=3).begin(rows, weight, labels, 7)
    whole = FactorAnalyzer(2).begin(rows, weight, labels, 7)
    assert_allclose(few.weight[:6], whole.weight[:6], rtol=1e-9)
    assert 0 < few.weight[6] < 1e-12
    assert_allclose(few.mean[:6], whole.mean[:6], rtol=1e-6, atol=1e-9)
    assert_allclose(few.scatter[:6], whole.scatter[:6], rtol=1e-4)
    assert np.isfinite(FactorAnalyzer(2).estimate(few).noise_variances).all()
