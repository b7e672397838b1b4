"""Rows that are kept between passes: the same bits, fewer reads, bounded memory, no stale data."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import dask.order
import numpy as np
import pytest
import zarr
from distributed.utils import offload

from streamgmm import GaussianMixture, select
from streamgmm.cli import main
from streamgmm.errors import (
    ChunkError,
    DataError,
    ParameterError,
    StreamGMMWarning,
    WorkerLostError,
)
from streamgmm.fitting.fit import FitSettings, fit
from streamgmm.passes import LocalExecutor, open_executor
from streamgmm.passes import memory as memories
from streamgmm.planning.plan import plan
from streamgmm.planning.simulate import Rates
from streamgmm.sources import (
    Block,
    KeptBlock,
    Piece,
    check_finite,
    is_kept,
    kept_bytes,
    open_source,
    read_and_keep,
    without_rows,
)
from tests.mixtures import parameters_of
from tests.passes_work import Sum, die_always, die_once, fail_at, weighted_sum

N = 4000
X = np.random.default_rng(0).normal(size=(N, 3)) + np.repeat([[0.0], [4.0]], N // 2, axis=0)
W = np.random.default_rng(1).random(N)
TARGET = 300 * 3 * 8
READ = ["zarr", "zarr and weights", "zarr, both", "dask"]
MEMORY = ["numpy", "memory store"]


def stored(path: Path, name: str = "x.zarr", rows: Any = X) -> str:
    chunks = (100, *rows.shape[1:])
    zarr.create_array(str(path / name), data=rows, chunks=chunks, overwrite=True)
    return str(path / name)


def make(kind: str, path: Path) -> Any:
    if kind == "numpy":
        return open_source(X, sample_weight=W)
    if kind == "zarr":
        return open_source(stored(path))
    if kind == "zarr and weights":
        return open_source(stored(path), sample_weight=W)
    if kind == "zarr, both":
        return open_source(stored(path), sample_weight=stored(path, "w.zarr", W))
    if kind == "memory store":
        return open_source(zarr.create_array({}, data=X, chunks=(100, 3)))
    assert kind == "dask"
    return open_source(da.from_array(X, chunks=(100, 2)) + 1, sample_weight=da.from_array(W))


def same(a: Sum, b: Sum) -> bool:
    return a.n_rows == b.n_rows and a.total.tobytes() == b.total.tobytes()


def same_fit(a: Any, b: Any) -> None:
    theirs = parameters_of(b.mixture)
    for name, values in parameters_of(a.mixture).items():
        assert values.tobytes() == theirs[name].tobytes()
    assert a.lower_bounds == b.lower_bounds
    assert a.statistics.log_likelihood == b.statistics.log_likelihood
    for name in a.history.keys() - {"seconds", "bytes"}:
        np.testing.assert_array_equal(a.history[name], b.history[name], err_msg=name)
    assert a.skipped == b.skipped


def run(source: Any, *, start: Any = None, **given: Any) -> Any:
    names = {"n_threads", "client", "on_progress", "checkpoint"}
    where = {name: given.pop(name) for name in names & given.keys()}
    settings = {"block_size": TARGET, "tol": 1e-5, "max_iter": 8} | given
    source = open_source(source)
    return fit(source, FitSettings(2, **settings), np.random.RandomState(0), start=start, **where)


@dataclass(frozen=True)
class Given:
    """A block of given pieces that may end in an error."""

    given: tuple[Piece, ...]
    error: Exception | None = None
    start: int = 0
    n_rows: int = 4
    resident: bool = False

    def pieces(self) -> Any:
        yield from self.given
        if self.error is not None:
            raise self.error


def test_a_block_is_read_once_and_to_its_end() -> None:
    rows = np.arange(100.0).reshape(50, 2)
    parts = (Piece(0, rows[:2], None), Piece(2, rows[2:4], W[:2]))
    block = KeptBlock(Given(parts))
    next(iter(block.pieces()))
    assert not is_kept(block)
    first, second = list(block.pieces()), list(block.pieces())
    assert is_kept(block)
    assert all(a is b for a, b in zip(first, second, strict=True))
    for piece, part in zip(first, parts, strict=True):
        np.testing.assert_array_equal(piece.rows, part.rows)
        assert piece.rows.base is None  # of a hundred rows no more than these stay alive
    assert first[1].sample_weight.base is None
    again = pickle.loads(pickle.dumps(block))
    assert is_kept(again)
    np.testing.assert_array_equal(list(again.pieces())[1].rows, rows[2:4])
    assert 64 + 16 <= sys.getsizeof(block) < 2000
    assert not is_kept(again.block)


@pytest.mark.parametrize("error", [ChunkError("bad"), ValueError("odd"), MemoryError()])
def test_a_block_that_fails_keeps_nothing_and_fails_as_it_would(error: Exception) -> None:
    block = read_and_keep(Given((Piece(0, X[:2], None),), error))
    assert not is_kept(block)
    with pytest.raises(type(error)):
        list(block.pieces())


def test_parts_of_a_block_that_is_kept_are_read(tmp_path: Path) -> None:
    """So that their pieces are those of a block that is not: sums have the same bits."""
    (block,) = open_source(stored(tmp_path)).blocks(1 << 30)
    rest = without_rows(read_and_keep(block), [(100, 300)])
    expected = without_rows(block, [(100, 300)])
    assert same(weighted_sum(1.0, rest), weighted_sum(1.0, expected))


@pytest.mark.parametrize("kind", READ + MEMORY)
def test_what_would_be_kept(kind: str, tmp_path: Path) -> None:
    source = make(kind, tmp_path)
    expected = 0 if kind in MEMORY else X.nbytes + W.nbytes * (kind != "zarr")
    blocks = source.blocks(TARGET)
    assert kept_bytes(source, blocks) == expected
    if expected:
        pieces = [piece for block in blocks for piece in read_and_keep(block).pieces()]
        weights = [p.sample_weight.nbytes for p in pieces if p.sample_weight is not None]
        assert sum(p.rows.nbytes for p in pieces) + sum(weights) == expected


def test_what_a_cluster_holds_is_not_kept_twice(client: Any) -> None:
    source = open_source(da.from_array(X, chunks=(100, 3)).persist() * 2)
    assert kept_bytes(source, source.blocks(TARGET)) == 0


def test_memory_is_known_and_shared(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert memories.memory_here() > 1 << 28
    assert memories.memory_of(client) == 4 << 30
    assert client.submit(memories.memory_here).result() == 2 << 30
    monkeypatch.setattr(memories, "_CGROUP_LIMITS", ())
    assert memories.memory_here() > 1 << 28

    class Unlimited:
        def scheduler_info(self, n_workers: int) -> Any:
            return {"workers": {"a": {"memory_limit": 1 << 30}, "b": {"memory_limit": None}}}

    assert memories.memory_of(Unlimited()) == 0

    class Nobody:
        def scheduler_info(self, n_workers: int) -> Any:
            return {"workers": {}}

    assert memories.memory_of(Nobody()) is None


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("where", [1, 3, "cluster"])
def test_passes_over_kept_rows(kind: str, where: Any, tmp_path: Path, request: Any) -> None:
    source = make(kind, tmp_path)
    blocks = source.blocks(TARGET)
    keep = kept_bytes(source, blocks)
    expected = LocalExecutor(blocks).run(weighted_sum, 1.5)
    some = LocalExecutor([blocks[i] for i in (1, 2, 5)]).run(weighted_sum, 1.5)
    options = (
        {"client": request.getfixturevalue("client")}
        if where == "cluster"
        else {"n_threads": where}
    )
    with open_executor(blocks, keep=keep, **options) as executor:
        assert same(executor.run(weighted_sum, 1.5, blocks=[1, 2, 5]), some)
        n = executor.rows_read
        assert n == some.n_rows
        for _ in range(3):
            assert same(executor.run(weighted_sum, 1.5), expected)
            assert same(executor.run(weighted_sum, 1.5, blocks=[1, 2, 5]), some)
            assert executor.rows_read == N  # those of the first pass are not read again
        assert same(executor.run(weighted_sum, 1.5, afresh=True), expected)
        assert executor.rows_read == 2 * N
        assert same(executor.run(weighted_sum, 1.5), expected)
        assert executor.rows_read == 2 * N


@pytest.mark.parametrize("where", [1, "cluster"])
def test_all_or_nothing(where: Any, tmp_path: Path, request: Any, monkeypatch: Any) -> None:
    source = make("zarr", tmp_path)
    blocks = source.blocks(TARGET)
    keep = kept_bytes(source, blocks)
    monkeypatch.setattr("streamgmm.passes.memory_here", lambda: 8 * keep - 1)
    monkeypatch.setattr("streamgmm.passes.cluster.memory_of", lambda client: 8 * keep - 1)
    options = (
        {"client": request.getfixturevalue("client")}
        if where == "cluster"
        else {"n_threads": where}
    )
    with open_executor(blocks, keep=keep, **options) as executor:
        executor.run(weighted_sum, 1.5)
        executor.run(weighted_sum, 1.5)
        assert executor.rows_read == 2 * N


def test_workers_that_are_away_for_a_while_do_not_cost_all(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make("zarr", tmp_path)
    blocks = source.blocks(TARGET)
    keep = kept_bytes(source, blocks)
    there: list[Any] = []
    monkeypatch.setattr("streamgmm.passes.cluster.memory_of", lambda client: there[-1])
    with open_executor(blocks, keep=keep) as executor:
        # None are there yet; all; half of them; none; fewer than half.
        for memory, n_passes in (
            (None, 1), (8 * keep - 1, 2), (8 * keep, 3),
            (4 * keep, 3), (None, 3), (4 * keep - 1, 4),
        ):  # fmt: skip
            there.append(memory)
            executor.run(weighted_sum, 1.5)
            assert executor.rows_read == n_passes * N


def settled(scheduler: Any, n_tasks: int) -> bool:
    for _ in range(100):
        if len(scheduler.tasks) <= n_tasks:
            return True
        time.sleep(0.05)
    return False


def test_dask_knows_what_is_kept_and_lets_it_go(
    cluster: Any, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = cluster.scheduler
    assert settled(scheduler, 0)
    source = make("zarr, both", tmp_path)
    blocks = source.blocks(TARGET)
    keep = kept_bytes(source, blocks)
    with open_executor(blocks, keep=keep) as executor:
        for _ in range(3):
            executor.run(weighted_sum, 1.0)
        assert settled(scheduler, len(blocks) + 4)
        sizes = [t.nbytes for k, t in scheduler.tasks.items() if "streamgmm-keep" in str(k)]
        assert sum(sizes) >= keep
        assert executor.rows_read == N
        # As when workers have left, and those that stay have no room for all.
        with monkeypatch.context() as patch:
            patch.setattr("streamgmm.passes.cluster.memory_of", lambda client: 0)
            executor.run(weighted_sum, 1.0)
        assert executor.rows_read == 2 * N
        assert settled(scheduler, 4)
        executor.run(weighted_sum, 1.0)
        executor.run(weighted_sum, 1.0)
        assert executor.rows_read == 3 * N
    assert settled(scheduler, 0)
    assert not client.futures


@pytest.mark.parametrize("kind", ["zarr", "zarr and weights", "dask"])
def test_a_worker_that_keeps_rows_is_killed(kind: str, client: Any, tmp_path: Path) -> None:
    source = make(kind, tmp_path)
    blocks = source.blocks(TARGET)
    expected = LocalExecutor(blocks).run(weighted_sum, 1.0)
    with open_executor(blocks, keep=kept_bytes(source, blocks)) as executor:
        first = executor.run(die_once, str(tmp_path / "first"))
        assert (tmp_path / "first").exists()
        assert same(first, expected)
        for _ in range(2):
            assert same(executor.run(weighted_sum, 1.0), expected)
        assert same(executor.run(die_once, str(tmp_path / "later")), expected)
        assert (tmp_path / "later").exists()
        os.kill(min(client.run(os.getpid).values()), signal.SIGKILL)  # between two passes
        assert same(executor.run(weighted_sum, 1.0), expected)


@pytest.mark.parametrize("kind", ["zarr and weights", "dask"])
def test_a_worker_is_lost_while_a_graph_is_taken_in(
    kind: str, cluster: Any, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler orders a graph, and meanwhile what it refers to is lost."""
    source = make(kind, tmp_path)
    blocks = source.blocks(TARGET)
    expected = LocalExecutor(blocks).run(weighted_sum, 1.0)
    workers = cluster.scheduler.workers
    there = set(workers)
    pids = client.run(os.getpid)
    kills = [pids[min(there)]]

    async def late(func: Any, *args: Any, **given: Any) -> Any:
        value = await offload(func, *args, **given)
        if func is dask.order.order and kills:
            os.kill(kills.pop(), signal.SIGKILL)
            while there <= set(workers):
                await asyncio.sleep(0.01)
        return value

    with open_executor(blocks, keep=kept_bytes(source, blocks)) as executor:
        assert same(executor.run(weighted_sum, 1.0), expected)
        monkeypatch.setattr("distributed.scheduler.offload", late)
        assert same(executor.run(weighted_sum, 1.0), expected)
        assert not kills


