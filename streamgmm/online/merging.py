"""Merge two learners; make a learner of a fitted mixture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from streamgmm.errors import DataError, ParameterError
from streamgmm.model.components import NO_WEIGHT
from streamgmm.model.families.gaussian import gaussians
from streamgmm.model.mixture import Mixture, Statistics
from streamgmm.model.moments import Floats, Moments
from streamgmm.online import blending
from streamgmm.online.gathering import Gathered
from streamgmm.online.learner import Learner
from streamgmm.online.settings import OnlineSettings
from streamgmm.online.starting import apart_of
from streamgmm.online.state import OnlineState, RunningState, in_effect
from streamgmm.online.stepwise import from_moments, mixture_of, open_monitor

Parts = tuple[Floats, Floats, Floats]


def from_mixture(settings: OnlineSettings, mixture: Mixture, rows: float) -> Learner:
    """A learner that continues from a mixture, as if that had been learned from so many rows."""
    apart = apart_of(settings, mixture)
    components = gaussians(apart.components)
    k, d = components.means.shape
    share = mixture.weights.reshape((k,) + (1,) * (components.covariances.ndim - 1))
    scatter = components.covariances * share
    if settings.wide:
        np.einsum("kdd->kd", scatter)[...] -= settings.reg_covar * mixture.weights[:, None]
    else:
        scatter = np.maximum(scatter - settings.reg_covar * mixture.weights[:, None], 0.0)
    moments = settings.apart.statistics(
        weight=mixture.weights, mean=components.means, scatter=scatter
    )
    log_constants = gaussians(mixture.components).density(mixture.weights).log_constants
    level = float(np.dot(mixture.weights, log_constants) - 0.5 * d)
    state = from_moments(settings, int(rows), float(rows), apart, moments, level)
    return Learner.of(settings, state)


def from_statistics(settings: OnlineSettings, mixture: Mixture, statistics: Statistics) -> Learner:
    """A learner that continues from a mixture and the statistics of all rows under it."""
    if settings.compiled:
        return from_mixture(settings, mixture, statistics.weight)
    n_rows, mass = statistics.n_rows, statistics.weight
    return Learner.of(settings, blending.begin(settings, n_rows, mass, mixture, statistics))


def merge(a: Learner, b: Learner) -> Learner:
    """The learner that would have seen the rows of both; components are matched.

    Each counts by the rows in effect, by the settings of `a`. A warm-up's fit that is under way
    is finished first. Rows that are still gathered are learned by the other. Watching starts
    anew.

    Raises
    ------
    DataError, ParameterError
        If features or components differ.
    """
    if a.n_features != b.n_features:
        raise DataError(
            f"states of {a.n_features} and {b.n_features} features cannot be merged; both must "
            "have seen the same columns"
        )
    settings = a.settings
    a, b = _finished(settings, a), _finished(settings, b)
    if a.state is None:
        a, b = b, a
    if b.gathered is not None:
        _take_gathered(a, b.gathered)
        return _finished(settings, a)
    assert a.state is not None
    assert b.state is not None
    return Learner.of(settings, _merged(settings, a.state, b.state))


def _finished(settings: OnlineSettings, learner: Learner) -> Learner:
    """The same model without its journal; a fit of a warm-up that has begun is finished."""
    found = Learner(settings, learner.n_features)
    found.gathered, found.queue, found.state = learner.gathered, learner.queue, learner.state
    found.finish()
    if found.state is None:
        return found
    state = replace(found.state, monitor=None)
    return Learner.of(settings, replace(state, monitor=open_monitor(settings, state)))


def _take_gathered(learner: Learner, gathered: Gathered) -> None:
    """Learn the buffered rows of another warm-up; rows without weight are only counted."""
    rows, weight = gathered.joined()
    learner.learn([(rows, NO_WEIGHT if weight is None else weight)], np.inf)
    more = gathered.n_rows - len(rows)
    if learner.state is not None:
        learner.state = replace(learner.state, n_rows=learner.state.n_rows + more)
    elif learner.gathered is not None:
        learner.gathered = replace(learner.gathered, n_rows=learner.gathered.n_rows + more)


def _merged(settings: OnlineSettings, a: OnlineState, b: OnlineState) -> OnlineState:
    """One model of the statistics of two."""
    if len(a.running.weight) != len(b.running.weight):
        raise ParameterError(
            f"states of {len(a.running.weight)} and {len(b.running.weight)} components cannot be "
            "merged; merge before components are adapted"
        )
    share_a, share_b = (in_effect(settings, state) for state in (a, b))
    order = _match(mixture_of(settings, a), mixture_of(settings, b))
    kind: Any = "full" if settings.wide else "diag"

    def joined(one: Parts, two: Parts) -> Moments:
        other = Moments(kind, *(part[order] for part in two))
        return Moments(kind, *one).scale(share_a).merge(other.scale(share_b))

    n_rows, mass = a.n_rows + b.n_rows, a.mass + b.mass
    level = (a.level * share_a + b.level * share_b) / (share_a + share_b)
    mixture = apart_of(settings, mixture_of(settings, a))
    moments = joined(_parts(a.running), _parts(b.running))
    state = from_moments(settings, n_rows, mass, mixture, moments, level)
    if a.average is not None and b.average is not None:
        average = joined(a.average, b.average)
        scale = 1.0 / average.weight.sum()
        weight, scatter = average.weight * scale, average.scatter * scale
        state = replace(state, average=(weight, average.mean, scatter))
    return replace(state, monitor=open_monitor(settings, state))


def _parts(running: RunningState) -> Parts:
    return running.weight, running.mean, running.scatter


def _match(a: Mixture, b: Mixture) -> Any:
    """For each component of `a`, the one of `b` that is most alike: the least sum of distances."""
    one, two = gaussians(a.components), gaussians(b.components)
    shift = one.means[:, None, :] - two.means[None, :, :]
    spread = one.variances[:, None] + two.variances
    return linear_sum_assignment(np.sum(shift**2 / spread, axis=2))[1]
