"""What is done to one tile: a few hundred rows held feature by feature, in cache.

Every array is flat. A tile `xt` holds D rows of T values, value i of feature d at ``d*T + i``,
so that one vector holds the same feature of neighbouring samples and no sum ever runs across
lanes until the end of a tile. D and T are padded: D to a multiple of 4 (zeros), T to a
multiple of four vectors (rows of weight 0). `W` is the number of lanes of the tile's dtype.

Distances are always taken from ``x - mean``, formed first: the difference is exact to one
rounding whatever the offset of the data, and it is the one form that has no accuracy to lose
to cancellation. Because the loops exploit the triangle of the Cholesky factor, it costs the
same multiplications as the product with all quadratic features would. Sums of products, which
forgive more, are about a centre that components near it share.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from streamgmm.kernels.simd import (
    add,
    add_lower,
    add_outer,
    add_outer_1,
    add_outer_2,
    add_outer_3,
    add_totals,
    at_least,
    at_most,
    div,
    exp,
    fma,
    high_half,
    load,
    load64,
    load_four,
    load_turned,
    log,
    low_half,
    mul,
    narrow,
    sixteen,
    splat,
    splat_four,
    sqrt,
    store,
    store64,
    store_four,
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
def differences(xt: Any, at: int, means: Any, feature: int, strip: Any, to: int, W: int) -> Any:
    """One feature of a strip of rows less its mean, which `strip` keeps."""
    m = splat(means[feature])
    x0, x1, x2, x3 = load_four(xt, at, W)
    x = (sub(x0, m), sub(x1, m), sub(x2, m), sub(x3, m))
    store_four(strip, to, W, x)
    return x


@njit(nogil=True)
def add_corner(z: Any, strip: Any, j: int, S: int, chol: Any, corner: int, D: int, W: int) -> Any:
    """What features ``j:j + 4`` add to columns ``j:j + 4``: the factor is triangular there."""
    z = add_outer(z, splat_four(chol, corner, 1), load_four(strip, j * S, W))
    corner += D
    z = add_outer_1(z, splat_four(chol, corner, 1), load_four(strip, j * S + S, W))
    corner += D
    z = add_outer_2(z, splat_four(chol, corner, 1), load_four(strip, j * S + 2 * S, W))
    corner += D
    return add_outer_3(z, splat_four(chol, corner, 1), load_four(strip, j * S + 3 * S, W))


@njit(nogil=True)
def add_squares(q: Any, z: Any) -> Any:
    """``q[j] + Σ_i z[4*i + j]²``."""
    return (
        fma(z[12], z[12], fma(z[8], z[8], fma(z[4], z[4], fma(z[0], z[0], q[0])))),
        fma(z[13], z[13], fma(z[9], z[9], fma(z[5], z[5], fma(z[1], z[1], q[1])))),
        fma(z[14], z[14], fma(z[10], z[10], fma(z[6], z[6], fma(z[2], z[2], q[2])))),
        fma(z[15], z[15], fma(z[11], z[11], fma(z[7], z[7], fma(z[3], z[3], q[3])))),
    )


@njit(nogil=True)
def cap_four(q: Any, most: Any) -> Any:
    """Four vectors of at most `most`."""
    return at_most(q[0], most), at_most(q[1], most), at_most(q[2], most), at_most(q[3], most)


@njit(nogil=True)
def full_distances(
    xt: Any, D: int, T: int, means: Any, chol: Any, k: int, strip: Any, out: Any, far: Any, W: int
) -> None:
    """Squared Mahalanobis distances |(x - mean_k) A_k|² into ``out[k*T:(k+1)*T]``.

    `chol` holds the upper triangular A_k with A_k A_kᵀ the precision, row after row. The last
    columns need every feature, so they come first and leave the differences in `strip`.
    """
    zero = zeros(xt)
    S = 4 * W
    ceiling = splat(far)
    last = D - 4
    for i in range(0, T, S):
        z = sixteen(zero)
        for d in range(last):
            x = differences(xt, d * T + i, means, k * D + d, strip, d * S, W)
            z = add_outer(z, splat_four(chol, (k * D + d) * D + last, 1), x)
        for d in range(last, D):
            differences(xt, d * T + i, means, k * D + d, strip, d * S, W)
        z = add_corner(z, strip, last, S, chol, (k * D + last) * D + last, D, W)
        q = add_squares((zero, zero, zero, zero), z)
        for j in range(0, last, 4):
            z = sixteen(zero)
            for d in range(j):
                x = load_four(strip, d * S, W)
                z = add_outer(z, splat_four(chol, (k * D + d) * D + j, 1), x)
            z = add_corner(z, strip, j, S, chol, (k * D + j) * D + j, D, W)
            q = add_squares(q, z)
        store_four(out, k * T + i, W, cap_four(q, ceiling))


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
    zero = splat(0.0)
    s0, s1, s2, s3 = zero, zero, zero, zero
    for i in range(base, base + T, 32):
        s0 = add(s0, load64(values, i))
        s1 = add(s1, load64(values, i + 8))
        s2 = add(s2, load64(values, i + 16))
        s3 = add(s3, load64(values, i + 24))
    return float(total(add(add(s0, s1), add(s2, s3))))


@njit(nogil=True)
def dot(a: Any, base: int, b: Any, T: int) -> float:
    """Σ ``a[base + i] * b[i]`` over a tile, in float64."""
    s = splat(0.0)
    for i in range(0, T, 8):
        s = fma(load64(a, base + i), load64(b, i), s)
    return float(total(s))


@njit(nogil=True)
def add_sixteen(array: Any, at: int, step: int, s: Any) -> None:
    """Add the lane sums of sixteen vectors to a 4×4 block whose rows lie `step` apart."""
    add_totals(array, at, s[0], s[1], s[2], s[3])
    add_totals(array, at + step, s[4], s[5], s[6], s[7])
    add_totals(array, at + 2 * step, s[8], s[9], s[10], s[11])
    add_totals(array, at + 3 * step, s[12], s[13], s[14], s[15])


@njit(nogil=True)
def subtract(xt: Any, D: int, T: int, centres: Any, k: int, out: Any, W: int) -> None:
    """``x - centre_k`` of every row of a tile."""
    for d in range(D):
        c = splat(centres[k * D + d])
        for i in range(d * T, d * T + T, W):
            store(out, i, sub(load(xt, i), c))


@njit(nogil=True)
def full_moments(
    xt: Any, D: int, T: int, k: int, resp: Any, base: int, y: Any, s1: Any, s2: Any, W: int
) -> None:
    """Add Σ r x to ``s1[k]`` and Σ r x xᵀ to the lower triangle of ``s2[k]``.

    The r are ``resp[base:base + T]``; `y` is scratch for four features of r x.
    """
    zero = zeros(xt)
    for a in range(0, D, 4):
        a0, a1, a2, a3 = zero, zero, zero, zero
        s = sixteen(zero)
        for i in range(0, T, W):
            r = load(resp, base + i)
            x = load_four(xt, a * T + i, T)
            y0, y1, y2, y3 = mul(r, x[0]), mul(r, x[1]), mul(r, x[2]), mul(r, x[3])
            store_four(y, i, T, (y0, y1, y2, y3))
            a0, a1, a2, a3 = add(a0, y0), add(a1, y1), add(a2, y2), add(a3, y3)
            s = add_lower(s, (y0, y1, y2, y3), x)
        add_totals(s1, k * D + a, a0, a1, a2, a3)
        add_sixteen(s2, (k * D + a) * D + a, D, s)
        for b in range(0, a, 4):
            s = sixteen(zero)
            for i in range(0, T, W):
                s = add_outer(s, load_four(y, i, T), load_four(xt, b * T + i, T))
            add_sixteen(s2, (k * D + a) * D + b, D, s)


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
def shared_sums(xt: Any, D: int, T: int, K: int, resp: Any, s1: Any, W: int) -> None:
    """Add Σ r x to ``s1[k]`` of every component; K is a multiple of 4."""
    zero = zeros(xt)
    for k in range(0, K, 4):
        for d in range(0, D, 4):
            s = sixteen(zero)
            for i in range(0, T, W):
                s = add_outer(s, load_four(resp, k * T + i, T), load_four(xt, d * T + i, T))
            add_sixteen(s1, k * D + d, D, s)


@njit(nogil=True)
def shared_products(z: Any, D: int, T: int, nu: Any, K: int, q: Any, W: int) -> None:
    """``z·ν_k`` into ``q[k*T:(k+1)*T]`` for every component; K is a multiple of 4.

    With a covariance that all share, |z - c|² is z·(-2c), |c|², and a |z|² in which no
    component differs: a matrix product and nothing else, safe where |c| is moderate.
    """
    zero = zeros(z)
    for k in range(0, K, 4):
        for i in range(0, T, 4 * W):
            s = sixteen(zero)
            for d in range(D):
                s = add_outer(s, splat_four(nu, k * D + d, D), load_four(z, d * T + i, W))
            at = k * T + i
            store_four(q, at, W, (s[0], s[1], s[2], s[3]))
            store_four(q, at + T, W, (s[4], s[5], s[6], s[7]))
            store_four(q, at + 2 * T, W, (s[8], s[9], s[10], s[11]))
            store_four(q, at + 3 * T, W, (s[12], s[13], s[14], s[15]))


@njit(nogil=True)
def take_half_squares(z: Any, D: int, T: int, log_density: Any) -> None:
    """Subtract ½|z|² from the log-density of every row, in float64."""
    half = splat(-0.5)
    for i in range(0, T, 8):
        q = splat(0.0)
        for d in range(D):
            x = load64(z, d * T + i)
            q = fma(x, x, q)
        store(log_density, i, fma(q, half, load64(log_density, i)))


@njit(nogil=True)
def whiten(xt: Any, D: int, T: int, chol: Any, out: Any, far: Any, W: int) -> None:
    """Multiply every row of a tile by the upper triangular `chol` (D, D), up to ±√far."""
    zero = zeros(xt)
    most = splat(far)
    most = sqrt(most)
    least = sub(zero, most)
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
            store(out, at, at_least(at_most(z0, most), least))
            store(out, at + W, at_least(at_most(z1, most), least))
            store(out, at + 2 * W, at_least(at_most(z2, most), least))
            store(out, at + 3 * W, at_least(at_most(z3, most), least))
