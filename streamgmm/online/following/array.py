"""A Zarr array that grows by rows, on disk or behind a URL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import SourceError
from streamgmm.online.following.base import Position, Unit, cut, digest_rows
from streamgmm.sources.base import float_dtype
from streamgmm.sources.zarr_open import open_ref
from streamgmm.sources.zarr_ref import ZarrRef

FRONTIER = 2  # chunks at the end of an array that a writer may still be at


class ArrayFeed:
    """Whole, finished chunks of an array, one after the other.

    A writer that appends first makes the array longer, then writes the chunks; what is not
    written yet reads as the fill value. So a chunk is finished when it is whole, when it is
    there, and, near the end, when none of its rows is all fill value. `partial` takes the rows
    as they stand instead.
    """

    endless = True

    def __init__(self, where: Any, *, batch_rows: int, partial: bool = False) -> None:
        self._where = where
        self._batch_rows, self._partial = batch_rows, partial
        self._ref = self._open()
        self.name = self._ref.name

    def _open(self) -> ZarrRef:
        """Open it anew, as long as it is now."""
        import zarr

        where = self._where
        if isinstance(where, zarr.Array):
            where = zarr.open_array(where.store, path=where.path, mode="r")
        ref = open_ref(where)
        if len(ref.array.shape) != 2 or ref.array.shape[1] == 0:
            raise SourceError(
                f"{ref.name} has shape {ref.array.shape}; rows and columns are needed to follow "
                "it: of a cube, pass streamgmm.rows(array, feature_axis=...)"
            )
        float_dtype(ref.array.dtype, ref.name)
        return ref

    def check(self, position: Position) -> None:
        """Check what was read: that it is still there, and that the chunks looked at are the same.

        Looks at the first chunk and the last that was read.
        """
        n = int(self._ref.array.shape[0])
        if n < position["row"]:
            raise SourceError(
                f"{self.name} has {n} rows but {position['row']} of it were learned: it has "
                "shrunk; follow it with another state, or restore it"
            )
        for first, last, known in position["seen"]:
            if digest_rows(self._read(first, last)) != known:
                raise SourceError(
                    f"{self.name}, rows {first}:{last}: they are not those that were learned; the "
                    "array was rewritten behind the position; follow it with another state"
                )

    def units(self, position: Position | None) -> Iterator[Unit]:
        """Chunks that are finished, cut into batches."""
        self._ref = self._open()
        array = self._ref.array
        row = 0 if position is None else int(position["row"])
        seen = [] if position is None else list(position["seen"])
        n = int(array.shape[0])
        if n < row:
            self.check({"row": row, "seen": []})
        step = int((array.shards or array.chunks)[0])
        while row < n:
            last = min((row // step + 1) * step, n)
            if not self._partial and last % step:
                return
            rows = self._read(row, last)
            if not self._partial and not self._finished(row, last, n, step, rows):
                return
            for stop, part in cut(rows, self._batch_rows):
                mine = [row + stop - len(part), row + stop, digest_rows(part)]
                seen = [*seen[:1], mine]
                yield Unit(part, {"row": row + stop, "seen": seen})
            row = last

    def _read(self, first: int, last: int) -> NDArray[Any]:
        rows = self._ref.read(first, last)
        return rows if rows.dtype == np.float32 else rows.astype(np.float64, copy=False)

    def _finished(self, first: int, last: int, n: int, step: int, rows: NDArray[Any]) -> bool:
        if last + FRONTIER * step <= n:
            return True
        return not has_unwritten(rows, self._ref.array)


def has_unwritten(rows: NDArray[Any], array: Any) -> bool:
    """Whether a row is all fill value, as rows are that no one has written."""
    fill = np.asarray(array.fill_value).astype(rows.dtype)
    same = np.isnan(rows) if np.isnan(fill) else rows == fill
    return bool(same.all(axis=1).any())