def test_errors_come_as_they_were(client: Any, tmp_path: Path) -> None:
    source = make("zarr", tmp_path)
    blocks = source.blocks(TARGET)
    with open_executor(blocks, keep=kept_bytes(source, blocks)) as executor:
        for _ in range(2):
            with pytest.raises(ValueError, match=r"^row 1000 is bad$"):
                executor.run(fail_at, 1000)
        assert same(executor.run(weighted_sum, 1.0), LocalExecutor(blocks).run(weighted_sum, 1.0))
        with pytest.raises(WorkerLostError, match=r"lost 4 times that had the block of rows \d+:"):
            executor.run(die_always, 0)


def find_bad(name: str, block: Block) -> Sum:
    for piece in block.pieces():
        check_finite(piece, name)
    return Sum(block.n_rows, np.zeros(()))


def test_a_bad_chunk_is_named_by_the_pass_that_meets_it(client: Any, tmp_path: Path) -> None:
    path = stored(tmp_path)
    (Path(path) / "c/7/0").write_bytes(b"no chunk of anything")
    source = open_source(path)
    blocks = source.blocks(TARGET)
    keep = kept_bytes(source, blocks)
    for options in ({"n_threads": 2}, {"client": client}):
        with (
            open_executor(blocks, keep=keep, **options) as executor,
            pytest.raises(ChunkError, match=r"chunk 'c/7/0' \(rows 700:800\)"),
        ):
            executor.run(find_bad, "X")


