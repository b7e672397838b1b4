"""Reads that candidates share: any number of ascents, one pass over the blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from streamgmm.errors import DegenerateComponentError
from streamgmm.fitting.ascent import Ascent
from streamgmm.fitting.rules import Request
from streamgmm.fitting.sample import Holdout, RowSums, check_suitable
from streamgmm.fitting.stability import Pairs, count_pairs
from streamgmm.model.components import NO_WEIGHT, takes_gaps
from streamgmm.model.mixture import EStep, Statistics
from streamgmm.model.moments import Floats, Moments
from streamgmm.model.truncation.sets import Carried, Sets
from streamgmm.passes import Carry, Executor, one_blas_thread
from streamgmm.progress import log_event
from streamgmm.sources import Block, Piece, check_finite, without_rows


@dataclass(frozen=True)
class Progress:
    """What a pass tells while it runs.

    `stage` is ``"sample"`` (pass 0), ``"starts"``, ``"em"`` or ``"score"`` (the last pass, at the
    parameters returned). `rows` of `n_rows` have been read in this pass, or starts been tried of
    as many as there may be; `iteration` counts from 1;
    `lower_bound` (nats a row) and `change` are of the last finished iteration of candidate
    `candidate`; NaN before the first. So are `gap`, what the bound is expected to rise by still,
    `rows_per_second`, `seconds` since the call, and `seconds_left`.
    """

    stage: str
    iteration: int
    rows: int
    n_rows: int
    lower_bound: float = float("nan")
    change: float = float("nan")
    candidate: int = 0
    finished: bool = False
    gap: float = float("nan")
    rows_per_second: float = float("nan")
    seconds: float = float("nan")
    seconds_left: float = float("nan")


@dataclass(frozen=True, eq=False)
class Bundle:
    """The statistics of several candidates, read for together."""

    each: tuple[Statistics, ...]

    def merge(self, other: Bundle) -> Bundle:
        """Candidate by candidate."""
        return Bundle(tuple(a.merge(b) for a, b in zip(self.each, other.each, strict=True)))


@dataclass(frozen=True, eq=False)
class Reading:
    """What every block of the array `name` is read for, less held-out and skipped rows.

    Requests are all hard, or none is. `pairs` are requests whose labels are compared in the last
    read. `sets` are where the components that rows look at are kept from one read to the next.
    """

    name: str
    requests: tuple[Request, ...]
    holdout: Holdout | None = None
    skipped: tuple[tuple[int, int], ...] = ()
    pairs: Pairs = ()
    sets: Sets | None = None

    @property
    def carry(self) -> Carry | None:
        """The sets that blocks take and leave, where workers keep them: see `Carrying`."""
        if not isinstance(self.sets, Carried):
            return None
        turns = tuple(request.turn for request in self.requests)
        return Carry(
            tuple(turn._replace(read=turn.read - 1) for turn in turns if turn.read),
            turns,
            tuple(turn._replace(read=turn.read - 2) for turn in turns),
        )

    def carrying(self, before: Mapping[Any, Any], left: dict[Any, Any]) -> Reading:
        """The same for one task: see `Carrying`."""
        return replace(self, sets=Carried(before, left))


class _Block:
    """The E-steps of a block, for every request."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        hard = any(r.hard for r in reading.requests)
        mixtures = [(r.mixture, r.centres) for r in reading.requests]
        turns = [r.turn for r in reading.requests]
        self._step = EStep(mixtures, hard, reading.sets, turns)

    def add(self, piece: Piece) -> Floats:
        """Run the E-steps of one piece; gives the weights that its rows counted by, or none."""
        weights = NO_WEIGHT if piece.sample_weight is None else piece.sample_weight
        if self._reading.holdout is not None:
            weights = self._reading.holdout.weights(piece)
        self._step.add(piece.rows, weights, piece.start)
        return weights

    def result(self, block: Block) -> Bundle:
        """Statistics of the block; raises DataError, NonFiniteError."""
        bundle = Bundle(self._step.result())
        if not all(-1e280 < s.log_likelihood < np.inf for s in bundle.each):
            for piece in block.pieces():
                families = [request.mixture.family for request in self._reading.requests]
                check_finite(piece, self._reading.name, all(map(takes_gaps, families)))
                for request in self._reading.requests:
                    check_suitable(request.mixture.family, piece, self._reading.name)
        return bundle


def read_block(reading: Reading, block: Block) -> Bundle:
    """E-steps of one block for every request; raises NonFiniteError."""
    block = without_rows(block, reading.skipped)
    sums = _Block(reading)
    for piece in block.pieces():
        sums.add(piece)
    return sums.result(block)


