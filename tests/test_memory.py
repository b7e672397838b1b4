"""The memory that a fit really takes, beside what its plan says, whatever the number of rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec

CHUNK = 1 << 16  # rows, 8 MiB of them
MIB = 1 << 20

# The high-water mark of the resident set is read from /proc: `ru_maxrss` begins with that of the
# process that started this one.
FIT = """
import json, sys, warnings
from pathlib import Path
from streamgmm import GaussianMixture
from streamgmm.planning.simulate import Rates

warnings.simplefilter("ignore")
model = GaussianMixture(
    4, covariance_type="diag", algorithm="incremental", random_state=0, max_iter=1, cache=None
)
model.fit(sys.argv[1])
status = Path("/proc/self/status").read_text()
peak = 1024 * int(status.split("VmHWM:")[1].split()[0])
planned = model.plan(sys.argv[1], rates=Rates(1e-8, 1e-8, 1e-8, 1e-8))
print(json.dumps({"peak": peak, "planned": planned.worker_peak, "bytes": planned.n_bytes}))
"""


def write(path: Path, n_chunks: int) -> str:
    """Write rows of 16 numbers about two centres, chunk by chunk; compressed they are small."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 8, size=(CHUNK, 16)) + rng.choice([0.0, 20.0], size=(CHUNK, 1))
    array = zarr.create_array(
        path,
        shape=(n_chunks * CHUNK, 16),
        chunks=(CHUNK, 16),
        dtype="f8",
        compressors=BloscCodec(cname="lz4"),
    )
    for i in range(n_chunks):
        array[i * CHUNK : (i + 1) * CHUNK] = rows
    return str(path)


def fit(path: str) -> dict[str, int]:
    """Fit in a fresh process of two threads."""
    done = subprocess.run(
        [sys.executable, "-c", FIT, path],
        env=os.environ | {"DASK_NUM_WORKERS": "2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_a_fit_takes_what_its_plan_says_and_no_more_for_more_rows(tmp_path: Path) -> None:
    fit(write(tmp_path / "few.zarr", 2))  # has the kernels compiled, which takes memory of its own
    some = fit(write(tmp_path / "some.zarr", 36))
    twice = fit(write(tmp_path / "twice.zarr", 72))
    assert (some["bytes"], twice["bytes"]) == (288 * MIB, 576 * MIB)
    assert some["peak"] <= 1.1 * some["planned"]
    assert twice["peak"] <= 1.1 * twice["planned"]
    assert twice["planned"] == some["planned"]
    assert twice["peak"] <= some["peak"] + 32 * MIB
    assert some["planned"] < 600 * MIB  # or it would say little
