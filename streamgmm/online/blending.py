"""Steps of stepwise EM for any family: statistics are scaled and merged, then maximised.

s ← (1 - γ_t) s + γ_t s̄(rows),    θ = M(s)         (Cappé & Moulines 2009, eqs. 10-11)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError
from streamgmm.model.mixture import Mixture, Statistics, blend, e_step, m_step
from streamgmm.model.moments import Floats
from streamgmm.online.settings import OnlineSettings
from streamgmm.online.state import BlendedState, Learned, OnlineState, cut_steps


def begin(
    settings: OnlineSettings, n_rows: int, mass: float, mixture: Mixture, statistics: Statistics
) -> OnlineState:
    """The state that continues from a mixture and the statistics of rows under it.

    `n_rows` rows of weight `mass` have been seen. Raises DegenerateComponentError.
    """
    first = statistics.scale(1.0 / statistics.weight)
    running = BlendedState(m_step(mixture, first), first)
    level = statistics.log_likelihood / statistics.weight
    average = first if settings.average else None
    return OnlineState(mixture.n_features, n_rows, mass, running, average, level=level)


def step(
    settings: OnlineSettings, state: OnlineState, X: NDArray[Any], weight: Floats
) -> tuple[OnlineState, Learned]:
    """Learn the rows X (n, D) in steps of at most `step_rows` rows, as the compiled step does.

    Raises
    ------
    DegenerateComponentError
        If a component is no longer determined by its rows.
    DataError
        If a log-density is no number.
    """
    running, average = state.running, state.average
    steps = cut_steps(settings, state.mass, len(X), weight)
    total = 0.0
    for i, mass in enumerate(steps.masses.tolist()):
        if mass <= 0:
            continue
        part = slice(steps.edges[i], steps.edges[i + 1])
        fresh = e_step(running.mixture, X[part], weight[part] if len(weight) else None)
        if np.isnan(fresh.log_likelihood):
            raise DataError(
                f"a batch holds rows that {running.mixture.family.name} components cannot have "
                "made; leave them out"
            )
        total += fresh.log_likelihood
        mixture, statistics = blend(running.mixture, running.statistics, fresh, steps.gains[i])
        running = BlendedState(mixture, statistics)
        if average is not None:
            share = float(steps.shares[i])
            average = average.scale(1.0 - share).merge(statistics.scale(share))
    mass = float(steps.masses.sum())
    level = total / mass if mass > 0 else state.level
    n_rows = state.n_rows + len(X)
    after = OnlineState(state.n_features, n_rows, state.mass + mass, running, average, level=level)
    return after, Learned(len(X), mass, total)


def mixture_of(state: OnlineState) -> Mixture:
    """The current model: of the averaged statistics, where there are any."""
    mixture: Mixture = state.running.mixture
    return mixture if state.average is None else m_step(mixture, state.average)
