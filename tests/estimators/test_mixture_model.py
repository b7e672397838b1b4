"""MixtureModel: scikit-learn's face for every family, on data of every kind."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import zarr
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

import streamgmm
from streamgmm import GaussianMixture, MixtureModel
from streamgmm.errors import (
    CheckpointError,
    DataError,
    DegenerateComponentError,
    ModelFileError,
    ParameterError,
    SingularCovarianceError,
)
from streamgmm.model.families import FAMILIES, Gaussian, Poisson
from streamgmm.model.mixture import Mixture
from streamgmm.sources import open_source
from streamgmm.storage import checkpoint
from tests.mixtures import TYPES, draw, random_mixture

TRUTH = Mixture.of(
    "poisson",
    np.array([0.5, 0.3, 0.2]),
    np.array([[1.0, 8.0, 3.0], [6.0, 2.0, 4.0], [3.0, 3.0, 9.0]]),
)
ROWS = TRUTH.sample(12_000, np.random.RandomState(0))[0]
ROWS = ROWS[np.random.default_rng(0).permutation(len(ROWS))]
X = draw(random_mixture("full", 3, 2, seed=5, spread=3.0), 900)

quiet = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class EndedError(Exception):
    pass


def stored(folder, rows=ROWS, chunks=(1000, 3)):
    zarr.create_array(str(folder / "x.zarr"), data=rows, chunks=chunks)
    return str(folder / "x.zarr")


def same(a, b):
    """The same bits."""
    assert a.weights_.tobytes() == b.weights_.tobytes()
    assert list(a.components_) == list(b.components_)
    for name, values in a.components_.items():
        assert values.tobytes() == b.components_[name].tobytes()
    assert a.lower_bounds_ == b.lower_bounds_


def sorted_rates(model):
    rates = model.components_["rates"]
    return rates[np.argsort(-model.weights_)]


@pytest.mark.parametrize("kind", TYPES)
def test_gaussians_have_the_bits_of_gaussian_mixture(kind):
    settings = {"random_state": 0, "reg_covar": 1e-5, "n_init": 2}
    ours = MixtureModel(3, kind, **settings).fit(X)
    theirs = GaussianMixture(3, covariance_type=kind, **settings).fit(X)
    for name in ("means", "covariances", "precisions_cholesky"):
        assert ours.components_[name].tobytes() == getattr(theirs, f"{name}_").tobytes()
    assert ours.weights_.tobytes() == theirs.weights_.tobytes()
    assert ours.lower_bounds_ == theirs.lower_bounds_
    for key, values in theirs.history_.items():
        if key != "seconds":
            assert_array_equal(ours.history_[key], values)
    for method in ("predict", "predict_proba", "score_samples", "score", "bic", "aic"):
        assert_array_equal(getattr(ours, method)(X), getattr(theirs, method)(X))
    for a, b in zip(ours.sample(5), theirs.sample(5), strict=True):
        assert_array_equal(a, b)
    assert ours.family_ == Gaussian(kind, 1e-5)


@quiet
def test_initial_parameters_are_those_of_gaussian_mixture():
    start = GaussianMixture(3, random_state=1, max_iter=2).fit(X)
    given = {
        "weights_init": start.weights_,
        "means_init": start.means_,
        "precisions_init": start.precisions_,
    }
    ours, theirs = MixtureModel(3, **given).fit(X), GaussianMixture(3, **given).fit(X)
    assert ours.components_["means"].tobytes() == theirs.means_.tobytes()
    with pytest.raises(ParameterError, match="poisson components have no precisions to start"):
        MixtureModel(3, "poisson", precisions_init=start.precisions_).fit(X)
    with pytest.raises(ParameterError, match="a fit of poisson takes no initial means"):
        MixtureModel(3, "poisson", means_init=start.means_).fit(X)


def test_a_family_is_found_on_data_of_every_kind(tmp_path):
    model = MixtureModel(3, "poisson", random_state=0, block_size="64 KiB").fit(ROWS)
    assert model.converged_
    assert_allclose(sorted_rates(model), TRUTH.components.rates, rtol=0.05, atol=0.1)
    expected = model.predict(ROWS), model.predict_proba(ROWS), model.score_samples(ROWS)
    assert_array_equal(expected[0], expected[1].argmax(axis=1))
    for small in (ROWS.astype(int), ROWS.tolist(), pd.DataFrame(ROWS)):
        same(model, clone(model).fit(small))
        assert_array_equal(model.predict(small), expected[0])
    path = stored(tmp_path)
    for large in (path, zarr.open_array(path), da.from_zarr(path), open_source(path)):
        assert_allclose(
            clone(model).fit(large).components_["rates"], model.components_["rates"], rtol=1e-9
        )
        got = model.predict(large), model.predict_proba(large), model.score_samples(large)
        for a, b in zip(got, expected, strict=True):
            assert isinstance(a, da.Array)
            assert_array_equal(a.compute(), b)
    assert_allclose(model.score(path), expected[2].mean(), rtol=1e-12)
    p = 3 * 3 + 2
    assert_allclose(model.aic(path), -2 * expected[2].sum() + 2 * p, rtol=1e-12)
    out = model.predict(path, out=tmp_path / "labels.zarr")
    assert isinstance(out, zarr.Array)
    assert_array_equal(out[:], expected[0])
    assert model.history_["kl"][-1] >= -1e-9
    assert model.timings_["n_starts"] > 1


@pytest.mark.parametrize("family", ["poisson", "diag"])
def test_on_a_cluster_bits_are_those_of_threads(family, tmp_path, client):
    path = stored(tmp_path, ROWS.astype(np.int16))
    settings = {"random_state": 0, "block_size": "64 KiB", "tol": 1e-5}
    there = MixtureModel(3, family, **settings).fit(path)
    here = MixtureModel(3, family, n_jobs=2, **settings).fit(path)
    same(here, there)
    assert here.score(path) == there.score(path)
    assert (here.predict(path).compute() == there.predict(ROWS)).all()


@quiet
def test_weights_are_repeats():
    weight = np.arange(len(X)) % 3
    counts = np.round(np.abs(X) * 3)
    resp = np.random.default_rng(0).dirichlet(np.ones(2), len(X))
    settings = {"max_iter": 20, "tol": 0, "algorithm": "em", "acceleration": None}
    one = MixtureModel(2, "poisson", resp_init=resp, **settings).fit(counts, sample_weight=weight)
    more = MixtureModel(2, "poisson", resp_init=np.repeat(resp, weight, axis=0), **settings)
    more.fit(np.repeat(counts, weight, axis=0))
    assert_allclose(one.components_["rates"], more.components_["rates"], rtol=1e-9)
    assert_allclose(one.score(counts, sample_weight=weight), more.lower_bound_, rtol=1e-6)


@quiet
@pytest.mark.parametrize("family", ["poisson", *TYPES])
def test_responsibilities_to_start_from(family):
    """The first M-step is theirs, and so is the first bound."""
    rows = np.round(np.abs(X) * 3).astype(np.float32)
    resp = np.random.default_rng(1).dirichlet(np.ones(3), len(rows))
    model = MixtureModel(3, family, resp_init=resp, max_iter=0).fit(rows)
    assert_allclose(model.weights_, resp.mean(axis=0), rtol=1e-9)
    name = "rates" if family == "poisson" else "means"
    expected = (resp.T @ rows.astype(float)) / resp.sum(axis=0)[:, None]
    assert_allclose(model.components_[name], expected, rtol=1e-6)
    again = MixtureModel(3, family, resp_init=resp, max_iter=1, tol=0).fit(rows)
    assert_allclose(again.lower_bound_, model.score(rows), rtol=1e-7)


def test_responsibilities_that_cannot_be():
    resp = np.full((len(ROWS), 2), 0.5)
    with pytest.raises(ParameterError, match=r"'resp_init' should have the shape of \(12000, 2\)"):
        MixtureModel(2, "poisson", resp_init=resp[:5]).fit(ROWS)
    wrong = resp.copy()
    wrong[7, 0] = 0.6
    with pytest.raises(ParameterError, match=r"resp_init, row 7: \[0.6, 0.5\] must not be neg"):
        MixtureModel(2, "poisson", resp_init=wrong).fit(ROWS)
    with pytest.raises(ParameterError, match="gives no row to components 1"):
        MixtureModel(2, "poisson", resp_init=resp @ [[1, 0], [1, 0]]).fit(ROWS)
    lazy = da.from_array(ROWS, chunks=(1000, 3))
    with pytest.raises(ParameterError, match="resp_init has a row for each row in memory"):
        MixtureModel(2, "poisson", resp_init=resp).fit(lazy)
    bad = ROWS.copy()
    bad[3, 1] = np.nan
    with pytest.raises(DataError, match=r"NaN|non-finite"):
        MixtureModel(2, "poisson", resp_init=resp).fit(bad)
    bad[3, 1] = -1
    with pytest.raises(DataError, match=r"row 3: a negative count, -1\.0, in column 1"):
        MixtureModel(2, "poisson", resp_init=resp).fit(bad)


def test_going_on_from_what_is_there(tmp_path):
    model = MixtureModel(3, "poisson", random_state=0, tol=1e-8, max_iter=300).fit(ROWS)
    more = clone(model).set_params(warm_start=True).fit(ROWS)
    again = copy.deepcopy(more).fit(ROWS)
    assert again.n_iter_ <= 3
    assert_allclose(again.components_["rates"], more.components_["rates"], rtol=1e-4)
    path = stored(tmp_path)
    grown = MixtureModel(
        3, "poisson", random_state=0, algorithm="incremental", block_size="24 KiB", warm_start=True
    ).fit(path)
    array = zarr.open_array(path, mode="r+")
    array.append(ROWS[:2000])
    grown = pickle.loads(pickle.dumps(grown)).fit(path)
    assert grown.data_seen_["n_samples"] == 14_000
    assert grown.history_["passes"][0] < 2
    assert_allclose(sorted_rates(grown), TRUTH.components.rates, rtol=0.05, atol=0.1)


def test_attributes_set_by_hand_are_the_model():
    model = MixtureModel(3, "poisson")
    model.weights_, model.components_ = TRUTH.weights, {"rates": TRUTH.components.rates}
    assert_allclose(model.score_samples(ROWS[:9]), TRUTH.posterior(ROWS[:9]).log_density)
    model.components_ = {"rates": TRUTH.components.rates[:2]}
    with pytest.raises(ParameterError, match=r"components_ has the shapes .*but 3 poisson comp"):
        model.predict(ROWS)
    model.components_ = {"means": TRUTH.components.rates}
    with pytest.raises(ParameterError, match="components_ has means, which are no poisson comp"):
        model.predict(ROWS)


def test_a_checkpoint_is_resumed_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "QUIET_SECONDS", 0.0)  # every state is written
    monkeypatch.setattr(checkpoint, "RARE", 0)
    path = stored(tmp_path)
    settings = {"random_state": 0, "algorithm": "incremental", "block_size": "24 KiB", "tol": 1e-6}
    whole = MixtureModel(3, "poisson", **settings).fit(path)
    told = 0

    def end(progress):
        nonlocal told
        told += progress.stage == "em"
        if told > 20:
            raise EndedError

    run = MixtureModel(3, "poisson", checkpoint=tmp_path / "run.zarr", **settings)
    with monkeypatch.context() as patch:
        patch.setattr("streamgmm.estimators.batch.teller", lambda *_: end)
        with pytest.raises(EndedError):
            run.fit(path)
    same(whole, run.fit(path))
    with pytest.raises(CheckpointError, match="family is 'Poisson' there and 'Gaussian' here"):
        clone(run).set_params(family="diag").fit(path)


@pytest.mark.parametrize("family", [Poisson(1e-3), "tied", Poisson])
def test_saved_and_loaded_it_is_the_same(family, tmp_path, monkeypatch):
    model = MixtureModel(3, family, random_state=0).fit(ROWS)
    model.save(tmp_path / "model.zarr")
    again = streamgmm.load(tmp_path / "model.zarr")
    assert type(again) is MixtureModel
    assert again.family_ == model.family_
    same(model, again)
    assert_array_equal(again.predict_proba(ROWS), model.predict_proba(ROWS))
    assert again.set_params(warm_start=True).fit(ROWS).converged_
    monkeypatch.delitem(FAMILIES, model.family_.name)
    with pytest.raises(ModelFileError, match=f"family='{model.family_.name}' is not known to thi"):
        streamgmm.load(tmp_path / "model.zarr")


@dataclass(frozen=True)
class Mine(Poisson):
    """A family of one's own."""

    name = "mine"


