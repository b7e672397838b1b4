"""K-means for several numbers of clusters, in shared reads."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError
from streamgmm.fitting.centres import job_of_centres, result_of_centres
from streamgmm.fitting.fit import FitResult
from streamgmm.fitting.reading import Progress
from streamgmm.fitting.session import open_session
from streamgmm.fitting.settings import FitSettings
from streamgmm.fitting.stability import Comparisons
from streamgmm.model.families.recall import Recall, recalling
from streamgmm.places import ZarrStore
from streamgmm.sources import Source


@dataclass(frozen=True, eq=False)
class Compared:
    """The result for each candidate, some sampled rows (m, D), the reads in all, and timings.

    `columns` say how far restarts agree: see `Comparisons.columns`.
    """

    results: list[FitResult]
    rows: NDArray[Any]
    passes: float
    timings: dict[str, Any]
    columns: dict[str, NDArray[Any]] = field(default_factory=dict)


def compare_centres(
    source: Source,
    candidates: Sequence[FitSettings],
    random_state: np.random.RandomState,
    n_rows: int,
    *,
    client: Any = None,
    n_threads: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    checkpoint: str | os.PathLike[str] | ZarrStore | None = None,
    restarts: bool = False,
) -> Compared:
    """K-means of all rows for each candidate of `settings_of_centres`; all share every read.

    `n_rows` is how many sampled rows come along. With `restarts` each start is taken to its end
    on all rows, and their labels are compared. What else there is, and what is raised, is as
    for `streamgmm.fitting.centres.fit_centres`.
    """
    began = time.perf_counter()
    most = max(each.n_components for each in candidates)
    if source.n_samples < most:
        raise DataError(f"n_samples={source.n_samples} should be >= n_clusters={most}.")
    job = job_of_centres(source, candidates, random_state, n_threads=n_threads, every=restarts)
    with (
        recalling(Recall()),
        open_session(
            job,
            random_state,
            began=began,
            client=client,
            n_threads=n_threads,
            on_progress=on_progress,
            checkpoint=checkpoint,
        ) as session,
    ):
        session.sample()
        rows = session.some_rows(n_rows)
        session.start()
        session.climb(session.run.ascents)
        ascents = iter(session.run.ascents)
        each = [[next(ascents) for _ in starts] for starts in session.run.starts]
        best = [max(starts, key=lambda ascent: ascent.free_energy) for starts in each]
        if not restarts:
            session.score([ascent.mixture for ascent in best])
            results = [result_of_centres(session, ascent, i) for i, ascent in enumerate(best)]
            return Compared(results, rows, session.passes, session.timings)
        every = [ascent for starts in each for ascent in starts]
        places = iter(range(len(every)))
        comparisons = Comparisons.of(
            [[next(places) for _ in starts] for starts in each],
            [("", c.n_components) for c in candidates],
        )
        session.score([ascent.mixture for ascent in every], comparisons.pairs)
        results = [result_of_centres(session, a, every.index(a)) for a in best]
        assert session.run.final is not None
        columns = comparisons.columns(
            session.run.final.tables, [c.n_components for c in candidates]
        )
        return Compared(results, rows, session.passes, session.timings, columns)
