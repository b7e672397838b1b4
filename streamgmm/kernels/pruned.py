"""E-steps that look at the pairs of a row and a component which may have a part in each other.

`screens` says which those are. They are few where components are well apart, and no two rows
need the same, so a vector holds features of one row here, and not of neighbouring rows as in
`drivers`: nothing is gathered, and a row costs what its own pairs do. All is in float64. Sums come
in the order of the rows, and differ from those of `drivers` by rounding.

Features are padded to a multiple of 8 in tables of the model (`D8`), and of 4 in sums.
"""

from __future__ import annotations

import math
from typing import Any

from streamgmm.kernels.blocks import add_times, load_four, mul_each, splat_four, store_each
from streamgmm.kernels.compiled import compiled, inner
from streamgmm.kernels.elementary import exp, log
from streamgmm.kernels.flags import lowest, not_above
from streamgmm.kernels.kmeans_simd import load_first
from streamgmm.kernels.normalisation import RESP_FLOOR
from streamgmm.kernels.screens import STRIP, compare, limits, project
from streamgmm.kernels.shuffles import total
from streamgmm.kernels.sums import dot
from streamgmm.kernels.tiles import load_tile
from streamgmm.kernels.vectors import (
    add,
    at_least,
    div,
    fma,
    load,
    load64,
    mul,
    splat,
    store,
    sub,
    zero_below,
)


@inner
def measure(
    X: Any, first: int, begin: int, end: int, owner: Any, row: Any, means: Any, chol: Any,
    const: Any, wide: bool, far: float, D8: int, v: Any, value: Any, top: Any,
) -> None:  # fmt: skip
    """Values of the pairs ``begin:end``, log π_k N_k(x); `top` is raised to the largest of a row.

    A_k is upper triangular where `wide`, else a diagonal (D8,). `v` (D8,) is scratch.
    """
    d = X.shape[1]
    zero = splat(0.0)
    for p in range(begin, end):
        k = owner[p]
        i = row[p]
        at = (first + i) * d
        for c in range(0, D8, 8):
            x = load64(X, at + c) if c + 8 <= d else load_first(X, at + c, d - c)
            store(v, c, sub(x, load(means, k * D8 + c)))
        q = zero
        for c in range(0, D8, 8):
            if wide:
                own = k * D8 * D8 + c
                z0, z1, z2, z3 = zero, zero, zero, zero
                for e in range(0, min(c + 8, d), 4):
                    y = splat_four(v, e, 1)
                    a = load_four(chol, own + e * D8, D8)
                    z0, z1 = fma(y[0], a[0], z0), fma(y[1], a[1], z1)
                    z2, z3 = fma(y[2], a[2], z2), fma(y[3], a[3], z3)
                z = add(add(z0, z1), add(z2, z3))
            else:
                z = mul(load(v, c), load(chol, k * D8 + c))
            q = fma(z, z, q)
        square = total(q)
        found = const[k] - 0.5 * (far if square > far else square)
        value[p] = found
        top[i] = max(top[i], found)


@inner
def choose(
    m: int, bounds: Any, K: int, K4: int, limit: Any, best: Any, owner: Any, row: Any
) -> int:
    """The pairs of a tile of m rows whose bound is not above its limit, without the rows' best.

    Returns how many there are.
    """
    n = 0
    for i in range(0, m, STRIP):
        most = load(limit, i)
        at = i // STRIP * K4 * STRIP
        for k in range(K):
            bits = not_above(load(bounds, at + k * STRIP), most)
            while bits != 0:
                j = i + lowest(bits)
                bits &= bits - 1
                if j < m and best[j] != k:
                    owner[n], row[n] = k, j
                    n += 1
    return n


@inner
def sort_pairs(
    n: int, K: int, from_owner: Any, from_row: Any, begin: Any, at: int, owner: Any, row: Any
) -> None:
    """Put n pairs into ``at:at + n``, component by component: so their tables stay in cache.

    `begin` is scratch for K + 1.
    """
    begin[:] = at
    for p in range(n):
        begin[from_owner[p] + 1] += 1
    for k in range(K):
        begin[k + 1] += begin[k] - at
    for p in range(n):
        k = from_owner[p]
        owner[begin[k]] = k
        row[begin[k]] = from_row[p]
        begin[k] += 1


@inner
def add_moments(
    X: Any, first: int, count: int, owner: Any, row: Any, value: Any, means: Any, wide: bool,
    D8: int, D: int, v: Any, n: Any, s1: Any, s2: Any,
) -> None:  # fmt: skip
    """Add the sums of all pairs: r, r (x - μ), and its outer products (the lower triangles).

    Where not `wide` these are squares. What a vector has beyond the features of a sum is zero,
    and added to what follows there.
    """
    d = X.shape[1]
    for p in range(count):
        r = value[p]
        if r == 0.0:
            continue
        k = owner[p]
        n[k] += r
        share = splat(r)
        at = (first + row[p]) * d
        for c in range(0, D8, 8):
            x = load64(X, at + c) if c + 8 <= d else load_first(X, at + c, d - c)
            y = sub(x, load(means, k * D8 + c))
            t = mul(share, y)
            to = k * D + c
            store(s1, to, add(load(s1, to), t))
            if wide:
                store(v, c, y)
            else:
                store(s2, to, fma(t, y, load(s2, to)))
        if wide:
            for a in range(0, d, 4):
                t = mul_each(splat_four(v, a, 1), share)
                to = (k * D + a) * D
                for c in range(0, a + 4, 8):
                    s = add_times(load_four(s2, to + c, D), t, load(v, c))
                    store_each(s2, to + c, D, s)


