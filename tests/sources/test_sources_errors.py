"""Bad input: what is said, and where it points."""

from __future__ import annotations

import pickle
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
import zarr

from streamgmm.errors import (
    ChunkError,
    DataError,
    DataTypeError,
    NonFiniteError,
    ParameterError,
    SourceError,
    SourceNotFoundError,
)
from streamgmm.sources import Piece, check_finite, open_source


def read_all(source_of: object, **kwargs: object) -> None:
    for block in open_source(source_of, **kwargs).blocks(1):  # type: ignore[arg-type]
        for _ in block.pieces():
            pass


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (np.ones(3), DataError, r"Expected 2D array, got 1D array.*Reshape your data"),
        (np.float64(3), DataError, "got scalar array"),
        (np.ones((2, 2, 2)), DataError, "got 3D array"),
        (np.ones((0, 3)), DataError, r"0 sample\(s\) \(shape=\(0, 3\)\) while a minimum of 1"),
        (np.ones((3, 0)), DataError, r"0 feature\(s\) \(shape=\(3, 0\)\) while a minimum of 1"),
        (np.ones((3, 2)) * 1j, DataError, "Complex data not supported"),
        (np.array([[1j, 2]], dtype=object), DataError, "Complex data not supported"),
        (np.array([["a", "b"]]), DataError, "dtype <U1, which is not a number"),
        (np.array([["a", 1]], dtype=object), DataError, "could not convert string to float"),
        (np.array([[{}, 1]], dtype=object), DataTypeError, "argument must be .* string.* number"),
        (np.zeros((2, 2), "M8[s]"), DataError, r"datetime64\[s\]"),
        (np.zeros((2, 2), [("a", "f4")]), DataError, "not a number"),
        ([[1, 2], [3]], DataError, "inhomogeneous"),
        (np.ma.masked_array(np.ones((2, 2)), [[0, 1], [0, 0]]), DataError, "masked"),
        (scipy.sparse.eye(3, format="csr"), DataTypeError, "Sparse data.*dense"),
        (None, DataTypeError, "NoneType"),
        (object(), DataTypeError, "no rows of numbers"),
    ],
)
def test_what_is_no_table_of_numbers(X: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_source(X)


def test_dask_arrays_of_unknown_size_shape_and_kind() -> None:
    x = da.ones((10, 2), chunks=5)
    with pytest.raises(DataError, match=r"compute_chunk_sizes\(\)"):
        open_source(x[x[:, 0] > 0])
    with pytest.raises(DataError, match="Reshape your data"):
        open_source(x[:, 0])
    with pytest.raises(DataError, match="Complex data not supported"):
        open_source(x * 1j)


def test_a_dask_chunk_of_another_shape_than_declared() -> None:
    x = da.ones((10, 2), chunks=5).map_blocks(lambda b: b[:3], dtype=float)
    with pytest.raises(DataError, match=r"X, rows 0:5: the computed chunk has shape \(3, 2\)"):
        read_all(x)


@pytest.mark.parametrize("array_kind", [np.asarray, lambda w: da.from_array(w, chunks=2)])
def test_weights_of_the_wrong_length_or_shape(array_kind: object) -> None:
    with pytest.raises(DataError, match="has 4 weights but the data has 5 rows"):
        open_source(np.ones((5, 2)), sample_weight=array_kind(np.ones(4)))  # type: ignore[operator]
    with pytest.raises(DataError, match="Sample weights must be 1D array or scalar"):
        open_source(np.ones((5, 2)), sample_weight=array_kind(np.ones((5, 1))))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 1, -1, 1, -2], "rows 0:5: 2 negative weights, the first in row 2"),
        ([1, 1, 1, np.nan, 1], "rows 0:5: 1 non-finite weight, the first in row 3"),
        ([1, np.inf, 1, 1, 1], "rows 0:5: 1 non-finite weight, the first in row 1"),
        ([0, 0, 0, 0, 0], "zero for every row"),
        (["a"] * 5, "not numbers"),
    ],
)
def test_bad_weights_in_memory_are_found_when_opened(weights: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(np.ones((5, 2)), sample_weight=weights)


def test_bad_lazy_weights_are_found_when_read(tmp_path: Path) -> None:
    w = np.array([1.0, 1, 1, -1, 1])
    zarr.create_array(str(tmp_path / "w"), data=w, chunks=(2,))
    X = zarr.create_array(str(tmp_path / "x"), data=np.ones((5, 2)), chunks=(2, 2))
    with pytest.raises(DataError, match=r"sample_weight \(array .*rows 2:4: 1 negative.*row 3"):
        read_all(X, sample_weight=tmp_path / "w")
    with pytest.raises(DataError, match=r"rows 2:4: 1 negative weight, the first in row 3"):
        read_all(X, sample_weight=da.from_array(w, chunks=5))


def test_a_scalar_weight_counts_for_every_row() -> None:
    piece = next(open_source(np.ones((5, 2)), sample_weight=2).blocks(1)[0].pieces())
    np.testing.assert_array_equal(piece.sample_weight, np.full(5, 2.0))
    with pytest.raises(DataError, match="zero for every row"):
        open_source(np.ones((5, 2)), sample_weight=0)


def test_non_finite_values_are_named() -> None:
    rows = np.ones((8, 3))
    rows[2, 1], rows[5, 0] = np.nan, np.inf
    with pytest.raises(NonFiniteError) as caught:
        check_finite(Piece(4096, rows, None), "array 'x.zarr'")
    assert str(caught.value).startswith(
        "array 'x.zarr', rows 4096:4104: 2 non-finite values (NaN or infinity), the first in row "
        "4098, column 1; "
    )
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_path_with_nothing(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"nothing at '.*missing.zarr'") as caught:
        open_source(tmp_path / "missing.zarr")
    assert isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("x.csv", "pandas"),
        ("x.zip", "ZipStore"),
        ("x.bin", "directory"),
    ],
)
def test_a_file(tmp_path: Path, name: str, hint: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SourceError, match=f"is a file, not a Zarr array; .*{hint}"):
        open_source(tmp_path / name)


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has no zarr.json or .zarray$"):
        open_source(tmp_path)
    zarr.create_array(str(tmp_path / "inner"), shape=(2, 2), dtype="f4")
    with pytest.raises(SourceError, match="inner', which does"):
        open_source(tmp_path)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_group_lists_its_arrays(tmp_path: Path, zarr_format: int) -> None:
    path = str(tmp_path / "g.zarr")
    group = zarr.create_group(path, zarr_format=zarr_format)  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="is a Zarr group that holds no array"):
        open_source(path)
    group.create_array("rows", shape=(7, 2), dtype="f4")
    group.create_array("more/rows", shape=(9, 3), dtype="f8")
    for given in (path, group):
        with pytest.raises(SourceError) as caught:
            open_source(given)
        message = str(caught.value)
        assert "'more/rows' (9, 3) float64, 'rows' (7, 2) float32" in message
        assert message.endswith("g.zarr/more/rows'")


