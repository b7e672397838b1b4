"""The task graph of one pass on a cluster, and the blocks that were sent there for it."""

from __future__ import annotations

import io
import pickle
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streamgmm.passes.base import Carry, blocks_in_task
from streamgmm.passes.carried import Carrier, LeftBlocks
from streamgmm.passes.tasks import (
    BlockPickler,
    keep_block,
    load_work,
    map_blocks,
    merge_results,
    nothing,
)
from streamgmm.sources import Block, capable

_SCATTER_BYTES = 256 << 20


@dataclass
class SentBlocks:
    """The blocks of an executor, and what the cluster has of them, by index.

    Attributes
    ----------
    blocks : sequence of Block
    client : distributed.Client
    small : dict of int to bytes
        Blocks without rows, pickled, which go into the graph of every pass.
    shared : dict of int to object
        What many of those refer to, such as an open array, by id; it is sent once a pass.
    scattered : dict of int to Future
        Blocks with rows, which workers hold until the executor closes.
    kept : dict of int to Future
        Blocks whose rows were read by a task, and stay where they were read.
    """

    blocks: Sequence[Block]
    client: Any
    small: dict[int, bytes] = field(default_factory=dict)
    shared: dict[int, Any] = field(default_factory=dict)
    scattered: dict[int, Any] = field(default_factory=dict)
    kept: dict[int, Any] = field(default_factory=dict)

    def send(self, indices: Sequence[int]) -> None:
        """Pickle blocks without rows, and scatter blocks with rows; those that are new."""
        batch: list[int] = []
        size = 0
        for index in indices:
            if index in self.scattered or index in self.small:
                continue
            block = self.blocks[index]
            if not block.resident:
                file = io.BytesIO()
                BlockPickler(file, self.shared).dump(block)
                self.small[index] = file.getvalue()
                continue
            batch.append(index)
            size += _size(block)
            if size >= _SCATTER_BYTES:
                self._scatter(batch)
                batch, size = [], 0
        if batch:
            self._scatter(batch)

    def _scatter(self, batch: list[int]) -> None:
        futures = self.client.scatter([self.blocks[i] for i in batch], hash=False)
        self.scattered.update(zip(batch, futures, strict=True))

    def forget_lost(self) -> None:
        """Forget scattered blocks that a dead worker held, and what was read of them."""
        time.sleep(0.2)  # for the scheduler to tell of all that is lost
        for held in (self.scattered, self.kept):
            for index, future in list(held.items()):
                if future.status != "finished":
                    future.release()
                    del held[index]

    def drop_kept(self) -> None:
        """Let the workers drop the rows that tasks have kept."""
        _release(self.kept)

    def close(self) -> None:
        """Let the workers drop all blocks."""
        _release(self.scattered)
        _release(self.kept)


