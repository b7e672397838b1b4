"""Passes in this process: the tree, the threads, and what happens when a block fails."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import dask
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgmm.errors import ParameterError
from streamgmm.passes import (
    LocalExecutor,
    one_blas_thread,
    open_executor,
    tree_levels,
)
from streamgmm.passes.base import Tree
from streamgmm.sources import Block, BlockBase, Piece, open_source
from tests.passes_work import Sum, blas_threads, fail_at, weighted_sum

X = np.random.default_rng(0).normal(size=(8000, 3))


def blocks_of(n: int) -> list[Block]:
    blocks = list(open_source(X[: 8 * n]).blocks(8 * 3 * 8))
    assert len(blocks) == n
    return blocks


def same(a: Sum, b: Sum) -> bool:
    return a.n_rows == b.n_rows and a.total.tobytes() == b.total.tobytes()


@dataclass(frozen=True)
class Word:
    """Merges into brackets, which show the tree."""

    text: str

    def merge(self, other: Word) -> Word:
        return Word(f"({self.text}{other.text})")


def by_level(words: list[Word], arity: int) -> Word:
    while len(words) > 1:
        groups = [words[i : i + arity] for i in range(0, len(words), arity)]
        words = [reduce(Word.merge, group) for group in groups]
    return words[0]


@given(n=st.integers(1, 90), arity=st.integers(2, 9), data=st.data())
def test_the_tree_is_the_same_whatever_the_order_of_arrival(
    n: int, arity: int, data: st.DataObject
) -> None:
    words = [Word(f"{i}.") for i in range(n)]
    tree: Tree[Word] = Tree(n, arity)
    for i in data.draw(st.permutations(range(n))):
        tree.add(i, words[i])
    assert tree.result() == by_level(words, arity)
    assert not tree.waiting


@given(n=st.integers(1, 5000), arity=st.integers(2, 9))
def test_in_order_a_tree_holds_few_values(n: int, arity: int) -> None:
    tree: Tree[Any] = Tree(n, arity)
    most = 0

    @dataclass(frozen=True)
    class Nothing:
        def merge(self, other: Any) -> Any:
            return self

    for i in range(n):
        tree.add(i, Nothing())
        most = max(most, sum(len(children) for children in tree.waiting.values()))
    assert most <= (arity - 1) * (len(tree_levels(n, arity)) - 1)


@given(n=st.integers(1, 40), arity=st.integers(2, 9), n_threads=st.integers(2, 5))
def test_threads_give_the_bits_of_the_serial_oracle(n: int, arity: int, n_threads: int) -> None:
    blocks = blocks_of(n)
    expected = LocalExecutor(blocks, split_every=arity).run(weighted_sum, 1.5)
    with open_executor(blocks, n_threads=n_threads, split_every=arity) as executor:
        assert same(executor.run(weighted_sum, 1.5), expected)
        assert same(executor.run(weighted_sum, 1.5), expected)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_a_subset_of_the_blocks_and_the_progress(n_threads: int) -> None:
    blocks = blocks_of(30)
    rows: list[int] = []
    with open_executor(blocks, n_threads=n_threads) as executor:
        some = executor.run(weighted_sum, 2.0, on_block=rows.append, blocks=[3, 4, 7])
        assert same(some, LocalExecutor([blocks[i] for i in (3, 4, 7)]).run(weighted_sum, 2.0))
        assert rows == [8, 8, 8]
        one = executor.run(weighted_sum, 2.0, on_block=rows.append, blocks=[5])
        assert same(one, weighted_sum(2.0, blocks[5]))
        with pytest.raises(ParameterError, match="no blocks"):
            executor.run(weighted_sum, 2.0, blocks=[])


def test_progress_is_told_in_the_calling_thread() -> None:
    threads = set()
    with open_executor(blocks_of(20), n_threads=2) as executor:
        executor.run(weighted_sum, 1.0, on_block=lambda _: threads.add(threading.get_ident()))
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize("n_threads", [1, 3])
def test_an_error_reaches_the_caller_as_it_was(n_threads: int) -> None:
    blocks = blocks_of(30)
    with open_executor(blocks, n_threads=n_threads) as executor:
        with pytest.raises(ValueError, match=r"^row 100 is bad$"):
            executor.run(fail_at, 100)
        expected = LocalExecutor(blocks).run(weighted_sum, 1.0)
        assert same(executor.run(weighted_sum, 1.0), expected)


@dataclass
class Watch:
    """Counts the pieces and results there are at once."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    begun: int = 0
    held: int = 0
    most: int = 0

    def add(self, change: int) -> None:
        with self.lock:
            self.begun += change > 0
            self.held += change
            self.most = max(self.most, self.held)


