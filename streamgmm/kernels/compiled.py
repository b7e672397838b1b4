"""How the kernels are compiled: without the GIL, kept on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache

from streamgmm.progress import tell_compiling


def _sources() -> str:
    """Digest of every file of this package."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


SOURCES = _sources()


_announced = False


def _announce() -> None:
    """Tell whoever waits that code is being compiled, once in a process."""
    global _announced
    if not _announced:
        _announced = True
        tell_compiling()


class _Cache(FunctionCache):
    """What Numba keeps on disk, found again only by the same version of the whole package.

    Numba looks at the file that holds a function and not at those that the function calls, so
    that after an upgrade it would go on running what the old ones said.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What was compiled before; says once that it takes some seconds where nothing was."""
        found = super().load_overload(sig, target_context)
        if found is None:
            _announce()
        return found

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (*super()._index_key(sig, codegen), SOURCES)


def compiled(function: Callable[..., Any]) -> Any:
    """Compile at the first call, once per machine.

    Where there is no place to write (a read-only installation without a home), every process
    compiles for itself.
    """
    dispatcher = njit(nogil=True, no_cfunc_wrapper=True, error_model="numpy")(function)
    with suppress(RuntimeError):
        dispatcher._cache = _Cache(function)
    return dispatcher
