"""Workers that are there at once: forked from a process that has imported what they need.

Tests kill workers by the dozen, and others come in their place. As elsewhere, those are processes
of their own with nannies; spawned ones, which import everything themselves, are in the tests of
workflows, of the command line and of the pages.
"""

from __future__ import annotations

import multiprocessing

import dask
from distributed import Nanny, Status
from distributed.utils import get_mp_context

METHOD = {"distributed.worker.multiprocessing-method": "forkserver"}


class Forked(Nanny):
    """A nanny whose workers are forked."""

    async def instantiate(self) -> Status:
        """Start the worker."""
        with dask.config.set(METHOD):
            get_mp_context()  # at the first time it says what to import; this says more
            multiprocessing.get_context("forkserver").set_forkserver_preload(
                ["distributed", "dask.array", "streamgmm.estimators", "streamgmm.cli"]
            )
            return await super().instantiate()
