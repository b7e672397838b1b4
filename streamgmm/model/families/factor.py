"""Mixtures of factor analysers: covariances of a few factors and independent noise.

    x = μ_k + Λ_k z + e,   z ~ N(0, I_q),   e ~ N(0, Ψ_k),   so Σ_k = Λ_k Λ_kᵀ + Ψ_k

(Ghahramani & Hinton 1996, "The EM algorithm for mixtures of factor analyzers"). With Ψ_k = σ_k² I
they are mixtures of probabilistic principal components (Tipping & Bishop 1999). No D × D matrix
is ever made: an E-step costs N K D q. The factors are latent variables beside the component, so
F has E[log p(x, z | θ)] and the entropy of q(z), and is a bound that is tight at the parameters
of the E-step.

With A = Ψ⁻¹Λ and M = I + ΛᵀA = L Lᵀ (Woodbury), w = L⁻¹Aᵀ(x - μ):

    (x - μ)ᵀ Σ⁻¹ (x - μ) = (x - μ)ᵀ Ψ⁻¹ (x - μ) - |w|²,   E[z | x] = L⁻ᵀ w,   cov = M⁻¹

A long file, since family, components and density make one another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh, solve_triangular

from streamgmm.errors import ParameterError
from streamgmm.kernels.factors import centred_squares, noise_distances
from streamgmm.model.components import NO_WEIGHT, Accumulator, BlockSums, Posterior, Shapes
from streamgmm.model.families.factor_sets import FactorScores, FactorSearch, FactorSetAccumulator
from streamgmm.model.families.factor_statistics import FactorStatistics, TruncatedFactorStatistics
from streamgmm.model.families.gaussian import LEAST_ENTRIES
from streamgmm.model.moments import Floats
from streamgmm.model.responsibilities import normalized
from streamgmm.model.tiles import TiledComponents, TiledDensity, TiledFamily, one_hot
from streamgmm.model.truncation.guide import Guide
from streamgmm.model.truncation.moments import N_SAMPLED
from streamgmm.model.truncation.steps import truncated_posterior

LOG_2PI = float(np.log(2 * np.pi))
TILE_ROWS = 1024
STEEP = 1e7  # ratio of signal to noise above which |w|² would cancel too many digits
FAINT = 1e-2  # of a standard deviation: factors that a start has no rows for
_TINY = 10 * np.finfo(np.float64).eps  # scikit-learn adds it to the weight of each component


@dataclass(frozen=True)
class FactorAnalyzer(TiledFamily):
    """Gaussians of `n_factors` factors and noise that is independent from feature to feature.

    Parameters
    ----------
    n_factors : int, default=1
        Called q in formulas; less than the number of features.
    noise : {"diag", "isotropic"}, default="diag"
        A variance of its own for each feature, or one for all (probabilistic principal
        components).
    reg_covar : float, default=1e-6
        No variance of the noise is estimated below it. A feature that never varies stays finite,
        and EM stays monotone, which a ridge that is added would break.
    truncation : int, optional
        How many components each row looks at, where there are more: see `model.truncation`.

    Examples
    --------
    >>> FactorAnalyzer(2).n_parameters(3, 10)
    119
    """

    n_factors: int = 1
    noise: str = "diag"
    reg_covar: float = 1e-6
    truncation: int | None = field(default=None, repr=False)

    initial = ("means",)
    tells_mean = True

    def __post_init__(self) -> None:
        """Check the settings."""
        if not (isinstance(self.n_factors, (int, np.integer)) and self.n_factors >= 1):
            raise ParameterError(f"n_factors={self.n_factors!r} must be a whole number from 1 up")
        if self.noise not in ("diag", "isotropic"):
            raise ParameterError(f"noise={self.noise!r} must be 'diag' or 'isotropic'")
        if self.truncation is not None and self.truncation < 1:
            raise ParameterError(f"truncation={self.truncation} must be at least 1")

    @property
    def set_size(self) -> int:
        """How many numbers are kept of a row from one read to the next."""
        return self.truncation or 0

    @property
    def name(self) -> str:  # type: ignore[override]
        """``"factor"`` or ``"ppca"``."""
        return "factor" if self.noise == "diag" else "ppca"

    def check_width(self, d: int) -> None:
        """Check that there are fewer factors than features; raises ParameterError."""
        if self.n_factors >= d:
            raise ParameterError(
                f"n_factors={self.n_factors} must be less than the number of features, {d}; "
                "covariance_type='full' has as many as there are"
            )

    def n_parameters(self, k: int, d: int) -> int:
        """Loadings count less the q (q - 1) / 2 of a rotation, which changes no density."""
        q = self.n_factors
        own = d + d * q - q * (q - 1) // 2 + (d if self.noise == "diag" else 1)
        return k * own + k - 1

    def least_rows(self, d: int) -> int:
        return self.n_factors + 2

    def parameter_shapes(self, k: int, d: int) -> Shapes:
        self.check_width(d)
        return {
            "means": (k, d),
            "loadings": (k, d, self.n_factors),
            "noise_variances": (k, d),
        }

    def sum_shapes(self, k: int, d: int) -> Shapes:
        self.check_width(d)
        q = self.n_factors
        shapes: Shapes = {"mean": (k, d), "latent": (k, q), "scatter": (k, d)}
        return shapes | {"cross": (k, d, q), "latent_scatter": (k, q, q), "latent_entropy": (k,)}

    def statistic_shapes(self, k: int, d: int) -> Shapes:
        """The weight, the sums, and what a sample says of the sets."""
        few = self.truncation is not None and self.truncation < k
        return super().statistic_shapes(k, d) | ({"sampled": (N_SAMPLED,)} if few else {})

    def components(self, **arrays: Floats) -> FactorComponents:
        return FactorComponents(self, **arrays)

    def of_parameters(self, *parameters: Floats) -> FactorComponents:
        return FactorComponents(self, *parameters)

    def statistics(self, **arrays: Floats) -> FactorStatistics:  # type: ignore[override]
        kind = TruncatedFactorStatistics if "sampled" in arrays else FactorStatistics
        return kind(self.name, **arrays)

    def summarize(self, X: NDArray[Any], resp: Floats) -> FactorStatistics:  # type: ignore[override]
        """Under the principal components of the rows of each component."""
        rows = np.asarray(X, np.float64)
        self.check_width(rows.shape[1])
        return self._principal(rows, resp).summarize(rows, resp)

    def begin(
        self, X: NDArray[Any], weight: Floats | None, resp: NDArray[Any], k: int
    ) -> FactorStatistics:
        """As `summarize`, of all rows at once; an empty component is like all rows together."""
        if resp.ndim == 1:
            if self.truncation is not None and self.truncation < k:
                return self._begin_each(np.asarray(X, np.float64), weight, resp, k)
            resp = one_hot(resp, k)
        if weight is not None:
            resp = resp * weight[:, None]
        found = self.summarize(X, resp + _TINY / len(X))
        return replace(found, weight=resp.sum(axis=0) + _TINY)

    def _begin_each(
        self, X: Floats, weight: Floats | None, labels: NDArray[Any], k: int
    ) -> FactorStatistics:
        """As `begin`, component by component: for very many, of which each has few of the rows."""
        w = np.ones(len(X)) if weight is None else weight
        order = np.argsort(labels, kind="stable")
        ends = np.searchsorted(labels, np.arange(k + 1), sorter=order)
        each = []
        for j in range(k):
            members = order[ends[j] : ends[j + 1]]
            empty = not w[members].any()
            rows, r = (X, w + 1.0) if empty else (X[members], w[members])
            own = self.summarize(rows, r[:, None])
            each.append(own.scale(_TINY / own.weight.item() if empty else 1.0))
        names = each[0].arrays()
        arrays = {n: np.concatenate([getattr(own, n) for own in each]) for n in names}
        return FactorStatistics(self.name, **arrays)

    def _principal(self, X: Floats, resp: Floats) -> FactorComponents:
        """Loadings and noise from the leading eigenvectors of each component's covariance."""
        (_, d), k, q = X.shape, resp.shape[1], self.n_factors
        weight = resp.sum(axis=0)
        means = resp.T @ X / np.maximum(weight, np.finfo(float).tiny)[:, None]
        loadings, noise = np.empty((k, d, q)), np.empty((k, d))
        rng = np.random.RandomState(0)
        for j in range(k):
            used = resp[:, j] > 1e-12 * resp[:, j].max(initial=0.0)
            root = np.sqrt(resp[used, j] / max(weight[j], np.finfo(float).tiny))
            off = root[:, None] * (X[used] - means[j])
            variances = np.einsum("nd,nd->d", off, off)
            values, vectors = leading(off, q)
            left = max(variances.sum() - values.sum(), 0.0) / (d - q)
            scale = np.sqrt(np.maximum(values - left, 0.0))
            spread = np.sqrt(max(variances.mean(), self.reg_covar))
            faint = FAINT * spread / np.sqrt(d) * rng.standard_normal((d, q))
            loadings[j] = np.where(scale > 0, vectors * scale, 0.0) + faint
            own = variances - np.einsum("dq,dq->d", loadings[j], loadings[j])
            noise[j] = own if self.noise == "diag" else own.mean()
            noise[j] = np.maximum(noise[j], np.maximum(0.01 * variances, self.reg_covar))
            if self.noise == "isotropic":
                noise[j] = noise[j].max()
        return FactorComponents(self, means, loadings, noise)

    def estimate(self, statistics: FactorStatistics) -> FactorComponents:
        """Regression of the rows on their factors, and what it leaves as noise."""
        loadings, left = statistics.regression()
        noise = left / statistics.weight[:, None]
        if self.noise == "isotropic":
            noise = np.broadcast_to(noise.mean(axis=1)[:, None], noise.shape)
        means = statistics.mean - np.einsum("kdq,kq->kd", loadings, statistics.latent)
        return FactorComponents(self, means, loadings, np.maximum(noise, self.reg_covar))

    def start(self, statistics: FactorStatistics, given: Mapping[str, Floats]) -> FactorComponents:
        """As `estimate`, with ``means`` that are given in their place."""
        found = self.estimate(statistics)
        return replace(found, means=given.get("means", found.means))


