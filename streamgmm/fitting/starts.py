"""Where the climb on all rows starts: as scikit-learn's, or at the best start on a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.fitting.ascent import Ascent
from streamgmm.fitting.contest import Contest, Outcomes, Sample, Trial, attempt
from streamgmm.fitting.initial import initial_mixture
from streamgmm.fitting.reading import Reader, climb, deal
from streamgmm.fitting.rules import Rules
from streamgmm.fitting.settings import FitSettings
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats
from streamgmm.passes import default_threads, one_blas_thread, open_executor
from streamgmm.sources import open_source, parse_block_size


def own_starts(
    X: NDArray[Any],
    weight: Floats | None,
    settings: FitSettings,
    random_state: np.random.RandomState,
) -> list[Mixture]:
    """Starts as scikit-learn draws them from rows X (n, D), with what the person has given.

    Raises
    ------
    DegenerateComponentError
    """
    n = 1 if settings.all_given else settings.n_init
    with one_blas_thread():
        return [
            initial_mixture(
                X,
                weight,
                settings.family,
                settings.n_components,
                settings.init_params,
                random_state,
                weights_init=settings.weights_init,
                given=settings.given,
            )
            for _ in range(n)
        ]


def decide(
    contests: Sequence[Contest],
    sample: Sample,
    *,
    n_threads: int | None = None,
    client: Any = None,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Run contests to their ends, side by side; `after` is called after every round."""
    while True:
        trials: list[Trial] = []
        asked = [contest for contest in contests if not contest.why]
        if not asked:
            return
        for contest in asked:
            trials += contest.trials(len(trials))
        most = max(trial.n_rows for trial in trials)
        here = default_threads() if client is None else None
        with open_executor(trials, n_threads=n_threads or here, client=client) as executor:
            found: Outcomes = executor.run(attempt, Sample(*sample.first(most)))
        at = 0
        for contest in asked:
            n = len(contest.standings)
            contest.tell(found.each[at : at + n])
            at += n
        after()


def climb_sample(
    mixture: Mixture,
    sample: Sample,
    settings: FitSettings,
    *,
    n_threads: int | None = None,
    client: Any = None,
) -> Mixture:
    """Take the best start to the top on all rows of the sample.

    The likelihood of the best model of m rows lies about p/2m nats a row short of that of all,
    which reads of all rows have to make good.

    Raises
    ------
    DegenerateComponentError
    """
    hard = settings.assignment == "hard"
    rules = Rules(1e-6, 500, accelerate=not hard, statistical=True, hard=hard)
    ascent = Ascent(mixture, rules)
    with _reading(sample, n_threads, client) as reader:
        climb([ascent], reader)
    if ascent.failed:
        raise settings.family.degenerate(ascent.failure)
    return ascent.mixture


@contextmanager
def _reading(sample: Sample, n_threads: int | None, client: Any) -> Iterator[Reader]:
    """A reader of the sample that tells nobody."""
    source = open_source(sample.rows, sample_weight=sample.weight, name="the sample of the data")
    blocks = source.blocks(parse_block_size("auto", source))
    here = default_threads() if client is None else None
    with open_executor(blocks, n_threads=n_threads or here, client=client) as executor:
        reader = Reader(executor, blocks, source.name, deal(len(blocks), 1))
        reader.quiet = True
        yield reader


def champion(contest: Contest) -> Mixture:
    """The start that a contest has found.

    Raises
    ------
    DegenerateComponentError
        If every start had a component that its rows do not determine.
    """
    best = contest.best
    assert best is not None
    if best.mixture is None:
        raise contest.settings.family.degenerate(best.error)
    return best.mixture
