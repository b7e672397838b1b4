"""Starts: compared on few rows, in waves, by a budget that is counted in work."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture as Reference

from streamgmm import GaussianMixture, select
from streamgmm.errors import DataError, SingularCovarianceError, StreamGMMWarning
from streamgmm.fitting.contest import AGREE, Contest, Sample, Standing
from streamgmm.fitting.effort import Effort, is_small, plan_effort, rows_of_start
from streamgmm.fitting.fit import FitSettings, fit
from streamgmm.fitting.starts import champion, decide
from streamgmm.sources import open_source

SETTINGS = FitSettings(4, "diag")
MIXTURE = object()  # a contest only carries it


def blobs(n, d=3, k=4, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(k, d)) * 4
    return (centres[rng.integers(k, size=n)] + rng.normal(size=(n, d))).astype(dtype)


def play(contest, value):
    """Tell a contest what `value` (of a start's number and the round) says, until it is over."""
    rounds = []
    while trials := contest.trials():
        rounds.append([(t.number, t.n_rows) for t in trials])
        r = contest.round
        contest.tell([Standing(t.number, MIXTURE, value(t.number, r)) for t in trials])
    return rounds


def test_half_of_a_wave_goes_on_on_twice_the_rows():
    contest = Contest(SETTINGS, Effort(100, 8, 1), 0, 1000)
    rounds = play(contest, lambda number, r: float(number))
    assert [len(each) for each in rounds] == [8, 4, 2]
    assert [each[0][1] for each in rounds] == [100, 200, 400]
    assert {number for number, _ in rounds[1]} == {4, 5, 6, 7}
    assert contest.best.number == 7
    assert (contest.tried, contest.why) == (8, "the budget is spent")


def test_no_more_rows_than_the_sample_has():
    contest = Contest(SETTINGS, Effort(100, 8, 1), 0, 150)
    assert [each[0][1] for each in play(contest, lambda n, r: n)] == [100, 150, 150]
    effort = plan_effort(SETTINGS, 20_000, 3, 20_000)
    assert (effort.n_rows, effort.limit) == (800, 2500)
    contest = Contest(SETTINGS, effort, 0, 20_000)
    assert [each[0][1] for each in play(contest, lambda n, r: n)] == [800, 1600, 2500]


def test_starts_that_agree_end_the_contest():
    contest = Contest(SETTINGS, Effort(100, 8, 3), 0, 1000)
    rounds = play(contest, lambda number, r: 1.0 if number % 2 else -number)
    assert [len(each) for each in rounds] == [8, 1, 1]
    assert (contest.tried, contest.why) == (8, "the best agree")


def test_champions_of_two_waves_that_agree_end_it_too():
    contest = Contest(SETTINGS, Effort(100, 8, 3), 0, 1000)
    play(contest, lambda number, r: 1.0 + AGREE / 2 * (number > 7) if number % 8 == 3 else -number)
    assert (contest.tried, contest.why, len(contest.champions)) == (16, "the best agree", 2)


def test_those_that_agree_below_the_best_do_not():
    """The first wave finds the best; in the second, three agree on less."""
    contest = Contest(SETTINGS, Effort(100, 8, 3), 0, 1000)
    play(contest, lambda n, r: 5.0 if n == 2 else (1.0 if n >= 8 else -float(n)))
    assert (contest.tried, contest.best.number) == (24, 2)
    assert contest.why == "the budget is spent"


def test_never_fewer_than_asked_for():
    contest = Contest(SETTINGS, Effort(100, 8, 4, least=30), 0, 1000)
    play(contest, lambda number, r: 1.0)
    assert contest.tried == 32
    assert plan_effort(FitSettings(4, n_init=30), 10_000, 3, 5000).n_starts >= 30


def test_starts_that_fail_are_left_out():
    contest = Contest(SETTINGS, Effort(100, 8, 2), 0, 1000)
    contest.tell([Standing(i, None, error="singular") for i in range(8)])
    assert contest.wave == 1
    contest.tell([Standing(i, MIXTURE if i == 9 else None, 1.0) for i in range(8, 16)])
    while trials := contest.trials():
        assert [t.number for t in trials] == [9]
        contest.tell([Standing(9, MIXTURE, 1.0)])
    assert contest.best.number == 9


@pytest.mark.parametrize("stop", range(1, 8))
def test_a_contest_that_is_taken_up_goes_on_alike(stop):
    def value(number, r):
        return float(np.sin(7 * number + r))

    whole = Contest(SETTINGS, Effort(100, 8, 2), 0, 1000)
    play(whole, value)
    part = Contest(SETTINGS, Effort(100, 8, 2), 0, 1000)
    for _ in range(stop):
        trials, r = part.trials(), part.round
        if trials:
            part.tell([Standing(t.number, MIXTURE, value(t.number, r)) for t in trials])
    again = Contest.restored(part.state(), SETTINGS, Effort(100, 8, 2))
    play(again, value)
    assert again.state() == whole.state()


def test_the_budget_grows_with_the_data_and_is_counted_in_work():
    efforts = [plan_effort(FitSettings(16), 10**e, 16, 489_400) for e in range(4, 11)]
    starts = [each.n_starts for each in efforts]
    assert starts == sorted(starts)
    assert (starts[0], starts[-1]) == (8, 24)
    rows = [each.n_rows for each in efforts]
    assert rows == sorted(rows)
    assert rows[0] == rows_of_start(FitSettings(16), 16)
    assert rows[-1] <= 489_400 // 8


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_same_bits_on_threads_and_workers(kind, dtype, client):
    X = blobs(30_000, dtype=dtype)
    state = np.random.RandomState

    def run(**where):
        settings = FitSettings(4, kind, algorithm="incremental", block_size=1 << 17)
        return fit(open_source(X), settings, state(3), **where)

    alone, threads, workers = run(n_threads=1), run(n_threads=2), run(client=client)
    for other in (threads, workers):
        assert other.mixture.components.means.tobytes() == alone.mixture.components.means.tobytes()
        assert (
            other.mixture.components.covariances.tobytes()
            == alone.mixture.components.covariances.tobytes()
        )
        assert other.timings["n_starts"] == alone.timings["n_starts"]


KILLED = """
    import os, signal, sys
    from streamgmm.fitting.contest import Contest
    from streamgmm.storage.checkpoint import Checkpoint
    from tests.fitting.test_starts import resumable

    class Written(Checkpoint):  # the thread that writes may be slow, and is waited for
        def save(self, state, *, whole, wait=False):
            super().save(state, whole=whole, wait=True)

    import streamgmm.fitting.session
    streamgmm.fitting.session.Checkpoint = Written
    real, left = Contest.tell, [int(sys.argv[2])]

    def tell(self, outcomes):
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        real(self, outcomes)

    Contest.tell = tell
    resumable(sys.argv[1])
"""


def resumable(checkpoint):
    settings = FitSettings(4, "full", algorithm="incremental", block_size=1 << 17)
    source = open_source(blobs(30_000), name="rows")
    return fit(source, settings, np.random.RandomState(1), checkpoint=checkpoint)


def test_a_job_that_is_killed_in_the_starts_does_not_begin_again(tmp_path, caplog):
    path = str(tmp_path / "run.zarr")
    undisturbed = resumable(None)
    for n in (1, 1):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(KILLED), path, str(n)], check=False
        )
        assert done.returncode == -signal.SIGKILL
    with caplog.at_level(logging.INFO, logger="streamgmm"):
        resumed = resumable(path)
    said = [record.getMessage() for record in caplog.records]
    assert any("going on from the checkpoint" in line and "in the starts" in line for line in said)
    assert not any(line.startswith("sample:") for line in said)  # pass 0 is not made again
    assert (
        resumed.mixture.components.means.tobytes()
        == undisturbed.mixture.components.means.tobytes()
    )
    assert resumed.lower_bounds == undisturbed.lower_bounds
    assert resumed.timings["n_starts"] == undisturbed.timings["n_starts"]


