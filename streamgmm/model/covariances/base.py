"""What every shape of covariance offers, and the plumbing that their kernels share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from streamgmm.errors import SingularCovarianceError
from streamgmm.kernels.drivers import scratch_sizes
from streamgmm.kernels.vectors import lanes
from streamgmm.model.components import NO_WEIGHT, BlockSums
from streamgmm.model.moments import Floats, Moments, Scatter

_TILE_BYTES = 128 * 1024

NEAR = 100.0
"""Whitened distance from the mixture's mean up to which a component's sums may be about it.

That loses u·NEAR² = 1e-12 of its scatter (Chan, Golub & LeVeque 1983), and u·NEAR of a
whitened difference.
"""

NEAR_NARROW = 4.0
"""The same for full scatters in float32 tiles: u·NEAR_NARROW² = 1e-6, as the rows themselves."""


class Parameters(Protocol):
    """What the kernels need of a mixture."""

    @property
    def weights(self) -> Floats: ...
    @property
    def means(self) -> Floats: ...
    @property
    def covariances(self) -> Floats: ...
    @property
    def precisions_cholesky(self) -> Floats: ...
    @property
    def log_constants(self) -> Floats:
        """log π_k - D/2 log 2π + log |A_k| (K,)."""

    @property
    def centre(self) -> Floats:
        """Mean of the mixture (D,)."""

    @property
    def reach(self) -> Floats:
        """Whitened distance of each mean from the mixture's, by factors (K, D, D) of their own."""


class Covariance(Protocol):
    """One shape of covariance. Frozen and without state: parameters are passed in.

    `covariances` and `precisions_cholesky` have the shape's own form; the Cholesky factor A
    is upper triangular with A Aᵀ the precision, as scikit-learn has it.
    """

    @property
    def name(self) -> Scatter: ...

    @property
    def matrices(self) -> bool:
        """Whether a covariance is a matrix, and not variances alone."""

    @property
    def shared(self) -> bool:
        """Whether all components have one covariance, and their scatters are summed."""

    def covariance_shape(self, k: int, d: int) -> tuple[int, ...]:
        """Shape of `covariances` for K components of D features."""

    def n_parameters(self, k: int, d: int) -> int:
        """Free parameters of K components, weights included."""

    def expand(self, covariances: Floats, k: int, d: int) -> Floats:
        """The same covariances as (K, D, D)."""

    def variances(self, covariances: Floats, k: int, d: int) -> Floats:
        """The diagonals of the covariances (K, D)."""

    def whiten(self, precisions_cholesky: Floats, v: Floats) -> Floats:
        """v_k A_k for each row of v (K, D)."""

    def whiten_covariances(
        self, precisions_cholesky: Floats, covariances: Floats, k: int, d: int
    ) -> Floats:
        """A_kᵀ Σ_k A_k in its own shape, scaled so that norms are Frobenius norms."""

    def log_det(self, precisions_cholesky: Floats, k: int, d: int) -> Floats:
        """log |A_k| (K,): minus half the log-determinant of each covariance."""

    def trace(self, precisions_cholesky: Floats, scatter: Floats) -> float:
        """Σ_k tr(Σ_k⁻¹ S_k)."""

    def maximize(self, moments: Moments, reg_covar: float) -> Floats:
        """Covariances of maximal likelihood, `reg_covar` added to their diagonals (M-step)."""

    def precisions_cholesky(self, covariances: Floats) -> Floats:
        """Cholesky factors of the precisions; raises SingularCovarianceError."""

    def scatter_centres(self, model: Parameters) -> Floats:
        """Points (K, D) about which an E-step of the model sums the scatter, by default."""

    def recipe(
        self, model: Parameters, dtype: np.dtype[Any], centres: Floats | None, many: bool = False
    ) -> Recipe:
        """An E-step in tiles of `dtype`; scatter is taken about `centres`, where given.

        With `many` rows at a time it may be worth while to leave out what adds nothing.
        """

    def posterior_args(self, model: Parameters, layout: Layout) -> tuple[Any, ...]:
        """Arguments of `kernels.posterior` that the model alone decides."""


@dataclass(frozen=True, eq=False)
class Recipe:
    """An E-step under one model: the kernel, what it is told of the model, and how to end.

    `second` is the size of the scatter's sums; `finish` makes moments of the three sums.
    """

    layout: Layout
    kernel: Callable[..., None]
    model: tuple[Any, ...]
    second: int
    finish: Callable[[Floats, Floats, Floats], Moments]

    def then(self, change: Callable[[Moments], Moments]) -> Recipe:
        """The same sums with their moments changed at the end."""
        finish = self.finish
        return replace(self, finish=lambda *sums: change(finish(*sums)))


class KernelAccumulator:
    """Sums of one run of rows, by a compiled kernel: see `Accumulator`."""

    def __init__(self, recipe: Recipe) -> None:
        layout = recipe.layout
        self._recipe = recipe
        self._totals = np.zeros(2)
        self._n = np.zeros(layout.k)
        self._first = np.zeros((layout.K4 + 1) * layout.D)
        self._second = np.zeros(recipe.second)

    def add(self, X: NDArray[Any], sample_weight: Floats = NO_WEIGHT) -> None:
        """Add rows (n, d), float32 or float64, C-contiguous; weights (n,) or none."""
        at = self._recipe.layout
        self._recipe.kernel(
            X, sample_weight, *self._recipe.model, at.far, at.D, at.T, at.W, at.work, at.rows,
            self._totals, self._n, self._first, self._second,
        )  # fmt: skip

    def result(self) -> BlockSums:
        """The sums of all rows added."""
        at = self._recipe.layout
        first = self._first.reshape(-1, at.D)[: at.k, : at.d]
        with np.errstate(invalid="ignore"):  # rows that are not finite show in the likelihood
            moments = self._recipe.finish(self._n, first, self._second)
        return BlockSums(float(self._totals[0]), float(self._totals[1]), moments)