@dataclass(frozen=True, eq=False)
class Scores:
    """Statistics of the training rows, and sums over held-out rows, candidate by candidate.

    `held` (C, 3): total weight, Σ w log p, Σ w (log p)². `rows` are the moments of all training
    rows, one diagonal component, where the statistics do not tell their mean. `tables` are the
    contingency tables of the labels of all rows, for the pairs of the reading.
    """

    training: Bundle
    held: Floats
    rows: Moments | None = None
    tables: tuple[Floats, ...] = ()

    def merge(self, other: Scores) -> Scores:
        """Both sets of rows."""
        training = self.training.merge(other.training)
        rows = other.rows if self.rows is None else self.rows
        if self.rows is not None and other.rows is not None:
            rows = self.rows.merge(other.rows)
        tables = tuple(a + b for a, b in zip(self.tables, other.tables, strict=True))
        return Scores(training, self.held + other.held, rows, tables)

    def row_mean(self, about: Floats) -> Floats:
        """Weighted mean of the training rows less `about` (D,)."""
        if self.rows is not None:
            return np.asarray(self.rows.mean.ravel() - about)
        return np.asarray(self.training.each[0].components.row_mean(about))


def score_block(reading: Reading, block: Block) -> Scores:
    """Training statistics and held-out log-densities of one block, from one read of it."""
    family = reading.requests[0].mixture.family
    knows = family.tells_mean
    block = without_rows(block, reading.skipped)
    sums = _Block(reading)
    held = np.zeros((len(reading.requests), 3))
    moments: Moments | None = None
    rows_sums = RowSums(takes_gaps(family))
    tables = tuple(np.zeros([_size(reading, i) for i in pair]) for pair in reading.pairs)
    for piece in block.pieces():
        weights = sums.add(piece)
        if reading.pairs:
            counted = _compare(reading, piece)
            tables = tuple(a + b for a, b in zip(tables, counted, strict=True))
        if not knows:
            rows_sums.add(piece.rows, weights)
            moments = rows_sums.result()
        if reading.holdout is None:
            continue
        mask = reading.holdout.mask(piece.numbers())
        if not mask.any():
            continue
        rows = np.ascontiguousarray(piece.rows[mask])
        weight = np.ones(len(rows)) if piece.sample_weight is None else piece.sample_weight[mask]
        for c, request in enumerate(reading.requests):
            log_density = request.mixture.posterior(rows).log_density
            held[c] += weight.sum(), weight @ log_density, weight @ log_density**2
    return Scores(sums.result(block), held, moments, tables)


def _size(reading: Reading, i: int) -> int:
    return reading.requests[i].mixture.n_components


def _compare(reading: Reading, piece: Piece) -> tuple[Floats, ...]:
    """The contingency tables of the labels of a piece."""
    involved = sorted({i for pair in reading.pairs for i in pair})
    labels = {
        i: reading.requests[i].mixture.posterior(piece.rows, labels=True).labels for i in involved
    }
    sizes = {i: _size(reading, i) for i in involved}
    return count_pairs(labels, sizes, reading.pairs, piece.sample_weight)


class Reader:
    """Reads the data for candidates, and counts what it reads.

    `groups` are the indices of the blocks of each group. `passes` counts passes over the rows;
    `last_read` is the share of them that the last run really read, and did not find kept. Seconds
    are counted from `began`, by ``time.perf_counter``.
    """

    def __init__(
        self,
        executor: Executor,
        blocks: Sequence[Block],
        name: str,
        groups: Sequence[Sequence[int]],
        on_progress: Callable[[Progress], None] | None = None,
        holdout: Holdout | None = None,
    ) -> None:
        self._executor, self._name, self._on_progress = executor, name, on_progress
        self._holdout = holdout
        self._groups = groups
        self._group_rows = [sum(blocks[i].n_rows for i in group) for group in groups]
        self.n_rows = sum(block.n_rows for block in blocks)
        self.began = time.perf_counter()
        self.passes = 0.0
        self.last_read = 0.0
        self.quiet = False
        self.skipped: tuple[tuple[int, int], ...] = ()
        self.sets: Sets | None = None

    def run(
        self,
        func: Callable[[Any, Block], Any],
        context: Any,
        stage: str,
        iteration: int = 0,
        group: int | None = None,
        afresh: bool = False,
    ) -> Any:
        """Run any function over one group of blocks (all, if None), and merge what it gives."""
        on_block = None
        on_progress = self._on_progress
        if on_progress is not None:
            done = round(self.passes % 1 * self.n_rows) if group is not None else 0

            def on_block(n: int) -> None:
                nonlocal done
                done += n
                on_progress(Progress(stage, iteration, done, self.n_rows))

        blocks = None if group is None else self._groups[group]
        began = time.perf_counter()
        before = self._executor.rows_read
        result = self._executor.run(func, context, on_block=on_block, blocks=blocks, afresh=afresh)
        self.last_read = (self._executor.rows_read - before) / self.n_rows
        if stage != "em" and not self.quiet:
            rows = round(self.share(group) * self.n_rows)
            seconds = time.perf_counter() - began
            speed = rows / max(seconds, 1e-9)
            said = f"{stage}: {rows:,} rows, {speed:,.0f} rows/s, {seconds:.1f} s"
            progress = Progress(
                stage, iteration, rows, rows, finished=True, rows_per_second=speed, seconds=seconds
            )
            log_event(progress, said)
        self.passes += self.share(group)
        return result

    def read(
        self,
        requests: Sequence[Request],
        group: int | None = None,
        stage: str = "em",
        iteration: int = 0,
        afresh: bool = False,
    ) -> tuple[Statistics, ...]:
        """Statistics for each request, from one read of a group of blocks (all, if None).

        Where that is to be `afresh`, from the data themselves, whatever is kept of them.
        """
        reading = self.reading(requests)
        bundle: Bundle = self.run(read_block, reading, stage, iteration, group, afresh)
        return tuple(_settled(s) for s in bundle.each)

    def reading(self, requests: Sequence[Request], pairs: Pairs = ()) -> Reading:
        """The context of a pass that reads for `requests`."""
        for request in requests:
            request.mixture.prepare()
        return Reading(self._name, tuple(requests), self._holdout, self.skipped, pairs, self.sets)

    def share(self, group: int | None) -> float:
        """The part of a full read that a group is."""
        return 1.0 if group is None else self._group_rows[group] / self.n_rows

    def tell(self, progress: Progress) -> None:
        """Pass on what a candidate has to say."""
        if self._on_progress is not None:
            self._on_progress(progress)


