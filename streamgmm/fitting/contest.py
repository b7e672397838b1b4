"""Starts compared on a sample in memory: successive halving, a few at a time.

A wave of starts is drawn and climbs for a few iterations of EM on some hundred rows a component.
The better half goes on, on twice the rows, until one is left, the champion of the wave
(successive halving: Jamieson & Talwalkar 2016). Waves follow one another until the best of them
agree, or the work that starts may cost is spent.

A `Contest` never computes. It says which trials it wants next (`trials`), and is told what they
reached (`tell`). So trials run wherever a pass can: on threads here, or as tasks of a cluster.
All that it knows is in its fields, so that another process can take it up (`state`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DegenerateComponentError
from streamgmm.fitting.ascent import Ascent
from streamgmm.fitting.effort import Effort
from streamgmm.fitting.initial import initial_mixture
from streamgmm.fitting.rules import Rules
from streamgmm.fitting.settings import FitSettings
from streamgmm.model.mixture import Mixture, e_step
from streamgmm.model.moments import Floats
from streamgmm.sources import BlockBase, Piece, unwrapped

ITERATIONS = (3, 6)  # of the first round and of later ones: climbs part early, or never
AGREE = 1e-4  # nats a row: starts that end within it have found the same, or as good
QUORUM = 3  # of a wave that must agree; of the champions of waves, two


@dataclass(frozen=True, eq=False)
class Sample:
    """Sampled rows (m, D) in random order, so that the first n are a sample too.

    `weight` (m,) is None where all rows weigh the same.
    """

    rows: NDArray[Any]
    weight: Floats | None

    def first(self, n: int) -> tuple[NDArray[Any], Floats | None]:
        """The first n rows, and their weights."""
        return self.rows[:n], None if self.weight is None else self.weight[:n]


class Standing(NamedTuple):
    """Where a start is: F in nats a row on the rows of its last round; no mixture, it failed."""

    number: int
    mixture: Mixture | None
    reached: float = -np.inf
    error: str = ""


@dataclass(frozen=True, eq=False)
class Trial(BlockBase):
    """A start's turn: drawn if it has no mixture yet, then climbed on some of the sample.

    It is to a pass what a block of rows is: a small value that is sent where it is computed. It
    has no rows of its own.

    Attributes
    ----------
    start : int
        Which of the trials of a pass it is.
    n_rows : int
        Rows of the sample that it climbs on.
    """

    start: int
    n_rows: int
    settings: FitSettings
    iterations: int
    number: int
    seed: int
    mixture: Mixture | None = None

    resident = True

    def pieces(self) -> Iterator[Piece]:
        """Give none."""
        return iter(())

    def draw(self, X: NDArray[Any], weight: Floats | None) -> Mixture:
        """The start itself; raises DegenerateComponentError.

        Every third start is from the rows nearest to random rows. k-means finds much the same
        clusters each time, and where they overlap those may be the wrong ones.
        """
        settings = self.settings
        return initial_mixture(
            X,
            weight,
            settings.family,
            settings.n_components,
            "nearest" if self.number % 3 == 2 else settings.init_params,
            np.random.RandomState([self.seed, self.number]),
        )


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What trials have reached, in order."""

    each: tuple[Standing, ...]

    def merge(self, other: Outcomes) -> Outcomes:
        """Both."""
        return Outcomes(self.each + other.each)


def attempt(sample: Sample, block: Any) -> Outcomes:
    """Run one `Trial`, on the thread that calls."""
    trial: Trial = unwrapped(block)
    X, weight = sample.first(trial.n_rows)
    hard = trial.settings.assignment == "hard"
    rules = Rules(1e-6, trial.iterations, accelerate=not hard, statistical=True, hard=hard)
    try:
        ascent = Ascent(trial.mixture or trial.draw(X, weight), rules)
        while (request := ascent.request) is not None:
            statistics = e_step(
                request.mixture, X, weight, centres=request.centres, hard=request.hard
            )
            ascent.advance(statistics, 1.0)
    except DegenerateComponentError as error:
        return Outcomes((Standing(trial.number, None, error=str(error)),))
    reached = ascent.free_energy / statistics.weight
    return Outcomes((Standing(trial.number, ascent.mixture, float(reached)),))


