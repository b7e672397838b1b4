"""Rows with errors, one by one: their densities and components, their true values.

The mathematics is in `streamgmm.kernels.uncertain`, and so is the scratch that these work in.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from streamgmm.kernels.compiled import compiled
from streamgmm.kernels.deconvolution import W, factor, left_of_noise, load_strip, open_rows, shrink
from streamgmm.kernels.normalisation import normalize
from streamgmm.kernels.vectors import at_most, splat, store, sub


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
                            left = left_of_noise(L, inv, D, d, i, noise)
                        else:
                            for m in range(D):
                                c = 0.0
                                for e in range(min(m, d) + 1):
                                    c += M[(m * D4 + e) * W + i] * chol[(k * D + d) * D4 + e]
                                left -= c * c
                        off = own - mean[start + i, d]
                        variance[start + i, d] += r * (max(left, 0.0) + off * off)


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
