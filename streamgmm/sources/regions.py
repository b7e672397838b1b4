"""Rows in cubes: blocks of whole regions, whatever the chunks, the axes and the variables are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.sources.base import Block, Piece, split_piece
from streamgmm.sources.blocks import BlockBase
from streamgmm.sources.grid import Grid, Region, regular_edges
from streamgmm.sources.interleaving import interleaved
from streamgmm.sources.no_array import NotAnArray
from streamgmm.sources.readahead import read_ahead
from streamgmm.sources.variables import FEATURE, Held, Variable, VariablePart
from streamgmm.sources.weights import check_weights

REMOTE_DEPTH = 3
"""Depth of read-ahead for remote stores, whose latency is larger than a disk's."""


@dataclass(frozen=True)
class RegionBlock(BlockBase):
    """Some regions of a cube that follow one another, read one by one.

    Attributes
    ----------
    start, n_rows : int
        Rows at the ends of the first and of the last region may be left out.
    regions : tuple of Region
    parts : tuple of VariablePart
        One for each variable, in the order of the features.
    first : int
        Number of the first region among those that the parts were made for.
    """

    grid: Grid
    start: int
    n_rows: int
    regions: tuple[Region, ...]
    parts: tuple[VariablePart, ...]
    weight: VariablePart | None
    mask: VariablePart | None
    dtype: np.dtype[Any]
    resident: bool
    held: bool
    first: int = 0

    @property
    def in_memory(self) -> bool:
        """Whether its rows are in memory, so that a cache would hold them twice."""
        return self.held

    @property
    def n_features(self) -> int:
        """Columns."""
        return sum(part.variable.n_columns for part in self.parts)

    @property
    def all_parts(self) -> tuple[VariablePart, ...]:
        """Those of the features, of the weights and of the mask."""
        return (*self.parts, *(part for part in (self.weight, self.mask) if part is not None))

    @property
    def carried_bytes(self) -> int:  # type: ignore[override]
        """Bytes of the rows that it carries."""
        return self.n_rows * self.n_features * self.dtype.itemsize if self.resident else 0

    @property
    def futures(self) -> Mapping[Any, Any]:
        """Results on a cluster that it waits for."""
        return {key: value for part in self.all_parts for key, value in part.futures.items()}

    def fill(self, values: Mapping[Any, Any]) -> RegionBlock:
        """Replace the futures by their values."""
        return replace(
            self,
            parts=tuple(part.fill(values) for part in self.parts),
            weight=None if self.weight is None else self.weight.fill(values),
            mask=None if self.mask is None else self.mask.fill(values),
        )

    @property
    def edges(self) -> tuple[int, ...]:
        """Edges of the stored chunks of its rows; of a cube, of its regions."""
        stop = self.start + self.n_rows
        if not any(getattr(part.part, "any_box", False) for part in self.all_parts):
            return ()  # nothing of it is stored
        found = {region.start for region in self.regions}
        if self._any_rows:
            for part in self.all_parts:
                found.update(part.variable.chunking(1)[0] or ())
        return (self.start, *sorted(a for a in found if self.start < a < stop), stop)

    @property
    def _any_rows(self) -> bool:
        """Whether any run of its rows can be read, and not whole regions only."""
        each = (getattr(part.part, "any_box", False) for part in self.all_parts)
        return len(self.grid.edges) == 1 and all(each)

    def part(self, start: int, stop: int) -> RegionBlock:
        """Give the block of some of its rows."""
        regions = [
            (i, region, max(start, region.start), min(stop, region.start + region.n_rows))
            for i, region in enumerate(self.regions)
        ]
        inside = [each for each in regions if each[2] < each[3]]
        cut = tuple(
            Region(a, (a,), (b - a,)) if self._any_rows else region for _, region, a, b in inside
        )
        first = self.first + inside[0][0]
        return replace(self, start=start, n_rows=stop - start, regions=cut, first=first)

    def check_seen(self) -> None:
        """Check that this process sees every variable."""
        for part in self.all_parts:
            part.part.check_seen()

    def pieces(self) -> Iterator[Piece]:
        """Read region by region, the next one ahead, and give the rows that are the block's."""
        items = list(range(len(self.regions)))
        refs = [getattr(part.part, "ref", None) for part in self.parts]
        local = any(ref is not None and ref.chunks is not None for ref in refs)
        far = any(ref is not None and not ref.local for ref in refs)
        depth = REMOTE_DEPTH if far else 1
        with ExitStack() as stack:  # of files that are open while a block is read
            for part in self.all_parts:
                if hasattr(part.part, "hold"):
                    stack.enter_context(part.part.hold())
            for piece in read_ahead(self._read, items, depth, self._warm if local else None):
                if len(piece.rows):
                    yield from split_piece(piece)

    def _read(self, i: int) -> Piece:
        region = self.regions[i]
        a = max(0, self.start - region.start)
        b = min(region.n_rows, self.start + self.n_rows - region.start)
        rows = self._rows(i, region)[a:b]
        weight = None
        if self.weight is not None:
            given = self._values(self.weight, i, region)[a:b]
            weight = check_weights(given, region.start + a, self.weight.variable.name)
        piece = Piece(region.start + a, rows, weight, self.grid.numbers(region, a, b))
        if self.mask is None:
            return piece
        gone = self.masked(i)
        return piece.where(~gone) if gone.any() else piece

    def masked(self, i: int) -> NDArray[np.bool_]:
        """Which rows of the i-th region, of those that are the block's, the mask leaves out."""
        assert self.mask is not None
        region = self.regions[i]
        a = max(0, self.start - region.start)
        b = min(region.n_rows, self.start + self.n_rows - region.start)
        missing = self._values(self.mask, i, region)[a:b]
        gone = missing != 0  # NaN, too
        return np.asarray(gone, bool)

    def _rows(self, i: int, region: Region) -> NDArray[Any]:
        """Read the features of a region, (rows, features)."""
        shape = (*region.extent, self.n_features)
        if len(self.parts) == 1:
            values = self.parts[0].read(self.first + i, region)
            if values.shape == shape and values.flags.c_contiguous:
                return values.astype(self.dtype, copy=False).reshape(-1, shape[-1])
            return interleaved([values], region.extent, self.n_features, self.dtype)
        read = [part.read(self.first + i, region) for part in self.parts]
        return interleaved(read, region.extent, self.n_features, self.dtype)

    def _warm(self, i: int) -> None:
        for part in self.parts:
            ref = getattr(part.part, "ref", None)
            if ref is not None:
                ref.warm(part.variable.box(self.regions[i]))

    def _values(self, part: VariablePart, i: int, region: Region) -> NDArray[Any]:
        values = part.read(self.first + i, region)
        return np.ascontiguousarray(np.broadcast_to(values, (*region.extent, 1))).reshape(-1)


