"""Before a mixture: PCA beside others', and what a lazy scale-and-project costs.

    python -m benchmarks.pipelines [--rows 10_000_000] [--dtype float32] [--where FOLDER]

Rows of 100 features lie in a Zarr array (zstd, chunks of 8 MiB). Times are medians of paired
runs on the processors that this process may use; dask-ml computes on as many threads.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from streamgmm import PCA, StandardScaler
from streamgmm.passes import open_executor
from streamgmm.sources import Source, open_source, parse_block_size

FEATURES, KEPT = 100, 10


def make(path: Path, n_rows: int, dtype: str) -> None:
    """Write correlated rows: ten directions of some variance, far from the origin."""
    step = (8 << 20) // (FEATURES * np.dtype(dtype).itemsize)
    array = zarr.create_array(
        str(path), shape=(n_rows, FEATURES), chunks=(step, FEATURES), dtype=dtype
    )
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(KEPT, FEATURES)) * np.linspace(3, 1, KEPT)[:, None]
    for a in range(0, n_rows, step):
        n = min(step, n_rows - a)
        rows = rng.normal(size=(n, KEPT)) @ loadings + rng.normal(size=(n, FEATURES)) + 20
        array[a : a + n] = rows.astype(dtype)


class Count(int):
    """Rows that were read."""

    def merge(self, other: Count) -> Count:
        """Of both."""
        return Count(self + other)


def count(_: None, block: Any) -> Count:
    return Count(sum(len(piece.rows) for piece in block.pieces()))


def read(source: Source) -> float:
    """Seconds of one pass that does nothing with the rows."""
    blocks = source.blocks(parse_block_size("auto", source))
    began = time.perf_counter()
    with open_executor(blocks) as executor:
        executor.run(count, None)
    return time.perf_counter() - began


def product(n_rows: int, dtype: str, threads: int) -> float:
    """Seconds of the product itself, of rows that are in memory, on as many threads."""
    from concurrent.futures import ThreadPoolExecutor

    from threadpoolctl import threadpool_limits

    rows = np.random.default_rng(0).normal(size=(20_000, FEATURES)).astype(dtype)
    matrix = np.ones((FEATURES, KEPT), dtype)
    times = -(-n_rows // len(rows))

    def work(_: int) -> None:
        np.matmul(rows, matrix)

    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
        began = time.perf_counter()
        list(pool.map(work, range(times)))
        return time.perf_counter() - began


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def projecting(path: Path, dtype: str, threads: int) -> None:
    source = open_source(str(path))
    scaler = StandardScaler()
    lazy = PCA(KEPT).fit(scaler.fit_transform(str(path))).transform(scaler.transform(str(path)))
    ratios, rest = [], []
    for _ in range(5):
        alone, both = read(source), read(lazy)
        itself = product(source.n_samples, dtype, threads)
        ratios.append((both - itself) / alone)
        rest.append((alone, both, itself))
    alone, both, itself = (statistics.median(each) for each in zip(*rest, strict=True))
    print(
        f"reading alone {alone:.3f} s, scaled and projected {both:.3f} s, product {itself:.3f} s"
    )
    print(f"(scaled and projected - product) / reading: {statistics.median(ratios):.2f}")


def fitting(path: Path, n_rows: int, repeats: int, with_dask: bool) -> None:
    import dask.array as da
    from dask_ml.decomposition import PCA as DaskPCA
    from sklearn.decomposition import IncrementalPCA

    array = zarr.open_array(str(path), mode="r")
    step = array.chunks[0]

    def incremental() -> Any:
        model = IncrementalPCA(KEPT)
        for a in range(0, n_rows, step):
            rows = array[a : a + step]
            if len(rows) >= KEPT:
                model.partial_fit(rows)
        return model

    ways = {
        "streamgmm.PCA": lambda: PCA(KEPT).fit(str(path)),
        "dask_ml.decomposition.PCA": lambda: DaskPCA(KEPT, svd_solver="full").fit(
            da.from_zarr(str(path))
        ),
        "dask_ml, randomized": lambda: DaskPCA(KEPT, svd_solver="randomized", random_state=0).fit(
            da.from_zarr(str(path))
        ),
        "scikit-learn IncrementalPCA": incremental,
    }
    if not with_dask:
        ways = {name: work for name, work in ways.items() if not name.startswith("dask")}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    models: dict[str, Any] = {}
    for _ in range(repeats):
        for name, work in ways.items():
            took, models[name] = timed(work)
            seconds[name].append(took)
    exact = oracle(array, n_rows, step)
    for name, took in seconds.items():
        off = np.abs(models[name].explained_variance_ / exact - 1).max()
        ratio = statistics.median(
            a / b for a, b in zip(took, seconds["streamgmm.PCA"], strict=True)
        )
        print(f"{name:30s} {statistics.median(took):8.2f} s  {ratio:5.1f}×   off by {off:.1e}")


def oracle(array: Any, n_rows: int, step: int) -> Any:
    """Explained variance as scikit-learn finds it, of all rows in memory in float64."""
    from sklearn.decomposition import PCA as Reference

    rows = np.empty((n_rows, FEATURES))
    for a in range(0, n_rows, step):
        rows[a : a + step] = array[a : a + step]
    rows -= rows[0]  # its covariance of uncentred rows would lose digits
    return Reference(KEPT, copy=False).fit(rows).explained_variance_


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--without-dask", action="store_true", help="which takes an hour at 1e7")
    parser.add_argument("--where", help="a folder for the rows; a temporary one by default")
    given = parser.parse_args()
    from streamgmm.passes import default_threads

    with tempfile.TemporaryDirectory(dir=given.where) as folder:
        path = Path(folder) / "rows.zarr"
        make(path, given.rows, given.dtype)
        threads = default_threads()
        print(f"{given.rows:,} × {FEATURES} {given.dtype}, {threads} threads")
        projecting(path, given.dtype, threads)
        fitting(path, given.rows, given.repeats, not given.without_dask)


if __name__ == "__main__":
    main()
