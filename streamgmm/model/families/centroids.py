"""Centroids: Gaussians of equal weight with one variance that all share.

A hard E-step and its M-step are Lloyd's two steps, so k-means is the hard EM of this family
(Celeux & Govaert 1992, "A classification EM algorithm for clustering and two stochastic
versions"). With c the nearest centre of x and N rows of weight one,

    F(q, θ) = -(1 / 2σ²) Σ |x - c|² - N (D/2 log 2πσ² + log K),    H(q) = 0.

Its hard E-step is compiled (`kernels.kmeans`). The soft one, ordinary EM, is in NumPy.

A long file, since family, components, density and statistics make one another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import ParameterError
from streamgmm.model.components import Accumulator, Components, Shapes
from streamgmm.model.families.nearby import Nearby, NearbyAccumulator
from streamgmm.model.families.nearest import Far, NearestAccumulator, Table
from streamgmm.model.families.recall import Trail
from streamgmm.model.moments import Floats
from streamgmm.model.tiles import TiledComponents, TiledDensity, TiledFamily
from streamgmm.model.truncation.moments import N_SAMPLED, sampled_of

_LEAST = float(np.finfo(np.float64).tiny)  # in the place of a weight of zero, to divide by


@dataclass(frozen=True)
class Centroids(TiledFamily):
    """Centroids; the variance that they share is never less than `least_variance`.

    With `truncation` a hard E-step compares each row with so many centres only, where there are
    more: see `nearby`.
    """

    least_variance: float = 1e-100
    truncation: int | None = field(default=None, repr=False)

    name = "centroids"
    initial = ("means",)
    tells_mean = True
    gaps = False
    equal_weights = True
    set_size = 1  # what is kept of a row: its label

    def __post_init__(self) -> None:
        """Check the number of centres that a row is compared with."""
        if self.truncation is not None and self.truncation < 2:
            raise ParameterError(f"truncation={self.truncation} must be at least 2 for centroids")

    def n_parameters(self, k: int, d: int) -> int:
        return k * d + 1

    def parameter_shapes(self, k: int, d: int) -> Shapes:
        return {"means": (k, d), "variance": (1,)}

    def sum_shapes(self, k: int, d: int) -> Shapes:
        return {"mean": (k, d), "scatter": (1,)}

    def statistic_shapes(self, k: int, d: int) -> Shapes:
        """The weight, the sums, and what a sample says of the candidates."""
        few = self.truncation is not None and self.truncation < k
        return super().statistic_shapes(k, d) | ({"sampled": (N_SAMPLED,)} if few else {})

    def components(self, **arrays: Floats) -> CentroidComponents:
        return CentroidComponents(self, arrays["means"], arrays["variance"])

    def statistics(self, **arrays: Floats) -> Pooled:  # type: ignore[override]
        found = Pooled(arrays["weight"], arrays["mean"], arrays["scatter"])
        return found.with_sample(arrays["sampled"]) if "sampled" in arrays else found

    def summarize(self, X: NDArray[Any], resp: Floats) -> Pooled:  # type: ignore[override]
        """Means, and the scatter about them, which is summed when they are known."""
        weight = resp.sum(axis=0)
        mean = np.zeros((len(weight), X.shape[1]))
        scatter = 0.0
        for k in np.flatnonzero(weight > 0):
            about = X[np.argmax(resp[:, k])]  # a row: the mean itself may be far off zero
            mean[k] = about + resp[:, k] @ (X - about) / weight[k]
            scatter += float(resp[:, k] @ _square(X - mean[k]))
        return Pooled(weight, mean, np.array([scatter]))

    def estimate(self, statistics: Pooled) -> CentroidComponents:
        """μ_k the mean, and σ² = Σ r |x - μ|² / (N D)."""
        n_values = statistics.weight.sum() * statistics.mean.shape[1]
        variance = np.maximum(statistics.scatter / n_values, self.least_variance)
        return CentroidComponents(self, statistics.mean, variance)

    def start(self, statistics: Pooled, given: Mapping[str, Floats]) -> CentroidComponents:
        """As `estimate`, with ``means`` that are given in their place."""
        found = self.estimate(statistics)
        return replace(found, means=given.get("means", found.means))


@dataclass(frozen=True, eq=False)
class CentroidComponents(TiledComponents):
    """Means (K, D) and the variance (1,) that they share.

    `lost` is how many of them a hard E-step has left without rows, of an M-step whose statistics
    do not know the rows that are farthest from theirs. `trail` says what has become of them
    since the first M-step.
    """

    means: Floats
    variance: Floats
    lost: int = 0
    trail: Trail = field(default_factory=Trail)

    def arrays(self) -> dict[str, Floats]:
        return {"means": self.means, "variance": self.variance}

    def density(self, weights: Floats) -> CentroidDensity:
        return CentroidDensity(weights, self)

    def maximize(self, statistics: Pooled) -> CentroidComponents:
        """M-step; one without weight stays where it is."""
        empty = statistics.weight <= 0
        found = self.family.estimate(statistics)
        means = np.where(empty[:, None], self.means, statistics.mean)
        lost = 0 if statistics.far is not None else int(np.count_nonzero(empty))
        trail = self.trail.next(self.means, means)
        return CentroidComponents(self.family, means, found.variance, lost, trail)

    def take(self, components: NDArray[np.intp]) -> CentroidComponents:
        return CentroidComponents(self.family, self.means[components], self.variance)

    def reseed(
        self, components: NDArray[np.intp], rows: NDArray[Any], weights: Floats
    ) -> CentroidComponents:
        """Means at the rows."""
        means = self.means.copy()
        means[components] = rows
        return CentroidComponents(self.family, means, self.variance)

    def log_density(self, X: NDArray[Any]) -> Floats:
        """-|x - μ_k|² / 2σ² - D/2 log 2πσ²."""
        each = [_square(X - mean) for mean in self.means]
        constant = 0.5 * X.shape[1] * np.log(2 * np.pi * self.variance)
        return np.asarray(np.stack(each, axis=1) / (-2 * self.variance) - constant)

    def expected_log_density(self, statistics: Pooled) -> float:
        off = statistics.weight @ _square(statistics.mean - self.means)
        constant = 0.5 * self.means.shape[1] * np.log(2 * np.pi * self.variance.item())
        spread = (statistics.scatter.item() + float(off)) / (2 * self.variance.item())
        return float(-spread - constant * statistics.weight.sum())

    def draw(self, k: int, n: int, random_state: np.random.RandomState) -> NDArray[Any]:
        noise = random_state.standard_normal((n, self.means.shape[1]))
        return np.asarray(self.means[k] + noise * np.sqrt(self.variance))

    def seeded(self, rows: NDArray[Any], average: Mapping[str, Floats]) -> dict[str, Floats]:
        return {"means": np.asarray(rows, np.float64), "variance": self.variance}


@dataclass(frozen=True, eq=False)
class CentroidDensity(TiledDensity):
    """Centroids and weights; a hard E-step is compiled, and does not look at the weights."""

    components: CentroidComponents

    def accumulator(
        self, like: NDArray[Any], weighted: bool = False, centres: Floats | None = None
    ) -> Accumulator:
        """An E-step of ordinary EM, tile by tile; raises ParameterError with `truncation`."""
        if self.truncated:
            raise ParameterError(
                "truncation of centroids is for assignment='hard'; pass that, or leave it out"
            )
        return super().accumulator(like, weighted, centres)

    def hard_accumulator(self, centres: Floats | None = None) -> NearestAccumulator:
        """A compiled E-step, which sums F where others sum the log-likelihood.

        Where `centres` are given, it also finds as many of the rows that are farthest from
        theirs.
        """
        most = 0 if centres is None else len(centres)
        trail = self.components.trail
        if self.truncated:
            return NearbyAccumulator(self.nearby, self.table, most, self._finish, trail)
        return NearestAccumulator(self.table, most, self._finish, trail)

    @property
    def truncated(self) -> bool:
        """Whether a hard E-step compares a row with some of the centres only."""
        size = self.components.family.truncation
        return size is not None and size < self.components.n_components

    @cached_property
    def nearby(self) -> Nearby:
        """Which those are; sent to others, since it takes K² products."""
        return Nearby.of(self.components.means, self.components.family.truncation or 1)

    @property
    def exact(self) -> CentroidDensity:
        """The same, where each row is compared with all centres."""
        family = replace(self.components.family, truncation=None)
        return CentroidDensity(self.weights, replace(self.components, family=family))

    def prepare(self) -> None:
        """Make what a pass takes long to make, once for all of its blocks."""
        if self.truncated:
            _ = self.nearby

    @cached_property
    def table(self) -> Table:
        """The centres as the kernels take them."""
        return Table.of(self.components.means, self.components.trail.drift)

    def _finish(
        self, weight: Floats, first: Floats, square: float, far: Far | None
    ) -> tuple[float, Pooled]:
        """F of a hard E-step at these parameters, and the statistics of its sums."""
        variance, each = self._constants
        bound = -square / (2 * variance) - float(weight.sum()) * each
        return bound, Gathered(weight, first, square, self.components.means, far)

    @cached_property
    def _constants(self) -> tuple[float, float]:
        """The variance, and -F of a row that lies on its centre."""
        variance, d = self.components.variance.item(), self.components.n_features
        each = 0.5 * d * math.log(2 * math.pi * variance)
        return variance, each + math.log(np.count_nonzero(self.weights))

    def expected_log_likelihood(self, statistics: Any) -> float:
        """-N log K, for components of equal weight, and the expected log-density."""
        uniform = float(statistics.weight.sum() * np.log(np.count_nonzero(self.weights)))
        return self.components.expected_log_density(statistics) - uniform

    def refine(self, updated: Components) -> Floats | None:
        """The centres that lost their rows: the read is made again for rows to give to them."""
        assert isinstance(updated, CentroidComponents)
        return updated.means[: updated.lost] if updated.lost else None

    def __getstate__(self) -> dict[str, Any]:
        """What is sent to others: not what is made of it."""
        made = ("table", "_constants")
        return {name: value for name, value in self.__dict__.items() if name not in made}


class Pooled:
    """Weight (K,), mean (K, D), and the scatter (1,) Σ r |x - mean|² of all components together.

    `sampled` (5,), where rows were compared with some centres only, are sums over those that were
    compared with all: as of `TruncatedMoments`, of |x - c|² in the place of nats.

    Where `far` is known, which are the rows farthest from their centres, each component without
    rows gets one of them, which its old one loses: so `weight`, `mean` and `scatter` say.
    """

    kind = "centroids"
    sampled: Floats | None = None

    def __init__(
        self, weight: Floats, mean: Floats, scatter: Floats, far: Far | None = None
    ) -> None:
        self._sums, self.far = (weight, mean, scatter), far

    @property
    def weight(self) -> Floats:
        """Σ r (K,)."""
        return self._settled[0]

    @property
    def mean(self) -> Floats:
        """Means (K, D); zero, or of no meaning, where there is no weight."""
        return self._settled[1]

    @property
    def scatter(self) -> Floats:
        """Σ r |x - mean|² (1,)."""
        return self._settled[2]

    @cached_property
    def _settled(self) -> tuple[Floats, Floats, Floats]:
        return self._sums if self.far is None else self.far.given_away(*self._sums)

    def merge(self, other: Pooled) -> Pooled:
        """Statistics of both sets of rows (Chan, Golub & LeVeque 1983)."""
        (a, mean, scatter), (b, theirs, more) = self._sums, other._sums
        weight = a + b
        share = b / np.maximum(weight, _LEAST)
        shift = theirs - mean
        between = (a * share) @ _square(shift)
        shift *= share[:, None]
        shift += mean
        merged = shift if a.all() else np.where((a == 0)[:, None], theirs, shift)
        far = self.far if other.far is None else other.far
        if self.far is not None and other.far is not None:
            far = self.far.merge(other.far)
        return Pooled(weight, merged, scatter + more + between, far).with_samples(self, other)

    def with_sample(self, sampled: Floats | None) -> Pooled:
        """Take up what a sample of the rows says, once."""
        self.sampled = sampled
        return self

    def with_samples(self, a: Pooled, b: Pooled) -> Pooled:
        """Take up what the samples of both say, once."""
        known = a.sampled is not None or b.sampled is not None
        return self.with_sample(sampled_of(a) + sampled_of(b) if known else None)

    def scale(self, factor: float) -> Pooled:
        """The same rows with every weight multiplied by `factor`."""
        found = Pooled(self.weight * factor, self.mean, self.scatter * factor)
        return found.with_sample(None if self.sampled is None else self.sampled * factor)

    def combine(self, parts: Sequence[Pooled], alphas: Floats) -> Pooled | None:
        """Σ_i α_i parts_i, about this one's means; None where that is no set of statistics."""
        weight, first = np.zeros_like(self.weight), np.zeros_like(self.mean)
        second = np.zeros(1)
        for alpha, part in zip(alphas, parts, strict=True):
            shift = part.mean - self.mean
            weight += alpha * part.weight
            first += alpha * part.weight[:, None] * shift
            second += alpha * (part.scatter + part.weight @ _square(shift))
        if not np.all(weight > 0):
            return None
        shift = first / weight[:, None]
        scatter = second - weight @ _square(shift)
        if not scatter[0] >= 0:
            return None
        sampled = None
        if self.sampled is not None:
            each = [a * sampled_of(part) for a, part in zip(alphas, parts, strict=True)]
            sampled = np.sum(each, axis=0)
        return Pooled(weight, self.mean + shift, scatter).with_sample(sampled)

    def arrays(self) -> dict[str, Floats]:
        """What is stored."""
        found = {"weight": self.weight, "mean": self.mean, "scatter": self.scatter}
        return found if self.sampled is None else found | {"sampled": self.sampled}

    def row_mean(self, about: Floats) -> Floats:
        """Mean of all rows less `about` (D,)."""
        weight, mean, _ = self._sums
        used = weight > 0
        return np.asarray(weight[used] @ (mean[used] - about) / weight.sum())


