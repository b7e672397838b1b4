"""What crosses the lanes of a vector: sums of lanes, transposed loads, halves."""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from streamgmm.kernels.vectors import F64, F64_VECTOR, F64X8, I32, emit_pointer, vector_of


def _pick(builder: Any, a: Any, b: Any, order: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(order)), order))


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
        return builder.extract_element(value, ir.Constant(I32, 0))

    return a.dtype(a), codegen


def _folded(builder: Any, x: Any, y: Any, size: int) -> Any:
    """Runs of `size` lanes: of x, of y, and so on, each plus its neighbour's."""
    n = x.type.count
    straight = [at + n * (at // size % 2) for at in range(n)]  # a blend, on any port
    crossed = [at ^ size for at in straight]  # one shuffle
    return builder.fadd(_pick(builder, x, y, straight), _pick(builder, x, y, crossed))


def _emit_totals(builder: Any, values: list[Any]) -> Any:
    """Lane sums of two or four vectors; each is taken in the same order for both."""
    value = _folded(builder, values[0], values[1], 1)
    other = _folded(builder, values[2], values[3], 1) if len(values) == 4 else value
    if len(values) == 4:
        value = _folded(builder, value, other, 2)
    else:
        n = value.type.count
        crossed = _pick(builder, value, value, [at ^ 2 for at in range(n)])
        value = builder.fadd(value, crossed)
    while value.type.count > 4:
        value = _halve(builder, value)
    if value.type.count > len(values):
        value = _pick(builder, value, value, list(range(len(values))))
    kind = ir.VectorType(F64, len(values))
    return value if value.type == kind else builder.fpext(value, kind)


def _emit_add(
    context: Any, builder: Any, kind: Any, array: Any, offset: Any, values: list[Any]
) -> None:
    sums = _emit_totals(builder, values)
    pointer = emit_pointer(context, builder, kind, array, offset, sums.type)
    builder.store(builder.fadd(builder.load(pointer, align=8), sums), pointer, align=8)


@intrinsic
def add_totals(typingctx: Any, array: Any, offset: Any, values: Any) -> Any:
    """Add the lane sums of two or four vectors to ``array[offset:]`` (float64)."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vectors = cgutils.unpack_tuple(builder, args[2])
        _emit_add(context, builder, sig.args[0], args[0], args[1], vectors)
        return context.get_dummy_value()

    return types.void(array, types.intp, values), codegen


@intrinsic
def add_block_totals(typingctx: Any, array: Any, offset: Any, step: Any, block: Any) -> Any:
    """Add the lane sums of a block of vectors to one of numbers, whose rows lie `step` apart."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vectors = cgutils.unpack_tuple(builder, args[3])
        side = math.isqrt(len(vectors))
        offset = args[1]
        for at in range(0, len(vectors), side):
            row = vectors[at : at + side]
            _emit_add(context, builder, sig.args[0], args[0], offset, row)
            offset = builder.add(offset, args[2])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, block), codegen


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
            pointer = emit_pointer(context, builder, kind, array, offset, llvm)
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
            pointer = emit_pointer(context, builder, sig.args[5], out, to, kind)
            builder.store(value, pointer, align=sig.args[5].dtype.bitwidth // 8)
            to = builder.add(to, step)
        return context.get_dummy_value()

    return types.void(*kinds), codegen


@intrinsic
def narrow(typingctx: Any, low: Any, high: Any) -> Any:
    """Two float64 vectors as one of float32."""
    kind = vector_of(types.float32)

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
