"""Where the climb on the full data starts: the person's own, or the best on a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import SingularCovarianceError
from streamgmm.fitting.ascent import Ascent, Rules
from streamgmm.fitting.initial import initial_mixture
from streamgmm.fitting.reading import Reader, climb, deal
from streamgmm.fitting.sample import ROWS_PER_PARAMETER, Summary
from streamgmm.fitting.settings import FitSettings
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats
from streamgmm.passes import default_threads, one_blas_thread, open_executor
from streamgmm.sources import open_source, parse_block_size

N_STARTS = 24


def starting_mixtures(
    summary: Summary,
    settings: FitSettings,
    random_state: np.random.RandomState,
    partial: bool,
    n_threads: int | None,
) -> list[Mixture]:
    """Where to start on the full data.

    Where the sample is the whole data, or the person gave a start, the `n_init` starts
    themselves. Otherwise more starts than asked for climb on the sample, in memory, half of
    them leaving at a time, and the best two go on.
    """
    X, weight = summary.reservoir
    given = settings.weights_init, settings.means_init, settings.precisions_init

    def draw(how: str = settings.init_params) -> Mixture:
        return initial_mixture(
            X,
            weight,
            settings.covariance_type,
            settings.n_components,
            how,
            settings.reg_covar,
            random_state,
            weights_init=settings.weights_init,
            means_init=settings.means_init,
            precisions_init=settings.precisions_init,
        )

    with one_blas_thread():
        if all(value is not None for value in given):
            return [draw()]
        if not partial or any(value is not None for value in given):
            return [draw() for _ in range(settings.n_init)]
        starts = draw_starts(draw, max(N_STARTS, settings.n_init), settings.init_params)
    return halve(X, weight, starts, settings.reg_covar, n_threads, keep=2)


def draw_starts(draw: Callable[[str], Mixture], n: int, init_params: str) -> list[Mixture]:
    """Starts that are worth comparing: every third one from the rows nearest to random rows.

    k-means finds much the same clusters each time, and where they overlap those may be the
    wrong ones. A random row may have too few neighbours for a covariance; there is then one
    start less.
    """
    starts = []
    for i in range(n):
        try:
            starts.append(draw("nearest" if i % 3 == 2 else init_params))
        except SingularCovarianceError:
            if i % 3 != 2:
                raise
    return starts


def halve(
    X: NDArray[Any],
    weight: Floats,
    starts: Sequence[Mixture],
    reg_covar: float,
    n_threads: int | None,
    *,
    keep: int,
) -> list[Mixture]:
    """Successive halving of starts on rows in memory; the best `keep`, climbed to the top there.

    Candidates are compared by the log-likelihood that Aitken's extrapolation expects of them,
    since climbs cross; on 50 rows a parameter, which is enough to tell them apart. Those that are
    kept climb on all rows.
    """
    rules = Rules(1e-6, 500, reg_covar, accelerate=True, statistical=True)
    every = max(1, len(X) // (ROWS_PER_PARAMETER * max(m.n_parameters for m in starts)))
    few = np.ascontiguousarray(X[::every])
    with _reading(few, weight[::every], n_threads) as reader:
        ascents = [Ascent(mixture, rules) for mixture in starts]
        iterations = 8
        while len(ascents) > keep:
            climb(ascents, reader, max_iter=iterations)
            ascents = [a for a in ascents if not a.failed]
            ascents.sort(key=lambda a: -a.predicted)
            ascents = ascents[: max(keep, len(ascents) // 2)]
            iterations *= 2
        if every == 1:
            climb(ascents, reader)
            return [a.mixture for a in ascents if not a.failed]
    ascents = [Ascent(a.mixture, rules) for a in ascents]
    with _reading(X, weight, n_threads) as reader:
        climb(ascents, reader)
    return [a.mixture for a in ascents if not a.failed]


@contextmanager
def _reading(X: NDArray[Any], weight: Floats, n_threads: int | None) -> Iterator[Reader]:
    """A reader of rows in memory that tells nobody."""
    sample = open_source(X, sample_weight=weight, name="the sample of the data")
    blocks = sample.blocks(parse_block_size("auto", sample))
    with open_executor(blocks, n_threads=n_threads or default_threads()) as executor:
        reader = Reader(executor, blocks, sample.name, deal(len(blocks), 1))
        reader.quiet = True
        yield reader
