"""k-means++: rows drawn in proportion to their squared distance from those taken before.

Arthur & Vassilvitskii (2007), "k-means++: the advantages of careful seeding", with the greedy
variant of their last section: of L rows drawn, rivals, the one is taken that leaves the least.

Rows are held in S strips of 64, feature by feature, less a reference near the data, with their
weights as feature D8. Sums are kept of each strip; a draw looks up its strip first and then its
row. So nothing depends on how many threads measure strips. Arrays come in groups:

- rows: X (n, D), weight (n,) or none, ref (D8,), D8 a multiple of 8;
- scratch: strips of the dtype of the rows, strip t at ``t * stride``, and 64 row numbers;
- state: coordinates of the rivals (L4·D), four side by side; squared distances from what has been
  taken, with 64·S a line: now, with each rival, and a last one that is never read; the numbers of
  those lines (1 + L4); what is left of each strip with each rival (S·L4);
- draws: the rivals' rows (L,), what is left up to the end of each strip now (S,), the rows taken
  (K,), and where to look for a row that has not been taken (1,).
"""

from __future__ import annotations

import math
from typing import Any

from streamgmm.kernels.blocks import (
    load_four,
    sixteen,
    splat_four,
    store_each,
)
from streamgmm.kernels.compiled import compiled, inner
from streamgmm.kernels.kmeans import STRIP, gather
from streamgmm.kernels.kmeans_simd import (
    add_products,
    add_squared_differences,
    least_each,
)
from streamgmm.kernels.shuffles import add_totals
from streamgmm.kernels.vectors import (
    zeros,
)


@inner
def fill(rows: Any, first: int, listed: Any, strips: Any, at: int) -> None:
    """Rows ``first:first + 64`` less the reference, and their weights: zero after the last."""
    X, weight, ref = rows
    last = X.shape[0] - 1
    weighted = weight.shape[0] > 0
    for i in range(STRIP):
        row = min(first + i, last)
        listed[i] = row
        w = weight[row] if weighted else 1.0
        strips[at + ref.shape[0] * STRIP + i] = w if row == first + i else 0.0
    gather(X, listed, 0, ref, strips, at)


@compiled
def measure(
    rows: Any, scratch: Any, stride: int, filled: bool, state: Any, W: int, start: int, stop: int
) -> None:
    """Distances with each rival, and what is left with each, of strips ``start:stop``.

    `W` is the number of lanes of the dtype; strips that are `filled` are not read again.
    """
    D = rows[0].shape[1]
    D8 = rows[2].shape[0]
    strips, listed = scratch
    rivals, distances, lines, left = state
    L4 = lines.shape[0] - 1
    N = left.shape[0] // L4 * STRIP
    zero = zeros(strips)
    for t in range(start, stop):
        at = t * stride
        if not filled:
            fill(rows, t * STRIP, listed, strips, at)
        for r in range(0, L4, 4):
            s0, s1, s2, s3 = zero, zero, zero, zero
            for i in range(0, STRIP, 4 * W):
                z = sixteen(zero)
                for d in range(D):
                    c = splat_four(rivals, r * D + 4 * d, 1)
                    z = add_squared_differences(z, c, load_four(strips, at + d * STRIP + i, W))
                to = t * STRIP + i
                now = load_four(distances, lines[0] * N + to, W)
                w = load_four(strips, at + D8 * STRIP + i, W)
                q = least_each((z[0], z[1], z[2], z[3]), now)
                store_each(distances, lines[r + 1] * N + to, W, q)
                s0 = add_products(s0, q, w)
                q = least_each((z[4], z[5], z[6], z[7]), now)
                store_each(distances, lines[r + 2] * N + to, W, q)
                s1 = add_products(s1, q, w)
                q = least_each((z[8], z[9], z[10], z[11]), now)
                store_each(distances, lines[r + 3] * N + to, W, q)
                s2 = add_products(s2, q, w)
                q = least_each((z[12], z[13], z[14], z[15]), now)
                store_each(distances, lines[r + 4] * N + to, W, q)
                s3 = add_products(s3, q, w)
            for j in range(4):
                left[t * L4 + r + j] = 0.0
            add_totals(left, t * L4 + r, (s0, s1, s2, s3))


@inner
def first_left(weight: Any, taken: Any, c: int, place: Any, n: int) -> Any:
    """The first row with weight that is none of ``taken[:c]``; without one, the first taken."""
    while place[0] < n:
        i = place[0]
        free = weight.shape[0] == 0 or weight[i] > 0.0
        for j in range(c):
            free = free and taken[j] != i
        if free:
            return i
        place[0] += 1
    return taken[0] if c > 0 else 0


@compiled
def draw(rows: Any, state: Any, draws: Any, uniforms: Any, c: int) -> None:
    """Take the best rival as row c - 1, then draw rivals for row c; the first has only one.

    `uniforms` (1 + (K-1)·L) are in [0, 1), in the order of draws. Where nothing is left, since
    every row equals one that was taken, the first row that has not been taken is.
    """
    X, weight, ref = rows
    rivals, distances, lines, left = state
    drawn, upto, taken, place = draws
    n, D = X.shape
    L = drawn.shape[0]
    L4 = lines.shape[0] - 1
    S = upto.shape[0]
    weighted = weight.shape[0] > 0
    if c == 0:
        s = 0.0
        for t in range(S):
            for i in range(t * STRIP, min(n, (t + 1) * STRIP)):
                s += weight[i] if weighted else 1.0
            upto[t] = s
    else:
        best, least = 0, math.inf
        for r in range(1 if c == 1 else L):
            s = 0.0
            for t in range(S):
                s += left[t * L4 + r]
            if s < least:
                best, least = r, s
        taken[c - 1] = drawn[best]
        lines[0], lines[best + 1] = lines[best + 1], lines[0]
        s = 0.0
        for t in range(S):
            s += left[t * L4 + best]
            upto[t] = s
    if c == taken.shape[0]:
        return
    for r in range(1 if c == 0 else L):
        row = -1
        if 0.0 < upto[S - 1] < math.inf:
            rest = uniforms[0 if c == 0 else (c - 1) * L + r + 1] * upto[S - 1]
            t, high = 0, S - 1
            while t < high:
                middle = (t + high) // 2
                if upto[middle] > rest:
                    high = middle
                else:
                    t = middle + 1
            rest -= upto[t - 1] if t > 0 else 0.0
            for i in range(t * STRIP, min(n, (t + 1) * STRIP)):
                mass = weight[i] if weighted else 1.0
                if c > 0:
                    mass *= distances[lines[0] * S * STRIP + i]
                if mass > 0.0:
                    row = i
                    rest -= mass
                    if rest < 0.0:
                        break
        if row < 0:
            row = first_left(weight, taken, c, place, n)
        drawn[r] = row
        for d in range(D):
            rivals[(r // 4 * D + d) * 4 + r % 4] = X[row, d] - ref[d]
