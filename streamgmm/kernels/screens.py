"""What rows need which components: cheap bounds on log-densities, and masks of what is left.

In coordinates y = (x - c) M that all components share, a component whose squared distances are at
least |y - ν_k|² / λ_k has

    -log(π_k N_k(x)) ≥ u_k(x) = -const_k + (|y|² - 2 y·ν_k + |ν_k|²) / (2 λ_k),

one matrix product with |y|² as one more feature, in float32. What rounding may do to it is in the
table (`streamgmm.model.covariances.pruning`): u_k is a bound as it is computed. A component can be
left out of a row where u_k says that it is less likely than another one by the floor of
responsibilities (`normalisation.RESP_FLOOR`): its term there is zero.

What is left out is left out for whole vectors of rows. A mask has a bit for each component.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from streamgmm.kernels.blocks import (
    splat_four,
    store_each,
)
from streamgmm.kernels.compiled import inner
from streamgmm.kernels.flags import keep_least, lowest, not_above
from streamgmm.kernels.normalisation import RESP_FLOOR
from streamgmm.kernels.shuffles import narrow
from streamgmm.kernels.vectors import (
    add,
    at_least,
    fma,
    load,
    load64,
    mul,
    splat,
    store,
    store64,
    sub,
)

MARGIN = -math.log(RESP_FLOOR) + 0.5  # nats; the half is for exponentials and the rest
BITS = 62  # components in a mask
STRIP = 16  # rows that are compared at a time: one vector


def screen_size(K: int, D: int, T: int) -> int:
    """Elements of `seen` (float32) for padded D and a tile of T rows."""
    return (D + 3 + (K + 3) // 4 * 4) * T


def pairs_size(K: int, T: int, W: int) -> int:
    """Elements of `pairs` (int64)."""
    return K + 2 + 5 * (K * (T // W) + 1)


@inner
def project(xt: Any, D: int, T: int, shift: Any, turn: Any, wide: bool, y: Any) -> None:
    """``(x - shift) M`` of every row to `y`, and the square of its norm as one more feature.

    `turn` is the upper triangular M (D·D), or where not `wide` its diagonal. Strips of rows lie
    one after the other in `y`, each feature by feature.
    """
    zero = splat(0.0)
    for i in range(0, T, 8):
        at = i // STRIP * STRIP * (D + 1) + i % STRIP
        square = zero
        for j in range(D):
            s = zero
            if wide:
                for d in range(j + 1):
                    x = sub(load64(xt, d * T + i), splat(shift[d]))
                    s = fma(x, splat(turn[d * D + j]), s)
            else:
                s = mul(sub(load64(xt, j * T + i), splat(shift[j])), splat(turn[j]))
            store64(y, at, s)
            s = load64(y, at)
            square = fma(s, s, square)
            at += STRIP
        store64(y, at, square)


@inner
def compare(y: Any, D: int, T: int, packed: Any, norms: Any, u: Any, best: Any) -> None:
    """The bounds of all rows, and the component whose bound is the least of each row.

    Strips lie one after the other in `u`, component by component, as many as `norms` has.
    """
    at, to = 0, 0
    four = splat(np.float32(4.0))
    for i in range(0, T, STRIP):
        held = (splat(np.float32(math.inf)), splat(np.float32(0.0)))
        n0, n1 = splat(np.float32(0.0)), splat(np.float32(1.0))
        n2, n3 = splat(np.float32(2.0)), splat(np.float32(3.0))
        c = 0
        for k in range(0, norms.shape[0], 4):
            z = splat_four(norms, k, 1)
            for d in range(D + 1):
                z = add_column(z, packed, c, load(y, at + d * STRIP))
                c += 4
            store_each(u, to, STRIP, z)
            to += 4 * STRIP
            held = keep_least(held, z, (n0, n1, n2, n3))
            n0, n1, n2, n3 = add(n0, four), add(n1, four), add(n2, four), add(n3, four)
        store(best, i, held[1])
        at += (D + 1) * STRIP


@inner
def add_column(z: Any, table: Any, at: int, x: Any) -> Any:
    """``z[j] + table[at + j] * x`` of four columns."""
    a = splat_four(table, at, 1)
    return fma(a[0], x, z[0]), fma(a[1], x, z[1]), fma(a[2], x, z[2]), fma(a[3], x, z[3])


@inner
def limits(top: Any, D: int, T: int, y: Any, limit: Any) -> None:
    """The bound from which on a component has no part in a row whose likeliest has log `top`.

    NaN, which leaves nothing out, for a row too far off for float32.
    """
    zero = splat(0.0)
    less = splat(-1.0)
    slack = splat(2.0**-22)
    margin = splat(MARGIN)
    at = D * STRIP
    for i in range(0, T, STRIP):
        a = load(top, i)
        b = load(top, i + 8)
        a = add(fma(at_least(a, mul(a, less)), slack, mul(a, less)), margin)
        b = add(fma(at_least(b, mul(b, less)), slack, mul(b, less)), margin)
        a = fma(load64(y, at), zero, a)
        b = fma(load64(y, at + 8), zero, b)
        store(limit, i, narrow(a, b))
        at += (D + 1) * STRIP


@inner
def choose(
    u: Any, K: int, K4: int, T: int, W: int, limit: Any, best: Any, n: int, pairs: Any
) -> Any:
    """The vectors of rows in which a row's bound is not above its limit, with their components.

    Pairs of both come vector by vector, components in order, as ``pairs[0]`` and ``pairs[1]``
    say: the component and the first row. At first, where `n` is zero, these are the rows' `best`;
    they have places 0, 1, and so on, and then there are `n` of them. ``pairs[2]`` is the place of
    each pair, and new ones, which are listed in ``pairs[3]`` and ``pairs[4]``, have the next ones.
    Returns how many pairs there are, and how many places.
    """
    owner, row, place, new_owner, new_row = pairs
    found, old, new = 0, 0, n
    for i in range(0, T, STRIP):
        for begin in range(0, K, BITS):
            many = min(BITS, K - begin)
            low, high = 0, 0
            if n > 0:
                at = (i // STRIP * K4 + begin) * STRIP
                low, high = masks(u, at, many, load(limit, i), W)
            for j in range(i, i + STRIP, W):
                known = 0
                for r in range(j, j + W):
                    k = int(best[r]) - begin
                    known |= 1 << k if k >= 0 and k < many else 0
                mask = (low if j == i else high) | known
                known = known if n > 0 else 0
                while mask != 0:
                    k = lowest(mask)
                    mask &= mask - 1
                    owner[found] = begin + k
                    row[found] = j
                    had = known >> k & 1
                    place[found] = old if had == 1 else new
                    new_owner[new] = begin + k
                    new_row[new] = j
                    found += 1
                    old += had
                    new += 1 - had
    return found, new


@inner
def masks(u: Any, at: int, K: int, limit: Any, W: int) -> Any:
    """The components of which a bound is not above its limit, a bit for each of at most 62.

    Of the first W and of the last W rows of a strip.
    """
    low, high = 0, 0
    one = 1
    here = (1 << W) - 1
    for k in range(K):
        bits = not_above(load(u, at + k * STRIP), limit)
        low |= one if bits & here != 0 else 0
        high |= one if bits >> W != 0 else 0
        one <<= 1
    return low, high


@inner
def group(
    K: int, n: int, owner: Any, row: Any, used: Any, begin: Any, rows_of: Any, from_of: Any
) -> None:
    """The pairs that are used, component by component, those of k from ``begin[k]`` on.

    `rows_of` are their first rows and `from_of` which pairs they are.
    """
    begin[:] = 0
    for p in range(n):
        begin[owner[p] + 2] += used[p]
    for k in range(2, K + 2):
        begin[k] += begin[k - 1]
    for p in range(n):
        if used[p] != 0:
            to = begin[owner[p] + 1]
            rows_of[to] = row[p]
            from_of[to] = p
            begin[owner[p] + 1] = to + 1
