"""HDF5: datasets and groups, in files and behind URLs, read once and a bounded piece at a time."""

from itertools import pairwise

import h5py
import numpy as np
import pytest
import zarr

import streamgmm
from streamgmm import GaussianMixture
from streamgmm.errors import ChunkError, DataError, DataTypeError, ParameterError, SourceError
from streamgmm.sources import PIECE_BYTES
from streamgmm.sources.hdf5 import InHDF5
from streamgmm.testing import SourceTests

from .test_cubes import read


class TestChunked(SourceTests):
    def source(self, rows, sample_weight, tmp_path):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file.create_dataset("a/x", data=rows, chunks=True, compression="gzip")
        return streamgmm.rows(tmp_path / "x.h5" / "a" / "x", sample_weight=sample_weight)


class TestContiguous(SourceTests):
    def source(self, rows, sample_weight, tmp_path):
        with h5py.File(tmp_path / "x.hdf5", "w") as file:
            file["x"] = rows
        return streamgmm.rows(f"{tmp_path}/x.hdf5/x", sample_weight=sample_weight)


class TestDataset(SourceTests):
    def source(self, rows, sample_weight, tmp_path):
        file = h5py.File(tmp_path / "x.h5", "w")
        file.create_dataset("x", data=rows.astype(">f8"), maxshape=(None, rows.shape[1]))
        file.close()
        return streamgmm.rows(h5py.File(tmp_path / "x.h5")["x"], sample_weight=sample_weight)


class TestGroup(SourceTests):
    def source(self, rows, sample_weight, tmp_path):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            for j, column in enumerate(rows.T):
                file.create_dataset(f"v{j}", data=column, chunks=(min(len(rows), 90),))
            if sample_weight is not None:
                file["weight"] = sample_weight
        names = [f"v{j}" for j in range(rows.shape[1])]
        weight = None if sample_weight is None else "weight"
        return streamgmm.rows(tmp_path / "x.h5", features=names, sample_weight=weight)


@pytest.fixture
def values():
    values = np.random.default_rng(0).normal(size=(6, 50, 40, 3)).astype(np.float32)
    values[::2] += 6
    return values


def test_a_cube_and_its_mask(values, tmp_path):
    land = np.zeros(values.shape[:3], bool)
    land[:, :5] = True
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("image", data=np.moveaxis(values, -1, 0), chunks=(1, 2, 25, 40))
        file["land"] = land
    rows = streamgmm.rows(f"{path}/image", feature_axis=0, mask=f"{path}/land")
    model = GaussianMixture(2, random_state=0).fit(rows)
    assert model.n_missing_ == land.sum()
    labels = model.predict(rows)
    assert labels.shape == land.shape
    assert np.array_equal(labels.compute() == -1, land)
    plain = GaussianMixture(2, random_state=0).fit(streamgmm.rows(values, mask=land))
    assert np.allclose(model.means_, plain.means_)


def test_plain_paths_and_datasets_are_taken_as_they_are(values, tmp_path):
    table = values.reshape(-1, 3)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"], file["w"] = table, np.arange(len(table))
    plain = GaussianMixture(2, random_state=0).fit(table, sample_weight=np.arange(len(table)))
    path = str(tmp_path / "x.h5")
    with h5py.File(path) as file:
        given = [(f"{path}/x", f"{path}/w"), (file["x"], file["w"])]
        for X, weight in given:
            model = GaussianMixture(2, random_state=0).fit(X, sample_weight=weight)
            assert np.allclose(model.means_, plain.means_)
            assert np.array_equal(np.asarray(model.predict(X)), plain.predict(table))


def test_names_of_dimensions_and_scales_are_those_of_the_file(tmp_path):
    temp = np.arange(12).reshape(4, 3)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["t"] = np.arange(4)
        file["t"].make_scale("t")
        file["temp"] = temp.astype("i2")
        file["temp"].dims[0].attach_scale(file["t"])
        file["temp"].dims[1].label = "y"
        file["temp"].attrs.update(scale_factor=0.5, _FillValue=np.int16(3))
        file["depth"] = [1.0, 2.0, 3.0]
        file["depth"].dims[0].label = "y"
    rows = streamgmm.rows(tmp_path / "x.h5", features=["temp", "depth"])
    assert rows.dims == ("t", "y")
    expected = np.where(temp == 3, np.nan, temp * 0.5).ravel()
    found = read(rows)
    assert np.array_equal(found[:, 0], expected, equal_nan=True)
    assert found[:, 1].tolist() == [1, 2, 3] * 4


def test_a_file_behind_a_url(values):
    import fsspec

    with fsspec.open("memory://x.h5", "wb") as remote, h5py.File(remote, "w") as file:
        file["a"] = values.reshape(-1, 3)
    rows = streamgmm.rows("memory://x.h5/a")
    assert np.array_equal(read(rows), values.reshape(-1, 3))


def test_a_file_in_memory_is_read_from_there(values):
    file = h5py.File("x", "w", driver="core", backing_store=False)
    file["a"] = values.reshape(-1, 3)
    assert np.array_equal(read(streamgmm.rows(file["a"])), values.reshape(-1, 3))


