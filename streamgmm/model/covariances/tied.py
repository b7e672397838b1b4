"""One covariance matrix for all components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from streamgmm.kernels import drivers
from streamgmm.model.covariances.base import (
    NEAR,
    Layout,
    Parameters,
    Recipe,
    reach,
    triangular_inverses,
)
from streamgmm.model.covariances.full import full_recipe
from streamgmm.model.moments import Floats, Moments


@dataclass(frozen=True)
class Tied:
    """Covariances (D, D).

    After multiplication by the shared Cholesky factor, rows are whitened once for all
    components and the scatter is that of all rows less that of the means: K times less work
    than `Full`. Where components lie so far apart that this would lose digits, the sums are
    taken component by component, as `Full` does.
    """

    name: Literal["tied"] = "tied"
    matrices: bool = True
    shared: bool = True

    def covariance_shape(self, k: int, d: int) -> tuple[int, ...]:
        return (d, d)

    def n_parameters(self, k: int, d: int) -> int:
        return k * d + d * (d + 1) // 2 + k - 1

    def expand(self, covariances: Floats, k: int, d: int) -> Floats:
        return np.broadcast_to(covariances, (k, d, d))

    def variances(self, covariances: Floats, k: int, d: int) -> Floats:
        return np.broadcast_to(np.diagonal(covariances), (k, d))

    def whiten(self, precisions_cholesky: Floats, v: Floats) -> Floats:
        return np.asarray(v @ precisions_cholesky)

    def whiten_covariances(
        self, precisions_cholesky: Floats, covariances: Floats, k: int, d: int
    ) -> Floats:
        return np.asarray(precisions_cholesky.T @ covariances @ precisions_cholesky)

    def log_det(self, precisions_cholesky: Floats, k: int, d: int) -> Floats:
        return np.full(k, np.log(np.diagonal(precisions_cholesky)).sum())

    def trace(self, precisions_cholesky: Floats, scatter: Floats) -> float:
        return float(np.sum(precisions_cholesky * (scatter @ precisions_cholesky)))

    def maximize(self, moments: Moments, reg_covar: float) -> Floats:
        covariance = np.asarray(moments.scatter / moments.weight.sum())
        np.einsum("dd->d", covariance)[...] += reg_covar
        return covariance

    def precisions_cholesky(self, covariances: Floats) -> Floats:
        return np.asarray(triangular_inverses(covariances[None])[0])

    def scatter_centres(self, model: Parameters) -> Floats:
        near = reach(model, _one_each(model)) <= NEAR
        return np.where(near[:, None], model.centre, model.means)

    def recipe(
        self, model: Parameters, dtype: np.dtype[Any], centres: Floats | None, many: bool = False
    ) -> Recipe:
        if centres is not None or not shares_products(model):
            chol = _one_each(model)
            apart = full_recipe(model, chol, dtype, centres)
            return apart.then(lambda m: Moments("tied", m.weight, m.mean, m.scatter.sum(axis=0)))
        k, d = model.means.shape
        layout = Layout(k, d, dtype)
        ref = model.centre

        def finish(weight: Floats, first: Floats, second: Floats) -> Moments:
            about = np.broadcast_to(ref, (k, d))
            return Moments.about("tied", about, weight, first, layout.squares(second)[0])

        return Recipe(
            layout, drivers.tied_sums, self._products(model, layout), layout.D**2, finish
        )

    def posterior_args(self, model: Parameters, layout: Layout) -> tuple[Any, ...]:
        if not shares_products(model):
            ref, means = layout.shifted(model, model.means)
            chol = _one_each(model)
            return drivers.FULL, ref, means, layout.pad_squares(chol), model.log_constants
        return drivers.TIED, *self._products(model, layout)

    def _products(self, model: Parameters, layout: Layout) -> tuple[Any, ...]:
        """|z - ν|² of whitened rows and means as z·(-2ν), with |ν|² in the constants."""
        nu = self.whiten(model.precisions_cholesky, model.means - model.centre)
        padded = np.zeros((layout.K4, layout.d))
        padded[: layout.k] = -2.0 * nu
        const = model.log_constants - 0.5 * np.einsum("kd,kd->k", nu, nu)
        chol = layout.pad_squares(model.precisions_cholesky[None])
        return model.centre, layout.pad_rows(padded), chol, const


def shares_products(model: Parameters) -> bool:
    """Whether all components are near enough to the mixture's mean for `Tied`'s shared forms."""
    return bool(reach(model, _one_each(model)).max() <= NEAR)


def _one_each(model: Parameters) -> Floats:
    """The shared Cholesky factor as (K, D, D), a view."""
    k, d = model.means.shape
    return np.broadcast_to(model.precisions_cholesky, (k, d, d))