@pytest.mark.parametrize("algorithm", ["em", "incremental"])
@pytest.mark.parametrize("kind", READ)
def test_fits_have_the_same_bits(kind: str, algorithm: str, client: Any, tmp_path: Path) -> None:
    source = make(kind, tmp_path)
    expected = run(source, algorithm=algorithm, cache=None, n_threads=1)
    bytes_each = expected.history["bytes"] / expected.history["passes"]
    np.testing.assert_array_equal(bytes_each, X.nbytes)
    for where in ({"n_threads": 1}, {"n_threads": 3}, {"client": client}):
        kept = run(source, algorithm=algorithm, **where)
        same_fit(kept, expected)
        np.testing.assert_array_equal(kept.history["bytes"], X.nbytes)


def test_a_fit_whose_worker_is_killed(client: Any, tmp_path: Path) -> None:
    path = stored(tmp_path)
    expected = run(path, tol=0, cache=None, n_threads=1)
    killed: list[int] = []

    def kill(progress: Any) -> None:
        if progress.iteration == 3 and not killed:
            killed.append(min(client.run(os.getpid).values()))
            os.kill(killed[0], signal.SIGKILL)

    same_fit(run(path, tol=0, client=client, on_progress=kill), expected)
    assert killed


@pytest.mark.parametrize("algorithm", ["em", "incremental"])
def test_chunks_are_skipped(algorithm: str, client: Any, tmp_path: Path) -> None:
    path = stored(tmp_path)
    for i in (0, 7, 8, 39):
        (Path(path) / f"c/{i}/0").write_bytes(b"no chunk of anything")
    settings = {"algorithm": algorithm, "on_bad_chunk": "skip", "tol": 0}
    with pytest.warns(StreamGMMWarning, match="400 rows"):
        expected = run(path, cache=None, n_threads=1, **settings)
    read = []
    for where in ({"n_threads": 1}, {"n_threads": 2}, {"client": client}):
        with pytest.warns(StreamGMMWarning, match="400 rows"):
            kept = run(path, **settings, **where)
        same_fit(kept, expected)
        read.append(kept.history["bytes"].tolist())
    assert read[0] == read[1] == read[2]
    assert X.nbytes < read[0][-1] < expected.history["bytes"][-1] / 2  # whole blocks are kept


