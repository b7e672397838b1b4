"""The state of online learning as plain values, and back; two states as one."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from streamgmm.errors import DataError, ParameterError
from streamgmm.kernels.stepwise import blend
from streamgmm.model.components import NO_WEIGHT
from streamgmm.model.covariances.base import Layout
from streamgmm.model.families.gaussian import gaussians
from streamgmm.model.mixture import Mixture, Statistics
from streamgmm.model.moments import Floats, Moments
from streamgmm.online.drift import Monitor
from streamgmm.online.stepwise import (
    Chain,
    OnlineSettings,
    OnlineState,
    effective_rows,
    from_moments,
    gains_of,
    learn,
    maximize,
    mixture_of,
    open_monitor,
)


def to_values(state: OnlineState) -> dict[str, Any]:
    """Numbers, arrays and dicts of them, from which `from_values` makes the same state."""
    values: dict[str, Any] = {
        name: getattr(state, name) for name in ("n_features", "n_rows", "mass", "level")
    }
    if state.waiting:
        values["waiting"] = np.concatenate([rows for rows, _ in state.waiting])
        values["waiting_weight"] = np.concatenate([weight for _, weight in state.waiting])
    if state.chain is not None:
        values["chain"] = _values_of(state.chain)
    if state.average is not None:
        weight, mean, scatter = state.average
        values["average"] = {"weight": weight, "mean": mean, "scatter": scatter}
    if state.monitor is not None:
        values["monitor"] = _values_of(state.monitor)
    return values


def from_values(values: dict[str, Any]) -> OnlineState:
    """The state that `to_values` was given, also where an earlier release saved it."""
    if "tree" in values:
        values = _unpacked(values)
    chain, average, monitor = (values.get(key) for key in ("chain", "average", "monitor"))
    waiting = ()
    if "waiting" in values:
        waiting = ((values["waiting"], values["waiting_weight"]),)  # type: ignore[assignment]
    return OnlineState(
        values["n_features"],
        values["n_rows"],
        values["mass"],
        waiting,
        None if chain is None else Chain(**chain),
        None if average is None else (average["weight"], average["mean"], average["scatter"]),
        None if monitor is None else Monitor(**monitor),
        values["level"],
    )


def _unpacked(packed: dict[str, Any]) -> dict[str, Any]:
    """Read what was saved before `Packed`: a tree of shapes, and all numbers in one array."""
    at = 0

    def fill(part: dict[str, Any]) -> dict[str, Any]:
        nonlocal at
        out: dict[str, Any] = {}
        for name, value in part.items():
            if isinstance(value, dict) and set(value) == {"shape"}:
                shape = tuple(value["shape"])
                size = int(np.prod(shape))
                out[name] = packed["numbers"][at : at + size].reshape(shape).copy()
                at += size
            else:
                out[name] = fill(value) if isinstance(value, dict) else value
        return out

    return fill(packed["tree"])


def _values_of(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def state_of_mixture(settings: OnlineSettings, mixture: Mixture, rows: float) -> OnlineState:
    """Go on from a mixture, which counts as if it had been learned from so many rows."""
    apart = apart_of(settings, mixture)
    components = gaussians(apart.components)
    k, d = components.means.shape
    share = mixture.weights.reshape((k,) + (1,) * (components.covariances.ndim - 1))
    scatter = components.covariances * share
    if settings.wide:
        np.einsum("kdd->kd", scatter)[...] -= settings.reg_covar * mixture.weights[:, None]
    else:
        scatter = np.maximum(scatter - settings.reg_covar * mixture.weights[:, None], 0.0)
    statistics = settings.apart.statistics(
        weight=mixture.weights, mean=components.means, scatter=scatter
    )
    log_constants = gaussians(mixture.components).density(mixture.weights).log_constants
    level = float(np.dot(mixture.weights, log_constants) - 0.5 * d)
    state = OnlineState(d, int(rows), float(rows))
    return from_moments(settings, state, apart, statistics, float(rows), level)


def apart_of(settings: OnlineSettings, mixture: Mixture) -> Mixture:
    """The same mixture with a covariance of its own for each component: full, or diagonal."""
    if settings.apart.name == mixture.family.name:
        return mixture
    components = gaussians(mixture.components)
    covariances = components.full_covariances if settings.wide else components.variances
    return Mixture.of(settings.apart, mixture.weights, components.means, np.array(covariances))


def absorb(settings: OnlineSettings, state: OnlineState, statistics: Statistics) -> OnlineState:
    """One step from the statistics of many rows under `apart_of` the chain's mixture."""
    assert state.chain is not None
    (gain,), (share,) = gains_of(settings, state.mass, np.array([statistics.weight]))
    chain, moments = state.chain.copy(), statistics.components
    blend(
        1.0 - gain, chain.weight, chain.mean, chain.scatter.ravel(), gain / statistics.weight,
        moments.weight, moments.mean, np.ascontiguousarray(moments.scatter).ravel(), settings.wide,
    )  # fmt: skip
    k, d = chain.mean.shape
    padded = Layout(k, d, np.dtype(np.float64)).D
    maximize(settings, chain, padded)
    average = state.average
    if average is not None:
        average = (average[0].copy(), average[1].copy(), average[2].copy())
        blend(
            1.0 - share, average[0], average[1], average[2].ravel(), share,
            chain.weight, chain.mean, chain.scatter.ravel(), settings.wide,
        )  # fmt: skip
    return replace(
        state,
        n_rows=state.n_rows + statistics.n_rows,
        mass=state.mass + statistics.weight,
        chain=chain,
        average=average,
        level=statistics.log_likelihood / statistics.weight,
    )


