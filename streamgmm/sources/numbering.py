"""Which samples the rows of a piece are, where they do not simply follow one another."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Numbers:
    """The numbers of some rows of a region, among all samples in C order.

    They are computed when they are asked for: most passes never do.

    Attributes
    ----------
    shape : tuple of int
        Of all samples.
    corner, extent : tuple of int
        Of the region.
    start, stop : int
        The run of the region's rows, in its own C order.
    kept : ndarray of int64 or None
        Which of the run are there, as offsets from `start`; None for all.

    Examples
    --------
    >>> Numbers((4, 5), (1, 2), (2, 2), 0, 4).array().tolist()
    [7, 8, 12, 13]
    """

    shape: tuple[int, ...]
    corner: tuple[int, ...]
    extent: tuple[int, ...]
    start: int
    stop: int
    kept: NDArray[np.int64] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return 0 if self.kept is None else int(self.kept.nbytes)

    def array(self) -> NDArray[np.int64]:
        """The numbers, int64."""
        if is_run(self.shape, self.extent):
            return self._first + self._offsets()
        return np.ravel_multi_index(self._points(self._offsets()), self.shape).astype(np.int64)

    def part(self, a: int, b: int) -> Numbers:
        """Those of the rows ``a:b`` among the rows that are there."""
        if self.kept is not None:
            kept = self.kept[a:b]
            first, last = (int(kept[0]), int(kept[-1])) if len(kept) else (0, -1)
            start, stop = self.start + first, self.start + last + 1
            return replace(self, start=start, stop=stop, kept=kept - first)
        return replace(self, start=self.start + a, stop=min(self.stop, self.start + b))

    def place(self) -> slice | NDArray[np.int64]:
        """The numbers as an index: a slice where they follow one another."""
        if self.kept is None and is_run(self.shape, self.extent):
            return slice(self._first + self.start, self._first + self.stop)
        return self.array()

    @property
    def span(self) -> int:
        """Rows of the run, those that are missing too."""
        return self.stop - self.start

    def where(self, keep: NDArray[np.bool_]) -> Numbers:
        """Those of some of the rows that are there."""
        offsets = np.flatnonzero(keep) if self.kept is None else self.kept[keep]
        return replace(self, kept=offsets)

    def say(self, row: int) -> str:
        """Name one of the rows, as messages do."""
        points = self._points(self._offsets()[row : row + 1])
        at = ", ".join(str(int(each[0])) for each in points)
        return f"row {at}" if len(self.shape) == 1 else f"sample [{at}]"

    @property
    def _first(self) -> int:
        """The number of the corner."""
        number = 0
        for corner, size in zip(self.corner, self.shape, strict=True):
            number = number * size + corner
        return number

    def _offsets(self) -> NDArray[np.int64]:
        if self.kept is None:
            return np.arange(self.start, self.stop)
        return self.start + self.kept

    def _points(self, offsets: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        inside = np.unravel_index(offsets, self.extent)
        return tuple(c + i for c, i in zip(self.corner, inside, strict=True))


def is_run(shape: tuple[int, ...], extent: tuple[int, ...]) -> bool:
    """Whether the samples of a region of this extent follow one another in C order.

    >>> is_run((4, 5, 6), (1, 2, 6)), is_run((4, 5, 6), (2, 2, 6))
    (True, False)
    """
    partial = [i for i, (n, size) in enumerate(zip(extent, shape, strict=True)) if n < size]
    return not partial or math.prod(extent[: partial[-1]]) == 1
