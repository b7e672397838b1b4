"""A fit and a report over stored rows: reads, seconds, memory, the size of the page.

    python -m benchmarks.report [--rows 100000000] [--features 16] [--folder DIR]

The rows are written chunk by chunk, a mixture is fitted to all of them, and the command
``streamgmm report`` runs in a process of its own. That process counts the bytes it has read from
files, so the number of reads is measured, beyond those of a report of no rows. With ``--folder``
the rows and the model are kept there, and used again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr

from streamgmm import GaussianMixture

COMPONENTS = 8
CHUNK_BYTES = 16 << 20
GRAIN = 64  # values are whole 64ths, so that they compress
MIB = 1 << 20


def problem(n: int, d: int, seed: int) -> np.ndarray:
    """Overlapping Gaussians (n, d), float32."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).normal(size=(COMPONENTS, d)) * 1.5
    X = centres[rng.integers(0, COMPONENTS, n)].astype(np.float32)
    X += rng.standard_normal((n, d), dtype=np.float32)
    return np.round(X * GRAIN) / GRAIN


def write(path: Path, n: int, d: int) -> None:
    """Rows in chunks of 16 MiB, those of each chunk by a seed of its own."""
    rows = CHUNK_BYTES // (4 * d)
    array = zarr.create_array(path, shape=(n, d), chunks=(rows, d), dtype=np.float32)
    array.attrs["feature_names"] = [f"band {i}" for i in range(d)]
    for a in range(0, n, rows):
        array[a : a + rows] = problem(min(rows, n - a), d, a)


def stored(path: Path) -> int:
    """Bytes of the files under a path."""
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())


def read_so_far() -> int:
    """Bytes that this process has read, from files and pipes."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(lines[0].split()[1])


def held(name: str) -> float:
    """Memory of this process, MiB: what it holds (VmRSS), or its peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(name))) / 1024


def one_report(folder: str, data: str) -> None:
    """Run the command in this process, with data and without; print what they took."""
    from streamgmm.cli import main

    arguments = ["report", f"{folder}/model.zarr"]
    assert main([*arguments, "--out", f"{folder}/alone.html", "-q", "--overwrite"]) == 0
    before, held_before = read_so_far(), held("VmRSS")
    start, worked = time.perf_counter(), time.process_time()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    assert main([*arguments, data, "--out", f"{folder}/report.html", "-q", "--overwrite"]) == 0
    found = {
        "seconds": time.perf_counter() - start,
        "worked": time.process_time() - worked,
        "read": read_so_far() - before,
        "peak": held("VmHWM"),
        "before": held_before,
        "page": Path(folder, "report.html").stat().st_size,
    }
    start, worked = time.perf_counter(), time.process_time()
    assert main(["score", f"{folder}/model.zarr", data, "-q", "--json"]) == 0
    found["score"] = time.perf_counter() - start
    found["score worked"] = time.process_time() - worked
    print(json.dumps(found))


def measure(folder: Path, n: int, d: int) -> None:
    """Write, fit, report; print a line for each."""
    data, model = folder / f"data-{n}-{d}.zarr", folder / "model.zarr"
    if not data.exists():
        start = time.perf_counter()
        write(data, n, d)
        print(f"written in {time.perf_counter() - start:.0f} s")
    size = stored(data)
    print(f"{n:,} rows × {d} float32, {n * d * 4 / 1e9:.1f} GB, {size / 1e9:.1f} GB as stored")
    if not model.exists():
        start = time.perf_counter()
        fitted = GaussianMixture(COMPONENTS, random_state=0, max_iter=5, tol=1e-2).fit(str(data))
        fitted.save(model)
        print(
            f"fit of {COMPONENTS} components: {time.perf_counter() - start:.1f} s, "
            f"{fitted.history_['passes'][-1]:.1f} passes"
        )
    code = "import sys; from benchmarks.report import one_report; one_report(*sys.argv[1:])"
    arguments = [sys.executable, "-c", code, str(folder), str(data)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    print(
        f"report: {found['seconds']:.1f} s ({found['worked']:.0f} s of processors), "
        f"{found['read'] / size:.3f} reads of what is stored, peak memory {found['peak']:.0f} "
        f"MiB, of which {found['before']:.0f} before, page {found['page'] / MIB:.2f} MiB; `score` "
        f"of the same rows {found['score']:.1f} s ({found['score worked']:.0f} s)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--folder", type=Path, help="where rows are kept, and found again")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        measure(given.folder or Path(temporary), given.rows, given.features)


if __name__ == "__main__":
    main()
