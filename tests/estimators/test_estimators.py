"""GaussianMixture beside scikit-learn's: the same numbers, and the same data of every kind."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
import warnings

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import sklearn.mixture
import zarr
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import InvalidParameterError

import streamgmm
from streamgmm import GaussianMixture
from streamgmm.errors import (
    DataError,
    NonFiniteError,
    ParameterError,
    SingularCovarianceError,
    SourceError,
    SourceNotFoundError,
)
from streamgmm.sources import open_source
from tests.mixtures import TYPES, draw, random_mixture

X = draw(random_mixture("full", 4, 3, seed=5, spread=3.0), 1500)
PARAMETERS = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")

quiet = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def stored(folder, rows=X, chunks=(128, 3)):
    zarr.create_array(str(folder / "x.zarr"), data=rows, chunks=chunks)
    return folder / "x.zarr"


def assert_same_model(a, b, rtol):
    for name in PARAMETERS:
        got, expected = getattr(a, name), getattr(b, name)
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


@quiet
@pytest.mark.parametrize("init_params", ["kmeans", "random"])
@pytest.mark.parametrize("kind", TYPES)
def test_the_same_numbers_as_scikit_learn(kind, init_params):
    settings = dict(  # noqa: C408
        n_components=4, covariance_type=kind, init_params=init_params, tol=0, max_iter=50,
        random_state=7,
    )  # fmt: skip
    theirs = sklearn.mixture.GaussianMixture(**settings).fit(X)
    ours = GaussianMixture(**settings, block_size=24 * 500).fit(X)
    assert_same_model(ours, theirs, 1e-9)
    np.testing.assert_allclose(ours.lower_bounds_, theirs.lower_bounds_, rtol=1e-12)
    assert (ours.n_iter_, ours.converged_) == (theirs.n_iter_, theirs.converged_)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-9)
    np.testing.assert_allclose(ours.score_samples(X), theirs.score_samples(X), rtol=1e-9)
    for method in ("score", "bic", "aic"):
        expected = getattr(theirs, method)(X)
        np.testing.assert_allclose(getattr(ours, method)(X), expected, rtol=1e-9)
    for got, expected in zip(ours.sample(50), theirs.sample(50), strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, rtol=1e-7, atol=1e-9)


@quiet
@pytest.mark.parametrize("kind", TYPES)
def test_a_start_that_is_given(kind):
    start = sklearn.mixture.GaussianMixture(4, covariance_type=kind, random_state=0).fit(X[:200])
    settings = dict(  # noqa: C408
        covariance_type=kind, weights_init=start.weights_, means_init=start.means_,
        precisions_init=start.precisions_, tol=0, max_iter=50,
    )  # fmt: skip
    theirs = sklearn.mixture.GaussianMixture(4, **settings).fit(X)
    for block_size in ("8 KiB", "1 MiB"):
        ours = GaussianMixture(4, **settings, algorithm="em", block_size=block_size).fit(X)
        assert_same_model(ours, theirs, 1e-9)


@quiet
@pytest.mark.parametrize("kind", TYPES)
def test_attributes_set_by_hand_are_the_model(kind):
    theirs = sklearn.mixture.GaussianMixture(3, covariance_type=kind, random_state=0).fit(X)
    ours = GaussianMixture(3, covariance_type=kind)
    for model in (theirs, ours):
        model.weights_ = np.array([0.2, 0.3, 0.5])
        model.means_ = X[:3] + 1
        model.precisions_cholesky_ = theirs.precisions_cholesky_
    np.testing.assert_allclose(ours.score_samples(X), theirs.score_samples(X), rtol=1e-10)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    ours.random_state = theirs.random_state = 3
    np.testing.assert_allclose(ours.sample(5)[0], theirs.sample(5)[0], rtol=1e-6)
    ours.weights_ = np.ones(2) / 2
    with pytest.raises(ParameterError, match=r"weights_ has shape \(2,\)"):
        ours.predict(X)
    ours.weights_, ours.precisions_cholesky_ = theirs.weights_, np.ones((7, 7, 7))
    with pytest.raises(ParameterError, match="precisions_cholesky_ has shape"):
        ours.predict(X)


def test_data_of_every_kind(tmp_path):
    path = stored(tmp_path)
    model = GaussianMixture(4, random_state=0, block_size="16 KiB").fit(X)
    expected = model.predict(X), model.predict_proba(X), model.score_samples(X)
    for small in (X.tolist(), pd.DataFrame(X), np.asfortranarray(X)):
        got = model.predict(small), model.predict_proba(small), model.score_samples(small)
        for a, b in zip(got, expected, strict=True):
            assert type(a) is np.ndarray
            np.testing.assert_array_equal(a, b)
    array = zarr.open_array(path, mode="r")
    for large in (str(path), path, array, da.from_zarr(array), open_source(path)):
        again = clone(model).fit(large)
        assert_same_model(again, model, 1e-9)
        got = model.predict(large), model.predict_proba(large), model.score_samples(large)
        for a, b in zip(got, expected, strict=True):
            assert isinstance(a, da.Array)
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            assert a.npartitions > 1
            np.testing.assert_array_equal(a.compute(), b)
        np.testing.assert_allclose(model.score(large), model.score(X), rtol=1e-12)
        np.testing.assert_allclose(model.bic(large), model.bic(X), rtol=1e-12)
    lazy = clone(model).fit_predict(path)
    assert isinstance(lazy, da.Array)
    np.testing.assert_array_equal(lazy.compute(), expected[0])
    out = tmp_path / "labels.zarr"
    for data in (X, path):
        labels = model.predict(data, out=out, overwrite=data is path)
        assert isinstance(labels, zarr.Array)
        np.testing.assert_array_equal(labels[:], expected[0])


@quiet
@pytest.mark.parametrize("kind", TYPES)
def test_weights_are_repeats(kind):
    weight = np.arange(len(X)) % 3
    repeated = np.repeat(X, weight, axis=0)
    start = X[:4]
    model = GaussianMixture(
        4, covariance_type=kind, means_init=start, weights_init=np.full(4, 0.25), tol=0,
        precisions_init=GaussianMixture(4, covariance_type=kind).fit(X).precisions_, max_iter=20,
    )  # fmt: skip
    a = clone(model).fit(X, sample_weight=weight)
    b = clone(model).fit(repeated)
    assert_same_model(a, b, 1e-9)
    np.testing.assert_allclose(a.score(X, sample_weight=weight), b.score(repeated), rtol=1e-12)


def test_integers_and_float32_give_float64_models():
    for dtype in (np.int16, np.float32, np.uint8, bool):
        rows = np.abs(X * 3).astype(dtype)
        model = GaussianMixture(init_params="random").fit(rows)
        assert {getattr(model, name).dtype for name in PARAMETERS} == {np.dtype(np.float64)}
        expected = np.float32 if dtype == np.float32 else np.float64
        assert model.score_samples(rows).dtype == model.predict_proba(rows).dtype == expected


def test_history_and_warm_start():
    model = GaussianMixture(4, random_state=0, max_iter=3, warm_start=True, tol=1e-7)
    with pytest.warns(ConvergenceWarning, match="did not converge"):
        model.fit(X)
    names = {
        "iteration", "log_likelihood", "free_energy", "kl", "rows", "passes", "seconds",
    }  # fmt: skip
    assert names <= set(model.history_)
    assert {len(values) for values in model.history_.values()} == {3}
    bounds = list(model.lower_bounds_)
    for _ in range(100):
        if model.converged_:
            break
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(X)
        bounds += model.lower_bounds_
    whole = GaussianMixture(4, random_state=0, max_iter=300, tol=1e-7).fit(X)
    np.testing.assert_allclose(bounds, whole.lower_bounds_, rtol=1e-12)
    assert_same_model(model, whole, 1e-10)


def test_copies_of_all_sorts(tmp_path):
    model = GaussianMixture(2, random_state=0, n_jobs=2).fit(X)
    model.save(tmp_path / "model.zarr")
    loaded = streamgmm.load(tmp_path / "model.zarr")
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), loaded):
        assert other.get_params() == model.get_params()
        np.testing.assert_array_equal(other.predict_proba(X), model.predict_proba(X))
        assert other.history_.keys() == model.history_.keys()
    with pytest.raises(NotFittedError):
        clone(model).predict(X)
    with pytest.raises(NotFittedError):
        clone(model).save(tmp_path / "other.zarr")


def test_at_home_in_scikit_learn():
    model = make_pipeline(StandardScaler(), GaussianMixture(4, random_state=0)).fit(X)
    assert model.predict(X).shape == (len(X),)
    search = GridSearchCV(GaussianMixture(random_state=0), {"n_components": [1, 4]}, cv=2).fit(X)
    assert search.best_params_ == {"n_components": 4}


@quiet
def test_names_of_features():
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    model = GaussianMixture(2).fit(frame)
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(X)
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame.rename(columns={"a": "z"}))
    model.fit(da.from_array(X))
    assert not hasattr(model, "feature_names_in_")


@pytest.mark.parametrize("verbose", [1, 2])
def test_verbose_says_what_scikit_learn_says(verbose, capsys):
    said = []
    for cls in (sklearn.mixture.GaussianMixture, GaussianMixture):
        cls(4, random_state=0, verbose=verbose, verbose_interval=2).fit(X)
        text = capsys.readouterr().out
        said.append([line.split("time lapse")[0] for line in text.splitlines()])
    assert said[0] == said[1]


def test_a_progress_bar_listens(tmp_path, capsys):
    path = stored(tmp_path)
    with streamgmm.ProgressBar(file=sys.stdout):
        model = GaussianMixture(2, random_state=0).fit(path)
        model.predict(path, out=tmp_path / "labels.zarr")
        model.score(path)
    said = capsys.readouterr().out
    assert f"iteration {model.n_iter_}:" in said
    assert "writing: 1,500 rows" in said


def bad(row, column, value):
    rows = X.copy()
    rows[row, column] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "settings", "error", "message"),
    [
        (bad(700, 1, np.nan), {}, NonFiniteError, r"X, rows 0:1500: 1 non-finite .* row 700"),
        (bad(3, 2, -np.inf), {}, NonFiniteError, "row 3, column 2"),
        (X[:0], {}, DataError, r"0 sample\(s\)"),
        (X[:1], {}, DataError, "minimum of 2"),
        (X[:, :0], {}, DataError, r"0 feature\(s\)"),
        (X[:3], {"n_components": 4}, DataError, "n_samples >= n_components"),
        (X[0], {}, DataError, "Expected 2D array"),
        (X.astype(complex), {}, DataError, "Complex data not supported"),
        (np.ones((9, 2)), {"reg_covar": 0}, SingularCovarianceError, "ill-defined"),
        ("nowhere.zarr", {}, SourceNotFoundError, "nothing at 'nowhere.zarr'"),
        (zarr.create_group({}), {}, SourceError, "Zarr group"),
        (X, {"n_components": 0}, InvalidParameterError, "n_components"),
        (X, {"algorithm": "magic"}, InvalidParameterError, "algorithm"),
        (X, {"acceleration": "warp"}, InvalidParameterError, "acceleration"),
        (X, {"block_size": "large"}, ParameterError, "block_size='large' is no size"),
        (X, {"n_jobs": 0}, ParameterError, "n_threads=0"),
        (X, {"weights_init": [0.5, 0.6]}, ParameterError, "shape of"),
        (X, {"means_init": np.ones((1, 2))}, ParameterError, "shape of"),
        (X, {"precisions_init": -np.ones((1, 3, 3))}, ParameterError, "positive-definite"),
    ],
)
def test_what_cannot_be_fitted_says_why(rows, settings, error, message):
    with pytest.raises(error, match=message):
        GaussianMixture(**settings).fit(rows)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.ones(3), "3 weights but the data has 1500 rows"),
        (-np.ones(1500), "negative"),
        (np.zeros(1500), "zero"),
        (np.full(1500, np.nan), "non-finite"),
        (np.ones((1500, 2)), "1D array"),
    ],
)
def test_bad_weights_say_why(weight, message):
    model = GaussianMixture().fit(X)
    with pytest.raises(DataError, match=message):
        GaussianMixture().fit(X, sample_weight=weight)
    with pytest.raises(DataError, match=message):
        model.score(X, sample_weight=weight)


def test_the_number_of_features_is_named(tmp_path):
    model = GaussianMixture().fit(X)
    with pytest.raises(DataError, match=r"^X has 2 features, but GaussianMixture is expecting 3"):
        model.predict(X[:, :2])
    path = stored(tmp_path, X[:, :2], (128, 2))
    with pytest.raises(DataError, match=r"x\.zarr' has 2 features, .* expecting 3"):
        model.predict(path)
    lazy = model.score_samples(da.from_array(bad(700, 1, np.nan), chunks=(500, 3)))
    with pytest.raises(NonFiniteError, match="row 700"):
        lazy.compute()


def test_far_rows_have_finite_densities():
    model = GaussianMixture(4, random_state=0).fit(X)
    far = np.full((1, 3), 1e6)
    assert math.isfinite(model.score_samples(far)[0])
    np.testing.assert_allclose(model.predict_proba(far).sum(), 1)


def test_public_names():
    assert set(dir(streamgmm)) == set(streamgmm.__all__)
    for name in streamgmm.__all__:
        assert getattr(streamgmm, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        streamgmm.nothing  # noqa: B018
    code = "import streamgmm, sys; assert 'sklearn' not in sys.modules; streamgmm.errors"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_in_a_task_and_on_a_cluster(client, tmp_path):
    path = stored(tmp_path)
    model = GaussianMixture(4, random_state=0, block_size="4 KiB").fit(path)
    here = clone(model).set_params(n_jobs=2).fit(path)
    for name in PARAMETERS:
        assert getattr(model, name).tobytes() == getattr(here, name).tobytes()
    far = client.submit(model.predict, X, pure=False).result()
    np.testing.assert_array_equal(far, model.predict(X))
    np.testing.assert_array_equal(model.predict(path).compute(), far)
