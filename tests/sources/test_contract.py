"""Our own sources keep the contract that `streamgmm.testing` has for everybody's."""

import numpy as np
import pytest
import zarr

from streamgmm.sources import Piece, open_source
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
