"""How much memory there is, and which part of it may keep rows between passes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from streamgmm.passes.watch import workers_there

KEPT_SHARE = 8
"""Decoded blocks are kept from pass to pass where all of them fit in one part of so many of
the memory that there is: that of this process, or of the workers together."""

_CGROUP_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory.high",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


def worker_here() -> Any:
    """Give the worker of a cluster on which this is a task, None elsewhere."""
    module = sys.modules.get("distributed.worker")
    if module is None:
        return None
    try:
        return module.get_worker()
    except ValueError:
        return None


def memory_here() -> int:
    """Bytes that this process may use; 0 where that is not known.

    The machine's, or what its container is given; on a worker of a cluster the thread's part of
    the worker's limit.
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
    """Bytes that the workers of a cluster have, each taken for the smallest; 0 without limits.

    None while there are no workers.
    """
    limits = [int(each["memory_limit"] or 0) for each in workers_there(client).values()]
    return len(limits) * min(limits) if limits else None


def may_keep(n_bytes: int, memory: int, kept: bool = False) -> bool:
    """Whether so many bytes of rows may be kept between passes.

    Those that are `kept` already may take twice the share, so that a worker that is lost for a
    while does not cost them all.

    >>> may_keep(1 << 30, 8 << 30), may_keep(1 << 30, 7 << 30), may_keep(0, 8 << 30)
    (True, False, False)
    >>> may_keep(1 << 30, 7 << 30, kept=True)
    True
    """
    return 0 < n_bytes <= memory * (1 + kept) // KEPT_SHARE