def leading(off: Floats, q: int) -> tuple[Floats, Floats]:
    """The q largest eigenvalues of offᵀ off, of rows (n, D), and its eigenvectors (D, q).

    Zero where there are fewer.

    >>> leading(np.array([[3.0, 0.0], [0.0, 1.0]]), 1)[0]
    array([9.])
    """
    n, d = off.shape
    values, vectors = np.zeros(q), np.zeros((d, q))
    m = min(q, n, d)
    if m == 0:
        return values, vectors
    wide = n < d
    matrix = off @ off.T if wide else off.T @ off
    size = len(matrix)
    found, axes = eigh(matrix, subset_by_index=(size - m, size - 1))
    found, axes = np.maximum(found[::-1], 0.0), axes[:, ::-1]
    known = found > 1e-12 * max(found[0], np.finfo(float).tiny)
    if wide:
        axes = off.T @ axes / np.sqrt(np.where(known, found, 1.0))
    values[:m], vectors[:, :m] = np.where(known, found, 0.0), np.where(known, axes, 0.0)
    return values, vectors


@dataclass(frozen=True, eq=False)
class FactorComponents(TiledComponents):
    """Means μ (K, D), loadings Λ (K, D, q) and variances Ψ of the noise (K, D)."""

    means: Floats
    loadings: Floats
    noise_variances: Floats

    def __post_init__(self) -> None:
        """Lay arrays out in order: in another, NumPy sums in another order once they are sent."""
        for name, value in self.arrays().items():
            object.__setattr__(self, name, np.ascontiguousarray(value))

    @cached_property
    def projections(self) -> tuple[Floats, Floats, Floats]:
        """L (K, q, q); A L⁻ᵀ (K, D, q), which makes w of x - μ; and log |Σ| (K,)."""
        weighted = self.loadings / self.noise_variances[:, :, None]
        inner = np.eye(self.loadings.shape[2]) + np.einsum("kdp,kdq->kpq", self.loadings, weighted)
        chol = np.linalg.cholesky(inner)
        each = [
            solve_triangular(c, a.T, lower=True).T for c, a in zip(chol, weighted, strict=True)
        ]
        log_det = np.log(self.noise_variances).sum(axis=1)
        log_det += 2 * np.log(np.einsum("kqq->kq", chol)).sum(axis=1)
        return chol, np.ascontiguousarray(np.stack(each)), log_det

    @cached_property
    def centre(self) -> Floats:
        """The middle of the means (D,), about which products are formed."""
        return np.asarray(self.means[0] + (self.means - self.means[0]).mean(axis=0))

    @cached_property
    def table(self) -> tuple[Floats, Floats, NDArray[np.intp]]:
        """All projections side by side (D, K q), what they make of the means, and who is steep.

        Steep are components whose signal is so far above the noise that |w|² would cancel.
        """
        chol, projected, _ = self.projections
        k, d, q = projected.shape
        flat = np.ascontiguousarray(projected.transpose(1, 0, 2).reshape(d, k * q))
        offsets = np.einsum("kd,kdq->kq", self.means - self.centre, projected).ravel()
        signal = np.einsum("kpq,kpq->k", chol, chol)
        return flat, offsets, np.flatnonzero(signal > STEEP)

    def whitened(self, X: Floats) -> tuple[Floats, Floats]:
        """w (n, K, q) and the squared distances (n, K) of a tile of rows (n, D)."""
        k, q = len(self.means), self.loadings.shape[2]
        flat, offsets, steep = self.table
        w = ((X - self.centre) @ flat - offsets).reshape(len(X), k, q)
        distances = np.empty((k, len(X)))
        tile = np.ascontiguousarray(X.T)
        noise_distances(tile, self.means, 1.0 / self.noise_variances, distances)
        out = distances.T - np.einsum("nkq,nkq->nk", w, w)
        for j in steep:  # |x - μ - Λz|² / ψ + |z|² is the same, and cancels nothing
            z = self._factors(j, w[:, j])
            left = X - self.means[j] - z @ self.loadings[j].T
            out[:, j] = left**2 @ (1.0 / self.noise_variances[j]) + np.einsum("nq,nq->n", z, z)
        return w, np.maximum(out, 0.0)

    def _factors(self, j: int, w: Floats) -> Floats:
        """E[z | x] = L⁻ᵀ w of one component (n, q)."""
        chol = self.projections[0][j]
        return np.asarray(solve_triangular(chol, w.T, lower=True, trans="T").T)

    def log_density(self, X: NDArray[Any]) -> Floats:
        return self.log_density_of(self.whitened(np.asarray(X, np.float64))[1])

    def log_density_of(self, distances: Floats) -> Floats:
        """log N of squared distances (n, K)."""
        constant = self.means.shape[1] * LOG_2PI + self.projections[2]
        return np.asarray(-0.5 * (distances + constant))

    def summarize(self, X: NDArray[Any], resp: Floats) -> FactorStatistics:
        rows = np.asarray(X, np.float64)
        return self.sums(rows, resp, self.whitened(rows)[0])

    def sums(self, X: Floats, resp: Floats, w: Floats) -> FactorStatistics:
        """Statistics of a tile of rows (n, D) with their w (n, K, q)."""
        k, d = self.means.shape
        q, n = w.shape[2], len(X)
        weight = resp.sum(axis=0)
        safe = np.where(weight > 0, weight, 1.0)
        shares = np.empty((n, k, q + 1))
        np.multiply(w, resp[:, :, None], out=shares[:, :, :q])
        shares[:, :, q] = resp
        off = X - self.centre
        moments = (off.T @ shares.reshape(n, k * (q + 1))).reshape(d, k, q + 1).transpose(1, 0, 2)
        w_sum = shares[:, :, :q].sum(axis=0)
        shift = moments[:, :, q] / safe[:, None]
        cross = moments[:, :, :q] - np.einsum("kd,kq->kdq", shift, w_sum)
        second = np.matmul(shares[:, :, :q].transpose(1, 2, 0), w.transpose(1, 0, 2))
        mean = np.where((weight > 0)[:, None], self.centre + shift, self.means)
        scatter = np.zeros((k, d))
        centred_squares(np.ascontiguousarray(X.T), mean, np.ascontiguousarray(resp.T), scatter)
        return self.gathered(weight, mean, w_sum, scatter, cross, second)

    def gathered(
        self, weight: Floats, mean: Floats, w_sum: Floats, scatter: Floats, cross: Floats,
        second: Floats,
    ) -> FactorStatistics:  # fmt: skip
        """Statistics of sums of w: Σ r w, Σ r (x - m) (w - w̄)ᵀ and Σ r w wᵀ."""
        chol, q = self.projections[0], w_sum.shape[1]
        w_mean = w_sum / np.where(weight > 0, weight, 1.0)[:, None]
        second = second - weight[:, None, None] * np.einsum("kp,kq->kpq", w_mean, w_mean)
        second += weight[:, None, None] * np.eye(q)
        # From w to z = L⁻ᵀ w.
        inverse = np.stack([solve_triangular(c, np.eye(q), lower=True) for c in chol])
        entropy = 0.5 * q * (1 + LOG_2PI) - np.log(np.einsum("kqq->kq", chol)).sum(axis=1)
        return FactorStatistics(
            self.family.name,
            weight,
            mean,
            np.einsum("kq,kqp->kp", w_mean, inverse),
            scatter,
            cross @ inverse,
            np.swapaxes(inverse, 1, 2) @ second @ inverse,
            weight * entropy,
        )

    def expected_log_density(self, statistics: FactorStatistics) -> float:
        """E[log p(x, z)] and the entropy of q(z), over the rows of statistics."""
        s, n = statistics, statistics.weight
        d, q = self.loadings.shape[1:]
        off = s.mean - self.means - np.einsum("kdq,kq->kd", self.loadings, s.latent)
        left = s.scatter - 2 * np.einsum("kdq,kdq->kd", self.loadings, s.cross)
        left += np.einsum("kdp,kpq,kdq->kd", self.loadings, s.latent_scatter, self.loadings)
        left += n[:, None] * off**2
        spread = (left / self.noise_variances).sum(axis=1)
        spread += np.einsum("kqq->k", s.latent_scatter)
        spread += n * np.einsum("kq,kq->k", s.latent, s.latent)
        constant = (d + q) * LOG_2PI + np.log(self.noise_variances).sum(axis=1)
        each = s.latent_entropy - 0.5 * (spread + n * constant)
        return float(each[n > 0].sum())

    def coordinates(self, weights: Floats, statistics: FactorStatistics) -> Floats:
        """Loadings and means as coefficients of a regression on z, with log Ψ / √2.

        Their information is that of the complete data: the second moments of z over the noise.
        """
        new = self.family.estimate(statistics)
        root = np.sqrt(weights)[:, None]
        shift = np.concatenate([new.loadings, new.means[:, :, None]], axis=2)
        shift -= np.concatenate([self.loadings, self.means[:, :, None]], axis=2)
        shift = shift @ np.linalg.cholesky(statistics.second_moments())
        shift *= (root / np.sqrt(self.noise_variances))[:, :, None]
        noise = root * np.log(new.noise_variances / self.noise_variances) / np.sqrt(2)
        return np.concatenate([shift.ravel(), noise.ravel()])

    def density(self, weights: Floats) -> FactorDensity:
        return FactorDensity(weights, self)

    @property
    def covariances(self) -> Floats:
        """Λ Λᵀ + Ψ (K, D, D); made when it is asked for."""
        found = self.loadings @ np.swapaxes(self.loadings, 1, 2)
        np.einsum("kdd->kd", found)[...] += self.noise_variances
        return found

    def draw(self, k: int, n: int, random_state: np.random.RandomState) -> NDArray[Any]:
        d, q = self.loadings[k].shape
        z = random_state.standard_normal((n, q))
        noise = random_state.standard_normal((n, d)) * np.sqrt(self.noise_variances[k])
        return np.asarray(self.means[k] + z @ self.loadings[k].T + noise)

    def seeded(self, rows: NDArray[Any], average: Mapping[str, Floats]) -> dict[str, Floats]:
        """At the rows, with the others' noise and the first one's loadings.

        Loadings have no mean: a rotation of the factors changes them, and no density.
        """
        m = len(rows)
        noise = np.broadcast_to(average["noise_variances"], rows.shape)
        return {
            "means": np.asarray(rows, np.float64),
            "loadings": np.broadcast_to(self.loadings[0], (m, *self.loadings[0].shape)),
            "noise_variances": noise,
        }


