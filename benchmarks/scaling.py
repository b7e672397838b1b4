"""Seconds of a pass on 1, 2 and 4 workers, measured beside planned; and the curve beyond.

Run ``python -m benchmarks.scaling`` from the root of the repository; ``--rows 67108864`` takes
8 GiB, in blocks of 128 MiB, and ``--kept`` times passes over rows that an earlier one has kept.
``--curve FILE.png`` draws what `streamgmm.planning.simulate` expects of clusters up to 10,000
workers and 10^12 rows (needs matplotlib), ``--curve -`` prints it.

What is timed. A full pass of one candidate over an uncompressed Zarr array, on worker processes
of one thread that share the processors of this machine with the scheduler; one cluster after
another, since idle ones cost too. Passes follow one another, as in a fit: after each plan, which
is made anew so that it sees the same machine, one that is not timed and two that are. Figures
are medians over rounds. Beside them stands the processor time of the workers, measured and
planned, which means something on a machine that does other things too. More workers than
processors are there to see what oversubscription costs.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import median
from typing import Any

import click
import numpy as np
import zarr
from dask.system import CPU_COUNT
from rich.console import Console
from rich.table import Table

from streamgmm.fitting.memory import result_bytes
from streamgmm.model.components import NO_WEIGHT
from streamgmm.model.mixture import EStep, Mixture, Statistics
from streamgmm.passes import Executor, blocks_in_task
from streamgmm.passes.cluster import ClusterExecutor
from streamgmm.planning.calibrate import calibrate
from streamgmm.planning.plan import plan
from streamgmm.planning.simulate import Load, Rates, play, project
from streamgmm.sources import Block, Source, kept_bytes, open_source, parse_block_size

D, K = 16, 16


def read(mixture: Mixture, block: Block) -> Statistics:
    """What a task of a pass does."""
    step = EStep([(mixture, None)])
    for piece in block.pieces():
        step.add(piece.rows, NO_WEIGHT if piece.sample_weight is None else piece.sample_weight)
    return step.result()[0]


def stored(folder: str, n_rows: int) -> Source:
    """Normal rows in uncompressed chunks of 4 MiB."""
    rng = np.random.default_rng(0)
    chunk = (4 << 20) // (8 * D)
    array = zarr.create_array(
        f"{folder}/x.zarr", shape=(n_rows, D), chunks=(chunk, D), dtype="f8", compressors=None
    )
    for a in range(0, n_rows, chunk):
        array[a : a + chunk] = rng.normal(size=(min(chunk, n_rows - a), D))
    return open_source(f"{folder}/x.zarr")


def model(source: Source, k: int = K) -> Mixture:
    piece = next(iter(source.blocks(1 << 20)[0].pieces())).rows
    spread = np.broadcast_to(np.eye(D), (k, D, D)).copy()
    return Mixture.of("full", np.full(k, 1 / k), piece[:k].astype(float), spread)


def planned_processor(source: Source, blocks: list[Block], k: int, kept: bool) -> float:
    """Processor seconds that the workers are expected to need for a pass."""
    rates, _ = calibrate(source, blocks, k, "full", clock=time.process_time)
    row = rates.compute + (0 if kept else rates.read + rates.decode)
    return source.n_samples * row + len(blocks) * (rates.merge + rates.worker_task)


def used_processor(executor: Any) -> float:
    """Processor seconds that the workers have used since they started."""
    return float(sum(executor.client.run(time.process_time).values()))


@contextmanager
def workers(n: int, blocks: list[Block], keep: int = 0) -> Iterator[Executor]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=n, threads_per_worker=1, dashboard_address=":0", memory_limit="12GiB"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        executor: Any = ClusterExecutor(blocks, client, keep=keep)
        try:
            yield executor
        finally:
            executor.close()


def measure(
    source: Source, k: int, counts: list[int], rounds: int, kept: bool
) -> tuple[Table, float]:
    """Rows of the table, and how many times faster two workers are than one."""
    blocks = list(source.blocks(parse_block_size("auto", source)))
    mixture = model(source, k)
    table = Table(box=None)
    for column in (
        "workers",
        "measured s",
        "planned s",
        "planned / measured",
        "speed-up",
        "processor s",
        "planned / used",
    ):
        table.add_column(column, justify="right")
    seconds: dict[int, float] = {}
    for n in counts:
        measured, planned, used, expected_use = [], [], [], []
        with workers(n, blocks, kept_bytes(source, blocks) if kept else 0) as executor:
            executor.run(read, mixture)  # compiles
            for _ in range(rounds):
                expected = plan(
                    source, k, workers=n, processors=CPU_COUNT, n_candidates=1, check=False
                )
                planned.append((expected.later if kept else expected.projection).seconds)
                expected_use.append(planned_processor(source, blocks, k, kept))
                executor.run(read, mixture)
                before = used_processor(executor)
                begin = time.perf_counter()
                for _ in range(2):
                    executor.run(read, mixture)
                measured.append((time.perf_counter() - begin) / 2)
                used.append((used_processor(executor) - before) / 2)
        seconds[n] = median(measured)
        table.add_row(
            f"{n}", f"{seconds[n]:.3f}", f"{median(planned):.3f}",
            f"{median(p / m for p, m in zip(planned, measured, strict=True)):.2f}",
            f"{seconds[counts[0]] / seconds[n]:.2f}×", f"{median(used):.3f}",
            f"{median(p / u for p, u in zip(expected_use, used, strict=True)):.2f}",
        )  # fmt: skip
    return table, seconds[1] / seconds[2]


REFERENCE = Rates(read=2e-8, decode=1.3e-7, compute=2e-7, merge=3e-5)
"""One processor, D = 16, K = 16, full, float64, Zstandard; docs/scaling.md says how measured."""


def curve(
    rates: Rates, n_rows: float, block_bytes: float, store: float
) -> Iterator[tuple[int, float, float, str]]:
    """Workers, seconds of a pass, how many workers' worth of work that is, and the limit."""
    rates = Rates(**{**vars(rates), "store": store})
    statistics = result_bytes(K, D, "full")
    n_blocks = max(1, round(n_rows * 8 * D / block_bytes))
    whole = Load(n_rows, n_blocks, n_rows * 8 * D, statistics, 3 * statistics)
    alone = n_rows * (rates.compute + rates.read + rates.decode)
    for n in (1, 10, 30, 100, 300, 1000, 3000, 10_000):
        found = project(replace(whole, task_blocks=blocks_in_task(n_blocks, n)), rates, n)
        yield n, found.seconds, alone / found.seconds, found.limit


