"""What a conditional mixture says of rows, as functions for `streamgmm.predict.values`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from streamgmm.fitting.sample import hash_rows
from streamgmm.model.conditional import Conditional
from streamgmm.model.moments import Floats


def over_gaps(
    conditional: Conditional,
    X: NDArray[Any],
    width: int,
    func: Callable[[Conditional, NDArray[Any], Any], Floats],
    Y: NDArray[Any] | None = None,
) -> Floats:
    """What a function says of rows (n, o), given what was observed of each.

    ``func(conditional, rows, at)`` is asked once for every pattern of gaps (NaN), of the rows
    `at`; with `Y` (n, m), of what was observed of these, too. Gives (n, width).
    """
    rows = X if Y is None else np.concatenate([X, Y], axis=1)
    missing = np.isnan(rows)
    if not missing.any():
        return np.asarray(func(conditional, X, slice(None)))
    out = np.empty((len(X), width))
    o = X.shape[1]
    patterns, which = np.unique(missing, axis=0, return_inverse=True)
    for i, gaps in enumerate(patterns):
        at = np.flatnonzero(which.ravel() == i)
        seen = np.flatnonzero(~gaps[:o]).tolist()
        told = np.flatnonzero(~gaps[o:]).tolist()
        if Y is None:
            told = list(range(len(conditional.targets)))
        part = conditional.observing(seen, told)
        out[at] = func(part, np.ascontiguousarray(X[at][:, seen]), at)
    return out


def mean(conditional: Conditional, X: NDArray[Any], numbers: NDArray[np.int64]) -> Floats:
    """Conditional means (n, m)."""
    m = len(conditional.targets)
    return over_gaps(conditional, X, m, lambda part, rows, at: part.mean(rows))


def std(conditional: Conditional, X: NDArray[Any], numbers: NDArray[np.int64]) -> Floats:
    """Conditional standard deviations (n, m)."""
    m = len(conditional.targets)
    return np.sqrt(over_gaps(conditional, X, m, lambda part, rows, at: part.variance(rows)))


def cov(conditional: Conditional, X: NDArray[Any], numbers: NDArray[np.int64]) -> Floats:
    """Conditional covariances, flat (n, m·m)."""
    m = len(conditional.targets)

    def flat(part: Conditional, rows: NDArray[Any], at: Any) -> Floats:
        return part.covariance(rows).reshape(len(rows), -1)

    return over_gaps(conditional, X, m * m, flat)


def weights(conditional: Conditional, X: NDArray[Any], numbers: NDArray[np.int64]) -> Floats:
    """Weights of the components (n, K)."""
    k = conditional.n_components
    return over_gaps(conditional, X, k, lambda part, rows, at: part.weights(rows))


def log_density(conditional: Conditional, rows: NDArray[Any], numbers: NDArray[Any]) -> Floats:
    """Conditional log-densities (n,) of rows that have what is given, then the rest."""
    o = len(conditional.given)
    X, Y = rows[:, :o], rows[:, o:]

    def told(part: Conditional, seen: NDArray[Any], at: Any) -> Floats:
        values = Y[at]
        observed = values[:, ~np.isnan(values).any(axis=0)]
        return part.log_density(seen, observed)[:, None]

    return over_gaps(conditional, X, 1, told, Y)[:, 0]


def draw(
    conditional: Conditional, X: NDArray[Any], numbers: NDArray[np.int64], seed: int
) -> Floats:
    """One draw of each row (n, m).

    Random numbers are hashes of the seed, the row's number, and which number it is.
    """
    m = len(conditional.targets)
    at = numbers[:, None] * (m + 1) + np.arange(m + 1)
    uniform = (hash_rows(at, seed) >> np.uint64(11)).astype(np.float64)
    uniform = (uniform + 0.5) * 2.0**-53
    choices, normals = uniform[:, 0], ndtri(uniform[:, 1:])

    def drawn(part: Conditional, rows: NDArray[Any], at: Any) -> Floats:
        return part.draw(rows, choices[at], normals[at])

    return over_gaps(conditional, X, m, drawn)
