"""The fit that ends a warm-up. It pauses when its quota of work is spent, and can be resumed.

The rules are those of `streamgmm.fitting`. Where rows are few, every start runs EM on all of
them until it converges, and the best one is taken. Elsewhere a `Contest` compares starts on a
sample of the rows, and its champion runs EM on all rows. A last E-step under the result gives the
statistics from which stepwise EM continues.

The work is done in small parts: a start that is drawn, one slice of the rows of an E-step, or an
M-step. So a call of `WarmUp.advance` costs little more than its quota, however many rows,
components and features there are. The result has the same bits wherever it pauses, because the
same values are computed in the same order.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from streamgmm.errors import DegenerateComponentError
from streamgmm.fitting.ascent import Ascent
from streamgmm.fitting.contest import Contest, Standing, Trial
from streamgmm.fitting.initial import initial_mixture
from streamgmm.fitting.rules import Rules
from streamgmm.fitting.starts import champion
from streamgmm.model.mixture import Mixture, Statistics, e_step
from streamgmm.model.moments import Floats
from streamgmm.online.gaps import check_observed
from streamgmm.online.settings import OnlineSettings
from streamgmm.online.starting import apart_of, fit_settings, informed, plan_starts
from streamgmm.online.work import Costs
from streamgmm.passes import one_blas_thread

TOLERANCE = 1e-5  # nats a row that are still to be gained when the last climb has converged
MOST_ITERATIONS = 500


@dataclass
class Reading:
    """An E-step of the first `n_rows` rows under a mixture, which can pause after every slice.

    `total` holds the statistics of the rows before row `at`. Scatters are summed about `centres`;
    None leaves the choice to the family.
    """

    mixture: Mixture
    centres: Floats | None
    n_rows: int
    at: int = 0
    total: Statistics | None = None

    @property
    def over(self) -> bool:
        """Whether all rows have been read."""
        return self.at >= self.n_rows


class WarmUp:
    """A resumable fit of the rows of a warm-up.

    Attributes
    ----------
    rows : ndarray of shape (n, n_features)
        float64, in the order in which they came. They are never changed.
    weight : ndarray of shape (n,) or None
        None where all rows weigh the same.
    contest : Contest
        Of the starts.
    told : list of Standing
        What the trials of this round have reached so far.
    ascent : Ascent or None
        EM that is under way, of a trial or of the champion.
    reading : Reading or None
        The E-step that is under way.
    chosen : Mixture or None
        The result, once it is known. The last E-step follows.
    spent : int
        Units of work of the latest `advance`.
    """

    def __init__(
        self, settings: OnlineSettings, rows: NDArray[Any], weight: Floats | None
    ) -> None:
        check_observed(settings, rows)
        self.rows, self.weight = rows, weight
        self._settings, self.asked = settings, fit_settings(settings)
        self.how = informed(self.asked, rows)
        self._seed = settings.seed
        self._costs = Costs(settings.n_components, rows.shape[1], self.how.family)
        self._small, self._effort = plan_starts(self.how, *rows.shape)
        self.contest = Contest(self.how, self._effort, settings.seed, len(rows))
        self.told: list[Standing] = []
        self.ascent: Ascent | None = None
        self.reading: Reading | None = None
        self.chosen: Mixture | None = None
        self.spent = 0
        self._sample: tuple[int, NDArray[Any], Floats | None] | None = None

    def advance(self, quota: float) -> Statistics | None:
        """Work until the fit is over, or until the next part would exceed the quota.

        At least one part is done. Once the fit is over, it returns the statistics of the rows
        under `apart_of` the mixture that it has `chosen`; before, None.

        Raises
        ------
        DegenerateComponentError
            If no start leads to components that the rows determine.
        """
        self.spent = 0
        with one_blas_thread():
            while not self.over:
                cost = self._next_cost()
                if self.spent and self.spent + cost > quota:
                    break
                self._do_next()
                self.spent += max(1, cost)
        self._sample = None
        return self.reading.total if self.over and self.reading is not None else None

    @property
    def over(self) -> bool:
        """Whether all is done."""
        return self.chosen is not None and self.reading is not None and self.reading.over

    def cut(self) -> None:
        """End the fit at the best start so far; raises DegenerateComponentError."""
        if self.chosen is None:
            self._choose(self.best())

    def best(self) -> Mixture:
        """The best mixture so far; raises DegenerateComponentError if every start has failed."""
        if self.chosen is not None:
            return self.chosen
        if self.contest.why and self.ascent is not None:
            return self.ascent.mixture
        known = (*self.contest.champions, *self.contest.standings, *self.told)
        found = max(known, key=lambda s: (s.reached, s.mixture is not None))
        if found.mixture is not None:
            return found.mixture
        if self.ascent is not None:
            return self.ascent.mixture
        raise self.how.family.degenerate(next(s.error for s in known if s.error))

    def _next_cost(self) -> int:
        """Units of the next part."""
        reading = self.reading
        if reading is None:
            trial = self._trial()
            if trial.mixture is not None:
                return 0
            return self._costs.draw(*self._how_drawn(trial))
        if reading.over:
            return self._costs.m_step
        return min(self._costs.slice_rows, reading.n_rows - reading.at) * self._costs.row

    def _do_next(self) -> None:
        """Do the next part."""
        if self.reading is None:
            self._begin(self._trial())
        elif self.reading.over:
            self._climb(self.reading)
        else:
            self._read(self.reading)

    def _trial(self) -> Trial:
        """The trial whose turn it is."""
        return self.contest.trials()[len(self.told)]

    def _how_drawn(self, trial: Trial) -> tuple[str, int, int]:
        """How a start is drawn, with how many iterations of k-means, and from how many rows.

        As in `Trial.draw`, every third start of a contest is from the rows nearest to random rows.
        """
        near = trial.number % 3 == 2 and not self._small
        how = "nearest" if near else self.how.init_params
        return self._costs.plan_draw(how, trial.n_rows)

    def _begin(self, trial: Trial) -> None:
        """Draw a start, unless that has been done, and begin to run EM from it."""
        try:
            mixture = trial.mixture or self._draw(trial)
        except DegenerateComponentError as error:
            self._tell(Standing(trial.number, None, error=str(error)))
        else:
            self._send_up(mixture, trial.n_rows)

    def _draw(self, trial: Trial) -> Mixture:
        """A start; raises DegenerateComponentError."""
        how, iterations, n_rows = self._how_drawn(trial)
        rows, weight = self._first(trial.n_rows)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of fewer distinct rows
            return initial_mixture(
                rows[:n_rows],
                None if weight is None else weight[:n_rows],
                self.how.family,
                self.how.n_components,
                how,
                np.random.RandomState([self._seed, trial.number]),
                kmeans_iter=iterations,
            )

    def _send_up(self, mixture: Mixture, n_rows: int) -> None:
        """Begin EM from a mixture, on the first rows."""
        self.ascent = Ascent(mixture, self._rules())
        self._ask(n_rows)

    def _rules(self) -> Rules:
        """When EM stops: after a few iterations in a contest, else when it has converged."""
        if self._small or self.contest.why:
            return Rules(TOLERANCE, MOST_ITERATIONS, accelerate=True)
        iterations = self.contest.trials()[0].iterations
        return Rules(1e-6, iterations, accelerate=True, statistical=True)

    def _ask(self, n_rows: int) -> None:
        """Begin the E-step that the ascent requests."""
        assert self.ascent is not None
        request = self.ascent.request
        assert request is not None
        self.reading = Reading(request.mixture, request.centres, n_rows)

    def _read(self, reading: Reading) -> None:
        """The E-step of the next slice."""
        rows, weight = self._first(reading.n_rows)
        stop = min(reading.at + self._costs.slice_rows, reading.n_rows)
        part = slice(reading.at, stop)
        found = e_step(
            reading.mixture,
            rows[part],
            None if weight is None else weight[part],
            centres=reading.centres,
        )
        reading.total = found if reading.total is None else reading.total.merge(found)
        reading.at = stop

    def _climb(self, reading: Reading) -> None:
        """The M-step, and what follows where it was the last one of an ascent."""
        ascent, statistics = self.ascent, reading.total
        assert ascent is not None
        assert statistics is not None
        self.reading = None
        standings = self.contest.standings  # none of them where the contest is over
        number = standings[len(self.told)].number if standings else -1
        try:
            ascent.advance(statistics, 1.0)
        except DegenerateComponentError as error:
            if not standings:
                raise
            self._tell(Standing(number, None, error=str(error)))
            return
        if ascent.request is not None:
            self._ask(reading.n_rows)
        elif standings:
            reached = float(ascent.free_energy / statistics.weight)
            self._tell(Standing(number, ascent.mixture, reached))
        else:
            self._choose(ascent.mixture)

    def _tell(self, standing: Standing) -> None:
        """Note the result of a trial. After the last trial, continue with the champion."""
        self.ascent = None
        self.told.append(standing)
        if len(self.told) < len(self.contest.standings):
            return
        self.contest.tell(self.told)
        self.told = []
        if self.contest.why and self._small:
            self._choose(champion(self.contest))
        elif self.contest.why:
            self._send_up(champion(self.contest), len(self.rows))

    def _choose(self, mixture: Mixture) -> None:
        """Begin the last E-step."""
        self.ascent, self.chosen = None, mixture
        self.reading = Reading(apart_of(self._settings, mixture), None, len(self.rows))

    def _first(self, n_rows: int) -> tuple[NDArray[Any], Floats | None]:
        """A sample of so many rows; all rows in their order where it is as large as that."""
        if n_rows == len(self.rows):
            return self.rows, self.weight
        if self._sample is None or self._sample[0] != n_rows:
            order = np.random.RandomState([self._seed, 1]).permutation(len(self.rows))[:n_rows]
            weight = None if self.weight is None else self.weight[order]
            self._sample = n_rows, self.rows[order], weight
        return self._sample[1:]

    def state(self) -> dict[str, Any]:
        """Everything that `restored` needs except rows and settings.

        It is a snapshot: it does not change with later calls of `advance`.
        """
        return {
            "contest": self.contest.state(),
            "told": [tuple(standing) for standing in self.told],
            "ascent": None if self.ascent is None else self.ascent.state(),
            "reading": None if self.reading is None else list(vars(self.reading).values()),
            "chosen": self.chosen,
        }

    @classmethod
    def restored(
        cls,
        settings: OnlineSettings,
        rows: NDArray[Any],
        weight: Floats | None,
        state: Mapping[str, Any],
    ) -> WarmUp:
        """Resume from what `state` has returned."""
        found = cls(settings, rows, weight)
        found.contest = Contest.restored(dict(state["contest"]), found.how, found._effort)
        found.told = [Standing(*standing) for standing in state["told"]]
        if state["ascent"] is not None:
            found.ascent = Ascent.restored(dict(state["ascent"]), found._rules())
        if state["reading"] is not None:
            found.reading = Reading(*state["reading"])
        found.chosen = state["chosen"]
        return found
