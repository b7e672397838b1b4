"""Directions: rows of length one, gathered around a direction by a concentration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, ive

from streamgmm.kernels import linear
from streamgmm.model.components import Shapes
from streamgmm.model.families.linear import LinearComponents, LinearFamily, outside
from streamgmm.model.moments import Floats
from streamgmm.model.sums import Sums

LEAST = 1e-10  # concentration: as good as zero
_DEBYE = 50.0  # orders from which the uniform expansion has ten digits
_TERMS = 200  # of the recurrence for ratios of Bessel functions


@dataclass(frozen=True)
class VonMisesFisher(LinearFamily):
    """Von Mises-Fisher components over unit vectors (Banerjee et al. 2005).

    Parameters
    ----------
    tolerance : float, default=1e-5
        By how much the length of a row may differ from one. Float32 rows that were divided by
        their length differ by about 1e-7.
    most_concentration : float, default=1e6
        No concentration is estimated above it. So a component whose rows are all the same
        stays finite.

    Examples
    --------
    >>> VonMisesFisher().n_parameters(3, 5)
    17
    """

    tolerance: float = 1e-5
    most_concentration: float = 1e6

    name = "vonmisesfisher"
    support = linear.UNIT
    base = "sphere"

    def n_parameters(self, k: int, d: int) -> int:
        return k * d + k - 1

    def parameter_shapes(self, k: int, d: int) -> Shapes:
        return {"directions": (k, d), "concentrations": (k,)}

    def components(self, **arrays: Floats) -> VonMisesFisherComponents:
        return VonMisesFisherComponents(self, **arrays)

    def estimate(self, statistics: Sums) -> VonMisesFisherComponents:
        """The direction of Σ r x; the concentration solves ``A(κ) = |Σ r x| / Σ r``."""
        total = statistics["total"]
        length = np.sqrt(np.einsum("kd,kd->k", total, total))
        first = np.zeros_like(total)
        first[:, 0] = 1.0
        some = np.broadcast_to((length > 0)[:, None], total.shape)
        directions = np.divide(total, length[:, None], out=first, where=some)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = np.minimum(length / statistics.weight, 1.0)
        found = concentrations(mean, total.shape[1], self.most_concentration)
        return VonMisesFisherComponents(self, directions, found)

    def unsuitable(self, X: NDArray[Any]) -> tuple[int, str] | None:
        bad = outside(linear.UNIT, self.tolerance, np.asarray(X, np.float64))
        if not bad.any():
            return None
        row = int(bad.argmax())
        length = float(np.linalg.norm(np.asarray(X[row], np.float64)))
        return row, f"a row of length {length:.6g}, which is not one (within {self.tolerance:g})"


def bessel_ratio(d: int, kappa: Floats) -> Floats:
    """A(κ) = I_{d/2}(κ) / I_{d/2-1}(κ), the mean length of what is drawn in d dimensions.

    >>> bool(np.isclose(bessel_ratio(3, np.array([2.0])).item(), 1 / np.tanh(2) - 1 / 2))
    True
    """
    order = d / 2 - 1
    above, below = ive(order + 1, kappa), ive(order, kappa)
    safe = (above > 1e-290) & (below > 1e-290)
    if safe.all():
        return np.asarray(above / below)
    # Where both underflow: downwards from a bound on the ratio at a high order (Amos 1974).
    high = order + _TERMS
    ratio = kappa / (high + 0.5 + np.sqrt((high + 1.5) ** 2 + kappa**2))
    for n in range(_TERMS - 1, -1, -1):
        ratio = kappa / (2 * (order + n + 1) + kappa * ratio)
    return np.asarray(np.divide(above, below, out=ratio, where=safe))


def log_normalizer(d: int, kappa: Floats) -> Floats:
    """Log of the integral of exp(κ μ·x) over the unit sphere in d dimensions (K,).

    >>> area = np.exp(log_normalizer(3, np.array([1e-9]))).item()
    >>> bool(np.isclose(area, 4 * np.pi))
    True
    """
    order = d / 2 - 1
    return np.asarray(
        0.5 * d * np.log(2 * np.pi) - order * np.log(kappa) + _log_bessel(order, kappa)
    )


def _log_bessel(order: float, x: Floats) -> Floats:
    """log I_order(x), where the function itself underflows too (DLMF 10.25.2, 10.41.3)."""
    scaled = ive(order, x)
    safe = scaled > 1e-290
    if order >= _DEBYE:
        z = x / order
        root = np.sqrt(1 + z * z)
        t = 1 / root
        s = t * t
        series = 1 + t * (3 - 5 * s) / 24 / order
        series += s * (81 - 462 * s + 385 * s**2) / 1152 / order**2
        series += t * s * (30375 - 369603 * s + 765765 * s**2 - 425425 * s**3) / 414720 / order**3
        log = order * (root + np.log(z / (1 + root))) + np.log(series)
        log -= 0.5 * np.log(2 * np.pi * order * root)
    else:
        q = 0.25 * x * x
        series = 1 + q / (order + 1) * (1 + q / (2 * (order + 2)) * (1 + q / (3 * (order + 3))))
        log = order * np.log(0.5 * x) - gammaln(order + 1) + np.log(series)
    return np.asarray(np.add(np.log(scaled, out=np.zeros_like(x), where=safe), x, out=log,
                             where=safe))  # fmt: skip


def concentrations(mean: Floats, d: int, most: float) -> Floats:
    """Solve A(κ) = mean for κ ≤ most, by Newton's method (Sra 2012) between known bounds.

    R(d - 2)/(1 - R²) < κ < R d/(1 - R²) (Tanabe et al. 2007).

    >>> kappa = np.array([0.1, 5.0, 3e3])
    >>> bool(np.allclose(concentrations(bessel_ratio(4, kappa), 4, 1e6), kappa, rtol=1e-9))
    True
    """
    gap = np.maximum((1 - mean) * (1 + mean), 1e-15)
    low = np.clip(mean * (d - 2) / gap, LEAST, most)
    high = np.clip(mean * d / gap, LEAST, most)
    kappa = np.clip(mean * (d - mean**2) / gap, low, high)
    for _ in range(25):
        ratio, before = bessel_ratio(d, kappa), kappa
        kappa = np.clip(kappa - (ratio - mean) / _slope(d, kappa, ratio), low, high)
        if np.array_equal(kappa, before):
            break
    return kappa


def _slope(d: int, kappa: Floats, ratio: Floats) -> Floats:
    """A'(κ) = 1 - A² - A (d - 1)/κ, by its series where that cancels."""
    exact = 1 - ratio**2 - ratio * (d - 1) / kappa
    far = kappa > 1e4 * d
    return np.asarray(np.where(far, (d - 1) / (2 * kappa**2), np.maximum(exact, 1e-300)))


