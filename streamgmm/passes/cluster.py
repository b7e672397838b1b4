"""Passes on a Dask cluster: one graph a pass."""

from __future__ import annotations

import io
import math
import pickle
import queue
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import Any
from weakref import WeakKeyDictionary

import cloudpickle  # type: ignore[import-untyped]

from streamgmm.errors import ParameterError, WorkerLostError
from streamgmm.passes.base import C, M, OnBlock, blocks_in_task
from streamgmm.passes.memory import may_keep, memory_of
from streamgmm.passes.tasks import (
    BlockPickler,
    Work,
    keep_block,
    load_work,
    map_blocks,
    merge_results,
    nothing,
)
from streamgmm.passes.watch import LOOK_SECONDS, Watch, lost_scheduler, workers_there
from streamgmm.sources import Block, capable

_SCATTER_BYTES = 256 << 20
_LOST_TRIES = 4
_AROUND_SECONDS = 10.0  # for which it is believed how many threads there are
_ADVICE = (
    "most likely for want of memory; use a smaller block_size, smaller chunks, or workers with "
    "more memory"
)


class _Progress:
    """What workers of one client's cluster report, handed to the pass that waits for it.

    A scheduler keeps a topic for as long as it lives, so there is one a client, not one a pass.
    """

    def __init__(self, client: Any) -> None:
        self.topic = f"streamgmm-{client.id}"
        self.queues: dict[str, queue.SimpleQueue[int | None]] = {}
        client.subscribe_topic(self.topic, self._handle)

    def _handle(self, event: tuple[float, tuple[str, int]]) -> None:
        _, (token, index) = event
        waiting = self.queues.get(token)
        if waiting is not None:
            waiting.put(index)


_progress: WeakKeyDictionary[Any, _Progress] = WeakKeyDictionary()


