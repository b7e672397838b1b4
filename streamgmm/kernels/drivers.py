"""One piece of rows through the tiles: the sums of an E-step, or the posterior of each row.

`work` and `rows` are scratch from `scratch_sizes`; sums are added to, so a block of many pieces
needs no merge of its own. Rows of any piece are cut into tiles of T rows, the last one of no
more than it needs; W and the padded D come with the parameters. Sums leave in float64 whatever
the dtype of the tiles.

An argument that is a literal, as 0, would compile the function that is called once more, for that
literal: numbers of the same meaning that are no literals are handed on instead.
"""

from __future__ import annotations

from typing import Any

from streamgmm.kernels.compiled import compiled
from streamgmm.kernels.distances import (
    diag_distances,
    full_distances,
    near_distances,
    round_distances,
    shared_products,
    take_half_squares,
    whiten,
)
from streamgmm.kernels.normalisation import normalize
from streamgmm.kernels.sums import (
    diag_moments,
    dot,
    full_moments,
    row_sum,
    shared_sums,
    weighted_sums,
)
from streamgmm.kernels.tiles import load_tile, square, subtract

FULL, DIAG, SPHERICAL, TIED = 0, 1, 2, 3


def scratch_sizes(K: int, D: int, T: int, W: int) -> tuple[int, int]:
    """Elements of `work` (the tile's dtype) and `rows` (float64) for padded K and D."""
    return (3 * D + 2 * K + 5) * T, 4 * T


@compiled
def full_sums(
    X: Any, weight: Any, ref: Any, means: Any, chol: Any, const: Any, centres: Any, near: Any,
    far: Any, D: int, rows_a_tile: int, W: int, work: Any, rows: Any,
    totals: Any, n: Any, s1: Any, s2: Any,
) -> None:  # fmt: skip
    """Add a piece to: `totals` (log-likelihood, entropy), `n` (K,), `s1` (K·D,), `s2` (K·D·D,).

    Moments are about ``centres[k]``; where ``near[k]``, that is the one that all such
    components have in common, and what is about it is formed once for them.
    """
    K = const.shape[0]
    common = K
    for k in range(K):
        if near[k]:
            common = k
    for first in range(0, X.shape[0], rows_a_tile):
        m = min(rows_a_tile, X.shape[0] - first)
        T = (m + 4 * W - 1) // (4 * W) * 4 * W
        xt = work[: D * T]
        t = work[D * T : 2 * D * T]
        shared = work[2 * D * T : 3 * D * T]
        y = work[3 * D * T : (3 * D + 4) * T]
        q = work[(3 * D + 4) * T : (3 * D + 4 + K) * T]
        resp = work[(3 * D + 4 + K) * T :]
        wt = rows[:T]
        log_density = rows[T : 2 * T]
        xt[X.shape[1] * T :] = 0.0
        load_tile(X, weight, first, m, ref, xt, wt, T)
        for k in range(K):
            full_distances(xt, D, T, means, chol, k, t, q, far, W)
        normalize(q, K, T, const, wt, resp, log_density, rows[2 * T :])
        totals[0] += dot(rows, T, wt, T)
        totals[1] += dot(rows, 2 * T, wt, T)
        if common < K:
            subtract(xt, D, T, centres, common, shared, W)
        for k in range(K):
            mass = row_sum(resp, k * T, T)
            if mass != 0.0:
                n[k] += mass
                if near[k]:
                    full_moments(shared, D, T, k, resp, k * T, y, s1, s2, W)
                else:
                    subtract(xt, D, T, centres, k, t, W)
                    full_moments(t, D, T, k, resp, k * T, y, s1, s2, W)


