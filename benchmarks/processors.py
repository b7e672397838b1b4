"""A pass with the instructions of a narrower processor, beside one with all that this one has.

Run ``python -m benchmarks.processors`` from the root of the repository, on a processor with
AVX-512. Each workload of `benchmarks.kernels` goes by on one thread, in turns in two processes:
one compiles for this processor, one for AVX2 alone (`NUMBA_CPU_NAME`, `NUMBA_CPU_FEATURES`). What
is asked is 0.45 of the speed. Figures are processor seconds, the least of some passes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace

import click
import numpy as np

from benchmarks.kernels import WORKLOADS, read, rows, start
from streamgmm.sources import open_source

AVX2 = {
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+64bit,+cmov,+cx16,+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,"
    "+avx,+avx2,+fma,+bmi,+bmi2,+f16c,+lzcnt,+movbe",
}
ROWS, PASSES = 60_000, 5


def measure() -> dict[str, float]:
    """Processor nanoseconds of a row and component, by workload and dtype."""
    found = {}
    for w in WORKLOADS:
        w = replace(w, n=min(w.n, ROWS))
        rng = np.random.default_rng(0)
        X = rows(w, rng)
        mixture = start(w, X, rng)
        for dtype in ("float64", "float32"):
            (block,) = open_source(X.astype(dtype)).blocks(1 << 40)
            read(mixture, block)
            times = []
            for _ in range(PASSES):
                begun = time.process_time()
                read(mixture, block)
                times.append(time.process_time() - begun)
            found[f"{w.name} {w.kind} {dtype}"] = min(times) * 1e9 / w.n / w.k
    return found


@click.command()
@click.option("--turns", default=3, show_default=True)
@click.option("--measure", "measured", is_flag=True, hidden=True)
def main(turns: int, measured: bool) -> None:
    """Print the table."""
    if measured:
        print(json.dumps(measure()))
        return
    with tempfile.TemporaryDirectory() as folder:
        kinds = {"this": {}, "AVX2": AVX2 | {"NUMBA_CACHE_DIR": folder}}
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
        for _ in range(turns):
            for kind, more in kinds.items():
                run = subprocess.run(
                    [sys.executable, "-m", "benchmarks.processors", "--measure"],
                    env=os.environ | more, check=True, capture_output=True, text=True,
                )  # fmt: skip
                found[kind].append(json.loads(run.stdout))
    print(f"{'workload':24} {'this':>9} {'AVX2':>9} {'speed':>7}   ns a row and component")
    for name in found["this"][0]:
        here, narrow = (min(turn[name] for turn in found[kind]) for kind in kinds)
        print(f"{name:24} {here:9.2f} {narrow:9.2f} {here / narrow:7.2f}")


if __name__ == "__main__":
    main()
