"""Online learning: what a batch leaves, what is refused, and what comes back from a file."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture as Reference

import streamgmm
from streamgmm import GaussianMixture, OnlineGaussianMixture
from streamgmm.errors import DataError, NonFiniteError, ParameterError, StreamGMMWarning
from streamgmm.model.mixture import Statistics, blend_step, e_step, m_step
from streamgmm.online.learner import JOURNAL
from streamgmm.online.settings import effective_rows
from streamgmm.passes import active_client

FAMILIES = ["full", "tied", "diag", "spherical"]


def make_rows(n: int, seed: int = 0, d: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    middle = np.array([[0.0] * d, [5.0] + [0.0] * (d - 1), [0.0] * (d - 1) + [-6.0]])
    scale = np.array([1.0, 0.5, 2.0])
    label = rng.choice(3, size=n, p=[0.5, 0.3, 0.2])
    return rng.normal(size=(n, d)) * scale[label, None] + middle[label]


def new_model(**settings: Any) -> OnlineGaussianMixture:
    return OnlineGaussianMixture(3, **({"warm_up": 600, "n_init": 2} | settings))


def learn(model: OnlineGaussianMixture, X: np.ndarray, n: int = 500) -> OnlineGaussianMixture:
    for first in range(0, len(X), n):
        model.partial_fit(X[first : first + n])
    return model


def same(a: OnlineGaussianMixture, b: OnlineGaussianMixture) -> None:
    for name in ("weights_", "means_", "covariances_", "precisions_cholesky_"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("kind", FAMILIES)
def test_one_pass_comes_close_to_batch_em(kind: str) -> None:
    X, held = make_rows(30_000), make_rows(20_000, seed=1)
    model = learn(new_model(covariance_type=kind), X)
    best = Reference(3, covariance_type=kind, tol=1e-7, max_iter=500, random_state=0).fit(X)
    assert best.score(held) - model.score(held) < 0.005


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_compiled_step_is_that_of_any_family(kind: str) -> None:
    X = make_rows(3_000) + 1e3
    model = new_model(
        covariance_type=kind, step_size=lambda count: 0.3, step_rows=300, average=False
    )
    model.partial_fit(X[:600])
    start, state = model._mixture(), model.learner_.state
    assert state is not None
    before = Statistics(600, 1.0, 0.0, 0.0, state.running.moments(kind))
    model.partial_fit(X[600:900])
    after, _ = blend_step(start, before, X[600:900], 0.3)
    np.testing.assert_allclose(model.weights_, after.weights, rtol=1e-9)
    np.testing.assert_allclose(model.means_, after.components.means, rtol=1e-12)
    np.testing.assert_allclose(
        model.covariances_, after.components.covariances, rtol=1e-8, atol=1e-9
    )


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_step_is_the_merge_of_old_and_new(kind: str) -> None:
    """With γ = 1 a step forgets all and is an iteration of EM; offsets cost no digit."""
    X = make_rows(3_000) + 1e6
    model = new_model(
        covariance_type=kind, step_size=lambda count: 1.0, step_rows=10_000, average=False
    )
    model.partial_fit(X[:600])
    start = model._mixture()
    model.partial_fit(X)
    batch = m_step(start, e_step(start, X))
    np.testing.assert_allclose(model.weights_, batch.weights, rtol=1e-9)
    np.testing.assert_allclose(model.means_, batch.components.means, rtol=1e-12)
    np.testing.assert_allclose(
        model.covariances_, batch.components.covariances, rtol=1e-8, atol=1e-8
    )


@pytest.mark.parametrize("kind", FAMILIES)
def test_saved_and_loaded_it_goes_on_to_the_last_bit(kind: str, tmp_path: Path) -> None:
    X = make_rows(4_000)
    for n in (400, 2_000):  # in the warm-up, and after it
        model = learn(new_model(covariance_type=kind, adapt_components=True), X[:n])
        model.save(tmp_path / f"{n}.zarr")
        again = streamgmm.load(tmp_path / f"{n}.zarr")
        copies = [model, again, pickle.loads(pickle.dumps(model))]
        for copy in copies:
            learn(copy, X[n:], 333)
        same(model, again)
        same(model, copies[2])
        for name, values in model.monitor_.items():
            np.testing.assert_array_equal(values, again.monitor_[name])


@pytest.mark.parametrize("kind", FAMILIES)
def test_to_a_mixture_and_back(kind: str) -> None:
    X = make_rows(4_000)
    mixture = GaussianMixture(3, covariance_type=kind, random_state=0).fit(X)
    online = OnlineGaussianMixture.from_mixture(mixture, rows=4_000)
    np.testing.assert_allclose(online.score_samples(X), mixture.score_samples(X), rtol=1e-9)
    back = online.to_mixture()
    np.testing.assert_array_equal(back.predict(X), online.predict(X))
    before = online.score(X)
    assert learn(online, make_rows(4_000, seed=1)).score(X) == pytest.approx(before, abs=0.02)


def test_the_monitor_remembers_the_latest_batches() -> None:
    assert JOURNAL == 20_000
    X = make_rows(1_000)
    model = learn(new_model(monitor=False), X, 100)
    for n in (60, 20_000, 7):
        model.learner_.learn([(row[None], np.empty(0)) for row in np.resize(X, (n, 3))])
        assert len(model.monitor_["rows"]) == min(model.n_samples_seen_ - 990, JOURNAL)
    scored = model.monitor_["log_likelihood"]
    model.partial_fit(X[:100])
    np.testing.assert_array_equal(model.monitor_["log_likelihood"][:-1], scored[1:])


@pytest.mark.parametrize("kind", FAMILIES)
def test_two_sites_as_one(kind: str) -> None:
    X, held = make_rows(16_000), make_rows(10_000, seed=2)
    one = learn(new_model(covariance_type=kind, random_state=1), X[:8_000])
    two = learn(new_model(covariance_type=kind, random_state=2), X[8_000:])
    both = one.merge(two)
    whole = learn(new_model(covariance_type=kind), X)
    assert both.n_samples_seen_ == 16_000
    assert abs(both.score(held) - whole.score(held)) < 0.01
    few = new_model(covariance_type=kind).partial_fit(X[:100])
    assert one.merge(few).n_samples_seen_ == few.merge(one).n_samples_seen_ == 8_100
    with pytest.raises(ParameterError, match="half_life"):
        one.merge(new_model(covariance_type=kind, half_life=9_000.0).partial_fit(X[:10]))


def test_source_is_cut_by_rows_alone(tmp_path: Path) -> None:
    X = make_rows(23_456)
    same(new_model().fit(X[:600]), new_model().fit(X[:600]))
    scored = []
    for chunk in (1_000, 7_777):
        array = zarr.create_array(
            str(tmp_path / f"{chunk}.zarr"), shape=X.shape, chunks=(chunk, 3), dtype="f8"
        )
        array[:] = X
        scored.append(new_model().fit(str(tmp_path / f"{chunk}.zarr")))
    same(*scored)
    assert scored[0].monitor_["rows"].tolist() == [10_000, 10_000, 3_456]


def test_prequential_scores_are_of_rows_not_yet_learned() -> None:
    X = make_rows(3_000)
    model = learn(new_model(average=False, step_rows=10_000), X[:2_000])
    expected = model.score(X[2_000:])
    model.partial_fit(X[2_000:])
    assert model.monitor_["log_likelihood"][-1] == pytest.approx(expected, rel=1e-9)
    assert np.isnan(model.monitor_["log_likelihood"][0])


def test_weights_count_as_rows() -> None:
    X = make_rows(3_000)
    X[600:] = np.repeat(X[600:1_200], 4, axis=0)  # steps of the same rows
    many = learn(new_model(step_rows=100_000, monitor=False), X[:600]).partial_fit(X[600:])
    few = learn(new_model(step_rows=100_000, monitor=False), X[:600])
    few.partial_fit(X[600::4], sample_weight=np.full(600, 4.0))
    np.testing.assert_allclose(few.means_, many.means_, rtol=1e-9)


def test_forgetting_is_by_row_whatever_the_batches() -> None:
    """Steps of n rows keep 2^(-n / h) of what was; 100 of 10 rows as much as one of 1,000."""
    old, new = make_rows(2_000), make_rows(20_000, seed=3) + 1.0
    shares = []
    for n in (10, 1_000):
        model = new_model(
            half_life=4_000.0, step_size=lambda count: 1e-12, step_rows=10_000, monitor=False
        )
        model.partial_fit(old)
        learn(model, new, n)
        assert model.learner_.state is not None
        shares.append(model.learner_.state.running.mean[:, 1].mean())
    assert shares[0] == pytest.approx(shares[1], abs=0.02)


def test_follows_a_stream_that_moves() -> None:
    model = learn(new_model(half_life=3_000.0), make_rows(6_000))
    held = make_rows(10_000, seed=1) + 1.5
    learn(model, make_rows(15_000, seed=2) + 1.5)
    best = GaussianMixture(3, n_init=3, random_state=0).fit(make_rows(50_000, seed=4) + 1.5)
    assert best.score(held) - model.score(held) < 0.05


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_batch_that_is_refused_changes_nothing(bad: float) -> None:
    X = make_rows(2_000)
    model = learn(new_model(), X)
    state, rows = model.learner_.state, model.monitor_["rows"].copy()
    batch = X[:100].copy()
    batch[7, 1] = bad
    with pytest.raises(NonFiniteError, match="row 7, column 1"):
        model.partial_fit(batch)
    for wrong in (X[:10, :2], np.zeros((0, 2))):
        with pytest.raises(DataError, match="expecting 3"):
            model.partial_fit(wrong)
    with pytest.raises(ValueError, match="weights"):
        model.partial_fit(X[:3], sample_weight=[1.0, -1.0, 1.0])
    with pytest.raises(DataError, match="beyond float64"):
        model.partial_fit(np.full((5, 3), 1e200))
    assert model.partial_fit(np.zeros((0, 3))) is model
    assert model.learner_.state is state
    np.testing.assert_array_equal(model.monitor_["rows"], rows)
    fresh = new_model()
    with pytest.raises(NonFiniteError):
        fresh.partial_fit(batch)
    assert not hasattr(fresh, "n_features_in_")
    fresh.partial_fit(X[:10, :2])


def test_a_refused_fit_leaves_the_model_there_was() -> None:
    X = make_rows(2_000)
    model = learn(new_model(), X)
    before = model.means_.copy()
    with pytest.raises(DataError, match="2 rows so far"):
        model.fit(X[:2])
    np.testing.assert_array_equal(model.means_, before)


def test_few_rows_and_one_at_a_time() -> None:
    X = make_rows(700)
    model = new_model()
    with pytest.raises(NotFittedError):
        model.predict(X)
    model.partial_fit(X[:2])
    with pytest.raises(DataError, match="2 rows so far: a model of 3 components needs"):
        model.predict(X)
    model.partial_fit(X[2:50])
    assert model.predict_proba(X).shape == (700, 3)
    for row in X[50:]:
        model.partial_fit(row[None])
    np.testing.assert_array_equal(model.monitor_["rows"][2:], 1)
    whole = new_model().partial_fit(X)
    assert model.score(X) == pytest.approx(whole.score(X), abs=0.05)


@pytest.mark.parametrize("kind", FAMILIES)
def test_identical_rows(kind: str) -> None:
    X = np.full((2_000, 2), 3.0)
    model = OnlineGaussianMixture(2, covariance_type=kind, warm_up=100, n_init=1)
    with pytest.warns(StreamGMMWarning, match="have no rows"):
        learn(model, X, 300)
    assert np.isfinite(model.score(X))
    assert model.monitor_["alarms"] == []


def test_settings_are_checked() -> None:
    X = make_rows(100)
    with pytest.raises(ValueError, match="step_size"):
        OnlineGaussianMixture(step_size=0.4).partial_fit(X)
    with pytest.raises(ParameterError, match="warm_up=3"):
        OnlineGaussianMixture(5, warm_up=3).partial_fit(X)
    with pytest.warns(StreamGMMWarning, match="fewer than ten"):
        OnlineGaussianMixture(5, half_life=50.0).partial_fit(X)
    assert effective_rows(20_000) == pytest.approx(2 * 20_000 / np.log(2), rel=1e-6)
    with pytest.raises(ParameterError, match="step_size"):
        new_model(step_size=lambda count: 0.1).partial_fit(X).save("never.zarr")


def test_the_estimator_is_one_of_scikit_learns() -> None:
    model = clone(new_model(half_life=9_000.0))
    assert model.get_params()["half_life"] == 9_000.0
    X = make_rows(900)
    assert model.fit(X).predict(X).shape == (900,)
    assert model.sample(5)[0].shape == (5, 3)
    assert np.isfinite([model.bic(X), model.aic(X)]).all()


def test_components_come_and_go() -> None:
    """Too many are merged; one that appears is born; each change is told."""
    X = make_rows(40_000)
    model = OnlineGaussianMixture(5, warm_up=2_000, n_init=1, adapt_components=True)
    learn(model, X)
    kinds = {change["kind"] for change in model.monitor_["changes"]}
    assert kinds <= {"merge", "retire"}
    assert kinds
    assert 3 <= len(model.weights_) < 5
    new = np.concatenate([make_rows(32_000, seed=1), make_rows(8_000, seed=2) * 0.3 + 15.0])
    learn(model, new[np.random.default_rng(0).permutation(len(new))])
    born = [change for change in model.monitor_["changes"] if change["kind"] == "birth"]
    assert born
    assert all(change["gain"] > 0 for change in born)
    assert np.linalg.norm(model.means_ - 15.0, axis=1).min() < 2.5


def test_the_model_does_not_depend_on_who_reads_the_rows(client: Any, tmp_path: Path) -> None:
    """In memory, from a store by this process, by the workers of a cluster, as a dask array."""
    X = make_rows(35_000)
    weight = np.random.default_rng(5).integers(0, 3, size=len(X)).astype(float)
    where = []
    for name, values, chunks in (("x", X, (2_000, 3)), ("w", weight, (3_000,))):
        array = zarr.create_array(
            str(tmp_path / f"{name}.zarr"), shape=values.shape, chunks=chunks, dtype="f8"
        )
        array[:] = values
        where.append(str(tmp_path / f"{name}.zarr"))
    lazy = da.from_array(X, chunks=(4_000, 3))
    begun = learn(new_model(block_size=200_000), X[:2_000])
    there = [clone_of(begun).partial_fit(where[0], sample_weight=where[1])]
    there.append(clone_of(begun).partial_fit(lazy, sample_weight=weight))
    with dask.config.set(scheduler="threads"):
        assert active_client() is None
        there.append(clone_of(begun).partial_fit(where[0], sample_weight=where[1]))
        there.append(clone_of(begun).partial_fit(lazy, sample_weight=weight))
    for model in there:
        assert model.monitor_["rows"].tolist() == [500] * 4 + [10_000] * 3 + [5_000]
        assert model.n_samples_seen_ == 37_000
        same(model, clone_of(begun).partial_fit(X, sample_weight=weight))


def test_rows_without_weight(client: Any, tmp_path: Path) -> None:
    """A batch without weight changes no parameter; a source without any is refused."""
    X = make_rows(35_000)
    weight = np.zeros(35_000)
    weight[-1] = 1.0
    for name, values in (("x", X), ("w", weight), ("none", np.zeros(35_000))):
        array = zarr.create_array(
            str(tmp_path / f"{name}.zarr"), shape=values.shape, chunks=(999, 3)[: values.ndim],
            dtype="f8",
        )  # fmt: skip
        array[:] = values
    x, w, none = (str(tmp_path / f"{name}.zarr") for name in ("x", "w", "none"))
    model = learn(new_model(), X[:2_000])
    before = clone_of(model)
    for scheduler in ("threads", None):
        with dask.config.set(scheduler=scheduler):
            for rows, weights in ((x, none), (X, np.zeros(35_000))):
                with pytest.raises(DataError, match="zero for every row"):
                    model.partial_fit(rows, sample_weight=weights)
            same(model, before)
            other = clone_of(model).partial_fit(x, sample_weight=w)
        same(other, clone_of(model).partial_fit(X, sample_weight=weight))
        assert np.isnan(other.monitor_["log_likelihood"][-4:-1]).all()
        assert np.isfinite(other.means_).all()
        assert other.n_samples_seen_ == 37_000


def clone_of(model: OnlineGaussianMixture) -> OnlineGaussianMixture:
    """The same model, learned so far, to go on apart."""
    return pickle.loads(pickle.dumps(model))  # type: ignore[no-any-return]
