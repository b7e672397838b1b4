"""How long a pass takes on a cluster of any size, from rates measured on this machine.

A scheduler starts tasks one after another. Workers read and compute. A tree merges the results.
One store serves all readers. `project` adds up the time that each of these needs, and says which
is the bottleneck. `play` is a discrete-event simulation of every task, and checks those sums.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace

from streamgmm.passes import tree_levels

TASK_SECONDS = 1.2e-3
"""Processor time of Dask's scheduler and the client for a task of a pass, measured.

1,000 blocks that do nothing, of which 1.14 tasks a block are made (blocks and merges): 1.9 ms
of wall clock a block where workers share two processors with the scheduler, and 1.0 to 1.2 ms
of the scheduler's own time. Run ``python -m benchmarks.pass_overhead --only dask`` for yours.
"""

WORKER_TASK_SECONDS = 1.6e-3
"""Processor time of a worker for a task beyond what the task does, measured likewise."""

PASS_SECONDS = 3e-2
"""From asking for a pass to its first task, and from its last to the answer, measured."""

LATENCY_SECONDS = 5e-3
"""From the end of a task to the start of one that depends on it, on another worker."""

NETWORK_BYTES = 1e9
"""Bytes a second between two processes of a cluster (ten-gigabit Ethernet, less its costs)."""


@dataclass(frozen=True)
class Rates:
    """Times of one processor, in seconds.

    Attributes
    ----------
    read, decode, compute : float
        Seconds a row: bytes from the store, rows from bytes, statistics from rows.
    merge : float
        Seconds to merge two results of a block.
    task, worker_task, latency : float
        Of Dask: see the constants of this module.
    network : float
        Bytes a second between processes.
    store : float
        Bytes a second that the store gives to all readers together; infinite by default.
    """

    read: float
    decode: float
    compute: float
    merge: float
    task: float = TASK_SECONDS
    worker_task: float = WORKER_TASK_SECONDS
    latency: float = LATENCY_SECONDS
    network: float = NETWORK_BYTES
    store: float = math.inf


@dataclass(frozen=True)
class Load:
    """A pass: `n_blocks` blocks of `n_rows` rows in all, `stored_bytes` of them in the store.

    `result_bytes` is the size of a block's result, and `model_bytes` of what is sent to every
    worker. A task reads `task_blocks` neighbouring blocks. It can compute once it has read
    `piece_rows` rows.
    """

    n_rows: float
    n_blocks: int
    stored_bytes: float
    result_bytes: float
    model_bytes: float
    split_every: int = 8
    task_blocks: int = 1
    piece_rows: float = 0.0

    @property
    def levels(self) -> list[int]:
        """Tasks that read, and those of each level of the tree above them."""
        return tree_levels(math.ceil(self.n_blocks / self.task_blocks), self.split_every)

    @property
    def n_tasks(self) -> int:
        """Tasks of a pass: the model, those that read and those that merge."""
        return 1 + sum(self.levels)


@dataclass(frozen=True)
class Projection:
    """Time of one pass, and its parts.

    Attributes
    ----------
    seconds : float
    read, decode, compute, merge, scheduling : float
        Parts of `seconds`, whose sum it is. Work that is hidden behind longer work at the same
        time counts as 0.
    limit : str
        ``"compute"``, ``"reading"``, ``"store"``, ``"scheduler"`` or ``"merge tree"``.
    needs : dict
        Seconds that each of these would take if all else were free.
    """

    seconds: float
    read: float
    decode: float
    compute: float
    merge: float
    scheduling: float
    limit: str
    needs: dict[str, float]


def project(
    load: Load, rates: Rates, n_workers: int, *, processors: float | None = None
) -> Projection:
    """Project one pass on workers of one thread each.

    Parameters
    ----------
    load : Load
    rates : Rates
    n_workers : int
        0 means threads of this process, one for each processor, without Dask.
    processors : float, optional
        Shared by workers and scheduler; by default one for each worker, and more for the
        scheduler. If processors are free, read-ahead runs while the current piece is computed.

    Returns
    -------
    Projection

    Examples
    --------
    >>> load = Load(1e9, 1000, 128e9, 40e3, 80e3)
    >>> rates = Rates(read=1e-9, decode=0.0, compute=3e-7, merge=1e-4)
    >>> project(load, rates, 10).limit, project(load, rates, 1000).limit
    ('compute', 'scheduler')
    """
    dask = n_workers > 0
    if not dask:
        n_workers = max(1, int(processors or 1))
    shared = processors is not None
    own = (processors or n_workers) / n_workers
    reading = rates.read + rates.decode
    # With a free processor, reading and computing overlap; without one their times add up.
    row = max(rates.compute, reading, (rates.compute + reading) / own)
    n_reads = load.levels[0]
    rounds = (
        math.ceil(n_reads / n_workers) if n_reads < 8 * n_workers else (n_reads / n_workers + 0.5)
    )
    task_rows = load.n_rows / n_reads
    overhead = rates.worker_task if dask else 0.0
    merges = (load.n_blocks * rates.merge + n_reads * overhead / load.split_every) / n_workers
    both = task_rows * (rates.compute + reading) / min(1.0, own)
    task = min(both, task_rows * row + load.piece_rows * min(reading, rates.compute))
    work = rounds * (task + overhead) + merges / min(1.0, own)
    scheduling = load.n_tasks * rates.task if dask else 0.0
    if shared:
        busy = load.n_rows * (rates.compute + reading)
        busy += load.n_blocks * rates.merge + n_reads * overhead
        work = max(work, (busy + scheduling) / (processors or 1.0))
    store = load.stored_bytes / rates.store
    depth = len(load.levels) - 1
    per_level = load.split_every * (rates.merge + load.result_bytes / rates.network)
    tree = depth * (per_level + rates.latency) if dask else 0.0
    spread = math.log2(n_workers + 1) * (load.model_bytes / rates.network + rates.latency)
    tail = tree + (PASS_SECONDS + spread if dask else 0.0)
    needs = {
        "compute": rounds * task_rows * rates.compute / min(1.0, own),
        "reading": rounds * task_rows * reading / min(1.0, own),
        "store": store,
        "scheduler": scheduling,
        "merge tree": tail + merges,
    }
    last = n_reads * rates.task + task if dask and not shared else 0.0
    seconds = max(work, scheduling, last, store) + tail
    return _split(seconds, work, rates, needs, tail + merges)


def _split(
    seconds: float, work: float, rates: Rates, needs: dict[str, float], merge: float
) -> Projection:
    """Divide the seconds among the parts of the critical path."""
    limit = max(needs, key=lambda name: needs[name])
    merge = min(merge, seconds)
    left = seconds - merge
    compute = min(needs["compute"], left)
    rest = left - compute
    waiting = (
        min(max(needs["store"], needs["reading"]), rest)
        if work < seconds
        else min(needs["reading"], rest)
    )
    reading = rates.read + rates.decode
    share = rates.decode / reading if reading and needs["store"] < needs["reading"] else 0.0
    return Projection(
        seconds,
        waiting * (1 - share),
        waiting * share,
        compute,
        merge,
        rest - waiting,
        limit,
        needs,
    )


def play(load: Load, rates: Rates, n_workers: int) -> float:
    """Simulate each task of one pass; give the seconds. A check of `project`.

    The scheduler starts one task after another, and takes back each result. A worker has one
    task waiting besides the one it runs. A merge starts when its last child is done.

    Parameters
    ----------
    load : Load
    rates : Rates
    n_workers : int
        Each with a processor of its own.

    Returns
    -------
    float
    """
    n_reads = load.levels[0]
    row = rates.compute + rates.read + rates.decode
    task = load.n_rows / n_reads * row + rates.worker_task
    task = max(task, load.stored_bytes / n_reads / rates.store * n_workers)
    start = math.log2(n_workers + 1) * (load.model_bytes / rates.network + rates.latency)
    scheduler = rates.task
    free = [PASS_SECONDS + start] * n_workers
    heapq.heapify(free)
    done = []
    for _ in range(n_reads):
        scheduler += rates.task
        done.append(max(heapq.heappop(free), scheduler) + task)
        heapq.heappush(free, done[-1])
    move = load.result_bytes / rates.network
    while len(done) > 1:
        parents = []
        for i in range(0, len(done), load.split_every):
            children = done[i : i + load.split_every]
            scheduler += rates.task
            spent = len(children) * (rates.merge + move) + rates.worker_task
            parents.append(max(children) + rates.latency + spent)
        done = parents
    # Merges of the lower levels run between blocks, and take time of the same workers.
    among = load.n_blocks * rates.merge / n_workers
    return max(done[0] + among, scheduler)


def scale(load: Load, n_rows: float, block_rows: float) -> Load:
    """The same kind of pass over `n_rows` rows in blocks of `block_rows`."""
    return replace(
        load,
        n_rows=n_rows,
        n_blocks=max(1, math.ceil(n_rows / block_rows)),
        stored_bytes=load.stored_bytes * n_rows / load.n_rows,
    )
