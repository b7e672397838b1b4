"""Find rows that cannot be read, and leave them out of their block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from streamgmm.errors import ChunkError
from streamgmm.places.retry import is_network
from streamgmm.sources.base import Block, Piece
from streamgmm.sources.blocks import BlockBase, capable, shaped

Rows = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Rest(BlockBase):
    """A block without some of its rows.

    Attributes
    ----------
    block : Block
        With ``part``, ``edges``, ``n_features`` and ``dtype``, as those of Zarr arrays have.
    kept : tuple of (start, stop)
    """

    block: Any
    kept: Rows

    @property
    def start(self) -> int:
        """First row of the whole block."""
        return int(self.block.start)

    @property
    def n_rows(self) -> int:
        """Rows that are left."""
        return sum(stop - start for start, stop in self.kept)

    @property
    def resident(self) -> bool:
        """As the whole block."""
        return bool(self.block.resident)

    @property
    def n_features(self) -> int:
        """Columns."""
        return int(shaped(self.block).n_features)

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""
        dtype: np.dtype[Any] = shaped(self.block).dtype
        return dtype

    def pieces(self) -> Iterator[Piece]:
        """Read what is left, in order."""
        for start, stop in self.kept:
            yield from self.block.part(start, stop).pieces()


def unreadable(block: Block) -> Rows:
    """Find the chunks of a block that cannot be read, as runs of rows (start, stop).

    Chunk by chunk; nothing is found in blocks that are not stored in chunks.

    Raises
    ------
    ChunkError
        If the connection to the storage failed.
    """
    whole = capable(block)
    found: list[tuple[int, int]] = []
    for a, b in pairwise(whole.edges):
        try:
            for _ in whole.part(a, b).pieces():
                pass
        except ChunkError as error:
            if is_network(error.__cause__):
                raise
            joins = bool(found) and found[-1][1] == a
            found[-1:] = [(found[-1][0], b)] if joins else [*found[-1:], (a, b)]
    return tuple(found)


def without_rows(block: Block, rows: Sequence[tuple[int, int]]) -> Block:
    """Give a block without those of its rows that are among `rows`, runs in order.

    >>> from streamgmm.sources import open_source
    >>> (block,) = open_source(np.zeros((9, 2))).blocks(1 << 20)
    >>> without_rows(block, []) is block
    True
    """
    stop = block.start + block.n_rows
    inside = [(max(a, block.start), min(b, stop)) for a, b in rows]
    inside = [(a, b) for a, b in inside if a < b]
    if not inside:
        return block
    edges = [block.start, *(edge for run in inside for edge in run), stop]
    kept = tuple((a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b)
    return Rest(block, kept)