@inner
def share_out(
    n: int, row: Any, value: Any, top: Any, wt: Any, m: int, T: int, flaws: Any, sums: Any,
    part: Any,
) -> None:  # fmt: skip
    """From the values of `n` pairs to their responsibilities times weights, in their place.

    Of each of m rows, `top` becomes the log-density, and ``part`` (T,) the entropy; both are zero
    beyond. `sums` is scratch for 2 T. A row that is not finite, whose flaw is NaN, gets NaN.
    """
    sums[: 2 * T] = 0.0
    top[m:] = 0.0
    sums[m:T] = 1.0
    for p in range(n):
        value[p] -= top[row[p]]
    for p in range(n, (n + 7) // 8 * 8):
        value[p] = 0.0
    floor, tiny = splat(-708.0), splat(RESP_FLOOR)
    for p in range(0, n, 8):
        below = at_least(load(value, p), floor)
        e = zero_below(exp(below), tiny)
        store(part, p, mul(e, below))
        store(value, p, e)
    for p in range(n):
        i = row[p]
        sums[i] += value[p]
        sums[T + i] += part[p]
    one = splat(1.0)
    for i in range(0, T, 8):
        s = load(sums, i)
        inverse = div(one, s)
        log_s = add(log(s), load(flaws, i))
        store(top, i, add(load(top, i), log_s))
        store(part, i, sub(log_s, mul(load(sums, T + i), inverse)))
        store(sums, i, mul(load(wt, i), inverse))
    for p in range(n):
        value[p] *= sums[row[p]]


@inner
def note_flaws(xt: Any, D: int, T: int, flaws: Any) -> None:
    """Zero for each row of a tile that is finite, otherwise NaN."""
    for i in range(0, T, 8):
        s = splat(0.0)
        for d in range(D):
            x = load(xt, d * T + i)
            s = add(s, sub(x, x))
        store(flaws, i, s)


@compiled
def pruned_sums(
    X: Any, weight: Any, ref: Any, means: Any, chol: Any, const: Any, wide: bool,
    shift: Any, turn: Any, packed: Any, norms: Any, most: float, far: float, D: int, T: int,
    work: Any, seen: Any, pairs: Any, totals: Any, n: Any, s1: Any, s2: Any,
) -> int:  # fmt: skip
    """As `full_sums` where `wide`, else as `diag_sums`; returns how many rows were added.

    Whoever calls adds the other rows by these. There are some once more than `most` of the pairs
    of rows and components had to be taken; what was added are whole tiles. `ref` are zeros;
    `means` (K·D8), `chol` (K·D8·D8 or K·D8) and `const` (K,) are of the model. Sums about the
    means are padded to D features, `s1` and `s2` with room for a vector more. `work`
    has (D + 5) T + D8 and twice as many values as there may be pairs, `pairs` four numbers of each
    and K + 1.
    """
    K, d = const.shape[0], X.shape[1]
    D8 = (d + 7) // 8 * 8
    K4 = norms.shape[0]
    xt = work[: D * T]
    wt = work[D * T : (D + 1) * T]
    top = work[(D + 1) * T : (D + 2) * T]
    flaws = work[(D + 2) * T : (D + 3) * T]
    sums = work[(D + 3) * T : (D + 5) * T]
    v = work[(D + 5) * T : (D + 5) * T + D8]
    size = (work.shape[0] - (D + 5) * T - D8) // 2
    value = work[(D + 5) * T + D8 : (D + 5) * T + D8 + size]
    part = work[(D + 5) * T + D8 + size :]
    points = seen[: (D + 1) * T]
    best = seen[(D + 1) * T : (D + 2) * T]
    limit = seen[(D + 2) * T : (D + 3) * T]
    bounds = seen[(D + 3) * T :]
    owner, row = pairs[:size], pairs[size : 2 * size]
    new_owner, new_row = pairs[2 * size : 3 * size], pairs[3 * size : 4 * size]
    begin = pairs[4 * size :]
    xt[d * T :] = 0.0
    taken = 0
    for first in range(0, X.shape[0], T):
        if taken > most * K * first:
            return first
        m = min(T, X.shape[0] - first)
        load_tile(X, weight, first, m, ref, xt, wt, T)
        note_flaws(xt, D, T, flaws)
        project(xt, D, T, shift, turn, wide, points)
        compare(points, D, T, packed, norms, bounds, best)
        top[:m] = -math.inf
        top[m:] = 0.0
        for i in range(m):
            new_owner[i], new_row[i] = int(best[i]), i
        sort_pairs(m, K, new_owner, new_row, begin, 0, owner, row)
        measure(X, first, 0, m, owner, row, means, chol, const, wide, far, D8, v, value, top)
        limits(top, D, T, points, limit)
        more = choose(m, bounds, K, K4, limit, best, new_owner, new_row)
        sort_pairs(more, K, new_owner, new_row, begin, m, owner, row)
        count = m + more
        measure(X, first, m, count, owner, row, means, chol, const, wide, far, D8, v, value, top)
        taken += count
        share_out(count, row, value, top, wt, m, T, flaws, sums, part)
        totals[0] += dot(top, 0, wt, T)
        totals[1] += dot(part, 0, wt, T)
        add_moments(X, first, count, owner, row, value, means, wide, D8, D, v, n, s1, s2)
    return int(X.shape[0])
