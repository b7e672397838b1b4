"""Stepwise EM: a step is a pure function of the state and a batch of rows.

    s ← (1 - γ_t) s + γ_t s̄(rows),    θ = M(s)         (Cappé & Moulines 2009, eqs. 10-11)

The first rows are kept until there are enough for a fit in memory, from which the steps go on.
Time is counted in rows, so that neither the forgetting nor the step sizes depend on how large
the batches are: a step of fewer rows than usual is a part of a step.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from streamgmm.errors import DataError, StreamGMMError
from streamgmm.fitting.fit import FitSettings, fit
from streamgmm.kernels import stepwise
from streamgmm.model.components import NO_WEIGHT
from streamgmm.model.covariances import COVARIANCES, singular
from streamgmm.model.covariances.base import Layout
from streamgmm.model.families.gaussian import Gaussian, gaussians
from streamgmm.model.mixture import Mixture, Statistics, e_step
from streamgmm.model.moments import Floats, Moments
from streamgmm.online.drift import Alarm, Monitor, limits_of, watch
from streamgmm.sources import open_source

StepSize = Callable[[float], float]
AVERAGING = 3.0  # η of polynomial-decay averaging (Shamir & Zhang 2013): late steps count more


@dataclass(frozen=True)
class OnlineSettings:
    """How to learn, validated by whoever builds it; `half_life`, `step_rows` in rows.

    `step_size` gives γ of the step that ends after so many steps' worth of rows.
    """

    n_components: int
    covariance_type: str
    reg_covar: float
    step_size: StepSize
    step_rows: int
    warm_up: int
    half_life: float | None
    average: bool
    n_init: int
    init_params: str
    seed: int
    monitor: bool

    @property
    def wide(self) -> bool:
        """Whether scatters are matrices."""
        return COVARIANCES[self.covariance_type].matrices

    @property
    def apart(self) -> Gaussian:
        """The family of the same components, each with a covariance of its own."""
        return Gaussian("full" if self.wide else "diag", self.reg_covar)

    @property
    def pooled(self) -> bool:
        """Whether variances are shared, by components (tied) or features (spherical)."""
        return self.covariance_type in ("tied", "spherical")


@dataclass(frozen=True, eq=False)
class Chain:
    """Where the steps are: statistics whose weights sum to one, and the parameters they give.

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

    def copy(self) -> Chain:
        """The same values in other memory."""
        return Chain(*(getattr(self, name).copy() for name in CHAIN))

    def moments(self, kind: str) -> Moments:
        """The statistics, in the shape that `Moments` of this covariance type have."""
        scatter = self.scatter
        if kind == "tied":
            scatter = scatter.sum(axis=0)
        elif kind == "spherical":
            scatter = scatter.sum(axis=1)
        return Moments(kind, self.weight, self.mean, scatter)  # type: ignore[arg-type]


CHAIN = ("weight", "mean", "scatter", "covariances", "means", "chol", "const")


@dataclass(frozen=True, eq=False)
class OnlineState:
    """All that is known after `n_rows` rows of total weight `mass`; a step gives the next.

    `waiting` holds the rows, and weights or none, of a warm-up that is not over; `chain` is
    where the steps are, `average` the averaged statistics (weight, mean, scatter); the latest
    log-density a row is `level`, in nats.
    """

    n_features: int
    n_rows: int = 0
    mass: float = 0.0
    waiting: tuple[tuple[NDArray[Any], Floats], ...] = ()
    chain: Chain | None = None
    average: tuple[Floats, Floats, Floats] | None = None
    monitor: Monitor | None = None
    level: float = 0.0


@dataclass(frozen=True)
class Learned:
    """What a batch said before it was learned: nats, summed by weight; NaN without a model."""

    n_rows: int
    mass: float
    log_likelihood: float
    alarms: tuple[Alarm, ...] = ()


def effective_rows(half_life: float) -> float:
    """Rows in effect under forgetting, (1 + λ) / (1 - λ) with λ = 2^(-1 / half_life).

    >>> round(effective_rows(20_000))
    57708
    """
    forgotten = 2.0 ** (-1.0 / half_life)
    return float((1.0 + forgotten) / (1.0 - forgotten))