class Gathered(Pooled):
    """Statistics of rows that one read has gathered: sums about the centres of that read.

    Those about the same centres merge by addition; means are formed when they are asked for.
    """

    def __init__(
        self, weight: Floats, first: Floats, square: float, about: Floats, far: Far | None
    ) -> None:
        self._gathered, self.far = (weight, first, square, about), far

    @cached_property
    def _sums(self) -> tuple[Floats, Floats, Floats]:  # type: ignore[override]
        """Weights, means, and the scatter about these."""
        weight, first, square, about = self._gathered
        shift = first / np.where(weight > 0, weight, 1.0)[:, None]
        spread = weight @ _square(shift)
        scatter = square - spread if square > spread else 0.0 * square
        return weight, about + shift, np.array([scatter])

    def merge(self, other: Pooled) -> Pooled:
        """Statistics of both sets of rows."""
        if not isinstance(other, Gathered):
            return super().merge(other)
        weight, first, square, about = self._gathered
        more, theirs, rest, same = other._gathered
        if about is not same and not np.array_equal(about, same):
            return super().merge(other)
        far = self.far if other.far is None else other.far
        if self.far is not None and other.far is not None:
            far = self.far.merge(other.far)
        found = Gathered(weight + more, first + theirs, square + rest, about, far)
        return found.with_samples(self, other)

    def settled(self) -> Pooled:
        """The same with means in the place of sums, as when it had been stored."""
        return Pooled(*self._sums, self.far).with_sample(self.sampled)


def _square(X: Floats) -> Floats:
    """|x|² of rows."""
    return np.asarray(np.einsum("nd,nd->n", X, X))