@dataclass
class Contest:
    """Starts for one mixture, compared.

    Attributes
    ----------
    settings : FitSettings
    effort : Effort
    seed : int
    most_rows : int
        Rows of the sample.
    standings : list of Standing
        Of the starts that are left in this wave.
    wave, round : int
    agreed : bool
        Whether enough starts of this wave have come to the same place.
    champions : list of Standing
        The best start of each wave so far.
    tried : int
        Starts drawn so far.
    why : str
        Why it is over; empty while it is not.
    """

    settings: FitSettings
    effort: Effort
    seed: int
    most_rows: int
    standings: list[Standing] = field(default_factory=list)
    wave: int = 0
    round: int = 0
    agreed: bool = False
    champions: list[Standing] = field(default_factory=list)
    tried: int = 0
    why: str = ""

    def __post_init__(self) -> None:
        """Draw up the first wave."""
        if not self.standings and not self.why:
            self._draw_up()

    def trials(self, first: int = 0) -> list[Trial]:
        """What it wants next, numbered from `first` on; nothing when it is over."""
        if self.why:
            return []
        n_rows = min(self.most_rows, self.effort.limit, self.effort.n_rows << self.round)
        iterations = ITERATIONS[min(self.round, len(ITERATIONS) - 1)]
        return [
            Trial(first + i, n_rows, self.settings, iterations, s.number, self.seed, s.mixture)
            for i, s in enumerate(self.standings)
        ]

    def tell(self, outcomes: Sequence[Standing]) -> None:
        """Take what the trials have reached, in their order."""
        if self.round == 0:
            self.tried += len(outcomes)
        ranked = sorted((s for s in outcomes if s.mixture), key=lambda s: -s.reached)
        if not ranked:
            self._end(outcomes[0])
            return
        near = sum(s.reached >= ranked[0].reached - AGREE for s in ranked)
        self.agreed |= near >= QUORUM
        self.round += 1
        if self.round >= self.effort.rounds:
            self._end(ranked[0])
        else:
            left = 1 if self.agreed else max(1, len(outcomes) // 2)
            self.standings = ranked[:left]

    @property
    def best(self) -> Standing | None:
        """The best champion so far, the earliest of equals; None before the first wave is over."""
        return max(self.champions, key=lambda s: s.reached, default=None)

    @property
    def leading(self) -> float:
        """The most that any start has reached, nats a row of the sample; NaN at first."""
        known = [s.reached for s in (*self.champions, *self.standings) if s.mixture]
        return max(known, default=float("nan"))

    def state(self) -> dict[str, Any]:
        """What another process needs to go on, but for settings: values that do not change."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        del values["settings"], values["effort"]
        for name in ("standings", "champions"):
            values[name] = [tuple(s) for s in values[name]]
        return values

    @classmethod
    def restored(cls, state: dict[str, Any], settings: FitSettings, effort: Effort) -> Contest:
        """Restore what `state` gave."""
        lists = {
            name: [Standing(*each) for each in state[name]] for name in ("standings", "champions")
        }
        return cls(settings, effort, **state | lists)

    def _draw_up(self) -> None:
        first = self.wave * self.effort.wave
        self.standings = [Standing(first + i, None) for i in range(self.effort.wave)]
        self.round, self.agreed = 0, False

    def _end(self, champion: Standing) -> None:
        """End a wave, and the contest where there is reason enough."""
        self.champions.append(champion)
        self.wave += 1
        best = self.best
        assert best is not None
        near = [s for s in self.champions if s.reached >= best.reached - AGREE]
        agree = best.mixture is not None and (len(near) >= 2 or (self.agreed and champion in near))
        if agree and self.tried >= self.effort.least:
            self.why = "the best agree"
        elif self.wave >= self.effort.waves:
            self.why = "the budget is spent" if self.effort.n_starts > 1 else "one is enough"
        if self.why:
            self.standings = []
        else:
            self._draw_up()
