"""What a pass costs beyond computing: reading, Dask, and memory over many passes.

Run ``python -m benchmarks.pass_overhead`` from the root of the repository; ``--quick`` takes an
eighth of the rows, ``--only stream|dask|growth|peak`` one part.

stream  The same pass, D = 16, K = 16 full, over rows in memory and in Zarr on the local disk
        (in its cache), in turn. Ratios are medians over rounds of what was measured next to
        each other. ``kept`` are passes over rows that an earlier one has read and decoded.
        Reading and decoding run on a thread beside the one that computes, so
        ``max(decode alone, compute alone)`` can be reached while there is a processor for it:
        one thread on two. On as many threads as processors what can be reached is their sum.
dask    1,000 blocks that give real statistics and read nothing, on two workers: scheduling,
        merging and sending, as a share of a pass over 1,000 blocks of the default size
        (128 MiB), whose computing is measured on one block.
growth  Memory of scheduler, workers and client over 100 passes (``--passes``). Dask's scheduler
        keeps its last 1,000 messages to each worker, and as many transitions; ``--log-length``
        sets ``distributed.admin.low-level-log-length``.
peak    Highest memory of workers that fit 1 GiB and 4 GiB, beside the plan's; each size in
        processes of its own.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any, Self

import click
import numpy as np
import zarr
from dask.system import CPU_COUNT
from rich.console import Console

from benchmarks.scaling import D, K, model, read, stored, workers
from streamgmm.model.mixture import Mixture, Statistics, e_step
from streamgmm.passes import one_blas_thread, open_executor
from streamgmm.sources import Block, Source, kept_bytes, open_source, parse_block_size

MIB = 1 << 20


@dataclass(frozen=True)
class Count:
    """Rows that were read."""

    n_rows: int

    def merge(self, other: Self) -> Count:
        """Of both."""
        return Count(self.n_rows + other.n_rows)


def only_read(_: None, block: Block) -> Count:
    return Count(sum(len(piece.rows) for piece in block.pieces()))


def nothing(context: tuple[Mixture, Statistics], _: Block) -> Statistics:
    return context[1]


def seconds(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    begin = clock()
    call()
    return clock() - begin


def blocks_of(source: Source) -> list[Block]:
    return list(source.blocks(parse_block_size("auto", source)))


def stream(console: Console, folder: str, quick: bool) -> None:
    n = (1 if quick else 8) << 20
    raw = stored(folder, n)
    X = zarr.open_array(f"{folder}/x.zarr")[:]
    chunk = (4 << 20) // (8 * D)
    rounded = np.round(X, 3)  # as instruments give them: normal rows to the last bit do not pack
    zarr.create_array(f"{folder}/z.zarr", data=rounded, chunks=(chunk, D))
    sources = {"memory": open_source(X), "raw": raw, "zstd": open_source(f"{folder}/z.zarr")}
    mixture = model(raw)
    for threads in sorted({1, CPU_COUNT}):
        times: dict[tuple[str, str], list[float]] = {}
        busy: dict[tuple[str, str], list[float]] = {}
        with ExitStack() as stack:
            calls = {}
            for name, source in sources.items():
                blocks = blocks_of(source)
                keep = kept_bytes(source, blocks)
                executor = stack.enter_context(open_executor(blocks, n_threads=threads, keep=keep))
                calls[name, "pass"] = partial(executor.run, read, mixture, afresh=True)
                if name != "memory":
                    calls[name, "read"] = partial(executor.run, only_read, None, afresh=True)
                    calls[name, "kept"] = partial(executor.run, read, mixture)
            for _ in range(4 if quick else 9):
                for key, call in calls.items():
                    took: list[float] = []
                    worked = seconds(lambda c=call, t=took: t.append(seconds(c)), process_time)
                    times.setdefault(key, []).append(took[0])
                    busy.setdefault(key, []).append(worked)
        cost = {key: median(values[1:]) for key, values in busy.items()}
        at = {key: values[1:] for key, values in times.items()}

        def ratio(name: str, what: str = "pass", at: Any = at) -> float:
            rounds = zip(at[name, what], at["memory", "pass"], strict=True)
            return median(a / b for a, b in rounds)

        def over(join: Callable[[float, float], float], what: str = "pass", at: Any = at) -> float:
            rounds = zip(at["zstd", what], at["zstd", "read"], at["memory", "pass"], strict=True)
            return median(whole / join(read, compute) for whole, read, compute in rounds)

        def both(a: float, b: float, n: int = threads) -> float:
            return max(a, b, (a + b) * n / CPU_COUNT)

        shown = ", ".join(f"{' '.join(k)} {median(v):.3f} s" for k, v in at.items())
        console.print(f"{threads} threads of {CPU_COUNT} processors, {n:,} rows: {shown}")
        less = cost["raw", "pass"] / cost["memory", "pass"]
        console.print(
            f"  read: uncompressed / in memory: {ratio('raw'):.3f} (target 1.10); "
            f"{less:.3f} in processor time"
        )
        console.print(
            f"  compressed / max(decode, compute): {over(max):.3f} (target 1.05); "
            f"/ (decode + compute on {CPU_COUNT} processors): "
            f"{over(both):.3f}"
        )
        console.print(
            f"  kept: uncompressed / in memory: {ratio('raw', 'kept'):.3f} (target 1.10); "
            f"compressed / max(decode, compute): {over(max, 'kept'):.3f} (target 1.05)"
        )


def dask(console: Console, folder: str, quick: bool) -> None:
    n_blocks = 1000
    source = open_source(
        zarr.create_array(f"{folder}/many.zarr", shape=(n_blocks, D), chunks=(1, D), dtype="f8")
    )
    blocks = list(source.blocks(8 * D))
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1 << (17 if quick else 20), D))
    mixture = model(open_source(X))
    statistics = e_step(mixture, X[:1000])
    with one_blas_thread():
        e_step(mixture, X[:1000])
        compute = median(seconds(lambda: e_step(mixture, X)) for _ in range(3)) * 2**20 / len(X)
    with workers(2, blocks) as executor:
        empty = [
            seconds(lambda: executor.run(nothing, (mixture, statistics)))
            for _ in range(3 if quick else 6)
        ][1:]
    whole = n_blocks * compute / 2
    share = median(empty) / (whole + median(empty))
    console.print(
        f"1,000 blocks that read nothing, on 2 workers: {median(empty):.2f} s, "
        f"{median(empty):.1f} ms a block"
    )
    console.print(
        f"computing 1,000 blocks of 128 MiB takes them {whole:.0f} s: "
        f"scheduling, merging and sending are {share:.1%} of a pass (target 3%)"
    )


def resident() -> float:
    """MiB that this process holds."""
    import psutil

    gc.collect()
    return float(psutil.Process().memory_info().rss / MIB)


def growth(console: Console, folder: str, quick: bool, passes: int, log_length: int) -> None:
    """Scheduler and client have processes of their own, so that each is seen alone."""
    os.environ["DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH"] = str(log_length)
    from distributed import Client

    from tests.daemons import dask_cluster

    n = (1 if quick else 2) << 20
    source = stored(folder, n)
    blocks = blocks_of(source)
    mixture = model(source)
    with dask_cluster(Path(folder), {}, n_workers=2) as address, Client(address) as client:
        client.wait_for_workers(2, timeout=60)
        early: dict[str, float] = {}
        with open_executor(blocks, client=client) as executor:
            for i in range(1, passes + 1):
                executor.run(read, mixture, on_block=lambda _: None)
                if i in (5, passes):
                    held = {"client": resident(), "scheduler": client.run_on_scheduler(resident)}
                    values = client.run(resident).values()
                    held |= {f"worker {j}": v for j, v in enumerate(values)}
                    early = early or held
        for name, late in held.items():
            more = late / early[name] - 1
            console.print(
                f"{name:10} {early[name]:.0f} MiB after pass 5, {late:.0f} after pass {passes}: "
                f"{more:+.1%} (target 5%)"
            )


def highest() -> float:
    """MiB that this process has held at the most."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def one_peak(path: str) -> None:
    """Fit in fresh processes; print the highest memory of each as JSON."""
    from distributed import Client, LocalCluster

    import streamgmm
    from streamgmm.planning.plan import plan

    source = open_source(path)
    planned = plan(source, K, workers=2, worker_memory="1GiB")
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", memory_limit="1GiB"
        ) as cluster,
        Client(cluster) as client,
    ):
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            streamgmm.GaussianMixture(K, random_state=0, max_iter=2).fit(path)
        workers = max(client.run(highest).values())
    print(
        json.dumps({"workers": workers, "client": highest(), "planned": planned.worker_peak / MIB})
    )


