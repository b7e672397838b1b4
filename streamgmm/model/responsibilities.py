"""From log-densities of a tile to responsibilities; sums over components and over rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamgmm.model.moments import Floats


def first_of(bad: NDArray[np.bool_]) -> tuple[int, int] | None:
    """The first row with a value that is bad (n, D), and the column; None if there is none.

    >>> first_of(np.array([[False, False], [False, True]]))
    (1, 1)
    """
    if not bad.any():
        return None
    row, column = divmod(int(bad.argmax()), bad.shape[1])
    return row, column


def across(operation: np.ufunc, values: Floats) -> Floats:
    """Reduce (n, K) over components, one after the other: NumPy is slow along a short axis.

    >>> across(np.add, np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([3., 7.])
    """
    if values.shape[1] > 64:
        return np.asarray(operation.reduce(values, axis=1))
    out = values[:, 0].copy()
    for k in range(1, values.shape[1]):
        operation(out, values[:, k], out=out)
    return out


def mass_of(resp: Floats) -> Floats:
    """Σ r (K,) of responsibilities (n, K), as a product with ones, which is quicker.

    >>> mass_of(np.array([[1.0, 0.0], [0.5, 0.5]]))
    array([1.5, 0.5])
    """
    return np.asarray(np.ones(len(resp)) @ resp)


def normalized(joint: Floats) -> tuple[Floats, Floats, Floats]:
    """Responsibilities (n, K), log-density (n,) and entropy (n,) of log π_k p(x | θ_k).

    A row that no component can have made has density -inf, and is shared by all alike.
    """
    top = across(np.maximum, joint)
    none = np.isneginf(top)
    with np.errstate(invalid="ignore"):
        gap = np.where(none[:, None], 0.0, joint - top[:, None])
        resp = np.exp(gap)
        total = across(np.add, resp)
        resp /= total[:, None]
        log_total = np.log(total)
        # Σ r log r with r = e^gap / total; a component of gap -inf has no part in it.
        entropy = log_total - np.einsum("nk,nk->n", resp, np.where(resp > 0, gap, 0.0))
    return resp, top + log_total * ~none, entropy
