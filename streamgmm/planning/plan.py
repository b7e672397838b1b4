"""Plan a fit: what it reads, its memory and its time, from a short trial on this machine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from streamgmm.errors import ParameterError
from streamgmm.fitting.effort import plan_effort
from streamgmm.fitting.memory import (
    RESULTS_HELD,
    Demand,
    check_memory,
    format_size,
    peaks,
    piece_bytes,
    pieces_held,
    result_bytes,
)
from streamgmm.fitting.sample import plan_sample
from streamgmm.fitting.settings import FitSettings
from streamgmm.model.components import Family
from streamgmm.model.families import parse_family
from streamgmm.pages.shown import plan_of
from streamgmm.passes import blocks_in_task, default_threads
from streamgmm.passes.memory import may_keep, memory_here
from streamgmm.planning.calibrate import calibrate
from streamgmm.planning.simulate import Load, Projection, Rates, project
from streamgmm.sources import Source, kept_bytes, parse_block_size


@dataclass(frozen=True)
class Plan:
    """What a fit will read, hold and take.

    Attributes
    ----------
    name : str
        The data.
    n_rows, n_features, n_components, n_candidates : int
    covariance_type : str
        Name of the family.
    n_bytes, stored_bytes : int
        Of all rows, decoded; and in the store, estimated from the rows that were read.
    n_blocks, block_bytes, n_tasks : int
        Of a full pass: blocks, bytes of rows in the largest, and tasks of the Dask graph.
    result_bytes : int
        Of the result of a block: the statistics of all candidates.
    n_workers : int
        0 where the passes run on threads of this process.
    worker_memory : int
        Bytes that a worker has; 0 where that is not known.
    worker_peak, client_peak : int
        Projected peak memory, bytes. Without workers, `worker_peak` is that of this process.
    kept_bytes : int
        Of all rows, if they are cached, so that only the first and the last pass read; 0 if
        every pass reads. `worker_peak` includes a worker's part of the cache.
    rates : Rates
    projection : Projection
        Of one full pass that reads, seconds.
    later : Projection
        Of one full pass over cached rows; without a cache the same as `projection`.
    advice : tuple of str
    lighter : str
        What to ask for instead where memory is short; empty if there is nothing.
    starts : float
        Seconds that the starts take at the most.
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
    lighter: str = ""
    starts: float = 0.0

    @property
    def demand(self) -> Demand:
        """What must fit in memory."""
        return Demand(**{field.name: getattr(self, field.name) for field in fields(Demand)})

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
        memory = f" of {format_size(self.worker_memory)}" if self.worker_memory else ""
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
            f"{format_size(self.n_bytes)} ({format_size(self.stored_bytes)} stored)",
            f"model      {self.n_components} components, {self.covariance_type}{candidates}; "
            f"statistics of a block {format_size(self.result_bytes)}",
            f"a pass     {self.n_blocks:,} blocks of up to {format_size(self.block_bytes)}, "
            f"{self.n_tasks:,} tasks, on {where}",
            f"memory     {format_size(self.worker_peak)} at most a "
            f"{'worker' if self.n_workers else 'process'}{memory}; "
            f"{format_size(self.client_peak)} in the client",
            f"a pass     {_seconds(p.seconds)}: {', '.join(parts)}",
            f"limit      {p.limit}",
        ]
        lines.insert(
            -1, f"starts     {_seconds(self.starts)} at the most, on the sample in memory"
        )
        if self.kept_bytes:
            lines.insert(
                -1,
                f"kept       {format_size(self.kept_bytes)}: the first pass and the last read, "
                f"those between take {_seconds(self.later.seconds)}",
            )
        return "\n".join(lines + [f"advice     {line}" for line in self.advice])

    def __str__(self) -> str:
        """As `render`."""
        return self.render()

    def _repr_html_(self) -> str:
        return plan_of(self.render().split("\n"))