@pytest.mark.parametrize("chunks", [None, (5000, 3)])
def test_what_is_needed_is_read_once_and_pieces_are_bounded(tmp_path, chunks, monkeypatch):
    rows = np.random.default_rng(0).normal(size=(900_000, 3))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=rows, chunks=chunks)
    spans = []
    whole = InHDF5._read
    monkeypatch.setattr(
        InHDF5, "_read", lambda self, asked: (spans.extend(asked[:1]), whole(self, asked))[1]
    )
    blocks = streamgmm.rows(tmp_path / "x.h5/x").blocks(4 << 20)
    sizes = [piece.rows.nbytes for block in blocks for piece in block.pieces()]
    assert max(sizes) <= 2 * PIECE_BYTES
    spans.sort()
    assert (spans[0][0], spans[-1][1]) == (0, len(rows))
    assert all(a[1] == b[0] for a, b in pairwise(spans))
    assert all(a % 5000 == 0 for a, _ in spans) or chunks is None


def test_whoever_reads_leaves_the_file_alone(values, tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = values.reshape(-1, 3)
    model = GaussianMixture(2, random_state=0).fit(str(tmp_path / "x.h5/x"))
    with h5py.File(tmp_path / "x.h5", "a") as file:
        file["labels"] = np.asarray(model.predict(str(tmp_path / "x.h5/x")))


def test_damage_is_named_and_skipped_if_asked_to(tmp_path):
    rows = np.random.default_rng(0).normal(size=(4000, 2))
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("x", data=rows, chunks=(500, 2), compression="gzip")
        chunk = data.id.get_chunk_info_by_coord((1500, 0))
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + 100] = b"\xff" * 100
    path.write_bytes(bytes(content))
    with pytest.raises(ChunkError, match=r"x.h5/x': rows 1500:2000 cannot be read"):
        GaussianMixture(1).fit(f"{path}/x")
    with pytest.warns(UserWarning, match=r"500 rows could not be read"):
        model = GaussianMixture(1, on_bad_chunk="skip").fit(f"{path}/x")
    assert np.array_equal(model.skipped_rows_, [[1500, 2000]])
    assert np.allclose(model.means_[0], np.delete(rows, range(1500, 2000), 0).mean(0))


def test_a_file_that_was_cut_short(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.ones((40_000, 2))
    rows = streamgmm.rows(path / "x")
    path.write_bytes(path.read_bytes()[:-200_000])
    with pytest.raises(ChunkError, match="truncated"):
        read(rows)


def test_bad_input(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["temp"], file["a/salt"] = np.ones((4, 2)), np.ones((4, 2))
        file["text"] = [["a", "b"]]
        file["none"] = np.ones((0, 2))
        file["empty"] = h5py.Empty("f8")
    with pytest.raises(SourceError, match=r"is a group of HDF5.*'a/salt' \(4, 2\)"):
        GaussianMixture(1).fit(str(path))
    with pytest.raises(FileNotFoundError, match=r"'tmp' is not in .*did you mean 'temp'"):
        streamgmm.rows(f"{path}/tmp")
    with pytest.raises(ParameterError, match=r"'a/slat' is not an array.*did you mean 'a/salt'"):
        streamgmm.rows(path, features=["a/slat"])
    with pytest.raises(DataError, match="is not a number"):
        streamgmm.rows(f"{path}/text")
    with pytest.raises(DataError, match=r"0 sample"):
        streamgmm.rows(f"{path}/none")
    with pytest.raises(DataTypeError, match="is empty"):
        streamgmm.rows(f"{path}/empty")
    with pytest.raises(FileNotFoundError, match="there is nothing at"):
        streamgmm.rows(tmp_path / "none.h5")
    (tmp_path / "no.h5").write_bytes(b"nothing of the kind")
    with pytest.raises(SourceError, match="cannot be read as HDF5"):
        streamgmm.rows(tmp_path / "no.h5")
    model = GaussianMixture(1).fit(f"{path}/temp")
    with pytest.raises(ParameterError, match="would be in HDF5"):
        model.predict(f"{path}/temp", out=f"{path}/labels")


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_region_of_a_cube_is_skipped_if_asked_to(tmp_path, values, n_jobs):
    path = tmp_path / "x.zarr"
    values = np.repeat(values, 40, 1)
    zarr.create_array(str(path), data=values, chunks=(1, 500, 40, 3), compressors=None)
    chunk = path / "c" / "2" / "3" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    with pytest.raises(ChunkError, match="truncated"):
        GaussianMixture(1).fit(streamgmm.rows(path))
    with pytest.warns(UserWarning, match=r"rows could not be read and were skipped"):
        model = GaussianMixture(1, on_bad_chunk="skip", n_jobs=n_jobs).fit(streamgmm.rows(path))
    (region,) = streamgmm.rows(path).grid.regions(*model.skipped_rows_[0])
    kept = np.ones(values.shape[:3], bool)
    kept[region.box] = False
    assert not kept[2, 1500:].any()
    assert np.allclose(model.means_[0], values[kept].mean(0, np.float64))


def test_a_file_is_opened_once_a_block_and_closed(tmp_path, monkeypatch):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.ones((500_000, 3)), chunks=(5000, 3))
    blocks = streamgmm.rows(path / "x").blocks(4 << 20)
    opened = []
    whole = h5py.File
    monkeypatch.setattr(h5py, "File", lambda *more: (opened.append(whole(*more)), opened[-1])[1])
    assert sum(len(piece.rows) for block in blocks for piece in block.pieces()) == 500_000
    assert len(opened) == len(blocks) > 2
    pieces = blocks[0].pieces()
    next(pieces)
    pieces.close()  # as where a pass ends early
    assert not any(opened)
