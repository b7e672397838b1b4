"""Adapting the number of components: retirement, merges and births, judged on held-out rows.

One row in sixteen is held out: it is scored but never learned from. A change is accepted only
if it raises the log-likelihood of held rows by more than what its parameters cost to estimate,
and for a birth by two standard errors of that gain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import StreamGMMError
from streamgmm.model.families.gaussian import GaussianDensity
from streamgmm.model.gaps.patterns import has_gaps
from streamgmm.model.mixture import Mixture, e_step
from streamgmm.model.moments import Floats, Moments
from streamgmm.online.settings import OnlineSettings
from streamgmm.online.state import OnlineState, RunningState, in_effect
from streamgmm.online.stepwise import from_moments, mixture_of

HOLD = 16  # one row in so many is held out
HELD = 2_048  # held-out rows that are kept, the latest
EVERY = 8_192  # rows from one search to the next
NEW_ROWS = 5.0  # a birth is proposed from at least so many times D + 1 rows
SHARE = 0.05  # of the rows held, those of lowest density, from which a birth is proposed
ROUNDS = 10  # EM steps that a birth is given to find its place


@dataclass(frozen=True)
class Change:
    """A change of the components: after which row, of what kind, of which, and its gain.

    Kinds are ``"retire"``, ``"merge"`` and ``"birth"``; `gain` is in nats a row, on held rows.
    """

    row: int
    kind: str
    components: tuple[int, ...]
    gain: float


@dataclass(frozen=True, eq=False)
class Adapter:
    """The rows held out, (n, D), the latest last, and the row of the next look."""

    held: Floats
    due: int


def open_adapter(d: int) -> Adapter:
    """An adapter without held-out rows."""
    return Adapter(np.empty((0, d)), EVERY)


def hold(adapter: Adapter, X: NDArray[Any], row: int) -> tuple[Adapter, NDArray[np.bool_]]:
    """Hold out rows of a batch whose first row is number `row`; returns which rows stay."""
    stay = (row + np.arange(len(X))) % HOLD != HOLD - 1
    held = np.concatenate([adapter.held, X[~stay]])[-HELD:]
    return replace(adapter, held=held), stay


def adapt(
    settings: OnlineSettings, state: OnlineState, adapter: Adapter, *, now: bool = False
) -> tuple[OnlineState, Adapter, list[Change]]:
    """Search for changes that pay, when a search is due or `now`, and apply them one by one."""
    if not (now or state.n_rows >= adapter.due):
        return state, adapter, []
    adapter = replace(adapter, due=state.n_rows + EVERY)
    changes: list[Change] = []
    if len(adapter.held) < HELD // 4:
        return state, adapter, changes
    propose, judge = adapter.held[::2].copy(), adapter.held[1::2].copy()
    for _ in range(len(state.running.weight) + 4):
        found = _retire(settings, state, judge) or _merge(settings, state, judge)
        found = found or _birth(settings, state, propose, judge)
        if found is None:
            break
        state, kind, components, gain = found
        changes.append(Change(state.n_rows, kind, components, gain))
    return state, adapter, changes


Found = tuple[OnlineState, str, tuple[int, ...], float]


def _parts(state: OnlineState) -> tuple[Floats, Floats, Floats]:
    running: RunningState = state.running
    parts: tuple[Floats, Floats, Floats] | None = state.average
    return parts or (running.weight, running.mean, running.scatter)


def _mixture(settings: OnlineSettings, moments: Moments) -> Mixture:
    """The mixture that statistics give; raises SingularCovarianceError."""
    return Mixture(moments.weight / moments.weight.sum(), settings.apart.estimate(moments))


def _rebuilt(settings: OnlineSettings, state: OnlineState, moments: Moments) -> OnlineState | None:
    """The state with other statistics; None if a component is singular."""
    try:
        mixture = _mixture(settings, moments)
        return from_moments(settings, state.n_rows, state.mass, mixture, moments, state.level)
    except StreamGMMError:
        return None


def _gain(settings: OnlineSettings, old: OnlineState, new: OnlineState, X: Floats) -> Floats:
    """The gain in log-density of each held-out row."""
    before, after = mixture_of(settings, old), mixture_of(settings, new)
    return np.asarray(after.posterior(X).log_density - before.posterior(X).log_density)


def _price(settings: OnlineSettings, state: OnlineState) -> float:
    """Nats a row that the parameters of a component cost to estimate, p / 2n."""
    family, d = settings.family, state.n_features
    p = family.n_parameters(2, d) - family.n_parameters(1, d)
    return p / (2.0 * in_effect(settings, state))


def _retire(settings: OnlineSettings, state: OnlineState, X: Floats) -> Found | None:
    """Remove a component of fewer rows than D + 2, unless held-out rows need it."""
    weight, mean, scatter = _parts(state)
    k = int(np.argmin(weight))
    if len(weight) < 2 or weight[k] * in_effect(settings, state) >= state.n_features + 2:
        return None
    rest = np.arange(len(weight)) != k
    kind = settings.apart.covariance.name
    new = _rebuilt(settings, state, Moments(kind, weight[rest], mean[rest], scatter[rest]))
    if new is None:
        return None
    gain = float(_gain(settings, state, new, X).mean())
    return (new, "retire", (k,), gain) if gain >= -_price(settings, state) else None


def _merge(settings: OnlineSettings, state: OnlineState, X: Floats) -> Found | None:
    """Merge the two components that cost least by Runnalls' bound (2007), if that pays."""
    weight, mean, scatter = _parts(state)
    n = len(weight)
    if n < 2:
        return None
    kind = settings.apart.covariance.name

    def log_det(part: Moments) -> float:
        covariance = part.scatter[0] / part.weight[0]
        if not settings.wide:
            return float(np.log(covariance + settings.reg_covar).sum())
        ridge = settings.reg_covar * np.eye(len(covariance))
        return float(np.linalg.slogdet(covariance + ridge)[1])

    one = [Moments(kind, weight[[k]], mean[[k]], scatter[[k]]) for k in range(n)]
    alone = [log_det(part) for part in one]
    best: tuple[float, int, int] | None = None
    for i in range(n):
        for j in range(i):
            both = one[j].merge(one[i])
            cost = 0.5 * float(
                both.weight[0] * log_det(both) - weight[i] * alone[i] - weight[j] * alone[j]
            )
            if best is None or cost < best[0]:
                best = (cost, j, i)
    assert best is not None
    _, j, i = best
    both = one[j].merge(one[i])
    rest = np.arange(n) != i
    parts = [weight.copy(), mean.copy(), scatter.copy()]
    for part, value in zip(parts, (both.weight, both.mean, both.scatter), strict=True):
        part[j] = value[0]
    new = _rebuilt(settings, state, Moments(kind, *(part[rest] for part in parts)))
    if new is None:
        return None
    gain = float(_gain(settings, state, new, X).mean())
    return (new, "merge", (j, i), gain) if gain >= -_price(settings, state) else None


