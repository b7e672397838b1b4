"""What a climb asks for, the rules that it keeps, and what is known after each iteration."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from streamgmm.model.mixture import Mixture, Statistics
from streamgmm.model.moments import Floats
from streamgmm.model.truncation.moments import sampled_of
from streamgmm.model.truncation.sets import Turn


class Request(NamedTuple):
    """Statistics of one group of blocks (all, if None) under a mixture, about `centres`.

    With `hard`, each row counts for its likeliest component alone. `turn` says whose it is, and
    which.
    """

    mixture: Mixture
    group: int | None
    centres: Floats | None = None
    hard: bool = False
    turn: Turn = Turn(0, 0)


@dataclass(frozen=True)
class Rules:
    """How to climb.

    `tol` in nats a row: with one group and no acceleration EM stops, as in scikit-learn, when
    the mean log-likelihood changes by less; otherwise when the gain still to come, by Aitken's
    extrapolation, is less (and, where `statistical`, when it is less than a tenth of what the
    sample's own noise is worth, p/2N). Where candidates `race`, one stops when another has reached
    more than it is expected to. One that is `settled`, since it has come to the top on a sample of
    the rows, is judged by its first two gains already.

    Where assignments are `hard`, F takes the place of the log-likelihood, which may fall. With
    `judge`, EM stops when the last M-step moved the components by at most `tol`: it is called
    with those before, those after, and the statistics, and says how far that is.
    """

    tol: float
    max_iter: int
    n_groups: int = 1
    accelerate: bool = False
    statistical: bool = False
    race: bool = False
    settled: bool = False
    empty_components: str = "keep"
    hard: bool = False
    judge: Callable[[Any, Any, Any], float] | None = None


@dataclass
class Step:
    """What is known after one iteration (one read of the data): nats summed over rows.

    `passes` over the rows so far, and in `read` how often these were really read. Where
    components were retired or reseeded just before, F may be less than the one before. Where rows
    look at some components only, `kl_of_sets` is what that costs in the log-likelihood at the end
    of the iteration, as a sample of the rows estimates it, `kl_error` its standard error, and
    `agreement` the share of rows whose likeliest component they have found.
    """

    free_energy: float
    passes: float
    seconds: float = 0.0
    log_likelihood: float = float("nan")
    read: float = 0.0
    mended: bool = False
    kl_of_sets: float = 0.0
    kl_error: float = 0.0
    agreement: float = 1.0

    def looked_at(self, statistics: Statistics) -> None:
        """Take up the log-likelihood at the end of the iteration, from an E-step there."""
        self.kl_of_sets, self.kl_error, self.agreement = kl_of_sets(statistics)
        self.log_likelihood = statistics.log_likelihood + self.kl_of_sets


def kl_of_sets(statistics: Statistics) -> tuple[float, float, float]:
    """Nats that sets of components take from the log-likelihood, and the standard error.

    And the share of rows whose likeliest component is in their set. Estimated from the rows that
    were compared with all components; zero and one where all rows were.
    """
    n, weight, first, second, same = sampled_of(statistics.components)
    if not weight > 0:
        return 0.0, 0.0, 1.0
    mean = first / weight
    spread = max(second / weight - mean**2, 0.0)
    error = math.sqrt(spread / max(n - 1, 1))
    total = statistics.weight
    return float(mean * total), float(error * total), float(same / weight)
