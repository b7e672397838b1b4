"""Fit a mixture to a source: pass 0, the starts, and passes that all candidates share."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError, StreamGMMWarning
from streamgmm.fitting.ascent import Ascent, Request, Rules, Step
from streamgmm.fitting.memory import refuse_too_large
from streamgmm.fitting.reading import Progress, Reader, climb, deal
from streamgmm.fitting.run import GLOBAL, Rows, Run, Seen, depends
from streamgmm.fitting.sample import SamplePlan, Summary, plan_sample, summarize
from streamgmm.fitting.settings import FitSettings
from streamgmm.fitting.starts import starting_mixtures
from streamgmm.model.families import FAMILIES
from streamgmm.model.mixture import Mixture, Statistics
from streamgmm.model.moments import Moments
from streamgmm.passes import open_executor
from streamgmm.sources import Block, Source, kept_bytes, parse_block_size
from streamgmm.storage.checkpoint import Checkpoint, fingerprint

__all__ = ["MAX_GROUPS", "FitResult", "FitSettings", "Seen", "fit"]

MAX_GROUPS = 12  # a pass over B groups is worth at most 2B/(B+1) passes of batch EM
_log = logging.getLogger("streamgmm")
CHANGED_TOLERANCE = 1e-7  # standard deviations by which the mean of unchanged rows may wander


@dataclass(frozen=True, eq=False)
class FitResult:
    """A fitted mixture and how it was reached; `lower_bound` in nats a row.

    `n_rows` have been read; `skipped` are runs of rows, as (start, stop), that could not be.
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
    checkpoint: str | os.PathLike[str] | None = None,
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
    checkpoint : str, path-like or URL, optional
        Where to put down what is known, after every group of blocks, and to go on from. A fit
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
    SingularCovarianceError
        If every start ends in a component that is not positive definite.
    PlanError
        If it cannot fit in the memory of the workers, or of this machine.

    Examples
    --------
    >>> from streamgmm.sources import open_source
    >>> X = np.random.default_rng(0).normal(size=(500, 2))
    >>> result = fit(open_source(X), FitSettings(1), np.random.RandomState(0))
    >>> bool(np.allclose(result.mixture.means[0], X.mean(axis=0)))
    True
    """
    _check_rows(source, settings)
    if start is None or not _grown(seen, source):
        seen = None
    needs = depends(settings, random_state, start, start_bound, seen)
    plan = _plan(source, settings, random_state, start)
    partial = plan.size < source.n_samples
    blocks, groups, regions = _regions(source, settings, partial, seen)
    rules = Rules(
        settings.tol,
        settings.max_iter,
        settings.reg_covar,
        len(groups),
        _accelerate(settings, len(groups)),
        retire=len(groups) > 1,
        empty_components=settings.empty_components,
    )
    new = None if seen is None else len(groups) - 1
    with (
        open_executor(
            blocks,
            n_threads=n_threads,
            client=client,
            keep=kept_bytes(source, blocks) if settings.cache else 0,
        ) as executor,
        nullcontext() if checkpoint is None else Checkpoint(checkpoint) as book,
    ):
        refuse_too_large(
            source,
            blocks,
            settings.n_components,
            settings.covariance_type,
            n_candidates=1 if start is not None else 2 if partial else settings.n_init,
            algorithm=settings.algorithm,
            client=getattr(executor, "client", None),
        )
        reader = Reader(executor, blocks, source.name, groups, on_progress)
        run = None
        if book is not None:
            mark = fingerprint(source, blocks, len(groups), executor, needs)
            run = Run.restored(book.load(mark), rules, book.name)
        if run is None:
            summary: Summary = reader.run(summarize, plan, "sample", group=new)
            skipped = summary.skipped if seen is None else seen.skipped + summary.skipped
            overall = _overall(summary, seen)
            _check_summary(source.name, summary, overall, settings)
            if start is None:
                starts = starting_mixtures(summary, settings, random_state, partial, n_threads)
            else:
                starts = [start]
            known = [] if seen is None else seen.groups
            pool = summary.reservoir[0] if settings.empty_components == "reseed" else None
            ascents = [
                Ascent(
                    each, rules, start_bound, passes=reader.passes, groups=[*known], pool=pool,
                    read=reader.last_read,
                )
                for each in starts
            ]  # fmt: skip
            random = random_state.get_state(legacy=False)
            run = Run(source.name, overall, skipped, ascents, reader.passes, random)
        else:
            if run.name != source.name:
                summary = reader.run(summarize, plan, "sample", group=new)
                run.check_same(_overall(summary, seen), source.name, book)
            if random_state is not GLOBAL:
                random_state.set_state(run.random)
            reader.passes = run.passes
            executor.known.update(i for known in run.known for i in range(*known))
            made = max(len(ascent.steps) for ascent in run.ascents)
            _log.info("going on from the checkpoint '%s' after iteration %d", checkpoint, made)
        reader.skipped = run.skipped

        def put_down(whole: bool = True, wait: bool = False) -> None:
            if book is not None:
                run.passes, run.known = reader.passes, _runs(executor.known)
                book.save(run.state(), whole=whole, wait=wait)

        put_down()
        climb(run.ascents, reader, after=put_down)
        best = _best([a for a in run.ascents if not a.failed])
        if run.final is None:
            # Of rows that were kept this would not notice that the data have changed.
            (run.final,) = reader.read([Request(best.mixture, None)], stage="score", afresh=True)
            _check_unchanged(source, run)
            put_down(wait=True)
        _warn(best, run, source)
        steps = list(best.steps)
        if steps:
            steps[-1] = replace(steps[-1], log_likelihood=run.final.log_likelihood)
        return FitResult(
            best.mixture,
            best.converged,
            len(steps),
            best.bounds[-1] if best.bounds else -np.inf,
            list(best.bounds),
            history(steps, source),
            run.final.n_rows,
            run.final,
            Seen(source.name, regions, tuple(best.groups), run.overall, run.skipped),
            run.skipped,
        )


def _grown(seen: Seen | None, source: Source) -> bool:
    """Whether a source is what was seen, with more rows at its end, and worth going on from."""
    return (
        seen is not None
        and seen.name == source.name
        and 0 < seen.n_rows < source.n_samples
        and 1 < len(seen.groups) < 3 * MAX_GROUPS
        and sum(region[2] for region in seen.regions) == len(seen.groups)
    )


def _runs(indices: set[int]) -> tuple[tuple[int, int], ...]:
    """Write a set as runs (start, stop).

    >>> _runs({0, 1, 2, 5})
    ((0, 3), (5, 6))
    """
    starts = sorted(i for i in indices if i - 1 not in indices)
    stops = sorted(i + 1 for i in indices if i + 1 not in indices)
    return tuple(zip(starts, stops, strict=True))


def _regions(
    source: Source, settings: FitSettings, partial: bool, seen: Seen | None
) -> tuple[list[Block], list[range], tuple[tuple[int, int, int], ...]]:
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

    Incremental climbs to the same place end a hair apart.
    """
    hair = 1e-8 if len(ascents) > 1 and ascents[0].rules.n_groups > 1 else 0.0
    ends = [ascent.bounds[-1] if ascent.bounds else -np.inf for ascent in ascents]
    return next(a for a, end in zip(ascents, ends, strict=True) if end >= max(ends) - hair)


