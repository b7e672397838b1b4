"""The learner: the state of online learning, shared by the estimator and a follower.

A stream has four phases. First, rows are buffered until there are enough for a fit. Second, the
fit runs in parts, a quota of work with each batch, so that no batch takes long; rows that arrive
meanwhile wait in a queue. Third, the queue is replayed in order of arrival, again a quota with
each batch. Fourth, every batch is learned when it arrives.

The model after the replay has the same bits as if the fit had taken no time.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DegenerateComponentError, ParameterError, StreamGMMWarning
from streamgmm.fitting.sample import check_suitable
from streamgmm.kernels.ahead import compiling_ahead
from streamgmm.model.components import Family
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats
from streamgmm.online.adapt import Adapter, Change, adapt, hold, open_adapter
from streamgmm.online.drift import KINDS, Alarm
from streamgmm.online.gathering import (
    Gathered,
    advance,
    gather,
    mixture_so_far,
    rehearse_steps,
)
from streamgmm.online.settings import OnlineSettings
from streamgmm.online.state import Learned, OnlineState, check_size
from streamgmm.online.stepwise import mixture_of, step
from streamgmm.online.work import QUOTA, Costs
from streamgmm.sources import Piece

JOURNAL = 20_000  # batches that `monitor_` remembers, the latest; as many alarms and changes
QUEUE_BYTES = 64 << 20  # rows that may wait for the fit to end; then it is cut short
BATCH_ROWS = 10_000  # most rows of a batch, unless a step has more
COLUMNS = ("rows", "log_likelihood", *KINDS)
NAN = float("nan")


class Batch(NamedTuple):
    """Rows in the queue. Their weights are empty where every row weighs 1.

    The first `before` rows of the same batch went to the warm-up.
    """

    rows: NDArray[Any]
    weight: Floats
    before: int


class Learner:
    """A model that is learned batch by batch, and everything that is needed to go on.

    Attributes
    ----------
    settings : OnlineSettings
        They may be replaced between batches.
    n_features : int
    gathered : Gathered or None
        The warm-up: buffered rows, and their fit. None once it is over.
    queue : tuple of Batch
        Rows that wait for the end of the fit, in order of arrival.
    state : OnlineState or None
        The model. None during the warm-up.
    adapter : Adapter or None
        Held-out rows, where components are adapted.
    journal : deque of list of float
        The latest batches: values named `COLUMNS`.
    alarms : deque of Alarm
    changes : deque of Change
    """

    def __init__(self, settings: OnlineSettings, n_features: int) -> None:
        self.settings, self.n_features = settings, n_features
        self.gathered: Gathered | None = Gathered(n_features)
        self.queue: tuple[Batch, ...] = ()
        self.state: OnlineState | None = None
        self.adapter: Adapter | None = None
        self.journal: deque[list[float]] = deque(maxlen=JOURNAL)
        self.alarms: deque[Alarm] = deque(maxlen=JOURNAL)
        self.changes: deque[Change] = deque(maxlen=JOURNAL)
        self._held: tuple[Any, Mixture] | None = None

    @classmethod
    def of(cls, settings: OnlineSettings, state: OnlineState) -> Learner:
        """Go on from a model."""
        learner = cls(settings, state.n_features)
        learner.gathered, learner.state = None, state
        return learner

    def adopt(self, settings: OnlineSettings) -> None:
        """Go on with other settings; raises ParameterError if the family of a model changes."""
        check_family(self.settings.family if self.state else settings.family, settings.family)
        self.settings = settings

    @property
    def family(self) -> Family:
        """The family that is learned, with settings that the warm-up has found in its rows."""
        asked = self.settings.family
        if not asked.surveys or (self.state is None and not self.busy):
            return asked
        return self.mixture().family

    @property
    def n_rows(self) -> int:
        """Rows taken in: learned, held out or waiting."""
        known = self.state or self.gathered
        assert known is not None
        return known.n_rows + sum(len(batch.rows) for batch in self.queue)

    @property
    def waiting(self) -> list[NDArray[Any]]:
        """Rows that are not part of the model yet, in order of arrival."""
        gathered = [] if self.gathered is None else self.gathered.rows
        return [*gathered, *(batch.rows for batch in self.queue)]

    @property
    def most_rows(self) -> int:
        """Most rows of a batch. The caller cuts larger ones."""
        return max(BATCH_ROWS, self.settings.step_rows)

    @property
    def level(self) -> float:
        """Log-density of a row in nats: of the latest batch, or of the rows of the warm-up."""
        if self.state is not None:
            return self.state.level
        assert self.gathered is not None
        rows, weight = self.gathered.joined()
        density = self.mixture().posterior(rows).log_density
        return float(np.average(density, weights=weight))

    def learn(
        self, batches: Iterable[tuple[NDArray[Any], Floats]], quota: float | None = None
    ) -> list[Alarm]:
        """Learn batches in order, all of them or none, and return the alarms.

        Rows are C-contiguous and finite. Weights are empty where every row weighs 1. In the
        warm-up each batch may cost an additional `quota` units of work (`streamgmm.online.work`).

        Raises
        ------
        DegenerateComponentError
            If a component is no longer determined by its rows.
        DataError
            If rows cannot be of the family, or values are so large that their squares are beyond
            float64.
        """
        turn = _Turn(self)
        row = 0
        needed = (rehearse_steps, (self.settings, self.n_features))
        with compiling_ahead([needed] if self.state is None else []):
            for X, weight in batches:
                if len(X):
                    check_suitable(self.family, Piece(row, X, None), "the rows to learn")
                    row += len(X)
                    turn.take(X, weight, QUOTA if quota is None else quota)
        turn.commit(self)
        return turn.alarms

    @property
    def busy(self) -> bool:
        """Whether the warm-up's fit is under way, or rows are in the queue."""
        fitting = self.gathered is not None and self.gathered.fit is not None
        return fitting or bool(self.queue)

    def go_on(self, quota: float | None = None) -> list[Alarm]:
        """Continue the warm-up's fit and the replay of the queue, and return the alarms.

        The model that this leads to has the same bits, however often it is called.

        Raises
        ------
        DegenerateComponentError
            If no start leads to components that the rows determine.
        """
        turn = _Turn(self)
        turn.go_on(0, QUOTA if quota is None else quota)
        turn.commit(self)
        return turn.alarms

    def finish(self) -> None:
        """Run the warm-up's fit to its end, if it has begun, and replay the queue."""
        self.go_on(np.inf)

    def mixture(self) -> Mixture:
        """The current model. Asking for it changes nothing that is learned.

        During the warm-up's fit it is the best start so far. Before that fit has begun, it is a
        separate fit of the rows so far.

        Raises
        ------
        DataError
            If there are too few rows.
        DegenerateComponentError
            If no start leads to components that the rows determine.
        """
        key = self.state or self.gathered
        if self._held is None or self._held[0] is not key:
            if self.state is not None:
                mixture = mixture_of(self.settings, self.state)
            else:
                assert self.gathered is not None
                mixture = mixture_so_far(self.settings, self.gathered)
            self._held = key, mixture
        return self._held[1]

    def table(self) -> dict[str, Any]:
        """The journal as columns, including batches in the queue, with alarms and changes."""
        waiting = [_line(len(batch.rows) + batch.before) for batch in self.queue]
        lines = [*self.journal, *waiting][-JOURNAL:]
        journal = np.array(lines, dtype=np.float64).reshape(-1, len(COLUMNS))
        table: dict[str, Any] = {name: journal[:, i] for i, name in enumerate(COLUMNS)}
        table["rows"] = table["rows"].astype(np.int64)
        table["alarms"] = [vars(alarm).copy() for alarm in self.alarms]
        table["changes"] = [
            vars(change) | {"components": [*change.components]} for change in self.changes
        ]
        return table


