"""E-steps of rows with errors: densities, sums, and what is said of true values.

See `streamgmm.model.families.uncertain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.kernels import denoising, uncertain
from streamgmm.kernels.deconvolution import W
from streamgmm.model.components import NO_WEIGHT, BlockSums, Components, Posterior
from streamgmm.model.covariances.base import aligned
from streamgmm.model.families.gaussian import LOG_2PI, GaussianDensity
from streamgmm.model.moments import Floats, Moments

FAR = 1e300  # squared distances are at most that
_WORK = np.dtype(np.float64)


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
class UncertainDensity:
    """Components and weights, and the tables of the kernels."""

    weights: Floats
    components: Any  # `UncertainComponents`

    @cached_property
    def inner(self) -> GaussianDensity:
        """The density of the true values."""
        inner: GaussianDensity = self.components.inner.density(self.weights)
        return inner

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
        return aligned(uncertain.scratch_size(*self.inner.means.shape), _WORK)

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
        X = self.components.family.told(X)
        n, k = len(X), len(self.weights)
        out = Posterior(
            np.empty(n), np.empty(n if labels else 0, np.int32), np.empty((n if resp else 0, k))
        )
        means, covariances, _ = self.full
        family = self.components.family
        denoising.uncertain_posterior(
            X, self.inner.means.shape[1], family.matrices, FAR, means, covariances, self.const,
            self.work(), out.log_density, out.labels, out.resp,
        )  # fmt: skip
        return out

    def denoised(self, X: NDArray[Any], spread: bool = False) -> tuple[Floats, Floats]:
        """Mean (n, D) of the true values of rows (n, width), and variance where asked for."""
        X = self.components.family.told(X)
        resp = self.posterior(X, resp=True).resp
        n, d = len(X), self.inner.means.shape[1]
        mean, variance = np.empty((n, d)), np.empty((n if spread else 0, d))
        denoising.denoised(
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
        lanes = W
        self._totals = np.zeros(2)
        self._mass, self._squares = np.zeros(k), np.zeros(k)
        if density.separable:
            self._first, self._second = np.zeros(k * d * lanes), np.zeros(k * d * lanes)
        else:
            self._first = np.zeros(k * -(-d // 4) * 4 * lanes)
            self._second = np.zeros(k * uncertain.sums_size(d))
        self._work = density.work()

    def add(self, X: NDArray[Any], sample_weight: Floats = NO_WEIGHT) -> None:
        """Add rows (n, width), float32 or float64, C-contiguous; weights (n,) or none."""
        density = self._density
        X = density.components.family.told(X)
        d = density.inner.means.shape[1]
        sums = self._totals, self._mass, self._squares, self._first, self._second
        if density.separable:
            variances = np.ascontiguousarray(density.components.inner.variances)
            uncertain.diag_uncertain_sums(
                X, sample_weight, d, self._hard, FAR, density.full[0], variances.ravel(),
                density.const, self._work, *sums,
            )  # fmt: skip
        else:
            uncertain.full_uncertain_sums(
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
        first = self._first.reshape(k, -1, W).sum(axis=2)[:, :d]
        blocks = -self._second.reshape(k, -1, 4, 4, W).sum(axis=4)
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
