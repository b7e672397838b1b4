"""Fit a mixture to a source: pass 0, the starts, and passes that all candidates share."""

from __future__ import annotations

import functools
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError, StreamGMMWarning
from streamgmm.fitting.ascent import Ascent
from streamgmm.fitting.effort import is_small, plan_effort
from streamgmm.fitting.job import Job
from streamgmm.fitting.reading import Progress, deal
from streamgmm.fitting.rules import Rules, Step
from streamgmm.fitting.run import Rows, Seen, depends
from streamgmm.fitting.sample import plan_sample
from streamgmm.fitting.session import open_session
from streamgmm.fitting.settings import FitSettings, truncated
from streamgmm.fitting.tree import tree_starts
from streamgmm.model.mixture import Mixture, Statistics
from streamgmm.places import ZarrStore
from streamgmm.sources import Block, Source, identity_of, parse_block_size, underlying
from streamgmm.sources.regions import RegionSource
from streamgmm.sources.variables import InZarr

__all__ = ["MAX_GROUPS", "FitResult", "FitSettings", "Seen", "fit"]

Regions = tuple[tuple[int, int, int], ...]

MAX_GROUPS = 12  # a pass over B groups is worth at most 2B/(B+1) passes of batch EM


@dataclass(frozen=True, eq=False)
class FitResult:
    """A fitted mixture and how it was reached; `lower_bound` in nats a row.

    `n_rows` have been read; `skipped` are runs of rows, as (start, stop), that could not be.
    `timings` are the seconds of each part and in all, with how many starts were tried and why.
    """

    mixture: Mixture
    converged: bool
    n_iter: int
    lower_bound: float
    lower_bounds: list[float]
    history: dict[str, NDArray[Any]]
    n_rows: int
    statistics: Statistics
    seen: Seen
    timings: dict[str, Any]
    skipped: Rows = ()


def fit(
    source: Source,
    settings: FitSettings,
    random_state: np.random.RandomState,
    *,
    start: Mixture | None = None,
    start_bound: float = -np.inf,
    seen: Seen | None = None,
    client: Any = None,
    n_threads: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    checkpoint: str | os.PathLike[str] | ZarrStore | None = None,
) -> FitResult:
    """Fit a mixture by EM to all rows of a source.

    Parameters
    ----------
    source : Source
    settings : FitSettings
    random_state : numpy.random.RandomState
        Used by the starts as scikit-learn would use it.
    start : Mixture, optional
        Parameters to go on from, instead of new starts; `start_bound` is their lower bound.
    seen : Seen, optional
        What `start` knows of the first rows of this source. Rows that follow them are read
        first, and the statistics of the others used as they are until their turn comes.
    client, n_threads
        Where the passes run: see `streamgmm.passes.open_executor`.
    on_progress : callable, optional
        Told about every block and every iteration.
    checkpoint : str, path-like, URL or Zarr store, optional
        Where to save progress, after every group of blocks, and to resume from. A fit
        that has finished is given back without a read, unless `max_iter` has been raised and it
        had not converged; then it goes on. The result has the bits of one that nothing ended.

    Raises
    ------
    CheckpointError
        If the checkpoint is of other data or other settings, or another job writes it.
    OutputError
        If it cannot be written; the last one that could is still there.
    DataError
        Fewer rows than components, or rows that cannot be used.
    DegenerateComponentError
        If every start ends in a component that its rows do not determine.
    PlanError
        If it cannot fit in the memory of the workers, or of this machine.

    Examples
    --------
    >>> from streamgmm.sources import open_source
    >>> X = np.random.default_rng(0).normal(size=(500, 2))
    >>> result = fit(open_source(X), FitSettings(1), np.random.RandomState(0))
    >>> bool(np.allclose(result.mixture.components.means[0], X.mean(axis=0)))
    True
    """
    began = time.perf_counter()
    check_rows(source, settings.n_components)
    if start is None or not _grown(seen, source):
        seen = None
    job, regions = _job(source, settings, random_state, start, start_bound, seen)
    with open_session(
        job,
        random_state,
        began=began,
        client=client,
        n_threads=n_threads,
        on_progress=on_progress,
        checkpoint=checkpoint,
    ) as session:
        session.sample()
        session.start()
        session.climb(session.run.ascents)
        best = _best(session.run.ascents)
        session.score([best.mixture], turns=[best.turn])
        run, timings = session.run, session.timings
    assert run.final is not None
    assert run.overall is not None
    final = run.final.training.each[0]
    _warn(best, run.skipped, final, source)
    steps = list(best.steps)
    if steps:
        steps[-1] = replace(steps[-1])
        steps[-1].looked_at(final)
    return FitResult(
        best.mixture,
        best.converged,
        len(steps),
        best.bounds[-1] if best.bounds else -np.inf,
        list(best.bounds),
        history(steps, source, truncated(settings)),
        final.n_rows,
        final,
        Seen(
            identity_of(source),
            regions,
            tuple(best.groups),
            run.overall,
            run.skipped,
            getattr(source, "sample_shape", None),
        ),
        timings,
        run.skipped,
    )


