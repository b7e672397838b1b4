"""A family in NumPy alone: the E-step in tiles, and everything that follows from a few sums.

A family of this kind writes, in one file,

- a frozen dataclass that derives from `TiledFamily`: ``name``, ``n_parameters``,
  ``parameter_shapes``, ``sum_shapes``, ``components``, ``summarize`` and ``estimate``;
- its parameters as a frozen dataclass that derives from `TiledComponents`: ``log_density``,
  ``expected_log_density``, ``draw`` and ``seeded``, and ``coordinates`` where it can jump.

Its statistics are `Sums`, plain weighted sums over rows, as every exponential family has them.
One that needs others gives them the methods of `ComponentStatistics`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DegenerateComponentError
from streamgmm.model.components import (
    NO_WEIGHT,
    Accumulator,
    BlockSums,
    Components,
    ComponentStatistics,
    Posterior,
    Shapes,
)
from streamgmm.model.moments import Floats
from streamgmm.model.responsibilities import normalized
from streamgmm.model.sums import CentredSums, Sums

__all__ = [
    "CentredSums",
    "Sums",
    "TiledAccumulator",
    "TiledComponents",
    "TiledDensity",
    "TiledFamily",
    "tiles",
]

TILE_BYTES = 256 * 1024  # of float64 rows, or responsibilities, that are worked on at a time
_TINY = 10 * np.finfo(np.float64).eps  # scikit-learn adds it to the weight of each component


class TiledFamily(ABC):
    """A family whose components are `TiledComponents`: see `Family`.

    Subclasses are frozen dataclasses; their fields are their settings.
    """

    name: str
    lighter = ""
    initial: tuple[str, ...] = ()
    tells_mean = False
    equal_weights = False
    gaps = False
    surveys = False
    base = "lebesgue"  # what densities of a column are with respect to: see `Family.measure`
    degenerate = DegenerateComponentError

    @abstractmethod
    def n_parameters(self, k: int, d: int) -> int:
        """Free parameters of a mixture of K components of D features, weights included."""

    @abstractmethod
    def parameter_shapes(self, k: int, d: int) -> Shapes:
        """Arrays that components are stored as, each (K, ...)."""

    @abstractmethod
    def sum_shapes(self, k: int, d: int) -> Shapes:
        """The sums that `summarize` gives beside the weight, each (K, ...)."""

    @abstractmethod
    def components(self, **arrays: Floats) -> Any:
        """Components of their arrays."""

    @abstractmethod
    def summarize(self, X: NDArray[Any], resp: Floats) -> Sums:
        """Sums over rows (n, D) under responsibilities (n, K), which are times the weights."""

    @abstractmethod
    def estimate(self, statistics: Any) -> Any:
        """Components of maximal likelihood; what is not a number for one without weight."""

    def start(self, statistics: Any, given: Mapping[str, Floats]) -> Any:
        """As `estimate`: nothing can be given."""
        return self.estimate(statistics)

    def least_rows(self, d: int) -> int:
        """Weight of rows below which a component is taken for lost."""
        return 2

    def statistic_shapes(self, k: int, d: int) -> Shapes:
        """The weight, and the sums."""
        return {"weight": (k,), **self.sum_shapes(k, d)}

    def of_parameters(self, *parameters: Floats) -> Any:
        """Components of all their arrays in order."""
        names = self.parameter_shapes(1, 1)
        return self.components(**dict(zip(names, parameters, strict=True)))

    def statistics(self, **arrays: Floats) -> Sums:
        """Sums of their arrays."""
        weight = arrays.pop("weight")
        return Sums(self.name, weight, arrays)

    def measure(self, d: int) -> tuple[str, ...]:
        """The same for every column."""
        return (self.base,) * d

    def clustered(self, X: NDArray[Any]) -> NDArray[Any]:
        """The rows as they are."""
        return X

    def n_clusters(self, k: int) -> int:
        """All of them."""
        return k

    def survey(self, X: NDArray[Any]) -> Any:
        """Nothing."""
        return None

    def informed(self, survey: Any) -> Any:
        """The same."""
        return self

    def unsuitable(self, X: NDArray[Any]) -> tuple[int, str] | None:
        """The first row that cannot be of this family, and why; None if all can."""
        return None

    def begin(
        self, X: NDArray[Any], weight: Floats | None, resp: NDArray[Any], k: int
    ) -> ComponentStatistics:
        """Sums of rows in memory under responsibilities or labels, and a tiny weight each."""
        if resp.ndim == 1:
            resp = one_hot(resp, k)
        if weight is not None:
            resp = resp * weight[:, None]
        parts = [self.summarize(rows, resp[a:b]) for a, b, rows in tiles(X, k)]
        total = parts[0]
        for part in parts[1:]:
            total = total.merge(part)
        arrays = total.arrays()
        return self.statistics(**arrays | {"weight": arrays["weight"] + _TINY})


@dataclass(frozen=True, eq=False)
class TiledComponents(ABC):
    """Parameters of K components: see `Components`; fields are `family` and arrays (K, ...)."""

    family: Any

    @abstractmethod
    def log_density(self, X: NDArray[Any]) -> Floats:
        """log p(x | θ_k) of a tile of rows (n, D), as (n, K)."""

    @abstractmethod
    def expected_log_density(self, statistics: Any) -> float:
        """Σ r log p(x | θ_k), in nats, over the rows of statistics."""

    @abstractmethod
    def draw(self, k: int, n: int, random_state: np.random.RandomState) -> NDArray[Any]:
        """Draw n rows of component k."""

    @abstractmethod
    def seeded(self, rows: NDArray[Any], average: Mapping[str, Floats]) -> Mapping[str, Floats]:
        """Parameters of components that begin at `rows` (m, D), one each.

        `average` are the parameters of the other components in the mean.
        """

    def summarize(self, X: NDArray[Any], resp: Floats) -> Any:
        """As the family has it; one with more latent variables asks these components."""
        return self.family.summarize(X, resp)

    def coordinates(self, weights: Floats, statistics: Any) -> Floats | None:
        """Parameters that statistics stand for, in these ones' Fisher metric; None: no jumps."""
        return None

    @property
    def n_components(self) -> int:
        """K."""
        return len(next(iter(self.arrays().values())))

    @property
    def n_features(self) -> int:
        """D."""
        return int(next(iter(self.arrays().values())).shape[1])

    def arrays(self) -> dict[str, Floats]:
        """The fields, but for the family."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "family"}

    def density(self, weights: Floats) -> TiledDensity:
        """These components with their weights."""
        return TiledDensity(weights, self)

    def maximize(self, statistics: Any) -> Self:
        """M-step; one whose weight is zero stays as it is."""
        empty = statistics.weight <= 0
        with np.errstate(divide="ignore", invalid="ignore"):
            new = self.family.estimate(statistics)
        if not empty.any():
            return new  # type: ignore[no-any-return]
        return self._changed(empty, self.arrays(), new.arrays())

    def take(self, components: NDArray[np.intp]) -> Self:
        """Some of the components."""
        arrays = {name: value[components] for name, value in self.arrays().items()}
        return self.family.components(**arrays)  # type: ignore[no-any-return]

    def reseed(self, components: NDArray[np.intp], rows: NDArray[Any], weights: Floats) -> Self:
        """Start components again at `rows`: see `seeded`."""
        arrays = self.arrays()
        others = np.setdiff1d(np.arange(self.n_components), components)
        share = weights[others] / weights[others].sum()
        average = {n: np.tensordot(share, value[others], 1) for n, value in arrays.items()}
        new = self.seeded(rows, average)
        changed = {name: value.copy() for name, value in arrays.items()}
        for name, value in changed.items():
            value[components] = new[name]
        return self.family.components(**changed)  # type: ignore[no-any-return]

    def sample(
        self, counts: NDArray[np.int64], random_state: np.random.RandomState
    ) -> NDArray[Any]:
        """Draw so many rows of each component."""
        return np.vstack([self.draw(k, int(n), random_state) for k, n in enumerate(counts)])

    def _changed(
        self, where: NDArray[np.bool_], here: dict[str, Floats], there: dict[str, Floats]
    ) -> Self:
        """Components of the arrays `here` where it is so, and `there` elsewhere."""
        arrays = {}
        for name, value in here.items():
            mask = where.reshape((-1,) + (1,) * (value.ndim - 1))
            arrays[name] = np.where(mask, value, there[name])
        return self.family.components(**arrays)  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class TiledDensity:
    """Components and weights: see `Density`. Nothing is computed before there are rows."""

    weights: Floats
    components: TiledComponents

    def accumulator(
        self, like: NDArray[Any], weighted: bool = False, centres: Floats | None = None
    ) -> Accumulator:
        """An E-step, tile by tile."""
        return TiledAccumulator(self)

    def hard_accumulator(self, centres: Floats | None = None) -> Accumulator:
        """A hard E-step, tile by tile."""
        return TiledAccumulator(self, hard=True)

    def posterior(self, X: NDArray[Any], *, labels: bool = False, resp: bool = False) -> Posterior:
        """Log-densities of rows (n, D), with labels and responsibilities where asked for."""
        n, k = len(X), len(self.weights)
        out = Posterior(
            np.empty(n), np.empty(n if labels else 0, np.int32), np.empty((n if resp else 0, k))
        )
        for a, b, rows in tiles(X, k):
            joint = self.joint(rows)
            own, density, _ = normalized(joint)
            out.log_density[a:b] = density
            if labels:
                out.labels[a:b] = joint.argmax(axis=1)
            if resp:
                out.resp[a:b] = own
        return out

    def joint(self, X: NDArray[Any]) -> Floats:
        """log π_k p(x | θ_k) of a tile (n, K)."""
        with np.errstate(divide="ignore"):
            return np.asarray(self.components.log_density(X) + np.log(self.weights))

    def expected_log_likelihood(self, statistics: Any) -> float:
        """Σ n_k log π_k, and the expected log-density."""
        used = statistics.weight > 0
        linear = statistics.weight[used] @ np.log(self.weights[used])
        return float(linear) + self.components.expected_log_density(statistics)

    def coordinates(self, statistics: Any) -> Floats | None:
        """As the components have them."""
        return self.components.coordinates(self.weights, statistics)

    def refine(self, updated: Components) -> Floats | None:
        """None: plain sums are about nothing."""
        return None


class TiledAccumulator:
    """An E-step, tile by tile, in NumPy: see `Accumulator`."""

    def __init__(self, density: TiledDensity, hard: bool = False) -> None:
        self._density, self._hard = density, hard
        self._totals = np.zeros(2)
        self._statistics: Any = None

    def add(self, X: NDArray[Any], sample_weight: Floats = NO_WEIGHT) -> None:
        """Add rows (n, D), and weights (n,) or none."""
        components = self._density.components
        for a, b, rows in tiles(X, len(self._density.weights)):
            joint = self._density.joint(rows)
            resp, log_density, entropy = normalized(joint)
            if self._hard:
                resp, entropy = one_hot(joint.argmax(axis=1), joint.shape[1]), np.zeros(len(rows))
            if len(sample_weight):
                w = sample_weight[a:b]
                used = w > 0  # 0 times a density of -inf is nothing
                self._totals += w[used] @ log_density[used], w[used] @ entropy[used]
                resp = np.where(used[:, None], resp * w[:, None], 0.0)
            else:
                self._totals += log_density.sum(), entropy.sum()
            own = components.summarize(rows, resp)
            self._statistics = own if self._statistics is None else self._statistics.merge(own)

    def result(self) -> BlockSums:
        """The sums of all rows added."""
        if self._statistics is None:
            components = self._density.components
            rows, resp = (
                np.empty((0, components.n_features)),
                np.empty((0, components.n_components)),
            )
            self._statistics = components.summarize(rows, resp)
        return BlockSums(float(self._totals[0]), float(self._totals[1]), self._statistics)


def one_hot(labels: NDArray[Any], k: int) -> Floats:
    """Responsibilities (n, K) of labels (n,): one or zero; a label below zero is no component's.

    >>> one_hot(np.array([1, -1]), 2)
    array([[0., 1.],
           [0., 0.]])
    """
    return np.asarray(labels[:, None] == np.arange(k), np.float64)


def tiles(X: NDArray[Any], k: int) -> Iterator[tuple[int, int, Floats]]:
    """Cut rows (n, D) into tiles: (start, stop, float64 rows); one of none where there are none.

    >>> [(a, b) for a, b, _ in tiles(np.zeros((5, 1 << 14), np.float32), 3)]
    [(0, 2), (2, 4), (4, 5)]
    """
    step = max(1, TILE_BYTES // (8 * max(k, X.shape[1])))
    for a in range(0, max(len(X), 1), step):
        b = min(a + step, len(X))
        yield a, b, np.asarray(X[a:b], np.float64)
