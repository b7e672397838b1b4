"""Thousands of components: what a row costs when it looks at few of them, and what that loses.

Rows lie about a curved surface of six dimensions in sixteen features, as embeddings do; there are
no true components to be found. Run ``python -m benchmarks.truncation pass`` (seconds a row
beside the exact pass; with ``--kinds factor`` of factor analysers), ``fit`` (likelihoods from the
same start), ``growth`` (over K, with ``--plot FILE``), ``large`` (10,000 components, ten million
rows out of core), ``centres`` (k-means), or ``peer`` (beside vamm, which is built from its
repository).
beside the exact pass), ``fit`` (likelihoods from the same start), ``growth`` (over K, with
``--plot FILE``), ``large`` (10,000 components, ten million rows out of core), ``moves`` (whole
fits with and without merges and splits of the start), or ``peer`` (beside vamm, which is built
from its repository).
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import threading
import time
import warnings
from dataclasses import replace

import numpy as np

from streamgmm import GaussianMixture, KMeans
from streamgmm.fitting import tree
from streamgmm.fitting.settings import FitSettings
from streamgmm.fitting.tree import tree_starts
from streamgmm.model.families import FactorAnalyzer, Gaussian
from streamgmm.model.mixture import Mixture, e_step
from streamgmm.model.truncation.sets import Memory, Turn
from streamgmm.passes import one_blas_thread

D = 16
SETS = 8
FACTORS = 4


def surface(n: int, seed: int = 0) -> np.ndarray:
    """Rows (n, D), float32: a smooth map of six hidden coordinates, and noise of 0.1."""
    fixed = np.random.default_rng(12345)
    inner, shift = 1.2 * fixed.normal(size=(6, 64)), fixed.uniform(0, 2 * np.pi, 64)
    outer = fixed.normal(size=(64, D)) / np.sqrt(16)
    rng = np.random.default_rng(seed)
    out = np.empty((n, D), np.float32)
    for a in range(0, n, 1 << 16):
        hidden = rng.normal(size=(min(1 << 16, n - a), 6))
        smooth = np.sin(hidden @ inner + shift) @ outer
        out[a : a + len(hidden)] = smooth + 0.1 * rng.normal(size=(len(hidden), D))
    return out


def start(k: int, kind: str, rows: np.ndarray) -> Mixture:
    """Where both kinds of fit begin."""
    family = Gaussian(kind, reg_covar=1e-4, truncation=SETS) if kind != "factor" else None
    family = family or FactorAnalyzer(FACTORS, reg_covar=1e-4, truncation=SETS)
    settings = FitSettings(k, family)
    return tree_starts(rows[: 64 * k], None, settings, np.random.RandomState(0))[0]


def truncated_pass(mixture: Mixture, rows: np.ndarray, sets: Memory, turn: int):
    """An E-step over sets, which go on from those of the turn before."""
    mixture.prepare()
    accumulator = mixture.density.accumulator(rows, False, None)
    accumulator.remember(sets, Turn(0, turn))
    accumulator.place(0)
    accumulator.add(rows)
    return accumulator.result()


def seconds_a_row(k: int, kind: str, n: int, n_exact: int) -> tuple[float, float, float]:
    """Processor seconds of a pass over sets, of an exact one, and of the first, a search."""
    rows = surface(n)
    mixture = start(k, kind, surface(64 * k, 1))
    sets = Memory()
    began = time.process_time()
    truncated_pass(mixture, rows, sets, 0)
    first = (time.process_time() - began) / n
    few, exact = [], []
    part, whole = rows[:n_exact], mixture.exact
    e_step(whole, part[:1000])
    for turn in range(1, 5):
        began = time.process_time()
        truncated_pass(replace(mixture), rows, sets, turn)  # with the graph that a pass needs
        few.append((time.process_time() - began) / n)
        if n_exact and turn < 4:
            began = time.process_time()
            e_step(whole, part)
            exact.append((time.process_time() - began) / n_exact)
    return min(few[1:]), min(exact, default=float("nan")), first


def compare_passes(given: argparse.Namespace) -> None:
    for kind in given.kinds:
        few, exact, first = seconds_a_row(given.k, kind, given.rows, given.exact_rows)
        print(
            f"{kind:5s} K={given.k}: {1e6 * few:7.2f} us a row, exact {1e6 * exact:8.2f}, "
            f"{exact / few:5.1f} times; the first pass, a search, {1e6 * first:6.2f}",
            flush=True,
        )


def compare_fits(given: argparse.Namespace) -> None:
    rows, held = surface(given.rows), surface(100_000, 2)
    for kind in given.kinds:
        mixture = start(given.k, kind, surface(64 * given.k, 1))
        components = mixture.components
        precisions = (
            components.precisions_cholesky @ np.swapaxes(components.precisions_cholesky, 1, 2)
            if kind == "full"
            else components.precisions_cholesky**2
        )
        how = {
            "covariance_type": kind,
            "reg_covar": 1e-4,
            "max_iter": given.iterations,
            "tol": 1e-3,
            "weights_init": mixture.weights,
            "means_init": components.means,
            "precisions_init": precisions,
            "algorithm": "em",
            "acceleration": None,
        }
        for truncation in (*given.sets, None):
            began = time.perf_counter()
            model = GaussianMixture(given.k, truncation=truncation, **how).fit(rows)
            seconds = time.perf_counter() - began
            model.truncation = None
            how_many = f"sets of {truncation}" if truncation else "exact"
            said = f"{kind:5s} K={given.k} {how_many:10s}"
            history = model.history_
            cost = history.get("kl_of_sets", np.zeros(1))[-1] / len(rows)
            error = history.get("kl_error", np.zeros(1))[-1] / len(rows)
            print(
                f"{said} {seconds:7.1f} s, {model.n_iter_:3d} iterations, bound "
                f"{history['free_energy'][-1] / len(rows):9.4f}, cost of sets "
                f"{cost:.4f} +- {error:.4f}, log-likelihood {model.score(rows[:200_000]):9.4f}, "
                f"held out {model.score(held):9.4f}",
                flush=True,
            )


def blobs(n: int, k: int, d: int, spread: float, seed: int) -> np.ndarray:
    """Rows (n, D), float32, of K diagonal Gaussians whose means are so many units apart."""
    rng = np.random.default_rng(seed)
    means, sigma = spread * rng.normal(size=(k, d)), rng.uniform(0.5, 1.5, size=(k, d))
    labels = rng.choice(k, size=n, p=rng.dirichlet(np.full(k, 3.0)))
    return (means[labels] + sigma[labels] * rng.normal(size=(n, d))).astype(np.float32)


def compare_moves(given: argparse.Namespace) -> None:
    improve = tree.improve
    for seed in range(3):
        every = given.rows + 50_000
        for name, rows in (
            ("apart, 8 features", blobs(every, given.k, 8, 4.0, seed)),
            ("apart, 16 features", blobs(every, given.k, 16, 4.0, seed)),
            ("overlapping, 8 features", blobs(every, given.k, 8, 1.2, seed)),
            ("overlapping, 16 features", blobs(every, given.k, 16, 1.2, seed)),
            ("surface", surface(every, seed)),
        ):
            for kind in given.kinds:
                for moves in (False, True):
                    tree.improve = improve if moves else lambda X, w, labels, *rest: labels
                    model = GaussianMixture(
                        given.k, covariance_type=kind, truncation=SETS, reg_covar=1e-4,
                        random_state=seed,
                    )  # fmt: skip
                    began = time.process_time()
                    model.fit(rows[:-50_000])
                    seconds = time.process_time() - began
                    score = model.score_samples(rows[-20_000:], exact=True).mean()
                    print(
                        f"{name:25s} K={given.k} {kind:5s} seed {seed} "
                        f"{'moves' if moves else 'plain'} {seconds:6.1f} s of processors, "
                        f"{model.n_iter_:3d} iterations, F "
                        f"{model.history_['free_energy'][-1] / given.rows:9.4f}, held out "
                        f"{score:9.4f}",
                        flush=True,
                    )


def compare_growth(given: argparse.Namespace) -> None:
    ks, found = (500, 1000, 2000, 4000, 8000), []
    for k in ks:
        few, exact, _ = seconds_a_row(k, "diag", given.rows, given.exact_rows)
        found.append((few, exact))
        print(f"diag  K={k:5d}: {1e6 * few:7.2f} us a row, exact {1e6 * exact:8.2f}", flush=True)
    print(f"from K={ks[0]} to {ks[-1]}: {found[-1][0] / found[0][0]:.2f} times")
    if given.plot:
        draw(ks, np.array(found), given.plot)


def draw(ks, found: np.ndarray, path: str) -> None:
    """Seconds a row over K, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.loglog(ks, 1e6 * found[:, 1], "o--", color="#8a8a8a", label="all components")
    axes.loglog(ks, 1e6 * found[:, 0], "o-", color="#0b6e99", label=f"sets of {SETS}")
    axes.set_xticks(ks, [f"{k:,}" for k in ks])
    axes.minorticks_off()
    axes.set_xlabel("components")
    axes.set_ylabel("microseconds a row, one thread")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=144)


