"""Waiting times: features that are independent within a component, each exponential."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.kernels import linear
from streamgmm.model.components import Shapes
from streamgmm.model.families.linear import LinearComponents, LinearFamily
from streamgmm.model.moments import Floats
from streamgmm.model.responsibilities import first_of
from streamgmm.model.sums import Sums


@dataclass(frozen=True)
class Exponential(LinearFamily):
    """Exponential components over rows of numbers that are not negative.

    Parameters
    ----------
    most_rate : float, default=1e10
        No rate is estimated above it. So a component whose rows are all zero stays finite.

    Examples
    --------
    >>> Exponential().n_parameters(3, 5)
    17
    """

    most_rate: float = 1e10
    gaps: bool = field(default=False, repr=False)

    name = "exponential"
    support = linear.NONNEGATIVE

    def n_parameters(self, k: int, d: int) -> int:
        return k * d + k - 1

    def parameter_shapes(self, k: int, d: int) -> Shapes:
        return {"rates": (k, d)}

    def components(self, **arrays: Floats) -> ExponentialComponents:
        return ExponentialComponents(self, **arrays)

    def estimate(self, statistics: Sums) -> ExponentialComponents:
        """λ = Σ r / Σ r x; the greatest where a jump has made the sum negative."""
        statistics = self.whole(statistics)
        total = statistics["total"]
        with np.errstate(divide="ignore", invalid="ignore"):
            rates = np.where(total >= 0, statistics.weight[:, None] / total, self.most_rate)
        return ExponentialComponents(self, np.minimum(rates, self.most_rate))

    def clustered(self, X: NDArray[Any]) -> NDArray[Any]:
        """Cube roots, which are nearly symmetric (Wilson & Hilferty 1931)."""
        return np.asarray(np.cbrt(X))

    def unsuitable(self, X: NDArray[Any]) -> tuple[int, str] | None:
        X = self.plugged(X)
        found = first_of(~(X >= 0))
        if found is None:
            return None
        return found[0], f"a negative value, {X[found]}, in column {found[1]}"


@dataclass(frozen=True, eq=False)
class ExponentialComponents(LinearComponents):
    """Rates λ (K, D), one over the means."""

    rates: Floats

    @property
    def natural(self) -> Floats:
        """-λ."""
        return -self.rates

    @property
    def log_partitions(self) -> Floats:
        """-log λ."""
        return -np.log(self.rates)

    @property
    def log_partition(self) -> Floats:
        """-Σ_d log λ."""
        return np.asarray(-np.log(self.rates).sum(axis=1))

    @property
    def expected(self) -> Floats:
        """1/λ."""
        return np.asarray(1 / self.rates)

    def coordinates(self, weights: Floats, statistics: Sums) -> Floats:
        """The Fisher information of a rate is π/λ²."""
        shift = self.family.estimate(statistics).rates / self.rates - 1.0
        return np.asarray(shift * np.sqrt(weights)[:, None]).ravel()

    def draw(self, k: int, n: int, random_state: np.random.RandomState) -> NDArray[Any]:
        return random_state.exponential(1 / self.rates[k], (n, len(self.rates[k])))

    def seeded(self, rows: NDArray[Any], average: Mapping[str, Floats]) -> dict[str, Floats]:
        """The mean is half way from the others' to the row, which is but one draw."""
        return {"rates": 2 / (np.asarray(rows, np.float64) + 1 / average["rates"])}
