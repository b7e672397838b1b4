"""Starts of thousands of components: clusters of few rows, and clusters of clusters."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.clustering import k_means
from streamgmm.fitting.initial import of_responsibilities
from streamgmm.fitting.settings import FitSettings
from streamgmm.fitting.starts import own_starts
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats
from streamgmm.passes import default_threads, one_blas_thread

LEAF = 8192  # clusters that are drawn together, whose cost grows with their square
_ITERATIONS = 12


def tree_starts(
    X: NDArray[Any],
    weight: Floats | None,
    settings: FitSettings,
    random_state: np.random.RandomState,
) -> list[Mixture]:
    """Mixtures that start from a k-means of rows X (n, D); `n_init` of them.

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
        return [
            of_responsibilities(
                X,
                weight,
                settings.family,
                tree_labels(X, weight, settings.n_components, random_state),
                settings.n_components,
                settings.weights_init,
                settings.given,
            )
            for _ in range(settings.n_init)
        ]


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
