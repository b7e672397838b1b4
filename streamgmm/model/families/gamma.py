"""Sizes and durations: positive features that are independent within a component, each gamma."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, gammaln, polygamma

from streamgmm.model.components import Shapes
from streamgmm.model.families.linear import LinearComponents, LinearFamily
from streamgmm.model.moments import Floats
from streamgmm.model.responsibilities import first_of
from streamgmm.model.sums import Sums

_ASYMPTOTIC = 1e3  # shapes above it have log a - ψ(a) by its series, which does not cancel


@dataclass(frozen=True)
class Gamma(LinearFamily):
    """Gamma components over rows of positive numbers.

    Parameters
    ----------
    most_shape : float, default=1e6
        No shape is estimated above it: the standard deviation is never less than a thousandth
        of the mean. So a component whose values are all equal stays finite.

    Examples
    --------
    >>> Gamma().n_parameters(3, 5)
    32
    """

    most_shape: float = 1e6
    gaps: bool = field(default=False, repr=False)

    name = "gamma"
    plain = False
    features_a_column = 2

    def n_parameters(self, k: int, d: int) -> int:
        return 2 * k * d + k - 1

    def parameter_shapes(self, k: int, d: int) -> Shapes:
        return {"shapes": (k, d), "scales": (k, d)}

    def n_statistics(self, d: int) -> int:
        return 2 * d

    def components(self, **arrays: Floats) -> GammaComponents:
        return GammaComponents(self, **arrays)

    def features(self, X: NDArray[Any]) -> NDArray[Any]:
        """Values x, and log x, which is NaN where x is not positive."""
        d = X.shape[1]
        out = np.empty((len(X), 2 * d))
        out[:, :d] = X
        with np.errstate(invalid="ignore", divide="ignore"):
            np.log(out[:, :d], out=out[:, d:])
        out[:, d:][out[:, :d] <= 0] = np.nan
        return out

    def estimate(self, statistics: Sums) -> GammaComponents:
        """The shape solves log a - ψ(a) = log x̄ - mean(log x), and a times the scale is x̄."""
        statistics = self.whole(statistics)
        d = statistics["total"].shape[1] // 2
        means, logs = np.split(statistics["total"] / statistics.weight[:, None], [d], axis=1)
        means = np.maximum(means, 1e-300)  # a jump may have made it negative
        a = gamma_shapes(np.log(means) - logs, self.most_shape)
        return GammaComponents(self, a, np.maximum(means / a, 1e-300))

    def clustered(self, X: NDArray[Any]) -> NDArray[Any]:
        """Logarithms."""
        return np.asarray(np.log(X))

    def unsuitable(self, X: NDArray[Any]) -> tuple[int, str] | None:
        return not_positive(self.plugged(X))


def not_positive(X: NDArray[Any]) -> tuple[int, str] | None:
    """The first row (n, D) with a value that is not positive, and which; None if there is none.

    >>> not_positive(np.array([[1.0, 2.0], [3.0, 0.0]]))
    (1, '0.0 in column 1, which is not positive')
    """
    found = first_of(~(X > 0))
    if found is None:
        return None
    return found[0], f"{X[found]} in column {found[1]}, which is not positive"


def gamma_shapes(gap: Floats, most: float) -> Floats:
    """Solve log a - ψ(a) = gap for a ≤ most, by Newton's method for 1/a (Minka 2002).

    >>> a = gamma_shapes(np.log([3.0]) - digamma([3.0]), 1e6)
    >>> bool(np.isclose(a.item(), 3.0, rtol=1e-14))
    True
    """
    gap = np.maximum(gap, 0.25 / most)
    a = (3 - gap + np.sqrt((gap - 3) ** 2 + 24 * gap)) / (12 * gap)
    for _ in range(8):
        far = a > _ASYMPTOTIC
        near = np.where(far, 1.0, a)
        series = 0.5 / a + 1 / (12 * a**2) - 1 / (120 * a**4)
        value = np.where(far, series, np.log(near) - digamma(near))
        slope = np.where(far, -0.5 / a**2 - 1 / (6 * a**3), 1 / near - polygamma(1, near))
        inverse = 1 / a + (value - gap) / (a**2 * slope)
        a = 1 / np.maximum(inverse, 0.5 / most)
    return np.minimum(a, most)


@dataclass(frozen=True, eq=False)
class GammaComponents(LinearComponents):
    """Shapes a and scales s (K, D): the mean is a s, the variance a s²."""

    shapes: Floats
    scales: Floats

    @property
    def natural(self) -> Floats:
        """-1/s of x, and a - 1 of log x."""
        return np.concatenate([-1 / self.scales, self.shapes - 1], axis=1)

    @property
    def log_partitions(self) -> Floats:
        """log Γ(a) + a log s."""
        return np.asarray(gammaln(self.shapes) + self.shapes * np.log(self.scales))

    @property
    def log_partition(self) -> Floats:
        """Σ_d log Γ(a) + a log s."""
        return np.asarray(self.log_partitions.sum(axis=1))

    @property
    def expected(self) -> Floats:
        """a s."""
        return np.asarray(self.shapes * self.scales)

    def coordinates(self, weights: Floats, statistics: Sums) -> Floats:
        """Shifts of log a s, with information π a, and of a, with π (ψ'(a) - 1/a)."""
        new, a = self.family.estimate(statistics), self.shapes
        root = np.sqrt(weights)[:, None]
        mean = np.log(new.shapes * new.scales / (a * self.scales)) * np.sqrt(a)
        shape = (new.shapes - a) * np.sqrt(polygamma(1, a) - 1 / a)
        return np.concatenate([(root * mean).ravel(), (root * shape).ravel()])

    def draw(self, k: int, n: int, random_state: np.random.RandomState) -> NDArray[Any]:
        a, s = self.shapes[k], self.scales[k]
        return np.maximum(random_state.gamma(a, s, (n, len(a))), np.finfo(np.float64).tiny)

    def seeded(self, rows: NDArray[Any], average: Mapping[str, Floats]) -> dict[str, Floats]:
        """The others' shapes, and a mean half way from theirs to the row."""
        a = np.broadcast_to(average["shapes"], rows.shape)
        mean = (np.asarray(rows, np.float64) + average["shapes"] * average["scales"]) / 2
        return {"shapes": a, "scales": mean / a}
