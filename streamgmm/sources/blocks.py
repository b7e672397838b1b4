"""What a block may be able to do beside giving its rows, and what holds where it does not.

Whoever writes a kind of block may derive it from `BlockBase` and override what it can do. A
block that has only what the `Block` protocol asks for is used with these defaults: `capable`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from streamgmm.sources.base import Block, Piece


class BlockBase:
    """Defaults of everything that is optional in a block."""

    unit = 0
    """Rows in a stored chunk, so that each can be read as a `part`; 0 where there are no parts."""

    @property
    def edges(self: Any) -> tuple[int, ...]:
        """Rows at which it may be cut, from its first to its end; none where it cannot."""
        stop = self.start + self.n_rows
        return (*range(self.start, stop, self.unit), stop) if self.unit else ()

    ahead = 2
    """Pieces that are read, or being decoded, beside the one in use."""

    carried_bytes = 0
    """Bytes of rows that pickling the block carries."""

    @property
    def in_memory(self: Block) -> bool:
        """Whether its rows are in memory, so that keeping them would hold them twice."""
        return self.resident

    @property
    def futures(self) -> Mapping[Any, Any]:
        """Results on a cluster that the block waits for, by key."""
        return {}

    def fill(self, values: Mapping[Any, Any]) -> Any:
        """Give the block with values in the place of its futures."""
        return self

    def part(self, start: int, stop: int) -> Any:
        """Give the block of some of its rows, between two of its edges."""
        raise NotImplementedError(f"a {type(self).__name__} has no parts")

    def fetch(self, start: int, stop: int) -> int:
        """Get the stored bytes of some rows without decoding; 0 where there is no such thing."""
        return 0

    def check_seen(self) -> None:
        """Check that this process sees the data; raises where it does not."""


class WrappedBlock(BlockBase):
    """Another block, and all that it can do; derive from it to change some of that.

    Parameters
    ----------
    block : Block
    """

    def __init__(self, block: Block) -> None:
        self.block = block

    @property
    def start(self) -> int:
        """As that of the block."""
        return self.block.start

    @property
    def n_rows(self) -> int:
        """As that of the block."""
        return self.block.n_rows

    @property
    def resident(self) -> bool:
        """As that of the block."""
        return self.block.resident

    @property
    def unit(self) -> int:  # type: ignore[override]
        """As that of the block."""
        return int(capable(self.block).unit)

    @property
    def edges(self) -> tuple[int, ...]:
        """As those of the block."""
        return tuple(capable(self.block).edges)

    @property
    def ahead(self) -> int:  # type: ignore[override]
        """As that of the block."""
        return int(capable(self.block).ahead)

    @property
    def carried_bytes(self) -> int:  # type: ignore[override]
        """As that of the block."""
        return int(capable(self.block).carried_bytes)

    @property
    def in_memory(self) -> bool:
        """As that of the block."""
        return bool(capable(self.block).in_memory)

    @property
    def futures(self) -> Mapping[Any, Any]:
        """As those of the block."""
        return dict(capable(self.block).futures)

    def fill(self, values: Mapping[Any, Any]) -> Any:
        """Give the block itself, filled."""
        return capable(self.block).fill(values)

    def part(self, start: int, stop: int) -> Any:
        """Give a part of the block itself."""
        return capable(self.block).part(start, stop)

    def fetch(self, start: int, stop: int) -> int:
        """Fetch as the block does."""
        return int(capable(self.block).fetch(start, stop))

    def check_seen(self) -> None:
        """Check as the block does."""
        capable(self.block).check_seen()

    def pieces(self) -> Iterator[Piece]:
        """Give the pieces of the block."""
        return self.block.pieces()


class _Plain(WrappedBlock):
    """A block that has only what the protocol asks for, with the defaults of the rest."""

    unit = BlockBase.unit
    edges = BlockBase.edges
    ahead = BlockBase.ahead
    carried_bytes = BlockBase.carried_bytes
    futures = BlockBase.futures
    part = BlockBase.part
    fetch = BlockBase.fetch
    check_seen = BlockBase.check_seen

    @property
    def in_memory(self) -> bool:
        """Whether it carries its rows."""
        return self.block.resident

    def fill(self, values: Mapping[Any, Any]) -> Any:
        """Give the block itself, which waits for nothing."""
        return self.block


def capable(block: Block) -> Any:
    """The block, with the defaults of what it leaves out.

    >>> import numpy as np
    >>> from streamgmm.sources import open_source
    >>> block = open_source(np.ones((5, 2))).blocks(1 << 20)[0]
    >>> capable(block) is block, capable(block).futures, capable(block).unit
    (True, {}, 0)
    """
    return block if isinstance(block, BlockBase) else _Plain(block)


def unwrapped(block: Block) -> Any:
    """The block itself, beneath whatever wraps it: what is its own is there.

    >>> import numpy as np
    >>> from streamgmm.sources import open_source
    >>> block = open_source(np.ones((5, 2))).blocks(1 << 20)[0]
    >>> unwrapped(WrappedBlock(block)) is block
    True
    """
    while isinstance(block, WrappedBlock):
        block = block.block
    return block


def shaped(block: Block) -> Any:
    """The block, beneath what wraps it, that knows the columns and the dtype of its pieces.

    >>> import numpy as np
    >>> from streamgmm.sources import open_source
    >>> block = open_source(np.ones((5, 2))).blocks(1 << 20)[0]
    >>> shaped(WrappedBlock(block)).n_features
    2
    """
    while isinstance(block, WrappedBlock) and not hasattr(block, "n_features"):
        block = block.block
    return block
