"""A watchdog of a pass on a cluster: lost schedulers, workers that hang."""

from __future__ import annotations

import logging
import time
from typing import Any

from streamgmm.errors import SchedulerError, WorkerLostError

LOOK_SECONDS = 2.0
STALL_SECONDS = 1800.0
"""A worker that is so long on the same tasks is taken to hang. ``streamgmm.stall-timeout`` in
Dask's configuration sets another timeout, or none with None."""

_RESTARTS = 3  # of hanging workers, in one pass
_SLOWER = 10  # up to so many times the longest wait for a block so far, a worker is only slow
_log = logging.getLogger("streamgmm.passes")


class Watch:
    """The watchdog of one pass.

    Parameters
    ----------
    client : distributed.Client
    token : str
        Part of the name of every task of this executor.
    n_blocks : int
        How many blocks a task reads. The timeout is multiplied by it.
    """

    def __init__(self, client: Any, token: str, n_blocks: int = 1) -> None:
        import dask
        from dask.utils import parse_timedelta

        limit = dask.config.get("streamgmm.stall-timeout", STALL_SECONDS)
        self._limit = None if limit is None else float(parse_timedelta(limit))
        self._n_blocks = n_blocks
        self._client, self._token = client, token
        self._seen: dict[str, frozenset[Any]] = {}
        self._since = self._looked = time.monotonic()
        self._longest = 0.0
        self._restarts = 0
        self._had_workers = bool(workers_there(client, 1))

    def progress(self) -> None:
        """Note that a block is done."""
        now = time.monotonic()
        self._longest = max(self._longest, now - self._since)
        self._since = now

    def look(self) -> None:
        """Check that the scheduler answers and workers make progress; restart those that hang.

        Raises
        ------
        SchedulerError
            If the scheduler is lost.
        WorkerLostError
            If workers hang again and again, or cannot be restarted; or if all workers were lost,
            and none has come within the timeout.
        """
        if self._client.status != "running":
            raise lost_scheduler(self._client)
        now = time.monotonic()
        if self._limit is None or now - self._looked < min(30.0, self._limit / 4):
            return
        self._looked = now
        working = {
            worker: frozenset(key for key in keys if self._token in str(key))
            for worker, keys in self._client.processing().items()
        }
        working = {worker: keys for worker, keys in working.items() if keys}
        if not working:
            if workers_there(self._client, 1):
                self._had_workers = True
                self._since = now
            elif self._had_workers and now - self._since >= self._limit:
                raise WorkerLostError(
                    f"all workers were lost, and none has come for {self._limit:.0f} s; start "
                    "some and run again: with a checkpoint the fit goes on from where it was"
                )
            return
        self._had_workers = True
        if working != self._seen:
            self._seen = working
            self.progress()
            return
        patience = max(self._limit * self._n_blocks, _SLOWER * self._longest)
        if now - self._since < patience:
            return
        self._restart(list(working), patience)

    def _restart(self, workers: list[str], patience: float) -> None:
        self._restarts += 1
        said = f"workers {', '.join(workers)} have done nothing for {patience:.0f} s"
        advice = (
            "look at their storage and memory; on slow hardware, use smaller blocks or raise "
            "streamgmm.stall-timeout in Dask's configuration"
        )
        if self._restarts > _RESTARTS:
            raise WorkerLostError(f"{said}, after {_RESTARTS} restarts; {advice}")
        _log.warning("%s and are restarted; %s", said, advice)
        try:
            self._client.restart_workers(workers, timeout=60)
        except ValueError as error:  # no nanny
            raise WorkerLostError(f"{said}, and nobody can restart them; {advice}") from error
        self._seen = {}
        self._since = time.monotonic()


def workers_there(client: Any, at_most: int = -1) -> dict[str, dict[str, Any]]:
    """Describe the workers of a scheduler, by address; all, or at most so many.

    Raises
    ------
    SchedulerError
        If the scheduler is lost.
    """
    try:
        found: dict[str, Any] = client.scheduler_info(n_workers=at_most)
    except OSError as error:
        raise lost_scheduler(client) from error
    if "workers" not in found:  # the answer of a client that has lost its scheduler
        raise lost_scheduler(client)
    workers: dict[str, dict[str, Any]] = found["workers"]
    return workers


def lost_scheduler(client: Any) -> SchedulerError:
    """Make the error for a scheduler that is gone."""
    scheduler = getattr(client, "scheduler", None)
    address = getattr(scheduler, "address", None) or "an unknown address"
    return SchedulerError(
        f"the scheduler at '{address}' was lost in the middle of a pass; start one and run "
        "again: with a checkpoint the fit goes on from where it was"
    )
