"""Settings of online learning."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from streamgmm.errors import ParameterError, StreamGMMWarning
from streamgmm.model.components import Family
from streamgmm.model.families.gaussian import Gaussian

StepSize = Callable[[float], float]
WARM_UP_BYTES = 64 << 20  # of the rows of a warm-up, unless more are asked for


@dataclass(frozen=True)
class OnlineSettings:
    """Settings, validated by whoever builds them; `half_life` and `step_rows` are in rows.

    `step_size` is a function of the number of steps so far, and gives the weight γ of a step.
    """

    n_components: int
    family: Family
    step_size: StepSize
    step_rows: int
    warm_up: int
    half_life: float | None
    average: bool
    n_init: int
    init_params: str
    seed: int
    monitor: bool
    adapt: bool

    @property
    def compiled(self) -> bool:
        """Whether the steps are compiled: those of Gaussians."""
        return isinstance(self.family, Gaussian)

    @property
    def gaussian(self) -> Gaussian:
        """The family that is learned, where the steps are compiled."""
        assert isinstance(self.family, Gaussian)
        return self.family

    @property
    def covariance_type(self) -> str:
        """The shape of the covariances."""
        return self.gaussian.covariance_type

    @property
    def reg_covar(self) -> float:
        """What is added to their diagonals."""
        return self.gaussian.reg_covar

    @property
    def wide(self) -> bool:
        """Whether scatters are matrices."""
        return self.gaussian.covariance.matrices

    @property
    def apart(self) -> Gaussian:
        """The family of the same components, each with a covariance of its own."""
        return Gaussian("full" if self.wide else "diag", self.reg_covar, self.gaussian.gaps)

    @property
    def pooled(self) -> bool:
        """Whether variances are shared, by components (tied) or features (spherical)."""
        return self.covariance_type in ("tied", "spherical")


def parse_settings(params: Mapping[str, Any], family: Family, n_features: int) -> OnlineSettings:
    """Settings of the parameters of an estimator, each valid by itself.

    Raises
    ------
    ParameterError
        If the warm-up has fewer rows than a start needs, or the family cannot be watched for
        drift or adapted.
    """
    k = params["n_components"]
    for name in ("monitor", "adapt_components"):
        if params[name] and not isinstance(family, Gaussian):
            raise ParameterError(
                f"{name}=True is for Gaussian components, not for {family.name}; leave it out"
            )
    half_life, average, step_size = (params[n] for n in ("half_life", "average", "step_size"))
    p = family.n_parameters(k, n_features)
    most = max(2 * k, WARM_UP_BYTES // (8 * n_features))
    warm_up = params["warm_up"]
    warm_up = min(max(10 * p, 2_000), most) if warm_up == "auto" else int(warm_up)
    if warm_up < max(2, k):
        raise ParameterError(
            f"warm_up={warm_up} rows cannot start {k} components; give at least {max(2, k)}"
        )
    if half_life is not None and effective_rows(half_life) < 10 * p:
        least = math.ceil(10 * p * math.log(2) / 2)
        warnings.warn(
            f"half_life={half_life} keeps {effective_rows(half_life):.0f} rows in effect, fewer "
            f"than ten for each of {p} parameters: the model will be noisy; give "
            f"half_life={least} or more, or fewer parameters",
            StreamGMMWarning,
            stacklevel=5,
        )
    return OnlineSettings(
        k,
        family,
        step_size if callable(step_size) else partial(_power, float(step_size)),
        int(params["step_rows"]),
        warm_up,
        None if half_life is None else float(half_life),
        half_life is None if average is None else bool(average),
        int(params["n_init"]),
        params["init_params"],
        _seed(params["random_state"]),
        bool(params["monitor"]),
        bool(params["adapt_components"]),
    )


def effective_rows(half_life: float) -> float:
    """Rows in effect under forgetting, (1 + λ) / (1 - λ) with λ = 2^(-1 / half_life).

    >>> round(effective_rows(20_000))
    57708
    """
    forgotten = 2.0 ** (-1.0 / half_life)
    return float((1.0 + forgotten) / (1.0 - forgotten))


def _power(exponent: float, count: float) -> float:
    return float(count**-exponent)


def _seed(random_state: Any) -> int:
    """A number that starts are drawn with; a stream that is learned again gives the same model."""
    if random_state is None:
        return 0
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    return int(random_state)
