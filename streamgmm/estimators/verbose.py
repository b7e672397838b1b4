"""What `verbose` prints: iterations, in scikit-learn's words."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from streamgmm.progress import Listener, listener


def teller(verbose: int, interval: int, tol: float) -> Listener | None:
    """Give what is told of progress: who listens, and what `verbose` prints."""
    listens = listener()
    if not verbose:
        return listens
    prints = _Printer(int(verbose), interval, tol)

    def both(progress: Any) -> None:
        prints(progress)
        if listens is not None:
            listens(progress)

    return both


class _Printer:
    """Prints iterations in scikit-learn's words."""

    def __init__(self, verbose: int, interval: int, tol: float) -> None:
        self.verbose, self.interval, self.tol = verbose, interval, tol
        self.began: dict[int, float] = {}
        self.last: dict[int, float] = {}

    def __call__(self, progress: Any) -> None:
        if progress.stage != "em" or np.isnan(progress.lower_bound):
            return
        which, now = progress.candidate, time.perf_counter()
        if which not in self.began:
            print(f"Initialization {which}")
            self.began[which] = self.last[which] = now
        if progress.iteration % self.interval == 0:
            lapse, self.last[which] = now - self.last[which], now
            more = f"\t time lapse {lapse:.5f}s\t ll change {progress.change:.5f}"
            print(f"  Iteration {progress.iteration}" + more * (self.verbose > 1))
        if progress.finished:
            said = "converged" if abs(progress.change) < self.tol else "did not converge"
            lapse = now - self.began[which]
            more = f" time lapse {lapse:.5f}s\t lower bound {progress.lower_bound:.5f}."
            print(f"Initialization {said}." + more * (self.verbose > 1))
