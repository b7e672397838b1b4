"""Counts: features that are independent within a component, each with a Poisson rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from streamgmm.model.components import Shapes
from streamgmm.model.families.linear import LinearComponents, LinearFamily
from streamgmm.model.moments import Floats
from streamgmm.model.responsibilities import first_of
from streamgmm.model.sums import Sums


@dataclass(frozen=True)
class Poisson(LinearFamily):
    """Poisson components over rows of counts, or other numbers that are not negative.

    Parameters
    ----------
    least_rate : float, default=1e-10
        No rate is estimated below it. So a count that a sample of the rows does not have is
        unlikely in all of them, and not impossible.

    Examples
    --------
    >>> Poisson().n_parameters(3, 5)
    17
    """

    least_rate: float = 1e-10
    gaps: bool = field(default=False, repr=False)

    name = "poisson"
    plain = False
    base = "counting"

    def n_parameters(self, k: int, d: int) -> int:
        return k * d + k - 1

    def parameter_shapes(self, k: int, d: int) -> Shapes:
        return {"rates": (k, d)}

    def n_statistics(self, d: int) -> int:
        return d + 1

    def components(self, **arrays: Floats) -> PoissonComponents:
        return PoissonComponents(self, **arrays)

    def features(self, X: NDArray[Any]) -> NDArray[Any]:
        """Counts x, and -Σ_d log x!, which is NaN where a count is negative."""
        return with_base(X, -log_factorials(X))

    def estimate(self, statistics: Sums) -> PoissonComponents:
        """λ = Σ r x / Σ r."""
        statistics = self.whole(statistics)
        rates = statistics["total"][:, :-1] / statistics.weight[:, None]
        return PoissonComponents(self, np.maximum(rates, self.least_rate))

    def clustered(self, X: NDArray[Any]) -> NDArray[Any]:
        """Twice the square roots, whose variance is about one (Anscombe 1948)."""
        return 2 * np.sqrt(X + 0.375)

    def unsuitable(self, X: NDArray[Any]) -> tuple[int, str] | None:
        X = self.plugged(X)
        found = first_of(~(X >= 0))
        if found is None:
            return None
        return found[0], f"a negative count, {X[found]}, in column {found[1]}"


def log_factorials(X: NDArray[Any]) -> Floats:
    """Σ_d log x! of rows (n, D); NaN for those with a negative value."""
    known = gammaln(np.asarray(X, np.float64) + 1.0).sum(axis=1)
    return np.where((X < 0).any(axis=1), np.nan, known)


def with_base(X: NDArray[Any], base: Floats) -> Floats:
    """Rows (n, D) with one more column."""
    out = np.empty((len(X), X.shape[1] + 1))
    out[:, :-1] = X
    out[:, -1] = base
    return out


@dataclass(frozen=True, eq=False)
class PoissonComponents(LinearComponents):
    """Rates λ (K, D)."""

    rates: Floats

    @property
    def natural(self) -> Floats:
        """log λ."""
        return with_base(np.log(self.rates), np.ones(len(self.rates)))

    @property
    def log_partitions(self) -> Floats:
        """λ."""
        return self.rates

    @property
    def log_partition(self) -> Floats:
        """Σ_d λ."""
        return np.asarray(self.rates.sum(axis=1))

    @property
    def expected(self) -> Floats:
        """λ."""
        return self.rates

    def coordinates(self, weights: Floats, statistics: Sums) -> Floats:
        """√(π/λ) times the shift of the rates: their Fisher information is π/λ."""
        shift = self.family.estimate(statistics).rates - self.rates
        return np.asarray(shift * np.sqrt(weights[:, None] / self.rates)).ravel()

    def draw(self, k: int, n: int, random_state: np.random.RandomState) -> NDArray[Any]:
        return random_state.poisson(self.rates[k], (n, len(self.rates[k]))).astype(np.float64)

    def seeded(self, rows: NDArray[Any], average: Mapping[str, Floats]) -> dict[str, Floats]:
        """Half way from the others' rates to the row, which is but one draw."""
        return {"rates": (np.asarray(rows, np.float64) + average["rates"]) / 2}
