"""One primitive: map every block, reduce in a fixed tree. The only room that runs Dask.

The tree's shape depends on the blocks alone. So the result of a pass is the same to the last bit
on one thread, on many, on a cluster of any size, and after a worker has died.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from streamgmm.errors import ParameterError
from streamgmm.passes.base import Carry, Executor, Mergeable, blocks_in_task, tree_levels
from streamgmm.passes.blas import one_blas_thread
from streamgmm.passes.local import LocalExecutor
from streamgmm.passes.memory import may_keep, memory_here, worker_here
from streamgmm.passes.watch import workers_there
from streamgmm.passes.workers import check_workers, connect, make_ready
from streamgmm.sources import Block

__all__ = [
    "Carry",
    "Executor",
    "LocalExecutor",
    "Mergeable",
    "active_client",
    "blocks_in_task",
    "check_workers",
    "connect",
    "default_threads",
    "one_blas_thread",
    "open_executor",
    "tree_levels",
    "workers_there",
]

_CLUSTER_NAMES = {"", "distributed", "dask.distributed"}  # a client sets the last one


@contextmanager
def open_executor(
    blocks: Sequence[Block],
    *,
    n_threads: int | None = None,
    client: Any = None,
    split_every: int = 8,
    keep: int = 0,
) -> Iterator[Executor]:
    """Open an executor of passes over `blocks`: this thread, threads, or a cluster.

    A cluster is used where a client is given or active, as everywhere in Dask. There are three
    exceptions: `n_threads` is given; ``dask.config`` names a local scheduler; or this code is
    itself a task on a worker, which then runs on the one thread that it has. A single block of
    rows that are in this process's memory is always run here.

    Parameters
    ----------
    blocks : sequence of Block
    n_threads : int, optional
        Threads of the local executor; by default those that Dask would use: its ``num_workers``
        setting, or the processors that this process may use.
    client : distributed.Client, optional
    split_every : int, default=8
        Fan-in of the tree: how many neighbours are merged at a time.
    keep : int, default=0
        Bytes that a cache of all rows takes, from `streamgmm.sources.kept_bytes`; 0 for no
        cache. Rows are cached where they were first read, until the executor closes. That is
        done only if all of them fit in an eighth of the memory (``passes.memory.KEPT_SHARE``)
        of this process, or of the workers of a cluster.

    Yields
    ------
    Executor

    Raises
    ------
    ParameterError
        If there are no blocks, or a setting is out of range.
    WorkerError, SourceError
        If workers have another version of this package, or cannot see the data.

    Examples
    --------
    >>> import numpy as np
    >>> from streamgmm.sources import open_source
    >>> class Count(int):
    ...     def merge(self, other):
    ...         return Count(self + other)
    >>> blocks = open_source(np.zeros((5000, 2))).blocks(16384)
    >>> with open_executor(blocks, n_threads=2) as executor:
    ...     executor.run(lambda scale, block: Count(scale * block.n_rows), 10)
    50000
    """
    if not blocks:
        raise ParameterError("there are no blocks to run on")
    if split_every < 2:
        raise ParameterError(f"split_every={split_every} must be 2 or more")
    if n_threads is not None and n_threads < 1:
        raise ParameterError(f"n_threads={n_threads} must be 1 or more")
    if client is None and n_threads is None:
        client = active_client()
    if client is not None and (len(blocks) > 1 or not blocks[0].resident):
        from streamgmm.passes.cluster import ClusterExecutor

        cluster = ClusterExecutor(blocks, client, split_every, keep)
        make_ready(client, blocks)
        try:
            yield cluster
        finally:
            cluster.close()
        return
    n_threads = min(default_threads() if n_threads is None else n_threads, len(blocks))
    from dask.system import CPU_COUNT

    keeps = may_keep(keep, memory_here())
    local = LocalExecutor(blocks, n_threads, split_every, keeps, alone=n_threads >= CPU_COUNT)
    try:
        yield local
    finally:
        local.close()


def _named_scheduler() -> str:
    import dask

    scheduler = dask.config.get("scheduler", None)
    return scheduler.lower() if isinstance(scheduler, str) else ""


def active_client() -> Any:
    """Give the client that is active in this process, without importing distributed."""
    module = sys.modules.get("distributed")
    if module is None or worker_here() is not None or _named_scheduler() not in _CLUSTER_NAMES:
        return None
    try:
        return module.default_client()
    except ValueError:
        return None


def default_threads() -> int:
    """Give the default number of threads of a pass in this process.

    It is Dask's ``num_workers`` setting, or the processors that this process may use. It is one
    where ``dask.config`` asks for a synchronous scheduler, or in a task on a worker.
    """
    import dask
    from dask.system import CPU_COUNT

    serial = {"synchronous", "sync", "single-threaded"}
    if worker_here() is not None or _named_scheduler() in serial:
        return 1
    return int(dask.config.get("num_workers", None) or CPU_COUNT)
