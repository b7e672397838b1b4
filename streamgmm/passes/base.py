"""The contract of an executor, and the tree that reduces the results of a pass."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import reduce
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

from streamgmm.sources import Block

C = TypeVar("C")


class Mergeable(Protocol):
    """A small immutable value that knows how to join another of its kind."""

    def merge(self, other: Self, /) -> Self:
        """Give the value for the rows of both."""


M = TypeVar("M", bound=Mergeable)
OnBlock = Callable[[int], None]


class Carry(NamedTuple):
    """Names of values that a pass takes from earlier ones, and leaves for later ones.

    Values are of blocks. Nobody asks again for those of the names in `drops`.
    """

    takes: tuple[Hashable, ...]
    leaves: tuple[Hashable, ...]
    drops: tuple[Hashable, ...] = ()


class Carrying(Protocol):
    """A context whose blocks take and leave values. On a cluster these stay on the workers.

    `carry` is None where the context keeps such values elsewhere, or has none.
    """

    @property
    def carry(self) -> Carry | None: ...  # noqa: D102

    def carrying(self, before: Mapping[Any, Any], left: dict[Any, Any]) -> Self:
        """Give the same context for one task, which takes from `before`, and adds to `left`.

        Keys are (name, whatever tells the block).
        """


class Executor(Protocol):
    """Something that runs passes over a fixed sequence of blocks.

    Attributes
    ----------
    rows_read : int
        Rows that all passes so far have read. Rows found in the cache are not counted.
    known : set of int
        Blocks that were read by passes with a cache. A fit that is resumed from a checkpoint
        adds the blocks of the process before, so that it counts the same rows in the end.
    """

    known: set[int]

    @property
    def rows_read(self) -> int: ...  # noqa: D102

    def run(
        self,
        func: Callable[[C, Block], M],
        context: C,
        *,
        on_block: OnBlock | None = None,
        blocks: Sequence[int] | None = None,
        afresh: bool = False,
    ) -> M:
        """Map `func` over the blocks and merge the results, left to right in a fixed tree.

        Parameters
        ----------
        func : callable
            ``func(context, block)``, at the top of a module; gives a value with ``merge``.
        context : object
            What all blocks of this pass need, such as the models. It is sent once, and must not
            change.
        on_block : callable, optional
            Called in the calling thread with the rows of each block as it finishes.
        blocks : sequence of int, optional
            Indices of the blocks to run on, in this order; all of them by default.
        afresh : bool, default=False
            Whether to bypass the cache: read the data, and cache nothing.

        Returns
        -------
        The merged value of all blocks.

        Raises
        ------
        Exception
            What `func` raised, unchanged; the rest of the pass is cancelled.
        WorkerLostError
            If a block ended its worker again and again.
        """


def tree_levels(n_leaves: int, arity: int) -> list[int]:
    """Give the number of nodes at each level of the tree, from the leaves to the root.

    Examples
    --------
    >>> tree_levels(20, 8)
    [20, 3, 1]
    """
    levels = [n_leaves]
    while levels[-1] > 1:
        levels.append(-(-levels[-1] // arity))
    return levels


def blocks_in_task(n_blocks: int, n_threads: int, arity: int = 8) -> int:
    """Give how many neighbouring blocks one task of a cluster reads and merges.

    It is `arity` if that leaves at least 64 tasks, and 16 tasks for each thread of the workers,
    so that threads get even shares; otherwise it is one. For more than 200 threads 4 tasks a
    thread are enough: a scheduler starts about a thousand tasks a second, and could not keep so
    many threads busy with single blocks.

    >>> blocks_in_task(1000, 2), blocks_in_task(1000, 20), blocks_in_task(10**6, 10_000)
    (8, 1, 8)
    """
    tasks = max(64, n_threads * (16 if n_threads <= 200 else 4))
    return arity if n_blocks >= arity * tasks else 1


def merge_all(values: Sequence[M]) -> M:
    """Merge from left to right."""
    return reduce(lambda a, b: a.merge(b), values)


class Tree(Generic[M]):
    """A reduction tree: leaves may come in any order, merges are always the same.

    A node is merged as soon as all its children are there. So memory holds only values that
    wait for a neighbour: at most ``arity - 1`` for each level, and for each leaf under way.
    """

    def __init__(self, n_leaves: int, arity: int) -> None:
        self.arity = arity
        self.levels = tree_levels(n_leaves, arity)
        self.waiting: dict[tuple[int, int], dict[int, M]] = {}
        self.root: M | None = None

    def add(self, index: int, value: M) -> None:
        """Add the value of the leaf `index`."""
        for level in range(len(self.levels) - 1):
            parent = index // self.arity
            first = parent * self.arity
            size = min(self.arity, self.levels[level] - first)
            children = self.waiting.setdefault((level, parent), {})
            children[index] = value
            if len(children) < size:
                return
            del self.waiting[level, parent]
            value = merge_all([children.pop(i) for i in range(first, first + size)])
            index = parent
        self.root = value

    def result(self) -> M:
        """Give the value at the root, after all leaves were added."""
        assert self.root is not None
        return self.root