def test_a_class_of_ones_own_is_known_once_it_was_given(tmp_path):
    before = dict(FAMILIES)
    try:
        model = MixtureModel(3, Mine, random_state=0).fit(ROWS)
        same(model, MixtureModel(3, "mine", random_state=0).fit(ROWS))
        model.save(tmp_path / "model.zarr")
        assert isinstance(streamgmm.load(tmp_path / "model.zarr").family_, Mine)
    finally:
        for name in set(FAMILIES) - set(before):
            del FAMILIES[name]
    with pytest.raises(ModelFileError, match="family='mine' is not known to this installation"):
        streamgmm.load(tmp_path / "model.zarr")


def test_families_that_cannot_be():
    with pytest.raises(ParameterError, match="did you mean 'poisson'"):
        MixtureModel(2, "poison").fit(ROWS)
    with pytest.raises(ParameterError, match="family=3 is no family of components"):
        MixtureModel(2, 3).fit(ROWS)
    with pytest.raises(ParameterError, match="family='poisson' has no setting 'reg_covar'"):
        MixtureModel(2, "poisson", reg_covar=0.1).fit(ROWS)
    with pytest.raises(DataError, match=r"X, row 0: a negative count, -2\.0, in column 0"):
        MixtureModel(2, "poisson").fit([[-2, 1], [3, 4]])

    class Poisson2(Poisson):
        """Called as ours is."""

    with pytest.raises(ParameterError, match="Poisson2 is called 'poisson', as a family of stre"):
        MixtureModel(2, Poisson2).fit(ROWS)


