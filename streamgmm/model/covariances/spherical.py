"""Every component its own single variance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from streamgmm.kernels import drivers
from streamgmm.model.covariances.base import Layout, Parameters, Recipe, inverse_roots
from streamgmm.model.covariances.diag import diag_recipe
from streamgmm.model.moments import Floats, Moments


@dataclass(frozen=True)
class Spherical:
    """Covariances (K,): one variance for all features of a component."""

    name: Literal["spherical"] = "spherical"
    matrices: bool = False
    shared: bool = False

    def covariance_shape(self, k: int, d: int) -> tuple[int, ...]:
        return (k,)

    def n_parameters(self, k: int, d: int) -> int:
        return k * (d + 1) + k - 1

    def expand(self, covariances: Floats, k: int, d: int) -> Floats:
        return np.asarray(covariances[:, None, None] * np.eye(d))

    def variances(self, covariances: Floats, k: int, d: int) -> Floats:
        return np.broadcast_to(covariances[:, None], (k, d))

    def whiten(self, precisions_cholesky: Floats, v: Floats) -> Floats:
        return np.asarray(v * precisions_cholesky[:, None])

    def whiten_covariances(
        self, precisions_cholesky: Floats, covariances: Floats, k: int, d: int
    ) -> Floats:
        return np.asarray(np.sqrt(d) * covariances * precisions_cholesky**2)

    def log_det(self, precisions_cholesky: Floats, k: int, d: int) -> Floats:
        return np.asarray(d * np.log(precisions_cholesky))

    def trace(self, precisions_cholesky: Floats, scatter: Floats) -> float:
        return float(precisions_cholesky**2 @ scatter)

    def maximize(self, moments: Moments, reg_covar: float) -> Floats:
        d = moments.mean.shape[1]
        return np.asarray(moments.scatter / (d * moments.weight) + reg_covar)

    def precisions_cholesky(self, covariances: Floats) -> Floats:
        return inverse_roots(covariances)

    def scatter_centres(self, model: Parameters) -> Floats:
        return model.means

    def recipe(
        self, model: Parameters, dtype: np.dtype[Any], centres: Floats | None, many: bool = False
    ) -> Recipe:
        k, d = model.means.shape
        if centres is not None:
            chol = np.broadcast_to(model.precisions_cholesky[:, None], (k, d))
            featurewise = diag_recipe(model, chol, dtype, centres)
            return featurewise.then(
                lambda m: Moments("spherical", m.weight, m.mean, m.scatter.sum(axis=1))
            )
        layout = Layout(k, d, dtype)
        ref, means = layout.shifted(model, model.means)
        scale = (model.precisions_cholesky**2).astype(dtype)

        def finish(weight: Floats, first: Floats, second: Floats) -> Moments:
            about = layout.restored(ref, means)
            return Moments.about("spherical", about, weight, first, second / scale)

        kernel_model = (ref, means, scale, model.log_constants)
        return Recipe(layout, drivers.spherical_sums, kernel_model, k, finish)

    def posterior_args(self, model: Parameters, layout: Layout) -> tuple[Any, ...]:
        ref, means = layout.shifted(model, model.means)
        scale = (model.precisions_cholesky**2).astype(layout.dtype)
        return drivers.SPHERICAL, ref, means, scale, model.log_constants