@dataclass(frozen=True, eq=False)
class VonMisesFisherComponents(LinearComponents):
    """Mean directions (K, D) of length one, and concentrations κ (K,)."""

    directions: Floats
    concentrations: Floats

    @property
    def natural(self) -> Floats:
        """κ times the direction."""
        return self.directions * self.concentrations[:, None]

    @property
    def log_partition(self) -> Floats:
        """Log of the integral of exp(κ μ·x) over the sphere."""
        return log_normalizer(self.directions.shape[1], self.concentrations)

    def coordinates(self, weights: Floats, statistics: Sums) -> Floats:
        """Shifts of κμ along μ, with information π A'(κ), and across, with π A(κ)/κ."""
        new, kappa = self.family.estimate(statistics), self.concentrations
        d = self.directions.shape[1]
        shift = new.natural - self.natural
        along = np.einsum("kd,kd->k", shift, self.directions)
        across = shift - along[:, None] * self.directions
        ratio = bessel_ratio(d, kappa)
        along *= np.sqrt(weights * _slope(d, kappa, ratio))
        across *= np.sqrt(weights * ratio / kappa)[:, None]
        return np.concatenate([along, across.ravel()])

    def draw(self, k: int, n: int, random_state: np.random.RandomState) -> NDArray[Any]:
        """By the length along the direction, drawn by rejection (Wood 1994)."""
        mu, kappa = self.directions[k], float(self.concentrations[k])
        d = len(mu)
        if d == 1:
            there = random_state.random_sample((n, 1)) < 1 / (1 + np.exp(-2 * kappa))
            return np.asarray(np.where(there, mu, -mu))
        along = _lengths(d, kappa, n, random_state)
        across = random_state.standard_normal((n, d))
        across -= np.outer(across @ mu, mu)
        across *= (np.sqrt(1 - along**2) / np.linalg.norm(across, axis=1))[:, None]
        rows = across + np.outer(along, mu)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

    def seeded(self, rows: NDArray[Any], average: Mapping[str, Floats]) -> dict[str, Floats]:
        """At the rows, as concentrated as the others."""
        own = np.asarray(rows, np.float64)
        directions = own / np.linalg.norm(own, axis=1, keepdims=True)
        return {
            "directions": directions,
            "concentrations": np.full(len(own), average["concentrations"]),
        }


def _lengths(d: int, kappa: float, n: int, random_state: np.random.RandomState) -> Floats:
    """μ·x of n rows (Wood 1994, algorithm VM*)."""
    b = (d - 1) / (2 * kappa + np.sqrt(4 * kappa**2 + (d - 1) ** 2))
    x = (1 - b) / (1 + b)
    c = kappa * x + (d - 1) * np.log1p(-x * x)
    out = np.empty(0)
    while len(out) < n:
        z = random_state.beta((d - 1) / 2, (d - 1) / 2, 2 * n)
        w = (1 - (1 + b) * z) / (1 - (1 - b) * z)
        room = kappa * w + (d - 1) * np.log1p(-x * w) - c
        out = np.append(out, w[room >= np.log(random_state.random_sample(2 * n))])
    return out[:n]
