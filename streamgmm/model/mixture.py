"""A mixture, the statistics of rows under it, and the two steps of EM: one block, in memory.

    log p(x) = F(q, θ) + KL(q ‖ p(z | x, θ))

`e_step` sets q to the posterior of the mixture it is given, so that F equals the
log-likelihood, and returns what `m_step` needs to raise F over the parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.model.components import (
    NO_WEIGHT,
    Accumulator,
    Components,
    Density,
    Family,
    Posterior,
)
from streamgmm.model.families import parse_family
from streamgmm.model.moments import Floats
from streamgmm.model.truncation.sets import Sets, Turn


@dataclass(frozen=True, eq=False)
class Mixture:
    """Weights (K,) and the components that they weigh."""

    weights: Floats
    components: Components

    @classmethod
    def of(cls, family: Family | str, weights: Floats, *parameters: Floats) -> Mixture:
        """A mixture of a family from its parameters, in their order.

        Of Gaussians these are means and covariances; raises DegenerateComponentError.

        >>> m = Mixture.of("diag", np.ones(1), np.zeros((1, 2)), np.ones((1, 2)))
        >>> round(m.posterior(np.zeros((1, 2))).log_density.item(), 6)
        -1.837877
        """
        family = parse_family(family)
        return cls(weights, family.of_parameters(*parameters))

    @property
    def family(self) -> Family:
        """The family of the components."""
        return self.components.family

    @property
    def n_components(self) -> int:
        """K."""
        return self.components.n_components

    @property
    def n_features(self) -> int:
        """D."""
        return self.components.n_features

    @property
    def n_parameters(self) -> int:
        """Free parameters."""
        return self.family.n_parameters(self.n_components, self.n_features)

    @cached_property
    def density(self) -> Density:
        """The components and their weights, ready for a pass."""
        return self.components.density(self.weights)

    @property
    def exact(self) -> Mixture:
        """The same mixture, where rows look at all components: itself, unless it is truncated."""
        if not getattr(self.density, "truncated", False):
            return self
        return Mixture(self.weights, self.density.exact.components)  # type: ignore[attr-defined]

    def prepare(self) -> None:
        """Make what a pass takes long to make, before it is sent to many blocks."""
        prepare = getattr(self.density, "prepare", None)
        if prepare is not None:
            prepare()

    def take(self, components: NDArray[np.intp]) -> Mixture:
        """The mixture of some of its components, their weights scaled to sum to one."""
        weights = self.weights[components] / self.weights[components].sum()
        return Mixture(weights, self.components.take(components))

    def reseed(self, components: NDArray[np.intp], pool: NDArray[Any]) -> Mixture:
        """Start components again at the rows of `pool` (m, D) that the mixture finds least likely.

        They get a K-th of the weight each.
        """
        k = self.n_components
        others = np.setdiff1d(np.arange(k), components)
        kept = self.take(others)
        order = np.argsort(kept.posterior(pool).log_density, kind="stable")
        rows = pool[order[: len(components)]]
        weights = np.empty(k)
        weights[others] = kept.weights * (1 - len(components) / k)
        weights[components] = 1 / k
        return Mixture(weights, self.components.reseed(components, rows, self.weights))

    def posterior(self, X: NDArray[Any], *, labels: bool = False, resp: bool = False) -> Posterior:
        """Log-densities of rows (n, D), with labels and responsibilities where asked for.

        Nats; always computed in float64.
        """
        return self.density.posterior(X, labels=labels, resp=resp)

    def sample(
        self, n: int, random_state: np.random.RandomState
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Draw n rows, and the component of each; sorted by component, as in scikit-learn."""
        counts = random_state.multinomial(n, self.weights)
        rows = self.components.sample(counts, random_state)
        return rows, np.repeat(np.arange(self.n_components), counts)


@dataclass(frozen=True, eq=False)
class Statistics:
    """What an E-step leaves of rows under one mixture; a value that merges.

    `n_rows` rows of total `weight`; `log_likelihood` and `entropy` of q in nats, summed over
    rows by weight; `components` the statistics of each component.
    """

    n_rows: int
    weight: float
    log_likelihood: float
    entropy: float
    components: Any

    def merge(self, other: Statistics) -> Statistics:
        """Statistics of both sets of rows."""
        return Statistics(
            self.n_rows + other.n_rows,
            self.weight + other.weight,
            self.log_likelihood + other.log_likelihood,
            self.entropy + other.entropy,
            self.components.merge(other.components),
        )

    def scale(self, factor: float) -> Statistics:
        """The same rows with every weight multiplied by `factor`."""
        return Statistics(
            self.n_rows,
            self.weight * factor,
            self.log_likelihood * factor,
            self.entropy * factor,
            self.components.scale(factor),
        )


