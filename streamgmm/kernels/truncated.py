"""E-steps in which each row looks at a few candidate components only.

Pairs of a row and a component are sorted by component, so that the rows of each are gathered in a
tile and go through the kernels of all other E-steps, one component at a time. `ids` (n, E) are
the candidates of each row, -1 where there is none, and `values`, flat, log π_k N_k(x) of them.
The first C are the set that a row keeps, the likeliest first.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from streamgmm.kernels.compiled import compiled, inner
from streamgmm.kernels.distances import full_distances
from streamgmm.kernels.normalisation import RESP_FLOOR
from streamgmm.kernels.shuffles import total
from streamgmm.kernels.sums import full_moments
from streamgmm.kernels.tiles import subtract
from streamgmm.kernels.vectors import add, at_least, fma, load, load64, mul, splat, store, sub

WIDE = 8  # lanes of float64


@inner
def _mix(a: int, b: int) -> int:
    """A number from 0 up to 2⁶², spread evenly, of two numbers (after splitmix64)."""
    z = np.uint64(a) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(b)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64((z ^ (z >> np.uint64(31))) >> np.uint64(2))  # type: ignore[return-value]


@compiled
def enter(X: Any, scale: Any, pivots: Any, entry: Any, near: Any, C: int, ids: Any) -> None:
    """Candidates of rows of which nothing is known: those of the nearest of `pivots` (D, R).

    `entry` (R, C) are theirs; distances are of rows times `scale` (D,). `near` (R,) is scratch.
    """
    n, D = X.shape
    R = pivots.shape[1]
    for i in range(n):
        for r in range(R):
            near[r] = 0.0
        for d in range(D):
            x = X[i, d] * scale[d]
            for r in range(R):
                near[r] += (x - pivots[d, r]) ** 2
        best = 0
        for r in range(1, R):
            if near[r] < near[best]:
                best = r
        for e in range(C):
            ids[i, e] = entry[best, e]
        for e in range(C, ids.shape[1]):
            ids[i, e] = -1


@compiled
def expand(graph: Any, C: int, tried: Any, t: int, marks: Any, ids: Any) -> int:
    """New candidates after the first C: neighbours of the likeliest that is not `tried` yet.

    `graph` (K, G) are the neighbours of each component; ``tried[i, :t]`` are those whose
    neighbours row i has been compared with. How many rows there are that have new ones.
    """
    n, E = ids.shape
    K, G = graph.shape
    total = 0
    for k in range(K):
        marks[k] = -1
    for i in range(n):
        for e in range(C, E):
            ids[i, e] = -1
        tried[i, t] = -1
        for c in range(C):
            k = ids[i, c]
            new = k >= 0
            for s in range(t):
                new = new and tried[i, s] != k
            if new:
                tried[i, t] = k
                break
        if tried[i, t] < 0:
            continue
        total += 1
        for c in range(C):
            if ids[i, c] >= 0:
                marks[ids[i, c]] = i
        e = C
        for g in range(G):
            k = graph[tried[i, t], g]
            if k >= 0 and marks[k] != i:
                ids[i, e] = k
                e += 1
    return total


@compiled
def propose(graph: Any, C: int, first: int, turn: int, marks: Any, ids: Any) -> None:
    """New candidates after the first C: neighbours of the likeliest, and two that chance names.

    Of the neighbours every second one, and the others in the next turn. Of the two one is a
    neighbour of some candidate, one any component; they depend on the number of the row, `first`
    and on, and on `turn`.
    """
    n, E = ids.shape
    K, G = graph.shape
    for k in range(K):
        marks[k] = -1
    for i in range(n):
        for e in range(C, E):
            ids[i, e] = -1
        for c in range(C):
            if ids[i, c] >= 0:
                marks[ids[i, c]] = i
        e = C
        for g in range(turn % 2, G, 2):
            k = graph[ids[i, 0], g]
            if k >= 0 and marks[k] != i:
                marks[k] = i
                ids[i, e] = k
                e += 1
        chance = _mix(first + i, turn)
        other = ids[i, chance % C]
        if other >= 0:
            k = graph[other, (chance >> 8) % G]
            if k >= 0 and marks[k] != i:
                marks[k] = i
                ids[i, e] = k
                e += 1
        k = (chance >> 16) % K
        if marks[k] != i:
            ids[i, e] = k


@inner
def sort_pairs(ids: Any, begin: int, end: int, K: int, at: Any, rows: Any, pairs: Any) -> None:
    """Sort the pairs of columns ``begin:end`` by component: ``at[k]`` is where those of k begin.

    Of each, `rows` have the row and `pairs` its place in `ids`, flat.
    """
    n, E = ids.shape
    for k in range(K + 2):
        at[k] = 0
    for i in range(n):
        for e in range(begin, end):
            at[ids[i, e] + 2] += 1
    at[1] = 0  # where there is none
    for k in range(1, K + 1):
        at[k + 1] += at[k]
    for i in range(n):
        for e in range(begin, end):
            k = ids[i, e] + 1
            if k > 0:
                rows[at[k]] = i
                pairs[at[k]] = i * E + e
                at[k] += 1  # in the end where k begins, which is one further on


@inner
def gather_pairs(X: Any, rows: Any, a: int, m: int, D: int, T: int, xt: Any) -> None:
    """Rows ``rows[a : a + m]`` as a tile of T rows and D features, padded with zeros."""
    d = X.shape[1]
    for i in range(m):
        row = rows[a + i]
        for j in range(d):
            xt[j * T + i] = X[row, j]
    for j in range(d):
        for i in range(m, T):
            xt[j * T + i] = 0.0
    for i in range(d * T, D * T):
        xt[i] = 0.0


@inner
def _diag_values(
    X: Any, means: Any, chol: Any, own: int, const: float, rows: Any, pairs: Any, a: int, b: int,
    values: Any,
) -> None:  # fmt: skip
    """Values of the pairs from a to b, of one component of independent features.

    A vector holds features of one row, so that rows need not be gathered.
    """
    d = X.shape[1]
    wide = d - d % WIDE
    for p in range(a, b):
        at = rows[p] * d
        s = splat(0.0)
        for j in range(0, wide, WIDE):
            z = mul(sub(load64(X, at + j), load64(means, own + j)), load64(chol, own + j))
            s = fma(z, z, s)
        q = total(s)
        for j in range(wide, d):
            y = (X[rows[p], j] - means[own + j]) * chol[own + j]
            q += y * y
        values[pairs[p]] = const - 0.5 * min(q, 1e300) if q == q else q


@inner
def _diag_sums(
    X: Any, about: Any, own: int, rows: Any, pairs: Any, a: int, b: int, resp: Any,
    s1: Any, s2: Any,
) -> None:  # fmt: skip
    """Add Σ r (x - c) and Σ r (x - c)² of the pairs from a to b, of one component."""
    d = X.shape[1]
    wide = d - d % WIDE
    for j in range(0, wide, WIDE):
        c = load64(about, own + j)
        first, second = splat(0.0), splat(0.0)
        for p in range(a, b):
            y = sub(load64(X, rows[p] * d + j), c)
            t = mul(splat(resp[pairs[p]]), y)
            first, second = add(first, t), fma(t, y, second)
        store(s1, own + j, add(load64(s1, own + j), first))
        store(s2, own + j, add(load64(s2, own + j), second))
    for j in range(wide, d):
        c1, c2 = 0.0, 0.0
        for p in range(a, b):
            off = X[rows[p], j] - about[own + j]
            part = resp[pairs[p]] * off
            c1 += part
            c2 += part * off
        s1[own + j] += c1
        s2[own + j] += c2


@compiled
def evaluate(
    full: bool, X: Any, ids: Any, begin: int, means: Any, chol: Any, const: Any, D: int, most: int,
    at: Any, rows: Any, pairs: Any, work: Any, values: Any,
) -> None:  # fmt: skip
    """log π_k N_k(x) of the candidates in columns `begin` and on, into `values`, flat.

    `means` (K·D), `chol` (K·D·D, or K·D of variances alone) and `const` (K,) as other kernels
    have them; `work` holds a tile of up to `most` rows.
    """
    K = const.shape[0]
    sort_pairs(ids, begin, ids.shape[1], K, at, rows, pairs)
    q = work[:most]
    strip = work[most : most + 4 * WIDE * D]
    xt = work[most + 4 * WIDE * D :]
    for k in range(K):
        if not full:
            _diag_values(X, means, chol, k * D, const[k], rows, pairs, at[k], at[k + 1], values)
            continue
        own, factor = means[k * D :], chol[k * D * D :]
        for a in range(at[k], at[k + 1], most):
            m = min(most, at[k + 1] - a)
            T = (m + 4 * WIDE - 1) // (4 * WIDE) * 4 * WIDE
            gather_pairs(X, rows, a, m, D, T, xt)
            full_distances(xt, D, T, own, factor, 0, strip, q, 1e300, WIDE)
            for i in range(m):
                values[pairs[a + i]] = const[k] - 0.5 * q[i]


@compiled
def keep(ids: Any, values: Any, C: int, begin: int) -> None:
    """Bring the C likeliest candidates of each row to the front, the likeliest first.

    The first `begin` are in this order already. Of equally likely ones that of the lowest number
    comes first.
    """
    n, E = ids.shape
    for i in range(n):
        row = i * E
        held = begin
        for e in range(begin, E):
            k = ids[i, e]
            if k < 0:
                continue
            value = values[row + e]
            at = held
            while at > 0 and (
                ids[i, at - 1] < 0
                or value > values[row + at - 1]
                or (value == values[row + at - 1] and k < ids[i, at - 1])
            ):
                at -= 1
            if at >= C:
                continue
            held = min(held + 1, C)
            for c in range(held - 1, at, -1):
                ids[i, c] = ids[i, c - 1]
                values[row + c] = values[row + c - 1]
            ids[i, at] = k
            values[row + at] = value
        for c in range(held, C):
            ids[i, c] = -1


@compiled
def share(
    X: Any, ids: Any, values: Any, C: int, weight: Any, log_density: Any, entropy: Any, resp: Any
) -> None:
    """Log-sum-exp over the sets: log-densities, entropies, and responsibilities times weights.

    `resp` (n, C). A row that is not finite has the log-density NaN, which no sum hides.
    """
    n, E = ids.shape
    weighted = weight.shape[0] > 0
    for i in range(n):
        top = values[i * E]
        s = 0.0
        h = 0.0
        for c in range(C):
            r = 0.0
            if ids[i, c] >= 0:
                below = values[i * E + c] - top
                r = math.exp(below)
                if r > 0.0:
                    h += r * below
                s += r
            resp[i, c] = r
        flaw = 0.0
        for d in range(X.shape[1]):
            flaw += X[i, d] - X[i, d]
        log_s = math.log(s) + flaw
        log_density[i] = top + log_s
        entropy[i] = log_s - h / s
        w = weight[i] if weighted else 1.0
        for c in range(C):
            r = resp[i, c] / s
            resp[i, c] = r * w if r >= RESP_FLOOR else 0.0


@compiled
def add_sums(
    full: bool, X: Any, ids: Any, C: int, resp: Any, about: Any, D: int, most: int,
    at: Any, rows: Any, pairs: Any, work: Any, n: Any, s1: Any, s2: Any,
) -> None:  # fmt: skip
    """Add the sums of the sets' pairs, about ``about[k]`` (K·D): Σ r, Σ r (x - c), and squares.

    `ids` are the sets alone (n, C), and `resp` theirs, flat.
    """
    K = n.shape[0]
    sort_pairs(ids, 0, C, K, at, rows, pairs)
    r = work[:most]
    y = work[most : 5 * most]
    t = work[5 * most : (5 + D) * most]
    xt = work[(5 + D) * most :]
    for k in range(K):
        mass = 0.0
        for p in range(at[k], at[k + 1]):
            mass += resp[pairs[p]]
        n[k] += mass
        if not full:
            _diag_sums(X, about, k * D, rows, pairs, at[k], at[k + 1], resp, s1, s2)
            continue
        for a in range(at[k], at[k + 1], most):
            m = min(most, at[k + 1] - a)
            T = (m + 4 * WIDE - 1) // (4 * WIDE) * 4 * WIDE
            gather_pairs(X, rows, a, m, D, T, xt)
            for i in range(m):
                r[i] = resp[pairs[a + i]]
            for i in range(m, T):
                r[i] = 0.0
            subtract(xt, D, T, about[k * D :], 0, t, WIDE)
            full_moments(t, D, T, 0, r, 0, y, s1[k * D :], s2[k * D * D :], WIDE)


@compiled
def largest(scores: Any, skip: int, out: Any) -> None:
    """The columns of the largest values of each row of `scores` (m, K), the largest first.

    Fills ``out`` (m, G), -1 where there are fewer. The column ``skip + row`` is left out, none
    where `skip` is negative, and so are values about -1e30, of components without weight. `scores`
    are float32, C-contiguous.

    Runs of columns are passed over whose largest value is below those of G + 1 runs: G of these
    at least are not left out.
    """
    m, K = scores.shape
    G = out.shape[1]
    run = 16
    while K // (2 * run) > 2 * (G + 1):
        run *= 2
    lanes, tops = np.empty(16, scores.dtype), np.empty(K // run, scores.dtype)
    last = tops.shape[0] - 1 - G
    values = np.empty(G, scores.dtype)
    for i in range(m if G > 0 else 0):
        for r in range(tops.shape[0]):
            at = i * K + r * run
            top = load(scores, at)
            for k in range(16, run, 16):
                top = at_least(load(scores, at + k), top)
            store(lanes, 0, top)
            best = lanes[0]
            for k in range(1, 16):
                best = lanes[k] if lanes[k] > best else best
            tops[r] = best
        least = np.partition(tops, last)[last] if last >= 0 else np.float32(-math.inf)
        held = 0
        for begin in range(0, K, run):
            if begin // run < tops.shape[0] and tops[begin // run] < least:
                continue
            for k in range(begin, min(begin + run, K)):
                value = scores[i, k]
                if value < least or not value > -1e29 or (skip >= 0 and k == skip + i):
                    continue
                if held == G and not value > values[G - 1]:
                    continue
                g = min(held, G - 1)
                while g > 0 and value > values[g - 1]:
                    out[i, g], values[g] = out[i, g - 1], values[g - 1]
                    g -= 1
                out[i, g], values[g] = k, value
                held = min(held + 1, G)
        for g in range(held, G):
            out[i, g] = -1


@compiled
def link(ahead: Any, most: int, graph: Any) -> None:
    """The graph (K, G) of the best `ahead` (K, A) of each component: `most` of them, and back.

    The rest of each list are components that have it among their own best: rows of these find it
    likeliest after their own, and must find their way from it. Each is given a place in the lists
    of its best in turn, while there is room.
    """
    K, A = ahead.shape
    G = graph.shape[1]
    for k in range(K):
        for g in range(G):
            graph[k, g] = ahead[k, g] if g < min(most, A) else -1
    for a in range(A):
        for k in range(K):
            j = ahead[k, a]
            if j < 0:
                continue
            for g in range(G):
                if graph[j, g] == k:
                    break
                if graph[j, g] < 0:
                    graph[j, g] = k
                    break
