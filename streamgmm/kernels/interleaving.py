"""Columns that lie apart in memory, put beside one another as rows."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from streamgmm.kernels.compiled import compiled
from streamgmm.kernels.shuffles import _pick
from streamgmm.kernels.vectors import emit_pointer

TILE_BYTES = 1 << 17  # of rows at a time, so that a row that is filled in parts stays in cache


def _turn(n: int, doc: str) -> Any:
    def operation(
        typingctx: Any, addresses: Any, first: Any, at: Any, out: Any, to: Any, stride: Any
    ) -> Any:
        kinds = (addresses, types.intp, types.intp, out, types.intp, types.intp)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            scalar = context.get_value_type(sig.args[3].dtype)
            align = sig.args[3].dtype.bitwidth // 8
            vector = ir.VectorType(scalar, n)
            places, first, at, out, to, stride = args
            number = context.get_value_type(sig.args[0].dtype)
            block = []
            for k in range(n):
                which = builder.add(first, ir.Constant(first.type, k))
                place = builder.load(
                    emit_pointer(context, builder, sig.args[0], places, which, number)
                )
                column = builder.inttoptr(place, scalar.as_pointer())
                pointer = builder.bitcast(builder.gep(column, [at]), vector.as_pointer())
                block.append(builder.load(pointer, align=align))
            size = 1
            while size < n:  # swap off-diagonal squares of this size
                low = [i if i & size == 0 else n + i - size for i in range(n)]
                high = [i + size if i & size == 0 else n + i for i in range(n)]
                block = [
                    _pick(builder, block[i], block[i + size], low)
                    if i & size == 0
                    else _pick(builder, block[i - size], block[i], high)
                    for i in range(n)
                ]
                size *= 2
            for row in block:
                pointer = emit_pointer(context, builder, sig.args[3], out, to, vector)
                builder.store(row, pointer, align=align)
                to = builder.add(to, stride)
            return context.get_dummy_value()

        return types.void(*kinds), codegen

    operation.__doc__ = doc
    return intrinsic(operation)


_one = _turn(1, "One value of one column.")
_two = _turn(2, "Two rows of two columns: ``out[to + i*stride + k] = column[first + k][at + i]``.")
_four = _turn(4, "Four rows of four columns.")
_eight = _turn(8, "Eight rows of eight columns.")


@compiled
def interleave(addresses: Any, n: int, out: Any, D: int, column: int, tile: int) -> None:
    """Write columns of `n` values to ``out[:, column:]`` of rows of `D` values.

    `addresses` (int64) are those of the columns' first values, of the dtype of `out`, which is
    flat. `tile` rows are filled at a time.
    """
    count = addresses.shape[0]
    for begin in range(0, n, tile):
        end = min(n, begin + tile)
        k = 0
        while k < count:
            width = 8 if count - k >= 8 else 4 if count - k >= 4 else 2 if count - k >= 2 else 1
            to = begin * D + column + k
            i = begin
            if width == 8:
                while i + 8 <= end:
                    _eight(addresses, k, i, out, to, D)
                    i += 8
                    to += 8 * D
            elif width == 4:
                while i + 4 <= end:
                    _four(addresses, k, i, out, to, D)
                    i += 4
                    to += 4 * D
            elif width == 2:
                while i + 2 <= end:
                    _two(addresses, k, i, out, to, D)
                    i += 2
                    to += 2 * D
            while i < end:
                for j in range(width):
                    _one(addresses, k + j, i, out, to + j, D)
                i += 1
                to += D
            k += width