def learn(
    settings: OnlineSettings, state: OnlineState, X: NDArray[Any], weight: Floats = NO_WEIGHT
) -> tuple[OnlineState, Learned]:
    """Learn the rows X (n, D), C-contiguous and finite, with their weights or none.

    Raises
    ------
    SingularCovarianceError
        If a component is no longer positive definite; the state is as it was.
    DataError
        If the warm-up has fewer distinct rows than it needs.
    """
    if X.shape[0] == 0:
        return state, Learned(0, 0.0, float("nan"))
    if state.chain is not None:
        return step(settings, state, X, weight)
    room = settings.warm_up - state.n_rows
    mine, rest = X[:room], X[room:]
    part = weight[:room]
    waiting = add_rows(state.waiting, mine, part)
    mass = state.mass + (float(part.sum()) if len(weight) else float(len(mine)))
    state = replace(state, n_rows=state.n_rows + len(mine), mass=mass, waiting=waiting)
    if state.n_rows < settings.warm_up:
        return state, Learned(len(mine), mass, float("nan"))
    state = begin(settings, state)
    if len(rest) == 0:
        return state, Learned(len(X), mass, float("nan"))
    state, learned = step(settings, state, rest, weight[room:])
    return state, replace(learned, n_rows=len(X))


def add_rows(
    waiting: tuple[tuple[NDArray[Any], Floats], ...], X: NDArray[Any], weight: Floats
) -> tuple[tuple[NDArray[Any], Floats], ...]:
    """Rows and weights put behind those that wait; many small pieces become one."""
    rows = np.array(X, dtype=np.float64)
    piece = (rows, np.array(weight) if len(weight) else np.ones(len(rows)))
    if len(waiting) < 64:
        return (*waiting, piece)
    return (tuple(np.concatenate(parts) for parts in zip(*waiting, piece, strict=True)),)  # type: ignore[return-value]


