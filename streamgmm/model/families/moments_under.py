"""Moments of a tile of rows under responsibilities, in NumPy."""

from __future__ import annotations

import numpy as np

from streamgmm.model.moments import Floats, Moments, Scatter
from streamgmm.model.responsibilities import mass_of


def moments_under(kind: Scatter, X: Floats, resp: Floats) -> Moments:
    """Moments of rows (n, D) under responsibilities (n, K), about their own means.

    Means are found first, and what rounding left of them is mended by the sums about them.

    >>> m = moments_under("diag", np.array([[0.0], [2.0]]), np.ones((2, 1)))
    >>> m.mean.item(), m.scatter.item()
    (1.0, 2.0)
    """
    k, d = resp.shape[1], X.shape[1]
    weight = mass_of(resp)
    used = np.broadcast_to((weight > 0)[:, None], (k, d))
    means = np.divide(resp.T @ X, weight[:, None], out=np.zeros((k, d)), where=used)
    shapes = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}
    first, second = np.zeros((k, d)), np.zeros(shapes[kind])
    for at in np.flatnonzero(weight > 0):
        off = X - means[at]
        first[at] = resp[:, at] @ off
        off *= np.sqrt(resp[:, at])[:, None]
        if kind == "full":
            second[at] = off.T @ off
        elif kind == "tied":
            second += off.T @ off
        elif kind == "diag":
            second[at] = np.einsum("nd,nd->d", off, off)
        else:
            second[at] = np.einsum("nd,nd->", off, off)
    return Moments.about(kind, means, weight, first, second)