def test_a_checkpoint_does_not_mind(tmp_path: Path) -> None:
    path = stored(tmp_path)
    expected = run(path, cache=None, max_iter=8, tol=0, n_threads=1)
    for max_iter, cache in ((2, "auto"), (4, None), (6, "auto"), (8, "auto")):
        given = {"max_iter": max_iter, "cache": cache, "checkpoint": tmp_path / "run.zarr"}
        result = run(path, tol=0, n_threads=1, **given)
    same_fit(result, expected)
    # Read: pass 0 and, without a cache, 2 iterations. What a job reads again of what another one
    # kept is not counted: the history is that of a fit that nothing ended.
    np.testing.assert_array_equal(result.history["bytes"] / X.nbytes, [1, 1, 2, 3, 3, 3, 3, 3])


@pytest.mark.parametrize("where", ["here", "cluster"])
def test_data_that_change_are_noticed(where: str, tmp_path: Path, request: Any) -> None:
    path = stored(tmp_path)
    options: dict[str, Any] = {"n_threads": 2}
    if where == "cluster":
        options = {"client": request.getfixturevalue("client")}
    array = zarr.open_array(path)

    def meddle(progress: Any) -> None:
        if progress.iteration == 2:
            array[1200:1300] = X[1200:1300] + 0.5

    with pytest.raises(DataError, match=r"x\.zarr' changed while it was being fitted"):
        run(path, on_progress=meddle, **options)


