"""Dask arrays of any number of dimensions, computed box by box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.sources.dask import Lazy, lazy_parts


@dataclass(frozen=True)
class LazyBoxes:
    """Boxes of a dask array, each the part of the graph that makes it."""

    boxes: tuple[Lazy, ...]

    @property
    def futures(self) -> Mapping[Any, Any]:
        """Results on a cluster that the graphs refer to."""
        return {key: value for lazy in self.boxes for key, value in lazy.futures.items()}

    def fill(self, values: Mapping[Any, Any]) -> LazyBoxes:
        """Replace the futures by their values."""
        return LazyBoxes(tuple(lazy.fill(values) for lazy in self.boxes))

    def read(self, i: int, box: tuple[slice, ...]) -> NDArray[Any]:
        """Compute one, in this thread."""
        return self.boxes[i].compute()[0]

    def check_seen(self) -> None:
        """Its graph came along."""


@dataclass(frozen=True)
class InDask:
    """A dask array of any number of dimensions, of which boxes are computed.

    Parameters
    ----------
    array : dask.array.Array
        Of known chunk sizes.
    """

    array: Any

    resident = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array."""
        dtype: np.dtype[Any] = np.dtype(self.array.dtype)
        return dtype

    @property
    def in_memory(self) -> bool:
        """Whether its chunks are results that are in the memory of a cluster."""
        graph = dict(self.array.__dask_graph__())
        return any(hasattr(value, "add_done_callback") for value in graph.values())

    def edges(self, axis: int) -> tuple[int, ...]:
        """Those of its chunks, without empty ones."""
        return tuple(sorted({0, *np.cumsum(self.array.chunks[axis]).tolist()}))

    def parts(
        self, runs: Sequence[Sequence[tuple[slice, ...]]], cuts: Sequence[tuple[int, ...]]
    ) -> list[LazyBoxes]:
        """Put chunks together to what lies between cuts, and cut the graph into boxes."""
        boxes = [box for run in runs for box in run]
        if not boxes:
            return []
        # Axes of features are read from the first to the last that is wanted.
        whole = [len(cut) == 2 for cut in cuts]
        array = self.array[
            tuple(each if w else slice(None) for each, w in zip(boxes[0], whole, strict=True))
        ]
        sizes = [
            (n,) if w else tuple(np.diff(cut).tolist())
            for n, w, cut in zip(array.shape, whole, cuts, strict=True)
        ]
        array = array.rechunk(tuple(sizes))
        places = [{a: i for i, a in enumerate(cut)} for cut in cuts]
        groups = []
        for box in boxes:
            each = zip(box, whole, places, strict=True)
            groups.append([(array.name, *(0 if w else at[b.start] for b, w, at in each))])
        parts = iter(lazy_parts(array, groups))
        return [LazyBoxes(tuple(next(parts) for _ in run)) for run in runs]
