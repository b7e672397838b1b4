"""What every column of rows is: its range, moments, gaps, and a checksum that merges."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamgmm.kernels.compiled import compiled

SUMS = 6  # finite, NaN, infinite, lowest, highest, first moment; the second has its own row
RUN = 256


@compiled
def mix(z: Any) -> Any:
    """Mix the bits of a 64-bit number (Steele, Lea & Flood 2014, SplitMix64)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@compiled
def audit_columns(
    X: Any, bits: Any, numbers: Any, ref: Any, sums: Any, second: Any, checks: Any
) -> int:
    """Add rows X (n, D) to what is known of their columns; gives how many rows have gaps.

    `bits` (n, D) are the values as float64, seen as uint64; `numbers` (n,) of the rows, uint64.
    `sums` (6, D): finite values, NaN, infinities, the lowest and the highest, Σ (x - ref).
    `second` (D,) is Σ (x - ref)², and `checks` (D,) sums of hashes of values and numbers.
    """
    n, D = X.shape
    gaps = 0
    first, square = np.empty(D), np.empty(D)
    for begin in range(0, n, RUN):
        first[:] = 0.0
        square[:] = 0.0
        for i in range(begin, min(n, begin + RUN)):
            whole = True
            salt = mix(numbers[i] * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1))
            for d in range(D):
                x = np.float64(X[i, d])
                checks[d] += mix(bits[i, d] ^ salt)
                if np.isfinite(x):
                    sums[0, d] += 1.0
                    sums[3, d] = min(sums[3, d], x)
                    sums[4, d] = max(sums[4, d], x)
                    y = x - ref[d]
                    first[d] += y
                    square[d] += y * y
                else:
                    whole = False
                    if np.isnan(x):
                        sums[1, d] += 1.0
                    else:
                        sums[2, d] += 1.0
            if not whole:
                gaps += 1
        for d in range(D):
            sums[5, d] += first[d]
            second[d] += square[d]
    return gaps
