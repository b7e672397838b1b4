"""Measure the parts of a pass on this machine: reading, decoding, computing, merging."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

import numpy as np

from streamgmm.model.components import Family
from streamgmm.model.mixture import EStep, Mixture, Statistics
from streamgmm.passes import one_blas_thread
from streamgmm.planning.simulate import Rates
from streamgmm.sources import PIECE_BYTES, Block, Piece, Source, capable

_TRIAL_BYTES = 4 * PIECE_BYTES
_REPEATS = 3
_TRIAL_SECONDS = 0.25


def calibrate(
    source: Source,
    blocks: Any,
    n_components: int,
    family: Family,
    n_candidates: int = 1,
    n_threads: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Rates, int]:
    """Measure the time of reading, decoding, computing and merging on this machine.

    Parameters
    ----------
    source : Source
    blocks : sequence of Block
    n_components, family, n_candidates
        What is computed.
    n_threads : int, default=1
        Threads that do the same work at the same time, since workers on one machine share its
        memory bandwidth and caches.
    clock : callable, optional
        ``time.process_time`` with one thread gives processor time, which depends less on what
        else the machine does.

    Returns
    -------
    Rates
    stored_bytes : int
        Of the whole array, estimated from the chunks that were read; 0 where that is not known.
    """
    block = blocks[len(blocks) // 2]
    pieces = list(_trial(block))
    n_rows = sum(len(piece.rows) for piece in pieces)
    row_bytes = source.n_features * source.dtype.itemsize
    stored, fetch = _fetcher(block, pieces[0].start, n_rows)
    most = max(1, 2 * PIECE_BYTES // row_bytes)
    parts = [np.nan_to_num(piece.rows[:most]) for piece in pieces]
    X = parts[0]
    del pieces
    mixture = _any_mixture(X, n_components, family)
    statistics: list[Statistics] = []

    def read() -> None:
        for _ in _trial(block):
            pass

    def compute() -> None:
        step = EStep([(mixture, None)])
        for rows in parts:
            step.add(rows)
        statistics.extend(step.result())
        del statistics[2:]

    with ThreadPoolExecutor(max(1, n_threads)) as pool, one_blas_thread():
        compute()  # compiles
        whole = 0.0 if block.resident else _measure(read, pool, n_threads, clock) / n_rows
        bytes_alone = 0.0 if fetch is None else _measure(fetch, pool, n_threads, clock) / n_rows
        computing = _measure(compute, pool, n_threads, clock) / sum(map(len, parts))
        a, b = statistics[:2]
        merging = _measure(lambda: [a.merge(b) for _ in range(10)], pool, 1, clock) / 10
    reading = min(whole, bytes_alone) if fetch is not None else whole
    rates = Rates(
        read=reading,
        decode=whole - reading,
        compute=computing * n_candidates,
        merge=merging * n_candidates,
    )
    return rates, round(stored / n_rows * source.n_samples)


def _measure(
    work: Callable[[], object],
    pool: ThreadPoolExecutor,
    n_threads: int,
    clock: Callable[[], float],
) -> float:
    """Median of a few repeats, each on all threads at once, in seconds."""
    seconds: list[float] = []
    while len(seconds) < _REPEATS or (sum(seconds) < _TRIAL_SECONDS and len(seconds) < 100):
        begin = clock()
        for future in [pool.submit(work) for _ in range(n_threads)]:
            future.result()
        seconds.append(clock() - begin)
    return median(seconds)


def _trial(block: Block) -> Iterator[Piece]:
    n_bytes = 0
    for piece in block.pieces():
        yield piece
        n_bytes += piece.rows.nbytes
        if n_bytes >= _TRIAL_BYTES:
            return


def _fetcher(block: Block, start: int, n_rows: int) -> tuple[int, Callable[[], object] | None]:
    """Stored bytes of some rows, and what fetches them without decoding; (0, None) if unknown."""
    fetch = capable(block).fetch
    stored = int(fetch(start, start + n_rows))
    return (stored, lambda: fetch(start, start + n_rows)) if stored else (0, None)


def _any_mixture(X: Any, k: int, family: Family) -> Mixture:
    """Components of the spread of the rows: each of all rows, with a part of its own."""
    rng = np.random.default_rng(0)
    resp = rng.uniform(size=(len(X), k))
    if family.surveys:
        family = family.informed(family.survey(X))
    statistics = family.begin(X, None, resp / resp.sum(axis=1)[:, None], k)
    return Mixture(np.full(k, 1 / k), family.estimate(statistics))
