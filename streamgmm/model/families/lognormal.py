"""Positive features whose logarithms are normal, independent within a component.

They are diagonal Gaussians of log x, by the same compiled kernels, with the density of log x
turned into that of x: log p(x) = log N(log x) - Σ_d log x.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.model.components import (
    NO_WEIGHT,
    BlockSums,
    Components,
    ComponentStatistics,
    Posterior,
    Shapes,
)
from streamgmm.model.families.gamma import not_positive
from streamgmm.model.families.gaussian import Gaussian, GaussianComponents, GaussianDensity
from streamgmm.model.families.moments_under import moments_under
from streamgmm.model.gaps.moments import GapMoments, complete_moments, entropy_of
from streamgmm.model.gaps.patterns import has_gaps
from streamgmm.model.gaps.starting import begin_with_gaps
from streamgmm.model.moments import Floats, Moments
from streamgmm.model.sums import CentredSums
from streamgmm.model.tiles import TiledComponents, TiledDensity, TiledFamily

CHUNK_BYTES = 1 << 20  # of logarithms that are made at a time
_INNER = Gaussian("diag", 0.0)
_GAPPY = Gaussian("diag", 0.0, gaps=True)


@dataclass(frozen=True)
class LogNormal(TiledFamily):
    """Log-normal components over rows of positive numbers.

    Parameters
    ----------
    least_scale : float, default=1e-6
        No standard deviation of log x is estimated below it. So a component whose values are
        all equal stays finite.

    Examples
    --------
    >>> LogNormal().n_parameters(3, 5)
    32
    """

    least_scale: float = 1e-6
    gaps: bool = field(default=False, repr=False)

    name = "lognormal"

    def n_parameters(self, k: int, d: int) -> int:
        return 2 * k * d + k - 1

    def parameter_shapes(self, k: int, d: int) -> Shapes:
        return {"means": (k, d), "scales": (k, d)}

    def sum_shapes(self, k: int, d: int) -> Shapes:
        shapes: Shapes = {"mass": (k,), "mean": (k, d), "scatter": (k, d)}
        return {**shapes, "gap_entropy": (k,)} if self.gaps else shapes

    def components(self, **arrays: Floats) -> LogNormalComponents:
        return LogNormalComponents(self, **arrays)

    def statistics(self, **arrays: Floats) -> Any:
        moments = Moments("diag", arrays["mass"], arrays["mean"], arrays["scatter"])
        if "gap_entropy" in arrays:
            moments = complete_moments(moments, arrays["gap_entropy"])
        return CentredSums(self.name, arrays["weight"], moments, {})

    def summarize(self, X: NDArray[Any], resp: Floats) -> Any:
        """Moments of log x of whole rows."""
        moments = moments_under("diag", np.log(X), resp)
        if self.gaps:
            moments = complete_moments(moments, entropy_of(moments))
        return CentredSums(self.name, moments.weight, moments, {})

    def begin(
        self, X: NDArray[Any], weight: Floats | None, resp: NDArray[Any], k: int
    ) -> ComponentStatistics:
        """As for all rows; gaps are filled with the means of their component."""
        if not (self.gaps and has_gaps(X)):
            return super().begin(X, weight, resp, k)
        moments = begin_with_gaps("diag", np.log(X), weight, resp, k)
        return CentredSums(self.name, moments.weight, moments, {})

    def estimate(self, statistics: CentredSums) -> LogNormalComponents:
        """Mean and standard deviation of log x."""
        moments = statistics.moments
        variances = moments.scatter / statistics.weight[:, None]
        scales = np.sqrt(np.maximum(variances, self.least_scale**2))
        return LogNormalComponents(self, moments.mean, scales)

    def clustered(self, X: NDArray[Any]) -> NDArray[Any]:
        """Logarithms."""
        return np.asarray(np.log(X))

    def unsuitable(self, X: NDArray[Any]) -> tuple[int, str] | None:
        return not_positive(np.where(np.isnan(X), 1, X) if self.gaps else X)


@dataclass(frozen=True, eq=False)
class LogNormalComponents(TiledComponents):
    """Means μ and standard deviations σ of log x (K, D), `means` and `scales`.

    In SciPy's words σ is the shape ``s``, and exp μ the scale.
    """

    means: Floats
    scales: Floats

    @cached_property
    def gaussian(self) -> GaussianComponents:
        """The Gaussians of log x."""
        inner = _GAPPY if self.family.gaps else _INNER
        return GaussianComponents(inner, self.means, self.scales**2, 1 / self.scales)

    def density(self, weights: Floats) -> LogNormalDensity:
        """As the kernels take them."""
        return LogNormalDensity(weights, self)

    def log_density(self, X: NDArray[Any]) -> Floats:
        """log N(log x | μ, σ²) - Σ_d log x; NaN for rows that are not positive."""
        z = _logarithms(X, self.family.gaps)
        if self.family.gaps and has_gaps(z):
            return self._of_observed(z)
        base = z.sum(axis=1) + 0.5 * z.shape[1] * np.log(2 * np.pi)
        found = np.empty((len(z), len(self.means)))
        for k, (mean, scale) in enumerate(zip(self.means, self.scales, strict=True)):
            off = (z - mean) / scale
            found[:, k] = -0.5 * np.einsum("nd,nd->n", off, off) - np.log(scale).sum() - base
        return found

    def _of_observed(self, z: Floats) -> Floats:
        """The same of what was observed of logarithms (n, D); NaN where one is infinite."""
        gone = np.isnan(z)
        known = np.where(gone, 0.0, z)
        constants = np.log(self.scales) + 0.5 * np.log(2 * np.pi)
        found = -(~gone @ constants.T) - known.sum(axis=1)[:, None]
        for k, (mean, scale) in enumerate(zip(self.means, self.scales, strict=True)):
            off = np.where(gone, 0.0, (z - mean) / scale)
            found[:, k] -= 0.5 * np.einsum("nd,nd->n", off, off)
        found[np.isinf(z).any(axis=1)] = np.nan
        return np.asarray(found)

    def summarize(self, X: NDArray[Any], resp: Floats) -> Any:
        """As the family has it; rows with gaps are completed, component by component."""
        if not (self.family.gaps and has_gaps(X)):
            return self.family.summarize(X, resp)
        z = np.log(X)
        moments: Any = self.gaussian.summarize(z, resp)
        base = resp.sum(axis=1) @ np.nansum(z, axis=1)
        return CentredSums(self.family.name, moments.weight, _with_base(moments, base), {})

    def expected_log_density(self, statistics: CentredSums) -> float:
        """That of the Gaussians, less Σ r log x."""
        inner = GaussianDensity(np.ones(len(self.means)), self.gaussian)
        found = inner.expected_log_likelihood(statistics.moments)
        return float(found - _log_sum(statistics))

    def coordinates(self, weights: Floats, statistics: CentredSums) -> Floats:
        """Those of the Gaussians."""
        return GaussianDensity(weights, self.gaussian).coordinates(statistics.moments)

    def draw(self, k: int, n: int, random_state: np.random.RandomState) -> NDArray[Any]:
        return random_state.lognormal(self.means[k], self.scales[k], (n, len(self.means[k])))

    def seeded(self, rows: NDArray[Any], average: Mapping[str, Floats]) -> dict[str, Floats]:
        """At the rows, as wide as the others, and as these are in a row's gaps."""
        logs = np.log(rows)
        logs = np.where(np.isnan(logs), average["means"], logs)
        return {"means": logs, "scales": np.broadcast_to(average["scales"], rows.shape)}


