"""What rows need which components: cheap bounds on log-densities, and masks of what is left.

In coordinates y = (x - c) M that all components share, a component whose squared distances are at
least |y - ν_k|² / λ_k has

    -log(π_k N_k(x)) ≥ u_k(x) = -const_k + (|y|² - 2 y·ν_k + |ν_k|²) / (2 λ_k),

one matrix product with |y|² as one more feature, in float32. What rounding may do to it is in the
table (`streamgmm.model.covariances.pruning`): u_k is a bound as it is computed. A component can be
left out of a row where u_k says that it is less likely than another one by the floor of
responsibilities (`normalisation.RESP_FLOOR`): its term there is zero.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from streamgmm.kernels.blocks import (
    add_times,
    splat_four,
    store_each,
)
from streamgmm.kernels.compiled import inner
from streamgmm.kernels.flags import keep_least
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
STRIP = 16  # rows that are compared at a time: one vector


def screen_size(K: int, D: int, T: int) -> int:
    """Elements of `seen` (float32) for padded D and a tile of T rows."""
    return (D + 3 + (K + 3) // 4 * 4) * T


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

    Strips lie one after the other in `u`, component by component, as many as `norms` has. Two
    strips go by together, or each sum would wait for itself; T is a multiple of two strips.
    """
    K4 = norms.shape[0]
    next_y, next_u = (D + 1) * STRIP, K4 * STRIP
    at, to = 0, 0
    four = splat(np.float32(4.0))
    zero = splat(np.float32(0.0))
    far = splat(np.float32(math.inf))
    for i in range(0, T, 2 * STRIP):
        held, other = (far, zero), (far, zero)
        n0, n1 = zero, splat(np.float32(1.0))
        n2, n3 = splat(np.float32(2.0)), splat(np.float32(3.0))
        c = 0
        for k in range(0, K4, 4):
            z = splat_four(norms, k, 1)
            w = z
            for d in range(at, at + next_y, STRIP):
                a = splat_four(packed, c, 1)
                z = add_times(z, a, load(y, d))
                w = add_times(w, a, load(y, d + next_y))
                c += 4
            store_each(u, to, STRIP, z)
            store_each(u, to + next_u, STRIP, w)
            to += 4 * STRIP
            held = keep_least(held, z, (n0, n1, n2, n3))
            other = keep_least(other, w, (n0, n1, n2, n3))
            n0, n1, n2, n3 = add(n0, four), add(n1, four), add(n2, four), add(n3, four)
        store(best, i, held[1])
        store(best, i + STRIP, other[1])
        at += 2 * next_y
        to += next_u


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
