"""Checkpoints: what a fit knows, put down after reads, so that another process can go on.

A checkpoint is a Zarr group. Statistics and models are immutable, so each is written once, in an
array of its own or with its fellows; the metadata at the root say which are in use, and replace
the older ones in one step. So a process that is killed at any moment, or a disk that fills,
leaves the last checkpoint as it was.

Writing is done by a thread, behind the reads.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from streamgmm.errors import CheckpointError, OutputError, StreamGMMError
from streamgmm.storage.checkpoint.fingerprint import differences, fingerprint
from streamgmm.storage.checkpoint.owner import BEAT_SECONDS, Owner
from streamgmm.storage.checkpoint.shelf import Shelf
from streamgmm.storage.place import Place

__all__ = ["Checkpoint", "fingerprint"]

QUIET_SECONDS = 0.1  # between two checkpoints of reads shorter than that
RARE = 50  # in the middle of a pass no more than a fiftieth of the time is for writing


class Checkpoint:
    """The checkpoint of one fit, which this process alone writes while it is open.

    Parameters
    ----------
    path : str, path-like or URL

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

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fsdecode(path)
        self._place = Place.parse(path, None)
        self._shelf = Shelf(self._place)
        self._shelf.look()
        try:
            self._owner = Owner(self._place)
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
        """Hold it."""
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Write what is pending, and let the next job have it.

        An error of writing is raised unless another one is on its way.
        """
        with self._ready:
            self._closing = True
            self._ready.notify_all()
        self._writer.join()
        self._owner.release()
        if error is None:
            self._raise()

    def load(self, mark: Mapping[str, Any]) -> dict[str, Any] | None:
        """Read what was put down by a fit of the same fingerprint; None if nothing was.

        Raises
        ------
        CheckpointError
            If it is of another fit (says what differs), of a newer format, or damaged.
        """
        self._mark = mark
        meta = self._shelf.meta()
        if meta is None:
            return None
        if differ := differences(meta["fingerprint"], mark):
            raise CheckpointError(
                f"the checkpoint '{self.name}' is of another fit: {'; '.join(differ)}; give "
                "another path, or remove it to begin anew"
            )
        return self._shelf.load(meta)

    def save(self, state: dict[str, Any], *, whole: bool, wait: bool = False) -> None:
        """Put down a state, which nobody changes afterwards.

        Parameters
        ----------
        state : dict
        whole : bool
            Whether a pass is over. Then the state of the pass before is waited for, so that
            never more than a pass is lost; in the middle of one a state may be left out.
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
        """Write states as they come, and show that this process is alive; runs in a thread."""
        while True:
            with self._ready:
                self._ready.wait_for(
                    lambda: self._pending is not None or self._closing, BEAT_SECONDS
                )
                state, self._pending = self._pending, None
                if state is None and self._closing:
                    return
                self._busy = state is not None
            try:
                self._owner.beat() if state is None else self._write(state)
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
        self._owner.check()
        self._shelf.save(state, self._mark, self._owner.token)
        self._cost = time.perf_counter() - began
