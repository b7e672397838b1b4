"""Sums over the rows of a tile.

Sums of products, which forgive more than distances, are about a centre that components near it
share.
"""

from __future__ import annotations

from typing import Any

from streamgmm.kernels.blocks import (
    SIDE,
    add_each,
    add_lower,
    add_outer,
    block_of,
    load_side,
    mul_each,
    side_of,
    store_each,
)
from streamgmm.kernels.compiled import inner
from streamgmm.kernels.shuffles import add_block_totals, add_totals, total
from streamgmm.kernels.vectors import add, fma, load, load64, mul, splat, sub, zeros


@inner
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


@inner
def dot(a: Any, base: int, b: Any, T: int) -> float:
    """Σ ``a[base + i] * b[i]`` over a tile, in float64."""
    s = splat(0.0)
    for i in range(0, T, 8):
        s = fma(load64(a, base + i), load64(b, i), s)
    return float(total(s))


@inner
def full_moments(
    xt: Any, D: int, T: int, k: int, resp: Any, base: int, y: Any, s1: Any, s2: Any, W: int
) -> None:
    """Add Σ r x to ``s1[k]`` and Σ r x xᵀ to the lower triangle of ``s2[k]``.

    The r are ``resp[base:base + T]``; `y` is scratch for four features of r x.
    """
    zero = zeros(xt)
    for a in range(0, D, SIDE):
        sums = side_of(zero)
        s = block_of(zero)
        for i in range(0, T, W):
            x = load_side(xt, a * T + i, T)
            rx = mul_each(x, load(resp, base + i))
            store_each(y, i, T, rx)
            sums = add_each(sums, rx)
            s = add_lower(s, rx, x)
        add_totals(s1, k * D + a, sums)
        add_block_totals(s2, (k * D + a) * D + a, D, s)
        for b in range(0, a, SIDE):
            s = block_of(zero)
            for i in range(0, T, W):
                s = add_outer(s, load_side(y, i, T), load_side(xt, b * T + i, T))
            add_block_totals(s2, (k * D + a) * D + b, D, s)


@inner
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
        add_totals(s1, c, (a0, a1, a2, a3))
        add_totals(s2, c, (b0, b1, b2, b3))


@inner
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
        add_totals(s1, c, (a0, a1, a2, a3))


@inner
def shared_sums(xt: Any, D: int, T: int, K: int, resp: Any, s1: Any, W: int) -> None:
    """Add Σ r x to ``s1[k]`` of every component; K is a multiple of 4."""
    zero = zeros(xt)
    for k in range(0, K, SIDE):
        for d in range(0, D, SIDE):
            s = block_of(zero)
            for i in range(0, T, W):
                s = add_outer(s, load_side(resp, k * T + i, T), load_side(xt, d * T + i, T))
            add_block_totals(s1, k * D + d, D, s)
