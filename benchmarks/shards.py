"""What a pass over sharded Zarr costs beside the same rows without shards, warm and cold.

    python -m benchmarks.shards [--gib 1] [--codec raw|zstd] [folder]

16 float64 features, 8 full components, a thread a processor; shards of 512 MiB, inner chunks of
8 and of 32 MiB, and chunks of the same sizes without shards. Medians over rounds in turns; warm
passes from the system's cache, cold ones after the files were dropped from it. Beside a cold pass:
the files read alone (`cat`), and the same pass over rows in memory.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import click
import numpy as np
import zarr
from dask.system import CPU_COUNT

from benchmarks.pass_overhead import MIB, blocks_of, only_read, seconds
from benchmarks.scaling import D, model, read
from streamgmm.passes import open_executor
from streamgmm.sources import open_source

K = 8
SHARD = 512 * MIB // (8 * D)


def files(path: Path) -> list[Path]:
    return [each for each in path.rglob("*") if each.is_file()]


def drop(path: Path) -> None:
    """Drop the files of an array from the system's cache."""
    for each in files(path):
        handle = os.open(each, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def cat(path: Path) -> None:
    """Read all files, one after the other."""
    buffer = bytearray(8 * MIB)
    for each in files(path):
        with each.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


@click.command(help=__doc__)
@click.option("--gib", default=1.0, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--codec", type=click.Choice(["raw", "zstd"]), default="raw", show_default=True)
@click.argument("folder", required=False)
def main(gib: float, rounds: int, codec: str, folder: str | None) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as where:
        n = int(gib * (1 << 30)) // (8 * D)
        X = np.random.default_rng(0).normal(size=(n, D))
        if codec == "zstd":
            X = X.round(3)
        paths: dict[str, Path] = {}
        for mib in (8, 32):
            for kind in ("chunks", "shards"):
                name = f"{kind} of {mib} MiB"
                paths[name] = Path(where) / f"{kind}-{mib}.zarr"
                zarr.create_array(
                    str(paths[name]), data=X, chunks=(mib * MIB // (8 * D), D),
                    shards=(SHARD, D) if kind == "shards" else None,
                    compressors=zarr.codecs.ZstdCodec(level=1) if codec == "zstd" else None,
                )  # fmt: skip
        mixture = model(open_source(X), K)
        calls: dict[str, Callable[[], object]] = {}
        executors = []
        for name, data in {"memory": X, **paths}.items():
            source = open_source(data)
            executor = open_executor(blocks_of(source), n_threads=CPU_COUNT)
            opened = executor.__enter__()
            executors.append(executor)
            calls[name] = lambda each=opened: each.run(read, mixture, afresh=True)
            calls[f"{name}, read only"] = lambda each=opened: each.run(
                only_read, None, afresh=True
            )
        took: dict[str, list[float]] = {}
        for call in calls.values():
            call()
        for _ in range(rounds):
            for name, call in calls.items():
                took.setdefault(f"{name}, warm", []).append(seconds(call))
            for name, path in paths.items():
                drop(path)
                took.setdefault(f"{name}, cold", []).append(seconds(calls[name]))
                drop(path)
                took.setdefault(f"{name}, files alone, cold", []).append(
                    seconds(lambda path=path: cat(path))
                )
        for executor in executors:
            executor.__exit__(None, None, None)
    for name, values in took.items():
        print(f"{name:42} {median(values):7.3f} s")
    for mib in (8, 32):
        for how in ("warm", "read only, warm", "cold"):
            pairs = zip(
                took[f"shards of {mib} MiB, {how}"], took[f"chunks of {mib} MiB, {how}"],
                strict=True,
            )  # fmt: skip
            ratio = median(a / b for a, b in pairs)
            print(f"{mib} MiB, {how}: sharded / unsharded {ratio:.3f} (target 1.05)")
        alone = zip(
            took[f"shards of {mib} MiB, cold"], took[f"shards of {mib} MiB, files alone, cold"],
            took["memory, warm"], strict=True,
        )  # fmt: skip
        ratio = median(whole / max(a, b) for whole, a, b in alone)
        print(f"{mib} MiB, cold: a pass / max(files alone, computing alone) {ratio:.3f}")


if __name__ == "__main__":
    main()
