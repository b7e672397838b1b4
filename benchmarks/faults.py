"""Fits that are struck by faults, really: same bits, or a clear error and a usable checkpoint.

    python -m benchmarks.faults --runs 200 --seed 0

Processes are killed, frozen and doubled, disks filled, chunks corrupted, reads failed, at moments
drawn from the seed. Each fit is compared to one that nothing disturbed, bit by bit.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

import streamgmm.places.retry
from streamgmm.errors import CheckpointError, ChunkError, OutputError, SchedulerError
from streamgmm.fitting.fit import FitResult, FitSettings, fit
from streamgmm.sources import open_source
from streamgmm.storage.group import AtomicGroup

ROWS, FEATURES, CHUNK = 240_000, 4, 4_000
PATIENCE = 180.0  # seconds after which a run counts as hanging
SETTINGS = {
    "em": FitSettings(5, algorithm="em", tol=1e-5, block_size="128KiB", max_iter=25),
    "incremental": FitSettings(
        5, algorithm="incremental", tol=1e-5, block_size="128KiB", max_iter=25
    ),
}


class WrongError(Exception):
    """Something that must never happen."""


class HangError(BaseException):
    """A run that does not end."""


@dataclass
class Bench:
    """Where the data are, and what comes of undisturbed fits."""

    folder: Path
    random: np.random.Generator
    answers: dict[str, dict[str, str]]
    seconds: dict[str, float] = field(default_factory=dict)
    rows: int = ROWS
    n_workers: int = 2
    cluster: Any = None
    client: Any = None

    @property
    def data(self) -> str:
        """The array of rows."""
        return str(self.folder / "x.zarr")

    def fresh(self) -> str:
        """A new place for a checkpoint."""
        return tempfile.mkdtemp(dir=self.folder) + "/run.zarr"

    def check(self, how: str, result: FitResult) -> None:
        """Compare a fit with the undisturbed one; raises WrongError."""
        if result.n_rows != self.rows:
            raise WrongError(f"lost rows: {result.n_rows} of {self.rows}")
        found = digests(result)
        differ = [name for name, each in self.answers[how].items() if each != found[name]]
        if differ:
            raise WrongError(f"wrong bits ({how}): {', '.join(differ)}")


def digests(result: FitResult) -> dict[str, str]:
    """Of everything that a fit gives but the seconds that it took."""
    mixture = result.mixture
    found = {
        "weights": mixture.weights,
        "means": mixture.components.means,
        "covariances": mixture.components.covariances,
        "precisions_cholesky": mixture.components.precisions_cholesky,
        "lower_bounds": np.array(result.lower_bounds),
        "scatters": np.stack([group.components.scatter for group in result.seen.groups]),
        **{f"history {k}": v for k, v in result.history.items() if k != "seconds"},
    }
    return {
        name: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        for name, array in found.items()
    }


def make_data(path: Path, rows: int) -> None:
    random = np.random.default_rng(7)
    centres = random.normal(size=(6, FEATURES)) * 1.5
    X = centres[random.integers(6, size=rows)] + random.normal(size=(rows, FEATURES))
    zarr.create_array(str(path), data=X, chunks=(CHUNK, FEATURES))


def run_fit(data: Any, how: str, checkpoint: str | None = None, **options: Any) -> FitResult:
    settings = SETTINGS[how]
    state = np.random.RandomState(0)
    return fit(open_source(data), settings, state, checkpoint=checkpoint, **options)


def in_child(work: Callable[[], FitResult], out: str) -> int:
    """Start a process that fits and pickles what came of it; give its id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        try:
            value: Any = work()
        except Exception as error:
            value = error
        Path(out).write_bytes(pickle.dumps(value))
    finally:
        os._exit(0)


def wait_for(pid: int, out: str) -> Any:
    """What the child left: a result, an error, or None if it was killed."""
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return None
    return pickle.loads(Path(out).read_bytes())


def finish(bench: Bench, how: str, path: str) -> None:
    """Go on from a checkpoint to the end, in another process, and compare."""
    out = path + ".out"
    result = wait_for(in_child(lambda: run_fit(bench.data, how, path, n_threads=2), out), out)
    if isinstance(result, Exception):
        raise WrongError(f"the checkpoint was of no use: {result!r}")
    bench.check(how, result)


# Faults: each returns a word for what happened.


