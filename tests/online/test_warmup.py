"""The fit that ends a warm-up: spread over batches, to the bits of one that is not."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import streamgmm
from streamgmm import GaussianMixture, OnlineGaussianMixture
from streamgmm.errors import DataError, StreamGMMWarning
from streamgmm.online import learner as learner_module
from streamgmm.online.learner import Learner
from streamgmm.online.settings import OnlineSettings
from streamgmm.online.values import from_values, to_values
from streamgmm.online.warmup import WarmUp
from streamgmm.online.work import KMEANS_ITERATIONS, QUOTA, Costs
from streamgmm.storage.values import decode, encode

FAMILIES = ["full", "tied", "diag", "spherical"]
NONE = np.empty(0)
FEW, MANY = 400, 8_500  # rows of a warm-up without and with a contest


def make_rows(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)) + 3.0 * rng.integers(0, 3, size=(n, 1))


def settings_of(**params: Any) -> OnlineSettings:
    model = OnlineGaussianMixture(3, **({"n_init": 3} | params))
    return model._learning_settings(2)


def batches(X: np.ndarray, n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for first in range(0, len(X), n):
        yield X[first : first + n], NONE


def numbers(learner: Learner) -> list[Any]:
    """All that a learner knows, to the last bit."""
    arrays: list[Any] = []
    text = json.dumps(encode("learner", to_values(learner), put_in(arrays)))
    return [text, *(array.tobytes() for array in arrays)]


def put_in(arrays: list[Any]) -> Any:
    return lambda name, array: arrays.append(array.copy()) or len(arrays) - 1


def under_way(learner: Learner) -> bool:
    return learner.gathered is not None and learner.gathered.fit is not None


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("warm_up", [FEW, MANY])
def test_spread_it_is_what_it_is_at_once(kind: str, warm_up: int) -> None:
    X = make_rows(warm_up + 20_000)
    settings = settings_of(warm_up=warm_up, covariance_type=kind)
    spread, once = Learner(settings, 2), Learner(settings, 2)
    n_spread = 0
    for batch in batches(X, 40):
        spread.learn([batch], quota=1_500_000)
        n_spread += under_way(spread)
    once.learn(batches(X, 40), np.inf)
    assert n_spread > 10
    assert spread.queue == ()
    assert numbers(spread) == numbers(once)


@pytest.mark.parametrize("kind", ["full", "spherical"])
@pytest.mark.parametrize("warm_up", [FEW, MANY])
def test_put_down_and_taken_up_at_any_moment(kind: str, warm_up: int) -> None:
    """Through JSON and one array, after every batch: drawing, climbing, waiting, catching up."""
    X = make_rows(warm_up + 15_000)
    settings = settings_of(warm_up=warm_up, covariance_type=kind)
    whole, moved = Learner(settings, 2), Learner(settings, 2)
    seen = set()
    for batch in batches(X, 50):
        whole.learn([batch], quota=1_500_000)
        moved.learn([batch], quota=1_500_000)
        arrays: list[Any] = []
        text = json.dumps(encode("learner", to_values(moved), put_in(arrays)))
        moved = from_values(decode(json.loads(text), arrays.__getitem__), settings)
        if under_way(moved):
            fit = moved.gathered.fit  # type: ignore[union-attr]
            assert fit is not None
            seen |= {"climb"} if fit.ascent is not None else {"between"}
            seen |= {"memory"} if fit.ascent is not None and fit.ascent.steps else set()
            seen |= {"contest over"} if fit.contest.why else set()
            seen |= {"last"} if fit.chosen is not None else set()
        elif moved.queue:
            seen.add("catching up")
    assert {"climb", "memory", "catching up"} <= seen
    assert numbers(moved) == numbers(whole)


def test_asking_changes_nothing() -> None:
    X = make_rows(15_000)
    settings = settings_of(warm_up=FEW)
    asked, quiet = Learner(settings, 2), Learner(settings, 2)
    levels = []
    for batch in batches(X, 50):
        asked.learn([batch], quota=1_500_000)
        quiet.learn([batch], quota=1_500_000)
        if asked.n_rows > 100:
            levels.append(asked.mixture().posterior(X[:1_000]).log_density.mean())
            assert np.isfinite(asked.level)
    assert numbers(asked) == numbers(quiet)
    assert np.isfinite(levels).all()
    assert levels[-1] > np.min(levels)


def test_going_on_without_rows_leads_to_the_same_model() -> None:
    X = make_rows(FEW + 500)
    settings = settings_of(warm_up=FEW)
    learner, once = Learner(settings, 2), Learner(settings, 2)
    once.learn(batches(X, 90), np.inf)
    for batch in batches(X, 90):
        learner.learn([batch], quota=1)
    n_calls = 0
    while learner.busy:
        learner.go_on(2_000_000)
        n_calls += 1
    assert n_calls > 5
    assert numbers(learner) == numbers(once)


def test_the_model_meanwhile_is_the_best_start_so_far() -> None:
    X = make_rows(FEW)
    fit = WarmUp(settings_of(warm_up=FEW, n_init=8), X, None)
    reached = []
    while fit.advance(1) is None:
        known = [s.reached for s in (*fit.contest.champions, *fit.told)]
        if known and fit.chosen is None:
            density = fit.best().posterior(X).log_density.mean()
            assert density == pytest.approx(max(known), abs=1e-4)
            reached.append(max(known))
    assert all(a <= b for a, b in pairwise(reached))
    assert fit.contest.tried == 8
    best = GaussianMixture(3, n_init=8, tol=1e-7, max_iter=1_000, random_state=0).fit(X)
    assert fit.best().posterior(X).log_density.mean() > best.score(X) - 1e-3


@pytest.mark.parametrize("quota", [1, 10_000_000, 50_000_000])
def test_no_call_exceeds_its_quota_by_more_than_a_part(quota: int) -> None:
    fit = WarmUp(settings_of(warm_up=MANY), make_rows(MANY), None)
    costs = Costs(3, 2, "full")
    dearest = max(costs.m_step, costs.slice_rows * costs.row, costs.draw("kmeans", 25, 600))
    spent = []
    while fit.advance(quota) is None:
        spent.append(fit.spent)
    assert max(spent) <= max(quota, dearest)
    assert len(spent) > 1 or quota > 1


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("how", ["kmeans", "k-means++", "random_from_data"])
def test_every_part_is_within_the_quota(kind: str, how: str) -> None:
    """Whatever is fitted: a start that is drawn, a slice of rows, and an M-step."""
    for k, d in [(1, 1), (16, 16), (64, 64), (400, 64), (2, 300), (300, 64)]:
        costs = Costs(k, d, kind)
        rows = 200 * k if kind in ("diag", "spherical") else k * max(200, 6 * d)
        how_drawn, iterations, n_drawn = costs.plan_draw(how, rows)
        assert costs.draw(how_drawn, iterations, n_drawn) <= QUOTA
        assert 2 * k <= n_drawn <= rows
        assert 1 <= iterations <= KMEANS_ITERATIONS
        assert costs.slice_rows * costs.row <= QUOTA // 8
        assert costs.m_step <= QUOTA


def test_rows_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fit is cut short where they would be too many; every row is learned all the same."""
    most = 100 * 50 * 16  # a hundred batches
    monkeypatch.setattr(learner_module, "QUEUE_BYTES", most)
    learner = Learner(settings_of(warm_up=FEW, n_init=1_000), 2)
    waited = 0
    for batch in batches(make_rows(20_000), 50):
        learner.learn([batch], quota=1_500_000)
        waited = max(waited, sum(each.rows.nbytes for each in learner.queue))
    assert most <= waited < 1.1 * most
    assert learner.queue == ()
    assert learner.n_rows == 20_000
    assert learner.table()["rows"].sum() == 20_000
    assert learner.state is not None
    assert learner.state.mass == 20_000


