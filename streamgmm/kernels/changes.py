"""What drift is measured in, block of rows after block, against what was usual.

A row's features are taken under one mixture that does not change: log p(x), the
responsibilities r_k, then r_k (x - μ_k) and r_k (x - μ_k)² by dimension, with x - μ_k cut at
three standard deviations, and r_k times the squared Mahalanobis distance, cut too. So a
difference between two runs of rows is one of the rows, never of learning, and the tests hold
whether or not the mixture fits. All features are bounded: by Bernstein's inequality a sum of n
rows is t off with a probability of at most exp(-t² / 2(nv + bt/3)), however few of them a
component has made.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from streamgmm.kernels.compiled import compiled, inner
from streamgmm.kernels.distances import diag_distances, full_distances
from streamgmm.kernels.normalisation import normalize
from streamgmm.kernels.shuffles import add_totals
from streamgmm.kernels.sums import dot, row_sum
from streamgmm.kernels.tiles import load_tile
from streamgmm.kernels.vectors import at_least, at_most, fma, load, mul, splat, sub, zeros

WINDOW = 8  # blocks that count as recent; the shorter window is a quarter of them
ENOUGH = 8  # blocks of what was usual before anything is tested
CLIP = 8.0  # standard deviations that one block may add to the CUSUM
ALLOWANCE = 0.75  # standard deviations of a block that the CUSUM lets pass
PSEUDO = 4.0  # rows that a component is taken to have had more than it had
KINDS = 4  # likelihood, occupancy, means, covariances

# Places in `tally`: rows and blocks of the usual, blocks ever, rows of the open block,
# CUSUM up and down, dispersion by kind, and the latest statistics by kind.
USUAL, BLOCKS, TIME, OPEN, UP, DOWN, SPREAD = 0, 1, 2, 3, 4, 5, 6
LATEST = SPREAD + KINDS
TALLY = LATEST + KINDS


@compiled
def features(
    X: Any, wide: bool, means: Any, chol: Any, const: Any, bound: Any, origin: float, floor: float,
    far: Any, P: int, T: int, W: int, work: Any, rows: Any, sums: Any, squares: Any,
) -> None:  # fmt: skip
    """Add the features of rows (n, D), and their squares, to `sums`, `squares` (1 + 2·K + 2·K·P).

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
    four = np.zeros(4 * K * P)
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
        sums[0] += dot(rows, T, wt, T)
        for i in range(T):
            squares[0] += wt[i] * density[i] * density[i]
        for k in range(K):
            mass = row_sum(resp, k * T, T)
            if mass != 0.0:
                sums[1 + k] += mass
                squares[1 + k] += dot(resp, k * T, resp[k * T :], T)
                add_fours(xt, P, T, means, bound, k, resp, four, W)
                at = 1 + K + 2 * K * P + k
                for i in range(k * T, k * T + T):
                    far_off = resp[i] * min(q[i], bound[at])
                    sums[at] += far_off
                    squares[at] += far_off * far_off
    n = K * P
    for i in range(n):
        sums[1 + K + i] += four[4 * i]
        squares[1 + K + i] += four[4 * i + 1]
        sums[1 + K + n + i] += four[4 * i + 2]
        squares[1 + K + n + i] += four[4 * i + 3]


@inner
def add_fours(
    xt: Any, P: int, T: int, means: Any, bound: Any, k: int, resp: Any, four: Any, W: int
) -> None:
    """Add Σ y, Σ y², Σ z, Σ z² of y = r (x - μ) and z = r (x - μ)² to four places a dimension."""
    zero = zeros(xt)
    side = means.shape[0] // P + 1
    for d in range(k * P, k * P + P):
        m = splat(means[d])
        top = splat(bound[side + d])
        bottom = splat(-bound[side + d])
        s1, q1, s2, q2 = zero, zero, zero, zero
        at = (d - k * P) * T
        for i in range(0, T, W):
            r = load(resp, k * T + i)
            x = at_least(at_most(sub(load(xt, at + i), m), top), bottom)
            y = mul(r, x)
            z = mul(y, x)
            s1, q1 = fma(r, x, s1), fma(y, y, q1)
            s2, q2 = fma(y, x, s2), fma(z, z, q2)
        add_totals(four, 4 * d, (s1, q1, s2, q2))


@compiled
def last_of(kind: int, K: int, n: int) -> int:
    """Where the features of a kind end."""
    if kind == 0:
        return 1
    if kind == 1:
        return 1 + K
    return 1 + K + n if kind == 2 else 1 + 2 * K + 2 * n


@compiled
def variances(K: int, P: int, usual: Any, usual2: Any, rows: float, out: Any) -> None:
    """Variance of each feature in a usual row, not smaller than a few rows more would make it."""
    F = usual.shape[0]
    for f in range(F):
        mean = usual[f] / rows
        out[f] = usual2[f] / rows - mean * mean
    for k in range(K):
        out[1 + k] += PSEUDO / rows
        held = usual[1 + k]
        more = PSEUDO / rows / held if held > 0.0 else 0.0
        for side in range(2):
            at = 1 + K + (side * K + k) * P
            for f in range(at, at + P):
                out[f] += more * usual2[f]
        out[1 + K + 2 * K * P + k] += more * usual2[1 + K + 2 * K * P + k]
    for f in range(F):
        if not out[f] > 0.0:
            out[f] = math.inf


