"""Nearest centres of rows, out of a list that the rows of each group share.

Rows are sorted by group and gathered, 32 at a time, feature by feature, so that a vector holds a
feature of eight rows, and the few centres of a list are compared with all of them. Distances are
Σ (x - c)² in float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from streamgmm.kernels.blocks import load_four, sixteen, splat_four, store_each
from streamgmm.kernels.compiled import compiled, inner
from streamgmm.kernels.kmeans_simd import add_squared_differences, gather_turned, keep_two
from streamgmm.kernels.vectors import load, splat, zeros

STRIP = 32  # rows that are compared at a time
_W = 8  # lanes of float64


@inner
def _sort_rows(groups: Any, at: Any, order: Any) -> None:
    """Sort rows by group, in their order: ``at[g + 1]`` is then where those of group g end."""
    n = groups.shape[0]
    for g in range(at.shape[0]):
        at[g] = 0
    for i in range(n):
        at[groups[i] + 2] += 1
    for g in range(2, at.shape[0]):
        at[g] += at[g - 1]
    for i in range(n):
        order[at[groups[i] + 1]] = i
        at[groups[i] + 1] += 1


@inner
def _pack(centres: Any, zero: Any, lists: Any, g: int, listed: Any, packed: Any) -> None:
    """The centres of a list, eight side by side; NaN, which are the last row, for none."""
    D8 = centres.shape[1]
    for c in range(listed.shape[0]):
        k = lists[g, c] if c < lists.shape[1] else -1
        listed[c] = k if k >= 0 else centres.shape[0] - 1
    for c in range(0, listed.shape[0], 8):
        for d in range(0, D8, 8):
            gather_turned(centres, listed, c, zero, d, packed, c * D8 + 8 * d, 8)


@inner
def _gather(X: Any, order: Any, begin: int, end: int, ref: Any, few: Any, tile: Any) -> None:
    """Rows ``order[begin:end]``, at most a strip, less `ref`; the last one again in the rest.

    What is left of the last vector of a row is the beginning of the next one: it ends in the
    padding of the tile. The last rows of all have none after them, and go value by value.
    """
    D = X.shape[1]
    D8 = (D + 7) // 8 * 8
    for i in range(STRIP):
        few[i] = order[min(begin + i, end - 1)]
    for i in range(0, STRIP, 8):
        if i >= end - begin:
            break
        if few[i + 7] * D + D8 <= X.size:
            for d in range(0, D, 8):
                gather_turned(X, few, i, ref, d, tile, d * STRIP + i, STRIP)
        else:
            for j in range(i, i + 8):
                for d in range(D):
                    tile[d * STRIP + j] = X[few[j], d] - ref[d]


@inner
def _rank(packed: Any, C: int, D: int, D8: int, tile: Any) -> None:
    """The place in a list of the nearest centre, for each row of a strip."""
    zero, far = zeros(tile), splat(math.inf)
    least = second = (far, far, far, far)
    place = (zero, zero, zero, zero)
    for c in range(0, C, 4):
        z = sixteen(zero)
        at = c // 8 * 8 * D8 + c % 8
        for d in range(D):
            own = splat_four(packed, at + 8 * d, 1)
            z = add_squared_differences(z, own, load_four(tile, d * STRIP, _W))
        least, second, place = keep_two(least, second, place, z, np.float64(c))
    store_each(tile, 0, _W, place)


@inner
def _rank_half(packed: Any, C: int, D: int, D8: int, tile: Any) -> None:
    """The same of the first half of a strip, with eight centres at a time."""
    zero, far = zeros(tile), splat(math.inf)
    least = second = (far, far)
    place = (zero, zero)
    for c in range(0, C, 8):
        z = sixteen(zero)
        for d in range(D):
            own = splat_four(packed, c * D8 + 8 * d, 1)
            more = splat_four(packed, c * D8 + 8 * d + 4, 1)
            both = own[0], own[1], own[2], own[3], more[0], more[1], more[2], more[3]
            x = load(tile, d * STRIP), load(tile, d * STRIP + _W)
            z = add_squared_differences(z, both, x)
        least, second, place = keep_two(least, second, place, z, np.float64(c))
    store_each(tile, 0, _W, place)


@compiled
def nearest_listed(
    X: Any, ref: Any, centres: Any, lists: Any, groups: Any, scratch: Any, labels: Any
) -> None:
    """The nearest centre of each row (n,), of those in the list of its group (n,).

    `centres` (K + 1, D8) are less `ref` (D8,), and NaN in the last row; `lists` (G, C) have -1
    where there are fewer. Of equally near centres the first in the list is taken. `scratch` are
    where groups begin (G + 2), row numbers (n), of a strip (32) and of a list (C8), its centres
    (C8·D8), a tile (32·D8), and zeros (D8).
    """
    at, order, few, listed, packed, tile, zero = scratch
    D, D8, C = X.shape[1], ref.shape[0], listed.shape[0]
    _sort_rows(groups, at, order)
    begin = 0
    for g in range(lists.shape[0]):
        end = at[g + 1]
        if end > begin:
            _pack(centres, zero, lists, g, listed, packed)
        for a in range(begin, end, STRIP):
            _gather(X, order, a, end, ref, few, tile)
            if end - a > STRIP // 2:
                _rank(packed, C, D, D8, tile)
            else:
                _rank_half(packed, C, D, D8, tile)
            for i in range(min(STRIP, end - a)):
                labels[order[a + i]] = lists[g, int(tile[i])]
        begin = end
