"""Plan before work: what a fit will read, hold and take, from a short trial on this machine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from streamgmm.errors import ParameterError, PlanError
from streamgmm.fitting.sample import plan_sample
from streamgmm.model.families import FAMILIES
from streamgmm.passes import blocks_in_task, default_threads, workers_there
from streamgmm.passes.memory import may_keep, memory_here
from streamgmm.planning.calibrate import calibrate
from streamgmm.planning.simulate import Load, Projection, Rates, project
from streamgmm.sources import PIECE_BYTES, Source, kept_bytes, parse_block_size

MIB = 1 << 20

WORKER_BYTES = 300 * MIB
"""A worker before its first row: Python, Dask, Numba and what they compiled (measured: 279)."""

RESULTS_HELD = 24
"""Results of a block, or models, that a worker holds at the worst: those of a merge with its
children, those that wait for a neighbour, the model as sent and as used (measured: 20)."""

SAMPLES_HELD = 5
"""Copies of the sample of pass 0 on the worker that merges the last parts of it."""

USABLE = 0.8
"""The share of a worker's memory beyond which Dask pauses it."""

HOPELESS = 0.95
"""The share beyond which Dask ends it: fits that nobody planned are refused from here on."""


@dataclass(frozen=True)
class Plan:
    """What a fit will read, hold and take.

    Attributes
    ----------
    name : str
        The data.
    n_rows, n_features, n_components, n_candidates : int
    covariance_type : str
    n_bytes, stored_bytes : int
        Of all rows as they are computed on; and in the store, estimated from what was read.
    n_blocks, block_bytes, n_tasks : int
        Of a full pass: blocks, bytes of rows in the largest, and tasks that Dask is given.
    result_bytes : int
        What a block sends: the statistics of all candidates.
    n_workers : int
        0 where the passes run on threads of this process.
    worker_memory : int
        Bytes that a worker has; 0 where that is not known.
    worker_peak, client_peak : int
        Bytes, projected; `worker_peak` is that of the one process where there are no workers.
    kept_bytes : int
        Of all rows, where they are kept decoded, so that only the first pass and the last read;
        0 where every pass reads. A worker's part is in its peak.
    rates : Rates
    projection : Projection
        Of one full pass that reads, seconds.
    later : Projection
        Of one full pass over rows that are kept; where none are, the same.
    advice : tuple of str
    """

    name: str
    n_rows: int
    n_features: int
    n_components: int
    n_candidates: int
    covariance_type: str
    n_bytes: int
    stored_bytes: int
    n_blocks: int
    block_bytes: int
    n_tasks: int
    result_bytes: int
    n_workers: int
    worker_memory: int
    worker_peak: int
    client_peak: int
    rates: Rates
    projection: Projection
    later: Projection
    advice: tuple[str, ...] = ()
    kept_bytes: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values; what is infinite as None."""
        found = asdict(self)
        found["rates"] = {k: v if math.isfinite(v) else None for k, v in found["rates"].items()}
        found["advice"] = list(self.advice)
        return found

    def render(self) -> str:
        """Everything as a few lines of text."""
        p = self.projection
        where = f"{self.n_workers:,} workers" if self.n_workers else "threads of this process"
        memory = f" of {_size(self.worker_memory)}" if self.worker_memory else ""
        candidates = f" × {self.n_candidates} candidates" if self.n_candidates > 1 else ""
        parts = [
            f"{name} {_seconds(value)}"
            for name, value in (
                ("compute", p.compute),
                ("read", p.read),
                ("decode", p.decode),
                ("merge and send", p.merge),
                ("scheduling", p.scheduling),
            )
        ]
        lines = [
            f"data       {self.name}: {self.n_rows:,} rows × {self.n_features}, "
            f"{_size(self.n_bytes)} ({_size(self.stored_bytes)} stored)",
            f"model      {self.n_components} components, {self.covariance_type}{candidates}; "
            f"statistics of a block {_size(self.result_bytes)}",
            f"a pass     {self.n_blocks:,} blocks of up to {_size(self.block_bytes)}, "
            f"{self.n_tasks:,} tasks, on {where}",
            f"memory     {_size(self.worker_peak)} at most a "
            f"{'worker' if self.n_workers else 'process'}{memory}; "
            f"{_size(self.client_peak)} in the client",
            f"a pass     {_seconds(p.seconds)}: {', '.join(parts)}",
            f"limit      {p.limit}",
        ]
        if self.kept_bytes:
            lines.insert(
                -1,
                f"kept       {_size(self.kept_bytes)}: the first pass and the last read, "
                f"those between take {_seconds(self.later.seconds)}",
            )
        return "\n".join(lines + [f"advice     {line}" for line in self.advice])

    def __str__(self) -> str:
        """As `render`."""
        return self.render()


def plan(
    source: Source,
    n_components: int,
    covariance_type: str = "full",
    *,
    workers: int | None = None,
    worker_memory: int | str | None = None,
    processors: float | None = None,
    block_size: int | str = "auto",
    n_candidates: int = 2,
    algorithm: str = "auto",
    store_bandwidth: int | str | None = None,
    rates: Rates | None = None,
    check: bool = True,
    cache: str | None = "auto",
) -> Plan:
    """Plan a fit: what it will read, hold and take.

    Reads a few pieces of the data and computes on them, about a second, unless `rates` are
    given.

    Parameters
    ----------
    source : Source
    n_components : int
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
    workers : int, optional
        Workers of one thread each on a Dask cluster; by default there is no cluster, and
        passes run on threads of this process.
    worker_memory : int or str, optional
        Bytes that a worker has, ``"8GiB"``.
    processors : float, optional
        Of the whole cluster, where workers share fewer processors than one each, or have more.
    block_size : "auto", int or str, default="auto"
    n_candidates : int, default=2
        Starts that share the passes over the full data: at most two unless asked for.
    algorithm : str, default="auto"
        As for the estimator.
    store_bandwidth : int or str, optional
        Bytes a second that the store gives to all workers together, ``"10GB"``.
    rates : Rates, optional
        Measured before, here or elsewhere.
    check : bool, default=True
        Whether a plan that cannot fit in memory is an error.
    cache : "auto" or None, default="auto"
        As for the estimator. On workers whose memory is not known nothing is planned to be kept.

    Returns
    -------
    Plan

    Raises
    ------
    ParameterError
        If a number is out of range or no size.
    PlanError
        If it does not fit in memory: what is needed, what there is, and what to change.

    Examples
    --------
    >>> import numpy as np
    >>> from streamgmm.sources import open_source
    >>> source = open_source(np.random.default_rng(0).normal(size=(5000, 3)))
    >>> p = plan(source, 4, workers=2, worker_memory="1GiB")
    >>> p.n_rows, p.n_blocks, p.n_workers
    (5000, 1, 2)
    >>> plan(source, 4, workers=0)
    Traceback (most recent call last):
        ...
    streamgmm.errors.ParameterError: workers=0 must be 1 or more; leave it out to use threads...
    """
    memory = _parse(worker_memory, "worker_memory")
    bandwidth = _parse(store_bandwidth, "store_bandwidth")
    _check_settings(n_components, covariance_type, workers, processors, n_candidates)
    blocks = source.blocks(parse_block_size(block_size, source))
    n_threads = min(default_threads(), len(blocks))
    stored = 0
    if rates is None:
        at_once = n_threads if workers is None else min(workers, default_threads())
        rates, stored = calibrate(
            source, blocks, n_components, covariance_type, n_candidates, max(1, at_once)
        )
    if bandwidth:
        rates = Rates(**{**asdict(rates), "store": float(bandwidth)})
    result = result_bytes(n_components, source.n_features, covariance_type, n_candidates)
    row_bytes = source.n_features * source.dtype.itemsize
    kept = kept_bytes(source, blocks) if cache else 0
    if not may_keep(kept, memory_here() if workers is None else workers * (memory or 0)):
        kept = 0
    whole = workers is None or bool(kept) or blocks[0].resident
    load = Load(
        source.n_samples, len(blocks), stored or source.nbytes, result, 3 * result,
        task_blocks=1 if whole else blocks_in_task(len(blocks), workers or 1),
        piece_rows=_piece_bytes(blocks, row_bytes) / row_bytes,
    )  # fmt: skip
    if workers is None:
        processors = processors or n_threads
    projection = later = project(load, rates, workers or 0, processors=processors)
    if kept:
        load, computing = replace(load, stored_bytes=0), replace(rates, read=0.0, decode=0.0)
        later = project(load, computing, workers or 0, processors=processors)
    peak, client = peaks(source, blocks, n_components, covariance_type, n_candidates, algorithm)
    if workers is None:
        peak = client + n_threads * (_pieces_held(blocks, source) + RESULTS_HELD * result // 2)
    else:
        peak += _share_held(source, blocks, workers)
    held = kept if workers is None else min(kept, 2 * kept // workers)
    found = Plan(
        source.name, source.n_samples, source.n_features, n_components, n_candidates,
        covariance_type, source.nbytes, stored or source.nbytes, len(blocks),
        max(block.n_rows for block in blocks) * row_bytes, load.n_tasks if workers else 0,
        result, workers or 0, memory or 0, peak + held, client, rates, projection, later,
        tuple(_advise(load, rates, workers or 0, projection, row_bytes)), kept,
    )  # fmt: skip
    if check and memory:  # what is kept is no reason: it is little, and Dask can spill it
        check_memory(replace(found, worker_peak=peak))
    return found


def result_bytes(k: int, d: int, covariance_type: str, n_candidates: int = 1) -> int:
    """Bytes of the statistics of one block.

    >>> result_bytes(16, 16, "full")
    34976
    """
    scatter = math.prod(FAMILIES[covariance_type].covariance_shape(k, d))
    return 8 * n_candidates * (k + k * d + scatter + 4)


def peaks(
    source: Source,
    blocks: Any,
    n_components: int,
    covariance_type: str,
    n_candidates: int,
    algorithm: str = "auto",
) -> tuple[int, int]:
    """Bytes that a worker, and the client, hold at the most. Reads nothing."""
    d = source.n_features
    result = result_bytes(n_components, d, covariance_type, n_candidates)
    p = FAMILIES[covariance_type].n_parameters(n_components, d)
    sample = plan_sample(source, p, whole=algorithm != "incremental", seed=0)
    sampled = sample.size * (d * source.dtype.itemsize + 24)
    results = RESULTS_HELD * result
    worker = WORKER_BYTES + max(results + _pieces_held(blocks, source), SAMPLES_HELD * sampled)
    resident = source.nbytes if blocks[0].resident else 0
    # The client keeps the statistics of every group of blocks, and climbs on the sample.
    client = WORKER_BYTES + resident + 4 * sampled + results + 12 * 2 * result
    return worker, client


def check_memory(plan: Plan, share: float = USABLE) -> None:
    """Refuse a plan that its workers cannot hold in a share of their memory.

    Raises
    ------
    PlanError
        Says what is needed, what there is, and what to change.
    """
    usable = int(share * plan.worker_memory)
    if not plan.worker_memory or plan.worker_peak <= usable:
        return
    held = RESULTS_HELD * plan.result_bytes
    enough = _size(math.ceil(plan.worker_peak / share / MIB) * MIB)
    who, has = "this process", f"this machine has {_size(plan.worker_memory)}"
    changes = [f"run where there are {enough}"]
    if plan.n_workers:
        who = "a worker"
        has = f"of its {_size(plan.worker_memory)} it can use {_size(usable)}"
        changes = [f"give each worker {enough}"]
    if held > plan.worker_peak // 4:
        if plan.n_candidates > 1:
            changes.append("ask for fewer candidates at a time")
        changes.append(f"fewer than {plan.n_components} components")
        if plan.covariance_type in ("full", "tied"):
            changes.append("covariance_type='diag'")
    else:
        changes.append("store the data in smaller chunks")
    raise PlanError(
        f"{plan.name}: {who} would need {_size(plan.worker_peak)}, and {has}; "
        f"{', or '.join(changes)}"
    )


def refuse_too_large(
    source: Source,
    blocks: Any,
    n_components: int,
    covariance_type: str,
    *,
    n_candidates: int = 1,
    algorithm: str = "auto",
    client: Any = None,
) -> None:
    """Refuse a fit that cannot fit in memory, before its first pass; reads and times nothing.

    Parameters
    ----------
    source, blocks, n_components, covariance_type, n_candidates, algorithm
        The fit.
    client : distributed.Client, optional
        Of the cluster that runs it; the memory limits of its workers are what there is. For a
        fit in this process it is the machine's memory.

    Raises
    ------
    PlanError
    """
    d = source.n_features
    result = result_bytes(n_components, d, covariance_type, n_candidates)
    if RESULTS_HELD * result + _pieces_held(blocks, source) < 256 * MIB and client is None:
        return
    nothing, no_time = Rates(0.0, 0.0, 0.0, 0.0), Projection(0, 0, 0, 0, 0, 0, "", {})
    settings: dict[str, Any] = {"n_candidates": n_candidates, "algorithm": algorithm}
    workers, memory = None, memory_here()
    if client is not None:
        workers, memory = workers_of(client)
    if not memory:
        return
    peak, in_client = peaks(source, blocks, n_components, covariance_type, **settings)
    if workers is None:
        peak = in_client + RESULTS_HELD // 2 * result
    check_memory(
        Plan(
            source.name, source.n_samples, d, n_components, n_candidates, covariance_type,
            source.nbytes, 0, len(blocks), 0, 0, result, workers or 0, memory, peak, in_client,
            nothing, no_time, no_time,
        ),
        HOPELESS,
    )  # fmt: skip


def workers_of(client: Any) -> tuple[int, int]:
    """Count the threads of the workers of a cluster, and the least memory that one has.

    Both 0 where there are no workers yet, or memory is not limited.
    """
    workers = workers_there(client).values()
    limits = [int(each["memory_limit"] or 0) for each in workers]
    return sum(int(each["nthreads"]) for each in workers), min(limits, default=0)


def _piece_bytes(blocks: Any, row_bytes: int) -> int:
    """Bytes of rows that a block gives at a time."""
    piece = min(max(block.n_rows for block in blocks) * row_bytes, PIECE_BYTES)
    array: Any = getattr(getattr(blocks[0], "ref", None), "array", None)
    return int(piece if array is None else max(piece, array.chunks[0] * row_bytes))


def _pieces_held(blocks: Any, source: Source) -> int:
    """Bytes of rows that a task holds: the piece in use, the next, and one being decoded."""
    ref: Any = getattr(blocks[0], "ref", None)
    ahead = 2 if ref is None or ref.local else 5
    return 32 * MIB + (ahead + 1) * _piece_bytes(blocks, source.n_features * source.dtype.itemsize)


def _share_held(source: Source, blocks: Any, workers: int) -> int:
    """Bytes of rows in memory that each worker is sent and keeps."""
    held: int = 2 * source.nbytes // workers if blocks[0].resident else 0
    return held


def _advise(
    load: Load, rates: Rates, workers: int, projection: Projection, row_bytes: int
) -> Iterator[str]:
    if not workers:
        return
    if projection.limit == "scheduler":
        row = rates.compute + rates.read + rates.decode
        rows = min(load.n_rows / workers / 2, 2 * workers * rates.task / row)
        wanted = 1 << math.ceil(math.log2(rows * row_bytes))
        if rows > 1.5 * load.n_rows / load.n_blocks:
            yield f"the scheduler is the limit: block_size='{_size(wanted)}' makes fewer tasks"
        else:
            yield "the scheduler is the limit: fewer workers do as well"
    if projection.limit == "store":
        yield "the store is the limit: more workers do not help, compression may"
    if load.n_blocks < workers:
        yield f"{workers - load.n_blocks:,} workers would have no block; a smaller block_size"


def _check_settings(
    n_components: int,
    covariance_type: str,
    workers: int | None,
    processors: float | None,
    n_candidates: int,
) -> None:
    if covariance_type not in FAMILIES:
        raise ParameterError(
            f"covariance_type={covariance_type!r} must be one of {', '.join(FAMILIES)}"
        )
    for name, value in (("n_components", n_components), ("n_candidates", n_candidates)):
        if value < 1:
            raise ParameterError(f"{name}={value} must be 1 or more")
    if workers is not None and workers < 1:
        raise ParameterError(f"workers={workers} must be 1 or more; leave it out to use threads")
    if processors is not None and not processors > 0:
        raise ParameterError(f"processors={processors} must be positive")


def _parse(size: int | str | None, name: str) -> int | None:
    if size is None:
        return None
    from dask.utils import parse_bytes

    try:
        n_bytes = int(parse_bytes(size))
    except (ValueError, TypeError) as error:
        raise ParameterError(f"{name}={size!r} is no size; give bytes, or '8GiB'") from error
    if n_bytes <= 0:
        raise ParameterError(f"{name}={size!r} must be positive")
    return n_bytes


def _size(n_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if n_bytes < 1024 or unit == "PiB":
            digits = 0 if n_bytes >= 10 or unit == "B" else 1
            return f"{n_bytes:.{digits}f} {unit}"
        n_bytes /= 1024
    raise AssertionError


def _seconds(seconds: float) -> str:
    if seconds >= 7200:
        return f"{seconds / 3600:.1f} h"
    if seconds >= 120:
        return f"{seconds / 60:.1f} min"
    if seconds < 1:
        return f"{1e3 * seconds:.0f} ms"
    return f"{seconds:.1f} s"