def _logarithms(X: NDArray[Any], gaps: bool) -> Floats:
    """Logarithms of rows (n, D); NaN where a value is not positive, or infinity with gaps."""
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.log(np.asarray(X, np.float64))
    if gaps:
        z[X <= 0] = np.inf
    else:
        z[np.isneginf(z)] = np.nan
    return z


def _with_base(moments: GapMoments, base: float) -> GapMoments:
    """Completed moments whose entropy is that of the missing x, of which they have log x.

    H(x) = H(log x) + E[log x]; `base` is Σ r log x over what was observed, and the rest of the
    sum over all that the moments have is of the missing values.
    """
    more = moments.weight @ moments.mean.sum(axis=1) - base
    return complete_moments(moments, moments.gap_entropy + more / len(moments.weight))


def _log_sum(statistics: CentredSums) -> float:
    """Σ r Σ_d log x."""
    return float(statistics.weight @ statistics.moments.mean.sum(axis=1))


@dataclass(frozen=True, eq=False)
class LogNormalDensity(TiledDensity):
    """Components and weights, with the Gaussians of log x."""

    @cached_property
    def inner(self) -> GaussianDensity:
        """The density of log x."""
        components: Any = self.components
        return GaussianDensity(self.weights, components.gaussian)

    def accumulator(
        self, like: NDArray[Any], weighted: bool = False, centres: Floats | None = None
    ) -> LogNormalAccumulator:
        """The Gaussians' own, of log x."""
        return LogNormalAccumulator(self, weighted, centres)

    def posterior(self, X: NDArray[Any], *, labels: bool = False, resp: bool = False) -> Posterior:
        """Log-densities of rows (n, D), with labels and responsibilities where asked for."""
        n, k = len(X), len(self.weights)
        out = Posterior(
            np.empty(n), np.empty(n if labels else 0, np.int32), np.empty((n if resp else 0, k))
        )
        gaps = self.components.family.gaps
        for a, b, z in _chunks(X, gaps):
            found = self.inner.posterior(z, labels=labels, resp=resp)
            out.log_density[a:b] = found.log_density - _sums(z, gaps)
            out.labels[a:b], out.resp[a:b] = found.labels, found.resp
        return out

    def refine(self, updated: Components) -> Floats | None:
        """Where the Gaussians want their sums taken again."""
        new: Any = updated
        return self.inner.refine(new.gaussian)


