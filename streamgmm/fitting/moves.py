"""Merges of components that lose little, and splits of components that gain much, on a sample.

EM moves components, but it never takes one from where there are too many to where there are too
few. So of many well-separated clusters some share a component, while others have two. A move
merges two components and gives the one that is free to half of a third one (Ueda et al. 2000,
"SMEM algorithm for mixture models"). Here many moves are made at a time, K stays what it was, and
those are taken back after which rows that took no part are less likely.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DegenerateComponentError
from streamgmm.fitting.dividing import divide, score
from streamgmm.fitting.initial import of_responsibilities
from streamgmm.model.components import NO_WEIGHT
from streamgmm.model.families import Gaussian
from streamgmm.model.mixture import EStep, Mixture, Statistics, m_step
from streamgmm.model.moments import Floats
from streamgmm.model.truncation.sets import Kept, Memory, Turn, set_dtype
from streamgmm.passes import default_threads
from streamgmm.passes.base import merge_all

CLIMBS = 3, 15  # on the sample, at least and at most, and in between as many as
_PASSES = 5  # over all rows cost the same
_STEPS = 6  # reads of the sample in a climb: EM, judging, and proposing moves
_ITERATIONS = 3  # of EM before the first round, and in each
_SHARE = 4  # of the components that may move at a time
_HELD = 8  # every so many rows take no part, and judge
_MARGIN = 2.0  # nats that a move must promise
_CUTS = 8  # of the rows, at most, which threads share; sums have the same bits on any number
_CUT_ROWS = 1 << 13


def improve(
    X: NDArray[Any],
    weight: Floats | None,
    labels: NDArray[np.intp],
    k: int,
    family: Gaussian,
    n_rows: int = 0,
) -> NDArray[np.intp]:
    """Give better labels (n,) of K clusters of rows X (n, D).

    Components are taken for diagonal ones, or spherical ones where the family's are. The labels
    are given back as they are where no move pays. The work is that of some
    passes over `n_rows` rows, of which these are a sample.
    """
    kind = "spherical" if family.covariance_type == "spherical" else "diag"
    family = Gaussian(kind, reg_covar=family.reg_covar, truncation=family.truncation)
    if weight is not None:
        weight = weight / weight.mean()
    judges = _judges(labels, k)
    with ThreadPoolExecutor(default_threads()) as pool, suppress(DegenerateComponentError):
        rows, held = (_of(X, weight, which, family, pool) for which in (~judges, judges))
        begun = rows.begin(labels[~judges], k)
        sets = rows.first_sets(begun, labels[~judges]), held.first_sets(begun, labels[judges])
        begin = _climb(rows, held, begun, *sets)
        most = int(np.clip(_PASSES * n_rows // (_STEPS * len(X)), *CLIMBS))
        best = _move(rows, held, begin, k, most)
        if best is not begin:
            better = np.empty_like(labels)
            better[~judges], better[judges] = best.sets[:, 0], best.held_sets[:, 0]
            return _without_empty(better, k)
    return labels


def _move(rows: _Rows, held: _Rows, begin: _Reached, k: int, most: int) -> _Reached:
    """Make rounds of moves, and give the best that was reached.

    Moves are judged beside a climb of as many iterations without them.
    """
    barred = _Barred(np.zeros(k, bool), set())
    best, climbs, moved = begin, 0, False
    while climbs < most:
        moves = _propose(rows, best, max(1, k // _SHARE), barred)
        if not len(moves.split):
            break
        still = _climb(rows, held, best.mixture, best.sets, best.held_sets)
        found = _try(rows, held, best, moves)
        climbs += 2
        if not _better(found.found - still.found):
            good = _gains(still, found, moves)
            barred.add(moves.take(~good), k)
            if good.any():
                moves = moves.take(good)
                found = _try(rows, held, best, moves)
                climbs += 1
        if _better(found.found - still.found):
            best, moved = found, True
        else:
            barred.add(moves, k)
            best = still
    return best if moved else begin


def _better(gains: Floats) -> bool:
    """Whether a sum is above zero by more than its standard error."""
    return bool(gains.sum() > np.sqrt((gains**2).sum()))


def _judges(labels: NDArray[np.intp], k: int) -> NDArray[np.bool_]:
    """Which rows take no part: one of eight of each cluster.

    >>> int(_judges(np.repeat([0, 1], [16, 7]), 2).sum())
    2
    """
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels, minlength=k)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    found = np.empty(len(labels), bool)
    found[order] = rank % _HELD == _HELD - 1
    return found


def _without_empty(labels: NDArray[np.intp], k: int) -> NDArray[np.intp]:
    """Labels in which clusters without rows have half of those of the largest clusters.

    >>> _without_empty(np.array([0, 0, 0, 2]), 3)
    array([1, 0, 1, 2])
    """
    labels = labels.copy()
    counts = np.bincount(labels, minlength=k)
    for empty in np.flatnonzero(counts == 0):
        rows = np.flatnonzero(labels == counts.argmax())[::2]
        counts[counts.argmax()] -= len(rows)
        labels[rows], counts[empty] = empty, len(rows)
    return labels


class _Reached(NamedTuple):
    """What a climb has reached: likeliest first in the sets, `found` in nats of held-out rows."""

    mixture: Mixture
    statistics: Statistics
    sets: NDArray[Any]
    held_sets: NDArray[Any]
    found: Floats


class _Moves(NamedTuple):
    """Components that are merged into `kept`, are `freed`, and take half of `split`.

    `side` (n,) are the rows that the halves would have.
    """

    kept: NDArray[np.intp]
    freed: NDArray[np.intp]
    split: NDArray[np.intp]
    side: NDArray[np.bool_]

    def take(self, which: NDArray[np.bool_]) -> _Moves:
        """Some of them."""
        return _Moves(self.kept[which], self.freed[which], self.split[which], self.side)


class _Barred(NamedTuple):
    """Splits (k,) and pairs a · k + b that were tried in vain."""

    splits: NDArray[np.bool_]
    pairs: set[int]

    def add(self, moves: _Moves, k: int) -> None:
        self.splits[moves.split] = True
        self.pairs.update((moves.kept * k + moves.freed).tolist())


class _Rows:
    """Rows in memory, for E-steps over sets that are given and returned."""

    def __init__(
        self, X: NDArray[Any], weight: Floats | None, family: Gaussian, pool: ThreadPoolExecutor
    ) -> None:
        self.X, self.weight, self.family, self._pool = X, weight, family, pool
        step = max(_CUT_ROWS, -(-len(X) // _CUTS))
        self._cuts = [(a, min(a + step, len(X))) for a in range(0, len(X), step)]
        self._read = 0

    @property
    def pooled(self) -> bool:
        """Whether all features have the same variance."""
        return self.family.covariance_type == "spherical"

    def begin(self, labels: NDArray[np.intp], k: int) -> Mixture:
        """The mixture of clusters."""
        return of_responsibilities(self.X, self.weight, self.family, labels, k)

    def first_sets(self, mixture: Mixture, labels: NDArray[np.intp]) -> NDArray[Any]:
        """Sets of a component and its neighbours, for each row."""
        mixture.prepare()
        search = mixture.density.search  # type: ignore[attr-defined]
        sets = np.full((len(labels), search.size), -1, np.int64)
        near = search.guide.graph[labels][:, : search.size - 1]
        sets[:, 0], sets[:, 1 : 1 + near.shape[1]] = labels, near
        return sets.astype(set_dtype(mixture.n_components))

    def e_step(self, mixture: Mixture, sets: NDArray[Any]) -> tuple[Statistics, NDArray[Any]]:
        """Statistics, and the sets that the step leaves."""
        mixture.prepare()
        k, tile = mixture.n_components, mixture.density.search.tile_rows  # type: ignore[attr-defined]
        self._read += 1
        turn, left = Turn(0, self._read), np.empty_like(sets)

        def run(cut: tuple[int, int]) -> Statistics:
            a, b = cut
            memory = Memory()
            runs = tuple((at, min(tile, b - at)) for at in range(a, b, tile))
            memory.leave(turn._replace(read=turn.read - 1), a, Kept(k, runs, sets[a:b]))
            step = EStep([(mixture, None)], False, memory, [turn])
            step.add(self.X[a:b], NO_WEIGHT if self.weight is None else self.weight[a:b], a)
            (found,) = step.result()
            kept = memory.take(turn, a)
            assert kept is not None
            left[a:b] = kept.ids
            return found

        return merge_all(list(self._pool.map(run, self._cuts))), left

    def log_density(self, mixture: Mixture, sets: NDArray[Any]) -> tuple[Floats, NDArray[Any]]:
        """Of each row (n,), times its weight, and the sets that were found for it."""
        mixture.prepare()
        search = mixture.density.search  # type: ignore[attr-defined]
        self._read += 1
        left, found = np.empty_like(sets), np.empty(len(self.X))

        def run(cut: tuple[int, int]) -> None:
            for a in range(*cut, search.tile_rows):
                at = slice(a, min(a + search.tile_rows, cut[1]))
                looked = search.look(self.X[at], known=sets[at], first=a, turn=self._read)
                left[at], found[at] = looked.ids, looked.log_density

        list(self._pool.map(run, self._cuts))
        return found if self.weight is None else found * self.weight, left


def _of(
    X: NDArray[Any],
    weight: Floats | None,
    which: NDArray[np.bool_],
    family: Gaussian,
    pool: ThreadPoolExecutor,
) -> _Rows:
    chosen = np.ascontiguousarray(X[which])
    return _Rows(chosen, None if weight is None else weight[which], family, pool)


def _climb(
    rows: _Rows, held: _Rows, mixture: Mixture, sets: NDArray[Any], held_sets: NDArray[Any]
) -> _Reached:
    """Some iterations, and the judgement of rows that took no part."""
    for _ in range(_ITERATIONS):
        statistics, sets = rows.e_step(mixture, sets)
        mixture = m_step(mixture, statistics)
    for _ in range(2):  # the first one finds the sets
        found, held_sets = held.log_density(mixture, held_sets)
    return _Reached(mixture, statistics, sets, held_sets, found)


def _propose(rows: _Rows, reached: _Reached, most: int, barred: _Barred) -> _Moves:
    """The moves that promise most: merges that lose least, with splits that gain most."""
    mixture, moments = reached.mixture, reached.statistics.components
    k, labels = mixture.n_components, reached.sets[:, 0].astype(np.intp)
    floor = rows.family.reg_covar
    gain, side = divide(rows.X, rows.weight, labels, k, floor, rows.pooled)
    low, high, loss = _losses(mixture, moments.weight, rows.pooled)
    gain[barred.splits] = -np.inf
    splits = np.argsort(-gain, kind="stable")
    used = np.zeros(k, bool)
    moves: list[tuple[int, int, int]] = []
    at = 0
    for pair in np.argsort(loss, kind="stable"):
        a, b = int(low[pair]), int(high[pair])
        if used[a] or used[b] or a * k + b in barred.pairs:
            continue
        while at < k and used[splits[at]]:
            at += 1
        if at == k or len(moves) == most:
            break
        split = int(splits[at])
        if not gain[split] > loss[pair] + _MARGIN:
            break
        if split in (a, b):
            continue
        used[[a, b, split]] = True
        moves.append((a, b, split))
    kept, freed, split_ = np.array(moves, np.intp).reshape(-1, 3).T
    return _Moves(kept, freed, split_, side)


def _losses(
    mixture: Mixture, weight: Floats, pooled: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Pairs of neighbours (a < b), and what merging them loses, in nats."""
    k, means = mixture.n_components, mixture.components.means  # type: ignore[attr-defined]
    variances = mixture.components.covariances  # type: ignore[attr-defined]
    variances = np.broadcast_to(variances.reshape(k, -1), means.shape)
    mixture.prepare()
    graph = mixture.density.search.guide.graph  # type: ignore[attr-defined]
    of = np.repeat(np.arange(k), graph.shape[1])
    near = graph.ravel().astype(np.intp)
    true = (near >= 0) & (near != of)
    of, near = of[true], near[true]
    pairs = np.unique(np.minimum(of, near) * k + np.maximum(of, near))
    a, b = pairs // k, pairs % k
    share = (weight[b] / np.maximum(weight[a] + weight[b], 1e-300))[:, None]
    both = (1 - share) * variances[a] + share * variances[b]
    both += share * (1 - share) * (means[a] - means[b]) ** 2
    if pooled:
        both = np.broadcast_to(both.mean(axis=1, keepdims=True), both.shape)
    alone = score(weight, variances)
    return a, b, alone[a] + alone[b] - score(weight[a] + weight[b], both)


