"""Lloyd's k-means: the nearest centre of every row, and the sums that move the centres.

Distances to all centres are ranked in float32, in which |c|² - 2 x·c is a matrix product of
strips of 64 rows, both less a reference near the data. The rounding of that is bounded, row by
row. Where the bound does not tell the nearest centre from the second, all centres of that row
are compared again by Σ (x - c)² in float64, ties going to the lowest number. So labels are those
of float64 whatever the dtype of the rows, and the product runs at the speed of float32.

The same bounds tell how far centres may move before a row could change its label (Hamerly 2010,
"Making k-means even faster"): `until` is that distance on the scale of its centre's `drift`, the
sum of how far that centre and the fastest other one have moved. Rows below it are not ranked.

Sums are taken about the centres, over all rows, in float64 and in the order of the rows: their
bits depend neither on threads nor on what was skipped. Arrays come in groups:

- rows: X (n, D), weight (n,) or none, ref (D,);
- model: centres (K·D) less ref, the same for the product (K4·D float32, -2 c, four centres side
  by side), their squared norms (K4 float32, infinite in the padding), the same again feature by
  feature (D·K8), the two terms of the bound, drift (K,);
- known: labels (n,) int32, until (n,) float32;
- sums of each block: weight (B, K), Σ w (x - c) (B, K·D), and inertia, changed labels, rows that
  were compared again, rows that were ranked (B, 4);
- scratch: a tile (D + 3)·64 float32, row numbers of a chunk, distances (K8).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from streamgmm.kernels.compiled import compiled
from streamgmm.kernels.kmeans_simd import blank_first, four_times_each, gather_turned, keep_two
from streamgmm.kernels.shuffles import total
from streamgmm.kernels.vectors import (
    add,
    add_outer,
    at_least,
    fma,
    load,
    load64,
    load_four,
    mul,
    splat,
    splat_four,
    sqrt,
    store,
    store_four,
    sub,
    zeros,
)

STRIP = 64
FEATURES = 3 * STRIP
GOES_ON, SETTLED, STANDS, EMPTY = 0, 1, 2, 3

inner = njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy")


@inner
def gather(X: Any, listed: Any, at: int, ref: Any, tile: Any) -> None:
    """Rows ``listed[at:at + 64]`` less `ref`, feature by feature."""
    D = X.shape[1]
    if D < 8:
        for i in range(STRIP):
            row = listed[at + i]
            for d in range(D):
                tile[FEATURES + d * STRIP + i] = X[row, d] - ref[d]
    else:
        for i in range(0, STRIP, 8):
            for begin in range(0, D, 8):
                d = min(begin, D - 8)
                gather_turned(X, listed, at + i, ref, d, tile, FEATURES + d * STRIP + i, STRIP)


@inner
def rank(tile: Any, D: int, packed: Any, norms: Any, bound: Any) -> None:
    """Of each row of a strip: the nearest centre, whether that is sure, and its lead.

    It is sure where the second value is positive; the lead is by how much the second centre is
    farther than the nearest, bounded from below.
    """
    zero = zeros(tile)
    far = splat(np.float32(math.inf))
    held = (far, far, far, far, far, far, far, far, zero, zero, zero, zero)
    for k in range(0, norms.shape[0], 4):
        z = four_times_each(splat_four(norms, k, 1))
        for d in range(D):
            z = add_outer(
                z, splat_four(packed, k * D + 4 * d, 1), load_four(tile, FEATURES + d * STRIP, 16)
            )
        held = keep_two(held, z, np.float32(k))
    store_four(tile, 0, 16, (held[8], held[9], held[10], held[11]))
    store_four(tile, STRIP, 16, (held[0], held[1], held[2], held[3]))
    store_four(tile, 2 * STRIP, 16, (held[4], held[5], held[6], held[7]))
    less = splat(np.float32(1 - 2**-21))  # roots are rounded too
    more = splat(np.float32(1 + 2**-21))
    for i in range(0, STRIP, 16):
        square = zero
        for d in range(D):
            x = load(tile, FEATURES + d * STRIP + i)
            square = fma(x, x, square)
        error = fma(square, splat(bound[0]), splat(bound[1]))
        least = load(tile, STRIP + i)
        second = load(tile, 2 * STRIP + i)
        store(tile, STRIP + i, sub(sub(second, least), error))
        error = fma(square, splat(bound[0]), error)
        near = sqrt(at_least(add(add(least, square), error), zero))
        other = sqrt(at_least(sub(add(second, square), error), zero))
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
def add_rows(
    rows: Any, centres: Any, labels: Any, start: int, stop: int, mass: Any, first: Any, to: int
) -> Any:
    """Add to the weight and to Σ w (x - c) of each row's cluster; Σ w |x - c|² of all rows.

    Where the features are no multiple of 8, the last vector overlaps the one before, and counts
    only what is new.
    """
    X, weight, ref = rows
    D = X.shape[1]
    weighted = weight.shape[0] > 0
    squares = splat(0.0)
    rest = 0.0
    for i in range(start, stop):
        w = weight[i] if weighted else 1.0
        k = labels[i]
        mass[to + k] += w
        at = k * D
        put = to * D + at
        if D < 8:
            for d in range(D):
                y = X[i, d] - ref[d] - centres[at + d]
                first[put + d] += w * y
                rest += w * y * y
        else:
            for begin in range(0, D, 8):
                d = min(begin, D - 8)
                y = sub(sub(load64(X, i * D + d), load64(ref, d)), load(centres, at + d))
                y = blank_first(y, begin - d)
                v = mul(splat(w), y)
                store(first, put + d, add(load(first, put + d), v))
                squares = fma(v, y, squares)
    return total(squares) + rest


@compiled
def assign(
    rows: Any, model: Any, known: Any, sums: Any, scratch: Any, block: int, start: int, stop: int
) -> None:
    """Nearest centres and sums of blocks ``start:stop``, each of `block` rows, the last of fewer.

    A block goes by in chunks that stay in cache: first the rows that must be ranked, 64 at a
    time, then the sums.
    """
    X, _, ref = rows
    centres, packed, norms, across, bound, drift = model
    labels, until = known
    mass, first, counts = sums
    tile, listed, distances = scratch
    D = X.shape[1]
    K = drift.shape[0]
    chunk = listed.shape[0]
    for b in range(start, stop):
        end = min(X.shape[0], (b + 1) * block)
        for k in range(K):
            mass[b * K + k] = 0.0
        for i in range(b * K * D, (b + 1) * K * D):
            first[i] = 0.0
        inertia, changed, compared, ranked = 0.0, 0, 0, 0
        for begin in range(b * block, end, chunk):
            close = min(end, begin + chunk)
            m = 0
            for i in range(begin, close):
                listed[m] = i
                k = labels[i]
                m += k < 0 or not until[i] > drift[k]
            ranked += m
            for i in range(m, (m + STRIP - 1) // STRIP * STRIP):
                listed[i] = listed[m - 1]
            for at in range(0, m, STRIP):
                gather(X, listed, at, ref, tile)
                rank(tile, D, packed, norms, bound)
                for j in range(min(STRIP, m - at)):
                    i = listed[at + j]
                    if tile[STRIP + j] > 0.0:
                        k = int(tile[j])
                        lead = float(tile[2 * STRIP + j])
                    else:
                        k, lead = compare(X, i, ref, across, K, distances)
                        compared += 1
                    until[i] = (lead + drift[k]) * (1 - 1e-7) if lead > 0.0 else -1.0
                    changed += labels[i] != k
                    labels[i] = k
            inertia += add_rows(rows, centres, labels, begin, close, mass, first, b * K)
        counts[4 * b] = inertia
        counts[4 * b + 1] = changed
        counts[4 * b + 2] = compared
        counts[4 * b + 3] = ranked


@inner
def prepare(model: Any) -> None:
    """What ranking needs of the centres, and the bound on its rounding.

    With u the rounding unit of float32, |c|² - 2 x·c of D features errs by at most
    u (2D + 2) (|c|² + 2 |x| |c|) ≤ u (2D + 2) (2 |c|² + |x|²), inputs that are rounded included
    (Higham 2002, "Accuracy and stability of numerical algorithms", §3.1), and two of them by
    twice that. The rest of 4D + 24 is for the few operations with the results.
    """
    centres, packed, norms, across, bound, drift = model
    K = drift.shape[0]
    D = centres.shape[0] // K
    K8 = across.shape[0] // D
    most = 0.0
    for k in range(norms.shape[0]):
        square = 0.0
        for d in range(D):
            c = centres[k * D + d] if k < K else 0.0
            square += c * c
            packed[(k // 4 * D + d) * 4 + k % 4] = -2.0 * c
            across[d * K8 + k] = c
        norms[k] = square if k < K else math.inf
        most = max(most, square)
    unit = (4 * D + 24) * 2.0**-24
    bound[0] = unit
    bound[1] = (unit * 2.0 * most + D * 2.0**-120) * (1 + 1e-6)  # and where products underflow


@inner
def move(model: Any, mass: Any, first: Any, totals: Any, tol: float) -> Any:
    """Move each centre by the mean of its rows, and say whether that was the last time.

    A centre without rows goes where the heaviest is. The inertia in ``totals[0]`` becomes that
    about the new centres where they are the means of the rows that it was summed over.
    """
    centres, _, _, _, _, drift = model
    K = drift.shape[0]
    D = centres.shape[0] // K
    heaviest = 0
    for k in range(K):
        heaviest = k if mass[k] > mass[heaviest] else heaviest
    moved, fastest, other = 0.0, 0.0, 0.0
    for turn in range(2):
        for k in range(K):
            if (mass[k] > 0.0) != (turn == 0):
                continue
            square = 0.0
            for d in range(D):
                at = k * D + d
                step = (
                    first[at] / mass[k] if turn == 0 else centres[heaviest * D + d] - centres[at]
                )
                totals[0] -= step * first[at]
                old = centres[at]
                centres[at] = old + step
                square += (centres[at] - old) ** 2
            moved += square
            shift = math.sqrt(square)
            first[k * D] = shift  # the sums have been used
            other = max(other, min(shift, fastest))
            fastest = max(fastest, shift)
    totals[0] = max(totals[0], 0.0)
    for k in range(K):
        shift = first[k * D]
        drift[k] += (shift + (other if shift == fastest else fastest)) * (1 + 1e-9)
    prepare(model)
    if totals[1] == 0.0:
        return STANDS
    return SETTLED if moved <= tol else GOES_ON


@compiled
def finish(model: Any, sums: Any, merged: Any, tol: float) -> Any:
    """Merge the blocks' sums in their order and move the centres, unless one has no rows.

    Without blocks, centres move as `merged` says.
    """
    mass, first, totals = merged
    if sums[0].shape[0] > 0:
        for part, whole in ((sums[0], mass), (sums[1], first), (sums[2], totals)):
            n = whole.shape[0]
            for i in range(n):
                whole[i] = part[i]
                for at in range(n + i, part.shape[0], n):
                    whole[i] += part[at]
        for k in range(mass.shape[0]):
            if not mass[k] > 0.0:
                return EMPTY
    return move(model, mass, first, totals, tol)
