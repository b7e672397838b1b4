"""Functions that the pass tests send to workers: a module, so that they pickle by name."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Self

import numpy as np

from streamgmm.sources import Block


@dataclass(frozen=True)
class Sum:
    """A float sum, whose last bits tell in which order it was made."""

    n_rows: int
    total: np.ndarray

    def merge(self, other: Self) -> Self:
        return type(self)(self.n_rows + other.n_rows, self.total * (1 + 1e-16) + other.total)


def weighted_sum(scale: float, block: Block) -> Sum:
    n, total = 0, np.zeros(())
    for piece in block.pieces():
        weight = 1.0 if piece.sample_weight is None else piece.sample_weight[:, None]
        n += len(piece.rows)
        total = total + scale * (np.sin(piece.rows.astype(float) * 1e3) * weight).sum(axis=0)
    return Sum(n, total)


def fail_at(row: int, block: Block) -> Sum:
    if block.start <= row < block.start + block.n_rows:
        raise ValueError(f"row {row} is bad")
    return weighted_sum(1.0, block)


def slow_sum(seconds: float, block: Block) -> Sum:
    time.sleep(seconds)
    return weighted_sum(1.0, block)


def die_once(flag: str, block: Block) -> Sum:
    """End the worker really, in the middle of a pass, the first time a late block is read."""
    time.sleep(0.05)
    if block.start > 2000:
        try:
            os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    return weighted_sum(1.0, block)


def die_always(row: int, block: Block) -> Sum:
    if block.start <= row < block.start + block.n_rows:
        os.kill(os.getpid(), signal.SIGKILL)
    return weighted_sum(1.0, block)


def blas_threads(_: None, block: Block) -> Sum:
    from threadpoolctl import threadpool_info

    counts = [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]
    return Sum(1, np.array(float(max(counts, default=1) > 1)))
