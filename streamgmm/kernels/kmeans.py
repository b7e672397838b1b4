"""Lloyd's k-means: the nearest centre of every row, and the sums that move the centres.

Distances to all centres are ranked in float32, in which |c|² - 2 x·c is a matrix product of
strips of 64 rows, both less a reference near the data. The rounding of that is bounded, row by
row. Where the bound does not tell the nearest centre from the second, all centres of that row
are compared again by Σ (x - c)² in float64, ties going to the lowest number. So labels are those
of float64 whatever the dtype of the rows, and the product runs at the speed of float32.

The same bounds tell how far centres may move before a row could change its label (Hamerly 2010,
"Making k-means even faster"): `until` is that distance on the scale of its centre's `drift`, the
sum of how far that centre and the fastest other one have moved. Rows below it are not ranked.

Sums are in float64 and in the order of the rows, block by block, and are taken afresh each time,
so that bits depend neither on threads nor on what was skipped. Arrays come in groups:

- rows: X (n, D), weight (n,) or none, ref (D8,);
- model: centres (K·D8) less ref, the same for the product (K4·D float32, -2 c, four centres side
  by side), their squared norms (K4 float32, infinite in the padding), the same again feature by
  feature (D·K8), the three terms of the bound, drift (K,), and D8 zeros;
- known: labels (n,) int32, until (n,) float32;
- sums of each of B blocks: weight (B·K), rows with weight (B·K), Σ w (x - ref) or, where they
  are exact, Σ w (x - c) (B·K·D8), and inertia, changed labels, rows that were compared again,
  rows that were ranked (B·4); merged they are the same of one block;
- scratch: a tile (D8 + 3)·64 float32, row numbers of a chunk, distances (K8).

D8, K4 and K8 are padded to a multiple of that, with zeros.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from streamgmm.kernels.blocks import (
    SIDE,
    add_each,
    add_outer,
    block_of,
    load_side,
    side_of,
    splat_side,
    store_each,
)
from streamgmm.kernels.compiled import compiled, inner
from streamgmm.kernels.kmeans_simd import gather_turned, keep_two, load_first, side_times_each
from streamgmm.kernels.shuffles import total
from streamgmm.kernels.vectors import (
    add,
    at_least,
    fma,
    load,
    load64,
    mul,
    splat,
    sqrt,
    store,
    sub,
    zeros,
)

STRIP = 64
RUN = 64  # features that are summed by themselves, or the bound would grow with all of them
FEATURES = 3 * STRIP


@inner
def gather(X: Any, listed: Any, at: int, ref: Any, tile: Any, to: int) -> None:
    """Rows ``listed[at:at + 64]``, in order, less `ref`: feature by feature from ``tile[to]`` on.

    What is left of the last vector of a row is the beginning of the next one: it ends in the
    padding of the tile. The last rows of all have none after them, and go value by value.
    """
    D = X.shape[1]
    D8 = (D + 7) // 8 * 8
    whole = STRIP if listed[at + STRIP - 1] * D + D8 <= X.size else 0
    for i in range(0, whole, 8):
        for d in range(0, D, 8):
            gather_turned(X, listed, at + i, ref, d, tile, to + d * STRIP + i, STRIP)
    for i in range(whole, STRIP):
        for d in range(D):
            tile[to + d * STRIP + i] = X[listed[at + i], d] - ref[d]


@inner
def rank(tile: Any, D: int, packed: Any, norms: Any, bound: Any) -> None:
    """Of each row of a strip: the nearest centre, whether that is sure, and its lead.

    It is sure where the second value is positive; the lead is by how much the second centre is
    farther than the nearest, bounded from below.
    """
    zero = zeros(tile)
    far = splat(np.float32(math.inf))
    for i in range(0, STRIP, SIDE * 16):
        at = FEATURES + i
        least, second, place = side_of(far), side_of(far), side_of(zero)
        for k in range(0, norms.shape[0], SIDE):
            own = k // 4 * 4 * D + k % 4
            z = side_times_each(splat_side(norms, k, 1))
            for d in range(min(D, RUN)):
                c = splat_side(packed, own + 4 * d, 1)
                z = add_outer(z, c, load_side(tile, at + d * STRIP, 16))
            for begin in range(RUN, D, RUN):
                more = block_of(zero)
                for d in range(begin, min(D, begin + RUN)):
                    c = splat_side(packed, own + 4 * d, 1)
                    more = add_outer(more, c, load_side(tile, at + d * STRIP, 16))
                z = add_each(z, more)
            least, second, place = keep_two(least, second, place, z, np.float32(k))
        store_each(tile, i, 16, place)
        store_each(tile, STRIP + i, 16, least)
        store_each(tile, 2 * STRIP + i, 16, second)
    less = splat(np.float32(1 - 2**-21))  # roots are rounded too
    more = splat(np.float32(1 + 2**-21))
    for i in range(0, STRIP, 16):
        square = zero
        for d in range(D):
            x = load(tile, FEATURES + d * STRIP + i)
            square = fma(x, x, square)
        error = fma(square, splat(bound[0]), splat(bound[1]))
        first = load(tile, STRIP + i)
        next_one = load(tile, 2 * STRIP + i)
        store(tile, STRIP + i, sub(sub(next_one, first), error))
        error = fma(square, splat(bound[2]), error)
        near = sqrt(at_least(add(add(first, square), error), zero))
        other = sqrt(at_least(sub(add(next_one, square), error), zero))
        store(tile, 2 * STRIP + i, sub(mul(other, less), mul(near, more)))


@inner
def compare(X: Any, row: int, ref: Any, across: Any, K: int, distances: Any) -> Any:
    """The nearest centre of one row and its lead, by Σ (x - c)² in float64."""
    D = X.shape[1]
    K8 = distances.shape[0]
    for k in range(0, K8, 8):
        s = splat(0.0)
        for d in range(D):
            y = sub(splat(X[row, d] - ref[d]), load(across, d * K8 + k))
            s = fma(y, y, s)
        store(distances, k, s)
    place, least, second = 0, distances[0], math.inf
    for k in range(1, K):
        value = distances[k]
        if value < least:
            place, least, second = k, value, least
        elif value < second:
            second = value
    return place, math.sqrt(second) * (1 - 1e-9) - math.sqrt(least) * (1 + 1e-9)


@inner
def tally(
    rows: Any, about: Any, stride: int, labels: Any, start: int, stop: int,
    mass: Any, n_rows: Any, first: Any, to: int,
) -> Any:  # fmt: skip
    """Add rows ``start:stop`` to the sums of their clusters; returns their Σ w |x - c|².

    The sums are about ``about[stride * k:]``.
    """
    X, weight, ref = rows
    D = X.shape[1]
    whole = D // 8 * 8
    D8 = ref.shape[0]
    weighted = weight.shape[0] > 0
    squares = splat(0.0)
    w = 1.0
    for i in range(start, stop):
        k = labels[i]
        if weighted:
            w = weight[i]
        n_rows[to + k] += 1.0 if w > 0.0 else 0.0
        mass[to + k] += w
        put = (to + k) * D8
        for d in range(0, whole, 8):
            y = sub(sub(load64(X, i * D + d), load64(ref, d)), load(about, stride * k + d))
            v = mul(splat(w), y)
            store(first, put + d, add(load(first, put + d), v))
            squares = fma(v, y, squares)
        if whole < D:
            x = load_first(X, i * D + whole, D - whole)
            y = sub(sub(x, load64(ref, whole)), load(about, stride * k + whole))
            v = mul(splat(w), y)
            store(first, put + whole, add(load(first, put + whole), v))
            squares = fma(v, y, squares)
    return total(squares)


@inner
def rank_rows(rows: Any, model: Any, known: Any, scratch: Any, begin: int, end: int) -> Any:
    """Nearest centres of those rows ``begin:end`` that may have changed theirs.

    How many labels changed, how many rows were compared again, and how many were ranked.
    """
    X, _, ref = rows
    _, packed, norms, across, bound, drift, _ = model
    labels, until = known
    tile, listed, distances = scratch
    D = X.shape[1]
    m, changed, compared = 0, 0, 0
    for i in range(begin, end):
        listed[m] = i
        k = labels[i]
        m += k < 0 or not until[i] > drift[k]
    for i in range(m, (m + STRIP - 1) // STRIP * STRIP):
        listed[i] = listed[m - 1]
    for at in range(0, m, STRIP):
        gather(X, listed, at, ref, tile, FEATURES)
        rank(tile, D, packed, norms, bound)
        for j in range(min(STRIP, m - at)):
            i = listed[at + j]
            if tile[STRIP + j] > 0.0:
                k = int(tile[j])
                lead = float(tile[2 * STRIP + j])
            else:
                k, lead = compare(X, i, ref, across, drift.shape[0], distances)
                compared += 1
            until[i] = (lead + drift[k]) * (1 - 1e-7) if lead > 0.0 else -1.0
            changed += k != labels[i]
            labels[i] = k
    return changed, compared, m


@compiled
def assign(
    rows: Any, model: Any, known: Any, sums: Any, scratch: Any, block: int, exact: bool,
    start: int, stop: int,
) -> None:  # fmt: skip
    """Nearest centres and sums of blocks ``start:stop``, each of `block` rows, the last of fewer.

    A block goes by in chunks that stay in cache: first the rows that must be ranked, 64 at a
    time, then the sums of all. `exact` sums are about the centres, and bring the inertia.
    """
    centres, origin = model[0], model[6]
    mass, n_rows, first, counts = sums
    n = rows[0].shape[0]
    K = model[5].shape[0]
    D8 = origin.shape[0]
    chunk = scratch[1].shape[0]
    about = centres if exact else origin
    stride = D8 if exact else 0
    for b in range(start, stop):
        for k in range(b * K, (b + 1) * K):
            mass[k] = 0.0
            n_rows[k] = 0.0
        for i in range(b * K * D8, (b + 1) * K * D8):
            first[i] = 0.0
        end = min(n, (b + 1) * block)
        square, changed, compared, ranked = 0.0, 0, 0, 0
        for begin in range(b * block, end, chunk):
            close = min(end, begin + chunk)
            found = rank_rows(rows, model, known, scratch, begin, close)
            changed += found[0]
            compared += found[1]
            ranked += found[2]
            square += tally(
                rows, about, stride, known[0], begin, close, mass, n_rows, first, b * K
            )
        counts[4 * b] = square if exact else 0.0
        counts[4 * b + 1] = changed
        counts[4 * b + 2] = compared
        counts[4 * b + 3] = ranked
