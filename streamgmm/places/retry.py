"""Retries of what fails for a moment, as in object stores and shared file systems."""

from __future__ import annotations

import errno
import gzip
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from streamgmm.errors import StoreError, StreamGMMError

R = TypeVar("R")

RETRY_SECONDS = (0.1, 0.5, 2.5)
"""Backoff: the wait before each retry."""

_FINAL = (
    StreamGMMError,  # a truncated chunk, for one
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    gzip.BadGzipFile,
)
_CLIENTS = ("aiohttp", "botocore", "aiobotocore", "urllib3", "requests", "obstore")
_REFUSED = ("credential", "token", "permission", "unauth", "authoriz", "authenticat")
_NEVER = ("NotFound", "InvalidPath", "AlreadyExists", "NotSupported", "UnknownConfiguration")
log = logging.getLogger("streamgmm.places")


def is_refused(error: BaseException | None) -> bool:
    """Whether the store does not take the credentials, or there are none.

    >>> is_refused(PermissionError()), is_refused(ConnectionResetError())
    (True, False)
    """
    if isinstance(error, PermissionError):
        return True
    name = type(error).__name__.lower()
    return _of_client(error) and any(each in name for each in _REFUSED)


def is_transient(error: BaseException) -> bool:
    """Whether a retry may succeed: the storage failed, but the bytes are not wrong.

    >>> is_transient(ConnectionResetError()), is_transient(RuntimeError("cannot decompress"))
    (True, False)
    """
    if is_refused(error) or isinstance(error, _FINAL):
        return False
    if _of_client(error):
        return not type(error).__name__.startswith(_NEVER)
    return isinstance(error, OSError) and error.errno != errno.ENOSPC


def is_network(error: BaseException | None) -> bool:
    """Whether the connection to the storage failed, so that nothing is known of the bytes."""
    return _of_client(error) or isinstance(error, (ConnectionError, TimeoutError))


def advice(error: BaseException | None) -> str | None:
    """Say what to do about an error of a store that is far away; None for others.

    >>> advice(TimeoutError()).partition(",")[0]
    'the store did not answer in 4 tries'
    """
    if is_refused(error):
        return (
            "the store refuses access: check the credentials (in the environment, in a profile, "
            "or in storage_options, such as {'key': …, 'secret': …}; {'anon': True} for a public "
            "bucket) and what they permit"
        )
    if is_network(error):
        tries = len(RETRY_SECONDS) + 1
        return f"the store did not answer in {tries} tries, or failed: look at it, and run again"
    return None


def said(error: BaseException) -> str:
    r"""Give what an error says, without the paragraphs that clients add; else its kind.

    >>> said(OSError("no answer\n\nDebug source: ...")), said(TimeoutError())
    ('no answer', 'TimeoutError')
    """
    return str(error).strip().partition("\n\n")[0] or type(error).__name__


@contextmanager
def reaching(name: str) -> Iterator[None]:
    """Raise StoreError, which says what to do, where a store far away is what fails.

    >>> with reaching("s3://bucket/model.zarr"):  # doctest: +ELLIPSIS
    ...     raise PermissionError("403")
    Traceback (most recent call last):
    ...
    streamgmm.errors.StoreError: 's3://bucket/model.zarr' cannot be reached (403); the store ...
    """
    try:
        yield
    except Exception as error:
        what = advice(error)
        if what is None or isinstance(error, StreamGMMError):
            raise
        raise StoreError(f"'{name}' cannot be reached ({said(error)}); {what}") from error


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
            log.warning("%s could not be read (%s); trying again in %g s", what, error, wait)
        time.sleep(wait)
    return read()


def _of_client(error: BaseException | None) -> bool:
    """Whether it is an error of a client of a store, or what s3fs made of one."""
    chain = (error, getattr(error, "__cause__", None))
    return any(type(each).__module__.partition(".")[0] in _CLIENTS for each in chain)