class Pins:
    """Keeps the task groups of an executor alive in the scheduler from pass to pass.

    A scheduler never forgets a group that it has seen and lost (its spans keep them all). A new
    group every pass would make it grow, but a group with a task in it is used again.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._pins: dict[str, Any] = {}

    def hold(self, groups: Sequence[str]) -> None:
        """Put a task into each group that has none."""
        from dask._task_spec import Task

        new = {group: (group, "open") for group in groups if group not in self._pins}
        if new:
            graph = {key: Task(key, nothing) for key in new.values()}
            futures = self._client.get(graph, list(new.values()), sync=False)
            self._pins.update(zip(new, futures, strict=True))

    def close(self) -> None:
        """Let the groups go."""
        _release(self._pins)


@dataclass(frozen=True)
class Graph:
    """The graph of one pass.

    Attributes
    ----------
    tasks : dict
        By key.
    root : tuple
        Key of the task that gives the merged result.
    loads : dict of int to tuple
        Keys of the tasks whose results stay on the workers, by the index of their block.
    lefts : dict of int to tuple
        Keys of what blocks leave for later passes, by their index.
    groups : list of str
        The names of the task groups.
    leaf : int
        How many blocks a task reads.
    """

    tasks: dict[Any, Any]
    root: Any
    loads: dict[int, Any]
    lefts: dict[int, Any]
    groups: list[str]
    leaf: int


def build_graph(
    sent: SentBlocks,
    work: bytes,
    indices: Sequence[int],
    *,
    name: str,
    token: str,
    pass_id: int,
    keeps: bool,
    known: set[int],
    n_threads: int,
    split_every: int,
    left: LeftBlocks,
    carry: Carry | None,
) -> Graph:
    """Make the graph of one pass: a task for each block or run of blocks, and the tree.

    Parameters
    ----------
    sent : SentBlocks
    work : bytes
        The pickled `Work`, which all tasks depend on.
    indices : sequence of int
        The blocks of this pass, in order.
    name, token, pass_id
        Of the function, the executor and the pass: keys are made of them.
    keeps : bool
        Whether rows stay on the workers.
    known : set of int
        Blocks whose rows were read before by a pass that keeps them.
    n_threads : int
        Threads of all workers; 0 where none are there yet.
    split_every : int
        How many neighbours are merged at a time.
    left : LeftBlocks
    carry : Carry or None
        What blocks take from earlier passes, and leave.
    """
    from dask._task_spec import Task, TaskRef

    kinds = ["context", name, "merge", "keep", "result", "left"]
    of_kind = {kind: f"streamgmm-{kind}-{token}" for kind in kinds}
    context_group, map_group, merge_group, keep_group, result_group, left_group = of_kind.values()
    groups = [context_group, map_group, merge_group]
    groups += [keep_group] if keeps else []
    groups += [result_group, left_group] if carry is not None else []
    work_key = (context_group, pass_id)
    tasks: dict[Any, Any] = {work_key: Task(work_key, load_work, work)}
    # Tasks without rows are queued at the scheduler; others are run where their rows are.
    scattered = any(index in sent.scattered for index in indices)
    queued = not scattered and not keeps
    waits = [_futures(sent.blocks[index]) for index in indices]
    free = queued and not any(waits)
    many = free and n_threads > 0  # nothing is known of workers that are still to come
    leaf = blocks_in_task(len(indices), n_threads, split_every) if many else 1
    loads: dict[int, Any] = {}
    lefts: dict[int, Any] = {}
    carrier = None
    if carry is not None:
        names = context_group, map_group, result_group, left_group
        carrier = Carrier(tasks, left, carry, names, pass_id)
    nodes: list[Any] = []
    for at in range(0, len(indices), leaf):
        key = (map_group, pass_id, at)
        index = indices[at]
        waited: tuple[Any, ...] = ()
        if waits[at]:
            refs = (TaskRef(future.key) for future in waits[at].values())
            waited = (pickle.dumps(list(waits[at])), *refs)
        if index in sent.scattered:
            block: Any = TaskRef(sent.scattered[index].key)
        else:
            block = tuple(sent.small[i] for i in indices[at : at + leaf])
        if keeps and index not in sent.kept:
            loads[index] = load = (keep_group, pass_id, index)
            if index in sent.small:  # sent once, so it must not depend on the context of this pass
                block = (pickle.dumps(sent.blocks[index]),)
            tasks[load] = Task(load, keep_block, block, *waited, _data_producer=not scattered)
        if keeps:
            block = TaskRef(loads[index] if index in loads else sent.kept[index].key)
            waited = ()
        first = not keeps or index not in known
        if carrier is not None:
            chosen = indices[at : at + leaf]
            key, what = carrier.add(at, chosen, block, first, waited, queued)
            lefts |= dict.fromkeys(chosen, what)
            nodes.append(key)
            continue
        args = (block, at, first, *waited)
        tasks[key] = Task(key, map_blocks, TaskRef(work_key), *args, _data_producer=queued)
        nodes.append(key)
    root = _add_merges(tasks, nodes, (merge_group, pass_id), split_every)
    return Graph(tasks, root, loads, lefts, groups, leaf)


def _add_merges(
    tasks: dict[Any, Any], nodes: list[Any], prefix: tuple[str, int], split_every: int
) -> Any:
    """Add the tree that merges neighbours; give the key of its root."""
    from dask._task_spec import Task, TaskRef

    level = 0
    while len(nodes) > 1:
        level += 1
        parents: list[Any] = []
        for i in range(0, len(nodes), split_every):
            children = nodes[i : i + split_every]
            if len(children) == 1:
                parents.append(children[0])
                continue
            node = (*prefix, level, i)
            tasks[node] = Task(node, merge_results, *(TaskRef(child) for child in children))
            parents.append(node)
        nodes = parents
    return nodes[0]


def _release(held: dict[Any, Any]) -> None:
    for future in held.values():
        future.release()
    held.clear()


def _futures(block: Block) -> Mapping[Any, Any]:
    """Results on the cluster that a block waits for, by key."""
    found: Mapping[Any, Any] = capable(block).futures
    return found


def _size(block: Block) -> int:
    return int(capable(block).carried_bytes)
