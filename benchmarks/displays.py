"""What pictures and reports cost: histograms of a pass beside an E-step, and a whole report.

    python -m benchmarks.displays [--rows 2000000] [--report-rows 20000000]

The histograms of a pass are to cost at most 15 % of an E-step of 16 features. A report reads the
data once, whatever their number; its peak memory is that of a fresh process.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr

from streamgmm import GaussianMixture, load
from streamgmm.model.mixture import EStep, Mixture
from streamgmm.sources import Piece
from streamgmm.summaries.audit import AuditRequest
from streamgmm.summaries.histograms import lay_grid

FEATURES, COMPONENTS = 16, 16
CHUNK = 250_000


def problem(n: int, seed: int = 0) -> np.ndarray:
    """Overlapping Gaussians (n, 16)."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).normal(size=(COMPONENTS, FEATURES)) * 1.5
    return centres[rng.integers(0, COMPONENTS, n)] + rng.normal(size=(n, FEATURES))


def fitted() -> Mixture:
    """A mixture of such rows."""
    model = GaussianMixture(COMPONENTS, max_iter=200, random_state=0, tol=1e-2)
    return model.fit(problem(100_000))._mixture()


def seconds(run: Callable[[], object], times: int = 7) -> float:
    """Median of several runs, of which the first is not counted."""
    run()
    each = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        each.append(time.perf_counter() - start)
    return float(np.median(each))


def histograms(n: int) -> None:
    """One thread, rows in memory: an E-step, and what is counted beside it."""
    mixture, X = fitted(), problem(n)

    def e_step() -> None:
        step = EStep([(mixture, None)])
        step.add(X)
        step.result()

    def counted(columns: range) -> Callable[[], object]:
        grid = lay_grid(mixture, columns)

        def run() -> object:
            counter = grid.open()
            counter.add(Piece(0, X, None))
            return counter.result()

        return run

    def audited() -> None:
        counter = AuditRequest(FEATURES).open()
        counter.add(Piece(0, X, None), None)
        counter.result()

    whole = seconds(e_step)
    print(f"{n:,} rows × {FEATURES}, {COMPONENTS} full components, one thread")
    print(f"E-step                            {whole:8.3f} s")
    for m in (1, 2, 4):
        one = seconds(counted(range(m)))
        pairs = m * (m - 1) // 2
        print(f"{m} features, {pairs} pairs of 64 × 64 bins {one:8.3f} s  {one / whole:6.1%}")
    one = seconds(audited)
    print(f"audit of all columns              {one:8.3f} s  {one / whole:6.1%}")


def report(n: int) -> None:
    """A report over stored rows, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        data, model = Path(folder) / "data.zarr", Path(folder) / "model.zarr"
        shape = (n, FEATURES)
        array = zarr.create_array(data, shape=shape, chunks=(CHUNK, FEATURES), dtype=np.float32)
        for a in range(0, n, CHUNK):
            array[a : a + CHUNK] = problem(min(CHUNK, n - a), a)
        estimator = GaussianMixture(COMPONENTS, random_state=0, tol=1e-2).fit(problem(100_000))
        estimator.save(model)
        code = f"from benchmarks.displays import one_report; one_report({folder!r})"
        for _ in range(2):  # the first compiles
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True
            )
        print(f"report of {n:,} rows × {FEATURES}, {n * FEATURES * 4 / 1e9:.2f} GB: {done.stdout}")


def one_report(folder: str) -> None:
    """Time, size of the page, and how much memory grew."""
    model = load(f"{folder}/model.zarr")
    model.report(f"{folder}/none.html", overwrite=True)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    start = time.perf_counter()
    model.report(f"{folder}/report.html", f"{folder}/data.zarr", overwrite=True)
    took = time.perf_counter() - start
    grown = resident("VmHWM") - before
    size = Path(folder, "report.html").stat().st_size / 1e6
    start = time.perf_counter()
    model.score(f"{folder}/data.zarr")
    scored = time.perf_counter() - start
    print(
        f"{took:.1f} s, one read; `score` {scored:.1f} s; page {size:.2f} MB; "
        f"peak memory grew by {grown:.0f} MiB"
    )


def resident(name: str) -> float:
    """Memory of this process, MiB: what it holds, or its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(name))) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--report-rows", type=int, default=20_000_000)
    given = parser.parse_args()
    histograms(given.rows)
    report(given.report_rows)


if __name__ == "__main__":
    main()
