"""The warm-up: rows are buffered, then fitted in parts."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError, StreamGMMWarning
from streamgmm.model.mixture import Mixture, Statistics
from streamgmm.model.moments import Floats
from streamgmm.model.rehearsal import rehearse, some_rows
from streamgmm.online import blending
from streamgmm.online.settings import OnlineSettings
from streamgmm.online.starting import apart_of, fit_settings
from streamgmm.online.state import OnlineState, check_size
from streamgmm.online.stepwise import from_moments, step
from streamgmm.online.warmup import WarmUp

Pieces = tuple[tuple[NDArray[Any], Floats], ...]
MOST_PIECES = 64  # that are kept apart before they are copied into one


@dataclass(frozen=True, eq=False)
class Gathered:
    """Rows of a warm-up: `n_rows` so far, of total weight `mass`.

    `pieces` is the buffer: float64 rows of positive weight, and their weights. Once there are
    enough of them they move to `fit`, and the buffer is empty.
    """

    n_features: int
    n_rows: int = 0
    mass: float = 0.0
    pieces: Pieces = ()
    fit: WarmUp | None = None

    @property
    def n_kept(self) -> int:
        """Rows of positive weight."""
        return len(self.fit.rows) if self.fit else sum(len(rows) for rows, _ in self.pieces)

    @property
    def rows(self) -> list[NDArray[Any]]:
        """Rows of positive weight, in the order in which they came."""
        return [self.fit.rows] if self.fit is not None else [rows for rows, _ in self.pieces]

    def joined(self) -> tuple[NDArray[Any], Floats | None]:
        """All rows and weights in one piece; None where every row weighs 1."""
        if self.fit is not None:
            return self.fit.rows, self.fit.weight
        if not self.pieces:
            return np.empty((0, self.n_features)), None
        rows, weight = (np.concatenate(parts) for parts in zip(*self.pieces, strict=True))
        return rows, None if np.all(weight == 1.0) else weight


def gather(
    settings: OnlineSettings, gathered: Gathered, X: NDArray[Any], weight: Floats
) -> tuple[Gathered, int]:
    """Buffer as many of the first rows of X as the warm-up needs, and return how many these are.

    The fit begins with the last of them. Raises DataError if values are too large.
    """
    check_size(X)
    room = settings.warm_up - gathered.n_kept
    taken = len(X) if room > 0 else 0
    if len(weight):
        counts = np.cumsum(weight > 0)
        taken = min(taken, int(np.searchsorted(counts, room)) + 1)
    else:
        taken = min(taken, room)
    mine, part = X[:taken], weight[:taken]
    mass = float(part.sum()) if len(weight) else float(taken)
    if len(weight):
        mine, part = mine[part > 0], part[part > 0]
    gathered = replace(
        gathered,
        n_rows=gathered.n_rows + taken,
        mass=gathered.mass + mass,
        pieces=_added(gathered.pieces, mine, part),
    )
    if gathered.n_kept >= settings.warm_up:
        fit = WarmUp(settings, *gathered.joined())
        gathered = replace(gathered, pieces=(), fit=fit)
    return gathered, taken


def advance(
    settings: OnlineSettings, gathered: Gathered, quota: float, cut: bool = False
) -> tuple[Gathered | OnlineState, float]:
    """Continue the fit for a quota of work; with `cut`, end it at its best start so far.

    Returns the model once the fit is over, and the work that was spent.

    Raises
    ------
    DegenerateComponentError
        If no start leads to components that the rows determine.
    """
    old = gathered.fit
    assert old is not None
    if old.asked == fit_settings(settings):
        fit = WarmUp.restored(settings, old.rows, old.weight, old.state())
    else:
        fit = WarmUp(settings, old.rows, old.weight)
    if cut:
        fit.cut()
    statistics = fit.advance(quota)
    if statistics is None:
        return replace(gathered, fit=fit), fit.spent
    assert fit.chosen is not None
    return _model(settings, gathered, fit.chosen, statistics), fit.spent


def rehearse_steps(settings: OnlineSettings, n_features: int) -> None:
    """Compile what the fit of a warm-up needs, and the steps that follow it."""
    X = some_rows(np.dtype(np.float64), n_features)
    mixture, statistics = rehearse(settings.family, X.dtype, n_features)
    state = _model(settings, Gathered(X.shape[1], len(X), len(X)), mixture, statistics)
    step(settings, state, X, np.empty(0))


def mixture_so_far(settings: OnlineSettings, gathered: Gathered) -> Mixture:
    """The best start so far; before the fit has begun, a fit of the rows so far.

    Raises
    ------
    DataError
        If there are too few rows.
    DegenerateComponentError
    """
    if gathered.fit is not None:
        return gathered.fit.best()
    rows, weight = gathered.joined()
    least = max(2, settings.n_components)
    if len(rows) < least:
        raise DataError(
            f"{len(rows)} rows so far: a model of {settings.n_components} components needs at "
            f"least {least}; give more rows first"
        )
    fit = WarmUp(settings, rows, weight)
    statistics = fit.advance(np.inf)
    assert statistics is not None
    assert fit.chosen is not None
    _warn_empty(statistics)
    return fit.chosen


def _model(
    settings: OnlineSettings, gathered: Gathered, mixture: Mixture, statistics: Statistics
) -> OnlineState:
    """The state from which stepwise EM continues."""
    _warn_empty(statistics)
    n_rows, mass = gathered.n_rows, gathered.mass
    if not settings.compiled:
        return blending.begin(settings, n_rows, mass, mixture, statistics)
    level = statistics.log_likelihood / statistics.weight
    apart = apart_of(settings, mixture)
    return from_moments(settings, n_rows, mass, apart, statistics.components, level)


def _warn_empty(statistics: Statistics) -> None:
    """Warn of components without rows."""
    empty = np.flatnonzero(statistics.components.weight <= 0)
    if len(empty):
        warnings.warn(
            f"components {', '.join(map(str, empty))} have no rows of the warm-up; they are kept "
            "with weight 0: fit fewer components",
            StreamGMMWarning,
            stacklevel=6,
        )


def _added(pieces: Pieces, X: NDArray[Any], weight: Floats) -> Pieces:
    """The buffer with a copy of more rows at its end; many small pieces are joined to one."""
    if len(X) == 0:
        return pieces
    rows = np.array(X, dtype=np.float64)
    piece = (rows, np.array(weight) if len(weight) else np.ones(len(rows)))
    if len(pieces) < MOST_PIECES:
        return (*pieces, piece)
    return (tuple(np.concatenate(parts) for parts in zip(*pieces, piece, strict=True)),)  # type: ignore[return-value]
