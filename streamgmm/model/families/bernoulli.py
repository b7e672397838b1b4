"""Flags: features of 0 or 1 that are independent within a component."""

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
class Bernoulli(LinearFamily):
    """Bernoulli components over rows of zeros and ones.

    Parameters
    ----------
    least_probability : float, default=1e-10
        No probability is estimated below it, or above one less it. So a value that no row of a
        component has is unlikely in it, and not impossible.

    Examples
    --------
    >>> Bernoulli().n_parameters(3, 5)
    17
    """

    least_probability: float = 1e-10
    gaps: bool = field(default=False, repr=False)

    name = "bernoulli"
    support = linear.BINARY
    base = "counting"

    def n_parameters(self, k: int, d: int) -> int:
        return k * d + k - 1

    def parameter_shapes(self, k: int, d: int) -> Shapes:
        return {"probabilities": (k, d)}

    def components(self, **arrays: Floats) -> BernoulliComponents:
        return BernoulliComponents(self, **arrays)

    def estimate(self, statistics: Sums) -> BernoulliComponents:
        """p = Σ r x / Σ r."""
        statistics = self.whole(statistics)
        least = self.least_probability
        share = statistics["total"] / statistics.weight[:, None]
        return BernoulliComponents(self, np.clip(share, least, 1 - least))

    def unsuitable(self, X: NDArray[Any]) -> tuple[int, str] | None:
        X = self.plugged(X)
        found = first_of((X != 0) & (X != 1))
        if found is None:
            return None
        return found[0], f"{X[found]} in column {found[1]}, which is neither 0 nor 1"


@dataclass(frozen=True, eq=False)
class BernoulliComponents(LinearComponents):
    """Probabilities p of a one (K, D)."""

    probabilities: Floats

    @property
    def natural(self) -> Floats:
        """log p / (1 - p)."""
        return np.asarray(np.log(self.probabilities) - np.log1p(-self.probabilities))

    @property
    def log_partitions(self) -> Floats:
        """-log(1 - p)."""
        return -np.log1p(-self.probabilities)

    @property
    def log_partition(self) -> Floats:
        """-Σ_d log(1 - p)."""
        return np.asarray(-np.log1p(-self.probabilities).sum(axis=1))

    @property
    def expected(self) -> Floats:
        """p."""
        return self.probabilities

    def coordinates(self, weights: Floats, statistics: Sums) -> Floats:
        """The Fisher information of a probability is π/p(1 - p)."""
        p = self.probabilities
        shift = self.family.estimate(statistics).probabilities - p
        return np.asarray(shift * np.sqrt(weights[:, None] / (p * (1 - p)))).ravel()

    def draw(self, k: int, n: int, random_state: np.random.RandomState) -> NDArray[Any]:
        p = self.probabilities[k]
        return np.asarray(random_state.random_sample((n, len(p))) < p, np.float64)

    def seeded(self, rows: NDArray[Any], average: Mapping[str, Floats]) -> dict[str, Floats]:
        """Half way from the others' probabilities to the row, which is but one draw."""
        return {"probabilities": (np.asarray(rows, np.float64) + average["probabilities"]) / 2}
