"""Sums of the columns of rows: what the first look at the data takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamgmm.kernels.compiled import compiled

RUN = 512  # rows that are summed by themselves, so that rounding does not grow with their number


@compiled
def column_sums(X: Any, weight: Any, ref: Any, first: Any, second: Any) -> float:
    """Add Σ w (x - ref) to `first` and Σ w (x - ref)² to `second` (D,); gives Σ w.

    X (n, D) is float32 or float64, `weight` (n,) or empty; sums are float64.
    """
    n, D = X.shape
    weighted = weight.shape[0] > 0
    a, b = np.empty(D), np.empty(D)
    total = 0.0
    for begin in range(0, n, RUN):
        a[:] = 0.0
        b[:] = 0.0
        mass = 0.0
        for i in range(begin, min(n, begin + RUN)):
            w = weight[i] if weighted else 1.0
            mass += w
            for d in range(D):
                x = X[i, d] - ref[d]
                a[d] += w * x
                b[d] += w * x * x
        total += mass
        for d in range(D):
            first[d] += a[d]
            second[d] += b[d]
    return total


@compiled
def observed_sums(X: Any, weight: Any, ref: Any, mass: Any, first: Any, second: Any) -> None:
    """As `column_sums` of what is not NaN, with the weight of each column in `mass` (D,).

    A column's `ref` is NaN until a value of it has been seen, and then that value.
    """
    n, D = X.shape
    weighted = weight.shape[0] > 0
    a, b, c = np.empty(D), np.empty(D), np.empty(D)
    for begin in range(0, n, RUN):
        a[:] = 0.0
        b[:] = 0.0
        c[:] = 0.0
        for i in range(begin, min(n, begin + RUN)):
            w = weight[i] if weighted else 1.0
            for d in range(D):
                x = np.float64(X[i, d])
                if x != x:
                    continue
                if ref[d] != ref[d]:
                    ref[d] = x if x - x == 0.0 else 0.0
                x -= ref[d]
                c[d] += w
                a[d] += w * x
                b[d] += w * x * x
        for d in range(D):
            mass[d] += c[d]
            first[d] += a[d]
            second[d] += b[d]
