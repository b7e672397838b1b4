"""Passes in this process: in the calling thread, or on threads."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from streamgmm.errors import ParameterError
from streamgmm.passes.base import C, M, OnBlock, Tree
from streamgmm.passes.blas import one_blas_thread
from streamgmm.sources import Block, Piece


@dataclass(frozen=True)
class SerialExecutor:
    """Runs block after block in the calling thread. The oracle for the others."""

    blocks: Sequence[Block]
    split_every: int = 8

    def run(
        self,
        func: Callable[[C, Block], M],
        context: C,
        *,
        on_block: OnBlock | None = None,
        blocks: Sequence[int] | None = None,
    ) -> M:
        """Map and merge; see `Executor`."""
        chosen = _choose(self.blocks, blocks)
        tree: Tree[M] = Tree(len(chosen), self.split_every)
        with one_blas_thread():
            for i, block in enumerate(chosen):
                tree.add(i, func(context, block))
                if on_block is not None:
                    on_block(block.n_rows)
        return tree.result()


def _choose(blocks: Sequence[Block], indices: Sequence[int] | None) -> Sequence[Block]:
    if indices is None:
        return blocks
    if not len(indices):
        raise ParameterError("there are no blocks to run on")
    return [blocks[i] for i in indices]


class _StoppedError(Exception):
    """A block that was not read to its end because another one failed."""


@dataclass(frozen=True)
class _StoppableBlock:
    """A block that stops between pieces once its pass is over."""

    block: Block
    stop: threading.Event

    @property
    def start(self) -> int:
        return self.block.start

    @property
    def n_rows(self) -> int:
        return self.block.n_rows

    @property
    def resident(self) -> bool:
        return self.block.resident

    def __getattr__(self, name: str) -> Any:
        return getattr(self.block, name)  # what only some kinds of block have

    def part(self, start: int, stop: int) -> _StoppableBlock:
        block: Any = self.block
        return _StoppableBlock(block.part(start, stop), self.stop)

    def pieces(self) -> Iterator[Piece]:
        for piece in self.block.pieces():
            if self.stop.is_set():
                raise _StoppedError
            yield piece


class ThreadsExecutor:
    """Runs blocks on threads of this process, kept for as long as the executor is open."""

    def __init__(self, blocks: Sequence[Block], n_threads: int, split_every: int = 8) -> None:
        self.blocks = blocks
        self.n_threads = n_threads
        self.split_every = split_every
        self._serial = SerialExecutor(blocks, split_every)
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix="streamgmm")

    def run(
        self,
        func: Callable[[C, Block], M],
        context: C,
        *,
        on_block: OnBlock | None = None,
        blocks: Sequence[int] | None = None,
    ) -> M:
        """Map and merge; see `Executor`."""
        chosen = _choose(self.blocks, blocks)
        if len(chosen) == 1:
            return self._serial.run(func, context, on_block=on_block, blocks=blocks)
        tree: Tree[M] = Tree(len(chosen), self.split_every)
        done: queue.SimpleQueue[tuple[int, Future[M]]] = queue.SimpleQueue()
        stop = threading.Event()
        under_way: set[Future[M]] = set()
        waiting = iter(enumerate(chosen))

        def submit() -> None:
            i, block = next(waiting, (-1, None))
            if block is not None:
                future = self._pool.submit(func, context, _StoppableBlock(block, stop))
                under_way.add(future)
                future.add_done_callback(lambda future: done.put((i, future)))

        try:
            with one_blas_thread():
                for _ in range(self.n_threads + 1):  # one more, so that no thread waits for us
                    submit()
                for _ in chosen:
                    i, future = done.get()
                    under_way.discard(future)
                    value = future.result()
                    submit()
                    tree.add(i, value)
                    del value, future
                    if on_block is not None:
                        on_block(chosen[i].n_rows)
        except BaseException:
            stop.set()
            for future in under_way:
                future.cancel()
            for future in under_way:
                if not future.cancelled():
                    future.exception()  # until it has stopped
            raise
        return tree.result()

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)
