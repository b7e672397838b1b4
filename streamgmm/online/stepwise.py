"""Stepwise EM: a step is a pure function of the state and a batch of rows.

    s ← (1 - γ_t) s + γ_t s̄(rows),    θ = M(s)         (Cappé & Moulines 2009, eqs. 10-11)

The steps begin at the fit that ends a warm-up (`streamgmm.online.warmup`). Time is counted in
rows, so that neither the forgetting nor the step sizes depend on how large the batches are: a
step of fewer rows than usual is a part of a step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError
from streamgmm.kernels import stepwise
from streamgmm.model.covariances import singular
from streamgmm.model.covariances.base import Layout
from streamgmm.model.families.gaussian import gaussians
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats, Moments
from streamgmm.online.drift import Alarm, Monitor, limits_of, watch
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
class OnlineState:
    """A model after `n_rows` rows of total weight `mass`. A step returns the next one.

    `running` holds the running statistics, and `average` the averaged ones (weight, mean,
    scatter). `level` is the mean log-density of a row of the latest batch, in nats.
    """

    n_features: int
    n_rows: int
    mass: float
    running: RunningState
    average: tuple[Floats, Floats, Floats] | None = None
    monitor: Monitor | None = None
    level: float = 0.0


@dataclass(frozen=True)
class Learned:
    """The log-likelihood of a batch before it was learned, in nats summed by weight."""

    n_rows: int
    mass: float
    log_likelihood: float
    alarms: tuple[Alarm, ...] = ()


def from_moments(
    settings: OnlineSettings,
    n_rows: int,
    mass: float,
    mixture: Mixture,
    moments: Moments,
    level: float,
) -> OnlineState:
    """The state that continues from a mixture and from moments of rows of weight `mass`.

    Both are of the full kind, or of the diagonal one. Raises SingularCovarianceError.
    """
    components = gaussians(mixture.components)
    k, d = components.means.shape
    layout = Layout(k, d, np.dtype(np.float64))
    total = moments.weight.sum()
    pad = layout.pad_squares if settings.wide else layout.pad_rows
    running = RunningState(
        moments.weight / total,
        moments.mean.copy(),
        moments.scatter / total,
        np.array(components.covariances),
        layout.pad_rows(components.means),
        pad(components.precisions_cholesky),
        components.density(mixture.weights).log_constants.copy(),
    )
    maximize(settings, running, layout.D)
    average = (running.weight, running.mean, running.scatter) if settings.average else None
    state = OnlineState(d, n_rows, mass, running, average, level=level)
    return replace(state, monitor=open_monitor(settings, state))


def open_monitor(settings: OnlineSettings, state: OnlineState) -> Monitor | None:
    """A monitor of the rows to come, under the current mixture; None where none is wanted."""
    if not settings.monitor:
        return None
    seen = reported(settings, state)
    variances = np.einsum("kdd->kd", seen.covariances) if settings.wide else seen.covariances
    mixture = seen.means, seen.chol, seen.const
    return Monitor.open(state.n_rows, mixture, variances, state.level)


def maximize(settings: OnlineSettings, running: RunningState, padded: int) -> None:
    """M-step of a running state, in place; raises SingularCovarianceError."""
    kernel = stepwise.maximize_full if settings.wide else stepwise.maximize_diag
    bad = kernel(
        running.weight, running.mean, running.scatter.ravel(), settings.reg_covar, settings.pooled,
        running.covariances, running.means, running.chol, running.const, padded,
    )  # fmt: skip
    if bad >= 0:
        raise singular([bad])


def reported(settings: OnlineSettings, state: OnlineState) -> RunningState:
    """The parameters to report: of the averaged statistics, where there are any."""
    if state.average is None:
        return state.running
    running = state.running.copy()
    mean = running.means.reshape(len(running.weight), -1)
    running = replace(
        running, weight=state.average[0], mean=state.average[1], scatter=state.average[2]
    )
    maximize(settings, running, mean.shape[1])
    return running


def mixture_of(settings: OnlineSettings, state: OnlineState) -> Mixture:
    """The current model."""
    running = reported(settings, state)
    d = state.n_features
    covariances: Any = running.covariances
    if settings.covariance_type == "tied":
        covariances = covariances[0]
    elif settings.covariance_type == "spherical":
        covariances = covariances[:, 0]
    means = running.means.reshape(len(running.weight), -1)[:, :d]
    weights = running.weight / running.weight.sum()
    return Mixture.of(settings.family, weights, np.array(means), np.array(covariances))


def in_effect(settings: OnlineSettings, state: OnlineState) -> float:
    """Effective number of rows of the statistics, by weight."""
    if settings.half_life is None:
        return state.mass
    return min(state.mass, effective_rows(settings.half_life))


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


def step(
    settings: OnlineSettings, state: OnlineState, X: NDArray[Any], weight: Floats
) -> tuple[OnlineState, Learned]:
    """Learn the rows X (n, D) in steps of at most `step_rows` rows.

    X is C-contiguous and finite; `weight` (n,) is empty where all rows weigh 1.

    Raises
    ------
    SingularCovarianceError
        If a component is no longer positive definite.
    DataError
        If values are so large that their squares are beyond float64.
    """
    n, d = X.shape
    n_steps = -(-n // settings.step_rows)
    edges = np.arange(n_steps + 1) * n // n_steps
    masses = np.add.reduceat(weight, edges[:-1]) if len(weight) else np.diff(edges) * 1.0
    gains, shares = gains_of(settings, state.mass, masses)
    running = state.running.copy()
    k = len(running.weight)
    average = state.average or (running.weight, running.mean, running.scatter)
    if settings.average:
        average = (average[0].copy(), average[1].copy(), average[2].copy())
    layout = Layout(k, d, np.dtype(np.float64))
    monitor = state.monitor
    alarms: list[Alarm] = []
    if monitor is not None:
        seen = Layout(len(monitor.const), d, np.dtype(np.float64))
        rows = X[weight > 0] if len(weight) and not weight.all() else X
        monitor, alarms = watch(monitor, rows, state.n_rows, seen, limits_of(seen.k, d))
    scores = np.empty(n_steps)
    bad = stepwise.steps(
        X, weight, edges, gains, shares, settings.wide, settings.pooled, settings.reg_covar,
        running.weight, running.mean, running.scatter.ravel(),
        average[0], average[1], average[2].ravel(),
        running.covariances, running.means, running.chol, running.const,
        layout.far, layout.D, layout.T, layout.W, layout.work, layout.rows, scores,
    )  # fmt: skip
    if bad >= 0:
        check_size(X)
        raise singular([bad])
    mass = float(masses.sum())
    total = float(scores.sum())
    state = OnlineState(
        d,
        state.n_rows + n,
        state.mass + mass,
        running,
        average if settings.average else None,
        monitor,
        total / mass if mass > 0 else state.level,
    )
    if alarms:
        state = replace(state, monitor=open_monitor(settings, state))
    return state, Learned(n, mass, total, tuple(alarms))


def check_size(X: NDArray[Any]) -> None:
    """Check that squares of values can be added up; raises DataError."""
    largest = float(np.abs(X).max())
    if largest > 1e140:
        raise DataError(
            f"a batch holds values up to {largest:.1e}, whose squares are beyond float64; "
            "scale the data, or leave such rows out"
        )
