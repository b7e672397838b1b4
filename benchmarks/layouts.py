"""What a read costs by how the same rows are laid out: matrix, cube, group of variables, Parquet.

    python -m benchmarks.layouts [folder]

Seconds of one read of all rows in one thread, from files that the system has in memory; the best
of several, taken in turns. Each layout over the matrix with the same compression.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

import streamgmm
from streamgmm.sources import Source

SHAPE = (16, 512, 512)
FEATURES = 8
TURNS = 7


def values() -> np.ndarray[Any, Any]:
    """Numbers of 16 significant bits, which compress as measurements do."""
    rng = np.random.default_rng(0)
    found = rng.normal(size=(*SHAPE, FEATURES)).astype(np.float32)
    return np.round(found * 1024) / np.float32(1024)


def _write(folder: Path, codec: str, given: Any, name: str, data: Any, chunks: Any) -> str:
    path = str(folder / f"{name}-{codec}.zarr")
    zarr.create_array(path, data=data, chunks=chunks, compressors=given)
    return path


def store(folder: Path) -> dict[str, Callable[[], Source]]:
    """Write every layout; give what opens each."""
    cube = values()
    table = cube.reshape(-1, FEATURES)
    found: dict[str, Callable[[], Source]] = {}
    for codec, given in (("raw", None), ("zstd", zarr.codecs.ZstdCodec(level=1))):
        write = partial(_write, folder, codec, given)
        matrix = write("matrix", table, (1 << 17, FEATURES))
        whole = write("cube", cube, (2, 256, 256, FEATURES))
        slabs = write("slabs", cube, (1, 256, 512, FEATURES))
        small = write("small", cube, (1, 64, 128, FEATURES))
        first = write("first", np.moveaxis(cube, -1, 0).copy(), (FEATURES, 1, 256, 512))
        split = write("split", cube, (2, 256, 512, 4))
        group = zarr.open_group(str(folder / f"group-{codec}.zarr"), mode="w")
        names = [f"v{j}" for j in range(FEATURES)]
        for j, name in enumerate(names):
            group.create_array(
                name, data=cube[..., j].copy(), chunks=(4, 256, 512), compressors=given,
                dimension_names=("time", "y", "x"),
            )  # fmt: skip
        found |= {
            f"matrix, {codec}": partial(streamgmm.rows, matrix),
            f"cube, chunks of whole vectors, {codec}": partial(streamgmm.rows, whole),
            f"cube, chunks that are runs of rows, {codec}": partial(streamgmm.rows, slabs),
            f"cube, small chunks, {codec}": partial(streamgmm.rows, small),
            f"cube, features first, {codec}": partial(streamgmm.rows, first, feature_axis=0),
            f"cube, chunks that split features, {codec}": partial(streamgmm.rows, split),
            f"one array a variable, {codec}": partial(streamgmm.rows, group, features=names),
        }
    columns = {f"v{j}": table[:, j] for j in range(FEATURES)}
    path = folder / "table.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=1 << 17, compression="snappy")
    found["Parquet, snappy"] = partial(streamgmm.rows, path)
    return found


def read(source: Source) -> float:
    """Seconds of one read."""
    began = time.perf_counter()
    for block in source.blocks(1 << 26):
        for piece in block.pieces():
            piece.rows[-1, -1]
    return time.perf_counter() - began


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        sources = {name: make() for name, make in store(Path(folder)).items()}
        best = dict.fromkeys(sources, np.inf)
        for _ in range(TURNS):
            for name, source in sources.items():
                best[name] = min(best[name], read(source))
    size = np.prod(SHAPE) * FEATURES * 4 / 1e9
    for name, seconds in best.items():
        beside = "matrix, " + ("raw" if name.endswith("raw") else "zstd")
        ratio = seconds / best[beside]
        print(f"{name:46} {seconds:7.3f} s  {size / seconds:6.2f} GB/s  {ratio:5.2f}")


if __name__ == "__main__":
    main()
