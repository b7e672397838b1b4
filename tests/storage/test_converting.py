"""Rows of any kind become a Zarr array: bounded, resumable, whole or not there."""

import json
import shutil

import dask.array as da
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

import streamgmm
from streamgmm.cli import main
from streamgmm.errors import OutputError, OutputExistsError, ParameterError
from streamgmm.storage import converting
from streamgmm.storage.converting import CHUNK_BYTES, convert
from streamgmm.storage.output import is_unfinished


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


def test_on_the_command_line(tmp_path, values, capsys):
    np.save(tmp_path / "x.npy", values)
    out = tmp_path / "x.zarr"
    args = ["convert", str(tmp_path / "x.npy"), str(out), "--json", "-q", "--features", "2,0"]
    assert main(args) == 0
    assert json.loads(capsys.readouterr().out)["shape"] == [6, 30, 40, 2]
    assert np.array_equal(zarr.open_array(str(out), mode="r")[:], values[..., [2, 0]])
    assert main(args) == 2
    assert "--overwrite" in capsys.readouterr().err
