"""Components that are left out change sums by their rounding, and no more."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from streamgmm.model.covariances import pruning
from streamgmm.model.covariances.base import KernelAccumulator
from streamgmm.model.covariances.diag import diag_recipe
from streamgmm.model.covariances.full import full_recipe
from streamgmm.model.mixture import Mixture, e_step

KINDS = ("full", "diag")
NONE = np.empty(0)


@pytest.fixture
def always(monkeypatch):
    """Leave out what can be left out, whether it pays or not."""
    leave_out_always(monkeypatch)


def leave_out_always(patch):
    patch.setattr(pruning, "ENOUGH", 0)
    patch.setattr(pruning, "LEAST", 1)
    patch.setattr(pruning, "MOST", dict.fromkeys(pruning.MOST, 2.0))


def spread(rng, k, d):
    """Covariances (k, d, d), up to a thousand times as long as wide."""
    turns = np.linalg.qr(rng.normal(size=(k, d, d)))[0]
    return turns * 10.0 ** rng.uniform(-1.5, 1.5, (k, 1, d)) @ turns.swapaxes(1, 2)


def mixture(kind, rng, k, d, separation, weights=None, offset=0.0):
    means = separation * rng.normal(size=(k, d)) + offset
    covariances = np.stack([np.eye(d)] * k) if separation > 100 else spread(rng, k, d)
    if kind == "diag":
        covariances = np.ascontiguousarray(np.einsum("kdd->kd", covariances))
    weights = rng.dirichlet(np.ones(k)) if weights is None else weights
    return Mixture.of(kind, weights, means, covariances)


def rows(model, n, rng):
    """Rows in random order: of the model, some of no component, and duplicates."""
    k, d = model.components.means.shape
    labels = rng.integers(k, size=n)
    noise = rng.normal(size=(n, d))
    if model.components.family.name == "full":
        roots = np.linalg.cholesky(model.components.covariances)
        noise = np.einsum("nij,nj->ni", roots[labels], noise)
    else:
        noise = noise * np.sqrt(model.components.covariances[labels])
    X = model.components.means[labels] + noise
    X[::50] += 10.0 ** rng.uniform(0, 2, (len(X[::50]), 1)) * rng.normal(size=X[::50].shape)
    X[1::50] = X[min(2, n - 1)]
    return X


def sums(model, X, weight=NONE):
    """What an E-step gives about the means: with nothing left out, and with pairs left out."""
    density = model.components.density(model.weights)
    wide = model.components.family.name == "full"
    dtype = density.tile_dtype(X, len(weight) > 0)
    make, chol = full_recipe if wide else diag_recipe, density.precisions_cholesky
    plain = make(density, chol, np.dtype(np.float64), density.means)
    recipe = pruning.pruned(make(density, chol, dtype, density.means), density)
    if recipe is None:
        return summed(plain, X, weight), summed(plain, X, weight), None
    return *(summed(each, X, weight) for each in (plain, recipe)), recipe.kernel


def summed(recipe, X, weight=NONE):
    step = KernelAccumulator(recipe)
    step.add(X, weight)
    return step.result()


def assert_same(model, X, weight=NONE, tolerance=1e-11):
    plain, left_out, kernel = sums(model, X, weight)
    assert_allclose(left_out.log_likelihood, plain.log_likelihood, rtol=tolerance)
    n = len(X)
    assert_allclose(left_out.entropy, plain.entropy, rtol=tolerance, atol=n * tolerance)
    others = plain.statistics.arrays()
    for name, values in left_out.statistics.arrays().items():
        scale = np.abs(others[name]).max(initial=1e-300)
        if name == "scatter":  # of sums about another point than where the rows are
            moved = plain.statistics.mean - model.components.means
            scale += (plain.statistics.weight[:, None] * moved**2).max()
        assert_allclose(values, others[name], rtol=tolerance, atol=scale * tolerance)
    return kernel


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(KINDS),
    k=st.sampled_from([1, 2, 7, 12, 64, 70]),
    d=st.sampled_from([1, 2, 5, 8]),
    separation=st.sampled_from([0.0, 1.0, 10.0, 50.0, 1e3]),
    narrow=st.booleans(),
    weighted=st.booleans(),
)
def test_the_same_sums(seed, kind, k, d, separation, narrow, weighted):
    rng = np.random.default_rng(seed)
    model = mixture(kind, rng, k, d, separation)
    X = rows(model, int(rng.integers(1, 700)), rng).astype(np.float32 if narrow else np.float64)
    weight = rng.integers(0, 3, len(X)) * rng.random(len(X)) if weighted else NONE
    with pytest.MonkeyPatch.context() as patch:
        leave_out_always(patch)
        assert_same(model, X, weight, 1e-7)  # of rows far off, differences of large distances


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [3, 4, 8, 12, 17])
@pytest.mark.parametrize("weighted", [False, True])
def test_to_the_last_digits(kind, d, weighted, always):
    rng = np.random.default_rng(d)
    means = 12 * rng.normal(size=(30, d))
    eye = np.stack([np.eye(d)] * 30) if kind == "full" else np.ones((30, d))
    model = Mixture.of(kind, rng.dirichlet(np.ones(30)), means, eye)
    X = means[rng.integers(30, size=3000)] + rng.normal(size=(3000, d))
    weight = rng.random(3000) if weighted else NONE
    assert assert_same(model, X, weight, 1e-12) is not None


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bits_however_pieces_are_cut(kind, always):
    """Statistics of a row do not depend on those beside it; those of pieces are sums of tiles."""
    rng = np.random.default_rng(8)
    model = mixture(kind, rng, 40, 6, 30.0)
    X = rows(model, 1000, rng)
    density = model.components.density(model.weights)
    recipe = density.components.covariance.recipe(density, np.dtype(np.float64), None, True)
    tile = recipe.kernel.layout.T
    whole, parts = KernelAccumulator(recipe), KernelAccumulator(recipe)
    whole.add(X)
    for a in range(0, len(X), tile):
        parts.add(X[a : a + tile])
    for name, values in whole.result().statistics.arrays().items():
        assert_array_equal(values, parts.result().statistics.arrays()[name])
    assert whole.result().log_likelihood == parts.result().log_likelihood


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [1e3, 1e8])
def test_the_same_sums_far_from_the_origin(kind, dtype, offset, always):
    rng = np.random.default_rng(0)
    model = mixture(kind, rng, 20, 6, 200.0, offset=offset)
    kernel = assert_same(model, rows(model, 2000, rng).astype(dtype), tolerance=1e-7)
    assert kernel is not None


@pytest.mark.parametrize("kind", KINDS)
def test_components_that_weigh_nothing(kind, always):
    rng = np.random.default_rng(1)
    weights = np.where(np.arange(16) % 3 == 0, 0.0, 1 / 16)
    model = mixture(kind, rng, 16, 3, 30.0, weights)
    X = rows(model, 1500, rng)
    assert assert_same(model, X, tolerance=1e-7) is not None
    assert_array_equal(sums(model, X)[1].statistics.weight[weights == 0], 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("far", [1e12, 1e19, 1e25, 1e150, 1e200])
def test_rows_that_no_component_is_near(kind, far, always):
    rng = np.random.default_rng(2)
    model = mixture(kind, rng, 16, 4, 20.0)
    X = rows(model, 500, rng)
    X[::7] *= far
    with np.errstate(all="ignore"):
        plain, left_out, _ = sums(model, X)
    assert_allclose(left_out.log_likelihood, plain.log_likelihood, rtol=1e-12)
    assert_allclose(left_out.statistics.weight.sum(), len(X), rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_is_not_finite_shows_in_the_likelihood(kind, bad, always):
    rng = np.random.default_rng(3)
    model = mixture(kind, rng, 16, 4, 100.0)
    X = rows(model, 700, rng)
    X[333, 2] = bad
    _, left_out, kernel = sums(model, X)
    assert kernel is not None
    assert np.isnan([left_out.log_likelihood, left_out.entropy]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_the_model_does_not_foresee_are_handed_back(kind, monkeypatch):
    monkeypatch.setattr(pruning, "ENOUGH", 0)
    rng = np.random.default_rng(4)
    model = mixture(kind, rng, 64, 4, 1e3)
    X = 1e4 * rng.normal(size=(5000, 4))
    X[:1000] = rows(model, 1000, rng)
    asked = []
    original = pruning.pruned_sums
    monkeypatch.setattr(
        pruning, "pruned_sums", lambda *args: asked.append(original(*args)) or asked[-1]
    )
    assert_same(model, X, tolerance=1e-6)
    X[:] = model.components.means.mean(axis=0)
    assert_same(model, X, tolerance=1e-6)
    assert len(asked) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_overlapping_components_are_not_left_out(kind):
    rng = np.random.default_rng(5)
    eye = np.stack([np.eye(16)] * 16) if kind == "full" else np.ones((16, 16))
    model = Mixture.of(kind, np.full(16, 1 / 16), rng.normal(size=(16, 16)), eye)
    _, _, kernel = sums(model, rng.normal(size=(100, 16)))
    assert kernel is None


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_are_left_out_where_that_pays(kind, monkeypatch):
    """A component of which a table says otherwise than the model is left out of its own rows."""
    rng = np.random.default_rng(6)
    model = mixture(kind, rng, 64, 4, 1e3)
    X = rows(model, 3000, rng)
    monkeypatch.setattr(pruning, "ENOUGH", 0)
    *_, kernel = sums(model, X)
    assert kernel is not None
    *others, norms = kernel.tables
    vars(kernel)["tables"] = (*others, np.where(np.arange(64) == 5, np.inf, norms).astype("f4"))
    room = kernel.recipe.second + pruning.ROOM
    step = KernelAccumulator(pruning.replace(kernel.recipe, kernel=kernel, second=room))
    step.add(X)
    assert step._n[5] == 0
    assert e_step(model, X).components.weight[5] > 0


def test_degenerate_tables_leave_nothing_out(always):
    rng = np.random.default_rng(7)
    model = mixture("diag", rng, 12, 3, 1e25)
    kernel = assert_same(model, rows(model, 100, rng))
    assert kernel is None
