"""One follower per state: a lock beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from streamgmm.errors import ParameterError, StreamGMMError
from streamgmm.places import Place
from streamgmm.storage.lock import Lock, LockHeldError


class StateInUseError(StreamGMMError, BlockingIOError):
    """The state is locked by another follower."""


@contextmanager
def only_follower(state: Place) -> Iterator[None]:
    """Hold the lock of a state, a file beside it.

    Raises
    ------
    StateInUseError
        If another process holds it.
    ParameterError
        If the state is not at a local path.
    """
    if state.directory is None:
        raise ParameterError(
            f"state '{state}' is a URL; a state needs a lock and a rename: give a local path"
        )
    try:
        lock = Lock(Place.parse(f"{state.directory}.lock"), f"the state '{state}'")
    except LockHeldError as error:
        raise StateInUseError(
            f"state '{state}' is being followed by {error.holder}; end that follower first, or "
            "give another state"
        ) from error
    with lock:
        yield