class ClusterExecutor:
    """Runs each pass as one graph on a Dask cluster: a task a block, and the tree.

    The graph carries `func` and its context once, as a task that the blocks depend on. Blocks
    are sent as they are where they are small; where there are many for each worker, a task is a
    whole branch of the tree, which merges the same values in the same order. Those that hold
    rows are scattered when first used and kept by the workers until the executor closes; what a
    dying worker takes along is scattered again, and the pass repeated.

    Where rows are to be kept, the first pass over a block is two tasks: one reads it, and its
    result stays where it is; the other computes, as those of later passes do, which Dask sends
    to where that result is. What a dying worker takes along is read again elsewhere. Before
    each pass the workers that there are must have room for all blocks: if not, all are let go.
    """

    def __init__(
        self, blocks: Sequence[Block], client: Any, split_every: int = 8, keep: int = 0
    ) -> None:
        if client.asynchronous:
            raise ParameterError(
                "the client is asynchronous; pass one made with asynchronous=False"
            )
        self.blocks = blocks
        self.client = client
        self.split_every = split_every
        self._token = uuid.uuid4().hex[:12]
        self._n_passes = 0
        self._leaf = 1
        self._hosts: dict[str, int] = {}
        self._looked = -math.inf
        self._small: dict[int, bytes] = {}
        self._shared: dict[int, Any] = {}
        self._scattered: dict[int, Any] = {}
        self._pins: dict[str, Any] = {}
        self._keep = keep
        self._kept: dict[int, Any] = {}
        self.rows_read = 0
        self.known: set[int] = set()

    def run(
        self,
        func: Callable[[C, Block], M],
        context: C,
        *,
        on_block: OnBlock | None = None,
        blocks: Sequence[int] | None = None,
        afresh: bool = False,
    ) -> M:
        """Map and merge; see `Executor`."""
        indices = range(len(self.blocks)) if blocks is None else list(blocks)
        if not len(indices):
            raise ParameterError("there are no blocks to run on")
        self._scatter(indices)
        name = getattr(func, "__name__", "pass").strip("_<>") or "pass"
        reported: set[int] = set()

        def report(i: int) -> None:
            if on_block is not None and i not in reported:
                reported.add(i)
                on_block(self.blocks[indices[i]].n_rows)

        for attempt in range(1, _LOST_TRIES + 1):
            self._scatter(indices)
            try:
                keeps = not afresh and self._has_room()
                value = self._run_once(
                    name, (func, context), indices, report if on_block else None, keeps
                )
            except Exception as error:
                self._explain(error, indices)
                if isinstance(error, (CancelledError, OSError)) and self._is_lost(error):
                    raise lost_scheduler(self.client) from error
                if not self._forget_lost(error):
                    raise
                if attempt == _LOST_TRIES:
                    raise WorkerLostError(
                        f"workers that held blocks of rows were lost in {attempt} tries of one "
                        f"pass, {_ADVICE}"
                    ) from error
                continue
            if on_block is not None:
                for i in range(len(indices)):
                    report(i)
            return value  # type: ignore[no-any-return]
        raise AssertionError

    def _run_once(
        self,
        name: str,
        what: tuple[Callable[[Any, Block], Any], Any],
        indices: Sequence[int],
        report: Callable[[int], None] | None,
        keeps: bool,
    ) -> Any:
        import dask

        self._n_passes += 1
        topic, token = "", f"{self._token}-{self._n_passes}"
        finished: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        progress: _Progress | None = None
        if report is not None:
            progress = _progress.get(self.client)
            if progress is None:
                progress = _progress[self.client] = _Progress(self.client)
            topic = progress.topic
            progress.queues[token] = finished
        shared = tuple(self._shared.values())
        work = Work(*what, shared, self.split_every, self._look_around(), topic, token)
        graph, root, new = self._graph(name, cloudpickle.dumps(work), indices, keeps)
        future = None
        loads: list[Any] = []
        try:
            with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TiB"}):
                future, *loads = self.client.get(graph, [root, *new.values()], sync=False)
            future.add_done_callback(lambda _: finished.put(None))
            watch = Watch(self.client, self._token, self._leaf)
            while not future.done():
                try:
                    i = finished.get(timeout=LOOK_SECONDS)
                except queue.Empty:
                    watch.look()
                    continue
                watch.progress()
                if i is not None and report is not None:
                    report(i)
            value, n_rows = future.result()
            self._kept.update(zip(new, loads, strict=True))
            self.known.update(indices if keeps else ())
            self.rows_read += n_rows
            loads = []
            return value
        except KeyboardInterrupt:
            if future is not None:
                self.client.cancel([future, *loads], force=True)
            raise
        finally:
            for each in loads if future is None else [future, *loads]:
                each.release()
            if progress is not None:
                progress.queues.pop(token, None)
            self._forget_sent()

    def _forget_sent(self) -> None:
        """Let go of the graphs that the client's connection keeps for those who debug it.

        It keeps its last thousand messages of up to 1 MB, so that a hundred passes of 64 blocks
        would hold 17 MiB, and a thousand of 350 blocks 1 GB.
        """
        comm = getattr(self.client, "scheduler_comm", None)
        kept = getattr(comm, "recent_message_log", None)
        if kept is not None:
            kept.clear()

    def _look_around(self) -> dict[str, int]:
        """Threads of workers on each machine, as they lately were."""
        if not self._hosts or time.monotonic() - self._looked > _AROUND_SECONDS:
            self._looked = time.monotonic()
            self._hosts = {}
            for each in workers_there(self.client).values():
                self._hosts[each["host"]] = self._hosts.get(each["host"], 0) + each["nthreads"]
        return self._hosts

    def _graph(
        self, name: str, work: bytes, indices: Sequence[int], keeps: bool
    ) -> tuple[dict[Any, Any], Any, dict[int, Any]]:
        """Make the graph of one pass; give it, the key of its root and those of what to keep."""
        from dask._task_spec import Task, TaskRef

        kinds = ("context", name, "merge", *(["keep"] if keeps else []))
        groups = [f"streamgmm-{kind}-{self._token}" for kind in kinds]
        context_group, map_group, merge_group, *keep_group = groups
        pass_id = self._n_passes
        work_key = (context_group, pass_id)
        graph: dict[Any, Any] = {work_key: Task(work_key, load_work, work)}
        # Blocks that hold nothing are queued at the scheduler; others go to where their rows are.
        scattered = any(index in self._scattered for index in indices)
        queued = not scattered and not keeps
        waits = [_futures(self.blocks[index]) for index in indices]
        free = queued and not any(waits)
        n_threads = sum(self._hosts.values())
        many = free and n_threads > 0  # of workers that are still to come nothing is known
        leaf = blocks_in_task(len(indices), n_threads, self.split_every) if many else 1
        self._leaf = leaf
        new: dict[int, Any] = {}
        nodes: list[Any] = []
        for at in range(0, len(indices), leaf):
            key = (map_group, pass_id, at)
            index = indices[at]
            sent: tuple[Any, ...] = ()
            if waits[at]:
                refs = (TaskRef(future.key) for future in waits[at].values())
                sent = (pickle.dumps(list(waits[at])), *refs)
            if index in self._scattered:
                block: Any = TaskRef(self._scattered[index].key)
            else:
                block = tuple(self._small[i] for i in indices[at : at + leaf])
            if keeps and index not in self._kept:
                new[index] = load = (*keep_group, pass_id, index)
                if index in self._small:  # it is sent once, and must not need this pass's context
                    block = (pickle.dumps(self.blocks[index]),)
                graph[load] = Task(load, keep_block, block, *sent, _data_producer=not scattered)
            if keeps:
                block = TaskRef(new[index] if index in new else self._kept[index].key)
                sent = ()
            first = not keeps or index not in self.known
            args = (block, at, first, *sent)
            graph[key] = Task(key, map_blocks, TaskRef(work_key), *args, _data_producer=queued)
            nodes.append(key)
        level = 0
        while len(nodes) > 1:
            level += 1
            parents: list[Any] = []
            for i in range(0, len(nodes), self.split_every):
                children = nodes[i : i + self.split_every]
                if len(children) == 1:
                    parents.append(children[0])
                    continue
                node = (merge_group, pass_id, level, i)
                graph[node] = Task(node, merge_results, *(TaskRef(child) for child in children))
                parents.append(node)
            nodes = parents
        self._pin(groups)
        return graph, nodes[0], new

    def _pin(self, groups: list[str]) -> None:
        """Keep the task groups of this executor alive in the scheduler from pass to pass.

        A scheduler never forgets a group that it has seen and lost (its spans keep them all), so
        a new group every pass would make it grow; a group with a task in it is used again.
        """
        from dask._task_spec import Task

        new = {group: (group, "open") for group in groups if group not in self._pins}
        if new:
            graph = {key: Task(key, nothing) for key in new.values()}
            futures = self.client.get(graph, list(new.values()), sync=False)
            self._pins.update(zip(new, futures, strict=True))

    def _scatter(self, indices: Sequence[int]) -> None:
        """Send the blocks that hold rows to the workers, those that are not there yet."""
        batch: list[int] = []
        size = 0
        for index in indices:
            if index in self._scattered or index in self._small:
                continue
            block = self.blocks[index]
            if not block.resident:
                file = io.BytesIO()
                BlockPickler(file, self._shared).dump(block)
                self._small[index] = file.getvalue()
                continue
            batch.append(index)
            size += capable(block).carried_bytes
            if size >= _SCATTER_BYTES:
                self._scatter_now(batch)
                batch, size = [], 0
        if batch:
            self._scatter_now(batch)

    def _scatter_now(self, batch: list[int]) -> None:
        futures = self.client.scatter([self.blocks[i] for i in batch], hash=False)
        self._scattered.update(zip(batch, futures, strict=True))

    def _has_room(self) -> bool:
        """Whether the workers that there are can keep all blocks; if not they keep none."""
        if not self._keep:
            return False
        memory = memory_of(self.client)
        if memory is None:  # they are on their way, or are being replaced
            return bool(self.known)
        if may_keep(self._keep, memory, bool(self.known)):
            return True
        for future in self._kept.values():
            future.release()
        self._kept.clear()
        self.known.clear()
        return False

    def _forget_lost(self, error: Exception) -> bool:
        """Whether `error` came of scattered blocks that a dead worker held; forget those.

        And what was read of blocks that were made of them.
        """
        if not self._scattered or not isinstance(error, CancelledError):
            return False
        time.sleep(0.2)  # for the scheduler to tell of all that is lost
        for held in (self._scattered, self._kept):
            for index, future in list(held.items()):
                if future.status != "finished":
                    future.release()
                    del held[index]
        return True

    def _is_lost(self, error: Exception) -> bool:
        """Whether it was the scheduler that went away."""
        reason = getattr(error, "reason", "")
        return self.client.status != "running" or reason == "scheduler-connection-lost"

    def _explain(self, error: Exception, indices: Sequence[int]) -> None:
        """Turn a block that ended its workers into an error that says what to do."""
        from distributed import KilledWorker

        if not isinstance(error, KilledWorker):
            return
        key: Any = error.task
        where = "a merge"
        if isinstance(key, tuple) and len(key) == 3:
            reading = key[0].startswith("streamgmm-keep-")
            run = [key[2]] if reading else indices[key[2] : key[2] + self._leaf]
            first, last = self.blocks[run[0]], self.blocks[run[-1]]
            where = "the block" if len(run) == 1 else f"one of {len(run)} blocks"
            where += f" of rows {first.start}:{last.start + last.n_rows}"
        raise WorkerLostError(
            f"{where} ended its worker {error.allowed_failures + 1} times, {_ADVICE}"
        ) from error

    def close(self) -> None:
        """Let the workers drop the blocks that they hold."""
        for held in (self._scattered, self._kept, self._pins):
            for future in held.values():
                future.release()
            held.clear()


def _futures(block: Block) -> Mapping[Any, Any]:
    """Results on the cluster that a block waits for, by key."""
    found: Mapping[Any, Any] = capable(block).futures
    return found