def gaussian_density(mixture: Mixture) -> GaussianDensity:
    """The density of a mixture of Gaussians."""
    density = mixture.density
    assert isinstance(density, GaussianDensity)
    return density


def _birth(settings: OnlineSettings, state: OnlineState, rows: Floats, X: Floats) -> Found | None:
    """Add a component where held-out rows are least likely, if other held-out rows gain by it."""
    d = state.n_features
    mixture = mixture_of(settings, state)
    log_density = mixture.posterior(rows).log_density
    n_low = max(int(SHARE * len(rows)), int(NEW_ROWS * (d + 1)))
    if n_low * 2 > len(rows):
        return None
    low = rows[np.argsort(log_density, kind="stable")[:n_low]]
    if has_gaps(low):
        low = low.astype(np.float64)
        gaussian_density(mixture).fill(low)
    # The densest neighbourhood among them: outliers are low, but not together.
    apart = np.linalg.norm((low[:, None] - low[None]) / low.std(axis=0).clip(1e-300), axis=2)
    near = np.argsort(np.median(apart, axis=0), kind="stable")[0]
    group = low[np.argsort(apart[near], kind="stable")[: max(d + 2, n_low // 2)]]
    weight, mean, scatter = _parts(state)
    share = len(group) / len(rows)
    inner = settings.apart.covariance.name
    centre = group.mean(axis=0)
    shift = group - centre
    spread = shift.T @ shift if settings.wide else np.sum(shift**2, axis=0)
    added = Moments(inner, np.ones(1) * len(group), centre[None], spread[None])
    try:
        moments = _refined(settings, (weight, mean, scatter), added, share, rows)
    except StreamGMMError:
        return None
    new = _rebuilt(settings, state, moments)
    if new is None:
        return None
    gain = _gain(settings, state, new, X)
    error = float(gain.std() / np.sqrt(len(gain)))
    pays = float(gain.mean()) > max(2.0 * error, _price(settings, state))
    return (new, "birth", (len(weight),), float(gain.mean())) if pays else None


def _refined(
    settings: OnlineSettings,
    parts: tuple[Floats, Floats, Floats],
    added: Moments,
    share: float,
    rows: Floats,
) -> Moments:
    """Statistics with one component more, after a few EM steps of that component alone."""
    old = Moments(added.kind, *parts)
    added = added.scale(share / float(added.weight[0]))
    for _ in range(ROUNDS):
        old = old.scale((1.0 - float(added.weight[0])) / float(old.weight.sum()))
        every = Moments(
            added.kind,
            np.concatenate([old.weight, added.weight]),
            np.concatenate([old.mean, added.mean]),
            np.concatenate([old.scatter, added.scatter]),
        )
        new = e_step(_mixture(settings, every), rows).components
        k = len(new.weight) - 1
        if new.weight[k] < 2:
            break
        added = Moments(added.kind, new.weight[k:], new.mean[k:], new.scatter[k:])
        added = added.scale(1.0 / len(rows))
    return every
