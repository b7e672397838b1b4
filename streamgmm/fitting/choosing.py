"""Where every candidate of a session starts, and how far that has come."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamgmm.errors import DegenerateComponentError
from streamgmm.fitting.contest import Contest, Sample
from streamgmm.fitting.effort import Effort
from streamgmm.fitting.job import Job
from streamgmm.fitting.reading import Progress, Reader
from streamgmm.fitting.run import Run
from streamgmm.fitting.sample import Summary
from streamgmm.fitting.starts import champion, climb_sample, decide
from streamgmm.model.mixture import Mixture
from streamgmm.progress import describe, log_event


@dataclass(frozen=True)
class Chooser:
    """Finds the starts of a session, and notes in its `run` all that is known.

    `save` is called whenever there is something new to write into a checkpoint; `n_threads`
    and `client` say where the trials of starts run.
    """

    job: Job
    run: Run
    reader: Reader
    random_state: np.random.RandomState
    save: Callable[[], None]
    n_threads: int | None
    client: Any

    def choose(self) -> None:
        """Starts of every candidate: as scikit-learn draws them, or the best of a contest."""
        run, job = self.run, self.job
        assert run.sample is not None
        if not run.starts and any(job.efforts):
            self._compare(run.sample)
        for i, (each, effort) in enumerate(zip(job.candidates, job.efforts, strict=True)):
            if i < len(run.starts):
                continue
            try:
                if effort is None:
                    found = job.draw(*run.sample.known, each, self.random_state)
                    run.facts.append((len(found), job.why))
                else:
                    found = [self._settle(i, effort)]
                run.starts.append(found)
            except DegenerateComponentError as error:
                run.starts.append(str(error))
            self.save()

    def _compare(self, summary: Summary) -> None:
        """Run the contests of all candidates side by side."""
        run, job = self.run, self.job
        if run.contests:
            contests = [
                Contest.restored(state, each, effort)
                for state, each, effort in zip(
                    run.contests, job.candidates, job.efforts, strict=True
                )
                if effort is not None
            ]
        else:
            contests = [
                Contest(each, effort, job.seed + i % job.restarts, len(summary.rows))
                for i, (each, effort) in enumerate(zip(job.candidates, job.efforts, strict=True))
                if effort is not None
            ]

        def after() -> None:
            run.contests = [contest.state() for contest in contests]
            self._tell(contests)
            self.save()

        most = max(contest.effort.most_rows for contest in contests)
        sample = Sample(*summary.first(most))
        decide(contests, sample, n_threads=self.n_threads, client=self.client, after=after)
        run.facts = [(contest.tried, contest.why) for contest in contests]
        run.contests = [contest.state() for contest in contests]

    def _settle(self, i: int, effort: Effort) -> Mixture:
        """The champion of a contest, at the top of the sample where that is a part of the rows."""
        run, settings = self.run, self.job.candidates[i]
        mixture = champion(Contest.restored(run.contests[i], settings, effort))
        if not self.job.partial:
            return mixture
        assert run.sample is not None
        sample = Sample(*run.sample.known)
        return climb_sample(
            mixture, sample, settings, n_threads=self.n_threads, client=self.client
        )

    def _tell(self, contests: Sequence[Contest]) -> None:
        """Say how far the starts are."""
        tried = sum(contest.tried for contest in contests)
        most = sum(contest.effort.n_starts for contest in contests)
        best = contests[0].leading if len(contests) == 1 else float("nan")
        over = all(contest.why for contest in contests)
        event = Progress(
            "starts",
            0,
            tried,
            tried if over else most,
            best,
            finished=over,
            seconds=time.perf_counter() - self.reader.began,
        )
        self.reader.tell(event)
        said = describe(event)
        if over:
            said += f"; {'; '.join(dict.fromkeys(contest.why for contest in contests))}"
        log_event(event, said)
