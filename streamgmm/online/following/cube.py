"""A cube that grows along the first dimension of its samples: an array, or a group."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import ParameterError, SourceError
from streamgmm.online.following.array import FRONTIER
from streamgmm.online.following.base import Layers, Position, Unit, digest_rows
from streamgmm.sources.growing import check_growing, chunk_sizes, chunk_step, grown
from streamgmm.sources.regions import RegionSource
from streamgmm.sources.variables import FEATURE, InZarr


class CubeFeed:
    """Whole, finished chunks along the first dimension, one slab of them after the other.

    The samples of a slab come in C order, whatever the chunks are along other dimensions; the
    slab is held in memory. Masked samples are no rows, and keep their places. A slab is finished
    as the chunks of `ArrayFeed` are: when it is whole and, near the end, when no layer of a
    chunk is all fill value in one of the features.
    """

    endless = True

    def __init__(self, source: RegionSource, *, batch_rows: int, partial: bool = False) -> None:
        check_growing(source)
        if source.weight is not None:
            raise ParameterError(f"{source.name} has weights, which nobody learns while following")
        self._source, self.name = source, source.name
        self._batch_rows, self._partial = batch_rows, partial
        self._step = chunk_step(source)
        shape = source.grid.shape
        self._layer = math.prod(shape[1:])
        self.layers = Layers(shape[1:], (self._step, *source.grid.largest[1:]))
        self._cell = (1, *(chunk_sizes(source)[1:]))
        self._fills = np.array([fill for each in source.variables for fill in _fills(each)])

    def check(self, position: Position) -> None:
        """Check what was read: that it is there, and that the samples looked at are the same.

        Looks at the first batch and the last that was read.
        """
        self._source = grown(self._source)
        n = self._source.n_samples
        if n < position["row"]:
            raise SourceError(
                f"{self.name} has {n} samples but {position['row']} of them were learned: it has "
                "shrunk; follow it with another state, or restore it"
            )
        for first, last, known in position["seen"]:
            if digest_rows(self._read(first, last)[0]) != known:
                raise SourceError(
                    f"{self.name}, samples {first}:{last} in C order: they are not those that "
                    "were learned; it was rewritten behind the position, or is masked otherwise; "
                    "follow it with another state"
                )

    def units(self, position: Position | None) -> Iterator[Unit]:
        """Slabs that are finished, cut into batches."""
        self._source = grown(self._source)
        row = 0 if position is None else int(position["row"])
        seen = [] if position is None else list(position["seen"])
        n = self._source.n_samples
        if n < row:
            self.check({"row": row, "seen": []})
        slab = self._step * self._layer
        while row < n:
            last = min((row // slab + 1) * slab, n)
            if not self._partial and last % slab:
                return
            near = not self._partial and last + FRONTIER * slab > n
            found = self._read(row, last, near)
            if found is None:
                return
            rows, kept = found
            before = np.concatenate([[0], np.cumsum(kept)])
            for first in range(row, last, self._batch_rows):
                stop = min(first + self._batch_rows, last)
                part = rows[before[first - row] : before[stop - row]]
                seen = [*seen[:1], [first, stop, digest_rows(part)]]
                there = kept[first - row : stop - row]
                yield Unit(part, {"row": stop, "seen": seen}, there)
            row = last

    def _read(self, first: int, last: int, near: bool = False) -> Any:
        """Rows of the samples ``first:last``, and which there are; None if unfinished."""
        slab = self._step * self._layer
        a = first // slab * slab
        b = min(-(-last // slab) * slab, self._source.n_samples)
        rows = np.empty((b - a, self._source.n_features), self._source.dtype)
        kept = np.zeros(b - a, bool)
        for block in self._source.blocks(1 << 26, a, b):
            for piece in block.pieces():
                numbers = piece.numbers()
                if near and self._unfinished(piece.rows, numbers):
                    return None
                rows[numbers - a] = piece.rows
                kept[numbers - a] = True
        kept = kept[first - a : last - a]
        return rows[first - a : last - a][kept], kept

    def _unfinished(self, rows: NDArray[Any], numbers: NDArray[np.int64]) -> bool:
        """Whether a layer of a chunk is all fill value in a feature, as before it is written."""
        empty = np.isnan(rows) | (rows == self._fills)
        if not empty.any():
            return False
        places = np.unravel_index(numbers, self._source.grid.shape)
        cells = [each // step for each, step in zip(places, self._cell, strict=True)]
        _, at = np.unique(np.stack(cells), axis=1, return_inverse=True)
        n = np.bincount(at)
        return any(bool((np.bincount(at[each], minlength=len(n)) == n).any()) for each in empty.T)


def _fills(variable: Any) -> list[float]:
    """What a feature reads as where nothing was written; NaN, too, where it is not stored."""
    columns = variable.n_columns
    if not isinstance(variable.stored, InZarr) or 0 not in variable.axes:
        return [math.nan] * columns
    array = variable.stored.ref.array
    value = np.full((1,) * (len(variable.axes) + (FEATURE not in variable.axes)), array.fill_value,
                    array.dtype)  # fmt: skip
    return [float(np.asarray(variable.decoding.decode(value)).reshape(-1)[0])] * columns
