"""Rows with gaps, left out: a block gives the others, and says which they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamgmm.sources.base import Block, Piece, Source
from streamgmm.sources.blocks import WrappedBlock
from streamgmm.sources.no_array import NotAnArray
from streamgmm.sources.transforming import TransformedSource


class OmittingBlock(WrappedBlock):
    """A block without its rows that have a NaN.

    Examples
    --------
    >>> from streamgmm.sources import open_source
    >>> source = omitting(open_source([[1.0], [np.nan], [3.0]]))
    >>> [piece.numbers().tolist() for piece in source.blocks(1 << 20)[0].pieces()]
    [[0, 2]]
    """

    def pieces(self) -> Iterator[Piece]:
        """Give the rows that are whole; no piece where there are none."""
        for piece in self.block.pieces():
            rest = without_gaps(piece)
            if len(rest.rows):
                yield rest

    def part(self, start: int, stop: int) -> OmittingBlock:
        """Give the block of some of its rows, without gaps too."""
        return OmittingBlock(super().part(start, stop))

    def fill(self, values: Mapping[Any, Any]) -> OmittingBlock:
        """Replace the futures by their values."""
        return OmittingBlock(super().fill(values))


def without_gaps(piece: Piece) -> Piece:
    """Give the rows of a piece that have no NaN; costs one sum where all have none."""
    with np.errstate(all="ignore"):
        if np.isfinite(piece.rows.sum()):
            return piece
    gaps = np.isnan(piece.rows).any(axis=1)
    return piece.where(~gaps) if gaps.any() else piece


@dataclass(frozen=True)
class OmittingSource(NotAnArray):
    """A source without its rows that have a NaN, which keep their numbers.

    Attributes
    ----------
    source : Source
    """

    source: Any

    omits = True

    def blocks(
        self, target_bytes: int, start: int = 0, stop: int | None = None
    ) -> Sequence[Block]:
        """Those of the source."""
        return [OmittingBlock(block) for block in self.source.blocks(target_bytes, start, stop)]

    @property
    def name(self) -> str:
        """As the source's."""
        return str(self.source.name)

    @property
    def n_samples(self) -> int:
        """Rows, with those that are left out."""
        return int(self.source.n_samples)

    @property
    def n_features(self) -> int:
        """Columns."""
        return int(self.source.n_features)

    @property
    def dtype(self) -> np.dtype[Any]:
        """As the source's."""
        dtype: np.dtype[Any] = self.source.dtype
        return dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all rows, as the source has them."""
        return int(self.source.nbytes)

    def reordered(self, names: Sequence[str]) -> OmittingSource:
        """Give the same rows with their features as `names` has them."""
        return OmittingSource(self.source.reordered(names))

    def on(self, source: Source) -> OmittingSource:
        """Give other rows without those that have a NaN."""
        return OmittingSource(source)

    def __getattr__(self, name: str) -> Any:
        """Whatever else the source has: its weights, the samples' shape, names of features."""
        if name == "source":  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.source, name)


def omitting(source: Source) -> Source:
    """Give a source without its rows that have a NaN."""
    return source if isinstance(source, OmittingSource) else OmittingSource(source)


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