def plan(
    source: Source,
    n_components: int,
    family: Family | str = "full",
    *,
    workers: int | None = None,
    worker_memory: int | str | None = None,
    processors: float | None = None,
    block_size: int | str = "auto",
    n_candidates: int = 1,
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
    family : Family or str, default="full"
        Of the components: one of ``streamgmm.model.families.FAMILIES``, or its name.
    workers : int, optional
        Workers of one thread each on a Dask cluster; by default there is no cluster, and
        passes run on threads of this process.
    worker_memory : int or str, optional
        Bytes that a worker has, ``"8GiB"``.
    processors : float, optional
        Of the whole cluster, where workers share fewer processors than one each, or have more.
    block_size : "auto", int or str, default="auto"
    n_candidates : int, default=1
        Mixtures that share the passes over the full data: more than one only in selections, and
        where starts are scikit-learn's own.
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
    family = parse_family(family)
    _check_settings(n_components, workers, processors, n_candidates)
    blocks = source.blocks(parse_block_size(block_size, source))
    n_threads = min(default_threads(), len(blocks))
    stored = 0
    if rates is None:
        at_once = n_threads if workers is None else min(workers, default_threads())
        rates, stored = calibrate(
            source, blocks, n_components, family, n_candidates, max(1, at_once)
        )
    if bandwidth:
        rates = Rates(**{**asdict(rates), "store": float(bandwidth)})
    result = result_bytes(n_components, source.n_features, family, n_candidates)
    row_bytes = source.n_features * source.dtype.itemsize
    kept = kept_bytes(source, blocks) if cache else 0
    if not may_keep(kept, memory_here() if workers is None else workers * (memory or 0)):
        kept = 0
    whole = workers is None or bool(kept) or blocks[0].resident
    load = Load(
        source.n_samples, len(blocks), stored or source.nbytes, result, 3 * result,
        task_blocks=1 if whole else blocks_in_task(len(blocks), workers or 1),
        piece_rows=piece_bytes(blocks, row_bytes) / row_bytes,
    )  # fmt: skip
    if workers is None:
        processors = processors or n_threads
    projection = later = project(load, rates, workers or 0, processors=processors)
    if kept:
        load, computing = replace(load, stored_bytes=0), replace(rates, read=0.0, decode=0.0)
        later = project(load, computing, workers or 0, processors=processors)
    each = FitSettings(n_components, family, algorithm=algorithm)  # type: ignore[arg-type]
    peak, client = peaks(source, blocks, [each] * n_candidates)
    if workers is None:
        peak = client + n_threads * (pieces_held(blocks, source) + RESULTS_HELD * result // 2)
    else:
        peak += _share_held(source, blocks, workers)
    held = kept if workers is None else min(kept, 2 * kept // workers)
    found = Plan(
        source.name, source.n_samples, source.n_features, n_components, n_candidates,
        family.name, source.nbytes, stored or source.nbytes, len(blocks),
        max(block.n_rows for block in blocks) * row_bytes, load.n_tasks if workers else 0,
        result, workers or 0, memory or 0, peak + held, client, rates, projection, later,
        tuple(_advise(load, rates, workers or 0, projection, row_bytes)), kept,
        family.lighter, _starts(each, source, rates, processors or workers or 1),
    )  # fmt: skip
    if check and memory:  # the cache does not count: it is small, and Dask can spill it to disk
        check_memory(replace(found, worker_peak=peak).demand)
    return found


def _starts(settings: FitSettings, source: Source, rates: Rates, processors: float) -> float:
    """Seconds that the starts take at the most, by the rows that they climb on."""
    sample = plan_sample(source, settings, whole=True, seed=0)
    effort = plan_effort(settings, source.n_samples, source.n_features, sample.size)
    rows = effort.waves * 15 * effort.wave * effort.n_rows + 10 * sample.size
    return rows * rates.compute / processors


def _share_held(source: Source, blocks: Any, workers: int) -> int:
    """Bytes of rows that are sent to each worker, and stay there."""
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
            size = format_size(wanted)
            yield f"the scheduler is the limit: block_size='{size}' makes fewer tasks"
        else:
            yield "the scheduler is the limit: fewer workers do as well"
    if projection.limit == "store":
        yield "the store is the limit: more workers do not help, compression may"
    if load.n_blocks < workers:
        yield f"{workers - load.n_blocks:,} workers would have no block; a smaller block_size"


def _check_settings(
    n_components: int,
    workers: int | None,
    processors: float | None,
    n_candidates: int,
) -> None:
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


def _seconds(seconds: float) -> str:
    if seconds >= 7200:
        return f"{seconds / 3600:.1f} h"
    if seconds >= 120:
        return f"{seconds / 60:.1f} min"
    if seconds < 1:
        return f"{1e3 * seconds:.0f} ms"
    return f"{seconds:.1f} s"
