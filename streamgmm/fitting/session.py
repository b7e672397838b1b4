"""What a fit and a selection have in common: pass 0, starts, shared reads, one last read.

A session opens what reads the rows, refuses what cannot fit in memory, and keeps the checkpoint.
A fit is a session with one candidate, a selection one with many.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError
from streamgmm.fitting.ascent import Ascent
from streamgmm.fitting.choosing import Chooser
from streamgmm.fitting.job import Job
from streamgmm.fitting.memory import refuse_too_large
from streamgmm.fitting.reading import Progress, Reader, climb, score_block
from streamgmm.fitting.rules import Request
from streamgmm.fitting.run import GLOBAL, Run
from streamgmm.fitting.sample import Summary, summarize
from streamgmm.fitting.sets import open_sets
from streamgmm.fitting.settings import truncated
from streamgmm.fitting.stability import Pairs
from streamgmm.kernels.ahead import compiling_ahead
from streamgmm.model.families import settings_of, with_settings
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Moments
from streamgmm.model.truncation.sets import Turn
from streamgmm.passes import one_blas_thread, open_executor
from streamgmm.places import ZarrStore
from streamgmm.sources import Source, kept_bytes
from streamgmm.storage.checkpoint import Checkpoint, fingerprint

CHANGED_TOLERANCE = 1e-7  # standard deviations by which the mean of unchanged rows may wander
_log = logging.getLogger("streamgmm")


@contextmanager
def open_session(
    job: Job,
    random_state: np.random.RandomState,
    *,
    began: float,
    client: Any = None,
    n_threads: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    checkpoint: str | os.PathLike[str] | ZarrStore | None = None,
) -> Iterator[Session]:
    """Open what reads the rows, and take up what a checkpoint has; `began` is when the call was.

    Raises
    ------
    PlanError
        If it cannot fit in the memory of the workers, or of this machine.
    CheckpointError
        If the checkpoint is of other data or other settings, or another job writes it.
    """
    source, first = job.source, job.candidates[0]
    keep = kept_bytes(source, job.blocks) if first.cache else 0
    with (
        one_blas_thread(),  # once, and not for every pass
        open_executor(job.blocks, n_threads=n_threads, client=client, keep=keep) as executor,
        nullcontext() if checkpoint is None else Checkpoint(checkpoint) as opened,
        ExitStack() as cleanup,
        compiling_ahead([] if hasattr(executor, "client") else job.compiled_later(n_threads)),
    ):
        cluster = getattr(executor, "client", None)
        n_starts = first.n_init if None in job.efforts and job.given is None else 1
        for batch in job.batches:
            together = [job.candidates[i] for i in batch] * n_starts
            refuse_too_large(source, job.blocks, together, client=cluster)
        reader = Reader(executor, job.blocks, source.name, job.groups, on_progress, job.holdout)
        reader.began = began
        if truncated(first):
            reader.sets = cleanup.enter_context(
                open_sets(source, job.blocks, first, checkpoint, cluster, n_starts)
            )
        session = Session(job, reader, opened, random_state, n_threads, cluster)
        if opened is not None:
            mark = fingerprint(source, job.blocks, len(job.groups), executor, job.needs)
            session.resume(Run.restored(opened.load(mark), job.rules, opened.name))
            executor.known.update(i for known in session.run.known for i in range(*known))
        session.known = executor.known
        yield session


class Session:
    """A fit or a selection under way; each step does what is left of it.

    Attributes
    ----------
    run : Run
        All that is known so far.
    """

    def __init__(
        self,
        job: Job,
        reader: Reader,
        checkpoint: Checkpoint | None,
        random_state: np.random.RandomState,
        n_threads: int | None,
        client: Any,
    ) -> None:
        self.job, self.run = job, Run(job.source.name)
        self.known: set[int] = set()
        self._part, self._since = "", 0.0
        self._reader, self._checkpoint = reader, checkpoint
        self._random_state, self._n_threads, self._client = random_state, n_threads, client

    def resume(self, run: Run | None) -> None:
        """Go on from what a checkpoint knows."""
        if run is None:
            return
        if run.name != self.job.source.name:
            run.check_same(self._overall(self._look()), self.job.source.name, self._checkpoint)
        self.run = run
        self._inform()
        if run.ascents:
            made = max(len(ascent.steps) for ascent in run.ascents)
            where = f"after iteration {made}"
        else:
            where = "in the starts"
        if self._random_state is not GLOBAL and run.random is not None:
            self._random_state.set_state(run.random)
        self._reader.passes = run.passes
        self._reader.began -= sum(run.seconds.values())
        self._reader.skipped = run.skipped
        if self._checkpoint is not None:
            _log.info("going on from the checkpoint '%s' %s", self._checkpoint.name, where)

    def sample(self) -> None:
        """Pass 0, unless it has been made."""
        run = self.run
        if run.overall is not None:
            return
        with self._timed("sample"):
            summary = self._look()
        run.sample = replace(summary, surveys=())
        run.read = self._reader.last_read
        run.skipped = summary.skipped
        if self.job.seen is not None:
            run.skipped = self.job.seen.skipped + summary.skipped
        run.overall = self._overall(summary)
        self._check_summary(summary)
        run.families = self._settings(summary)
        self._inform()
        self._reader.skipped = run.skipped
        run.random = self._random_state.get_state(legacy=False)
        self.save()

    def start(self) -> None:
        """Find where every candidate starts, unless that is known.

        Raises
        ------
        DegenerateComponentError
            If no candidate can be started.
        """
        run, job = self.run, self.job
        if run.ascents:
            return
        with self._timed("starts"):
            if job.given is not None:
                run.starts, run.facts = [[job.given]], [(1, "it was given")]
            else:
                Chooser(
                    job,
                    run,
                    self._reader,
                    self._random_state,
                    lambda: self.save(whole=False),
                    self._n_threads,
                    self._client,
                ).choose()
            run.random = self._random_state.get_state(legacy=False)
        failures = [each for each in run.starts if isinstance(each, str)]
        if len(failures) == len(run.starts):
            raise job.candidates[0].family.degenerate(failures[0])
        assert run.sample is not None
        pool = None
        if job.candidates[0].empty_components == "reseed":
            pool = run.sample.rows
        known = [] if job.seen is None else job.seen.groups
        run.ascents = [
            Ascent(
                mixture, job.rules, job.bound, passes=self._reader.passes, groups=[*known],
                pool=pool, read=run.read, number=number,
            )
            for number, mixture in enumerate(
                mixture
                for mixtures in run.starts if not isinstance(mixtures, str)
                for mixture in mixtures
            )
        ]  # fmt: skip
        run.sample, run.contests = None, []
        self.save(wait=False)

    def climb(self, ascents: Sequence[Ascent], leave: Callable[[], None] | None = None) -> None:
        """Take ascents up together, in shared reads."""
        with self._timed("passes"):
            climb(ascents, self._reader, leave=leave, after=self.save)

    def score(
        self, mixtures: Sequence[Mixture], pairs: Pairs = (), turns: Sequence[Turn] = ()
    ) -> None:
        """The last read: of the data themselves, whatever is kept of them.

        The labels of `pairs` of the mixtures are compared. `turns` are the reads that this is for
        the climbs that ended at the mixtures.

        Raises
        ------
        DataError
            If the rows are not those that pass 0 read.
        """
        run = self.run
        if run.final is None:
            with self._timed("last_read"):
                hard = self.job.rules.hard
                each = turns or [Turn(0, 0)] * len(mixtures)
                requests = [
                    Request(mixture, None, hard=hard, turn=turn)
                    for mixture, turn in zip(mixtures, each, strict=True)
                ]
                reading = self._reader.reading(requests, pairs)
                run.final = self._reader.run(score_block, reading, "score", afresh=True)
            self._check_unchanged()
            self.save(wait=True)

    def save(self, whole: bool = True, wait: bool = False) -> None:
        """Write the checkpoint, where there is one."""
        if self._checkpoint is not None:
            self._count()
            self.run.passes, self.run.known = self._reader.passes, _runs(self.known)
            # The next read puts its sets in the place of those that this state would go on from.
            wait = wait or (whole and self._reader.sets is not None)
            self._checkpoint.save(self.run.state(), whole=whole, wait=wait)

    def some_rows(self, n: int) -> NDArray[Any]:
        """Up to n of the rows (m, D) that pass 0 sampled; read again where they are let go."""
        summary = self._look() if self.run.sample is None else self.run.sample
        return summary.first(n)[0]

    @property
    def passes(self) -> float:
        """Reads so far."""
        return self._reader.passes

    @property
    def timings(self) -> dict[str, Any]:
        """Seconds of each part and in all, and how many starts were tried, and why so many.

        Of several candidates, starts of all together, and the reasons that there were.
        """
        parts = {name: self.run.seconds.get(name, 0.0) for name in PARTS}
        total = time.perf_counter() - self._reader.began
        tried = sum(each for each, _ in self.run.facts)
        why = "; ".join(dict.fromkeys(reason for _, reason in self.run.facts))
        return parts | {"total": total, "n_starts": tried, "why": why}

    def _look(self) -> Summary:
        new = None if self.job.seen is None else len(self.job.groups) - 1
        plan = self.job.plan
        summary: Summary = self._reader.run(summarize, plan, "sample", group=new)
        needed = self.job.given is None and len(summary.rows) < plan.size // 2
        if needed and plan.thorough != plan:
            summary = self._reader.run(summarize, plan.thorough, "sample", group=new)
        return summary.trimmed(plan.size)

    def _settings(self, summary: Summary) -> list[dict[str, Any]]:
        """Settings of the candidates' families, some of which are taken from the rows."""
        surveys = dict(zip(self.job.plan.families, summary.surveys, strict=True))
        found = []
        for each in self.job.candidates:
            family, survey = each.family, surveys.get(each.family)
            if family.surveys and survey is not None:
                family = family.informed(survey)
            found.append(settings_of(family))
        return found

    def _inform(self) -> None:
        """Give the candidates the settings that pass 0 has completed."""
        candidates = [
            replace(each, family=with_settings(each.family, settings))
            if each.family.surveys
            else each
            for each, settings in zip(self.job.candidates, self.run.families, strict=False)
        ]
        if candidates:
            self.job = replace(self.job, candidates=candidates)

    def _overall(self, summary: Summary) -> Moments:
        seen = self.job.seen
        return summary.moments if seen is None else seen.overall.merge(summary.moments)

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        """Count the seconds of one part of the work."""
        self._part, self._since = part, time.perf_counter()
        try:
            yield
        finally:
            self._count()
            self._part = ""

    def _count(self) -> None:
        """Count the seconds since the last count."""
        if self._part:
            now = time.perf_counter()
            spent = self.run.seconds.get(self._part, 0.0) + now - self._since
            self.run.seconds[self._part], self._since = spent, now

    def _check_summary(self, summary: Summary) -> None:
        name, overall = self.job.source.name, self.run.overall
        assert overall is not None
        if not overall.weight.any():
            why = "all sample weights are zero" if summary.n_rows else "no row can be read"
            raise DataError(f"{name}: {why}; nothing to fit")
        if not overall.weight.all():
            listed = _columns(self.job.source, np.flatnonzero(overall.weight == 0))
            raise DataError(
                f"{name}: nothing was observed of {listed}; leave it out, since no row says "
                "anything about it"
            )
        most = max(each.n_components for each in self.job.candidates)
        if summary.skipped and summary.n_rows < most:
            raise DataError(
                f"{name}: only {summary.n_rows} rows can be read, fewer than n_components = {most}"
            )
        if self.job.given is None and len(summary.rows) < most:
            raise DataError(
                f"{name}: only {len(summary.rows)} rows have a weight above zero, fewer than "
                f"n_components = {most}"
            )

    def _check_unchanged(self) -> None:
        """The weighted mean of all rows comes with the last read: it must be pass 0's."""
        run, source = self.run, self.job.source
        assert run.final is not None
        assert run.overall is not None
        statistics, overall = run.final.training.each[0], run.overall
        mean = overall.mean.ravel()
        seen = run.final.row_mean(mean)
        sigma = np.sqrt((overall.scatter / overall.weight[:, None]).ravel())
        room = CHANGED_TOLERANCE * sigma + 1e-12 * np.abs(mean)
        expected = source.n_samples - sum(stop - start for start, stop in run.skipped)
        fewer = statistics.n_rows < expected and not getattr(source, "omits", False)
        if statistics.n_rows > expected or fewer or np.any(np.abs(seen) > room):
            raise DataError(
                f"{source.name} changed while it was being fitted: its rows are not those that "
                "the first pass read; fit a copy that nothing writes to"
            )


PARTS = ("sample", "starts", "passes", "last_read")


def _columns(source: Source, columns: NDArray[np.intp]) -> str:
    """Name columns, as messages do."""
    names = getattr(source, "feature_names", None)
    if names is None:
        names = getattr(source, "column_names", None)
    listed = [f"'{names[c]}'" if names is not None else str(c) for c in columns[:8]]
    more = ", ..." if len(columns) > 8 else ""
    return f"feature{'s' if len(columns) > 1 else ''} {', '.join(listed)}{more}"


def _runs(indices: set[int]) -> tuple[tuple[int, int], ...]:
    """Write a set as runs (start, stop).

    >>> _runs({0, 1, 2, 5})
    ((0, 3), (5, 6))
    """
    starts = sorted(i for i in indices if i - 1 not in indices)
    stops = sorted(i + 1 for i in indices if i + 1 not in indices)
    return tuple(zip(starts, stops, strict=True))
