"""Sets on a cluster without a checkpoint: those of threads to the bit, whatever workers die."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr

from streamgmm import GaussianMixture
from streamgmm.errors import PlanError, StreamGMMWarning
from streamgmm.fitting import sets
from streamgmm.fitting.fit import fit
from streamgmm.fitting.settings import FitSettings
from streamgmm.model.families import Gaussian
from streamgmm.passes import graph
from streamgmm.sources import open_source

K, N, D, READS = 30, 9600, 4, 5
BLOCK = N // 8 * D * 8
KINDS = ["zarr", "zarr, cached", "dask", "numpy"]
pytestmark = pytest.mark.filterwarnings("ignore:Best performing initialization did not converge")


def rows() -> Any:
    rng = np.random.default_rng(0)
    means = 2 * rng.normal(size=(K, D))
    return means[rng.integers(0, K, N)] + 0.5 * rng.normal(size=(N, D))


X = rows()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("rows") / "x.zarr")
    zarr.create_array(path, data=X, chunks=(N // 16, D))
    return path


def run(data: Any, kind: str = "diag", cache: Any = None, **given: Any) -> Any:
    where = {name: given.pop(name) for name in {"client", "n_threads", "on_progress"} & set(given)}
    how: dict[str, Any] = {"tol": 0, "max_iter": READS, "block_size": BLOCK, "cache": cache}
    settings = FitSettings(K, Gaussian(kind, truncation=3), **how | given)
    return fit(open_source(data), settings, np.random.RandomState(0), **where)


def data_of(kind: str, path: str) -> dict[str, Any]:
    data = {"zarr": path, "zarr, cached": path, "dask": da.from_zarr(path), "numpy": X}[kind]
    return {"data": data, "cache": "auto" if kind == "zarr, cached" else None}


def same(a: Any, b: Any) -> None:
    assert a.mixture.weights.tobytes() == b.mixture.weights.tobytes()
    for name, values in a.mixture.components.arrays().items():
        assert values.tobytes() == b.mixture.components.arrays()[name].tobytes(), name
    for name in ("free_energy", "log_likelihood", "kl_of_sets", "kl_error", "agreement"):
        np.testing.assert_array_equal(a.history[name], b.history[name], err_msg=name)


@pytest.fixture(scope="module")
def expected(path: str) -> Any:
    """By kind of rows, which are cut where the chunks of that kind are."""
    found = {kind: run(**data_of(kind, path), n_threads=1) for kind in ("zarr", "dask")}
    return {kind: found.get(kind, found["zarr"]) for kind in KINDS}


def kill(cluster: Any, n_workers: int) -> int:
    """Kill workers, of those that are there; how many."""
    killed = 0
    for nanny in cluster.workers.values():
        if nanny.pid and killed < n_workers:
            with suppress(ProcessLookupError):  # one that is being replaced
                os.kill(nanny.pid, signal.SIGKILL)
                killed += 1
    return killed


class Killer:
    """Kills workers in the middle of reads: of read t, once so many blocks are done."""

    def __init__(self, cluster: Any, when: list[tuple[int, int, int]]) -> None:
        self.cluster, self.when = cluster, list(when)

    def __call__(self, progress: Any) -> None:
        blocks = progress.rows * 8 // N
        if progress.stage != "em" or progress.finished or not self.when:
            return
        read, least, n_workers = self.when[0]
        if progress.iteration == read and blocks >= least and kill(self.cluster, n_workers):
            self.when.pop(0)


WHEN = {
    "in the search": [(1, 2, 1)],
    "in the second read": [(2, 1, 1)],
    "in the last read": [(READS, 5, 1)],
    "all workers": [(3, 3, 2)],
    "two in one read": [(4, 1, 1), (4, 5, 1)],
    "in two reads": [(2, 4, 1), (4, 2, 1)],
}


@pytest.mark.parametrize(
    ("kind", "when"),
    [(kind, when) for kind in ("zarr", "numpy") for when in WHEN]
    + [
        (kind, when)
        for kind in ("zarr, cached", "dask")
        for when in ("all workers", "in two reads")
    ],
)
def test_workers_that_are_killed_in_the_middle_of_reads(
    kind: str, when: str, cluster: Any, client: Any, path: str, expected: Any
) -> None:
    killer = Killer(cluster, WHEN[when])
    same(run(**data_of(kind, path), client=client, on_progress=killer), expected[kind])
    assert not killer.when


@pytest.mark.parametrize("n_workers", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_workers_that_are_killed_between_reads(
    kind: str, n_workers: int, cluster: Any, client: Any, path: str, expected: Any
) -> None:
    killed = []

    def between(progress: Any) -> None:
        if progress.stage == "em" and progress.iteration in {1, 3} and progress.lower_bound < 0:
            killed.append(kill(cluster, n_workers))

    same(run(**data_of(kind, path), client=client, on_progress=between), expected[kind])
    assert sum(killed) >= 2


@pytest.mark.parametrize("kind", KINDS)
def test_workers_of_which_nobody_is_killed(
    kind: str, cluster: Any, client: Any, path: str, expected: Any
) -> None:
    same(run(**data_of(kind, path), client=client), expected[kind])
    for _ in range(100):
        if not cluster.scheduler.tasks:
            break
        time.sleep(0.05)
    assert not cluster.scheduler.tasks  # nothing stays behind
    assert not client.futures


@pytest.mark.parametrize("kind", ["full", "tied", "spherical"])
def test_other_covariances(kind: str, cluster: Any, client: Any, path: str) -> None:
    killer = Killer(cluster, [(3, 2, 1)])
    found = run(path, kind, client=client, on_progress=killer)
    same(found, run(path, kind, n_threads=2))


def test_climbs_that_share_reads(cluster: Any, client: Any, path: str) -> None:
    killer = Killer(cluster, [(3, 2, 1)])
    found = run(path, n_init=2, client=client, on_progress=killer)
    same(found, run(path, n_init=2, n_threads=1))


def test_components_that_are_retired(cluster: Any, client: Any, path: str) -> None:
    """Then there are fewer, and sets of the read before are searched anew."""
    far = np.vstack([X[:: N // K][: K - 1], np.full(D, 1e4)])
    how = {"given": {"means": far}, "empty_components": "retire"}
    killer = Killer(cluster, [(4, 2, 1)])
    with pytest.warns(StreamGMMWarning, match="retired"):
        found = run(path, client=client, on_progress=killer, **how)
    with pytest.warns(StreamGMMWarning, match="retired"):
        alone = run(path, n_threads=1, **how)
    assert found.mixture.n_components < K
    same(found, alone)


@pytest.mark.parametrize("n", [1, 8])
def test_tasks_of_several_blocks(
    n: int, cluster: Any, client: Any, path: str, monkeypatch: pytest.MonkeyPatch, expected: Any
) -> None:
    """As where there are many for each worker; how many may change from read to read."""
    sizes = iter([8, n] * READS)
    monkeypatch.setattr(graph, "blocks_in_task", lambda *given: next(sizes))
    killer = Killer(cluster, [(3, 1, 1)])
    same(run(path, client=client, on_progress=killer), expected["zarr"])


def test_a_set_takes_its_bytes_and_no_more(client: Any, cluster: Any, path: str) -> None:
    """Dask knows what they cost, and statistics do not stay with them."""
    found = []

    def look(progress: Any) -> None:
        if progress.stage == "em" and progress.iteration == 3 and progress.rows < N:
            tasks = list(cluster.scheduler.tasks.items())
            left = [t for key, t in tasks if "-left-" in str(key) and t.state == "memory"]
            found.append([t.nbytes for t in left if t.nbytes > 64])

    run(path, client=client, on_progress=look)
    each = N // 8 * 3 * 2
    assert all(each <= n < each + 1000 for sizes in found for n in sizes)
    assert max(map(len, found)) <= 2 * 8  # of two reads


def test_at_the_face(client: Any, path: str) -> None:
    how = {"covariance_type": "diag", "truncation": 3, "random_state": 0, "max_iter": 3}
    model = GaussianMixture(K, **how).fit(path)
    alone = GaussianMixture(K, n_jobs=1, **how).fit(path)
    assert model.means_.tobytes() == alone.means_.tobytes()


def test_what_workers_cannot_hold_is_refused(
    client: Any, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_bytes = 2 * N * 3 * 2
    monkeypatch.setattr(sets, "memory_of", lambda client: 4 * n_bytes - 4)
    with pytest.raises(PlanError, match=r"take 112 KiB on the workers.*checkpoint=.*workers$"):
        run(path, client=client)
    monkeypatch.setattr(sets, "memory_of", lambda client: 4 * n_bytes)
    run(path, client=client)
    monkeypatch.setattr(sets, "memory_of", lambda client: None)  # they are still to come
    run(path, client=client)


def test_what_a_scheduler_cannot_keep_is_refused(
    client: Any, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sets, "memory_here", lambda: 1 << 20)
    with pytest.raises(PlanError, match=r"5 reads begin with.*checkpoint=.*, or max_iter=2$"):
        run(path, client=client)
    monkeypatch.setattr(sets, "memory_here", lambda: 1 << 10)
    with pytest.raises(PlanError, match=r"5 reads begin with.*all workers can reach$"):
        run(path, client=client)
    monkeypatch.setattr(sets, "memory_here", lambda: 0)  # nothing is known
    run(path, client=client)
