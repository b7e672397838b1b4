"""Displays: what they draw is what all rows say, and what they leave out they name."""

from __future__ import annotations

import sys

import matplotlib as mpl
import numpy as np
import pytest
import zarr
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture as SklearnMixture
from sklearn.pipeline import make_pipeline

from streamgmm import (
    ConvergenceDisplay,
    GaussianMixture,
    KMeans,
    MapDisplay,
    MixtureDisplay,
    MixtureModel,
    OnlineGaussianMixture,
    ProfileDisplay,
    SelectionDisplay,
    StandardScaler,
    StreamDisplay,
    rows,
    select,
    select_clusters,
)
from streamgmm.errors import DataError, ParameterError, StreamGMMError
from streamgmm.report.selecting import CRITERIA, best_of

mpl.use("agg")
import matplotlib.pyplot as plt

NASTY = ["<script>alert(1)</script>", "a" * 10_000, "$\\frac{1}{$", "new\nline"]


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    return rng.normal(size=(3000, 4)) + 5 * rng.integers(0, 3, size=(3000, 1)) * [1, 0.5, 0, 1]


@pytest.fixture(scope="module")
def model(X):
    return GaussianMixture(3, random_state=0).fit(X)


def drawn(display):
    """Draw all of it, as saving a picture does."""
    display.figure_.canvas.draw()
    return display


def said(display):
    return " ".join(display.notes)


def test_all_rows_are_counted(model, X):
    display = drawn(MixtureDisplay.from_estimator(model, X, features=[0, 3]))
    assert display.histograms.n_rows == len(X)
    assert display.ax_.figure is display.figure_
    assert "All 3,000 rows" in said(display)
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("x0", "x3")
    (mesh,) = [c for c in display.ax_.collections if c.get_array() is not None]
    assert mesh.get_array().sum() == display.histograms.joint(0).sum()


@pytest.mark.parametrize("kind", ["zarr", "path", "rows", "dask", "list"])
def test_every_kind_of_rows(model, X, kind, tmp_path):
    array = zarr.open_array(
        tmp_path / "x.zarr", mode="w", shape=X.shape, chunks=(500, 4), dtype=float
    )
    array[:] = X
    if kind == "dask":
        given = pytest.importorskip("dask.array").from_array(X, chunks=(700, 4))
    else:
        given = {
            "zarr": array,
            "path": str(tmp_path / "x.zarr"),
            "rows": rows(X.reshape(30, 100, 4)),
            "list": X.tolist(),
        }[kind]
    found = MixtureDisplay.from_estimator(model, given, features=[0, 1]).histograms
    expected = MixtureDisplay.from_estimator(model, X, features=[0, 1]).histograms
    np.testing.assert_array_equal(found.joints, expected.joints)


@pytest.mark.parametrize(
    "make",
    [
        lambda X: MixtureModel(2, "full", random_state=0).fit(X),
        lambda X: MixtureModel(2, "student_t", random_state=0, max_iter=5, tol=1).fit(X),
        lambda X: MixtureModel(2, "poisson", random_state=0).fit(np.abs(X).round()),
        lambda X: OnlineGaussianMixture(2, warm_up=500).fit(X),
        lambda X: KMeans(3, random_state=0).fit(X),
        lambda X: GaussianMixture(2, covariance_type="tied", random_state=0).fit(X),
        lambda X: GaussianMixture(2, covariance_type="spherical", random_state=0).fit(X),
    ],
    ids=["model", "student_t", "poisson", "online", "kmeans", "tied", "spherical"],
)
def test_every_family(make, X):
    own = make(X)
    Y = np.abs(X).round()
    for features in (None, [0, 1], 2):
        display = drawn(MixtureDisplay.from_estimator(own, Y, features=features))
        assert display.histograms.weight == len(Y)
    drawn(ProfileDisplay.from_estimator(own, Y))
    drawn(StreamDisplay.from_estimator(own, Y))
    drawn(MapDisplay.from_estimator(own, rows(Y.reshape(30, 100, 4))))


def test_one_feature_shows_parts_and_their_sum(X):
    own = GaussianMixture(2, random_state=0).fit(X[:, :1])
    display = drawn(MixtureDisplay.from_estimator(own, X[:, :1]))
    (found,) = display.marginals
    lines = [line.get_ydata() for line in display.ax_.lines]
    assert len(lines) == 3
    np.testing.assert_allclose(sum(lines[:2]), lines[2])
    area = np.sum(found.total) * (found.points[1] - found.points[0])
    assert area == pytest.approx(1, abs=1e-3)


def test_pair_plots(model, X):
    display = drawn(MixtureDisplay.from_estimator(model, X))
    assert display.ax_.shape == (4, 4)
    assert display.ax_[0, 1] is None
    assert display.ax_[3, 0].get_xlabel() == "x0"
    assert display.ax_[3, 0].get_ylabel() == "x3"
    _, (left, right) = plt.subplots(1, 2)
    given = MixtureDisplay.from_estimator(model, X, features=[0, 1], ax=left)
    assert given.ax_ is left
    assert drawn(display.plot(right)).figure_ is right.get_figure()