def _plan(
    source: Source,
    settings: FitSettings,
    random_state: np.random.RandomState,
    start: Mixture | None,
) -> SamplePlan:
    """How pass 0 samples; draws a number only where a part is sampled to start from."""
    family = FAMILIES[settings.covariance_type]
    n_parameters = family.n_parameters(settings.n_components, source.n_features)
    whole = settings.algorithm != "incremental"
    plan = plan_sample(source, n_parameters, whole=whole, seed=0)
    if plan.size < source.n_samples and start is None:
        seed = int(random_state.randint(2**31 - 1))
        plan = plan_sample(source, n_parameters, whole=whole, seed=seed)
    return replace(plan, skip=settings.on_bad_chunk == "skip")


def _overall(summary: Summary, seen: Seen | None) -> Moments:
    return summary.moments if seen is None else seen.overall.merge(summary.moments)


def _n_groups(settings: FitSettings, partial: bool, n_blocks: int) -> int:
    if settings.algorithm == "em" or (settings.algorithm == "auto" and not partial):
        return 1
    return group_count(n_blocks)


def group_count(n_blocks: int) -> int:
    """Groups of at least four blocks each, so that each is spread over the array.

    >>> group_count(3), group_count(20), group_count(64)
    (1, 5, 12)
    """
    return max(1, min(MAX_GROUPS, n_blocks // 4))


def _accelerate(settings: FitSettings, n_groups: int) -> bool:
    return settings.acceleration == "anderson" or (
        settings.acceleration == "auto" and (settings.algorithm == "incremental" or n_groups > 1)
    )


def _check_rows(source: Source, settings: FitSettings) -> None:
    n, k = source.n_samples, settings.n_components
    if n < 2:
        raise DataError(
            f"{source.name}: {n} sample(s) (shape=({n}, {source.n_features})) while a minimum "
            "of 2 is required."
        )
    if n < k:
        raise DataError(
            f"Expected n_samples >= n_components but got n_components = {k}, n_samples = {n}"
        )


def _check_summary(name: str, summary: Summary, overall: Moments, settings: FitSettings) -> None:
    if overall.weight[0] == 0:
        why = "all sample weights are zero" if summary.n_rows else "no row can be read"
        raise DataError(f"{name}: {why}; nothing to fit")
    if summary.skipped and summary.n_rows < settings.n_components:
        raise DataError(
            f"{name}: only {summary.n_rows} rows can be read, fewer than n_components = "
            f"{settings.n_components}"
        )


def _check_unchanged(source: Source, run: Run) -> None:
    """The weighted mean of all rows is in every pass's statistics: it must be pass 0's."""
    assert run.final is not None
    moments, overall = run.final.components, run.overall
    seen = moments.weight @ (moments.mean - overall.mean[0]) / moments.weight.sum()
    sigma = np.sqrt(overall.scatter[0] / overall.weight[0])
    room = CHANGED_TOLERANCE * sigma + 1e-12 * np.abs(overall.mean[0])
    expected = source.n_samples - sum(stop - start for start, stop in run.skipped)
    if run.final.n_rows != expected or np.any(np.abs(seen) > room):
        raise DataError(
            f"{source.name} changed while it was being fitted: its rows are not those that the "
            "first pass read; fit a copy that nothing writes to"
        )


def _warn(best: Ascent, run: Run, source: Source) -> None:
    """Name the rows that were skipped, and the components that lost theirs."""
    said = []
    if run.skipped:
        n = sum(stop - start for start, stop in run.skipped)
        rows = ", ".join(f"{start}:{stop}" for start, stop in run.skipped[:8])
        more = ", ..." if len(run.skipped) > 8 else ""
        said.append(f"{source.name}: {n} rows could not be read and were skipped ({rows}{more})")
    for what, components in best.lost.items():
        listed = ", ".join(map(str, components))
        said.append(f"components {listed} lost their rows and were {what}")
    assert run.final is not None
    empty = np.flatnonzero(run.final.components.weight <= 0)
    if len(empty) and not best.lost:
        said.append(
            f"components {', '.join(map(str, empty))} have no rows; they are kept with weight "
            "0: fit fewer components, or pass empty_components='reseed' or 'retire'"
        )
    for each in said:
        warnings.warn(each, StreamGMMWarning, stacklevel=4)


def history(steps: Sequence[Step], source: Source) -> dict[str, NDArray[Any]]:
    """A value an iteration of what is known; nats are summed over rows.

    ``rows`` are those that passes went over, ``bytes`` of those that were really read.
    """
    log_likelihood = np.array([s.log_likelihood for s in steps])
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
    }
