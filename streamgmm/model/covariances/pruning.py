"""Whether components lie far enough apart to leave some out, and the tables for that.

What is left out adds zeros, by a bound: the sums differ from those of the kernels that leave
nothing out by the rounding of another order. Whether it is tried is decided by an estimate from
the parameters alone, so that it is the same wherever a block is read. `kernels.screens` says which
bound: squared distances are at least |y - ν_k|² / λ_k, y = (x - c) M. With M Mᵀ the inverse
of Σ = Σ_k π_k Σ_k, covariances become nearly round, and λ_k is the largest eigenvalue of Mᵀ Σ_k M.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from streamgmm.errors import SingularCovarianceError
from streamgmm.kernels.pruned import pruned_sums
from streamgmm.kernels.screens import MARGIN, screen_size
from streamgmm.model.covariances.base import (
    Layout,
    Parameters,
    Recipe,
    scratch,
    triangular_inverses,
)
from streamgmm.model.moments import Floats

LEAST = 12  # components; below, a row needs too large a part of them
ENOUGH = 1 << 19  # rows times components of the first piece; below, there is little to win
ASKED = 512  # components, the heaviest, whose rows the estimate is of
ROOM = 8  # numbers that the last vector of a sum may have beyond it
U, U_NARROW = 2.0**-53, 2.0**-24

MOST = {(True, 8): 0.15, (True, 4): 0.1, (False, 8): 0.08, (False, 4): 0.05}
"""Share of the pairs of rows and components up to which it is worth it.

