"""Chunks read without Zarr hold what Zarr reads, and damage is never numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from streamgmm.errors import ChunkError
from streamgmm.sources.chunks import _decoded_size, local_chunks
from streamgmm.sources.zarr_open import open_ref

CODECS: dict[str, dict[int, Any]] = {
    "raw": {2: None, 3: None},
    "blosc": {2: numcodecs.Blosc("lz4"), 3: BloscCodec(cname="lz4", typesize=8)},
    "zstd": {2: numcodecs.Zstd(3), 3: ZstdCodec(level=3, checksum=True)},
}
X = np.random.default_rng(0).normal(size=(230, 7)).round(2)


def stored(path: Path, codec: str, zarr_format: Any = 3, dtype: str = "f8", **more: Any) -> str:
    name = str(path / "x.zarr")
    data = (100 * X).astype(dtype)
    settings = {"chunks": (50, 7), "compressors": CODECS[codec][zarr_format], **more}
    zarr.create_array(name, data=data, zarr_format=zarr_format, **settings)
    return name


@pytest.mark.parametrize("dtype", ["f8", "f4", "i2"])
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("codec", list(CODECS))
def test_rows_are_those_of_zarr(codec: str, zarr_format: int, dtype: str, tmp_path: Path) -> None:
    ref = open_ref(stored(tmp_path, codec, zarr_format, dtype))
    assert ref.chunks is not None
    for start, stop in [(0, 230), (0, 50), (50, 150), (10, 20), (40, 60), (199, 230), (229, 230)]:
        rows = ref.chunks.read([(start, stop), (0, 7)])
        assert rows is not None
        np.testing.assert_array_equal(rows, ref.array[start:stop])
        assert rows.dtype == dtype
        assert rows.flags.writeable


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("codec", list(CODECS))
def test_boxes_are_those_of_zarr(codec: str, zarr_format: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(9, 10, 11)).round(1)
    for chunks in [(2, 10, 11), (4, 3, 5), (9, 10, 1)]:
        array = zarr.create_array(
            str(tmp_path / "x.zarr"),
            data=values,
            chunks=chunks,
            compressors=CODECS[codec][zarr_format],
            zarr_format=zarr_format,  # type: ignore[arg-type]
            overwrite=True,
        )
        ref = open_ref(array)
        assert ref.chunks is not None
        for box in [
            [(0, 9), (0, 10), (0, 11)],
            [(2, 4), (0, 3), (5, 10)],
            [(3, 8), (1, 9), (4, 5)],
        ]:
            found = ref.chunks.read(box)
            assert found is not None
            np.testing.assert_array_equal(found, values[tuple(slice(*span) for span in box)])


def test_chunks_that_were_never_written_hold_the_fill_value(tmp_path: Path) -> None:
    array = zarr.create_array(
        str(tmp_path / "x.zarr"), shape=(90, 2), chunks=(40, 2), dtype="f8", fill_value=7.0
    )
    array[:40] = 1.0
    chunks = open_ref(str(tmp_path / "x.zarr")).chunks
    assert chunks is not None
    rows = chunks.read([(30, 90), (0, 2)])
    assert rows is not None
    np.testing.assert_array_equal(rows, array[30:90])


@pytest.mark.parametrize(
    "settings",
    [
        {"chunks": (50, 7), "shards": (100, 7), "compressors": zarr.codecs.GzipCodec()},
        {"serializer": zarr.codecs.BytesCodec(endian="big")},
        {"compressors": zarr.codecs.GzipCodec()},
        {"compressors": [ZstdCodec(), BloscCodec()]},
        {"filters": [zarr.codecs.TransposeCodec(order=(1, 0))]},
        {"dtype": ">f8", "zarr_format": 2},
        {"order": "F", "zarr_format": 2},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_other_layouts_are_left_to_zarr(settings: dict[str, Any], tmp_path: Path) -> None:
    name = stored(tmp_path, "raw", **settings)
    ref = open_ref(name)
    assert local_chunks(ref.array, tmp_path) is None
    np.testing.assert_array_equal(ref.read(3, 77), 100 * X[3:77])


@pytest.mark.parametrize("keep", [0, 3, 17, 700, -1])
@pytest.mark.parametrize("codec", list(CODECS))
def test_damage_is_an_error(codec: str, keep: int, tmp_path: Path) -> None:
    ref = open_ref(stored(tmp_path, codec))
    file = tmp_path / "x.zarr" / "c" / "1" / "0"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ChunkError, match=r"chunk 'c/1/0' \(rows 50:100\) cannot be read"):
        ref.read(0, 200)


@pytest.mark.parametrize("n", [40, 255, 256, 65_791, 65_792, 1 << 20])
def test_sizes_that_frames_tell(n: int) -> None:
    raw = np.random.default_rng(n).bytes(n)
    assert _decoded_size("zstd", numcodecs.Zstd().encode(raw)) == n
    assert _decoded_size("blosc", numcodecs.Blosc().encode(raw)) == n
    assert _decoded_size("zstd", b"not a frame at all, nor ever was") is None
