"""What drift is measured in, block of rows after block, against what was usual.

A row's features are taken under one mixture that does not change: log p(x), the
responsibilities r_k, and r_k (x - μ_k) feature by feature. So a difference between two runs of
rows is one of the rows, never of learning, and the tests hold whether or not the mixture fits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from streamgmm.kernels.tiles import (
    diag_distances,
    diag_moments,
    dot,
    full_distances,
    load_tile,
    normalize,
    row_sum,
    weighted_sums,
)

WINDOW = 8  # blocks that count as recent; the shorter window is a quarter of them
ENOUGH = 8  # blocks of what was usual before anything is tested
CLIP = 8.0  # standard deviations that one block may add to the CUSUM
ALLOWANCE = 0.75  # standard deviations of a block that the CUSUM lets pass
PSEUDO = 4.0  # rows that a component is taken to have had more than it had

# Places in `tally`: rows and blocks of the usual, blocks ever, rows of the open block,
# CUSUM up and down, dispersion of the three kinds, and the latest statistics of the three.
USUAL, BLOCKS, TIME, OPEN, UP, DOWN, SPREAD, LATEST = 0, 1, 2, 3, 4, 5, 6, 9
TALLY = 12


@njit(nogil=True, cache=True)
def features(
    X: Any, wide: bool, means: Any, chol: Any, const: Any, origin: float, floor: float,
    far: Any, P: int, T: int, W: int, work: Any, rows: Any, sums: Any, squares: Any,
) -> None:  # fmt: skip
    """Add the features of rows (n, D), and their squares, to `sums`, `squares` (1 + K + K·P).

    log p(x) is counted from `origin`, and from `floor` where it is lower: the outlier that this
    is counts for no component.
    """
    K = const.shape[0]
    D = X.shape[1]
    xt = work[: P * T]
    t = work[P * T : 2 * P * T]
    q = work[2 * P * T : 2 * P * T + K * T]
    resp = work[2 * P * T + K * T :]
    wt = rows[:T]
    density = rows[T : 2 * T]
    ref = np.zeros(D)
    scratch = np.zeros(K * P)
    first = sums[1 + K :]
    second = squares[1 + K :]
    xt[D * T :] = 0.0
    for start in range(0, X.shape[0], T):
        load_tile(X, rows[:0], start, min(T, X.shape[0] - start), ref, xt, wt, T)
        for k in range(K):
            if wide:
                full_distances(xt, P, T, means, chol, k, t, q, far, W)
            else:
                diag_distances(xt, P, T, means, chol, k, q, far, W)
        normalize(q, K, T, const, wt, resp, density, rows[2 * T :])
        for i in range(T):
            if density[i] < floor:
                density[i] = floor
                for k in range(K):
                    resp[k * T + i] = 0.0
            density[i] -= origin
        sums[0] += dot(density, 0, wt, T)
        for i in range(T):
            squares[0] += wt[i] * density[i] * density[i]
        for k in range(K):
            mass = row_sum(resp, k * T, T)
            if mass == 0.0:
                continue
            sums[1 + k] += mass
            weighted_sums(xt, P, T, means, k, resp, first, W)
            for i in range(k * T, k * T + T):
                resp[i] *= resp[i]
            squares[1 + k] += row_sum(resp, k * T, T)
            diag_moments(xt, P, T, means, k, resp, scratch, second, W)


@njit(nogil=True, cache=True)
def kind_of(f: int, K: int) -> int:
    """0 likelihood, 1 occupancy, 2 means."""
    return 0 if f == 0 else (1 if f <= K else 2)


@njit(nogil=True, cache=True)
def variance_of(f: int, K: int, P: int, usual: Any, usual2: Any, rows: float) -> float:
    """Variance of a feature in a usual row, not smaller than a few rows more would make it."""
    mean = usual[f] / rows
    variance = usual2[f] / rows - mean * mean
    if f > K:
        k = (f - 1 - K) // P
        held = usual[1 + k]
        if held > 0.0:
            variance += PSEUDO / rows * usual2[f] / held
    elif f > 0:
        variance += PSEUDO / rows
    return variance


@njit(nogil=True, cache=True)
def judge(
    K: int, P: int, M: int, limits: Any, sigma: float,
    usual: Any, usual2: Any, ring: Any, tally: Any, found: Any,
) -> bool:  # fmt: skip
    """Test the recent blocks of M rows against the usual; `found` gets a statistic by kind.

    Statistics are squared standard scores, the largest of all features of a kind; the CUSUM is
    in standard deviations of a block. `limits` are theirs by kind, `sigma` that of the CUSUM.
    True where one is passed.
    """
    found[:] = 0.0
    n = tally[USUAL]
    if tally[BLOCKS] < ENOUGH:
        return False
    F = usual.shape[0]
    time = int(tally[TIME])
    past = False
    for blocks in (WINDOW // 4, WINDOW):
        m = float(blocks * M)
        for f in range(F):
            variance = variance_of(f, K, P, usual, usual2, n)
            if not variance > 0.0:
                continue
            total = 0.0
            for b in range(time - blocks, time):
                total += ring[b % WINDOW, 0, f]
            kind = kind_of(f, K)
            gap = total / m - usual[f] / n
            score = gap * gap / (variance * (1.0 / m + 1.0 / n)) / max(1.0, tally[SPREAD + kind])
            found[kind] = max(found[kind], score)
    variance = variance_of(0, K, P, usual, usual2, n)
    if variance > 0.0:
        gap = ring[(time - 1) % WINDOW, 0, 0] / M - usual[0] / n
        z = gap / math.sqrt(variance / M * max(1.0, tally[SPREAD]))
        z = min(CLIP, max(-CLIP, z))
        tally[UP] = max(0.0, tally[UP] + z - ALLOWANCE)
        tally[DOWN] = max(0.0, tally[DOWN] - z - ALLOWANCE)
    for kind in range(3):
        tally[LATEST + kind] = found[kind]
        past = past or found[kind] > limits[kind]
    found[3] = max(tally[UP], tally[DOWN])
    return past or found[3] > sigma


@njit(nogil=True, cache=True)
def retire_block(K: int, P: int, M: int, usual: Any, usual2: Any, ring: Any, tally: Any) -> None:
    """The block that leaves the recent ones becomes usual; its dispersion is noted."""
    F = usual.shape[0]
    at = int(tally[TIME]) % WINDOW
    n = tally[USUAL]
    if tally[BLOCKS] >= 2:
        for kind in range(3):
            total = 0.0
            count = 0
            for f in range(F):
                if kind_of(f, K) != kind:
                    continue
                variance = variance_of(f, K, P, usual, usual2, n)
                if variance > 0.0:
                    gap = ring[at, 0, f] / M - usual[f] / n
                    total += gap * gap / (variance * (1.0 / M + 1.0 / n))
                    count += 1
            if count > 0:
                seen = tally[BLOCKS] - 1.0
                # Prior of one: eight blocks without dispersion.
                tally[SPREAD + kind] += (total / count - tally[SPREAD + kind]) / (seen + 8.0)
    for f in range(F):
        usual[f] += ring[at, 0, f]
        usual2[f] += ring[at, 1, f]
    tally[USUAL] = n + M
    tally[BLOCKS] += 1.0


@njit(nogil=True, cache=True)
def observe(
    X: Any, row: int, stride: int, M: int, wide: bool, means: Any, chol: Any, const: Any,
    origin: float, floor: float, limits: Any, sigma: float,
    far: Any, P: int, T: int, W: int, work: Any, rows: Any,
    usual: Any, usual2: Any, ring: Any, part: Any, tally: Any, alarms: Any,
) -> int:  # fmt: skip
    """Watch every `stride`-th row of a batch whose first row is number `row` of those watched.

    `alarms` (n, 5) gets the row after a block that something was found in, and its statistics;
    gives how many there are. All arrays of state are changed in place.
    """
    K = const.shape[0]
    found = np.zeros(4)
    n_alarms = 0
    first = -row % stride
    while first < X.shape[0]:
        wanted = M - int(tally[OPEN])
        last = min(X.shape[0], first + (wanted - 1) * stride + 1)
        some = np.ascontiguousarray(X[first:last:stride])
        features(
            some, wide, means, chol, const, origin, floor, far, P, T, W, work, rows,
            part[0], part[1],
        )  # fmt: skip
        tally[OPEN] += some.shape[0]
        first += some.shape[0] * stride
        if tally[OPEN] < M:
            break
        if tally[TIME] >= WINDOW:
            retire_block(K, P, M, usual, usual2, ring, tally)
        ring[int(tally[TIME]) % WINDOW] = part
        tally[TIME] += 1.0
        tally[OPEN] = 0.0
        part[:] = 0.0
        if judge(K, P, M, limits, sigma, usual, usual2, ring, tally, found):
            if n_alarms < alarms.shape[0]:
                alarms[n_alarms, 0] = row + first - stride + 1
                alarms[n_alarms, 1:] = found
            n_alarms += 1
            usual[:] = 0.0
            usual2[:] = 0.0
            ring[:] = 0.0
            tally[:] = 0.0
            tally[SPREAD : SPREAD + 3] = 1.0
    return n_alarms
