"""Vectors for k-means beside those of `simd`: rows gathered and turned, the least two of many."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from streamgmm.kernels.vectors import F64X8, emit_fma, emit_splat

_I32 = ir.IntType(32)
_F64 = ir.VectorType(ir.DoubleType(), 8)


def _pick(builder: Any, a: Any, b: Any, order: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, len(order)), order))


def _transposed(builder: Any, block: list[Any]) -> list[Any]:
    """Eight vectors of eight lanes, turned: off-diagonal squares change places."""
    for size in (1, 2, 4):
        low = [i if i & size == 0 else 8 + i - size for i in range(8)]
        high = [i + size if i & size == 0 else 8 + i for i in range(8)]
        block = [
            _pick(builder, block[i], block[i + size], low)
            if i & size == 0
            else _pick(builder, block[i - size], block[i], high)
            for i in range(8)
        ]
    return block


@intrinsic
def gather_turned(
    typingctx: Any, X: Any, index: Any, at: Any, ref: Any, d: Any, out: Any, to: Any, step: Any
) -> Any:
    """Features ``d:d + 8`` less `ref` of the eight rows ``index[at:at + 8]``, transposed.

    Feature d + j goes to ``out[to + j*step:][:8]``. The difference is taken in float64 and then
    rounded to the dtype of `out`.
    """
    kinds = (X, index, types.intp, ref, types.intp, out, types.intp, types.intp)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def data(kind: Any, value: Any) -> Any:
            return context.make_array(kind)(context, builder, value)

        def eight(kind: Any, base: Any, offset: Any) -> Any:
            llvm = ir.VectorType(context.get_value_type(kind.dtype), 8)
            pointer = builder.gep(base, [offset], inbounds=True)
            return builder.bitcast(pointer, llvm.as_pointer()), kind.dtype.bitwidth // 8

        rows, listed, at, means, d, target, to, step = args
        rows, listed, means, target = (data(sig.args[i], args[i]) for i in (0, 1, 3, 5))
        width = builder.extract_value(rows.shape, 1)
        pointer, align = eight(sig.args[3], means.data, d)
        shift = builder.load(pointer, align=align)
        kind = ir.VectorType(context.get_value_type(sig.args[5].dtype), 8)
        block = []
        for i in range(8):
            place = builder.add(at, ir.Constant(at.type, i))
            row = builder.load(builder.gep(listed.data, [place], inbounds=True))
            start = builder.add(builder.mul(row, width), d)
            pointer, align = eight(sig.args[0], rows.data, start)
            value = builder.load(pointer, align=align)
            value = value if value.type == _F64 else builder.fpext(value, _F64)
            value = builder.fsub(value, shift)
            block.append(value if kind == _F64 else builder.fptrunc(value, kind))
        for column in _transposed(builder, block):
            pointer, align = eight(sig.args[5], target.data, to)
            builder.store(column, pointer, align=align)
            to = builder.add(to, step)
        return context.get_dummy_value()

    return types.void(*kinds), codegen


@intrinsic
def side_times_each(typingctx: Any, values: Any) -> Any:
    """A block from a side of it: what `add_outer` has before anything is added."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values = cgutils.unpack_tuple(builder, args[0])
        return cgutils.pack_array(builder, [v for v in values for _ in values])

    return types.UniTuple(values.dtype, values.count**2)(values), codegen


@intrinsic
def keep_two(typingctx: Any, least: Any, second: Any, place: Any, z: Any, first: Any) -> Any:
    """The least, the second and the number of the least, lane by lane.

    Each is a side of a block of vectors, and row i of the block z is what number ``first + i``
    offers to them. Of equal values the earlier one stays the least. A value that is not a number
    is passed over.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        least, second, place, z = (cgutils.unpack_tuple(builder, arg) for arg in args[:4])
        side = len(least)
        for at, value in enumerate(z):
            i, j = divmod(at, side)
            if j == 0:
                number = builder.fadd(args[4], ir.Constant(args[4].type, float(i)))
                number = emit_splat(builder, number, value.type.count)
            less = builder.fcmp_ordered("<", value, least[j])
            other = builder.select(less, least[j], value)
            below = builder.fcmp_ordered("<", other, second[j])
            second[j] = builder.select(below, other, second[j])
            least[j] = builder.select(less, value, least[j])
            place[j] = builder.select(less, number, place[j])
        kept = [cgutils.pack_array(builder, each) for each in (least, second, place)]
        return context.make_tuple(builder, sig.return_type, kept)

    return types.Tuple((least, second, place))(least, second, place, z, first), codegen


@intrinsic
def load_first(typingctx: Any, array: Any, offset: Any, n: Any) -> Any:
    """The first `n` of eight values of an array as a float64 vector, and zeros.

    The others are not read.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.VectorType(context.get_value_type(array.dtype), 8)
        data = context.make_array(array)(context, builder, args[0]).data
        pointer = builder.bitcast(builder.gep(data, [args[1]], inbounds=True), kind.as_pointer())
        lane = ir.Constant(ir.VectorType(args[2].type, 8), list(range(8)))
        kept = builder.icmp_signed("<", lane, emit_splat(builder, args[2], 8))
        align = ir.Constant(_I32, array.dtype.bitwidth // 8)
        name = f"llvm.masked.load.v8f{array.dtype.bitwidth}.p0"
        types_ = [pointer.type, _I32, kept.type, kind]
        load = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, types_), name)
        value = builder.call(load, [pointer, align, kept, ir.Constant(kind, None)])
        return value if kind == _F64 else builder.fpext(value, _F64)

    return F64X8(array, types.intp, types.intp), codegen


@intrinsic
def add_squared_differences(typingctx: Any, z: Any, c: Any, x: Any) -> Any:
    """``z[n*i + j] + (x_j - c_i)²`` of n vectors x, and four or more c."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        sums, cs, xs = (cgutils.unpack_tuple(builder, arg) for arg in args)
        for at, value in enumerate(sums):
            y = builder.fsub(xs[at % len(xs)], cs[at // len(xs)])
            sums[at] = emit_fma(builder, y, y, value)
        return cgutils.pack_array(builder, sums)

    return z(z, c, x), codegen


@intrinsic
def least_each(typingctx: Any, a: Any, b: Any) -> Any:
    """The smaller of each of four vectors and its counterpart."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pairs = zip(*(cgutils.unpack_tuple(builder, arg) for arg in args), strict=True)
        least = [builder.select(builder.fcmp_ordered(">", x, y), y, x) for x, y in pairs]
        return cgutils.pack_array(builder, least)

    return a(a, b), codegen


@intrinsic
def add_products(typingctx: Any, s: Any, a: Any, b: Any) -> Any:
    """``s + a_0 b_0 + a_1 b_1 + a_2 b_2 + a_3 b_3``."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = args[0]
        for x, y in zip(*(cgutils.unpack_tuple(builder, arg) for arg in args[1:]), strict=True):
            value = emit_fma(builder, x, y, value)
        return value

    return s(s, a, b), codegen
