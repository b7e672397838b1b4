"""Blocks of vectors that stay in registers, in the inner loops of matrix products.

A block is a tuple of vectors, row after row. How many it has of them depends on the processor
(`SIDE`); each of its sums runs in the same order whatever that is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

from streamgmm.kernels.vectors import emit_fma, emit_pointer, emit_splat, vector_of


def _side() -> int:
    features = config.CPU_FEATURES
    if features is None:
        features = ",".join(f"+{name}" for name, has in get_host_cpu_features().items() if has)
    return 4 if "+avx512f" in features.split(",") else 2


SIDE = _side()
"""Vectors on a side of the blocks of sums that stay in registers.

AVX-512 has 32 registers of a vector each, and sixteen sums with what is added to them fit. AVX2
has sixteen of half a vector, and 64-bit Arm 32 of a quarter: sixteen sums would go to memory and
back with every feature, which takes three times as long. Sums have the same bits for both.
"""


def _outer(needed: Callable[[int, int], bool], doc: str) -> Any:
    def operation(typingctx: Any, z: Any, x: Any, y: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            sums, xs, ys = (cgutils.unpack_tuple(builder, arg) for arg in args)
            for at, value in enumerate(sums):
                i, j = divmod(at, len(ys))
                if needed(i, j):
                    sums[at] = emit_fma(builder, xs[i], ys[j], value)
            return cgutils.pack_array(builder, sums)

        return z(z, x, y), codegen

    operation.__doc__ = doc
    return intrinsic(operation)


add_outer = _outer(
    lambda i, j: True,
    "``z + x ⊗ y``, of as many vectors as each has: ``z[len(y)*i + j]`` has x_i y_j.",
)
add_lower = _outer(lambda i, j: j <= i, "The same where ``j <= i``; the others are left.")
add_outer_1 = _outer(lambda i, j: i >= 1, "The same without the first x.")
add_outer_2 = _outer(lambda i, j: i >= 2, "The same without the first two x.")
add_outer_3 = _outer(lambda i, j: i >= 3, "The same with the last x only.")


def _times(count: int, doc: str) -> Any:
    def operation(typingctx: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return cgutils.pack_array(builder, [args[0]] * count)

        return types.UniTuple(value, count)(value), codegen

    operation.__doc__ = doc
    return intrinsic(operation)


sixteen = _times(16, "A vector, sixteen times.")
side_of = _times(SIDE, "A vector, once for each of a side of a block.")
block_of = _times(SIDE * SIDE, "A vector, once for each sum of a block.")


def _load(count: int, doc: str) -> Any:
    def operation(typingctx: Any, array: Any, offset: Any, step: Any) -> Any:
        kind = vector_of(array.dtype)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            llvm = context.get_value_type(kind)
            values, offset = [], args[1]
            for _ in range(count):
                pointer = emit_pointer(context, builder, sig.args[0], args[0], offset, llvm)
                values.append(builder.load(pointer, align=array.dtype.bitwidth // 8))
                offset = builder.add(offset, args[2])
            return cgutils.pack_array(builder, values)

        return types.UniTuple(kind, count)(array, types.intp, types.intp), codegen

    operation.__doc__ = doc
    return intrinsic(operation)


load_four = _load(4, "Four vectors, `step` elements apart.")
load_side = _load(SIDE, "A side of a block of vectors, `step` elements apart.")


def _splats(count: int, doc: str) -> Any:
    def operation(typingctx: Any, array: Any, offset: Any, step: Any) -> Any:
        kind = vector_of(array.dtype)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            scalar = context.get_value_type(array.dtype)
            values, offset = [], args[1]
            for _ in range(count):
                pointer = emit_pointer(context, builder, sig.args[0], args[0], offset, scalar)
                values.append(emit_splat(builder, builder.load(pointer), kind.lanes))
                offset = builder.add(offset, args[2])
            return cgutils.pack_array(builder, values)

        return types.UniTuple(kind, count)(array, types.intp, types.intp), codegen

    operation.__doc__ = doc
    return intrinsic(operation)


splat_four = _splats(4, "Four values, `step` elements apart, each in every lane of a vector.")
splat_side = _splats(SIDE, "A side of a block of values, likewise.")


@intrinsic
def store_each(typingctx: Any, array: Any, offset: Any, step: Any, values: Any) -> Any:
    """Write vectors, `step` elements apart."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        llvm = context.get_value_type(values.dtype)
        offset = args[1]
        for value in cgutils.unpack_tuple(builder, args[3]):
            pointer = emit_pointer(context, builder, sig.args[0], args[0], offset, llvm)
            builder.store(value, pointer, align=array.dtype.bitwidth // 8)
            offset = builder.add(offset, args[2])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, values), codegen


