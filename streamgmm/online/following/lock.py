"""One follower a state: a lock that the system drops when its process ends, however it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamgmm.errors import ParameterError, StreamGMMError


class StateInUseError(StreamGMMError, BlockingIOError):
    """A state that another process is following into."""


@contextmanager
def only_follower(state: str) -> Iterator[None]:
    """Hold the lock of a state, a file beside it.

    Raises
    ------
    StateInUseError
        If another process holds it.
    ParameterError
        If the state is not at a local path.
    """
    if "://" in state:
        raise ParameterError(
            f"state '{state}' is a URL; a state needs a lock and a rename: give a local path"
        )
    path = Path(f"{state.rstrip('/')}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            _lock(handle)
        except OSError as error:
            holder = path.read_text(errors="replace") if os.name == "posix" else ""
            who = f" by process {holder}" if holder else ""
            raise StateInUseError(
                f"state '{state}' is being followed{who}; end that follower first, or give "
                "another state"
            ) from error
        if os.name == "posix":
            os.truncate(handle, 0)
            os.write(handle, str(os.getpid()).encode())
        yield
    finally:
        os.close(handle)


def _lock(handle: int) -> None:
    if os.name == "posix":
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
