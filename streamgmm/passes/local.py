"""Passes in this process: in the calling thread, or on threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Generic

from streamgmm.errors import ParameterError
from streamgmm.passes.base import C, M, OnBlock, Tree
from streamgmm.passes.blas import one_blas_thread
from streamgmm.sources import Block, KeptBlock, Piece, is_kept


class _Local:
    """What executors of this process share: the blocks, kept or not."""

    def __init__(self, blocks: Sequence[Block], split_every: int = 8, keeps: bool = False) -> None:
        self.blocks = blocks
        self.split_every = split_every
        self.rows_read = 0
        self._kept = [KeptBlock(block) for block in blocks] if keeps else []

    def _choose(self, indices: Sequence[int] | None, afresh: bool) -> Sequence[Block]:
        """Give the blocks of a pass, and count what it will read."""
        if indices is not None and not len(indices):
            raise ParameterError("there are no blocks to run on")
        blocks = self.blocks if afresh or not self._kept else self._kept
        chosen = blocks if indices is None else [blocks[i] for i in indices]
        self.rows_read += sum(block.n_rows for block in chosen if not is_kept(block))
        return chosen


class SerialExecutor(_Local):
    """Runs block after block in the calling thread. The oracle for the others."""

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
        chosen = self._choose(blocks, afresh)
        tree: Tree[M] = Tree(len(chosen), self.split_every)
        with one_blas_thread():
            for i, block in enumerate(chosen):
                tree.add(i, func(context, block))
                if on_block is not None:
                    on_block(block.n_rows)
        return tree.result()


class _StoppedError(Exception):
    """A block that was not read to its end because another one failed."""


@dataclass(frozen=True)
class _WatchedBlock:
    """A block that calls `between` before each piece: to stop, or to report."""

    block: Block
    between: Callable[[], None]

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

    def part(self, start: int, stop: int) -> _WatchedBlock:
        block: Any = self.block
        return _WatchedBlock(block.part(start, stop), self.between)

    def pieces(self) -> Iterator[Piece]:
        for piece in self.block.pieces():
            self.between()
            yield piece


class _Pass(Generic[C, M]):
    """One pass under way: any number of threads work on it until no block is left.

    Blocks are begun in order. Where one fails none is begun any more, those after it stop, and
    those before it go on: so the failure that is told is the first one in the data.
    """

    def __init__(
        self, func: Callable[[C, Block], M], context: C, blocks: Sequence[Block], tree: Tree[M]
    ) -> None:
        self._func, self._context, self._tree = func, context, tree
        self._left = iter(enumerate(blocks))
        self._lock = threading.Lock()
        self._rows_done: deque[int] = deque()
        self._failed: dict[int, BaseException] = {}
        self._end = len(blocks)

    def work(self, on_block: OnBlock | None = None) -> None:
        """Take block after block; the one thread that is given `on_block` reports for all."""
        while True:
            with self._lock:
                i, block = next(self._left, (self._end, None))
            if block is None or i >= self._end:
                return

            def between(i: int = i) -> None:
                if i >= self._end:
                    raise _StoppedError
                self.report(on_block)

            try:
                value = self._func(self._context, _WatchedBlock(block, between))
            except Exception as error:
                self._fail(i, error)
                return
            with self._lock:
                self._tree.add(i, value)
            del value
            self._rows_done.append(block.n_rows)
            self.report(on_block)

    def report(self, on_block: OnBlock | None) -> None:
        """Tell of the blocks that have been finished since the last report."""
        while on_block is not None and self._rows_done:
            on_block(self._rows_done.popleft())

    def stop(self) -> None:
        """Let every thread end at its next piece."""
        with self._lock:
            self._end = 0

    def check(self) -> None:
        """Raise what the first of the failed blocks raised."""
        if self._failed:
            raise self._failed[min(self._failed)]

    def _fail(self, i: int, error: Exception) -> None:
        with self._lock:
            if not isinstance(error, _StoppedError):
                self._failed[i] = error
                self._end = min(self._end, i)


class ThreadsExecutor(_Local):
    """Runs blocks on this thread and others of this process.

    The calling thread works like the others: nobody waits to be handed a block, which would
    cost more than a small block does.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        n_threads: int,
        split_every: int = 8,
        keeps: bool = False,
    ) -> None:
        super().__init__(blocks, split_every, keeps)
        self.n_threads = n_threads
        self._pool = ThreadPoolExecutor(max(1, n_threads - 1), thread_name_prefix="streamgmm")

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
        chosen = self._choose(blocks, afresh)
        tree: Tree[M] = Tree(len(chosen), self.split_every)
        under_way = _Pass(func, context, chosen, tree)
        with one_blas_thread():
            n_others = min(self.n_threads, len(chosen)) - 1
            others = [self._pool.submit(under_way.work) for _ in range(n_others)]
            try:
                under_way.work(on_block)
                wait(others)
            except BaseException:  # from `on_block`, or an interrupt
                under_way.stop()
                wait(others)
                raise
            under_way.check()
            for other in others:
                other.result()
            under_way.report(on_block)
        return tree.result()

    def close(self) -> None:
        """End the threads, and let go of what was kept."""
        self._kept = []
        self._pool.shutdown(wait=True, cancel_futures=True)
