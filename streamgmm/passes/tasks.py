"""The tasks of a pass on a worker: what they do, what they are sent, and what they return."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

from dask.system import CPU_COUNT
from distributed.comm.addressing import get_address_host

from streamgmm.errors import StreamGMMError
from streamgmm.passes.base import merge_all
from streamgmm.passes.blas import one_blas_thread
from streamgmm.passes.local import LocalExecutor
from streamgmm.sources import Block, capable, is_kept, read_and_keep


@dataclass(frozen=True)
class Work:
    """What every task of a pass needs.

    `shared` is what many blocks refer to. `hosts` is the number of worker threads on each
    machine.
    """

    func: Callable[[Any, Block], Any]
    context: Any
    shared: Sequence[Any]
    split_every: int
    hosts: Mapping[str, int]
    topic: str
    token: str


class Left(dict[Any, Any]):
    """What a task leaves of its blocks for the tasks of later passes."""

    def __sizeof__(self) -> int:
        """Count the arrays too, as in `Result`."""
        return _size_of(dict(self))


class Result(NamedTuple):
    """The merged value of some blocks, and how many rows were read for it."""

    value: Any
    n_rows: int

    def __sizeof__(self) -> int:
        """Count the arrays too, so that Dask knows what it costs to store and to send."""
        return _size_of(tuple(self))


class Outcome(NamedTuple):
    """The result of some blocks, and what they leave."""

    result: Result
    left: Left

    def __sizeof__(self) -> int:
        """Count the arrays too, as in `Result`."""
        return _size_of(tuple(self))


def _size_of(value: Any) -> int:
    buffers: list[pickle.PickleBuffer] = []
    frame = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return len(frame) + sum(buffer.raw().nbytes for buffer in buffers)


def load_work(payload: bytes) -> Work:
    """Unpickle what was sent."""
    work: Work = pickle.loads(payload)
    return work


class BlockPickler(pickle.Pickler):
    """Pickles blocks without what many of them share, such as an open array: sent once a pass."""

    def __init__(self, file: io.BytesIO, shared: dict[int, Any]) -> None:
        super().__init__(file, protocol=5)
        self.shared = shared

    def persistent_id(self, obj: Any) -> int | None:
        """Number shared objects by their id. They are kept alive, so an id is never used again."""
        if not getattr(type(obj), "shared_by_blocks", False):
            return None
        self.shared.setdefault(id(obj), obj)
        return list(self.shared).index(id(obj))


class _Unpickler(pickle.Unpickler):
    def __init__(self, payload: bytes, shared: Sequence[Any]) -> None:
        super().__init__(io.BytesIO(payload))
        self.shared = shared

    def persistent_load(self, pid: Any) -> Any:
        return self.shared[pid]


def _open(
    sent: Block | tuple[bytes, ...], shared: Sequence[Any], waited: bytes, values: Sequence[Any]
) -> list[Any]:
    """Unpickle blocks, and fill in the results that they waited for."""
    blocks: list[Any]
    if isinstance(sent, tuple):
        blocks = [_Unpickler(each, shared).load() for each in sent]
    else:
        blocks = [sent]
    if not values:
        return blocks
    found = dict(zip(pickle.loads(waited), values, strict=True))
    return [capable(block).fill(found) for block in blocks]


def keep_block(sent: Block | tuple[bytes, ...], waited: bytes = b"", *values: Any) -> Block:
    """Read one block on a worker; the result, with its rows, stays there as a cache."""
    (block,) = _open(sent, (), waited, values)
    with one_blas_thread():
        return read_and_keep(block)


def map_blocks(
    work: Work,
    sent: Block | tuple[bytes, ...],
    at: int,
    first: bool = True,
    waited: bytes = b"",
    *values: Any,
) -> Result:
    """Run blocks on a worker. The first of them has the index `at` in the pass.

    Rows in the cache count as read in the `first` pass over them.
    """
    return _map(work, work.context, sent, at, first, waited, values)


def carry_blocks(
    work: Work,
    sent: Block | tuple[bytes, ...],
    at: int,
    first: bool,
    waited: bytes,
    n_before: int,
    *values: Any,
) -> Outcome:
    """As `map_blocks`, for blocks that take and leave something: see `Carrying`.

    The first `n_before` values are what earlier passes have left.
    """
    before: dict[Any, Any] = {}
    for each in values[:n_before]:
        before |= each
    left = Left()
    context = work.context.carrying(before, left)
    return Outcome(_map(work, context, sent, at, first, waited, values[n_before:]), left)


def result_of(outcome: Outcome) -> Result:
    """Give the result, so that what is left need not follow it into the merges."""
    return outcome.result


def left_of(outcome: Outcome) -> Left:
    """Give what is left, so that the statistics of a block need not stay with it."""
    return outcome.left


def _map(
    work: Work,
    context: Any,
    sent: Block | tuple[bytes, ...],
    at: int,
    first: bool,
    waited: bytes,
    values: Sequence[Any],
) -> Result:
    from distributed import get_worker

    blocks = _open(sent, work.shared, waited, values)
    n_rows = sum(block.n_rows for block in blocks if first or not is_kept(block))
    worker = get_worker()
    n_here = work.hosts.get(get_address_host(worker.address), 0)
    executor = LocalExecutor(blocks, 1, work.split_every, alone=n_here >= CPU_COUNT)
    indices = count(at)

    def report(_: int) -> None:
        worker.log_event(work.topic, (work.token, next(indices)))

    try:
        value = executor.run(work.func, context, on_block=report if work.topic else None)
    except StreamGMMError as error:
        # The message tells the cause. A cause that does not pickle would keep the error from it.
        error.__cause__ = error.__context__ = None
        raise
    return Result(value, n_rows)


def nothing() -> None:
    """Do nothing: a task that keeps its task group alive."""


def merge_results(*told: Result) -> Result:
    """Merge from left to right."""
    values, n_rows = zip(*told, strict=True)
    return Result(merge_all(values), sum(n_rows))
