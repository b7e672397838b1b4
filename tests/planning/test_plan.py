"""Plans: what they count, what they refuse, and that their sums agree with following each task."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from streamgmm.errors import ParameterError, PlanError, StreamGMMError
from streamgmm.fitting.memory import check_memory, peaks, result_bytes
from streamgmm.fitting.settings import FitSettings
from streamgmm.model.covariances import COVARIANCES
from streamgmm.model.mixture import Mixture, e_step
from streamgmm.planning.plan import Plan, plan
from streamgmm.planning.simulate import Load, Rates, play, project, scale
from streamgmm.sources import open_source, parse_block_size

RATES = Rates(read=1e-8, decode=1e-7, compute=4e-7, merge=4e-5)
X = np.random.default_rng(0).normal(size=(40_000, 4))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("plan") / "x.zarr")
    zarr.create_array(path, data=X.round(1), chunks=(2_000, 4))
    return path


def test_a_plan_of_stored_data(stored: str) -> None:
    source = open_source(stored)
    p = plan(source, 8, workers=2, worker_memory="1GiB", n_candidates=1)
    assert (p.n_rows, p.n_features, p.n_bytes) == (40_000, 4, X.nbytes)
    blocks = source.blocks(parse_block_size("auto", source))
    assert p.n_blocks == len(blocks)
    assert p.n_tasks == 1 + len(blocks) + 1  # the model, blocks, and what merges them
    size = sum(f.stat().st_size for f in Path(stored).glob("c/*/*"))
    assert p.stored_bytes == pytest.approx(size, rel=0.02)
    assert p.rates.compute > 0
    assert p.rates.read > 0
    assert p.rates.decode >= 0
    parts = p.projection
    total = parts.read + parts.decode + parts.compute + parts.merge + parts.scheduling
    assert total == pytest.approx(parts.seconds)
    assert min(parts.read, parts.decode, parts.compute, parts.merge, parts.scheduling) >= 0


def test_tasks_of_many_blocks_are_those_of_a_cluster(tmp_path: Path) -> None:
    path = str(tmp_path / "x.zarr")
    zarr.create_array(path, shape=(3000, 4), chunks=(5, 4), dtype="f8")
    rates = Rates(read=1e-5, decode=0.0, compute=1e-5, merge=0.0)
    given: dict[str, Any] = {"rates": rates, "block_size": 1, "n_candidates": 1}
    on_cluster = plan(open_source(path), 4, workers=2, **given)
    assert on_cluster.n_blocks == 600
    assert on_cluster.n_tasks == 1 + 75 + 10 + 2 + 1
    # Threads of this process take one block after another: 13 rounds of 5 rows.
    here = plan(open_source(path), 4, processors=48, **given)
    assert here.projection.seconds == pytest.approx(13 * 5 * 2e-5, rel=0.02)


def test_a_plan_says_all_it_knows(stored: str) -> None:
    p = plan(open_source(stored), 8, workers=3, worker_memory="1GiB", rates=RATES)
    assert json.loads(json.dumps(p.to_dict()))["rates"]["store"] is None
    text = p.render()
    for word in (
        "40,000 rows × 4",
        "8 components, full",
        "on 3 workers",
        "a worker of 1.0 GiB",
        "limit",
    ):
        assert word in text
    alone = plan(open_source(stored), 8, rates=RATES)
    assert alone.n_workers == 0
    assert "threads of this process" in str(alone)


@pytest.mark.parametrize("kind", list(COVARIANCES))
def test_result_bytes_are_those_of_statistics(kind: Any) -> None:
    covariances = {
        "full": np.stack([np.eye(4)] * 3), "tied": np.eye(4),
        "diag": np.ones((3, 4)), "spherical": np.ones(3),
    }[kind]  # fmt: skip
    moments = e_step(Mixture.of(kind, np.full(3, 1 / 3), X[:3], covariances), X).components
    arrays = moments.weight.nbytes + moments.mean.nbytes + moments.scatter.nbytes
    assert result_bytes(3, 4, kind) == arrays + 32
    assert result_bytes(3, 4, kind, 5) == 5 * result_bytes(3, 4, kind)


@pytest.mark.parametrize(
    "settings",
    [
        {"workers": 0},
        {"workers": -1},
        {"workers": 2, "worker_memory": "much"},
        {"workers": 2, "worker_memory": 0},
        {"processors": 0},
        {"n_candidates": 0},
        {"family": "round"},
        {"block_size": "0MiB"},
        {"store_bandwidth": "-1"},
    ],
    ids=str,
)
def test_bad_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=f"{list(settings)[-1]}="):
        plan(open_source(X), 3, rates=RATES, **settings)
    with pytest.raises(ParameterError, match="n_components=0"):
        plan(open_source(X), 0, rates=RATES)


def test_a_fit_that_cannot_fit_is_refused() -> None:
    wide = open_source(np.zeros((5000, 200)))
    with pytest.raises(PlanError, match=r"a worker would need .*covariance_type='diag'") as caught:
        plan(wide, 1000, workers=4, worker_memory="2GiB", rates=RATES, n_candidates=2)
    assert isinstance(caught.value, MemoryError)
    assert isinstance(caught.value, StreamGMMError)
    assert "fewer candidates" in str(caught.value)
    plan(wide, 1000, "diag", workers=4, worker_memory="2GiB", rates=RATES)
    unchecked = plan(wide, 1000, workers=4, worker_memory="2GiB", rates=RATES, check=False)
    with pytest.raises(PlanError):
        check_memory(unchecked.demand)


def test_a_hopeless_fit_ends_before_its_first_pass(client: Any) -> None:
    from streamgmm import GaussianMixture

    wide = np.random.default_rng(0).normal(size=(4000, 150))
    with pytest.raises(PlanError, match="a worker would need"):
        GaussianMixture(1000, block_size="1MiB").fit(wide)
    planned = GaussianMixture(2, block_size="1MiB").plan(wide, rates=RATES)
    assert planned.n_workers == 2
    assert planned.worker_memory == 2 << 30


def test_the_command(stored: str, capsys: pytest.CaptureFixture[str]) -> None:
    from streamgmm.cli import main

    assert main(["plan", stored, "-k", "4", "--workers", "40", "--worker-memory", "8GiB"]) == 0
    assert "on 40 workers" in capsys.readouterr().out
    assert main(["plan", stored, "-k", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_components"] == 4
    assert main(["plan", stored, "-k", "4", "--workers", "0"]) == 2
    few = ["plan", stored, "-k", "99", "--workers", "4", "--worker-memory", "300MiB"]
    assert main(few) == 2
    assert "give each worker" in capsys.readouterr().err


def test_chunks_too_large_are_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "x.zarr")
    zarr.create_array(path, shape=(1 << 26, 4), chunks=(1 << 25, 4), dtype="f8")
    with pytest.raises(PlanError, match="smaller chunks"):
        plan(open_source(path), 3, workers=2, worker_memory="2GiB", rates=RATES)


def test_memory_does_not_grow_with_rows(tmp_path: Path) -> None:
    found = []
    for n in (1 << 24, 1 << 34):
        path = str(tmp_path / f"{n}.zarr")
        zarr.create_array(path, shape=(n, 4), chunks=(1 << 16, 4), dtype="f8")
        source = open_source(path)
        found.append(peaks(source, source.blocks(1 << 30), [FitSettings(16)] * 2))
    assert found[0] == found[1]


@pytest.mark.parametrize("n_workers", [1, 3, 10, 100, 1000])
@pytest.mark.parametrize("n_blocks", [50, 1000, 5000])
def test_the_sums_agree_with_following_each_task(n_workers: int, n_blocks: int) -> None:
    load = Load(1e6 * n_blocks, n_blocks, 128e6 * n_blocks, 35e3, 105e3)
    assert play(load, RATES, n_workers) == pytest.approx(
        project(load, RATES, n_workers).seconds, rel=0.15
    )


def test_limits_are_named() -> None:
    load = Load(1e9, 1000, 128e9, 35e3, 105e3)
    assert project(load, RATES, 10).limit == "compute"
    assert project(load, RATES, 5000).limit == "scheduler"
    slow = Rates(1e-8, 1e-7, 4e-7, 4e-5, store=1e9)
    found = project(load, slow, 100)
    assert found.limit == "store"
    assert found.seconds == pytest.approx(128, rel=0.05)
    heavy = Load(1e6, 1000, 128e6, 2e9, 6e9)
    assert project(heavy, RATES, 100).limit == "merge tree"
    reads = Rates(1e-6, 1e-7, 4e-7, 4e-5)
    assert project(load, reads, 10).limit == "reading"


def test_shared_processors_are_shared() -> None:
    load = Load(1e8, 100, 128e8, 35e3, 105e3)
    one, two, four = (project(load, RATES, n, processors=2).seconds for n in (1, 2, 4))
    assert one / two == pytest.approx(2 * 4e-7 / (4e-7 + 1.1e-7), rel=0.05)
    assert four == pytest.approx(two, rel=0.1)
    alone = project(load, RATES, 0, processors=2)
    assert alone.scheduling == pytest.approx(0.0, abs=0.02 * alone.seconds)


def test_a_trillion_rows() -> None:
    load = scale(Load(1e9, 1000, 128e9, 35e3, 105e3), 1e12, 1e6)
    assert load.n_blocks == 1_000_000
    small = project(load, RATES, 10_000)
    assert small.limit == "scheduler"
    large = project(scale(load, 1e12, 64e6), RATES, 10_000)
    assert large.seconds < small.seconds / 5


def test_advice_says_what_to_change(tmp_path: Path) -> None:
    path = str(tmp_path / "x.zarr")
    zarr.create_array(path, shape=(10**12, 16), chunks=(1 << 15, 16), dtype="f8")
    source = open_source(path)
    p = plan(source, 16, workers=5000, rates=RATES, block_size="128MiB")
    better = [line for line in p.advice if "block_size=" in line]
    assert p.projection.limit == "scheduler"
    assert better
    wanted = better[0].split("'")[1].replace(" ", "")
    q = plan(source, 16, workers=5000, rates=RATES, block_size=wanted)
    assert q.projection.limit == "compute"
    assert q.projection.seconds < p.projection.seconds
    assert math.isclose(q.worker_peak, p.worker_peak)
    assert isinstance(q, Plan)
