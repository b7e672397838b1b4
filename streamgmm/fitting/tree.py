"""Starts of thousands of components: clusters of few rows, and clusters of clusters."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.clustering import k_means
from streamgmm.fitting.initial import of_responsibilities
from streamgmm.fitting.moves import improve
from streamgmm.fitting.settings import FitSettings, truncated
from streamgmm.fitting.starts import own_starts
from streamgmm.model.families import Gaussian
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats
from streamgmm.passes import default_threads, one_blas_thread

LEAF = 8192  # clusters that are drawn together, whose cost grows with their square
_ITERATIONS = 12
_LOOKED_AT = 2048  # rows, about, by which starts are compared
_MISSED = 0.5  # of what a moved start gains, a search may miss


def tree_starts(
    X: NDArray[Any],
    weight: Floats | None,
    settings: FitSettings,
    random_state: np.random.RandomState,
    n_rows: int = 0,
) -> list[Mixture]:
    """Mixtures that start from a k-means of rows X (n, D); `n_init` of them.

    Moves make them better (see `fitting.moves`), at the work of some passes over the `n_rows`
    rows of which X is a sample.

    Drawn K at once, k-means++ and k-means cost K² D on so many rows a component. Beyond `LEAF`
    components some clusters are found first, and each is cut into as many as its share of the
    scatter asks for.

    Raises
    ------
    DegenerateComponentError
    """
    if settings.all_given or settings.init_params != "kmeans":
        return own_starts(X, weight, settings, random_state)
    if weight is not None:
        X, weight = X[weight > 0], weight[weight > 0]
    with one_blas_thread():
        return [_start(X, weight, settings, random_state, n_rows) for _ in range(settings.n_init)]


def _start(
    X: NDArray[Any],
    weight: Floats | None,
    settings: FitSettings,
    random_state: np.random.RandomState,
    n_rows: int,
) -> Mixture:
    """A mixture that starts from a k-means, or from what moves made of it, where that is found.

    Components that fit their rows well may lie so far apart that a search from nothing misses
    them. A climb that begins there would end lower.
    """
    k, family = settings.n_components, settings.family

    def begin(labels: NDArray[np.intp]) -> Mixture:
        return of_responsibilities(
            X, weight, family, labels, k, settings.weights_init, settings.given
        )

    labels = tree_labels(X, weight, k, random_state)
    start = begin(labels)
    if settings.any_given or not truncated(settings) or not isinstance(family, Gaussian):
        return start
    better = improve(X, weight, labels, k, family, n_rows)
    if better is labels:
        return start
    moved = begin(better)
    rows = np.ascontiguousarray(X[:: max(1, len(X) // _LOOKED_AT)])
    likely, missed = _looked(start, rows)
    likelier, more = _looked(moved, rows)
    return moved if more - missed <= _MISSED * (likelier - likely) else start


def _looked(mixture: Mixture, rows: NDArray[Any]) -> tuple[float, float]:
    """Log-likelihood a row, and what a search from nothing misses of it, in nats."""
    found = mixture.posterior(rows).log_density
    likely = mixture.exact.posterior(rows).log_density
    return float(likely.mean()), float((likely - found).mean())


def tree_labels(
    X: NDArray[Any], weight: Floats | None, k: int, random_state: np.random.RandomState
) -> NDArray[np.intp]:
    """Labels (n,) of K clusters of rows, none of them empty where rows differ enough.

    >>> X = np.repeat(np.arange(9.0), 5)[:, None]
    >>> len(np.unique(tree_labels(X, None, 9, np.random.RandomState(0))))
    9
    """
    threads = default_threads()
    n_first = -(-k // LEAF)
    first = k_means(X, n_first, random_state, weight, _ITERATIONS, n_threads=threads)
    order = np.argsort(first.labels, kind="stable")
    sizes = np.bincount(first.labels, minlength=len(first.centres))
    scatter = np.zeros(len(sizes))
    w = np.ones(len(X)) if weight is None else weight
    off = X - first.centres[first.labels]
    np.add.at(scatter, first.labels, w * np.einsum("nd,nd->n", off, off))
    mass = np.bincount(first.labels, weights=w, minlength=len(sizes)).astype(np.float64)
    labels, begun = np.empty(len(X), np.intp), 0
    for rows, n in zip(
        np.split(order, np.cumsum(sizes)[:-1]), _shares(k, mass, scatter, X.shape[1], sizes),
        strict=True,
    ):  # fmt: skip
        if not n:
            continue
        mine = None if weight is None else weight[rows]
        part = np.ascontiguousarray(X[rows])
        found = k_means(part, n, random_state, mine, _ITERATIONS, n_threads=threads)
        labels[rows] = begun + found.labels
        begun += n
    return labels


def _shares(
    k: int, mass: Floats, scatter: Floats, d: int, sizes: NDArray[np.intp]
) -> NDArray[np.intp]:
    """How many clusters each gets, of K: no more than it has rows.

    In proportion to mass^(2 / (D + 2)) scatter^(D / (D + 2)), as the best quantisation of a
    density has its centres (Zador 1982).
    """
    wanted = mass ** (2 / (d + 2)) * scatter ** (d / (d + 2)) + 1e-300
    given = np.minimum((sizes > 0).astype(np.intp), sizes)
    while given.sum() < k:
        room = given < sizes
        if not room.any():
            break
        left = k - given.sum()
        share = np.where(room, wanted, 0.0)
        more = np.minimum(np.floor(share / share.sum() * left).astype(np.intp), sizes - given)
        if not more.any():
            best = np.argsort(-share / (given + 1.0), kind="stable")[:left]
            more[best] = room[best]
        given += more
    return given
