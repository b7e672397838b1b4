"""Many candidates, one read: numbers of components and families compared side by side.

    BIC = -2 log L + p log N        AIC = -2 log L + 2 p        ICL = BIC + 2 H

(Schwarz 1978; Akaike 1974; Biernacki, Celeux & Govaert 2000), and the log-likelihood of rows
held out by a hash of their index, with its standard error: at a very large N, BIC goes on
adding components wherever the model is not exactly true, and the held-out rows tell when that
no longer pays. Stability asks another question: whether fits from other starts find the same
clusters again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError, ParameterError
from streamgmm.fitting.ascent import Ascent
from streamgmm.fitting.effort import count_parameters, plan_effort
from streamgmm.fitting.fit import check_rows, group_count
from streamgmm.fitting.job import Job
from streamgmm.fitting.memory import n_sums
from streamgmm.fitting.reading import Progress, Scores, deal
from streamgmm.fitting.rules import Rules
from streamgmm.fitting.run import depends
from streamgmm.fitting.sample import Holdout, plan_sample
from streamgmm.fitting.session import Session, open_session
from streamgmm.fitting.settings import FitSettings
from streamgmm.fitting.stability import Comparisons, most_stable
from streamgmm.model.components import Family
from streamgmm.model.families import parse_family
from streamgmm.model.mixture import Mixture, Statistics
from streamgmm.places import ZarrStore
from streamgmm.sources import Source, parse_block_size

CRITERIA = ("bic", "aic", "icl", "holdout", "stability")
STATISTICS_BYTES = 1 << 30  # candidates that together keep more than this are read for in turn
_WAVE = 4  # starts that are drawn together for each candidate, at least


@dataclass(frozen=True)
class Candidate:
    """A number of components and their family; this may be given by its name."""

    n_components: int
    family: Family | str


@dataclass(frozen=True, eq=False)
class Ranking:
    """What `rank` found.

    `table` has a row a candidate (equal-length arrays); `mixtures` and `ascents` are in the same
    order, None where a candidate could not be started. `best` is the index of the one to take,
    and `statistics` are of the rows that it was fitted to;
    `passes` are the reads in all; `timings` as those of a fit. `skipped` are runs of rows that
    could not be read. `choices` has the candidate that each criterion would take.
    """

    table: dict[str, NDArray[Any]]
    mixtures: list[Mixture | None]
    ascents: list[Ascent | None]
    best: int
    statistics: Statistics
    passes: float
    timings: dict[str, Any]
    skipped: tuple[tuple[int, int], ...] = ()
    choices: dict[str, int] = field(default_factory=dict)


def rank(
    source: Source,
    candidates: Sequence[Candidate],
    random_state: np.random.RandomState,
    settings: FitSettings,
    *,
    criterion: str = "bic",
    holdout: float = 0.03,
    client: Any = None,
    n_threads: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    checkpoint: str | os.PathLike[str] | ZarrStore | None = None,
) -> Ranking:
    """Fit every candidate in shared reads of a source, and compare them.

    Each candidate starts from the best of several starts on a sample of the rows in memory, and
    leaves when it has converged, or when it can no longer come out best. One that cannot be
    started, or becomes singular, says so in its row of the table, and the others go on.

    Parameters
    ----------
    source : Source
    candidates : sequence of Candidate
    random_state : numpy.random.RandomState
    settings : FitSettings
        What all candidates have in common.
    criterion : {"bic", "aic", "icl", "holdout", "stability"}
        With ``"stability"`` each candidate is fitted from ``settings.n_init`` starts, each taken
        to its end, and the best of them is its row of the table.
    holdout : float
        Share of the rows that no candidate is fitted to.
    client, n_threads, on_progress, checkpoint
        As for `streamgmm.fitting.fit.fit`.

    Raises
    ------
    ParameterError
        An unknown criterion, a held-out fraction outside [0, 0.5], no candidates, or families
        whose likelihoods cannot be compared.
    DataError
        Fewer rows than components, or rows that cannot be used, or that changed meanwhile.
    DegenerateComponentError
        If no candidate could be fitted.
    PlanError, CheckpointError, OutputError
        As for a fit.
    """
    began = time.perf_counter()
    _check(source, candidates, criterion, holdout, settings.n_init)
    n_restarts = settings.n_init if criterion == "stability" else 1
    if n_restarts > 1:
        settings = replace(settings, n_init=1)
    each = [
        replace(settings, n_components=c.n_components, family=parse_family(c.family))
        for c in candidates
        for _ in range(n_restarts)
    ]
    _check_measures(source, [settings.family for settings in each])
    job = _job(source, each, random_state, criterion, holdout, n_restarts)
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
        each = list(session.job.candidates)  # with settings that pass 0 has completed
        session.start()
        ascents = _placed(session)
        for batch in job.batches:
            climbing = [a for a in (ascents[i] for i in batch) if a is not None]
            session.climb(climbing, leave=_leaver(climbing, criterion))
        fitted = [i for i, a in enumerate(ascents) if a is not None and not a.failed]
        if not fitted:
            latest = [a for a in ascents if a is not None][-1]
            raise latest.mixture.family.degenerate(
                f"no candidate could be fitted; the last: {latest.failure}"
            )
        comparisons = _comparisons(each, fitted, n_restarts)
        pairs = comparisons.pairs if n_restarts > 1 else ()
        mixtures = [a.mixture for a in (ascents[i] for i in fitted) if a is not None]
        session.score(mixtures, pairs)
        scores = session.run.final
        assert scores is not None
        failures = _failures(session, ascents)
    reached = {i: s.log_likelihood for i, s in zip(fitted, scores.training.each, strict=True)}
    chosen = [
        max(range(i, i + n_restarts), key=lambda i: reached.get(i, -np.inf))
        for i in range(0, len(each), n_restarts)
    ]
    every = _table(each, source.n_features, ascents, fitted, scores)
    table = {name: values[chosen] for name, values in every.items()}
    if n_restarts > 1:
        table["passes"] = every["passes"].reshape(-1, n_restarts).max(axis=1)
        table |= comparisons.columns(scores.tables, table["n_components"].tolist())
    table["failure"] = failures[chosen]
    choices = _choices(table)
    if criterion not in choices:
        raise ParameterError(
            "stability is known only of candidates with two components or more, of which at "
            "least two restarts could be fitted; raise n_components or n_init"
        )
    i = choices[criterion]
    climbed = [ascents[j] for j in chosen]
    return Ranking(
        table,
        [None if a is None else a.mixture for a in climbed],
        climbed,
        i,
        scores.training.each[fitted.index(chosen[i])],
        session.passes,
        session.timings,
        session.run.skipped,
        choices,
    )


def _comparisons(each: Sequence[FitSettings], fitted: Sequence[int], n: int) -> Comparisons:
    """Which of the fitted mixtures are restarts of one candidate, n at most, and neighbours."""
    at = {i: place for place, i in enumerate(fitted)}
    restarts = [[at[j] for j in range(i, i + n) if j in at] for i in range(0, len(each), n)]
    return Comparisons.of(restarts, [(c.family, c.n_components) for c in each[::n]])


def _choices(table: dict[str, NDArray[Any]]) -> dict[str, int]:
    """The candidate that each criterion would choose."""
    found = {name: int(np.nanargmin(table[name])) for name in ("bic", "aic", "icl")}
    held = table["holdout_log_likelihood"]
    if np.isfinite(held).any():
        found["holdout"] = int(np.nanargmax(held))
    if "stability" in table:
        stable = most_stable(table["stability"], table["stability_error"], table["n_components"])
        if stable >= 0:
            found["stability"] = stable
    return found


def _job(
    source: Source,
    candidates: Sequence[FitSettings],
    random_state: np.random.RandomState,
    criterion: str,
    holdout: float,
    n_restarts: int,
) -> Job:
    """What the session is to do."""
    first = candidates[0]
    d = source.n_features
    needs = depends(candidates, random_state) | {"criterion": criterion, "holdout": holdout}
    seed = int(random_state.randint(2**31 - 1))
    widest = max(candidates, key=lambda c: count_parameters(c, d))
    apart = Holdout(holdout, seed ^ 0x5EED) if holdout > 0 else None
    plan = plan_sample(source, widest, whole=False, seed=seed)
    families = tuple(dict.fromkeys(c.family for c in candidates))
    skip = first.on_bad_chunk == "skip"
    plan = replace(plan, holdout=apart, skip=skip, families=families)
    blocks = source.blocks(parse_block_size(first.block_size, source))
    n_groups = group_count(len(blocks))
    together = 1 if n_restarts > 1 else max(_WAVE, min(8, first.n_init))
    efforts = [plan_effort(each, source.n_samples, d, plan.size, together) for each in candidates]
    if n_restarts > 1:  # a restart is one start
        efforts = [replace(effort, waves=1) for effort in efforts]
    return Job(
        source,
        blocks,
        deal(len(blocks), n_groups),
        candidates,
        Rules(first.tol, first.max_iter, n_groups, accelerate=True),
        plan,
        efforts,
        seed,
        needs,
        _batches(candidates, d, n_groups),
        holdout=apart,
        restarts=n_restarts,
    )


def _placed(session: Session) -> list[Ascent | None]:
    """The ascent of each candidate; None for one that could not be started."""
    found = iter(session.run.ascents)
    return [None if isinstance(start, str) else next(found) for start in session.run.starts]


def _failures(session: Session, ascents: Sequence[Ascent | None]) -> NDArray[Any]:
    """Why each candidate could not be fitted; empty where it was."""
    return np.array(
        [
            str(start) if ascent is None else ascent.failure
            for start, ascent in zip(session.run.starts, ascents, strict=True)
        ]
    )


def _check(
    source: Source, candidates: Sequence[Candidate], criterion: str, holdout: float, n_init: int
) -> None:
    if criterion not in CRITERIA:
        raise ParameterError(f"criterion={criterion!r}: one of {', '.join(CRITERIA)}")
    if not 0 <= holdout <= 0.5:
        raise ParameterError(f"holdout={holdout} must be from 0 to 0.5")
    if criterion == "holdout" and holdout == 0:
        raise ParameterError("criterion='holdout' needs a holdout above 0")
    if criterion == "stability" and n_init < 2:
        raise ParameterError(
            "criterion='stability' compares restarts: it needs n_init of 2 or more"
        )
    if not candidates:
        raise ParameterError(
            "there are no candidates: give n_components, and covariance_types or family"
        )
    most = max(c.n_components for c in candidates)
    check_rows(source, most)
    if source.n_samples * (1 - holdout) < max(2, most):
        raise DataError(
            f"{source.name}: {source.n_samples} rows less the share held out, {holdout}, are "
            f"fewer than n_components = {most}; hold out less, or ask for fewer components"
        )


def _check_measures(source: Source, families: Sequence[Family]) -> None:
    """Check that densities are with respect to one measure, or nothing compares them."""
    first, d = families[0], source.n_features
    for family in families:
        if family.measure(d) != first.measure(d):
            one, two = (" and ".join(dict.fromkeys(f.measure(d))) for f in (first, family))
            raise ParameterError(
                f"likelihoods of {first.name} components (densities by {one} measure) and of "
                f"{family.name} components (by {two} measure) cannot be compared: select among "
                "families of one kind"
            )


def _batches(candidates: Sequence[FitSettings], d: int, n_groups: int) -> list[list[int]]:
    """Candidates whose statistics, with the memory of their jumps, fit together."""
    batches: list[list[int]] = [[]]
    size = 0
    for i, c in enumerate(candidates):
        own = 8 * 12 * n_groups * n_sums(c.family, c.n_components, d)
        if batches[-1] and size + own > STATISTICS_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(i)
        size += own
    return batches


def _leaver(ascents: Sequence[Ascent], criterion: str) -> Callable[[], None]:
    """Make what stops candidates that cannot come out best, judged by an optimistic forecast."""
    if criterion in ("holdout", "stability"):
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


def _table(
    candidates: Sequence[FitSettings],
    n_features: int,
    ascents: Sequence[Ascent | None],
    fitted: Sequence[int],
    scores: Scores,
) -> dict[str, NDArray[Any]]:
    """A row a candidate: nats summed over training rows, and nats a row over held-out ones.

    NaN where a candidate could not be fitted.
    """
    training = scores.training.each
    n = training[0].weight
    p = np.array([count_parameters(c, n_features) for c in candidates])
    log_likelihood, entropy, mean, error = np.full((4, len(candidates)), np.nan)
    log_likelihood[fitted] = [s.log_likelihood for s in training]
    entropy[fitted] = [s.entropy for s in training]
    bic = -2 * log_likelihood + p * np.log(n)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean[fitted], square = scores.held[:, 1:].T / scores.held[:, 0]
        error[fitted] = np.sqrt(np.maximum(square - mean[fitted] ** 2, 0) / scores.held[:, 0])
    return {
        "n_components": np.array([c.n_components for c in candidates]),
        "family": np.array([c.family.name for c in candidates]),
        "log_likelihood": log_likelihood,
        "n_parameters": p,
        "bic": bic,
        "aic": -2 * log_likelihood + 2 * p,
        "icl": bic + 2 * entropy,
        "holdout_log_likelihood": mean,
        "holdout_error": error,
        "passes": np.array([0.0 if a is None else a.passes for a in ascents]),
        "converged": np.array([a is not None and a.converged for a in ascents]),
    }
