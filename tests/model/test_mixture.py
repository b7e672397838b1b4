import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from streamgmm.model.mixture import (
    EStep,
    Statistics,
    e_step,
    free_energy,
    m_step,
)
from tests.mixtures import (
    TYPES,
    assert_close,
    covariances_of,
    draw,
    em_step,
    gaussian_mixture,
    random_mixture,
    step_error,
)

kinds = st.sampled_from(TYPES)
seeds = st.integers(0, 10_000)
sizes = st.lists(st.integers(0, 150), min_size=1, max_size=6)


@pytest.fixture(params=TYPES)
def kind(request):
    return request.param


# Laws


@given(kinds, seeds, st.integers(1, 4), st.integers(1, 9), sizes)
@settings(max_examples=40, deadline=None)
def test_any_chunking_gives_the_pooled_statistics(kind, seed, k, d, sizes):
    mixture = random_mixture(kind, k, d, seed)
    X = draw(random_mixture("full", k, d, seed + 1), sum(sizes) + 1, seed)
    parts = np.split(X, np.cumsum(sizes))
    pooled = e_step(mixture, X)
    merged = EStep([(mixture, None)]).result()[0]
    for part in parts:
        merged = merged.merge(e_step(mixture, part))
    assert merged.n_rows == X.shape[0]
    assert_close(merged, pooled)
    step = EStep([(mixture, None)])
    for part in parts:
        step.add(part)
    assert_close(step.result()[0], pooled)


