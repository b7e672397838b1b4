"""How the kernels are compiled: without the GIL, kept on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """Compile at the first call, once per machine.

    Numba renews what it keeps when the file that holds `function` changes, not when one that
    the function calls does: touch it after a change to those. Where there is no place to write
    (a read-only installation without a home), every process compiles for itself.
    """
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:
        return njit(nogil=True)(function)
