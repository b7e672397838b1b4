"""Passes on a real cluster of two processes: same bits, nothing left behind, workers killed."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr

from streamgmm.errors import NonFiniteError, ParameterError, SourceError, WorkerLostError
from streamgmm.passes import LocalExecutor, open_executor
from streamgmm.passes.cluster import ClusterExecutor
from streamgmm.passes.tasks import Result
from streamgmm.sources import Block, check_finite, open_source
from tests.passes_work import (
    Sum,
    blas_threads,
    die_always,
    die_once,
    fail_at,
    slow_sum,
    weighted_sum,
)

N = 4000
X = np.random.default_rng(0).normal(size=(N, 3))
W = np.random.default_rng(1).random(N)
TARGET = 300 * 3 * 8


def same(a: Sum, b: Sum) -> bool:
    return a.n_rows == b.n_rows and a.total.tobytes() == b.total.tobytes()


def stored(path: Path) -> str:
    zarr.create_array(str(path / "x.zarr"), data=X, chunks=(100, 2), overwrite=True)
    return str(path / "x.zarr")


def make(kind: str, path: Path) -> Any:
    if kind == "numpy":
        return open_source(X, sample_weight=W)
    if kind == "zarr":
        return open_source(stored(path))
    if kind == "zarr and weights":
        return open_source(stored(path), sample_weight=W)
    if kind == "memory store":
        return open_source(zarr.create_array({}, data=X, chunks=(100, 2)), sample_weight=W)
    x, w = da.from_array(X, chunks=(100, 2)) + 1, da.from_array(W, chunks=70)
    if kind == "dask":
        return open_source(x, sample_weight=w)
    assert kind == "persisted"
    return open_source(x.persist() * 2, sample_weight=w.persist())


KINDS = ["numpy", "zarr", "zarr and weights", "memory store", "dask", "persisted"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_cluster_gives_the_bits_of_the_serial_oracle(
    kind: str, client: Any, tmp_path: Path
) -> None:
    blocks = make(kind, tmp_path).blocks(TARGET)
    assert len(blocks) > 9
    expected = LocalExecutor(blocks).run(weighted_sum, 1.5)
    rows: list[int] = []
    threads = set()

    def on_block(n_rows: int) -> None:
        rows.append(n_rows)
        threads.add(threading.get_ident())

    with open_executor(blocks) as executor:
        assert isinstance(executor, ClusterExecutor)
        assert same(executor.run(weighted_sum, 1.5), expected)
        assert same(executor.run(weighted_sum, 1.5, on_block=on_block), expected)
        some = executor.run(weighted_sum, 1.5, blocks=[1, 2, 5])
        assert same(some, LocalExecutor([blocks[i] for i in (1, 2, 5)]).run(weighted_sum, 1.5))
    assert sorted(rows) == sorted(block.n_rows for block in blocks)
    assert threads == {threading.get_ident()}


def test_dask_knows_how_large_a_result_is() -> None:
    from dask.sizeof import sizeof

    assert 80_000 < sizeof(Result(Sum(1, np.zeros(10_000)), 1)) < 82_000


def many_blocks(path: Path) -> list[Block]:
    """So many that a task is a branch of the tree."""
    zarr.create_array(str(path / "many.zarr"), data=X[:3000], chunks=(5, 3))
    blocks = list(open_source(str(path / "many.zarr")).blocks(1))
    assert len(blocks) == 600
    return blocks


def test_branches_of_many_blocks(client: Any, tmp_path: Path) -> None:
    blocks = many_blocks(tmp_path)
    expected = LocalExecutor(blocks).run(weighted_sum, 1.5)
    rows: list[int] = []
    with open_executor(blocks) as executor:
        assert same(executor.run(weighted_sum, 1.5, on_block=rows.append), expected)
        assert rows == [5] * 600
        assert executor.rows_read == 3000
        few = range(1, 600, 7)
        some = executor.run(weighted_sum, 1.5, blocks=few)
        assert same(some, LocalExecutor([blocks[i] for i in few]).run(weighted_sum, 1.5))
        with pytest.raises(ValueError, match=r"^row 1000 is bad$"):
            executor.run(fail_at, 1000)
        flag = tmp_path / "killed"
        assert same(
            executor.run(die_once, str(flag)), LocalExecutor(blocks).run(weighted_sum, 1.0)
        )
        assert flag.exists()
        # Dask blames whatever was sent to the worker that died: a merge may wait there too.
        blamed = r"lost 4 times that had (one of 8 blocks of rows \d+:\d+|a merge), perhaps"
        with pytest.raises(WorkerLostError, match=blamed):
            executor.run(die_always, 41)


@pytest.mark.parametrize("kind", ["zarr", "numpy", "persisted"])
def test_a_worker_killed_in_the_middle_of_a_pass(kind: str, client: Any, tmp_path: Path) -> None:
    blocks = make(kind, tmp_path).blocks(TARGET)
    expected = LocalExecutor(blocks).run(weighted_sum, 1.0)
    rows: list[int] = []
    flag = tmp_path / "killed"
    with open_executor(blocks) as executor:
        got = executor.run(die_once, str(flag), on_block=rows.append)
        assert flag.exists()
        assert same(got, expected)
        assert sum(rows) == N
        assert same(executor.run(weighted_sum, 1.0), expected)


@pytest.mark.parametrize("kind", ["zarr", "numpy"])
def test_a_block_that_kills_every_worker_is_an_error(
    kind: str, client: Any, tmp_path: Path
) -> None:
    blocks = make(kind, tmp_path).blocks(TARGET)
    with (
        open_executor(blocks) as executor,
        pytest.raises(WorkerLostError, match="smaller block_size"),
    ):
        executor.run(die_always, 0)


def test_nothing_is_left_after_many_passes(cluster: Any, client: Any, tmp_path: Path) -> None:
    scheduler = cluster.scheduler

    def settle(n_tasks: int) -> None:
        for _ in range(100):
            if len(scheduler.tasks) <= n_tasks:
                return
            time.sleep(0.05)

    def groups() -> int:
        spans = scheduler.extensions["spans"].spans.values()
        return sum(len(span.groups) for span in spans)

    settle(0)
    before = len(scheduler.tasks)
    blocks = open_source(stored(tmp_path)).blocks(N * 3 * 8 // 9)
    with open_executor(blocks) as executor:
        for i in range(40):
            executor.run(weighted_sum, float(i), on_block=(lambda _: None) if i % 2 else None)
            if i == 1:
                first, topics = groups(), len(scheduler._broker._topics)
        assert groups() == first
        assert len(scheduler._broker._topics) == topics
        settle(before + 3)
        assert len(scheduler.tasks) <= before + 3
    settle(before)
    assert len(scheduler.tasks) == before
    assert not client.futures


def test_rows_in_memory_are_sent_once(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    scatter = client.scatter

    def count(data: list[Block], **options: Any) -> Any:
        sent.append(len(data))
        return scatter(data, **options)

    monkeypatch.setattr(client, "scatter", count)
    blocks = open_source(X).blocks(TARGET)
    with open_executor(blocks) as executor:
        for scale in (1.0, 2.0, 3.0):
            executor.run(weighted_sum, scale)
    assert sum(sent) == len(blocks)


def find_bad(name: str, block: Block) -> Sum:
    for piece in block.pieces():
        check_finite(piece, name)
    return Sum(block.n_rows, np.zeros(()))


def test_errors_come_as_they_were(client: Any, tmp_path: Path) -> None:
    blocks = open_source(stored(tmp_path)).blocks(TARGET)
    bad = X.copy()
    bad[123, 1] = np.nan
    with open_executor(blocks) as executor:
        with pytest.raises(ValueError, match=r"^row 1000 is bad$"):
            executor.run(fail_at, 1000)
        with pytest.raises(ValueError, match=r"^row 1000 is bad$"):
            executor.run(fail_at, 1000, on_block=lambda _: None)
    with (
        open_executor(open_source(bad).blocks(TARGET)) as executor,
        pytest.raises(NonFiniteError, match="in row 123, column 1"),
    ):
        executor.run(find_bad, "X")


def test_workers_that_do_not_see_the_array_say_so(client: Any, tmp_path: Path) -> None:
    path = Path(stored(tmp_path))
    blocks = open_source(path).blocks(TARGET)
    path.rename(tmp_path / "gone.zarr")
    with (
        pytest.raises(SourceError, match="not to be seen from this worker"),
        open_executor(blocks),
    ):
        pass


def test_one_blas_thread_on_a_worker(client: Any) -> None:
    with open_executor(open_source(X).blocks(TARGET)) as executor:
        assert executor.run(blas_threads, None).total == 0


def test_ctrl_c_cancels_the_pass(cluster: Any, client: Any, tmp_path: Path) -> None:
    blocks = open_source(stored(tmp_path)).blocks(TARGET)

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with open_executor(blocks) as executor:
        with pytest.raises(KeyboardInterrupt):
            executor.run(slow_sum, 0.2, on_block=interrupt)
        begun = time.monotonic()
        expected = LocalExecutor(blocks).run(weighted_sum, 1.0)
        assert same(executor.run(weighted_sum, 1.0), expected)
        assert time.monotonic() - begun < 0.2 * len(blocks)


def fit_inside(_: int) -> tuple[int, Sum]:
    with open_executor(open_source(X).blocks(TARGET)) as executor:
        assert isinstance(executor, LocalExecutor)
        return executor.n_threads, executor.run(weighted_sum, 1.0)


def test_inside_a_task_a_pass_stays_on_its_worker(client: Any) -> None:
    n_threads, value = client.submit(fit_inside, 0).result()
    assert n_threads == 1
    assert same(value, LocalExecutor(open_source(X).blocks(TARGET)).run(weighted_sum, 1.0))


def test_which_executor_a_client_gives(client: Any) -> None:
    import dask

    blocks = open_source(X).blocks(TARGET)
    with open_executor(blocks[:1]) as executor:
        assert isinstance(executor, LocalExecutor)
    with open_executor(blocks, n_threads=2) as executor:
        assert isinstance(executor, LocalExecutor)
    with open_executor(blocks, n_threads=2, client=client) as executor:
        assert isinstance(executor, ClusterExecutor)
    with dask.config.set(scheduler="threads"), open_executor(blocks) as executor:
        assert not isinstance(executor, ClusterExecutor)


def test_an_asynchronous_client_is_refused(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Asynchronous:
        asynchronous = True

    with (
        pytest.raises(ParameterError, match="asynchronous=False"),
        open_executor(open_source(X).blocks(TARGET), client=Asynchronous()),
    ):
        pass
