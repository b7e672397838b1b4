"""The first parameters, from rows in memory, drawn as scikit-learn draws them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.clustering import k_means, kmeans_plusplus, nearest
from streamgmm.model.components import Family, takes_gaps
from streamgmm.model.families import Gaussian
from streamgmm.model.gaps.patterns import has_gaps
from streamgmm.model.gaps.starting import filled
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats

_FULL = Gaussian(gaps=True)


def initial_mixture(
    X: NDArray[Any],
    weight: Floats | None,
    family: Family,
    n_components: int,
    init_params: str,
    random_state: np.random.RandomState,
    *,
    weights_init: Floats | None = None,
    given: Mapping[str, Floats] | None = None,
    kmeans_iter: int = 300,
) -> Mixture:
    """First parameters from rows X (n, D), drawn as scikit-learn draws them.

    The random numbers are those that ``sklearn.mixture.GaussianMixture`` would use on the same
    rows, so the same rows and random state give the same start. Rows of weight 0 are left out.
    ``"nearest"``, which scikit-learn has not, starts from the rows nearest to each of K rows.
    k-means ends after `kmeans_iter` iterations at the latest.

    Raises
    ------
    DegenerateComponentError
        If a component of the start is not determined by its rows.
    """
    given = given or {}
    weights = weights_init
    if weights is None or not set(family.initial) <= set(given) or not family.initial:
        if weight is not None and np.all(weight == weight[0]):
            weight = None
        if weight is not None:
            X, weight = X[weight > 0], weight[weight > 0]
        seen, k = _clustered(family, X), family.n_clusters(n_components)
        resp = _responsibilities(seen, weight, k, init_params, random_state, kmeans_iter)
        return of_responsibilities(X, weight, family, resp, n_components, weights, given)
    return Mixture(weights, family.start(None, given))


def _clustered(family: Family, X: NDArray[Any]) -> NDArray[Any]:
    """Rows as the clustering sees them, gaps filled by regression on what was observed."""
    seen = family.clustered(X)
    return filled(seen, _FULL) if takes_gaps(family) and has_gaps(seen) else seen


def of_responsibilities(
    X: NDArray[Any],
    weight: Floats | None,
    family: Family,
    resp: NDArray[Any],
    n_components: int,
    weights_init: Floats | None = None,
    given: Mapping[str, Floats] | None = None,
) -> Mixture:
    """The mixture of rows X (n, D) under responsibilities (n, K), or labels (n,).

    Raises
    ------
    DegenerateComponentError
    """
    statistics = family.begin(X, weight, resp, n_components)
    if weights_init is None:
        weights_init = statistics.weight / (len(X) if weight is None else weight.sum())
    return Mixture(weights_init, family.start(statistics, given or {}))


def _responsibilities(
    X: NDArray[Any],
    weight: Floats | None,
    k: int,
    how: str,
    random_state: np.random.RandomState,
    kmeans_iter: int,
) -> Floats | NDArray[np.intp]:
    """(n, K) responsibilities, or (n,) labels, -1 for rows that no component starts from."""
    n = len(X)
    if how == "kmeans":
        return k_means(X, k, random_state, weight, max_iter=kmeans_iter).labels.astype(np.intp)
    if how == "random":
        resp = np.asarray(random_state.uniform(size=(n, k)), dtype=X.dtype).astype(np.float64)
        return np.asarray(resp / resp.sum(axis=1)[:, None])
    if how in ("random_from_data", "nearest"):
        p = None if weight is None else weight / weight.sum()
        chosen = random_state.choice(n, size=k, replace=False, p=p)
        if how == "nearest":
            return nearest(X, X[chosen]).astype(np.intp)
    else:
        _, chosen = kmeans_plusplus(X, k, random_state, weight)
    labels = np.full(n, -1, np.intp)
    labels[chosen] = np.arange(k)
    return labels