def peak(console: Console, folder: str, quick: bool) -> None:
    sizes = (128, 512) if quick else (1024, 4096)
    found = {}
    for mib in sizes:
        where = f"{folder}/{mib}"
        stored(where, mib * MIB // (8 * D))
        command = [sys.executable, "-m", "benchmarks.pass_overhead", "--one-peak"]
        done = subprocess.run(
            [*command, f"{where}/x.zarr"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        found[mib] = json.loads(done.stdout.splitlines()[-1])
        console.print(
            f"fit of {mib:,} MiB: workers {found[mib]['workers']:.0f} MiB at the most "
            f"(planned {found[mib]['planned']:.0f}), client {found[mib]['client']:.0f}"
        )
    small, large = (found[mib]["workers"] for mib in sizes)
    console.print(f"four times the rows: {large / small - 1:+.1%} (target within 10%)")


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="An eighth of the rows.")
@click.option("--only", type=click.Choice(["stream", "dask", "growth", "peak"]))
@click.option("--passes", default=100, show_default=True, help="Of growth.")
@click.option("--log-length", default=1000, show_default=True, help="Of growth.")
@click.option("--one-peak", hidden=True)
def main(
    quick: bool, only: str | None, passes: int, log_length: int, one_peak: str | None
) -> None:
    if one_peak:
        globals()["one_peak"](one_peak)
        return
    console = Console(width=130)
    grow = partial(growth, passes=passes, log_length=log_length)
    parts = {"stream": stream, "dask": dask, "growth": grow}
    for name, part in {**parts, "peak": peak}.items():
        if only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                part(console, folder, quick)


if __name__ == "__main__":
    main()
