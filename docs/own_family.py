"""Counts with more zeros than Poisson's: a family of components of one's own."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, lambertw, xlogy

from streamgmm.families import Sums, TiledComponents, TiledFamily


@dataclass(frozen=True)
class ZeroInflatedPoisson(TiledFamily):
    """Each count is zero with probability z, and else Poisson's with rate λ (Lambert 1992)."""

    least_rate: float = 1e-10
    name = "zero_inflated_poisson"
    base = "counting"

    def n_parameters(self, k: int, d: int) -> int:
        return 2 * k * d + k - 1

    def parameter_shapes(self, k: int, d: int) -> dict[str, tuple[int, ...]]:
        return {"rates": (k, d), "inflations": (k, d)}

    def sum_shapes(self, k: int, d: int) -> dict[str, tuple[int, ...]]:
        return {"total": (k, d), "zeros": (k, d), "base": (k, d)}

    def components(self, **arrays: NDArray[Any]) -> Any:
        return ZeroInflatedPoissonComponents(self, **arrays)

    def summarize(self, X: NDArray[Any], resp: NDArray[Any]) -> Sums:
        sums = {"total": resp.T @ X, "zeros": resp.T @ (X == 0), "base": resp.T @ gammaln(X + 1.0)}
        return Sums(self.name, resp.sum(axis=0), sums)

    def estimate(self, statistics: Sums) -> Any:
        n, total, zeros = statistics.weight[:, None], statistics["total"], statistics["zeros"]
        m = np.where(total > 0, total / np.maximum(n - zeros, 1e-300), 1.0)  # of counts above zero
        rates = np.maximum(m + lambertw(-m * np.exp(-m)).real, self.least_rate)  # m is λ/(1-e^-λ)
        inflations = 1.0 - (1.0 - zeros / n) / -np.expm1(-rates)
        few = ~(inflations > 0)  # fewer zeros than Poisson's: the maximum is at z = 0
        rates = np.where(few, np.maximum(total / n, self.least_rate), rates)
        return self.components(rates=rates, inflations=np.where(few, 0.0, inflations))

    def unsuitable(self, X: NDArray[Any]) -> tuple[int, str] | None:
        rows, columns = np.nonzero(~(X >= 0))
        return (int(rows[0]), f"no count in column {columns[0]}") if len(rows) else None


@dataclass(frozen=True, eq=False)
class ZeroInflatedPoissonComponents(TiledComponents):
    """Rates λ and probabilities z of a zero that is no count, each (K, D)."""

    rates: NDArray[Any]
    inflations: NDArray[Any]

    def log_density(self, X: NDArray[Any]) -> NDArray[Any]:
        zero, rest = self._logs()
        counts = X @ np.log(self.rates).T - gammaln(X + 1.0).sum(axis=1)[:, None]
        return np.asarray(counts + (X == 0) @ zero.T + (X != 0) @ rest.T)

    def expected_log_density(self, statistics: Sums) -> float:
        zero, rest = self._logs()
        zeros, more = statistics["zeros"], statistics.weight[:, None] - statistics["zeros"]
        sums = xlogy(statistics["total"], self.rates) + zeros * zero + more * rest
        return float(sums.sum() - statistics["base"].sum())

    def _logs(self) -> tuple[NDArray[Any], NDArray[Any]]:
        z, rates = np.minimum(self.inflations, 1 - 1e-16), self.rates
        return np.log(z + (1 - z) * np.exp(-rates)), np.log1p(-z) - rates  # of zeros, and others

    def draw(self, k: int, n: int, random_state: np.random.RandomState) -> NDArray[Any]:
        counts = random_state.poisson(self.rates[k], (n, len(self.rates[k])))
        return np.where(random_state.uniform(size=counts.shape) < self.inflations[k], 0.0, counts)

    def seeded(self, rows: NDArray[Any], average: Any) -> dict[str, NDArray[Any]]:
        z = np.broadcast_to(average["inflations"], rows.shape)
        return {"rates": (rows + average["rates"]) / 2, "inflations": z}