def test_damaged_metadata(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "x"), shape=(2, 2), dtype="f4")
    (tmp_path / "x" / "zarr.json").write_text("{")
    with pytest.raises(SourceError, match="unreadable Zarr metadata"):
        open_source(tmp_path / "x")


def test_zarr_arrays_that_are_no_tables(tmp_path: Path) -> None:
    for shape, dtype, message in [
        ((5,), "f4", "got 1D array"),
        ((), "f4", "got scalar array"),
        ((0, 3), "f4", r"0 sample\(s\)"),
        ((3, 2), "c8", "Complex data not supported"),
        ((3, 2), "M8[s]", "not a number"),
    ]:
        array = zarr.create_array({}, shape=shape, dtype=dtype, zarr_format=2)
        with pytest.raises(DataError, match=message):
            open_source(array)


def test_urls_that_cannot_be_opened() -> None:
    with pytest.raises(SourceError, match=r"'nowhere://x' cannot be opened"):
        open_source("nowhere://x")
    with pytest.raises(SourceNotFoundError, match="no Zarr array at 'memory://none'"):
        open_source("memory://none")
    with pytest.raises(ParameterError, match="storage_options are for URLs"):
        open_source("here", storage_options={"anon": True})


CODECS = {
    "raw": {"compressors": None},
    "zstd": {"compressors": zarr.codecs.ZstdCodec()},
    "gzip": {"compressors": zarr.codecs.GzipCodec()},
    "blosc": {"compressors": zarr.codecs.BloscCodec()},
    "sharded": {"shards": (50, 3)},
}


@pytest.mark.parametrize("kept", [0, 5, 30, 0.6])
@pytest.mark.parametrize("codec", [*CODECS, "blosc 2", "raw 2"])
def test_a_truncated_chunk_is_named(tmp_path: Path, codec: str, kept: float) -> None:
    path = tmp_path / "x.zarr"
    if codec.endswith("2"):
        import numcodecs

        compressors = numcodecs.Blosc() if "blosc" in codec else None
        options, key = {"zarr_format": 2, "compressors": compressors}, "1.0"
    else:
        options, key = CODECS[codec], "c/1/0"
    X = np.random.default_rng(0).normal(size=(100, 3))
    chunks = (25, 3) if codec == "sharded" else (50, 3)
    zarr.create_array(str(path), data=X, chunks=chunks, **options)  # type: ignore[arg-type]
    file = path / key
    data = file.read_bytes()
    file.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(
        ChunkError, match=rf"x.zarr': chunk '{key}' \(rows 50:100\) cannot be read"
    ):
        read_all(path)


def test_a_chunk_of_wrong_checksum_is_named(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(100, 3))
    checks = zarr.codecs.Crc32cCodec()
    zarr.create_array(str(tmp_path / "x"), data=X, chunks=(50, 2), compressors=checks)
    file = tmp_path / "x" / "c/0/1"
    data = bytearray(file.read_bytes())
    data[17] ^= 4
    file.write_bytes(data)
    with pytest.raises(ChunkError, match=r"chunk 'c/0/1' \(rows 0:50\)") as caught:
        read_all(tmp_path / "x")
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), OSError)


def test_an_array_that_another_process_does_not_see(tmp_path: Path) -> None:
    """Without a check it would be read as its fill value: an array of zeros."""
    from dataclasses import replace

    X = np.ones((10, 2))
    zarr.create_array(str(tmp_path / "x"), data=X, chunks=(5, 2))
    source = open_source(tmp_path / "x")
    elsewhere = replace(source.ref, process="another")  # type: ignore[attr-defined]
    np.testing.assert_array_equal(elsewhere.read(0, 10), X)
    elsewhere = replace(elsewhere, token="opened again")
    (tmp_path / "x").rename(tmp_path / "y")
    with pytest.raises(SourceError, match="not to be seen from this worker"):
        elsewhere.read(0, 10)
    zarr.create_array(str(tmp_path / "x"), shape=(10, 3), dtype="f4")
    with pytest.raises(SourceError, match=r"\(10, 2\) float64 where it was opened, but \(10, 3\)"):
        elsewhere.read(0, 10)