@compiled
def tied_sums(
    X: Any, weight: Any, ref: Any, nu: Any, chol: Any, const: Any,
    far: Any, D: int, rows_a_tile: int, W: int, work: Any, rows: Any,
    totals: Any, n: Any, s1: Any, s2: Any,
) -> None:  # fmt: skip
    """As `full_sums` about `ref`: `s2` (D·D,) is the scatter of all rows.

    `nu` is -2 times the whitened means, for K rounded up to a multiple of 4, as `s1` is.
    """
    K = const.shape[0]
    K4 = (K + 3) // 4 * 4
    for first in range(0, X.shape[0], rows_a_tile):
        m = min(rows_a_tile, X.shape[0] - first)
        T = (m + 4 * W - 1) // (4 * W) * 4 * W
        xt = work[: D * T]
        t = work[D * T : 2 * D * T]
        q = work[2 * D * T : (2 * D + K4) * T]
        resp = work[(2 * D + K4) * T : (2 * D + 2 * K4 + 1) * T]
        wt = rows[:T]
        log_density = rows[T : 2 * T]
        xt[X.shape[1] * T :] = 0.0
        resp[K * T :] = 0.0
        load_tile(X, weight, first, m, ref, xt, wt, T)
        whiten(xt, D, T, chol, t, far, W)
        shared_products(t, D, T, nu, K4, q, W)
        normalize(q, K, T, const, wt, resp, log_density, rows[2 * T :])
        take_half_squares(t, D, T, log_density)
        totals[0] += dot(rows, T, wt, T)
        totals[1] += dot(rows, 2 * T, wt, T)
        for k in range(K):
            n[k] += row_sum(resp, k * T, T)
        shared_sums(xt, D, T, K4, resp, s1, W)
        for i in range(T):
            resp[K4 * T + i] = wt[i]
        full_moments(xt, D, T, 0, resp, K4 * T, t, s1[K4 * D :], s2, W)


@compiled
def diag_sums(
    X: Any, weight: Any, ref: Any, means: Any, chol: Any, const: Any, centres: Any,
    far: Any, D: int, rows_a_tile: int, W: int, work: Any, rows: Any,
    totals: Any, n: Any, s1: Any, s2: Any,
) -> None:  # fmt: skip
    """As `full_sums`, feature by feature: `chol` and `s2` are (K·D,)."""
    K = const.shape[0]
    for first in range(0, X.shape[0], rows_a_tile):
        m = min(rows_a_tile, X.shape[0] - first)
        T = (m + 4 * W - 1) // (4 * W) * 4 * W
        xt = work[: D * T]
        q = work[2 * D * T : (2 * D + K) * T]
        resp = work[(2 * D + K) * T :]
        wt = rows[:T]
        log_density = rows[T : 2 * T]
        xt[X.shape[1] * T :] = 0.0
        load_tile(X, weight, first, m, ref, xt, wt, T)
        for k in range(K):
            diag_distances(xt, D, T, means, chol, k, q, far, W)
        normalize(q, K, T, const, wt, resp, log_density, rows[2 * T :])
        totals[0] += dot(rows, T, wt, T)
        totals[1] += dot(rows, 2 * T, wt, T)
        for k in range(K):
            mass = row_sum(resp, k * T, T)
            if mass != 0.0:
                n[k] += mass
                diag_moments(xt, D, T, centres, k, resp, s1, s2, W)


@compiled
def near_diag_sums(
    X: Any, weight: Any, ref: Any, means: Any, chol: Any, const: Any, offset: Any,
    far: Any, D: int, rows_a_tile: int, W: int, work: Any, rows: Any,
    totals: Any, n: Any, s1: Any, s2: Any,
) -> None:  # fmt: skip
    """As `diag_sums` about `ref`, which all components are near; see `near_distances`.

    The sums are two matrix products, with K rounded up to a multiple of 4, as it is in `chol` and
    `offset`. `means` is not used.
    """
    K = const.shape[0]
    K4 = (K + 3) // 4 * 4
    for first in range(0, X.shape[0], rows_a_tile):
        m = min(rows_a_tile, X.shape[0] - first)
        T = (m + 4 * W - 1) // (4 * W) * 4 * W
        xt = work[: D * T]
        squares = work[D * T : 2 * D * T]
        q = work[2 * D * T : (2 * D + K4) * T]
        resp = work[(2 * D + K4) * T : (2 * D + 2 * K4) * T]
        wt = rows[:T]
        log_density = rows[T : 2 * T]
        xt[X.shape[1] * T :] = 0.0
        resp[K * T :] = 0.0
        load_tile(X, weight, first, m, ref, xt, wt, T)
        near_distances(xt, D, T, offset, chol, K4, q, far, W)
        normalize(q, K, T, const, wt, resp, log_density, rows[2 * T :])
        totals[0] += dot(rows, T, wt, T)
        totals[1] += dot(rows, 2 * T, wt, T)
        for k in range(K):
            n[k] += row_sum(resp, k * T, T)
        square(xt, D * T, squares, W)
        shared_sums(xt, D, T, K4, resp, s1, W)
        shared_sums(squares, D, T, K4, resp, s2, W)


