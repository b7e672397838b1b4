"""Retries of reads that fail for a moment, as in object stores and shared file systems."""

from __future__ import annotations

import gzip
import logging
import time
from collections.abc import Callable
from typing import TypeVar

from streamgmm.errors import ChunkError

R = TypeVar("R")

RETRY_SECONDS = (0.1, 0.5, 2.5)
"""Backoff: the wait before each retry."""

_FINAL = (
    ChunkError,  # truncated
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    gzip.BadGzipFile,
)
_CLIENTS = ("aiohttp", "botocore", "aiobotocore", "urllib3", "requests")
_log = logging.getLogger("streamgmm.sources")


def is_transient(error: BaseException) -> bool:
    """Whether a retry may succeed: the storage failed, but the bytes are not wrong.

    >>> is_transient(ConnectionResetError()), is_transient(RuntimeError("cannot decompress"))
    (True, False)
    """
    client = type(error).__module__.partition(".")[0] in _CLIENTS
    return client or (isinstance(error, OSError) and not isinstance(error, _FINAL))


def is_network(error: BaseException | None) -> bool:
    """Whether the connection to the storage failed, so that nothing is known of the bytes."""
    client = type(error).__module__.partition(".")[0] in _CLIENTS
    return client or isinstance(error, (ConnectionError, TimeoutError))


def retry(read: Callable[[], R], what: str) -> R:
    """Read, and retry with a backoff where that may help; raises the error of the last try.

    >>> tries = iter([OSError(5, "Input/output error"), None])
    >>> def read():
    ...     error = next(tries)
    ...     if error:
    ...         raise error
    ...     return "rows"
    >>> retry(read, "rows 0:10")
    'rows'
    """
    for wait in RETRY_SECONDS:
        try:
            return read()
        except Exception as error:
            if not is_transient(error):
                raise
            _log.warning("%s could not be read (%s); trying again in %g s", what, error, wait)
        time.sleep(wait)
    return read()
