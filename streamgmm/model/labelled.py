"""Moments of rows in memory under given labels or responsibilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamgmm.clustering.rows import Rows, parse_rows
from streamgmm.errors import DataError
from streamgmm.kernels import groups
from streamgmm.model.covariances.base import Layout
from streamgmm.model.moments import Floats, Moments, Scatter

_KINDS = {"full": groups.FULL, "tied": groups.TIED}  # others are sums of DIAG
_NO_RESP = np.empty((0, 0))

TINY = 10 * np.finfo(np.float64).eps
"""What the weight of each component is larger by, as scikit-learn has it: none is zero."""


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
    n = len(rows.X)
    given = np.asarray(labels)
    if given.shape != (n,):
        raise DataError(f"labels must be of shape ({n},), as X has rows, and are {given.shape}")
    starts, listed = np.empty(k + 1, np.int64), np.empty(n, np.int64)
    groups.sort_rows(np.ascontiguousarray(given, np.int32), starts, listed)
    return _moments(kind, rows, _NO_RESP, starts, listed)


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
    n = len(rows.X)
    given = np.ascontiguousarray(resp, np.float64)
    if given.ndim != 2 or len(given) != n:
        raise DataError(f"resp must be of shape ({n}, K), as X has rows, and is {given.shape}")
    return _moments(kind, rows, given, np.zeros(given.shape[1] + 1, np.int64), np.arange(n))


def _moments(
    kind: Scatter, rows: Rows, resp: Floats, starts: NDArray[Any], listed: NDArray[Any]
) -> Moments:
    k, d = len(starts) - 1, rows.X.shape[1]
    layout = Layout(1, d, np.dtype(np.float64))
    mass, means, first = np.zeros(k), np.zeros(k * layout.D), np.zeros(k * layout.D)
    sizes = {"full": k * layout.D**2, "tied": layout.D**2}
    second = np.zeros(sizes.get(kind, k * layout.D))
    tile = np.empty(layout.D * layout.T), np.empty(layout.T), np.empty(4 * layout.T)
    groups.moments_of_groups(
        rows.X, rows.weight, resp, starts, listed, _KINDS.get(kind, groups.DIAG), layout.T,
        (*tile, np.zeros(layout.D), np.zeros(layout.D)), mass, means, first, second,
    )  # fmt: skip
    centre, first = (v.reshape(k, -1)[:, :d] for v in (means, first))
    if kind == "full":
        exact = Moments.about_lower(centre, mass, first, second, layout.D)
    elif kind == "tied":
        exact = Moments.about("tied", centre, mass, first, layout.squares(second)[0])
    else:
        exact = Moments.about("diag", centre, mass, first, second.reshape(k, -1)[:, :d])
    scatter = exact.scatter.sum(axis=1) if kind == "spherical" else exact.scatter
    return Moments(kind, mass + TINY, exact.mean, scatter)
