"""Heavy tails: multivariate t, as Gaussians whose scale is a latent variable of each row.

x | u ~ N(μ, Σ/u) and u ~ Gamma(ν/2, rate ν/2). Under q the posterior of u is a gamma variable
too, so F has E[log p(x, u | θ)] and the entropy of q(u), and is a lower bound of log p(x) that
is tight at the parameters of the E-step (Peel & McLachlan 2000).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, gammaln, polygamma

from streamgmm.errors import ParameterError
from streamgmm.model.components import Shapes
from streamgmm.model.covariances.base import triangular_inverses
from streamgmm.model.families.gamma import gamma_shapes
from streamgmm.model.families.moments_under import moments_under
from streamgmm.model.moments import Floats, Moments
from streamgmm.model.responsibilities import mass_of
from streamgmm.model.sums import CentredSums
from streamgmm.model.tiles import TiledComponents, TiledFamily

START = 10.0  # degrees of freedom that a fit starts from


@dataclass(frozen=True)
class StudentT(TiledFamily):
    """Multivariate t components with full scale matrices.

    Parameters
    ----------
    degrees_of_freedom : float, optional
        Of every component; by default each has its own, which is estimated.
    reg_covar : float, default=1e-6
        Added to the diagonals of the scale matrices, as for Gaussians. So a component whose
        rows are all the same stays finite.
    least_degrees, most_degrees : float, default=0.1 and 1e4
        Bounds of the degrees of freedom that are estimated. Rows of a Gaussian would have
        infinitely many.

    Examples
    --------
    >>> StudentT().n_parameters(2, 3), StudentT(4.0).n_parameters(2, 3)
    (21, 19)
    """

    degrees_of_freedom: float | None = None
    reg_covar: float = 1e-6
    least_degrees: float = 0.1
    most_degrees: float = 1e4

    name = "student_t"
    lighter = ""

    def __post_init__(self) -> None:
        """Check the degrees of freedom."""
        if self.degrees_of_freedom is not None and not self.degrees_of_freedom > 0:
            raise ParameterError(
                f"degrees_of_freedom={self.degrees_of_freedom!r} must be positive, or None"
            )

    def n_parameters(self, k: int, d: int) -> int:
        fitted = self.degrees_of_freedom is None
        return k * (d + d * (d + 1) // 2 + fitted) + k - 1

    def least_rows(self, d: int) -> int:
        return d + 2

    def parameter_shapes(self, k: int, d: int) -> Shapes:
        return {"means": (k, d), "scale_matrices": (k, d, d), "degrees_of_freedom": (k,)}

    def sum_shapes(self, k: int, d: int) -> Shapes:
        shapes: Shapes = {"mass": (k,), "mean": (k, d), "scatter": (k, d, d)}
        return shapes | {"log_scale": (k,), "entropy": (k,)}

    def components(self, **arrays: Floats) -> StudentTComponents:
        return StudentTComponents(self, **arrays)

    def of_parameters(self, *parameters: Floats) -> StudentTComponents:
        return StudentTComponents(self, *parameters).checked()

    def start(self, statistics: Any, given: Mapping[str, Floats]) -> StudentTComponents:
        return self.estimate(statistics).checked()

    def statistics(self, **arrays: Floats) -> Any:
        moments = Moments("full", arrays["mass"], arrays["mean"], arrays["scatter"])
        rest = {name: arrays[name] for name in ("log_scale", "entropy")}
        return CentredSums(self.name, arrays["weight"], moments, rest)

    def summarize(self, X: NDArray[Any], resp: Floats) -> Any:
        """As if the scale of each row had its prior, with `START` degrees of freedom."""
        half = 0.5 * (self.degrees_of_freedom or START)
        moments = moments_under("full", np.asarray(X, np.float64), resp)
        weight = moments.weight
        sums = {
            "log_scale": weight * (digamma(half) - np.log(half)),
            "entropy": weight * gamma_entropy(half, half),
        }
        return CentredSums(self.name, weight, moments, sums)

    def estimate(self, statistics: CentredSums) -> StudentTComponents:
        """Mean and scatter under r E[u], and ν from one equation (Peel & McLachlan 2000, eq. 31).

        log(ν/2) - ψ(ν/2) + 1 + Σ r (E[log u] - E[u]) / Σ r = 0.
        """
        moments, weight = statistics.moments, statistics.weight
        scales = moments.scatter / weight[:, None, None]
        np.einsum("kdd->kd", scales)[...] += self.reg_covar
        if self.degrees_of_freedom is not None:
            nu = np.full(len(weight), float(self.degrees_of_freedom))
        else:
            gap = (moments.weight - statistics["log_scale"]) / weight - 1
            nu = 2 * gamma_shapes(gap, self.most_degrees / 2)
            nu = np.maximum(nu, self.least_degrees)
        return StudentTComponents(self, moments.mean, scales, nu)


def gamma_entropy(shape: Any, rate: Any) -> Any:
    """Entropy of gamma variables, in nats.

    >>> float(gamma_entropy(1.0, 1.0))
    1.0
    """
    return shape - np.log(rate) + gammaln(shape) + (1 - shape) * digamma(shape)


@dataclass(frozen=True, eq=False)
class StudentTComponents(TiledComponents):
    """Means (K, D), scale matrices (K, D, D) and degrees of freedom (K,).

    The covariance is ν/(ν - 2) times the scale matrix, where ν > 2.
    """

    means: Floats
    scale_matrices: Floats
    degrees_of_freedom: Floats

    def checked(self) -> Self:
        """These components; raises SingularCovarianceError where a scale is degenerate."""
        self.precisions_cholesky  # noqa: B018, what is computed here is kept
        return self

    def maximize(self, statistics: Any) -> Self:
        """As all do; raises SingularCovarianceError where a scale is degenerate."""
        return super().maximize(statistics).checked()

    @cached_property
    def precisions_cholesky(self) -> Floats:
        """Upper triangular A_k with A_k A_kᵀ = Σ_k⁻¹; raises SingularCovarianceError."""
        return triangular_inverses(self.scale_matrices)

    @property
    def log_det(self) -> Floats:
        """log |A_k| (K,)."""
        return np.asarray(np.log(np.einsum("kdd->kd", self.precisions_cholesky)).sum(axis=1))

    def distances(self, X: NDArray[Any]) -> Floats:
        """Squared distances δ = (x - μ)ᵀ Σ⁻¹ (x - μ) of rows (n, D): (n, K)."""
        out = np.empty((len(X), len(self.means)))
        for k, (mean, chol) in enumerate(zip(self.means, self.precisions_cholesky, strict=True)):
            z = (X - mean) @ chol
            out[:, k] = np.einsum("nd,nd->n", z, z)
        return out

    def log_density(self, X: NDArray[Any]) -> Floats:
        nu, d = self.degrees_of_freedom, self.means.shape[1]
        const = gammaln(0.5 * (nu + d)) - gammaln(0.5 * nu) - 0.5 * d * np.log(np.pi * nu)
        tails = np.log1p(self.distances(np.asarray(X, np.float64)) / nu)
        return np.asarray(const + self.log_det - 0.5 * (nu + d) * tails)

    def summarize(self, X: NDArray[Any], resp: Floats) -> CentredSums:
        """Σ r, moments under r E[u], Σ r E[log u], and Σ r times the entropy of q(u)."""
        nu, d = self.degrees_of_freedom, self.means.shape[1]
        shape = 0.5 * (nu + d)
        rate = 0.5 * (nu + self.distances(X))
        sums = {
            "log_scale": mass_of(resp) * digamma(shape) - _dots(resp, np.log(rate)),
            "entropy": _dots(resp, gamma_entropy(shape, rate)),
        }
        moments = moments_under("full", X, resp * (shape / rate))
        return CentredSums(self.family.name, mass_of(resp), moments, sums)

    def expected_log_density(self, statistics: CentredSums) -> float:
        """E[log p(x, u)] and the entropy of q(u), over the rows of statistics."""
        nu, d = self.degrees_of_freedom, self.means.shape[1]
        moments, n = statistics.moments, statistics.weight
        chol = self.precisions_cholesky
        const = self.log_det - 0.5 * d * np.log(2 * np.pi)
        const += 0.5 * nu * np.log(0.5 * nu) - gammaln(0.5 * nu)
        shift = np.einsum("kd,kde->ke", moments.mean - self.means, chol)
        spread = np.einsum("kde,kdf,kfe->k", chol, moments.scatter, chol)
        spread += moments.weight * np.einsum("ke,ke->k", shift, shift)
        each = n * const + (0.5 * (d + nu) - 1) * statistics["log_scale"]
        each += statistics["entropy"] - 0.5 * nu * moments.weight - 0.5 * spread
        return float(each[n > 0].sum())

    def coordinates(self, weights: Floats, statistics: CentredSums) -> Floats:
        """As of Gaussians under r E[u], and of ν with information π (ψ'(ν/2)/2 - 1/ν)/2."""
        new, nu = self.family.estimate(statistics), self.degrees_of_freedom
        chol, k = self.precisions_cholesky, len(nu)
        mass = statistics.moments.weight / statistics.weight
        shift = np.einsum("kd,kde->ke", new.means - self.means, chol)
        shift *= np.sqrt(weights * mass)[:, None]
        spread = np.einsum("kde,kdf,kfg->keg", chol, new.scale_matrices, chol).reshape(k, -1)
        spread *= np.sqrt(0.5 * weights)[:, None]
        tails = new.degrees_of_freedom - nu
        tails *= np.sqrt(weights * 0.5 * (0.5 * polygamma(1, 0.5 * nu) - 1 / nu))
        return np.concatenate([shift.ravel(), spread.ravel(), tails])

    def draw(self, k: int, n: int, random_state: np.random.RandomState) -> NDArray[Any]:
        nu = self.degrees_of_freedom[k]
        d = self.means.shape[1]
        z = random_state.multivariate_normal(np.zeros(d), self.scale_matrices[k], n)
        u = random_state.chisquare(nu, n) / nu
        return np.asarray(self.means[k] + z / np.sqrt(u)[:, None])

    def seeded(self, rows: NDArray[Any], average: Mapping[str, Floats]) -> dict[str, Floats]:
        """At the rows, with the others' scales and tails."""
        m = len(rows)
        scale = average["scale_matrices"]
        return {
            "means": np.asarray(rows, np.float64),
            "scale_matrices": np.broadcast_to(scale, (m, *scale.shape)),
            "degrees_of_freedom": np.full(m, average["degrees_of_freedom"]),
        }


def _dots(a: Floats, b: Floats) -> Floats:
    """Σ_n a b of two (n, K), by component."""
    return np.asarray(np.einsum("nk,nk->k", a, b))