def test_what_a_fit_took_is_told(caplog):
    X = blobs(20_000)
    with caplog.at_level(logging.INFO, logger="streamgmm"):
        model = GaussianMixture(4, random_state=0).fit(X)
    timings = model.timings_
    parts = [timings[name] for name in ("sample", "starts", "passes", "last_read")]
    assert all(part > 0 for part in parts)
    assert sum(parts) <= timings["total"]
    assert model.history_["seconds"][0] > timings["sample"] + timings["starts"]
    assert timings["n_starts"] == 8
    assert timings["why"] in ("the best agree", "the budget is spent")
    told = [record.event for record in caplog.records if hasattr(record, "event")]
    events = [event for event in told if event["stage"] == "starts"]
    assert [event["rows"] for event in events] == sorted(event["rows"] for event in events)
    assert events[-1]["finished"]
    assert "starts: 8 of" in caplog.text


def test_few_rows_start_as_scikit_learn_does():
    X = blobs(2000)
    assert is_small(SETTINGS, *X.shape)
    ours = GaussianMixture(4, random_state=5).fit(X)
    theirs = Reference(4, random_state=5).fit(X)
    np.testing.assert_allclose(ours.means_, theirs.means_, rtol=1e-9)
    assert ours.timings_["why"] == "scikit-learn's own, since rows are few"


def test_more_components_than_distinct_rows():
    X = np.repeat(np.eye(3) * 9, 7000, axis=0)
    with pytest.warns(StreamGMMWarning, match="have no rows"):
        model = GaussianMixture(6, random_state=0).fit(X)
    np.testing.assert_allclose(np.sort(model.weights_)[-3:], 1 / 3, rtol=1e-9)
    with pytest.raises(SingularCovarianceError):
        GaussianMixture(6, random_state=0, reg_covar=0.0).fit(X)


