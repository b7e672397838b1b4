"""What starts cost and what they buy: ``python -m benchmarks.starts``.

For some problems, numbers of starts and rows that each is first drawn from: the median and the
lower quartile over seeds of the log-likelihood (nats a row) that the fit ends at, below the best
that any of them found, and what the starts cost, in passes over all rows (processor time of the
starts over that of one E-step of all rows). The budget of `streamgmm.fitting.effort` was chosen
from this table; docs/starts.md has it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import click
import numpy as np

from benchmarks.kernels import WORKLOADS, rows
from benchmarks.problems import PROBLEMS, draw_problem
from streamgmm.fitting.contest import Contest, Sample
from streamgmm.fitting.effort import Effort, rows_of_start
from streamgmm.fitting.fit import FitSettings, fit
from streamgmm.fitting.starts import champion, climb_sample, decide
from streamgmm.model.mixture import e_step
from streamgmm.sources import open_source

STARTS = (1, 2, 4, 8, 16, 24)


@dataclass(frozen=True)
class Case:
    """Rows, and the mixture that is asked for."""

    name: str
    draw: Callable[[], np.ndarray]
    settings: FitSettings


def cases() -> list[Case]:
    """Workloads of `benchmarks.kernels` whose blobs lie apart, and problems that overlap."""
    found = [
        Case(w.name, lambda w=w: rows(w, np.random.default_rng(0)), FitSettings(w.k, w.kind))
        for w in WORKLOADS
        if w.name in ("W1", "W5", "W8")
    ]
    return found + [
        Case(p.name, lambda p=p: draw_problem(p, 0)[1], FitSettings(p.n_components))
        for p in PROBLEMS
    ]


def run(X: np.ndarray, settings: FitSettings, effort: Effort, seed: int) -> tuple[float, float]:
    """Log-likelihood a row at the end, and seconds of processor time of the starts."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(X), min(len(X), max(len(X) // 4, effort.most_rows)), replace=False)
    sample = Sample(np.ascontiguousarray(X[chosen]), None)
    began = time.process_time()
    contest = Contest(settings, effort, seed, len(sample.rows))
    decide([contest], sample)
    start = climb_sample(champion(contest), sample, settings)
    seconds = time.process_time() - began
    result = fit(open_source(X), settings, np.random.RandomState(0), start=start)
    return result.statistics.log_likelihood / len(X), seconds


@click.command()
@click.option("--seeds", default=10, show_default=True)
@click.option("--only", multiple=True, help="Names of cases.")
@click.option("--rows", "factors", multiple=True, type=float, default=(0.5, 1.0, 2.0, 4.0))
def main(seeds: int, only: tuple[str, ...], factors: tuple[float, ...]) -> None:
    """Print a table for each case."""
    for case in cases():
        if only and case.name not in only:
            continue
        X = case.draw()
        least = rows_of_start(case.settings, X.shape[1])
        table = {}
        for factor in factors:
            for n in STARTS:
                effort = Effort(int(factor * least), n, 1)
                run(X[: 4 * least], case.settings, effort, 0)
                table[factor, n] = [run(X, case.settings, effort, seed) for seed in range(seeds)]
        best = max(end for each in table.values() for end, _ in each)
        start = fit(open_source(X), case.settings, np.random.RandomState(0)).mixture
        began = time.process_time()
        e_step(start, X)
        a_pass = time.process_time() - began
        print(
            f"\n{case.name}: {len(X):,} × {X.shape[1]}, {case.settings.n_components} "
            f"{case.settings.family.name}; below {best:.4f} nats a row: median, "
            "lower quartile (cost in passes)"
        )
        print("rows of a start " + "".join(f"{n:>26}" for n in STARTS))
        for factor in factors:
            line = f"{int(factor * least):>15} "
            for n in STARTS:
                ends, seconds = zip(*table[factor, n], strict=True)
                below = best - np.quantile(ends, [0.5, 0.25])
                line += f"{below[0]:>9.4f} {below[1]:>8.4f} ({np.median(seconds) / a_pass:4.1f})"
            print(line, flush=True)


if __name__ == "__main__":
    main()
