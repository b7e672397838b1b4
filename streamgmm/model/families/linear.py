"""Linear exponential families: log p(x | θ_k) = T(x)·η_k - A_k + log h(x).

A family of this kind gives T(x) (`LinearFamily.features`), the parameters of sums
(`estimate`), and of components η (`natural`) and A (`log_partition`). Where log h(x) is not
zero, it is the last of the features, and its natural parameter is one. The rest follows: an
E-step is two compiled matrix products a tile, and the statistics are Σ r and Σ r T(x), plain
sums that merge, scale and may be combined.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.kernels import linear
from streamgmm.model.components import NO_WEIGHT, BlockSums, Posterior, Shapes
from streamgmm.model.covariances.base import Layout
from streamgmm.model.moments import Floats
from streamgmm.model.responsibilities import mass_of
from streamgmm.model.sums import Sums
from streamgmm.model.tiles import TiledComponents, TiledDensity, TiledFamily

CHUNK_BYTES = 1 << 20  # of features that are made at a time


class LinearFamily(TiledFamily):
    """A family whose components are `LinearComponents`.

    Attributes
    ----------
    support : int
        What the kernels check of the features: a constant of `streamgmm.kernels.linear`.
    tolerance : float
        By how much the length of a row may differ from one, where that is the support.
    plain : bool
        Whether the features are the rows themselves.
    """

    support = linear.ANY
    tolerance = 0.0
    plain = True

    def n_statistics(self, d: int) -> int:
        """How many features T(x) rows of D have, with that of log h(x)."""
        return d

    def features(self, X: NDArray[Any]) -> NDArray[Any]:
        """T(x), and log h(x) where it is not zero, of rows (n, D): (n, P).

        NaN for rows outside of the support, unless `support` tells.
        """
        return X

    def sum_shapes(self, k: int, d: int) -> Shapes:
        return {"total": (k, self.n_statistics(d))}

    def summarize(self, X: NDArray[Any], resp: Floats) -> Sums:
        """Σ r and Σ r T(x)."""
        features = np.asarray(self.features(X), np.float64)
        return Sums(self.name, mass_of(resp), {"total": resp.T @ features})


@dataclass(frozen=True, eq=False)
class LinearComponents(TiledComponents):
    """Parameters of K components of a linear exponential family."""

    @property
    @abstractmethod
    def natural(self) -> Floats:
        """η (K, P), with the one of log h(x)."""

    @property
    @abstractmethod
    def log_partition(self) -> Floats:
        """A (K,)."""

    def density(self, weights: Floats) -> LinearDensity:
        """As the kernels take them."""
        return LinearDensity(weights, self)

    def log_density(self, X: NDArray[Any]) -> Floats:
        """T(x)·η - A of rows (n, D); NaN for those outside of the support."""
        features = np.asarray(self.family.features(X), np.float64)
        found = features @ self.natural.T - self.log_partition
        bad = outside(self.family.support, self.family.tolerance, features)
        found[bad] = np.nan
        return np.asarray(found)

    def expected_log_density(self, statistics: Sums) -> float:
        linear_part = np.sum(statistics["total"] * self.natural)
        return float(linear_part - statistics.weight @ self.log_partition)


def outside(support: int, tolerance: float, X: Floats) -> NDArray[np.bool_]:
    """Which rows (n, P) are not in a support, or not finite: the rule of the kernels."""
    if support == linear.BINARY:
        return np.asarray(((X != 0) & (X != 1)).any(axis=1))
    if support == linear.NONNEGATIVE:
        return np.asarray(~(X >= 0).all(axis=1))
    if support == linear.UNIT:
        gap = np.abs(np.einsum("nd,nd->n", X, X) - 1.0)
        return np.asarray(~(gap <= 2 * tolerance))
    return np.zeros(len(X), np.bool_)


@dataclass(frozen=True, eq=False)
class LinearDensity(TiledDensity):
    """Components and weights, with the tables of the kernels."""

    @cached_property
    def tables(self) -> tuple[Layout, tuple[Any, ...]]:
        """The layout of tiles, and what the kernels are told of the model."""
        components: Any = self.components
        natural = components.natural
        k, p = natural.shape
        layout = Layout(k, p, np.dtype(np.float64))
        nu = np.zeros((layout.K4, p))
        nu[:k] = -2.0 * natural
        with np.errstate(divide="ignore"):
            const = np.log(self.weights) - components.log_partition
        family = components.family
        told = np.zeros(p), layout.pad_rows(nu), const, family.support, float(family.tolerance)
        return layout, told

    def __getstate__(self) -> dict[str, Any]:
        """What is sent to others: not the tables."""
        return {name: value for name, value in self.__dict__.items() if name != "tables"}

    def accumulator(
        self, like: NDArray[Any], weighted: bool = False, centres: Floats | None = None
    ) -> LinearAccumulator:
        """A compiled E-step."""
        return LinearAccumulator(self)

    def posterior(self, X: NDArray[Any], *, labels: bool = False, resp: bool = False) -> Posterior:
        """Log-densities of rows (n, D), with labels and responsibilities where asked for."""
        n, k = len(X), len(self.weights)
        out = Posterior(
            np.empty(n), np.empty(n if labels else 0, np.int32), np.empty((n if resp else 0, k))
        )
        at, told = self.tables
        for a, b, features in chunks(self.components.family, X):
            linear.linear_posterior(
                features, *told, at.D, at.T, at.work, at.rows,
                out.log_density[a:b], out.labels[a:b], out.resp[a:b],
            )  # fmt: skip
        return out


class LinearAccumulator:
    """An E-step in compiled tiles: see `Accumulator`."""

    def __init__(self, density: LinearDensity) -> None:
        self._density = density
        self._totals = np.zeros(2)
        at, _ = density.tables
        self._n, self._first = np.zeros(at.k), np.zeros(at.K4 * at.D)

    def add(self, X: NDArray[Any], sample_weight: Floats = NO_WEIGHT) -> None:
        """Add rows (n, D), and weights (n,) or none."""
        at, told = self._density.tables
        for a, b, features in chunks(self._density.components.family, X):
            linear.linear_sums(
                features, sample_weight[a:b], *told, at.D, at.T, at.work, at.rows,
                self._totals, self._n, self._first,
            )  # fmt: skip

    def result(self) -> BlockSums:
        """The sums of all rows added."""
        at, _ = self._density.tables
        total = self._first.reshape(at.K4, at.D)[: at.k, : at.d].copy()
        statistics = Sums(self._density.components.family.name, self._n, {"total": total})
        return BlockSums(float(self._totals[0]), float(self._totals[1]), statistics)


def chunks(family: LinearFamily, X: NDArray[Any]) -> Iterator[tuple[int, int, NDArray[Any]]]:
    """Features of rows (n, D), a bounded number at a time: (start, stop, (stop - start, P))."""
    n, d = X.shape
    step = max(n, 1) if family.plain else max(1, CHUNK_BYTES // (8 * family.n_statistics(d)))
    for a in range(0, n, step):
        b = min(a + step, n)
        yield a, b, np.ascontiguousarray(family.features(X[a:b]))
