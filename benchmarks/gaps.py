"""Rows with gaps: what a pass costs beside whole rows, and what a fit recovers.

    python -m benchmarks.gaps speed
    python -m benchmarks.gaps recovery [rows]
    python -m benchmarks.gaps falls [runs]

`speed` times E-steps of blocks of 16,384 rows on one thread, in turn with the ordinary E-step of
whole rows, and gives the ratio of the least times. `recovery` fits 10^6 rows of 16 features of
which 30% of the values are missing, at random given what was observed: those of odd features are
missing more often where the feature before is large. Beside it are a fit of the rows that are
whole, one row in 300, and a fit of rows whose gaps are filled with the means. `falls` runs EM from
many seeds, over rows of which a third of the values are missing, and counts steps that lower F.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from streamgmm import GaussianMixture
from streamgmm.errors import SingularCovarianceError
from streamgmm.model.families import Gaussian
from streamgmm.model.mixture import EStep, Mixture, e_step, free_energy, m_step

BLOCK = 16_384


def mixture(kind: str, d: int, k: int, gaps: bool) -> Mixture:
    """A mixture of K components of D features."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(k, d, d))
    full = A @ A.transpose(0, 2, 1) / d + 0.5 * np.eye(d)
    covariances = {
        "full": full,
        "tied": full[0],
        "diag": np.einsum("kdd->kd", full),
        "spherical": full[:, 0, 0],
    }[kind]
    means = 1.5 * rng.normal(size=(k, d))
    return Mixture.of(Gaussian(kind, 1e-6, gaps), np.full(k, 1 / k), means, covariances)


def one_pass(kind: str, d: int, k: int, X: np.ndarray, gaps: bool) -> float:
    """Seconds of an E-step over all rows, block by block, by a model that is new."""
    model = mixture(kind, d, k, gaps)
    began = time.perf_counter()
    for a in range(0, len(X), BLOCK):
        step = EStep([(model, None)])
        step.add(X[a : a + BLOCK])
        step.result()
    return time.perf_counter() - began


def speed(n: int = 1 << 17, repeats: int = 12) -> None:
    """Ratios of the least times."""
    print(f"{n:,} rows in blocks of {BLOCK:,}, one thread; seconds over those of whole rows")
    print(
        f"{'':22s} {'ordinary':>12s} {'no gaps':>8s} {'5 patterns':>10s} {'10%':>6s} {'30%':>6s}"
    )
    for kind, d, k in (
        ("full", 16, 16), ("full", 16, 4), ("full", 4, 3), ("tied", 16, 16), ("diag", 16, 16),
        ("spherical", 16, 16),
    ):  # fmt: skip
        rng = np.random.default_rng(1)
        whole = rng.normal(size=(n, d))
        patterns = rng.random((5, d)) < 0.25
        patterns[0] = False
        few, some, many = whole.copy(), whole.copy(), whole.copy()
        few[patterns[rng.integers(5, size=n)]] = np.nan
        some[rng.random(whole.shape) < 0.1] = np.nan
        many[rng.random(whole.shape) < 0.3] = np.nan
        runs = [(whole, False), (whole, True), (few, True), (some, True), (many, True)]
        least = [np.inf] * len(runs)
        for _ in range(repeats):
            for i, (rows, gaps) in enumerate(runs):
                least[i] = min(least[i], one_pass(kind, d, k, rows, gaps))
        ratios = [each / least[0] for each in least[1:]]
        print(
            f"{kind:10s} D={d:2d} K={k:2d} {least[0] / n * 1e6:9.3f} µs "
            f"{ratios[0]:8.2f} {ratios[1]:10.2f} {ratios[2]:6.2f} {ratios[3]:6.2f}",
            flush=True,
        )


