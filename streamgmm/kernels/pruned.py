"""An E-step over components that are well apart: only pairs of vectors and components that count.

The sums have the bits of `drivers`: a pair that is left out has responsibilities of zero and terms
of zero in every sum (see `screens`), what is taken is taken by the same operations in the same
order, and adding zeros changes no bit.
"""

from __future__ import annotations

import math
from typing import Any

from streamgmm.kernels.blocks import (
    SIDE,
    add_each,
    add_lower,
    add_outer,
    block_of,
    load_four,
    load_side,
    mul_each,
    side_of,
    splat_four,
    store_each,
)
from streamgmm.kernels.compiled import compiled, inner
from streamgmm.kernels.flags import differ
from streamgmm.kernels.normalisation import exponentials, share_out
from streamgmm.kernels.screens import add_column, choose, compare, group, limits, project
from streamgmm.kernels.shuffles import add_block_totals, add_totals, total
from streamgmm.kernels.sums import dot
from streamgmm.kernels.tiles import load_tile, subtract
from streamgmm.kernels.vectors import (
    add,
    at_least,
    at_most,
    fma,
    load,
    load64,
    mul,
    splat,
    store,
    sub,
    zeros,
)


@inner
def columns(strip: Any, D: int, j: int, chol: Any, k: int, q: Any, zero: Any, W: int) -> Any:
    """`q` and the squares of four columns of one vector of rows, as `full_distances` has them."""
    z = (zero, zero, zero, zero)
    row = k * D * D + j
    for d in range(j):
        z = add_column(z, chol, row + d * D, load(strip, d * W))
    row += j * D
    z = add_column(z, chol, row, load(strip, j * W))
    a = splat_four(chol, row + D, 1)
    x = load(strip, (j + 1) * W)
    z1, z2, z3 = fma(a[1], x, z[1]), fma(a[2], x, z[2]), fma(a[3], x, z[3])
    a = splat_four(chol, row + 2 * D, 1)
    x = load(strip, (j + 2) * W)
    z2, z3 = fma(a[2], x, z2), fma(a[3], x, z3)
    a = splat_four(chol, row + 3 * D, 1)
    z3 = fma(a[3], load(strip, (j + 3) * W), z3)
    return fma(z3, z3, fma(z2, z2, fma(z1, z1, fma(z[0], z[0], q))))


@inner
def one_full(
    xt: Any, D: int, T: int, at: int, means: Any, chol: Any, k: int, strip: Any, W: int
) -> Any:
    """Squared distances of one vector of rows, with the bits of `full_distances`."""
    zero = zeros(xt)
    for d in range(D):
        store(strip, d * W, sub(load(xt, d * T + at), splat(means[k * D + d])))
    q = columns(strip, D, D - 4, chol, k, zero, zero, W)
    for j in range(0, D - 4, 4):
        q = columns(strip, D, j, chol, k, q, zero, W)
    return q


@inner
def add_diag(q: Any, x: Any, m: Any, a: Any) -> Any:
    """Squares of four features."""
    z0, z1 = mul(sub(x[0], m[0]), a[0]), mul(sub(x[1], m[1]), a[1])
    z2, z3 = mul(sub(x[2], m[2]), a[2]), mul(sub(x[3], m[3]), a[3])
    return fma(z3, z3, fma(z2, z2, fma(z1, z1, fma(z0, z0, q))))


@inner
def two_diag(
    xt: Any, D: int, T: int, i: int, k: int, j: int, l: int, means: Any, chol: Any
) -> Any:
    """Squared distances of two vectors of rows, with the bits of `diag_distances`.

    Two, since each is one chain of sums: of component k from row i on, and of l from j on.
    """
    y = zeros(xt)
    z = y
    for d in range(0, D, 4):
        at = k * D + d
        x = load_four(xt, d * T + i, T)
        y = add_diag(y, x, splat_four(means, at, 1), splat_four(chol, at, 1))
        at = l * D + d
        x = load_four(xt, d * T + j, T)
        z = add_diag(z, x, splat_four(means, at, 1), splat_four(chol, at, 1))
    return y, z


@inner
def keep(z: Any, p: int, k: int, i: int, const: Any, q: Any, top: Any, far: Any, W: int) -> None:
    """Distances of pair p to where they belong, and what `top` is with them."""
    half = splat(-0.5)
    c = splat(const[k])
    store(q, p * W, at_most(z, splat(far)))
    for j in range(0, W, 8):
        store(top, i + j, at_least(load(top, i + j), fma(load64(q, p * W + j), half, c)))


