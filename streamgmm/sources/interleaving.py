"""Features of a region that lie apart, put beside one another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.sources.chunks import lend

TILE_ROWS = 2048
"""Rows that are put together at a time, so that they stay in the processor's cache."""

COMPILED_VALUES = 1 << 16
"""From so many values on, compiled code is worth being loaded."""


def interleaved(
    values: Sequence[NDArray[Any]], extent: tuple[int, ...], n_features: int, dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Put the features of variables beside one another, (rows, features).

    Parameters
    ----------
    values : sequence of ndarray
        Each of shape (*extent, features), or 1 along dimensions that it lacks.
    extent, n_features, dtype
        Of the result.

    Examples
    --------
    >>> a, b = np.array([[[0.0], [1.0]]]), np.array([[[5.0]]])
    >>> interleaved([a, b], (1, 2), 2, np.dtype(np.float64)).tolist()
    [[0.0, 5.0], [1.0, 5.0]]
    """
    n_rows = math.prod(extent)
    out = lend((n_rows, n_features), dtype)
    whole = out.reshape(*extent, n_features)
    flat: list[tuple[NDArray[Any], NDArray[Any]]] = []
    at = 0
    runs: list[tuple[int, list[int]]] = []  # columns one after the other: the first, addresses
    for each in values:
        columns = slice(at, at + each.shape[-1])
        at = columns.stop
        places = _columns(each, extent, dtype) if out.size >= COMPILED_VALUES else None
        if places is not None:
            if not runs or runs[-1][0] + len(runs[-1][1]) != columns.start:
                runs.append((columns.start, []))
            runs[-1][1].extend(places)
            continue
        try:
            wide = np.broadcast_to(each, (*extent, each.shape[-1]))
            rows = wide.reshape(n_rows, each.shape[-1], copy=False)
            flat.append(_as_wholes(out, columns, rows))
        except ValueError:  # its rows do not lie at even steps in memory
            whole[..., columns] = each
    for a in range(0, n_rows, TILE_ROWS):
        for target, rows in flat:
            target[a : a + TILE_ROWS] = rows[a : a + TILE_ROWS]
    if runs:
        from streamgmm.kernels.interleaving import TILE_BYTES, interleave

        tile = max(8, TILE_BYTES // (n_features * dtype.itemsize) // 8 * 8)
        for first, addresses in runs:
            numbers = np.array(addresses, np.int64)
            interleave(numbers, n_rows, out.reshape(-1), n_features, first, tile)
    return out


def _as_wholes(
    out: NDArray[Any], columns: slice, rows: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """What is to be written and read; as one number a row where a row has 8 or 16 bytes."""
    width = rows.shape[-1]
    kind = {8: np.uint64, 16: np.complex128}.get(width * out.itemsize)
    whole = columns.start % width == 0 and out.shape[1] % width == 0
    if kind is None or width == 1 or not whole or rows.dtype != out.dtype:
        return out[:, columns], rows
    if not rows.flags.c_contiguous:
        return out[:, columns], rows
    return out.view(kind)[:, columns.start // width], rows.view(kind)[:, 0]


def _columns(
    values: NDArray[Any], extent: tuple[int, ...], dtype: np.dtype[Any]
) -> list[int] | None:
    """Addresses of the columns of a variable, if each is a run of values as they are wanted.

    The caller holds the values for as long as the addresses are used.
    """
    if values.dtype != dtype or not values.dtype.isnative or values.shape[:-1] != extent:
        return None
    if values.shape[-1] == 0 or not values[..., 0].flags.c_contiguous:
        return None
    if not values.flags.aligned:
        return None
    start, step = values.ctypes.data, values.strides[-1]
    return [start + j * step for j in range(values.shape[-1])]
