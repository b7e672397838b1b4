"""Rows with gaps, left out: a block gives the others, and says which they are.

All rows with a gap, or only those of which nothing was observed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamgmm.sources.base import Block, Piece, Source
from streamgmm.sources.blocks import WrappedBlock
from streamgmm.sources.no_array import SourceOver
from streamgmm.sources.transforming import TransformedSource


class OmittingBlock(WrappedBlock):
    """A block without its rows that have a NaN; if `empty`, without those that are all NaN.

    Examples
    --------
    >>> from streamgmm.sources import open_source
    >>> source = omitting(open_source([[1.0], [np.nan], [3.0]]))
    >>> [piece.numbers().tolist() for piece in source.blocks(1 << 20)[0].pieces()]
    [[0, 2]]
    """

    def __init__(self, block: Block, empty: bool = False) -> None:
        super().__init__(block)
        self.empty = empty

    def pieces(self) -> Iterator[Piece]:
        """Give the rows that are whole, or not empty; no piece where there are none."""
        for piece in self.block.pieces():
            rest = without_gaps(piece, self.empty)
            if len(rest.rows):
                yield rest

    def part(self, start: int, stop: int) -> OmittingBlock:
        """Give the block of some of its rows, without gaps too."""
        return OmittingBlock(super().part(start, stop), self.empty)

    def fill(self, values: Mapping[Any, Any]) -> OmittingBlock:
        """Replace the futures by their values."""
        return OmittingBlock(super().fill(values), self.empty)


def without_gaps(piece: Piece, empty: bool = False) -> Piece:
    """Give the rows of a piece that have no NaN, or no value; one sum where all have none."""
    with np.errstate(all="ignore"):
        if np.isfinite(piece.rows.sum()):
            return piece
    missing = np.isnan(piece.rows)
    gaps = missing.all(axis=1) if empty else missing.any(axis=1)
    return piece.where(~gaps) if gaps.any() else piece


@dataclass(frozen=True)
class OmittingSource(SourceOver):
    """A source without its rows that have a NaN, which keep their numbers.

    Attributes
    ----------
    source : Source
    empty : bool
        Whether only rows are left out of which nothing was observed.
    column_names : tuple of str or None
        What messages call the columns, where the source does not say.
    """

    source: Any
    empty: bool = False
    column_names: tuple[str, ...] | None = None

    omits = True

    def blocks(
        self, target_bytes: int, start: int = 0, stop: int | None = None
    ) -> Sequence[Block]:
        """Those of the source."""
        blocks = self.source.blocks(target_bytes, start, stop)
        return [OmittingBlock(block, self.empty) for block in blocks]

    def reordered(self, names: Sequence[str]) -> OmittingSource:
        """Give the same rows with their features as `names` has them."""
        return self.on(self.source.reordered(names))

    def on(self, source: Any) -> OmittingSource:
        """Leave the same rows out of another source."""
        return OmittingSource(source, self.empty, self.column_names)


def omitting(
    source: Source, empty: bool = False, column_names: tuple[str, ...] | None = None
) -> Source:
    """Give a source without its rows that have a NaN; if `empty`, that have nothing else."""
    if isinstance(source, OmittingSource):
        return source
    return OmittingSource(source, empty, column_names)


def underlying(source: Source) -> Any:
    """Give what is beneath: the source that says how it is stored."""
    while isinstance(source, (OmittingSource, TransformedSource)):
        source = source.source
    return source


def on_top(source: Source, beneath: Source) -> Source:
    """Give a source with other rows beneath, transformed and left out as its own are."""
    if isinstance(source, (OmittingSource, TransformedSource)):
        return source.on(on_top(source.source, beneath))
    return beneath
