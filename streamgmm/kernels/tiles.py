"""What is done to one tile: a few hundred rows held feature by feature, in cache.

Every array is flat. A tile `xt` holds D rows of T values, value i of feature d at ``d*T + i``,
so that one vector holds the same feature of neighbouring samples and no sum ever runs across
lanes until the end of a tile. D and T are padded: D to a multiple of 4 (zeros), T to a
multiple of four vectors (rows of weight 0). `W` is the number of lanes of the tile's dtype.

Distances are always taken from ``x - mean``, formed first: the difference is exact to one
rounding whatever the offset of the data, and it is the one form that has no accuracy to lose
to cancellation. Because the loops exploit the triangle of the Cholesky factor, it costs the
same multiplications as the product with all quadratic features would.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from streamgmm.kernels.simd import (
    add,
    add_totals,
    at_least,
    at_most,
    div,
    exp,
    fma,
    high_half,
    load,
    load64,
    load_turned,
    log,
    low_half,
    mul,
    narrow,
    splat,
    sqrt,
    store,
    store64,
    sub,
    total,
    zero_below,
    zeros,
)

RESP_FLOOR = 1e-20  # smaller responsibilities are zero: denormals would slow every product


@njit(nogil=True)
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


@njit(nogil=True)
def full_distances(
    xt: Any, D: int, T: int, means: Any, chol: Any, k: int, strip: Any, q: Any, far: Any, W: int
) -> None:
    """Squared Mahalanobis distances |(x - mean_k) A_k|² into ``q[k*T:(k+1)*T]``.

    `chol` holds the upper triangular A_k with A_k A_kᵀ the precision, row after row.
    """
    zero = zeros(xt)
    S = 4 * W
    ceiling = splat(far)
    for i in range(0, T, S):
        for d in range(D):
            m = splat(means[k * D + d])
            at = d * T + i
            to = d * S
            store(strip, to, sub(load(xt, at), m))
            store(strip, to + W, sub(load(xt, at + W), m))
            store(strip, to + 2 * W, sub(load(xt, at + 2 * W), m))
            store(strip, to + 3 * W, sub(load(xt, at + 3 * W), m))
        q0, q1, q2, q3 = zero, zero, zero, zero
        for j in range(0, D, 4):
            z00, z01, z02, z03 = zero, zero, zero, zero
            z10, z11, z12, z13 = zero, zero, zero, zero
            z20, z21, z22, z23 = zero, zero, zero, zero
            z30, z31, z32, z33 = zero, zero, zero, zero
            for d in range(j + 4):
                at = d * S
                x0 = load(strip, at)
                x1 = load(strip, at + W)
                x2 = load(strip, at + 2 * W)
                x3 = load(strip, at + 3 * W)
                c = (k * D + d) * D + j
                a = splat(chol[c])
                z00, z01, z02, z03 = (
                    fma(x0, a, z00),
                    fma(x1, a, z01),
                    fma(x2, a, z02),
                    fma(x3, a, z03),
                )
                a = splat(chol[c + 1])
                z10, z11, z12, z13 = (
                    fma(x0, a, z10),
                    fma(x1, a, z11),
                    fma(x2, a, z12),
                    fma(x3, a, z13),
                )
                a = splat(chol[c + 2])
                z20, z21, z22, z23 = (
                    fma(x0, a, z20),
                    fma(x1, a, z21),
                    fma(x2, a, z22),
                    fma(x3, a, z23),
                )
                a = splat(chol[c + 3])
                z30, z31, z32, z33 = (
                    fma(x0, a, z30),
                    fma(x1, a, z31),
                    fma(x2, a, z32),
                    fma(x3, a, z33),
                )
            q0 = fma(z30, z30, fma(z20, z20, fma(z10, z10, fma(z00, z00, q0))))
            q1 = fma(z31, z31, fma(z21, z21, fma(z11, z11, fma(z01, z01, q1))))
            q2 = fma(z32, z32, fma(z22, z22, fma(z12, z12, fma(z02, z02, q2))))
            q3 = fma(z33, z33, fma(z23, z23, fma(z13, z13, fma(z03, z03, q3))))
        at = k * T + i
        store(q, at, at_most(q0, ceiling))
        store(q, at + W, at_most(q1, ceiling))
        store(q, at + 2 * W, at_most(q2, ceiling))
        store(q, at + 3 * W, at_most(q3, ceiling))


@njit(nogil=True)
def diag_distances(
    xt: Any, D: int, T: int, means: Any, chol: Any, k: int, q: Any, far: Any, W: int
) -> None:
    """Squared distances Σ_d ((x_d - mean_kd) a_kd)² into ``q[k*T:(k+1)*T]``; `chol` is (K, D)."""
    zero = zeros(xt)
    ceiling = splat(far)
    for i in range(0, T, 4 * W):
        q0, q1, q2, q3 = zero, zero, zero, zero
        for d in range(D):
            m = splat(means[k * D + d])
            a = splat(chol[k * D + d])
            at = d * T + i
            z0 = mul(sub(load(xt, at), m), a)
            z1 = mul(sub(load(xt, at + W), m), a)
            z2 = mul(sub(load(xt, at + 2 * W), m), a)
            z3 = mul(sub(load(xt, at + 3 * W), m), a)
            q0, q1, q2, q3 = fma(z0, z0, q0), fma(z1, z1, q1), fma(z2, z2, q2), fma(z3, z3, q3)
        at = k * T + i
        store(q, at, at_most(q0, ceiling))
        store(q, at + W, at_most(q1, ceiling))
        store(q, at + 2 * W, at_most(q2, ceiling))
        store(q, at + 3 * W, at_most(q3, ceiling))


@njit(nogil=True)
def round_distances(
    xt: Any, D: int, T: int, means: Any, scale: Any, k: int, q: Any, far: Any, W: int
) -> None:
    """Squared distances scale_k Σ_d (x_d - mean_kd)² into ``q[k*T:(k+1)*T]``."""
    zero = zeros(xt)
    ceiling = splat(far)
    a = splat(scale[k])
    for i in range(0, T, 4 * W):
        q0, q1, q2, q3 = zero, zero, zero, zero
        for d in range(D):
            m = splat(means[k * D + d])
            at = d * T + i
            z0 = sub(load(xt, at), m)
            z1 = sub(load(xt, at + W), m)
            z2 = sub(load(xt, at + 2 * W), m)
            z3 = sub(load(xt, at + 3 * W), m)
            q0, q1, q2, q3 = fma(z0, z0, q0), fma(z1, z1, q1), fma(z2, z2, q2), fma(z3, z3, q3)
        at = k * T + i
        store(q, at, at_most(mul(q0, a), ceiling))
        store(q, at + W, at_most(mul(q1, a), ceiling))
        store(q, at + 2 * W, at_most(mul(q2, a), ceiling))
        store(q, at + 3 * W, at_most(mul(q3, a), ceiling))


@njit(nogil=True)
def normalize(
    q: Any, K: int, T: int, const: Any, wt: Any, resp: Any, log_density: Any, entropy: Any
) -> None:
    """Log-sum-exp over components.

    With ℓ_k = const_k - q_k / 2: `log_density` (T,) gets log Σ exp ℓ_k, `entropy` (T,) that of
    the responsibilities, `resp` (K*T,) the responsibilities times the weights. Exponents are
    formed in float64; in float32 tiles their exponentials are taken in float32.
    """
    _normalize(q, K, T, const, wt, resp, log_density, entropy)


def _normalize(*arrays: Any) -> None:
    """Stand for one of the two that follow."""


@overload(_normalize)
def _choose_normalize(
    q: Any, K: int, T: int, const: Any, wt: Any, resp: Any, log_density: Any, entropy: Any
) -> Any:
    return _normalize_wide if q.dtype == types.float64 else _normalize_narrow


def _normalize_wide(
    q: Any, K: int, T: int, const: Any, wt: Any, resp: Any, log_density: Any, entropy: Any
) -> None:
    half = splat(-0.5)
    floor = splat(-708.0)
    for i in range(0, T, 8):
        top = splat(-math.inf)
        for k in range(K):
            top = at_least(top, fma(load64(q, k * T + i), half, splat(const[k])))
        s = splat(0.0)
        h = splat(0.0)
        for k in range(K):
            below = sub(fma(load64(q, k * T + i), half, splat(const[k])), top)
            below = at_least(below, floor)
            e = exp(below)
            store64(resp, k * T + i, e)
            s = add(s, e)
            h = fma(e, below, h)
        log_s = log(s)
        inverse = div(splat(1.0), s)
        store(log_density, i, add(top, log_s))
        store(entropy, i, sub(log_s, mul(h, inverse)))
        tiny = mul(s, splat(RESP_FLOOR))
        share = mul(load(wt, i), inverse)
        for k in range(K):
            e = zero_below(load64(resp, k * T + i), tiny)
            store64(resp, k * T + i, mul(e, share))


def _normalize_narrow(
    q: Any, K: int, T: int, const: Any, wt: Any, resp: Any, log_density: Any, entropy: Any
) -> None:
    half = splat(-0.5)
    floor = splat(np.float32(-87.0))
    zero = splat(np.float32(0.0))
    one = splat(1.0)
    for i in range(0, T, 16):
        top0 = splat(-math.inf)
        top1 = top0
        for k in range(K):
            c = splat(const[k])
            top0 = at_least(top0, fma(load64(q, k * T + i), half, c))
            top1 = at_least(top1, fma(load64(q, k * T + i + 8), half, c))
        s = zero
        h = zero
        for k in range(K):
            c = splat(const[k])
            below = narrow(
                sub(fma(load64(q, k * T + i), half, c), top0),
                sub(fma(load64(q, k * T + i + 8), half, c), top1),
            )
            below = at_least(below, floor)
            e = exp(below)
            store(resp, k * T + i, e)
            s = add(s, e)
            h = fma(e, below, h)
        s0 = low_half(s)
        s1 = high_half(s)
        inverse0 = div(one, s0)
        inverse1 = div(one, s1)
        log0 = log(s0)
        log1 = log(s1)
        store(log_density, i, add(top0, log0))
        store(log_density, i + 8, add(top1, log1))
        store(entropy, i, sub(log0, mul(low_half(h), inverse0)))
        store(entropy, i + 8, sub(log1, mul(high_half(h), inverse1)))
        tiny = mul(s, splat(np.float32(RESP_FLOOR)))
        share = narrow(mul(load(wt, i), inverse0), mul(load(wt, i + 8), inverse1))
        for k in range(K):
            at = k * T + i
            store(resp, at, mul(zero_below(load(resp, at), tiny), share))


@njit(nogil=True)
def row_sum(values: Any, base: int, T: int) -> float:
    """Sum of ``values[base:base + T]`` in float64."""
    s = splat(0.0)
    for i in range(0, T, 8):
        s = add(s, load64(values, base + i))
    return float(total(s))


@njit(nogil=True)
def dot(a: Any, base: int, b: Any, T: int) -> float:
    """Σ ``a[base + i] * b[i]`` over a tile, in float64."""
    s = splat(0.0)
    for i in range(0, T, 8):
        s = fma(load64(a, base + i), load64(b, i), s)
    return float(total(s))


@njit(nogil=True)
def full_moments(
    xt: Any, D: int, T: int, centres: Any, k: int, resp: Any, t: Any, s1: Any, s2: Any, W: int
) -> None:
    """Add Σ r (x - c) to ``s1[k]`` and Σ r (x - c)(x - c)ᵀ to the lower 4×4 blocks of ``s2[k]``.

    The product is that of t = √r (x - c) with itself: one array to keep in the first cache.
    Leaves √r in `resp`.
    """
    zero = zeros(xt)
    for i in range(k * T, k * T + T, W):
        store(resp, i, sqrt(load(resp, i)))
    for d in range(0, D, 4):
        c = k * D + d
        m0 = splat(centres[c])
        m1 = splat(centres[c + 1])
        m2 = splat(centres[c + 2])
        m3 = splat(centres[c + 3])
        a0, a1, a2, a3 = zero, zero, zero, zero
        for i in range(0, T, W):
            at = d * T + i
            r = load(resp, k * T + i)
            x0 = mul(r, sub(load(xt, at), m0))
            x1 = mul(r, sub(load(xt, at + T), m1))
            x2 = mul(r, sub(load(xt, at + 2 * T), m2))
            x3 = mul(r, sub(load(xt, at + 3 * T), m3))
            store(t, at, x0)
            store(t, at + T, x1)
            store(t, at + 2 * T, x2)
            store(t, at + 3 * T, x3)
            a0, a1, a2, a3 = fma(r, x0, a0), fma(r, x1, a1), fma(r, x2, a2), fma(r, x3, a3)
        add_totals(s1, c, a0, a1, a2, a3)
    for a in range(0, D, 4):
        for b in range(0, a + 4, 4):
            s00, s01, s02, s03 = zero, zero, zero, zero
            s10, s11, s12, s13 = zero, zero, zero, zero
            s20, s21, s22, s23 = zero, zero, zero, zero
            s30, s31, s32, s33 = zero, zero, zero, zero
            p = a * T
            c = b * T
            for i in range(0, T, W):
                y0 = load(t, p + i)
                y1 = load(t, p + T + i)
                y2 = load(t, p + 2 * T + i)
                y3 = load(t, p + 3 * T + i)
                x = load(t, c + i)
                s00, s10, s20, s30 = (
                    fma(y0, x, s00),
                    fma(y1, x, s10),
                    fma(y2, x, s20),
                    fma(y3, x, s30),
                )
                x = load(t, c + T + i)
                s01, s11, s21, s31 = (
                    fma(y0, x, s01),
                    fma(y1, x, s11),
                    fma(y2, x, s21),
                    fma(y3, x, s31),
                )
                x = load(t, c + 2 * T + i)
                s02, s12, s22, s32 = (
                    fma(y0, x, s02),
                    fma(y1, x, s12),
                    fma(y2, x, s22),
                    fma(y3, x, s32),
                )
                x = load(t, c + 3 * T + i)
                s03, s13, s23, s33 = (
                    fma(y0, x, s03),
                    fma(y1, x, s13),
                    fma(y2, x, s23),
                    fma(y3, x, s33),
                )
            o = (k * D + a) * D + b
            add_totals(s2, o, s00, s01, s02, s03)
            o += D
            add_totals(s2, o, s10, s11, s12, s13)
            o += D
            add_totals(s2, o, s20, s21, s22, s23)
            o += D
            add_totals(s2, o, s30, s31, s32, s33)


@njit(nogil=True)
def diag_moments(
    xt: Any, D: int, T: int, centres: Any, k: int, resp: Any, s1: Any, s2: Any, W: int
) -> None:
    """Add Σ r (x - c) to ``s1[k]`` and Σ r (x - c)² to ``s2[k]``, feature by feature."""
    zero = zeros(xt)
    for d in range(0, D, 4):
        c = k * D + d
        m0 = splat(centres[c])
        m1 = splat(centres[c + 1])
        m2 = splat(centres[c + 2])
        m3 = splat(centres[c + 3])
        a0, a1, a2, a3 = zero, zero, zero, zero
        b0, b1, b2, b3 = zero, zero, zero, zero
        at = d * T
        for i in range(0, T, W):
            r = load(resp, k * T + i)
            x0 = sub(load(xt, at + i), m0)
            x1 = sub(load(xt, at + T + i), m1)
            x2 = sub(load(xt, at + 2 * T + i), m2)
            x3 = sub(load(xt, at + 3 * T + i), m3)
            y0, y1, y2, y3 = mul(r, x0), mul(r, x1), mul(r, x2), mul(r, x3)
            a0, a1, a2, a3 = add(a0, y0), add(a1, y1), add(a2, y2), add(a3, y3)
            b0, b1, b2, b3 = fma(y0, x0, b0), fma(y1, x1, b1), fma(y2, x2, b2), fma(y3, x3, b3)
        add_totals(s1, c, a0, a1, a2, a3)
        add_totals(s2, c, b0, b1, b2, b3)


@njit(nogil=True)
def weighted_sums(
    xt: Any, D: int, T: int, centres: Any, k: int, resp: Any, s1: Any, W: int
) -> None:
    """Add Σ r (x - c) to ``s1[k]``."""
    zero = zeros(xt)
    for d in range(0, D, 4):
        c = k * D + d
        m0 = splat(centres[c])
        m1 = splat(centres[c + 1])
        m2 = splat(centres[c + 2])
        m3 = splat(centres[c + 3])
        a0, a1, a2, a3 = zero, zero, zero, zero
        at = d * T
        for i in range(0, T, W):
            r = load(resp, k * T + i)
            a0 = fma(r, sub(load(xt, at + i), m0), a0)
            a1 = fma(r, sub(load(xt, at + T + i), m1), a1)
            a2 = fma(r, sub(load(xt, at + 2 * T + i), m2), a2)
            a3 = fma(r, sub(load(xt, at + 3 * T + i), m3), a3)
        add_totals(s1, c, a0, a1, a2, a3)


@njit(nogil=True)
def whiten(xt: Any, D: int, T: int, chol: Any, out: Any, W: int) -> None:
    """Multiply every row of a tile by the upper triangular `chol` (D, D)."""
    zero = zeros(xt)
    for i in range(0, T, 4 * W):
        for j in range(D):
            z0, z1, z2, z3 = zero, zero, zero, zero
            for d in range(j + 1):
                a = splat(chol[d * D + j])
                at = d * T + i
                z0 = fma(load(xt, at), a, z0)
                z1 = fma(load(xt, at + W), a, z1)
                z2 = fma(load(xt, at + 2 * W), a, z2)
                z3 = fma(load(xt, at + 3 * W), a, z3)
            at = j * T + i
            store(out, at, z0)
            store(out, at + W, z1)
            store(out, at + 2 * W, z2)
            store(out, at + 3 * W, z3)