def job_killed(bench: Bench, how: str) -> str:
    """The process that fits is killed, up to three times, at any moment."""
    path, out = bench.fresh(), bench.fresh()
    kills = 0
    for _ in range(int(bench.random.integers(1, 4))):
        pid = in_child(lambda: run_fit(bench.data, how, path, n_threads=2), out)
        time.sleep(bench.random.uniform(0, 1.2 * bench.seconds[how]))
        os.kill(pid, signal.SIGKILL)
        kills += wait_for(pid, out) is None
    finish(bench, how, path)
    return "resumed" if kills else "undisturbed"


def killed_while_writing(bench: Bench, how: str) -> str:
    """The process is killed between two steps of writing a checkpoint."""
    path, out = bench.fresh(), bench.fresh()
    name = str(bench.random.choice(["commit", "write", "sync", "remove"]))
    nth, before = int(bench.random.integers(1, 12)), bool(bench.random.integers(2))
    real = getattr(AtomicGroup, name)

    def deadly(self: Any, *args: Any) -> Any:
        nonlocal nth
        nth -= 1
        if nth == 0 and before:
            os.kill(os.getpid(), signal.SIGKILL)
        value = real(self, *args)
        if nth == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    def work() -> FitResult:
        setattr(AtomicGroup, name, deadly)
        return run_fit(bench.data, how, path, n_threads=2)

    died = wait_for(in_child(work, out), out) is None
    finish(bench, how, path)
    return "resumed" if died else "undisturbed"


def disk_full(bench: Bench, how: str) -> str:
    """Files cannot grow beyond some size."""
    path, out = bench.fresh(), bench.fresh()
    size = int(bench.random.integers(600, 30_000))

    def work() -> FitResult:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        try:
            return run_fit(bench.data, how, path, n_threads=2)
        finally:
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )

    value = wait_for(in_child(work, out), out)
    if isinstance(value, Exception) and not isinstance(value, OutputError):
        raise WrongError(f"no clear error: {value!r}")
    finish(bench, how, path)
    return "error, resumed" if isinstance(value, Exception) else "undisturbed"


def two_jobs(bench: Bench, how: str) -> str:
    """A second job is given the checkpoint of one that runs."""
    path, outs = bench.fresh(), [bench.fresh(), bench.fresh()]
    pids = []
    for out in outs:
        pids.append(in_child(lambda: run_fit(bench.data, how, path, n_threads=1), out))
        time.sleep(bench.random.uniform(0, 0.3))
    values = [wait_for(pid, out) for pid, out in zip(pids, outs, strict=True)]
    refused = [v for v in values if isinstance(v, CheckpointError)]
    done = [v for v in values if isinstance(v, FitResult)]
    if len(refused) + len(done) != 2 or not done:
        raise WrongError(f"two jobs: {values!r}")
    for value in done:
        bench.check(how, value)
    finish(bench, how, path)
    return "one refused" if refused else "one after the other"


def flaky_reads(bench: Bench, how: str) -> str:
    """Each chunk fails up to twice before it can be read."""
    store = FlakyStore.around(bench.data, int(bench.random.integers(1 << 30)))
    bench.check(how, run_fit(zarr.open_array(store, mode="r"), how, n_threads=2))
    return "read again"


class FlakyStore(zarr.storage.WrapperStore[Any]):
    """A store in which reads of a chunk fail some times, and then work."""

    @classmethod
    def around(cls, path: str, seed: int) -> FlakyStore:
        """Open a directory; failures are drawn from the seed."""
        store = cls(zarr.storage.LocalStore(path, read_only=True))
        store.random, store.left = np.random.default_rng(seed), {}
        return store

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """Fail, or read."""
        if "c/" in key:
            left = self.left.setdefault(key, int(self.random.integers(3)))
            if left:
                self.left[key] -= 1
                raise ConnectionResetError("the storage hung up")
        return await super().get(key, prototype, byte_range)