def gappy(n: int, d: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows with gaps, and the labels, means and covariances that made them."""
    rng = np.random.default_rng(2)
    A = rng.normal(size=(k, d, d)) / np.sqrt(d)
    covariances = A @ A.transpose(0, 2, 1) + 0.3 * np.eye(d)
    means = 2.5 * rng.normal(size=(k, d))
    labels = rng.integers(k, size=n)
    roots = np.linalg.cholesky(covariances)
    X = means[labels] + np.einsum("nij,nj->ni", roots[labels], rng.normal(size=(n, d)))
    chance = np.full((n, d), 0.3)
    scale = X[:, ::2] - X[:, ::2].mean(axis=0)
    # Even features are missing by chance; odd ones by the value before, where that is known.
    gone = rng.random((n, d)) < chance
    steep = 0.6 / (1 + np.exp(-scale / scale.std(axis=0)))
    odd = np.where(gone[:, ::2], 0.3, steep)
    gone[:, 1::2] = rng.random(odd.shape) < odd
    gone[gone.all(axis=1), 0] = False
    X[gone] = np.nan
    return X, labels, means, covariances


def recovery(n: int = 1_000_000, d: int = 16, k: int = 3) -> None:
    """Errors of the means and covariances in standard errors."""
    X, labels, means, covariances = gappy(n, d, k)
    whole = ~np.isnan(X).any(axis=1)
    print(
        f"{n:,} rows of {d}, {np.isnan(X).mean():.1%} of the values missing; "
        f"{whole.sum():,} rows are whole"
    )
    settings = {"random_state": 0, "tol": 1e-7, "max_iter": 300}
    filled = np.where(np.isnan(X), np.nanmean(X, axis=0), X)
    fits = {
        "marginalize": (GaussianMixture(k, missing="marginalize", **settings), X),
        "omit": (GaussianMixture(k, missing="omit", **settings), X),
        "means filled in": (GaussianMixture(k, **settings), filled),
    }
    # Of what was observed: n of a value, and of a pair of values, that is seen in a component.
    seen = ~np.isnan(X)
    alone = np.array([seen[labels == j].sum(axis=0) for j in range(k)])
    pairs = np.array([(s := seen[labels == j].astype(float)).T @ s for j in range(k)])
    sigma = np.sqrt(np.einsum("kdd->kd", covariances))
    mean_error = sigma / np.sqrt(alone)
    outer = sigma[:, :, None] ** 2 * sigma[:, None] ** 2
    pair_error = np.sqrt((outer + covariances**2) / pairs)
    print(f"{'':16s} {'seconds':>8s} {'means: rms z':>13s} {'max':>7s} {'within 3':>9s} "
          f"{'covariances: rms z':>19s} {'max':>7s} {'within 3':>9s} {'bias/sd':>8s}")  # fmt: skip
    for name, (model, rows) in fits.items():
        began = time.perf_counter()
        model.fit(rows)
        seconds = time.perf_counter() - began
        order = [int(np.argmin(((model.means_ - m) ** 2).sum(axis=1))) for m in means]
        off = model.means_[order] - means
        z = np.abs(off) / mean_error
        spread = np.abs(model.covariances_[order] - covariances) / pair_error
        lower = spread[:, *np.tril_indices(d)]
        print(
            f"{name:16s} {seconds:8.1f} {np.sqrt((z**2).mean()):13.2f} {z.max():7.1f} "
            f"{(z < 3).mean():9.1%} {np.sqrt((lower**2).mean()):19.2f} {lower.max():7.1f} "
            f"{(lower < 3).mean():9.1%} {np.abs(off / sigma).max():8.3f}",
            flush=True,
        )


def falls(runs: int = 10_000) -> None:
    """Count the steps that lower the log-likelihood, or F, by more than rounding."""
    fell, steps, least = 0, 0, np.inf
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        kind = ("full", "tied", "diag", "spherical")[seed % 4]
        d, k = int(rng.integers(2, 6)), int(rng.integers(1, 4))
        X = rng.normal(size=(120, d)) + 3 * rng.integers(k, size=120)[:, None]
        X[rng.random(X.shape) < 1 / 3] = np.nan
        X = X[~np.isnan(X).all(axis=1)]
        start = mixture(kind, d, k, True)
        family = Gaussian(kind, 0.0, gaps=True)
        means = np.nan_to_num(X[rng.choice(len(X), k, replace=False)])
        model = Mixture.of(family, start.weights, means, start.components.covariances)
        before = -np.inf
        for _ in range(8):
            found = e_step(model, X)
            reached = free_energy(model, found)
            assert abs(reached - found.log_likelihood) < 1e-8 * abs(reached)
            change = (reached - before) / abs(reached)
            try:
                model = m_step(model, found)
            except (
                SingularCovarianceError
            ):  # a component on too few values: no ridge was asked for
                break
            after = free_energy(model, found)
            change = min(change, (after - reached) / abs(reached))
            before, steps, least = after, steps + 1, min(least, change)
            fell += change < -1e-10
    print(f"{runs:,} runs, {steps:,} steps, {fell} fell; the least relative gain was {least:.1e}")


if __name__ == "__main__":
    what, *more = sys.argv[1:] or ["speed"]
    {"speed": speed, "recovery": recovery, "falls": falls}[what](*map(int, more))