class EStep:
    """The E-steps of several mixtures over the same rows, which are added piece by piece.

    Parameters
    ----------
    mixtures : sequence of (Mixture, ndarray or None)
        With the points about which `Density.refine` wants the sums, if it does.
    hard : bool
        Whether each row counts for its likeliest component alone.
    sets : Sets, optional
        Where the components that rows look at are kept, and in which of `turns` each mixture is.
    """

    def __init__(
        self,
        mixtures: Sequence[tuple[Mixture, Floats | None]],
        hard: bool = False,
        sets: Sets | None = None,
        turns: Sequence[Turn] = (),
    ) -> None:
        self._mixtures, self._hard = mixtures, hard
        self._sets, self._turns = sets, turns
        self._accumulators: list[Accumulator] = []
        self._placed: list[Any] = []  # `PlacedAccumulator`
        self._n_rows = 0
        self._weight = 0.0

    def add(self, X: NDArray[Any], weights: Floats = NO_WEIGHT, start: int | None = None) -> None:
        """Add rows X (n, D), float32 or float64, C-contiguous, and weights (n,) or none.

        `start` is the number of the first of them in the source, where they have one.
        """
        if not self._accumulators:
            self._open(X, len(weights) > 0)
        for placed in self._placed:
            placed.place(start)
        for accumulator in self._accumulators:
            accumulator.add(X, weights)
        self._n_rows += len(X)
        self._weight += float(weights.sum() if len(weights) else len(X))

    def result(self) -> tuple[Statistics, ...]:
        """Statistics of all rows under each mixture."""
        if not self._accumulators:
            self._open(np.empty((0, self._mixtures[0][0].n_features)), False)
        found = [accumulator.result() for accumulator in self._accumulators]
        return tuple(
            Statistics(self._n_rows, self._weight, s.log_likelihood, s.entropy, s.statistics)
            for s in found
        )

    def _open(self, like: NDArray[Any], weighted: bool) -> None:
        self._accumulators = [
            mixture.density.hard_accumulator(centres)
            if self._hard
            else mixture.density.accumulator(like, weighted, centres)
            for mixture, centres in self._mixtures
        ]
        self._placed = [a for a in self._accumulators if hasattr(a, "place")]
        if self._sets is not None:
            for accumulator, turn in zip(self._accumulators, self._turns, strict=True):
                if hasattr(accumulator, "remember"):
                    accumulator.remember(self._sets, turn)


def e_step(
    mixture: Mixture,
    X: NDArray[Any],
    sample_weight: Floats | None = None,
    *,
    centres: Floats | None = None,
    hard: bool = False,
) -> Statistics:
    """Statistics of rows X (n, D), float32 or float64, C-contiguous, under a mixture.

    Sums are about what the family prefers, or about `centres` where given: see
    `Density.refine`. With `hard`, each row counts for its likeliest component alone.
    """
    step = EStep([(mixture, centres)], hard)
    step.add(X, NO_WEIGHT if sample_weight is None else sample_weight)
    return step.result()[0]


def m_step(mixture: Mixture, statistics: Statistics) -> Mixture:
    """The mixture that maximises F given the statistics; raises DegenerateComponentError.

    π_k = N_k / N, or the same for all that have rows, where the family wants it so. A component
    without weight stays as it is, and its weight becomes zero.
    """
    weight = statistics.components.weight
    if mixture.family.equal_weights:
        weight = (weight > 0).astype(np.float64)
    return Mixture(weight / weight.sum(), mixture.components.maximize(statistics.components))


def blend_step(
    mixture: Mixture,
    statistics: Statistics,
    X: NDArray[Any],
    gain: float,
    sample_weight: Floats | None = None,
) -> tuple[Mixture, Statistics]:
    """One step of stepwise EM, for any family: the mixture after rows X, and its statistics.

    s ← (1 - γ) s + γ s̄(X), θ = M(s) (Cappé & Moulines 2009, eqs. 10-11), with s̄ scaled to the
    weight of s. Gaussians have the same step compiled (`streamgmm.kernels.stepwise`).
    Raises DegenerateComponentError.

    >>> m = Mixture.of("poisson", np.ones(1), np.full((1, 1), 2.0))
    >>> s = e_step(m, np.array([[2.0], [2.0]]))
    >>> blend_step(m, s, np.array([[6.0]]), 0.5)[0].components.arrays()
    {'rates': array([[4.]])}
    """
    return blend(mixture, statistics, e_step(mixture, X, sample_weight), gain)


def blend(
    mixture: Mixture, statistics: Statistics, new: Statistics, gain: float
) -> tuple[Mixture, Statistics]:
    """The second half of `blend_step`: with the statistics of the new rows under the mixture."""
    if new.weight <= 0:
        return mixture, statistics
    fresh = new.scale(gain * statistics.weight / new.weight)
    blended = statistics.scale(1.0 - gain).merge(fresh)
    return m_step(mixture, blended), blended


def free_energy(mixture: Mixture, statistics: Statistics) -> float:
    """F(q, θ) in nats, summed over rows, of statistics whose q came from another mixture.

    Σ r log π_k p(x | θ_k) + H (Neal & Hinton 1998).
    """
    expected = mixture.density.expected_log_likelihood(statistics.components)
    return float(expected + statistics.entropy)
