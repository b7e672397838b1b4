"""What leaving out components that are far away saves, and what it costs where none are.

Run ``python -m benchmarks.pruning`` from the root of the repository; ``--quick`` takes a tenth of
the rows.

What is timed. An E-step over rows in random order, in pieces as a fit reads them, of a model that
has just been made, so that what decides whether to leave anything out is counted too: as it is,
and with nothing left out. Both take turns in one process, on one thread; times are those of the
processor, ratios of the times of one turn, and then the median. All sums must be the same to
rounding.

"apart" are components whose nearest centres are so many standard deviations from one another;
"scattered" ones have centres that are normal with that deviation in each feature. "overlap" are
the workloads W1 and W3 of ``benchmarks.kernels``: at their start, and after some iterations.

"k-means": Lloyd's iterations after the third, with Hamerly's bounds and with all rows ranked
again each time; labels and inertia must be the same.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from statistics import median
from typing import Any

import click
import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.kernels import WORKLOADS, Workload, around, start
from benchmarks.kernels import rows as overlapping
from streamgmm.clustering import lloyd
from streamgmm.model.covariances.base import KernelAccumulator, Recipe
from streamgmm.model.covariances.pruning import Pruned
from streamgmm.model.mixture import Mixture, e_step, m_step

PIECE = 1 << 15  # rows
TURNS = 15


def recipe_of(mixture: Mixture, X: np.ndarray) -> Recipe:
    """The E-step of a fit, made anew."""
    density: Any = mixture.components.density(mixture.weights)
    recipe: Recipe = density.whole_rows(X[:PIECE], False, None)._recipe
    return recipe


def whole_of(mixture: Mixture, X: np.ndarray) -> Recipe:
    """The same with nothing left out."""
    density: Any = mixture.components.density(mixture.weights)
    recipe: Recipe = density.components.covariance.recipe(density, density.tile_dtype(X), None)
    return recipe


def sums_of(step: KernelAccumulator) -> list[np.ndarray]:
    """The arrays that an E-step adds to."""
    return [step._totals, step._n, step._first, step._second]


def below(depth: int, call: Any) -> Any:
    """The result of a call that many calls of C deeper, so that its stack lies elsewhere."""
    if depth == 0:
        return call()
    return next(map(lambda _: below(depth - 1, call), [0]))  # noqa: C417


def timed(step: KernelAccumulator, recipe: Recipe, X: np.ndarray) -> tuple[float, Any]:
    """Processor seconds of an E-step, and its sums; arrays are those of `step`."""
    room = step._second
    step._recipe, step._second = recipe, room[: recipe.second]
    for array in sums_of(step):
        array[...] = 0.0
    begin = time.process_time()
    for at in range(0, len(X), PIECE):
        step.add(X[at : at + PIECE])
    taken, found = time.process_time() - begin, step.result()
    moments, step._second = found.statistics, room
    return taken, [np.array([found.log_likelihood]), *moments.arrays().values()]


def ratio(mixture: Mixture, X: np.ndarray) -> str:
    """Times with nothing left out over times as it is.

    Where arrays and the stack lie, relative to one another, makes up to half of the time. So both
    use the same arrays, and each turn others, at another depth of the stack.
    """
    found, held = [], []
    wide = X.dtype == np.float64
    for turn in range(-1, TURNS):  # the first compiles
        held.append(np.empty(1000 * turn + 5000, np.uint8))  # so that arrays lie elsewhere
        recipe, whole = recipe_of(mixture, X), whole_of(mixture, X)
        step = KernelAccumulator(max(recipe, whole, key=lambda one: one.second))
        pair = (whole, recipe) if turn % 2 else (recipe, whole)
        (a, x), (b, y) = (below(turn + 1, partial(timed, step, one, X)) for one in pair)
        for one, other in zip(x, y, strict=True):
            scale = np.abs(other).max()
            # In float32 tiles, where nothing is left out, values are rounded to 2e-7.
            np.testing.assert_allclose(one, other, rtol=0, atol=scale * (1e-11 if wide else 1e-5))
        found.append((a, b) if turn % 2 else (b, a))
    plain, own = np.transpose(found[1:])
    tried = isinstance(recipe.kernel, Pruned)
    before, now = median(plain), median(own)
    what = "pairs left out" if tried else "not tried"
    return f"{1e3 * before:8.1f} ms {1e3 * now:8.1f} ms {before / now:6.2f}×  {what}"


def apart(k: int, d: int, least: float, rng: np.random.Generator) -> np.ndarray:
    """Centres (k, d) of which the nearest two are `least` apart."""
    centres = rng.normal(size=(k, d))
    square = np.square(centres[:, None] - centres).sum(axis=2) + np.diag(np.full(k, np.inf))
    return centres * least / np.sqrt(square.min())


def separated(kind: str, centres: np.ndarray, X: np.ndarray) -> Mixture:
    """The model that the rows are of, after one iteration."""
    k, d = centres.shape
    covariances = np.stack([np.eye(d)] * k) if kind == "full" else np.ones((k, d))
    mixture = Mixture.of(kind, np.full(k, 1 / k), centres, covariances)
    return m_step(mixture, e_step(mixture, X))


def k_means(n: int, d: int, k: int, separation: float) -> str:
    """Iterations after the third, all rows ranked and as it is."""
    module: Any = sys.modules["streamgmm.clustering.lloyd"]
    rng = np.random.default_rng(0)
    X = around(separation * rng.normal(size=(k, d)), n, rng)
    centres = X[rng.choice(n, k, replace=False)]
    assign = module.kmeans.assign

    def run(every: bool) -> tuple[float, Any]:
        spent = []

        def watched(rows: Any, model: Any, known: Any, *rest: Any) -> None:
            several = len(model[5]) > 1  # one is the mean of all rows
            if every and several:
                known[1][:] = -1.0
            begin = time.process_time()
            assign(rows, model, known, *rest)
            if several:
                spent.append(time.process_time() - begin)

        module.kmeans.assign = watched
        try:
            result = lloyd(X, centres, max_iter=25, tol=0, n_threads=1)
        finally:
            module.kmeans.assign = assign
        return sum(spent[3:]), result

    run(False)
    (own, a), (plain, b) = run(False), run(True)
    np.testing.assert_array_equal(a.labels, b.labels)
    assert a.inertia == b.inertia
    return f"{1e3 * plain:8.1f} ms {1e3 * own:8.1f} ms {plain / own:6.2f}×"


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="A tenth of the rows.")
def main(quick: bool) -> None:
    share = 10 if quick else 1
    rng = np.random.default_rng(0)
    with threadpool_limits(1):
        for kind in ("full", "diag"):
            for dtype in ("float64", "float32"):
                for way, size in (("apart", 8), ("apart", 16), ("scattered", 8)):
                    near = way == "apart"
                    centres = (
                        apart(64, 16, size, rng) if near else size * rng.normal(size=(64, 16))
                    )
                    X = around(centres, 200_000 // share, rng)
                    mixture = separated(kind, centres, X)
                    line = ratio(mixture, X.astype(dtype))
                    click.echo(f"{kind:5} {dtype} 64 × 16 {way + f' {size}σ':15} {line}")
        for w in WORKLOADS:
            if w.name in ("W1", "W3"):
                w = Workload(w.name, 200_000 // share, w.d, w.k, w.kind, w.target)
                X = overlapping(w, rng)
                mixture = start(w, X, rng)
                for iterations in (0, 10):
                    for _ in range(iterations):
                        mixture = m_step(mixture, e_step(mixture, X[:20_000]))
                    what = f"{w.name} overlap, after {iterations}"
                    click.echo(f"{w.kind:5} float64 {w.k} × {w.d} {what:22} {ratio(mixture, X)}")
        for separation in (8.0, 1.0):
            line = k_means(200_000 // share, 16, 256, separation)
            click.echo(f"k-means float64 256 × 16, scattered {separation:g}σ {line}")


if __name__ == "__main__":
    main()