def chain_mixture(settings: OnlineSettings, state: OnlineState) -> Mixture:
    """The mixture that the next rows are learned under, each component apart."""
    assert state.chain is not None
    return apart_of(settings, mixture_of(settings, replace(state, average=None)))


def merge_states(settings: OnlineSettings, a: OnlineState, b: OnlineState) -> OnlineState:
    """What would be known had one place seen the rows of both; components are matched.

    Each counts by the rows in effect. Rows that wait for a model are learned by the other's.
    """
    if a.n_features != b.n_features:
        raise DataError(
            f"states of {a.n_features} and {b.n_features} features cannot be merged; both must "
            "have seen the same columns"
        )
    if a.chain is None or b.chain is None:
        if a.chain is None:
            a, b = b, a
        for rows, weight in b.waiting:
            a, _ = learn(settings, a, rows, NO_WEIGHT if np.all(weight == 1.0) else weight)
        return a
    if len(a.chain.weight) != len(b.chain.weight):
        raise ParameterError(
            f"states of {len(a.chain.weight)} and {len(b.chain.weight)} components cannot be "
            "merged; merge before components are adapted"
        )
    share_a, share_b = (_in_effect(settings, state) for state in (a, b))
    order = _match(mixture_of(settings, a), mixture_of(settings, b))
    kind = settings.apart.covariance.name

    def joined(one: tuple[Floats, Floats, Floats], two: tuple[Floats, Floats, Floats]) -> Moments:
        other = Moments(kind, *(part[order] for part in two))
        return Moments(kind, *one).scale(share_a).merge(other.scale(share_b))

    def parts(chain: Chain) -> tuple[Floats, Floats, Floats]:
        return chain.weight, chain.mean, chain.scatter

    start = replace(a, n_rows=a.n_rows + b.n_rows, monitor=None)
    level = (a.level * share_a + b.level * share_b) / (share_a + share_b)
    mixture = apart_of(settings, mixture_of(settings, a))
    moments = joined(parts(a.chain), parts(b.chain))
    state = from_moments(settings, start, mixture, moments, a.mass + b.mass, level)
    if a.average is not None and b.average is not None:
        average = joined(a.average, b.average)
        scale = 1.0 / average.weight.sum()
        weight, scatter = average.weight * scale, average.scatter * scale
        state = replace(state, average=(weight, average.mean, scatter))
    return replace(state, monitor=open_monitor(settings, state))


def _in_effect(settings: OnlineSettings, state: OnlineState) -> float:
    if settings.half_life is None:
        return state.mass
    return min(state.mass, effective_rows(settings.half_life))


def _match(a: Mixture, b: Mixture) -> Any:
    """For each component of `a`, the one of `b` that is most alike: the least sum of distances."""
    one, two = gaussians(a.components), gaussians(b.components)
    shift = one.means[:, None, :] - two.means[None, :, :]
    spread = one.variances[:, None] + two.variances
    return linear_sum_assignment(np.sum(shift**2 / spread, axis=2))[1]
