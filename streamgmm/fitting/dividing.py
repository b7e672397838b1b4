"""What splitting each cluster of rows in two would gain."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.model.moments import Floats

_RUN_ROWS = 1 << 16  # that are worked on together, at least, unless there are no more
_POWERS = 5  # iterations for the principal axis
_ITERATIONS = 4  # of hard EM with two components
_LEAST = 12  # rows of a half
_SHRINK = 8.0  # rows by which variances of a half are drawn to those of the whole


def score(mass: Floats, variances: Floats) -> Floats:
    """Classification log-likelihood of clusters, but for terms that all partitions share.

    N log N - N/2 Σ log σ², with σ² (K, D) and N (K,).

    >>> score(np.array([1.0, 2.0]), np.ones((2, 3))).round(3)
    array([0.   , 1.386])
    """
    found = mass * (np.log(np.maximum(mass, 1e-300)) - 0.5 * np.log(variances).sum(axis=1))
    return np.asarray(found)


def divide(
    X: NDArray[Any],
    weight: Floats | None,
    labels: NDArray[np.intp],
    k: int,
    floor: float,
    pooled: bool = False,
) -> tuple[Floats, NDArray[np.bool_]]:
    """Divide each of K clusters of rows X (n, D) in two.

    Halves begin on both sides of the mean along the first principal axis, and go on by hard EM.

    Parameters
    ----------
    X, weight, labels
    k : int
    floor : float
        Added to variances.
    pooled : bool
        Whether all features have the same variance.

    Returns
    -------
    gain : ndarray of shape (k,)
        Nats of `score`; minus infinity where a half would have few rows.
    side : ndarray of shape (n,)
        Which rows are in the second half of their cluster.

    Examples
    --------
    >>> X = np.repeat([[0.0], [0.1], [9.0], [9.1]], 20, axis=0)
    >>> gain, side = divide(X, None, np.zeros(80, int), 2, 1e-6)
    >>> bool(gain[0] > 100), float(gain[1]), abs(int(side[:40].sum()) - int(side[40:].sum()))
    (True, -inf, 40)
    """
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels, minlength=k)
    ends = np.cumsum(counts)
    gain, side = np.full(k, -np.inf), np.zeros(len(X), bool)
    first = 0
    while first < k:
        begin = ends[first] - counts[first]
        last = int(np.searchsorted(ends, begin + _RUN_ROWS)) + 1
        here = np.flatnonzero(counts[first:last]) + first
        rows = order[begin : ends[min(last, k) - 1]]
        if len(rows):
            w = np.ones(len(rows)) if weight is None else weight[rows]
            run = _Run(X[rows], w, counts[here], floor, pooled)
            gain[here], side[rows] = run.divided()
        first = last
    return gain, side


class _Run:
    """Some clusters, whose rows follow one another; `counts` of them are in each."""

    def __init__(
        self, X: NDArray[Any], weight: Floats, counts: NDArray[np.intp], floor: float, pooled: bool
    ) -> None:
        self._at = np.repeat(np.arange(len(counts)), counts)
        self._begin = np.cumsum(counts) - counts
        self._floor, self._pooled = floor, pooled
        self._weight = weight
        self._mass = self._sums(weight)
        rows = X.astype(np.float64)
        rows -= (self._sums(rows * weight[:, None]) / self._mass[:, None])[self._at]
        self._rows = rows
        self._variances = self._moments(np.ones(len(rows), bool))[2]

    def divided(self) -> tuple[Floats, NDArray[np.bool_]]:
        side = self._rows_along(self._axis()) > 0
        for _ in range(_ITERATIONS):
            side = self._likelihood(side) > self._likelihood(~side)
        gain = -score(self._mass, self._variances)
        for half in (side, ~side):
            mass, _, variances = self._moments(half)
            gain += score(mass, variances)
            gain[self._sums(half.astype(np.float64)) < _LEAST] = -np.inf
        return gain, side

    def _sums(self, values: Floats) -> Floats:
        return np.asarray(np.add.reduceat(values, self._begin, axis=0))

    def _rows_along(self, axes: Floats) -> Floats:
        return np.asarray(np.einsum("nd,nd->n", self._rows, axes[self._at]))

    def _axis(self) -> Floats:
        """First principal axes, by power iteration."""
        signs = np.random.RandomState(0).choice([-1.0, 1.0], size=self._variances.shape)
        axes = signs * np.sqrt(self._variances)
        for _ in range(_POWERS):
            along = self._rows_along(axes) * self._weight
            axes = self._sums(self._rows * along[:, None])
            axes /= np.linalg.norm(axes, axis=1, keepdims=True) + 1e-300
        return axes

    def _moments(self, which: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
        """Mass (K,), means and variances (K, D) of chosen rows, from the means of all."""
        w = np.where(which, self._weight, 0.0)
        mass = np.maximum(self._sums(w), 1e-9)
        weighted = self._rows * w[:, None]
        means = self._sums(weighted) / mass[:, None]
        variances = self._sums(weighted * self._rows) / mass[:, None] - means**2
        variances = np.maximum(variances, 1e-300) + self._floor
        if self._pooled:
            mean = variances.mean(axis=1, keepdims=True)
            variances = np.broadcast_to(mean, variances.shape)
        return mass, means, variances

    def _likelihood(self, which: NDArray[np.bool_]) -> Floats:
        """Log-density (n,) of all rows under the component of chosen rows of their cluster."""
        mass, means, variances = self._moments(which)
        part = (mass / (mass + _SHRINK))[:, None]
        variances = part * variances + (1 - part) * self._variances
        off = self._rows - means[self._at]
        constant = np.log(mass) - 0.5 * np.log(variances).sum(axis=1)
        found = constant[self._at] - 0.5 * np.einsum("nd,nd->n", off**2, (1 / variances)[self._at])
        return np.asarray(found)
