"""From distances to densities and responsibilities: log-sum-exp over components."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from streamgmm.kernels.compiled import inner
from streamgmm.kernels.elementary import exp, log
from streamgmm.kernels.shuffles import high_half, low_half, narrow
from streamgmm.kernels.vectors import (
    add,
    at_least,
    div,
    fma,
    load,
    load64,
    mul,
    splat,
    store,
    store64,
    sub,
    zero_below,
)

RESP_FLOOR = 1e-20
"""Likelihood, in parts of that of the likeliest component, below which one has no part in a row.

Its responsibility is zero, since denormals would slow every product, and so is its term in the
sum: what is left out (`pruning`) then has the bits of what is not.
"""


@inner
def normalize(
    q: Any, K: int, T: int, const: Any, wt: Any, resp: Any, log_density: Any, entropy: Any
) -> None:
    """Log-sum-exp over components.

    With ℓ_k = const_k - q_k / 2: `log_density` (T,) gets log Σ exp ℓ_k, `entropy` (T,) that of
    the responsibilities, `resp` (K*T,) the responsibilities times the weights. Exponents are
    formed in float64; in float32 tiles their exponentials are taken in float32.
    """
    _normalize(q, K, T, const, wt, resp, log_density, entropy)


def _normalize(*arrays: Any) -> None:
    """Stand for one of the two that follow."""


@overload(_normalize)
def _choose_normalize(
    q: Any, K: int, T: int, const: Any, wt: Any, resp: Any, log_density: Any, entropy: Any
) -> Any:
    return _normalize_wide if q.dtype == types.float64 else _normalize_narrow


def _normalize_wide(
    q: Any, K: int, T: int, const: Any, wt: Any, resp: Any, log_density: Any, entropy: Any
) -> None:
    half = splat(-0.5)
    floor = splat(-708.0)
    tiny = splat(RESP_FLOOR)
    for i in range(0, T, 8):
        top = splat(-math.inf)
        for k in range(K):
            top = at_least(top, fma(load64(q, k * T + i), half, splat(const[k])))
        s = splat(0.0)
        h = splat(0.0)
        for k in range(K):
            below = sub(fma(load64(q, k * T + i), half, splat(const[k])), top)
            below = at_least(below, floor)
            e = zero_below(exp(below), tiny)
            store64(resp, k * T + i, e)
            s = add(s, e)
            h = fma(e, below, h)
        log_s = log(s)
        inverse = div(splat(1.0), s)
        store(log_density, i, add(top, log_s))
        store(entropy, i, sub(log_s, mul(h, inverse)))
        share = mul(load(wt, i), inverse)
        for k in range(K):
            store64(resp, k * T + i, mul(load64(resp, k * T + i), share))


def _normalize_narrow(
    q: Any, K: int, T: int, const: Any, wt: Any, resp: Any, log_density: Any, entropy: Any
) -> None:
    half = splat(-0.5)
    floor = splat(np.float32(-87.0))
    tiny = splat(np.float32(RESP_FLOOR))
    zero = splat(np.float32(0.0))
    one = splat(1.0)
    for i in range(0, T, 16):
        top0 = splat(-math.inf)
        top1 = top0
        for k in range(K):
            c = splat(const[k])
            top0 = at_least(top0, fma(load64(q, k * T + i), half, c))
            top1 = at_least(top1, fma(load64(q, k * T + i + 8), half, c))
        s = zero
        h = zero
        for k in range(K):
            c = splat(const[k])
            below = narrow(
                sub(fma(load64(q, k * T + i), half, c), top0),
                sub(fma(load64(q, k * T + i + 8), half, c), top1),
            )
            below = at_least(below, floor)
            e = zero_below(exp(below), tiny)
            store(resp, k * T + i, e)
            s = add(s, e)
            h = fma(e, below, h)
        s0 = low_half(s)
        s1 = high_half(s)
        inverse0 = div(one, s0)
        inverse1 = div(one, s1)
        log0 = log(s0)
        log1 = log(s1)
        store(log_density, i, add(top0, log0))
        store(log_density, i + 8, add(top1, log1))
        store(entropy, i, sub(log0, mul(low_half(h), inverse0)))
        store(entropy, i + 8, sub(log1, mul(high_half(h), inverse1)))
        share = narrow(mul(load(wt, i), inverse0), mul(load(wt, i + 8), inverse1))
        for k in range(K):
            at = k * T + i
            store(resp, at, mul(load(resp, at), share))