def _job(
    source: Source,
    settings: FitSettings,
    random_state: np.random.RandomState,
    start: Mixture | None,
    start_bound: float,
    seen: Seen | None,
) -> tuple[Job, Regions]:
    """What the session is to do, and the regions of rows that its groups cover."""
    needs = depends([settings], random_state, start, start_bound, seen)
    n, d = source.n_samples, source.n_features
    few = truncated(settings)
    compared = start is None and not settings.any_given and not few
    compared &= not is_small(settings, n, d) or settings.algorithm == "incremental"
    seed = int(random_state.randint(2**31 - 1)) if compared else 0
    plan = plan_sample(source, settings, whole=settings.algorithm != "incremental", seed=seed)
    partial = plan.size < n
    effort = plan_effort(settings, n, d, plan.size) if compared else None
    blocks, groups, regions = _regions(source, settings, partial, seen)
    rules = Rules(
        settings.tol,
        settings.max_iter,
        len(groups),
        _accelerate(settings, len(groups), compared),
        race=len(groups) > 1,
        settled=compared and partial,
        empty_components=settings.empty_components,
        hard=settings.assignment == "hard",
    )
    plan = replace(plan, skip=settings.on_bad_chunk == "skip")
    job = Job(
        source, blocks, groups, [settings], rules, plan, [effort], seed, needs,
        given=start, bound=start_bound, seen=seen,
    )  # fmt: skip
    if few:
        job = replace(
            job,
            draw=functools.partial(tree_starts, n_rows=n),
            why="one k-means of the sample, and moves on it, for very many components",
        )
    return job, regions


def _grown(seen: Seen | None, source: Source) -> bool:
    """Whether a source is what was seen, with more rows at its end, and worth going on from."""
    return (
        seen is not None
        and seen.name == identity_of(source)
        and 0 < seen.n_rows < source.n_samples
        and _appended(seen.shape, source)
        and 1 < len(seen.groups) < 3 * MAX_GROUPS
        and sum(region[2] for region in seen.regions) == len(seen.groups)
    )


def _appended(before: tuple[int, ...] | None, source: Source) -> bool:
    """Whether rows that were there have the numbers that they had.

    Those of a cube in Zarr have, if it has grown along the first dimension only, from the end of
    a region on, and if nothing says which are left out.
    """
    now = getattr(source, "sample_shape", None)
    if now is None or before is None:
        return now is before
    whole = underlying(source)
    return (
        now[1:] == before[1:]
        and isinstance(whole, RegionSource)
        and whole.mask is None
        and before[0] in whole.grid.edges[0]
        and all(isinstance(v.stored, InZarr) for v in whole.variables if 0 in v.axes)
    )


def _regions(
    source: Source, settings: FitSettings, partial: bool, seen: Seen | None
) -> tuple[list[Block], list[range], Regions]:
    """Blocks, the groups that they are dealt to, and the regions of rows that they cover.

    New rows are one group of their own after those of the regions that were seen before.
    """
    old = () if seen is None else seen.regions
    block_bytes = parse_block_size(settings.block_size, source)
    blocks: list[Block] = []
    groups: list[range] = []
    begin = 0
    for stop, size, n_groups in (*old, (source.n_samples, block_bytes, 0)):
        run = source.blocks(size, begin, stop)
        count = n_groups or (1 if old else _n_groups(settings, partial, len(run)))
        groups += deal(len(run), count, len(blocks))
        blocks += run
        begin = stop
    return blocks, groups, (*old, (source.n_samples, block_bytes, count))


