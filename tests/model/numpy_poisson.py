"""Poisson components in NumPy alone: what `streamgmm.model.tiles` makes of a few sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from streamgmm.model.components import Shapes
from streamgmm.model.moments import Floats
from streamgmm.model.tiles import Sums, TiledComponents, TiledFamily


@dataclass(frozen=True)
class Poisson(TiledFamily):
    """Poisson components; no rate is estimated below `least_rate`.

    So a count that a sample of the rows does not have is unlikely in all of them, and not
    impossible. Rows are counts, or other numbers that are not negative.
    """

    least_rate: float = 1e-10

    name = "numpy poisson"

    def n_parameters(self, k: int, d: int) -> int:
        return k * d + k - 1

    def parameter_shapes(self, k: int, d: int) -> Shapes:
        return {"rates": (k, d)}

    def sum_shapes(self, k: int, d: int) -> Shapes:
        return {"total": (k, d), "base": (k,)}

    def components(self, **arrays: Floats) -> PoissonComponents:
        return PoissonComponents(self, **arrays)

    def summarize(self, X: NDArray[Any], resp: Floats) -> Sums:
        """Σ r x, and Σ r log Π x!."""
        base = resp.T @ gammaln(X + 1.0).sum(axis=1)
        return Sums(self.name, resp.sum(axis=0), {"total": resp.T @ X, "base": base})

    def estimate(self, statistics: Sums) -> PoissonComponents:
        """λ = Σ r x / Σ r."""
        rates = statistics["total"] / statistics.weight[:, None]
        return PoissonComponents(self, np.maximum(rates, self.least_rate))

    def unsuitable(self, X: NDArray[Any]) -> tuple[int, str] | None:
        if X.min(initial=0) >= 0:
            return None
        rows, columns = np.nonzero(X < 0)
        return int(rows[0]), f"a negative count, {X[rows[0], columns[0]]}, in column {columns[0]}"


@dataclass(frozen=True, eq=False)
class PoissonComponents(TiledComponents):
    """Rates λ (K, D)."""

    rates: Floats

    def log_density(self, X: NDArray[Any]) -> Floats:
        """Σ_d x log λ - λ - log x!; NaN for a row with a negative count."""
        base = np.where((X < 0).any(axis=1), np.nan, gammaln(X + 1.0).sum(axis=1))
        return np.asarray(X @ np.log(self.rates).T - self.rates.sum(axis=1) - base[:, None])

    def expected_log_density(self, statistics: Sums) -> float:
        linear = np.sum(statistics["total"] * np.log(self.rates)) - statistics["base"].sum()
        return float(linear - statistics.weight @ self.rates.sum(axis=1))

    def coordinates(self, weights: Floats, statistics: Sums) -> Floats:
        """√(π/λ) times the shift of the rates: their Fisher information is π/λ."""
        shift = self.family.estimate(statistics).rates - self.rates
        return np.asarray(shift * np.sqrt(weights[:, None] / self.rates)).ravel()

    def draw(self, k: int, n: int, random_state: np.random.RandomState) -> NDArray[Any]:
        return random_state.poisson(self.rates[k], (n, len(self.rates[k]))).astype(np.float64)

    def seeded(self, rows: NDArray[Any], average: Mapping[str, Floats]) -> dict[str, Floats]:
        """Half way from the others' rates to the row, which is but one draw."""
        return {"rates": (np.asarray(rows, np.float64) + average["rates"]) / 2}
