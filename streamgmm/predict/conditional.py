"""What a conditional mixture says of rows, as functions for `streamgmm.predict.values`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from streamgmm.fitting.sample import hash_rows
from streamgmm.model.conditional import Conditional
from streamgmm.model.moments import Floats


def mean(conditional: Conditional, X: NDArray[Any], numbers: NDArray[np.int64]) -> Floats:
    """Conditional means (n, m)."""
    return conditional.mean(X)


def std(conditional: Conditional, X: NDArray[Any], numbers: NDArray[np.int64]) -> Floats:
    """Conditional standard deviations (n, m)."""
    return np.asarray(np.sqrt(conditional.variance(X)))


def cov(conditional: Conditional, X: NDArray[Any], numbers: NDArray[np.int64]) -> Floats:
    """Conditional covariances, flat (n, m·m)."""
    return conditional.covariance(X).reshape(len(X), -1)


def weights(conditional: Conditional, X: NDArray[Any], numbers: NDArray[np.int64]) -> Floats:
    """Weights of the components (n, K)."""
    return conditional.weights(X)


def log_density(conditional: Conditional, rows: NDArray[Any], numbers: NDArray[Any]) -> Floats:
    """Conditional log-densities (n,) of rows that have what is given, then the rest."""
    o = len(conditional.given)
    return conditional.log_density(rows[:, :o], rows[:, o:])


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
    return conditional.draw(X, uniform[:, 0], ndtri(uniform[:, 1:]))