@intrinsic
def store_block(
    typingctx: Any, array: Any, offset: Any, row_step: Any, step: Any, block: Any
) -> Any:
    """Write the rows of a block of vectors `row_step` apart, the vectors of each `step` apart."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        llvm = context.get_value_type(block.dtype)
        row = offset = args[1]
        for at, value in enumerate(cgutils.unpack_tuple(builder, args[4])):
            pointer = emit_pointer(context, builder, sig.args[0], args[0], offset, llvm)
            builder.store(value, pointer, align=array.dtype.bitwidth // 8)
            offset = builder.add(offset, args[3])
            if at % SIDE == SIDE - 1:
                row = offset = builder.add(row, args[2])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, types.intp, block), codegen


@intrinsic
def add_squares(typingctx: Any, q: Any, z: Any) -> Any:
    """``q[j] + Σ_i z[len(q)*i + j]²``."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        sums, values = (cgutils.unpack_tuple(builder, arg) for arg in args)
        for at, value in enumerate(values):
            j = at % len(sums)
            sums[j] = emit_fma(builder, value, value, sums[j])
        return cgutils.pack_array(builder, sums)

    return q(q, z), codegen


@intrinsic
def add_near(typingctx: Any, q: Any, x: Any, a: Any, b: Any) -> Any:
    """``q[i] + (x[i] a + b)²`` of as many vectors."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        sums, values = (cgutils.unpack_tuple(builder, arg) for arg in args[:2])
        z = [emit_fma(builder, value, args[2], args[3]) for value in values]
        pairs = zip(z, sums, strict=True)
        return cgutils.pack_array(builder, [emit_fma(builder, v, v, s) for v, s in pairs])

    return q(q, x, a, b), codegen


@intrinsic
def add_times(typingctx: Any, s: Any, x: Any, r: Any) -> Any:
    """``s[i] + x[i] r`` of as many vectors."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pairs = zip(*(cgutils.unpack_tuple(builder, arg) for arg in args[:2]), strict=True)
        sums = [emit_fma(builder, x, args[2], s) for s, x in pairs]
        return cgutils.pack_array(builder, sums)

    return s(s, x, r), codegen


def _each(instruction: str, doc: str) -> Any:
    def operation(typingctx: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            values = cgutils.unpack_tuple(builder, args[0])
            others = [args[1]] * len(values)
            if isinstance(b, types.BaseTuple):
                others = cgutils.unpack_tuple(builder, args[1])
            pairs = zip(values, others, strict=True)
            return cgutils.pack_array(builder, [getattr(builder, instruction)(*p) for p in pairs])

        return a(a, b), codegen

    operation.__doc__ = doc
    return intrinsic(operation)


add_each = _each("fadd", "``a[i] + b[i]`` of as many vectors, or ``a[i] + b`` of one.")
sub_each = _each("fsub", "``a[i] - b[i]``, likewise.")
mul_each = _each("fmul", "``a[i] * b[i]``, likewise.")


@intrinsic
def each_at_most(typingctx: Any, a: Any, bound: Any) -> Any:
    """`at_most` of as many vectors."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values = cgutils.unpack_tuple(builder, args[0])
        over = [builder.fcmp_ordered(">", value, args[1]) for value in values]
        pairs = zip(over, values, strict=True)
        return cgutils.pack_array(builder, [builder.select(o, args[1], v) for o, v in pairs])

    return a(a, bound), codegen
