"""Arrays of any number of dimensions, of which a region of samples is read at a time.

A variable is an array, in memory, in Zarr or of Dask, and what its axes are. Values of one that
lacks some of the samples' dimensions are the same along those.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError
from streamgmm.sources.base import float_dtype
from streamgmm.sources.decoding import PLAIN
from streamgmm.sources.grid import Edges, Grid, Region, regular_edges
from streamgmm.sources.zarr_ref import ZarrRef

FEATURE = -1
"""The axis of a variable along which its features lie."""

Box = tuple[slice, ...]


class Stored(Protocol):
    """An array that is read a box at a time; `part` is what a block carries of it.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    resident : bool
        Whether a part contains values.
    in_memory : bool
        Whether its values are in memory, so that a cache would hold them twice.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    resident: bool
    in_memory: bool

    def edges(self, axis: int) -> Edges | None:
        """Give the edges of its chunks; None where any box is as good as another."""

    def parts(self, runs: Sequence[Sequence[Box]], cuts: Sequence[Edges]) -> Sequence[Any]:
        """Give, for each run of boxes, what reads the i-th of them.

        That is ``read(i, box)``, ``futures``, ``fill`` and ``check_seen``. Boxes lie between
        neighbouring `cuts` along each axis. Where ``any_box`` is true, smaller boxes are read too.
        """


@dataclass(frozen=True)
class HeldPart:
    """Views of the boxes of one block, in memory."""

    views: tuple[NDArray[Any], ...]
    futures: Mapping[Any, Any] = field(default_factory=dict, repr=False)

    def fill(self, values: Mapping[Any, Any]) -> HeldPart:
        """Give this part itself, which has no futures."""
        return self

    def read(self, i: int, box: Box) -> NDArray[Any]:
        """Give a view."""
        return self.views[i]

    def check_seen(self) -> None:
        """Its values came along."""


@dataclass(frozen=True)
class Held:
    """An array in memory, or mapped there; `ref` is what it was read from, if it was."""

    array: NDArray[Any]
    ref: ZarrRef | None = None

    resident = True
    in_memory = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array."""
        return self.array.dtype

    def edges(self, axis: int) -> Edges | None:
        """Any cut will do."""
        return None

    def parts(self, runs: Sequence[Sequence[Box]], cuts: Sequence[Edges]) -> list[HeldPart]:
        """Give views."""
        return [HeldPart(tuple(self.array[box] for box in boxes)) for boxes in runs]


@dataclass(frozen=True)
class ZarrPart:
    """An array in Zarr, which any process reads."""

    any_box: ClassVar[bool] = True

    ref: ZarrRef
    futures: Mapping[Any, Any] = field(default_factory=dict, repr=False)

    def fill(self, values: Mapping[Any, Any]) -> ZarrPart:
        """Give this part itself, which has no futures."""
        return self

    def read(self, i: int, box: Box) -> NDArray[Any]:
        """Read the chunks of a box."""
        return self.ref.read_box(box)

    def check_seen(self) -> None:
        """Check that this process sees the array."""
        self.ref.check_seen()


@dataclass(frozen=True)
class ResidentPart(ZarrPart):
    """Boxes of an array in Zarr that no other process can read; its pickle contains them."""

    boxes: tuple[Box, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the values."""
        return HeldPart, (tuple(self.ref.read_box(box) for box in self.boxes),)


