"""What checkpoints cost a fit: seconds of a pass of about one second, with and without.

python -m benchmarks.checkpoint
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr

from streamgmm.fitting.fit import FitSettings, fit
from streamgmm.sources import open_source
from streamgmm.storage.checkpoint import Checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("-k", type=int, default=16)
    parser.add_argument("-d", type=int, default=16)
    parser.add_argument("--passes", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    spent = {"save": 0.0, "thread": 0.0, "states": 0.0}

    save, write = Checkpoint.save, Checkpoint._write

    def timed_save(self: Checkpoint, *args: object, **given: object) -> None:
        began = time.perf_counter()
        save(self, *args, **given)  # type: ignore[arg-type]
        spent["save"] += time.perf_counter() - began

    def timed_write(self: Checkpoint, *args: object) -> None:
        began = time.thread_time()
        write(self, *args)  # type: ignore[arg-type]
        spent["thread"] += time.thread_time() - began
        spent["states"] += 1

    Checkpoint.save = timed_save  # type: ignore[method-assign,assignment]
    Checkpoint._write = timed_write  # type: ignore[method-assign,assignment]
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/x.zarr"
        X = random.normal(size=(options.rows, options.d)).astype(np.float32)
        X += random.normal(size=(options.k, options.d))[random.integers(options.k, size=len(X))]
        zarr.create_array(path, data=X, chunks=(65536, options.d), compressors=None)
        del X
        settings = FitSettings(
            options.k,
            algorithm="incremental",
            tol=0,
            max_iter=options.passes,
            init_params="random",
        )
        print(
            "| run | pass, s | with checkpoints, s | states | fit waits, s | thread, s | share |"
        )
        print("|---|---:|---:|---:|---:|---:|---:|")
        for run in range(options.repeats):
            each = []
            for place in (None, f"{folder}/run-{run}.zarr"):
                spent.update(save=0.0, thread=0.0, states=0.0)
                result = fit(
                    open_source(path), settings, np.random.RandomState(0), checkpoint=place
                )
                seconds = np.diff(result.history["seconds"])
                each.append(float(np.median(seconds)))
            total = float(seconds.sum())
            share = (spent["save"] + spent["thread"]) / total
            print(
                f"| {run} | {each[0]:.3f} | {each[1]:.3f} | {spent['states']:.0f} | "
                f"{spent['save']:.3f} | {spent['thread']:.3f} | {share:.2%} |",
                flush=True,
            )
        size = sum(f.stat().st_size for f in Path(folder, "run-0.zarr").rglob("*") if f.is_file())
        print(f"a checkpoint is {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
