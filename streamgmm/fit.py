"""Fit a mixture to a source: pass 0, the starts, and passes that all candidates share."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamgmm.ascent import Ascent, Request, Rules, Step, merge_groups
from streamgmm.errors import DataError, StreamGMMError
from streamgmm.families import FAMILIES
from streamgmm.families.base import NO_WEIGHT
from streamgmm.initialize import Summary, initial_mixture, plan_sample, summarize
from streamgmm.mixture import Mixture, Statistics, collect
from streamgmm.moments import Floats
from streamgmm.passes import Executor, default_threads, one_blas_thread, open_executor
from streamgmm.sources import Block, Source, check_finite, open_source, parse_block_size

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


@dataclass(frozen=True)
class Progress:
    """What a pass tells while it runs.

    `stage` is ``"sample"`` (pass 0), ``"em"`` or ``"score"`` (the last pass, at the parameters
    returned). `rows` of `n_rows` have been read in this pass; `iteration` counts from 1;
    `lower_bound` (nats a row) and `change` are of the last finished iteration of candidate
    `candidate`; NaN before the first.
    """

    stage: str
    iteration: int
    rows: int
    n_rows: int
    lower_bound: float = float("nan")
    change: float = float("nan")
    candidate: int = 0
    finished: bool = False


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


@dataclass(frozen=True, eq=False)
class Bundle:
    """The statistics of several candidates, read for together."""

    each: tuple[Statistics, ...]

    def merge(self, other: Bundle) -> Bundle:
        """Candidate by candidate."""
        return Bundle(tuple(a.merge(b) for a, b in zip(self.each, other.each, strict=True)))


def read_block(context: tuple[str, list[Request]], block: Block) -> Bundle:
    """E-steps of one block for every request; raises NonFiniteError."""
    name, requests = context
    accumulators: list[Any] = []
    n_rows = 0
    weight = 0.0
    for piece in block.pieces():
        weights = NO_WEIGHT if piece.sample_weight is None else piece.sample_weight
        if not accumulators:
            accumulators = [
                request.mixture.accumulator(piece.rows, len(weights) > 0, request.centres)
                for request in requests
            ]
        for accumulator in accumulators:
            accumulator.add(piece.rows, weights)
        n_rows += len(piece.rows)
        weight += float(weights.sum() if len(weights) else len(piece.rows))
    bundle = Bundle(tuple(collect(a, n_rows, weight) for a in accumulators))
    if not all(-1e280 < s.log_likelihood < np.inf for s in bundle.each):
        for piece in block.pieces():
            check_finite(piece, name)
    return bundle


class Reader:
    """Reads the data for candidates, and counts what it reads."""

    def __init__(
        self,
        executor: Executor,
        blocks: Sequence[Block],
        name: str,
        n_groups: int,
        row_bytes: int,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._executor, self._name, self._on_progress = executor, name, on_progress
        self.n_rows = sum(block.n_rows for block in blocks)
        self.row_bytes = row_bytes
        # Groups are dealt out like cards, so that each is spread over the whole array.
        self.groups = [range(g, len(blocks), n_groups) for g in range(n_groups)]
        self.group_rows = [sum(blocks[i].n_rows for i in group) for group in self.groups]
        self.rows_read = 0

    def read(
        self, requests: Sequence[Request], group: int | None, stage: str, iteration: int
    ) -> tuple[Statistics, ...]:
        """Statistics for each request, from one read of a group of blocks (all, if None)."""
        bundle: Bundle = self._executor.run(
            read_block,
            (self._name, list(requests)),
            on_block=self._counter(stage, iteration),
            blocks=None if group is None else self.groups[group],
        )
        self.rows_read += self.n_rows if group is None else self.group_rows[group]
        return bundle.each

    def share(self, group: int | None) -> float:
        """The part of a full read that a group is."""
        return 1.0 if group is None else self.group_rows[group] / self.n_rows

    def tell(self, progress: Progress) -> None:
        """Pass on what a candidate has to say."""
        if self._on_progress is not None:
            self._on_progress(progress)

    def _counter(self, stage: str, iteration: int) -> Callable[[int], None] | None:
        on_progress = self._on_progress
        if on_progress is None:
            return None
        done = self.rows_read % max(1, self.n_rows) if stage == "em" else 0

        def on_block(n: int) -> None:
            nonlocal done
            done += n
            on_progress(Progress(stage, iteration, done, self.n_rows))

        return on_block


def climb(ascents: Sequence[Ascent], reader: Reader, *, max_iter: int | None = None) -> None:
    """Take all candidates up together until each has arrived, or made `max_iter` iterations.

    A candidate whose parameters become singular is dropped unless it is the last one.
    """
    started = time.perf_counter()
    failure: StreamGMMError | None = None
    while True:
        waiting = [
            a
            for a in ascents
            if a.request is not None and (max_iter is None or len(a.steps) < max_iter)
        ]
        if not waiting:
            break
        group = waiting[0].request.group if waiting[0].request else None
        waiting = [a for a in waiting if a.request and a.request.group == group]
        iteration = max(len(a.steps) for a in waiting) + 1
        requests = [a.request for a in waiting if a.request]
        answers = reader.read(requests, group, "em", iteration)
        for ascent, statistics in zip(waiting, answers, strict=True):
            known = len(ascent.steps)
            try:
                with one_blas_thread():
                    ascent.advance(statistics, reader.share(group))
            except StreamGMMError as error:
                ascent.stop()
                ascent.failed = True
                failure = error
            if len(ascent.steps) > known:
                ascent.steps[-1].seconds = time.perf_counter() - started
                _tell(reader, ascent, ascents.index(ascent))
        _retire(ascents)
    if failure is not None and all(a.failed for a in ascents):
        raise failure


def _retire(ascents: Sequence[Ascent]) -> None:
    """Stop candidates that are expected to end below what another has reached already."""
    reached = max((a.free_energy for a in ascents if not a.failed), default=-np.inf)
    for ascent in ascents:
        if ascent.request is not None and ascent.predicted < reached and ascent.rules.retire:
            ascent.stop()


def _tell(reader: Reader, ascent: Ascent, candidate: int) -> None:
    bounds = ascent.bounds
    change = bounds[-1] - bounds[-2] if len(bounds) > 1 else np.inf
    reader.tell(
        Progress(
            "em",
            len(ascent.steps),
            reader.n_rows,
            reader.n_rows,
            bounds[-1],
            change,
            candidate,
            finished=ascent.request is None,
        )
    )


def fit(
    source: Source,
    settings: FitSettings,
    random_state: np.random.RandomState,
    *,
    start: Mixture | None = None,
    start_bound: float = -np.inf,
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
    blocks = source.blocks(parse_block_size(settings.block_size, source))
    family = FAMILIES[settings.covariance_type]
    n_parameters = family.n_parameters(settings.n_components, source.n_features)
    seed = 0
    plan = plan_sample(source, n_parameters, whole=settings.algorithm != "incremental", seed=seed)
    partial = plan.size < source.n_samples
    if partial:
        seed = int(random_state.randint(2**31 - 1))
        plan = plan_sample(
            source, n_parameters, whole=settings.algorithm != "incremental", seed=seed
        )
    n_groups = _n_groups(settings, partial, len(blocks))
    row_bytes = source.n_features * source.dtype.itemsize
    with open_executor(blocks, n_threads=n_threads, client=client) as executor:
        reader = Reader(executor, blocks, source.name, n_groups, row_bytes, on_progress)
        summary: Summary = executor.run(summarize, plan, on_block=reader._counter("sample", 0))
        reader.rows_read += summary.n_rows
        if summary.moments.weight[0] == 0:
            raise DataError(f"{source.name}: all sample weights are zero; nothing to fit")
        if start is not None:
            starts = [start]
        else:
            starts = starting_mixtures(summary, settings, random_state, partial, n_threads)
        rules = Rules(
            settings.tol,
            settings.max_iter,
            settings.reg_covar,
            n_groups,
            _accelerate(settings, n_groups),
            retire=n_groups > 1,
        )
        ascents = [Ascent(mixture, rules, start_bound, passes=1.0) for mixture in starts]
        climb(ascents, reader)
        best = _best([a for a in ascents if not a.failed])
        (final,) = reader.read([Request(best.mixture, None)], None, "score", len(best.steps))
        _check_unchanged(source.name, summary, final)
        if best.steps:
            best.steps[-1].log_likelihood = final.log_likelihood
        lower = best.bounds[-1] if best.bounds else -np.inf
        return FitResult(
            best.mixture,
            best.converged,
            len(best.steps),
            lower,
            list(best.bounds),
            _history(best.steps, summary.n_rows, reader, started),
            summary.n_rows,
            final,
        )


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
    return halve(X, weight, starts, settings.reg_covar, n_threads)


def halve(
    X: NDArray[Any],
    weight: Floats,
    starts: Sequence[Mixture],
    reg_covar: float,
    n_threads: int | None,
    *,
    keep: int = 2,
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
        reader = Reader(executor, blocks, sample.name, 1, 1)
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


def _check_unchanged(name: str, summary: Summary, final: Statistics) -> None:
    """The weighted mean of all rows is in every pass's statistics: it must be pass 0's."""
    moments = final.components
    seen = moments.weight @ (moments.mean - summary.moments.mean[0]) / moments.weight.sum()
    sigma = np.sqrt(summary.moments.scatter[0] / summary.moments.weight[0])
    room = CHANGED_TOLERANCE * sigma + 1e-12 * np.abs(summary.moments.mean[0])
    if final.n_rows != summary.n_rows or np.any(np.abs(seen) > room):
        raise DataError(
            f"{name} changed while it was being fitted: its rows are not those that the first "
            "pass read; fit a copy that nothing writes to"
        )


def _history(
    steps: Sequence[Step], n_rows: int, reader: Reader, started: float
) -> dict[str, NDArray[Any]]:
    log_likelihood = np.array([s.log_likelihood for s in steps])
    energy = np.array([s.free_energy for s in steps])
    passes = np.array([s.passes for s in steps])
    rows = np.round(passes * n_rows).astype(np.int64)
    return {
        "iteration": np.arange(1, len(steps) + 1),
        "log_likelihood": log_likelihood,
        "free_energy": energy,
        "kl": log_likelihood - energy,
        "passes": passes,
        "rows": rows,
        "bytes": rows * reader.row_bytes,
        "seconds": np.array([s.seconds for s in steps]),
    }
