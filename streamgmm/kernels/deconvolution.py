"""Eight rows with errors at a time: their factors, and what they say of true values.

The mathematics is in `streamgmm.kernels.uncertain`. Rows are held feature by feature, one in each
lane of a vector.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from streamgmm.kernels.blocks import (
    add_outer,
    load_four,
    sixteen,
    splat_four,
    store_each,
)
from streamgmm.kernels.compiled import inner
from streamgmm.kernels.elementary import log
from streamgmm.kernels.vectors import (
    add,
    div,
    fma,
    load,
    mul,
    splat,
    sqrt,
    store,
    sub,
)

W = 8
BLOCK = 16 * W
KEPT = 1 << 17
"""Values of factors up to which those of all components are kept for the second half."""

LOG_2PI = math.log(2 * math.pi)


@inner
def load_strip(X: Any, first: int, n: int, D: int, wide: bool, xs: Any, ss: Any, gs: Any) -> float:
    """Eight rows: values, noise, and which are known (1 or 0); rows beyond are zeros."""
    for r in range(W):
        row = first + r
        for d in range(D):
            if r < n:
                at = D + d * (D + 1) if wide else D + d
                known = X[row, at] >= 0.0
                gs[d * W + r] = 1.0 if known else 0.0
                xs[d * W + r] = X[row, d] if known else 0.0
            else:
                gs[d * W + r] = 1.0
                xs[d * W + r] = 0.0
        if wide:
            for e in range(D * D):
                ss[e * W + r] = X[row, D + e] if r < n else 0.0
            for d in range(D):
                if gs[d * W + r] == 0.0:
                    ss[d * (D + 1) * W + r] = 0.0
        else:
            for d in range(D):
                ss[d * W + r] = X[row, D + d] if r < n and gs[d * W + r] == 1.0 else 0.0
    return 0.0


@inner
def factor(
    xs: Any, ss: Any, gs: Any, D: int, wide: bool, means: Any, cov: Any, k: int, L: Any, inv: Any
) -> Any:
    """L of T_nk, with z as the row after its last; gives Σ z² + log |T| of what is known.

    `inv` are the inverses of the diagonal, zero where a value is not known.
    """
    zero = splat(0.0)
    one = splat(1.0)
    step = D * W
    for i in range(D):
        for j in range(i + 1):
            t = splat(cov[(k * D + i) * D + j])
            if wide:
                t = add(t, load(ss, (i * D + j) * W))
            elif i == j:
                t = add(t, load(ss, i * W))
            store(L, i * step + j * W, t)
        store(L, D * step + i * W, sub(load(xs, i * W), splat(means[k * D + i])))
    logs = zero
    product = one
    for j in range(D):
        at = j * W
        inverse = zero
        for i in range(j, D + 1, 4):
            a0, a1, a2, a3 = load_four(L, i * step + at, step)
            for m in range(j):
                c = sub(zero, load(L, j * step + m * W))
                b0, b1, b2, b3 = load_four(L, i * step + m * W, step)
                a0 = fma(c, b0, a0)
                a1 = fma(c, b1, a1)
                a2 = fma(c, b2, a2)
                a3 = fma(c, b3, a3)
            if i == j:
                g = load(gs, at)
                root = sqrt(a0)
                inverse = div(g, root)
                store(inv, at, inverse)
                product = mul(product, fma(g, root, sub(one, g)))
                a0 = root
            else:
                a0 = mul(a0, inverse)
            store_each(
                L, i * step + at, step, (a0, mul(a1, inverse), mul(a2, inverse), mul(a3, inverse))
            )
        if j % 4 == 3 or j == D - 1:
            logs = add(logs, log(product))
            product = one
    q = add(logs, logs)
    for j in range(D):
        z = load(L, D * step + j * W)
        q = fma(z, z, q)
    return q


@inner
def shrink(L: Any, inv: Any, D: int, D4: int, chol: Any, k: int, M: Any, y: Any) -> None:
    """M = L⁻¹ C and y = Mᵀ z; `chol` (K·D·D4,) holds C row by row, padded."""
    zero = splat(0.0)
    step = D * W
    for i in range(D):
        inverse = load(inv, i * W)
        for j in range(0, D4, 4):
            if j > i:
                store_each(M, (i * D4 + j) * W, W, (zero, zero, zero, zero))
                continue
            a0, a1, a2, a3 = splat_four(chol, (k * D + i) * D4 + j, 1)
            for m in range(j, i):
                c = sub(zero, load(L, i * step + m * W))
                b0, b1, b2, b3 = load_four(M, (m * D4 + j) * W, W)
                a0 = fma(c, b0, a0)
                a1 = fma(c, b1, a1)
                a2 = fma(c, b2, a2)
                a3 = fma(c, b3, a3)
            a = (mul(a0, inverse), mul(a1, inverse), mul(a2, inverse), mul(a3, inverse))
            store_each(M, (i * D4 + j) * W, W, a)
    for j in range(0, D4, 4):
        a0, a1, a2, a3 = zero, zero, zero, zero
        for i in range(j, D):
            z = load(L, D * step + i * W)
            b0, b1, b2, b3 = load_four(M, (i * D4 + j) * W, W)
            a0 = fma(z, b0, a0)
            a1 = fma(z, b1, a1)
            a2 = fma(z, b2, a2)
            a3 = fma(z, b3, a3)
        store_each(y, j * W, W, (a0, a1, a2, a3))


@inner
def add_four(sums: Any, at: int, r: Any, values: Any) -> None:
    """Add r times four vectors to four neighbouring ones."""
    s0, s1, s2, s3 = load_four(sums, at, W)
    v0, v1, v2, v3 = values
    store_each(sums, at, W, (fma(r, v0, s0), fma(r, v1, s1), fma(r, v2, s2), fma(r, v3, s3)))


@inner
def add_moments(
    M: Any, y: Any, D: int, D4: int, r: Any, first: Any, at1: int, second: Any, at2: int
) -> None:
    """Add r y to `first`, and r (Mᵀ M - y yᵀ) to the blocks of `second`, lane by lane."""
    zero = splat(0.0)
    for j in range(0, D4, 4):
        y0, y1, y2, y3 = load_four(y, j * W, W)
        add_four(first, at1 + j * W, r, (y0, y1, y2, y3))
        minus = (sub(zero, y0), sub(zero, y1), sub(zero, y2), sub(zero, y3))
        for e in range(0, j + 1, 4):
            p = add_outer(sixteen(zero), minus, load_four(y, e * W, W))
            for i in range(j, D):
                p = add_outer(
                    p, load_four(M, (i * D4 + j) * W, W), load_four(M, (i * D4 + e) * W, W)
                )
            add_four(second, at2, r, (p[0], p[1], p[2], p[3]))
            add_four(second, at2 + 4 * W, r, (p[4], p[5], p[6], p[7]))
            add_four(second, at2 + 8 * W, r, (p[8], p[9], p[10], p[11]))
            add_four(second, at2 + 12 * W, r, (p[12], p[13], p[14], p[15]))
            at2 += BLOCK


@inner
def open_rows(gs: Any, D: int) -> Any:
    """log 2π of every value of a strip that is not known."""
    free = splat(0.0)
    one = splat(1.0)
    each = splat(LOG_2PI)
    for d in range(D):
        free = fma(sub(one, load(gs, d * W)), each, free)
    return free


@inner
def factor_diag(
    xs: Any, ss: Any, gs: Any, D: int, means: Any, cov: Any, k: int, inv: Any, zs: Any
) -> Any:
    """Of variances (K·D,) and independent noise: 1 / T into `inv`, (x - μ) / T into `zs`.

    Gives Σ (x - μ)² / T + log |T|, of what is known.
    """
    one = splat(1.0)
    q = splat(0.0)
    product = one
    for d in range(D):
        at = d * W
        g = load(gs, at)
        t = add(load(ss, at), splat(cov[k * D + d]))
        inverse = div(g, t)
        x = sub(load(xs, at), splat(means[k * D + d]))
        z = mul(x, inverse)
        q = fma(x, z, q)
        store(inv, at, inverse)
        store(zs, at, z)
        product = mul(product, fma(g, t, sub(one, g)))
        if d % 2 == 1 or d == D - 1:
            q = add(q, log(product))
            product = one
    return q


@inner
def left_of_noise(L: Any, inv: Any, D: int, d: int, i: int, noise: float) -> float:
    """s - s² (T⁻¹)_dd of one row: the variance of its true value, exact where s is small."""
    step = D * W
    square = 0.0
    w = np.zeros(D)
    for a in range(d, D):
        value = 1.0 if a == d else 0.0
        for m in range(d, a):
            value -= L[a * step + m * W + i] * w[m]
        w[a] = value * inv[a * W + i]
        square += w[a] * w[a]
    return noise * (1.0 - noise * square)
