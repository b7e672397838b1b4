"""K-means of a source: hard EM of centroids in shared passes, by Lloyd's rules."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamgmm.clustering import kmeans_plusplus, lloyd, parse_rows
from streamgmm.clustering.rows import Rows
from streamgmm.errors import DataError
from streamgmm.fitting.ascent import Ascent
from streamgmm.fitting.fit import FitResult, history
from streamgmm.fitting.job import Job
from streamgmm.fitting.reading import Progress, Reader, deal
from streamgmm.fitting.rules import Request, Rules
from streamgmm.fitting.run import Seen, depends
from streamgmm.fitting.sample import plan_sample
from streamgmm.fitting.session import Session, open_session
from streamgmm.fitting.settings import FitSettings, truncated
from streamgmm.fitting.tree import tree_labels
from streamgmm.model.families import Centroids
from streamgmm.model.families.centroids import CentroidComponents, Pooled
from streamgmm.model.families.nearest import Table
from streamgmm.model.families.recall import Recall, recalling
from streamgmm.model.mixture import Mixture, Statistics, m_step
from streamgmm.model.moments import Floats
from streamgmm.passes import default_threads, open_executor
from streamgmm.places import ZarrStore
from streamgmm.sources import PIECE_BYTES, Source, identity_of, parse_block_size

LEAST_BLOCKS = 8  # of data that are compared with few of many centres
SAME = 1e-24  # squared shifts that rounding brings about, in parts of squared distances

Init = Callable[[NDArray[Any], int, np.random.RandomState], Any]


def settings_of_centres(
    n_clusters: int,
    *,
    init: str = "k-means++",
    n_init: int = 1,
    max_iter: int = 300,
    tol: float = 1e-4,
    block_size: int | str = "auto",
    on_bad_chunk: Literal["raise", "skip"] = "raise",
    cache: Literal["auto"] | None = "auto",
    truncation: int | None = None,
) -> FitSettings:
    """What k-means is to the engine: hard EM of centroids, batch by batch, without jumps."""
    return FitSettings(
        n_clusters, Centroids(truncation=truncation), tol, max_iter, n_init, init,
        algorithm="em", acceleration=None, block_size=block_size, on_bad_chunk=on_bad_chunk,
        cache=cache, assignment="hard",
    )  # fmt: skip


def fit_centres(
    source: Source,
    settings: FitSettings,
    random_state: np.random.RandomState,
    *,
    init: Floats | Init | None = None,
    client: Any = None,
    n_threads: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    checkpoint: str | os.PathLike[str] | ZarrStore | None = None,
    sweeps: int | None = None,
    recall: Recall | None = None,
) -> FitResult:
    """K-means of all rows of a source: Lloyd's iterations, one read each.

    It ends as scikit-learn's does: when no label changes, which is when no centre moves; when
    the squared shifts of all centres together are at most `tol` times the mean variance of the
    features; or after `max_iter` iterations. A centre that is nearest to no row goes to the row
    farthest from its own centre, which takes one more read of the data in that iteration.

    Where the rows are few enough to be sampled whole, each of the `n_init` starts is taken to its
    end. Elsewhere each is taken to its end on the sample, and the best goes on to all rows. With
    `truncation` a start is one k-means of few rows a centre (`streamgmm.fitting.tree`), or what
    was drawn, and of several the best on the sample goes on.

    Parameters
    ----------
    source : Source
    settings : FitSettings
        Of `settings_of_centres`; `init_params` is ``"k-means++"`` or ``"random"``.
    random_state : numpy.random.RandomState
        Used as scikit-learn uses it.
    init : ndarray of shape (K, D) or callable, optional
        Centres to start from, or what makes them of the sampled rows.
    client, n_threads, on_progress, checkpoint
        As for `streamgmm.fitting.fit.fit`.
    sweeps : int, optional
        Most iterations on all rows, where that is not `max_iter`.
    recall : Recall, optional
        Where this process remembers the labels of rows from read to read; it may be asked for
        those at the centres that are returned.

    Returns
    -------
    FitResult
        ``statistics`` are of the last read, at the centres that are returned: see `inertia`. The
        log-likelihood of the mixture is not summed: NaN in ``history``.

    Raises
    ------
    DataError
        Fewer rows than centres, or rows that cannot be used or that changed meanwhile.
    CheckpointError, OutputError, PlanError
        As for a fit.

    Examples
    --------
    >>> from streamgmm.sources import open_source
    >>> source = open_source([[0.0], [1.0], [9.0], [10.0]])
    >>> found = fit_centres(source, settings_of_centres(2), np.random.RandomState(0))
    >>> sorted(found.mixture.components.means.ravel().tolist()), inertia(found)
    ([0.5, 9.5], 1.0)
    """
    began = time.perf_counter()
    n, k = source.n_samples, settings.n_components
    if n < k:
        raise DataError(f"n_samples={n} should be >= n_clusters={k}.")
    family = settings.family
    assert isinstance(family, Centroids)
    given = None if init is None or callable(init) else centroids(init, 1.0, family)
    make = init if callable(init) else None
    job = job_of_centres(source, [settings], random_state, given, make, n_threads)
    if sweeps is not None:
        job = replace(job, rules=replace(job.rules, max_iter=sweeps))
    recall = Recall() if recall is None else recall
    with (
        recalling(recall),
        open_session(
            job,
            random_state,
            began=began,
            client=client,
            n_threads=n_threads,
            on_progress=on_progress,
            checkpoint=checkpoint,
        ) as session,
    ):
        session.sample()
        session.start()
        session.climb(session.run.ascents)
        best = max(session.run.ascents, key=lambda ascent: ascent.free_energy)
        session.score([best.mixture], turns=[best.turn])
        return result_of_centres(session, best, 0)


def result_of_centres(session: Session, best: Ascent, which: int) -> FitResult:
    """What a session has found for a candidate, the one of that number in the last read."""
    run, source = session.run, session.job.source
    assert run.final is not None
    assert run.overall is not None
    final = run.final.training.each[which]
    block_bytes = _block_bytes(session.job.candidates[0], source)
    regions = ((source.n_samples, block_bytes, 1),)
    return FitResult(
        best.mixture,
        best.converged,
        len(best.steps),
        best.bounds[-1] if best.bounds else -np.inf,
        list(best.bounds),
        _history(best, source, final if truncated(session.job.candidates[0]) else None),
        final.n_rows,
        final,
        Seen(identity_of(source), regions, tuple(best.groups), run.overall, run.skipped),
        session.timings,
        run.skipped,
    )


def learn_centres(
    source: Source,
    mixture: Mixture,
    statistics: Pooled,
    *,
    block_size: int | str = "auto",
    n_threads: int | None = None,
    client: Any = None,
) -> tuple[Mixture, Pooled]:
    """Take in the rows of a source, once: the mixture after them, and the statistics of all.

    Each row goes to the centre that is nearest before the call, and each centre to the mean of all
    rows that it ever got (Sculley 2010, "Web-scale k-means clustering"; MacQueen 1967).

    Raises
    ------
    DataError
        If there are rows that cannot be used.
    """
    blocks = source.blocks(parse_block_size(block_size, source))
    with open_executor(blocks, n_threads=n_threads, client=client) as executor:
        reader = Reader(executor, blocks, source.name, deal(len(blocks), 1))
        reader.quiet = True
        (found,) = reader.read([Request(mixture, None, hard=True)])
    merged = statistics.merge(found.components)
    return m_step(mixture, replace(found, components=merged)), merged


def check_centres(centres: Floats, k: int, d: int) -> None:
    """Check the shape of centres to start from; raises DataError, worded as scikit-learn's."""
    said = f"The shape of the initial centers {centres.shape} does not match the number of"
    if centres.ndim != 2 or len(centres) != k:
        raise DataError(f"{said} clusters {k}.")
    if centres.shape[1] != d:
        raise DataError(f"{said} features of the data {d}.")