@dataclass(frozen=True)
class RegionSource(NotAnArray):
    """Samples of any number of dimensions, of one variable or several.

    Parameters
    ----------
    name : str
    grid : Grid
        Of the samples.
    variables : tuple of Variable
        In the order of the features.
    weight, mask : Variable or None
        Rows are left out where the mask is not zero.
    feature_names : tuple of str or None
    dims : tuple of str or None
        Names of the samples' dimensions.
    labelled : callable or None
        Makes what is said of all samples into what the data were given as: a function of the
        array and of what it is.
    """

    name: str
    grid: Grid
    variables: tuple[Variable, ...]
    weight: Variable | None = None
    mask: Variable | None = None
    feature_names: tuple[str, ...] | None = None
    dims: tuple[str, ...] | None = None
    labelled: Callable[[Any, str], Any] | None = field(default=None, compare=False)

    @property
    def weights(self) -> Variable | None:
        """The weights, where there are any."""
        return self.weight

    @property
    def omits(self) -> bool:
        """Whether rows may be left out."""
        return self.mask is not None

    @property
    def in_memory(self) -> bool:
        """Whether all that is read is in memory, but for what accompanies the rows."""
        own = [v.stored for v in self.variables if not v.accompanies]
        return all(isinstance(each, Held) or getattr(each, "held", False) for each in own)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Lengths of the samples' dimensions."""
        return self.grid.shape

    @property
    def n_samples(self) -> int:
        """Samples."""
        return math.prod(self.grid.shape)

    @property
    def n_features(self) -> int:
        """Features."""
        return sum(variable.n_columns for variable in self.variables)

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 where every variable is, else float64."""
        return np.result_type(*(variable.dtype for variable in self.variables))

    @property
    def nbytes(self) -> int:
        """Bytes of all rows, as the pieces are given."""
        return self.n_samples * self.n_features * self.dtype.itemsize

    @property
    def all_variables(self) -> tuple[Variable, ...]:
        """Those of the features, the weights and the mask."""
        return (*self.variables, *(v for v in (self.weight, self.mask) if v is not None))

    def with_labels(self, labelled: Callable[[Any, str], Any]) -> RegionSource:
        """Give the same samples with something that makes results what the data were."""
        return replace(self, labelled=labelled)

    def reordered(self, names: Sequence[str]) -> RegionSource:
        """Give the same samples with their features as `names` has them; all must be there."""
        assert self.feature_names is not None
        places = [
            (variable, pick)
            for variable in self.variables
            for pick in (variable.columns if FEATURE in variable.axes else (None,))
        ]
        at = dict(zip(self.feature_names, places, strict=True))
        found: list[Variable] = []
        for name in names:
            variable, pick = at[name]
            last = found[-1] if found else None
            if pick is None:
                found.append(variable)
            elif last is not None and last.stored is variable.stored and last.picks is not None:
                found[-1] = replace(last, picks=(*last.picks, pick))
            else:
                found.append(replace(variable, picks=(pick,)))
        return replace(self, variables=tuple(found), feature_names=tuple(names))

    def regular(self) -> RegionSource:
        """Give the same samples in regions of one size, which chunks of Zarr must have."""
        if self.grid.regular:
            return self
        pairs = zip(self.grid.shape, self.grid.largest, strict=True)
        return replace(self, grid=Grid(tuple(regular_edges(n, step) for n, step in pairs)))

    def blocks(
        self, target_bytes: int, start: int = 0, stop: int | None = None
    ) -> Sequence[Block]:
        """Put whole regions together, evenly."""
        stop = self.n_samples if stop is None else stop
        row_bytes = self.n_features * self.dtype.itemsize
        runs = self.grid.runs(start, stop, row_bytes, target_bytes)
        nothing = [None] * len(runs)
        carried = zip(*(each.parts(runs, self.grid) for each in self.variables), strict=True)
        weights = nothing if self.weight is None else self.weight.parts(runs, self.grid)
        masks = nothing if self.mask is None else self.mask.parts(runs, self.grid)
        resident = any(variable.stored.resident for variable in self.all_variables)
        held = all(variable.stored.in_memory for variable in self.variables)
        blocks = []
        for run, parts, weight, mask in zip(runs, carried, weights, masks, strict=True):
            first = max(start, run[0].start)
            last = min(stop, run[-1].start + run[-1].n_rows)
            blocks.append(
                RegionBlock(
                    self.grid, first, last - first, tuple(run), parts, weight, mask, self.dtype,
                    resident, held,
                )
            )  # fmt: skip
        return blocks