By full or diag, and by bytes of the values of tiles: the fewer, the less is there to win.
"""


@dataclass(frozen=True, eq=False)
class Pruned:
    """An E-step that leaves pairs out; `recipe`, which does not, sums about the means as well."""

    recipe: Recipe
    model: Parameters

    def __call__(self, X: NDArray[Any], weight: Floats, *given: Any) -> None:
        """As the kernel of the recipe, which has what rows the model did not foresee."""
        done = 0
        if self.tables is not None:
            at, D8 = self.layout, self._means.shape[1]
            pairs = at.k * at.T + ROOM
            wide = np.dtype(np.float64)
            done = pruned_sums(
                X, weight, np.zeros(at.d), self._means.ravel(), self._factors.ravel(),
                self.model.log_constants, self.wide, *self.tables, self.most,
                float(at.far), at.D, at.T,
                scratch("work", (at.D + 5) * at.T + D8 + 2 * pairs, wide),
                scratch("seen", screen_size(at.k, at.D, at.T), np.dtype(np.float32)),
                scratch("pairs", 4 * pairs + at.k + 1, np.dtype(np.int64)),
                *given[-4:],
            )  # fmt: skip
        if done < len(X):
            self.recipe.kernel(X[done:], weight[done:], *given)

    @cached_property
    def layout(self) -> Layout:
        """Of float64 tiles, which the screen is of whatever the others are."""
        return Layout(self.recipe.layout.k, self.recipe.layout.d, np.dtype(np.float64))

    @property
    def wide(self) -> bool:
        """Whether covariances are matrices."""
        return self.model.covariances.ndim == 3

    @property
    def most(self) -> float:
        """Share of pairs up to which leaving out the others pays."""
        return MOST[self.wide, self.recipe.layout.dtype.itemsize]

    @cached_property
    def _means(self) -> Floats:
        return padded(self.model.means)

    @cached_property
    def _factors(self) -> Floats:
        chol = padded(self.model.precisions_cholesky)
        more = chol.shape[-1] - self.layout.d
        return np.pad(chol, ((0, 0), (0, more), (0, 0))) if self.wide else chol

    @cached_property
    def tables(self) -> tuple[NDArray[Any], ...] | None:
        """What `kernels.screens` wants of the model, or None where nothing can be won."""
        try:
            bounds = self._bounds()
        except (SingularCovarianceError, np.linalg.LinAlgError):
            return None
        return None if bounds is None else self._rounded(*bounds)

    def _bounds(self) -> tuple[Any, ...] | None:
        """c, M, ν_k, λ_k and the errors: how much the factors, and M, let rounding grow."""
        k, d = self.layout.k, self.layout.d
        centres, factor = self.model.means, self.model.precisions_cholesky
        covariances = self.model.covariances
        share = self.model.weights / self.model.weights.sum()
        pooled = np.tensordot(share, covariances, 1)
        shift = centres[0] + share @ (centres - centres[0])
        if self.wide:
            turn = triangular_inverses(pooled[None])[0]
            nu = (centres - shift) @ turn
            trace = np.einsum("kij,ij->k", covariances, turn @ turn.T)
        else:
            turn = 1.0 / np.sqrt(pooled)
            nu = (centres - shift) * turn
            trace = (covariances * turn**2).sum(axis=1)
        if not self._share_taken(share, nu, trace, trace / d) <= self.most:
            return None  # not even if all were round
        if self.wide:
            inverse = np.linalg.inv(factor)
            moved = inverse @ turn
            largest = np.linalg.eigvalsh(moved.swapaxes(1, 2) @ moved)[:, -1]
            growth = np.linalg.norm(np.abs(inverse) @ np.abs(factor), axis=(1, 2))
            own = float(np.linalg.norm(np.abs(np.linalg.inv(turn)) @ np.abs(turn)))
        else:
            largest = ((turn / factor) ** 2).max(axis=1)
            growth, own = np.ones(k), 1.0
        if not self._share_taken(share, nu, trace, largest) <= self.most:
            return None
        largest = largest * (1 + 1e-6 + 100 * d * U * growth**2)
        return shift, turn, nu, largest, growth, own

    def _rounded(
        self, shift: Floats, turn: Floats, nu: Floats, largest: Floats, growth: Floats, own: float
    ) -> tuple[NDArray[Any], ...] | None:
        """The coefficients of u_k, made so small that rounding does not raise it above -log.

        With u and v the rounding units of float64 and of float32: a squared distance, as computed,
        is at least 1 - (2 g + 1)(D + 4) u of the exact one, g = |||A⁻¹| |A|||; and of D + 2 terms,
        of coefficients and y rounded before, u_k errs by at most (2 (D + 6) + 6) v times
        |const_k| + (|y|² + |ν_k|²) / (2 λ_k) (Higham 2002, "Accuracy and stability of numerical
        algorithms", §3.1 and §8.1).
        """
        at, const = self.layout, self.model.log_constants
        scale = np.maximum(0.0, 1 - (2 * growth + 1) * (at.d + 4) * U) / (2 * largest)
        slack = 1.01 * (2 * (at.D + 6) + 6) * U_NARROW + 16 * (at.d + 4) * U * own
        square = np.einsum("kd,kd->k", nu, nu)
        norms = np.full(at.K4, np.inf)
        used = np.flatnonzero(np.isfinite(const))
        norms[used] = -const[used] - slack * np.abs(const[used])
        norms[used] += (scale * (1 - slack) * square)[used]
        packed = np.zeros((at.K4, at.D + 1))
        packed[: at.k, : at.d] = -2.0 * scale[:, None] * nu
        packed[: at.k, at.D] = scale * (1 - slack)
        size = max(np.abs(packed).max(), np.abs(norms[used]).max(initial=0.0), square.max())
        if not size <= 1e30 or slack > 0.01:  # float32 could not hold them, or tell anything
            return None
        side_by_side = packed.reshape(-1, 4, at.D + 1).swapaxes(1, 2)
        turns = at.pad_squares(turn[None]) if self.wide else at.pad_rows(turn[None])
        return (
            np.pad(shift, (0, at.D - at.d)), turns,
            np.ascontiguousarray(side_by_side, np.float32).ravel(), norms.astype(np.float32),
        )  # fmt: skip

    def _share_taken(self, share: Floats, nu: Floats, trace: Floats, largest: Floats) -> float:
        """Share of the pairs of rows and components that rows need: an estimate.

        Of a row of component j, |y - ν_k|² is |ν_j - ν_k|² + tr Mᵀ Σ_j M in the mean.
        """
        at, const = self.layout, self.model.log_constants
        asked = np.argsort(-share, kind="stable")[:ASKED]
        asked = asked[share[asked] > 0]
        square = np.einsum("kd,kd->k", nu, nu)
        apart = np.maximum(0.0, square[asked, None] + square - 2 * nu[asked] @ nu.T)
        mean = (apart + trace[asked, None]) / largest
        deviation = np.sqrt(largest[asked, None] * (2 * trace[asked, None] + 4 * apart)) / largest
        lead = const[asked, None] - 0.5 * at.d - MARGIN - (const - 0.5 * mean)
        needs = ndtr(-2.0 * lead / deviation)
        needs[np.arange(len(asked)), asked] = 1.0
        often = share[asked] @ needs / share[asked].sum()
        return float(np.mean(np.minimum(1.0, often)))


def pruned(recipe: Recipe, model: Parameters) -> Recipe | None:
    """An E-step about the means, of full or diagonal covariances, with pairs left out.

    None where that would not pay.
    """
    kernel = Pruned(recipe, model)
    if recipe.layout.k < LEAST or kernel.tables is None:
        return None
    finish, second = recipe.finish, recipe.second
    return replace(
        recipe,
        kernel=kernel,
        second=second + ROOM,
        finish=lambda n, first, sums: finish(n, first, sums[:second]),
    )


def padded(values: Floats) -> Floats:
    """Zeros after the last axis, up to a multiple of 8."""
    more = [(0, 0)] * (values.ndim - 1) + [(0, -values.shape[-1] % 8)]
    return np.pad(np.asarray(values, np.float64), more)
