"""One covariance matrix for all components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from streamgmm.families.base import Accumulator, Layout, Parameters, triangular_inverses
from streamgmm.families.full import full_accumulator
from streamgmm.kernels import drivers
from streamgmm.moments import Floats, Moments

# Whitened distance from the mixture's mean up to which the shared forms are used. They lose
# u·distance² of the scatter (Chan et al. 1983) and u·distance of a difference: 1e-10, 1e-13.
_NEAR = 1e3


@dataclass(frozen=True)
class Tied:
    """Covariances (D, D).

    After multiplication by the shared Cholesky factor, rows are whitened once for all
    components and the scatter is that of all rows less that of the means: K times less work
    than `Full`. Where components lie so far apart that this would lose digits, the sums are
    taken component by component, as `Full` does.
    """

    name: Literal["tied"] = "tied"

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

    def accumulator(
        self, model: Parameters, dtype: np.dtype[Any], centres: Floats | None
    ) -> Accumulator:
        if centres is not None or self._far(model):
            return self._apart(model, dtype, centres)
        k, d = model.means.shape
        layout = Layout(k, d, dtype)
        ref = model.centre
        chol = layout.pad_squares(model.precisions_cholesky[None])
        nu = layout.pad_rows(self.whiten(model.precisions_cholesky, model.means - ref))

        def finish(weight: Floats, first: Floats, second: Floats) -> Moments:
            about = np.broadcast_to(ref, (k, d))
            return Moments.about("tied", about, weight, first, layout.squares(second)[0])

        unit = np.ones(k, dtype)
        origin = np.zeros((k + 1) * layout.D, dtype)
        kernel_model = (ref, nu, chol, model.log_constants, unit, origin)
        return Accumulator(layout, drivers.tied_sums, kernel_model, layout.D**2, finish)

    def posterior_args(self, model: Parameters, layout: Layout) -> tuple[Any, ...]:
        k, d = model.means.shape
        if self._far(model):
            ref, means = layout.shifted(model, model.means)
            chol = np.broadcast_to(model.precisions_cholesky, (k, d, d))
            return drivers.FULL, ref, means, layout.pad_squares(chol), model.log_constants, means
        nu = layout.pad_rows(self.whiten(model.precisions_cholesky, model.means - model.centre))
        chol = layout.pad_squares(model.precisions_cholesky[None])
        return drivers.TIED, model.centre, nu, chol, model.log_constants, np.ones(k, layout.dtype)

    def _far(self, model: Parameters) -> bool:
        shift = np.abs(model.means - model.centre)
        reach = self.whiten(np.abs(model.precisions_cholesky), shift)
        return bool(np.max(np.einsum("kd,kd->k", reach, reach)) > _NEAR**2)

    def _apart(
        self, model: Parameters, dtype: np.dtype[Any], centres: Floats | None
    ) -> Accumulator:
        k, d = model.means.shape
        chol = np.broadcast_to(model.precisions_cholesky, (k, d, d))
        accumulator = full_accumulator(model, chol, dtype, centres)
        return accumulator.then(lambda m: Moments("tied", m.weight, m.mean, m.scatter.sum(axis=0)))
