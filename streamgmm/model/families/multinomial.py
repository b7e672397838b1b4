"""Shares of a total: counts of D kinds, given how many there are in a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from streamgmm.model.components import Shapes
from streamgmm.model.families.linear import LinearComponents, LinearFamily
from streamgmm.model.families.poisson import log_factorials, with_base
from streamgmm.model.moments import Floats
from streamgmm.model.responsibilities import first_of
from streamgmm.model.sums import Sums


@dataclass(frozen=True)
class Multinomial(LinearFamily):
    """Multinomial components over rows of counts; the total of each row is taken as given.

    Parameters
    ----------
    least_probability : float, default=1e-10
        No probability is estimated below it. So a kind that no row of a component has is
        unlikely in it, and not impossible.
    trials : int, default=0
        Total of the rows that are sampled. 0 stands for the mean total of the rows that were
        fitted, rounded.

    Examples
    --------
    >>> Multinomial().n_parameters(3, 5)
    14
    """

    least_probability: float = 1e-10
    trials: int = 0

    name = "multinomial"
    plain = False
    base = "counting given totals"  # so it is no rival of families that explain the totals too

    @property
    def surveys(self) -> bool:  # type: ignore[override]
        """Whether the total of rows that are sampled is still to be taken from the rows."""
        return self.trials == 0

    def survey(self, X: NDArray[Any]) -> Totals:
        return Totals(len(X), float(np.asarray(X, np.float64).sum()))

    def informed(self, survey: Totals) -> Multinomial:
        return replace(self, trials=max(1, round(survey.total / max(survey.n_rows, 1))))

    def n_parameters(self, k: int, d: int) -> int:
        return k * (d - 1) + k - 1

    def parameter_shapes(self, k: int, d: int) -> Shapes:
        return {"probabilities": (k, d)}

    def n_statistics(self, d: int) -> int:
        return d + 1

    def components(self, **arrays: Floats) -> MultinomialComponents:
        return MultinomialComponents(self, **arrays)

    def features(self, X: NDArray[Any]) -> NDArray[Any]:
        """Counts x, and the log of the multinomial coefficient; NaN for a negative count."""
        total = np.asarray(X, np.float64).sum(axis=1)
        return with_base(X, gammaln(np.maximum(total, 0) + 1.0) - log_factorials(X))

    def estimate(self, statistics: Sums) -> MultinomialComponents:
        """p = Σ r x / Σ r Σ_d x."""
        return MultinomialComponents(self, shares(statistics["total"][:, :-1], self))

    def clustered(self, X: NDArray[Any]) -> NDArray[Any]:
        """Square roots of the shares, whose distance is Hellinger's."""
        total = np.asarray(X, np.float64).sum(axis=1, keepdims=True)
        return np.asarray(np.sqrt(X / np.maximum(total, 1e-300)))

    def unsuitable(self, X: NDArray[Any]) -> tuple[int, str] | None:
        found = first_of(~(X >= 0))
        if found is None:
            return None
        return found[0], f"a negative count, {X[found]}, in column {found[1]}"


@dataclass(frozen=True)
class Totals:
    """Rows, and the sum of all their counts."""

    n_rows: int
    total: float

    def merge(self, other: Totals) -> Totals:
        """Of both sets of rows."""
        return Totals(self.n_rows + other.n_rows, self.total + other.total)


def shares(counts: Floats, family: Any) -> Floats:
    """Counts (..., L) as probabilities; equal ones where there are no counts.

    Those below the family's `least_probability` are lifted to it, and all scaled to sum to one.
    """
    total = counts.sum(axis=-1, keepdims=True)
    even = np.full_like(counts, 1 / counts.shape[-1])
    found = np.divide(counts, total, out=even, where=total > 0)
    found = np.maximum(found, family.least_probability)
    return np.asarray(found / found.sum(axis=-1, keepdims=True))


@dataclass(frozen=True, eq=False)
class MultinomialComponents(LinearComponents):
    """Probabilities of each kind (K, D), which sum to one."""

    probabilities: Floats

    @property
    def natural(self) -> Floats:
        """log p."""
        return with_base(np.log(self.probabilities), np.ones(len(self.probabilities)))

    @property
    def log_partition(self) -> Floats:
        """Zero."""
        return np.zeros(len(self.probabilities))

    def coordinates(self, weights: Floats, statistics: Sums) -> Floats:
        """√(π m/p) times the shift of the probabilities, where rows have m counts in the mean."""
        p = self.probabilities
        counts = statistics["total"][:, :-1]
        shift = self.family.estimate(statistics).probabilities - p
        m = counts.sum(axis=1) / statistics.weight
        return np.asarray(shift * np.sqrt((weights * m)[:, None] / p)).ravel()

    def draw(self, k: int, n: int, random_state: np.random.RandomState) -> NDArray[Any]:
        trials = max(self.family.trials, 1)
        return random_state.multinomial(trials, self.probabilities[k], n).astype(np.float64)

    def seeded(self, rows: NDArray[Any], average: Mapping[str, Floats]) -> dict[str, Floats]:
        """Half way from the others' probabilities to the row's shares."""
        own = shares(np.asarray(rows, np.float64), self.family)
        return {"probabilities": (own + average["probabilities"]) / 2}
