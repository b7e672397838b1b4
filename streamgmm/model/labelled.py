"""Moments of rows in memory under given labels or responsibilities.

In NumPy: they are taken once of the few rows that a start is drawn from, and would take longer
to compile than all starts take.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamgmm.clustering.rows import Rows, parse_rows
from streamgmm.errors import DataError
from streamgmm.model.components import NO_WEIGHT, BlockSums, Density
from streamgmm.model.moments import Floats, Moments, Scatter

TINY = 10 * np.finfo(np.float64).eps
"""What the weight of each component is larger by, as scikit-learn has it: none is zero."""

_PART_BYTES = 4 << 20  # of rows in float64 that are worked on at a time


def label_moments(
    kind: Scatter,
    X: ArrayLike | Rows,
    labels: ArrayLike,
    k: int,
    sample_weight: ArrayLike | None = None,
) -> Moments:
    """Moments of the rows of each label 0 … k - 1, about their own means, in two passes.

    Rows of any other label, such as -1, are left out. A label without rows has mean 0 and no
    scatter. Weights are larger by `TINY`.

    Parameters
    ----------
    kind : {"full", "tied", "diag", "spherical"}
        Shape of the scatter.
    X : array-like of shape (n, D), or Rows
        Finite rows; with `Rows`, `sample_weight` is not looked at.
    labels : array-like of shape (n,)
        Whole numbers.
    k : int
        How many labels there are.
    sample_weight : array-like of shape (n,), optional
        Weights of the rows.

    Raises
    ------
    DataError
        If `labels` or `sample_weight` do not fit `X`.

    Examples
    --------
    >>> m = label_moments("diag", [[0.0], [2.0], [7.0], [9.0]], [0, 0, 1, -1], 2)
    >>> m.weight, m.mean.ravel(), m.scatter.ravel()
    (array([2., 1.]), array([1., 7.]), array([2., 0.]))
    """
    rows = parse_rows(X, sample_weight)
    given = np.asarray(labels)
    if given.shape != (len(rows.X),):
        raise DataError(
            f"labels must be of shape ({len(rows.X)},), as X has rows, and are {given.shape}"
        )
    return _not_empty(_of_labels(kind, rows, given, k))


def resp_moments(
    kind: Scatter, X: ArrayLike | Rows, resp: ArrayLike, sample_weight: ArrayLike | None = None
) -> Moments:
    """Moments of all rows under responsibilities (n, K), times the weights of the rows.

    As of `label_moments`, weights are larger by `TINY`.

    Raises
    ------
    DataError
        If `resp` or `sample_weight` do not fit `X`.

    Examples
    --------
    >>> m = resp_moments("spherical", [[0.0], [2.0]], [[0.5, 1.0], [0.5, 0.0]])
    >>> m.weight, m.mean.ravel(), m.scatter
    (array([1., 1.]), array([1., 0.]), array([1., 0.]))
    """
    rows = parse_rows(X, sample_weight)
    given = np.asarray(resp, np.float64)
    if given.ndim != 2 or len(given) != len(rows.X):
        raise DataError(
            f"resp must be of shape ({len(rows.X)}, K), as X has rows, and is {given.shape}"
        )
    sums = _Sums(kind, rows, given.shape[1])
    everything = np.arange(len(rows.X))
    for k in range(given.shape[1]):
        r = given[:, k] * rows.weight if rows.weight.size else given[:, k]
        if r.any():
            sums.add(k, everything, r)
    return _not_empty(sums.moments())


class LabelAccumulator:
    """A hard E-step: the moments of the rows of each likeliest component. See `Accumulator`.

    Rows are labelled by the posterior of `density`, which has `shape` (K, D), in float64. `kind`
    is of the scatters.
    """

    def __init__(self, density: Density, kind: Scatter, shape: tuple[int, ...]) -> None:
        self._density, self._kind, self._shape = density, kind, shape
        self._log_likelihood = 0.0
        self._moments: Moments | None = None

    def add(self, X: NDArray[Any], sample_weight: Floats = NO_WEIGHT) -> None:
        """Add rows (n, D), and weights (n,) or none."""
        weights: Floats | None = None
        if len(sample_weight):  # 0 times a density of -inf is nothing
            used = sample_weight > 0
            X, weights = np.ascontiguousarray(X[used]), sample_weight[used]
        if not len(X):
            return
        found = self._density.posterior(X, labels=True)
        each = found.log_density if weights is None else weights * found.log_density
        self._log_likelihood += float(each.sum())
        rows = Rows(X, NO_WEIGHT if weights is None else weights)
        own = _of_labels(self._kind, rows, found.labels, self._shape[0])
        self._moments = own if self._moments is None else self._moments.merge(own)

    def result(self) -> BlockSums:
        """The sums of all rows added."""
        if self._moments is None:
            none = Rows(np.zeros((0, self._shape[1])), NO_WEIGHT)
            self._moments = _of_labels(self._kind, none, np.empty(0, np.int32), self._shape[0])
        return BlockSums(self._log_likelihood, 0.0, self._moments)


def _of_labels(kind: Scatter, rows: Rows, labels: NDArray[Any], k: int) -> Moments:
    """Moments of the rows of each label; of one without rows, nothing."""
    order = np.argsort(labels, kind="stable")  # so that sums are in the order of the rows
    ends = np.searchsorted(labels, np.arange(k + 1), sorter=order)
    sums = _Sums(kind, rows, k)
    for label in range(k):
        members = order[ends[label] : ends[label + 1]]
        if len(members):
            sums.add(label, members, rows.weight[members] if rows.weight.size else None)
    return sums.moments()


def _not_empty(moments: Moments) -> Moments:
    return Moments(moments.kind, moments.weight + TINY, moments.mean, moments.scatter)


class _Sums:
    """Sums of K groups of rows, each about its own mean, which is found first.

    The mean is found about the first row of the group. So nothing is lost to the offset of the
    rows, nor to how far groups lie apart.
    """

    def __init__(self, kind: Scatter, rows: Rows, k: int) -> None:
        d = rows.X.shape[1]
        self._kind, self._rows = kind, rows
        self._mass, self._mean, self._first = np.zeros(k), np.zeros((k, d)), np.zeros((k, d))
        shapes = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}
        self._second = np.zeros(shapes[kind])

    def add(self, k: int, members: NDArray[np.intp], r: Floats | None) -> None:
        """Take the sums of group k: rows of these numbers, of weights r or all of weight 1."""
        X = self._rows.X
        mass = float(len(members) if r is None else r.sum())
        origin = X[members[0]].astype(np.float64)
        step = max(1, _PART_BYTES // (8 * X.shape[1]))
        parts = [slice(at, at + step) for at in range(0, len(members), step)]
        total = np.zeros(X.shape[1])
        for part in parts:
            off = X[members[part]] - origin
            total += off.sum(axis=0) if r is None else r[part] @ off
        mean = origin + total / mass
        for part in parts:
            off = X[members[part]] - mean
            if r is None:
                self._first[k] += off.sum(axis=0)
            else:
                self._first[k] += r[part] @ off
                off *= np.sqrt(r[part])[:, None]
            self._square(k, off)
        self._mass[k], self._mean[k] = mass, mean

    def _square(self, k: int, off: Floats) -> None:
        if self._kind == "full":
            self._second[k] += off.T @ off
        elif self._kind == "tied":
            self._second += off.T @ off
        elif self._kind == "diag":
            self._second[k] += np.einsum("nd,nd->d", off, off)
        else:
            self._second[k] += np.einsum("nd,nd->", off, off)

    def moments(self) -> Moments:
        """Moments about the means as they are once rounding is mended."""
        return Moments.about(self._kind, self._mean, self._mass, self._first, self._second)
