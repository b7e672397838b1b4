"""Distances of rows from components whose noise is independent, feature by feature."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamgmm.kernels.compiled import compiled


@compiled
def noise_distances(tile: Any, means: Any, precisions: Any, out: Any) -> None:
    """Σ_d (x_d - μ_kd)² / ψ_kd into `out` (K, n), of a transposed tile (D, n).

    The difference is formed first, so the offset of the data costs no digits. Neighbouring rows
    lie side by side, so that the inner loop is one of vectors.
    """
    n_features, n = tile.shape
    for k in range(len(means)):
        total = out[k]
        for i in range(n):
            total[i] = 0.0
        for d in range(n_features):
            mean, precision = means[k, d], precisions[k, d]
            values = tile[d]
            for i in range(n):
                off = values[i] - mean
                total[i] += off * off * precision


@compiled
def centred_squares(tile: Any, means: Any, resp: Any, out: Any) -> None:
    """Add Σ_n r (x_d - μ_kd)² to `out` (K, D), of a transposed tile (D, n) and `resp` (K, n).

    Sums run in a fixed order over eight partial sums.
    """
    n_features, n = tile.shape
    parts = np.zeros(8)
    whole = n - n % 8
    for k in range(len(means)):
        shares = resp[k]
        for d in range(n_features):
            mean = means[k, d]
            values = tile[d]
            parts[:] = 0.0
            for i in range(0, whole, 8):
                for j in range(8):
                    off = values[i + j] - mean
                    parts[j] += shares[i + j] * off * off
            rest = 0.0
            for i in range(whole, n):
                off = values[i] - mean
                rest += shares[i] * off * off
            for j in range(8):
                rest += parts[j]
            out[k, d] += rest