CURVES = [
    ("128 MiB blocks", 128 * 2**20, float("inf")),
    ("2 GiB blocks", 2 * 2**30, float("inf")),
    ("16 GiB blocks", 16 * 2**30, float("inf")),
    ("16 GiB blocks, store of 100 GB/s", 16 * 2**30, 1e11),
]


def print_curve(console: Console, n_rows: float) -> None:
    for name, block_bytes, store in CURVES:
        table = Table(title=f"{n_rows:.0e} rows, {name}", box=None)
        for column in ("workers", "pass", "worth", "limit"):
            table.add_column(column, justify="right")
        for n, seconds, worth, limit in curve(REFERENCE, n_rows, block_bytes, store):
            table.add_row(f"{n:,}", f"{seconds:,.0f} s", f"{worth:,.0f}", limit)
        console.print(table)
    for n in (5, 10, 100, 300):
        load = Load(1e9, 1000, 128e9, 35e3, 105e3, task_blocks=blocks_in_task(1000, n))
        ratio = play(load, REFERENCE, n) / project(load, REFERENCE, n).seconds
        console.print(f"1e9 rows, 1,000 blocks, {n} workers: task by task / sums = {ratio:.2f}")


def draw_curve(path: str, n_rows: float) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5))
    for name, block_bytes, store in CURVES:
        points = list(curve(REFERENCE, n_rows, block_bytes, store))
        axes.loglog([p[0] for p in points], [p[1] for p in points], marker="o", label=name)
    axes.set_xlabel("workers of one processor")
    axes.set_ylabel("seconds of a pass")
    axes.set_title(f"{n_rows:.0e} rows × {D}, K = {K} full: projected")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


@click.command(help=__doc__)
@click.option("--rows", default=8 << 20, show_default=True, help="Of the passes.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--components", default=K, show_default=True)
@click.option("--kept", is_flag=True, help="Over rows that are kept.")
@click.option("--curve", "curve_path", help="Draw the curve to a file, or print it (-).")
@click.option("--curve-rows", default=1e12, show_default=True)
def main(
    rows: int, rounds: int, components: int, kept: bool, curve_path: str | None, curve_rows: float
) -> None:
    console = Console(width=110)
    if curve_path == "-":
        print_curve(console, curve_rows)
        return
    if curve_path:
        draw_curve(curve_path, curve_rows)
        return
    folder = tempfile.mkdtemp()
    try:
        source = stored(folder, rows)
        table, faster = measure(source, components, [1, 2, 4], rounds, kept)
    finally:
        shutil.rmtree(folder)
    console.print(f"{source.n_samples:,} rows × {D}, K={components} full, {CPU_COUNT} processors")
    console.print(table)
    console.print(f"two workers are {faster:.2f}× one (target 1.85×)")


if __name__ == "__main__":
    main()
