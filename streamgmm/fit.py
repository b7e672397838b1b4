"""Fit a mixture to a source: pass 0, the starts, and passes that all candidates share."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamgmm.ascent import Ascent, Request, Rules, Step
from streamgmm.candidates import Progress, Reader, climb, deal
from streamgmm.errors import DataError, StreamGMMWarning
from streamgmm.families import FAMILIES
from streamgmm.initialize import Summary, initial_mixture, plan_sample, summarize
from streamgmm.mixture import Mixture, Statistics
from streamgmm.moments import Floats, Moments
from streamgmm.passes import default_threads, one_blas_thread, open_executor
from streamgmm.sources import Block, Source, open_source, parse_block_size

MAX_GROUPS = 12  # a pass over B groups is worth at most 2B/(B+1) passes of batch EM
N_STARTS = 16
CHANGED_TOLERANCE = 1e-7  # standard deviations by which the mean of unchanged rows may wander


@dataclass(frozen=True)
class FitSettings:
    """What to fit and how, validated by whoever builds it."""

    n_components: int
    covariance_type: str = "full"
    tol: float = 1e-3
    reg_covar: float = 1e-6
    max_iter: int = 100
    n_init: int = 1
    init_params: str = "kmeans"
    weights_init: Floats | None = None
    means_init: Floats | None = None
    precisions_init: Floats | None = None
    algorithm: Literal["em", "incremental", "auto"] = "auto"
    acceleration: Literal["anderson", "auto"] | None = "auto"
    block_size: int | str = "auto"
    empty_components: Literal["keep", "retire", "reseed"] = "keep"


@dataclass(frozen=True, eq=False)
class Seen:
    """The rows that a model was fitted to, and what it knows of them.

    `regions` are runs of rows that arrived together, each as its end, the bytes of its blocks
    and the number of its groups; `groups` are the statistics of all groups in order, and
    `overall` the moments of all rows (one diagonal component).
    """

    name: str
    regions: tuple[tuple[int, int, int], ...]
    groups: tuple[Statistics, ...]
    overall: Moments

    @property
    def n_rows(self) -> int:
        """Rows seen."""
        return self.regions[-1][0]


@dataclass(frozen=True, eq=False)
class FitResult:
    """A fitted mixture and how it was reached; `lower_bound` in nats a row."""

    mixture: Mixture
    converged: bool
    n_iter: int
    lower_bound: float
    lower_bounds: list[float]
    history: dict[str, NDArray[Any]]
    n_rows: int
    statistics: Statistics
    seen: Seen


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

    Raises
    ------
    DataError
        Fewer rows than components, or rows that cannot be used.
    SingularCovarianceError
        If every start ends in a component that is not positive definite.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(500, 2))
    >>> result = fit(open_source(X), FitSettings(1), np.random.RandomState(0))
    >>> bool(np.allclose(result.mixture.means[0], X.mean(axis=0)))
    True
    """
    started = time.perf_counter()
    _check_rows(source, settings)
    family = FAMILIES[settings.covariance_type]
    n_parameters = family.n_parameters(settings.n_components, source.n_features)
    whole = settings.algorithm != "incremental"
    plan = plan_sample(source, n_parameters, whole=whole, seed=0)
    partial = plan.size < source.n_samples
    if partial and start is None:
        seed = int(random_state.randint(2**31 - 1))
        plan = plan_sample(source, n_parameters, whole=whole, seed=seed)
    if start is None or not _grown(seen, source):
        seen = None
    block_bytes = parse_block_size(settings.block_size, source)
    blocks, groups, regions = _regions(source, settings, partial, block_bytes, seen)
    with open_executor(blocks, n_threads=n_threads, client=client) as executor:
        reader = Reader(executor, blocks, source.name, groups, on_progress)
        new = None if seen is None else len(groups) - 1
        summary: Summary = reader.run(summarize, plan, "sample", group=new)
        overall = summary.moments if seen is None else seen.overall.merge(summary.moments)
        if overall.weight[0] == 0:
            raise DataError(f"{source.name}: all sample weights are zero; nothing to fit")
        if start is not None:
            starts = [start]
        else:
            starts = starting_mixtures(summary, settings, random_state, partial, n_threads)
        rules = Rules(
            settings.tol,
            settings.max_iter,
            settings.reg_covar,
            len(groups),
            _accelerate(settings, len(groups)),
            retire=len(groups) > 1,
            empty_components=settings.empty_components,
        )
        known = [] if seen is None else list(seen.groups)
        pool = summary.reservoir[0] if settings.empty_components == "reseed" else None
        ascents = [
            Ascent(
                mixture, rules, start_bound, passes=reader.passes, groups=list(known), pool=pool
            )
            for mixture in starts
        ]
        climb(ascents, reader)
        best = _best([a for a in ascents if not a.failed])
        (final,) = reader.read([Request(best.mixture, None)], stage="score")
        _check_unchanged(source.name, overall, source.n_samples, final)
        if best.steps:
            best.steps[-1].log_likelihood = final.log_likelihood
        _warn_empty(best, final)
        return FitResult(
            best.mixture,
            best.converged,
            len(best.steps),
            best.bounds[-1] if best.bounds else -np.inf,
            list(best.bounds),
            history(best.steps, source, started),
            source.n_samples,
            final,
            Seen(source.name, regions, tuple(best.groups), overall),
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


def _regions(
    source: Source, settings: FitSettings, partial: bool, block_bytes: int, seen: Seen | None
) -> tuple[list[Block], list[range], tuple[tuple[int, int, int], ...]]:
    """Blocks, the groups that they are dealt to, and the regions of rows that they cover.

    New rows are one group of their own after those of the regions that were seen before.
    """
    old = () if seen is None else seen.regions
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
    """The highest bound; the earliest of equals, as in scikit-learn."""
    best = ascents[0]
    for ascent in ascents[1:]:
        if ascent.bounds and ascent.bounds[-1] > best.bounds[-1]:
            best = ascent
    return best


def _n_groups(settings: FitSettings, partial: bool, n_blocks: int) -> int:
    if settings.algorithm == "em" or (settings.algorithm == "auto" and not partial):
        return 1
    return min(MAX_GROUPS, n_blocks)


def _accelerate(settings: FitSettings, n_groups: int) -> bool:
    return settings.acceleration == "anderson" or (
        settings.acceleration == "auto" and (settings.algorithm == "incremental" or n_groups > 1)
    )


def starting_mixtures(
    summary: Summary,
    settings: FitSettings,
    random_state: np.random.RandomState,
    partial: bool,
    n_threads: int | None,
) -> list[Mixture]:
    """Where to start on the full data.

    Where the sample is the whole data, or the person gave a start, the `n_init` starts
    themselves. Otherwise more starts than asked for climb on the sample, in memory, half of
    them leaving at a time, and the best two go on.
    """
    X, weight = summary.reservoir
    given = settings.weights_init, settings.means_init, settings.precisions_init

    def draw() -> Mixture:
        return initial_mixture(
            X,
            weight,
            settings.covariance_type,
            settings.n_components,
            settings.init_params,
            settings.reg_covar,
            random_state,
            weights_init=settings.weights_init,
            means_init=settings.means_init,
            precisions_init=settings.precisions_init,
        )

    with one_blas_thread():
        if all(value is not None for value in given):
            return [draw()]
        if not partial or any(value is not None for value in given):
            return [draw() for _ in range(settings.n_init)]
        starts = [draw() for _ in range(max(N_STARTS, settings.n_init))]
    return halve(X, weight, starts, settings.reg_covar, n_threads, keep=2)


def halve(
    X: NDArray[Any],
    weight: Floats,
    starts: Sequence[Mixture],
    reg_covar: float,
    n_threads: int | None,
    *,
    keep: int,
) -> list[Mixture]:
    """Successive halving of starts on rows in memory; the best `keep`, climbed to the top there.

    Candidates are compared by the log-likelihood that Aitken's extrapolation expects of them,
    since climbs cross.
    """
    sample = open_source(X, sample_weight=weight, name="the sample of the data")
    blocks = sample.blocks(parse_block_size("auto", sample))
    rules = Rules(1e-6, 500, reg_covar, accelerate=True, statistical=True)
    ascents = [Ascent(mixture, rules) for mixture in starts]
    with open_executor(blocks, n_threads=n_threads or default_threads()) as executor:
        reader = Reader(executor, blocks, sample.name, deal(len(blocks), 1))
        iterations = 8
        while len(ascents) > keep:
            climb(ascents, reader, max_iter=iterations)
            ascents = [a for a in ascents if not a.failed]
            ascents.sort(key=lambda a: -a.predicted)
            ascents = ascents[: max(keep, len(ascents) // 2)]
            iterations *= 2
        climb(ascents, reader)
    return [a.mixture for a in ascents if not a.failed]


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


def _check_unchanged(name: str, overall: Moments, n_rows: int, final: Statistics) -> None:
    """The weighted mean of all rows is in every pass's statistics: it must be pass 0's."""
    moments = final.components
    seen = moments.weight @ (moments.mean - overall.mean[0]) / moments.weight.sum()
    sigma = np.sqrt(overall.scatter[0] / overall.weight[0])
    room = CHANGED_TOLERANCE * sigma + 1e-12 * np.abs(overall.mean[0])
    if final.n_rows != n_rows or np.any(np.abs(seen) > room):
        raise DataError(
            f"{name} changed while it was being fitted: its rows are not those that the first "
            "pass read; fit a copy that nothing writes to"
        )


def _warn_empty(best: Ascent, final: Statistics) -> None:
    """Name the components that lost their rows, and what was done about it."""
    for what, components in best.lost.items():
        warnings.warn(
            f"components {', '.join(map(str, components))} lost their rows and were {what}",
            StreamGMMWarning,
            stacklevel=4,
        )
    empty = np.flatnonzero(final.components.weight <= 0)
    if len(empty) and not best.lost:
        warnings.warn(
            f"components {', '.join(map(str, empty))} have no rows; they are kept with weight "
            "0: fit fewer components, or pass empty_components='reseed' or 'retire'",
            StreamGMMWarning,
            stacklevel=4,
        )


def history(steps: Sequence[Step], source: Source, started: float) -> dict[str, NDArray[Any]]:
    """A value an iteration of what is known; nats are summed over rows."""
    log_likelihood = np.array([s.log_likelihood for s in steps])
    energy = np.array([s.free_energy for s in steps])
    passes = np.array([s.passes for s in steps])
    rows = np.round(passes * source.n_samples).astype(np.int64)
    return {
        "iteration": np.arange(1, len(steps) + 1),
        "log_likelihood": log_likelihood,
        "free_energy": energy,
        "kl": log_likelihood - energy,
        "passes": passes,
        "rows": rows,
        "bytes": rows * (source.nbytes // source.n_samples),
        "seconds": np.array([s.seconds for s in steps]),
    }