def _try(rows: _Rows, held: _Rows, reached: _Reached, moves: _Moves) -> _Reached:
    """Make moves, and climb."""
    mixture = reached.mixture
    k, labels = mixture.n_components, reached.sets[:, 0].astype(np.intp)
    into, half = np.arange(k), np.full(k, -1)
    into[moves.freed] = moves.kept
    half[moves.split] = moves.freed
    moved = np.where((half[labels] >= 0) & moves.side, half[labels], into[labels])
    others = reached.held_sets[:, 0].astype(np.intp)
    others = np.where(half[others] >= 0, half[others], into[others])
    fresh = rows.begin(moved, k)
    changed = np.zeros(k, bool)
    changed[[*moves.kept, *moves.freed, *moves.split]] = True
    arrays = {
        name: np.where(changed.reshape(-1, *[1] * (was.ndim - 1)), new, was)
        for (name, was), new in zip(
            mixture.components.arrays().items(),
            fresh.components.arrays().values(),
            strict=True,
        )
    }
    weights = np.where(changed, fresh.weights, mixture.weights)
    begun = Mixture(weights / weights.sum(), mixture.family.components(**arrays))
    sets = _put_first(reached.sets, moved), _put_first(reached.held_sets, others)
    return _climb(rows, held, begun, *sets)


