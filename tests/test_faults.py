"""Bad chunks, failing reads, and a dozen of the fault runs of benchmarks/faults.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
import zarr

from streamgmm import GaussianMixture
from streamgmm.errors import (
    ChunkError,
    DataError,
    SchedulerError,
    StreamGMMWarning,
    WorkerLostError,
)
from streamgmm.passes import watch as watching
from streamgmm.passes.memory import memory_of
from streamgmm.passes.watch import Watch
from streamgmm.places import retry
from streamgmm.sources import open_source

ROOT = Path(__file__).parents[1]
X = np.random.default_rng(0).normal(size=(4000, 3)) + np.repeat([[0.0], [4.0]], 2000, axis=0)


def make(path, bad=(), chunk=100, **options):
    zarr.create_array(str(path), data=X, chunks=(chunk, 3), overwrite=True, **options)
    for i in bad:
        (path / "c" / str(i) / "0").write_bytes(b"no chunk of anything")
    return str(path)


def model(**given):
    settings = {"random_state": 0, "block_size": 9600, "tol": 1e-6, "on_bad_chunk": "skip"}
    return GaussianMixture(2, **settings | given)


@pytest.mark.parametrize("algorithm", ["em", "incremental"])
@pytest.mark.parametrize("bad", [[3], [0, 7, 8], [4, 5, 6, 7, 39]])
def test_bad_chunks_are_skipped_and_named(bad, algorithm, tmp_path):
    path = make(tmp_path / "x.zarr", bad)
    with pytest.raises(ChunkError, match=f"chunk 'c/{bad[0]}/0'"):
        model(on_bad_chunk="raise", algorithm=algorithm).fit(path)
    with pytest.warns(StreamGMMWarning, match=f"{100 * len(bad)} rows could not be read"):
        fitted = model(algorithm=algorithm).fit(path)
    rows = np.concatenate([np.arange(a, b) for a, b in fitted.skipped_rows_])
    expected = np.concatenate([np.arange(100 * i, 100 * i + 100) for i in bad])
    np.testing.assert_array_equal(rows, expected)
    weight = np.ones(len(X))
    weight[rows] = 0
    start = {"means_init": [[0.0] * 3, [4.0] * 3], "weights_init": [0.5, 0.5]}
    start["precisions_init"] = np.stack([np.eye(3)] * 2)
    with pytest.warns(StreamGMMWarning):
        skipped = model(algorithm="em", **start).fit(path)
    weighted = model(algorithm="em", **start).fit(X, sample_weight=weight)
    np.testing.assert_allclose(skipped.means_, weighted.means_, rtol=1e-9, atol=1e-9)
    assert weighted.skipped_rows_.shape == (0, 2)


def test_all_or_most_chunks_bad(tmp_path):
    with pytest.raises(DataError, match="no row can be read"):
        model().fit(make(tmp_path / "x.zarr", range(40)))
    path = make(tmp_path / "y.zarr", range(1, 40))
    with pytest.warns(StreamGMMWarning, match="3900 rows"):
        assert len(model(tol=1e-2).fit(path).skipped_rows_) > 0


def test_threads_and_a_checkpoint_skip_the_same(tmp_path):
    path = make(tmp_path / "x.zarr", [3, 17])
    fits = []
    for options in ({"n_jobs": 1}, {"n_jobs": 2}, {"checkpoint": tmp_path / "run.zarr"}) * 2:
        with pytest.warns(StreamGMMWarning, match="skipped"):
            fits.append(model(algorithm="incremental", **options).fit(path))
    assert len({fit.means_.tobytes() for fit in fits}) == 1
    assert len({fit.skipped_rows_.tobytes() for fit in fits}) == 1


class Failing(zarr.storage.WrapperStore):
    """A store of which each chunk fails some times."""

    async def get(self, key, prototype, byte_range=None):
        if "c/" in key:
            self.left.setdefault(key, self.times)
            self.left[key] -= 1
            if self.left[key] >= 0:
                raise self.error
        return await super().get(key, prototype, byte_range)


def failing(path, error, times):
    store = Failing(zarr.storage.LocalStore(path, read_only=True))
    store.error, store.times, store.left = error, times, {}
    return zarr.open_array(store, mode="r")


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(retry, "RETRY_SECONDS", (0.0, 0.0, 0.0))


def read(array):
    (block,) = open_source(array).blocks(1 << 30)
    return np.concatenate([piece.rows for piece in block.pieces()])


def test_reads_that_fail_twice_and_then_work(tmp_path, at_once):
    path = make(tmp_path / "x.zarr", chunk=2000)
    for error in (ConnectionResetError("reset"), TimeoutError(), OSError(5, "I/O")):
        np.testing.assert_array_equal(read(failing(path, error, 1)), X)
    one = make(tmp_path / "y.zarr", chunk=4000)
    np.testing.assert_array_equal(read(failing(one, TimeoutError(), 2)), X)


@pytest.mark.parametrize("error", [PermissionError("no"), RuntimeError("cannot decode")])
def test_what_will_not_mend_is_not_tried_again(error, tmp_path, at_once):
    array = failing(make(tmp_path / "x.zarr", chunk=4000), error, 2)
    with pytest.raises(ChunkError):
        read(array)
    np.testing.assert_array_equal(read(array), X)


def test_storage_that_is_away_is_never_skipped(tmp_path, at_once):
    array = failing(make(tmp_path / "x.zarr"), ConnectionRefusedError("down"), 10**9)
    with pytest.raises(ChunkError, match="down"):
        model(n_jobs=1).fit(array)


class FakeClient:
    """What a watch asks of a client: who works on what."""

    status = "running"

    def __init__(self, *working):
        self.working, self.restarted = dict.fromkeys(working, ("streamgmm-token-1",)), []

    def processing(self):
        return self.working

    def scheduler_info(self, n_workers):
        return {"workers": self.working}

    def restart_workers(self, workers, timeout):
        self.restarted += workers


class Clock:
    """The time as a watch sees it, which passes where a test says so."""

    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(watching, "time", clock)
    return clock


@pytest.fixture
def looks(clock):
    def looks(client, n, n_blocks=1):
        with dask.config.set({"streamgmm.stall-timeout": "10ms"}):
            watch = Watch(client, "token", n_blocks)
        for _ in range(n):
            clock.now += 0.02
            watch.look()

    return looks


def test_workers_that_hang_are_restarted_and_then_given_up(looks):
    client = FakeClient("tcp://a", "tcp://b")
    looks(client, 20)
    assert set(client.restarted) == {"tcp://a", "tcp://b"}
    with pytest.raises(WorkerLostError, match="after 3 restarts; look at their storage"):
        looks(client, 150)


def test_tasks_of_many_blocks_may_take_longer(looks):
    client = FakeClient("tcp://a")
    looks(client, 20, n_blocks=1000)
    assert not client.restarted


def test_workers_that_nobody_replaces(looks, clock):
    client = FakeClient("tcp://a")
    client.restart_workers = lambda workers, timeout: client.working.clear()
    with pytest.raises(WorkerLostError, match="all workers were lost, and none has come"):
        looks(client, 20)
    client = FakeClient("tcp://a")
    with dask.config.set({"streamgmm.stall-timeout": "10ms"}):
        watch = Watch(client, "token", n_blocks=1000)  # not longer, however long a task may be
    client.working.clear()
    clock.now += 0.02
    with pytest.raises(WorkerLostError, match="none has come"):
        watch.look()
    looks(FakeClient(), 5)  # it is to begin with that none may be there


def test_a_scheduler_that_is_lost(looks):
    client = FakeClient("tcp://a")
    client.status = "connecting"
    with pytest.raises(SchedulerError, match="with a checkpoint the fit goes on"):
        looks(client, 1)


@pytest.mark.parametrize("said", [{}, OSError("no connection")])
def test_a_scheduler_that_is_lost_while_workers_are_counted(said, looks):
    class Gone(FakeClient):
        def scheduler_info(self, n_workers):
            if isinstance(said, Exception):
                raise said
            return said

    with pytest.raises(SchedulerError, match="was lost in the middle of a pass"):
        memory_of(Gone())
    with pytest.raises(SchedulerError, match="was lost in the middle of a pass"):
        looks(Gone(), 1)


def test_a_dozen_fault_runs():
    command = ["-m", "benchmarks.faults", "--runs", "12", "--seed", "1", "--only", "local"]
    command += ["--rows", "100000"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| all | 12 |" in done.stdout
