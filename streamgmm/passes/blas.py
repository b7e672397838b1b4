"""One BLAS thread inside a task: parallelism is across blocks."""

from __future__ import annotations

import sys
import threading
from typing import Any

from threadpoolctl import ThreadpoolController


class _BlasLimit:
    """Limits BLAS to one thread while any thread is inside; a reference count of those inside.

    The first to enter sets the limit, and the last to leave restores what was before.
    """

    _OWNERS = ("numpy", "scipy.linalg", "sklearn", "torch")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._limit: Any = None
        self._loaded: list[bool] = []
        self._controller: ThreadpoolController | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._holders == 0:
                loaded = [name in sys.modules for name in self._OWNERS]
                if self._controller is None or loaded != self._loaded:
                    self._controller = ThreadpoolController().select(user_api="blas")
                    self._loaded = loaded
                self._limit = self._controller.limit(limits=1)
                self._limit.__enter__()
            self._holders += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                limit, self._limit = self._limit, None
                limit.__exit__(*error)


_BLAS = _BlasLimit()


def one_blas_thread() -> _BlasLimit:
    """Limit BLAS to one thread in this process while any thread is inside.

    Parallelism is across blocks. To find the BLAS libraries takes milliseconds, so that is done
    once a process. Nested and concurrent uses are counted.

    Examples
    --------
    >>> with one_blas_thread():
    ...     pass
    """
    return _BLAS