@inner
def measure(
    xt: Any, D: int, T: int, means: Any, chol: Any, const: Any, wide: bool, pairs: Any,
    start: int, stop: int, strip: Any, q: Any, top: Any, far: Any, W: int,
) -> None:  # fmt: skip
    """Distances of the new pairs ``start:stop``, and what `top` is with them."""
    _, _, _, owner, row = pairs
    if wide:
        for p in range(start, stop):
            k, i = owner[p], row[p]
            z = one_full(xt, D, T, i, means, chol, k, strip, W)
            keep(z, p, k, i, const, q, top, far, W)
        return
    for p in range(start, stop, 2):
        o = min(p + 1, stop - 1)
        k, i, l, j = owner[p], row[p], owner[o], row[o]
        y, z = two_diag(xt, D, T, i, k, j, l, means, chol)
        keep(y, p, k, i, const, q, top, far, W)
        keep(z, o, l, j, const, q, top, far, W)


@inner
def weigh(n: int, row: Any, used: Any, factor: Any, resp: Any, W: int) -> None:
    """From the terms of `n` pairs in `resp` to responsibilities, and which pairs have any."""
    zero = zeros(resp)
    for p in range(n):
        r = mul(load(resp, p * W), load(factor, row[p]))
        store(resp, p * W, r)
        used[p] = 1 if differ(r, zero) != 0 else 0


@inner
def add_mass(
    K: int, row: Any, place: Any, begin: Any, resp: Any, four: Any, n: Any, W: int
) -> None:
    """Add the sum of each component's responsibilities, with the bits of `sums.row_sum`.

    `four` is scratch for its four vectors.
    """
    none = splat(0.0)
    for k in range(K):
        store_each(four, 0, 8, (none, none, none, none))
        for v in range(begin[k], begin[k + 1]):
            for j in range(0, W, 8):
                at = (row[v] + j) % 32
                store(four, at, add(load(four, at), load64(resp, place[v] * W + j)))
        s = add(add(load(four, 0), load(four, 8)), add(load(four, 16), load(four, 24)))
        n[k] += total(s)


@inner
def squares(
    xt: Any, D: int, T: int, centres: Any, near: Any, row: Any, place: Any, begin: Any,
    resp: Any, shared: Any, t: Any, y: Any, s1: Any, s2: Any, W: int,
) -> None:  # fmt: skip
    """As `sums.full_moments` about the centres, over the vectors of each that are listed.

    Where ``near[k]``, the differences from its centre are in `shared`.
    """
    zero = zeros(xt)
    for k in range(near.shape[0]):
        used = row[begin[k] : begin[k + 1]]
        of = place[begin[k] : begin[k + 1]]
        n = used.shape[0]
        if n == 0:
            continue
        for d in range(0 if near[k] else D):
            c = splat(centres[k * D + d])
            for v in range(n):
                store(t, d * T + used[v], sub(load(xt, d * T + used[v]), c))
        points = shared if near[k] else t
        for a in range(0, D, SIDE):
            sums = side_of(zero)
            s = block_of(zero)
            for v in range(n):
                x = load_side(points, a * T + used[v], T)
                rx = mul_each(x, load(resp, of[v] * W))
                store_each(y, v * W, T, rx)
                sums = add_each(sums, rx)
                s = add_lower(s, rx, x)
            add_totals(s1, k * D + a, sums)
            add_block_totals(s2, (k * D + a) * D + a, D, s)
            for b in range(0, a, SIDE):
                s = block_of(zero)
                for v in range(n):
                    x = load_side(points, b * T + used[v], T)
                    s = add_outer(s, load_side(y, v * W, T), x)
                add_block_totals(s2, (k * D + a) * D + b, D, s)


@inner
def variances(
    xt: Any, D: int, T: int, centres: Any, K: int, row: Any, place: Any, begin: Any,
    resp: Any, s1: Any, s2: Any, W: int,
) -> None:  # fmt: skip
    """As `sums.diag_moments`, likewise."""
    zero = zeros(xt)
    for k in range(K):
        used = row[begin[k] : begin[k + 1]]
        of = place[begin[k] : begin[k + 1]]
        n = used.shape[0]
        for d in range(0, D if n > 0 else 0, 4):
            c = splat_four(centres, k * D + d, 1)
            a0, a1, a2, a3 = zero, zero, zero, zero
            b0, b1, b2, b3 = zero, zero, zero, zero
            for v in range(n):
                i = used[v]
                r = load(resp, of[v] * W)
                x = load_four(xt, d * T + i, T)
                x0, x1 = sub(x[0], c[0]), sub(x[1], c[1])
                x2, x3 = sub(x[2], c[2]), sub(x[3], c[3])
                y0, y1, y2, y3 = mul(r, x0), mul(r, x1), mul(r, x2), mul(r, x3)
                a0, a1, a2, a3 = add(a0, y0), add(a1, y1), add(a2, y2), add(a3, y3)
                b0, b1 = fma(y0, x0, b0), fma(y1, x1, b1)
                b2, b3 = fma(y2, x2, b2), fma(y3, x3, b3)
            add_totals(s1, k * D + d, (a0, a1, a2, a3))
            add_totals(s2, k * D + d, (b0, b1, b2, b3))


