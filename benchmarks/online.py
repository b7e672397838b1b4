"""Online EM against batch EM: how close one pass comes, what a batch costs, what drift does.

    python benchmarks/online.py gap [--seeds 10] [--million]
    python benchmarks/online.py cost
    python benchmarks/online.py warm-up
    python benchmarks/online.py memory [--rows 100000000]
    python benchmarks/online.py false-alarms [--batches 10000]
    python benchmarks/online.py drift [--seeds 5]
    python benchmarks/online.py forget [--seeds 5]

Gaps are differences of log-likelihood on rows held out, in nats a row.
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
from problems import PROBLEMS, Floats, Problem, Truth, draw_problem, make_truth
from sklearn.mixture import GaussianMixture as Reference

import streamgmm
from streamgmm.model.mixture import Mixture, e_step, m_step

warnings.simplefilter("ignore")


def quartiles(values: list[float]) -> str:
    low, mid, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{mid:.5f} [{low:.5f} {high:.5f}]"


def converge(mixture: Mixture, X: Floats, tol: float = 1e-8) -> Mixture:
    """Batch EM from a mixture until it gains less than `tol` nats a row."""
    last = -np.inf
    for _ in range(5_000):
        statistics = e_step(mixture, X)
        mixture = m_step(mixture, statistics)
        level = statistics.log_likelihood / len(X)
        if level - last < tol:
            break
        last = level
    return mixture


def score(mixture: Mixture, X: Floats) -> float:
    return float(mixture.posterior(X).log_density.mean())


def gap(seeds: int, n_samples: int | None) -> None:
    """One pass against batch EM that goes on to the top, and against a fit of its own."""
    for problem in PROBLEMS:
        from_here: list[float] = []
        from_fit: list[float] = []
        for seed in range(seeds):
            n = n_samples or 60_000
            _, X, held = draw_problem(problem, seed, n_samples=n)
            k = problem.n_components
            online = streamgmm.OnlineGaussianMixture(k, random_state=seed)
            for first in range(0, n, 1_000):
                online.partial_fit(X[first : first + 1_000])
            mine = online.score(held)
            from_here.append(score(converge(online._mixture(), X), held) - mine)
            if n_samples is None:
                fit = streamgmm.GaussianMixture(
                    k, n_init=4, max_iter=2_000, tol=1e-7, random_state=seed
                ).fit(X)
                from_fit.append(fit.score(held) - mine)
        print(f"{problem.name:14} n={n:,} gap to batch EM from there {quartiles(from_here)}")
        if from_fit:
            print(f"{'':14} gap to GaussianMixture(n_init=4), tol=1e-7 {quartiles(from_fit)}")


def times(call: Callable[[], object], n: int) -> Floats:
    call()
    out = []
    for _ in range(n):
        start = time.perf_counter()
        call()
        out.append(time.perf_counter() - start)
    return np.array(out)


def cost() -> None:
    """Batches of 1,000 rows at D=16 K=16, and of 100 rows at D=8 K=8; the sides by turns."""
    compare(16, 16, 1_000)
    compare(8, 8, 100)


def compare(d: int, k: int, n: int) -> None:
    truth = make_truth(Problem(d, k, 1.0, 0), 0)
    X = truth.draw(40_000, np.random.default_rng(0))
    online = streamgmm.OnlineGaussianMixture(k, random_state=0, warm_up=5_000).partial_fit(X)
    mixture = online._mixture()
    reference = Reference(k, warm_start=True, max_iter=1).fit(X[:5_000])
    sides: dict[str, Callable[[Floats], object]] = {
        "online": online.partial_fit,
        "batch E+M": lambda rows: m_step(mixture, e_step(mixture, rows)),
        "scikit-learn": reference.fit,
    }
    taken: dict[str, list[Floats]] = {name: [] for name in sides}
    for turn in range(60):
        rows = np.ascontiguousarray(X[turn % 20 * n : (turn % 20 + 1) * n])
        for name, side in sides.items():
            repeats = 5 if name == "scikit-learn" else 20
            taken[name].append(times(partial(side, rows), repeats))
    print(f"D={d} K={k}, batches of {n} rows; microseconds")
    flat = {name: np.concatenate(parts) * 1e6 for name, parts in taken.items()}
    at = {name: np.quantile(values, [0.5, 0.99]) for name, values in flat.items()}
    for name, (median, p99) in at.items():
        print(f"  {name:14} median {median:8.0f}   p99 {p99:8.0f}")
    for name in ("batch E+M", "scikit-learn"):
        ratio = at["online"] / at[name]
        print(f"  online / {name:14} median {ratio[0]:.3f}   p99 {ratio[1]:.3f}")


WARM_UPS = [(8, 4, "full"), (16, 16, "full"), (32, 32, "diag"), (64, 64, "diag"), (16, 32, "full")]


def warm_up() -> None:
    """The longest call of `partial_fit`, by the clock and by the processor, and what follows."""
    for kind in ("full", "diag"):  # so that what is compiled has been compiled, or loaded
        for n in (200, 9_000):
            rows = np.random.default_rng(0).normal(size=(n + 2_000, 3))
            streamgmm.OnlineGaussianMixture(2, covariance_type=kind, warm_up=n).fit(rows)
    print("seconds of the longest call: processor (clock); calls that the warm-up is spread over")
    for k, d, kind in WARM_UPS:
        pool = make_truth(Problem(d, k, 1.0, 0), 0).draw(100_000, np.random.default_rng(0))
        for n in (100, 1_000, 10_000):
            model = streamgmm.OnlineGaussianMixture(k, covariance_type=kind, random_state=0)
            clock: list[float] = []
            processor: list[float] = []
            spread = current = at = 0
            while current < 20:
                rows = pool[at : at + n]
                at = (at + n) % len(pool)
                start, used = time.perf_counter(), time.process_time()
                model.partial_fit(rows)
                processor.append(time.process_time() - used)
                clock.append(time.perf_counter() - start)
                learner = model.learner_
                fitting = learner.gathered is not None and learner.gathered.fit is not None
                spread += fitting or bool(learner.queue)
                current += learner.state is not None and not learner.queue
            print(
                f"K={k:2} D={d:2} {kind:4} batches of {n:6,}: {max(processor):.3f} "
                f"({max(clock):.3f}); {spread:2} calls; later {np.median(processor[-20:]):.4f}",
                flush=True,
            )


def memory(n_rows: int) -> None:
    """Peak memory while rows go by."""
    truth = make_truth(Problem(4, 4, 1.0, 0), 0)
    pool = truth.draw(1_000_000, np.random.default_rng(0))
    model = streamgmm.OnlineGaussianMixture(4, random_state=0)
    start = time.perf_counter()
    done = 0
    marks = iter(int(n_rows * part) for part in (0.01, 0.1, 0.25, 0.5, 0.75, 1.0))
    mark = next(marks)
    while done < n_rows:
        first = done % 990_000
        model.partial_fit(pool[first : first + 10_000])
        done += 10_000
        if done >= mark:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"{done:>12,} rows {time.perf_counter() - start:7.0f} s peak {peak:.1f} MiB")
            mark = next(marks, n_rows + 1)


def false_alarms(n_batches: int) -> None:
    """Alarms on rows that do not change, per 10,000 batches of 1,000 rows."""
    for problem in PROBLEMS:
        truth = make_truth(problem, 0)
        rng = np.random.default_rng(7)
        model = streamgmm.OnlineGaussianMixture(problem.n_components, random_state=0)
        for _ in range(n_batches):
            model.partial_fit(truth.draw(1_000, rng))
        alarms = model.monitor_["alarms"]
        print(f"{problem.name}: {len(alarms)} alarms in {n_batches:,} batches {alarms[:3]}")


def changed(truth: Truth, what: str, rng: np.random.Generator) -> Truth:
    """The mixture after a change of two standard deviations."""
    weights, means = truth.weights.copy(), truth.means.copy()
    covariances = truth.covariances.copy()
    k, d = int(np.argmax(weights)), means.shape[1]
    root = np.linalg.cholesky(covariances[k])
    way = rng.standard_normal(d)
    step = 2 * root @ (way / np.linalg.norm(way))
    if what == "mean shift":
        means[k] += step
    elif what == "birth":
        means, weights = np.vstack([means, means[k] + step]), np.append(weights * 0.9, 0.1)
        covariances = np.concatenate([covariances, covariances[k : k + 1]])
    elif what == "rotation":  # about the middle, until rows are moved by two deviations
        middle = weights @ means
        spread = np.sqrt(np.trace(covariances[k]) / d)
        reach = np.sqrt(weights @ np.sum((means - middle) ** 2, axis=1))
        angle = 2 * np.arcsin(min(1.0, spread / reach))
        turn = np.eye(d)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        means = (means - middle) @ turn.T + middle
        covariances = turn @ covariances @ turn.T
    else:  # the two most alike of those whose weights differ twofold
        far = {
            (i, j): (means[i] - means[j])
            @ np.linalg.solve(covariances[i] + covariances[j], means[i] - means[j])
            for i in range(len(weights))
            for j in range(len(weights))
            if weights[i] > 2 * weights[j]
        }
        i, j = min(far, key=lambda pair: far[pair])
        weights[[i, j]] = weights[[j, i]]
    return Truth(weights, means, covariances)


def drift(seeds: int) -> None:
    """Rows until the alarm."""
    for what in ("rotation", "mean shift", "birth", "weight swap"):
        delays: list[float] = []
        early = 0
        for seed in range(seeds):
            for problem in PROBLEMS:
                rng = np.random.default_rng([seed, 3])
                truth = make_truth(problem, seed)
                model = streamgmm.OnlineGaussianMixture(problem.n_components, random_state=0)
                rows = [truth.draw(40_000, rng), changed(truth, what, rng).draw(10_000, rng)]
                X = np.concatenate(rows)
                for first in range(0, len(X), 500):
                    model.partial_fit(X[first : first + 500])
                at = [alarm["row"] for alarm in model.monitor_["alarms"]]
                early += sum(row <= 40_000 for row in at)
                delays.append(min((row - 40_000 for row in at if row > 40_000), default=np.inf))
        late = sum(delay > 5_000 for delay in delays)
        print(
            f"{what:12} rows to the alarm: median {np.median(delays):,.0f}, most "
            f"{np.max(delays):,.0f}; later than 5,000: {late} of {len(delays)}; early: {early}"
        )


def forget(seeds: int, half_life: float = 20_000.0) -> None:
    """The gap after a change, by half-lives, to batch EM on rows of the new regime."""
    for what in ("rotation", "mean shift", "birth", "weight swap"):
        for adapt in (False, True):
            gaps: list[list[float]] = []
            for seed in range(seeds):
                for problem in PROBLEMS:
                    rng = np.random.default_rng([seed, 4])
                    truth = make_truth(problem, seed)
                    after = changed(truth, what, rng)
                    model = streamgmm.OnlineGaussianMixture(
                        problem.n_components,
                        half_life=half_life,
                        random_state=0,
                        adapt_components=adapt,
                    )
                    model.partial_fit(truth.draw(60_000, rng))
                    held = after.draw(50_000, rng)
                    best = streamgmm.GaussianMixture(
                        problem.n_components, n_init=4, max_iter=500, tol=1e-5, random_state=0
                    ).fit(after.draw(100_000, rng))
                    line = []
                    for _ in range(5):
                        for _ in range(int(half_life) // 500):
                            model.partial_fit(after.draw(500, rng))
                        line.append(best.score(held) - model.score(held))
                    gaps.append(line)
            table = " ".join(f"{value:.4f}" for value in np.median(gaps, axis=0))
            print(
                f"{what:12} adapt={adapt!s:5} gap after 1..5 half-lives {table}; "
                f"largest after 5: {np.max(np.array(gaps)[:, -1]):.4f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--batches", type=int, default=10_000)
    given = parser.parse_args()
    if given.what == "gap":
        gap(given.seeds, 1_000_000 if given.million else None)
    elif given.what == "cost":
        cost()
    elif given.what == "warm-up":
        warm_up()
    elif given.what == "memory":
        memory(given.rows)
    elif given.what == "false-alarms":
        false_alarms(given.batches)
    elif given.what == "drift":
        drift(given.seeds)
    elif given.what == "forget":
        forget(given.seeds)
    else:
        parser.error("gap, cost, warm-up, memory, false-alarms, drift or forget")


if __name__ == "__main__":
    main()
