"""Vector registers for Numba: 64-byte vectors of float64 (8 lanes) or float32 (16 lanes).

Numba leaves vectorisation to LLVM, which keeps accumulators in memory and, on processors with
AVX-512, prefers half-width registers. A mixture's inner loops are small matrix products, so
they are written here with explicit vectors: a value of `Vector` stays in a register, and LLVM
splits it where the processor's registers are narrower. Everything is an intrinsic that emits
a few LLVM instructions; arrays are flat (one-dimensional, C-contiguous), offsets in elements.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

VECTOR_BITS = 512

_I32 = ir.IntType(32)
_F64 = ir.DoubleType()
F64_VECTOR = ir.VectorType(_F64, 8)
I64_VECTOR = ir.VectorType(ir.IntType(64), 8)


class Vector(types.Type):
    """Numba type of a register that holds `lanes` values of `dtype`."""

    def __init__(self, dtype: Any, lanes: int) -> None:
        self.dtype = dtype
        self.lanes = lanes
        super().__init__(name=f"Vector({dtype}, {lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        scalar = dmm.lookup(fe_type.dtype).get_value_type()
        super().__init__(dmm, fe_type, ir.VectorType(scalar, fe_type.lanes))


def _vector_of(dtype: Any) -> Vector:
    return Vector(dtype, VECTOR_BITS // dtype.bitwidth)


F64X8 = _vector_of(types.float64)


def lanes(dtype: Any) -> int:
    """Values of a NumPy dtype that one vector holds.

    >>> lanes("float64"), lanes("float32")
    (8, 16)
    """
    return VECTOR_BITS // (8 * int(np.dtype(dtype).itemsize))


def _splat(builder: Any, value: Any, n: int) -> Any:
    blank = ir.Constant(ir.VectorType(value.type, n), ir.Undefined)
    one = builder.insert_element(blank, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, blank, ir.Constant(ir.VectorType(_I32, n), [0] * n))


def _constant(value: float) -> Any:
    return ir.Constant(F64_VECTOR, [value] * 8)


def _pointer(
    context: Any, builder: Any, array_type: Any, array: Any, offset: Any, kind: Any
) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset], inbounds=True), kind.as_pointer())


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    width = {_F64: 64}.get(a.type.element, 32)
    name = f"llvm.fma.v{a.type.count}f{width}"
    kind = ir.FunctionType(a.type, [a.type] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])


@intrinsic
def load(typingctx: Any, array: Any, offset: Any) -> Any:
    """``array[offset:offset + lanes]`` as a vector of the array's dtype."""
    kind = _vector_of(array.dtype)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        llvm = context.get_value_type(kind)
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1], llvm)
        return builder.load(pointer, align=array.dtype.bitwidth // 8)

    return kind(array, types.intp), codegen


@intrinsic
def store(typingctx: Any, array: Any, offset: Any, value: Any) -> Any:
    """Write a vector to ``array[offset:offset + lanes]``."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        llvm = context.get_value_type(value)
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1], llvm)
        builder.store(args[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def load64(typingctx: Any, array: Any, offset: Any) -> Any:
    """Eight values of a float32 or float64 array as a float64 vector."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        scalar = context.get_value_type(array.dtype)
        llvm = ir.VectorType(scalar, 8)
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1], llvm)
        value = builder.load(pointer, align=array.dtype.bitwidth // 8)
        return value if array.dtype == types.float64 else builder.fpext(value, F64_VECTOR)

    return F64X8(array, types.intp), codegen


@intrinsic
def store64(typingctx: Any, array: Any, offset: Any, value: Any) -> Any:
    """Write a float64 vector to eight places of a float32 or float64 array."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        llvm = ir.VectorType(context.get_value_type(array.dtype), 8)
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1], llvm)
        vector = args[2] if array.dtype == types.float64 else builder.fptrunc(args[2], llvm)
        builder.store(vector, pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def splat(typingctx: Any, value: Any) -> Any:
    """Every lane set to one scalar."""
    kind = _vector_of(value)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _splat(builder, args[0], kind.lanes)

    return kind(value), codegen


@intrinsic
def zeros(typingctx: Any, array: Any) -> Any:
    """Zeros of the dtype of `array`."""
    kind = _vector_of(array.dtype)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(context.get_value_type(kind), None)

    return kind(array), codegen


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``, rounded once."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _fma(builder, *args)

    return a(a, a, a), codegen


def _outer(needed: Callable[[int, int], bool], doc: str) -> Any:
    def operation(typingctx: Any, z: Any, x: Any, y: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            sums, xs, ys = (cgutils.unpack_tuple(builder, arg) for arg in args)
            for at, value in enumerate(sums):
                if needed(*divmod(at, 4)):
                    sums[at] = _fma(builder, xs[at // 4], ys[at % 4], value)
            return cgutils.pack_array(builder, sums)

        return z(z, x, y), codegen

    operation.__doc__ = doc
    return intrinsic(operation)


add_outer = _outer(
    lambda i, j: True,
    "``z + x ⊗ y``: sixteen sums, four vectors and four vectors; ``z[4*i + j]`` has x_i y_j.",
)
add_lower = _outer(lambda i, j: j <= i, "The same where ``j <= i``; the others are left.")
add_outer_1 = _outer(lambda i, j: i >= 1, "The same without the first x.")
add_outer_2 = _outer(lambda i, j: i >= 2, "The same without the first two x.")
add_outer_3 = _outer(lambda i, j: i >= 3, "The same with the last x only.")


@intrinsic
def sixteen(typingctx: Any, value: Any) -> Any:
    """A vector, sixteen times."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return cgutils.pack_array(builder, [args[0]] * 16)

    return types.UniTuple(value, 16)(value), codegen


@intrinsic
def load_four(typingctx: Any, array: Any, offset: Any, step: Any) -> Any:
    """Four vectors, `step` elements apart."""
    kind = _vector_of(array.dtype)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        llvm = context.get_value_type(kind)
        values, offset = [], args[1]
        for _ in range(4):
            pointer = _pointer(context, builder, sig.args[0], args[0], offset, llvm)
            values.append(builder.load(pointer, align=array.dtype.bitwidth // 8))
            offset = builder.add(offset, args[2])
        return cgutils.pack_array(builder, values)

    return types.UniTuple(kind, 4)(array, types.intp, types.intp), codegen


@intrinsic
def splat_four(typingctx: Any, array: Any, offset: Any, step: Any) -> Any:
    """Four values, `step` elements apart, each in every lane of a vector."""
    kind = _vector_of(array.dtype)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        scalar = context.get_value_type(array.dtype)
        values, offset = [], args[1]
        for _ in range(4):
            pointer = _pointer(context, builder, sig.args[0], args[0], offset, scalar)
            values.append(_splat(builder, builder.load(pointer), kind.lanes))
            offset = builder.add(offset, args[2])
        return cgutils.pack_array(builder, values)

    return types.UniTuple(kind, 4)(array, types.intp, types.intp), codegen


@intrinsic
def store_four(typingctx: Any, array: Any, offset: Any, step: Any, values: Any) -> Any:
    """Write four vectors, `step` elements apart."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        llvm = context.get_value_type(values.dtype)
        offset = args[1]
        for value in cgutils.unpack_tuple(builder, args[3]):
            pointer = _pointer(context, builder, sig.args[0], args[0], offset, llvm)
            builder.store(value, pointer, align=array.dtype.bitwidth // 8)
            offset = builder.add(offset, args[2])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, values), codegen


@intrinsic
def sqrt(typingctx: Any, a: Any) -> Any:
    """Square root of each lane."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = args[0].type
        name = f"llvm.sqrt.v{a.lanes}f{a.dtype.bitwidth}"
        signature = ir.FunctionType(kind, [kind])
        return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), args)

    return a(a), codegen


def _binary(instruction: str, doc: str) -> Any:
    def operation(typingctx: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return getattr(builder, instruction)(*args)

        return a(a, a), codegen

    operation.__doc__ = doc
    return intrinsic(operation)


add = _binary("fadd", "``a + b``.")
sub = _binary("fsub", "``a - b``.")
mul = _binary("fmul", "``a * b``.")
div = _binary("fdiv", "``a / b``.")


def _select(comparison: str, doc: str) -> Any:
    def operation(typingctx: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.select(builder.fcmp_ordered(comparison, *args), args[1], args[0])

        return a(a, a), codegen

    operation.__doc__ = doc
    return intrinsic(operation)


at_most = _select(">", "The smaller of `a` and the bound `b`; a NaN in `a` stays.")
at_least = _select("<", "The larger of `a` and the bound `b`; a NaN in `a` stays.")


@intrinsic
def zero_below(typingctx: Any, a: Any, bound: Any) -> Any:
    """`a`, with lanes under `bound` set to zero; a NaN stays."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        small = builder.fcmp_ordered("<", *args)
        return builder.select(small, ir.Constant(args[0].type, None), args[0])

    return a(a, a), codegen


def _pick(builder: Any, a: Any, b: Any, order: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, len(order)), order))


def _halve(builder: Any, value: Any) -> Any:
    n = value.type.count // 2
    low = _pick(builder, value, value, list(range(n)))
    return builder.fadd(low, _pick(builder, value, value, list(range(n, 2 * n))))


@intrinsic
def total(typingctx: Any, a: Any) -> Any:
    """Sum of the lanes, pairwise."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = args[0]
        while value.type.count > 1:
            value = _halve(builder, value)
        return builder.extract_element(value, ir.Constant(_I32, 0))

    return a.dtype(a), codegen


@intrinsic
def add_totals(typingctx: Any, array: Any, offset: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Add the lane sums of four vectors to ``array[offset:offset + 4]`` (float64)."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def folded(x: Any, y: Any, size: int) -> Any:
            """Runs of `size` lanes: of x, of y, and so on, each plus its neighbour's."""
            n = a.lanes
            straight = [at + n * (at // size % 2) for at in range(n)]  # a blend, on any port
            crossed = [at ^ size for at in straight]  # one shuffle
            return builder.fadd(_pick(builder, x, y, straight), _pick(builder, x, y, crossed))

        value = folded(folded(args[2], args[3], 1), folded(args[4], args[5], 1), 2)
        while value.type.count > 4:
            value = _halve(builder, value)
        four = ir.VectorType(_F64, 4)
        if value.type != four:
            value = builder.fpext(value, four)
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1], four)
        value = builder.fadd(builder.load(pointer, align=8), value)
        builder.store(value, pointer, align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, a, a, a, a), codegen


@intrinsic
def load_turned(
    typingctx: Any, X: Any, at: Any, stride: Any, ref: Any, d: Any, out: Any, to: Any, step: Any
) -> Any:
    """Eight rows of eight features less `ref`, transposed: lanes are rows in `out`.

    Row i is ``X[at + i*stride:][:8]`` (C-contiguous, any shape), feature j goes to
    ``out[to + j*step:][:8]``. The difference is taken in float64; infinity becomes NaN.
    """
    kinds = (X, types.intp, types.intp, ref, types.intp, out, types.intp, types.intp)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def get(kind: Any, array: Any, offset: Any) -> Any:
            llvm = ir.VectorType(context.get_value_type(kind.dtype), 8)
            pointer = _pointer(context, builder, kind, array, offset, llvm)
            value = builder.load(pointer, align=kind.dtype.bitwidth // 8)
            return value if kind.dtype == types.float64 else builder.fpext(value, F64_VECTOR)

        array, offset, stride, ref, d, out, to, step = args
        shift = get(sig.args[3], ref, d)
        block = []
        for _ in range(8):
            row = builder.fsub(get(sig.args[0], array, offset), shift)
            block.append(builder.fadd(row, builder.fsub(row, row)))
            offset = builder.add(offset, stride)
        for size in (1, 2, 4):  # swap off-diagonal squares of this size
            low = [i if i & size == 0 else 8 + i - size for i in range(8)]
            high = [i + size if i & size == 0 else 8 + i for i in range(8)]
            block = [
                _pick(builder, block[i], block[i + size], low)
                if i & size == 0
                else _pick(builder, block[i - size], block[i], high)
                for i in range(8)
            ]
        kind = ir.VectorType(context.get_value_type(sig.args[5].dtype), 8)
        for column in block:
            value = column if kind == F64_VECTOR else builder.fptrunc(column, kind)
            pointer = _pointer(context, builder, sig.args[5], out, to, kind)
            builder.store(value, pointer, align=sig.args[5].dtype.bitwidth // 8)
            to = builder.add(to, step)
        return context.get_dummy_value()

    return types.void(*kinds), codegen


@intrinsic
def narrow(typingctx: Any, low: Any, high: Any) -> Any:
    """Two float64 vectors as one of float32."""
    kind = _vector_of(types.float32)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        half = ir.VectorType(ir.FloatType(), 8)
        low, high = (builder.fptrunc(value, half) for value in args)
        return _pick(builder, low, high, list(range(16)))

    return kind(F64X8, F64X8), codegen


def _widen(first: int, doc: str) -> Any:
    def operation(typingctx: Any, a: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            half = _pick(builder, args[0], args[0], list(range(first, first + 8)))
            return builder.fpext(half, F64_VECTOR)

        return F64X8(a), codegen

    operation.__doc__ = doc
    return intrinsic(operation)


low_half = _widen(0, "The first eight lanes of a float32 vector, as float64.")
high_half = _widen(8, "The last eight lanes of a float32 vector, as float64.")

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
        shifted = _fma(builder, x, constant(1.4426950408889634), rounder)
        n = builder.fsub(shifted, rounder)
        r = _fma(builder, n, constant(-high), x)
        r = _fma(builder, n, constant(-low), r)
        value = constant(polynomial[-1])
        for coefficient in reversed(polynomial[:-1]):
            value = _fma(builder, value, r, constant(coefficient))
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
            value = _fma(builder, value, square, _constant(coefficient))
        value = _fma(builder, f, value, builder.fmul(n, _constant(_LN2_LOW)))
        value = _fma(builder, n, _constant(_LN2_HIGH), value)
        return builder.fadd(value, builder.fsub(x, x))

    return F64X8(F64X8), codegen
