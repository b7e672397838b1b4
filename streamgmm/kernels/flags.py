"""Which lanes of a vector a test holds for, as bits; which of many values is the least."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_I64 = ir.IntType(64)


def _bits(comparison: str, doc: str) -> Any:
    def operation(typingctx: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            lanes = builder.fcmp_unordered(comparison, *args)
            return builder.zext(builder.bitcast(lanes, ir.IntType(a.lanes)), _I64)

        return types.int64(a, a), codegen

    operation.__doc__ = doc
    return intrinsic(operation)


not_above = _bits("<=", "A bit for each lane in which `a` is not above `b`; a NaN is not.")


@intrinsic
def lowest(typingctx: Any, bits: Any) -> Any:
    """Number of the lowest bit that is set, of an int64 that is not zero."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), codegen


@intrinsic
def keep_least(typingctx: Any, held: Any, z: Any, numbers: Any) -> Any:
    """The least value and its number, lane by lane, of those `held` and of four more.

    Of equal values the earlier one stays; a NaN is passed over.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        (least, number), values, theirs = (cgutils.unpack_tuple(builder, arg) for arg in args)
        for value, its in zip(values, theirs, strict=True):
            less = builder.fcmp_ordered("<", value, least)
            least = builder.select(less, value, least)
            number = builder.select(less, its, number)
        return cgutils.pack_array(builder, [least, number])

    return held(held, z, numbers), codegen
