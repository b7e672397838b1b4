"""Distances of the rows of a tile from the components.

Distances are always taken from ``x - mean``, formed first: the difference is exact to one
rounding whatever the offset of the data, and it is the one form that has no accuracy to lose
to cancellation. Because the loops exploit the triangle of the Cholesky factor, it costs the
same multiplications as the product with all quadratic features would.
"""

from __future__ import annotations

from typing import Any

from streamgmm.kernels.blocks import (
    SIDE,
    add_near,
    add_outer,
    add_outer_1,
    add_outer_2,
    add_outer_3,
    add_squares,
    block_of,
    each_at_most,
    load_side,
    side_of,
    splat_side,
    store_block,
    store_each,
    sub_each,
)
from streamgmm.kernels.compiled import inner
from streamgmm.kernels.vectors import (
    at_least,
    at_most,
    fma,
    load,
    load64,
    mul,
    splat,
    sqrt,
    store,
    sub,
    zeros,
)


@inner
def differences(xt: Any, at: int, means: Any, feature: int, strip: Any, to: int, W: int) -> Any:
    """One feature of a strip of rows less its mean, which `strip` keeps."""
    x = sub_each(load_side(xt, at, W), splat(means[feature]))
    store_each(strip, to, W, x)
    return x


@inner
def add_corner(z: Any, strip: Any, j: int, S: int, chol: Any, corner: int, D: int, W: int) -> Any:
    """What the features of a block add to their own columns: the factor is triangular there."""
    z = add_outer(z, splat_side(chol, corner, 1), load_side(strip, j * S, W))
    corner += D
    z = add_outer_1(z, splat_side(chol, corner, 1), load_side(strip, j * S + S, W))
    if SIDE > 2:
        corner += D
        z = add_outer_2(z, splat_side(chol, corner, 1), load_side(strip, j * S + 2 * S, W))
        corner += D
        z = add_outer_3(z, splat_side(chol, corner, 1), load_side(strip, j * S + 3 * S, W))
    return z


@inner
def full_distances(
    xt: Any, D: int, T: int, means: Any, chol: Any, k: int, strip: Any, out: Any, far: Any, W: int
) -> None:
    """Squared Mahalanobis distances |(x - mean_k) A_k|² into ``out[k*T:(k+1)*T]``.

    `chol` holds the upper triangular A_k with A_k A_kᵀ the precision, row after row. The last
    four columns need every feature, so they come first and leave the differences in `strip`.
    """
    zero = zeros(xt)
    S = SIDE * W
    ceiling = splat(far)
    last = D - 4
    for i in range(0, T, S):
        z = block_of(zero)
        for d in range(last):
            x = differences(xt, d * T + i, means, k * D + d, strip, d * S, W)
            z = add_outer(z, splat_side(chol, (k * D + d) * D + last, 1), x)
        for d in range(last, D):
            differences(xt, d * T + i, means, k * D + d, strip, d * S, W)
        z = add_corner(z, strip, last, S, chol, (k * D + last) * D + last, D, W)
        q = add_squares(side_of(zero), z)
        for step in range(0, D - SIDE, SIDE):
            j = step
            if SIDE == 2:  # the others of the last four come next
                j = D - 2 if step == 0 else step - 2
            z = block_of(zero)
            for d in range(j):
                x = load_side(strip, d * S, W)
                z = add_outer(z, splat_side(chol, (k * D + d) * D + j, 1), x)
            z = add_corner(z, strip, j, S, chol, (k * D + j) * D + j, D, W)
            q = add_squares(q, z)
        store_each(out, k * T + i, W, each_at_most(q, ceiling))


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
def near_distances(
    xt: Any, D: int, T: int, offset: Any, chol: Any, K: int, q: Any, far: Any, W: int
) -> None:
    """As `diag_distances`, Σ_d (x_d a_kd + offset_kd)², where rows are less a centre near by.

    The offset is -(mean_kd - centre_d) a_kd: of a feature one multiplication and addition is left.
    All components, two at a time, go over a strip of rows while it is in the first cache; K is a
    multiple of 2.
    """
    zero = zeros(xt)
    ceiling = splat(far)
    for i in range(0, T, SIDE * W):
        for k in range(0, K, 2):
            q0, q1 = side_of(zero), side_of(zero)
            for d in range(D):
                x = load_side(xt, d * T + i, W)
                at = k * D + d
                q0 = add_near(q0, x, splat(chol[at]), splat(offset[at]))
                q1 = add_near(q1, x, splat(chol[at + D]), splat(offset[at + D]))
            store_each(q, k * T + i, W, each_at_most(q0, ceiling))
            store_each(q, (k + 1) * T + i, W, each_at_most(q1, ceiling))


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
    for k in range(0, K, SIDE):
        for i in range(0, T, SIDE * W):
            s = block_of(zero)
            for d in range(D):
                s = add_outer(s, splat_side(nu, k * D + d, D), load_side(z, d * T + i, W))
            store_block(q, k * T + i, T, W, s)


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
