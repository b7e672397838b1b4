"""Drift: the alarms that must come, and those that must not."""

from __future__ import annotations

import numpy as np
import pytest

from streamgmm import OnlineGaussianMixture
from streamgmm.online.drift import limits_of
from streamgmm.online.learner import BATCH_ROWS

MEANS = np.array([[0.0, 0.0], [2.5, 0.0], [0.0, 6.0]])
BEFORE = 20_000


def draw(
    n: int, rng: np.random.Generator, weights: tuple[float, ...] = (0.6, 0.2, 0.2), turn: float = 0
) -> np.ndarray:
    label = rng.choice(3, size=n, p=weights)
    rows = rng.normal(size=(n, 2)) * [1.0, 0.5] + MEANS[label]
    c, s = np.cos(turn), np.sin(turn)
    return rows @ np.array([[c, -s], [s, c]])


def change(what: str, rng: np.random.Generator) -> np.ndarray:
    if what == "rotation":
        return draw(5_000, rng, turn=2.0 / 6.0)  # two deviations at a distance of six
    if what == "mean shift":
        rows = draw(5_000, rng)
        rows[rows[:, 1] > 4, 0] += 2.0
        return rows
    if what == "birth":
        rows = draw(5_000, rng)
        rows[::10] += [0.0, -2.0]
        return rows
    return draw(5_000, rng, weights=(0.2, 0.6, 0.2))


@pytest.mark.parametrize("what", ["rotation", "mean shift", "birth", "weight swap"])
@pytest.mark.parametrize("n", [100, 1_000])
def test_four_changes_are_noticed(what: str, n: int) -> None:
    rng = np.random.default_rng(1)
    X = np.concatenate([draw(BEFORE, rng), change(what, rng)])
    model = OnlineGaussianMixture(3, warm_up=2_000, n_init=2)
    for first in range(0, len(X), n):
        model.partial_fit(X[first : first + n])
    rows = [alarm["row"] for alarm in model.monitor_["alarms"]]
    assert rows
    assert BEFORE < min(rows) <= BEFORE + 5_000


def test_quiet_where_nothing_changes_and_the_model_is_wrong() -> None:
    """Heavy tails, a model of too few components, and outliers: no alarm in 300,000 rows."""
    rng = np.random.default_rng(2)
    model = OnlineGaussianMixture(2, warm_up=2_000, n_init=1)
    for _ in range(300):
        rows = draw(1_000, rng) + rng.standard_t(4, size=(1_000, 2))
        rows[0] *= 1e4
        model.partial_fit(rows)
    assert model.monitor_["alarms"] == []
    assert len(model.monitor_["cusum"]) == 300


def test_alarms_do_not_depend_on_batches_and_start_anew() -> None:
    """To the bit until the first, after which the mixture at the end of a batch is the usual."""
    rng = np.random.default_rng(3)
    X = np.concatenate([draw(BEFORE, rng), draw(BEFORE, rng) + 3.0, draw(BEFORE, rng)])
    first_alarms = []
    for n in (170, 1_000, len(X)):
        model = OnlineGaussianMixture(3, warm_up=2_000, n_init=1, half_life=4_000.0)
        for first in range(0, len(X), n):
            model.partial_fit(X[first : first + n])
        alarms = model.monitor_["alarms"]
        rows = sorted({alarm["row"] for alarm in alarms})
        assert [row // BEFORE for row in rows] == [1, 2]  # none before, between, or after
        assert max(row % BEFORE for row in rows) <= 1_500
        batch = min(n, BATCH_ROWS)  # more rows in memory are learned as batches, too
        assert model.learner_.state.monitor.start == min(-(-rows[-1] // batch) * batch, len(X))
        first_alarms.append([alarm for alarm in alarms if alarm["row"] == rows[0]])
    assert {alarm["kind"] for alarm in first_alarms[0]} >= {"likelihood", "occupancy"}
    assert first_alarms[0] == first_alarms[1] == first_alarms[2]


def test_limits_grow_with_what_is_tested() -> None:
    assert np.all(np.diff(limits_of(8, 4)) > 0)
    assert limits_of(1, 1)[0] == pytest.approx(2 * np.log(2 / 1e-6))
