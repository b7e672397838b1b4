"""A cache of decoded rows: blocks that keep their rows once they were read."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from numpy.typing import NDArray

from streamgmm.sources.base import Block, Piece, Source
from streamgmm.sources.blocks import WrappedBlock, capable

_WEIGHT_BYTES = 8


class KeptBlock(WrappedBlock):
    """A block with a cache: rows are read once, and later reads are given the same pieces.

    The pieces are cached as they were read, so sums over them have the same bits. Nothing is
    cached of a block that was not read to its end, for instance since a chunk is damaged.

    Parameters
    ----------
    block : Block
    pieces : sequence of Piece, optional
        Its rows, if they were read already.

    Examples
    --------
    >>> import numpy as np
    >>> from streamgmm.sources import open_source
    >>> block = KeptBlock(open_source(np.ones((5, 2))).blocks(1 << 20)[0])
    >>> is_kept(block), sum(len(piece.rows) for piece in block.pieces()), is_kept(block)
    (False, 5, True)
    """

    def __init__(self, block: Block, pieces: Sequence[Piece] | None = None) -> None:
        super().__init__(block)
        self._pieces = pieces

    @property
    def resident(self) -> bool:
        """Whether its pickle contains rows."""
        return is_kept(self) or self.block.resident

    def pieces(self) -> Iterator[Piece]:
        """Give the cached pieces, or read them and cache them on the way."""
        return self._keep(self.block.pieces()) if self._pieces is None else iter(self._pieces)

    def _keep(self, given: Iterator[Piece]) -> Iterator[Piece]:
        pieces = []
        for piece in given:
            weight = None if piece.sample_weight is None else _own(piece.sample_weight)
            kept = Piece(piece.start, _own(piece.rows), weight, piece.samples)
            pieces.append(kept)
            del piece, weight
            yield kept
        self._pieces = pieces

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the cached rows too."""
        return KeptBlock, (self.block, self._pieces)

    def __sizeof__(self) -> int:
        """Count the cached rows, so that Dask knows the memory that a worker uses."""
        size = object.__sizeof__(self)
        for piece in self._pieces or ():
            weight = piece.sample_weight
            size += sys.getsizeof(piece.rows) + (0 if weight is None else sys.getsizeof(weight))
            size += 0 if piece.samples is None else piece.samples.nbytes
        return size


def _own(values: NDArray[Any]) -> NDArray[Any]:
    """Copy a view, which would keep a larger array (a computed chunk) in memory."""
    return values if values.base is None else values.copy()


def is_kept(block: Block) -> bool:
    """Whether the rows of a block are cached."""
    return isinstance(block, KeptBlock) and block._pieces is not None


def read_and_keep(block: Block) -> KeptBlock:
    """Read a block and cache its rows.

    Errors are not raised. Nothing is cached then, and the task that uses the block reads it
    again and gets the error.
    """
    held = KeptBlock(block)
    with suppress(Exception):
        for _ in held.pieces():
            pass
    return held


def kept_bytes(source: Source, blocks: Sequence[Block]) -> int:
    """Bytes of a cache of all rows of a source; 0 where a cache is of no use.

    That is so for rows that are in memory already, here or on the workers of a cluster.

    Parameters
    ----------
    source : Source
    blocks : sequence of Block
        Those of `source`.

    Examples
    --------
    >>> import numpy as np
    >>> from streamgmm.sources import open_source
    >>> source = open_source(np.ones((5, 2)))
    >>> kept_bytes(source, source.blocks(1 << 20))
    0
    """
    first = blocks[0]
    if capable(first).in_memory:
        return 0
    weighted = getattr(source, "weights", None) is not None
    return int(source.nbytes) + source.n_samples * _WEIGHT_BYTES * weighted
