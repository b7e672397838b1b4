"""Blocks of sums in registers: the same bits whatever processors have of them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from streamgmm.clustering import k_means
from streamgmm.kernels import blocks
from streamgmm.model.mixture import EStep, Mixture

OTHER = """
import sys
from numba import config
config.CPU_FEATURES = "+avx512f" if sys.argv[1] == "4" else ""
from streamgmm.kernels import blocks
config.CPU_FEATURES = None
assert str(blocks.SIDE) == sys.argv[1]
from tests.kernels.test_blocks import digest
print(digest())
"""


def digest() -> str:
    """Of sums and clusters, in both dtypes and with what does not fill a block."""
    rng = np.random.default_rng(0)
    found = hashlib.sha256()
    for kind, dtype in (("full", np.float64), ("full", np.float32), ("tied", np.float64)):
        for d in (3, 9):
            X = rng.normal(size=(333, d)).astype(dtype)
            factor = rng.normal(size=(d, d))
            covariance = factor @ factor.T + np.eye(d)
            covariances = covariance if kind == "tied" else np.stack([covariance] * 6)
            mixture = Mixture.of(kind, np.full(6, 1 / 6), X[:6].astype(float), covariances)
            step = EStep([(mixture, None)])
            step.add(X, np.ones(len(X)))
            for values in step.result()[0].components.arrays().values():
                found.update(np.ascontiguousarray(values).tobytes())
    clusters = k_means(rng.normal(size=(2000, 5)), 30, np.random.RandomState(0), n_threads=1)
    found.update(clusters.centres.tobytes())
    return found.hexdigest()


def test_blocks_of_both_sizes_give_the_same_bits(tmp_path) -> None:
    other = {4: "2", 2: "4"}[blocks.SIDE]
    run = subprocess.run(
        [sys.executable, "-c", OTHER, other],
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "STREAMGMM_COMPILE_AHEAD": "0"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert run.stdout.split() == [digest()]


@pytest.mark.parametrize(
    ("features", "side"), [("+avx2,+avx512f", 4), ("+avx2,+fma,-avx512f", 2), ("", 2)]
)
def test_sizes_follow_the_processor(
    features: str, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks.config, "CPU_FEATURES", features)
    assert blocks._side() == side
