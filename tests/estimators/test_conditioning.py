"""`condition` and `MixtureRegressor`: the same numbers of rows of every kind."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import streamgmm
from streamgmm import (
    PCA,
    GaussianMixture,
    MixtureModel,
    MixtureRegressor,
    OnlineGaussianMixture,
    StandardScaler,
)
from streamgmm.errors import DataError, NonFiniteError, ParameterError
from streamgmm.families import Product

N = 3000


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, 4)) @ rng.normal(size=(4, 4)) + 4 * rng.integers(0, 2, (N, 1))


@pytest.fixture
def stored(X, tmp_path):
    """Paths of the given features and of the others, in chunks that do not fit one another."""
    paths = {}
    for name, columns, chunks in (("x", [3, 1], (700, 2)), ("y", [0, 2], (450, 1))):
        array = zarr.create_array(
            tmp_path / f"{name}.zarr", shape=(N, 2), chunks=chunks, dtype="f8"
        )
        array[:] = X[:, columns]
        paths[name] = str(tmp_path / f"{name}.zarr")
    return paths


@pytest.fixture(scope="module")
def model(X):
    return GaussianMixture(2, random_state=0).fit(X)


def test_every_kind_of_rows_gives_the_same_bits(X, model, stored, tmp_path):
    found = model.condition([3, 1])
    given, rest = X[:, [3, 1]], X[:, [0, 2]]
    mean, std = found.predict(given, return_std=True)
    cov = found.predict(given, return_cov=True)[1]
    assert (mean.shape, std.shape, cov.shape) == ((N, 2), (N, 2), (N, 2, 2))
    np.testing.assert_allclose(np.sqrt(np.einsum("nii->ni", cov)), std, rtol=1e-12)
    log_density, draws = found.score_samples(given, rest), found.sample(given, random_state=1)
    assert all(type(each) is np.ndarray for each in (mean, log_density, draws))
    lazy = found.predict(stored["x"])
    assert isinstance(lazy, da.Array)
    out = tmp_path / "mean.zarr", tmp_path / "std.zarr"
    written = found.predict(stored["x"], return_std=True, out=out)
    for one, two in (
        (lazy, mean),
        (found.predict(da.from_array(given, chunks=(611, 1))), mean),
        (written[0][:], mean),
        (written[1][:], std),
        (found.predict(stored["x"], return_cov=True)[1], cov),
        (found.score_samples(stored["x"], stored["y"]), log_density),
        (found.score_samples(stored["x"], rest), log_density),
        (found.score_samples(given, stored["y"]), log_density),
        (found.sample(stored["x"], random_state=1), draws),
        (found.predict(given[:7]), mean[:7]),
        (found.predict_proba(stored["x"]).sum(axis=1), np.ones(N)),
    ):
        np.testing.assert_allclose(np.asarray(one), two, rtol=1e-14, atol=1e-14)
    assert type(found.score_samples(given, stored["y"])) is np.ndarray
    again = found.sample(given, random_state=2)
    assert (again != draws).all()
    assert len(np.unique(found.sample(np.zeros((50, 2)), random_state=0)[:, 0])) == 50


def test_densities_add_up(X, model):
    """log p(x, y) = log p(x) + log p(y | x)."""
    first = model.condition([2])
    second = model.condition([0, 2])
    third = model.condition([1, 0, 2])
    from streamgmm.model.conditional import marginal
    from streamgmm.model.mixture import Mixture

    mixture = model._mixture()
    alone = Mixture(mixture.weights, marginal(mixture.components, [2])).posterior(X[:, [2]])
    total = alone.log_density + first.score_samples(X[:, [2]], X[:, [0, 1, 3]])
    np.testing.assert_allclose(total, model.score_samples(X), rtol=1e-12, atol=1e-11)
    # p(0, 1, 3 | 2) = p(0 | 2) p(1 | 0, 2) p(3 | 0, 1, 2)
    three = second.score_samples(X[:, [0, 2]], X[:, [1, 3]])
    assert third.score_samples(X[:, [1, 0, 2]], X[:, 3]).shape == (N,)
    assert np.isfinite(three).all()


def test_every_mixture_of_gaussians_has_it(X):
    frame = pd.DataFrame(X, columns=["temp", "salt", "oxygen", "depth"])
    named = GaussianMixture(2, random_state=0).fit(frame)
    plain = GaussianMixture(2, random_state=0).fit(X)
    by_name = named.condition(["depth", "temp"])
    assert by_name.features_ == ["depth", "temp"]
    assert by_name.targets_ == ["salt", "oxygen"]
    expected = plain.condition([3, 0]).predict(X[:, [3, 0]])
    np.testing.assert_array_equal(by_name.predict(frame[["depth", "temp"]]), expected)
    np.testing.assert_array_equal(plain.condition([-1, 0]).predict(X[:, [3, 0]]), expected)
    any_family = MixtureModel(2, "full", random_state=0).fit(X)
    np.testing.assert_array_equal(any_family.condition([3, 0]).predict(X[:, [3, 0]]), expected)
    online = OnlineGaussianMixture(2, warm_up=500).fit(X)
    assert online.condition([1]).predict(X[:, [1]]).shape == (N, 3)
    family = Product(one=("full", [0, 1]), two=("diag", [2, 3]))
    parts = MixtureModel(2, family, random_state=0).fit(X)
    assert parts.condition([0, 3]).predict(X[:, [0, 3]]).shape == (N, 2)


def test_what_cannot_be_conditioned(X, model):
    with pytest.raises(NotFittedError):
        GaussianMixture().condition([0])
    with pytest.raises(ParameterError, match="given by its name"):
        model.condition(["temp"])
    with pytest.raises(ParameterError, match="is no feature"):
        model.condition([4])
    with pytest.raises(ParameterError, match="poisson"):
        MixtureModel(1, "poisson").fit(np.ones((5, 2))).condition([0])
    found = model.condition([0])
    with pytest.raises(DataError, match="2 features, but ConditionedMixture is expecting 1"):
        found.predict(X[:, :2])
    with pytest.raises(DataError, match="Y has 2 features, but 3 are told of"):
        found.score_samples(X[:, :1], X[:, :2])
    with pytest.raises(DataError, match=r"Y has shape \(5, 3\)"):
        found.score_samples(X[:, :1], X[:5, :3])
    with pytest.raises(NonFiniteError):
        found.predict([[np.nan]])
    with pytest.raises(ParameterError, match="one of return_std and return_cov"):
        found.predict(X[:, :1], return_std=True, return_cov=True)
    with pytest.raises(ParameterError, match="two arrays"):
        found.predict(X[:, :1], return_std=True, out="one.zarr")


def test_names_that_are_not_there_are_named(X):
    frame = pd.DataFrame(X, columns=list("abcd"))
    with pytest.raises(ParameterError, match="'e' is not a feature of the model"):
        GaussianMixture().fit(frame).condition(["e"])


@pytest.mark.parametrize("targets", [[2], [0, 2]])
def test_a_regressor_is_the_conditional_mixture(X, targets):
    rest = [i for i in range(4) if i not in targets]
    one = targets == [2]
    y = X[:, 2] if one else X[:, targets]
    model = MixtureRegressor(2, random_state=0).fit(X[:, rest], y)
    joint = GaussianMixture(2, random_state=0).fit(X[:, rest + targets])
    np.testing.assert_array_equal(model.means_, joint.means_)
    found = joint.condition(range(len(rest)))
    mean, std = model.predict(X[:, rest], return_std=True)
    expected = found.predict(X[:, rest], return_std=True)
    assert mean.shape == std.shape == y.shape
    np.testing.assert_array_equal(mean.reshape(N, -1), expected[0])
    np.testing.assert_array_equal(std.reshape(N, -1), expected[1])
    cov = model.predict(X[:, rest], return_cov=True)[1]
    assert cov.shape == (N, len(targets), len(targets))
    assert model.score(X[:, rest], y) == r2_score(y, mean)
    assert model.n_features_in_ == len(rest)


def test_one_component_is_least_squares(X):
    design = np.column_stack([np.ones(N), X[:, :3]])
    expected = design @ np.linalg.lstsq(design, X[:, 3])[0]
    model = MixtureRegressor(reg_covar=0).fit(X[:, :3], X[:, 3])
    np.testing.assert_allclose(model.predict(X[:, :3]), expected, atol=1e-9)


def test_stored_rows_and_targets_are_read_where_they_lie(X, stored, tmp_path):
    settings = {"random_state": 0, "block_size": 1 << 14, "tol": 1e-4}
    given, rest = X[:, [3, 1]], X[:, [0, 2]]
    weight = np.random.default_rng(1).random(N)
    here = MixtureRegressor(2, **settings).fit(given, rest, weight)
    there = MixtureRegressor(2, **settings).fit(stored["x"], stored["y"], weight)
    mixed = MixtureRegressor(2, **settings).fit(stored["x"], rest, weight)
    for model in (there, mixed):
        np.testing.assert_allclose(model.means_, here.means_, rtol=1e-9)
    lazy = there.predict(stored["x"])
    np.testing.assert_allclose(lazy.compute(), here.predict(given), rtol=1e-9)
    out = there.predict(stored["x"], out=tmp_path / "out.zarr")
    np.testing.assert_array_equal(out[:], lazy.compute())
    expected = r2_score(rest, there.predict(given), sample_weight=weight)
    assert there.score(stored["x"], stored["y"], weight) == pytest.approx(expected, rel=1e-12)
    assert there.score(given, rest, weight) == pytest.approx(expected, rel=1e-12)
    two = MixtureRegressor(2, n_jobs=2, **settings).fit(stored["x"], stored["y"], weight)
    np.testing.assert_array_equal(two.means_, there.means_)
    np.testing.assert_array_equal(two.covariances_, there.covariances_)


def test_y_may_be_the_name_of_a_column(X, tmp_path):
    frame = pd.DataFrame(X, columns=["temp", "salt", "oxygen", "depth"])
    model = MixtureRegressor(2, random_state=0).fit(frame, "oxygen")
    assert list(model.feature_names_in_) == ["temp", "salt", "depth"]
    rest = frame[["temp", "salt", "depth"]]
    plain = MixtureRegressor(2, random_state=0).fit(X[:, [0, 1, 3]], X[:, 2])
    np.testing.assert_allclose(model.predict(rest), plain.predict(X[:, [0, 1, 3]]), rtol=1e-9)
    assert model.score(frame, "oxygen") == pytest.approx(plain.score(X[:, [0, 1, 3]], X[:, 2]))
    columns = {name: frame[name].to_numpy() for name in frame}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    both = MixtureRegressor(2, random_state=0).fit(
        tmp_path / "rows.parquet", ["oxygen", "temp"], np.ones(N)
    )
    assert both.target_names_ == ["oxygen", "temp"]
    assert both.predict(tmp_path / "rows.parquet").shape == (N, 2)
    source = streamgmm.rows(tmp_path / "rows.parquet", features=["depth", "salt", "temp"])
    assert MixtureRegressor().fit(source, "salt").predict(source).shape == (N,)
    with pytest.raises(ParameterError, match="'oxigen' is not a column"):
        MixtureRegressor().fit(frame, ["oxigen"])
    with pytest.raises(ParameterError, match="all columns"):
        MixtureRegressor().fit(frame[["temp"]], "temp")


def test_a_regressor_is_saved_and_goes_on(X, tmp_path):
    model = MixtureRegressor(2, random_state=0, max_iter=200).fit(X[:, :3], X[:, 3])
    model.save(tmp_path / "model.zarr")
    again = streamgmm.load(tmp_path / "model.zarr")
    assert type(again) is MixtureRegressor
    assert again.get_params() == model.get_params()
    np.testing.assert_array_equal(again.predict(X[:, :3]), model.predict(X[:, :3]))
    assert set(clone(model).get_params()) == set(GaussianMixture().get_params())
    warm = model.set_params(warm_start=True).fit(X[:, :3], X[:, 3])
    assert warm.lower_bound_ >= again.lower_bound_ - 1e-9


def test_rows_with_gaps_are_left_out_where_that_is_asked_for(X):
    rows, y = X[:, :3].copy(), X[:, 3].copy()
    rows[5, 1] = y[9] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        MixtureRegressor().fit(X[:, :3], y)
    model = MixtureRegressor(missing="omit").fit(rows, y)
    kept = np.setdiff1d(np.arange(N), [5, 9])
    plain = MixtureRegressor().fit(X[kept, :3], X[kept, 3])
    np.testing.assert_allclose(model.means_, plain.means_, rtol=1e-12)
    assert np.isnan(model.predict(rows)).nonzero()[0].tolist() == [5]
    expected = r2_score(X[kept, 3], model.predict(X[kept, :3]))
    assert model.score(rows, y) == pytest.approx(expected, rel=1e-12)


def test_what_was_observed_is_given(X):
    """With missing="marginalize" a gap in X is a feature less, of that row alone."""
    rng = np.random.default_rng(2)
    holed = np.where(rng.random(X.shape) < 0.2, np.nan, X)
    model = GaussianMixture(2, random_state=0, missing="marginalize").fit(holed)
    found = model.condition([0, 1])
    mean, std = found.predict(holed[:, :2], return_std=True)
    density = found.score_samples(holed[:, :2], holed[:, 2:])
    draws, proba = found.sample(holed[:, :2], random_state=0), found.predict_proba(holed[:, :2])
    one = ~np.isnan(holed[:, 0]) & np.isnan(holed[:, 1])
    alone = model.condition([0])
    told = alone.predict(holed[one, :1], return_std=True)
    np.testing.assert_allclose(mean[one], told[0][:, 1:], rtol=1e-9)
    np.testing.assert_allclose(std[one], told[1][:, 1:], rtol=1e-9)
    np.testing.assert_allclose(proba[one], alone.predict_proba(holed[one, :1]), rtol=1e-9)
    whole = ~np.isnan(holed[:, :2]).any(axis=1)
    np.testing.assert_array_equal(mean[whole], found.predict(X[whole, :2]))
    nothing = np.isnan(holed[:, :2]).all(axis=1)
    for each in (mean, std, draws):  # as labels of such rows are -1
        np.testing.assert_array_equal(np.isnan(each).any(axis=1), nothing)
    # log p(y | x) = log p(x, y) - log p(x), of what there is of both
    both = model.score_samples(holed)
    none = np.full((N, 2), np.nan)
    inside = model.score_samples(np.hstack([holed[:, :2], none]))
    there = ~nothing
    np.testing.assert_allclose(density[there], (both - inside)[there], rtol=1e-7, atol=1e-7)
    y = np.where(rng.random(N) < 0.2, np.nan, X[:, 3])
    regressor = MixtureRegressor(2, random_state=0, missing="marginalize").fit(holed[:, :3], y)
    assert np.isfinite(regressor.predict(holed[:, :3])).mean() > 0.98
    with pytest.raises(NonFiniteError):
        GaussianMixture(2).fit(X).condition([0]).predict(holed[:, :1])


def test_regressors_and_errors_after_a_scaler(X, stored):
    """Transforms are of the rows alone: of neither targets nor noise."""
    given, rest = X[:, [3, 1]], X[:, [0, 2]]
    scaler = StandardScaler().fit(given)
    plain = MixtureRegressor(2, random_state=0).fit(scaler.transform(given), rest)
    for step in (StandardScaler(), PCA(2)):
        piped = make_pipeline(step, MixtureRegressor(2, random_state=0))
        piped.fit(stored["x"], stored["y"])
        mean = piped.predict(stored["x"])
        expected = plain.predict(scaler.transform(given))
        np.testing.assert_allclose(np.asarray(mean), expected, atol=1e-4)
    noise = np.full((N, 2), 0.1)
    one = GaussianMixture(2, random_state=0).fit(scaler.transform(given), noise_variance=noise)
    two = GaussianMixture(2, random_state=0).fit(
        scaler.transform(stored["x"]), noise_variance=noise
    )
    np.testing.assert_allclose(two.means_, one.means_, rtol=1e-9)


@parametrize_with_checks(
    [MixtureRegressor(), MixtureRegressor(2), MixtureRegressor(covariance_type="tied")],
    expected_failed_checks=lambda estimator: (
        {
            "check_sample_weight_equivalence_on_dense_data": (
                "a start is drawn from the rows, as in GaussianMixture: repeated rows draw another"
            )
        }
        if estimator.n_components > 1
        else {}
    ),
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_estimator_checks(estimator, check):
    check(estimator)