def inertia(result: FitResult) -> float:
    """Σ w |x - c|² of all rows and their nearest centres."""
    parts, components = result.statistics.components, result.mixture.components
    assert isinstance(components, CentroidComponents)
    used = parts.weight > 0
    off = parts.mean[used] - components.means[used]
    return float(parts.scatter.item() + parts.weight[used] @ np.einsum("kd,kd->k", off, off))


def shift_of_centres(
    before: CentroidComponents, after: CentroidComponents, statistics: Pooled
) -> float:
    """Squared shifts of all centres together, in parts of the mean variance of the features.

    Zero where centres were but rounded otherwise, as they are when no row changes its centre.
    """
    weight, mean = statistics.weight, after.means
    total = weight.sum()
    off = mean - weight @ mean / total
    between = np.einsum("kd,kd->k", off, off)
    variance = (statistics.scatter.item() + weight @ between) / (total * mean.shape[1])
    moved = float(np.sum((after.means - before.means) ** 2))
    if moved <= SAME * (between.sum() + statistics.scatter.item() / total):
        return 0.0
    return float(moved / variance) if variance > 0 else np.inf


def job_of_centres(
    source: Source,
    candidates: Sequence[FitSettings],
    random_state: np.random.RandomState,
    given: Mixture | None = None,
    init: Init | None = None,
    n_threads: int | None = None,
    every: bool = False,
) -> Job:
    """What a session is to do, for candidates that differ in their numbers of centres alone.

    With `every`, all starts of a candidate go on to all rows, and not the best on a sample.
    """
    needs = depends(candidates, random_state, given)
    settings = max(candidates, key=lambda each: each.n_components)
    seed = int(np.random.RandomState(0).randint(2**31 - 1))  # scikit-learn draws nothing here
    plan = plan_sample(source, settings, whole=True, seed=seed)
    whole = every or plan.size >= source.n_samples
    if given is not None:  # nothing is drawn from the rows
        plan = replace(plan, size=1, threshold=0)
    plan = replace(plan, skip=settings.on_bad_chunk == "skip")
    blocks = source.blocks(_block_bytes(settings, source))
    threads = default_threads() if n_threads is None else n_threads
    return Job(
        source, blocks, deal(len(blocks), 1), candidates,
        Rules(settings.tol, settings.max_iter, hard=True, judge=shift_of_centres),
        plan, [None] * len(candidates), seed, needs, [range(len(candidates))], given=given,
        draw=partial(_starts, init=init, whole=whole, n_threads=threads),
        why="as n_init says" if whole else "the best of n_init on a sample",
    )  # fmt: skip


