"""E-steps of Gaussians for rows with errors: a covariance for every row and component.

    T_nk = Σ_k + S_n = L Lᵀ,  Σ_k = C Cᵀ,  z = L⁻¹ (x_n - μ_k),  M = L⁻¹ C,  y = Mᵀ z

The true value of a row under component k has mean μ_k + C y and covariance C (I - Mᵀ M) Cᵀ
(Bovy, Hogg & Roweis 2011, eqs. 12-13). Sums are of y and of I - Mᵀ M + y yᵀ, in units of the
component, so that they keep their digits where features are strongly correlated. Where there is
no noise M is the identity, and the sums are those of the ordinary E-step; where a variance is
infinite the feature's row of L⁻¹ is zero, and it has no part in the row.

Eight rows at a time are held feature by feature, one in each lane of a vector.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from streamgmm.kernels.compiled import compiled
from streamgmm.kernels.elementary import log
from streamgmm.kernels.normalisation import normalize
from streamgmm.kernels.shuffles import total
from streamgmm.kernels.vectors import (
    add,
    add_outer,
    at_most,
    div,
    fma,
    load,
    load_four,
    mul,
    sixteen,
    splat,
    splat_four,
    sqrt,
    store,
    store_four,
    sub,
)

W = 8
BLOCK = 16 * W
KEPT = 1 << 17
"""Values of factors up to which those of all components are kept for the second half."""

LOG_2PI = math.log(2 * math.pi)


def scratch_size(K: int, D: int) -> int:
    """Values that a call of a kernel works in."""
    D4 = -(-D // 4) * 4
    factors = (D + 4) * D * W
    kept = K if K * factors <= KEPT else 1
    return kept * (factors + D * W) + (2 + D) * D * W + D * D4 * W + 2 * D4 * W + 2 * K * W + 4 * W


def sums_size(D: int) -> int:
    """Values of the second sums of one component: 4 × 4 blocks of the lower triangle."""
    n = -(-D // 4)
    return n * (n + 1) // 2 * BLOCK


@njit(nogil=True)
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


@njit(nogil=True)
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
            store_four(
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


@njit(nogil=True)
def shrink(L: Any, inv: Any, D: int, D4: int, chol: Any, k: int, M: Any, y: Any) -> None:
    """M = L⁻¹ C and y = Mᵀ z; `chol` (K·D·D4,) holds C row by row, padded."""
    zero = splat(0.0)
    step = D * W
    for i in range(D):
        inverse = load(inv, i * W)
        for j in range(0, D4, 4):
            if j > i:
                store_four(M, (i * D4 + j) * W, W, (zero, zero, zero, zero))
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
            store_four(M, (i * D4 + j) * W, W, a)
    for j in range(0, D4, 4):
        a0, a1, a2, a3 = zero, zero, zero, zero
        for i in range(j, D):
            z = load(L, D * step + i * W)
            b0, b1, b2, b3 = load_four(M, (i * D4 + j) * W, W)
            a0 = fma(z, b0, a0)
            a1 = fma(z, b1, a1)
            a2 = fma(z, b2, a2)
            a3 = fma(z, b3, a3)
        store_four(y, j * W, W, (a0, a1, a2, a3))


@njit(nogil=True)
def add_four(sums: Any, at: int, r: Any, values: Any) -> None:
    """Add r times four vectors to four neighbouring ones."""
    s0, s1, s2, s3 = load_four(sums, at, W)
    v0, v1, v2, v3 = values
    store_four(sums, at, W, (fma(r, v0, s0), fma(r, v1, s1), fma(r, v2, s2), fma(r, v3, s3)))


@njit(nogil=True)
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


@njit(nogil=True)
def open_rows(gs: Any, D: int) -> Any:
    """log 2π of every value of a strip that is not known."""
    free = splat(0.0)
    one = splat(1.0)
    each = splat(LOG_2PI)
    for d in range(D):
        free = fma(sub(one, load(gs, d * W)), each, free)
    return free


@njit(nogil=True)
def harden(q: Any, K: int, const: Any, wt: Any, resp: Any, entropy: Any) -> None:
    """Give each row to its likeliest component alone."""
    for i in range(W):
        best = 0
        top = const[0] - 0.5 * q[i]
        for k in range(1, K):
            value = const[k] - 0.5 * q[k * W + i]
            if value > top:
                top = value
                best = k
        for k in range(K):
            resp[k * W + i] = wt[i] if k == best else 0.0
        entropy[i] = 0.0


@njit(nogil=True)
def add_totals_of(
    density: Any, entropy: Any, wt: Any, n: int, q: Any, resp: Any, K: int,
    totals: Any, mass: Any, squares: Any,
) -> None:  # fmt: skip
    """Add a strip to the log-likelihood and the entropy, and to Σ r and Σ r q of components."""
    for i in range(n):
        if wt[i] != 0.0:
            totals[0] += density[i] * wt[i]
            totals[1] += entropy[i] * wt[i]
    for k in range(K):
        for i in range(n):
            r = resp[k * W + i]
            if r != 0.0:
                mass[k] += r
                squares[k] += r * q[k * W + i]


@compiled
def full_uncertain_sums(
    X: Any, weight: Any, D: int, wide: bool, hard: bool, far: float,
    means: Any, cov: Any, chol: Any, const: Any, work: Any,
    totals: Any, mass: Any, squares: Any, first_sums: Any, second_sums: Any,
) -> None:  # fmt: skip
    """Add rows [x | s] to sums that have a lane for each of eight rows.

    `totals` (log-likelihood, entropy), `mass` Σ r (K,), `squares` Σ r (z·z + log |T|) (K,),
    `first_sums` Σ r y (K·D4·8,), `second_sums` Σ r (Mᵀ M - y yᵀ) (K·sums_size,).
    """
    K = const.shape[0]
    D4 = (D + 3) // 4 * 4
    size = (D + 4) * D * W
    kept = K * size <= KEPT
    many = K if kept else 1
    Ls = work[: many * size]
    invs = work[many * size : many * (size + D * W)]
    at = many * (size + D * W)
    xs = work[at : at + D * W]
    gs = work[at + D * W : at + 2 * D * W]
    ss = work[at + 2 * D * W : at + (2 + D) * D * W]
    at += (2 + D) * D * W
    M = work[at : at + D * D4 * W]
    at += D * D4 * W
    y = work[at : at + D4 * W]
    at += 2 * D4 * W
    q = work[at : at + K * W]
    resp = work[at + K * W : at + 2 * K * W]
    at += 2 * K * W
    wt = work[at : at + W]
    density = work[at + W : at + 2 * W]
    entropy = work[at + 2 * W : at + 3 * W]
    block = second_sums.shape[0] // K
    Ls[:] = 0.0
    for start in range(0, X.shape[0], W):
        n = min(W, X.shape[0] - start)
        load_strip(X, start, n, D, wide, xs, ss, gs)
        for i in range(W):
            wt[i] = 0.0 if i >= n else weight[start + i] if weight.shape[0] > 0 else 1.0
        free = open_rows(gs, D)
        for k in range(K):
            to = k if kept else 0
            L = Ls[to * size :]
            inv = invs[to * D * W :]
            found = factor(xs, ss, gs, D, wide, means, cov, k, L, inv)
            store(q, k * W, at_most(sub(found, free), splat(far)))
        normalize(q, K, W, const, wt, resp, density, entropy)
        if hard:
            harden(q, K, const, wt, resp, entropy)
        add_totals_of(density, entropy, wt, n, q, resp, K, totals, mass, squares)
        for k in range(K):
            r = load(resp, k * W)
            if total(r) != 0.0:
                to = k if kept else 0
                L = Ls[to * size :]
                inv = invs[to * D * W :]
                if not kept:
                    factor(xs, ss, gs, D, wide, means, cov, k, L, inv)
                shrink(L, inv, D, D4, chol, k, M, y)
                add_moments(M, y, D, D4, r, first_sums, k * D4 * W, second_sums, k * block)


@njit(nogil=True)
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


@compiled
def diag_uncertain_sums(
    X: Any, weight: Any, D: int, hard: bool, far: float,
    means: Any, cov: Any, const: Any, work: Any,
    totals: Any, mass: Any, squares: Any, first_sums: Any, second_sums: Any,
) -> None:  # fmt: skip
    """As `full_uncertain_sums`, of variances (K·D,) and independent noise.

    `first_sums` are Σ r b and `second_sums` Σ r (b² + B), both (K·D·8,), where b is the mean of
    the true value less μ and B its variance.
    """
    K = const.shape[0]
    xs = work[: D * W]
    gs = work[D * W : 2 * D * W]
    ss = work[2 * D * W : 3 * D * W]
    inv = work[3 * D * W : 4 * D * W]
    zs = work[4 * D * W : 5 * D * W]
    at = 5 * D * W
    q = work[at : at + K * W]
    resp = work[at + K * W : at + 2 * K * W]
    at += 2 * K * W
    wt = work[at : at + W]
    density = work[at + W : at + 2 * W]
    entropy = work[at + 2 * W : at + 3 * W]
    one = splat(1.0)
    for start in range(0, X.shape[0], W):
        n = min(W, X.shape[0] - start)
        load_strip(X, start, n, D, False, xs, ss, gs)
        for i in range(W):
            wt[i] = 0.0 if i >= n else weight[start + i] if weight.shape[0] > 0 else 1.0
        free = open_rows(gs, D)
        for k in range(K):
            found = factor_diag(xs, ss, gs, D, means, cov, k, inv, zs)
            store(q, k * W, at_most(sub(found, free), splat(far)))
        normalize(q, K, W, const, wt, resp, density, entropy)
        if hard:
            harden(q, K, const, wt, resp, entropy)
        add_totals_of(density, entropy, wt, n, q, resp, K, totals, mass, squares)
        for k in range(K):
            r = load(resp, k * W)
            if total(r) != 0.0:
                factor_diag(xs, ss, gs, D, means, cov, k, inv, zs)
                for d in range(D):
                    at = (k * D + d) * W
                    variance = splat(cov[k * D + d])
                    y = mul(load(zs, d * W), variance)
                    g = load(gs, d * W)
                    # What noise leaves of the variance: σ² s / T, or all where nothing is known.
                    left = mul(load(ss, d * W), load(inv, d * W))
                    left = mul(variance, fma(g, left, sub(one, g)))
                    store(first_sums, at, fma(r, y, load(first_sums, at)))
                    store(second_sums, at, fma(r, fma(y, y, left), load(second_sums, at)))


@compiled
def uncertain_posterior(
    X: Any, D: int, wide: bool, far: float, means: Any, cov: Any, const: Any, work: Any,
    log_density: Any, labels: Any, resp_out: Any,
) -> None:  # fmt: skip
    """Log-density (N,), label (N,) int32 and responsibilities (N, K) of rows [x | s].

    An output of no rows is not written.
    """
    K = const.shape[0]
    size = (D + 4) * D * W
    L = work[:size]
    inv = work[size : size + D * W]
    at = size + D * W
    xs = work[at : at + D * W]
    gs = work[at + D * W : at + 2 * D * W]
    ss = work[at + 2 * D * W : at + (2 + D) * D * W]
    at += (2 + D) * D * W
    q = work[at : at + K * W]
    resp = work[at + K * W : at + 2 * K * W]
    at += 2 * K * W
    wt = work[at : at + W]
    density = work[at + W : at + 2 * W]
    entropy = work[at + 2 * W : at + 3 * W]
    L[:] = 0.0
    wt[:] = 1.0
    for start in range(0, X.shape[0], W):
        n = min(W, X.shape[0] - start)
        load_strip(X, start, n, D, wide, xs, ss, gs)
        free = open_rows(gs, D)
        for k in range(K):
            found = factor(xs, ss, gs, D, wide, means, cov, k, L, inv)
            store(q, k * W, at_most(sub(found, free), splat(far)))
        normalize(q, K, W, const, wt, resp, density, entropy)
        for i in range(n):
            if log_density.shape[0] > 0:
                log_density[start + i] = density[i]
            if labels.shape[0] > 0:
                best = 0
                for k in range(1, K):
                    if const[k] - 0.5 * q[k * W + i] > const[best] - 0.5 * q[best * W + i]:
                        best = k
                labels[start + i] = best
            if resp_out.shape[0] > 0:
                for k in range(K):
                    resp_out[start + i, k] = resp[k * W + i]


@compiled
def denoised(
    X: Any, D: int, wide: bool, far: float, means: Any, cov: Any, chol: Any, const: Any,
    work: Any, resp: Any, mean: Any, variance: Any,
) -> None:  # fmt: skip
    """Mean (N, D) and variance (N, D) of the true values of rows [x | s].

    `resp` (N, K) are the rows' responsibilities; a variance of no rows is not written.
    """
    K = resp.shape[1]
    D4 = (D + 3) // 4 * 4
    size = (D + 4) * D * W
    L = work[:size]
    inv = work[size : size + D * W]
    at = size + D * W
    xs = work[at : at + D * W]
    gs = work[at + D * W : at + 2 * D * W]
    ss = work[at + 2 * D * W : at + (2 + D) * D * W]
    at += (2 + D) * D * W
    M = work[at : at + D * D4 * W]
    at += D * D4 * W
    y = work[at : at + D4 * W]
    L[:] = 0.0
    for start in range(0, X.shape[0], W):
        n = min(W, X.shape[0] - start)
        load_strip(X, start, n, D, wide, xs, ss, gs)
        for i in range(n):
            for d in range(D):
                mean[start + i, d] = 0.0
        for again in range(2 if variance.shape[0] > 0 else 1):
            for i in range(n if again else 0):
                for d in range(D):
                    variance[start + i, d] = 0.0
            for k in range(K):
                factor(xs, ss, gs, D, wide, means, cov, k, L, inv)
                shrink(L, inv, D, D4, chol, k, M, y)
                for i in range(n):
                    r = resp[start + i, k]
                    if r == 0.0:
                        continue
                    for d in range(D):
                        moved = 0.0
                        for e in range(d + 1):
                            moved += chol[(k * D + d) * D4 + e] * y[e * W + i]
                        own = means[k * D + d] + moved
                        if again == 0:
                            mean[start + i, d] += r * own
                            continue
                        left = cov[(k * D + d) * D + d]
                        noise = ss[(d * (D + 1) if wide else d) * W + i]
                        if not wide and gs[d * W + i] == 1.0 and noise <= left:
                            left = _left_of_noise(L, inv, D, d, i, noise)
                        else:
                            for m in range(D):
                                c = 0.0
                                for e in range(min(m, d) + 1):
                                    c += M[(m * D4 + e) * W + i] * chol[(k * D + d) * D4 + e]
                                left -= c * c
                        off = own - mean[start + i, d]
                        variance[start + i, d] += r * (max(left, 0.0) + off * off)


@njit(nogil=True)
def _left_of_noise(L: Any, inv: Any, D: int, d: int, i: int, noise: float) -> float:
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


@compiled
def first_indefinite(X: Any, D: int) -> int:
    """The first of rows [x | S] whose matrix of noise is no covariance matrix; -1 if all are."""
    L = np.zeros((D, D))
    for row in range(X.shape[0]):
        for j in range(D):
            scale = X[row, D + j * (D + 1)]
            if scale < 0.0:  # not known
                L[j:, j] = 0.0
                L[j, :j] = 0.0
                continue
            for i in range(j, D):
                value = float(X[row, D + i * D + j])
                for m in range(j):
                    value -= L[i, m] * L[j, m]
                L[i, j] = value
            pivot = L[j, j]
            if pivot < -1e-6 * scale:
                return row
            small = pivot <= 1e-12 * scale
            root = 0.0 if small else math.sqrt(pivot)
            L[j, j] = root
            for i in range(j + 1, D):
                other = abs(X[row, D + i * (D + 1)])
                if small:
                    if L[i, j] * L[i, j] > 1e-5 * scale * other:
                        return row
                    L[i, j] = 0.0
                else:
                    L[i, j] /= root
    return -1
