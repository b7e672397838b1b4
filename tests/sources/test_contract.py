"""Our own sources keep the contract that `streamgmm.testing` has for everybody's."""

import numpy as np
import pytest
import zarr

from streamgmm.sources import Piece, WrappedBlock, capable, open_source, unreadable, without_rows
from streamgmm.sources.array import ArrayBlock, ArraySource
from streamgmm.testing import SourceTests


class TestArray(SourceTests):
    def source(self, rows, sample_weight, tmp_path):
        return open_source(rows, sample_weight=sample_weight)


class TestFortranOrder(SourceTests):
    def source(self, rows, sample_weight, tmp_path):
        return open_source(np.asfortranarray(rows), sample_weight=sample_weight)


class TestMemoryMap(SourceTests):
    def source(self, rows, sample_weight, tmp_path):
        np.save(tmp_path / "rows.npy", rows)
        return open_source(
            np.load(tmp_path / "rows.npy", mmap_mode="r"), sample_weight=sample_weight
        )


class TestZarr(SourceTests):
    def source(self, rows, sample_weight, tmp_path):
        zarr.create_array(str(tmp_path / "x.zarr"), data=rows, chunks=(100, rows.shape[1]))
        return open_source(str(tmp_path / "x.zarr"), sample_weight=sample_weight)


class TestZarrInShardsOfFloat32(SourceTests):
    def source(self, rows, sample_weight, tmp_path):
        zarr.create_array(
            str(tmp_path / "x.zarr"),
            data=rows.astype(np.float32),
            chunks=(10, 1),
            shards=(50, rows.shape[1]),
        )
        return open_source(str(tmp_path / "x.zarr"), sample_weight=sample_weight)


class TestDask(SourceTests):
    def source(self, rows, sample_weight, tmp_path):
        import dask.array as da

        array = da.from_array(rows, chunks=(70, rows.shape[1]))
        return open_source(array, sample_weight=sample_weight)


# Sources that are wrong, each in one thing, and what is said of them.


class WrongSource(ArraySource):
    def blocks(self, target_bytes, start=0, stop=None):
        blocks = super().blocks(target_bytes, start, stop)
        return blocks[:-1] if self.name == "gap" and len(blocks) > 1 else blocks


class WrongBlock(ArrayBlock):
    def pieces(self):
        for piece in super().pieces():
            yield Piece(piece.start, piece.rows[::-1].copy(), piece.sample_weight)


class Reversed(ArraySource):
    def blocks(self, target_bytes, start=0, stop=None):
        return [
            WrongBlock(b.start, b.rows, b.dtype, b.weights)
            for b in super().blocks(target_bytes, start, stop)
        ]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda rows: WrongSource(rows, None, "gap"),
            "Blocks cover every row of their range once",
        ),
        (lambda rows: Reversed(rows, None), "A piece has the rows that it says"),
    ],
)
def test_what_is_wrong_is_said_with_the_smallest_case(make, said, tmp_path):
    class Suite(SourceTests):
        def source(self, rows, sample_weight, tmp_path):
            return make(rows)

    with pytest.raises(pytest.fail.Exception, match=said) as caught:
        Suite().test_blocks_cover_every_row_once(tmp_path)
    assert "The smallest case that shows it is N = 9, D = 2" in str(caught.value)


class Bare:
    """A block that has only what the protocol asks for."""

    start, n_rows, resident = 3, 2, False

    def pieces(self):
        yield Piece(3, np.ones((2, 1)), None)


def test_what_a_block_leaves_out_has_defaults():
    block = capable(Bare())
    assert (block.start, block.n_rows, block.resident, block.in_memory) == (3, 2, False, False)
    assert (block.unit, block.ahead, block.carried_bytes, block.futures) == (0, 2, 0, {})
    assert block.fetch(3, 5) == 0
    assert block.check_seen() is None
    assert isinstance(block.fill({}), Bare)
    assert unreadable(Bare()) == ()
    with pytest.raises(NotImplementedError, match="has no parts"):
        block.part(3, 4)


def test_a_wrapped_block_can_what_the_block_can(tmp_path):
    zarr.create_array(str(tmp_path / "x.zarr"), data=np.ones((90, 2)), chunks=(20, 2))
    (block,) = open_source(str(tmp_path / "x.zarr")).blocks(1 << 20)
    wrapped = WrappedBlock(block)
    for name in ("start", "n_rows", "resident", "in_memory", "unit", "ahead", "carried_bytes"):
        assert getattr(wrapped, name) == getattr(block, name)
    assert wrapped.unit == 20
    assert wrapped.fetch(0, 90) == block.fetch(0, 90) > 0
    assert sum(len(piece.rows) for piece in wrapped.part(20, 60).pieces()) == 40
    assert wrapped.check_seen() is None
    rest = without_rows(wrapped, [(0, 90)])
    assert (rest.n_rows, rest.n_features, rest.dtype) == (0, 2, np.float64)