@dataclass(frozen=True, eq=False)
class FactorDensity(TiledDensity):
    """Factor analysers and weights; tiles are larger, since products are most of the work."""

    components: FactorComponents

    def accumulator(
        self, like: NDArray[Any], weighted: bool = False, centres: Floats | None = None
    ) -> Accumulator:
        """An E-step."""
        return FactorSetAccumulator(self) if self.truncated else FactorAccumulator(self)

    def hard_accumulator(self, centres: Floats | None = None) -> Accumulator:
        """A hard E-step."""
        if self.truncated:
            return FactorSetAccumulator(self, hard=True)
        return FactorAccumulator(self, hard=True)

    @property
    def means(self) -> Floats:
        """Means (K, D)."""
        return self.components.means

    @property
    def truncated(self) -> bool:
        """Whether a row looks at some of the components only."""
        size = self.components.family.truncation
        return size is not None and size < self.components.n_components

    @cached_property
    def guide(self) -> Guide:
        """What a search goes by; sent to others, since it takes K² products."""
        first = self.means[0]
        centre = first + self.weights @ (self.means - first) / self.weights.sum()
        scores = FactorScores(self.components, self.weights, centre)
        entries = max(self.components.family.truncation or 1, LEAST_ENTRIES)
        return Guide.by(scores, self.weights, self.means, centre, entries)

    @cached_property
    def search(self) -> FactorSearch:
        """What finds the components of rows."""
        return FactorSearch(self, False, self.guide, self.components.family.truncation or 1)

    @cached_property
    def exact(self) -> FactorDensity:
        """The same, where each row looks at all components."""
        family = replace(self.components.family, truncation=None)
        return FactorDensity(self.weights, replace(self.components, family=family))

    def prepare(self) -> None:
        """Make what a pass takes long to make, once for all of its blocks."""
        if self.truncated:
            _ = self.guide

    def __getstate__(self) -> dict[str, Any]:
        """What is sent to others: not what is made of it."""
        made = ("search", "exact")
        return {name: value for name, value in self.__dict__.items() if name not in made}

    def posterior(self, X: NDArray[Any], *, labels: bool = False, resp: bool = False) -> Posterior:
        n, k = len(X), len(self.weights)
        out = Posterior(
            np.empty(n), np.empty(n if labels else 0, np.int32), np.empty((n if resp else 0, k))
        )
        if self.truncated:
            return truncated_posterior(self, X, out)
        for a in range(0, n, TILE_ROWS):
            at = slice(a, min(a + TILE_ROWS, n))
            joint = self.joint(np.asarray(X[at], np.float64))
            own, out.log_density[at], _ = normalized(joint)
            if labels:
                out.labels[at] = joint.argmax(axis=1)
            if resp:
                out.resp[at] = own
        return out