class Held:
    """A result that tells when it is there and when it is gone."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        watch.add(1)

    def __del__(self) -> None:
        self.watch.add(-1)

    def merge(self, other: Held) -> Held:
        return Held(self.watch)


def test_results_do_not_pile_up() -> None:
    watch = Watch()
    with open_executor(blocks_of(900), n_threads=3) as executor:
        executor.run(lambda watch, _: Held(watch), watch)
    # 7 at each of the 3 levels that wait, those under way, those of the merge at hand, and what
    # the others finish while the thread that is to merge waits for a processor; of 900.
    assert watch.most <= 3 * 7 + 2 * (3 + 1) + 10 + 60


@dataclass
class ToldBlock(BlockBase):
    """A block of two pieces that tells when they are asked for."""

    told: list[tuple[str, int]]
    start: int
    n_rows: int = 2
    resident: bool = False

    def pieces(self) -> Iterator[Piece]:
        self.told.append(("opened", self.start))
        return (Piece(self.start + i, np.ones((1, 1)), None) for i in range(2))


def tell_pieces(told: list[tuple[str, int]], block: Block) -> Sum:
    n = 0
    for piece in block.pieces():
        told.append(("used", piece.start))
        n += 1
    told.append(("done", block.start))
    return Sum(n, np.zeros(()))


def test_the_next_block_is_opened_with_the_last_piece_of_one() -> None:
    told: list[tuple[str, int]] = []
    blocks = [ToldBlock(told, start) for start in (0, 2, 4)]
    assert LocalExecutor(blocks).run(tell_pieces, told).n_rows == 6
    assert told == [
        ("opened", 0), ("used", 0), ("opened", 2), ("used", 1), ("done", 0),
        ("used", 2), ("opened", 4), ("used", 3), ("done", 2),
        ("used", 4), ("used", 5), ("done", 4),
    ]  # fmt: skip


def test_blocks_that_cannot_be_opened_are_met_by_their_owner() -> None:
    @dataclass
    class Broken(ToldBlock):
        def pieces(self) -> Iterator[Piece]:
            if self.start == 4:
                raise ValueError("block 4")
            return super().pieces()

    told: list[tuple[str, int]] = []
    blocks = [Broken(told, 2 * i) for i in range(9)]
    for n_threads in (1, 3):
        with (
            open_executor(blocks, n_threads=n_threads) as executor,
            pytest.raises(ValueError, match="block 4"),
        ):
            executor.run(tell_pieces, told)
        assert ("done", 0) in told
        assert ("done", 2) in told
        assert ("done", 4) not in told


@dataclass
class PartlyRead(ToldBlock):
    """A block that is not read as a whole, as those with chunks that are skipped."""

    def part(self, start: int, stop: int) -> ToldBlock:
        return ToldBlock([], start, stop - start)


def skip(told: list[tuple[str, int]], block: Block) -> Sum:
    if block.start != 4:
        return tell_pieces(told, block)
    whole: Any = block
    return tell_pieces(told, whole.part(4, 6))


def test_a_block_that_is_read_otherwise_is_opened_in_vain_but_once() -> None:
    told: list[tuple[str, int]] = []
    executor = LocalExecutor([PartlyRead(told, 2 * i) for i in range(4)])
    for n_opened in (1, 1, 1):
        assert executor.run(skip, told).n_rows == 8
        assert told.count(("opened", 4)) == n_opened
    assert told.count(("opened", 2)) == 3


@pytest.mark.parametrize("n_threads", [1, 3])
def test_each_block_is_opened_once(n_threads: int) -> None:
    told: list[tuple[str, int]] = []
    blocks = [ToldBlock(told, 2 * i) for i in range(50)]
    with open_executor(blocks, n_threads=n_threads) as executor:
        assert executor.run(tell_pieces, told).n_rows == 100
    for what in ("opened", "done"):
        assert sorted(start for said, start in told if said == what) == list(range(0, 100, 2))


@dataclass(frozen=True)
class EndlessBlock:
    """A block that would never end, to see whether anything stops it."""

    start: int
    n_rows: int = 1
    resident: bool = True

    def pieces(self) -> Iterator[Piece]:
        while True:
            yield Piece(self.start, np.ones((1, 1)), None)


def fail_first(_: None, block: Block) -> Sum:
    if block.start == 0:
        raise ValueError("the first")
    for _piece in block.pieces():
        pass
    raise AssertionError


def test_a_failure_stops_the_blocks_under_way_and_starts_no_more() -> None:
    blocks = [EndlessBlock(i) for i in range(20)]
    with (
        open_executor(blocks, n_threads=3) as executor,
        pytest.raises(ValueError, match="the first"),
    ):
        executor.run(fail_first, None)


def test_ctrl_c_in_the_progress_stops_the_pass() -> None:
    blocks = [*blocks_of(1), *(replace(EndlessBlock(8), start=8 + i) for i in range(9))]

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    executor = LocalExecutor(blocks, 2)
    with pytest.raises(KeyboardInterrupt):
        executor.run(weighted_sum, 1.0, on_block=interrupt)
    executor.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("streamgmm_")]


def test_one_blas_thread_in_every_block_and_restored_after() -> None:
    from threadpoolctl import threadpool_info, threadpool_limits

    def count() -> int:
        return max(lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas")

    with threadpool_limits(2, user_api="blas"):
        for n_threads in (1, 3):
            with open_executor(blocks_of(9), n_threads=n_threads) as executor:
                assert executor.run(blas_threads, None).total == 0
            assert count() == 2
        with one_blas_thread():
            with one_blas_thread():
                assert count() == 1
            assert count() == 1
        assert count() == 2


def test_how_many_threads_are_taken() -> None:
    blocks = blocks_of(9)

    def taken(some: list[Block], n_threads: int | None = None) -> int:
        with open_executor(some, n_threads=n_threads) as executor:
            assert isinstance(executor, LocalExecutor)
            return executor.n_threads

    assert [taken(blocks, 1), taken(blocks[:1], 4), taken(blocks, 4)] == [1, 1, 4]
    with dask.config.set(scheduler="synchronous"):
        assert taken(blocks) == 1
    with dask.config.set(num_workers=3):
        assert taken(blocks) == 3


@pytest.mark.parametrize(
    ("blocks", "options"),
    [([], {}), (blocks_of(2), {"n_threads": 0}), (blocks_of(2), {"split_every": 1})],
)
def test_bad_settings(blocks: list[Block], options: dict[str, Any]) -> None:
    with pytest.raises(ParameterError), open_executor(blocks, **options):
        pass


def test_distributed_is_not_imported_for_local_passes() -> None:
    code = (
        "import sys, numpy as np\n"
        "from streamgmm.passes import open_executor\n"
        "from streamgmm.sources import open_source\n"
        "with open_executor(open_source(np.ones((9000, 2))).blocks(16384)) as e: pass\n"
        "assert 'distributed' not in sys.modules\n"
        "assert 'zarr' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_blocks_pickle_with_the_rows_that_they_are() -> None:
    block = blocks_of(30)[7]
    assert len(pickle.dumps(block)) < 1000
    assert same(weighted_sum(1.0, pickle.loads(pickle.dumps(block))), weighted_sum(1.0, block))
