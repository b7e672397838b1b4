"""What the kernels for rows with gaps are told of Gaussian components, and what they find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.kernels import gaps
from streamgmm.model.components import NO_WEIGHT
from streamgmm.model.gaps.moments import GapMoments, complete_moments
from streamgmm.model.gaps.patterns import Patterns
from streamgmm.model.moments import Floats, Moments

LOG_2PI = float(np.log(2 * np.pi))
_NONE = np.empty((0, 0))
_NO_LABELS = np.empty(0, np.int32)


def lanes(values: Floats, padded: int, fill: float = 0.0) -> Floats:
    """Tables (K, ...) as the kernels take them: groups of eight components, features padded.

    >>> lanes(np.ones((1, 2)), 4, 7.0).reshape(4, 8)[:, :2].tolist()
    [[1.0, 7.0], [1.0, 7.0], [7.0, 7.0], [7.0, 7.0]]
    """
    k, *shape = values.shape
    groups = -(-k // gaps.LANES)
    out = np.full((groups * gaps.LANES, *(padded,) * len(shape)), fill)
    out[(slice(k), *(slice(n) for n in shape))] = values
    return np.ascontiguousarray(out.reshape(groups, gaps.LANES, -1).transpose(0, 2, 1)).ravel()


def unlanes(flat: Floats, k: int, *shape: int) -> Floats:
    """Values (K, *shape) of a table of `lanes`, padding and all."""
    groups = -(-k // gaps.LANES)
    grouped = flat.reshape(groups, -1, gaps.LANES).transpose(0, 2, 1)
    return np.ascontiguousarray(grouped.reshape(groups * gaps.LANES, *shape)[:k])


@dataclass(frozen=True, eq=False)
class Tables:
    """Gaussian components as the kernels of `streamgmm.kernels.gaps` take them.

    `wide` is whether covariances are matrices. `tables` are what the kernel is told of the model,
    but for the points about which it sums.
    """

    wide: bool
    kind: Any
    k: int
    d: int
    means: Floats
    roots: Floats
    tables: tuple[Any, ...]

    @classmethod
    def of(cls, density: Any) -> Tables:
        """From a `GaussianDensity`."""
        components = density.components
        covariance, means = components.covariance, components.means
        k, d = means.shape
        chol = components.precisions_cholesky
        const = lanes(density.log_constants, 1, -np.inf)
        if covariance.matrices:
            padded = -(-d // 4) * 4
            chol = np.broadcast_to(chol, (k, d, d))
            precisions = chol @ chol.transpose(0, 2, 1)
            # Padding is the identity for components, and nothing for features.
            prec = lanes(precisions, padded)
            eye = np.tile(np.eye(padded).ravel()[:, None], gaps.LANES).ravel()
            if k % gaps.LANES:
                last = prec.reshape(-1, padded * padded, gaps.LANES)[-1]
                identity = eye.reshape(padded * padded, gaps.LANES)
                last[:, k % gaps.LANES :] = identity[:, k % gaps.LANES :]
            tables: tuple[Any, ...] = lanes(means, padded), prec, lanes(chol, padded), const
            return cls(True, covariance.name, k, d, means, chol, tables)
        roots = np.broadcast_to(chol if chol.ndim == 2 else chol[:, None], (k, d))
        drop = lanes(0.5 * LOG_2PI - np.log(roots), d)
        tables = lanes(means, d), lanes(roots, d, 1.0), const, drop
        return cls(False, covariance.name, k, d, means, roots, tables)

    def describe(
        self, X: NDArray[Any], patterns: Patterns, log_density: Floats, labels: NDArray[np.int32],
        resp: Floats, filled: Floats = _NONE, variance: Floats = _NONE,
    ) -> None:  # fmt: skip
        """Write what is said of rows into the outputs that have rows."""
        sums = GapSums(self, None, False)
        sums.run(X, NO_WEIGHT, patterns, False, log_density, labels, resp, filled, variance)


class GapSums:
    """Sums of an E-step over rows with gaps, row by row, about `centres` (K, D) or the means."""

    def __init__(self, tables: Tables, centres: Floats | None, hard: bool) -> None:
        self._tables, self._hard = tables, hard
        means = tables.means
        self._centres = means if centres is None else centres
        padded = -(-tables.d // 4) * 4 if tables.wide else tables.d
        size = padded * -(-tables.k // gaps.LANES) * gaps.LANES
        about = means - self._centres if tables.wide else self._centres
        self._padded, self._about = padded, lanes(about, padded)
        self._totals = np.zeros(2)
        self._n = np.zeros(size // padded)
        self._first = np.zeros(size)
        self._second = np.zeros(size * padded if tables.wide else size)
        self._hidden = np.zeros(size // padded if tables.wide else size)

    def add(self, X: NDArray[Any], weight: Floats, patterns: Patterns) -> None:
        """Add the rows of some runs of X (n, D), of weights (n,) or none."""
        self.run(X, weight, patterns, True, NO_WEIGHT, _NO_LABELS, _NONE, _NONE, _NONE)

    def run(
        self, X: NDArray[Any], weight: Floats, patterns: Patterns, sums: bool, *outputs: Any
    ) -> None:
        """Go over rows, for sums, or for outputs."""
        found = self._totals, self._n, self._first, self._second, self._hidden
        if self._tables.wide:
            gaps.full_gaps(
                X, weight, patterns.order, patterns.starts, patterns.seen, *self._tables.tables,
                self._about, self._hard, sums, *found, *outputs,
            )  # fmt: skip
        else:
            gaps.diag_gaps(
                X, weight, patterns.order, *self._tables.tables,
                self._about, self._hard, sums, *found, *outputs,
            )  # fmt: skip

    def result(self) -> tuple[float, float, GapMoments]:
        """Log-likelihood, entropy of the labels, and completed moments."""
        at, padded = self._tables, self._padded
        weight = unlanes(self._n, at.k)
        first = unlanes(self._first, at.k, padded)[:, : at.d]
        if at.wide:
            lower = unlanes(self._second, at.k, padded, padded)
            moments = Moments.about_lower(self._centres, weight, first, lower.ravel(), padded)
            entropy = unlanes(self._hidden, at.k)
            if at.kind == "tied":
                tied = moments.scatter.sum(axis=0)
                moments = Moments("tied", moments.weight, moments.mean, tied)
        else:
            gone = unlanes(self._hidden, at.k, padded)
            second = unlanes(self._second, at.k, padded)
            shift, sigma = at.means - self._centres, 1.0 / at.roots
            first = first + gone * shift
            second = second + gone * (shift**2 + sigma**2)
            moments = Moments.about("diag", self._centres, weight, first, second)
            entropy = np.sum(gone * (0.5 * (LOG_2PI + 1) + np.log(sigma)), axis=1)
            if at.kind == "spherical":
                every = moments.scatter.sum(axis=1)
                moments = Moments("spherical", moments.weight, moments.mean, every)
        total, labels = self._totals.tolist()
        return total, labels, complete_moments(moments, entropy)
