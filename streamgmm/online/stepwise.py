"""Stepwise EM: a step is a pure function of the state and a batch of rows.

The steps of Gaussians are compiled, and are here; those of other families are the same law in
terms of any statistics that scale and merge (`streamgmm.online.blending`).

    s ← (1 - γ_t) s + γ_t s̄(rows),    θ = M(s)         (Cappé & Moulines 2009, eqs. 10-11)

The steps begin at the fit that ends a warm-up (`streamgmm.online.warmup`). Time is counted in
rows, so that neither the forgetting nor the step sizes depend on how large the batches are: a
step of fewer rows than usual is a part of a step.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.kernels import stepwise
from streamgmm.model.covariances import singular
from streamgmm.model.covariances.base import Layout
from streamgmm.model.families.gaussian import gaussians
from streamgmm.model.gaps.patterns import has_gaps
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats, Moments
from streamgmm.online import blending
from streamgmm.online.drift import Alarm, Monitor, limits_of, watch
from streamgmm.online.gaps import blend_running, blended, completed, drawn
from streamgmm.online.settings import OnlineSettings
from streamgmm.online.state import (
    Learned,
    OnlineState,
    RunningState,
    Steps,
    check_size,
    cut_steps,
)


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
    running: RunningState = state.running
    if state.average is None:
        return running
    running = running.copy()
    mean = running.means.reshape(len(running.weight), -1)
    running = replace(
        running, weight=state.average[0], mean=state.average[1], scatter=state.average[2]
    )
    maximize(settings, running, mean.shape[1])
    return running


def mixture_of(settings: OnlineSettings, state: OnlineState) -> Mixture:
    """The current model."""
    if not settings.compiled:
        return blending.mixture_of(state)
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
    if not settings.compiled:
        return blending.step(settings, state, X, weight)
    n, d = X.shape
    steps = cut_steps(settings, state.mass, n, weight)
    running = state.running.copy()
    k = len(running.weight)
    average = state.average or (running.weight, running.mean, running.scatter)
    if settings.average:
        average = (average[0].copy(), average[1].copy(), average[2].copy())
    layout = Layout(k, d, np.dtype(np.float64))
    monitor = state.monitor
    alarms: list[Alarm] = []
    gaps = settings.gaussian.gaps and has_gaps(X)
    if monitor is not None:
        seen = Layout(len(monitor.const), d, np.dtype(np.float64))
        rows = X[weight > 0] if len(weight) and not weight.all() else X
        if gaps:
            rows = drawn(monitor, rows, state.n_rows, settings.seed)
        monitor, alarms = watch(monitor, rows, state.n_rows, seen, limits_of(seen.k, d))
    scores = np.zeros(len(steps.masses))
    if gaps:
        running, average = _gap_steps(settings, running, average, steps, X, weight, scores)
    else:
        bad = stepwise.steps(
            X, weight, steps.edges, steps.gains, steps.shares,
            settings.pooled, settings.reg_covar,
            running.weight, running.mean, running.scatter.ravel(),
            average[0], average[1], average[2].ravel(),
            running.covariances, running.means, running.chol, running.const,
            layout.far, layout.D, layout.T, layout.W, layout.work, layout.rows, scores,
        )  # fmt: skip
        if bad >= 0:
            check_size(X)
            raise singular([bad])
    mass = float(steps.masses.sum())
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


Statistics = tuple[Floats, Floats, Floats]


def _gap_steps(
    settings: OnlineSettings,
    running: RunningState,
    average: Statistics,
    steps: Steps,
    X: NDArray[Any],
    weight: Floats,
    scores: Floats,
) -> tuple[RunningState, Statistics]:
    """The steps of rows of which some have gaps; log-likelihoods of steps go to `scores`."""
    kind = settings.apart.covariance.name
    padded = len(running.means) // len(running.weight)
    for i, mass in enumerate(steps.masses.tolist()):
        if mass <= 0:
            continue
        part = slice(steps.edges[i], steps.edges[i + 1])
        w = weight[part] if len(weight) else weight
        fresh, scores[i] = completed(settings, running, X[part], w)
        running = blend_running(running, kind, fresh.scale(1.0 / mass), steps.gains[i])
        maximize(settings, running, padded)
        if settings.average:
            now = Moments(kind, running.weight, running.mean, running.scatter)
            average = blended(kind, average, now, float(steps.shares[i]))
    return running, average
