"""What a fit tells while it runs: the log, lines without a terminal, lines of JSON."""

from __future__ import annotations

import io
import json
import logging
import re

import numpy as np
import pytest
import zarr

from streamgmm import GaussianMixture, ProgressBar
from streamgmm.cli import main
from streamgmm.progress import FACTS

X = np.random.default_rng(0).normal(size=(3000, 2)) + np.repeat([[0.0], [2.0]], 1500, axis=0)


def model(**given):
    return GaussianMixture(2, random_state=0, block_size=6000, tol=1e-5, n_jobs=1, **given)


@pytest.mark.parametrize(("algorithm", "starts"), [("em", 1), ("incremental", 2)])
def test_the_log_has_a_line_an_iteration(algorithm, starts, caplog):
    with caplog.at_level(logging.INFO, "streamgmm"):
        fitted = model(algorithm=algorithm).fit(X)
    events = [record.event for record in caplog.records]
    assert [e["stage"] for e in events] == ["sample", *["em"] * (len(events) - 2), "score"]
    assert all(set(event) == set(FACTS) for event in events)
    said = r"iteration (\d+)(?: of start (\d))?: log-likelihood (-\d\.\d{6}) a row"
    more = r", change \+\d\.\de-\d\d, gap \d\.\de-\d\d, [\d,]+ rows/s, \d+\.\d s, about \d+ s left"
    told = [[] for _ in range(starts)]
    for record in caplog.records[1:-1]:
        event, message = record.event, record.getMessage()
        told[event["candidate"]].append(event)
        iteration, start, bound = re.match(said, message).groups()
        assert (int(iteration), int(start or 0)) == (event["iteration"], event["candidate"])
        assert bound == f"{event['lower_bound']:.6f}"
        assert event["iteration"] < 3 or re.fullmatch(said + more, message)
    bounds = [[event["lower_bound"] for event in climb] for climb in told]
    assert fitted.lower_bounds_ in bounds
    assert fitted.lower_bounds_[-1] == pytest.approx(max(b[-1] for b in bounds), abs=1e-8)
    assert len(fitted.lower_bounds_) == fitted.n_iter_ > 5
    for climb, reached in zip(told, bounds, strict=True):
        assert [event["iteration"] for event in climb] == [*range(1, len(climb) + 1)]
        assert [event["change"] for event in climb] == [np.inf, *np.diff(reached)]
        assert all(0 <= e["gap"] < 1 and e["rows_per_second"] > 0 for e in climb[2:])
        assert [event["finished"] for event in climb] == [False] * (len(climb) - 1) + [True]
        assert climb[-1]["seconds_left"] == 0


@pytest.mark.filterwarnings("ignore:Best performing")
def test_nothing_is_logged_of_climbs_on_the_sample(caplog):
    with caplog.at_level(logging.INFO, "streamgmm"):
        model(algorithm="incremental", max_iter=1).fit(X)
    assert [record.event["stage"] for record in caplog.records] == ["sample", "em", "em", "score"]


def test_going_on_from_a_checkpoint_is_told(caplog, tmp_path):
    model(checkpoint=tmp_path / "run.zarr", max_iter=50).fit(X)
    with caplog.at_level(logging.INFO, "streamgmm"):
        model(checkpoint=tmp_path / "run.zarr", max_iter=50).fit(X)
    assert [r.getMessage()[:32] for r in caplog.records] == [
        "going on from the checkpoint '" + str(tmp_path)[:2]
    ]


def test_a_line_an_iteration_without_a_terminal():
    out = io.StringIO()
    with ProgressBar(file=out):
        fitted = model(algorithm="em").fit(X)
    lines = [line for line in out.getvalue().splitlines() if line.startswith("iteration ")]
    assert len(lines) == fitted.n_iter_
    assert " rows/s" in lines[-1]
    assert "about 0 s left" in lines[-1]


def test_lines_of_json_and_a_checkpoint_from_the_command_line(tmp_path, capsys):
    data, out, run = (str(tmp_path / name) for name in ("x.zarr", "m.zarr", "run.zarr"))
    zarr.create_array(data, data=X, chunks=(500, 2))
    command = ["fit", data, "-k", "2", "--out", out, "--seed", "0", "--threads", "1", "--json"]
    command += ["--checkpoint", run, "--json-events", "--overwrite"]
    assert main(command) == 0
    printed = capsys.readouterr()
    events = [json.loads(line) for line in printed.err.splitlines()]
    assert {"sample", "em", "score"} == {event["stage"] for event in events}
    first = json.loads(printed.out)
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "going on from the checkpoint" in printed.err
    events = [json.loads(line) for line in printed.err.splitlines()]
    assert not [event for event in events if "stage" in event]  # nothing was read
    again = json.loads(printed.out)
    assert again["components"] == first["components"]
    command[command.index("-k") + 1] = "3"
    assert main(command) == 2
    assert "n_components is 2 there and 3 here" in capsys.readouterr().err