def bad_chunks(bench: Bench, how: str) -> str:
    """Some chunks never decode: an error that names one, or a fit of the rest."""
    path = bench.fresh()
    shutil.copytree(bench.data, path)
    chosen = sorted(bench.random.choice(bench.rows // CHUNK, 3, replace=False).tolist())
    for i in chosen:
        Path(path, "c", str(i), "0").write_bytes(bench.random.bytes(100))
    settings = SETTINGS[how]
    state = np.random.RandomState(0)
    try:
        fit(open_source(path), settings, state)
    except ChunkError as error:
        if not any(f"c/{i}/0" in str(error) for i in chosen):
            raise WrongError(f"names no chunk: {error}") from error
    else:
        raise WrongError("a chunk that cannot be decoded was read")
    settings = replace(settings, on_bad_chunk="skip")
    found = []
    for n_threads in (1, 2):
        state = np.random.RandomState(0)
        result = fit(open_source(path), settings, state, n_threads=n_threads)
        found.append(digests(result))
        rows = {r for a, b in result.skipped for r in range(a // CHUNK, b // CHUNK)}
        if rows != set(chosen) or result.n_rows != bench.rows - 3 * CHUNK:
            raise WrongError(f"lost rows: {result.skipped}, {result.n_rows}")
    if found[0] != found[1]:
        raise WrongError("wrong bits")
    return "named, skipped"


def on_cluster(bench: Bench, how: str, strike: Callable[[], None], times: int = 1) -> str:
    """Fit on the cluster while faults strike; say whether one did."""
    stop = threading.Event()
    struck: list[float] = []
    rest = [bench.random.uniform(0, 2 * bench.seconds[how]) for _ in range(times)]

    def later() -> None:
        for seconds in rest:
            if stop.wait(seconds):
                return
            struck.append(seconds)
            strike()

    def supervise() -> None:
        """Start workers in the place of those that died while they started, as managers do."""
        while not stop.wait(1.0):
            bench.cluster.scale(bench.n_workers)

    bench.n_workers = 2
    threads = [threading.Thread(target=work, daemon=True) for work in (later, supervise)]
    for thread in threads:
        thread.start()
    try:
        bench.check(how, run_fit(bench.data, how, client=bench.client))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return "same bits" if struck else "undisturbed"


def pids(bench: Bench) -> list[int]:
    found = [nanny.pid for nanny in bench.cluster.workers.values() if nanny.pid]
    return [int(pid) for pid in found]


def strike_pid(bench: Bench, how: signal.Signals, everyone: bool = False) -> None:
    alive = pids(bench)
    if alive and not everyone:
        alive = [alive[int(bench.random.integers(len(alive)))]]
    for pid in alive:
        try:
            os.kill(pid, how)
        except ProcessLookupError:
            continue


def worker_killed(bench: Bench, how: str) -> str:
    """A worker is killed, up to three times."""
    times = int(bench.random.integers(1, 4))
    said = on_cluster(bench, how, lambda: strike_pid(bench, signal.SIGKILL), times)
    return said


def all_workers_killed(bench: Bench, how: str) -> str:
    """All workers are lost at once, and replaced."""
    said = on_cluster(bench, how, lambda: strike_pid(bench, signal.SIGKILL, everyone=True))
    return said


def worker_frozen(bench: Bench, how: str) -> str:
    """A worker hangs; the scheduler gives it up after its time to live."""
    said = on_cluster(bench, how, lambda: strike_pid(bench, signal.SIGSTOP))
    for pid in pids(bench):
        os.kill(pid, signal.SIGCONT)
    return said


def worker_joins(bench: Bench, how: str) -> str:
    """A worker joins in the middle, and leaves again."""
    said = on_cluster(bench, how, lambda: setattr(bench, "n_workers", 3))
    bench.cluster.scale(2)
    return said


def scheduler_lost(bench: Bench, how: str) -> str:
    """The scheduler is killed; the fit goes on from its checkpoint, in this process."""
    from distributed import Client

    path = bench.fresh()
    found = Path(path + ".json")
    command = [sys.executable, "-m"]
    options = ["--scheduler-file", str(found), "--no-dashboard"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [
        subprocess.Popen(
            [*command, "distributed.cli.dask_scheduler", *options, "--port", "0"], **quiet
        ),
        subprocess.Popen(
            [*command, "distributed.cli.dask_worker", *options, "--nthreads", "2"], **quiet
        ),
    ]
    said = "undisturbed"
    try:
        with Client(scheduler_file=str(found), timeout=60, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
            seconds = bench.random.uniform(0, 2 * bench.seconds[how])
            timer = threading.Timer(seconds, processes[0].kill)
            timer.start()
            try:
                bench.check(how, run_fit(bench.data, how, path, client=client))
            except SchedulerError:
                said = "error, resumed"
            timer.cancel()
            for process in processes:
                process.kill()
        bench.check(how, run_fit(bench.data, how, path, n_threads=2))
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return said


LOCAL = [job_killed, killed_while_writing, disk_full, two_jobs, flaky_reads, bad_chunks]
CLUSTER = [worker_killed, all_workers_killed, worker_frozen, worker_joins, scheduler_lost]
WEIGHTS = {
    job_killed: 10,
    killed_while_writing: 10,
    disk_full: 6,
    two_jobs: 6,
    flaky_reads: 4,
    bad_chunks: 4,
    worker_killed: 3,
    worker_joins: 2,
}


def deal(runs: int, seed: int, which: str) -> list[tuple[Any, str, int]]:
    """Which fault strikes which fit, with the seed of its own; local ones come first."""
    kinds = LOCAL * (which != "cluster") + CLUSTER * (which != "local")
    random = np.random.default_rng(seed)
    share = np.array([WEIGHTS.get(kind, 1) for kind in kinds], float)
    chosen = list(random.choice(len(kinds), runs, p=share / share.sum()))
    chosen[: len(kinds)] = range(min(len(kinds), runs))  # every kind at least once
    dealt = [
        (kinds[i], str(random.choice(sorted(SETTINGS))), int(random.integers(1 << 30)))
        for i in chosen
    ]
    return sorted(dealt, key=lambda run: kinds.index(run[0]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--only", choices=["local", "cluster"], default="")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    logging.getLogger("streamgmm").setLevel(logging.CRITICAL)
    streamgmm.places.retry.RETRY_SECONDS = (0.001, 0.002, 0.005)
    signal.signal(signal.SIGALRM, _alarm)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), np.random.default_rng(options.seed), {})
        bench.rows = options.rows // CHUNK * CHUNK
        make_data(Path(bench.data), bench.rows)
        for how in SETTINGS:
            run_fit(bench.data, how, n_threads=1)  # compile
            began = time.perf_counter()
            bench.answers[how] = digests(run_fit(bench.data, how, n_threads=1))
            bench.seconds[how] = time.perf_counter() - began
        table: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(int))
        for kind, how, seed in deal(options.runs, options.seed, options.only):
            bench.random = np.random.default_rng(seed)
            if kind in CLUSTER and kind is not scheduler_lost and bench.cluster is None:
                _start_cluster(bench)
            began = time.perf_counter()
            said, problem = _one(bench, kind, how)
            row = table[kind.__name__.replace("_", " ")]
            row["runs"] += 1
            row["seconds"] += round(time.perf_counter() - began, 3)
            row[problem or "well"] += 1
            if said != "undisturbed" and not problem:
                row["struck"] += 1
            if options.verbose or problem:
                print(f"{kind.__name__} {how} {seed}: {said}", flush=True)
        if bench.cluster is not None:
            bench.client.close()
            bench.cluster.close()
    return _print(table)


def _one(bench: Bench, kind: Any, how: str) -> tuple[str, str]:
    """Run one; give what happened, and the kind of failure."""
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        return kind(bench, how), ""
    except HangError:
        return "hangs", "hangs"
    except WrongError as error:
        said = str(error)
        return said, "lost rows" if said.startswith("lost rows") else "wrong bits"
    except Exception as error:
        return repr(error), "other errors"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _alarm(*_: Any) -> None:
    raise HangError


def _start_cluster(bench: Bench) -> None:
    import dask
    from distributed import Client, LocalCluster

    dask.config.set(
        {
            "distributed.scheduler.worker-ttl": "5s",
            "distributed.scheduler.allowed-failures": 10,
            "distributed.deploy.lost-worker-timeout": "3s",
            "streamgmm.stall-timeout": "60s",
        }
    )
    bench.cluster = LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=":0",
        silence_logs=logging.CRITICAL,
    )
    bench.client = Client(bench.cluster, set_as_default=False)
    bench.client.wait_for_workers(2, timeout=120)


def _print(table: dict[str, dict[str, float]]) -> int:
    columns = ["runs", "struck", "well", "wrong bits", "lost rows", "hangs", "other errors"]
    total: dict[str, float] = defaultdict(int)
    print(f"| fault | {' | '.join(columns)} | seconds a run |")
    print("|---|" + "---:|" * (len(columns) + 1))
    for name, row in table.items():
        cells = [f"{row[column]:g}" for column in columns]
        print(f"| {name} | {' | '.join(cells)} | {row['seconds'] / row['runs']:.1f} |")
        for column in (*columns, "seconds"):
            total[column] += row[column]
    cells = [f"{total[column]:g}" for column in columns]
    print(f"| all | {' | '.join(cells)} | {total['seconds'] / max(1, total['runs']):.1f} |")
    return int(total["well"] != total["runs"])


if __name__ == "__main__":
    sys.exit(main())
