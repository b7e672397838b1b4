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
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import ParameterError, SingularCovarianceError
from streamgmm.kernels.denoising import first_indefinite
from streamgmm.model.components import Components, Shapes
from streamgmm.model.families.gaussian import Gaussian, GaussianComponents
from streamgmm.model.families.uncertain_density import UncertainDensity, UncertainSums
from streamgmm.model.moments import Floats, Moments

UNKNOWN = -1.0  # an infinite variance: see `streamgmm.sources.uncertain`
LEAST_SHARE = 0.1  # of the variance of a start's rows that is never taken for noise


@dataclass(frozen=True)
class Uncertain:
    """Gaussians whose rows have errors; `matrices` says whether rows hold covariance matrices.

    With `gaps`, NaN is a value that is not known, as one with an infinite variance is.

    >>> Uncertain("diag").width(3), Uncertain("full", matrices=True).width(3)
    (6, 12)
    """

    covariance_type: str = "full"
    reg_covar: float = 1e-6
    matrices: bool = False
    gaps: bool = field(default=False, repr=False)

    name = "uncertain"
    initial = Gaussian.initial
    tells_mean = False
    equal_weights = False
    surveys = False
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

    def told(self, X: NDArray[Any]) -> NDArray[Any]:
        """Rows whose gaps have infinite variances; rows without gaps as they are."""
        if not self.gaps:
            return X
        d = self.features(X.shape[1])
        missing = np.isnan(X[:, :d])
        if not missing.any():
            return X
        X = X.copy()
        X[:, :d][missing] = 0.0
        if self.matrices:
            matrices = X[:, d:].reshape(len(X), d, d)
            matrices[missing[:, :, None] | missing[:, None, :]] = 0.0
            X[:, d:] = matrices.reshape(len(X), d * d)
        self.variances(X)[missing] = UNKNOWN
        return X

    def values(self, X: NDArray[Any]) -> NDArray[Any]:
        """Values (n, D) of rows; one that is not known is the mean of those that are."""
        X = self.told(X)
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
        row = int(first_indefinite(self.told(X), self.features(X.shape[1])))
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
        X = self.told(X)
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
    family = Uncertain(own.covariance_type, own.reg_covar, matrices, own.gaps)
    return UncertainComponents(family, replace(components, family=own.without_gaps))


def uncertain_family(family: Any, matrices: bool) -> Uncertain:
    """The family of rows with errors whose true values are of a family of Gaussians.

    Raises
    ------
    ParameterError
        If they are no Gaussians (names the family).
    """
    if not isinstance(family, Gaussian):
        raise refusal(family)
    return Uncertain(family.covariance_type, family.reg_covar, matrices, family.gaps)


def refusal(family: Any) -> ParameterError:
    """The error for a family that takes no noise of each row."""
    return ParameterError(
        f"noise_variance is of values with Gaussian errors, and the components are {family.name}; "
        "it is taken for 'full', 'tied', 'diag' and 'spherical' components"
    )