def _gains(before: _Reached, after: _Reached, moves: _Moves) -> NDArray[np.bool_]:
    """Which moves are better for the held-out rows of their components."""
    of = np.full(before.mixture.n_components, len(moves.split))
    for components in (moves.kept, moves.freed, moves.split):
        of[components] = np.arange(len(moves.split))
    rows = of[before.held_sets[:, 0].astype(np.intp)]
    gains = after.found - before.found
    total, squares = (
        np.bincount(rows, values, len(moves.split) + 1)[:-1] for values in (gains, gains**2)
    )
    return np.asarray(total > np.sqrt(squares))


def _put_first(sets: NDArray[Any], labels: NDArray[np.intp]) -> NDArray[Any]:
    """Sets (n, C) that begin with labels (n,); the last of a set makes room.

    >>> _put_first(np.array([[4, 2, 7], [4, 2, 7]]), np.array([2, 5]))
    array([[2, 4, 7],
           [5, 4, 2]])
    """
    others = sets != labels[:, None].astype(sets.dtype)
    order = np.argsort(~others, axis=1, kind="stable")  # the label itself behind the others
    rest = np.take_along_axis(sets, order, axis=1)[:, :-1]
    return np.concatenate([labels[:, None].astype(sets.dtype), rest], axis=1)
