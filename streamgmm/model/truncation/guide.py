"""Where rows look for components: which lie near each other, and where to begin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamgmm.clustering import k_means
from streamgmm.kernels import truncated
from streamgmm.model.covariances.base import Parameters
from streamgmm.model.moments import Floats

_CHUNK = 1 << 22  # scores that are held at a time
NEIGHBOURS = 24  # of a component: half those that it finds likely, half those that find it so
_AHEAD = 12

Ids = NDArray[np.int32]


class Scores(Protocol):
    """E_j[log π_k N_k(x)] for all pairs of components; float32, since they are only compared."""

    @property
    def variances(self) -> Floats:
        """Diagonals of the covariances (K, D)."""

    @property
    def step(self) -> int:
        """Components j that are looked at together."""

    def of(self, a: int, b: int) -> NDArray[np.float32]:
        """Those of components a to b as j (b - a, K)."""

    def of_groups(self, labels: NDArray[Any], n_groups: int) -> NDArray[np.float32]:
        """Means over the components j of each group (n_groups, K)."""


@dataclass(frozen=True, eq=False)
class Guide:
    """What a search for the likeliest components of a row goes by.

    Attributes
    ----------
    graph : ndarray of shape (K, G)
        The neighbours of each component: those under which its own rows are likeliest,
        -1 where there are fewer.
    pivots : ndarray of shape (D, R)
        Points, of rows times `scale` (D,), the nearest of which a search begins with.
    entry : ndarray of shape (R, E)
        The candidates that it begins with there.
    """

    graph: Ids
    scale: Floats
    pivots: Floats
    entry: Ids

    @classmethod
    def of(
        cls, model: Parameters, full: bool, n_entries: int, n_neighbours: int = NEIGHBOURS
    ) -> Guide:
        """From the parameters alone, so that it is the same wherever it is made.

        Components are near each other by E_j[log π_k N_k(x)], x of component j: what is left of
        the log-density of j's rows under k.
        """
        scores = _LinearScores(_variances(model, full), *_features(model, full))
        centre = model.centre
        return cls.by(scores, model.weights, model.means, centre, n_entries, n_neighbours)

    @classmethod
    def by(
        cls, scores: Scores, weights: Floats, means: Floats, centre: Floats, n_entries: int,
        n_neighbours: int = NEIGHBOURS,
    ) -> Guide:  # fmt: skip
        """From what is left of the log-density of each component's rows under the others."""
        k = len(means)
        with np.errstate(divide="ignore"):
            scale = 1.0 / np.sqrt(weights @ scores.variances / weights.sum())
        at = (means - centre) * scale
        n_groups = min(k, max(1, int(np.sqrt(k))))
        found = k_means(at, n_groups, np.random.RandomState(0), max_iter=20)
        entry = np.full((n_groups, n_entries), -1, np.int32)
        truncated.largest(scores.of_groups(found.labels, n_groups), -1, entry)
        ahead = np.empty((k, _AHEAD), np.int32)
        for a in range(0, k, scores.step):
            b = min(a + scores.step, k)
            truncated.largest(scores.of(a, b), a, ahead[a:b])
        graph = np.empty((k, min(n_neighbours, 2 * k)), np.int32)
        truncated.link(ahead, n_neighbours // 2, graph)
        # Centred for k-means only: rows are compared as they are.
        pivots = np.ascontiguousarray((found.centres + centre * scale).T)
        return cls(graph, scale, pivots, entry)


@dataclass(frozen=True, eq=False)
class _LinearScores:
    """Scores that are products of features of j (K, P) and of parameters of k (P, K)."""

    variances: Floats
    rows: Any
    columns: Any

    @property
    def step(self) -> int:
        """Components j that are looked at together."""
        return max(1, _CHUNK // len(self.rows))

    def of(self, a: int, b: int) -> NDArray[np.float32]:
        """Those of components a to b as j (b - a, K)."""
        found: NDArray[np.float32] = self.rows[a:b] @ self.columns
        return found

    def of_groups(self, labels: NDArray[Any], n_groups: int) -> NDArray[np.float32]:
        """Means over the components j of each group (n_groups, K)."""
        sums = np.zeros((n_groups, self.rows.shape[1]), np.float32)
        np.add.at(sums, labels, self.rows)
        size = np.maximum(np.bincount(labels, minlength=n_groups), 1).astype(np.float32)
        found: NDArray[np.float32] = sums / size[:, None] @ self.columns
        return found


def _variances(model: Parameters, full: bool) -> Floats:
    """Diagonals of the covariances (K, D)."""
    covariances, (k, d) = model.covariances, model.means.shape
    if full:
        return np.broadcast_to(np.einsum("...dd->...d", covariances), (k, d))
    return covariances if covariances.ndim == 2 else np.repeat(covariances[:, None], d, axis=1)


def _features(model: Parameters, full: bool) -> tuple[Any, Any]:
    """E_j[T(x)] (K, P), and natural parameters (P, K) whose products are E_j[log π_k N_k].

    In float32, since they are only compared.
    """
    means = model.means - model.centre
    k, d = means.shape
    if full:
        second = model.covariances + means[:, :, None] * means[:, None, :]
        chol = np.broadcast_to(model.precisions_cholesky, (k, d, d))
        precisions = chol @ np.swapaxes(chol, 1, 2)
        linear = np.einsum("kde,ke->kd", precisions, means)
        flat, quadratic = second.reshape(k, d * d), precisions.reshape(k, d * d)
    else:
        variances = _variances(model, full)
        quadratic = 1.0 / variances
        flat, linear = variances + means**2, quadratic * means
    constant = np.maximum(model.log_constants, -1e30)  # a product with infinity is not a number
    constant = constant - 0.5 * np.einsum("kd,kd->k", linear, means)
    rows = np.concatenate([flat, means, np.ones((k, 1))], axis=1)
    columns = np.concatenate([-0.5 * quadratic, linear, constant[:, None]], axis=1)
    with np.errstate(over="ignore"):
        return rows.astype(np.float32), np.ascontiguousarray(columns.T, np.float32)