def test_many_components_and_features_are_chosen_and_said():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 500))
    X[:, 137] += 40 * rng.integers(0, 2, 1500)
    own = GaussianMixture(2, covariance_type="diag", random_state=0).fit(X)
    display = drawn(MixtureDisplay.from_estimator(own, X))
    assert "x137" in display.feature_names
    assert "4 of 500 features" in said(display)
    assert "12 of 500 features" in said(drawn(ProfileDisplay.from_estimator(own, X[:200])))
    many = GaussianMixture(500, covariance_type="diag", max_iter=0, random_state=0)
    many.fit(rng.normal(size=(3000, 2)) * 50)
    display = drawn(MixtureDisplay.from_estimator(many, None))
    assert "12 of 500 components" in said(display)
    assert len(display.others) == np.count_nonzero(many.weights_ > 0) - 12
    display = drawn(StreamDisplay.from_estimator(many, rng.normal(size=(50, 2))))
    assert "6 of 500 components" in said(display)
    display = MixtureDisplay.from_estimator(own, None, features=range(10))
    assert "first 6 of 10 features" in said(display)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_one_component_and_empty_ones(d):
    X = np.random.default_rng(0).normal(size=(200, d))
    drawn(MixtureDisplay.from_estimator(GaussianMixture().fit(X), X))
    own = GaussianMixture(3, random_state=0).fit(X)
    own.weights_ = np.array([0.4, 0.0, 0.6])
    display = drawn(MixtureDisplay.from_estimator(own, X))
    assert "1 component has no rows" in said(display)
    assert display.components.tolist() == [0, 2]
    drawn(ProfileDisplay.from_estimator(own, X))
    drawn(StreamDisplay.from_estimator(own, X))


def test_a_constant_feature_and_one_far_off():
    X = np.random.default_rng(0).normal(size=(300, 2)) + 1e9
    X[:, 1] = 7.0
    display = drawn(MixtureDisplay.from_estimator(GaussianMixture().fit(X), X))
    assert display.histograms.outside().max() == 0


def test_long_and_hostile_names(model, X):
    display = drawn(MixtureDisplay.from_estimator(model, X, feature_names=NASTY))
    assert len(display.ax_[3, 1].get_xlabel()) < 30
    drawn(ProfileDisplay.from_estimator(model, X, feature_names=NASTY))
    chosen = MixtureDisplay.from_estimator(model, X, feature_names=NASTY, features=NASTY[0])
    assert chosen.feature_names == NASTY[:1]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("temprature", "did you mean 'temperature'"),
        (["salt", "DEPTH"], "did you mean 'depth'"),
        (4, "nearest is 3"),
        (-5, "nearest is 0"),
        ([], "empty"),
        (1.5, "names or numbers"),
    ],
)
def test_a_feature_that_is_not_there(model, X, features, message):
    names = ["temperature", "salt", "depth", "oxygen"]
    with pytest.raises((ParameterError, TypeError), match=message) as error:
        MixtureDisplay.from_estimator(
            model, X, feature_names=names, features=[features] if features == 1.5 else features
        )
    assert isinstance(error.value, StreamGMMError)


@pytest.mark.parametrize("missing", ["omit", "marginalize"])
def test_rows_with_gaps_are_left_out_and_it_is_said(X, missing):
    X = X.copy()
    X[3, 1], X[9] = np.nan, np.nan
    own = GaussianMixture(2, missing=missing, random_state=0).fit(X)
    display = drawn(MixtureDisplay.from_estimator(own, X))
    assert display.histograms.n_rows == len(X) - 2
    assert "Rows with gaps, or masked, are left out" in said(display)
    assert "Rows with gaps" in said(drawn(StreamDisplay.from_estimator(own, X)))
    assert "Rows with gaps" in said(drawn(ProfileDisplay.from_estimator(own, X)))


def test_a_pipeline_shows_the_rows_that_its_model_is_given(X):
    pipe = make_pipeline(StandardScaler(), GaussianMixture(3, random_state=0)).fit(X)
    display = drawn(MixtureDisplay.from_estimator(pipe, X, features=[0, 1]))
    scaled = np.asarray(pipe[0].transform(X))
    expected = MixtureDisplay.from_estimator(pipe[1], scaled, features=[0, 1])
    np.testing.assert_allclose(display.histograms.joints, expected.histograms.joints, atol=2)
    assert display.histograms.n_rows == len(X)
    drawn(StreamDisplay.from_estimator(pipe, X, sample_weight=np.ones(len(X))))
    drawn(ConvergenceDisplay.from_estimator(pipe))


