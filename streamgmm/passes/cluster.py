"""Passes on a Dask cluster: one task graph for each pass."""

from __future__ import annotations

import math
import queue
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from typing import Any
from weakref import WeakKeyDictionary

import cloudpickle  # type: ignore[import-untyped]

from streamgmm.errors import ParameterError, WorkerLostError
from streamgmm.passes.base import C, M, OnBlock
from streamgmm.passes.carried import LeftBlocks
from streamgmm.passes.graph import Pins, SentBlocks, build_graph
from streamgmm.passes.memory import may_keep, memory_of
from streamgmm.passes.tasks import Work
from streamgmm.passes.watch import LOOK_SECONDS, Watch, lost_scheduler, workers_there
from streamgmm.sources import Block

_LOST_TRIES = 4
_AROUND_SECONDS = 10.0  # for so long the number of threads is cached
_ADVICE = (
    "most likely for want of memory; use a smaller block_size, smaller chunks, or workers with "
    "more memory"
)


class _Progress:
    """Progress reports of the workers of one client, put into the queue of the right pass.

    A scheduler keeps a topic for as long as it lives. So there is one topic for each client, and
    not one for each pass.
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
    """Runs each pass as one task graph on a Dask cluster: a task for each block, and the tree.

    The graph carries `func` and its context once, as a task that the blocks depend on. Small
    blocks are part of the graph. Where there are many blocks for each worker, one task reads a
    whole branch of the tree, and merges the same values in the same order. Blocks that carry
    rows are scattered when they are first used, and stay on the workers until the executor
    closes. If a worker dies, its blocks are scattered again, and the pass is repeated.

    With a cache, the first pass over a block is two tasks. One reads it, and its result stays on
    that worker. The other computes; Dask runs it, and those of later passes, where that result
    is. If a worker dies, Dask reads its blocks again on another. Before each pass the cache must
    fit in the memory of the workers that there are; otherwise all of it is dropped.

    Where the context is `Carrying`, a block is three tasks: one computes, and the others part its
    statistics from what it leaves for the next pass, which stays on that worker.
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
        self._keep = keep
        self._sent = SentBlocks(blocks, client)
        self._left = LeftBlocks(logs=any(block.resident for block in blocks))
        self._pins = Pins(client)
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
        self._sent.send(indices)
        name = getattr(func, "__name__", "pass").strip("_<>") or "pass"
        reported: set[int] = set()

        def report(i: int) -> None:
            if on_block is not None and i not in reported:
                reported.add(i)
                on_block(self.blocks[indices[i]].n_rows)

        for attempt in range(1, _LOST_TRIES + 1):
            self._sent.send(indices)
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
        shared = tuple(self._sent.shared.values())
        hosts = self._look_around()
        work = cloudpickle.dumps(Work(*what, shared, self.split_every, hosts, topic, token))
        carry = getattr(what[1], "carry", None)
        if carry is not None:
            self._left.drop((*carry.drops, *carry.leaves))
        graph = build_graph(
            self._sent, work, indices, name=name, token=self._token,
            pass_id=self._n_passes, keeps=keeps, known=self.known,
            n_threads=sum(hosts.values()), split_every=self.split_every,
            left=self._left, carry=carry,
        )  # fmt: skip
        self._leaf = graph.leaf
        self._pins.hold(graph.groups)
        future = None
        held: list[Any] = []
        stay = [*graph.loads.values(), *dict.fromkeys(graph.lefts.values())]
        try:
            with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TiB"}):
                future, *held = self.client.get(graph.tasks, [graph.root, *stay], sync=False)
            self._wait(future, finished, report)
            value, n_rows = future.result()
            by_key = dict(zip(stay, held, strict=True))
            self._sent.kept.update((i, by_key[key]) for i, key in graph.loads.items())
            if carry is not None:
                lefts = {i: by_key[key] for i, key in graph.lefts.items()}
                self._left.update(work, carry, lefts)
            self.known.update(indices if keeps else ())
            self.rows_read += n_rows
            held = []
            return value
        except KeyboardInterrupt:
            if future is not None:
                self.client.cancel([future, *held], force=True)
            raise
        finally:
            for each in held if future is None else [future, *held]:
                each.release()
            if progress is not None:
                progress.queues.pop(token, None)
            self._forget_sent()

    def _wait(
        self,
        future: Any,
        finished: queue.SimpleQueue[int | None],
        report: Callable[[int], None] | None,
    ) -> None:
        """Wait for the result of a pass; report blocks, and look after workers meanwhile."""
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

    def _forget_sent(self) -> None:
        """Drop the graphs that the client's connection keeps as a log for debugging.

        It keeps its last thousand messages of up to 1 MB. A hundred passes of 64 blocks would
        hold 17 MiB, and a thousand passes of 350 blocks 1 GB.
        """
        comm = getattr(self.client, "scheduler_comm", None)
        kept = getattr(comm, "recent_message_log", None)
        if kept is not None:
            kept.clear()

    def _look_around(self) -> dict[str, int]:
        """Give the number of worker threads on each machine, from a cache of some seconds."""
        if not self._hosts or time.monotonic() - self._looked > _AROUND_SECONDS:
            self._looked = time.monotonic()
            self._hosts = {}
            for each in workers_there(self.client).values():
                self._hosts[each["host"]] = self._hosts.get(each["host"], 0) + each["nthreads"]
        return self._hosts

    def _has_room(self) -> bool:
        """Whether the cache fits in the memory of the workers; if not it is dropped."""
        if not self._keep:
            return False
        memory = memory_of(self.client)
        if memory is None:  # workers are still to come, or are being replaced
            return bool(self.known)
        if may_keep(self._keep, memory, bool(self.known)):
            return True
        self._sent.drop_kept()
        self.known.clear()
        return False

    def _forget_lost(self, error: Exception) -> bool:
        """Whether `error` came of scattered blocks that a dead worker held; forget those."""
        if not self._sent.scattered or not isinstance(error, CancelledError):
            return False
        self._sent.forget_lost()
        self._left.forget_lost()
        return True

    def _is_lost(self, error: Exception) -> bool:
        """Whether the scheduler was lost."""
        reason = getattr(error, "reason", "")
        return self.client.status != "running" or reason == "scheduler-connection-lost"

    def _explain(self, error: Exception, indices: Sequence[int]) -> None:
        """Raise WorkerLostError, which says what to do, if a block killed its workers."""
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
        # Dask counts what a worker was given, whether or not it had begun.
        raise WorkerLostError(
            f"workers were lost {error.allowed_failures + 1} times that had {where}, perhaps not "
            f"that alone, {_ADVICE}"
        ) from error

    def close(self) -> None:
        """Let the workers drop the blocks that they hold."""
        self._sent.close()
        self._left.close()
        self._pins.close()
