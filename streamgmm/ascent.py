"""One candidate's climb: EM as a sequence of requests for statistics.

An `Ascent` never reads a row. It says what it wants to know next (`request`), is told
(`advance`), and so any number of candidates share every read of the data. With one group of
blocks it is textbook EM; with several it is the incremental EM of Neal & Hinton (1998): the
statistics of one group are renewed at the current parameters, those of all groups merged again
in fixed order, and the parameters updated, so that the free energy F never falls and one read
of the data makes as many steps as there are groups.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgmm.acceleration import MEMORY, coefficients, combine, embed
from streamgmm.errors import SingularCovarianceError
from streamgmm.mixture import (
    SCATTER_TOLERANCE,
    Mixture,
    Statistics,
    free_energy,
    m_step,
    scatter_error,
)
from streamgmm.moments import Floats

_SLOWEST = 0.95  # rate that is assumed of climbs that jump
_MOST_MENDS = 5  # times that lost components are mended before they are left alone


class Request(NamedTuple):
    """Statistics of one group of blocks (all, if None) under a mixture, about `centres`."""

    mixture: Mixture
    group: int | None
    centres: Floats | None = None


@dataclass(frozen=True)
class Rules:
    """How to climb.

    `tol` in nats a row: with one group and no acceleration EM stops, as in scikit-learn, when
    the mean log-likelihood changes by less; otherwise when the gain still to come, by Aitken's
    extrapolation, is less (and, where `statistical`, when it is less than a tenth of what the
    sample's own noise is worth, p/2N). A candidate that is to `retire` leaves when another has
    reached more than it is expected to.
    """

    tol: float
    max_iter: int
    reg_covar: float
    n_groups: int = 1
    accelerate: bool = False
    statistical: bool = False
    retire: bool = False
    empty_components: str = "keep"


@dataclass
class Step:
    """What is known after one iteration (one read of the data): nats summed over rows."""

    free_energy: float
    passes: float
    seconds: float = 0.0
    log_likelihood: float = float("nan")


@dataclass
class Ascent:
    """A candidate on its way.

    Attributes
    ----------
    mixture : Mixture
        The best parameters so far.
    request : Request or None
        What it wants next; None when it has arrived.
    steps : list of Step
        One an iteration.
    bounds : list of float
        Log-likelihood a row at the start of each iteration where that is known, else the free
        energy a row: scikit-learn's lower bounds.
    converged, failed : bool
    groups : list of Statistics
        The latest statistics of each group; those given at the start are taken as they are until
        their turn comes, and the first sweep begins with the groups that are not known.
    pool : ndarray of shape (m, n_features) or None
        Rows from which components that lost theirs are started again.
    lost : dict of str to list of int
        Components that were ``"reseeded"`` or ``"retired"``.
    """

    mixture: Mixture
    rules: Rules
    previous_bound: float = -np.inf
    converged: bool = False
    failed: bool = False
    passes: float = 0.0
    steps: list[Step] = field(default_factory=list)
    bounds: list[float] = field(default_factory=list)
    groups: list[Statistics] = field(default_factory=list)
    pool: NDArray[Any] | None = None
    lost: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Ask for the first statistics."""
        self._mends = 0
        self._climb = self._run()
        self.request: Request | None = next(self._climb, None)

    def advance(self, statistics: Statistics, passes: float) -> None:
        """Take what was asked for, read in the given share of a pass, and ask for the next."""
        self.passes += passes
        try:
            self.request = self._climb.send(statistics)
        except StopIteration:
            self.request = None

    def stop(self) -> None:
        """Give up: keep the parameters as they are and ask for nothing more."""
        self._climb.close()
        self.request = None

    @property
    def free_energy(self) -> float:
        """F of the latest iteration, in nats; minus infinity before the first."""
        return self.steps[-1].free_energy if self.steps else -np.inf

    @property
    def predicted(self) -> float:
        """F that the climb will end at, by Aitken's extrapolation of its last gains."""
        return self.free_energy + 2 * min(self._gap(), 1e300)

    def _gap(self) -> float:
        """F still to be gained, in nats, were the gains to go on shrinking as slowly as lately.

        Aitken's extrapolation, with the slowest rate of the last few iterations: a jump makes
        one gain large and the next one small, which says nothing about what is left.
        """
        gains = np.diff([step.free_energy for step in self.steps[-6:]])
        if len(gains) < 2:
            return np.inf
        latest = max(gains[-1], gains[-2] if self.rules.accelerate else 0.0)
        ratios = gains[1:] / np.maximum(gains[:-1], np.finfo(float).tiny)
        rate = min(ratios.max(), _SLOWEST) if self.rules.accelerate else ratios[-1]
        return float(latest * rate / (1 - rate)) if rate < 1 else np.inf

    def _run(self) -> Generator[Request, Statistics, None]:
        rules = self.rules
        anderson = _Anderson() if rules.accelerate else None
        for _ in range(rules.max_iter):
            before = list(self.groups)
            total = yield from self._sweep()
            energy = free_energy(self.mixture, total)
            if anderson is not None and anderson.jumped and energy < self.free_energy:
                self.mixture, self.groups = anderson.restore()
                self.bounds.append(self.bounds[-1])
                self.steps.append(Step(self.free_energy, self.passes))
                continue
            bound = (total.log_likelihood if rules.n_groups == 1 else energy) / total.weight
            if len(self.steps) > 0 and rules.n_groups == 1 and anderson is None:
                self.steps[-1].log_likelihood = total.log_likelihood
            self.bounds.append(bound)
            self.steps.append(Step(energy, self.passes))
            if self._mend(total):
                anderson = _Anderson() if rules.accelerate else None
                self.previous_bound = -np.inf
                continue
            if self._arrived(bound, total):
                self.converged = True
                return
            self.previous_bound = bound
            if anderson is not None and len(self.steps) < rules.max_iter:
                self._jump(anderson, before)

    def _sweep(self) -> Generator[Request, Statistics, Statistics]:
        """Renew every group once; the parameters follow as soon as all groups are known."""
        n_groups = self.rules.n_groups
        for g in range(len(self.groups) % n_groups, n_groups):
            group = None if n_groups == 1 else g
            statistics = yield Request(self.mixture, group)
            self.groups[g : g + 1] = [statistics]
            if len(self.groups) < n_groups:
                continue
            total = merge_groups(self.groups)
            updated = m_step(self.mixture, total, self.rules.reg_covar)
            if scatter_error(self.mixture, updated) > SCATTER_TOLERANCE:
                self.groups[g] = yield Request(self.mixture, group, updated.means)
                total = merge_groups(self.groups)
                updated = m_step(self.mixture, total, self.rules.reg_covar)
            self.mixture = updated
        return total

    def _mend(self, total: Statistics) -> bool:
        """Retire or reseed components with fewer rows than features + 2; whether any were.

        Statistics of the others stay true; those of all groups are asked for again.
        """
        how = self.rules.empty_components
        d = self.mixture.n_features
        few = total.components.weight < d + 2
        if how == "keep" or not few.any() or few.all() or self._mends >= _MOST_MENDS:
            return False
        self._mends += 1
        mixture = self.mixture
        if how == "retire":
            self.mixture = mixture.take(np.flatnonzero(~few))
        else:
            assert self.pool is not None
            self.mixture = mixture.reseed(np.flatnonzero(few), self.pool, self.rules.reg_covar)
        what = "retired" if how == "retire" else "reseeded"
        self.lost.setdefault(what, []).extend(np.flatnonzero(few).tolist())
        self.groups = []
        return True

    def _arrived(self, bound: float, total: Statistics) -> bool:
        rules = self.rules
        if rules.n_groups == 1 and not rules.accelerate:
            return abs(bound - self.previous_bound) < rules.tol
        gap = self._gap() / total.weight
        enough = 0.05 * self.mixture.n_parameters / total.weight if rules.statistical else 0.0
        return gap < max(rules.tol, enough)

    def _jump(self, anderson: _Anderson, before: list[Statistics]) -> None:
        """Go on from statistics ahead of those reached, where they are statistics at all."""
        jumped = anderson.propose(self.mixture, before, self.groups, self.steps)
        if jumped is None:
            return
        try:
            self.mixture = m_step(self.mixture, merge_groups(jumped), self.rules.reg_covar)
        except SingularCovarianceError:
            anderson.forget()
        else:
            self.groups = jumped


class _Anderson:
    """Memory of the last iterations, and the safe state to return to."""

    def __init__(self) -> None:
        self._inputs: list[list[Statistics]] = []
        self._outputs: list[list[Statistics]] = []
        self._safe: tuple[Mixture, list[Statistics]] | None = None
        self.jumped = False

    def forget(self) -> None:
        self._inputs, self._outputs, self.jumped = [], [], False

    def restore(self) -> tuple[Mixture, list[Statistics]]:
        assert self._safe is not None
        mixture, groups = self._safe
        self.forget()
        return mixture, list(groups)

    def propose(
        self,
        mixture: Mixture,
        before: list[Statistics],
        after: list[Statistics],
        steps: list[Step],
    ) -> list[Statistics] | None:
        """Groups' statistics ahead of `after`, or None."""
        self.jumped = False
        if not before or not np.all(mixture.weights > 0):
            return None
        self._inputs = [*self._inputs, before][-MEMORY - 1 :]
        self._outputs = [*self._outputs, list(after)][-MEMORY - 1 :]
        if len(self._inputs) < 2 or not _steady(steps):
            return None
        alphas = coefficients(
            [embed(mixture, merge_groups(groups)) for groups in self._inputs],
            [embed(mixture, merge_groups(groups)) for groups in self._outputs],
        )
        if not np.all(np.isfinite(alphas)):
            return None
        jumped = [combine(each, alphas) for each in zip(*self._outputs, strict=True)]
        if any(statistics is None for statistics in jumped):
            return None
        self._safe = mixture, list(after)
        self.jumped = True
        return [statistics for statistics in jumped if statistics is not None]


def _steady(steps: list[Step]) -> bool:
    """Whether gains shrink slowly enough for a jump to pay, and regularly."""
    gains = np.diff([step.free_energy for step in steps[-4:]])
    if len(gains) < 2 or np.any(gains <= 0):
        return False
    ratios = gains[1:] / gains[:-1]
    return bool(np.all(ratios > 0.3) & np.all(ratios < 1.5))


def merge_groups(groups: list[Statistics]) -> Statistics:
    """All groups' statistics, merged in order."""
    return reduce(Statistics.merge, groups)
