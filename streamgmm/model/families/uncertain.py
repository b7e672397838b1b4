"""Gaussians of true values behind rows with errors: extreme deconvolution, exact.

    x_n = v_n + e_n,  e_n ~ N(0, S_n),  v_n ~ Σ_k π_k N(μ_k, Σ_k)

A row is [x | s]: D values, and the D variances of their errors, or the D × D covariance matrix
(`streamgmm.sources.uncertain`). True values are latent variables: under q, that of row n and
component k has mean b = μ_k + Σ_k T⁻¹ (x - μ_k) and covariance B = Σ_k - Σ_k T⁻¹ Σ_k, with
T = Σ_k + S_n (Bovy, Hogg & Roweis 2011, eqs. 12-13). The M-step is that of Gaussians, from
Σ r, Σ r b and Σ r [(b - m)(b - m)ᵀ + B] (eqs. 14-17). F counts them: E[log N(v | μ_k, Σ_k)], and
E[log N(x | v, S_n)] with the entropy of q(v), a sum that the M-step does not touch. It is taken
so that F is the log-likelihood at the parameters of the E-step, whatever S_n is, zero and
infinity among it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import ParameterError, SingularCovarianceError
from streamgmm.kernels import uncertain as kernels
from streamgmm.model.components import NO_WEIGHT, BlockSums, Components, Posterior, Shapes
from streamgmm.model.covariances.base import aligned
from streamgmm.model.families.gaussian import (
    LOG_2PI,
    Gaussian,
    GaussianComponents,
    GaussianDensity,
    gaussians,
)
from streamgmm.model.moments import Floats, Moments

FAR = 1e300  # squared distances are at most that
LEAST_SHARE = 0.1  # of the variance of a start's rows that is never taken for noise
_WORK = np.dtype(np.float64)


@dataclass(frozen=True)
class Uncertain:
    """Gaussians whose rows have errors; `matrices` says whether rows hold covariance matrices.

    >>> Uncertain("diag").width(3), Uncertain("full", matrices=True).width(3)
    (6, 12)
    """

    covariance_type: str = "full"
    reg_covar: float = 1e-6
    matrices: bool = False

    name = "uncertain"
    initial = Gaussian.initial
    tells_mean = False
    equal_weights = False
    surveys = False
    gaps = False  # a value that is not known has an infinite variance
    degenerate = SingularCovarianceError

    def __post_init__(self) -> None:
        """Check the type."""
        self.inner  # noqa: B018, raises where there is none

    @cached_property
    def inner(self) -> Gaussian:
        """The family of the true values."""
        return Gaussian(self.covariance_type, self.reg_covar)

    @property
    def lighter(self) -> str:
        """As for Gaussians."""
        return self.inner.lighter

    def width(self, d: int) -> int:
        """Numbers in a row of D values."""
        return d + d * d if self.matrices else 2 * d

    def features(self, width: int) -> int:
        """D, of so many numbers in a row; raises ParameterError.

        >>> Uncertain(matrices=True).features(12)
        3
        """
        d = (math.isqrt(1 + 4 * width) - 1) // 2 if self.matrices else width // 2
        if self.width(d) != width:
            raise ParameterError(f"rows of {width} numbers are no values with their noise")
        return d

    def values(self, X: NDArray[Any]) -> NDArray[Any]:
        """Values (n, D) of rows; one that is not known is the mean of those that are."""
        d = self.features(X.shape[1])
        values, variances = X[:, :d], self.variances(X)
        unknown = variances < 0
        if not unknown.any():
            return np.ascontiguousarray(values)
        known = np.maximum((~unknown).sum(axis=0), 1)
        means = np.where(unknown, 0.0, values).sum(axis=0) / known
        return np.where(unknown, means, values).astype(X.dtype)

    def variances(self, X: NDArray[Any]) -> NDArray[Any]:
        """Variances of the noise (n, D) of rows, below zero where nothing is known."""
        d = self.features(X.shape[1])
        return X[:, d :: d + 1] if self.matrices else X[:, d:]

    def n_parameters(self, k: int, d: int) -> int:
        return self.inner.n_parameters(k, self.features(d))

    def least_rows(self, d: int) -> int:
        return self.inner.least_rows(self.features(d))

    def parameter_shapes(self, k: int, d: int) -> Shapes:
        return self.inner.parameter_shapes(k, self.features(d))

    def statistic_shapes(self, k: int, d: int) -> Shapes:
        return self.inner.statistic_shapes(k, self.features(d)) | {"latent": (k,)}

    def components(self, **arrays: Floats) -> UncertainComponents:
        return UncertainComponents(self, self.inner.components(**arrays))

    def of_parameters(self, *parameters: Floats) -> UncertainComponents:
        return UncertainComponents(self, self.inner.of_parameters(*parameters))

    def statistics(self, **arrays: Floats) -> UncertainSums:
        latent = arrays.pop("latent")
        return UncertainSums(self.inner.statistics(**arrays), latent)

    def unsuitable(self, X: NDArray[Any]) -> tuple[int, str] | None:
        if not self.matrices:
            return None
        row = int(kernels.first_indefinite(X, self.features(X.shape[1])))
        return None if row < 0 else (row, "its noise_variance is no covariance matrix")

    def measure(self, d: int) -> tuple[str, ...]:
        return self.inner.measure(self.features(d))

    def survey(self, X: NDArray[Any]) -> None:
        return None

    def informed(self, survey: Any) -> Uncertain:
        return self

    def clustered(self, X: NDArray[Any]) -> NDArray[Any]:
        return self.values(X)

    def n_clusters(self, k: int) -> int:
        return k

    def begin(
        self, X: NDArray[Any], weight: Floats | None, resp: NDArray[Any], k: int
    ) -> UncertainSums:
        """Moments of rows under given responsibilities or labels, less the scatter of noise."""
        values = self.values(X)
        moments = self.inner.begin(values, weight, resp, k)
        return UncertainSums(self._quieter(moments, X, weight, resp), np.zeros(k))

    def _quieter(
        self, moments: Moments, X: NDArray[Any], weight: Floats | None, resp: NDArray[Any]
    ) -> Moments:
        """Take the mean noise of each component's rows out of its scatter, and leave some.

        What is left of a variance, in any direction, is `LEAST_SHARE` of it at least.
        """
        k, d = moments.mean.shape
        share = np.equal.outer(resp, np.arange(k)).astype(float) if resp.ndim == 1 else resp
        share = share if weight is None else share * weight[:, None]
        noise = np.maximum(self.variances(X), 0.0).astype(np.float64)
        kind = self.covariance_type
        if self.matrices and kind in ("full", "tied"):
            flat = np.where(X[:, d:] < 0, np.minimum(X[:, d:], 0.0), X[:, d:])
            each = flat.reshape(len(X), d, d).astype(np.float64)
            np.einsum("ndd->nd", each)[...] = noise
            total = np.tensordot(share.T, each, 1)
        elif kind in ("full", "tied"):
            total = (share.T @ noise)[:, :, None] * np.eye(d)
        else:
            total = share.T @ noise
        if kind == "spherical":
            total = total.sum(axis=1)
        if kind == "tied":
            total = total.sum(axis=0)
        least = LEAST_SHARE * moments.scatter
        if kind in ("diag", "spherical"):
            scatter = np.maximum(moments.scatter - total, least)
        else:
            scatter = _shrunk(moments.scatter, np.asarray(total))
        return replace(moments, scatter=scatter)

    def estimate(self, statistics: UncertainSums) -> UncertainComponents:
        return self.start(statistics, {})

    def start(
        self, statistics: UncertainSums | None, given: Mapping[str, Floats]
    ) -> UncertainComponents:
        moments = None if statistics is None else statistics.moments
        return UncertainComponents(self, self.inner.start(moments, given))


def _shrunk(scatter: Floats, noise: Floats) -> Floats:
    """Scatters less those of noise, at least `LEAST_SHARE` of them in every direction."""
    stacked = scatter.reshape(-1, *scatter.shape[-2:])
    out = stacked.copy()
    for own, noisy, to in zip(stacked, noise.reshape(stacked.shape), out, strict=True):
        try:
            root = np.linalg.cholesky(own)
        except np.linalg.LinAlgError:  # a component that starts from a row alone
            continue
        white = np.linalg.solve(root, np.linalg.solve(root, noisy).T)
        values, vectors = np.linalg.eigh(0.5 * (white + white.T))
        kept = root @ vectors * np.sqrt(np.maximum(1.0 - values, LEAST_SHARE))
        to[...] = kept @ kept.T
    return out.reshape(scatter.shape)


@dataclass(frozen=True, eq=False)
class UncertainSums:
    """Moments of the true values, and `latent` (K,), in nats.

    That is Σ r (E[log N(x | v, S)] and the entropy of q(v)), over the rows of each component.
    """

    moments: Moments
    latent: Floats

    kind = "uncertain"

    @property
    def weight(self) -> Floats:
        """Σ r (K,)."""
        return self.moments.weight

    def merge(self, other: UncertainSums) -> UncertainSums:
        """Of both sets of rows."""
        return UncertainSums(self.moments.merge(other.moments), self.latent + other.latent)

    def scale(self, factor: float) -> UncertainSums:
        """The same rows with every weight multiplied by `factor`."""
        return UncertainSums(self.moments.scale(factor), self.latent * factor)

    def combine(self, parts: Sequence[UncertainSums], alphas: Floats) -> UncertainSums | None:
        """Σ_i α_i parts_i; None where that is no set of statistics."""
        moments = self.moments.combine([part.moments for part in parts], alphas)
        latent = sum(a * part.latent for a, part in zip(alphas, parts, strict=True))
        return None if moments is None else UncertainSums(moments, np.asarray(latent))

    def arrays(self) -> dict[str, Floats]:
        """Those of the moments, and `latent`."""
        return self.moments.arrays() | {"latent": self.latent}


@dataclass(frozen=True, eq=False)
class UncertainComponents:
    """Gaussian components of the true values: see `GaussianComponents`."""

    family: Uncertain
    inner: GaussianComponents

    @property
    def n_components(self) -> int:
        """K."""
        return self.inner.n_components

    @property
    def n_features(self) -> int:
        """Numbers in a row: values, and their noise."""
        return self.family.width(self.inner.n_features)

    def arrays(self) -> dict[str, Floats]:
        """Those of the Gaussians."""
        return self.inner.arrays()

    def density(self, weights: Floats) -> UncertainDensity:
        """As the kernels take them."""
        return UncertainDensity(weights, self)

    def maximize(self, statistics: UncertainSums) -> Self:
        """As of Gaussians, from the moments of the true values."""
        return replace(self, inner=self.inner.maximize(statistics.moments))

    def take(self, components: NDArray[np.intp]) -> Self:
        """Some of the components."""
        return replace(self, inner=self.inner.take(components))

    def reseed(self, components: NDArray[np.intp], rows: NDArray[Any], weights: Floats) -> Self:
        """Means at the values of the rows, with the average covariance of the others."""
        values = self.family.values(rows)
        return replace(self, inner=self.inner.reseed(components, values, weights))

    def sample(
        self, counts: NDArray[np.int64], random_state: np.random.RandomState
    ) -> NDArray[Any]:
        """Draw true values: rows without noise."""
        values = self.inner.sample(counts, random_state)
        noise = np.zeros((len(values), self.n_features - values.shape[1]))
        return np.concatenate([values, noise], axis=1)


@dataclass(frozen=True, eq=False)
class UncertainDensity:
    """Components and weights, and the tables of the kernels."""

    weights: Floats
    components: UncertainComponents

    @cached_property
    def inner(self) -> GaussianDensity:
        """The density of the true values."""
        return self.components.inner.density(self.weights)

    @cached_property
    def const(self) -> Floats:
        """log π_k - D/2 log 2π (K,)."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.weights) - 0.5 * self.inner.means.shape[1] * LOG_2PI)

    @cached_property
    def full(self) -> tuple[Floats, Floats, Floats]:
        """Means (K·D,), covariances (K·D·D,), and their Cholesky factors, padded (K·D·D4,)."""
        components = self.components.inner
        k, d = components.means.shape
        covariances = np.ascontiguousarray(components.full_covariances)
        padded = np.zeros((k, d, -(-d // 4) * 4))
        padded[:, :, :d] = np.linalg.cholesky(covariances)
        return components.means.ravel(), covariances.ravel(), padded.ravel()

    @property
    def separable(self) -> bool:
        """Whether noise and components are independent, feature by feature."""
        family = self.components.family
        return not family.matrices and not family.inner.covariance.matrices

    def work(self) -> Floats:
        """Scratch for one call of a kernel."""
        return aligned(kernels.scratch_size(*self.inner.means.shape), _WORK)

    def accumulator(
        self, like: NDArray[Any], weighted: bool = False, centres: Floats | None = None
    ) -> UncertainAccumulator:
        """Sums about the means."""
        return UncertainAccumulator(self)

    def hard_accumulator(self, centres: Floats | None = None) -> UncertainAccumulator:
        """The same, where each row counts for its likeliest component alone."""
        return UncertainAccumulator(self, hard=True)

    def posterior(self, X: NDArray[Any], *, labels: bool = False, resp: bool = False) -> Posterior:
        """Log-densities of rows (n, width), with labels and responsibilities of true values."""
        n, k = len(X), len(self.weights)
        out = Posterior(
            np.empty(n), np.empty(n if labels else 0, np.int32), np.empty((n if resp else 0, k))
        )
        means, covariances, _ = self.full
        family = self.components.family
        kernels.uncertain_posterior(
            X, self.inner.means.shape[1], family.matrices, FAR, means, covariances, self.const,
            self.work(), out.log_density, out.labels, out.resp,
        )  # fmt: skip
        return out

    def denoised(self, X: NDArray[Any], spread: bool = False) -> tuple[Floats, Floats]:
        """Mean (n, D) of the true values of rows (n, width), and variance where asked for."""
        resp = self.posterior(X, resp=True).resp
        n, d = len(X), self.inner.means.shape[1]
        mean, variance = np.empty((n, d)), np.empty((n if spread else 0, d))
        kernels.denoised(
            X, d, self.components.family.matrices, FAR, *self.full, self.const, self.work(),
            resp, mean, variance,
        )  # fmt: skip
        return mean, variance

    def expected_log_likelihood(self, statistics: UncertainSums) -> float:
        """Nats over the rows of statistics, those of the true values among them."""
        own = self.inner.expected_log_likelihood(statistics.moments)
        return own + float(statistics.latent.sum())

    def coordinates(self, statistics: UncertainSums) -> Floats:
        """As of Gaussians."""
        return self.inner.coordinates(statistics.moments)

    def refine(self, updated: Components) -> None:
        """None: sums are in units of the components, about their means."""
        return

    def __getstate__(self) -> dict[str, Any]:
        """What is sent to others: not the tables."""
        return {"weights": self.weights, "components": self.components}


class UncertainAccumulator:
    """Sums of one run of rows, by a compiled kernel: see `Accumulator`."""

    def __init__(self, density: UncertainDensity, hard: bool = False) -> None:
        self._density, self._hard = density, hard
        k, d = density.inner.means.shape
        lanes = kernels.W
        self._totals = np.zeros(2)
        self._mass, self._squares = np.zeros(k), np.zeros(k)
        if density.separable:
            self._first, self._second = np.zeros(k * d * lanes), np.zeros(k * d * lanes)
        else:
            self._first = np.zeros(k * -(-d // 4) * 4 * lanes)
            self._second = np.zeros(k * kernels.sums_size(d))
        self._work = density.work()

    def add(self, X: NDArray[Any], sample_weight: Floats = NO_WEIGHT) -> None:
        """Add rows (n, width), float32 or float64, C-contiguous; weights (n,) or none."""
        density = self._density
        d = density.inner.means.shape[1]
        sums = self._totals, self._mass, self._squares, self._first, self._second
        if density.separable:
            variances = np.ascontiguousarray(density.components.inner.variances)
            kernels.diag_uncertain_sums(
                X, sample_weight, d, self._hard, FAR, density.full[0], variances.ravel(),
                density.const, self._work, *sums,
            )  # fmt: skip
        else:
            kernels.full_uncertain_sums(
                X, sample_weight, d, density.components.family.matrices, self._hard, FAR,
                *density.full, density.const, self._work, *sums,
            )  # fmt: skip

    def result(self) -> BlockSums:
        """The sums of all rows added."""
        inner = self._density.components.inner
        k, d = inner.means.shape
        mass = self._mass
        log_det = inner.covariance.log_det(inner.precisions_cholesky, k, d)
        if self._density.separable:
            first = self._first.reshape(k, d, -1).sum(axis=2)
            second = self._second.reshape(k, d, -1).sum(axis=2)
            traces = (second / inner.variances).sum(axis=1)
        else:
            first, second, traces = self._unwhitened(k, d)
        # Σ r log N(x | μ, T), less Σ r E[log N(v | μ, Σ)]
        latent = -0.5 * self._squares - mass * log_det + 0.5 * traces
        kind = inner.covariance.name
        own = second
        if kind in ("diag", "spherical") and own.ndim == 3:
            own = np.einsum("kdd->kd", own)
        if kind == "spherical":
            own = own.sum(axis=1)
        if kind == "tied":
            own = own.sum(axis=0)
        moments = Moments.about(kind, inner.means, mass, first, own)
        found = UncertainSums(moments, latent)
        return BlockSums(float(self._totals[0]), float(self._totals[1]), found)

    def _unwhitened(self, k: int, d: int) -> tuple[Floats, Floats, Floats]:
        """First and second sums about the means, and traces of the latter in units of Σ_k."""
        chol = self._density.full[2].reshape(k, d, -1)[:, :, :d]
        first = self._first.reshape(k, -1, kernels.W).sum(axis=2)[:, :d]
        blocks = -self._second.reshape(k, -1, 4, 4, kernels.W).sum(axis=4)
        n = -(-d // 4)
        square = np.zeros((k, 4 * n, 4 * n))
        at = 0
        for i in range(n):
            for j in range(i + 1):
                rows, columns = slice(4 * i, 4 * i + 4), slice(4 * j, 4 * j + 4)
                square[:, rows, columns] = blocks[:, at]
                square[:, columns, rows] = blocks[:, at].swapaxes(1, 2)
                at += 1
        square = square[:, :d, :d]
        np.einsum("kdd->kd", square)[...] += self._mass[:, None]
        second = chol @ square @ chol.swapaxes(1, 2)
        return np.matvec(chol, first), second, np.asarray(np.einsum("kdd->k", square))


def uncertain(components: Components, matrices: bool) -> UncertainComponents:
    """Gaussian components as those of the true values behind rows with errors.

    Raises
    ------
    ParameterError
        If they are no Gaussians (names the family).
    """
    if isinstance(components, UncertainComponents):
        components = components.inner
    if not isinstance(components, GaussianComponents):
        raise refusal(components.family)
    own = components.family
    family = Uncertain(own.covariance_type, own.reg_covar, matrices)
    return UncertainComponents(family, gaussians(components))


def uncertain_family(family: Any, matrices: bool) -> Uncertain:
    """The family of rows with errors whose true values are of a family of Gaussians.

    Raises
    ------
    ParameterError
        If they are no Gaussians (names the family).
    """
    if not isinstance(family, Gaussian):
        raise refusal(family)
    return Uncertain(family.covariance_type, family.reg_covar, matrices)


def refusal(family: Any) -> ParameterError:
    """The error for a family that takes no noise of each row."""
    return ParameterError(
        f"noise_variance is of values with Gaussian errors, and the components are {family.name}; "
        "it is taken for 'full', 'tied', 'diag' and 'spherical' components"
    )