def check_family(there: Family, asked: Family) -> None:
    """Check that a model can go on with what is asked for; raises ParameterError."""
    if (type(there), there.name) != (type(asked), asked.name):
        raise ParameterError(
            f"the model has {there.name} components and {asked.name} ones are asked for; call "
            "fit, or give the family that it has"
        )


class _Turn:
    """A transaction: the learner does not change until `commit`."""

    def __init__(self, learner: Learner) -> None:
        self.settings, self.n_features = learner.settings, learner.n_features
        self.gathered, self.state = learner.gathered, learner.state
        self.queue, self.adapter = deque(learner.queue), learner.adapter
        self.lines: list[list[float]] = []
        self.alarms: list[Alarm] = []
        self.changes: list[Change] = []

    def commit(self, learner: Learner) -> None:
        """Write the new state to the learner."""
        learner.gathered, learner.state = self.gathered, self.state
        learner.queue, learner.adapter = tuple(self.queue), self.adapter
        learner.journal.extend(self.lines)
        learner.alarms.extend(self.alarms)
        learner.changes.extend(self.changes)

    def take(self, X: NDArray[Any], weight: Floats, quota: float) -> None:
        """Learn a batch, or queue it."""
        if self.state is not None and not self.queue:
            self._step(X, weight, 0)
            return
        n_rows, before = len(X), 0
        if self.gathered is not None and self.gathered.fit is None:
            self.gathered, before = gather(self.settings, self.gathered, X, weight)
            X, weight = X[before:], weight[before:]
            if len(X) == 0:
                self.lines.append(_line(n_rows))
        if len(X):
            check_size(X)
            self.queue.append(Batch(np.array(X), np.array(weight), before))
        self.go_on(n_rows, quota)

    def go_on(self, n_rows: int, quota: float) -> None:
        """Continue the fit, then the replay of the queue; `n_rows` rows have just arrived."""
        if self.gathered is not None and self.gathered.fit is not None:
            waiting = sum(batch.rows.nbytes for batch in self.queue)
            cut = waiting > QUEUE_BYTES
            found, spent = advance(self.settings, self.gathered, quota, cut=cut)
            if isinstance(found, Gathered):
                self.gathered = found
                return
            self.gathered, self.state = None, found
            quota -= spent
        if self.state is not None:
            self._catch_up(n_rows, quota)

    def _catch_up(self, n_rows: int, quota: float) -> None:
        """Replay the queue: work for the rows that have arrived, and a quota on top of it."""
        mine, spent = self._cost(n_rows), 0.0
        while self.queue:
            batch = self.queue[0]
            cost = self._cost(len(batch.rows))
            if spent > mine and spent + cost > mine + quota:
                return
            self.queue.popleft()
            try:
                self._step(*batch)
            except DegenerateComponentError as error:
                self._leave_out(batch, error)
            spent += cost

    def _cost(self, n_rows: int) -> float:
        """Units of work to learn so many rows."""
        assert self.state is not None
        settings, k = self.settings, len(self.state.running.weight)
        costs = Costs(k, self.n_features, settings.family)
        return costs.steps(n_rows, -(-n_rows // settings.step_rows))

    def _leave_out(self, batch: Batch, error: DegenerateComponentError) -> None:
        """Skip rows that were queued and cannot be learned, with a warning."""
        assert self.state is not None
        n, first = len(batch.rows), self.state.n_rows
        warnings.warn(
            f"rows {first}:{first + n}, which waited for the warm-up's fit, are left out: {error}",
            StreamGMMWarning,
            stacklevel=6,
        )
        self.state = replace(self.state, n_rows=first + n)
        self.lines.append(_line(n + batch.before))

    def _step(self, X: NDArray[Any], weight: Floats, before: int) -> None:
        """Learn a batch by stepwise EM, without the rows that are held out."""
        assert self.state is not None
        settings, state, adapter, n = self.settings, self.state, self.adapter, len(X)
        if settings.adapt:
            adapter, stay = hold(adapter or open_adapter(self.n_features), X, state.n_rows)
            X, weight = np.ascontiguousarray(X[stay]), weight[stay] if len(weight) else weight
        learned = Learned(0, 0.0, NAN)
        if len(X):
            state, learned = step(settings, state, X, weight)
        state = replace(state, n_rows=self.state.n_rows + n)
        changes: list[Change] = []
        if adapter is not None:
            state, adapter, changes = adapt(settings, state, adapter, now=bool(learned.alarms))
        self.state, self.adapter = state, adapter
        self.lines.append(_line(n + before, learned, state))
        self.alarms += learned.alarms
        self.changes += changes


def _line(
    n_rows: int, learned: Learned | None = None, state: OnlineState | None = None
) -> list[float]:
    """A line of the journal. Without `learned` no model has scored the rows, and it is NaN."""
    line = [float(n_rows)] + [NAN] * (len(COLUMNS) - 1)
    if learned is None or state is None:
        return line
    if learned.mass > 0:
        line[1] = learned.log_likelihood / learned.mass
    if state.monitor is not None:
        line[2:] = state.monitor.statistics
    for alarm in learned.alarms:
        line[2 + KINDS.index(alarm.kind)] = alarm.statistic
    return line
