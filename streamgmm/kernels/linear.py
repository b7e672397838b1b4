"""Linear exponential families in tiles: log p(x | θ_k) = T(x)·η_k - A_k.

An E-step is two matrix products a tile, T(x)·η before the log-sum-exp and Σ r T(x) after it.
Rows come as T(x), with log h(x) among its columns where it is not zero. Tiles are float64.
"""

from __future__ import annotations

import math
from typing import Any

from streamgmm.kernels.compiled import compiled, inner
from streamgmm.kernels.distances import shared_products
from streamgmm.kernels.normalisation import normalize
from streamgmm.kernels.sums import dot, row_sum, shared_sums
from streamgmm.kernels.tiles import load_tile
from streamgmm.kernels.vectors import add, at_least, at_most, fma, load, splat, store, sub

ANY, BINARY, NONNEGATIVE, UNIT = 0, 1, 2, 3
"""What the values of a row may be: the last is a vector of length one."""


@compiled
def linear_sums(
    X: Any, weight: Any, ref: Any, nu: Any, const: Any, support: int, tolerance: float,
    D: int, rows_a_tile: int, work: Any, rows: Any, totals: Any, n: Any, s1: Any,
) -> None:  # fmt: skip
    """Add T(x) of a piece to: `totals` (log-likelihood, entropy), `n` (K,), `s1` (K4·D,).

    `nu` is -2 η, for K rounded up to a multiple of 4, and `ref` zeros. The log-density of a row
    outside of the support is NaN.
    """
    K = const.shape[0]
    K4 = (K + 3) // 4 * 4
    for first in range(0, X.shape[0], rows_a_tile):
        m = min(rows_a_tile, X.shape[0] - first)
        T = (m + 31) // 32 * 32
        xt = work[: D * T]
        q = work[D * T : (D + K4) * T]
        resp = work[(D + K4) * T : (D + 2 * K4) * T]
        wt = rows[:T]
        log_density = rows[T : 2 * T]
        xt[X.shape[1] * T :] = 0.0
        resp[K * T :] = 0.0
        load_tile(X, weight, first, m, ref, xt, wt, T)
        shared_products(xt, D, T, nu, K4, q, 8)
        normalize(q, K, T, const, wt, resp, log_density, rows[2 * T :])
        refuse(xt, D, T, m, support, tolerance, rows[3 * T :], log_density)
        totals[0] += dot(rows, T, wt, T)
        totals[1] += dot(rows, 2 * T, wt, T)
        for k in range(K):
            n[k] += row_sum(resp, k * T, T)
        shared_sums(xt, D, T, K4, resp, s1, 8)


@compiled
def linear_posterior(
    X: Any, ref: Any, nu: Any, const: Any, support: int, tolerance: float,
    D: int, rows_a_tile: int, work: Any, rows: Any, log_density: Any, labels: Any, resp_out: Any,
) -> None:  # fmt: skip
    """Log-density (N,), label (N,) int32 and responsibilities (N, K) of each row.

    An output of no rows is not written.
    """
    K = const.shape[0]
    K4 = (K + 3) // 4 * 4
    for first in range(0, X.shape[0], rows_a_tile):
        m = min(rows_a_tile, X.shape[0] - first)
        T = (m + 31) // 32 * 32
        xt = work[: D * T]
        q = work[D * T : (D + K4) * T]
        resp = work[(D + K4) * T :]
        wt = rows[:T]
        density = rows[T : 2 * T]
        xt[X.shape[1] * T :] = 0.0
        load_tile(X, rows[:0], first, m, ref, xt, wt, T)
        shared_products(xt, D, T, nu, K4, q, 8)
        normalize(q, K, T, const, wt, resp, density, rows[2 * T :])
        refuse(xt, D, T, m, support, tolerance, rows[3 * T :], density)
        hand_out(q, const, resp, density, first, m, T, log_density, labels, resp_out)


@inner
def refuse(
    xt: Any, D: int, T: int, n: int, support: int, tolerance: float, found: Any, log_density: Any
) -> None:
    """Make the log-density NaN of the first n rows that are not in the support."""
    if support == ANY:
        return
    one = splat(1.0)
    zero = splat(0.0)
    for i in range(0, T, 8):
        s = zero
        for d in range(D):
            x = load(xt, d * T + i)
            if support == BINARY:
                off = fma(x, x, sub(zero, x))
                s = add(s, at_least(off, sub(zero, off)))
            elif support == NONNEGATIVE:
                s = sub(s, at_most(x, zero))
            else:
                s = fma(x, x, s)
        if support == UNIT:
            s = sub(s, one)
        store(found, i, s)
    for i in range(n):
        if not abs(found[i]) <= 2 * tolerance:
            log_density[i] = math.nan


@inner
def hand_out(
    q: Any, const: Any, resp: Any, density: Any, first: int, m: int, T: int,
    log_density: Any, labels: Any, resp_out: Any,
) -> None:  # fmt: skip
    """Write what a tile of m rows says to the outputs, where they have rows."""
    K = const.shape[0]
    if log_density.shape[0] > 0:
        for i in range(m):
            log_density[first + i] = density[i]
    if labels.shape[0] > 0:
        for i in range(m):
            best, label = const[0] - 0.5 * q[i], 0
            for k in range(1, K):
                value = const[k] - 0.5 * q[k * T + i]
                if value > best:
                    best, label = value, k
            labels[first + i] = label
    if resp_out.shape[0] > 0:
        for i in range(m):
            for k in range(K):
                resp_out[first + i, k] = resp[k * T + i]
