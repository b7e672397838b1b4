"""What every source promises, and what each kind adds."""

from __future__ import annotations

import functools
import http.server
import pickle
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgmm.errors import ChunkError, DataError, ParameterError, SourceError
from streamgmm.sources import (
    PIECE_BYTES,
    Block,
    Piece,
    Source,
    alone,
    check_finite,
    open_source,
    parse_block_size,
)
from streamgmm.sources.base import even_runs, split_piece
from streamgmm.sources.readahead import read_ahead

MIB = 1 << 20


def table(n: int, d: int, dtype: str = "f8") -> np.ndarray:
    values = np.random.default_rng(n * 31 + d).normal(size=(n, d)) * 50
    return values.astype(dtype)


def read(source: Source, target: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a source through pickled blocks, holding it to its contract."""
    rows, weights, at = [], [], 0
    for block in source.blocks(target):
        assert isinstance(block, Block)
        assert block.start == at
        for piece in pickle.loads(pickle.dumps(block)).pieces():
            assert piece.start == at
            assert piece.rows.dtype == source.dtype
            assert piece.rows.dtype.isnative
            assert piece.rows.flags.c_contiguous
            assert piece.rows.shape[1] == source.n_features
            if piece.sample_weight is not None:
                assert piece.sample_weight.shape == (len(piece.rows),)
                assert piece.sample_weight.dtype == np.float64
                assert piece.sample_weight.flags.c_contiguous
                weights.append(piece.sample_weight)
            at += len(piece.rows)
            rows.append(piece.rows)
        assert at == block.start + block.n_rows
    assert at == source.n_samples
    assert source.nbytes == source.n_samples * source.n_features * source.dtype.itemsize
    return np.concatenate(rows), np.concatenate(weights) if weights else None


def make(kind: str, X: np.ndarray, chunks: tuple[int, int], path: Path) -> object:
    if kind == "numpy":
        return X
    if kind == "fortran":
        return np.asfortranarray(X)
    if kind == "dask":
        return da.from_array(X, chunks=chunks)
    if kind == "memory store":
        return zarr.create_array({}, data=X, chunks=chunks)
    if kind == "sharded":
        shards = (chunks[0] * 3, chunks[1] * 2)
        store = str(path)
        zarr.create_array(store, data=X, chunks=chunks, shards=shards, overwrite=True)
        return path
    zarr_format = 2 if kind == "zarr 2" else 3
    array = zarr.create_array(
        str(path), data=X, chunks=chunks, zarr_format=zarr_format, overwrite=True
    )
    return array if kind == "zarr object" else str(path)


KINDS = ["numpy", "fortran", "dask", "memory store", "sharded", "zarr 2", "zarr 3", "zarr object"]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, deadline=None)
@given(
    n=st.integers(1, 60),
    d=st.integers(1, 4),
    chunks=st.tuples(st.integers(1, 70), st.integers(1, 4)),
    target=st.integers(1, 4000),
    weighted=st.sampled_from(["no", "array", "zarr", "dask"]),
)
def test_any_chunking_covers_every_row_once_in_order(
    kind: str,
    n: int,
    d: int,
    chunks: tuple[int, int],
    target: int,
    weighted: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("any")
    X, w = table(n, d), np.random.default_rng(n).random(n)
    chunks = (min(chunks[0], n), min(chunks[1], d))
    given_weight: object = None
    if weighted == "array":
        given_weight = w
    elif weighted == "dask":
        given_weight = da.from_array(w, chunks=7)
    elif weighted == "zarr":
        given_weight = zarr.create_array(str(path / "w"), data=w, chunks=(7,))
    source = open_source(make(kind, X, chunks, path / "x"), sample_weight=given_weight)
    rows, weights = read(source, target)
    np.testing.assert_array_equal(rows, X)
    if weighted == "no":
        assert weights is None
    else:
        np.testing.assert_array_equal(weights, w)


@given(
    n=st.integers(1, 10_000),
    unit=st.integers(1, 3000),
    row_bytes=st.integers(1, 100),
    target=st.integers(1, 100_000),
)
def test_runs_are_whole_units_within_the_target_and_even(
    n: int, unit: int, row_bytes: int, target: int
) -> None:
    runs = even_runs(0, n, unit, row_bytes, target)
    assert runs[0][0] == 0
    assert runs[-1][1] == n
    assert all(a[1] == b[0] for a, b in pairwise(runs))
    assert all(a % unit == 0 and a < b for a, b in runs)
    units = [-(-(b - a) // unit) for a, b in runs]
    assert max(units) - min(units) <= 1
    assert max(units) == 1 or max(units) * unit * row_bytes <= target


@pytest.mark.parametrize(
    ("dtype", "given_as"),
    [
        ("f4", "f4"),
        ("f8", "f8"),
        (">f4", "f4"),
        (">f8", "f8"),
        ("f2", "f4"),
        ("i4", "f8"),
        ("u1", "f8"),
        ("?", "f8"),
    ],
)
@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr 2", "zarr 3"])
def test_numbers_are_given_as_native_floats(
    kind: str, dtype: str, given_as: str, tmp_path: Path
) -> None:
    X = np.abs(table(30, 3)).astype(dtype)
    source = open_source(make(kind, X, (8, 2), tmp_path / "x"))
    assert source.dtype == np.dtype(given_as)
    rows, _ = read(source, 300)
    np.testing.assert_array_equal(rows, X.astype(given_as))


def test_a_contiguous_float_array_is_not_copied() -> None:
    X = table(5000, 3, "f4")
    for block in open_source(X).blocks(20_000):
        for piece in block.pieces():
            assert np.shares_memory(piece.rows, X)


def test_lists_tables_memory_maps_and_objects_that_hold_numbers(tmp_path: Path) -> None:
    X = table(20, 3)
    np.save(tmp_path / "x.npy", X)
    for given_X in (
        X.tolist(),
        pd.DataFrame(X),
        X.astype(object),
        np.load(tmp_path / "x.npy", mmap_mode="r"),
        np.ma.masked_array(X, mask=False),
    ):
        np.testing.assert_array_equal(read(open_source(given_X), 100)[0], X)


def test_an_open_source_is_given_back_as_it_is() -> None:
    source = open_source(table(10, 2))
    assert open_source(source) is source
    with pytest.raises(DataError, match="open already"):
        open_source(source, sample_weight=np.ones(10))


def test_an_array_in_a_group_by_path_and_by_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = table(20, 3)
    group = zarr.create_group(str(tmp_path / "data.zarr"))
    group.create_array("deep/x", data=X, chunks=(5, 3))
    np.testing.assert_array_equal(read(open_source(tmp_path / "data.zarr/deep/x"), 200)[0], X)
    np.testing.assert_array_equal(read(open_source(group["deep/x"]), 200)[0], X)
    monkeypatch.chdir(tmp_path)
    for given_X in ("data.zarr/deep/x", zarr.open_array("data.zarr/deep/x", mode="r")):
        blocks = pickle.dumps(open_source(given_X).blocks(200))
        with monkeypatch.context() as elsewhere:
            elsewhere.chdir("/")
            rows = [piece.rows for block in pickle.loads(blocks) for piece in block.pieces()]
        np.testing.assert_array_equal(np.concatenate(rows), X)


def test_a_url_that_fsspec_opens() -> None:
    X = table(20, 3)
    zarr.create_array("memory://sources/x.zarr", data=X, chunks=(5, 3), overwrite=True)
    source = open_source("memory://sources/x.zarr")
    assert source.blocks(200)[0].resident
    np.testing.assert_array_equal(read(source, 200)[0], X)


@pytest.fixture
def http_url(tmp_path: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_array_over_http(http_url: str, tmp_path: Path) -> None:
    X = table(200, 3)
    zarr.create_array(str(tmp_path / "x.zarr"), data=X, chunks=(5, 2))
    source = open_source(f"{http_url}/x.zarr")
    assert not source.blocks(200)[0].resident
    np.testing.assert_array_equal(read(source, 2000)[0], X)
    with pytest.raises(SourceError, match=r"no Zarr array at 'http://.*nothing.zarr'"):
        open_source(f"{http_url}/nothing.zarr")


def test_blocks_of_stored_arrays_pickle_small(tmp_path: Path) -> None:
    array = zarr.create_array(
        str(tmp_path / "x"), shape=(10**7, 16), chunks=(10**4, 16), dtype="f4"
    )
    block = open_source(array).blocks(8 * MIB)[3]
    assert not block.resident
    assert len(pickle.dumps(block)) < 2500


def test_blocks_follow_shards_and_pieces_follow_their_chunks(tmp_path: Path) -> None:
    array = zarr.create_array(
        str(tmp_path / "x"),
        shape=(4 << 20, 4),
        chunks=(1 << 16, 4),
        shards=(1 << 20, 4),
        dtype="f4",
    )
    blocks = open_source(array).blocks(1)
    assert [block.start for block in blocks] == [0, 1 << 20, 2 << 20, 3 << 20]
    sizes = [piece.rows.nbytes for piece in blocks[0].pieces()]
    assert max(sizes) <= PIECE_BYTES
    assert len(sizes) == 2


def test_shards_of_blosc_chunks_with_the_index_first(tmp_path: Path) -> None:
    X = table(60, 3)
    serializer = zarr.codecs.ShardingCodec(
        chunk_shape=(10, 3),
        codecs=[zarr.codecs.BytesCodec(), zarr.codecs.BloscCodec()],
        index_location="start",
    )
    path = str(tmp_path / "x")
    zarr.create_array(path, data=X, chunks=(20, 3), serializer=serializer, compressors=None)
    np.testing.assert_array_equal(read(open_source(path), 1000)[0], X)


def test_a_missing_chunk_is_the_fill_value(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "x"), shape=(10, 2), chunks=(5, 2), dtype="f4", fill_value=7)
    np.testing.assert_array_equal(read(open_source(tmp_path / "x"), 10)[0], np.full((10, 2), 7))


@pytest.mark.parametrize("compressors", [None, "auto"])
@pytest.mark.parametrize("by_itself", [False, True])
def test_memory_of_pieces_is_lent_again_only_when_nobody_looks(
    by_itself: bool, compressors: Any, tmp_path: Path
) -> None:
    n = PIECE_BYTES // 64
    X = np.arange(12.0 * n * 8).reshape(-1, 8)
    path = str(tmp_path / "x")
    zarr.create_array(path, data=X, chunks=(n // 2, 8), compressors=compressors)
    (block,) = open_source(path).blocks(1 << 30)

    def addresses(held: int) -> set[int]:
        found, latest = set(), []
        for piece in block.pieces():
            latest = [*latest, piece.rows[1:, 2:]][-held:]  # a view of it is enough
            found.add(piece.rows.ctypes.data)
        return found

    with alone(by_itself):
        pieces = list(block.pieces())
        np.testing.assert_array_equal(np.concatenate([piece.rows for piece in pieces]), X)
        for piece in block.pieces():
            np.testing.assert_array_equal(
                piece.rows, X[piece.start : piece.start + len(piece.rows)]
            )
        assert len(addresses(held=1)) <= 4
        assert len(addresses(held=12)) == 12
        np.testing.assert_array_equal(np.concatenate([piece.rows for piece in pieces]), X)
    assert len(pickle.dumps(block)) < 2500


def test_a_thread_that_is_alone_reads_by_itself(tmp_path: Path) -> None:
    X = table(100, 3)
    path = str(tmp_path / "x")
    zarr.create_array(path, data=X, chunks=(10, 3), fill_value=7.0)
    (tmp_path / "x/c/3/0").unlink()
    readers: list[int] = []

    def read_here(i: int) -> int:
        readers.append(threading.get_ident())
        return i

    warmed: list[int] = []
    with alone():
        rows = read(open_source(path), 240)[0]
        assert list(read_ahead(read_here, range(5), warm=warmed.append)) == list(range(5))
    assert readers == [threading.get_ident()] * 5
    assert warmed == list(range(5))
    np.testing.assert_array_equal(rows[30:40], 7.0)
    np.testing.assert_array_equal(
        np.delete(rows, range(30, 40), 0), np.delete(X, range(30, 40), 0)
    )
    (tmp_path / "x/c/5/0").write_bytes(b"no chunk of anything")
    with alone(), pytest.raises(ChunkError, match=r"chunk 'c/5/0' \(rows 50:60\)"):
        read(open_source(path), 240)


def test_a_large_piece_is_split_into_views() -> None:
    rows = np.zeros((5 * PIECE_BYTES // 64, 8))
    pieces = list(split_piece(Piece(3, rows, np.ones(len(rows)))))
    assert sum(len(piece.rows) for piece in pieces) == len(rows)
    assert all(piece.rows.nbytes <= PIECE_BYTES for piece in pieces)
    assert all(np.shares_memory(piece.rows, rows) for piece in pieces)
    assert pieces[1].start == 3 + len(pieces[0].rows)


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_is_read_ahead_than_asked(depth: int) -> None:
    begun: list[int] = []

    def begin(i: int) -> int:
        begun.append(i)
        return i

    for i, value in enumerate(read_ahead(begin, range(20), depth)):
        assert value == i
        assert len(begun) <= i + 1 + depth
    assert sorted(begun) == list(range(20))


def test_an_error_while_reading_ahead_comes_in_its_place() -> None:
    def fail(i: int) -> int:
        if i == 3:
            raise ValueError("three")
        return i

    seen: list[int] = []
    with pytest.raises(ValueError, match="three"):
        seen.extend(read_ahead(fail, range(10)))
    assert seen == [0, 1, 2]


def test_reading_inside_a_running_event_loop(tmp_path: Path) -> None:
    import asyncio

    X = table(20, 3)
    source = open_source(make("zarr 3", X, (5, 3), tmp_path / "x"), sample_weight=np.ones(20))
    weighted = open_source(
        X, sample_weight=zarr.create_array(str(tmp_path / "w"), data=np.ones(20), chunks=(3,))
    )

    async def inside() -> None:
        np.testing.assert_array_equal(read(source, 200)[0], X)
        read(weighted, 200)

    asyncio.run(inside())


def test_block_size() -> None:
    def auto(n_bytes: int) -> int:
        X = np.lib.stride_tricks.as_strided(np.zeros(1), (n_bytes // 8, 1), (0, 0))
        return parse_block_size("auto", open_source(X))

    assert auto(1000) == MIB // 4
    for n, blocks in ((MIB // 8, 1), (MIB // 2, 2), (MIB, 4), (2 * MIB, 4), (6 * MIB, 6)):
        source = open_source(np.zeros((n // 8, 1)))
        assert len(source.blocks(auto(n))) == blocks
    assert len(open_source(np.zeros((25_000, 130))).blocks(auto(26_000_000))) == 24
    assert 4 * MIB < auto(256 * MIB) < 5 * MIB
    assert auto(1 << 40) == 128 * MIB
    source = open_source(np.zeros((2, 2)))
    assert parse_block_size("64MiB", source) == 64 * MIB
    assert parse_block_size(12_345, source) == 12_345
    for bad in ("many", 0, -1, 1.5, True, None):
        with pytest.raises(ParameterError, match="block_size"):
            parse_block_size(bad, source)  # type: ignore[arg-type]


def test_a_sum_that_overflows_is_not_taken_for_a_bad_value() -> None:
    check_finite(Piece(0, np.full((100, 2), 3e38, np.float32), None), "X")
