"""``streamgmm follow`` and its workflow, as a person runs them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import zarr

import streamgmm
from streamgmm import cli

ROOT = Path(__file__).parents[2]
Run = Callable[..., CompletedProcess[str]]


def run_alone(*arguments: str, text: str = "") -> CompletedProcess[str]:
    """In a process of its own, as a shell does."""
    return subprocess.run(
        [sys.executable, "-m", "streamgmm", *arguments],
        input=text, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """The same in this process, which need not import everything again."""

    def run(*arguments: str) -> CompletedProcess[str]:
        with warnings.catch_warnings():  # the command line shows them in a way of its own
            warnings.simplefilter("default")
            status = cli.main(list(arguments))
        done = capsys.readouterr()
        return CompletedProcess(arguments, status, done.out, done.err)

    return run


def test_command(tmp_path: Path, run: Run) -> None:
    rows = np.random.default_rng(0).normal(size=(2_000, 2))
    path, state = str(tmp_path / "x.zarr"), str(tmp_path / "state.zarr")
    array = zarr.create_array(path, shape=rows.shape, chunks=(500, 2), dtype="f8")
    array[:] = rows
    asked = ["follow", path, "--state", state, "--once", "--json", "-k", "2"]
    first = run_alone(*asked, "--warm-up", "500", "--labels", str(tmp_path / "labels.ndjson"))
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["rows"] == 2_000
    assert len((tmp_path / "labels.ndjson").read_text().splitlines()) == 2_000
    other = run(*asked)
    assert other.returncode == 2
    assert "Traceback" not in other.stderr
    assert "warm_up=500 there" in other.stderr
    assert streamgmm.load(state).n_samples_seen_ == 2_000
    described = json.loads(run("info", state, "--json").stdout)
    assert described["rows"] == 2_000
    assert run("info", state).returncode == 0


def test_command_reads_standard_input(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.random.default_rng(0).normal(size=(900, 2))
    text = "\n".join(f"{a},{b}" for a, b in rows.tolist())
    state = str(tmp_path / "state.zarr")
    done = run_alone("follow", "-", "--state", state, "-k", "1", "--warm-up", "100", text=text)
    assert done.returncode == 0, done.stderr
    assert "900 new rows" in done.stdout
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"1,2\nx,y\n")))
    bad = run("follow", "-", "--state", str(tmp_path / "t"), "-k", "1")
    assert bad.returncode == 2
    assert "line 2" in bad.stderr
    assert run("follow", "nowhere.zarr", "--state", state).returncode == 2


def test_workflow(tmp_path: Path) -> None:
    script = ROOT / "workflows" / "follow_telemetry.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "run"), "--rows", "36000"],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "36,000 rows learned" in done.stdout
    assert "first alarm after it: row 24," in done.stdout
    assert (tmp_path / "run" / "drift.png").read_bytes()[:4] == b"\x89PNG"


def test_a_family_by_its_name(tmp_path: Path, run: Run) -> None:
    random = np.random.default_rng(0)
    rates = np.array([[1.0, 9.0], [8.0, 2.0]])
    rows = random.poisson(rates[random.integers(2, size=6_000)])
    path, state = str(tmp_path / "x.zarr"), str(tmp_path / "state.zarr")
    zarr.create_array(path, data=rows.astype(np.int16), chunks=(500, 2))
    asked = ["follow", path, "--state", state, "--once", "-k", "2", "--family", "poisson"]
    first = run(*asked, "--json", "--warm-up", "1000")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["rows"] == 6_000
    model = streamgmm.load(state)
    order = np.argsort(model.components_["rates"][:, 0])
    np.testing.assert_allclose(model.components_["rates"][order], rates, rtol=0.1)
    assert "poisson components, 2 features; learned from 6,000 rows" in run("info", state).stdout
    assert "--adapt is for Gaussian components" in run(*asked, "--adapt").stderr
