"""A call that is made in a process of its own.

Its threads and its memory are not ours; and where it fails, runs out of memory, or would take for
ever, that is a word in a table and not the end of the benchmark.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

PATIENCE = 60.0  # seconds that a call may take


class Failure(str):
    """What is answered instead: words for what failed."""

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Name an error as a table has room for."""
        short = isinstance(error, MemoryError) or "memory" in str(error).lower()
        return cls("out of memory" if short else type(error).__name__)


def serve(
    build: Callable[..., Callable[..., Any]], args: tuple[Any, ...], threads: int, pipe: Connection
) -> None:
    """Call what ``build(*args, threads)`` gives whenever asked; send what it gives."""
    with suppress(OSError):  # where memory runs out, this process is to go first
        Path("/proc/self/oom_score_adj").write_text("1000")
    warnings.simplefilter("ignore")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    with suppress(EOFError, KeyboardInterrupt):  # nobody will ask again
        try:
            call = build(*args, threads)
        except Exception as error:
            pipe.send(Failure.of(error))
            return
        pipe.send(None)
        while True:
            asked = pipe.recv()
            try:
                answer = call(*asked)
            except Exception as error:
                answer = Failure.of(error)
            pipe.send(answer)


class Remote:
    """What ``build(*args, threads)`` gives, called in a process of its own.

    `failure` is why it cannot be called any more, or "".
    """

    def __init__(
        self,
        build: Callable[..., Callable[..., Any]],
        args: tuple[Any, ...],
        threads: int,
        patience: float = PATIENCE,
    ) -> None:
        self.failure = ""
        self._patience = patience
        context = get_context("spawn")  # threads of ours do not survive a fork
        self._pipe, end = context.Pipe()
        self._process = context.Process(
            target=serve, args=(build, args, threads, end), daemon=True
        )
        self._process.start()
        end.close()
        answer = self._answer()
        if isinstance(answer, Failure):
            self.failure = answer

    def close(self) -> None:
        """End its process."""
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def ask(self, *args: Any) -> Any:
        """Call it once; a `Failure` where that failed."""
        if self.failure:
            return Failure(self.failure)
        with suppress(OSError):  # a process that is gone is noticed where it does not answer
            self._pipe.send(args)
        return self._answer()

    def _answer(self) -> Any:
        if not self._pipe.poll(self._patience):
            self._process.kill()
            self.failure = f"over {self._patience:g} s"
            return Failure(self.failure)
        try:
            return self._pipe.recv()
        except (EOFError, OSError):
            self.failure = "killed"
            return Failure(self.failure)