@dataclass(frozen=True)
class InZarr:
    """An array in Zarr."""

    ref: ZarrRef

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return tuple(self.ref.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """As stored."""
        return np.dtype(self.ref.array.dtype)

    @property
    def resident(self) -> bool:
        """Whether no other process can read it."""
        return self.ref.resident

    @property
    def in_memory(self) -> bool:
        """Whether its store is in this process's memory."""
        return self.ref.resident

    def edges(self, axis: int) -> Edges:
        """Those of its chunks; of its shards, where they are not much larger than a piece."""
        array = self.ref.array
        shards = array.shards
        small = shards is not None and math.prod(shards) * array.dtype.itemsize <= _SHARD_BYTES
        unit = shards if shards is not None and small else array.chunks
        return regular_edges(array.shape[axis], unit[axis])

    def parts(self, runs: Sequence[Sequence[Box]], cuts: Sequence[Edges]) -> list[ZarrPart]:
        """Give the array itself, with the boxes where no other process can read it."""
        if self.resident:
            return [ResidentPart(self.ref, {}, tuple(boxes)) for boxes in runs]
        return [ZarrPart(self.ref) for _ in runs]


_SHARD_BYTES = 32 << 20


@dataclass(frozen=True)
class Variable:
    """An array, and which dimension of the samples each of its axes is.

    Attributes
    ----------
    name : str
        What messages call it.
    stored : Stored
    axes : tuple of int
        For each axis of the array the dimension of the samples, or ``FEATURE``.
    decoding : Decoding
        What makes numbers of what is stored.
    picks : tuple of int or None
        Which of the features are wanted; None for all.
    accompanies : bool
        Whether it was given beside the rows, and does not decide where results are kept.
    """

    name: str
    stored: Any
    axes: tuple[int, ...]
    decoding: Any = PLAIN
    picks: tuple[int, ...] | None = None
    accompanies: bool = False

    @property
    def n_columns(self) -> int:
        """Features that it gives."""
        if FEATURE not in self.axes:
            return 1
        size = self.stored.shape[self.axes.index(FEATURE)]
        return int(size) if self.picks is None else len(self.picks)

    @property
    def columns(self) -> tuple[int, ...]:
        """Which of the features along its axis of features it gives."""
        size = self.stored.shape[self.axes.index(FEATURE)]
        return tuple(range(size)) if self.picks is None else self.picks

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64, as its values are given."""
        return float_dtype(self.decoding.dtype(self.stored.dtype), self.name)

    def chunking(self, n_dims: int) -> list[Edges | None]:
        """Give the edges of its chunks along each dimension of the samples."""
        found: list[Edges | None] = [None] * n_dims
        for axis, dim in enumerate(self.axes):
            if dim != FEATURE:
                found[dim] = self.stored.edges(axis)
        return found

    def parts(self, runs: Sequence[Sequence[Region]], grid: Grid) -> list[VariablePart]:
        """Give what the blocks of some runs of regions carry of it."""
        boxes = [[self.box(region) for region in run] for run in runs]
        n = self.stored.shape
        cuts = [(0, n[a]) if d == FEATURE else grid.edges[d] for a, d in enumerate(self.axes)]
        return [VariablePart(self, part) for part in self.stored.parts(boxes, cuts)]

    def box(self, region: Region) -> Box:
        """Give the box of its array that a region of samples needs."""
        box = region.box
        return tuple(self._columns if dim == FEATURE else box[dim] for dim in self.axes)

    @property
    def _columns(self) -> slice:
        """The features that are read: from the first that is wanted to the last."""
        if self.picks is None:
            return slice(None)
        return slice(min(self.picks), max(self.picks) + 1)

    def arrange(self, values: NDArray[Any], n_dims: int) -> NDArray[Any]:
        """Give what was read with an axis for each dimension of the samples, and the features."""
        order = sorted(
            range(len(self.axes)), key=lambda a: (self.axes[a] == FEATURE, self.axes[a])
        )
        moved = values.transpose(order)
        dims = [self.axes[a] for a in order]
        index = tuple(slice(None) if d in dims else None for d in (*range(n_dims), FEATURE))
        moved = moved[index]
        if self.picks is None:
            return moved
        first = min(self.picks)
        return moved[..., [pick - first for pick in self.picks]]


@dataclass(frozen=True)
class VariablePart:
    """What one block carries of a variable."""

    variable: Variable
    part: Any

    @property
    def futures(self) -> Mapping[Any, Any]:
        """Results on a cluster that it waits for."""
        return dict(self.part.futures)

    def fill(self, values: Mapping[Any, Any]) -> VariablePart:
        """Replace the futures by their values."""
        return replace(self, part=self.part.fill(values))

    def read(self, i: int, region: Region) -> NDArray[Any]:
        """Read the i-th region, decoded; axes as `Variable.arrange` gives them.

        Raises
        ------
        ChunkError, SourceError
            As `ZarrRef.read`.
        DataError
            If there is more or less than the array says.
        """
        variable = self.variable
        box = variable.box(region)
        values = self.part.read(i, box)
        lengths = zip(box, variable.stored.shape, strict=True)
        expected = tuple(len(range(*part.indices(n))) for part, n in lengths)
        if values.shape != expected:
            raise DataError(
                f"{variable.name}, {box}: what was read has shape {values.shape}, but the array "
                f"says {expected}"
            )
        arranged = variable.arrange(values, len(region.extent))
        return np.asarray(variable.decoding.decode(arranged))

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave out an array that others cannot read: what is needed of it is in the part."""
        variable = self.variable
        if variable.stored.resident:
            variable = replace(
                variable, stored=Elsewhere(variable.stored.shape, variable.stored.dtype)
            )
        return VariablePart, (variable, self.part)


@dataclass(frozen=True)
class Elsewhere:
    """The shape and dtype of an array that stayed where it was."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    resident = True
    in_memory = True


def check_broadcast(variable: Variable, shape: tuple[int, ...], other: str) -> None:
    """Check that a variable has the samples' lengths; raises DataError, which names both."""
    for axis, dim in enumerate(variable.axes):
        if dim != FEATURE and variable.stored.shape[axis] != shape[dim]:
            raise DataError(
                f"{variable.name} has shape {variable.stored.shape}, which does not fit the "
                f"samples of {other}, of shape {shape}"
            )