@compiled
def spherical_sums(
    X: Any, weight: Any, ref: Any, means: Any, scale: Any, const: Any,
    far: Any, D: int, rows_a_tile: int, W: int, work: Any, rows: Any,
    totals: Any, n: Any, s1: Any, s2: Any,
) -> None:  # fmt: skip
    """As `full_sums` about the means; `s2` (K,) is Σ r q, the scatter times `scale`."""
    K = const.shape[0]
    for first in range(0, X.shape[0], rows_a_tile):
        m = min(rows_a_tile, X.shape[0] - first)
        T = (m + 4 * W - 1) // (4 * W) * 4 * W
        xt = work[: D * T]
        q = work[2 * D * T : (2 * D + K) * T]
        resp = work[(2 * D + K) * T :]
        wt = rows[:T]
        log_density = rows[T : 2 * T]
        xt[X.shape[1] * T :] = 0.0
        load_tile(X, weight, first, m, ref, xt, wt, T)
        for k in range(K):
            round_distances(xt, D, T, means, scale, k, q, far, W)
        normalize(q, K, T, const, wt, resp, log_density, rows[2 * T :])
        totals[0] += dot(rows, T, wt, T)
        totals[1] += dot(rows, 2 * T, wt, T)
        for k in range(K):
            n[k] += row_sum(resp, k * T, T)
            s2[k] += dot(resp, k * T, q[k * T :], T)
            weighted_sums(xt, D, T, means, k, resp, s1, W)


@compiled
def posterior(
    kind: int, X: Any, ref: Any, means: Any, chol: Any, const: Any,
    far: Any, D: int, rows_a_tile: int, W: int, work: Any, rows: Any,
    log_density: Any, labels: Any, resp_out: Any,
) -> None:  # fmt: skip
    """Log-density (N,), label (N,) int32 and responsibilities (N, K) of each row.

    An output of no rows is not written.
    """
    K = const.shape[0]
    K4 = (K + 3) // 4 * 4
    for first in range(0, X.shape[0], rows_a_tile):
        m = min(rows_a_tile, X.shape[0] - first)
        T = (m + 4 * W - 1) // (4 * W) * 4 * W
        xt = work[: D * T]
        t = work[D * T : 2 * D * T]
        q = work[2 * D * T : (2 * D + K4) * T]
        resp = work[(2 * D + K4) * T :]
        wt = rows[:T]
        density = rows[T : 2 * T]
        best = rows[3 * T : 4 * T]
        xt[X.shape[1] * T :] = 0.0
        load_tile(X, rows[:0], first, m, ref, xt, wt, T)
        if kind == TIED:
            whiten(xt, D, T, chol, t, far, W)
            shared_products(t, D, T, means, K4, q, W)
        for k in range(K):
            if kind == FULL:
                full_distances(xt, D, T, means, chol, k, t, q, far, W)
            elif kind == DIAG:
                diag_distances(xt, D, T, means, chol, k, q, far, W)
            elif kind == SPHERICAL:
                round_distances(xt, D, T, means, chol, k, q, far, W)
        normalize(q, K, T, const, wt, resp, density, rows[2 * T :])
        if kind == TIED:
            take_half_squares(t, D, T, density)
        if log_density.shape[0] > 0:
            for i in range(m):
                log_density[first + i] = density[i]
        if labels.shape[0] > 0:
            for i in range(m):
                best[i] = const[0] - 0.5 * q[i]
                labels[first + i] = 0
            for k in range(1, K):
                for i in range(m):
                    value = const[k] - 0.5 * q[k * T + i]
                    if value > best[i]:
                        best[i] = value
                        labels[first + i] = k
        if resp_out.shape[0] > 0:
            for i in range(m):
                for k in range(K):
                    resp_out[first + i, k] = resp[k * T + i]