def _best(ascents: Sequence[Ascent]) -> Ascent:
    """The highest bound; the earliest of equals, as in scikit-learn.

    Incremental climbs to the same place end a hair apart. Raises DegenerateComponentError where
    none could go on.
    """
    latest = ascents[-1]
    ascents = [ascent for ascent in ascents if not ascent.failed]
    if not ascents:
        raise latest.mixture.family.degenerate(latest.failure)
    hair = 1e-8 if len(ascents) > 1 and ascents[0].rules.n_groups > 1 else 0.0
    ends = [ascent.bounds[-1] if ascent.bounds else -np.inf for ascent in ascents]
    return next(a for a, end in zip(ascents, ends, strict=True) if end >= max(ends) - hair)


def _n_groups(settings: FitSettings, partial: bool, n_blocks: int) -> int:
    if truncated(settings):  # sets go on from one read of all rows to the next
        return 1
    if settings.algorithm == "em" or (settings.algorithm == "auto" and not partial):
        return 1
    return group_count(n_blocks)


def group_count(n_blocks: int) -> int:
    """Groups of at least four blocks each, so that each is spread over the array.

    >>> group_count(3), group_count(20), group_count(64)
    (1, 5, 12)
    """
    return max(1, min(MAX_GROUPS, n_blocks // 4))


def _accelerate(settings: FitSettings, n_groups: int, compared: bool) -> bool:
    if settings.assignment == "hard":  # it ends of itself; what is between two such is not one
        return False
    if truncated(settings):  # a jump that is taken back would have changed the sets
        return False
    return settings.acceleration == "anderson" or (
        settings.acceleration == "auto"
        and (
            settings.algorithm == "incremental"
            or n_groups > 1
            or (compared and settings.algorithm == "auto")
        )
    )


def check_rows(source: Source, n_components: int) -> None:
    """Check that there are rows enough; raises DataError."""
    n, k = source.n_samples, n_components
    if n < 2:
        raise DataError(
            f"{source.name}: {n} sample(s) (shape=({n}, {source.n_features})) while a minimum "
            "of 2 is required."
        )
    if n < k:
        raise DataError(
            f"Expected n_samples >= n_components but got n_components = {k}, n_samples = {n}"
        )


def _warn(best: Ascent, skipped: Rows, final: Statistics, source: Source) -> None:
    """Name the rows that were skipped, and the components that lost theirs."""
    said = []
    if skipped:
        n = sum(stop - start for start, stop in skipped)
        rows = ", ".join(f"{start}:{stop}" for start, stop in skipped[:8])
        more = ", ..." if len(skipped) > 8 else ""
        said.append(f"{source.name}: {n} rows could not be read and were skipped ({rows}{more})")
    for what, components in best.lost.items():
        listed = ", ".join(map(str, components))
        said.append(f"components {listed} lost their rows and were {what}")
    empty = np.flatnonzero(final.components.weight <= 0)
    if len(empty) and not best.lost:
        said.append(
            f"components {', '.join(map(str, empty))} have no rows; they are kept with weight "
            "0: fit fewer components, or pass empty_components='reseed' or 'retire'"
        )
    for each in said:
        warnings.warn(each, StreamGMMWarning, stacklevel=4)


def history(steps: Sequence[Step], source: Source, few: bool = False) -> dict[str, NDArray[Any]]:
    """A value an iteration of what is known; nats are summed over rows.

    ``rows`` are those that passes went over, ``bytes`` of those that were really read. F never
    falls, but where components were retired or reseeded just before: ``mended`` is true there.
    Where rows look at some components only there are ``kl_of_sets``, which is the part of ``kl``
    that this costs, estimated from rows that were compared with all, ``kl_error``, its standard
    error, and ``agreement``, the share of them whose likeliest component was found.
    """
    log_likelihood = np.array([s.log_likelihood for s in steps])
    more = {}
    if few:
        more["kl_of_sets"] = np.array([s.kl_of_sets for s in steps])
        more["kl_error"] = np.array([s.kl_error for s in steps])
        more["agreement"] = np.array([s.agreement for s in steps])
    energy = np.array([s.free_energy for s in steps])
    passes = np.array([s.passes for s in steps])
    rows = np.round(passes * source.n_samples).astype(np.int64)
    read = np.round(np.array([s.read for s in steps]) * source.n_samples).astype(np.int64)
    return {
        "iteration": np.arange(1, len(steps) + 1),
        "log_likelihood": log_likelihood,
        "free_energy": energy,
        "kl": log_likelihood - energy,
        "passes": passes,
        "rows": rows,
        "bytes": read * (source.nbytes // source.n_samples),
        "seconds": np.array([s.seconds for s in steps]),
        "mended": np.array([s.mended for s in steps], np.bool_),
        **more,
    }
