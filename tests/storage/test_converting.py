"""Rows of any kind become a Zarr array: bounded, resumable, whole or not there."""

import json
import math
import shutil

import dask.array as da
import dask.dataframe as dd
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse
import xarray as xr
import zarr
from dask.utils import parse_bytes

import streamgmm
from streamgmm import GaussianMixture
from streamgmm.cli import main
from streamgmm.errors import OutputError, OutputExistsError, ParameterError
from streamgmm.storage import converting
from streamgmm.storage.converting import CHUNK_BYTES, convert
from streamgmm.storage.output import Output, is_unfinished
from tests.sources.test_kinds import write_cells


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(6, 30, 40, 3))


@pytest.mark.parametrize("most", [CHUNK_BYTES, 20_000, 500])
def test_every_kind_is_what_it_was(tmp_path, values, most, monkeypatch):
    monkeypatch.setattr(converting, "CHUNK_BYTES", most)
    table = values.reshape(-1, 3)
    columns = {f"v{j}": table[:, j] for j in range(3)}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=1100)
    np.save(tmp_path / "t.npy", table)
    stored = zarr.create_array(
        str(tmp_path / "c.zarr"), data=np.moveaxis(values, -1, 0).copy(), chunks=(1, 4, 30, 16)
    )
    given = [
        (streamgmm.rows(tmp_path / "t.parquet"), table),
        (streamgmm.rows(tmp_path / "t.npy"), table),
        (streamgmm.rows(da.from_array(table, chunks=(999, 2))), table),
        (streamgmm.rows(stored, feature_axis=0), values),
        (streamgmm.rows(da.from_array(values, chunks=((1, 5), 7, 40, 2))), values),
        (streamgmm.rows(values), values),
    ]
    for i, (source, expected) in enumerate(given):
        counted = []
        array = convert(source, str(tmp_path / f"{i}.zarr"), on_rows=counted.append)
        assert np.array_equal(array[:], expected)
        assert array.chunks[-1] == 3
        assert sum(counted) == source.n_samples
        again = streamgmm.rows(str(tmp_path / f"{i}.zarr"))
        assert again.n_samples == len(table)


def test_masked_rows_are_nan_and_numbers_may_be_float32(tmp_path, values):
    land = np.zeros((6, 30, 40), bool)
    land[2:4] = True
    array = convert(streamgmm.rows(values, mask=land), str(tmp_path / "x.zarr"), dtype="float32")
    assert array.dtype == np.float32
    assert np.isnan(array[:][land]).all()
    assert np.array_equal(array[:][~land], values[~land].astype(np.float32))
    with pytest.raises(ParameterError, match="must be float32 or float64"):
        convert(streamgmm.rows(values), str(tmp_path / "y.zarr"), dtype="int16")


class Stopping:
    """Ends the run after some rows."""

    def __init__(self, after):
        self.left = after

    def __call__(self, n):
        self.left -= n
        if self.left <= 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["table", "cube"])
def test_an_interrupted_run_goes_on(tmp_path, values, kind, monkeypatch):
    monkeypatch.setattr(converting, "CHUNK_BYTES", 10_000)
    if kind == "cube":
        source = streamgmm.rows(zarr.array(values, chunks=(2, 10, 20, 3)))
    else:
        source, values = streamgmm.rows(values.reshape(-1, 3)), values.reshape(-1, 3)
    out = str(tmp_path / "x.zarr")
    with pytest.raises(KeyboardInterrupt):
        convert(source, out, on_rows=Stopping(3000))
    assert is_unfinished(out)
    counted = []
    array = convert(source, out, on_rows=counted.append)
    assert np.array_equal(array[:], values)
    assert sum(counted) == 7200
    assert counted[0] >= 3000  # what was there, told at once
    with pytest.raises(OutputExistsError, match="exists"):
        convert(source, out)


def test_rows_of_other_data_are_not_taken_up(tmp_path, values, monkeypatch):
    monkeypatch.setattr(converting, "CHUNK_BYTES", 10_000)
    out = str(tmp_path / "x.zarr")
    with pytest.raises(KeyboardInterrupt):
        convert(streamgmm.rows(values), out, on_rows=Stopping(3000))
    with pytest.raises(OutputExistsError, match="unfinished"):
        convert(streamgmm.rows(values + 1), out)
    array = convert(streamgmm.rows(values + 1), out, overwrite=True)
    assert np.array_equal(array[:], values + 1)


def test_a_full_disk_is_seen_before(tmp_path, values, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=converting._SPARE + 100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match=r"needs up to .* GB are free"):
        convert(streamgmm.rows(values), str(tmp_path / "x.zarr"))
    assert not (tmp_path / "x.zarr").exists()


