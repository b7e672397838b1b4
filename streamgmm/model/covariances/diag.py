"""Every component its own variances, features independent within it."""

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
    inverse_roots,
)
from streamgmm.model.covariances.pruning import pruned
from streamgmm.model.moments import Floats, Moments


@dataclass(frozen=True)
class Diag:
    """Covariances (K, D): the variances."""

    name: Literal["diag"] = "diag"
    matrices: bool = False
    shared: bool = False

    def covariance_shape(self, k: int, d: int) -> tuple[int, ...]:
        return (k, d)

    def n_parameters(self, k: int, d: int) -> int:
        return 2 * k * d + k - 1

    def expand(self, covariances: Floats, k: int, d: int) -> Floats:
        return np.asarray(covariances[:, :, None] * np.eye(d))

    def variances(self, covariances: Floats, k: int, d: int) -> Floats:
        return covariances

    def whiten(self, precisions_cholesky: Floats, v: Floats) -> Floats:
        return np.asarray(v * precisions_cholesky)

    def whiten_covariances(
        self, precisions_cholesky: Floats, covariances: Floats, k: int, d: int
    ) -> Floats:
        return np.asarray(covariances * precisions_cholesky**2)

    def log_det(self, precisions_cholesky: Floats, k: int, d: int) -> Floats:
        return np.asarray(np.log(precisions_cholesky).sum(axis=1))

    def trace(self, precisions_cholesky: Floats, scatter: Floats) -> float:
        return float(np.sum(precisions_cholesky**2 * scatter))

    def maximize(self, moments: Moments, reg_covar: float) -> Floats:
        return np.asarray(moments.scatter / moments.weight[:, None] + reg_covar)

    def precisions_cholesky(self, covariances: Floats) -> Floats:
        return inverse_roots(covariances)

    def scatter_centres(self, model: Parameters) -> Floats:
        if shares_centre(model, np.dtype(np.float64)):
            return np.broadcast_to(model.centre, model.means.shape)
        return model.means

    def recipe(
        self, model: Parameters, dtype: np.dtype[Any], centres: Floats | None, many: bool = False
    ) -> Recipe:
        chol = model.precisions_cholesky
        if centres is None and many:
            found = pruned(diag_recipe(model, chol, dtype, model.means), model)
            if found is not None:
                return found
        if centres is None and shares_centre(model, dtype):
            return near_recipe(model, dtype)
        return diag_recipe(model, chol, dtype, centres)

    def posterior_args(self, model: Parameters, layout: Layout) -> tuple[Any, ...]:
        ref, means = layout.shifted(model, model.means)
        chol = layout.pad_rows(model.precisions_cholesky)
        return drivers.DIAG, ref, means, chol, model.log_constants


def shares_centre(model: Parameters, dtype: np.dtype[Any]) -> bool:
    """Whether all components are near enough to the mixture's mean for sums about it."""
    moved = (model.means - model.centre) * model.precisions_cholesky
    most = NEAR if dtype.itemsize == 8 else NEAR_NARROW
    return bool(np.einsum("kd,kd->k", moved, moved).max() <= most**2)


def near_recipe(model: Parameters, dtype: np.dtype[Any]) -> Recipe:
    """Sums about the mixture's mean, which all components are near."""
    k, d = model.means.shape
    layout = Layout(k, d, dtype)
    ref, chol = model.centre, model.precisions_cholesky

    def finish(weight: Floats, first: Floats, second: Floats) -> Moments:
        squares = second.reshape(-1, layout.D)[:k, :d]
        return Moments.about("diag", np.broadcast_to(ref, (k, d)), weight, first, squares)

    means = layout.pad_rows(model.means - ref)
    more = ((0, layout.K4 - k), (0, 0))
    offset, factors = np.pad((ref - model.means) * chol, more), np.pad(chol, more)
    kernel_model = (
        ref, means, layout.pad_rows(factors), model.log_constants, layout.pad_rows(offset)
    )  # fmt: skip
    return Recipe(layout, drivers.near_diag_sums, kernel_model, layout.K4 * layout.D, finish)


def diag_recipe(
    model: Parameters, chol: Floats, dtype: np.dtype[Any], centres: Floats | None
) -> Recipe:
    """Sums about each component's own centre, feature by feature; `chol` is (K, D)."""
    k, d = model.means.shape
    layout = Layout(k, d, dtype)
    ref, means = layout.shifted(model, model.means)
    about = means if centres is None else layout.shifted(model, centres)[1]
    restored = layout.restored(ref, about)

    def finish(weight: Floats, first: Floats, second: Floats) -> Moments:
        squares = second.reshape(k, layout.D)[:, :d]
        return Moments.about("diag", restored, weight, first, squares)

    kernel_model = (ref, means, layout.pad_rows(chol), model.log_constants, about)
    return Recipe(layout, drivers.diag_sums, kernel_model, k * layout.D, finish)
