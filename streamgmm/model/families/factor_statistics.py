"""Sufficient statistics of factor analysers: of rows, and of the factors given them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from streamgmm.model.moments import Floats
from streamgmm.model.truncation.moments import sampled_of


@dataclass(frozen=True, eq=False)
class FactorStatistics:
    """What an E-step leaves of rows x and their factors z, centred; a value that merges.

    With n = Σ r and q the posterior of z of the E-step, for each component:

    Attributes
    ----------
    kind : str
        The name of the family.
    weight : ndarray of shape (K,)
        n.
    mean : ndarray of shape (K, D)
        m = Σ r x / n.
    latent : ndarray of shape (K, q)
        z̄ = Σ r E[z] / n.
    scatter : ndarray of shape (K, D)
        Σ r (x - m)², feature by feature.
    cross : ndarray of shape (K, D, q)
        Σ r (x - m)(E[z] - z̄)ᵀ.
    latent_scatter : ndarray of shape (K, q, q)
        Σ r E[(z - z̄)(z - z̄)ᵀ].
    latent_entropy : ndarray of shape (K,)
        Σ r H(q(z | x)), in nats.
    """

    kind: str
    weight: Floats
    mean: Floats
    latent: Floats
    scatter: Floats
    cross: Floats
    latent_scatter: Floats
    latent_entropy: Floats

    def __post_init__(self) -> None:
        """Lay arrays out in order: in another, NumPy sums in another order once they are sent."""
        for name, value in self.arrays().items():
            object.__setattr__(self, name, np.ascontiguousarray(value))

    def merge(self, other: FactorStatistics) -> FactorStatistics:
        """Statistics of both sets of rows (Chan, Golub & LeVeque 1983)."""
        a, b = self.weight, other.weight
        weight = a + b
        share = b / np.where(weight > 0, weight, 1.0)
        shift, latent = other.mean - self.mean, other.latent - self.latent
        between = a * share
        return FactorStatistics(
            self.kind,
            weight,
            self.mean + share[:, None] * shift,
            self.latent + share[:, None] * latent,
            self.scatter + other.scatter + between[:, None] * shift**2,
            self.cross + other.cross + np.einsum("k,kd,kq->kdq", between, shift, latent),
            self.latent_scatter
            + other.latent_scatter
            + np.einsum("k,kp,kq->kpq", between, latent, latent),
            self.latent_entropy + other.latent_entropy,
        )

    def scale(self, factor: float) -> FactorStatistics:
        """The same rows with every weight multiplied by `factor`."""
        kept = ("kind", "mean", "latent")
        values = {f.name: getattr(self, f.name) for f in fields(FactorStatistics)}
        return FactorStatistics(
            **{name: v if name in kept else v * factor for name, v in values.items()}
        )

    def combine(
        self, parts: Sequence[FactorStatistics], alphas: Floats
    ) -> FactorStatistics | None:
        """Σ_i α_i parts_i, about this one's means; None where that is no set of statistics."""
        weight, entropy = np.zeros_like(self.weight), np.zeros_like(self.weight)
        first, latent = np.zeros_like(self.mean), np.zeros_like(self.latent)
        scatter, cross = np.zeros_like(self.scatter), np.zeros_like(self.cross)
        second = np.zeros_like(self.latent_scatter)
        for alpha, part in zip(alphas, parts, strict=True):
            x, z = part.mean - self.mean, part.latent - self.latent
            n = alpha * part.weight
            weight += n
            first += n[:, None] * x
            latent += n[:, None] * z
            scatter += alpha * part.scatter + n[:, None] * x**2
            cross += alpha * part.cross + np.einsum("k,kd,kq->kdq", n, x, z)
            second += alpha * part.latent_scatter + np.einsum("k,kp,kq->kpq", n, z, z)
            entropy += alpha * part.latent_entropy
        if not np.all(weight > 0):
            return None
        x, z = first / weight[:, None], latent / weight[:, None]
        scatter -= weight[:, None] * x**2
        cross -= np.einsum("k,kd,kq->kdq", weight, x, z)
        second -= np.einsum("k,kp,kq->kpq", weight, z, z)
        found = FactorStatistics(
            self.kind, weight, self.mean + x, self.latent + z, scatter, cross, second, entropy
        )
        return found if found._possible() else None

    def arrays(self) -> dict[str, Floats]:
        """What is stored."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "kind"}

    def row_mean(self, about: Floats) -> Floats:
        """Mean of all rows less `about` (D,)."""
        used = self.weight > 0
        return np.asarray(self.weight[used] @ (self.mean[used] - about) / self.weight.sum())

    def regression(self) -> tuple[Floats, Floats]:
        """Loadings (K, D, q) of the regression of x on z, and what it leaves (K, D): Σ r e²."""
        empty = (self.weight <= 0)[:, None, None]
        second = np.where(empty, np.eye(self.latent.shape[1]), self.latent_scatter)
        loadings = np.swapaxes(np.linalg.solve(second, np.swapaxes(self.cross, 1, 2)), 1, 2)
        return loadings, self.scatter - np.einsum("kdq,kdq->kd", loadings, self.cross)

    def second_moments(self) -> Floats:
        """Σ r E[z̃ z̃ᵀ] / n of z̃ = (z, 1): (K, q + 1, q + 1); the identity where n is zero."""
        q = self.latent.shape[1]
        wide = np.concatenate([self.latent, np.ones((len(self.latent), 1))], axis=1)
        out = np.einsum("kp,kq->kpq", wide, wide)
        safe = np.where(self.weight > 0, self.weight, 1.0)
        out[:, :q, :q] += self.latent_scatter / safe[:, None, None]
        return np.where((self.weight > 0)[:, None, None], out, np.eye(q + 1))

    def with_sample(self, sampled: Floats) -> TruncatedFactorStatistics:
        """The same statistics with what a sample of the rows says."""
        values = {f.name: getattr(self, f.name) for f in fields(FactorStatistics)}
        return TruncatedFactorStatistics(**values, sampled=sampled)

    def _possible(self) -> bool:
        """Whether there are rows and factors that have these statistics."""
        if np.linalg.eigvalsh(self.latent_scatter).min() <= 0:
            return False
        return bool(self.regression()[1].min() >= 0)


@dataclass(frozen=True, eq=False)
class TruncatedFactorStatistics(FactorStatistics):
    """Statistics of rows under q over their sets; `sampled` is as of `TruncatedMoments`."""

    sampled: Floats

    def merge(self, other: FactorStatistics) -> TruncatedFactorStatistics:
        """Statistics of both sets of rows."""
        return super().merge(other).with_sample(self.sampled + sampled_of(other))

    def scale(self, factor: float) -> TruncatedFactorStatistics:
        """The same rows with every weight multiplied by `factor`."""
        return super().scale(factor).with_sample(self.sampled * factor)

    def combine(
        self, parts: Sequence[FactorStatistics], alphas: Floats
    ) -> TruncatedFactorStatistics | None:
        """Σ_i α_i parts_i, about this one's means; None where that is no set of statistics."""
        total = super().combine(parts, alphas)
        if total is None:
            return None
        each = [a * sampled_of(part) for a, part in zip(alphas, parts, strict=True)]
        return total.with_sample(np.sum(each, axis=0))
