"""How much memory there is, and how much of it a cache of rows may take."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from streamgmm.passes.watch import workers_there

KEPT_SHARE = 8
"""Decoded rows are cached between passes if all of them fit in 1/`KEPT_SHARE` of memory: of this
process, or of all workers together."""

_CGROUP_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory.high",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


def worker_here() -> Any:
    """Give the Dask worker that runs this code as a task; None elsewhere."""
    module = sys.modules.get("distributed.worker")
    if module is None:
        return None
    try:
        return module.get_worker()
    except ValueError:
        return None


def memory_here() -> int:
    """Bytes that this process may use; 0 where that is not known.

    It is the memory of the machine, or the limit of the container. In a task on a worker it is
    the worker's limit, divided by the number of its threads.
    """
    worker = worker_here()
    if worker is not None:
        return int(worker.memory_manager.memory_limit or 0) // int(worker.state.nthreads)
    try:
        limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not everywhere
        return 0
    for path in _CGROUP_LIMITS:
        try:
            limit = min(limit, int(Path(path).read_text()))
        except (OSError, ValueError):  # no such limit, or "max"
            continue
    return limit


def memory_of(client: Any) -> int | None:
    """Bytes of memory of all workers of a cluster: the smallest limit, times their number.

    0 if there are no limits; None while there are no workers.
    """
    limits = [int(each["memory_limit"] or 0) for each in workers_there(client).values()]
    return len(limits) * min(limits) if limits else None


def may_keep(n_bytes: int, memory: int, kept: bool = False) -> bool:
    """Whether so many bytes of rows may be cached between passes.

    Rows that are cached already (`kept`) may take twice the share. So the cache survives the
    loss of a worker for a while.

    >>> may_keep(1 << 30, 8 << 30), may_keep(1 << 30, 7 << 30), may_keep(0, 8 << 30)
    (True, False, False)
    >>> may_keep(1 << 30, 7 << 30, kept=True)
    True
    """
    return 0 < n_bytes <= memory * (1 + kept) // KEPT_SHARE
