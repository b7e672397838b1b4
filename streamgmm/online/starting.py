"""How the fit of a warm-up starts, and what stepwise EM continues from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.fitting.effort import Effort, is_small, plan_effort
from streamgmm.fitting.settings import FitSettings
from streamgmm.model.families.gaussian import gaussians
from streamgmm.model.mixture import Mixture
from streamgmm.online.settings import OnlineSettings


def fit_settings(settings: OnlineSettings) -> FitSettings:
    """Settings of the fit of a warm-up."""
    return FitSettings(
        settings.n_components,
        settings.family,
        n_init=settings.n_init,
        init_params=settings.init_params,
    )


def informed(how: FitSettings, rows: NDArray[Any]) -> FitSettings:
    """The same with settings of the family that are taken from the rows of the warm-up."""
    family = how.family
    return replace(how, family=family.informed(family.survey(rows))) if family.surveys else how


def plan_starts(how: FitSettings, n_rows: int, n_features: int) -> tuple[bool, Effort]:
    """Whether every start runs EM to convergence on all rows, and how many starts there are.

    >>> small, effort = plan_starts(FitSettings(4, n_init=16), 2_000, 3)
    >>> small, effort.n_rows, effort.n_starts
    (True, 2000, 16)
    >>> small, effort = plan_starts(FitSettings(16, n_init=16), 24_470, 16)
    >>> small, effort.n_rows, effort.n_starts
    (False, 3200, 16)
    """
    if not is_small(how, n_rows, n_features):
        return False, plan_effort(how, n_rows, n_features, n_rows)
    n_starts = 1 if how.n_components == 1 else how.n_init
    return True, Effort(n_rows, 1, n_starts, n_starts)


def apart_of(settings: OnlineSettings, mixture: Mixture) -> Mixture:
    """The same mixture, of Gaussians with a covariance of its own for each: full, or diagonal."""
    if not settings.compiled or settings.apart.name == mixture.family.name:
        return mixture
    components = gaussians(mixture.components)
    covariances = components.full_covariances if settings.wide else components.variances
    return Mixture.of(settings.apart, mixture.weights, components.means, np.array(covariances))
