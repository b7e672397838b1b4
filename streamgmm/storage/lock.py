"""One writer at a time: a lock that is released when its owner ends, however it ends.

On a local file system the kernel holds the lock (``flock``) and releases it when the process
ends. Elsewhere (an object store, a file system without locks, another host) the owner is known
by a record: a random token, host, process, and a heartbeat, which is a number that it raises
every few seconds. A new process takes the lock over if the record's process is gone, or if the
heartbeat stands still. No clocks are compared. An owner that was taken over learns so from
`Lock.check`, which it calls before each write.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Self

from streamgmm.places import Place
from streamgmm.places.retry import reaching

BEAT_SECONDS = 10.0
PATIENCE_SECONDS = 30.0
_RECORD_BYTES = 512
_log = logging.getLogger("streamgmm.lock")


class LockHeldError(Exception):
    """Another process has the lock.

    Parameters
    ----------
    holder : str
        It, in words.
    taken : bool
        Whether it has taken over a lock that was ours.
    """

    def __init__(self, holder: str, taken: bool = False) -> None:
        super().__init__(holder, taken)
        self.holder, self.taken = holder, taken


class Lock:
    """The right to write something, held until `release`.

    A thread keeps the heartbeat going meanwhile.

    Parameters
    ----------
    place : Place
        Where the record is kept: a local file, or a Zarr group behind a URL.
    what : str
        What is locked, for the log.

    Raises
    ------
    LockHeldError
        If another process has it.
    OSError
        If the place cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> place = Place.parse(tempfile.mkdtemp() + "/lock")
    >>> with Lock(place, "the data"):
    ...     try:
    ...         Lock(place, "the data")
    ...     except LockHeldError as error:
    ...         print(error.holder.startswith("process "))
    True
    """

    def __init__(self, place: Place, what: str) -> None:
        self._place, self._what = place, what
        self._file: int | None = None
        self._released = threading.Event()
        self._store = None if place.directory is not None else place.store()
        self.token = uuid.uuid4().hex[:12]
        self._record: dict[str, Any] = {
            "token": self.token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": _started(os.getpid()),
            "beat": 0,
        }
        try:
            locked = self._lock()
            self._wait_for_the_dead(self._read(), locked)
            self._write()
        except BaseException:
            self._unlock()
            raise
        self._heart = threading.Thread(target=self._beat, name="streamgmm-lock", daemon=True)
        self._heart.start()

    def __enter__(self) -> Self:
        """Hold it."""
        return self

    def __exit__(self, *error: object) -> None:
        """Release it."""
        self.release()

    def check(self) -> None:
        """Check that it is still held; raises LockHeldError if another process took over."""
        record = self._read()
        if record.get("token") != self.token:
            raise LockHeldError(_who(record), taken=True)

    def release(self) -> None:
        """Let the next process have it."""
        self._released.set()
        self._heart.join()
        try:
            if self._read().get("token") == self.token:
                self._record["token"] = ""
                self._write()
        except OSError:
            pass
        finally:
            self._unlock()

    def _beat(self) -> None:
        """Raise the heartbeat every few seconds, until released or taken over; in a thread."""
        while not self._released.wait(BEAT_SECONDS):
            try:
                if self._read().get("token") != self.token:
                    return
                self._record["beat"] += 1
                self._write()
            except Exception as error:  # the next beat may succeed; `check` tells if none did
                _log.warning("no heartbeat could be written for %s: %s", self._what, error)

    def _lock(self) -> bool:
        """Take the kernel's lock, where there is one; whether it was taken."""
        path = self._place.directory
        if path is None:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            _flock(self._file)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN):
                raise LockHeldError(_who(self._read())) from error
            return False  # a file system without locks
        return True

    def _unlock(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _wait_for_the_dead(self, record: dict[str, Any], locked: bool) -> None:
        """Return once the owner that `record` names is surely gone; raise if it is not."""
        if not record.get("token"):
            return
        if record["host"] == self._record["host"]:
            if not locked and _started(record["pid"]) == record["started"] is not None:
                raise LockHeldError(_who(record))
            return
        _log.info(
            "waiting up to %.0f s to see whether %s still writes %s",
            PATIENCE_SECONDS, _who(record), self._what,
        )  # fmt: skip
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            time.sleep(min(1.0, PATIENCE_SECONDS / 10))
            if (now := self._read()) != record:
                if now.get("token"):
                    raise LockHeldError(_who(now))
                return

    def _read(self) -> dict[str, Any]:
        """Give the record that is there; empty if none is, or it is half written."""
        path = self._place.directory
        if path is not None:
            return _parse(path)
        import zarr

        try:
            with reaching(self._place.name):
                return dict(zarr.open_group(self._store, mode="r").attrs)
        except FileNotFoundError:
            return {}

    def _write(self) -> None:
        if self._file is not None:
            text = json.dumps(self._record).encode().ljust(_RECORD_BYTES)
            os.lseek(self._file, 0, os.SEEK_SET)
            os.write(self._file, text)
            return
        import zarr

        with reaching(self._place.name):
            group = zarr.open_group(self._store, mode="a", zarr_format=3)
            group.update_attributes(self._record)


def _flock(file: int) -> None:
    """Take the kernel's lock of an open file, or raise OSError at once."""
    if os.name == "posix":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        import msvcrt

        # Windows keeps others from reading what is locked: so lock a byte behind the record.
        os.lseek(file, _RECORD_BYTES, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]


def _parse(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _who(record: dict[str, Any]) -> str:
    if not record.get("pid"):
        return "another job"
    return f"process {record['pid']} on {record['host']}"


def _started(pid: int) -> float | None:
    """When a process of this machine began, to tell it from a later one of the same number."""
    import psutil  # type: ignore[import-untyped]

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None
