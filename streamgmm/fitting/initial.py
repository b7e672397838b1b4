"""The first parameters, from rows in memory, drawn as scikit-learn draws them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.metrics import pairwise_distances_argmin

from streamgmm.model.families import FAMILIES
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats, Moments
from streamgmm.passes import one_openmp_thread

_TINY = 10 * np.finfo(np.float64).eps  # scikit-learn adds it to the weight of each component


def initial_mixture(
    X: NDArray[Any],
    weight: Floats | None,
    covariance_type: str,
    n_components: int,
    init_params: str,
    reg_covar: float,
    random_state: np.random.RandomState,
    *,
    weights_init: Floats | None = None,
    means_init: Floats | None = None,
    precisions_init: Floats | None = None,
    kmeans_iter: int = 300,
) -> Mixture:
    """First parameters from rows X (n, D), drawn as scikit-learn draws them.

    The random numbers are those that ``sklearn.mixture.GaussianMixture`` would use on the same
    rows, so the same rows and random state give the same start. Rows of weight 0 are left out.
    ``"nearest"``, which scikit-learn has not, starts from the rows nearest to each of K rows.
    k-means ends after `kmeans_iter` iterations at the latest.

    Raises
    ------
    SingularCovarianceError
        If a covariance of the start is not positive definite.
    """
    d = X.shape[1]
    family = FAMILIES[covariance_type]
    given = weights_init, means_init, precisions_init
    if any(value is None for value in given):
        if weight is not None and np.all(weight == weight[0]):
            weight = None
        if weight is not None:
            X, weight = X[weight > 0], weight[weight > 0]
        resp = _responsibilities(X, weight, n_components, init_params, random_state, kmeans_iter)
        moments = _moments(X, weight, resp, n_components, covariance_type)
        covariances = family.maximize(moments, reg_covar)
        weights = moments.weight / (len(X) if weight is None else weight.sum())
        means = moments.mean
    if weights_init is not None:
        weights = weights_init
    if means_init is not None:
        means = means_init
    if precisions_init is None:
        chol = family.precisions_cholesky(covariances)
        return Mixture(family, weights, means, covariances, chol)
    covariances, chol = from_precisions(covariance_type, precisions_init)
    assert covariances.shape == family.covariance_shape(n_components, d)
    return Mixture(family, weights, means, covariances, chol)


def from_precisions(covariance_type: str, precisions: Floats) -> tuple[Floats, Floats]:
    """Covariances and upper triangular Cholesky factors of given precisions.

    Reversing rows and columns turns the lower factor that LAPACK gives into the upper one.
    """
    if covariance_type in ("diag", "spherical"):
        return np.asarray(1.0 / precisions), np.asarray(np.sqrt(precisions))
    stacked = precisions.reshape(-1, *precisions.shape[-2:])
    flipped = np.linalg.cholesky(stacked[:, ::-1, ::-1])[:, ::-1, ::-1]
    inverse = np.linalg.inv(flipped)
    covariances = inverse.transpose(0, 2, 1) @ inverse
    flat = np.asarray(covariances.reshape(precisions.shape))
    return flat, np.array(flipped.reshape(precisions.shape))


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
        kmeans = KMeans(n_clusters=k, n_init=1, max_iter=kmeans_iter, random_state=random_state)
        with one_openmp_thread():
            return np.asarray(kmeans.fit(X, sample_weight=weight).labels_, dtype=np.intp)
    if how == "random":
        resp = np.asarray(random_state.uniform(size=(n, k)), dtype=X.dtype).astype(np.float64)
        return np.asarray(resp / resp.sum(axis=1)[:, None])
    if how in ("random_from_data", "nearest"):
        p = None if weight is None else weight / weight.sum()
        chosen = random_state.choice(n, size=k, replace=False, p=p)
        if how == "nearest":
            with one_openmp_thread():  # in a process that was forked, more would wait for ever
                return np.asarray(pairwise_distances_argmin(X, X[chosen]), dtype=np.intp)
    else:
        _, chosen = kmeans_plusplus(X, k, sample_weight=weight, random_state=random_state)
    labels = np.full(n, -1, np.intp)
    labels[chosen] = np.arange(k)
    return labels


def _moments(
    X: NDArray[Any],
    weight: Floats | None,
    resp: Floats | NDArray[np.intp],
    k: int,
    covariance_type: str,
) -> Moments:
    """Two-pass moments of rows under given responsibilities or labels."""
    hard = resp.ndim == 1
    family = FAMILIES[covariance_type]
    shape = family.covariance_shape(k, X.shape[1])
    mass, means, scatter = np.zeros(k), np.zeros((k, X.shape[1])), np.zeros(shape)
    for j in range(k):
        rows = np.asarray(X[resp == j] if hard else X, dtype=np.float64)
        r = np.ones(len(rows)) if hard else resp[:, j]
        if weight is not None:
            r = r * (weight[resp == j] if hard else weight)
        mass[j] = r.sum() + _TINY
        centre = rows[0] if len(rows) else means[j]
        means[j] = centre + (r @ (rows - centre)) / mass[j]
        off = rows - means[j]
        if covariance_type == "full":
            scatter[j] = (r * off.T) @ off
        elif covariance_type == "tied":
            scatter += (r * off.T) @ off
        elif covariance_type == "diag":
            scatter[j] = r @ off**2
        else:
            scatter[j] = (r @ off**2).sum()
    kind: Any = covariance_type
    return Moments(kind, mass, means, scatter)
