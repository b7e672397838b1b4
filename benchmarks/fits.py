"""Fits of ours, of scikit-learn and of oneDAL, for `benchmarks.time_to_model`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import click
import numpy as np
from numba.core import event
from sklearn.mixture import GaussianMixture as Reference

from benchmarks.kernels import Theirs, Workload, timed
from benchmarks.peers import Fitted
from benchmarks.remote import Failure, Remote
from streamgmm import GaussianMixture
from streamgmm.model.mixture import Mixture


def tell(words: str, *, end: bool = True) -> None:
    """Say what is going on."""
    click.echo(words, err=True, nl=end)


@contextmanager
def step(name: str) -> Iterator[list[str]]:
    """Tell what begins, and when it has ended what is in the list."""
    tell(f"{name} ... ", end=False)
    words: list[str] = []
    yield words
    tell(", ".join(words))


@dataclass
class Turn:
    """A fit: its time, its model, and the log-likelihood of rows held out (nats a row)."""

    seed: int
    seconds: float
    model: Fitted
    held_out: float

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        model = {name: getattr(self.model, name) for name in ("n_iter", "converged", "timings")}
        own = {name: value for name, value in vars(self).items() if name != "model"}
        return own | model


@dataclass
class Contender:
    """A way to fit, its turns so far, and why there are no more."""

    name: str
    fit: Callable[[int], Fitted | Failure]
    turns: list[Turn] = field(default_factory=list)
    failure: str = ""

    @property
    def seconds(self) -> float:
        """The median."""
        return median(turn.seconds for turn in self.turns)

    @property
    def spent(self) -> float:
        """Seconds of all turns."""
        return sum(turn.seconds for turn in self.turns)

    def cell(self) -> str:
        """Seconds, and in brackets the log-likelihood of rows held out."""
        if self.failure or not self.turns:
            return self.failure or "-"
        held_out = median(turn.held_out for turn in self.turns)
        return f"{spell(self.seconds)} ({held_out:.4f})"


def spell(seconds: float) -> str:
    """Three digits or so."""
    return f"{seconds:.{4 if seconds < 0.1 else 3 if seconds < 1 else 2 if seconds < 10 else 1}f}"


def fit_ours(w: Workload, X: np.ndarray, seed: int, **settings: Any) -> Fitted:
    model = GaussianMixture(w.k, covariance_type=w.kind, random_state=seed, **settings).fit(X)
    return parameters(model)


def fit_theirs(w: Workload, X: np.ndarray, n_init: int, seed: int) -> Fitted:
    model = Reference(w.k, covariance_type=w.kind, n_init=n_init, random_state=seed).fit(X)
    return parameters(model)


def fit_remotely(remote: Remote, trials: int, seed: int) -> Fitted | Failure:
    answer: Fitted | Failure = remote.ask(seed, trials)
    return answer


def parameters(model: GaussianMixture | Reference) -> Fitted:
    """What was fitted; ours may also say where its time went."""
    return Fitted(
        model.weights_,
        model.means_,
        model.covariances_,
        model.n_iter_,
        model.converged_,
        getattr(model, "timings_", None),
    )


def judge(kind: str, model: Fitted, X: np.ndarray) -> float:
    """Mean log-likelihood of a row as scikit-learn computes it, in float64."""
    wide = (np.asarray(p, np.float64) for p in (model.weights, model.means, model.covariances))
    X = X.astype(np.float64, copy=False)
    return float(Theirs(Mixture.of(kind, *wide), X).model.score(X))


def fit_once(contender: Contender, seed: int) -> tuple[float, Fitted | Failure]:
    """Seconds, and the model. A fit in which Numba had to compile is done again, once."""
    for _ in range(2):
        with event.install_recorder("numba:compile") as compiled:
            seconds, model = timed(lambda: contender.fit(seed))
        if not compiled.buffer:
            break
        tell(f"{spell(seconds)} s with compiling ... ", end=False)
    return seconds, model


def take_turn(w: Workload, contender: Contender, seed: int, held_out: np.ndarray) -> None:
    """Fit and judge; where that fails, keep why."""
    with step(f"{w.name}: {contender.name}, random_state={seed}") as words:
        seconds, model = fit_once(contender, seed)
        words.append(f"{spell(seconds)} s")
        if isinstance(model, Failure):
            contender.failure = str(model)
            words.append(contender.failure)
            return
        turn = Turn(seed, seconds, model, judge(w.kind, model, held_out))
        contender.turns.append(turn)
        words.append(f"{model.n_iter} iterations" + ("" if model.converged else ", not converged"))
        words.append(f"{turn.held_out:.4f} nats a row held out")
