"""Weight, mean and scatter of groups of rows: those of a label, or all by responsibilities.

Each group is gone over twice: for its mean, about its first row, and for its moments about that
mean. So nothing is lost to the offset of the rows, nor to how far groups lie apart.
"""

from __future__ import annotations

from typing import Any

from streamgmm.kernels.compiled import compiled
from streamgmm.kernels.kmeans import inner
from streamgmm.kernels.kmeans_simd import gather_turned
from streamgmm.kernels.sums import diag_moments, full_moments
from streamgmm.kernels.vectors import fma, load, load64, splat, store, sub

FULL, TIED, DIAG = 0, 1, 2
LANES = 8


@compiled
def sort_rows(labels: Any, starts: Any, listed: Any) -> None:
    """Row numbers by label, in their order: group k is ``listed[starts[k]:starts[k + 1]]``.

    Rows whose label is none of ``range(K)`` are left out.
    """
    K = starts.shape[0] - 1
    for k in range(K + 1):
        starts[k] = 0
    for i in range(labels.shape[0]):
        if 0 <= labels[i] < K:
            starts[labels[i] + 1] += 1
    for k in range(K):
        starts[k + 1] += starts[k]
    for i in range(labels.shape[0]):
        if 0 <= labels[i] < K:
            listed[starts[labels[i]]] = i
            starts[labels[i]] += 1  # which is where the next group starts when all are in
    for k in range(K, 0, -1):
        starts[k] = starts[k - 1]
    starts[0] = 0


@inner
def gather_tile(X: Any, listed: Any, at: int, m: int, T: int, ref: Any, xt: Any) -> None:
    """Rows ``listed[at:at + m]`` less `ref`, feature by feature; zeros up to T."""
    D = X.shape[1]
    whole = m // 8 * 8 if D >= 8 else 0
    for i in range(0, whole, 8):
        for begin in range(0, D, 8):
            d = min(begin, D - 8)
            gather_turned(X, listed, at + i, ref, d, xt, d * T + i, T)
    for d in range(D):
        for i in range(whole, m):
            xt[d * T + i] = X[listed[at + i], d] - ref[d]
        for i in range(m, T):
            xt[d * T + i] = 0.0


@inner
def add_mean(X: Any, listed: Any, r: Any, at: int, m: int, ref: Any, first: Any, to: int) -> Any:
    """Add Σ r (x - ref) of rows ``listed[at:at + m]`` to ``first[to:]``; Σ r."""
    D = X.shape[1]
    total = 0.0
    for j in range(m):
        i = listed[at + j]
        total += r[j]
        for d in range(0, D - 7, 8):
            x = sub(load64(X, i * D + d), load(ref, d))
            store(first, to + d, fma(splat(r[j]), x, load(first, to + d)))
        for d in range(D // 8 * 8, D):
            first[to + d] += r[j] * (X[i, d] - ref[d])
    return total


@compiled
def moments_of_groups(
    X: Any, weight: Any, resp: Any, starts: Any, listed: Any, kind: int, rows_a_tile: int,
    scratch: Any, mass: Any, means: Any, first: Any, second: Any,
) -> None:  # fmt: skip
    """Means (K·D), and Σ r, Σ r (x - m) (K·D) and Σ r (x - m)(x - m)ᵀ about them.

    D is padded to a multiple of 4. The last is (K·D·D) of kind FULL, lower 4×4 blocks of each;
    (D·D) of kind TIED, the sum of all; and (K·D) of kind DIAG. r is the weight, times
    ``resp[i, k]`` where there are responsibilities: then all of `listed` is in every group.
    All sums are zero before. `scratch` is a tile, its r, four features of it, and D zeros.
    """
    xt, r, y, origin, ref = scratch
    d_used = X.shape[1]
    D = origin.shape[0]
    K = mass.shape[0]
    soft = resp.shape[0] > 0
    weighted = weight.shape[0] > 0
    for k in range(K):
        start = 0 if soft else starts[k]
        stop = listed.shape[0] if soft else starts[k + 1]
        if start == stop:
            continue
        base = k * D
        for d in range(d_used):
            ref[d] = X[listed[start], d]
        for turn in range(2):
            total = 0.0
            for begin in range(start, stop, rows_a_tile):
                m = min(rows_a_tile, stop - begin)
                T = (m + 4 * LANES - 1) // (4 * LANES) * 4 * LANES
                for j in range(T):
                    r[j] = 1.0 if j < m else 0.0
                for j in range(m):
                    i = listed[begin + j]
                    r[j] = (weight[i] if weighted else 1.0) * (resp[i, k] if soft else 1.0)
                if turn == 0:
                    total += add_mean(X, listed, r, begin, m, ref, means, base)
                    continue
                gather_tile(X, listed, begin, m, T, ref, xt)
                for j in range(d_used * T, D * T):
                    xt[j] = 0.0
                if kind == DIAG:
                    diag_moments(xt, D, T, origin, 0, r, first[base:], second[base:], LANES)
                else:
                    to = base * D if kind == FULL else 0
                    full_moments(xt, D, T, 0, r, 0, y, first[base:], second[to:], LANES)
            if turn == 0:
                mass[k] = total
                for d in range(d_used):
                    ref[d] += means[base + d] / total if total > 0.0 else 0.0
                    means[base + d] = ref[d] if total > 0.0 else 0.0
