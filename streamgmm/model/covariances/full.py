"""Every component its own covariance matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from streamgmm.kernels import drivers
from streamgmm.model.covariances.base import (
    NEAR,
    NEAR_NARROW,
    Layout,
    Parameters,
    Recipe,
    reach,
    triangular_inverses,
)
from streamgmm.model.covariances.pruning import pruned
from streamgmm.model.moments import Floats, Moments


@dataclass(frozen=True)
class Full:
    """Covariances (K, D, D)."""

    name: Literal["full"] = "full"
    matrices: bool = True
    shared: bool = False

    def covariance_shape(self, k: int, d: int) -> tuple[int, ...]:
        return (k, d, d)

    def n_parameters(self, k: int, d: int) -> int:
        return k * (d + d * (d + 1) // 2) + k - 1

    def expand(self, covariances: Floats, k: int, d: int) -> Floats:
        return covariances

    def variances(self, covariances: Floats, k: int, d: int) -> Floats:
        return np.asarray(np.einsum("kdd->kd", covariances))

    def whiten(self, precisions_cholesky: Floats, v: Floats) -> Floats:
        return np.asarray(np.einsum("kd,kde->ke", v, precisions_cholesky))

    def whiten_covariances(
        self, precisions_cholesky: Floats, covariances: Floats, k: int, d: int
    ) -> Floats:
        return np.asarray(
            precisions_cholesky.transpose(0, 2, 1) @ covariances @ precisions_cholesky
        )

    def log_det(self, precisions_cholesky: Floats, k: int, d: int) -> Floats:
        return np.asarray(np.log(np.einsum("kdd->kd", precisions_cholesky)).sum(axis=1))

    def trace(self, precisions_cholesky: Floats, scatter: Floats) -> float:
        return float(np.sum(precisions_cholesky * (scatter @ precisions_cholesky)))

    def maximize(self, moments: Moments, reg_covar: float) -> Floats:
        covariances = moments.scatter / moments.weight[:, None, None]
        np.einsum("kdd->kd", covariances)[...] += reg_covar
        return covariances

    def precisions_cholesky(self, covariances: Floats) -> Floats:
        return triangular_inverses(covariances)

    def scatter_centres(self, model: Parameters) -> Floats:
        near = model.reach <= NEAR
        return np.where(near[:, None], model.centre, model.means)

    def recipe(
        self, model: Parameters, dtype: np.dtype[Any], centres: Floats | None, many: bool = False
    ) -> Recipe:
        chol = model.precisions_cholesky
        if centres is None and many:
            found = pruned(full_recipe(model, chol, dtype, model.means), model)
            if found is not None:
                return found
        return full_recipe(model, chol, dtype, centres)

    def posterior_args(self, model: Parameters, layout: Layout) -> tuple[Any, ...]:
        ref, means = layout.shifted(model, model.means)
        chol = layout.pad_squares(model.precisions_cholesky)
        return drivers.FULL, ref, means, chol, model.log_constants


def full_recipe(
    model: Parameters, chol: Floats, dtype: np.dtype[Any], centres: Floats | None
) -> Recipe:
    """Sums about the mixture's mean, and about their own for components far from it.

    `chol` is (K, D, D).
    """
    k, d = model.means.shape
    layout = Layout(k, d, dtype)
    ref, means = layout.shifted(model, model.means)
    near = np.zeros(k, np.bool_)
    if centres is None:
        far = model.reach if chol is model.precisions_cholesky else reach(model, chol)
        near |= far <= (NEAR if dtype.itemsize == 8 else NEAR_NARROW)
        centres = np.where(near[:, None], model.centre, model.means)
    about = layout.shifted(model, centres)[1]
    restored = layout.restored(ref, about)

    def finish(weight: Floats, first: Floats, second: Floats) -> Moments:
        return Moments.about_lower(restored, weight, first, second, layout.D)

    kernel_model = (ref, means, layout.pad_squares(chol), model.log_constants, about, near)
    return Recipe(layout, drivers.full_sums, kernel_model, k * layout.D * layout.D, finish)