@compiled
def pruned_sums(
    X: Any, weight: Any, ref: Any, means: Any, chol: Any, const: Any, centres: Any, near: Any,
    wide: bool, shift: Any, turn: Any, packed: Any, norms: Any, most: float,
    far: Any, D: int, rows_a_tile: int, W: int, work: Any, rows: Any, seen: Any, listed: Any,
    totals: Any, n: Any, s1: Any, s2: Any,
) -> int:  # fmt: skip
    """As `full_sums` where `wide`, else as `diag_sums`; returns how many rows were added.

    Whoever calls adds the other rows by these. There are some once more than `most` of the pairs
    of vectors and components had to be taken; what was added are whole tiles.
    """
    K = const.shape[0]
    common = -1
    if wide:
        for k in range(K):
            if near[k]:
                common = k
    taken, all_pairs = 0, 0
    begin = listed[: K + 2]
    size = (listed.shape[0] - K - 2) // 5
    owner = listed[K + 2 : K + 2 + size]
    row = listed[K + 2 + size : K + 2 + 2 * size]
    place = listed[K + 2 + 2 * size : K + 2 + 3 * size]
    new_owner = listed[K + 2 + 3 * size : K + 2 + 4 * size]
    new_row = listed[K + 2 + 4 * size :]
    pairs = (owner, row, place, new_owner, new_row)
    for first in range(0, X.shape[0], rows_a_tile):
        if taken > most * all_pairs:
            return first
        m = min(rows_a_tile, X.shape[0] - first)
        T = (m + 4 * W - 1) // (4 * W) * 4 * W
        xt = work[: D * T]
        t = work[D * T : 2 * D * T]
        shared = work[2 * D * T : 3 * D * T]
        y = work[3 * D * T : (3 * D + 4) * T]
        sums = work[(3 * D + 4) * T : (3 * D + 7) * T]
        q = work[(3 * D + 7) * T : (3 * D + 7 + K) * T]
        resp = work[(3 * D + 7 + K) * T :]
        wt = rows[:T]
        log_density = rows[T : 2 * T]
        top = rows[3 * T : 4 * T]
        points = seen[: (D + 1) * T]
        best = seen[(D + 1) * T : (D + 2) * T]
        limit = seen[(D + 2) * T : (D + 3) * T]
        bounds = seen[(D + 3) * T :]
        xt[X.shape[1] * T :] = 0.0
        load_tile(X, weight, first, m, ref, xt, wt, T)
        project(xt, D, T, shift, turn, wide, points)
        compare(points, D, T, packed, norms, bounds, best)
        # First the likeliest by the bounds, then what those leave.
        top[:] = -math.inf
        K4 = norms.shape[0]
        count, some = choose(bounds, K, K4, T, W, limit, best, 0, pairs)
        measure(xt, D, T, means, chol, const, wide, pairs, 0, some, t, q, top, far, W)
        limits(top, D, T, points, limit)
        count, every = choose(bounds, K, K4, T, W, limit, best, some, pairs)
        measure(xt, D, T, means, chol, const, wide, pairs, some, every, t, q, top, far, W)
        taken += count
        all_pairs += K * (T // W)
        sums[:] = 0.0
        exponentials(q, T, pairs, count, const, top, resp, sums)
        share_out(sums, T, top, wt, log_density, rows[2 * T :])
        totals[0] += dot(log_density, 0, wt, T)
        totals[1] += dot(rows, 2 * T, wt, T)
        weigh(count, row, place, sums[2 * T :], resp, W)
        group(K, count, owner, row, place, begin, new_row, new_owner)
        add_mass(K, new_row, new_owner, begin, resp, rows[4 * T :], n, W)
        if wide:
            if common >= 0:
                subtract(xt, D, T, centres, common, shared, W)
            squares(
                xt, D, T, centres, near, new_row, new_owner, begin, resp, shared, t, y, s1, s2, W
            )
        else:
            variances(xt, D, T, centres, K, new_row, new_owner, begin, resp, s1, s2, W)
    return int(X.shape[0])
