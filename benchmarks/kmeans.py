"""Seconds per Lloyd iteration of `KMeans` beside others, and a whole k-means on few rows.

Run ``python -m benchmarks.kmeans`` from the root of the repository; ``--quick`` takes a tenth of
the rows, ``--only K1`` a part of the table, ``--help`` says the rest.

What is timed. Each library fits from the same rows of the data as centres, with ``tol=0``, once
with 2 iterations and once with as many more as ``--iterations`` says; the difference, by
iteration, is what an iteration costs without what surrounds it. "first" are the 2 iterations of
the shorter fit with what surrounds them, in which every row is compared with every centre;
later ones of ours skip rows that cannot change their label, where there is room to remember
them. Fits take turns in one process on the same number of threads, must have the same inertia,
and figures are medians over repeats; ratios are of the times of one turn, and then the median.

"lloyd" is `streamgmm.clustering.lloyd`, which starts of mixtures use: for rows in memory alone.
Where scikit-learn-intelex is installed (the extra ``peers``), oneDAL has columns of its own.

The last line is a whole k-means, seeds and iterations, as starts of a mixture want it: on one
thread, since starts share out threads among themselves; the random numbers are the same.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median
from typing import Any

import click
import numpy as np
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

import streamgmm
from streamgmm.clustering import k_means, lloyd

SHORT = 2
Fit = Callable[[np.ndarray, np.ndarray, int], tuple[int, float]]


@dataclass(frozen=True)
class Workload:
    """A row of the table; `target` is the ratio to scikit-learn that the project promises."""

    name: str
    n: int
    d: int
    k: int
    dtype: str
    target: float


WORKLOADS = [
    Workload("K1", 1_000_000, 16, 64, "float64", 2),
    Workload("K2", 1_000_000, 16, 64, "float32", 2),
    Workload("K3", 500_000, 64, 256, "float64", 2),
    Workload("K4", 500_000, 64, 256, "float32", 2),
]


def rows(w: Workload) -> np.ndarray:
    """Blobs in random order that overlap with many others."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((w.k, w.d)).astype(w.dtype)
    X = rng.standard_normal((w.n, w.d), dtype=w.dtype)
    X += centres[rng.integers(w.k, size=w.n)]
    return X


def libraries(threads: int) -> dict[str, Fit]:
    """Iterations and inertia of a fit of rows from centres, of each library there is."""

    def in_memory(X: np.ndarray, centres: np.ndarray, max_iter: int) -> tuple[int, float]:
        result = lloyd(X, centres, max_iter=max_iter, tol=0, n_threads=threads)
        return result.n_iter, result.inertia

    def fit_of(estimator: Any) -> Fit:
        def fit(X: np.ndarray, centres: np.ndarray, max_iter: int) -> tuple[int, float]:
            model = estimator(
                len(centres), init=centres, n_init=1, max_iter=max_iter, tol=0, algorithm="lloyd"
            ).fit(X)
            return model.n_iter_, model.inertia_

        return fit

    def ours(X: np.ndarray, centres: np.ndarray, max_iter: int) -> tuple[int, float]:
        model = streamgmm.KMeans(
            len(centres), init=centres, max_iter=max_iter, tol=0, n_jobs=threads
        ).fit(X)
        return model.n_iter_, model.inertia_

    found = {"ours": ours, "lloyd": in_memory, "scikit-learn": fit_of(KMeans)}
    if find_spec("sklearnex"):
        from daal4py import daalinit
        from sklearnex.cluster import KMeans as OneDAL

        daalinit(threads)
        found["oneDAL"] = fit_of(OneDAL)
    return found


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    value = call()
    return time.perf_counter() - start, value


def one(w: Workload, fits: dict[str, Fit], iterations: int, repeats: int) -> str:
    """A line of the table."""
    X = rows(w)
    centres = X[np.random.default_rng(1).choice(w.n, w.k, replace=False)]
    fits["ours"](X[: 2 * w.k], centres, 1)  # compiles
    first: dict[str, list[float]] = {name: [] for name in fits}
    later: dict[str, list[float]] = {name: [] for name in fits}
    for _ in range(repeats):
        ends = {}
        for name, fit in fits.items():
            short, _ = timed(lambda fit=fit: fit(X, centres, SHORT))
            full, (n_iter, inertia) = timed(lambda fit=fit: fit(X, centres, SHORT + iterations))
            assert n_iter == SHORT + iterations, f"{name} ended after {n_iter} iterations"
            first[name].append(short / SHORT)
            later[name].append((full - short) / iterations)
            ends[name] = inertia
        rtol = 1e-9 if w.dtype == "float64" else 1e-4
        np.testing.assert_allclose(list(ends.values()), ends["ours"], rtol=rtol)
    cells = [f"{w.name:3} {w.n:>9,} × {w.d}, K={w.k}, {w.dtype}:"]
    for kind, seconds in (("first", first), ("later", later)):
        own = median(seconds["ours"])
        cells.append(f"{kind}: ours {1e3 * own:.1f} ms")
        for name in fits:
            if name != "ours":
                ratio = median(b / a for a, b in zip(seconds["ours"], seconds[name], strict=True))
                cells.append(f"{name} {1e3 * median(seconds[name]):.1f} ms ({ratio:.1f}×)")
    return "  ".join(cells) + f"  target {w.target:g}×"


def small(repeats: int) -> str:
    """A whole k-means on 300 rows a component, on one thread."""
    X = rows(Workload("", 4800, 16, 16, "float64", 1))
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    k_means(X, 16, 0)
    with threadpool_limits(1):
        for seed in range(20 * repeats):
            spent, ours = timed(lambda seed=seed: k_means(X, 16, seed).inertia)
            seconds["ours"].append(spent)
            model = KMeans(16, n_init=1, random_state=seed)
            spent, theirs = timed(lambda model=model: model.fit(X).inertia_)
            seconds["theirs"].append(spent)
            np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    ours, theirs = (median(s) for s in seconds.values())
    return (
        f"k-means++ and Lloyd on 4,800 × 16, K=16, one thread: ours {1e3 * ours:.2f} ms, "
        f"scikit-learn {1e3 * theirs:.2f} ms, {theirs / ours:.1f}×"
    )


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="A tenth of the rows.")
@click.option("--only", multiple=True, help="Workloads by name, for example K1.")
@click.option("--iterations", default=10, show_default=True, help="Iterations timed.")
@click.option("--repeats", default=3, show_default=True)
@click.option("--threads", default=2, show_default=True)
def main(quick: bool, only: tuple[str, ...], iterations: int, repeats: int, threads: int) -> None:
    warnings.simplefilter("ignore")  # fits are cut short
    with threadpool_limits(threads):
        fits = libraries(threads)
        for w in WORKLOADS:
            if only and w.name not in only:
                continue
            if quick:
                w = Workload(w.name, w.n // 10, w.d, w.k, w.dtype, w.target)
            click.echo(one(w, fits, iterations, repeats))
    if not only:
        click.echo(small(repeats))


if __name__ == "__main__":
    main()
