"""Categories in tiles: log p(x | θ_k) is a sum of table entries, one a column.

The table holds a vector of K log-probabilities for every level of every column, so a row costs
one addition a column and component, however many levels there are. One-hot rows would cost as
many as there are levels.
"""

from __future__ import annotations

import math
from typing import Any

from streamgmm.kernels.compiled import compiled, inner
from streamgmm.kernels.linear import hand_out
from streamgmm.kernels.normalisation import normalize
from streamgmm.kernels.sums import dot, row_sum
from streamgmm.kernels.vectors import add, load, splat, store

UNKNOWN = -1  # the code of a value that is no level


@inner
def find_level(value: float, levels: Any, begin: int, end: int) -> int:
    """Where a value is among sorted ``levels[begin:end]``, counted from `begin`; or UNKNOWN."""
    guess = value - levels[begin]
    if guess >= 0 and guess < end - begin:  # levels are often consecutive whole numbers
        at = int(guess)
        if levels[begin + at] == value:
            return at
    low, high = begin, end
    while low < high:
        middle = (low + high) // 2
        if levels[middle] < value:
            low = middle + 1
        else:
            high = middle
    if low < end and levels[low] == value:
        return low - begin
    return UNKNOWN


@inner
def _find_places(
    X: Any, row: int, levels: Any, starts: Any, regular: bool, width: int, places: Any, at: int
) -> bool:
    """Where the levels of a row are in the table; whether all its values are levels.

    One that is none has the last place, which is no level's. Where all levels are `regular`,
    consecutive whole numbers, there is nothing to look for.
    """
    D = X.shape[1]
    nowhere = levels.shape[0]
    unknown = 0
    if regular:
        for d in range(D):
            off = float(X[row, d]) - levels[starts[d]]
            code = int(off)
            found = off >= 0 and off < starts[d + 1] - starts[d] and float(code) == off
            places[at + d] = (starts[d] + code if found else nowhere) * width
            unknown += 0 if found else 1
    else:
        for d in range(D):
            code = find_level(X[row, d], levels, starts[d], starts[d + 1])
            found = code != UNKNOWN
            places[at + d] = (starts[d] + code if found else nowhere) * width
            unknown += 0 if found else 1
    return unknown == 0


@inner
def _look_up(
    X: Any, first: int, m: int, T: int, levels: Any, starts: Any, regular: bool, table: Any,
    width: int, places: Any, acc: Any, q: Any, K: int, strict: bool, known: Any,
) -> None:  # fmt: skip
    """Places of the rows' values in the table, and -2 Σ log p into `q` (K·T,).

    `known` tells by zero which rows have a value that is no level, where that is not allowed.
    """
    D = X.shape[1]
    for i in range(m):
        known[i] = 1.0
        if not _find_places(X, first + i, levels, starts, regular, width, places, i * D):
            for d in range(D):
                if strict or not math.isfinite(X[first + i, d]):
                    known[i] = 0.0
        for k in range(0, width, 8):
            s = splat(0.0)
            for d in range(i * D, i * D + D):
                s = add(s, load(table, places[d] + k))
            store(acc, k, s)
        for k in range(K):
            q[k * T + i] = -2.0 * acc[k]
    for i in range(m, T):
        for k in range(K):
            q[k * T + i] = 0.0


@compiled
def category_sums(
    X: Any, weight: Any, levels: Any, starts: Any, regular: bool, table: Any, const: Any,
    strict: bool,
    rows_a_tile: int, work: Any, rows: Any, places: Any, totals: Any, n: Any, counts: Any,
) -> None:  # fmt: skip
    """Add a piece to: `totals` (log-likelihood, entropy), `n` (K,), `counts` as the table.

    Rows of `table` are K long, rounded up to a multiple of 8, flat; the last is of what is no
    level, zeros.
    """
    K = const.shape[0]
    D = X.shape[1]
    width = (K + 7) // 8 * 8
    weighted = weight.shape[0] > 0
    for first in range(0, X.shape[0], rows_a_tile):
        m = min(rows_a_tile, X.shape[0] - first)
        T = (m + 31) // 32 * 32
        q = work[: K * T]
        resp = work[K * T : 2 * K * T]
        acc = work[2 * K * T :]
        wt = rows[:T]
        log_density = rows[T : 2 * T]
        known = rows[3 * T : 4 * T]
        for i in range(m):
            wt[i] = weight[first + i] if weighted else 1.0
        wt[m:T] = 0.0
        _look_up(
            X, first, m, T, levels, starts, regular, table, width, places, acc, q, K, strict, known
        )
        normalize(q, K, T, const, wt, resp, log_density, rows[2 * T :])
        for i in range(m):
            if known[i] == 0.0:
                log_density[i] = math.nan
        totals[0] += dot(rows, T, wt, T)
        totals[1] += dot(rows, 2 * T, wt, T)
        for k in range(K):
            n[k] += row_sum(resp, k * T, T)
        acc[:width] = 0.0
        for i in range(m):
            for k in range(K):
                acc[k] = resp[k * T + i]
            for k in range(0, width, 8):
                r = load(acc, k)
                for d in range(i * D, i * D + D):
                    at = places[d] + k
                    store(counts, at, add(load(counts, at), r))


@compiled
def category_posterior(
    X: Any, levels: Any, starts: Any, regular: bool, table: Any, const: Any, strict: bool,
    rows_a_tile: int, work: Any, rows: Any, places: Any,
    log_density: Any, labels: Any, resp_out: Any,
) -> None:  # fmt: skip
    """Log-density (N,), label (N,) int32 and responsibilities (N, K) of each row."""
    K = const.shape[0]
    width = (K + 7) // 8 * 8
    for first in range(0, X.shape[0], rows_a_tile):
        m = min(rows_a_tile, X.shape[0] - first)
        T = (m + 31) // 32 * 32
        q = work[: K * T]
        resp = work[K * T : 2 * K * T]
        acc = work[2 * K * T :]
        wt = rows[:T]
        density = rows[T : 2 * T]
        known = rows[3 * T : 4 * T]
        wt[:] = 1.0
        _look_up(
            X, first, m, T, levels, starts, regular, table, width, places, acc, q, K, strict, known
        )
        normalize(q, K, T, const, wt, resp, density, rows[2 * T :])
        for i in range(m):
            if known[i] == 0.0:
                density[i] = math.nan
        hand_out(q, const, resp, density, first, m, T, log_density, labels, resp_out)


@compiled
def count(codes: Any, resp: Any, starts: Any, counts: Any) -> None:
    """Add the responsibilities (n, K) of rows to those of their levels, ``counts`` (levels, K)."""
    for i in range(codes.shape[0]):
        for d in range(codes.shape[1]):
            if codes[i, d] != UNKNOWN:
                at = starts[d] + codes[i, d]
                for k in range(resp.shape[1]):
                    counts[at, k] += resp[i, k]


@compiled
def encode(X: Any, levels: Any, starts: Any, codes: Any) -> None:
    """Which level each value is (n, D) int32, -1 where it is none."""
    for i in range(X.shape[0]):
        for d in range(X.shape[1]):
            codes[i, d] = find_level(X[i, d], levels, starts[d], starts[d + 1])
