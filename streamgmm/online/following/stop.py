"""SIGTERM and Ctrl-C end a follower between batches."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from streamgmm.online.following.base import Unit


class _Stopped(BaseException):
    """A signal came during a wait."""


class Stop:
    """Whether a signal has asked to end. A signal interrupts a wait, but never a batch."""

    def __init__(self) -> None:
        self.asked = 0
        self._waiting = False

    def __call__(self, signum: int, frame: Any) -> None:
        """Handle a signal."""
        self.asked = signum
        if self._waiting:
            raise _Stopped

    def each(self, units: Iterator[Unit]) -> Iterator[Unit]:
        """The units until it is time to end."""
        while not self.asked:
            try:
                self._waiting = True
                self._end_if_asked()
                unit = next(units)
            except (StopIteration, _Stopped):
                return
            finally:
                self._waiting = False
            yield unit

    def _end_if_asked(self) -> None:
        """End now if the signal came just before the wait."""
        if self.asked:
            raise _Stopped

    def wait(self, seconds: float) -> None:
        """Sleep, or be woken by the signal."""
        try:
            self._waiting = True
            self._end_if_asked()
            time.sleep(seconds)
        except _Stopped:
            pass
        finally:
            self._waiting = False


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Handle SIGTERM and Ctrl-C between batches, in the main thread."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(each, stop) for each in signals]
    try:
        yield stop
    finally:
        for each, handler in zip(signals, before, strict=True):
            signal.signal(each, handler)
