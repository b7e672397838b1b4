"""EM half-step by half-step: the free energy, the log-likelihood, and what lies between them.

log p(x) = F(q, θ) + KL(q ‖ p(z | x, θ))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.fitting.acceleration import merge_groups
from streamgmm.fitting.ascent import Ascent
from streamgmm.fitting.fit import group_count
from streamgmm.fitting.reading import Reader, deal
from streamgmm.fitting.rules import Request, Rules
from streamgmm.model.mixture import Mixture, free_energy
from streamgmm.passes import one_blas_thread, open_executor
from streamgmm.sources import Source, kept_bytes, parse_block_size


def trace(
    source: Source,
    mixture: Mixture,
    n_iter: int,
    *,
    hard: bool = False,
    incremental: bool = False,
    block_size: int | str = "auto",
    n_threads: int | None = None,
    client: Any = None,
) -> dict[str, NDArray[Any]]:
    """Make `n_iter` iterations of EM from a mixture, and note F and log p at every half-step.

    F is computed from the statistics of q alone, the log-likelihood by a read of all rows under
    the parameters of that half-step. Where q is exact and all rows are read at once, the read of
    the E-step tells it; elsewhere there is one more read for each M-step.

    Parameters
    ----------
    source : Source
    mixture : Mixture
        Where to start.
    n_iter : int
        Iterations; of incremental EM, sweeps over all groups of blocks.
    hard : bool
        Whether q gives each row to its likeliest component alone.
    incremental : bool
        Whether q is renewed for one group of blocks at a time, as a fit would deal them.
    block_size, n_threads, client
        As for a fit.

    Returns
    -------
    dict of str to ndarray
        See `streamgmm.trace_bound`.
    """
    blocks = source.blocks(parse_block_size(block_size, source))
    n_groups = group_count(len(blocks)) if incremental else 1
    ascent = Ascent(mixture, Rules(-np.inf, n_iter, n_groups, hard=hard))
    notes = _Notes()
    keep = kept_bytes(source, blocks)
    with open_executor(blocks, n_threads=n_threads, client=client, keep=keep) as executor:
        reader = Reader(executor, blocks, source.name, deal(len(blocks), n_groups))
        reader.quiet = True

        def likelihood(of: Mixture) -> float:
            return reader.read([Request(of, None)])[0].log_likelihood

        while (request := ascent.request) is not None:
            before = ascent.mixture
            (statistics,) = reader.read([request], request.group)
            with one_blas_thread():
                ascent.advance(statistics, reader.share(request.group))
            if ascent.centres is not None or len(ascent.groups) < n_groups:
                continue  # the same read again, about other points; or groups that are not known
            total = merge_groups(ascent.groups)
            exact = not hard and n_groups == 1
            here = statistics.log_likelihood if exact else notes.latest or likelihood(before)
            notes.add("E", free_energy(before, total), here)
            after = np.nan if exact else likelihood(ascent.mixture)
            notes.add("M", free_energy(ascent.mixture, total), after)
        if notes.rows and np.isnan(notes.rows[-1][2]):
            notes.know(likelihood(ascent.mixture))
    return notes.table()


class _Notes:
    """Half-steps so far: which, F, and the log-likelihood, NaN where it is not known yet."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float, float]] = []

    @property
    def latest(self) -> float | None:
        """The log-likelihood at the latest parameters; None before there are any."""
        return self.rows[-1][2] if self.rows else None

    def add(self, half_step: str, energy: float, log_likelihood: float) -> None:
        """Note a half-step. An E-step tells the log-likelihood after the M-step before it."""
        if half_step == "E" and self.rows:
            self.know(log_likelihood)
        self.rows.append((half_step, energy, log_likelihood))

    def know(self, log_likelihood: float) -> None:
        """Note the log-likelihood at the parameters of the latest half-step."""
        self.rows[-1] = (*self.rows[-1][:2], log_likelihood)

    def table(self) -> dict[str, NDArray[Any]]:
        """The columns."""
        columns: Sequence[Any] = list(zip(*self.rows, strict=True)) or [(), (), ()]
        half_step = np.array(columns[0], dtype="<U1")
        energy, log_likelihood = (np.array(values, np.float64) for values in columns[1:])
        return {
            "half_step": half_step,
            "free_energy": energy,
            "log_likelihood": log_likelihood,
            "kl": log_likelihood - energy,
        }
