"""Truncated E-steps of factor analysers: pairs are sorted and gathered as in `truncated`.

A tile holds the rows of one component less its mean, feature by feature; what they make of the
factors are products of the tile, so that a pair costs D q. `model` has, of each component, means
(D), 1 / Ψ (D), the matrix that makes w = L⁻¹ Λᵀ Ψ⁻¹ (x - μ) of a row (D·q), the one that makes
E[z | x] = L⁻ᵀ w of that (q·q), and Λᵀ (q·D); and constants (K,). D and q are padded with zeros
to multiples of 4.
"""

from __future__ import annotations

from typing import Any

from streamgmm.kernels.blocks import (
    SIDE,
    add_outer,
    block_of,
    load_side,
    splat_side,
    store_block,
)
from streamgmm.kernels.compiled import compiled, inner
from streamgmm.kernels.shuffles import total
from streamgmm.kernels.tiles import subtract
from streamgmm.kernels.truncated import WIDE, gather_pairs, sort_pairs
from streamgmm.kernels.vectors import fma, load, mul, splat, store, sub, zeros


@inner
def _product(a: Any, n: int, T: int, matrix: Any, at: int, m: int, out: Any) -> None:
    """A tile of m features, sums over the n features of `a` times ``matrix[at:]`` (n, m)."""
    zero = zeros(a)
    for i in range(0, T, SIDE * WIDE):
        for k in range(0, m, SIDE):
            z = block_of(zero)
            for d in range(n):
                c = splat_side(matrix, at + d * m + k, 1)
                z = add_outer(z, c, load_side(a, d * T + i, WIDE))
            store_block(out, k * T + i, T, WIDE, z)


@inner
def _cross(a: Any, n: int, r: Any, b: Any, m: int, T: int, out: Any, at: int) -> None:
    """Add Σ r a_d b_p of the features of two tiles to ``out[at:]`` (n, m)."""
    for d in range(n):
        for p in range(0, m, 4):
            s0, s1, s2, s3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            for i in range(0, T, WIDE):
                v = mul(load(r, i), load(a, d * T + i))
                s0 = fma(v, load(b, p * T + i), s0)
                s1 = fma(v, load(b, (p + 1) * T + i), s1)
                s2 = fma(v, load(b, (p + 2) * T + i), s2)
                s3 = fma(v, load(b, (p + 3) * T + i), s3)
            to = at + d * m + p
            out[to] += total(s0)
            out[to + 1] += total(s1)
            out[to + 2] += total(s2)
            out[to + 3] += total(s3)


@inner
def _first(a: Any, n: int, r: Any, T: int, out: Any, at: int) -> None:
    """Add Σ r a of the features of a tile."""
    for d in range(n):
        s = splat(0.0)
        for i in range(0, T, WIDE):
            s = fma(load(r, i), load(a, d * T + i), s)
        out[at + d] += total(s)


@inner
def _second(a: Any, n: int, r: Any, T: int, out: Any, at: int) -> None:
    """Add Σ r a² of the features of a tile."""
    for d in range(n):
        s = splat(0.0)
        for i in range(0, T, WIDE):
            x = load(a, d * T + i)
            s = fma(mul(load(r, i), x), x, s)
        out[at + d] += total(s)


@inner
def _distances(
    t: Any, z: Any, e: Any, D: int, q: int, T: int, precisions: Any, at: int, out: Any
) -> None:
    """|x - μ - Λz|² / Ψ + |z|²: as (x - μ)ᵀ Σ⁻¹ (x - μ), and nothing cancels."""
    for i in range(0, T, WIDE):
        s = splat(0.0)
        for d in range(D):
            y = sub(load(t, d * T + i), load(e, d * T + i))
            s = fma(mul(y, y), splat(precisions[at + d]), s)
        for p in range(q):
            y = load(z, p * T + i)
            s = fma(y, y, s)
        store(out, i, s)


@compiled
def evaluate_factors(
    X: Any, ids: Any, begin: int, model: Any, most: int, room: Any, work: Any, values: Any
) -> None:
    """log π_k N_k(x) of the candidates in columns `begin` and on, into `values`, flat.

    `room` are as of `truncated.evaluate`; `work` are tiles of up to `most` rows: of D features
    three times, of q twice, and one of one.
    """
    means, precisions, projected, inverse, loadings, const = model
    at, rows, pairs = room
    xt, t, e, w, z, s = work
    K = const.shape[0]
    D = means.shape[0] // K
    q = projected.shape[0] // (K * D)
    sort_pairs(ids, begin, ids.shape[1], K, at, rows, pairs)
    for k in range(K):
        for a in range(at[k], at[k + 1], most):
            m = min(most, at[k + 1] - a)
            T = (m + 4 * WIDE - 1) // (4 * WIDE) * 4 * WIDE
            gather_pairs(X, rows, a, m, D, T, xt)
            subtract(xt, D, T, means, k, t, WIDE)
            _product(t, D, T, projected, k * D * q, q, w)
            _product(w, q, T, inverse, k * q * q, q, z)
            _product(z, q, T, loadings, k * q * D, D, e)
            _distances(t, z, e, D, q, T, precisions, k * D, s)
            for i in range(m):
                far = s[i]
                values[pairs[a + i]] = const[k] - 0.5 * min(far, 1e300) if far == far else far


@compiled
def add_factor_sums(
    X: Any, ids: Any, resp: Any, model: Any, most: int, room: Any, work: Any, sums: Any
) -> None:
    """Add the sums of the sets' pairs, of y = x - μ and of w.

    They are Σ r, Σ r y, Σ r y², Σ r y wᵀ, Σ r w and Σ r w wᵀ. `ids` are the sets
    alone (n, C), and `resp` theirs, flat.
    """
    means, _, projected, _, _, const = model
    at, rows, pairs = room
    xt, t, _, w, _, r = work
    n, s1, s2, cross, w1, ww = sums
    K = const.shape[0]
    D = means.shape[0] // K
    q = projected.shape[0] // (K * D)
    sort_pairs(ids, 0, ids.shape[1], K, at, rows, pairs)
    for k in range(K):
        for a in range(at[k], at[k + 1], most):
            m = min(most, at[k + 1] - a)
            T = (m + 4 * WIDE - 1) // (4 * WIDE) * 4 * WIDE
            gather_pairs(X, rows, a, m, D, T, xt)
            mass = 0.0
            for i in range(m):
                r[i] = resp[pairs[a + i]]
                mass += r[i]
            for i in range(m, T):
                r[i] = 0.0
            n[k] += mass
            subtract(xt, D, T, means, k, t, WIDE)
            _product(t, D, T, projected, k * D * q, q, w)
            _first(t, D, r, T, s1, k * D)
            _second(t, D, r, T, s2, k * D)
            _first(w, q, r, T, w1, k * q)
            _cross(t, D, r, w, q, T, cross, k * D * q)
            _cross(w, q, r, w, q, T, ww, k * q * q)