def _block_bytes(settings: FitSettings, source: Source) -> int:
    """Bytes of a block; fewer and larger blocks where rows share their candidates.

    The more rows of a centre a piece has, the better vectors are filled.
    """
    found = parse_block_size(settings.block_size, source)
    if settings.block_size == "auto" and truncated(settings):
        found = max(found, min(PIECE_BYTES, source.nbytes // LEAST_BLOCKS))
    return found


def _starts(
    X: NDArray[Any],
    weight: Floats | None,
    settings: FitSettings,
    random_state: np.random.RandomState,
    *,
    init: Init | None,
    whole: bool,
    n_threads: int,
) -> list[Mixture]:
    """The starts of all rows; where the sample is not `whole`, the best on it."""
    rows = parse_rows(X, weight)
    k = settings.n_components
    found: list[tuple[float, Floats]] = []
    for _ in range(settings.n_init):
        if init is not None:
            centres = np.asarray(init(X, k, random_state), np.float64)
        elif settings.init_params == "random":
            p = np.ones(len(X)) if weight is None else weight
            chosen = random_state.choice(len(X), size=k, replace=False, p=p / p.sum())
            centres = X[chosen].astype(np.float64)
        elif truncated(settings):
            centres = _drawn(rows, k, random_state)
        else:
            centres, _ = kmeans_plusplus(rows, k, random_state, n_threads=n_threads)
        check_centres(centres, k, X.shape[1])
        found.append((0.0, centres))
    if truncated(settings) and not whole and len(found) > 1:
        reached = [Table.of(c).assign(rows.X, rows.weight)[1][2] for _, c in found]
        found = [found[int(np.argmin(reached))]]
    elif not truncated(settings) and not whole:
        ends = [
            lloyd(rows, start, max_iter=settings.max_iter, tol=settings.tol, n_threads=n_threads)
            for _, start in found
        ]
        found = [min(((end.inertia, end.centres) for end in ends), key=lambda each: each[0])]
    family = settings.family
    assert isinstance(family, Centroids)
    return [centroids(centres, rows.variance, family) for _, centres in found]


def _drawn(rows: Rows, k: int, random_state: np.random.RandomState) -> Floats:
    """Centres (K, D) of very many clusters of few rows."""
    weight = rows.weight if rows.weight.size else np.ones(len(rows.X))
    X, weight = rows.X[weight > 0], weight[weight > 0]
    labels = tree_labels(X, weight if rows.weight.size else None, k, random_state)
    mass = np.bincount(labels, weights=weight, minlength=k)
    about = X[0].astype(np.float64)
    sums = np.zeros((k, X.shape[1]))
    np.add.at(sums, labels, weight[:, None] * (X - about))
    return np.asarray(about + sums / np.where(mass > 0, mass, 1.0)[:, None])


def centroids(centres: Floats, variance: float, family: Centroids | None = None) -> Mixture:
    """The mixture of centres (K, D) of equal weight, with a variance that all share."""
    family = Centroids() if family is None else family
    shared = np.array([max(variance, family.least_variance)])
    k = len(centres)
    return Mixture(np.full(k, 1 / k), CentroidComponents(family, centres, shared))


def _history(
    best: Ascent, source: Source, final: Statistics | None = None
) -> dict[str, NDArray[Any]]:
    """As of a fit, and the inertia, which F tells: at its maximum over σ² the two go together.

    Where rows were compared with some centres only, `final` are the statistics of the last read,
    and there are ``inertia_of_sets``, ``inertia_error`` and ``agreement``.
    """
    steps = list(best.steps)
    if steps and final is not None:
        steps[-1] = replace(steps[-1])
        steps[-1].looked_at(final)
    found = history(steps, source, final is not None)
    if final is not None:
        found["inertia_of_sets"] = found.pop("kl_of_sets")
        found["inertia_error"] = found.pop("kl_error")
    found["log_likelihood"] = np.full(len(best.steps), np.nan)
    found["kl"] = found["log_likelihood"]
    weight = sum(group.weight for group in best.groups)
    n_values = weight * source.n_features
    uniform = weight * np.log(np.count_nonzero(best.mixture.weights))
    variance = np.exp(-2 * (found["free_energy"] + uniform) / n_values - 1) / (2 * np.pi)
    variance[variance <= 2 * Centroids().least_variance] = 0.0
    return found | {"inertia": n_values * variance}
