"""A mixture, the statistics of rows under it, and the two steps of EM: one block, in memory.

    log p(x) = F(q, θ) + KL(q ‖ p(z | x, θ))

`e_step` sets q to the posterior of the mixture it is given, so that F equals the
log-likelihood, and returns what `m_step` needs to raise F over the parameters.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.kernels.drivers import posterior
from streamgmm.model.families import FAMILIES, Family, Posterior
from streamgmm.model.families.base import NO_WEIGHT, Accumulator, Layout, Recipe
from streamgmm.model.moments import Floats, Moments

LOG_2PI = float(np.log(2 * np.pi))
FLOAT32_TOLERANCE = 1e-2  # nats: the error of a log-density up to which float32 tiles are used
SCATTER_TOLERANCE = 1e-9  # relative error of a covariance up to which a scatter is accepted


@dataclass(frozen=True, eq=False)
class Mixture:
    """A Gaussian mixture: weights (K,), means (K, D), covariances of the family's shape.

    Parameters are float64. `precisions_cholesky` holds the upper triangular A_k with A_k A_kᵀ
    the precision. Build one with `Mixture.of`, which computes it.
    """

    family: Family
    weights: Floats
    means: Floats
    covariances: Floats
    precisions_cholesky: Floats

    @classmethod
    def of(
        cls, covariance_type: str, weights: Floats, means: Floats, covariances: Floats
    ) -> Mixture:
        """A mixture from its parameters; raises SingularCovarianceError.

        >>> m = Mixture.of("diag", np.ones(1), np.zeros((1, 2)), np.ones((1, 2)))
        >>> round(m.posterior(np.zeros((1, 2))).log_density.item(), 6)
        -1.837877
        """
        family = FAMILIES[covariance_type]
        return cls(family, weights, means, covariances, family.precisions_cholesky(covariances))

    @property
    def n_components(self) -> int:
        """K."""
        return int(self.means.shape[0])

    @property
    def n_features(self) -> int:
        """D."""
        return int(self.means.shape[1])

    @property
    def n_parameters(self) -> int:
        """Free parameters."""
        return self.family.n_parameters(*self.means.shape)

    @cached_property
    def log_constants(self) -> Floats:
        """log π_k - D/2 log 2π + log |A_k| (K,)."""
        k, d = self.means.shape
        with np.errstate(divide="ignore"):
            log_weights = np.log(self.weights)
        log_det = self.family.log_det(self.precisions_cholesky, k, d)
        return np.asarray(log_weights - 0.5 * d * LOG_2PI + log_det)

    @cached_property
    def centre(self) -> Floats:
        """Mean of the mixture (D,), taken about the first component's so that no digit is lost."""
        first = self.means[0]
        return np.asarray(first + self.weights @ (self.means - first) / self.weights.sum())

    @cached_property
    def float32_error(self) -> float:
        """Error, in nats, that float32 tiles may leave in the log-density of a typical row.

        Rounding moves a coordinate by about u(|μ - centre| + 3σ), the product with the
        Cholesky factor adds √D roundings, and a row typically lies √D + 3 from its mean.
        """
        k, d = self.means.shape
        sigma = np.sqrt(self.family.variances(self.covariances, k, d))
        reach = np.abs(self.means - self.centre) + 3 * sigma
        moved = self.family.whiten(np.abs(self.precisions_cholesky), reach)
        norm = np.sqrt(np.einsum("kd,kd->k", moved, moved).max())
        return float(2.0**-24 * (4 + np.sqrt(d)) * norm * (np.sqrt(d) + 3))

    def tile_dtype(self, X: NDArray[Any], weighted: bool = False) -> np.dtype[Any]:
        """Precision of the tiles: float32 only for unweighted float32 rows, error permitting."""
        narrow = X.dtype == np.float32 and not weighted
        return np.dtype(
            np.float32 if narrow and self.float32_error <= FLOAT32_TOLERANCE else np.float64
        )

    def take(self, components: NDArray[np.intp]) -> Mixture:
        """The mixture of some of its components, their weights scaled to sum to one."""
        weights = self.weights[components] / self.weights[components].sum()
        tied = self.family.name == "tied"
        covariances = self.covariances if tied else self.covariances[components]
        chol = self.precisions_cholesky if tied else self.precisions_cholesky[components]
        return Mixture(self.family, weights, self.means[components], covariances, chol)

    def reseed(
        self, components: NDArray[np.intp], pool: NDArray[Any], reg_covar: float
    ) -> Mixture:
        """Start components again at the rows of `pool` (m, D) that the mixture finds least likely.

        They take the average covariance of the others and a K-th of the weight each.
        """
        k = self.n_components
        others = np.setdiff1d(np.arange(k), components)
        kept = self.take(others)
        order = np.argsort(kept.posterior(pool).log_density, kind="stable")
        means = self.means.copy()
        means[components] = pool[order[: len(components)]]
        weights = np.empty(k)
        weights[others] = kept.weights * (1 - len(components) / k)
        weights[components] = 1 / k
        covariances = self.covariances.copy()
        if self.family.name != "tied":
            covariances[components] = np.tensordot(kept.weights, kept.covariances, 1)
        return Mixture.of(self.family.name, weights, means, covariances)

    def accumulator(
        self, X: NDArray[Any], weighted: bool = False, centres: Floats | None = None
    ) -> Accumulator:
        """An E-step over rows like `X`, to be added piece by piece: see `e_step`."""
        dtype = self.tile_dtype(X, weighted)
        if centres is not None:
            return Accumulator(self.family.recipe(self, dtype, centres))
        if dtype not in self._recipes:
            self._recipes[dtype] = self.family.recipe(self, dtype, None)
        return Accumulator(self._recipes[dtype])

    @cached_property
    def _recipes(self) -> dict[np.dtype[Any], Recipe]:
        """By the dtype of the tiles: blocks are many, and the tables for them the same."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """What is sent to others: not the tables, which are larger than what they come from."""
        return {name: value for name, value in self.__dict__.items() if name != "_recipes"}

    def posterior(self, X: NDArray[Any], *, labels: bool = False, resp: bool = False) -> Posterior:
        """Log-densities of rows (n, D), with labels and responsibilities where asked for.

        Nats; always computed in float64.
        """
        n = X.shape[0]
        layout = Layout(self.n_components, self.n_features, np.dtype(np.float64))
        out = Posterior(
            np.empty(n),
            np.empty(n if labels else 0, np.int32),
            np.empty((n if resp else 0, self.n_components)),
        )
        kind, *model = self.family.posterior_args(self, layout)
        posterior(
            kind, X, *model, layout.far, layout.D, layout.T, layout.W, layout.work, layout.rows,
            out.log_density, out.labels, out.resp,
        )  # fmt: skip
        return out


@dataclass(frozen=True, eq=False)
class Statistics:
    """What an E-step leaves of rows under one mixture; a value that merges.

    `n_rows` rows of total `weight`; `log_likelihood` and `entropy` of q in nats, summed over
    rows by weight; `components` the moments of each component.
    """

    n_rows: int
    weight: float
    log_likelihood: float
    entropy: float
    components: Moments

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


def e_step(
    mixture: Mixture,
    X: NDArray[Any],
    sample_weight: Floats | None = None,
    *,
    centres: Floats | None = None,
) -> Statistics:
    """Statistics of rows X (n, D), float32 or float64, C-contiguous, under a mixture.

    Scatter is summed about the mixture's means, or about `centres` (K, D) where given: see
    `scatter_error`.
    """
    return e_step_pieces(mixture, [(X, sample_weight)], centres=centres)


def e_step_pieces(
    mixture: Mixture,
    pieces: Iterable[tuple[NDArray[Any], Floats | None]],
    *,
    centres: Floats | None = None,
) -> Statistics:
    """`e_step` over (rows, sample_weight) pieces of one block, held one at a time."""
    accumulator = None
    n_rows = 0
    weight = 0.0
    for X, sample_weight in pieces:
        weights = NO_WEIGHT if sample_weight is None else sample_weight
        if accumulator is None:
            accumulator = mixture.accumulator(X, sample_weight is not None, centres)
        accumulator.add(X, weights)
        n_rows += X.shape[0]
        weight += float(X.shape[0] if sample_weight is None else weights.sum())
    if accumulator is None:
        accumulator = mixture.accumulator(np.empty((0, mixture.n_features)), False, centres)
    return collect(accumulator, n_rows, weight)


def collect(accumulator: Accumulator, n_rows: int, weight: float) -> Statistics:
    """Statistics of all that was added to an accumulator."""
    sums = accumulator.result()
    return Statistics(n_rows, weight, sums.log_likelihood, sums.entropy, sums.moments)


def m_step(mixture: Mixture, statistics: Statistics, reg_covar: float = 0.0) -> Mixture:
    """The mixture that maximises F given the statistics; raises SingularCovarianceError.

    π_k = N_k / N, μ_k the mean, Σ_k the scatter over N_k plus `reg_covar` on its diagonal. A
    component without weight keeps its mean and covariance, and its weight becomes zero.
    """
    moments = statistics.components
    family = mixture.family
    empty = moments.weight <= 0
    with np.errstate(divide="ignore", invalid="ignore"):
        covariances = family.maximize(moments, reg_covar)
    if family.name != "tied":
        covariances[empty] = mixture.covariances[empty]
    weights = moments.weight / moments.weight.sum()
    means = np.where(empty[:, None], mixture.means, moments.mean)
    return Mixture(family, weights, means, covariances, family.precisions_cholesky(covariances))


def free_energy(mixture: Mixture, statistics: Statistics) -> float:
    """F(q, θ) in nats, summed over rows, of statistics whose q came from another mixture.

    Σ_k {n_k (log π_k - ½ log|2πΣ_k|) - ½ tr Σ_k⁻¹ [S_k + n_k (m_k-μ_k)(m_k-μ_k)ᵀ]} + H
    (Neal & Hinton 1998).
    """
    moments = statistics.components
    family, used = mixture.family, moments.weight > 0
    shift = family.whiten(mixture.precisions_cholesky, moments.mean - mixture.means)
    linear = moments.weight[used] @ mixture.log_constants[used]
    offset = moments.weight @ np.einsum("kd,kd->k", shift, shift)
    spread = family.trace(mixture.precisions_cholesky, moments.scatter)
    return float(linear - 0.5 * (spread + offset) + statistics.entropy)


def scatter_error(mixture: Mixture, updated: Mixture, centres: Floats | None = None) -> float:
    """Relative error that rounding may have left in the covariances of `updated`.

    Its scatters were summed about `centres` (by default those that the family of `mixture`
    prefers); what is lost is u times the squared Mahalanobis distance between the two. When the
    error exceeds `SCATTER_TOLERANCE` the rows are read once more, about the new means.
    """
    about = mixture.family.scatter_centres(mixture) if centres is None else centres
    shift = updated.family.whiten(updated.precisions_cholesky, updated.means - about)
    return float(2.0**-53 * np.einsum("kd,kd->k", shift, shift).max())
