"""Randomised small fits, and whether F ever falls: ``python -m benchmarks.falls --runs 10000``.

Every run draws its own data, family, algorithm, acceleration, start and blocks, without a ridge
on the covariances (a ridge is no part of F). Prints the largest relative fall of F from one
iteration to the next, the largest disagreement of F + KL and the log-likelihood, both relative,
and how many runs ended in a singular component (an error that is said, not a fall).
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np

from streamgmm.errors import SingularCovarianceError
from streamgmm.fitting.fit import FitSettings, fit
from streamgmm.model.covariances import COVARIANCES
from streamgmm.model.families import Gaussian
from streamgmm.sources import open_source

KINDS = tuple(COVARIANCES)


def run(seed: int) -> tuple[float, float, float] | None:
    """Largest fall of F, error of F + KL, and most negative KL of one run, relative to F."""
    rng = np.random.default_rng(seed)
    k, d, n = rng.integers(1, 6), rng.integers(1, 6), rng.integers(60, 1500)
    spread = rng.uniform(0.2, 5)
    means = spread * rng.normal(size=(k, d))
    X = means[rng.integers(k, size=n)] + rng.normal(size=(n, d)) * rng.uniform(0.3, 2, (1, d))
    settings = FitSettings(
        int(rng.integers(1, 6)),
        Gaussian(KINDS[rng.integers(4)], 0.0),
        tol=0.0,
        max_iter=int(rng.integers(3, 25)),
        n_init=int(rng.integers(1, 3)),
        init_params=("kmeans", "random")[rng.integers(2)],
        algorithm=("em", "incremental")[rng.integers(2)],
        acceleration=(None, "anderson")[rng.integers(2)],
        block_size=int(rng.integers(200, 8000)),
    )
    try:
        result = fit(open_source(X), settings, np.random.RandomState(seed))
    except SingularCovarianceError:
        return None
    history = result.history
    energy = history["free_energy"]
    scale = np.maximum(np.abs(energy), 1.0)
    fall = float(np.max(-np.diff(energy) / scale[1:], initial=0.0))
    log_density = result.mixture.posterior(X).log_density.sum()
    error = abs(energy[-1] + history["kl"][-1] - log_density) / max(abs(log_density), 1.0)
    return fall, float(error), float(np.nanmin(history["kl"] / scale))


def main() -> None:
    """Run, and print one line of figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    outcomes = [run(seed) for seed in range(args.seed, args.seed + args.runs)]
    known = np.array([outcome for outcome in outcomes if outcome is not None])
    print(
        f"{args.runs} runs, {len(outcomes) - len(known)} singular: "
        f"largest fall of F {known[:, 0].max():.1e}, runs with a fall above 1e-12: "
        f"{np.count_nonzero(known[:, 0] > 1e-12)}, largest error of F + KL {known[:, 1].max():.1e}"
        f", lowest KL {known[:, 2].min():.1e} (relative)"
    )


if __name__ == "__main__":
    main()
