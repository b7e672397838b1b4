"""One candidate's climb: EM as a sequence of requests for statistics.

An `Ascent` never reads a row. It says what it wants to know next (`request`), is told
(`advance`), and so any number of candidates share every read of the data. With one group of
blocks it is textbook EM; with several it is the incremental EM of Neal & Hinton (1998): the
statistics of one group are renewed at the current parameters, those of all groups merged again
in fixed order, and the parameters updated, so that the free energy F never falls and one read
of the data makes as many steps as there are groups.

All that a climb knows is in its fields, so it can be saved after any read and resumed
elsewhere (`state`, `restored`) without a bit's difference.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DegenerateComponentError
from streamgmm.fitting.acceleration import AndersonHistory, merge_groups
from streamgmm.fitting.rules import Request, Rules, Step
from streamgmm.model.mixture import Mixture, Statistics, free_energy, m_step
from streamgmm.model.moments import Floats
from streamgmm.model.truncation.sets import Turn

_SLOWEST = 0.95  # rate that is assumed of climbs that jump
_MOST_MENDS = 5  # times that lost components are mended before they are left alone


@dataclass
class Ascent:
    """A candidate on its way.

    Attributes
    ----------
    mixture : Mixture
        The best parameters so far.
    steps : list of Step
        One an iteration.
    bounds : list of float
        Log-likelihood a row at the start of each iteration where that is known, else the free
        energy a row: scikit-learn's lower bounds.
    converged, stopped : bool
    failure : str
        Why it could not go on; empty where it could.
    groups : list of Statistics
        The latest statistics of each group; those given at the start are taken as they are until
        their turn comes, and the first sweep begins with the groups that are not known.
    pool : ndarray of shape (m, n_features) or None
        Rows from which components that lost theirs are started again.
    lost : dict of str to list of int
        Components that were ``"reseeded"`` or ``"retired"``.
    mends : int
        How often that was.
    mended : bool
        Whether it was just now.
    sweeping : bool
        Whether a sweep has begun that is not over.
    position : int
        The group whose statistics are wanted next.
    centres : ndarray or None
        What they are to be taken about, where the family asks for it (`Density.refine`).
    before : list of Statistics
        What `groups` were when the sweep began.
    memory : AndersonHistory or None
        Of earlier sweeps, where the climb is accelerated.
    entered : float
        The lower bound where the climb began, nats; minus infinity where that is not known.
    read : float
        How often the rows were read: less than `passes` where they were kept in between.
    shift : float
        How far the last M-step moved the components, where the rules judge by that.
    number : int
        Which it is, among those that climb together.
    """

    mixture: Mixture
    rules: Rules
    previous_bound: float = -np.inf
    converged: bool = False
    failure: str = ""
    stopped: bool = False
    passes: float = 0.0
    steps: list[Step] = field(default_factory=list)
    bounds: list[float] = field(default_factory=list)
    groups: list[Statistics] = field(default_factory=list)
    pool: NDArray[Any] | None = None
    lost: dict[str, list[int]] = field(default_factory=dict)
    mends: int = 0
    mended: bool = False
    sweeping: bool = False
    position: int = 0
    centres: Floats | None = None
    before: list[Statistics] = field(default_factory=list)
    memory: AndersonHistory | None = None
    read: float = 0.0
    entered: float = -np.inf
    shift: float = np.inf
    number: int = 0

    def __post_init__(self) -> None:
        """Begin the first sweep, or the one that comes next."""
        if self.memory is None and self.rules.accelerate:
            self.memory = AndersonHistory()
        self._begin()

    @property
    def request(self) -> Request | None:
        """What it wants next; None when it has arrived."""
        if self.stopped or not self.sweeping:
            return None
        group = None if self.rules.n_groups == 1 else self.position
        return Request(self.mixture, group, self.centres, self.rules.hard, self.turn)

    @property
    def turn(self) -> Turn:
        """Which read comes next."""
        return Turn(self.number, len(self.steps))

    def advance(self, statistics: Statistics, passes: float, read: float = 0.0) -> None:
        """Take what was asked for: a share of a pass, of which some may have been kept.

        Groups are renewed one after the other; the parameters follow as soon as all are known.
        """
        self.passes += passes
        self.read += read
        self.groups[self.position : self.position + 1] = [statistics]
        if len(self.groups) == self.rules.n_groups:
            total = merge_groups(self.groups)
            updated = m_step(self.mixture, total)
            if self.centres is None:
                self.centres = self.mixture.density.refine(updated.components)
                if self.centres is not None:
                    return  # the same group again, about these
            before, self.mixture = self.mixture, updated
        self.centres = None
        self.position += 1
        if self.position == self.rules.n_groups:
            self.sweeping = False
            if self.rules.judge is not None:
                parts = before.components, updated.components, total.components
                self.shift = self.rules.judge(*parts)
            self._end(total, before)
            self._begin()

    @property
    def failed(self) -> bool:
        """Whether its parameters became singular."""
        return bool(self.failure)

    def fail(self, why: str) -> None:
        """Give up for a reason."""
        self.stopped, self.failure = True, why

    def stop(self) -> None:
        """Give up: keep the parameters as they are and ask for nothing more."""
        self.stopped = True

    def state(self) -> dict[str, Any]:
        """All that it knows but its rules, as it is now: values that later reads do not change."""
        return {
            each.name: _frozen(getattr(self, each.name))
            for each in fields(self)
            if each.name != "rules"
        }

    @classmethod
    def restored(cls, state: dict[str, Any], rules: Rules) -> Ascent:
        """Restore what `state` gave."""
        memory = state["memory"]
        return cls(
            rules=rules,
            **state
            | {
                "steps": [Step(*step) for step in state["steps"]],
                "memory": None if memory is None else AndersonHistory(*memory),
            },
        )

    @property
    def free_energy(self) -> float:
        """F of the latest iteration, in nats; minus infinity before the first."""
        return self.steps[-1].free_energy if self.steps else -np.inf

    @property
    def predicted(self) -> float:
        """F that the climb will end at, by Aitken's extrapolation of its last gains."""
        return self.free_energy + 2 * min(self._gap(), 1e300)

    @property
    def gap(self) -> float:
        """Nats a row still to be gained, by the same extrapolation; infinite at first."""
        weight = sum(group.weight for group in self.groups)
        return self._gap() / weight if weight > 0 else np.inf

    @property
    def steps_left(self) -> float:
        """Iterations until it arrives, by the same extrapolation; NaN before it is known."""
        most = self.rules.max_iter - len(self.steps)
        if self.request is None:
            return 0.0
        latest, rate = self._trend()
        weight = sum(group.weight for group in self.groups)
        if not 0 < rate < 1 or not weight > 0:  # just mended: nothing is known of the rows
            return float("nan")
        left = latest * rate / (1 - rate) if self._by_gap else latest
        left /= weight
        if self.rules.tol <= 0:
            return float(most)
        return float(min(most, max(1.0, np.ceil(np.log(self.rules.tol / left) / np.log(rate)))))

    def _gap(self) -> float:
        """F still to be gained, in nats, were the gains to go on shrinking as slowly as lately."""
        latest, rate = self._trend()
        return latest * rate / (1 - rate) if rate < 1 else np.inf

    def _trend(self) -> tuple[float, float]:
        """The last gain, and the rate at which gains shrink; infinite before it is known.

        Aitken's extrapolation, with the slowest rate of the last few iterations: a jump makes
        one gain large and the next one small, which says nothing about what is left.
        """
        reached = [float(step.free_energy) for step in self.steps[-6:]]
        gains = [after - before for before, after in itertools.pairwise(reached)]
        if len(gains) == 1 and self.rules.settled:
            rate = gains[0] / max(self.steps[0].free_energy - self.entered, 1e-100)
            return gains[0], float(min(rate, _SLOWEST))
        if len(gains) < 2:
            return np.inf, np.inf
        latest = max(gains[-1], gains[-2] if self.rules.accelerate else 0.0)
        ratios = [after / max(before, 1e-100) for before, after in itertools.pairwise(gains)]
        rate = min(max(ratios), _SLOWEST) if self.rules.accelerate else ratios[-1]
        return latest, rate

    @property
    def _by_gap(self) -> bool:
        """Whether the gap decides, and not the last gain."""
        return self.rules.n_groups > 1 or self.rules.accelerate

    def _begin(self) -> None:
        """Begin a sweep, unless the climb is over or one has begun."""
        if self.sweeping or self.converged or len(self.steps) >= self.rules.max_iter:
            return
        if self.memory is not None and self.steps:
            self._jump(self.memory)
        self.before = list(self.groups)
        self.position = len(self.groups) % self.rules.n_groups
        self.sweeping = True

    def _end(self, total: Statistics, last: Mixture) -> None:
        """Note what a sweep has reached; return from a jump that led down.

        `last` are the parameters before the last M-step.
        """
        rules = self.rules
        energy = free_energy(self.mixture, total)
        whole = rules.n_groups == 1
        # What the E-step has reached: F at its own parameters, which is log p where q is exact.
        bound = free_energy(last, total) if rules.hard and whole else total.log_likelihood
        if not self.steps and not self.before:
            self.entered = bound
        if self.memory is not None and self.memory.jumped and energy < self.free_energy:
            self.mixture, self.groups = self.memory.restore()
            self.before = []
            self.bounds.append(self.bounds[-1])
            self.steps.append(Step(self.free_energy, self.passes, read=self.read))
            return
        bound = (bound if whole else energy) / total.weight
        if len(self.steps) > 0 and whole and self.memory is None:
            self.steps[-1].looked_at(total)
        self.bounds.append(bound)
        self.steps.append(Step(energy, self.passes, read=self.read, mended=self.mended))
        self.mended = self._mend(total)
        if self.mended:
            self.memory = AndersonHistory() if rules.accelerate else None
            self.before = []
            self.previous_bound = -np.inf
            return
        self.converged = self._arrived(bound, total)
        if not self.converged:
            self.previous_bound = bound

    def _mend(self, total: Statistics) -> bool:
        """Retire or reseed components with fewer rows than their family needs; whether any were.

        Statistics of the others stay true; those of all groups are asked for again.
        """
        how = self.rules.empty_components
        mixture = self.mixture
        few = total.components.weight < mixture.family.least_rows(mixture.n_features)
        if how == "keep" or not few.any() or few.all() or self.mends >= _MOST_MENDS:
            return False
        self.mends += 1
        if how == "retire":
            self.mixture = mixture.take(np.flatnonzero(~few))
        else:
            assert self.pool is not None
            self.mixture = mixture.reseed(np.flatnonzero(few), self.pool)
        what = "retired" if how == "retire" else "reseeded"
        self.lost.setdefault(what, []).extend(np.flatnonzero(few).tolist())
        self.groups = []
        return True

    def _arrived(self, bound: float, total: Statistics) -> bool:
        rules = self.rules
        if rules.judge is not None:
            return self.shift <= rules.tol
        if not self._by_gap:
            return abs(bound - self.previous_bound) < rules.tol
        gap = self._gap() / total.weight
        enough = 0.05 * self.mixture.n_parameters / total.weight if rules.statistical else 0.0
        return gap < max(rules.tol, enough)

    def _jump(self, memory: AndersonHistory) -> None:
        """Go on from statistics ahead of those reached, where they are statistics at all."""
        energies = [step.free_energy for step in self.steps[-4:]]
        jumped = memory.propose(self.mixture, self.before, self.groups, energies)
        if jumped is None:
            return
        try:
            self.mixture = m_step(self.mixture, merge_groups(jumped))
        except DegenerateComponentError:
            memory.forget()
        else:
            self.groups = jumped


def _frozen(value: Any) -> Any:
    """What later reads will not change, of something in a climb's state."""
    if isinstance(value, list):
        return [_frozen(item) for item in value]
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    if isinstance(value, (Step, AndersonHistory)):
        return tuple(_frozen(getattr(value, each.name)) for each in fields(value))
    return value
