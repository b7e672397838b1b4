"""A second process compiles what is needed soon, while this one compiles what it needs first.

Numba compiles one function at a time in a process. So the first fit on a machine with several
processors starts one more process for what comes after its k-means. Both write to the cache on
disk, from which the first one loads what the other has compiled.

Without a cache, or with one processor, nothing is started, nor where the variable
``STREAMGMM_COMPILE_AHEAD`` is 0. The other process ends with the call that needed it, and with
this process, whatever ends that.
"""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from streamgmm.kernels.compiled import LOCKS, when_compiling

SWITCH = "STREAMGMM_COMPILE_AHEAD"

_ONE = threading.Lock()

Work = tuple[Callable[..., object], tuple[Any, ...]]
"""A function of a module and its arguments, which is called for what it compiles."""


@contextmanager
def compiling_ahead(work: Sequence[Work]) -> Iterator[None]:
    """Let another process do `work` if anything has to be compiled inside of the statement.

    There is one such process at a time: inner statements, and those of other threads, start none.
    """
    if not work or not _possible() or not _ONE.acquire(blocking=False):
        yield
        return
    helper = _Helper(work)
    try:
        with when_compiling(helper.start):
            yield
    finally:
        helper.stop()
        _ONE.release()


def _possible() -> bool:
    """Whether a processor is free, and this is Python with a program of its own to start again."""
    if _processors() == 1 or not LOCKS:  # without locks both would compile all of it
        return False
    named = Path(sys.executable or "").name.startswith("python")
    return named and not getattr(sys, "frozen", False) and os.environ.get(SWITCH, "1") != "0"


def _processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Helper:
    """The other process. Its input stays open: where that ends, so does the process."""

    def __init__(self, work: Sequence[Work]) -> None:
        self._work = work
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; what cannot be started, or cannot be sent there, is compiled here."""
        with suppress(OSError, pickle.PicklingError, AttributeError, TypeError):
            given = pickle.dumps(list(self._work))
            path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
            )
            assert self._process.stdin is not None
            self._process.stdin.write(len(given).to_bytes(8, "little") + given)
            self._process.stdin.flush()

    def stop(self) -> None:
        """End it, whatever it does: the cache is written file by file, each at once."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with suppress(OSError):
                process.communicate()


def main() -> None:
    """Do the work that comes by the standard input, until that ends."""
    size = int.from_bytes(sys.stdin.buffer.read(8), "little")
    given = sys.stdin.buffer.read(size)

    def watch() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    gc.disable()  # a process of seconds: it would look through the same objects again and again
    for function, arguments in pickle.loads(given):
        function(*arguments)


if __name__ == "__main__":
    main()
