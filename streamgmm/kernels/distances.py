"""Distances of the rows of a tile from the components.

Distances are always taken from ``x - mean``, formed first: the difference is exact to one
rounding whatever the offset of the data, and it is the one form that has no accuracy to lose
to cancellation. Because the loops exploit the triangle of the Cholesky factor, it costs the
same multiplications as the product with all quadratic features would.
"""

from __future__ import annotations

from typing import Any

from streamgmm.kernels.compiled import inner
from streamgmm.kernels.vectors import (
    add_outer,
    add_outer_1,
    add_outer_2,
    add_outer_3,
    at_least,
    at_most,
    fma,
    load,
    load64,
    load_four,
    mul,
    sixteen,
    splat,
    splat_four,
    sqrt,
    store,
    store_four,
    sub,
    zeros,
)


@inner
def differences(xt: Any, at: int, means: Any, feature: int, strip: Any, to: int, W: int) -> Any:
    """One feature of a strip of rows less its mean, which `strip` keeps."""
    m = splat(means[feature])
    x0, x1, x2, x3 = load_four(xt, at, W)
    x = (sub(x0, m), sub(x1, m), sub(x2, m), sub(x3, m))
    store_four(strip, to, W, x)
    return x


@inner
def add_corner(z: Any, strip: Any, j: int, S: int, chol: Any, corner: int, D: int, W: int) -> Any:
    """What features ``j:j + 4`` add to columns ``j:j + 4``: the factor is triangular there."""
    z = add_outer(z, splat_four(chol, corner, 1), load_four(strip, j * S, W))
    corner += D
    z = add_outer_1(z, splat_four(chol, corner, 1), load_four(strip, j * S + S, W))
    corner += D
    z = add_outer_2(z, splat_four(chol, corner, 1), load_four(strip, j * S + 2 * S, W))
    corner += D
    return add_outer_3(z, splat_four(chol, corner, 1), load_four(strip, j * S + 3 * S, W))


@inner
def add_squares(q: Any, z: Any) -> Any:
    """``q[j] + Σ_i z[4*i + j]²``."""
    return (
        fma(z[12], z[12], fma(z[8], z[8], fma(z[4], z[4], fma(z[0], z[0], q[0])))),
        fma(z[13], z[13], fma(z[9], z[9], fma(z[5], z[5], fma(z[1], z[1], q[1])))),
        fma(z[14], z[14], fma(z[10], z[10], fma(z[6], z[6], fma(z[2], z[2], q[2])))),
        fma(z[15], z[15], fma(z[11], z[11], fma(z[7], z[7], fma(z[3], z[3], q[3])))),
    )


@inner
def cap_four(q: Any, most: Any) -> Any:
    """Four vectors of at most `most`."""
    return at_most(q[0], most), at_most(q[1], most), at_most(q[2], most), at_most(q[3], most)


@inner
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


@inner
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


@inner
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


@inner
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


@inner
def take_half_squares(z: Any, D: int, T: int, log_density: Any) -> None:
    """Subtract ½|z|² from the log-density of every row, in float64."""
    half = splat(-0.5)
    for i in range(0, T, 8):
        q = splat(0.0)
        for d in range(D):
            x = load64(z, d * T + i)
            q = fma(x, x, q)
        store(log_density, i, fma(q, half, load64(log_density, i)))


@inner
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
