"""What passes on a cluster leave of each block for later passes. It stays on the workers."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streamgmm.passes.base import Carry
from streamgmm.passes.tasks import carry_blocks, left_of, load_work, result_of


@dataclass
class LeftBlocks:
    """Results of tasks that are held for later passes, by name and by index of the block.

    Each result depends on those of the pass before, and on the context of its pass. Dask keeps
    a task for as long as something that depends on it is held. So it can compute a lost result
    again, pass by pass from the first one. It cannot do so for blocks that were scattered: their
    rows are lost with their worker. For those the contexts are kept here, if `logs`.

    Attributes
    ----------
    logs : bool
    held : dict
    log : list of (bytes, Carry)
        The pickled `Work` of every pass that left something.
    """

    logs: bool = False
    held: dict[Hashable, dict[int, Any]] = field(default_factory=dict)
    log: list[tuple[bytes, Carry]] = field(default_factory=list)

    def drop(self, names: Iterable[Hashable]) -> None:
        """Let the workers drop what has these names."""
        for name in names:
            self.held.pop(name, None)

    def update(self, work: bytes, carry: Carry, lefts: Mapping[int, Any]) -> None:
        """Hold what a pass has left, by index of the block."""
        for name in carry.leaves:
            self.held[name] = dict(lefts)
        if self.logs:
            if self.log and self.log[-1][1].leaves == carry.leaves:
                self.log.pop()  # the same read again
            self.log.append((work, carry))

    def forget_lost(self) -> None:
        """Forget what dead workers held."""
        for futures in self.held.values():
            for index, future in list(futures.items()):
                if future.status != "finished":
                    del futures[index]

    def close(self) -> None:
        """Let the workers drop all of it."""
        self.held.clear()
        self.log.clear()


@dataclass(frozen=True)
class Carrier:
    """Adds tasks that take and leave values to the graph of a pass.

    Attributes
    ----------
    tasks : dict
        Of the graph, by key.
    left : LeftBlocks
    carry : Carry
    groups : (str, str, str, str)
        Names of the groups of tasks: of contexts, blocks, results, and what is left.
    pass_id : int
    """

    tasks: dict[Any, Any]
    left: LeftBlocks
    carry: Carry
    groups: tuple[str, str, str, str]
    pass_id: int

    def add(
        self, at: int, chosen: Sequence[int], block: Any, first: bool, waited: tuple[Any, ...],
        queued: bool,
    ) -> tuple[Any, Any]:  # fmt: skip
        """Add the tasks of the blocks with the indices `chosen`, which begin at `at` in the pass.

        Gives the keys of their result and of what they leave.
        """
        from dask._task_spec import Task, TaskRef

        before = self._before(at, chosen, block, waited)
        outcome = self._add_blocks(
            self.pass_id, at, block, first, waited, before, queued and not before
        )
        key = (self.groups[2], self.pass_id, at)
        self.tasks[key] = Task(key, result_of, TaskRef(outcome))
        return key, self._add_left(outcome)

    def _before(
        self, at: int, chosen: Sequence[int], block: Any, waited: tuple[Any, ...]
    ) -> list[Any]:
        """Keys of what the blocks take."""
        keys: dict[Any, None] = {}
        for index in chosen:
            held = [self.left.held.get(name, {}) for name in self.carry.takes]
            if all(index in futures for futures in held):
                keys |= {futures[index].key: None for futures in held}
            else:
                keys |= self._again(at, block, waited)
        return list(keys)

    def _again(self, at: int, block: Any, waited: tuple[Any, ...]) -> dict[Any, None]:
        """Add the tasks of one block in all passes so far; give the keys of what is taken."""
        from dask._task_spec import Task

        made: dict[Hashable, Any] = {}
        for number, (work, carry) in enumerate(self.left.log):
            again = f"{self.pass_id}-{number}"
            context = (self.groups[0], again)
            self.tasks[context] = Task(context, load_work, work)
            before = list(dict.fromkeys(made[name] for name in carry.takes))
            outcome = self._add_blocks(again, at, block, False, waited, before, False)
            left = self._add_left(outcome)
            made |= dict.fromkeys(carry.leaves, left)
        return dict.fromkeys(made[name] for name in self.carry.takes)

    def _add_blocks(
        self, pass_id: int | str, at: int, block: Any, first: bool, waited: tuple[Any, ...],
        before: Sequence[Any], queued: bool,
    ) -> Any:  # fmt: skip
        from dask._task_spec import Task, TaskRef

        key = (self.groups[1], pass_id, at)
        said, *values = waited or (b"",)
        refs = [TaskRef(each) for each in before]
        self.tasks[key] = Task(
            key, carry_blocks, TaskRef((self.groups[0], pass_id)), block, at, first, said,
            len(refs), *refs, *values, _data_producer=queued,
        )  # fmt: skip
        return key

    def _add_left(self, outcome: Any) -> Any:
        from dask._task_spec import Task, TaskRef

        key = (self.groups[3], *outcome[1:])
        self.tasks[key] = Task(key, left_of, TaskRef(outcome))
        return key
