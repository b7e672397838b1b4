"""What is remembered of rows from one read to the next: their centres, and for how long.

A row whose bound says that it cannot have changed its nearest centre is not compared with all of
them again (Hamerly 2010: see `kernels.kmeans`). That takes 8 bytes a row, in the process that
reads it, and never more than a `Recall` may hold. Results have the same bits with and without.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.model.moments import Floats

RECALL_BYTES = 256 << 20


def _name() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True)
class Trail:
    """Where centres stand in a chain of M-steps, and how far they have come.

    `drift` (K,) is the sum over the chain of how far each centre and the fastest other one have
    moved; it is a number, zero, at the beginning.
    """

    chain: str = field(default_factory=_name)
    name: str = field(default_factory=_name)
    parent: str = ""
    drift: Any = 0.0

    def next(self, before: Floats, after: Floats) -> Trail:
        """That of the centres (K, D) after an M-step."""
        moved = np.sqrt(np.einsum("kd,kd->k", after - before, after - before))
        fastest = int(moved.argmax())
        others = np.full(len(moved), moved[fastest])
        others[fastest] = np.delete(moved, fastest).max(initial=0.0)
        drift = self.drift + (moved + others) * (1 + 1e-9)
        return Trail(self.chain, _name(), self.name, drift)


@dataclass
class _Known:
    """Labels (n,) and how far their centres may drift (n,), as the centres `at` left them."""

    labels: NDArray[np.int32]
    until: NDArray[np.float32]
    at: str = ""


class Recall:
    """Labels of rows by the chain of centres and the number of the first row of a piece.

    No more than `most` bytes; pieces beyond that are new at every read.
    """

    def __init__(self, most: int = RECALL_BYTES) -> None:
        self._left, self._known = most, dict[tuple[str, int], _Known]()
        self._lock = threading.Lock()

    def take(self, trail: Trail, start: int, n: int) -> _Known:
        """What is known of rows ``start:start + n``; of no use to others until `leave`."""
        known = self._known.get((trail.chain, start))
        if known is None or len(known.labels) != n:
            known = _unknown(n)
            with self._lock:
                room = known.labels.nbytes + known.until.nbytes
                if room <= self._left and (trail.chain, start) not in self._known:
                    self._left -= room
                    self._known[trail.chain, start] = known
        elif known.at not in (trail.name, trail.parent):
            known.labels[:] = -1
        known.at = ""
        return known

    def leave(self, trail: Trail, known: _Known) -> None:
        """Say that rows have been looked at where the trail is."""
        known.at = trail.name

    def labels(self, trail: Trail, n_rows: int) -> NDArray[np.int32] | None:
        """Labels of all rows (n_rows,) where the trail is; None where some are not known."""
        found = {s: k for (c, s), k in self._known.items() if c == trail.chain}
        at = 0
        for start in sorted(found):
            if start != at or found[start].at != trail.name:
                return None
            at += len(found[start].labels)
        return np.concatenate([found[s].labels for s in sorted(found)]) if at == n_rows else None


_open: list[Recall] = []  # of fits under way in this process


def _unknown(n: int) -> _Known:
    return _Known(np.full(n, -1, np.int32), np.empty(n, np.float32))


@contextmanager
def recalling(recall: Recall) -> Iterator[None]:
    """Let reads of this process remember, until this ends."""
    _open.append(recall)
    try:
        yield
    finally:
        _open.remove(recall)


def recall_here() -> Recall | None:
    """The `Recall` of this process, where there is one."""
    return _open[-1] if _open else None
