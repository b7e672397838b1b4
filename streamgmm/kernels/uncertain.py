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

from typing import Any

from streamgmm.kernels.compiled import compiled, inner
from streamgmm.kernels.deconvolution import (
    BLOCK,
    KEPT,
    W,
    add_moments,
    factor,
    factor_diag,
    load_strip,
    open_rows,
    shrink,
)
from streamgmm.kernels.normalisation import normalize
from streamgmm.kernels.shuffles import total
from streamgmm.kernels.vectors import (
    at_most,
    fma,
    load,
    mul,
    splat,
    store,
    sub,
)


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


@inner
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


@inner
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
