"""Checkpoints: the state of a fit, saved after reads, so that another process can go on from it.

A checkpoint is a Zarr group. Statistics and models are immutable, so their arrays are written
once. The metadata at the root say which arrays are in use, and are replaced in one step (an
atomic commit). So a process that is killed at any moment, or a disk that fills, leaves the last
checkpoint as it was.

A thread writes, while the fit goes on reading.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from streamgmm.errors import CheckpointError, OutputError, StoreError, StreamGMMError
from streamgmm.places import Place, ZarrStore
from streamgmm.storage.checkpoint.fingerprint import differences, fingerprint
from streamgmm.storage.checkpoint.store import LOCK, SETS, CheckpointStore
from streamgmm.storage.lock import Lock, LockHeldError

__all__ = ["SETS", "Checkpoint", "fingerprint"]

QUIET_SECONDS = 0.1  # at least so long from one save to the next
RARE = 50  # inside a pass, saves take no more than a fiftieth of the time


class Checkpoint:
    """The checkpoint of one fit, which this process alone writes while it is open.

    Parameters
    ----------
    path : str, path-like, URL or Zarr store

    Raises
    ------
    CheckpointError
        If something else is at `path`, or another job writes it.
    OutputError
        If it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/run.zarr"
    >>> with Checkpoint(path) as checkpoint:
    ...     checkpoint.load({"tol": 0.1})
    ...     checkpoint.save({"passes": 1.5}, whole=True)
    >>> with Checkpoint(path) as checkpoint:
    ...     checkpoint.load({"tol": 0.1})
    {'passes': 1.5}
    """

    def __init__(self, path: str | os.PathLike[str] | ZarrStore) -> None:
        place = Place.parse(path)
        self.name = place.name
        self._store = CheckpointStore(place)
        self._store.look()
        try:
            self._lock = Lock(place.child(LOCK), f"the checkpoint '{place}'")
        except LockHeldError as error:
            raise self._held(error) from error
        except StoreError:
            raise
        except OSError as error:
            raise OutputError(
                f"no checkpoint can be written at '{self.name}' ({error}); give another place"
            ) from error
        self._mark: Mapping[str, Any] = {}
        self._ready = threading.Condition()
        self._pending: dict[str, Any] | None = None
        self._busy = False
        self._closing = False
        self._error: BaseException | None = None
        self._began, self._cost = -1e9, 0.0
        self._writer = threading.Thread(
            target=self._write_all, name="streamgmm-checkpoint", daemon=True
        )
        self._writer.start()

    def __enter__(self) -> Checkpoint:
        """Give this checkpoint, which is open already."""
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Write what is pending, and release the lock.

        An error of writing is raised unless the body raised another one.
        """
        with self._ready:
            self._closing = True
            self._ready.notify_all()
        self._writer.join()
        self._lock.release()
        if error is None:
            self._raise()

    def load(self, mark: Mapping[str, Any]) -> dict[str, Any] | None:
        """Read the state that a fit of the same fingerprint saved last; None if none did.

        Raises
        ------
        CheckpointError
            If it is of another fit (says what differs), of another format, or damaged.
        """
        self._mark = mark
        meta = self._store.meta()
        if meta is None:
            return None
        if differ := differences(meta["fingerprint"], mark):
            raise CheckpointError(
                f"the checkpoint '{self.name}' is of another fit: {'; '.join(differ)}; give "
                "another path, or remove it to begin anew"
            )
        return self._store.load(meta)

    def save(self, state: dict[str, Any], *, whole: bool, wait: bool = False) -> None:
        """Save a state, which nobody changes afterwards; a thread writes it.

        Parameters
        ----------
        state : dict
        whole : bool
            Whether a pass is over. Then this waits until earlier states are written, so that a
            crash never loses more than a pass. Inside a pass a state may be left out.
        wait : bool
            Whether to return only when it is written.

        Raises
        ------
        OutputError
            If this or an earlier one could not be written; the last that could is still there.
        CheckpointError
            If another job has taken over.
        """
        since = time.monotonic() - self._began
        if not wait and since < (
            QUIET_SECONDS if whole else max(QUIET_SECONDS, RARE * self._cost)
        ):
            return
        with self._ready:
            self._began = time.monotonic()
            if whole or wait:
                self._ready.wait_for(lambda: self._idle or self._error is not None)
            self._raise()
            self._pending = state
            self._ready.notify_all()
            if wait:
                self._ready.wait_for(lambda: self._idle or self._error is not None)
                self._raise()

    @property
    def _idle(self) -> bool:
        return self._pending is None and not self._busy

    def _raise(self) -> None:
        error = self._error
        if error is None or isinstance(error, StreamGMMError) or not isinstance(error, OSError):
            if error is not None:
                raise error
            return
        raise OutputError(
            f"the checkpoint '{self.name}' could not be written ({error}); the last one that "
            "could is still there: make room, and run again to go on from it"
        ) from error

    def _write_all(self) -> None:
        """Write states as they come, until closing; runs in a thread."""
        while True:
            with self._ready:
                self._ready.wait_for(lambda: self._pending is not None or self._closing)
                state, self._pending = self._pending, None
                if state is None:
                    return
                self._busy = True
            try:
                self._write(state)
            except BaseException as error:
                with self._ready:
                    self._error, self._busy = error, False
                    self._ready.notify_all()
                return
            with self._ready:
                self._busy = False
                self._ready.notify_all()

    def _write(self, state: dict[str, Any]) -> None:
        began = time.perf_counter()
        try:
            self._lock.check()
        except LockHeldError as error:
            raise self._held(error) from error
        self._store.save(state, self._mark, self._lock.token)
        self._cost = time.perf_counter() - began

    def _held(self, error: LockHeldError) -> CheckpointError:
        does = "has taken over" if error.taken else "is writing"
        return CheckpointError(
            f"{error.holder} {does} the checkpoint '{self.name}'; wait for it, or give this job "
            "another checkpoint"
        )
