"""Scatters of K components (K, D, D) moved to another centre, in one pass over their memory.

In NumPy each takes three to five passes, and there are as many as blocks.
"""

from __future__ import annotations

from typing import Any

from streamgmm.kernels.compiled import compiled


@compiled
def merged(a: Any, b: Any, weight: Any, shift: Any, out: Any) -> None:
    """``out[k] = a[k] + b[k] + weight[k] shift[k] shift[k]ᵀ``."""
    K, D = shift.shape
    for k in range(K):
        for i in range(D):
            for j in range(D):
                out[k, i, j] = a[k, i, j] + b[k, i, j] + shift[k, i] * shift[k, j] * weight[k]


@compiled
def centred(lower: Any, P: int, weight: Any, shift: Any, out: Any) -> None:
    """``out[k] = S_k - weight[k] shift[k] shift[k]ᵀ``, of sums about another centre.

    `lower` holds the lower triangles of the S_k, flat (K·P·P), features padded to P.
    """
    K, D = shift.shape
    for k in range(K):
        for i in range(D):
            row = (k * P + i) * P
            for j in range(i + 1):
                value = lower[row + j] - shift[k, i] * shift[k, j] * weight[k]
                out[k, i, j] = value
                out[k, j, i] = value
