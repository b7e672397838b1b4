"""Seconds per EM iteration (E-step and M-step) beside scikit-learn, and what the machine can do.

Run ``python -m benchmarks.kernels`` from the root of the repository; ``--quick`` takes a tenth
of the rows, ``--only W1 --only W6`` a part of the table, ``--help`` says the rest.

What is timed. Ours: one pass over blocks of an array in memory, on threads, and the M-step:
what one iteration of a fit does. scikit-learn: one call each of ``_e_step`` and ``_m_step``,
what one iteration of its ``fit`` does. Both start from the same parameters, iterate in turn in
one process on the same number of threads, and must have the same log-likelihood at every
iteration. Figures are medians over iterations. Before each of ours comes a pass that is not
timed: within a fit the processors are awake and at their pace, and a virtual one that has
idled takes some ten milliseconds to be so, most of an iteration of ours.

Where pomegranate, torchgmm, gmmx or oneDAL (daal4py) are installed (the extra ``peers``), each
has a column with its seconds and their ratio to ours, from the same start and in the same turns,
in a process of its own: "-" where it lacks the kind of covariances. Lines below the table say how
near to our log-likelihood each must come, and why some need not come as near as scikit-learn,
which is 1e-9.

The rate beside it counts the multiplications and additions of two products with all quadratic
features, (N × P)(P × K) and back, P = (D + 1)(D + 2) / 2, and compares it with BLAS on products
of that shape and on square ones, in the same run.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from statistics import median
from typing import Any

import click
import numpy as np
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from benchmarks.peers import Library, Peer, installed
from streamgmm.model.components import NO_WEIGHT
from streamgmm.model.mixture import EStep, Mixture, Statistics, m_step
from streamgmm.passes import Executor, open_executor
from streamgmm.sources import Block, open_source, parse_block_size


@dataclass(frozen=True)
class Workload:
    """A row of the table; `target` is the ratio that the project promises."""

    name: str
    n: int
    d: int
    k: int
    kind: str
    target: float


WORKLOADS = [
    Workload("W1", 500_000, 16, 16, "full", 25),
    Workload("W2", 200_000, 32, 32, "full", 25),
    Workload("W3", 1_000_000, 64, 64, "diag", 8),
    Workload("W4", 65_536, 32, 64, "full", 20),
    Workload("W5", 100_000, 32, 16, "full", 20),
    Workload("W6", 500_000, 16, 16, "tied", 60),
    Workload("W7", 500_000, 16, 16, "spherical", 12),
    Workload("W8", 500_000, 16, 16, "diag", 12),
]


LINE = "{:3} {:30} {:>14} {:>8} {:>7} {:>7} {:>14} {:>20}"
HEADINGS = (
    "",
    "rows, K",
    "scikit-learn s",
    "ours s",
    "ratio",
    "target",
    "ns/row/K/core",
    "GF/s ours / product",
)


def table_line(cells: Sequence[str]) -> str:
    """A line of the table; peers are what follows the columns that are always there."""
    fixed, more = cells[: len(HEADINGS)], cells[len(HEADINGS) :]
    return LINE.format(*fixed) + "".join(f" {cell:>18}" for cell in more)


def rows(w: Workload, rng: np.random.Generator) -> np.ndarray:
    """Overlapping blobs in random order, so that no component can be left out."""
    return around(rng.normal(size=(w.k, w.d)), w.n, rng)


def around(centres: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Rows (n, D) about centres (K, D), each of them as likely, with unit variances."""
    k, d = centres.shape
    return centres[rng.integers(k, size=n)] + rng.normal(size=(n, d))


def start(w: Workload, X: np.ndarray, rng: np.random.Generator) -> Mixture:
    """Rows as means, twice the identity as covariance."""
    identity = {
        "full": np.stack([np.eye(w.d)] * w.k),
        "tied": np.eye(w.d),
        "diag": np.ones((w.k, w.d)),
        "spherical": np.ones(w.k),
    }[w.kind]
    means = X[rng.choice(w.n, w.k, replace=False)]
    return Mixture.of(w.kind, np.full(w.k, 1 / w.k), means, 2.0 * identity)


