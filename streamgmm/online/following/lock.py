"""One follower per state: a lock beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from streamgmm.errors import StreamGMMError
from streamgmm.places import Place
from streamgmm.storage.lock import Lock, LockHeldError


class StateInUseError(StreamGMMError, BlockingIOError):
    """The state is locked by another follower."""


@contextmanager
def only_follower(state: Place) -> Iterator[Callable[[], None]]:
    """Hold the lock of a state, beside it; give what checks that it is still held.

    Raises
    ------
    StateInUseError
        If another process holds it, or has taken over.
    StoreError
        If the state is far away, and cannot be reached.
    """

    def in_use(error: LockHeldError) -> StateInUseError:
        advice = "end that follower first, or give another state"
        return StateInUseError(f"state '{state}' is being followed by {error.holder}; {advice}")

    def check() -> None:
        try:
            lock.check()
        except LockHeldError as error:
            raise in_use(error) from error

    try:
        lock = Lock(state.beside(".lock"), f"the state '{state}'")
    except LockHeldError as error:
        raise in_use(error) from error
    with lock:
        yield check