class LogNormalAccumulator:
    """An E-step of the Gaussians of log x: see `Accumulator`."""

    def __init__(self, density: LogNormalDensity, weighted: bool, centres: Floats | None) -> None:
        self._name = density.components.family.name
        self._inner = density.inner.accumulator(np.empty((0, 0)), weighted, centres)
        self._base = 0.0
        self._gaps, self._any = density.components.family.gaps, False

    def add(self, X: NDArray[Any], sample_weight: Floats = NO_WEIGHT) -> None:
        """Add rows (n, D), and weights (n,) or none."""
        for a, b, z in _chunks(X, self._gaps):
            w = sample_weight[a:b]
            self._inner.add(z, w)
            logs = _sums(z, self._gaps)
            self._any |= self._gaps and has_gaps(z)
            self._base += float(w @ logs if len(w) else logs.sum())

    def result(self) -> BlockSums:
        """The sums of all rows added."""
        sums = self._inner.result()
        moments: Any = sums.statistics
        if self._any:
            moments = _with_base(moments, self._base)
        statistics = CentredSums(self._name, moments.weight, moments, {})
        return BlockSums(sums.log_likelihood - self._base, sums.entropy, statistics)


def _sums(z: Floats, gaps: bool) -> Floats:
    """Σ_d log x of rows, over what was observed."""
    return np.asarray(np.nansum(z, axis=1) if gaps and has_gaps(z) else z.sum(axis=1))


def _chunks(X: NDArray[Any], gaps: bool) -> Iterator[tuple[int, int, Floats]]:
    """Logarithms of rows, a bounded number at a time: (start, stop, (stop - start, D))."""
    step = max(1, CHUNK_BYTES // (8 * X.shape[1]))
    for a in range(0, len(X), step):
        b = min(a + step, len(X))
        yield a, b, _logarithms(X[a:b], gaps)
