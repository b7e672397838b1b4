"""Tables: Parquet by row groups, DataFrames and Arrow in memory, mapped .npy files."""

import datetime

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

import streamgmm
from streamgmm import GaussianMixture
from streamgmm.errors import ChunkError, DataError, ParameterError, SourceError
from streamgmm.sources import PIECE_BYTES
from streamgmm.testing import SourceTests

from .test_cubes import read


def table_of(rows):
    return pa.table({f"v{j}": column for j, column in enumerate(rows.T)})


class TestParquet(SourceTests):
    def source(self, rows, sample_weight, tmp_path):
        pq.write_table(table_of(rows), tmp_path / "x.parquet", row_group_size=70)
        return streamgmm.rows(tmp_path / "x.parquet", sample_weight=sample_weight)


class TestFolderOfParquet(SourceTests):
    def source(self, rows, sample_weight, tmp_path):
        table, half = table_of(rows), len(rows) // 2
        (tmp_path / "t").mkdir()
        for i, part in enumerate((table[:half], table[half:])):
            pq.write_table(part, tmp_path / "t" / f"{i}.parquet", row_group_size=90)
        return streamgmm.rows(str(tmp_path / "t"), sample_weight=sample_weight)


class TestArrow(SourceTests):
    def source(self, rows, sample_weight, tmp_path):
        return streamgmm.rows(table_of(rows), sample_weight=sample_weight)


class TestPandas(SourceTests):
    def source(self, rows, sample_weight, tmp_path):
        names = [f"v{j}" for j in range(rows.shape[1])]
        return streamgmm.rows(pd.DataFrame(rows, columns=names), sample_weight=sample_weight)


class TestNpy(SourceTests):
    def source(self, rows, sample_weight, tmp_path):
        np.save(tmp_path / "x.npy", rows)
        return streamgmm.rows(str(tmp_path / "x.npy"), sample_weight=sample_weight)


@pytest.fixture
def flights():
    rng = np.random.default_rng(0)
    n = 3000
    long = rng.random(n) < 0.4
    return pa.table(
        {
            "delay": np.where(long, 60, 0) + rng.normal(0, 5, n),
            "distance": pa.array(rng.normal(900, 20, n).astype(np.float32)),
            "passengers": pa.array(rng.integers(0, 300, n), pa.int16()),
            "carrier": pa.array(rng.choice(["UA", "AA"], n)),
            "when": pa.array([datetime.datetime(2013, 1, 1)] * n),
            "weight": rng.random(n),
            "cancelled": pa.array(rng.random(n) < 0.05),
        }
    )


NUMBERS = ["delay", "distance", "passengers"]


def numbers(flights, names=NUMBERS):
    return np.column_stack([flights[name].to_numpy() for name in names]).astype(float)


def forms(flights, tmp_path):
    pq.write_table(flights, tmp_path / "f.parquet", row_group_size=700)
    return [str(tmp_path / "f.parquet"), flights, flights.to_pandas()]


@pytest.mark.parametrize("form", range(3))
def test_only_the_columns_that_are_asked_for(flights, tmp_path, form):
    data = forms(flights, tmp_path)[form]
    source = streamgmm.rows(data, features=NUMBERS)
    assert source.feature_names == tuple(NUMBERS)
    assert np.array_equal(read(source, 5000), numbers(flights))
    one = streamgmm.rows(data, features=["distance"])
    assert one.dtype == np.float32
    model = GaussianMixture(2, random_state=0).fit(source)
    assert list(model.feature_names_in_) == NUMBERS
    assert np.asarray(model.predict(source)).shape == (3000,)
    # Columns in another order, and more of them, are put in order by name.
    other = streamgmm.rows(data, features=["passengers", "weight", "delay", "distance"])
    expected = model.predict_proba(pd.DataFrame(numbers(flights), columns=NUMBERS))
    assert np.allclose(np.asarray(model.predict_proba(other)), expected)
    with pytest.raises(ParameterError, match=r"'delay' is not a feature of"):
        model.predict(streamgmm.rows(data, features=["distance", "passengers", "weight"]))


@pytest.mark.parametrize("form", range(3))
def test_weights_and_masks_are_columns(flights, tmp_path, form):
    data = forms(flights, tmp_path)[form]
    source = streamgmm.rows(data, features=NUMBERS, sample_weight="weight", mask="cancelled")
    kept = ~flights["cancelled"].to_numpy()
    model = GaussianMixture(1).fit(source)
    mean = np.average(numbers(flights)[kept], axis=0, weights=flights["weight"].to_numpy()[kept])
    assert np.allclose(model.means_[0], mean)
    labels = model.predict(source, out=str(tmp_path / "labels.zarr"))[:]
    assert np.array_equal(labels == -1, ~kept)


