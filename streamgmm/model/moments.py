"""Mergeable centred moments of K components: weight, mean and scatter about that mean.

Sums of squares about the origin lose every digit once the offset of the data exceeds 1e8
standard deviations; moments about their own mean lose none, and merge exactly
(Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamgmm.kernels import scatters

Floats = NDArray[np.float64]
Scatter = Literal["full", "tied", "diag", "spherical"]


def spread(kind: Scatter, weight: Floats, shift: Floats) -> Floats:
    """Scatter of K points of the given weights (K,) that lie `shift` (K, D) off their centre.

    The shape is the one that scatters of this kind have: full (K, D, D), tied (D, D) summed
    over components, diag (K, D), spherical (K,) summed over features.

    >>> spread("diag", np.array([2.0]), np.array([[1.0, 3.0]]))
    array([[ 2., 18.]])
    """
    if kind == "full":
        out: Any = shift[:, :, None] * shift[:, None, :]  # symmetric to the last bit
        out *= weight[:, None, None]
    elif kind == "tied":
        out = (weight[:, None] * shift).T @ shift
    elif kind == "diag":
        out = weight[:, None] * shift**2
    else:
        out = weight * np.einsum("kd,kd->k", shift, shift)
    return np.asarray(out)


@dataclass(frozen=True, eq=False)
class Moments:
    """Weight (K,), mean (K, D) and scatter Σ r (x - mean)(x - mean)ᵀ, in float64.

    The scatter of `kind` ``"full"`` is (K, D, D), of ``"tied"`` (D, D), the sum of the scatters
    of all components about their own means, of ``"diag"`` (K, D) and of ``"spherical"`` (K,),
    the trace.
    """

    kind: Scatter
    weight: Floats
    mean: Floats
    scatter: Floats

    def merge(self, other: Moments) -> Moments:
        """Moments of both sets of rows together (Chan et al. 1983, eq. 1.5).

        >>> a = Moments("diag", np.ones(1), np.zeros((1, 1)), np.zeros((1, 1)))
        >>> b = Moments("diag", np.ones(1), np.full((1, 1), 2.0), np.zeros((1, 1)))
        >>> ab = a.merge(b)
        >>> ab.mean.item(), ab.scatter.item()
        (1.0, 2.0)
        """
        weight = self.weight + other.weight
        share = np.divide(other.weight, weight, out=np.zeros_like(weight), where=weight > 0)
        shift = other.mean - self.mean
        mean = self.mean + share[:, None] * shift
        # A component that one side has never seen takes the other's mean to the last bit.
        mean = np.where((self.weight == 0)[:, None] & (weight > 0)[:, None], other.mean, mean)
        if self.kind == "full":
            scatter = np.empty_like(self.scatter)
            scatters.merged(self.scatter, other.scatter, self.weight * share, shift, scatter)
        else:
            scatter = spread(self.kind, self.weight * share, shift)
            scatter += self.scatter + other.scatter
        return Moments(self.kind, weight, mean, scatter)

    def scale(self, factor: float) -> Moments:
        """The same rows with every weight multiplied by `factor`."""
        return Moments(self.kind, self.weight * factor, self.mean, self.scatter * factor)

    def combine(self, parts: Sequence[Moments], alphas: Floats) -> Moments | None:
        """Σ_i α_i parts_i as sums about this one's means.

        None where a weight is not positive, unless it is zero in all of the parts.
        """
        weight = np.zeros_like(self.weight)
        first = np.zeros_like(self.mean)
        second = np.zeros_like(self.scatter)
        for alpha, part in zip(alphas, parts, strict=True):
            shift = part.mean - self.mean
            weight += alpha * part.weight
            first += alpha * part.weight[:, None] * shift
            second += alpha * (part.scatter + spread(self.kind, part.weight, shift))
        known = np.any([part.weight > 0 for part in parts], axis=0)
        if not np.all(weight[known] > 0):
            return None
        return Moments.about(self.kind, self.mean, weight, first, second)

    def arrays(self) -> dict[str, Floats]:
        """What is stored."""
        return {"weight": self.weight, "mean": self.mean, "scatter": self.scatter}

    def row_mean(self, about: Floats) -> Floats:
        """Mean of all rows less `about` (D,)."""
        return np.asarray(self.weight @ (self.mean - about) / self.weight.sum())

    @classmethod
    def about(
        cls, kind: Scatter, centre: Floats, weight: Floats, first: Floats, second: Floats
    ) -> Moments:
        """From sums about `centre` (K, D): Σ r, Σ r (x - c), and Σ r (x - c)(x - c)ᵀ.

        `second` has the shape of the scatter and `first` is (K, D).
        """
        shift = _means(weight, first)
        scatter = spread(kind, weight, shift)
        return cls(kind, weight, centre + shift, np.subtract(second, scatter, out=scatter))

    @classmethod
    def about_lower(
        cls, centre: Floats, weight: Floats, first: Floats, lower: Floats, padded: int
    ) -> Moments:
        """The same of kind ``"full"`` from lower triangles, flat, of `padded` features."""
        shift = _means(weight, first)
        k, d = shift.shape
        scatter = np.empty((k, d, d))
        scatters.centred(lower, padded, weight, shift, scatter)
        return cls("full", weight, centre + shift, scatter)


def _means(weight: Floats, first: Floats) -> Floats:
    """Σ r x / Σ r of each component, zero where it has no weight."""
    used = weight > 0
    if used.all():
        return np.asarray(first / weight[:, None])
    used = np.broadcast_to(used[:, None], first.shape)
    return np.divide(first, weight[:, None], out=np.zeros(first.shape), where=used)
