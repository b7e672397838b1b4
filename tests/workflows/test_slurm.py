"""A fit on a real SLURM: controller, daemon and munge of Debian, on this machine."""

from __future__ import annotations

import getpass
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import zarr

import streamgmm
from tests.daemons import find, script, slurm

pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed")
NEEDS = find("slurmctld", "slurmd", "sbatch", "munged")
if os.name == "posix" and not NEEDS and os.getuid() != 0:
    NEEDS = f"SLURM's daemon starts jobs as root only, and this is {getpass.getuser()}"
pytestmark = pytest.mark.skipif(bool(NEEDS), reason=NEEDS)


def test_a_fit_as_slurm_jobs(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(40_000, 4)) + np.arange(2).repeat(20_000)[:, None]
    data, out = str(tmp_path / "x.zarr"), tmp_path / "model.zarr"
    zarr.create_array(data, data=X, chunks=(2_000, 4))
    logs = tmp_path / "logs"
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, slurm(Path(folder)) as known:
        said = script(
            "slurm_cluster", data, "-k", "2", "--out", str(out), "--jobs", "2", "--queue", "main",
            "--logs", str(logs), "--interface", "lo", "--seed", "0", "--tls",
            **known,
        )  # fmt: skip
    assert "#SBATCH -p main" in said
    assert "saved in" in said
    written = [path.read_text() for path in logs.glob("*.err")]
    assert written
    assert all("Start Nanny at: 'tls://" in text for text in written), written
    here = streamgmm.GaussianMixture(2, random_state=0, n_jobs=1).fit(data)
    there = streamgmm.load(str(out))
    for name in ("weights_", "means_", "covariances_"):
        assert getattr(here, name).tobytes() == getattr(there, name).tobytes()
