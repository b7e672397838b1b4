"""Labels, probabilities and densities as columns of Parquet."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

import streamgmm
from streamgmm import GaussianMixture
from streamgmm.cli import main
from streamgmm.errors import OutputError, OutputExistsError, ParameterError
from streamgmm.predict import predict_out
from streamgmm.sources import open_source


@pytest.fixture
def table():
    rows = np.random.default_rng(0).normal(size=(5000, 2))
    rows[::3] += 6
    return pa.table({"a": rows[:, 0], "b": rows[:, 1]})


@pytest.fixture
def model(table):
    return GaussianMixture(2, random_state=0).fit(table)


def sources(table, tmp_path):
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=700)
    values = np.column_stack(list(table.columns))
    zarr.create_array(str(tmp_path / "x.zarr"), data=values, chunks=(901, 2))
    return [tmp_path / "x.parquet", tmp_path / "x.zarr", table, table.to_pandas()]


def files(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize("i", range(4))
def test_what_is_said_becomes_columns(table, model, tmp_path, i, monkeypatch):
    monkeypatch.setattr("streamgmm.predict.table.GROUP_ROWS", 1000)
    model.set_params(block_size=20_000)
    rows = streamgmm.rows(sources(table, tmp_path)[i])
    before = files(tmp_path)
    out = str(tmp_path / "labels.parquet")
    labels = model.predict(rows, out=out)
    assert labels.count_rows() == 5000
    written = pq.read_table(out)
    assert written.schema.names == ["labels"]
    assert written.schema.types == [pa.int32()]
    assert np.array_equal(written["labels"], model.predict(table))
    groups = pq.ParquetFile(out).metadata
    assert groups.num_row_groups == (6 if i == 1 else 1)
    assert json.loads(groups.metadata[b"streamgmm"]) == {"what": "labels", "n_components": 2}

    proba = model.predict_proba(rows, out=tmp_path / "p.parquet").to_table()
    assert proba.schema.names == ["proba_0", "proba_1"]
    assert np.allclose(np.column_stack(list(proba.columns)), model.predict_proba(table))
    density = model.score_samples(rows, out=tmp_path / "d.parquet").to_table()
    assert np.allclose(density["log_density"], model.score_samples(table))
    assert files(tmp_path) == sorted([*before, "labels.parquet", "p.parquet", "d.parquet"])
    back = streamgmm.rows(out)
    assert back.feature_names == ("labels",)


def test_rows_that_are_left_out_keep_their_place(table, model, tmp_path):
    mask = np.zeros(5000, bool)
    mask[1000:3000] = True
    rows = streamgmm.rows(table, mask=mask)
    labels = model.predict(rows, out=tmp_path / "x.parquet").to_table()["labels"].to_numpy()
    assert np.array_equal(labels == -1, mask)


def test_on_a_cluster(client, table, model, tmp_path):
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=700)
    labels = model.predict(tmp_path / "x.parquet", out=str(tmp_path / "y.parquet"))
    assert np.array_equal(labels.to_table()["labels"], model.predict(table))


def test_at_a_url(table, model):
    url = "memory://labels.parquet"
    labels = model.predict(table, out=url)
    assert np.array_equal(labels.to_table()["labels"], model.predict(table))
    with pytest.raises(OutputExistsError):
        model.predict(table, out=url)
    model.predict(table, out=url, overwrite=True)


def test_a_file_is_there_only_once_it_is_whole(table, model, tmp_path, monkeypatch):
    out = tmp_path / "y.parquet"
    model.predict(table, out=out)
    content = out.read_bytes()
    with pytest.raises(OutputExistsError, match="pass overwrite=True"):
        model.predict(table, out=out)

    from streamgmm.storage.output import Output

    def full(self, box, values):
        raise OutputError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Output, "write_box", full)
        with pytest.raises(OutputError, match="full"):
            model.predict(table, out=out, overwrite=True)
    written = pq.ParquetWriter.write_table

    def fail(self, *more):
        written(self, *more)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", fail)
    for where in (out, "memory://z.parquet"):
        with pytest.raises(OutputError, match="No space left"):
            model.predict(table, out=where, overwrite=True)
    assert files(tmp_path) == ["y.parquet"]
    assert out.read_bytes() == content
    with pytest.raises(FileNotFoundError):
        streamgmm.rows("memory://z.parquet")


def test_what_cannot_be_is_refused(table, model, tmp_path):
    (tmp_path / "t").mkdir()
    pq.write_table(table, tmp_path / "t" / "x.parquet")
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(OutputExistsError, match="is a directory"):
        model.predict(table, out=tmp_path / "folder.parquet", overwrite=True)
    for name in ("x.parquet", "labels.parquet"):
        with pytest.raises(ParameterError, match="where the data are that are read"):
            model.predict(tmp_path / "t", out=tmp_path / "t" / name, overwrite=True)
    cube = streamgmm.rows(np.ones((4, 5, 2)))
    unnamed = GaussianMixture(1).fit(np.random.default_rng(0).normal(size=(9, 2)))
    with pytest.raises(ParameterError, match=r"have shape \(4, 5\), and Parquet has rows only"):
        unnamed.predict(cube, out=tmp_path / "y.parquet")


def test_the_tally_is_that_of_zarr(table, model, tmp_path):
    rows = open_source(np.column_stack(list(table.columns)))
    _, one = predict_out(rows, model._mixture(), tmp_path / "y.parquet")
    _, two = predict_out(rows, model._mixture(), tmp_path / "y.zarr")
    assert np.array_equal(one.counts, two.counts)


def test_on_the_command_line(table, model, tmp_path, capsys):
    pq.write_table(table, tmp_path / "x.parquet")
    model.save(tmp_path / "model.zarr")
    out = str(tmp_path / "y.parquet")
    args = ["predict", str(tmp_path / "model.zarr"), str(tmp_path / "x.parquet"), "--out", out]
    assert main([*args, "--json", "-q", "--threads", "2"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["shape"], said["dtype"]) == ([5000], "int32")
    assert pq.read_metadata(out).num_rows == 5000