def test_a_fit_that_is_cut_before_any_start_has_climbed() -> None:
    X = make_rows(FEW)
    fit = WarmUp(settings_of(warm_up=FEW), X, None)
    assert fit.advance(1) is None
    fit.cut()
    statistics = fit.advance(np.inf)
    assert statistics is not None
    assert statistics.n_rows == FEW
    assert np.isfinite(fit.best().posterior(X).log_density).all()


def test_rows_without_weight_are_counted_but_do_not_warm_up() -> None:
    X = make_rows(2_000)
    weight = np.zeros(2_000)
    weight[::4] = 1.0
    learner = Learner(settings_of(warm_up=FEW), 2)
    learner.learn([(X[:1_500], weight[:1_500])])
    assert learner.n_rows == 1_500
    assert learner.state is None
    learner.learn([(X[1_500:], weight[1_500:])], np.inf)
    assert learner.state is not None
    assert learner.n_rows == learner.table()["rows"].sum() == 2_000
    alone = Learner(settings_of(warm_up=FEW), 2)
    alone.learn([(X[:1_600:4].copy(), NONE)], np.inf)
    np.testing.assert_allclose(
        learner.state.running.weight,
        alone.state.running.weight,
        atol=0.1,  # type: ignore[union-attr]
    )


def test_rows_that_were_accepted_and_cannot_be_learned_are_named() -> None:
    """Without `reg_covar` a batch of one row again and again makes covariances singular."""
    X = make_rows(4_000)
    settings = settings_of(
        warm_up=FEW, reg_covar=0.0, step_size=lambda count: 1.0, average=False, monitor=False
    )
    learner = Learner(settings, 2)
    learner.learn([(X[:FEW], NONE)], quota=1)
    assert under_way(learner)
    learner.learn([(np.zeros((50, 2)), NONE)], quota=1)
    with pytest.warns(StreamGMMWarning, match=f"rows {FEW}:{FEW + 50}.* are left out"):
        learner.learn([(X[1_000:2_000], NONE)], quota=1e12)
    assert learner.n_rows == learner.table()["rows"].sum() == FEW + 1_050
    assert np.isfinite(learner.mixture().posterior(X).log_density).all()