def test_all_rows_equal():
    with pytest.warns(StreamGMMWarning, match="have no rows"):
        model = GaussianMixture(3, random_state=0).fit(np.ones((20_000, 2)))
    np.testing.assert_allclose(model.means_[model.weights_ > 0], 1.0)


def test_one_component_needs_one_start():
    X = blobs(20_000)
    model = GaussianMixture(1, random_state=0).fit(X)
    np.testing.assert_allclose(model.means_[0], X.mean(axis=0), rtol=1e-12)
    assert (model.timings_["n_starts"], model.timings_["why"]) == (1, "one is enough")


def test_weights_that_leave_few_rows():
    X = blobs(300_000, d=2, k=3)
    weight = np.zeros(len(X))
    weight[:3] = 1.0
    with pytest.raises(DataError, match="only 3 rows have a weight above zero, fewer than"):
        GaussianMixture(5, random_state=0).fit(X, sample_weight=weight)
    # Too few to be met in a sample by chance: it is drawn again from those that count.
    weight[:400] = 1.0
    model = GaussianMixture(3, random_state=0, algorithm="incremental")
    model.fit(X, sample_weight=weight)
    few = GaussianMixture(3, means_init=model.means_, tol=1e-4, max_iter=1000).fit(X[:400])
    assert model.score(X[:400]) == pytest.approx(few.score(X[:400]), abs=1e-2)


def test_a_component_of_ten_rows_is_found_where_the_rows_of_a_start_hold_some_of_them():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200_000, 1))
    X[::20_000] = 60 + 0.1 * rng.normal(size=(10, 1))
    settings = FitSettings(4, "diag")
    for n_rows, found in ((rows_of_start(settings, 1), False), (100_000, True)):
        rows = X[rng.permutation(len(X))]
        contest = Contest(settings, Effort(n_rows, 8, 1), 0, len(X))
        decide([contest], Sample(rows, None), n_threads=1)
        means = champion(contest).components.means
        assert (means.max() > 50) == found


def test_a_selection_goes_on_where_a_candidate_cannot_be_fitted():
    X = np.concatenate([blobs(9000, k=2), np.repeat([[50.0, 50.0, 50.0]], 3000, axis=0)])
    found = select(
        X, [1, 3], ("diag",), reg_covar=0.0, random_state=0, holdout=0.0, criterion="aic"
    )
    assert found.best.n_components == 1
    assert found.table["failure"][0] == ""
    assert "ill-defined empirical covariance" in found.table["failure"][1]
    assert np.isnan(found.table["aic"][1])
    with pytest.raises(SingularCovarianceError, match="ill-defined empirical covariance"):
        select(np.ones((9000, 2)), [1, 2], reg_covar=0.0, random_state=0)


def test_a_selection_tells_the_starts_of_all_candidates():
    timings = select(blobs(20_000), [1, 2, 3], "diag", random_state=0).timings
    assert timings["n_starts"] >= 1 + 2 * 2
    assert timings["why"].startswith("one is enough; ")


def test_a_selection_is_taken_up_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr("streamgmm.storage.checkpoint.QUIET_SECONDS", 0.0)
    monkeypatch.setattr("streamgmm.storage.checkpoint.RARE", 0.0)
    from streamgmm.fitting.reading import Reader

    X = blobs(12_000)
    given = {"n_components": [2, 3, 4], "covariance_types": ("full", "diag"), "random_state": 0}
    given |= {"block_size": 1 << 15, "n_jobs": 1}
    undisturbed = select(X, **given)
    path = str(tmp_path / "run.zarr")
    left = [0]

    def counted(real):
        def call(self, *args, **options):
            left[0] -= 1
            if left[0] < 0 and getattr(self, "_name", "") != "the sample of the data":
                raise KeyboardInterrupt
            return real(self, *args, **options)

        return call

    monkeypatch.setattr(Reader, "run", counted(Reader.run))
    monkeypatch.setattr(Contest, "tell", counted(Contest.tell))
    for n in range(60):
        left[0] = 12 + 2 * n
        try:
            resumed = select(X, **given, checkpoint=path)
            break
        except KeyboardInterrupt:
            continue
    assert n > 1
    for name, column in undisturbed.table.items():
        np.testing.assert_array_equal(resumed.table[name], column, err_msg=name)
    assert resumed.best.means_.tobytes() == undisturbed.best.means_.tobytes()


def test_a_selection_notices_data_that_change():
    X = blobs(12_000)

    def change(event):
        if event.stage == "em":
            X[:] += 1.0

    from streamgmm.progress import _listener

    token = _listener.set(change)
    try:
        with pytest.raises(DataError, match="changed while it was being fitted"):
            select(X, [2], "diag", random_state=0)
    finally:
        _listener.reset(token)
