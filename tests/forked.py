"""Workers that are there at once: forked from a process that has imported what they need.

Tests kill workers by the dozen, and others come in their place. As elsewhere, those are processes
of their own with nannies; spawned ones, which import everything themselves, are in the tests of
workflows and of the command line.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager

import dask
from distributed import Nanny, Status
from distributed.utils import get_mp_context


@contextmanager
def forking() -> Iterator[None]:
    """Workers that are started meanwhile are forked."""
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        get_mp_context()  # at the first time it says what to import; this says more
        multiprocessing.get_context("forkserver").set_forkserver_preload(
            ["distributed", "dask.array", "streamgmm.estimators", "streamgmm.cli"]
        )
        yield


class Forked(Nanny):
    """A nanny whose workers are forked."""

    async def instantiate(self) -> Status:
        """Start the worker."""
        with forking():
            return await super().instantiate()