def test_too_large_values_are_refused_at_once() -> None:
    learner = Learner(settings_of(warm_up=FEW), 2)
    for rows in (make_rows(100), make_rows(FEW)):
        with pytest.raises(DataError, match="beyond float64"):
            learner.learn([(np.full((5, 2), 1e200), NONE)], quota=1)
        learner.learn([(rows, NONE)], quota=1)
    assert under_way(learner)


def test_other_settings_begin_the_fit_anew() -> None:
    X = make_rows(FEW + 100)
    learner = Learner(settings_of(warm_up=FEW, n_init=9), 2)
    learner.learn([(X[:FEW], NONE)], quota=1)
    learner.settings = other = settings_of(warm_up=FEW, n_init=1, covariance_type="full")
    learner.learn([(X[FEW:], NONE)], np.inf)
    alone = Learner(other, 2)
    alone.learn([(X[:FEW], NONE), (X[FEW:], NONE)], np.inf)
    assert numbers(learner) == numbers(alone)


@pytest.fixture
def small_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner_module, "QUOTA", 1_500_000)


def test_the_estimator_goes_on_from_a_file(small_quota: None, tmp_path: Path) -> None:
    X = make_rows(6_000)
    whole = OnlineGaussianMixture(3, warm_up=FEW, n_init=2)
    for first in range(0, 6_000, 50):
        whole.partial_fit(X[first : first + 50])
    part = OnlineGaussianMixture(3, warm_up=FEW, n_init=2)
    for first in range(0, 1_000, 50):
        part.partial_fit(X[first : first + 50])
    assert under_way(part.learner_)
    assert part.n_samples_seen_ == part.monitor_["rows"].sum() == 1_000
    assert part.predict(X).shape == (6_000,)
    part.save(tmp_path / "model.zarr")
    again = streamgmm.load(tmp_path / "model.zarr")
    copy = pickle.loads(pickle.dumps(part))
    np.testing.assert_array_equal(again.means_, part.means_)
    for model in (again, copy):
        for first in range(1_000, 6_000, 50):
            model.partial_fit(X[first : first + 50])
        np.testing.assert_array_equal(model.means_, whole.means_)
        np.testing.assert_array_equal(model.covariances_, whole.covariances_)
        np.testing.assert_array_equal(
            model.monitor_["log_likelihood"], whole.monitor_["log_likelihood"]
        )


def test_fit_does_not_spread_it(small_quota: None) -> None:
    X = make_rows(FEW + 700)
    model = OnlineGaussianMixture(3, warm_up=FEW, n_init=2).fit(X)
    assert model.learner_.state is not None
    assert model.learner_.queue == ()
    assert model.learner_.state.n_rows == len(X)


def test_merging_and_converting_finish_it(small_quota: None) -> None:
    X = make_rows(3_000)
    one = OnlineGaussianMixture(3, warm_up=FEW, n_init=2).partial_fit(X[:1_000])
    two = OnlineGaussianMixture(3, warm_up=FEW, n_init=2).partial_fit(X[1_000:])
    assert under_way(one.learner_)
    assert under_way(two.learner_)
    both = one.merge(two)
    assert both.n_samples_seen_ == 3_000
    assert both.learner_.state is not None
    assert under_way(one.learner_)  # as it was
    alone = OnlineGaussianMixture(3, warm_up=FEW, n_init=2).fit(X)
    assert both.score(X) == pytest.approx(alone.score(X), abs=0.02)
    mixture = one.to_mixture()
    assert mixture.lower_bound_ == pytest.approx(mixture.score(X[:FEW]))


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_a_warm_up_of_one_component(kind: str) -> None:
    X = make_rows(9_500)
    model = OnlineGaussianMixture(1, covariance_type=kind, warm_up=9_000, average=False).fit(X)
    np.testing.assert_allclose(model.means_[0], X.mean(axis=0), atol=0.05)
