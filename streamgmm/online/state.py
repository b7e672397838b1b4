"""The state of a model that is learned in steps, and how large its steps are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError
from streamgmm.model.mixture import Mixture, Statistics
from streamgmm.model.moments import Floats, Moments
from streamgmm.online.drift import Alarm, Monitor
from streamgmm.online.settings import OnlineSettings, effective_rows

AVERAGING = 3.0  # η of polynomial-decay averaging (Shamir & Zhang 2013): late steps count more


@dataclass(frozen=True, eq=False)
class RunningState:
    """Running statistics, whose weights sum to one, and the parameters that they give.

    `scatter` (K, D, D) where covariances are matrices, else (K, D); `means`, `chol` and `const`
    are padded as the kernels take them.
    """

    weight: Floats
    mean: Floats
    scatter: Floats
    covariances: Floats
    means: Floats
    chol: Floats
    const: Floats

    def copy(self) -> RunningState:
        """The same values in other memory."""
        return RunningState(*(getattr(self, name).copy() for name in RUNNING))

    def moments(self, kind: str) -> Moments:
        """The statistics, in the shape that `Moments` of this covariance type have."""
        scatter = self.scatter
        if kind == "tied":
            scatter = scatter.sum(axis=0)
        elif kind == "spherical":
            scatter = scatter.sum(axis=1)
        return Moments(kind, self.weight, self.mean, scatter)  # type: ignore[arg-type]


RUNNING = ("weight", "mean", "scatter", "covariances", "means", "chol", "const")


@dataclass(frozen=True, eq=False)
class BlendedState:
    """Running statistics of any family, of total weight one, and the mixture that they give."""

    mixture: Mixture
    statistics: Statistics

    @property
    def weight(self) -> Floats:
        """The weight of each component (K,)."""
        weight: Floats = self.statistics.components.weight
        return weight


@dataclass(frozen=True, eq=False)
class OnlineState:
    """A model after `n_rows` rows of total weight `mass`. A step returns the next one.

    `running` holds the running statistics, and `average` the averaged ones: weight, mean and
    scatter, or `Statistics` where the steps are not compiled. `level` is the mean log-density of
    a row of the latest batch, in nats.
    """

    n_features: int
    n_rows: int
    mass: float
    running: Any  # RunningState, or BlendedState where the steps are not compiled
    average: Any = None
    monitor: Monitor | None = None
    level: float = 0.0


@dataclass(frozen=True)
class Learned:
    """The log-likelihood of a batch before it was learned, in nats summed by weight."""

    n_rows: int
    mass: float
    log_likelihood: float
    alarms: tuple[Alarm, ...] = ()


def in_effect(settings: OnlineSettings, state: OnlineState) -> float:
    """Effective number of rows of the statistics, by weight."""
    if settings.half_life is None:
        return state.mass
    return min(state.mass, effective_rows(settings.half_life))


@dataclass(frozen=True, eq=False)
class Steps:
    """The steps that a batch is cut into: their edges (n + 1,), weights, γ, and shares (n,)."""

    edges: NDArray[np.int64]
    masses: Floats
    gains: Floats
    shares: Floats


def cut_steps(settings: OnlineSettings, mass: float, n_rows: int, weight: Floats) -> Steps:
    """Cut a batch of rows, after rows of weight `mass`, into steps of at most `step_rows` rows."""
    n_steps = -(-n_rows // settings.step_rows)
    edges = np.arange(n_steps + 1) * n_rows // n_steps
    masses = np.add.reduceat(weight, edges[:-1]) if len(weight) else np.diff(edges) * 1.0
    return Steps(edges, masses, *gains_of(settings, mass, masses))


def gains_of(settings: OnlineSettings, mass: float, masses: Floats) -> tuple[Floats, Floats]:
    """γ, and the share of the average, of steps of the given weights after rows of weight `mass`.

    A step of a part of `step_rows` takes that part of a step, 1 - (1 - γ)^part. With a
    `half_life` h no step of n rows forgets less than 1 - 2^(-n / h).
    """
    gains, shares = np.empty(len(masses)), np.zeros(len(masses))
    for i, more in enumerate(masses.tolist()):
        part = more / settings.step_rows
        mass += more
        count = max(1.0, mass / settings.step_rows)
        gain = 1.0 - (1.0 - min(1.0, settings.step_size(count))) ** part
        share = 1.0 - (1.0 - (1.0 + AVERAGING) / (count + AVERAGING)) ** part
        if settings.half_life is not None:
            least = 1.0 - 2.0 ** (-more / settings.half_life)
            gain, share = max(gain, least), max(share, least)
        gains[i] = gain
        shares[i] = share if settings.average else 0.0
    return gains, shares


def check_size(X: NDArray[Any]) -> None:
    """Check that squares of values can be added up; raises DataError."""
    largest = float(np.fmax.reduce(np.abs(X), axis=None))  # of what is not a gap
    if largest > 1e140:
        raise DataError(
            f"a batch holds values up to {largest:.1e}, whose squares are beyond float64; "
            "scale the data, or leave such rows out"
        )