def compare_centres(given: argparse.Namespace) -> None:
    """K-means from the same centres, on one thread: seconds of iterations, and what is reached."""
    rows = surface(given.rows)
    for k in [given.k] if given.k else (1000, 2000, 5000, 10_000):
        drawn = KMeans(k, truncation=64, max_iter=1, random_state=0).fit(surface(64 * k, 1))
        for size in (None, *given.sizes):
            model = KMeans(
                k, init=drawn.cluster_centers_, truncation=size, max_iter=given.iterations,
                tol=1e-5, n_jobs=1,
            )  # fmt: skip
            model.fit(rows)
            history, n = model.history_, len(rows)
            each = 1e6 * np.median(np.diff(history["seconds"])) / n
            cost = history.get("inertia_of_sets", np.zeros(1))[-1] / n
            agreement = history.get("agreement", np.ones(1))[-1]
            said = "all" if size is None else f"{size} of them"
            print(
                f"K={k:5d} {said:9s}: {model.n_iter_:3d} iterations, "
                f"{history['seconds'][-1]:6.2f} s, median {each:5.2f} us a row; inertia a row "
                f"{model.inertia_ / n:.4f}, of sets {cost:.4f}, agreement {agreement:.3f}",
                flush=True,
            )


def draw_curves(given: argparse.Namespace) -> None:
    """F, and the part of KL that the sets cost, by iteration."""
    from matplotlib.figure import Figure

    rows = surface(given.rows)
    model = GaussianMixture(
        given.k, covariance_type="diag", truncation=SETS, random_state=0, max_iter=given.iterations
    ).fit(rows)
    history = model.history_
    figure = Figure(figsize=(7.2, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    at = np.arange(1, len(history["free_energy"]) + 1)
    left.plot(at, history["free_energy"] / len(rows), color="#0b6e99")
    left.set(xlabel="iteration", ylabel="F, nats a row")
    cost, error = history["kl_of_sets"] / len(rows), history["kl_error"] / len(rows)
    right.plot(at, cost, color="#b3541e")
    right.fill_between(at, cost - 2 * error, cost + 2 * error, color="#b3541e", alpha=0.25)
    right.set(xlabel="iteration", ylabel="KL of the sets, nats a row", ylim=(0, None))
    figure.savefig(given.plot or "curves.png", dpi=144)


def compare_peer(given: argparse.Namespace) -> None:
    """Whole fits beside vamm's, both by their defaults, on as many threads as there are."""
    from vamm import Gaussian as Theirs

    rows, held = surface(given.rows), surface(100_000, 2)
    for kind, name in (("diag", "diagonal"), ("full", "full")):
        model = GaussianMixture(
            given.k, covariance_type=kind, truncation="auto", random_state=0, reg_covar=1e-3
        )
        began = time.perf_counter()
        model.fit(rows)
        seconds = time.perf_counter() - began
        model.truncation = None
        print(
            f"{kind:5s} K={given.k} here {seconds:7.1f} s, {model.n_iter_} iterations, held out "
            f"{model.score(held):9.4f}",
            flush=True,
        )
        theirs = Theirs(C=given.k, D=D, covariance_type=name)
        began = time.perf_counter()
        _, log = theirs.fit(X=rows.astype(np.float64), rng=0)
        seconds = time.perf_counter() - began
        weights, means = np.array(theirs.prior).ravel(), np.array(theirs.means)
        found = Mixture.of(kind, weights / weights.sum(), means, np.array(theirs.variance))
        score = found.posterior(held).log_density.mean()
        print(
            f"{kind:5s} K={given.k} vamm {seconds:7.1f} s, {len(log)} iterations, held out "
            f"{score:9.4f}",
            flush=True,
        )


class Peak(threading.Thread):
    """The largest resident memory of this process, of anonymous pages, every 50 ms."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self.start()

    def run(self) -> None:
        """Look, again and again."""
        while True:
            with open("/proc/self/status") as file:
                found = [line for line in file if line.startswith("RssAnon")]
            self.bytes = max(self.bytes, int(found[0].split()[1]) * 1024)
            time.sleep(0.05)


def fit_large(given: argparse.Namespace) -> None:
    import zarr

    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = os.path.join(folder, "rows.zarr")
        n, chunk = given.rows, 1 << 18
        array = zarr.create_array(path, shape=(n, D), chunks=(chunk, D), dtype="float32")
        for i, a in enumerate(range(0, n, chunk)):
            array[a : a + chunk] = surface(min(chunk, n - a), 100 + i)
        peak, began = Peak(), time.perf_counter()
        model = GaussianMixture(
            given.k, covariance_type="diag", truncation=SETS, reg_covar=1e-4, random_state=0,
            max_iter=given.iterations, cache=None, verbose=1,
        ).fit(path)  # fmt: skip
        seconds = time.perf_counter() - began
        history = model.history_
        print(
            f"diag K={given.k}, {n:,} rows: {seconds / 60:.1f} min, {model.n_iter_} iterations, "
            f"{model.timings_['starts']:.0f} s of it starts; bound "
            f"{history['free_energy'][-1] / n:.4f}, cost of sets "
            f"{history['kl_of_sets'][-1] / n:.4f} +- {history['kl_error'][-1] / n:.4f}; "
            f"memory {peak.bytes / 2**30:.2f} GiB, with files "
            f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = ("pass", "fit", "growth", "curves", "large", "centres", "moves", "peer")
    parser.add_argument("what", choices=kinds)
    parser.add_argument("-k", type=int)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--exact-rows", type=int, default=30_000)
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--kinds", nargs="+", default=["full", "diag"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[32, 64])
    parser.add_argument("--plot")
    parser.add_argument("--sets", nargs="+", type=int, default=[SETS], help="candidates of a row")
    parser.add_argument("--folder")
    given = parser.parse_args()
    defaults = {
        "pass": (2000, 1_000_000),
        "fit": (2000, 1_000_000),
        "growth": (0, 300_000),
        "peer": (2000, 300_000),
        "centres": (0, 300_000),
        "curves": (500, 200_000),
        "moves": (500, 250_000),
    }
    k, rows = defaults.get(given.what, (10_000, 10_000_000))
    given.k, given.rows = given.k or k, given.rows or rows
    warnings.simplefilter("ignore")
    run = {"pass": compare_passes, "fit": compare_fits, "growth": compare_growth}
    run |= {"peer": compare_peer, "centres": compare_centres, "moves": compare_moves}
    run["curves"] = draw_curves
    with one_blas_thread():
        run.get(given.what, fit_large)(given)


if __name__ == "__main__":
    main()
