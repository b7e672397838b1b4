"""Many candidates, one read: numbers of components and covariance types compared side by side.

    BIC = -2 log L + p log N        AIC = -2 log L + 2 p        ICL = BIC + 2 H

(Schwarz 1978; Akaike 1974; Biernacki, Celeux & Govaert 2000), and the log-likelihood of rows
held out by a hash of their index, with its standard error: at a very large N, BIC goes on
adding components wherever the model is not exactly true, and the held-out rows tell when that
no longer pays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError, ParameterError, StreamGMMError
from streamgmm.fitting.ascent import Ascent, Request, Rules
from streamgmm.fitting.fit import group_count
from streamgmm.fitting.initial import initial_mixture
from streamgmm.fitting.reading import Bundle, Progress, Reader, Reading, climb, deal, read_block
from streamgmm.fitting.sample import (
    ROWS_PER_PARAMETER,
    Holdout,
    Summary,
    plan_sample,
    summarize,
)
from streamgmm.fitting.starts import draw_starts, halve
from streamgmm.model.families import FAMILIES
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats
from streamgmm.passes import one_blas_thread, open_executor
from streamgmm.sources import Block, Source, kept_bytes, parse_block_size

CRITERIA = ("bic", "aic", "icl", "holdout")
STATISTICS_BYTES = 1 << 30  # candidates that together keep more than this are read for in turn
_STARTS = 4  # starts on the sample for each candidate, at least


@dataclass(frozen=True)
class Candidate:
    """A number of components and a covariance type."""

    n_components: int
    covariance_type: str


@dataclass(frozen=True, eq=False)
class Scores:
    """Statistics of the training rows, and sums over held-out rows, candidate by candidate.

    `held` (C, 3): total weight, Σ w log p, Σ w (log p)².
    """

    training: Bundle
    held: Floats

    def merge(self, other: Scores) -> Scores:
        """Both sets of rows."""
        return Scores(self.training.merge(other.training), self.held + other.held)


def score_block(context: Reading, block: Block) -> Scores:
    """Training statistics and held-out log-densities of one block."""
    training = read_block(context, block)
    held = np.zeros((len(context.requests), 3))
    if context.holdout is None:
        return Scores(training, held)
    for piece in block.pieces():
        mask = context.holdout.mask(piece.start, len(piece.rows))
        if not mask.any():
            continue
        rows = np.ascontiguousarray(piece.rows[mask])
        weight = np.ones(len(rows)) if piece.sample_weight is None else piece.sample_weight[mask]
        for c, request in enumerate(context.requests):
            log_density = request.mixture.posterior(rows).log_density
            held[c] += weight.sum(), weight @ log_density, weight @ log_density**2
    return Scores(training, held)


@dataclass(frozen=True, eq=False)
class Ranking:
    """What `rank` found.

    `table` has a row a candidate (equal-length arrays); `mixtures` are in the same order and
    `best` is the index of the one to take; `passes` are the reads in all.
    """

    table: dict[str, NDArray[Any]]
    mixtures: list[Mixture]
    ascents: list[Ascent]
    best: int
    passes: float


def rank(
    source: Source,
    candidates: Sequence[Candidate],
    random_state: np.random.RandomState,
    *,
    n_init: int = 2,
    criterion: str = "bic",
    holdout: float = 0.03,
    tol: float = 1e-3,
    reg_covar: float = 1e-6,
    max_iter: int = 100,
    init_params: str = "kmeans",
    block_size: int | str = "auto",
    cache: Literal["auto"] | None = "auto",
    client: Any = None,
    n_threads: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Ranking:
    """Fit every candidate in shared reads of a source, and compare them.

    Each candidate starts from the best of several climbs on a sample of the rows in memory, and
    leaves when it has converged, or when it can no longer come out best.

    Raises
    ------
    ParameterError
        An unknown criterion, a held-out fraction outside [0, 0.5], no candidates.
    DataError
        Fewer rows than components, or rows that cannot be used.
    """
    _check(source, candidates, criterion, holdout)
    d = source.n_features
    counts = [FAMILIES[c.covariance_type].n_parameters(c.n_components, d) for c in candidates]
    seed = int(random_state.randint(2**31 - 1))
    plan = plan_sample(source, max(counts), whole=False, seed=seed)
    blocks = source.blocks(parse_block_size(block_size, source))
    apart = Holdout(holdout, seed ^ 0x5EED) if holdout > 0 else None
    plan = replace(plan, holdout=apart)
    n_groups = group_count(len(blocks))
    keep = kept_bytes(source, blocks) if cache else 0
    with open_executor(blocks, n_threads=n_threads, client=client, keep=keep) as executor:
        reader = Reader(
            executor, blocks, source.name, deal(len(blocks), n_groups), on_progress, apart
        )
        summary: Summary = reader.run(summarize, plan, "sample")
        if summary.moments.weight[0] == 0:
            raise DataError(f"{source.name}: all sample weights are zero; nothing to fit")
        ascents: list[Ascent] = []
        for batch in _batches(candidates, d, n_groups):
            starts = [
                _start(summary, candidates[i], counts[i], n_init, reg_covar, init_params,
                       random_state, n_threads)
                for i in batch
            ]  # fmt: skip
            rules = Rules(tol, max_iter, reg_covar, n_groups, accelerate=True)
            climbing = [Ascent(mixture, rules, passes=1.0, read=1.0) for mixture in starts]
            climb(climbing, reader, leave=_leaver(climbing, criterion))
            ascents += climbing
        requests = [Request(ascent.mixture, None) for ascent in ascents]
        scores: Scores = reader.run(score_block, reader.reading(requests), "score")
    if all(ascent.failed for ascent in ascents):
        raise StreamGMMError("no candidate could be fitted: every one became singular")
    table = _table(candidates, counts, ascents, scores)
    values = np.where([a.failed for a in ascents], np.nan, table[_column(criterion)])
    best = np.nanargmax(values) if criterion == "holdout" else np.nanargmin(values)
    return Ranking(table, [a.mixture for a in ascents], ascents, int(best), reader.passes)


def _check(
    source: Source, candidates: Sequence[Candidate], criterion: str, holdout: float
) -> None:
    if criterion not in CRITERIA:
        raise ParameterError(f"criterion={criterion!r}: one of {', '.join(CRITERIA)}")
    if not 0 <= holdout <= 0.5:
        raise ParameterError(f"holdout={holdout} must be from 0 to 0.5")
    if criterion == "holdout" and holdout == 0:
        raise ParameterError("criterion='holdout' needs a holdout above 0")
    if not candidates:
        raise ParameterError("there are no candidates: give n_components and covariance_types")
    most = max(c.n_components for c in candidates)
    if source.n_samples * (1 - holdout) < max(2, most):
        raise DataError(
            f"Expected n_samples >= n_components but got n_components = {most}, "
            f"n_samples = {source.n_samples}"
        )


def _batches(candidates: Sequence[Candidate], d: int, n_groups: int) -> list[list[int]]:
    """Candidates whose statistics, with the memory of their jumps, fit together."""
    batches: list[list[int]] = [[]]
    size = 0
    for i, c in enumerate(candidates):
        scatter = int(np.prod(FAMILIES[c.covariance_type].covariance_shape(c.n_components, d)))
        own = 8 * 12 * n_groups * (scatter + c.n_components * (d + 1))
        if batches[-1] and size + own > STATISTICS_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(i)
        size += own
    return batches


def _start(
    summary: Summary,
    candidate: Candidate,
    n_parameters: int,
    n_init: int,
    reg_covar: float,
    init_params: str,
    random_state: np.random.RandomState,
    n_threads: int | None,
) -> Mixture:
    """The best of several climbs on as many rows of the sample as the candidate needs."""
    size = max(ROWS_PER_PARAMETER * n_parameters, 2 * candidate.n_components)
    X, weight = summary.trimmed(size).reservoir

    def draw(how: str) -> Mixture:
        return initial_mixture(
            X, weight, candidate.covariance_type, candidate.n_components, how, reg_covar,
            random_state,
        )  # fmt: skip

    with one_blas_thread():
        n = 1 if candidate.n_components == 1 else max(_STARTS, n_init)
        starts = draw_starts(draw, n, init_params)
    return halve(X, weight, starts, reg_covar, n_threads, keep=1)[0]


def _leaver(ascents: Sequence[Ascent], criterion: str) -> Callable[[], None]:
    """Make what stops candidates that cannot come out best, judged by an optimistic forecast."""
    if criterion == "holdout":
        return lambda: None

    def price(ascent: Ascent) -> float:
        n = ascent.groups[0].weight * len(ascent.groups)
        return ascent.mixture.n_parameters * (2.0 if criterion == "aic" else float(np.log(n)))

    def leave() -> None:
        known = [a for a in ascents if not a.failed and a.steps]
        if len(known) < len(ascents):
            return
        worst_case = {id(a): -2 * a.free_energy + price(a) for a in known}
        if criterion == "icl":
            for a in known:
                worst_case[id(a)] += 2 * sum(g.entropy for g in a.groups)
        reached = min(worst_case.values())
        for a in known:
            if a.request is not None and -2 * a.predicted + price(a) > reached:
                a.stop()

    return leave


def _column(criterion: str) -> str:
    return "holdout_log_likelihood" if criterion == "holdout" else criterion


def _table(
    candidates: Sequence[Candidate],
    counts: Sequence[int],
    ascents: Sequence[Ascent],
    scores: Scores,
) -> dict[str, NDArray[Any]]:
    """A row a candidate: nats summed over training rows, and nats a row over held-out ones."""
    training = scores.training.each
    n = training[0].weight
    p = np.array(counts)
    log_likelihood = np.array([s.log_likelihood for s in training])
    entropy = np.array([s.entropy for s in training])
    bic = -2 * log_likelihood + p * np.log(n)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, square = scores.held[:, 1:].T / scores.held[:, 0]
        error = np.sqrt(np.maximum(square - mean**2, 0) / scores.held[:, 0])
    return {
        "n_components": np.array([c.n_components for c in candidates]),
        "covariance_type": np.array([c.covariance_type for c in candidates]),
        "log_likelihood": log_likelihood,
        "n_parameters": p,
        "bic": bic,
        "aic": -2 * log_likelihood + 2 * p,
        "icl": bic + 2 * entropy,
        "holdout_log_likelihood": mean,
        "holdout_error": error,
        "passes": np.array([a.passes for a in ascents]),
        "converged": np.array([a.converged for a in ascents]),
    }