def test_what_cannot_be_drawn(model, X):
    with pytest.raises(NotFittedError):
        MixtureDisplay.from_estimator(GaussianMixture(), X)
    with pytest.raises(ParameterError, match="no mixture of this package"):
        MixtureDisplay.from_estimator(SklearnMixture().fit(X), X)
    with pytest.raises(DataError, match="3 features"):
        MixtureDisplay.from_estimator(model, X[:, :3])
    with pytest.raises(ParameterError, match="2 names for 4 features"):
        MixtureDisplay.from_estimator(model, X, feature_names=["a", "b"])
    with pytest.raises(ParameterError, match="no selection"):
        SelectionDisplay.from_estimator(model)
    with pytest.raises(ParameterError, match="give X"):
        StreamDisplay.from_estimator(model)
    with pytest.raises(ParameterError, match="StreamDisplay"):
        ConvergenceDisplay.from_estimator(OnlineGaussianMixture(warm_up=100).fit(X))
    with pytest.raises(DataError, match="rows of a table"):
        MapDisplay.from_estimator(model, X)
    with pytest.raises(DataError, match="some row weight"):
        MixtureDisplay.from_estimator(model, X, sample_weight=np.zeros(len(X)))
    with pytest.raises(ParameterError, match="matplotlib has placed"):
        MixtureDisplay.from_estimator(model, X, ax=plt.figure().add_axes((0, 0, 1, 1)))


@pytest.mark.parametrize("missing", ["matplotlib", "crick"])
def test_without_a_package_one_line_names_the_extra(model, X, missing, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"pip install 'streamgmm\[(plot|quantiles)\]'") as error:
        ProfileDisplay.from_estimator(model, X)
    assert isinstance(error.value, StreamGMMError)
    assert "\n" not in str(error.value)


def test_convergence(X):
    own = GaussianMixture(4, random_state=0, tol=1e-6, algorithm="em", acceleration=None).fit(X)
    display = drawn(ConvergenceDisplay.from_estimator(own))
    energy = display.ax_.lines[0].get_ydata()
    np.testing.assert_allclose(energy, own.history_["free_energy"] / len(X))
    assert energy[-1] == pytest.approx(own.lower_bound_)
    drawn(ConvergenceDisplay.from_estimator(KMeans(2, random_state=0).fit(X)))
    none = GaussianMixture(2, max_iter=0, random_state=0).fit(X)
    drawn(ConvergenceDisplay.from_estimator(none))


def test_selection_shows_every_criterion_and_its_choice(X):
    selection = select(X, range(1, 5), random_state=0)
    display = drawn(SelectionDisplay.from_estimator(selection))
    assert len(display.ax_) == 4
    bic = next(each for each in CRITERIA if each.column == "bic")
    best = best_of(selection.table, bic)
    assert selection.table["n_components"][best] == selection.best.n_components
    assert f"K = {selection.best.n_components}" in display.ax_[0].get_title(loc="left")
    clusters = drawn(
        SelectionDisplay.from_estimator(select_clusters(X, range(2, 6), random_state=0))
    )
    assert len(clusters.ax_) == 3


def test_selection_by_stability_follows_its_own_rule(X):
    selection = select(X, range(1, 5), "full", random_state=0, criterion="stability")
    for given in (selection, selection.best):
        display = drawn(SelectionDisplay.from_estimator(given))
        titles = [ax.get_title(loc="left") for ax in display.ax_]
        (stability,) = [each for each in titles if each.startswith("stability")]
        assert f"K = {selection.best.n_components}" in stability
        assert len(titles) == 6


def test_a_table_with_failures_and_stability():
    table = {
        "n_components": np.array([1, 2, 3, 4]),
        "family": np.array(["a$b", "a$b", "c" * 99, "c" * 99]),
        "bic": np.array([np.nan, 2.0, 3.0, 9.0]),
        "stability": np.array([1.0, 0.9, np.nan, 0.2]),
        "stability_error": np.array([0.0, 0.1, np.nan, 0.1]),
        "converged": np.array([False, True, True, False]),
        "failure": np.array(["singular", "", "", ""]),
    }
    display = drawn(SelectionDisplay(table=table).plot())
    assert len(display.ax_) == 2
    with pytest.raises(ParameterError, match="no criterion"):
        SelectionDisplay(table={"n_components": np.array([1])}).plot()


def test_stream(X):
    own = OnlineGaussianMixture(3, warm_up=500).fit(np.tile(X, (4, 1)))
    for _ in range(5):
        own.partial_fit(X[:1000] + 6)
    display = drawn(StreamDisplay.from_estimator(own, X))
    assert len(display.ax_) == 3
    last = own.monitor_["alarms"][-1]
    assert f"{last['row']:,}" in " ".join(display._say_alarms())
    shares = display.cells.labels / display.cells.weight[:, None]
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert display.ax_[0].lines[0].get_xdata()[-1] == own.n_samples_seen_


def test_maps(X):
    cube = rows(X.reshape(5, 20, 30, 4), mask=np.arange(3000).reshape(5, 20, 30) % 600 == 0)
    own = GaussianMixture(3, random_state=0).fit(cube)
    display = drawn(MapDisplay.from_estimator(own, cube))
    labels = np.asarray(own.predict(cube))
    counts = np.stack([(labels == k).sum(axis=0) for k in range(3)])
    picked = np.take_along_axis(counts, np.maximum(display.labels, 0)[None], 0)[0]
    np.testing.assert_array_equal(picked[display.labels >= 0], counts.max(0)[display.labels >= 0])
    assert display.labels[0, 0] == -1
    assert np.isnan(display.certainty[0, 0])
    assert "over 5 axis 0" in said(display)