def test_gaps_are_nan(tmp_path):
    table = pa.table({"a": pa.array([1, None, 3], pa.int32()), "b": pa.array([1.0, 2.0, None])})
    pq.write_table(table, tmp_path / "x.parquet")
    frame = pd.DataFrame({"a": pd.array([1, None, 3], dtype="Int32"), "b": [1.0, 2.0, np.nan]})
    expected = [[1, 1], [np.nan, 2], [3, np.nan]]
    for data in (table, tmp_path / "x.parquet", frame):
        source = streamgmm.rows(data)
        assert np.array_equal(read(source), expected, equal_nan=True)
        assert GaussianMixture(1, missing="omit").fit(source).n_missing_ == 2


def test_partitions_by_key(flights, tmp_path):
    where = tmp_path / "parts"
    pyarrow.dataset.write_dataset(
        flights.append_column("month", pa.array(np.arange(3000) % 3)),
        str(where),
        format="parquet",
        partitioning=["month"],
        partitioning_flavor="hive",
    )
    source = streamgmm.rows(where, features=["month", "delay"])
    found = read(source, 5000)
    assert np.array_equal(np.bincount(found[:, 0].astype(int)), [1000, 1000, 1000])
    assert np.allclose(np.sort(found[:, 1]), np.sort(flights["delay"].to_numpy()))


def test_parquet_at_a_url(flights):
    import fsspec

    with fsspec.open("memory://flights.parquet", "wb") as file:
        pq.write_table(flights, file, row_group_size=700)
    source = streamgmm.rows("memory://flights.parquet", features=NUMBERS)
    assert np.array_equal(read(source), numbers(flights))


def test_plain_paths_are_taken_as_they_are(flights, tmp_path):
    pq.write_table(flights.select(NUMBERS), tmp_path / "f.parquet", row_group_size=800)
    np.save(tmp_path / "f.npy", numbers(flights))
    settings = {"n_components": 2, "random_state": 0}
    model = GaussianMixture(**settings).fit(numbers(flights))
    for name in ("f.parquet", "f.npy"):
        path = str(tmp_path / name)
        again = GaussianMixture(**settings).fit(path)
        assert np.allclose(again.means_, model.means_)
        assert np.array_equal(np.asarray(again.predict(path)), model.predict(numbers(flights)))


def test_row_groups_are_read_once_and_large_ones_in_bounded_pieces(tmp_path, monkeypatch):
    from streamgmm.sources.parquet import InParquet

    rows = np.random.default_rng(0).normal(size=(900_000, 3))
    pq.write_table(table_of(rows), tmp_path / "x.parquet", row_group_size=850_000)
    asked = []
    whole = InParquet._group
    monkeypatch.setattr(
        InParquet, "_group", lambda self, i, *more: (asked.append(i), whole(self, i, *more))[1]
    )
    blocks = streamgmm.rows(tmp_path / "x.parquet").blocks(1 << 20)
    pieces = [piece for block in blocks for piece in block.pieces()]
    assert sorted(asked) == [0, 1]
    assert max(piece.rows.nbytes for piece in pieces) <= 2 * PIECE_BYTES


