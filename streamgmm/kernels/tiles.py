"""A tile: a few hundred rows held feature by feature, in cache; how it is loaded.

Every array is flat. A tile `xt` holds D rows of T values, value i of feature d at ``d*T + i``,
so that one vector holds the same feature of neighbouring samples and no sum ever runs across
lanes until the end of a tile. D and T are padded: D to a multiple of 4 (zeros), T to a
multiple of four vectors (rows of weight 0). `W` is the number of lanes of the tile's dtype.
"""

from __future__ import annotations

from typing import Any

from streamgmm.kernels.compiled import inner
from streamgmm.kernels.shuffles import load_turned
from streamgmm.kernels.vectors import load, mul, splat, store, sub


@inner
def load_tile(
    X: Any, sample_weight: Any, first: int, n: int, ref: Any, xt: Any, wt: Any, T: int
) -> None:
    """Transpose ``X[first:first + n] - ref`` into `xt`, weights into `wt`; pad with weight 0.

    Infinity becomes NaN, which no sum after it can hide.
    """
    D = X.shape[1]
    whole = n - n % 8
    wide = D - D % 8
    for i in range(0, whole, 8):
        at = (first + i) * D
        for d in range(0, wide, 8):
            load_turned(X, at + d, D, ref, d, xt, d * T + i, T)
    for d in range(D):
        shift = ref[d]
        base = d * T
        for i in range(whole if d < wide else 0, n):
            x = X[first + i, d] - shift
            xt[base + i] = x + (x - x)
        for i in range(n, T):
            xt[base + i] = 0.0
    weighted = sample_weight.shape[0] > 0
    for i in range(n):
        wt[i] = sample_weight[first + i] if weighted else 1.0
    for i in range(n, T):
        wt[i] = 0.0


@inner
def square(xt: Any, n: int, out: Any, W: int) -> None:
    """The squares of the first n values of a tile."""
    for i in range(0, n, W):
        x = load(xt, i)
        store(out, i, mul(x, x))


@inner
def subtract(xt: Any, D: int, T: int, centres: Any, k: int, out: Any, W: int) -> None:
    """``x - centre_k`` of every row of a tile."""
    for d in range(D):
        c = splat(centres[k * D + d])
        for i in range(d * T, d * T + T, W):
            store(out, i, sub(load(xt, i), c))
