"""Passes in this process: in the calling thread, or on threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic

from streamgmm.errors import ParameterError
from streamgmm.passes.base import C, M, OnBlock, Tree
from streamgmm.passes.blas import one_blas_thread
from streamgmm.sources import Block, KeptBlock, Piece, WrappedBlock, alone, capable, is_kept


class _StoppedError(Exception):
    """A block that was not read to its end because another one failed."""


@dataclass(eq=False)
class _Turn:
    """A block that waits for a thread; if it is `opened`, read-ahead of its first piece began."""

    index: int
    block: Block
    opened: Iterator[Piece] | None = None
    taken: bool = False


@dataclass
class _OpenBlock(WrappedBlock):
    """A block that calls `between` before each piece, and `ending` before its last piece."""

    block: Block
    opened: Iterator[Piece] | None
    between: Callable[[], None]
    ending: Callable[[], None]

    def part(self, start: int, stop: int) -> _OpenBlock:
        part = capable(self.block).part(start, stop)
        return _OpenBlock(part, None, self.between, lambda: None)

    def pieces(self) -> Iterator[Piece]:
        pieces, self.opened = self.opened or self.block.pieces(), None
        left = self.n_rows
        for piece in pieces:
            self.between()
            left -= len(piece.rows)
            if not left:
                self.ending()
            yield piece


class _Pass(Generic[C, M]):
    """One pass under way: a shared work queue. Threads take blocks from it until none is left.

    Blocks are begun in order. After a failure no further block is begun. Blocks behind the one
    that failed stop at their next piece, and blocks before it go on. So the error that is raised
    is always the first one in the data.

    Read-ahead crosses blocks: a thread that computes on the last piece of a block has the first
    piece of the next block read meanwhile. `vain` are the first rows of blocks for which that
    was of no use, since `func` did not read the block by `pieces`. It is not tried there again.
    """

    def __init__(
        self,
        func: Callable[[C, Block], M],
        context: C,
        blocks: Sequence[Block],
        tree: Tree[M],
        vain: set[int],
    ) -> None:
        self._func, self._context, self._tree, self._vain = func, context, tree, vain
        self._left = iter([_Turn(i, block) for i, block in enumerate(blocks)])
        self._ahead: deque[_Turn] = deque()
        self._lock = threading.Lock()
        self._rows_done: deque[int] = deque()
        self._failed: dict[int, BaseException] = {}
        self._end = len(blocks)

    def work(self, on_block: OnBlock | None = None) -> None:
        """Take blocks until none is left. One thread is given `on_block`, and reports for all."""
        while True:
            with self._lock:
                turn = self._ahead.popleft() if self._ahead else next(self._left, None)
                if turn is None or turn.index >= self._end:
                    return
                turn.taken = True
            i, n_rows = turn.index, turn.block.n_rows

            def between(i: int = i) -> None:
                if i >= self._end:
                    raise _StoppedError
                self.report(on_block)

            here = _OpenBlock(turn.block, turn.opened, between, self._open_next)
            turn.opened = None
            try:
                value = self._func(self._context, here)
            except Exception as error:
                self._fail(i, error)
                return
            with self._lock:
                self._tree.add(i, value)
                if here.opened is not None:
                    self._vain.add(here.start)
            del value, here, turn
            self._rows_done.append(n_rows)
            self.report(on_block)

    def report(self, on_block: OnBlock | None) -> None:
        """Report the blocks that were finished since the last report."""
        while on_block is not None and self._rows_done:
            on_block(self._rows_done.popleft())

    def stop(self) -> None:
        """Let every thread end at its next piece."""
        with self._lock:
            self._end = 0

    def check(self) -> None:
        """Raise the error of the first block that failed."""
        if not self._failed:
            return
        error = self._failed[min(self._failed)]
        self._failed.clear()
        try:
            raise error
        finally:
            del error  # breaks the reference cycle of the error and this frame

    def _open_next(self) -> None:
        """Begin read-ahead of the next block, which any thread may take meanwhile."""
        with self._lock:
            turn = next(self._left, None)
            if turn is None or turn.index >= self._end:
                return
            self._ahead.append(turn)
        if turn.block.start in self._vain:
            return
        with suppress(Exception):  # the thread that takes the block gets the error too
            opened = turn.block.pieces()
            with self._lock:
                turn.opened = None if turn.taken else opened

    def _fail(self, i: int, error: Exception) -> None:
        with self._lock:
            if not isinstance(error, _StoppedError):
                self._failed[i] = error
                self._end = min(self._end, i)


class LocalExecutor:
    """Runs passes on the calling thread, and on further threads of this process.

    The calling thread works like the others. All take blocks from a queue, since a thread that
    hands out blocks costs more than a small block. With `alone` (no processor is left for reader
    threads) each thread reads for itself. On one thread this executor is the reference that the
    tests compare all others with.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        n_threads: int = 1,
        split_every: int = 8,
        keeps: bool = False,
        alone: bool = False,
    ) -> None:
        self.n_threads = n_threads
        self._alone = alone
        self.rows_read = 0
        self.known: set[int] = set()
        self._blocks = blocks
        self._split_every = split_every
        self._vain: set[int] = set()
        self._kept = [KeptBlock(block) for block in blocks] if keeps else []
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
        indices = range(len(self._blocks)) if blocks is None else blocks
        if not len(indices):
            raise ParameterError("there are no blocks to run on")
        keeps = bool(self._kept) and not afresh
        chosen = [(self._kept if keeps else self._blocks)[i] for i in indices]
        tree: Tree[M] = Tree(len(chosen), self._split_every)
        under_way = _Pass(func, context, chosen, tree, self._vain)

        def work(on_block: OnBlock | None = None) -> None:
            with alone(self._alone):
                under_way.work(on_block)

        with one_blas_thread():
            n_others = min(self.n_threads, len(chosen)) - 1
            others = [self._pool.submit(work) for _ in range(n_others)]
            try:
                work(on_block)
                wait(others)
            except BaseException:  # from `on_block`, or an interrupt
                under_way.stop()
                wait(others)
                raise
            under_way.check()
            for other in others:
                other.result()
            under_way.report(on_block)
        new = (not keeps or i not in self.known or not is_kept(self._kept[i]) for i in indices)
        self.rows_read += sum(
            block.n_rows for block, read in zip(chosen, new, strict=True) if read
        )
        if keeps:
            self.known.update(indices)
        return tree.result()

    def close(self) -> None:
        """End the threads, and drop the cache."""
        self._kept = []
        self._pool.shutdown(wait=True, cancel_futures=True)