class Layout:
    """Padded sizes, tile and scratch for one model's kernels.

    T rows make a tile: enough that the sums at its end cost little, few enough that a tile of D
    features and K rows of responsibilities stay in the second cache. Its strips are few or an
    odd number, so that the features of a row do not fall on the same few sets of the first.
    """

    def __init__(self, k: int, d: int, dtype: np.dtype[Any]) -> None:
        self.k, self.d, self.dtype = k, d, dtype
        self.D = -(-d // 4) * 4
        self.K4 = -(-k // 4) * 4
        self.W = lanes(dtype)
        strip = 4 * self.W
        most = _TILE_BYTES // (max(self.D, k) * dtype.itemsize) // strip
        self.T = strip * max(n for n in (1, 2, 3, 5, 7) if n <= max(1, most))
        self._sizes = scratch_sizes(k, self.D, self.T, self.W)
        self.far = dtype.type(1e300 if dtype.itemsize == 8 else 1e37)

    @property
    def work(self) -> NDArray[Any]:
        """Scratch of the tile's dtype, for one call of a kernel in this thread."""
        return scratch("work", self._sizes[0], self.dtype)

    @property
    def rows(self) -> Floats:
        """Scratch of float64, likewise."""
        return scratch("rows", self._sizes[1], np.dtype(np.float64))

    def shifted(self, model: Parameters, points: Floats) -> tuple[Floats, NDArray[Any]]:
        """The reference (d,) that tiles subtract, and `points` (k, d) less it, padded and flat.

        Float64 tiles subtract nothing: ``x - mean`` is then exact to one rounding. Float32
        tiles subtract the mixture's mean, in float64, before the cast.
        """
        ref = np.zeros(self.d) if self.dtype.itemsize == 8 else model.centre
        return ref, self.pad_rows(points - ref)

    def restored(self, ref: Floats, flat: NDArray[Any]) -> Floats:
        """The points (k, d) that `shifted` gave to the kernel, as they were rounded there."""
        return np.asarray(flat.reshape(-1, self.D)[:, : self.d].astype(np.float64) + ref)

    def pad_rows(self, values: Floats) -> NDArray[Any]:
        """(k, d) as flat (k * D) of the kernel's dtype, zeros in the padding."""
        out = np.zeros((values.shape[0], self.D), self.dtype)
        out[:, : self.d] = values
        return out.ravel()

    def pad_squares(self, values: Floats) -> NDArray[Any]:
        """(k, d, d) as flat (k * D * D)."""
        out = np.zeros((values.shape[0], self.D, self.D), self.dtype)
        out[:, : self.d, : self.d] = values
        return out.ravel()

    def squares(self, flat: Floats) -> Floats:
        """Symmetric (k, d, d) from the lower 4×4 blocks of flat (k * D * D)."""
        at = np.arange(self.d)
        lower = np.maximum(at[:, None], at) * self.D + np.minimum(at[:, None], at)
        return np.take(flat.reshape(-1, self.D * self.D), lower, axis=1)


class _Scratch(threading.local):
    """What kernels of this thread have needed most so far, by name and dtype."""

    def __init__(self) -> None:
        self.arrays: dict[tuple[str, str], NDArray[Any]] = {}


_SCRATCH = _Scratch()


def scratch(name: str, n: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Room for n values that calls of this thread share, by its name."""
    array = _SCRATCH.arrays.get((name, dtype.char))
    if array is None or len(array) < n:
        array = _SCRATCH.arrays[name, dtype.char] = aligned(n, dtype)
    return array[:n]


def reach(model: Parameters, precisions_cholesky: Floats) -> Floats:
    """Whitened distance of each mean from the mixture's own, bounded from above (K,)."""
    shift = np.abs(model.means - model.centre)
    moved = np.matvec(np.abs(precisions_cholesky).swapaxes(-1, -2), shift)
    return np.asarray(np.sqrt(np.einsum("kd,kd->k", moved, moved)))


def aligned(n: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """An empty array that starts on a cache line."""
    raw = np.empty(n * dtype.itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + n * dtype.itemsize].view(dtype)


def triangular_inverses(covariances: Floats) -> Floats:
    """A_k = L_k⁻ᵀ for each covariance Σ_k = L_k L_kᵀ of (K, D, D)."""
    out = np.zeros_like(covariances)
    bad = np.zeros(len(covariances), np.bool_)
    for k, covariance in enumerate(covariances):
        lower, failed = lapack.dpotrf(covariance, lower=1, clean=1)
        if failed == 0:
            inverse, failed = lapack.dtrtri(lower, lower=1)
            out[k] = inverse.T
        bad[k] = failed != 0
    bad |= ~(np.isfinite(covariances) & np.isfinite(out)).all(axis=(1, 2))
    if bad.any():
        raise singular(np.flatnonzero(bad).tolist())
    return out


def inverse_roots(covariances: Floats) -> Floats:
    """1/σ for variances of any shape whose first axis is the component."""
    good = np.isfinite(covariances) & (covariances > 0)
    if not good.all():
        raise singular(np.unique(np.nonzero(~good)[0]).tolist())
    return np.asarray(1.0 / np.sqrt(covariances))


def singular(components: Sequence[int]) -> SingularCovarianceError:
    """The error for components whose covariance is not positive definite."""
    named = ", ".join(str(k) for k in components)
    return SingularCovarianceError(
        "Fitting the mixture model failed because some components have "
        "ill-defined empirical covariance (for instance caused by singleton "
        "or collapsed samples). Try to decrease the number of components, "
        f"increase reg_covar, or scale the input data. Components: {named}."
    )
