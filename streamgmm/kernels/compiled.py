"""How the kernels are compiled: without the GIL, kept on disk where that is possible."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache

from streamgmm.progress import tell_compiling

try:
    import fcntl
except ImportError:  # where there are no such locks, every process compiles for itself
    fcntl = None  # type: ignore[assignment]

LOCKS = fcntl is not None
PATIENCE = 60.0  # seconds to wait for what another process compiles, before doing it here too
_PAUSE = 0.02


def _sources() -> str:
    """Digest of every file of this package."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


SOURCES = _sources()


_announced = False
_begins: Callable[[], None] | None = None


def _announce() -> None:
    """Tell that code is being compiled, once in a process, and begin what waits for that."""
    global _announced, _begins
    begin, _begins = _begins, None
    if begin is not None:
        begin()
    if not _announced:
        _announced = True
        tell_compiling()


@contextmanager
def when_compiling(begin: Callable[[], None]) -> Iterator[None]:
    """Call `begin` when the first kernel is compiled inside of the statement, of which one is."""
    global _begins
    _begins = begin
    try:
        yield
    finally:
        _begins = None


class _Cache(FunctionCache):
    """What Numba keeps on disk, found again only by the same version of the whole package.

    Numba looks at the file that holds a function and not at those that the function calls, so
    that after an upgrade it would go on running what the old ones said.

    Of several processes that need the same function one compiles it; the others wait and load it.
    """

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        self._lock = Path(self.cache_path, f"{function.__module__}.{function.__qualname__}.lock")
        self._held: int | None = None

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What was compiled before; says once that it takes some seconds where nothing was."""
        found = super().load_overload(sig, target_context)
        if found is None:
            _announce()
            self._take_turn()
            found = super().load_overload(sig, target_context)
            if found is not None:
                self._end_turn()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write what was compiled, and let others load it."""
        try:
            super().save_overload(sig, data)
        finally:
            self._end_turn()

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (*super()._index_key(sig, codegen), SOURCES)

    def _take_turn(self) -> None:
        """Wait until no other process compiles this; the system ends the turn of a dead one."""
        if not LOCKS or self._held is not None:
            return
        with suppress(OSError):  # a folder without locks, or one that cannot be written
            self._lock.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self._lock, os.O_CREAT | os.O_RDWR, 0o666)
            until = time.monotonic() + PATIENCE
            while not _locked(file):
                if time.monotonic() > until:
                    os.close(file)
                    return
                time.sleep(_PAUSE)
            self._held = file

    def _end_turn(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None


def _locked(file: int) -> bool:
    """Lock a file if no other process has; raises OSError where there are no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


inner = njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy")
"""For what kernels call. Python cannot: what it would need to, takes as long to compile again."""


def compiled(function: Callable[..., Any]) -> Any:
    """Compile at the first call, once per machine.

    Where there is no place to write (a read-only installation without a home), every process
    compiles for itself.
    """
    dispatcher = njit(nogil=True, no_cfunc_wrapper=True, error_model="numpy")(function)
    with suppress(RuntimeError):
        dispatcher._cache = _Cache(function)
    return dispatcher
