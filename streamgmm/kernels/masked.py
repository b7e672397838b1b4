"""Rows with gaps where features are independent: a gap is left out of every sum.

Rows may have any patterns, in any order: a tile has a mask beside its rows.
"""

from __future__ import annotations

from typing import Any

from streamgmm.kernels.compiled import compiled, inner
from streamgmm.kernels.gaps import chosen, harden, tell
from streamgmm.kernels.normalisation import normalize
from streamgmm.kernels.shuffles import total
from streamgmm.kernels.sums import dot, row_sum
from streamgmm.kernels.tiles import load_tile
from streamgmm.kernels.vectors import add, at_most, fma, load, mul, splat, store, sub


@inner
def masked_distances(
    xt: Any, mask: Any, D: int, T: int, means: Any, chol: Any, drop: Any, k: int, q: Any, far: Any,
    W: int,
) -> None:  # fmt: skip
    """Squared distances over what was observed; where it was not, `drop` is added."""
    zero = splat(0.0)
    one = splat(1.0)
    ceiling = splat(far)
    for i in range(0, T, 2 * W):
        q0, q1, c0, c1 = zero, zero, zero, zero
        for d in range(D):
            m = splat(means[k * D + d])
            a = splat(chol[k * D + d])
            c = splat(drop[k * D + d])
            at = d * T + i
            w0 = load(mask, at)
            w1 = load(mask, at + W)
            z0 = mul(mul(sub(load(xt, at), m), a), w0)
            z1 = mul(mul(sub(load(xt, at + W), m), a), w1)
            q0, q1 = fma(z0, z0, q0), fma(z1, z1, q1)
            c0, c1 = fma(c, sub(one, w0), c0), fma(c, sub(one, w1), c1)
        store(q, k * T + i, add(at_most(q0, ceiling), c0))
        store(q, k * T + i + W, add(at_most(q1, ceiling), c1))


@inner
def masked_moments(
    xt: Any, mask: Any, D: int, T: int, centres: Any, k: int, resp: Any,
    s1: Any, s2: Any, s0: Any, W: int,
) -> None:  # fmt: skip
    """Add Σ r (x - c), Σ r (x - c)² and Σ r over what was observed of each feature."""
    zero = splat(0.0)
    for d in range(D):
        c = splat(centres[k * D + d])
        a, b, n = zero, zero, zero
        at = d * T
        for i in range(0, T, W):
            r = mul(load(resp, k * T + i), load(mask, at + i))
            x = sub(load(xt, at + i), c)
            y = mul(r, x)
            n, a, b = add(n, r), add(a, y), fma(y, x, b)
        s0[k * D + d] += total(n)
        s1[k * D + d] += total(a)
        s2[k * D + d] += total(b)


@compiled
def diag_gaps(
    X: Any, weight: Any, ref: Any, means: Any, chol: Any, const: Any, drop: Any, centres: Any,
    hard: bool, sums: bool, far: Any, D: int, rows_a_tile: int, W: int, work: Any,
    totals: Any, n: Any, s1: Any, s2: Any, s0: Any,
    log_density: Any, labels: Any, resp_out: Any,
    filled: Any, variance: Any, choices: Any, normals: Any,
) -> None:  # fmt: skip
    """As `full_gaps` where features are independent: gaps are left out, in rows of any order.

    `chol` are 1/σ, and `drop` -2 times what a gap adds to the log-density, ½ log 2π + log σ.
    `s0` (K·D,) are the weights of what was observed, and `s1` and `s2` sums over it.
    """
    K = const.shape[0]
    width = X.shape[1]
    for first in range(0, X.shape[0], rows_a_tile):
        m = min(rows_a_tile, X.shape[0] - first)
        T = (m + 4 * W - 1) // (4 * W) * 4 * W
        at = 0
        xt = work[: D * T]
        at += D * T
        mask = work[at : at + D * T]
        at += D * T
        q = work[at : at + K * T]
        at += K * T
        resp = work[at : at + (K + 1) * T]
        at += (K + 1) * T
        wt = work[at : at + T]
        at += T
        density = work[at : at + T]
        at += T
        entropy = work[at : at + 2 * T]
        xt[width * T :] = 0.0
        load_tile(X, weight, first, m, ref, xt, wt, T)
        for i in range(D * T):
            mask[i] = 1.0
        for d in range(width):
            for i in range(m):
                x = X[first + i, d]
                if x != x:
                    mask[d * T + i] = 0.0
                    xt[d * T + i] = 0.0
        for k in range(K):
            masked_distances(xt, mask, D, T, means, chol, drop, k, q, far, W)
        normalize(q, K, T, const, wt, resp, density, entropy)
        if hard:
            harden(q, K, T, const, wt, resp, entropy)
        tell(q, K, T, const, density, resp, first, m, log_density, labels, resp_out)
        if sums:
            totals[0] += dot(density, 0, wt, T)
            totals[1] += dot(entropy, 0, wt, T)
            for k in range(K):
                mass = row_sum(resp, k * T, T)
                if mass != 0.0:
                    n[k] += mass
                    masked_moments(xt, mask, D, T, centres, k, resp, s1, s2, s0, W)
        if filled.shape[0] > 0:
            for d in range(width):
                for i in range(m):
                    if mask[d * T + i] == 1.0:
                        continue
                    mean = 0.0
                    for k in range(K):
                        mean += resp[k * T + i] * means[k * D + d]
                    filled[first + i, d] = mean
                    if choices.shape[0] > 0:
                        k = chosen(resp, K, T, i, choices[first + i])
                        noise = normals[first + i, d] / chol[k * D + d]
                        filled[first + i, d] = means[k * D + d] + noise
                    if variance.shape[0] > 0:
                        spread = 0.0
                        for k in range(K):
                            gap = means[k * D + d] - mean
                            sigma = 1.0 / chol[k * D + d]
                            spread += resp[k * T + i] * (gap * gap + sigma * sigma)
                        variance[first + i, d] = spread
