"""Stepwise EM over one batch: E-step, blend, M-step, again and again without leaving the machine.

    s ← (1 - γ) s + γ s̄(rows of the step),    θ ← M(s)        (Cappé & Moulines 2009, eqs. 10-11)

`s` is held as centred moments whose weights sum to one, so that the blend is a merge of two
sets of rows (Chan, Golub & LeVeque 1983) and loses no digit to the offset of the data. Arrays
of the state are (K,), (K, D) and (K, D, D), or (K, D) where features are independent; they are
changed in place, on copies that the caller made. Tiles are float64. Loops, not slices: to
assign one array to another costs Numba a second to compile, most of it for the error message.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from streamgmm.kernels.compiled import compiled
from streamgmm.kernels.drivers import diag_sums, full_sums

EMPTY = 1e-200  # weight below which a component has no statistics left, only its parameters
LOG_2PI = math.log(2.0 * math.pi)


@compiled
def blend(
    keep: float, n: Any, m: Any, s: Any, gain: float, n2: Any, m2: Any, s2: Any, wide: bool
) -> None:
    """Merge moments scaled by `keep` with others scaled by `gain`, into the first.

    Scatters are flat: (K·D·D,) where `wide`, else (K·D,).
    """
    K, D = m.shape
    shift = np.empty(D)
    for k in range(K):
        a = keep * n[k]
        b = gain * n2[k]
        total = a + b
        if b > 0.0:
            share = b / total
            for d in range(D):
                shift[d] = m2[k, d] - m[k, d]
                m[k, d] = m2[k, d] if a == 0.0 else m[k, d] + share * shift[d]
            spread = a * share
            if wide:
                for i in range(D):
                    at = (k * D + i) * D
                    lift = spread * shift[i]
                    for j in range(D):
                        s[at + j] = keep * s[at + j] + gain * s2[at + j] + lift * shift[j]
            else:
                at = k * D
                for i in range(D):
                    lift = spread * shift[i] * shift[i]
                    s[at + i] = keep * s[at + i] + gain * s2[at + i] + lift
        else:
            size = D * D if wide else D
            for i in range(k * size, k * size + size):
                s[i] *= keep
        n[k] = total


@compiled
def centre_sums(
    centres: Any, n: Any, first: Any, second: Any, D: int, P: int, wide: bool, m: Any, s: Any
) -> None:
    """Moments about their own mean from padded sums about `centres` (K·P,)."""
    K = n.shape[0]
    shift = np.empty(D)
    for k in range(K):
        inverse = 1.0 / n[k] if n[k] > 0.0 else 0.0
        for d in range(D):
            shift[d] = first[k * P + d] * inverse
            m[k, d] = centres[k * P + d] + shift[d]
        if wide:
            for i in range(D):
                lift = n[k] * shift[i]
                for j in range(i + 1):
                    value = second[(k * P + i) * P + j] - lift * shift[j]
                    s[(k * D + i) * D + j] = value
                    s[(k * D + j) * D + i] = value
        else:
            for i in range(D):
                s[k * D + i] = second[k * P + i] - n[k] * shift[i] * shift[i]


@compiled
def inverse_root(C: Any, D: int, chol: Any, at: int, P: int) -> float:
    """Upper triangular A with A Aᵀ = C⁻¹ into ``chol[at:]``, rows of P; gives log |A|.

    `C` (D, D) becomes its Cholesky factor U, C = UᵀU. NaN where C is not positive definite.
    """
    log_det = 0.0
    for j in range(D):
        if not C[j, j] > 0.0:
            return math.nan
        root = math.sqrt(C[j, j])
        log_det -= math.log(root)
        for i in range(j, D):
            C[j, i] /= root
        for i in range(j + 1, D):
            c = C[j, i]
            for l in range(i, D):
                C[i, l] -= c * C[j, l]
    for i in range(D - 1, -1, -1):
        row = at + i * P
        for l in range(i, D):
            chol[row + l] = 0.0
        for j in range(i + 1, D):
            c = C[i, j]
            other = at + j * P
            for l in range(j, D):
                chol[row + l] -= c * chol[other + l]
        inverse = 1.0 / C[i, i]
        for l in range(i + 1, D):
            chol[row + l] *= inverse
        chol[row + i] = inverse
    return log_det


@compiled
def maximize_full(
    n: Any, m: Any, s: Any, reg: float, pooled: bool,
    covariances: Any, means: Any, chol: Any, const: Any, P: int,
) -> int:  # fmt: skip
    """M-step into padded `means` (K·P,), `chol` (K·P·P,) and `const`; -1, or a singular component.

    `pooled`: one covariance for all components, the sum of their scatters.
    """
    K, D = m.shape
    C = np.empty((D, D))
    total = n.sum()
    shared = 0.0
    for k in range(K):
        if pooled and k > 0:
            log_det = shared
            for i in range(D):
                for j in range(D):
                    covariances[k].flat[i * D + j] = covariances[0].flat[i * D + j]
            for i in range(P * P):
                chol[k * P * P + i] = chol[i]
        elif pooled or n[k] > EMPTY:
            if pooled:
                for i in range(D):
                    for j in range(D):
                        C[i, j] = 0.0
                for c in range(K):
                    for i in range(D):
                        for j in range(D):
                            C[i, j] += s[(c * D + i) * D + j]
                inverse = 1.0 / total
            else:
                for i in range(D):
                    for j in range(D):
                        C[i, j] = s[(k * D + i) * D + j]
                inverse = 1.0 / n[k]
            for i in range(D):
                for j in range(D):
                    C[i, j] *= inverse
                C[i, i] += reg
                for j in range(D):
                    covariances[k].flat[i * D + j] = C[i, j]
            log_det = inverse_root(C, D, chol, k * P * P, P)
            if not math.isfinite(log_det):
                return k
            shared = log_det
        else:
            log_det = 0.0
            for d in range(D):
                log_det += math.log(chol[(k * P + d) * P + d])
        if n[k] > EMPTY:
            for d in range(D):
                means[k * P + d] = m[k, d]
        weight = n[k] / total
        log_weight = math.log(weight) if weight > 0.0 else -math.inf
        const[k] = log_weight - 0.5 * D * LOG_2PI + log_det
    return -1


@compiled
def maximize_diag(
    n: Any, m: Any, s: Any, reg: float, pooled: bool,
    covariances: Any, means: Any, chol: Any, const: Any, P: int,
) -> int:  # fmt: skip
    """As `maximize_full` for variances (K, D); `pooled` over the features of a component."""
    K, D = m.shape
    total = n.sum()
    for k in range(K):
        log_det = 0.0
        if n[k] > EMPTY:
            mean = 0.0
            for d in range(D):
                mean += s[k * D + d] / n[k]
            for d in range(D):
                variance = (mean / D if pooled else s[k * D + d] / n[k]) + reg
                if not (variance > 0.0 and variance < math.inf):
                    return k
                covariances[k, d] = variance
                chol[k * P + d] = 1.0 / math.sqrt(variance)
            for d in range(D):
                means[k * P + d] = m[k, d]
        for d in range(D):
            log_det += math.log(chol[k * P + d])
        weight = n[k] / total
        log_weight = math.log(weight) if weight > 0.0 else -math.inf
        const[k] = log_weight - 0.5 * D * LOG_2PI + log_det
    return -1


@compiled
def steps(
    X: Any, weight: Any, edges: Any, gains: Any, shares: Any, pooled: bool, reg: float,
    n: Any, m: Any, s: Any, an: Any, am: Any, asc: Any,
    covariances: Any, means: Any, chol: Any, const: Any,
    far: Any, P: int, T: int, W: int, work: Any, rows: Any, scores: Any,
) -> int:  # fmt: skip
    """Learn the rows ``edges[i]:edges[i + 1]`` in step i; -1, or a component that is singular.

    `gains` γ of each step; `shares` how much of the average (an, am, asc) each step's statistics
    become, 0 for no average. `scores` gets the weighted log-likelihood of each step's rows
    before they were learned, in nats.

    Covariances (K, D, D) are full, (K, D) those of independent features. The number of dimensions
    is known to the compiler, so only the kernels of one of the two are compiled.
    """
    K, D = m.shape
    wide = covariances.ndim == 3
    size = P * P if wide else P
    ref = np.zeros(D)
    near = np.zeros(K, np.bool_)
    bn = np.empty(K)
    bm = np.empty((K, D))
    bs = np.empty(K * D * (D if wide else 1))
    first = np.empty((K + 1) * P)
    second = np.empty(K * size)
    totals = np.empty(2)
    for i in range(gains.shape[0]):
        a, b = edges[i], edges[i + 1]
        part = weight[a:b] if weight.shape[0] > 0 else weight
        totals[:] = 0.0
        bn[:] = 0.0
        first[:] = 0.0
        second[:] = 0.0
        if covariances.ndim == 3:
            full_sums(
                X[a:b], part, ref, means, chol, const, means, near,
                far, P, T, W, work, rows, totals, bn, first, second,
            )  # fmt: skip
        else:
            diag_sums(
                X[a:b], part, ref, means, chol, const, means,
                far, P, T, W, work, rows, totals, bn, first, second,
            )  # fmt: skip
        scores[i] = totals[0]
        mass = bn.sum()
        if not mass > 0.0:
            continue
        centre_sums(means, bn, first, second, D, P, wide, bm, bs)
        blend(1.0 - gains[i], n, m, s, gains[i] / mass, bn, bm, bs, wide)
        if shares[i] > 0.0:
            blend(1.0 - shares[i], an, am, asc, shares[i], n, m, s, wide)
        if covariances.ndim == 3:
            bad = maximize_full(n, m, s, reg, pooled, covariances, means, chol, const, P)
        else:
            bad = maximize_diag(n, m, s, reg, pooled, covariances, means, chol, const, P)
        if bad >= 0:
            return int(bad)
    return -1
