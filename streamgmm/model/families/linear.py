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

from streamgmm.errors import ParameterError
from streamgmm.kernels import linear
from streamgmm.model.components import (
    NO_WEIGHT,
    Accumulator,
    BlockSums,
    ComponentStatistics,
    Posterior,
    Shapes,
)
from streamgmm.model.covariances.base import Layout
from streamgmm.model.gaps.apart import RowsApart
from streamgmm.model.gaps.patterns import has_gaps
from streamgmm.model.moments import Floats
from streamgmm.model.responsibilities import mass_of
from streamgmm.model.sums import Sums
from streamgmm.model.tiles import (
    TiledAccumulator,
    TiledComponents,
    TiledDensity,
    TiledFamily,
)

_TINY = 10 * np.finfo(np.float64).eps
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
    features_a_column : int
        How many there are of each column, those of the same kind side by side.
    """

    support = linear.ANY
    tolerance = 0.0
    plain = True
    features_a_column = 1

    def n_statistics(self, d: int) -> int:
        """How many features T(x) rows of D have, with that of log h(x)."""
        return d

    def features(self, X: NDArray[Any]) -> NDArray[Any]:
        """T(x), and log h(x) where it is not zero, of rows (n, D): (n, P).

        NaN for rows outside of the support, unless `support` tells.
        """
        return X

    def plugged(self, X: NDArray[Any]) -> NDArray[Any]:
        """Rows with a one for each gap, which suits every family, and has log h = 0."""
        return np.where(np.isnan(X), 1, X) if self.gaps and has_gaps(X) else X

    def seen(self, X: NDArray[Any]) -> tuple[Floats, NDArray[np.bool_]]:
        """T(x) of what was observed of rows (n, D), zero elsewhere; and which are gaps (n, D)."""
        gone = np.isnan(X)
        features = np.array(self.features(self.plugged(X)), np.float64)
        for part in self.columns(X.shape[1]):
            features[:, part][gone] = 0.0
        return features, gone

    def columns(self, d: int) -> list[slice]:
        """Features of all columns, as often as each has one; that of log h is none of them."""
        return [slice(i * d, (i + 1) * d) for i in range(self.features_a_column)]

    def sum_shapes(self, k: int, d: int) -> Shapes:
        shapes: Shapes = {"total": (k, self.n_statistics(d))}
        return {**shapes, "seen": (k, d)} if self.gaps else shapes

    def summarize(self, X: NDArray[Any], resp: Floats) -> Sums:
        """Σ r and Σ r T(x); with gaps, over what was observed, and its weights `seen`."""
        weight = mass_of(resp)
        if not self.gaps:
            features = np.asarray(self.features(X), np.float64)
            return Sums(self.name, weight, {"total": resp.T @ features})
        features, gone = self.seen(X)
        seen = resp.T @ ~gone if gone.any() else np.repeat(weight[:, None], X.shape[1], axis=1)
        return Sums(self.name, weight, {"total": resp.T @ features, "seen": seen})

    def begin(
        self, X: NDArray[Any], weight: Floats | None, resp: NDArray[Any], k: int
    ) -> ComponentStatistics:
        """As for all rows; a column that a component has not seen is as in all rows together."""
        found: Any = super().begin(X, weight, resp, k)
        if not self.gaps:
            return found  # type: ignore[no-any-return]
        features, gone = self.seen(X)
        w = np.ones(len(X)) if weight is None else weight
        known, usual = np.maximum(w @ ~gone, _TINY), w @ features
        lost, total = found["seen"] <= 0, found["total"].copy()
        for part in self.columns(X.shape[1]):
            total[:, part] += lost * (_TINY * usual[part] / known)
        return Sums(self.name, found.weight, {"total": total, "seen": found["seen"] + _TINY})

    def whole(self, statistics: Sums) -> Sums:
        """Sums as if all rows had been whole, alike to those that were observed."""
        if "seen" not in statistics.sums:
            return statistics
        seen = statistics["seen"]
        share = np.ones_like(seen)
        np.divide(statistics.weight[:, None], seen, out=share, where=seen > 0)
        total = statistics["total"].copy()
        for part in self.columns(seen.shape[1]):
            total[:, part] *= share
        return Sums(self.name, statistics.weight, {"total": total})


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

    @property
    def log_partitions(self) -> Floats:
        """A of each column (K, D), where columns are independent."""
        raise NotImplementedError

    def maximize(self, statistics: Sums) -> Any:
        """M-step; a column that a component has not seen stays as it is."""
        new = super().maximize(statistics)
        if "seen" not in statistics.sums or (statistics["seen"] > 0).all():
            return new
        lost = statistics["seen"] <= 0
        here, there = self.arrays(), new.arrays()
        return self.family.components(**{n: np.where(lost, here[n], there[n]) for n in here})

    def density(self, weights: Floats) -> LinearDensity:
        """As the kernels take them."""
        return LinearDensity(weights, self)

    def log_density(self, X: NDArray[Any]) -> Floats:
        """T(x)·η - A of rows (n, D); NaN for those outside of the support."""
        if self.family.gaps and has_gaps(X):
            features, gone = self.family.seen(X)
            found = features @ self.natural.T - ~gone @ self.log_partitions.T
            features = np.asarray(self.family.features(self.family.plugged(X)), np.float64)
        else:
            features = np.asarray(self.family.features(X), np.float64)
            found = features @ self.natural.T - self.log_partition
        bad = outside(self.family.support, self.family.tolerance, features)
        found[bad] = np.nan
        return np.asarray(found)

    def expected_log_density(self, statistics: Sums) -> float:
        linear_part = np.sum(statistics["total"] * self.natural)
        if "seen" in statistics.sums:
            seen, weight = statistics["seen"], statistics.weight[:, None]
            if np.any(seen != weight):
                return float(linear_part - np.sum(seen * self.log_partitions))
        return float(linear_part - statistics.weight @ self.log_partition)

    def reseed(self, components: NDArray[np.intp], rows: NDArray[Any], weights: Floats) -> Any:
        """Start components again at rows, what all expect in their gaps."""
        if has_gaps(rows):
            rows = np.where(np.isnan(rows), weights @ self.expected / weights.sum(), rows)
        return super().reseed(components, rows, weights)

    @property
    def expected(self) -> Floats:
        """Means of each column (K, D), where columns are independent."""
        raise NotImplementedError


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
    ) -> Accumulator:
        """A compiled E-step."""
        if self.components.family.gaps:
            return RowsApart(LinearAccumulator(self), TiledAccumulator(self))
        return LinearAccumulator(self)

    def posterior(self, X: NDArray[Any], *, labels: bool = False, resp: bool = False) -> Posterior:
        """Log-densities of rows (n, D), with labels and responsibilities where asked for."""
        n, k = len(X), len(self.weights)
        out = Posterior(
            np.empty(n), np.empty(n if labels else 0, np.int32), np.empty((n if resp else 0, k))
        )
        if self.components.family.gaps and has_gaps(X):
            return super().posterior(X, labels=labels, resp=resp)
        at, told = self.tables
        for a, b, features in chunks(self.components.family, X):
            linear.linear_posterior(
                features, *told, at.D, at.T, at.work, at.rows,
                out.log_density[a:b], out.labels[a:b], out.resp[a:b],
            )  # fmt: skip
        return out

    def fill(
        self,
        X: Floats,
        variance: Floats | None = None,
        choices: Floats | None = None,
        normals: Floats | None = None,
    ) -> None:
        """Put Σ_k r_k E[x | k] in the place of the gaps of rows (n, D), float64.

        Raises
        ------
        ParameterError
            If variances or draws are asked for.
        """
        components: Any = self.components
        if variance is not None or choices is not None:
            raise ParameterError(
                f"impute: family='{components.family.name}' gives means, and neither "
                "return_std nor random_state"
            )
        resp = self.posterior(X, resp=True).resp
        X[...] = np.where(np.isnan(X), resp @ components.expected, X)


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
        sums = {"total": self._first.reshape(at.K4, at.D)[: at.k, : at.d].copy()}
        family, d = self._density.components.family, self._density.components.n_features
        if family.gaps:
            sums["seen"] = np.repeat(self._n[:, None], d, axis=1)
        statistics = Sums(family.name, self._n, sums)
        return BlockSums(float(self._totals[0]), float(self._totals[1]), statistics)


def chunks(family: LinearFamily, X: NDArray[Any]) -> Iterator[tuple[int, int, NDArray[Any]]]:
    """Features of rows (n, D), a bounded number at a time: (start, stop, (stop - start, P))."""
    n, d = X.shape
    step = max(n, 1) if family.plain else max(1, CHUNK_BYTES // (8 * family.n_statistics(d)))
    for a in range(0, n, step):
        b = min(a + step, n)
        yield a, b, np.ascontiguousarray(family.features(X[a:b]))