def _settled(statistics: Statistics) -> Statistics:
    """Statistics as they are when they have been stored, where sums of a read are otherwise."""
    components = statistics.components
    if not hasattr(components, "settled"):
        return statistics
    return replace(statistics, components=components.settled())


def deal(n_blocks: int, n_groups: int, first: int = 0) -> list[range]:
    """Deal blocks out to groups like cards, so that each is spread over the whole array.

    >>> deal(5, 2)
    [range(0, 5, 2), range(1, 5, 2)]
    """
    return [range(first + g, first + n_blocks, n_groups) for g in range(n_groups)]


def climb(
    ascents: Sequence[Ascent],
    reader: Reader,
    *,
    max_iter: int | None = None,
    leave: Callable[[], None] | None = None,
    after: Callable[[bool], None] | None = None,
) -> None:
    """Take all candidates up together until each has arrived, or made `max_iter` iterations.

    After every iteration `leave` may stop some of them. After every read `after` is called, and
    told whether it ended an iteration.

    A candidate whose parameters become singular is dropped, and says so in its `failure`.
    """
    while True:
        waiting = [
            a
            for a in ascents
            if a.request is not None and (max_iter is None or len(a.steps) < max_iter)
        ]
        if not waiting:
            break
        # Whoever is furthest behind goes first, so that all soon ask for the same group again.
        _, group = min((len(a.steps), a.request.group) for a in waiting if a.request)
        waiting = [a for a in waiting if a.request and a.request.group == group]
        iteration = max(len(a.steps) for a in waiting) + 1
        requests = [a.request for a in waiting if a.request]
        answers = reader.read(requests, group, iteration=iteration)
        whole = False
        for ascent, statistics in zip(waiting, answers, strict=True):
            known = len(ascent.steps)
            try:
                with one_blas_thread():
                    ascent.advance(statistics, reader.share(group), reader.last_read)
            except DegenerateComponentError as error:
                ascent.fail(str(error))
            if len(ascent.steps) > known:
                whole = True
                ascent.steps[-1].seconds = time.perf_counter() - reader.began
                _tell(reader, ascent, ascents.index(ascent))
        if leave is not None:
            leave()
        else:
            _stop_losers(ascents)
        if after is not None:
            after(whole)


def _stop_losers(ascents: Sequence[Ascent]) -> None:
    """Stop candidates that are expected to end below what another has reached already."""
    reached = max((a.free_energy for a in ascents if not a.failed), default=-np.inf)
    for ascent in ascents:
        if ascent.request is not None and ascent.predicted < reached and ascent.rules.race:
            ascent.stop()


def _tell(reader: Reader, ascent: Ascent, candidate: int) -> None:
    bounds, steps = ascent.bounds, ascent.steps
    change = bounds[-1] - bounds[-2] if len(bounds) > 1 else np.inf
    lapse = speed = float("nan")
    if len(steps) > 1:
        lapse = max(steps[-1].seconds - steps[-2].seconds, 1e-9)
        speed = (steps[-1].passes - steps[-2].passes) * reader.n_rows / lapse
    progress = Progress(
        "em",
        len(steps),
        reader.n_rows,
        reader.n_rows,
        bounds[-1],
        change,
        candidate,
        ascent.request is None,
        ascent.gap,
        speed,
        steps[-1].seconds,
        ascent.steps_left * lapse,
    )
    reader.tell(progress)
    if not reader.quiet:
        log_event(progress)
