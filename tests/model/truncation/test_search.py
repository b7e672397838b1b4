"""Sets of components: what is found, what is kept, and what E-steps over them give."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp

from streamgmm.kernels import truncated
from streamgmm.model.families import Gaussian
from streamgmm.model.mixture import Mixture, e_step, free_energy, m_step
from streamgmm.model.moments import Moments
from streamgmm.model.truncation.guide import Guide
from streamgmm.model.truncation.search import Search
from streamgmm.model.truncation.sets import Memory, Turn
from streamgmm.testing.cases import joint

KINDS = ("full", "tied", "diag", "spherical")


def mixture(kind, k, d, rng, truncation=None, spread=3.0):
    means = spread * rng.normal(size=(k, d))
    roots = rng.normal(size=(k, d, d)) / np.sqrt(d)
    full = roots @ roots.transpose(0, 2, 1) + 0.3 * np.eye(d)
    covariances = {
        "full": full,
        "tied": full[0],
        "diag": np.einsum("kdd->kd", full),
        "spherical": np.einsum("kdd->k", full) / d,
    }[kind]
    weights = rng.dirichlet(np.full(k, 3.0))
    return Mixture.of(Gaussian(kind, truncation=truncation), weights, means, covariances)


def rows_of(model, n, rng, dtype=np.float64):
    rows, _ = model.sample(n, np.random.RandomState(int(rng.integers(1 << 30))))
    return np.ascontiguousarray(rows[rng.permutation(n)], dtype=dtype)


def search(model, size, entries=16):
    matrices = model.components.covariance.matrices
    return Search(model.density, matrices, Guide.of(model.density, matrices, entries), size)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("d", "dtype"), [(1, np.float64), (5, np.float32), (16, np.float64)])
def test_values_are_those_of_the_components(kind, d, dtype):
    rng = np.random.default_rng(d)
    model = mixture(kind, 40, d, rng)
    rows = rows_of(model, 700, rng, dtype)
    found = search(model, 4).look(rows)
    assert (np.sort(found.ids, axis=1)[:, 1:] != np.sort(found.ids, axis=1)[:, :-1]).all()
    each = np.take_along_axis(joint(model, rows), found.ids.astype(np.intp), axis=1)
    assert_allclose(found.log_density, logsumexp(each, axis=1), rtol=1e-12, atol=1e-10)
    assert (np.diff(each, axis=1) <= 1e-9).all()
    shares = np.exp(each - logsumexp(each, axis=1)[:, None])
    assert_allclose(found.resp, shares, atol=1e-12)
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1)
    assert_allclose(found.entropy, entropy, atol=1e-10)


@pytest.mark.parametrize("spread", [2.0, 30.0])
@pytest.mark.parametrize("kind", ["full", "diag"])
def test_a_search_finds_the_likeliest_of_many(kind, spread):
    rng = np.random.default_rng(7)
    model = mixture(kind, 600, 8, rng, spread=spread)
    rows = rows_of(model, 4000, rng)
    labels = model.posterior(rows, labels=True).labels
    found = search(model, 5).look(rows)
    assert (found.ids[:, 0] == labels).mean() > 0.995


def test_every_component_can_be_reached():
    rng = np.random.default_rng(3)
    model = mixture("diag", 500, 12, rng)
    graph = Guide.of(model.density, False, 16).graph
    ahead = [{int(k) for k in row if k >= 0} for row in graph]
    assert not any(k in row for k, row in enumerate(ahead))
    seen, new = {0}, {0}
    while new:
        new = set().union(*(ahead[k] for k in new)) - seen
        seen |= new
    assert seen == set(range(500))


def test_sets_that_are_known_never_get_worse():
    rng = np.random.default_rng(5)
    model = mixture("diag", 300, 6, rng)
    rows = rows_of(model, 2000, rng)
    look = search(model, 3)
    known = rng.permuted(np.tile(np.arange(300, dtype=np.int32), (2000, 1)), axis=1)[:, :3]
    each = np.take_along_axis(joint(model, rows), known.astype(np.intp), axis=1)
    bound = logsumexp(each, axis=1)
    for turn in range(12):
        found = look.look(rows, known=known, first=100, turn=turn)
        assert (found.log_density >= bound - 1e-9).all()
        bound, known = found.log_density.copy(), found.ids.copy()
    assert (known[:, 0] == model.posterior(rows, labels=True).labels).mean() > 0.9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighted", [False, True])
def test_sums_are_those_of_the_responsibilities(kind, weighted):
    rng = np.random.default_rng(11)
    model = mixture(kind, 60, 7, rng, truncation=6)
    rows = rows_of(model, 3000, rng)
    weight = rng.uniform(size=3000) * (rng.uniform(size=3000) < 0.9) if weighted else None
    found = e_step(model, rows, weight)
    resp = model.posterior(rows, resp=True).resp
    assert ((resp > 0).sum(axis=1) <= 6).all()
    w = np.ones(3000) if weight is None else weight
    assert_allclose(found.log_likelihood, w @ model.posterior(rows).log_density, rtol=1e-12)
    moments = found.components
    assert_allclose(moments.weight, w @ resp, rtol=1e-10, atol=1e-12)
    used = moments.weight > 1e-6
    first = (resp * w[:, None]).T @ rows
    assert_allclose(moments.mean[used], (first / moments.weight[:, None])[used], rtol=1e-8)
    off = rows[:, None, :] - moments.mean
    if kind in ("full", "tied"):
        scatter = np.einsum("n,nk,nkd,nke->kde", w, resp, off, off)
        scatter = scatter.sum(axis=0) if kind == "tied" else scatter
    else:
        scatter = np.einsum("n,nk,nkd->kd", w, resp, off**2)
        scatter = scatter.sum(axis=1) if kind == "spherical" else scatter
    assert_allclose(moments.scatter, scatter, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighted", [False, True])
def test_hard_sums_are_those_of_the_likeliest(kind, weighted):
    rng = np.random.default_rng(13)
    model = mixture(kind, 50, 5, rng, truncation=4)
    rows = rows_of(model, 2000, rng)
    w = rng.uniform(size=2000) * (rng.uniform(size=2000) < 0.9) if weighted else np.ones(2000)
    found = e_step(model, rows, w if weighted else None, hard=True)
    labels = model.posterior(rows, labels=True).labels
    best = np.take_along_axis(joint(model.exact, rows), labels[:, None].astype(np.intp), axis=1)
    assert found.entropy == 0
    assert_allclose(free_energy(model, found), w @ best[:, 0], rtol=1e-10)
    assert_allclose(found.components.weight, np.bincount(labels, w, 50), rtol=1e-10)
    assert_allclose(found.log_likelihood, w @ model.posterior(rows).log_density, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_free_energy_is_the_bound(kind):
    """F(q, θ) at the parameters of the E-step is log Σ over the set: the bound is tight there."""
    rng = np.random.default_rng(2)
    model = mixture(kind, 50, 4, rng, truncation=3)
    rows = rows_of(model, 2000, rng)
    found = e_step(model, rows)
    assert_allclose(free_energy(model, found), found.log_likelihood, rtol=1e-10)
    assert found.log_likelihood <= model.exact.posterior(rows).log_density.sum() + 1e-6
    assert free_energy(m_step(model, found), found) >= found.log_likelihood - 1e-6


def test_as_many_as_there_are_is_exact():
    rng = np.random.default_rng(4)
    model = mixture("diag", 8, 3, rng, truncation=8)
    rows = rows_of(model, 500, rng)
    plain = Mixture(model.weights, mixture("diag", 8, 3, np.random.default_rng(4)).components)
    assert type(e_step(model, rows).components) is Moments
    assert_array_equal(model.posterior(rows).log_density, plain.posterior(rows).log_density)


def test_components_of_no_weight_and_far_rows():
    rng = np.random.default_rng(6)
    model = mixture("diag", 40, 3, rng, truncation=4)
    weights = model.weights.copy()
    weights[:5] = 0.0
    without = Mixture(weights / weights.sum(), model.components)
    rows = rows_of(model, 500, rng)
    rows[:3] = 1e6
    found = e_step(without, rows)
    assert np.isfinite(found.log_likelihood)
    assert_array_equal(found.components.weight[:5], 0)
    assert_array_equal(m_step(without, found).components.means[:5], model.components.means[:5])


def test_a_row_that_is_not_finite_shows():
    rng = np.random.default_rng(8)
    model = mixture("diag", 40, 3, rng, truncation=4)
    for value in (np.nan, np.inf, -np.inf):
        rows = rows_of(model, 300, rng)
        rows[17, 1] = value
        assert np.isnan(e_step(model, rows).log_likelihood)


def test_moments_with_a_sample_are_statistics():
    rng = np.random.default_rng(9)
    model = mixture("diag", 30, 3, rng, truncation=4)
    rows = rows_of(model, 900, rng)
    found = e_step(model, rows).components
    assert found.sampled[0] >= 1
    double = found.merge(found)
    assert_allclose(double.sampled, 2 * found.sampled)
    assert_allclose(found.combine([found, double], np.array([2.0, -0.5])).sampled, found.sampled)
    again = model.family.statistics(**found.arrays())
    assert_array_equal(again.sampled, found.sampled)
    assert set(found.arrays()) == set(model.family.statistic_shapes(30, 3))


def test_fewer_components_with_weight_than_a_set_holds():
    rng = np.random.default_rng(10)
    model = mixture("diag", 30, 3, rng, truncation=6)
    weights = np.zeros(30)
    weights[[4, 7]] = 0.5
    two = Mixture(weights, model.components)
    rows = np.ascontiguousarray(rng.normal(size=(500, 3)))
    sets, found = Memory(), []
    for read in range(3):
        step = two.density.accumulator(rows, False, None)
        step.remember(sets, Turn(0, read))
        step.place(0)
        step.add(rows)
        found.append(step.result().log_likelihood)
    assert_allclose(found, two.exact.posterior(rows).log_density.sum(), rtol=1e-12)


@pytest.mark.parametrize(
    ("m", "k", "size", "skip"),
    [(50, 1000, 20, 0), (50, 130, 63, 5), (20, 70, 100, -1), (40, 5000, 7, 3), (5, 3, 0, 0)],
)
def test_the_largest_scores(m, k, size, skip):
    """In order, of equal ones the first; without those of no weight, and without one's own."""
    rng = np.random.default_rng(k)
    scores = rng.normal(size=(m, k)).astype(np.float32)
    scores[:, ::7] = np.float32(-1e30)
    scores[0], scores[1] = 0, np.round(scores[1])
    scores[m - 1], scores[m - 1, 1] = np.float32(-1e30), 5
    if skip >= 0:
        scores[np.arange(m), np.minimum(skip + np.arange(m), k - 1)] = 1e6
    found = np.empty((m, size), np.int32)
    truncated.largest(scores, skip, found)
    for i in range(m):
        order = np.argsort(-scores[i], kind="stable")
        order = order[(scores[i, order] > -1e29) & ~((skip >= 0) & (order == skip + i))][:size]
        assert_array_equal(found[i], [*order, *[-1] * (size - len(order))])