def test_bad_input(flights, tmp_path):
    for data in forms(flights, tmp_path):
        with pytest.raises(DataError, match=r"'carrier' \(.*'when' \(.*cannot be used as"):
            streamgmm.rows(data)
        with pytest.raises(ParameterError, match=r"'dely' is not a column.*did you mean 'delay'"):
            streamgmm.rows(data, features=["dely"])
        with pytest.raises(DataError, match=r"mask has shape \(7,\)"):
            streamgmm.rows(data, features=["delay"], mask=np.zeros(7))
        for more in ({"feature_axis": 0}, {"sample_dims": ["row"]}):
            with pytest.raises(ParameterError, match=r"what has columns by name has rows only"):
                streamgmm.rows(data, features=["delay"], **more)
    (tmp_path / "no.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(SourceError, match=r"cannot be read as Parquet"):
        streamgmm.rows(tmp_path / "no.parquet")
    (tmp_path / "no.npy").write_bytes(b"nothing of the kind")
    with pytest.raises(SourceError, match=r"cannot be read as .npy"):
        GaussianMixture(1).fit(str(tmp_path / "no.npy"))
    with pytest.raises(FileNotFoundError, match=r"there is nothing at"):
        streamgmm.rows(tmp_path / "none.parquet")
    pq.write_table(flights[:0], tmp_path / "empty.parquet")
    with pytest.raises(DataError, match=r"it has no rows"):
        streamgmm.rows(tmp_path / "empty.parquet", features=["delay"])


def test_a_damaged_row_group_is_named(flights, tmp_path):
    path = tmp_path / "f.parquet"
    pq.write_table(flights.select(["delay"]), path, row_group_size=1000)
    content = bytearray(path.read_bytes())
    at = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    content[at : at + 400] = b"\xff" * 400
    path.write_bytes(bytes(content))
    with pytest.raises(ChunkError, match=r"row group 1 of '.*' \(rows 1000:2000\)"):
        GaussianMixture(1).fit(str(path))
    with pytest.warns(UserWarning, match=r"1000 rows could not be read"):
        model = GaussianMixture(1, on_bad_chunk="skip").fit(str(path))
    assert np.array_equal(model.skipped_rows_, [[1000, 2000]])
    delay = np.delete(flights["delay"].to_numpy(), slice(1000, 2000))
    assert np.allclose(model.means_[0], delay.mean())


class Interchange:
    """Nothing but the interchange protocol."""

    def __init__(self, table):
        self.table = table

    def __dataframe__(self, nan_as_null=False, allow_copy=True):
        return self.table.__dataframe__(nan_as_null, allow_copy)


class Stream:
    """Nothing but the Arrow stream."""

    def __init__(self, table):
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize("kind", [Interchange, Stream, lambda table: table.to_reader()])
def test_what_gives_columns_by_a_protocol(flights, kind):
    source = streamgmm.rows(kind(flights.select(NUMBERS)))
    assert np.array_equal(read(source), numbers(flights))
    assert source.feature_names == tuple(NUMBERS)
    model = GaussianMixture(2, random_state=0).fit(kind(flights.select(NUMBERS)))
    assert list(model.feature_names_in_) == NUMBERS
    labels = model.predict(kind(flights.select(NUMBERS[::-1])))
    assert np.array_equal(labels, model.predict(source))
    with pytest.raises(DataError, match=r"'carrier' \(string\), 'when' \(timestamp"):
        streamgmm.rows(kind(flights.drop_columns(["cancelled"])))


class TestDaskFrame(SourceTests):
    def source(self, rows, sample_weight, tmp_path):
        frame = table_of(rows).to_pandas()
        names = list(frame.columns)
        if sample_weight is not None:
            frame["weight"], sample_weight = sample_weight, "weight"
        frame = dd.from_pandas(frame, npartitions=min(7, len(rows)))
        return streamgmm.rows(frame, features=names, sample_weight=sample_weight)


def test_dask_frames(flights):
    frame = dd.from_pandas(flights.to_pandas(), npartitions=5)
    frame = frame[frame.weight > 0.1]  # so that nobody knows how long a partition is
    kept = flights.filter(pa.compute.greater(flights["weight"], 0.1))
    source = streamgmm.rows(
        frame, features=["distance", "delay"], mask="cancelled", sample_weight=frame.weight
    )
    assert source.n_samples == len(kept)
    assert np.array_equal(streamgmm.rows(frame, features=["distance"]).dtype, np.dtype(np.float32))
    model = GaussianMixture(2, random_state=0).fit(source)
    table = kept.filter(pa.compute.invert(kept["cancelled"]))
    plain = GaussianMixture(2, random_state=0).fit(
        numbers(table, ["distance", "delay"]), sample_weight=table["weight"].to_numpy()
    )
    assert np.allclose(model.means_, plain.means_)
    labels = model.predict(frame[["delay", "distance"]])
    assert np.array_equal(labels.compute(), model.predict(kept.select(["distance", "delay"])))
    plain = frame[["delay", "passengers"]]
    assert list(GaussianMixture(1).fit(plain).feature_names_in_) == ["delay", "passengers"]


def test_bad_dask_frames(flights):
    frame = dd.from_pandas(flights.to_pandas(), npartitions=3)
    with pytest.raises(DataError, match=r"'carrier' \(.*'when' \(.*cannot be used as"):
        streamgmm.rows(frame)
    with pytest.raises(ParameterError, match=r"did you mean 'delay'"):
        streamgmm.rows(frame, features="dely")
    with pytest.raises(DataError, match=r"length zero"):
        streamgmm.rows(frame[frame.delay > 1e6], features="delay")
    liar = frame[["carrier"]].map_partitions(lambda x: x, meta={"carrier": "f8"})
    with pytest.raises(DataError, match=r"column 'carrier' holds no numbers"):
        GaussianMixture(1).fit(liar)


def test_gaps_in_dask_frames():
    frame = pd.DataFrame({"a": pd.array([1, None, 3], dtype="Int32"), "b": [1.0, 2.0, np.nan]})
    source = streamgmm.rows(dd.from_pandas(frame, npartitions=2))
    expected = [[1, 1], [np.nan, 2], [3, np.nan]]
    assert np.array_equal(read(source), expected, equal_nan=True)


def test_polars(flights):
    polars = pytest.importorskip("polars")
    source = streamgmm.rows(polars.DataFrame(flights), features=NUMBERS)
    assert np.array_equal(read(source), numbers(flights))