@compiled
def judge(
    K: int, P: int, M: int, bound: Any, limits: Any, sigma: float,
    usual: Any, usual2: Any, ring: Any, tally: Any, found: Any,
) -> bool:  # fmt: skip
    """Test the recent blocks of M rows against the usual; `found` gets a statistic by kind.

    Statistics are squared standard scores by Bernstein's inequality, t² / (nv + bt/3), the
    largest of all features of a kind; `bound` b is of each feature. The CUSUM, which is last, is
    in standard deviations of a block. `limits` are theirs by kind, `sigma` that of the CUSUM.
    True where one is passed.
    """
    found[:] = 0.0
    n = tally[USUAL]
    if tally[BLOCKS] < ENOUGH:
        return False
    F = usual.shape[0]
    variance = np.empty(F)
    variances(K, P, usual, usual2, n, variance)
    time = int(tally[TIME])
    recent = np.zeros(F)
    for b in range(1, WINDOW + 1):
        place = (time - b) % WINDOW
        for f in range(F):
            recent[f] += ring[place, 0, f]
        if b != WINDOW // 4 and b != WINDOW:
            continue
        m = float(b * M)
        scale = 1.0 / (1.0 / m + 1.0 / n)
        first = 0
        for kind in range(KINDS):
            last = last_of(kind, K, K * P)
            most = 0.0
            for f in range(first, last):
                gap = abs(recent[f] / m - usual[f] / n)
                most = max(most, gap * gap / (variance[f] + bound[f] * gap / 3.0))
            first = last
            most *= scale / max(1.0, tally[SPREAD + kind])
            found[kind] = max(found[kind], most)
    gap = ring[(time - 1) % WINDOW, 0, 0] / M - usual[0] / n
    z = gap / math.sqrt(variance[0] / M * max(1.0, tally[SPREAD]))
    z = min(CLIP, max(-CLIP, z))
    tally[UP] = max(0.0, tally[UP] + z - ALLOWANCE)
    tally[DOWN] = max(0.0, tally[DOWN] - z - ALLOWANCE)
    found[KINDS] = max(tally[UP], tally[DOWN])
    past = found[KINDS] > sigma
    for kind in range(KINDS):
        tally[LATEST + kind] = found[kind]
        past = past or found[kind] > limits[kind]
    return bool(past)


@compiled
def move_to_usual(K: int, P: int, M: int, usual: Any, usual2: Any, ring: Any, tally: Any) -> None:
    """The block that leaves the recent ones becomes usual; its dispersion is noted."""
    F = usual.shape[0]
    at = int(tally[TIME]) % WINDOW
    n = tally[USUAL]
    if tally[BLOCKS] >= 2:
        variance = np.empty(F)
        variances(K, P, usual, usual2, n, variance)
        first = 0
        for kind in range(KINDS):
            last = last_of(kind, K, K * P)
            total = 0.0
            count = 0
            for f in range(first, last):
                if variance[f] < math.inf:
                    gap = ring[at, 0, f] / M - usual[f] / n
                    total += gap * gap / (variance[f] * (1.0 / M + 1.0 / n))
                    count += 1
            first = last
            if count > 0:
                # A running mean with a prior of one, worth eight blocks.
                gap = total / count - tally[SPREAD + kind]
                tally[SPREAD + kind] += gap / (tally[BLOCKS] + 7.0)
    for f in range(F):
        usual[f] += ring[at, 0, f]
        usual2[f] += ring[at, 1, f]
    tally[USUAL] = n + M
    tally[BLOCKS] += 1.0


@compiled
def observe(
    X: Any, row: int, stride: int, wide: bool, means: Any, chol: Any, const: Any,
    bound: Any, origin: float, floor: float, limits: Any, sigma: float,
    far: Any, P: int, T: int, W: int, work: Any, rows: Any,
    usual: Any, usual2: Any, ring: Any, block: Any, tally: Any, alarms: Any,
) -> int:  # fmt: skip
    """Watch every `stride`-th row of a batch whose first row is number `row` of those watched.

    `block` (M, D) collects rows until it is full. `alarms` (n, 6) gets the row after a block
    that something was found in, and its statistics; gives how many there are. All arrays of
    state are changed in place.
    """
    K = const.shape[0]
    M = block.shape[0]
    found = np.zeros(KINDS + 1)
    n_alarms = 0
    for i in range(-row % stride, X.shape[0], stride):
        at = int(tally[OPEN])
        for d in range(X.shape[1]):
            block[at, d] = X[i, d]
        tally[OPEN] += 1.0
        if at + 1 < M:
            continue
        tally[OPEN] = 0.0
        if tally[TIME] >= WINDOW:
            move_to_usual(K, P, M, usual, usual2, ring, tally)
        latest = ring[int(tally[TIME]) % WINDOW]
        latest[:] = 0.0
        features(
            block, wide, means, chol, const, bound, origin, floor, far, P, T, W, work, rows,
            latest[0], latest[1],
        )  # fmt: skip
        tally[TIME] += 1.0
        if judge(K, P, M, bound, limits, sigma, usual, usual2, ring, tally, found):
            if n_alarms < alarms.shape[0]:
                alarms[n_alarms, 0] = row + i + 1
                for kind in range(KINDS + 1):
                    alarms[n_alarms, 1 + kind] = found[kind]
            n_alarms += 1
            usual[:] = 0.0
            usual2[:] = 0.0
            ring[:] = 0.0
            tally[:] = 0.0
            tally[SPREAD : SPREAD + KINDS] = 1.0
    return n_alarms