def test_rows_that_were_appended(tmp_path: Path) -> None:
    array = zarr.open_array(stored(tmp_path))
    grown = {}
    for cache in ("auto", None):
        array.resize((3000, 3))
        model = GaussianMixture(
            2, algorithm="incremental", block_size=TARGET, warm_start=True, random_state=0,
            tol=1e-6, cache=cache,
        ).fit(array)  # fmt: skip
        array.append(X[3000:])
        grown[cache] = model.fit(array)
    assert grown["auto"].means_.tobytes() == grown[None].means_.tobytes()
    read, rows = grown["auto"].history_["bytes"] / 24, grown["auto"].history_["rows"]
    assert read[0] <= 1000
    assert read[-1] <= N < rows[-1]


def test_select(tmp_path: Path) -> None:
    path = stored(tmp_path)
    kept, read = (select(path, (1, 2, 3), random_state=0, cache=c) for c in ("auto", None))
    for name, column in read.table.items():
        assert column.tobytes() == kept.table[name].tobytes()
    assert kept.best.history_["bytes"][-1] == X.nbytes < read.best.history_["bytes"][-1]
    with pytest.raises(ParameterError, match="cache='much' must be 'auto' or None"):
        select(path, cache="much")
    with pytest.raises(ValueError, match="'cache' parameter"):
        GaussianMixture(cache="much").fit(X)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = stored(tmp_path)
    said = []
    for option in ("--cache", "--no-cache"):
        out = str(tmp_path / f"m{option}.zarr")
        command = ["fit", path, "-k", "2", "--seed", "0", "--out", out, "--json", "-q", option]
        assert main(command) == 0
        said.append(capsys.readouterr().out.split('"converged"')[1])
        assert main(["select", path, "-k", "1,2", "--seed", "0", "--json", "-q", option]) == 0
        capsys.readouterr()
    assert said[0] == said[1]


def test_a_plan_counts_what_is_kept(tmp_path: Path) -> None:
    rates = Rates(read=1e-8, decode=1e-7, compute=4e-7, merge=4e-5)
    source = open_source(stored(tmp_path))
    kept, read = (plan(source, 2, rates=rates, cache=cache) for cache in ("auto", None))
    assert kept.kept_bytes == kept.worker_peak - read.worker_peak == X.nbytes
    assert read.kept_bytes == 0
    assert "the first pass and the last read" in kept.render()
    assert "kept" not in read.render()
    many = {"workers": 8, "rates": rates}
    assert plan(source, 2, **many).kept_bytes == 0  # of their memory nothing is known
    there = plan(source, 2, worker_memory="1GiB", **many)
    assert there.kept_bytes == X.nbytes
    assert there.worker_peak == plan(source, 2, **many).worker_peak + X.nbytes // 4
    assert GaussianMixture(2, cache=None).plan(source, workers=8, rates=rates).kept_bytes == 0
    big = str(tmp_path / "big.zarr")
    zarr.create_array(big, shape=(1 << 30, 4), chunks=(1 << 16, 4), dtype="f8")
    source = open_source(big)
    assert plan(source, 2, worker_memory="8GiB", **many).kept_bytes == 0
    assert plan(source, 2, worker_memory="32GiB", **many).kept_bytes == 32 << 30