class FactorAccumulator:
    """An E-step in which log-densities and sums share the products of a tile."""

    def __init__(self, density: FactorDensity, hard: bool = False) -> None:
        self._density, self._hard = density, hard
        self._totals = np.zeros(2)
        self._statistics: FactorStatistics | None = None

    def add(self, X: NDArray[Any], sample_weight: Floats = NO_WEIGHT) -> None:
        """Add rows (n, D), and weights (n,) or none."""
        components = self._density.components
        with np.errstate(divide="ignore"):
            log_weights = np.log(self._density.weights)
        for a in range(0, len(X), TILE_ROWS):
            rows = np.asarray(X[a : a + TILE_ROWS], np.float64)
            w, distances = components.whitened(rows)
            joint = components.log_density_of(distances) + log_weights
            resp, log_density, entropy = normalized(joint)
            if self._hard:
                resp, entropy = one_hot(joint.argmax(axis=1), joint.shape[1]), np.zeros(len(rows))
            if len(sample_weight):
                mine = sample_weight[a : a + TILE_ROWS]
                used = mine > 0  # 0 times a density of -inf is nothing
                self._totals += mine[used] @ log_density[used], mine[used] @ entropy[used]
                resp = np.where(used[:, None], resp * mine[:, None], 0.0)
            else:
                self._totals += log_density.sum(), entropy.sum()
            self._merge(components.sums(rows, resp, w))

    def _merge(self, own: FactorStatistics) -> None:
        self._statistics = own if self._statistics is None else self._statistics.merge(own)

    def result(self) -> BlockSums:
        """The sums of all rows added."""
        if self._statistics is None:
            k, d = self._density.components.means.shape
            self._merge(self._density.components.summarize(np.empty((0, d)), np.empty((0, k))))
        assert self._statistics is not None
        return BlockSums(float(self._totals[0]), float(self._totals[1]), self._statistics)
