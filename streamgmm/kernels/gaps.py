"""Rows with gaps, of as many patterns of gaps as there may be.

With Λ the precision of a component, d = x - μ, and the missing features m and the observed ones o
of a row,

    x̂_m - μ_m = -Λ_mm⁻¹ Λ_mo d_o     the conditional mean,
    C_m = Λ_mm⁻¹                      the conditional covariance,
    log N(x_o) = log N(x̂) + M/2 log 2π - ½ log |Λ_mm|,

where x̂ is the row with its gaps filled: the squared distance of x_o under the marginal is that of
x̂, the least over x_m. So once rows are filled, for each component by itself, they are ordinary
rows, and go through the ordinary distances and sums of a tile. What depends on the pattern is a
Cholesky factor of Λ_mm. Rows come sorted by pattern, in runs; a factor is made for each run in a
tile, for eight components at a time in the lanes of a vector, and let go with the tile.

Arrays are flat and float64. `lanes` tables of K components are in groups of eight, padded: value k
of entry e is at ``((k // 8) * E + e) * 8 + k % 8`` of E entries.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from streamgmm.kernels.compiled import compiled, inner
from streamgmm.kernels.distances import full_distances
from streamgmm.kernels.elementary import log
from streamgmm.kernels.normalisation import normalize
from streamgmm.kernels.sums import dot, full_moments, row_sum
from streamgmm.kernels.tiles import load_tile, subtract
from streamgmm.kernels.vectors import add, div, fma, load, mul, splat, sqrt, store, sub

LANES = 8
LOG_2PI = math.log(2 * math.pi)


def scratch_size(K: int, D: int, T: int) -> int:
    """Elements of `work`, beside the spreads of a tile, for padded D."""
    groups = -(-K // LANES)
    small = (2 * D * D + 3 * D + T) * LANES * groups
    return (K * D + 2 * D + 2 * K + 10) * T + K * LANES + small


def spread_size(K: int, D: int) -> int:
    """Elements of the conditional covariances of a run, at most."""
    return D * (D + 1) // 2 * LANES * -(-K // LANES)


@inner
def factor(
    prec: Any, b: int, D: int, gone: Any, M: int, L: Any, C: Any, spread: Any, at: int
) -> Any:
    """Cholesky factor L of Λ_mm, with inverses on its diagonal, of eight components.

    The lower triangle of Λ_mm⁻¹ goes to `spread`, row after row, from element `at` on; `C` is
    scratch. Gives Σ log L_ii.
    """
    zero = splat(0.0)
    one = splat(1.0)
    logs = zero
    base = b * D * D
    for i in range(M):
        for j in range(i + 1):
            s = load(prec, (base + gone[i] * D + gone[j]) * LANES)
            for p in range(j):
                s = sub(s, mul(load(L, (i * D + p) * LANES), load(L, (j * D + p) * LANES)))
            if i == j:
                root = sqrt(s)
                logs = add(logs, log(root))
                store(L, (i * D + i) * LANES, div(one, root))
            else:
                store(L, (i * D + j) * LANES, mul(s, load(L, (j * D + j) * LANES)))
    # Column j of L⁻¹ is row j of C; then Λ_mm⁻¹ = L⁻ᵀ L⁻¹.
    for j in range(M):
        store(C, (j * D + j) * LANES, load(L, (j * D + j) * LANES))
        for i in range(j + 1, M):
            s = zero
            for p in range(j, i):
                s = fma(load(L, (i * D + p) * LANES), load(C, (j * D + p) * LANES), s)
            store(C, (j * D + i) * LANES, mul(sub(zero, s), load(L, (i * D + i) * LANES)))
    for i in range(M):
        for j in range(i + 1):
            s = zero
            for p in range(i, M):
                s = fma(load(C, (i * D + p) * LANES), load(C, (j * D + p) * LANES), s)
            store(spread, at, s)
            at += LANES
    return logs


@inner
def fill(
    X: Any, row: int, means: Any, prec: Any, b: int, D: int, gone: Any, M: int, kept: Any, O: int,
    L: Any, off: Any, g: Any,
) -> None:  # fmt: skip
    """μ - x̂ of the missing features of a row, for eight components, into `g`."""
    zero = splat(0.0)
    for at in range(O):
        x = np.float64(X[row, kept[at]])
        store(off, at * LANES, sub(splat(x), load(means, (b * D + kept[at]) * LANES)))
    for i in range(M):
        s0 = zero
        s1 = zero
        line = (b * D + gone[i]) * D
        for at in range(0, O - 1, 2):
            s0 = fma(load(prec, (line + kept[at]) * LANES), load(off, at * LANES), s0)
            s1 = fma(load(prec, (line + kept[at + 1]) * LANES), load(off, (at + 1) * LANES), s1)
        if O % 2 == 1:
            s0 = fma(load(prec, (line + kept[O - 1]) * LANES), load(off, (O - 1) * LANES), s0)
        s = add(s0, s1)
        for p in range(i):
            s = sub(s, mul(load(L, (i * D + p) * LANES), load(g, p * LANES)))
        store(g, i * LANES, mul(s, load(L, (i * D + i) * LANES)))
    for back in range(M):
        i = M - 1 - back
        s = load(g, i * LANES)
        for p in range(i + 1, M):
            s = sub(s, mul(load(L, (p * D + i) * LANES), load(g, p * LANES)))
        store(g, i * LANES, mul(s, load(L, (i * D + i) * LANES)))


@inner
def split(seen: Any, run: int, gone: Any, kept: Any) -> int:
    """Features that a run lacks, and those that it has; gives how many it lacks."""
    M = 0
    O = 0
    for d in range(seen.shape[1]):
        if seen[run, d]:
            kept[O] = d
            O += 1
        else:
            gone[M] = d
            M += 1
    return M


@inner
def harden(q: Any, K: int, T: int, const: Any, wt: Any, resp: Any, entropy: Any) -> None:
    """Give each row of a tile to its likeliest component alone."""
    for i in range(T):
        best = 0
        top = const[0] - 0.5 * q[i]
        for k in range(1, K):
            value = const[k] - 0.5 * q[k * T + i]
            if value > top:
                top = value
                best = k
        for k in range(K):
            resp[k * T + i] = 0.0
        resp[best * T + i] = wt[i]
        entropy[i] = 0.0


@inner
def tell(
    q: Any, K: int, T: int, const: Any, density: Any, resp: Any, first: int, m: int,
    log_density: Any, labels: Any, resp_out: Any,
) -> None:  # fmt: skip
    """Write what is said of the rows of a tile into the outputs that have rows."""
    if log_density.shape[0] > 0:
        for i in range(m):
            log_density[first + i] = density[i]
    if labels.shape[0] > 0:
        for i in range(m):
            best = 0
            for k in range(1, K):
                if const[k] - 0.5 * q[k * T + i] > const[best] - 0.5 * q[best * T + i]:
                    best = k
            labels[first + i] = best
    if resp_out.shape[0] > 0:
        for i in range(m):
            for k in range(K):
                resp_out[first + i, k] = resp[k * T + i]


@inner
def chosen(resp: Any, K: int, T: int, i: int, choice: float) -> int:
    """The component in which a uniform number falls."""
    below = 0.0
    for k in range(K - 1):
        below += resp[k * T + i]
        if choice < below:
            return k
    return K - 1


@inner
def fill_row(
    i: int, first: int, at: int, part: int, gone: Any, M: int, means: Any, tiles: Any, step: int,
    spread: Any, resp: Any, K: int, D: int, T: int,
    filled: Any, variance: Any, choices: Any, normals: Any, root: Any,
) -> None:  # fmt: skip
    """Missing values of a row of a tile: means and variances over all components, or a draw.

    A draw is x̂ + R z of one component, with C = R Rᵀ row by row of R, in `root`.
    """
    row = first + i
    for j in range(M):
        d = gone[j]
        mean = 0.0
        for k in range(K):
            mean += resp[k * T + i] * (means[k * D + d] + tiles[k * step + d * T + i])
        filled[row, d] = mean
        if variance.shape[0] == 0:
            continue
        total_variance = 0.0
        for k in range(K):
            gap = means[k * D + d] + tiles[k * step + d * T + i] - mean
            own = spread[at + k // LANES * part + k % LANES + (j * (j + 1) // 2 + j) * LANES]
            total_variance += resp[k * T + i] * (gap * gap + own)
        variance[row, d] = total_variance
    if choices.shape[0] == 0:
        return
    k = chosen(resp, K, T, i, choices[row])
    base = at + k // LANES * part + k % LANES
    for j in range(M):
        value = means[k * D + gone[j]] + tiles[k * step + gone[j] * T + i]
        line = j * (j + 1) // 2
        for p in range(j + 1):
            s = spread[base + (line + p) * LANES]
            other = p * (p + 1) // 2
            for o in range(p):
                s -= root[line + o] * root[other + o]
            root[line + p] = math.sqrt(max(s, 0.0)) if p == j else s / root[other + p]
            value += root[line + p] * normals[row, gone[p]]
        filled[row, gone[j]] = value


@compiled
def full_gaps(
    X: Any, weight: Any, starts: Any, seen: Any, ref: Any, means: Any, lane_means: Any, prec: Any,
    origin: Any, chol: Any, const: Any, shift: Any, moved: bool, hard: bool, sums: bool,
    far: Any, D: int, rows_a_tile: int, W: int, work: Any, spread: Any,
    totals: Any, n: Any, s1: Any, s2: Any, hidden: Any,
    log_density: Any, labels: Any, resp_out: Any,
    filled: Any, variance: Any, choices: Any, normals: Any,
) -> None:  # fmt: skip
    """Rows X (n, d) in R runs of one pattern: ``starts`` (R + 1,), ``seen`` (R, d).

    With `sums`, adds as `drivers.full_sums` does, about the means less `shift` (which is zero
    unless `moved`), and to `hidden` (K,) the entropy of the missing values. Outputs of no rows
    are not written. `filled` and `variance` (n, d) get means and variances of missing values;
    `filled` draws, where there are `choices` (n,) uniform in (0, 1) and `normals` (n, d).
    `origin` is zero (K·D,), and `spread` room for the conditional covariances of a tile.
    """
    K = const.shape[0]
    width = X.shape[1]
    B = (K + LANES - 1) // LANES
    gone = np.empty(width, np.int64)
    kept = np.empty(width, np.int64)
    slot_run = np.empty(rows_a_tile, np.int64)
    slot_row = np.empty(rows_a_tile + 1, np.int64)
    slot_at = np.empty(rows_a_tile, np.int64)
    size = D * D * LANES
    run = 0
    first = 0
    while first < X.shape[0]:
        m = 0
        slots = 0
        used = 0
        while first + m < X.shape[0] and m < rows_a_tile:
            while starts[run + 1] <= first + m:
                run += 1
            M = split(seen, run, gone, kept)
            need = M * (M + 1) // 2 * B * LANES
            if slots > 0 and used + need > spread.shape[0]:
                break
            slot_run[slots] = run
            slot_row[slots] = m
            slot_at[slots] = used
            used += need
            slots += 1
            m = min(starts[run + 1] - first, rows_a_tile)
        slot_row[slots] = m
        T = (m + 4 * W - 1) // (4 * W) * 4 * W
        step = (
            D * T + LANES
        )  # a line more, so that tiles do not fall on the same sets of the cache
        at = K * step
        tiles = work[:at]
        xt = work[at : at + D * T]
        at += D * T
        t = work[at : at + D * T]
        at += D * T
        q = work[at : at + K * T]
        at += K * T
        resp = work[at : at + (K + 1) * T]
        at += (K + 1) * T
        y = work[at : at + 4 * T]
        at += 4 * T
        wt = work[at : at + T]
        at += T
        density = work[at : at + T]
        at += T
        entropy = work[at : at + 2 * T]
        at += 2 * T
        L = work[at : at + B * size]
        at += B * size
        C = work[at : at + size]
        at += size
        off = work[at : at + D * LANES]
        at += D * LANES
        g = work[at : at + D * LANES]
        at += D * LANES
        logs = work[at : at + slots * B * LANES]
        xt[width * T :] = 0.0
        load_tile(X, weight, first, m, ref, xt, wt, T)
        for k in range(K):
            subtract(xt, D, T, means, k, tiles[k * step : k * step + D * T], W)
        for slot in range(slots):
            M = split(seen, slot_run[slot], gone, kept)
            if M == 0:
                continue
            part = M * (M + 1) // 2 * LANES
            for b in range(B):
                own = L[b * size : (b + 1) * size]
                found = factor(prec, b, D, gone, M, own, C, spread, slot_at[slot] + b * part)
                store(logs, (slot * B + b) * LANES, found)
                top = min(LANES, K - b * LANES)
                for i in range(slot_row[slot], slot_row[slot + 1]):
                    fill(
                        X, first + i, lane_means, prec, b, D, gone, M, kept, width - M,
                        own, off, g,
                    )  # fmt: skip
                    for j in range(M):
                        to = b * LANES * step + gone[j] * T + i
                        for lane in range(top):
                            tiles[to + lane * step] = -g[j * LANES + lane]
        for k in range(K):
            tile = tiles[k * step : k * step + D * T]
            full_distances(tile, D, T, origin, chol, k, t, q, far, W)
        for slot in range(slots):
            M = split(seen, slot_run[slot], gone, kept)
            if M > 0:
                for k in range(K):
                    more = 2.0 * logs[slot * B * LANES + k] - M * LOG_2PI
                    for i in range(slot_row[slot], slot_row[slot + 1]):
                        q[k * T + i] += more
        normalize(q, K, T, const, wt, resp, density, entropy)
        if hard:
            harden(q, K, T, const, wt, resp, entropy)
        tell(q, K, T, const, density, resp, first, m, log_density, labels, resp_out)
        if sums:
            totals[0] += dot(density, 0, wt, T)
            totals[1] += dot(entropy, 0, wt, T)
            for k in range(K):
                mass = row_sum(resp, k * T, T)
                if mass != 0.0:
                    n[k] += mass
                    tile = tiles[k * step : k * step + D * T]
                    if moved:
                        subtract(tile, D, T, shift, k, t, W)
                        full_moments(t, D, T, k, resp, k * T, y, s1, s2, W)
                    else:
                        full_moments(tile, D, T, k, resp, k * T, y, s1, s2, W)
        for slot in range(slots):
            M = split(seen, slot_run[slot], gone, kept)
            if M == 0:
                continue
            part = M * (M + 1) // 2 * LANES
            begin = slot_row[slot]
            end = slot_row[slot + 1]
            if sums:
                for k in range(K):
                    mass = 0.0
                    for i in range(begin, end):
                        mass += resp[k * T + i]
                    if mass == 0.0:
                        continue
                    own_logs = logs[slot * B * LANES + k]
                    hidden[k] += mass * (0.5 * M * (LOG_2PI + 1.0) - own_logs)
                    where = slot_at[slot] + k // LANES * part + k % LANES
                    for i in range(M):
                        to = (k * D + gone[i]) * D
                        for j in range(i + 1):
                            s2[to + gone[j]] += mass * spread[where]
                            where += LANES
            if filled.shape[0] > 0:
                for i in range(begin, end):
                    fill_row(
                        i, first, slot_at[slot], part, gone, M, means, tiles, step, spread, resp,
                        K, D, T, filled, variance, choices, normals, L,
                    )  # fmt: skip
        first += m
