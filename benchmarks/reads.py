"""How often the data are read until the likelihood is reached: ``python -m benchmarks.reads``.

For each overlapping problem and seed, the full reads (pass 0 and fractions counted) until the
free energy is within 1e-3 and 1e-5 nats a row of the best likelihood that any method, or EM from
the true parameters, has found: batch EM from k-means as scikit-learn does it, incremental EM,
and accelerated incremental EM. Then what `select` and grown data cost. Medians [quartiles] over
seeds; "-" is not reached in 300 reads. Every number is a count or a likelihood, so a loaded
machine does not change it, but for the wall times of `select`, which are one ratio in one run.
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Reference

from benchmarks.problems import PROBLEMS, Floats, Problem, Truth, draw_problem
from streamgmm.fitting.fit import FitResult, FitSettings, fit
from streamgmm.fitting.selection import Candidate, rank
from streamgmm.model.mixture import Mixture
from streamgmm.sources import open_source

BLOCK = 1 << 15
NEVER = np.inf


def climb(X: Floats, k: int, seed: int, **settings: Any) -> FitResult:
    """Fit in blocks small enough that there are twelve groups of them."""
    start = settings.pop("start", None)
    seen = settings.pop("seen", None)
    chosen = FitSettings(k, block_size=BLOCK, **settings)
    state = np.random.RandomState(seed)
    return fit(open_source(X), chosen, state, start=start, seen=seen)


def reads(result: FitResult, best: float, gap: float) -> float:
    """Full reads until the free energy is within `gap` nats a row of `best`."""
    short = best - result.history["free_energy"] / result.n_rows
    reached = np.flatnonzero(short <= gap)
    return float(result.history["passes"][reached[0]]) if len(reached) else NEVER


def end(result: FitResult) -> float:
    """The log-likelihood a row that was reached."""
    return result.statistics.log_likelihood / result.n_rows


def run(problem: Problem, seed: int) -> dict[str, float]:
    """Reads of each method on one draw of one problem, and how far their ends lie apart."""
    truth, X, _ = draw_problem(problem, seed)
    k = problem.n_components
    batch = climb(X, k, seed, algorithm="em", acceleration=None, tol=0, max_iter=300)
    plain = climb(X, k, seed, algorithm="incremental", acceleration=None, tol=1e-8, max_iter=150)
    fast = climb(X, k, seed, algorithm="incremental", tol=1e-7, max_iter=150)
    reference = Reference(k, n_init=5, random_state=seed).fit(X)
    ends = [end(batch), end(plain), end(fast), end(polish(X, k, known(truth))), reference.score(X)]
    start = Mixture.of("full", reference.weights_, reference.means_, reference.covariances_)
    best = max(*ends, end(polish(X, k, start)))
    row = {"short of n_init=5": reference.score(X) - end(fast), "short of best": best - end(fast)}
    for name, result in (("batch", batch), ("incremental", plain), ("accelerated", fast)):
        for gap in (1e-3, 1e-5):
            row[f"{name} {gap:g}"] = reads(result, best, gap)
            row[f"{name} {gap:g} own"] = reads(result, max(end(plain), end(fast)), gap)
    return row


def known(truth: Truth) -> Mixture:
    """The mixture that the rows came from."""
    return Mixture.of("full", truth.weights, truth.means, truth.covariances)


def polish(X: Floats, k: int, start: Mixture) -> FitResult:
    """Climb from a start to the top."""
    return climb(
        X, k, 0, algorithm="em", acceleration="anderson", tol=1e-8, max_iter=200, start=start
    )


def grown(problem: Problem, seed: int) -> float:
    """Full reads after 10% more rows until within 1e-5 of a fit of all rows from nothing."""
    _, X, _ = draw_problem(problem, seed)
    old = len(X) * 10 // 11
    k = problem.n_components
    first = climb(X[:old], k, seed, algorithm="incremental", tol=1e-6)
    more = climb(
        X, k, seed, algorithm="incremental", tol=1e-6, start=first.mixture, seen=first.seen
    )
    anew = climb(X, k, seed, algorithm="incremental", tol=1e-6, start=first.mixture)
    return reads(more, end(anew), 1e-5)


def compare_select(n_samples: int) -> None:
    """24 candidates in shared reads, and one by one."""
    _, X, _ = draw_problem(PROBLEMS[2], 0, n_samples=n_samples)
    source = open_source(X)
    candidates = [Candidate(k, kind) for kind in ("full", "diag") for k in range(1, 13)]
    rank(source, candidates[:2], np.random.RandomState(0), FitSettings(1))
    began = time.perf_counter()
    ranking = rank(source, candidates, np.random.RandomState(0), FitSettings(1))
    together = time.perf_counter() - began
    began = time.perf_counter()
    for c in candidates:
        settings = FitSettings(c.n_components, c.family, n_init=2)
        fit(source, settings, np.random.RandomState(0))
    apart = time.perf_counter() - began
    slowest = ranking.table["passes"].max()
    print(
        f"select over {len(candidates)} candidates, {n_samples} rows: {ranking.passes:.1f} reads "
        f"in all, its slowest candidate {slowest + 1:.1f} with the last scoring read; wall time "
        f"{together / apart:.2f} of one by one ({together:.1f} s, {apart:.1f} s)"
    )


def spell(values: list[float]) -> str:
    """Median [quartiles], "-" for never."""
    low, middle, high = np.percentile(np.array(values), [25, 50, 75], method="nearest")
    text = [f"{v:.1f}" if np.isfinite(v) else "-" for v in (middle, low, high)]
    return f"{text[0]} [{text[1]}, {text[2]}]"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    args = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    for problem in PROBLEMS:
        rows = [run(problem, seed) for seed in range(args.seeds)]
        print(f"\n{problem.name}, N={problem.n_samples}: full reads, {args.seeds} seeds")
        for goal in ("1e-03", "1e-05"):
            gap = f"{float(goal):g}"
            for name in ("batch", "incremental", "accelerated"):
                of_best = spell([row[f"{name} {gap}"] for row in rows])
                of_own = spell([row[f"{name} {gap} own"] for row in rows])
                print(f"  to {goal} nats a row  {name:<12} {of_best:>18}   of own limit {of_own}")
        ratios = [
            row[f"accelerated {gap} own"] / row[f"incremental {gap} own"]
            for row in rows
            for gap in ("0.001", "1e-05")
            if np.isfinite(row[f"accelerated {gap} own"])
        ]
        print(f"  most reads of accelerated over plain: {max(ratios):.2f}")
        for name in ("short of n_init=5", "short of best"):
            print(f"  nats a row {name}: median {np.median([r[name] for r in rows]):.1e}")
        again = [grown(problem, seed) for seed in range(args.seeds)]
        print(f"  10% more rows: reads to 1e-5 {spell(again)}")
    print()
    compare_select(200_000)


if __name__ == "__main__":
    main()