def warm_fit(settings: OnlineSettings, state: OnlineState) -> tuple[Mixture, Statistics]:
    """Fit the rows that wait, in memory, with restarts: the mixture and its statistics."""
    n, k = state.n_rows, settings.n_components
    if n < max(2, k):
        raise DataError(
            f"{n} rows so far: a model of {k} components needs at least {max(2, k)}; "
            "give more rows first"
        )
    rows = np.concatenate([rows for rows, _ in state.waiting])
    weight = np.concatenate([weight for _, weight in state.waiting])
    held = None if np.all(weight == 1.0) else weight
    source = open_source(rows, sample_weight=held, name="the warm-up")
    how = FitSettings(
        k,
        Gaussian(settings.covariance_type, settings.reg_covar),
        tol=1e-5,
        max_iter=500,
        n_init=settings.n_init,
        init_params=settings.init_params,
        algorithm="em",
        acceleration="anderson",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture = fit(source, how, np.random.RandomState(settings.seed)).mixture
    return mixture, e_step(mixture, rows, held)


def begin(settings: OnlineSettings, state: OnlineState) -> OnlineState:
    """End the warm-up: fit its rows, and keep their statistics in their place."""
    mixture, statistics = warm_fit(settings, state)
    level = statistics.log_likelihood / statistics.weight
    held = gaussians(mixture.components)
    covariances = held.full_covariances if settings.wide else held.variances
    apart = Mixture.of(settings.apart, mixture.weights, held.means, np.array(covariances))
    rows = np.concatenate([rows for rows, _ in state.waiting])
    weight = np.concatenate([weight for _, weight in state.waiting])
    return from_moments(
        settings, state, apart, e_step(apart, rows, weight).components, state.mass, level
    )


def from_moments(
    settings: OnlineSettings,
    state: OnlineState,
    mixture: Mixture,
    moments: Moments,
    mass: float,
    level: float,
) -> OnlineState:
    """Go on from a mixture, and from moments under it that stand for rows of weight `mass`.

    Both are of the full kind, or of the diagonal one.
    """
    components = gaussians(mixture.components)
    k, d = components.means.shape
    layout = Layout(k, d, np.dtype(np.float64))
    total = moments.weight.sum()
    pad = layout.pad_squares if settings.wide else layout.pad_rows
    chain = Chain(
        moments.weight / total,
        moments.mean.copy(),
        moments.scatter / total,
        np.array(components.covariances),
        layout.pad_rows(components.means),
        pad(components.precisions_cholesky),
        components.density(mixture.weights).log_constants.copy(),
    )
    maximize(settings, chain, layout.D)
    average = (chain.weight, chain.mean, chain.scatter) if settings.average else None
    state = replace(
        state, mass=mass, waiting=(), chain=chain, average=average, level=level, monitor=None
    )
    return replace(state, monitor=open_monitor(settings, state))


def open_monitor(settings: OnlineSettings, state: OnlineState) -> Monitor | None:
    """Start to watch what comes next, through the mixture as it is now."""
    if not settings.monitor or state.chain is None:
        return None
    seen = reported(settings, state)
    variances = np.einsum("kdd->kd", seen.covariances) if settings.wide else seen.covariances
    mixture = seen.means, seen.chol, seen.const
    return Monitor.open(state.n_rows, mixture, variances, state.level)


def maximize(settings: OnlineSettings, chain: Chain, padded: int) -> None:
    """M-step of a chain, in place; raises SingularCovarianceError."""
    kernel = stepwise.maximize_full if settings.wide else stepwise.maximize_diag
    bad = kernel(
        chain.weight, chain.mean, chain.scatter.ravel(), settings.reg_covar, settings.pooled,
        chain.covariances, chain.means, chain.chol, chain.const, padded,
    )  # fmt: skip
    if bad >= 0:
        raise singular([bad])


def reported(settings: OnlineSettings, state: OnlineState) -> Chain:
    """The parameters to report: of the averaged statistics, where there are any."""
    assert state.chain is not None
    if state.average is None:
        return state.chain
    chain = state.chain.copy()
    mean = chain.means.reshape(len(chain.weight), -1)
    chain = replace(
        chain, weight=state.average[0], mean=state.average[1], scatter=state.average[2]
    )
    maximize(settings, chain, mean.shape[1])
    return chain


def mixture_of(settings: OnlineSettings, state: OnlineState) -> Mixture:
    """The model as it stands; during the warm-up, that of a fit of the rows so far."""
    if state.chain is None:
        return warm_fit(settings, state)[0]
    chain = reported(settings, state)
    d = state.n_features
    covariances: Any = chain.covariances
    if settings.covariance_type == "tied":
        covariances = covariances[0]
    elif settings.covariance_type == "spherical":
        covariances = covariances[:, 0]
    means = chain.means.reshape(len(chain.weight), -1)[:, :d]
    weights = chain.weight / chain.weight.sum()
    family = Gaussian(settings.covariance_type, settings.reg_covar)
    return Mixture.of(family, weights, np.array(means), np.array(covariances))


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
    """Learn a batch after the warm-up, in steps of at most `step_rows` rows; see `learn`."""
    assert state.chain is not None
    n, d = X.shape
    n_steps = -(-n // settings.step_rows)
    edges = np.arange(n_steps + 1) * n // n_steps
    masses = np.add.reduceat(weight, edges[:-1]) if len(weight) else np.diff(edges) * 1.0
    gains, shares = gains_of(settings, state.mass, masses)
    chain = state.chain.copy()
    k = len(chain.weight)
    average = state.average or (chain.weight, chain.mean, chain.scatter)
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
        chain.weight, chain.mean, chain.scatter.ravel(),
        average[0], average[1], average[2].ravel(),
        chain.covariances, chain.means, chain.chol, chain.const,
        layout.far, layout.D, layout.T, layout.W, layout.work, layout.rows, scores,
    )  # fmt: skip
    if bad >= 0:
        raise _spoilt(X, bad)
    mass = float(masses.sum())
    total = float(scores.sum())
    state = OnlineState(
        d,
        state.n_rows + n,
        state.mass + mass,
        (),
        chain,
        average if settings.average else None,
        monitor,
        total / mass if mass > 0 else state.level,
    )
    if alarms:
        state = replace(state, monitor=open_monitor(settings, state))
    return state, Learned(n, mass, total, tuple(alarms))


def _spoilt(X: NDArray[Any], component: int) -> StreamGMMError:
    largest = float(np.abs(X).max())
    if largest > 1e140:
        return DataError(
            f"a batch holds values up to {largest:.1e}, whose squares are beyond float64; "
            "scale the data, or leave such rows out"
        )
    return singular([component])
