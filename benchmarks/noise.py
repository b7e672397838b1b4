"""Rows with errors beside astroML's extreme deconvolution: ``python -m benchmarks.noise``.

First both climb twenty iterations from the same start on few rows, and the parameters are
compared. Then iterations are timed in turns in one process, on the same rows: full covariances,
independent noise on every number, and astroML's as the covariance matrices that it takes, float64.
``pip install "streamgmm[peers]"`` brings astroML. Last, 10^8 rows on disk are planned, from a
trial on a file of some of them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from sklearn.exceptions import ConvergenceWarning

from streamgmm import GaussianMixture
from streamgmm.model.mixture import Mixture


def draw(n: int, d: int, k: int, seed: int = 0) -> tuple[Any, Any, dict[str, Any]]:
    """Rows with errors, the variances of these, and a start."""
    rng = np.random.default_rng([seed, d, k])
    root = rng.normal(size=(k, d, d)) / np.sqrt(d) + np.eye(d)
    full = root @ root.transpose(0, 2, 1)
    truth = Mixture.of("full", rng.dirichlet(np.full(k, 5.0)), 3 * rng.normal(size=(k, d)), full)
    true, _ = truth.sample(n, np.random.RandomState(seed))
    noise = rng.gamma(2.0, 0.5, size=(n, d))
    start = {
        "weights_init": np.full(k, 1 / k),
        "means_init": truth.components.arrays()["means"] + 0.3 * rng.normal(size=(k, d)),
        "precisions_init": np.stack([np.eye(d)] * k),
    }
    order = rng.permutation(n)
    rows = true + rng.normal(size=(n, d)) * np.sqrt(noise)
    return np.ascontiguousarray(rows[order]), np.ascontiguousarray(noise[order]), start


def ours(X: Any, noise: Any, start: dict[str, Any], n_iter: int, **more: Any) -> GaussianMixture:
    """So many iterations of exact EM."""
    settings = {"algorithm": "em", "acceleration": None, "reg_covar": 0.0, "tol": 0.0} | start
    model = GaussianMixture(len(start["weights_init"]), max_iter=n_iter, **settings, **more)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X, noise_variance=noise)


def theirs(start: dict[str, Any]) -> Any:
    """astroML's model at a start."""
    from astroML.density_estimation import XDGMM

    model = XDGMM(len(start["weights_init"]))
    model.alpha = start["weights_init"].copy()
    model.mu = start["means_init"].copy()
    model.V = np.linalg.inv(start["precisions_init"])
    return model


def agree(n: int = 2000, d: int = 4, k: int = 3) -> None:
    """Compare parameters after twenty iterations."""
    X, noise, start = draw(n, d, k)
    mine, other = ours(X, noise, start, 20), theirs(start)
    for _ in range(20):
        other._EMstep(X, noise[:, :, None] * np.eye(d))
    gaps = (
        np.abs(mine.weights_ - other.alpha).max(),
        np.abs(mine.means_ - other.mu).max(),
        np.abs(mine.covariances_ - other.V).max(),
    )
    print(f"{n} × {d}, K = {k}, 20 iterations: weights, means and covariances differ by at most "
          f"{gaps[0]:.1e}, {gaps[1]:.1e}, {gaps[2]:.1e}")  # fmt: skip


def compare(n: int, d: int, k: int, rounds: int) -> None:
    """Time iterations in turns."""
    X, noise, start = draw(n, d, k)
    matrices = noise[:, :, None] * np.eye(d)
    other = theirs(start)
    ratios, mine, peers = [], [], []
    ours(X[:1000], noise[:1000], start, 1)  # compiles
    for _ in range(rounds):
        seconds = ours(X, noise, start, 20).history_["seconds"]
        mine.append(float(np.median(np.diff(seconds))))
        began = time.perf_counter()
        other._EMstep(X, matrices)
        peers.append(time.perf_counter() - began)
        ratios.append(peers[-1] / mine[-1])
    print(f"{n} × {d}, K = {k}, seconds an iteration: here {np.median(mine):.3f}, astroML "
          f"{np.median(peers):.1f}; {np.median(ratios):.0f} times ({min(ratios):.0f} to "
          f"{max(ratios):.0f})")  # fmt: skip


def plan(rows: int, d: int, k: int) -> None:
    """Plan a fit to 10^8 rows on disk, whose noise is on disk too."""
    X, noise, _ = draw(rows, d, k)
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for name, values in (("x", X), ("noise", noise)):
            paths[name] = str(Path(folder) / f"{name}.zarr")
            array = zarr.create_array(
                paths[name], shape=(10**8, d), chunks=(rows, d), dtype="float32"
            )
            array[:rows] = values
        model = GaussianMixture(k)
        print(model.plan(paths["x"], noise_variance=paths["noise"], workers=8,
                         worker_memory="4GiB"))  # fmt: skip


def main() -> None:
    """Print it all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=7)
    parser.add_argument("--components", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    agree()
    compare(asked.rows, asked.features, asked.components, asked.rounds)
    plan(100_000, asked.features, asked.components)


if __name__ == "__main__":
    main()
