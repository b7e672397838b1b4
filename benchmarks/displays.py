"""What pictures cost: the histograms of a pass beside an E-step.

    python -m benchmarks.displays [--rows 2000000]

They are to cost at most 15 % of an E-step of 16 features. Quantiles are those of a report, in
eight components. A whole report is timed by `benchmarks.report`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from streamgmm import GaussianMixture
from streamgmm.model.mixture import EStep, Mixture
from streamgmm.sources import Piece
from streamgmm.summaries.audit import AuditRequest
from streamgmm.summaries.histograms import lay_grid
from streamgmm.summaries.portrait import PROFILED
from streamgmm.summaries.quantiles import QuantileRequest

FEATURES, COMPONENTS = 16, 16


def problem(n: int, seed: int = 0) -> np.ndarray:
    """Overlapping Gaussians (n, 16)."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).normal(size=(COMPONENTS, FEATURES)) * 1.5
    return centres[rng.integers(0, COMPONENTS, n)] + rng.normal(size=(n, FEATURES))


def fitted() -> Mixture:
    """A mixture of such rows."""
    model = GaussianMixture(COMPONENTS, max_iter=200, random_state=0, tol=1e-2)
    return model.fit(problem(100_000))._mixture()


def seconds(run: Callable[[], object], times: int = 7) -> float:
    """Median of several runs, of which the first is not counted."""
    run()
    each = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        each.append(time.perf_counter() - start)
    return float(np.median(each))


def histograms(n: int) -> None:
    """One thread, rows in memory: an E-step, and what is counted beside it."""
    mixture, X = fitted(), problem(n)

    def e_step() -> None:
        step = EStep([(mixture, None)])
        step.add(X)
        step.result()

    def counted(columns: range) -> Callable[[], object]:
        grid = lay_grid(mixture, columns)

        def run() -> object:
            counter = grid.open()
            counter.add(Piece(0, X, None))
            return counter.result()

        return run

    def audited() -> None:
        counter = AuditRequest(FEATURES).open()
        counter.add(Piece(0, X, None), None)
        counter.result()

    posterior = mixture.posterior(X, labels=True)

    def profiled() -> None:
        counter = QuantileRequest(np.arange(PROFILED), np.arange(PROFILED)).open()
        counter.add(Piece(0, X, None), posterior)
        counter.result()

    whole = seconds(e_step)
    print(f"{n:,} rows × {FEATURES}, {COMPONENTS} full components, one thread")
    print(f"E-step                            {whole:8.3f} s")
    for m in (1, 2, 4):
        one = seconds(counted(range(m)))
        pairs = m * (m - 1) // 2
        print(f"{m} features, {pairs} pairs of 64 × 64 bins {one:8.3f} s  {one / whole:6.1%}")
    one = seconds(audited)
    print(f"audit of all columns              {one:8.3f} s  {one / whole:6.1%}")
    one = seconds(profiled, 3)
    print(f"quantiles of {PROFILED} features           {one:8.3f} s  {one / whole:6.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    histograms(parser.parse_args().rows)


if __name__ == "__main__":
    main()