def read(mixture: Mixture, block: Block) -> Statistics:
    """What a task of a pass does."""
    step = EStep([(mixture, None)])
    for piece in block.pieces():
        step.add(piece.rows, NO_WEIGHT if piece.sample_weight is None else piece.sample_weight)
    return step.result()[0]


class Ours:
    """EM of this package, an iteration at a time."""

    def __init__(self, mixture: Mixture, executor: Executor) -> None:
        self.mixture, self.executor = mixture, executor

    def wake(self) -> None:
        """Read the rows for nothing."""
        self.executor.run(read, self.mixture)

    def __call__(self) -> float:
        """Iterate once; the log-likelihood before."""
        statistics: Statistics = self.executor.run(read, self.mixture)
        self.mixture = m_step(self.mixture, statistics)
        return statistics.log_likelihood


class Theirs:
    """EM of scikit-learn, an iteration at a time."""

    def __init__(self, mixture: Mixture, X: np.ndarray) -> None:
        self.X = X
        self.model = GaussianMixture(mixture.n_components, covariance_type=mixture.family.name)
        self.model.weights_ = mixture.weights
        self.model.means_ = mixture.components.means
        self.model.covariances_ = mixture.components.covariances
        self.model.precisions_cholesky_ = mixture.components.precisions_cholesky

    def __call__(self) -> float:
        """Iterate once; the log-likelihood before."""
        mean, log_resp = self.model._e_step(self.X)
        self.model._m_step(self.X, log_resp)
        return float(mean) * len(self.X)


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and what the call gives, once the threads of the call before have come to rest.

    BLAS threads wait for more work with their processors busy, for some tens of milliseconds.
    """
    time.sleep(0.25)
    if isinstance(call, Ours):
        call.wake()
    begin = time.perf_counter()
    value = call()
    return time.perf_counter() - begin, value


def interleaved(
    calls: list[Callable[[], float]], repeats: int, peers: Sequence[Peer] = ()
) -> list[list[float]]:
    """Seconds of each call, in turn; they must agree on what they give, to rtol 1e-9.

    Peers have their turns too, for as long as they last, and keep their own times.
    """
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        values = []
        for call, times in zip(calls, seconds, strict=True):
            elapsed, value = timed(call)
            times.append(elapsed)
            values.append(value)
        np.testing.assert_allclose(values, values[0], rtol=1e-9)
        for peer in peers:
            if not peer.failure:
                peer.note(*timed(peer), values[0])
    return seconds


def product_rate(n: int, p: int, k: int) -> float:
    """GF/s of (n × p)(p × k) and of the product back, as BLAS does them."""
    rng = np.random.default_rng(0)
    T, E = rng.normal(size=(n, p)), rng.normal(size=(p, k))

    def both() -> float:
        return float((T.T @ (T @ E))[0, 0])

    return 4e-9 * n * p * k / median(timed(both)[0] for _ in range(5))


def blocks_of(X: np.ndarray) -> list[Block]:
    source = open_source(X)
    return list(source.blocks(parse_block_size("auto", source)))


def one(w: Workload, threads: int, repeats: int, libraries: Sequence[Library]) -> list[str]:
    """A row of the table."""
    rng = np.random.default_rng(0)
    X = rows(w, rng)
    mixture = start(w, X, rng)
    with ExitStack() as stack:
        executor = stack.enter_context(open_executor(blocks_of(X), n_threads=threads))
        ours, theirs = Ours(mixture, executor), Theirs(mixture, X)
        peers = {
            library.name: stack.enter_context(closing(Peer(library, mixture, X, threads)))
            for library in libraries
            if w.kind in library.kinds
        }
        interleaved([ours, theirs], 1, list(peers.values()))  # compiles
        for peer in peers.values():
            peer.seconds.clear()
        our_times, their_times = interleaved([ours, theirs], repeats, list(peers.values()))
        more = [timed(ours)[0] for _ in range(2 * repeats)]
    mine = median(our_times + more)
    ratio = median(their_times) / mine
    p = (w.d + 1) * (w.d + 2) // 2 if w.kind == "full" else 0
    rate = 4e-9 * w.n * p * w.k / mine
    same = product_rate(4096, p, w.k) if p else 0.0
    return [
        w.name,
        f"{w.n:,} × {w.d}, K={w.k} {w.kind}",
        f"{median(their_times):.3f}",
        f"{mine:.4f}",
        f"{ratio:.1f}×",
        f"{w.target:g}×",
        f"{1e9 * mine * threads / (w.n * w.k):.1f}",
        f"{rate:.0f} / {same:.0f} = {rate / same:.0%}" if p else "",
        *(peers[lib.name].cell(mine) if lib.name in peers else "-" for lib in libraries),
    ]


def precision_and_threads(repeats: int, n: int) -> list[str]:
    """What float32 rows, and a second thread, are worth."""
    lines = []
    for kind in ("full", "diag"):
        w = Workload("", n, 16, 16, kind, 0)
        rng = np.random.default_rng(0)
        X = rows(w, rng)
        mixture = start(w, X, rng)
        narrow = X.astype(np.float32)
        times = {}
        with (
            open_executor(blocks_of(X), n_threads=1) as single,
            open_executor(blocks_of(X), n_threads=2) as double,
            open_executor(blocks_of(narrow), n_threads=2) as short,
        ):
            pick = {"one": single, "two": double, "float32": short}
            for _ in range(2 * repeats + 1):
                for name, executor in pick.items():
                    call = Ours(mixture, executor)
                    times.setdefault(name, []).append(timed(call)[0])
        at = {name: median(t[1:]) for name, t in times.items()}
        lines.append(
            f"{kind}, {n:,} × 16, K=16: two threads are {at['one'] / at['two']:.2f}× one; "
            f"float32 is {at['two'] / at['float32']:.2f}× float64"
        )
    return lines


def small(repeats: int) -> str:
    """A whole fit of few rows, where what counts is what surrounds the loops."""
    import streamgmm

    rng = np.random.default_rng(0)
    w = Workload("", 1000, 2, 3, "full", 1)
    X = 4 * rows(w, rng)
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(5 * repeats + 1):
            for name, estimator in (
                ("ours", streamgmm.GaussianMixture),
                ("theirs", GaussianMixture),
            ):
                model = estimator(3, random_state=seed)
                seconds[name].append(timed(lambda model=model: model.fit(X).lower_bound_)[0])
    ours, theirs = (median(s[1:]) for s in seconds.values())
    return (
        f"fit of 1,000 × 2, K=3: ours {1e3 * ours:.1f} ms, scikit-learn {1e3 * theirs:.1f} ms, "
        f"{theirs / ours:.1f}×"
    )


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="A tenth of the rows.")
@click.option("--only", multiple=True, help="Workloads by name, for example W1.")
@click.option("--repeats", default=3, show_default=True, help="Iterations timed.")
@click.option("--threads", default=2, show_default=True)
def main(quick: bool, only: tuple[str, ...], repeats: int, threads: int) -> None:
    libraries = installed()
    click.echo(table_line([*HEADINGS, *(library.name for library in libraries)]))
    with threadpool_limits(threads):
        for w in WORKLOADS:
            if only and w.name not in only:
                continue
            if quick:
                w = Workload(w.name, w.n // 10, w.d, w.k, w.kind, w.target)
            click.echo(table_line(one(w, threads, repeats, libraries)))
        for library in libraries:
            click.echo(str(library))
        if only:
            return
        square = product_rate(2048, 2048, 2048)
        click.echo(f"square product, 2048: {square:.0f} GF/s on {threads} threads")
        for line in precision_and_threads(repeats, 50_000 if quick else 500_000):
            click.echo(line)
        click.echo(small(repeats))


if __name__ == "__main__":
    main()
