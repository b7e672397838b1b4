"""Vector registers for Numba: 64-byte vectors of float64 (8 lanes) or float32 (16 lanes).

Numba leaves vectorisation to LLVM, which keeps accumulators in memory and, on processors with
AVX-512, prefers half-width registers. A mixture's inner loops are small matrix products, so
they are written here with explicit vectors: a value of `Vector` stays in a register, and LLVM
splits it where the processor's registers are narrower. Everything is an intrinsic that emits
a few LLVM instructions; arrays are flat (one-dimensional, C-contiguous), offsets in elements.

Here are loads, stores and arithmetic; `blocks` has those of many vectors, `shuffles` what crosses
lanes, and `elementary` exp and log.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

VECTOR_BITS = 512

I32 = ir.IntType(32)
F64 = ir.DoubleType()
F64_VECTOR = ir.VectorType(F64, 8)


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


def vector_of(dtype: Any) -> Vector:
    """The vector type of a dtype."""
    return Vector(dtype, VECTOR_BITS // dtype.bitwidth)


F64X8 = vector_of(types.float64)


def lanes(dtype: Any) -> int:
    """Values of a NumPy dtype that one vector holds.

    >>> lanes("float64"), lanes("float32")
    (8, 16)
    """
    return VECTOR_BITS // (8 * int(np.dtype(dtype).itemsize))


def emit_splat(builder: Any, value: Any, n: int) -> Any:
    """Emit a scalar in each of n lanes."""
    blank = ir.Constant(ir.VectorType(value.type, n), ir.Undefined)
    one = builder.insert_element(blank, value, ir.Constant(I32, 0))
    return builder.shuffle_vector(one, blank, ir.Constant(ir.VectorType(I32, n), [0] * n))


def emit_pointer(
    context: Any, builder: Any, array_type: Any, array: Any, offset: Any, kind: Any
) -> Any:
    """Emit the address of an element, as a pointer to `kind`.

    Only the member that is needed is taken out. Numba's own proxy of an array copies all of them
    to the stack, from which LLVM removes them again: that takes half as long to compile again.
    """
    data = context.data_model_manager[array_type].get(builder, array, "data")
    return builder.bitcast(builder.gep(data, [offset], inbounds=True), kind.as_pointer())


def emit_fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Emit ``a * b + c`` of vectors, rounded once."""
    width = {F64: 64}.get(a.type.element, 32)
    name = f"llvm.fma.v{a.type.count}f{width}"
    kind = ir.FunctionType(a.type, [a.type] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])


@intrinsic
def load(typingctx: Any, array: Any, offset: Any) -> Any:
    """``array[offset:offset + lanes]`` as a vector of the array's dtype."""
    kind = vector_of(array.dtype)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        llvm = context.get_value_type(kind)
        pointer = emit_pointer(context, builder, sig.args[0], args[0], args[1], llvm)
        return builder.load(pointer, align=array.dtype.bitwidth // 8)

    return kind(array, types.intp), codegen


@intrinsic
def store(typingctx: Any, array: Any, offset: Any, value: Any) -> Any:
    """Write a vector to ``array[offset:offset + lanes]``."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        llvm = context.get_value_type(value)
        pointer = emit_pointer(context, builder, sig.args[0], args[0], args[1], llvm)
        builder.store(args[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def load64(typingctx: Any, array: Any, offset: Any) -> Any:
    """Eight values of a float32 or float64 array as a float64 vector."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        scalar = context.get_value_type(array.dtype)
        llvm = ir.VectorType(scalar, 8)
        pointer = emit_pointer(context, builder, sig.args[0], args[0], args[1], llvm)
        value = builder.load(pointer, align=array.dtype.bitwidth // 8)
        return value if array.dtype == types.float64 else builder.fpext(value, F64_VECTOR)

    return F64X8(array, types.intp), codegen


@intrinsic
def store64(typingctx: Any, array: Any, offset: Any, value: Any) -> Any:
    """Write a float64 vector to eight places of a float32 or float64 array."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        llvm = ir.VectorType(context.get_value_type(array.dtype), 8)
        pointer = emit_pointer(context, builder, sig.args[0], args[0], args[1], llvm)
        vector = args[2] if array.dtype == types.float64 else builder.fptrunc(args[2], llvm)
        builder.store(vector, pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def splat(typingctx: Any, value: Any) -> Any:
    """Every lane set to one scalar."""
    kind = vector_of(value)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return emit_splat(builder, args[0], kind.lanes)

    return kind(value), codegen


@intrinsic
def zeros(typingctx: Any, array: Any) -> Any:
    """Zeros of the dtype of `array`."""
    kind = vector_of(array.dtype)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(context.get_value_type(kind), None)

    return kind(array), codegen


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``, rounded once."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return emit_fma(builder, *args)

    return a(a, a, a), codegen


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
