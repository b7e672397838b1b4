"""What one call on few rows costs, beside scikit-learn's: both by turns, in one process.

    python benchmarks/small.py [--rows 1]

Medians of calls, in microseconds; the ratio is of the medians. Most of it is checking what was
given, which a service that scores one row at a time pays for each.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture as Reference

import streamgmm

METHODS = ("predict", "score_samples", "predict_proba", "score")


def times(call: Callable[[], object], n: int) -> list[float]:
    """Seconds of each of so many calls."""
    taken = []
    for _ in range(n):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return taken


def compare(mine: object, theirs: object, rows: NDArray[np.float64], turns: int) -> None:
    for name in METHODS:
        calls = [partial(getattr(model, name), rows) for model in (mine, theirs)]
        taken: list[list[float]] = [[], []]
        for _ in range(turns):
            for call, all_of_it in zip(calls, taken, strict=True):
                all_of_it += times(call, 10)[1:]
        here, there = (np.median(each) * 1e6 for each in taken)
        kind = type(mine).__name__
        print(f"{kind:22} {name:14} {here:7.1f}   scikit-learn {there:7.1f}   {here / there:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--turns", type=int, default=200)
    given = parser.parse_args()
    for d, k in ((4, 8), (16, 16)):
        X = np.random.default_rng(0).normal(size=(5_000, d))
        rows = X[: given.rows]
        theirs = Reference(k, random_state=0, max_iter=5, tol=1.0).fit(X)
        mine = streamgmm.GaussianMixture(k, random_state=0, max_iter=5, tol=1.0).fit(X)
        online = streamgmm.OnlineGaussianMixture(k, n_init=1, warm_up=2_000).fit(X)
        print(f"{given.rows} rows of {d} features, {k} full components")
        compare(mine, theirs, rows, given.turns)
        compare(online, theirs, rows, given.turns)
        learn = partial(online.partial_fit, rows)
        taken = [seconds for _ in range(given.turns) for seconds in times(learn, 10)]
        print(f"OnlineGaussianMixture  partial_fit    {np.median(taken) * 1e6:7.1f}")


if __name__ == "__main__":
    main()
