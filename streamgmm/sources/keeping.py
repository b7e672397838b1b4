"""Blocks that keep their rows, decoded, once they have been read."""

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
    """A block that reads its rows once: whoever comes later is given the same pieces.

    What is kept is the pieces as they were given, so that sums over them have the same bits.
    A block that was not read to its end, as one with a chunk that cannot be read, keeps nothing.

    Parameters
    ----------
    block : Block
    pieces : sequence of Piece, optional
        Its rows, where they are here already.

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
        """Whether pickling it carries rows."""
        return is_kept(self) or self.block.resident

    def pieces(self) -> Iterator[Piece]:
        """Give the pieces that are kept, or read them and keep them as they go by."""
        return self._keep(self.block.pieces()) if self._pieces is None else iter(self._pieces)

    def _keep(self, given: Iterator[Piece]) -> Iterator[Piece]:
        pieces = []
        for piece in given:
            weight = piece.sample_weight
            kept = Piece(piece.start, _own(piece.rows), None if weight is None else _own(weight))
            pieces.append(kept)
            del piece, weight
            yield kept
        self._pieces = pieces

    def __reduce__(self) -> tuple[Any, ...]:
        """Carry the rows that are kept."""
        return KeptBlock, (self.block, self._pieces)

    def __sizeof__(self) -> int:
        """Count the rows, so that Dask knows what a worker holds."""
        size = object.__sizeof__(self)
        for _, rows, weight in self._pieces or ():
            size += sys.getsizeof(rows) + (0 if weight is None else sys.getsizeof(weight))
        return size


def _own(values: NDArray[Any]) -> NDArray[Any]:
    """Give an array that keeps no larger one alive: a view of a computed chunk might."""
    return values if values.base is None else values.copy()


def is_kept(block: Block) -> bool:
    """Whether the rows of a block were read before, and are kept with it."""
    return isinstance(block, KeptBlock) and block._pieces is not None


def hold(block: Block) -> KeptBlock:
    """Read a block and keep its rows.

    An error is not raised: then nothing is kept, and whoever wants the rows meets it himself.
    """
    held = KeptBlock(block)
    with suppress(Exception):
        for _ in held.pieces():
            pass
    return held


def kept_bytes(source: Source, blocks: Sequence[Block]) -> int:
    """Bytes that all blocks of a source are when they are kept; 0 where that would be in vain.

    It would be for rows that are in memory already, here or on the workers of a cluster.

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
