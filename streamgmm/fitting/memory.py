"""What a fit holds in memory, known before its first pass; one that cannot fit is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from streamgmm.errors import PlanError
from streamgmm.fitting.sample import plan_sample
from streamgmm.fitting.settings import FitSettings
from streamgmm.model.components import Family
from streamgmm.model.families import parse_family
from streamgmm.passes import workers_there
from streamgmm.passes.memory import memory_here
from streamgmm.sources import PIECE_BYTES, Source

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
class Demand:
    """What a fit needs at the most where it runs, and what there is.

    Attributes
    ----------
    name : str
        The data.
    n_components, n_candidates : int
    covariance_type : str
        Name of the family.
    lighter : str
        What to ask for instead where memory is short; empty if there is nothing.
    result_bytes : int
        What a block sends: the statistics of all candidates.
    n_workers : int
        0 where the passes run on threads of this process.
    worker_memory, worker_peak : int
        Bytes that a worker, or this process, has (0 where that is not known), and needs.
    """

    name: str
    n_components: int
    n_candidates: int
    covariance_type: str
    lighter: str
    result_bytes: int
    n_workers: int
    worker_memory: int
    worker_peak: int


def n_sums(family: Family, k: int, d: int) -> int:
    """Numbers in the statistics of K components."""
    return sum(math.prod(shape) for shape in family.statistic_shapes(k, d).values())


def result_bytes(k: int, d: int, family: Family | str, n_candidates: int = 1) -> int:
    """Bytes of the statistics of one block.

    >>> result_bytes(16, 16, "full")
    34976
    """
    return 8 * n_candidates * (n_sums(parse_family(family), k, d) + 4)


def peaks(source: Source, blocks: Any, candidates: Sequence[FitSettings]) -> tuple[int, int]:
    """Bytes that a worker, and the client, hold at the most. Reads nothing.

    `candidates` are those that share reads.
    """
    d = source.n_features
    result = sum(result_bytes(c.n_components, d, c.family) for c in candidates)
    whole = candidates[0].algorithm != "incremental"
    size = max(plan_sample(source, each, whole=whole, seed=0).size for each in candidates)
    sampled = size * (d * source.dtype.itemsize + 24)
    results = RESULTS_HELD * result
    worker = WORKER_BYTES + max(results + pieces_held(blocks, source), SAMPLES_HELD * sampled)
    resident = source.nbytes if blocks[0].resident else 0
    # The client keeps the statistics of every group of blocks, and climbs on the sample.
    client = WORKER_BYTES + resident + 4 * sampled + results + 12 * 2 * result
    return worker, client


def check_memory(demand: Demand, share: float = USABLE) -> None:
    """Refuse a fit that its workers cannot hold in a share of their memory.

    Raises
    ------
    PlanError
        Says what is needed, what there is, and what to change.
    """
    usable = int(share * demand.worker_memory)
    if not demand.worker_memory or demand.worker_peak <= usable:
        return
    held = RESULTS_HELD * demand.result_bytes
    enough = format_size(math.ceil(demand.worker_peak / share / MIB) * MIB)
    who, has = "this process", f"this machine has {format_size(demand.worker_memory)}"
    changes = [f"run where there are {enough}"]
    if demand.n_workers:
        who = "a worker"
        has = f"of its {format_size(demand.worker_memory)} it can use {format_size(usable)}"
        changes = [f"give each worker {enough}"]
    if held > demand.worker_peak // 4:
        if demand.n_candidates > 1:
            changes.append("ask for fewer candidates at a time")
        changes.append(f"fewer than {demand.n_components} components")
        if demand.lighter:
            changes.append(demand.lighter)
    else:
        changes.append("store the data in smaller chunks")
    raise PlanError(
        f"{demand.name}: {who} would need {format_size(demand.worker_peak)}, and {has}; "
        f"{', or '.join(changes)}"
    )


def refuse_too_large(
    source: Source, blocks: Any, candidates: Sequence[FitSettings], *, client: Any = None
) -> None:
    """Refuse a fit that cannot fit in memory, before its first pass; reads and times nothing.

    Parameters
    ----------
    source, blocks
        What is read.
    candidates : sequence of FitSettings
        Those that share reads.
    client : distributed.Client, optional
        Of the cluster that runs it; the memory limits of its workers are what there is. For a
        fit in this process it is the machine's memory.

    Raises
    ------
    PlanError
    """
    d = source.n_features
    sizes = [result_bytes(c.n_components, d, c.family) for c in candidates]
    result = sum(sizes)
    if RESULTS_HELD * result + pieces_held(blocks, source) < 256 * MIB and client is None:
        return
    workers, memory = None, memory_here()
    if client is not None:
        workers, memory = workers_of(client)
    if not memory:
        return
    peak, in_client = peaks(source, blocks, candidates)
    if workers is None:
        peak = in_client + RESULTS_HELD // 2 * result
    largest = candidates[sizes.index(max(sizes))]
    check_memory(
        Demand(
            source.name, largest.n_components, len(candidates), largest.family.name,
            largest.family.lighter, result, workers or 0, memory, peak,
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


def piece_bytes(blocks: Any, row_bytes: int) -> int:
    """Bytes of rows that a block gives at a time."""
    piece = min(max(block.n_rows for block in blocks) * row_bytes, PIECE_BYTES)
    array: Any = getattr(getattr(blocks[0], "ref", None), "array", None)
    return int(piece if array is None else max(piece, array.chunks[0] * row_bytes))


def pieces_held(blocks: Any, source: Source) -> int:
    """Bytes of rows that a task holds: the piece in use, the next, and one being decoded."""
    ref: Any = getattr(blocks[0], "ref", None)
    ahead = 2 if ref is None or ref.local else 5
    return 32 * MIB + (ahead + 1) * piece_bytes(blocks, source.n_features * source.dtype.itemsize)


def format_size(n_bytes: float) -> str:
    """A number of bytes in words.

    >>> format_size(1536), format_size(20 << 30)
    ('1.5 KiB', '20 GiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if n_bytes < 1024 or unit == "PiB":
            digits = 0 if n_bytes >= 10 or unit == "B" else 1
            return f"{n_bytes:.{digits}f} {unit}"
        n_bytes /= 1024
    raise AssertionError
