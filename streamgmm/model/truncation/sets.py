"""Where the sets of all rows are kept from one read to the next."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Turn(NamedTuple):
    """The number of a candidate among those that share reads, and of its read, from zero."""

    candidate: int
    read: int


@dataclass(frozen=True, eq=False)
class Kept:
    """Sets of the rows of a block, out of `k` components: see `Sets`.

    `ids` (n, C) has the rows run after run; each of `runs` is (first, how many).
    """

    k: int
    runs: tuple[tuple[int, int], ...]
    ids: NDArray[Any]


class Sets(Protocol):
    """Sets by block. Those of two reads are held: of the last, and of the one before.

    So a read that is made again, since a worker was lost or the process ended, begins with what
    it began with before, and leaves the same.
    """

    def take(self, turn: Turn, start: int) -> Kept | None:
        """What a read has left of the block that begins at row `start`; None where it is lost."""

    def leave(self, turn: Turn, start: int, kept: Kept) -> None:
        """Keep what a read leaves; that of the read before the last one is let go."""


class Memory:
    """Sets in the memory of this process.

    >>> sets = Memory()
    >>> sets.leave(Turn(0, 3), 0, Kept(9, ((0, 1),), np.array([[4, 2]])))
    >>> sets.take(Turn(0, 3), 0).ids.tolist(), sets.take(Turn(0, 4), 0)
    ([[4, 2]], None)
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int, int], tuple[int, Kept]] = {}
        self._lock = threading.Lock()

    def take(self, turn: Turn, start: int) -> Kept | None:
        """As `Sets.take`."""
        read, kept = self._kept.get((turn.candidate, turn.read % 2, start), (-1, None))
        return kept if read == turn.read else None

    def leave(self, turn: Turn, start: int, kept: Kept) -> None:
        """As `Sets.leave`."""
        with self._lock:
            self._kept[turn.candidate, turn.read % 2, start] = turn.read, kept


@dataclass(frozen=True, eq=False)
class Carried:
    """Sets that come to a task with its blocks, and leave it with its result.

    A set that should have come and has not is a KeyError: a search from nothing would give
    other bits.

    >>> sets = Carried({(Turn(0, 3), 0): Kept(9, ((0, 1),), np.array([[4, 2]]))})
    >>> sets.take(Turn(0, 3), 0).ids.tolist(), sets.take(Turn(0, -1), 0)
    ([[4, 2]], None)
    """

    before: Mapping[tuple[Turn, int], Kept] = field(default_factory=dict)
    left: dict[tuple[Turn, int], Kept] = field(default_factory=dict)

    def take(self, turn: Turn, start: int) -> Kept | None:
        """As `Sets.take`."""
        return None if turn.read < 0 else self.before[turn, start]

    def leave(self, turn: Turn, start: int, kept: Kept) -> None:
        """As `Sets.leave`."""
        self.left[turn, start] = kept


def set_dtype(k: int) -> np.dtype[Any]:
    """The least dtype that numbers K components, and has -1 as a number beyond them.

    >>> int(np.array([-1]).astype(set_dtype(65_535))[0])
    65535
    """
    return np.dtype(np.uint16 if k < 1 << 16 else np.uint32)
