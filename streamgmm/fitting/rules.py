"""What a climb asks for, the rules that it keeps, and what is known after each iteration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats


class Request(NamedTuple):
    """Statistics of one group of blocks (all, if None) under a mixture, about `centres`.

    With `hard`, each row counts for its likeliest component alone.
    """

    mixture: Mixture
    group: int | None
    centres: Floats | None = None
    hard: bool = False


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
    components were retired or reseeded just before, F may be less than the one before.
    """

    free_energy: float
    passes: float
    seconds: float = 0.0
    log_likelihood: float = float("nan")
    read: float = 0.0
    mended: bool = False