@given(kinds, seeds, st.integers(1, 4), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_integer_weights_are_repeated_rows_and_zero_weights_absent_ones(kind, seed, k, d):
    mixture = random_mixture(kind, k, d, seed)
    X = draw(random_mixture("full", k, d, seed + 1), 130, seed)
    counts = np.random.default_rng(seed).integers(0, 4, 130)
    weighted = e_step(mixture, X, counts.astype(float))
    assert_close(weighted, e_step(mixture, np.repeat(X, counts, axis=0)))
    assert weighted.n_rows == 130


@given(kinds, seeds, st.permutations(range(4)))
@settings(max_examples=20, deadline=None)
def test_components_have_no_order(kind, seed, order):
    a = random_mixture(kind, 4, 3, seed)
    covariances = a.components.covariances if kind == "tied" else a.components.covariances[order]
    b = gaussian_mixture(kind, a.weights[order], a.components.means[order], covariances)
    X = draw(random_mixture("full", 4, 3, seed + 1), 100, seed)
    p, q = e_step(a, X), e_step(b, X)
    assert_allclose(p.log_likelihood, q.log_likelihood, rtol=1e-12)
    assert_allclose(p.components.weight[order], q.components.weight, rtol=1e-9, atol=1e-12)
    assert_array_equal(
        np.asarray(order)[b.posterior(X, labels=True).labels], a.posterior(X, labels=True).labels
    )


@given(kinds, seeds, st.floats(0.1, 10.0))
@settings(max_examples=20, deadline=None)
def test_scale_is_the_same_rows_with_other_weights(kind, seed, factor):
    mixture = random_mixture(kind, 3, 4, seed)
    X = draw(mixture, 90, seed)
    assert_close(e_step(mixture, X).scale(factor), e_step(mixture, X, np.full(90, factor)))


def test_runs_are_bit_identical(kind):
    mixture = random_mixture(kind, 4, 7, 1)
    X = draw(mixture, 1000)
    a, b = e_step(mixture, X), e_step(pickle.loads(pickle.dumps(mixture)), X.copy())
    assert a.log_likelihood == b.log_likelihood
    assert a.entropy == b.entropy
    for field in ("weight", "mean", "scatter"):
        assert_array_equal(getattr(a.components, field), getattr(b.components, field))


def test_free_energy_of_the_e_step_is_the_log_likelihood(kind):
    mixture = random_mixture(kind, 5, 9, 2, offset=1e3)
    X = draw(random_mixture("full", 5, 9, 3, offset=1e3), 700)
    statistics = e_step(mixture, X)
    assert_allclose(free_energy(mixture, statistics), statistics.log_likelihood, rtol=1e-9)
    assert_allclose(mixture.posterior(X).log_density.sum(), statistics.log_likelihood, rtol=1e-12)
    resp = mixture.posterior(X, resp=True).resp
    assert_allclose(resp.sum(axis=1), 1.0, rtol=1e-13)
    assert_allclose(-np.sum(resp * np.log(np.maximum(resp, 1e-300))), statistics.entropy)


# Oracles


def sklearn_from(mixture, n_iter, reg_covar):
    k = mixture.n_components
    full = np.array(mixture.components.full_covariances)
    precisions = np.linalg.inv(full)
    precisions = {
        "full": precisions,
        "tied": precisions[0],
        "diag": np.einsum("kdd->kd", precisions),
        "spherical": precisions[:, 0, 0],
    }[mixture.family.name]
    return GaussianMixture(
        k,
        covariance_type=mixture.family.name,
        max_iter=n_iter,
        tol=0.0,
        reg_covar=reg_covar,
        weights_init=mixture.weights,
        means_init=mixture.components.means,
        precisions_init=precisions,
    )


@pytest.mark.parametrize("d", [1, 2, 3, 4, 5, 6, 7, 8, 9, 33])
def test_agrees_with_scikit_learn_after_fifty_iterations(kind, d):
    k = 1 + d % 7
    X = draw(random_mixture("full", k, d, d), 400)
    start = random_mixture(kind, k, d, d + 1)
    oracle = sklearn_from(start, 50, 1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        oracle.fit(X)
    mixture = start
    for _ in range(50):
        mixture = em_step(mixture, X, reg_covar=1e-6)[1]
    assert_allclose(mixture.weights, oracle.weights_, rtol=1e-9)
    scale = np.abs(oracle.means_).max()
    assert_allclose(mixture.components.means, oracle.means_, rtol=1e-9, atol=1e-9 * scale)
    scale = np.abs(oracle.covariances_).max()
    assert_allclose(
        mixture.components.covariances, oracle.covariances_, rtol=1e-9, atol=1e-9 * scale
    )
    ours = mixture.posterior(X, labels=True, resp=True)
    assert_allclose(ours.log_density, oracle.score_samples(X), rtol=1e-9)
    assert_allclose(ours.resp, oracle.predict_proba(X), rtol=1e-6, atol=1e-9)
    assert_array_equal(ours.labels, oracle.predict(X))


@pytest.mark.parametrize(
    ("kind", "k", "expected"),
    [
        ("full", 1, -379.914630),
        ("full", 2, -214.354704),
        ("full", 3, -180.185477),
        ("tied", 2, -296.447575),
        ("tied", 3, -256.354043),
        ("diag", 2, -386.185347),
        ("diag", 3, -306.860461),
        ("spherical", 2, -478.559096),
        ("spherical", 3, -384.314095),
    ],
)
def test_iris(kind, k, expected):
    X, species = load_iris(return_X_y=True)
    groups = species if k == 3 else np.minimum(species, k - 1)
    means = np.array([X[groups == j].mean(axis=0) for j in range(k)])
    full = np.stack([np.cov(X[groups == j].T, bias=True) for j in range(k)])
    mixture = gaussian_mixture(kind, np.full(k, 1 / k), means, covariances_of(kind, full))
    before = -np.inf
    for _ in range(3000):
        statistics, mixture = em_step(mixture, X)
        if statistics.log_likelihood - before < 1e-10:
            break
        before = statistics.log_likelihood
    assert statistics.log_likelihood == pytest.approx(expected, abs=2e-6)


# Hard cases


@pytest.mark.parametrize(("dtype", "offset"), [(np.float32, 1e4), (np.float64, 1e8)])
def test_two_unit_blobs_far_from_the_origin(kind, dtype, offset):
    rng = np.random.default_rng(0)
    near = rng.normal(size=(4000, 3))
    near[::2, 0] += 6.0
    X = (near + offset).astype(dtype)
    exact = X.astype(np.float64) - offset
    start = np.quantile(X, [0.1, 0.9], axis=0).astype(float)
    wide = {"full": np.eye(3), "tied": np.eye(3), "diag": np.ones(3), "spherical": 1.0}[kind]
    covariances = 9.0 * (np.asarray(wide) if kind == "tied" else np.stack([wide, wide]))
    mixture = gaussian_mixture(kind, np.array([0.5, 0.5]), start, covariances)
    for _ in range(60):
        mixture = em_step(mixture, X, reg_covar=0.0)[1]
    resp = mixture.posterior(X, resp=True).resp
    for k in range(2):
        r = resp[:, k] / resp[:, k].sum()
        mean = r @ exact
        gap = exact - mean
        covariance = gap.T @ (gap * r[:, None])
        ours = mixture.components.full_covariances[k]
        assert_allclose(
            mixture.components.means[k] - offset, mean, atol=1e-6 if dtype == np.float64 else 1e-3
        )
        if kind == "full":
            assert_allclose(ours, covariance, atol=1e-6 if dtype == np.float64 else 1e-4)
        assert_allclose(ours, np.eye(3), atol=0.1)
    assert_allclose(mixture.weights, 0.5, atol=0.01)


def test_five_hundred_features(kind):
    truth = random_mixture("spherical", 4, 500, 1, spread=1.0)
    X = draw(truth, 80)
    mixture = random_mixture(kind, 4, 500, 1, spread=1.0)
    full = mixture.components.full_covariances
    log_prob = np.empty((80, 4))
    for k in range(4):
        gap = X - mixture.components.means[k]
        log_det = np.linalg.slogdet(full[k])[1]
        q = np.einsum("nd,nd->n", gap, np.linalg.solve(full[k], gap.T).T)
        log_prob[:, k] = np.log(mixture.weights[k]) - 0.5 * (q + log_det + 500 * np.log(2 * np.pi))
    top = log_prob.max(axis=1, keepdims=True)
    resp = np.exp(log_prob - top)
    ours = mixture.posterior(X, labels=True, resp=True)
    assert_allclose(ours.log_density, np.log(resp.sum(axis=1)) + top[:, 0], rtol=1e-10)
    assert_allclose(ours.resp, resp / resp.sum(axis=1, keepdims=True), atol=1e-9)
    assert_array_equal(ours.labels, log_prob.argmax(axis=1))


@pytest.mark.parametrize("distance", [1e6, 1e30, 1e200])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_row_far_from_everything(kind, distance, dtype):
    mixture = random_mixture(kind, 3, 4, 1)
    X = draw(mixture, 65).astype(dtype)
    X[7] = min(distance, 1e37 if dtype == np.float32 else np.inf)
    out = mixture.posterior(X, resp=True)
    assert np.isfinite(out.log_density).all()
    assert_allclose(out.resp.sum(axis=1), 1.0, rtol=1e-12)
    if distance == 1e6:
        statistics = e_step(mixture, X)
        assert np.isfinite(statistics.log_likelihood)
        assert_allclose(statistics.components.weight.sum(), 65, rtol=1e-6)


def test_weights_of_nothing_and_next_to_nothing(kind):
    mixture = random_mixture(kind, 3, 4, 1)
    X = draw(mixture, 200)
    nothing = e_step(mixture, X, np.zeros(200))
    assert nothing.log_likelihood == 0
    assert nothing.weight == 0
    assert_array_equal(nothing.components.weight, 0)
    tiny = e_step(mixture, X, np.full(200, 1e-300))
    plain = e_step(mixture, X)
    assert_allclose(tiny.components.mean, plain.components.mean, rtol=1e-9)
    assert_allclose(
        tiny.components.scatter * 1e300, plain.components.scatter, rtol=1e-6, atol=1e-9
    )
    assert_allclose(
        m_step(mixture, tiny).components.covariances,
        m_step(mixture, plain).components.covariances,
        rtol=1e-6,
        atol=1e-9,
    )
    mixed = np.where(np.arange(200) < 100, 1.0, 1e-300)
    assert_close(e_step(mixture, X, mixed).merge(Statistics(0, 0, 0, 0, nothing.components)),
                 e_step(mixture, X[:100]))  # fmt: skip


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_row_that_is_not_finite_shows_in_the_log_likelihood(kind, value, dtype):
    mixture = random_mixture(kind, 3, 4, 1)
    X = draw(mixture, 200).astype(dtype)
    X[77, 2] = value
    assert np.isnan(e_step(mixture, X).log_likelihood)
    out = mixture.posterior(X)
    assert np.isnan(out.log_density[77])
    assert np.isfinite(np.delete(out.log_density, 77)).all()


def test_a_component_of_weight_zero_keeps_what_it_was(kind):
    full = random_mixture(kind, 3, 4, 1)
    mixture = gaussian_mixture(
        kind, np.array([0.5, 0.0, 0.5]), full.components.means, full.components.covariances
    )
    X = draw(mixture, 300)
    statistics, updated = em_step(mixture, X)
    assert statistics.components.weight[1] == 0
    assert updated.weights[1] == 0
    assert_array_equal(updated.components.means[1], mixture.components.means[1])
    if kind != "tied":
        assert_array_equal(updated.components.covariances[1], mixture.components.covariances[1])
    assert_allclose(free_energy(mixture, statistics), statistics.log_likelihood, rtol=1e-9)
    assert np.isfinite(free_energy(updated, statistics))


def test_a_far_start_is_noticed_and_put_right(kind):
    rng = np.random.default_rng(5)
    near = rng.normal(size=(3000, 3)) * np.array([1.0, 0.5, 2.0])
    X = near + 1e6
    wide = {"full": np.eye(3)[None], "tied": np.eye(3), "diag": np.ones((1, 3))}
    covariances = 1e12 * wide.get(kind, np.ones(1))
    mixture = gaussian_mixture(kind, np.ones(1), np.zeros((1, 3)), covariances)
    assert step_error(mixture, m_step(mixture, e_step(mixture, X))) > 1e-9
    updated = em_step(mixture, X)[1]
    exact = np.cov((X - 1e6).T, bias=True)
    exact = {"full": exact[None], "tied": exact, "diag": np.diag(exact)[None]}.get(
        kind, np.trace(exact)[None] / 3
    )
    assert_allclose(updated.components.covariances, exact, rtol=1e-9, atol=1e-9)
    assert step_error(mixture, updated, updated.components.means) < 1e-12


def test_float32_tiles_are_used_only_where_they_are_accurate_enough():
    X = np.zeros((4, 3), np.float32)
    assert random_mixture("full", 3, 3).density.tile_dtype(X) == np.float32
    assert random_mixture("full", 3, 3).density.tile_dtype(X, weighted=True) == np.float64
    assert random_mixture("full", 3, 3).density.tile_dtype(X.astype(float)) == np.float64
    assert random_mixture("full", 3, 3, spread=1e6).density.tile_dtype(X) == np.float64


@pytest.mark.parametrize("d", [2, 16, 33])
def test_float32_tiles_stay_within_their_bound(kind, d):
    mixture = random_mixture(kind, 4, d, 3)
    X = draw(mixture, 2000).astype(np.float32)
    narrow, wide = e_step(mixture, X), e_step(mixture, X.astype(np.float64))
    assert mixture.density.tile_dtype(X) == np.float32
    error = abs(narrow.log_likelihood - wide.log_likelihood) / 2000
    assert error <= mixture.density.float32_error
    assert_allclose(
        narrow.components.scatter,
        wide.components.scatter,
        rtol=1e-3,
        atol=1e-4 * np.abs(wide.components.scatter).max(),
    )


@pytest.mark.parametrize("kind", ["full", "tied", "spherical"])
@pytest.mark.parametrize("k", [1, 2, 5, 8])
def test_sums_about_a_shared_centre_are_those_about_the_means(kind, k):
    """Near components share a centre, far ones do not: the moments are the same."""
    mixture = random_mixture(kind, k, 5, seed=k)
    X = draw(mixture, 777, seed=k)
    shared, own = e_step(mixture, X), e_step(mixture, X, centres=mixture.components.means)
    assert_allclose(shared.components.mean, own.components.mean, rtol=1e-12, atol=1e-12)
    assert_allclose(shared.components.scatter, own.components.scatter, rtol=1e-10, atol=1e-9)
    assert shared.log_likelihood == pytest.approx(own.log_likelihood, rel=1e-13)
    if k == 1 or kind == "spherical":
        return
    far = mixture.components.means.copy()
    far[0] += 1e5
    weights = np.full(k, 1.0)
    weights[0] = 1e-7
    split = gaussian_mixture(kind, weights / weights.sum(), far, mixture.components.covariances)
    near = np.all(
        split.family.covariance.scatter_centres(split.density) == split.density.centre, axis=1
    )
    assert_array_equal(near, np.arange(k) > 0)
    Y = np.concatenate([X, X + 1e5])
    shared, own = e_step(split, Y), e_step(split, Y, centres=split.components.means)
    assert_allclose(shared.components.mean, own.components.mean, rtol=1e-12, atol=1e-12)
    assert_allclose(shared.components.scatter, own.components.scatter, rtol=1e-9, atol=1e-8)
