"""Who writes a checkpoint: one job at a time, and whoever comes after a dead one.

On a file system the kernel holds the lock, and lets go of it when the process ends however it
ends. An object store has no locks: there the owner leaves its name and a number that it raises
every few seconds, and looks before each write whether the name is still its own. A name that is
left behind by a process that is gone, or a number that stands still, is taken over. No clocks are
compared.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import time
import uuid
from typing import Any

from streamgmm.errors import CheckpointError
from streamgmm.storage.place import Place

BEAT_SECONDS = 10.0
PATIENCE_SECONDS = 30.0
_LOCK = "lock"
_log = logging.getLogger("streamgmm.checkpoint")


class Owner:
    """The right to write the checkpoint at a place.

    Parameters
    ----------
    place : Place

    Raises
    ------
    CheckpointError
        If another job has it; names the process.
    OSError
        If the place cannot be written.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._file: int | None = None
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

    def check(self) -> None:
        """Check that it is still this one; raises CheckpointError."""
        record = self._read()
        if record.get("token") != self.token:
            raise self._busy(record, "has taken over")

    def beat(self) -> None:
        """Show that this process is alive."""
        self.check()
        self._record["beat"] += 1
        self._write()

    def release(self) -> None:
        """Let the next one have it."""
        try:
            if self._read().get("token") == self.token:
                self._record["token"] = ""
                self._write()
        except OSError:
            pass
        finally:
            self._unlock()

    def _lock(self) -> bool:
        """Take the kernel's lock, where there is one; whether it was taken."""
        if self._place.directory is None:
            return False
        self._place.directory.mkdir(parents=True, exist_ok=True)
        path = self._place.directory / _LOCK
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            import fcntl

            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            return False
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN):
                raise self._busy(self._read(), "is writing") from error
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
                raise self._busy(record, "is writing")
            return
        _log.info(
            "waiting up to %.0f s to see whether %s still writes the checkpoint '%s'",
            PATIENCE_SECONDS, _who(record), self._place.name,
        )  # fmt: skip
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            time.sleep(min(1.0, PATIENCE_SECONDS / 10))
            if (now := self._read()) != record:
                if now.get("token"):
                    raise self._busy(now, "is writing")
                return

    def _read(self) -> dict[str, Any]:
        """The record that is there; empty if none is, or it is half written."""
        if self._place.directory is not None:
            try:
                text = (self._place.directory / _LOCK).read_text()
            except FileNotFoundError:
                return {}
            try:
                return dict(json.loads(text))
            except ValueError:
                return {}
        import zarr

        try:
            return dict(zarr.open_group(self._place.store, path=_LOCK, mode="r").attrs)
        except FileNotFoundError:
            return {}

    def _write(self) -> None:
        if self._file is not None:
            text = json.dumps(self._record).encode()
            os.pwrite(self._file, text.ljust(512), 0)
            return
        import zarr

        group = zarr.open_group(self._place.store, path=_LOCK, mode="a", zarr_format=3)
        group.update_attributes(self._record)

    def _busy(self, record: dict[str, Any], does: str) -> CheckpointError:
        return CheckpointError(
            f"{_who(record)} {does} the checkpoint '{self._place.name}'; wait for it, or give "
            "this job another checkpoint"
        )


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
