"""Exponential and logarithm of vectors, in a few instructions, to about 1 ulp."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from streamgmm.kernels.vectors import F64_VECTOR, F64X8, emit_fma

I64_VECTOR = ir.VectorType(ir.IntType(64), 8)

# Cody & Waite's split of ln 2: the high part has so few significant bits that n times it is exact.
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
_LN2_NARROW = (0.693359375, -2.12194440e-4)
# 1 + r + r²·P(r), P through (e^r - 1 - r)/r² at Chebyshev nodes of |r| ≤ ln(2)/2.
_EXP = [
    1.0,
    1.0,
    0.5000000000000001,
    0.16666666666666669,
    0.041666666666624164,
    0.008333333333330065,
    0.001388888891719689,
    0.00019841269863040675,
    2.480152132210459e-05,
    2.7557268480106926e-06,
    2.762007600563138e-07,
    2.5100375929185925e-08,
]
_EXP_NARROW = [1.0, 1.0, 0.5, 0.16666576, 0.041666556, 0.008363179, 0.0013926184]


def _constant(value: float) -> Any:
    return ir.Constant(F64_VECTOR, [value] * 8)


@intrinsic
def exp(typingctx: Any, a: Any) -> Any:
    """Exponential, to about 1 ulp, of lanes in [-708, 709] (float64) or [-87, 88] (float32).

    exp(x) = 2^n exp(r), n = round(x / ln 2), |r| ≤ ln(2)/2; the polynomial leaves 2e-17, 1e-8.
    """
    wide = a.dtype == types.float64
    bits, mantissa = (64, 52) if wide else (32, 23)
    high, low = (_LN2_HIGH, _LN2_LOW) if wide else _LN2_NARROW
    polynomial = _EXP if wide else _EXP_NARROW

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x = args[0]
        whole = ir.VectorType(ir.IntType(bits), a.lanes)

        def constant(value: float) -> Any:
            return ir.Constant(
                x.type, [float(np.float64(value) if wide else np.float32(value))] * a.lanes
            )

        rounder = constant(1.5 * 2.0**mantissa)  # leaves the nearest integer in the low bits
        shifted = emit_fma(builder, x, constant(1.4426950408889634), rounder)
        n = builder.fsub(shifted, rounder)
        r = emit_fma(builder, n, constant(-high), x)
        r = emit_fma(builder, n, constant(-low), r)
        value = constant(polynomial[-1])
        for coefficient in reversed(polynomial[:-1]):
            value = emit_fma(builder, value, r, constant(coefficient))
        places = ir.Constant(whole, [mantissa] * a.lanes)
        power = builder.shl(builder.bitcast(shifted, whole), places)
        return builder.bitcast(builder.add(builder.bitcast(value, whole), power), x.type)

    return a(a), codegen


_ROOT_HALF_BITS = 0x3FE6A09E667F3BCD
_ATANH = [2.0 / (2 * _i + 1) for _i in range(11)]


@intrinsic
def log(typingctx: Any, a: Any) -> Any:
    """Natural logarithm of a float64 vector with normal, positive lanes, to about 1 ulp.

    log(2^n m) = n ln 2 + 2 atanh f, f = (m - 1)/(m + 1), m in [√½, √2]; the series in f² leaves
    1e-18. A NaN stays.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x = args[0]
        bits = builder.bitcast(x, I64_VECTOR)
        above = builder.sub(bits, ir.Constant(I64_VECTOR, [_ROOT_HALF_BITS] * 8))
        places = ir.Constant(I64_VECTOR, [52] * 8)
        power = builder.ashr(above, places)
        m = builder.bitcast(builder.sub(bits, builder.shl(power, places)), F64_VECTOR)
        n = builder.sitofp(power, F64_VECTOR)
        one = _constant(1.0)
        f = builder.fdiv(builder.fsub(m, one), builder.fadd(m, one))
        square = builder.fmul(f, f)
        value = _constant(_ATANH[-1])
        for coefficient in reversed(_ATANH[:-1]):
            value = emit_fma(builder, value, square, _constant(coefficient))
        value = emit_fma(builder, f, value, builder.fmul(n, _constant(_LN2_LOW)))
        value = emit_fma(builder, n, _constant(_LN2_HIGH), value)
        return builder.fadd(value, builder.fsub(x, x))

    return F64X8(F64X8), codegen