def test_a_degenerate_component_is_an_error_of_its_family():
    with pytest.raises(SingularCovarianceError):
        MixtureModel(2, "diag", reg_covar=0.0).fit(np.ones((9, 2)))

    @dataclass(frozen=True)
    class Strict(Poisson):
        """Counts that must differ."""

        name = "strict"

        def estimate(self, statistics):
            raise DegenerateComponentError("component 0 has no rate")

    try:
        with pytest.raises(DegenerateComponentError, match="component 0 has no rate") as caught:
            MixtureModel(2, Strict).fit(ROWS)
        assert not isinstance(caught.value, SingularCovarianceError)
    finally:
        FAMILIES.pop("strict", None)


def test_a_plan_and_lost_components():
    plan = MixtureModel(3, "poisson").plan(ROWS, workers=4, worker_memory="2GiB")
    assert (plan.covariance_type, plan.n_workers) == ("poisson", 4)
    model = MixtureModel(3, "poisson", warm_start=True, empty_components="reseed")
    model.weights_ = np.full(3, 1 / 3)
    model.components_ = {"rates": np.array([[1.0, 8, 3], [6, 2, 4], [900, 900, 900]])}
    model.converged_, model.lower_bound_ = False, -np.inf
    with pytest.warns(UserWarning, match="components 2 lost their rows and were reseeded"):
        model.fit(ROWS)
