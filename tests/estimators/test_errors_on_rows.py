"""Rows with errors in the estimators: extreme deconvolution on every source."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import zarr

import streamgmm
from streamgmm import GaussianMixture, KMeans, MixtureModel, OnlineGaussianMixture, select
from streamgmm.errors import CheckpointError, DataError, ParameterError, SourceError
from tests import deconvolution as dense

N, D, K = 4000, 3, 3
MEANS = np.array([[0.0, 0.0, 0.0], [4.0, 0.0, 2.0], [0.0, 4.0, -2.0]])
ROOT = np.array([[1.0, 0.5, 0.0], [0.0, 0.7, 0.2], [0.0, 0.0, 0.5]])
GIVEN = {
    "weights_init": np.full(K, 1 / K),
    "means_init": MEANS + 0.5,
    "precisions_init": np.stack([np.eye(D)] * K),
}
EXACT = {"algorithm": "em", "acceleration": None, "reg_covar": 0.0}
QUIET = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def make_data():
    """True values, values with errors, and the variances of these."""
    rng = np.random.default_rng(0)
    true = MEANS[rng.integers(0, K, N)] + rng.normal(size=(N, D)) @ ROOT
    s = rng.gamma(2, 0.7, size=(N, D))
    return true, true + rng.normal(size=(N, D)) * np.sqrt(s), s


TRUE, X, S = make_data()


def put(path, values, chunks):
    array = zarr.create_array(path, shape=values.shape, chunks=chunks, dtype=values.dtype)
    array[:] = values
    return str(path)


@pytest.fixture
def stored(tmp_path):
    """Paths of the rows and of their noise, in chunks that do not fit one another."""
    return {
        "x": put(tmp_path / "x.zarr", X, (700, D)),
        "s": put(tmp_path / "s.zarr", S, (450, 2)),
        "matrices": put(tmp_path / "m.zarr", dense.matrices(S), (900, 2, D)),
    }


@QUIET
@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_twenty_iterations_are_those_of_the_reference(kind):
    start = dict(GIVEN)
    if kind != "full":
        shape = {"tied": (D, D), "diag": (K, D), "spherical": (K,)}[kind]
        start["precisions_init"] = np.eye(D) if kind == "tied" else np.ones(shape)
    settings = EXACT | start | {"max_iter": 20, "tol": 0}
    model = GaussianMixture(K, covariance_type=kind, **settings).fit(X, noise_variance=S)
    weights, means, full = GIVEN["weights_init"], GIVEN["means_init"], np.stack([np.eye(D)] * K)
    for _ in range(20):
        weights, means, full = dense.step(X, dense.matrices(S), weights, means, full)
        full = dense.restricted(kind, weights, full)
    assert model.n_iter_ == 20
    np.testing.assert_allclose(model.weights_, weights, rtol=1e-9)
    np.testing.assert_allclose(model.means_, means, rtol=1e-9, atol=1e-9)
    found = model._mixture().components.full_covariances
    np.testing.assert_allclose(found, full, rtol=1e-9, atol=1e-9)
    log_density = dense.posterior(X, dense.matrices(S), weights, means, full)[0]
    np.testing.assert_allclose(model.score_samples(X, noise_variance=S), log_density, rtol=1e-9)
    assert model.score(X, noise_variance=S) == pytest.approx(log_density.mean(), rel=1e-9)


def test_the_true_distribution_is_found():
    model = GaussianMixture(K, random_state=0, tol=1e-6, max_iter=500).fit(X, noise_variance=S)
    order = [np.linalg.norm(model.means_ - mean, axis=1).argmin() for mean in MEANS]
    np.testing.assert_allclose(model.means_[order], MEANS, atol=0.15)
    np.testing.assert_allclose(model.covariances_, [ROOT.T @ ROOT] * K, atol=0.2)
    assert model.n_features_in_ == D
    F = model.history_["free_energy"]
    assert np.all(np.diff(F) >= -1e-9 * np.abs(F[1:]))
    blurred = GaussianMixture(K, random_state=0).fit(X)
    assert blurred.covariances_[0, 0, 0] > 2
    mean, std = model.denoise(X, S, return_std=True)
    error = np.mean((mean - TRUE) ** 2, axis=0)
    assert np.all(error < 0.6 * np.mean((X - TRUE) ** 2, axis=0))
    np.testing.assert_allclose(np.mean(std**2, axis=0), error, rtol=0.1)


@QUIET
def test_every_kind_of_rows_and_of_noise(stored, tmp_path):
    settings = EXACT | GIVEN | {"max_iter": 2, "tol": 0}
    weight = np.random.default_rng(1).random(N)
    here = GaussianMixture(K, **settings).fit(X, sample_weight=weight, noise_variance=S)
    wide = dense.matrices(S)
    kinds = [
        (X, stored["s"]),
        (X, wide),
        (X, stored["matrices"]),
        (stored["x"], S),
        (stored["x"], stored["s"]),
        (stored["x"], stored["matrices"]),
        (zarr.open(stored["x"]), zarr.open(stored["matrices"])),
        (da.from_array(X, chunks=(999, 2)), da.from_array(S, chunks=(512, 3))),
        (stored["x"], da.from_array(wide, chunks=(512, 3, 1))),
        (stored["x"], streamgmm.rows(stored["s"])),
    ]
    labels, mean = here.predict(X, noise_variance=S), here.denoise(X, S)
    for rows, noise in kinds:
        model = GaussianMixture(K, **settings).fit(rows, None, weight, noise_variance=noise)
        np.testing.assert_allclose(model.means_, here.means_, rtol=1e-10)
        np.testing.assert_allclose(model.covariances_, here.covariances_, rtol=1e-9)
        found = here.predict(rows, noise_variance=noise)
        assert isinstance(found, np.ndarray if rows is X else da.Array)
        np.testing.assert_array_equal(np.asarray(found), labels)
        np.testing.assert_allclose(np.asarray(here.denoise(rows, noise)), mean, rtol=1e-12)
    out = tmp_path / "mean.zarr", tmp_path / "std.zarr"
    written = here.denoise(stored["x"], stored["s"], return_std=True, out=out)
    np.testing.assert_array_equal(written[0][:], mean)
    np.testing.assert_array_equal(written[1][:], here.denoise(X, S, return_std=True)[1])
    proba = here.predict_proba(
        stored["x"], noise_variance=stored["s"], out=tmp_path / "proba.zarr"
    )
    np.testing.assert_array_equal(proba[:], here.predict_proba(X, noise_variance=S))
    assert here.predict(X[:3], noise_variance=S[:3]).tolist() == labels[:3].tolist()
    f32 = GaussianMixture(K, **settings).fit(
        X.astype("f4"), sample_weight=weight, noise_variance=S.astype("f4")
    )
    np.testing.assert_allclose(f32.means_, here.means_, atol=1e-4)


def test_cubes():
    cube = streamgmm.rows(X.T.reshape(D, 40, 100), feature_axis=0)
    noise = S.reshape(40, 100, D)
    model = GaussianMixture(K, random_state=0).fit(cube, noise_variance=noise)
    labels = model.predict(cube, noise_variance=noise)
    assert labels.shape == (40, 100)
    np.testing.assert_array_equal(labels.ravel(), model.predict(X, noise_variance=S))
    assert model.denoise(cube, noise).shape == (40, 100, D)
    with pytest.raises(DataError, match=r"has shape \(4000, 3\)"):
        model.predict(cube, noise_variance=S)


def test_without_noise_it_is_the_ordinary_fit():
    settings = {"random_state": 0, "tol": 1e-8, "max_iter": 300, "algorithm": "em"}
    plain = GaussianMixture(K, **settings | GIVEN).fit(TRUE)
    same = GaussianMixture(K, **settings | GIVEN).fit(TRUE, noise_variance=np.zeros((N, D)))
    np.testing.assert_allclose(same.means_, plain.means_, atol=1e-6)
    np.testing.assert_allclose(same.covariances_, plain.covariances_, atol=1e-6)
    zero = np.zeros((N, D))
    np.testing.assert_allclose(
        plain.score_samples(X, noise_variance=zero), plain.score_samples(X), rtol=1e-12
    )
    np.testing.assert_allclose(
        plain.predict_proba(X, noise_variance=zero), plain.predict_proba(X), atol=1e-12
    )
    np.testing.assert_array_equal(plain.predict(X, noise_variance=zero), plain.predict(X))


@QUIET
def test_infinite_variances_are_gaps():
    rng = np.random.default_rng(5)
    gaps = rng.random((N, D)) < 0.3
    settings = EXACT | GIVEN | {"max_iter": 10, "tol": 0}
    noise = np.where(gaps, np.inf, S)
    model = GaussianMixture(K, **settings).fit(X, noise_variance=noise)
    other = GaussianMixture(K, **settings).fit(np.where(gaps, 77.0, X), noise_variance=noise)
    limit = GaussianMixture(K, **settings).fit(X, noise_variance=np.where(gaps, 1e15, S))
    wide = dense.matrices(np.where(gaps, 0, S))
    np.einsum("ndd->nd", wide)[gaps] = np.inf
    full = GaussianMixture(K, **settings).fit(X, noise_variance=wide)
    for each in (other, full):
        np.testing.assert_allclose(each.means_, model.means_, rtol=1e-12)
    np.testing.assert_allclose(limit.means_, model.means_, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(limit.covariances_, model.covariances_, rtol=1e-6, atol=1e-6)
    alone = GaussianMixture(K, random_state=0, max_iter=300).fit(X, noise_variance=noise)
    np.testing.assert_allclose(np.sort(alone.weights_), 1 / 3, atol=0.05)
    given = model.condition([0]).predict(X[:, :1])
    told = model.denoise(X, np.where(np.arange(D) == 0, 0.0, np.inf) * np.ones((N, 1)))
    np.testing.assert_allclose(told[:, 1:], given, rtol=1e-10, atol=1e-10)


@QUIET
@pytest.mark.parametrize("kind", ["full", "diag"])
def test_gaps_beside_errors(tmp_path, kind):
    """NaN with missing="marginalize" is a value that is not known, whatever its error."""
    gaps = np.random.default_rng(5).random((N, D)) < 0.3
    gaps[:5] = True
    holed = np.where(gaps, np.nan, X)
    settings = {"covariance_type": kind, "random_state": 0, "max_iter": 10, "tol": 0}
    known = GaussianMixture(K, **settings).fit(X, noise_variance=np.where(gaps, np.inf, S))
    model = GaussianMixture(K, missing="marginalize", **settings)
    path = put(tmp_path / "x.zarr", holed, (700, D))
    for rows, noise in ((holed, S), (path, S), (holed, dense.matrices(S))):
        model.fit(rows, noise_variance=noise)
        np.testing.assert_allclose(model.means_, known.means_, rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(model.covariances_, known.covariances_, rtol=1e-7, atol=1e-7)
        expected = model.denoise(X, np.where(gaps, np.inf, S))
        np.testing.assert_allclose(np.asarray(model.denoise(rows, noise)), expected, atol=1e-10)
        assert np.isfinite(model.score(rows, noise_variance=noise))
    with pytest.raises(DataError, match="non-finite"):
        GaussianMixture(K).fit(holed, noise_variance=S)
    omitted = GaussianMixture(K, missing="omit", **settings).fit(holed, noise_variance=S)
    assert omitted.n_missing_ == int(gaps.any(axis=1).sum())


@QUIET
def test_the_same_bits_on_any_number_of_workers(stored, client):
    settings = {"random_state": 0, "block_size": 30_000, "max_iter": 8, "tol": 0}
    models = [
        GaussianMixture(K, n_jobs=n, **settings).fit(stored["x"], noise_variance=stored["s"])
        for n in (1, 2, None)
    ]
    for model in models[1:]:
        np.testing.assert_array_equal(model.means_, models[0].means_)
        np.testing.assert_array_equal(model.covariances_, models[0].covariances_)
    found = models[0].denoise(stored["x"], stored["s"])
    np.testing.assert_array_equal(found.compute(), models[0].denoise(X, S))
    held = GaussianMixture(K, **settings).fit(X, noise_variance=S)
    np.testing.assert_allclose(held.means_, models[0].means_, rtol=1e-8)


@QUIET
@pytest.mark.parametrize("algorithm", ["em", "incremental"])
def test_a_checkpoint_goes_on(stored, tmp_path, algorithm):
    settings = {"random_state": 0, "tol": 1e-9, "algorithm": algorithm, "block_size": 30_000}
    rows, noise = stored["x"], {"noise_variance": stored["s"]}
    whole = GaussianMixture(K, max_iter=12, **settings).fit(rows, **noise)
    place = {"checkpoint": tmp_path / "checkpoint"}
    GaussianMixture(K, max_iter=4, **settings, **place).fit(rows, **noise)
    later = GaussianMixture(K, max_iter=12, **settings, **place).fit(rows, **noise)
    np.testing.assert_array_equal(later.means_, whole.means_)
    np.testing.assert_array_equal(later.covariances_, whole.covariances_)
    with pytest.raises(CheckpointError):
        GaussianMixture(K, max_iter=12, **settings, **place).fit(rows)
    with pytest.raises(CheckpointError):
        GaussianMixture(K, max_iter=12, **settings, **place).fit(rows, noise_variance=2 * S)


def test_a_warm_start_goes_on(stored):
    settings = {"random_state": 0, "algorithm": "incremental", "block_size": 30_000}
    model = GaussianMixture(K, **settings).fit(stored["x"], noise_variance=stored["s"])
    bound = model.lower_bound_
    model.set_params(warm_start=True).fit(stored["x"], noise_variance=stored["s"])
    assert model.lower_bound_ >= bound - 1e-9


def test_models_are_saved(tmp_path):
    model = GaussianMixture(K, random_state=0).fit(X, noise_variance=S)
    model.save(tmp_path / "model.zarr")
    again = streamgmm.load(tmp_path / "model.zarr")
    np.testing.assert_array_equal(
        again.predict(X, noise_variance=S), model.predict(X, noise_variance=S)
    )
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_online(tmp_path):
    model, half = OnlineGaussianMixture(K, warm_up=1000), N // 2
    for a in range(0, half, 500):
        model.partial_fit(X[a : a + 500], noise_variance=S[a : a + 500])
    model.save(tmp_path / "model.zarr")
    again = streamgmm.load(tmp_path / "model.zarr")
    for each in (model, again):
        for a in range(half, N, 500):
            each.partial_fit(X[a : a + 500], noise_variance=S[a : a + 500])
    np.testing.assert_array_equal(again.means_, model.means_)
    assert model.n_features_in_ == D
    assert model.means_.shape == (K, D)
    assert np.linalg.det(model.covariances_).max() < 0.6  # 1.2 times the truth; 12 with the noise
    before = model.n_samples_seen_
    model.partial_fit(TRUE[:100])  # rows without errors among others
    assert model.n_samples_seen_ == before + 100
    assert model.to_mixture().predict(X[:5]).shape == (5,)
    assert model.denoise(X[:5], S[:5]).shape == (5, D)
    one_pass = OnlineGaussianMixture(K, warm_up=1000).fit(X, noise_variance=S)
    assert one_pass.score(X, noise_variance=S) > GaussianMixture(1).fit(X).score(X)
    with pytest.raises(ParameterError, match="learned without"):
        OnlineGaussianMixture(K).partial_fit(X).partial_fit(X, noise_variance=S)
    with pytest.raises(ParameterError, match="held variances"):
        model.partial_fit(X, noise_variance=dense.matrices(S))
    with pytest.raises(ParameterError, match="cannot be merged"):
        model.merge(again)
    assert model.n_samples_seen_ == before + 100


def test_any_mixture_of_gaussians():
    model = MixtureModel(K, "full", random_state=0).fit(X, noise_variance=S)
    plain = GaussianMixture(K, random_state=0).fit(X, noise_variance=S)
    np.testing.assert_array_equal(model.components_["means"], plain.means_)
    again = model.partial_fit(X[:500], noise_variance=S[:500])
    assert again.components_["covariances"].shape == (K, D, D)
    resp = np.full((N, K), 1 / K) + 0.01 * np.random.default_rng(0).random((N, K))
    resp /= resp.sum(axis=1, keepdims=True)
    MixtureModel(K, "diag", resp_init=resp).fit(X, noise_variance=S)
    for family in ("poisson", "student_t"):
        with pytest.raises(ParameterError, match=family):
            MixtureModel(K, family).fit(np.ones((9, 2)), noise_variance=np.ones((9, 2)))
    with pytest.raises(TypeError):
        KMeans(2).fit(X, noise_variance=S)


def test_criteria():
    model = GaussianMixture(K, random_state=0).fit(X, noise_variance=S)
    ll = N * model.score(X, noise_variance=S)
    assert model.aic(X, noise_variance=S) == pytest.approx(2 * (K * 10 - 1) - 2 * ll)
    assert model.bic(X, noise_variance=S) == pytest.approx((K * 10 - 1) * np.log(N) - 2 * ll)
    assert model.bic(X, noise_variance=S) < GaussianMixture(1).fit(X, noise_variance=S).bic(
        X, noise_variance=S
    )


def test_what_the_model_says_refuses_noise_too():
    model = GaussianMixture(K, random_state=0).fit(X, noise_variance=S)
    bad = dense.matrices(S) + 50 * (1 - np.eye(D))
    for say in (model.denoise, lambda X, s: model.predict(X, noise_variance=s)):
        with pytest.raises(DataError, match="row 0: its noise_variance is no covariance"):
            say(X, bad)
    with pytest.raises(ParameterError, match="not a family to choose"):
        MixtureModel(K, "uncertain").fit(np.hstack([X, S]))


def test_plan(stored):
    plan = GaussianMixture(K).plan(stored["x"], noise_variance=stored["s"])
    assert (plan.n_rows, plan.n_components) == (N, K)


@pytest.mark.parametrize(
    ("noise", "says"),
    [
        (S[:5], r"noise_variance has shape \(5, 3\), but X has rows of shape \(4000, 3\)"),
        (S[:, :2], r"has shape \(4000, 2\)"),
        (S[:, 0], r"has shape \(4000,\)"),
        (0.5, r"has shape \(\)"),
        (np.where(np.arange(N)[:, None] == 7, -1.0, S), "row 7, feature 0: -1.0 is negative"),
        (np.where(np.arange(N)[:, None] == 9, np.nan, S), "row 9, feature 0: nan is NaN"),
        (np.full((N, D), "a"), "not a number"),
        (dense.matrices(S) + np.triu(np.ones((D, D)), 1), "not symmetric"),
        (dense.matrices(S) + 50 * (1 - np.eye(D)), "X, row 0: its noise_variance is no cov"),
        (dense.matrices(S) + np.where(np.eye(D), 0, np.inf), "inf is infinite"),
    ],
)
def test_noise_that_cannot_be(noise, says, tmp_path):
    model = GaussianMixture(K, random_state=0)
    with np.errstate(invalid="ignore"), pytest.raises(DataError, match=says):
        model.fit(X, noise_variance=noise)
    noise = np.asarray(noise)
    if noise.ndim > 1 and noise.dtype.kind == "f":
        path = put(tmp_path / "noise.zarr", noise, (500, *noise.shape[1:]))
        says = says.replace("noise_variance has", "noise.zarr.* has")
        with pytest.raises(DataError, match=says):
            model.fit(X, noise_variance=path)


def test_noise_of_a_source_that_cannot_be():
    model = GaussianMixture(K)
    with pytest.raises(DataError, match="negative"):
        model.fit(X, noise_variance=streamgmm.rows(-S))
    with pytest.raises(SourceError, match="nowhere"):
        model.fit(X, noise_variance="nowhere.zarr")


def test_select_takes_rows_without_errors_alone():
    with pytest.raises(TypeError):
        select(X, range(1, 3), noise_variance=S)
