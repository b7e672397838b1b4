"""Whether components lie far enough apart to leave some out, and the tables for that.

No number depends on it: `kernels.pruned` has the bits of the kernels that leave nothing out. So
what it is decided by may be an estimate; what is left out goes by a bound. `kernels.screens`
says which: squared distances are at least |y - ν_k|² / λ_k, y = (x - c) M. With M Mᵀ the inverse
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
from streamgmm.kernels.screens import MARGIN, pairs_size, screen_size
from streamgmm.model.covariances.base import Parameters, Recipe, scratch, triangular_inverses
from streamgmm.model.moments import Floats

LEAST = 12  # components; below, vectors of rows in random order need most of them
ENOUGH = 1 << 19  # rows times components of a piece; below, there is little to win
ASKED = 512  # components, the heaviest, whose rows the estimate is of
U, U_NARROW = 2.0**-53, 2.0**-24

MOST = {(True, 8): 0.6, (True, 4): 0.35, (False, 8): 0.45, (False, 4): 0.2}
"""Share of pairs up to which it is worth it: by full or diag, and by bytes of a tile's values.

Vectors of float32 have twice as many rows, and need more components.
"""


@dataclass(frozen=True, eq=False)
class Pruned:
    """An E-step that leaves pairs out where that pays, to the bits of the one that does not."""

    recipe: Recipe
    weights: Floats
    covariances: Floats

    def __call__(self, X: NDArray[Any], weight: Floats, *given: Any) -> None:
        """As the kernel of the recipe; pieces of few rows do without the tables."""
        at = self.recipe.layout
        done = 0
        if len(X) * at.k >= ENOUGH and self.tables is not None:
            near = () if self.wide else (np.zeros(at.k, np.bool_),)
            done = pruned_sums(
                X, weight, *self.recipe.model, *near, self.wide, *self.tables, self.most,
                at.far, at.D, at.T, at.W,
                scratch("work", len(at.work) + 3 * at.T, at.dtype),
                scratch("rows", len(at.rows) + 32, np.dtype(np.float64)),
                scratch("seen", screen_size(at.k, at.D, at.T), np.dtype(np.float32)),
                scratch("pairs", pairs_size(at.k, at.T, at.W), np.dtype(np.int64)),
                *given[-4:],
            )  # fmt: skip
        if done < len(X):
            self.recipe.kernel(X[done:], weight[done:], *given)

    @property
    def wide(self) -> bool:
        """Whether covariances are matrices."""
        return self.covariances.ndim == 3

    @property
    def most(self) -> float:
        """Share of pairs up to which leaving out the others pays."""
        return MOST[self.wide, self.recipe.layout.dtype.itemsize]

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
        at = self.recipe.layout
        k, d = at.k, at.d
        _, means, chol = self.recipe.model[:3]
        centres = means.reshape(k, at.D)[:, :d].astype(np.float64)
        share = self.weights / self.weights.sum()
        pooled = np.tensordot(share, self.covariances, 1)
        shift = centres[0] + share @ (centres - centres[0])
        if self.wide:
            turn = triangular_inverses(pooled[None])[0]
            nu = (centres - shift) @ turn
            trace = np.einsum("kij,ij->k", self.covariances, turn @ turn.T)
        else:
            turn = 1.0 / np.sqrt(pooled)
            nu = (centres - shift) * turn
            trace = (self.covariances * turn**2).sum(axis=1)
        if not self._share_taken(share, nu, trace, trace / d) <= self.most:
            return None  # not even if all were round
        if self.wide:
            factor = chol.reshape(k, at.D, at.D)[:, :d, :d].astype(np.float64)
            inverse = np.linalg.inv(factor)
            moved = inverse @ turn
            largest = np.linalg.eigvalsh(moved.swapaxes(1, 2) @ moved)[:, -1]
            growth = np.linalg.norm(np.abs(inverse) @ np.abs(factor), axis=(1, 2))
            own = float(np.linalg.norm(np.abs(np.linalg.inv(turn)) @ np.abs(turn)))
        else:
            factor = chol.reshape(k, at.D)[:, :d].astype(np.float64)
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

        With u and v the rounding units of the tiles and of float32: a squared distance in a tile
        is at least 1 - (2 g + 1)(D + 4) u of the exact one, g = |||A⁻¹| |A|||; and of D + 2 terms,
        of coefficients and y rounded before, u_k errs by at most (2 (D + 6) + 6) v times
        |const_k| + (|y|² + |ν_k|²) / (2 λ_k) (Higham 2002, "Accuracy and stability of numerical
        algorithms", §3.1 and §8.1).
        """
        at = self.recipe.layout
        const = self.recipe.model[3]
        unit = U if at.dtype.itemsize == 8 else U_NARROW
        scale = np.maximum(0.0, 1 - (2 * growth + 1) * (at.d + 4) * unit) / (2 * largest)
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
        padded = at.pad_squares(turn[None]) if self.wide else at.pad_rows(turn[None])
        return (
            np.pad(shift, (0, at.D - at.d)), padded.astype(np.float64),
            np.ascontiguousarray(side_by_side, np.float32).ravel(), norms.astype(np.float32),
        )  # fmt: skip

    def _share_taken(self, share: Floats, nu: Floats, trace: Floats, largest: Floats) -> float:
        """Pairs of vectors and components that rows in random order need: an estimate.

        Of a row of component j, |y - ν_k|² is |ν_j - ν_k|² + tr Mᵀ Σ_j M in the mean.
        """
        at = self.recipe.layout
        const = self.recipe.model[3]
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
        return float(np.mean(1 - (1 - np.minimum(1.0, often)) ** at.W))


def pruned(recipe: Recipe, model: Parameters) -> Recipe:
    """The same E-step, of full or diagonal covariances, where pairs may be left out."""
    if recipe.layout.k < LEAST:
        return recipe
    return replace(recipe, kernel=Pruned(recipe, model.weights, model.covariances))
