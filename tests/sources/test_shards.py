"""Chunks inside shards, read by themselves: the same numbers as Zarr's, damage noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, BytesCodec, ShardingCodec, ZstdCodec

from streamgmm.errors import ChunkError
from streamgmm.sources import open_source, shards
from streamgmm.sources.base import PIECE_BYTES
from streamgmm.sources.zarr_open import open_ref

X = np.random.default_rng(0).normal(size=(210, 7)).round(2)
CODECS: dict[str, Any] = {"raw": [], "blosc": [BloscCodec()], "zstd": [ZstdCodec()]}


@pytest.fixture(autouse=True)
def forget() -> None:
    shards._kept.clear()


def stored(
    folder: Path, codec: str, where: str = "end", dtype: str = "f8", chunks: Any = (10, 7)
) -> Path:
    serializer = ShardingCodec(
        chunk_shape=chunks, codecs=[BytesCodec(), *CODECS[codec]], index_location=where
    )
    zarr.create_array(
        str(folder / "x.zarr"), data=(100 * X).astype(dtype), chunks=(40, 7), fill_value=3,
        serializer=serializer, compressors=None, overwrite=True,
    )  # fmt: skip
    return folder / "x.zarr"


@pytest.mark.parametrize("chunks", [(10, 7), (20, 1), (5, 7)])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i2"])
@pytest.mark.parametrize("where", ["start", "end"])
@pytest.mark.parametrize("codec", list(CODECS))
def test_the_numbers_are_zarrs(
    codec: str, where: str, dtype: str, chunks: Any, tmp_path: Path
) -> None:
    path = stored(tmp_path, codec, where, dtype, chunks)
    ref = open_ref(path)
    assert isinstance(ref.chunks, shards.LocalShards)
    rng = np.random.default_rng(1)
    for _ in range(20):
        (a, b), (c, d) = (np.sort(rng.choice(n + 1, 2, replace=False)) for n in X.shape)
        found = ref.chunks.read([(int(a), int(b)), (int(c), int(d))])
        assert found is not None
        np.testing.assert_array_equal(found, zarr.open_array(path, mode="r")[a:b, c:d])


def test_an_index_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(tmp_path, "raw")
    reads = []
    read_index = shards.LocalShards._read_index
    monkeypatch.setattr(
        shards.LocalShards, "_read_index", lambda *a: reads.append(a[1]) or read_index(*a)
    )
    monkeypatch.setattr(type(open_ref(path)), "_get", None)  # nothing is left to Zarr
    for _ in range(3):
        for block in open_source(path).blocks(500):
            for piece in block.pieces():
                assert len(piece.rows)
    assert len(reads) == 6


def test_what_was_never_written_is_the_fill_value(tmp_path: Path) -> None:
    path = stored(tmp_path, "raw")
    (path / "c" / "2" / "0").unlink()
    array = zarr.create_array(
        str(tmp_path / "y.zarr"), shape=(80, 7), chunks=(10, 7), shards=(40, 7), dtype="f8",
        fill_value=3.0,
    )  # fmt: skip
    array[10:20] = 1.0
    for each in (path, tmp_path / "y.zarr"):
        chunks = open_ref(each).chunks
        assert chunks is not None
        rows = chunks.read([(5, 75), (0, 7)])
        np.testing.assert_array_equal(rows, zarr.open_array(each, mode="r")[5:75])


def test_a_shard_that_is_written_again_is_read_again(tmp_path: Path) -> None:
    path = stored(tmp_path, "zstd")
    ref = open_ref(path)
    np.testing.assert_array_equal(ref.read(0, 40), 100 * X[:40])
    zarr.open_array(path, mode="r+")[:40] = np.arange(280.0).reshape(40, 7) ** 2
    np.testing.assert_array_equal(ref.read(0, 40), np.arange(280.0).reshape(40, 7) ** 2)


@pytest.mark.parametrize("codec", list(CODECS))
@pytest.mark.parametrize("damage", ["empty", "short", "half", "index"])
def test_damage_is_an_error_that_names_the_shard(damage: str, codec: str, tmp_path: Path) -> None:
    path = stored(tmp_path, codec, "start")
    file = path / "c" / "1" / "0"
    whole = file.read_bytes()
    kept = {"empty": b"", "short": whole[:30], "half": whole[: len(whole) // 2],
            "index": bytes([whole[0] ^ 1]) + whole[1:]}[damage]  # fmt: skip
    file.write_bytes(kept)
    ref = open_ref(path)
    with pytest.raises(ChunkError, match=r"chunk 'c/1/0' \(rows 40:80\) cannot be read"):
        ref.read(0, 200)
    np.testing.assert_array_equal(ref.read(0, 40), 100 * X[:40])


def test_indices_that_are_kept_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MOST_INDICES", 2)
    ref = open_ref(stored(tmp_path, "raw"))
    np.testing.assert_array_equal(ref.read(0, 210), 100 * X)
    assert len(shards._kept) == 2


def test_large_shards_are_cut_between_their_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stored(tmp_path, "raw")
    monkeypatch.setattr("streamgmm.sources.zarr.AUTO_MAX_BYTES", 40 * 7 * 8 - 1)
    starts = [block.start for block in open_source(path).blocks(20 * 7 * 8)]
    assert set(starts) <= set(range(0, 210, 10))
    assert len(starts) > 6


def test_parts_of_large_chunks_are_the_pieces_that_whole_chunks_give(tmp_path: Path) -> None:
    n = 3 * PIECE_BYTES // (8 * 64) + 11
    rows = np.arange(2.0 * n * 64).reshape(2 * n, 64)
    sizes = {}
    for codec, given in {"raw": None, "zstd": ZstdCodec(level=0)}.items():
        zarr.create_array(str(tmp_path / codec), data=rows, chunks=(n, 64), compressors=given)
        for block in open_source(tmp_path / codec).blocks(1 << 30):
            pieces = list(block.pieces())
            sizes[codec] = [(piece.start, len(piece.rows)) for piece in pieces]
            np.testing.assert_array_equal(np.concatenate([p.rows for p in pieces]), rows)
    assert sizes["raw"] == sizes["zstd"]
    assert len(sizes["raw"]) == 8
