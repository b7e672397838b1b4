"""Rows with gaps, one after the other: eight components in the lanes of a vector.

A row's gaps are the same for all components, so vectors run over components and not over rows,
and it does not matter how many patterns of gaps there are. For the missing features m and the
observed ones o of a row, with Λ the precision of a component, and d = x - μ,

    x̂_m - μ_m = -Λ_mm⁻¹ Λ_mo d_o     the conditional mean,
    C_m = Λ_mm⁻¹                      the conditional covariance,
    log N(x_o) = log N(x̂) + M/2 log 2π - ½ log |Λ_mm|,

where x̂ is the row with its gaps filled: the squared distance of x_o under the marginal is that of
x̂, the least over x_m. So a few rows of Λ and a Cholesky factor of Λ_mm are all that depends on
the pattern. Rows come sorted by pattern (a run), and a run's factors are made once, and let go.

Arrays are flat and float64. Tables of K components are in groups of eight, padded: value k of
entry e is at ``((k // 8) * E + e) * 8 + k % 8`` of E entries. D is padded to a multiple of 4.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from streamgmm.kernels.compiled import compiled
from streamgmm.kernels.elementary import exp, log
from streamgmm.kernels.normalisation import RESP_FLOOR
from streamgmm.kernels.shuffles import total
from streamgmm.kernels.vectors import (
    add,
    at_least,
    at_most,
    div,
    fma,
    load,
    mul,
    splat,
    sqrt,
    store,
    sub,
    zero_below,
)

LANES = 8
LOG_2PI = math.log(2 * math.pi)
FAR = 1e300


@njit(nogil=True)
def factor(prec: Any, b: int, D: int, gone: Any, M: int, L: Any, C: Any) -> Any:
    """Cholesky factor L of Λ_mm with inverses on its diagonal, and C = Λ_mm⁻¹: (M, M) each.

    Gives Σ log L_ii, for eight components.
    """
    zero = splat(0.0)
    one = splat(1.0)
    logs = zero
    base = b * D * D
    for i in range(M):
        for j in range(i + 1):
            s = load(prec, (base + gone[i] * D + gone[j]) * LANES)
            for p in range(j):
                s = sub(s, mul(load(L, (i * D + p) * LANES), load(L, (j * D + p) * LANES)))
            if i == j:
                root = sqrt(s)
                logs = add(logs, log(root))
                store(L, (i * D + i) * LANES, div(one, root))
            else:
                store(L, (i * D + j) * LANES, mul(s, load(L, (j * D + j) * LANES)))
    # Column j of L⁻¹ into the upper triangle of C, then C = L⁻ᵀ L⁻¹.
    for j in range(M):
        store(C, (j * D + j) * LANES, load(L, (j * D + j) * LANES))
        for i in range(j + 1, M):
            s = zero
            for p in range(j, i):
                s = fma(load(L, (i * D + p) * LANES), load(C, (j * D + p) * LANES), s)
            store(C, (j * D + i) * LANES, mul(sub(zero, s), load(L, (i * D + i) * LANES)))
    for i in range(M):
        for j in range(i, M):
            s = zero
            for p in range(j, M):
                s = fma(load(C, (i * D + p) * LANES), load(C, (j * D + p) * LANES), s)
            store(C, (i * D + j) * LANES, s)
    for i in range(M):
        for j in range(i):
            store(C, (i * D + j) * LANES, load(C, (j * D + i) * LANES))
    return logs


@njit(nogil=True)
def complete(
    X: Any, row: int, means: Any, prec: Any, b: int, D: int, gone: Any, M: int, kept: Any, O: int,
    L: Any, g: Any, off: Any,
) -> None:  # fmt: skip
    """x̂ - μ of one row and eight components into `off`; infinity becomes NaN."""
    zero = splat(0.0)
    for at in range(O):
        d = kept[at]
        x = np.float64(X[row, d])
        x += x - x
        store(off, (b * D + d) * LANES, sub(splat(x), load(means, (b * D + d) * LANES)))
    for i in range(M):
        s = zero
        line = (b * D + gone[i]) * D
        for at in range(O):
            d = kept[at]
            s = fma(load(prec, (line + d) * LANES), load(off, (b * D + d) * LANES), s)
        for p in range(i):
            s = sub(s, mul(load(L, (i * D + p) * LANES), load(g, p * LANES)))
        store(g, i * LANES, mul(s, load(L, (i * D + i) * LANES)))
    for back in range(M):
        i = M - 1 - back
        s = load(g, i * LANES)
        for p in range(i + 1, M):
            s = sub(s, mul(load(L, (p * D + i) * LANES), load(g, p * LANES)))
        s = mul(s, load(L, (i * D + i) * LANES))
        store(g, i * LANES, s)
        store(off, (b * D + gone[i]) * LANES, sub(zero, s))


@njit(nogil=True)
def squares(chol: Any, b: int, D: int, off: Any) -> Any:
    """|A off|² of eight components, four columns of the triangular factor at a time."""
    q = splat(0.0)
    for j in range(0, D, 4):
        z0 = splat(0.0)
        z1, z2, z3 = z0, z0, z0
        for d in range(j + 4):
            x = load(off, (b * D + d) * LANES)
            at = ((b * D + d) * D + j) * LANES
            z0 = fma(load(chol, at), x, z0)
            z1 = fma(load(chol, at + LANES), x, z1)
            z2 = fma(load(chol, at + 2 * LANES), x, z2)
            z3 = fma(load(chol, at + 3 * LANES), x, z3)
        q = fma(z3, z3, fma(z2, z2, fma(z1, z1, fma(z0, z0, q))))
    return at_most(q, splat(FAR))


@njit(nogil=True)
def share(joint: Any, B: int, hard: bool, resp: Any) -> Any:
    """Responsibilities of a row from log π_k p(x): its log-density, entropy and label."""
    top = joint[0]
    label = 0
    for k in range(1, B * LANES):
        if joint[k] > top or joint[k] != joint[k]:
            top = joint[k]
            label = k
    lanes_s = splat(0.0)
    lanes_h = splat(0.0)
    for b in range(B):
        below = at_least(sub(load(joint, b * LANES), splat(top)), splat(-708.0))
        e = exp(below)
        store(resp, b * LANES, e)
        lanes_s = add(lanes_s, e)
        lanes_h = fma(e, below, lanes_h)
    s = total(lanes_s)
    log_s = math.log(s)
    entropy = log_s - total(lanes_h) / s
    tiny = splat(s * RESP_FLOOR)
    inverse = splat(1.0 / s)
    for b in range(B):
        store(resp, b * LANES, mul(zero_below(load(resp, b * LANES), tiny), inverse))
    if hard and top == top:
        for k in range(B * LANES):
            resp[k] = 0.0
        resp[label] = 1.0
        entropy = 0.0
    return top + log_s, entropy, label


@njit(nogil=True)
def add_row(
    off: Any, shift: Any, resp: Any, w: float, B: int, D: int,
    n: Any, mass: Any, s1: Any, s2: Any,
) -> None:  # fmt: skip
    """Add r, r y and the lower triangle of r y yᵀ, with y = x̂ - c; `off` is left as y."""
    for b in range(B):
        r = mul(load(resp, b * LANES), splat(w))
        if total(r) == 0.0:
            continue
        store(n, b * LANES, add(load(n, b * LANES), r))
        store(mass, b * LANES, add(load(mass, b * LANES), r))
        for d in range(D):
            at = (b * D + d) * LANES
            y = add(load(off, at), load(shift, at))
            store(off, at, y)
            ry = mul(r, y)
            store(s1, at, add(load(s1, at), ry))
            line = (b * D + d) * D * LANES
            for j in range(d + 1):
                to = line + j * LANES
                store(s2, to, fma(ry, load(off, (b * D + j) * LANES), load(s2, to)))


@njit(nogil=True)
def add_run(
    mass: Any, spread: Any, entropies: Any, B: int, D: int, gone: Any, M: int,
    s2: Any, hidden: Any,
) -> None:  # fmt: skip
    """Add what the missing values of a run spread about their means, and their entropy."""
    for b in range(B):
        r = load(mass, b * LANES)
        store(hidden, b * LANES, fma(r, load(entropies, b * LANES), load(hidden, b * LANES)))
        for i in range(M):
            for j in range(i + 1):
                to = ((b * D + gone[i]) * D + gone[j]) * LANES
                c = load(spread, ((b * D + i) * D + j) * LANES)
                store(s2, to, fma(r, c, load(s2, to)))


@njit(nogil=True)
def fill_row(
    row: int, off: Any, means: Any, spread: Any, resp: Any, B: int, D: int, gone: Any, M: int,
    filled: Any, variance: Any,
) -> None:  # fmt: skip
    """Mean and variance of the missing values of a row, over all components."""
    for i in range(M):
        d = gone[i]
        s = splat(0.0)
        for b in range(B):
            at = (b * D + d) * LANES
            s = fma(load(resp, b * LANES), add(load(means, at), load(off, at)), s)
        mean = total(s)
        filled[row, d] = mean
        if variance.shape[0] == 0:
            continue
        s = splat(0.0)
        for b in range(B):
            at = (b * D + d) * LANES
            gap = sub(add(load(means, at), load(off, at)), splat(mean))
            own = fma(gap, gap, load(spread, ((b * D + i) * D + i) * LANES))
            s = fma(load(resp, b * LANES), own, s)
        variance[row, d] = total(s)


@compiled
def full_gaps(
    X: Any, weight: Any, order: Any, starts: Any, seen: Any,
    means: Any, prec: Any, chol: Any, const: Any, shift: Any, hard: bool, sums: bool,
    totals: Any, n: Any, s1: Any, s2: Any, hidden: Any,
    log_density: Any, labels: Any, resp_out: Any, filled: Any, variance: Any,
) -> None:  # fmt: skip
    """Rows ``order`` of X (n, d), in R runs of one pattern: ``starts`` (R + 1,), ``seen`` (R, d).

    With `sums`, adds to `totals` (log-likelihood, entropy), `n`, `s1`, `s2` (lower triangles) and
    `hidden`, the entropy of the missing values. Outputs of no rows are not written; `filled`
    and `variance` (n, d) are written where values are missing.
    """
    width = X.shape[1]
    B = const.shape[0] // LANES
    D = means.shape[0] // (B * LANES)
    L = np.empty(B * D * D * LANES)
    spread = np.empty(B * D * D * LANES)
    g = np.empty(D * LANES)
    off = np.zeros(B * D * LANES)
    own = np.empty(B * LANES)
    entropies = np.empty(B * LANES)
    joint = np.empty(B * LANES)
    resp = np.empty(B * LANES)
    mass = np.empty(B * LANES)
    gone = np.empty(D, np.int64)
    kept = np.empty(D, np.int64)
    size = D * D * LANES
    for run in range(starts.shape[0] - 1):
        M = 0
        O = 0
        for d in range(width):
            if seen[run, d]:
                kept[O] = d
                O += 1
            else:
                gone[M] = d
                M += 1
        for b in range(B):
            logs = factor(
                prec,
                b,
                D,
                gone,
                M,
                L[b * size : (b + 1) * size],
                spread[b * size : (b + 1) * size],
            )
            store(own, b * LANES, sub(add(load(const, b * LANES), splat(0.5 * M * LOG_2PI)), logs))
            store(entropies, b * LANES, sub(splat(0.5 * M * (LOG_2PI + 1.0)), logs))
        mass[:] = 0.0
        for at in range(starts[run], starts[run + 1]):
            row = order[at]
            for b in range(B):
                complete(
                    X, row, means, prec, b, D, gone, M, kept, O,
                    L[b * size : (b + 1) * size], g, off,
                )  # fmt: skip
                q = squares(chol, b, D, off)
                store(joint, b * LANES, fma(q, splat(-0.5), load(own, b * LANES)))
            density, entropy, label = share(joint, B, hard, resp)
            if log_density.shape[0] > 0:
                log_density[row] = density
            if labels.shape[0] > 0:
                labels[row] = label
            if resp_out.shape[0] > 0:
                for k in range(resp_out.shape[1]):
                    resp_out[row, k] = resp[k]
            if filled.shape[0] > 0:
                fill_row(row, off, means, spread, resp, B, D, gone, M, filled, variance)
            if sums:
                w = weight[row] if weight.shape[0] > 0 else 1.0
                if w == 0.0:
                    continue
                totals[0] += w * density
                totals[1] += w * entropy
                add_row(off, shift, resp, w, B, D, n, mass, s1, s2)
        if sums:
            add_run(mass, spread, entropies, B, D, gone, M, s2, hidden)


@compiled
def diag_gaps(
    X: Any, weight: Any, order: Any,
    means: Any, chol: Any, const: Any, drop: Any, centres: Any, hard: bool, sums: bool,
    totals: Any, n: Any, s1: Any, s2: Any, unseen: Any,
    log_density: Any, labels: Any, resp_out: Any, filled: Any, variance: Any,
) -> None:  # fmt: skip
    """As `full_gaps`, where features are independent: gaps are left out, in any order of rows.

    `chol` are 1/σ, `drop` what a gap adds to the log-density, ½ log 2π + log σ. `unseen` gets
    the weight of the gaps of each component and feature; sums are over what was observed.
    """
    width = X.shape[1]
    B = const.shape[0] // LANES
    D = means.shape[0] // (B * LANES)
    joint = np.empty(B * LANES)
    resp = np.empty(B * LANES)
    for at in range(order.shape[0]):
        row = order[at]
        for b in range(B):
            q = splat(0.0)
            c = load(const, b * LANES)
            for d in range(width):
                x = np.float64(X[row, d])
                e = (b * D + d) * LANES
                if x == x:
                    x += x - x
                    z = mul(sub(splat(x), load(means, e)), load(chol, e))
                    q = fma(z, z, q)
                else:
                    c = add(c, load(drop, e))
            store(joint, b * LANES, fma(at_most(q, splat(FAR)), splat(-0.5), c))
        density, entropy, label = share(joint, B, hard, resp)
        if log_density.shape[0] > 0:
            log_density[row] = density
        if labels.shape[0] > 0:
            labels[row] = label
        if resp_out.shape[0] > 0:
            for k in range(resp_out.shape[1]):
                resp_out[row, k] = resp[k]
        if filled.shape[0] > 0:
            for d in range(width):
                if X[row, d] == X[row, d]:
                    continue
                s = splat(0.0)
                for b in range(B):
                    s = fma(load(resp, b * LANES), load(means, (b * D + d) * LANES), s)
                mean = total(s)
                filled[row, d] = mean
                if variance.shape[0] == 0:
                    continue
                s = splat(0.0)
                for b in range(B):
                    e = (b * D + d) * LANES
                    sigma = div(splat(1.0), load(chol, e))
                    gap = sub(load(means, e), splat(mean))
                    s = fma(load(resp, b * LANES), fma(gap, gap, mul(sigma, sigma)), s)
                variance[row, d] = total(s)
        if not sums:
            continue
        w = weight[row] if weight.shape[0] > 0 else 1.0
        if w == 0.0:
            continue
        totals[0] += w * density
        totals[1] += w * entropy
        for b in range(B):
            r = mul(load(resp, b * LANES), splat(w))
            if total(r) == 0.0:
                continue
            store(n, b * LANES, add(load(n, b * LANES), r))
            for d in range(width):
                x = np.float64(X[row, d])
                e = (b * D + d) * LANES
                if x == x:
                    y = sub(splat(x), load(centres, e))
                    ry = mul(r, y)
                    store(s1, e, add(load(s1, e), ry))
                    store(s2, e, fma(ry, y, load(s2, e)))
                else:
                    store(unseen, e, add(load(unseen, e), r))