@pytest.mark.parametrize("most", [20_000, 500])
@pytest.mark.parametrize("shards", [50_000, 200_000, "1MiB", "auto"])
def test_chunks_in_shards(tmp_path, values, most, shards, monkeypatch):
    monkeypatch.setattr(converting, "CHUNK_BYTES", most)
    monkeypatch.setattr(converting, "MANY_CHUNKS", 20)
    monkeypatch.setattr(converting, "SHARD_BYTES", 100_000)
    table = values.reshape(-1, 3)
    given = [
        (streamgmm.rows(table), table),
        (streamgmm.rows(values), values),
        (streamgmm.rows(zarr.array(values, chunks=(1, 7, 40, 3))), values),
        (streamgmm.rows(zarr.array(values, chunks=(4, 7, 11, 3))), values),
    ]
    for i, (source, expected) in enumerate(given):
        written = []
        whole = Output.write_box

        def write_box(self, box, rows, written=written, whole=whole):
            written.append(tuple((part.start, part.stop) for part in box))
            whole(self, box, rows)

        with monkeypatch.context() as patch:
            patch.setattr(Output, "write_box", write_box)
            array = convert(source, str(tmp_path / f"{i}.zarr"), shards=shards)
        assert np.array_equal(array[:], expected)
        plain = convert(source, str(tmp_path / f"{i}-plain.zarr"), shards=None)
        assert plain.shards is None
        assert array.chunks == plain.chunks
        if array.shards is None:
            two = 2 * 8 * math.prod(array.chunks)  # do not fit, or are not there
            assert shards == "auto" or array.nchunks == 1 or two > parse_bytes(shards)
            continue
        assert all(s % c == 0 for s, c in zip(array.shards, array.chunks, strict=True))
        assert len(written) == len(set(written))  # each shard once, and whole
        for box in written:
            for (start, stop), step, n in zip(box, array.shards, array.shape, strict=False):
                assert start % step == 0
                assert stop == min(start + step, n)
        again = streamgmm.rows(str(tmp_path / f"{i}.zarr"))
        assert again.n_samples == len(table)


def test_shards_are_refused_where_they_are_no_size(tmp_path, values):
    with pytest.raises(ParameterError, match=r"shards='much' is no size"):
        convert(streamgmm.rows(values), str(tmp_path / "x.zarr"), shards="much")


def test_names_of_columns_are_kept(tmp_path, values):
    table = pd.DataFrame(values.reshape(-1, 3), columns=["temp", "salt", "depth"])
    path = str(tmp_path / "x.zarr")
    convert(streamgmm.rows(table), path)
    model = GaussianMixture(2, random_state=0).fit(path)
    assert list(model.feature_names_in_) == ["temp", "salt", "depth"]
    one = streamgmm.rows(path, features=["salt", "temp"])
    assert one.feature_names == ("salt", "temp")
    with pytest.raises(ParameterError, match=r"'slat' is not .*did you mean 'salt'"):
        streamgmm.rows(path, features=["slat"])
    # In another order, they are put in order.
    other = str(tmp_path / "y.zarr")
    convert(streamgmm.rows(table, features=["depth", "temp", "salt"]), other)
    expected = model.predict(table)
    assert np.array_equal(model.predict(other).compute(), expected)
    weight = np.random.default_rng(0).random(len(table))
    zarr.save_array(str(tmp_path / "w.zarr"), weight)
    for given in (weight, zarr.open_array(str(tmp_path / "w.zarr")), da.from_array(weight)):
        scored = model.score(streamgmm.rows(other, sample_weight=given))
        assert scored == pytest.approx(model.score(streamgmm.rows(path, sample_weight=given)))
    cube = xr.Dataset({n: (("t", "y", "x"), values[..., j]) for j, n in enumerate("abc")})
    convert(streamgmm.rows(cube), str(tmp_path / "z.zarr"))
    assert streamgmm.rows(str(tmp_path / "z.zarr")).feature_names == ("a", "b", "c")


@pytest.mark.parametrize("shards", [None, 40_000])
def test_hdf5_and_tables_of_dask_become_zarr(tmp_path, values, shards, monkeypatch):
    monkeypatch.setattr(converting, "CHUNK_BYTES", 10_000)
    table = values.reshape(-1, 3)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = values
    frame = dd.from_pandas(pd.DataFrame(table, columns=["a", "b", "c"]), npartitions=4)
    sparse = scipy.sparse.csr_matrix(table)
    with h5py.File(tmp_path / "x.h5ad", "w") as file:
        write_cells(file, table)
    for i, (source, expected) in enumerate(
        [
            (streamgmm.rows(tmp_path / "x.h5" / "x"), values),
            (streamgmm.rows(frame), table),
            (streamgmm.rows(tmp_path / "x.h5ad", features="X"), sparse.toarray()),
            (streamgmm.rows(tmp_path / "x.h5ad", features="obsm/X_pca"), table),
        ]
    ):
        out = str(tmp_path / f"{i}.zarr")
        with pytest.raises(KeyboardInterrupt):
            convert(source, out, shards=shards, on_rows=Stopping(3000))
        counted = []
        array = convert(source, out, shards=shards, on_rows=counted.append)
        assert np.array_equal(array[:], expected)
        assert counted[0] >= 3000
        assert sum(counted) == len(table)


def test_on_the_command_line(tmp_path, values, capsys):
    np.save(tmp_path / "x.npy", values)
    out = tmp_path / "x.zarr"
    args = ["convert", str(tmp_path / "x.npy"), str(out), "--json", "-q", "--features", "2,0"]
    assert main(args) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["shape"], said["shards"]) == ([6, 30, 40, 2], None)
    assert np.array_equal(zarr.open_array(str(out), mode="r")[:], values[..., [2, 0]])
    assert main(args) == 2
    assert "--overwrite" in capsys.readouterr().err
