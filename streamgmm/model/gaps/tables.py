"""What the kernels for rows with gaps are told of Gaussian components, and what they find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.kernels import gaps, masked
from streamgmm.model.components import NO_WEIGHT
from streamgmm.model.covariances.base import Layout, aligned, scratch
from streamgmm.model.gaps.moments import GapMoments, complete_moments
from streamgmm.model.gaps.patterns import Patterns
from streamgmm.model.moments import Floats, Moments

LOG_2PI = float(np.log(2 * np.pi))
TILE_BYTES = 64 << 10  # of rows that were filled, for each component by itself
SPREAD_BYTES = 1 << 20  # of conditional covariances of the patterns in a tile, one at least
_FLOAT = np.dtype(np.float64)
_NONE = np.empty((0, 0))
_NO_LABELS = np.empty(0, np.int32)


def lanes(values: Floats, padded: int) -> Floats:
    """Tables (K, ...) as the kernels take them: groups of eight components, features padded.

    >>> lanes(np.ones((1, 2)), 4).reshape(4, 8)[:, :2].tolist()
    [[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    """
    k, *shape = values.shape
    groups = -(-k // gaps.LANES)
    out = np.zeros((groups * gaps.LANES, *(padded,) * len(shape)))
    out[(slice(k), *(slice(n) for n in shape))] = values
    flat = aligned(out.size, _FLOAT)
    flat[:] = out.reshape(groups, gaps.LANES, -1).transpose(0, 2, 1).ravel()
    return flat


@dataclass(frozen=True, eq=False)
class Tables:
    """Gaussian components as the kernels of `streamgmm.kernels.gaps` take them.

    `wide` is whether covariances are matrices; `roots` are the Cholesky factors of the precisions
    of each component, or 1/σ of each feature. `model` is what the kernel is told of them, but for
    the points about which it sums.
    """

    wide: bool
    kind: Any
    means: Floats
    roots: Floats
    layout: Layout
    model: tuple[Any, ...]

    @classmethod
    def of(cls, density: Any) -> Tables:
        """From a `GaussianDensity`."""
        components = density.components
        covariance, means, chol = (
            components.covariance, components.means, components.precisions_cholesky,
        )  # fmt: skip
        k, d = means.shape
        layout = Layout(k, d, _FLOAT)
        zero, shifted = layout.shifted(density, means)
        const = density.log_constants
        if not covariance.matrices:
            roots = np.broadcast_to(chol if chol.ndim == 2 else chol[:, None], (k, d))
            drop = layout.pad_rows(2 * np.log(roots) - LOG_2PI)
            model: tuple[Any, ...] = zero, shifted, layout.pad_rows(roots), const, drop
            return cls(False, covariance.name, means, roots, layout, model)
        roots = np.broadcast_to(chol, (k, d, d))
        whole = -(-k // gaps.LANES) * gaps.LANES
        precisions = np.tile(np.eye(layout.D), (whole, 1, 1))  # so that padding has factors, too
        precisions[:k, :d, :d] = roots @ roots.transpose(0, 2, 1)
        origin = np.zeros(k * layout.D)
        model = (
            zero, shifted, lanes(means, layout.D), lanes(precisions, layout.D),
            origin, layout.pad_squares(roots), const,
        )  # fmt: skip
        return cls(True, covariance.name, means, roots, layout, model)

    @property
    def rows_a_tile(self) -> int:
        """Rows that are filled at a time."""
        at = self.layout
        if not self.wide:
            return at.T
        strip = 4 * at.W
        return max(strip, min(at.T, TILE_BYTES // (8 * at.k * at.D) // strip * strip))

    def describe(
        self, X: NDArray[Any], patterns: Patterns, log_density: Floats, labels: NDArray[np.int32],
        resp: Floats, filled: Floats = _NONE, variance: Floats = _NONE,
        choices: Floats = NO_WEIGHT, normals: Floats = _NONE,
    ) -> None:  # fmt: skip
        """Write what is said of the rows of some runs into the outputs that have rows.

        `filled` gets draws where there are `choices` (n,) in (0, 1), and `normals` (n, D).
        """
        order = patterns.order
        outputs: tuple[Any, ...] = log_density, labels, resp, filled, variance
        given = [each[order] if len(each) else each for each in (choices, normals)]
        own = [out[order] if len(out) else out for out in outputs]
        GapSums(self, None, False).run(X, NO_WEIGHT, patterns, False, *own, *given)
        for out, found in zip(outputs, own, strict=True):
            if len(out):
                out[order] = found


class GapSums:
    """Sums of an E-step over rows with gaps, about `centres` (K, D) or the means."""

    def __init__(self, tables: Tables, centres: Floats | None, hard: bool) -> None:
        at = tables.layout
        self._tables, self._hard = tables, hard
        self._moved = centres is not None
        self._centres = tables.means if centres is None else centres
        self._about = at.pad_rows(self._centres - tables.means if tables.wide else self._centres)
        size = at.k * at.D
        self._totals, self._n, self._first = np.zeros(2), np.zeros(at.k), np.zeros(size)
        self._second = np.zeros(size * at.D if tables.wide else size)
        self._more = np.zeros(at.k if tables.wide else size)

    def add(self, X: NDArray[Any], weight: Floats, patterns: Patterns) -> None:
        """Add the rows of some runs of X (n, D), of weights (n,) or none."""
        none = NO_WEIGHT, _NO_LABELS, _NONE, _NONE, _NONE, NO_WEIGHT, _NONE
        self.run(X, weight, patterns, True, *none)

    def run(
        self, X: NDArray[Any], weight: Floats, patterns: Patterns, sums: bool, *outputs: Any
    ) -> None:
        """Go over the rows of some runs, for sums, or for outputs in the order of the runs."""
        tables, at = self._tables, self._tables.layout
        rows = X[patterns.order]
        weight = weight[patterns.order] if len(weight) else weight
        found = self._totals, self._n, self._first, self._second, self._more
        most = tables.rows_a_tile
        work = scratch("gaps", gaps.scratch_size(at.k, at.D, most), _FLOAT)
        if tables.wide:
            room = max(SPREAD_BYTES // 8, gaps.spread_size(at.k, at.D))
            gaps.full_gaps(
                rows, weight, patterns.starts, patterns.seen, *tables.model,
                self._about, self._moved, self._hard, sums,
                at.far, at.D, most, at.W, work, scratch("spread", room, _FLOAT),
                *found, *outputs,
            )  # fmt: skip
        else:
            masked.diag_gaps(
                rows, weight, *tables.model, self._about, self._hard, sums,
                at.far, at.D, most, at.W, work, *found, *outputs,
            )  # fmt: skip

    def result(self) -> tuple[float, float, GapMoments]:
        """Log-likelihood, entropy of the labels, and completed moments."""
        tables, at = self._tables, self._tables.layout
        kind, weight = tables.kind, self._n
        first = self._first.reshape(at.k, at.D)[:, : at.d]
        with np.errstate(invalid="ignore"):  # rows that are not finite show in the likelihood
            if tables.wide:
                moments = Moments.about_lower(self._centres, weight, first, self._second, at.D)
                if kind == "tied":
                    tied = moments.scatter.sum(axis=0)
                    moments = Moments("tied", moments.weight, moments.mean, tied)
                entropy = self._more
            else:
                gone = weight[:, None] - self._more.reshape(at.k, at.D)[:, : at.d]
                shift, sigma = tables.means - self._centres, 1.0 / tables.roots
                second = self._second.reshape(at.k, at.D)[:, : at.d]
                first = first + gone * shift
                second = second + gone * (shift**2 + sigma**2)
                moments = Moments.about("diag", self._centres, weight, first, second)
                entropy = np.sum(gone * (0.5 * (LOG_2PI + 1) + np.log(sigma)), axis=1)
                if kind == "spherical":
                    every = moments.scatter.sum(axis=1)
                    moments = Moments("spherical", weight, moments.mean, every)
        total, labels = self._totals.tolist()
        return total, labels, complete_moments(moments, entropy)
