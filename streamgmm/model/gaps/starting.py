"""Where a fit of rows with gaps starts.

Clusters are found among rows whose gaps are filled by regression on what was observed: by the
conditional means under one Gaussian of all rows, itself found by ten iterations of EM. The
moments of a cluster are then those of one completed E-step in which its features are independent,
of the means and variances of what was observed in it. EM does the rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.model.labelled import TINY
from streamgmm.model.moments import Floats, Moments, Scatter

ITERATIONS = 10
WIDE = 64
RIDGE = 1e-6  # of its variance, that each feature gets in the regression


def observed(X: NDArray[Any], r: Floats | None = None) -> tuple[Floats, Floats, Floats]:
    """Weight, mean and variance (D,) of what was observed in each column, under weights (n,).

    A column of which nothing was observed has mean 0 and variance 1.

    >>> [a.tolist() for a in observed(np.array([[1.0, np.nan], [3.0, np.nan]]))]
    [[2.0, 0.0], [2.0, 0.0], [1.0, 1.0]]
    """
    seen = ~np.isnan(X)
    w = seen if r is None else seen * r[:, None]
    mass = w.sum(axis=0, dtype=np.float64)
    known = mass > 0
    safe = np.where(known, mass, 1.0)
    origin = np.where(known, np.nan_to_num(X[seen.argmax(axis=0), np.arange(X.shape[1])]), 0.0)
    off = np.where(seen, X - origin, 0.0)
    shift = (w * off).sum(axis=0) / safe
    off = np.where(seen, off - shift, 0.0)
    variance = (w * off**2).sum(axis=0) / safe
    return mass, origin + shift, np.where(known, variance, 1.0)


def filled(X: NDArray[Any], family: Any) -> Floats:
    """Rows (n, D) with their gaps filled by regression on what was observed, float64.

    `family` are Gaussians with gaps and full covariances. Gaps of more than `WIDE` features are
    filled with the means of what was observed.

    >>> from streamgmm.model.families import Gaussian
    >>> X = np.array([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0], [3.0, np.nan]])
    >>> bool(5 < filled(X, Gaussian(gaps=True))[3, 1] < 6.1)  # y = 2 x, but for a ridge
    True
    """
    X = np.asarray(X, np.float64)
    d = X.shape[1]
    _, mean, variance = observed(X)
    if d > WIDE:
        return np.asarray(np.where(np.isnan(X), mean, X))
    scale = np.sqrt(np.where(variance > 0, variance, 1.0))
    Z = (X - mean) / scale
    one = family.of_parameters(np.zeros((1, d)), np.eye(d)[None]).density(np.ones(1))
    for _ in range(ITERATIONS):
        sums = one.accumulator(Z)
        sums.add(Z)
        found = sums.result().statistics
        covariance = found.scatter / found.weight + RIDGE * np.eye(d)
        one = family.of_parameters(found.mean, covariance).density(np.ones(1))
    one.fill(Z)
    return np.asarray(np.where(np.isnan(X), mean + scale * Z, X))


def begin_with_gaps(
    kind: Scatter, X: NDArray[Any], weight: Floats | None, resp: NDArray[Any], k: int
) -> Moments:
    """Moments of rows (n, D) with gaps under responsibilities (n, K), or labels (n,)."""
    n, d = X.shape
    _, usual, wide = observed(X, weight)
    mass, mean = np.zeros(k), np.zeros((k, d))
    shapes = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}
    scatter = np.zeros(shapes[kind])
    w = np.ones(n) if weight is None else weight
    for j in range(k):
        r = w * (resp == j) if resp.ndim == 1 else w * resp[:, j]
        used = np.flatnonzero(r > 0)
        if not len(used):
            continue
        rows, r = np.asarray(X[used], np.float64), r[used]
        seen_mass, own, variance = observed(rows, r)
        few = seen_mass <= 0
        own, variance = np.where(few, usual, own), np.where(few, wide, variance)
        gone = np.isnan(rows)
        off = np.where(gone, 0.0, rows - own)
        more = r @ gone * variance
        mass[j], mean[j] = r.sum(), own
        if kind in ("full", "tied"):
            own_scatter = (off * r[:, None]).T @ off + np.diag(more)
            if kind == "full":
                scatter[j] = own_scatter
            else:
                scatter += own_scatter
        else:
            squares = r @ off**2 + more
            scatter[j] = squares if kind == "diag" else squares.sum()
    return Moments(kind, mass + TINY, mean, scatter)


def filled_seeds(rows: NDArray[Any], means: Floats, weights: Floats) -> Floats:
    """Rows (m, D) from which components start again, the mixture's mean in their gaps."""
    centre = weights @ means / weights.sum()
    return np.asarray(np.where(np.isnan(rows), centre, rows), np.float64)
