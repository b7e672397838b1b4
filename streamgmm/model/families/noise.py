"""Noise: one component that is uniform over a box, beside components of any family.

The box is that of the rows: its bounds come from pass 0 (Banfield & Raftery 1993). It takes rows
that are of no cluster, which would widen or move the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from streamgmm.errors import DataError, ParameterError
from streamgmm.model.components import Family, Shapes
from streamgmm.model.families.categorical import Categorical
from streamgmm.model.families.known import FAMILIES, parse_family
from streamgmm.model.families.product import Product
from streamgmm.model.moments import Floats
from streamgmm.model.responsibilities import mass_of
from streamgmm.model.tiles import TiledComponents, TiledFamily

SHARE = 0.05  # of the rows that a fit begins to take for noise


@dataclass(frozen=True)
class WithNoise(TiledFamily):
    """Components of a family, and the last one uniform over a box: K counts it.

    Of counts, flags and categories the box has as many points as there are values, and of
    directions it is the whole sphere.

    Parameters
    ----------
    inner : Family or str
        Of the other components.
    low, high : tuple of float, default=()
        Bounds of the box in each column. By default those of the rows of the fit.

    Raises
    ------
    ParameterError
        If the family is not known, or bounds do not go with one another.

    Examples
    --------
    >>> WithNoise("full").n_parameters(3, 2)
    12
    """

    inner: Any = "full"
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    name = "with_noise"

    def __post_init__(self) -> None:
        """Find the family by its name; bounds become tuples of floats."""
        object.__setattr__(self, "inner", parse_family(self.inner))
        for name in ("low", "high"):
            object.__setattr__(self, name, tuple(float(v) for v in getattr(self, name)))
        if len(self.low) != len(self.high) or any(
            a > b for a, b in zip(self.low, self.high, strict=False)
        ):
            raise ParameterError("low and high: give both, one of each a column, low not above")

    @property
    def surveys(self) -> bool:  # type: ignore[override]
        """Whether bounds, or settings of the family, are still to be taken from the rows."""
        return not self.low or self.inner.surveys

    @property
    def lighter(self) -> str:  # type: ignore[override]
        """That of the family."""
        return str(self.inner.lighter)

    def with_columns(self, names: Sequence[str]) -> WithNoise:
        """With the numbers of columns that the family has by name."""
        inner = self.inner
        return replace(self, inner=getattr(inner, "with_columns", lambda _: inner)(names))

    def measure(self, d: int) -> tuple[str, ...]:
        return tuple(self.inner.measure(d))

    def n_parameters(self, k: int, d: int) -> int:
        return int(self.inner.n_parameters(k - 1, d)) + 1 if k > 1 else 0

    def least_rows(self, d: int) -> int:
        return int(self.inner.least_rows(d))

    def parameter_shapes(self, k: int, d: int) -> Shapes:
        shapes: Shapes = {"noise": (k,)}
        shapes.update(self.inner.parameter_shapes(k, d))
        return shapes

    def sum_shapes(self, k: int, d: int) -> Shapes:
        shapes: Shapes = self.inner.statistic_shapes(k, d)
        return {f"{self.inner.name}__{name}": shape for name, shape in shapes.items()}

    def components(self, **arrays: Floats) -> WithNoiseComponents:
        noise = arrays.pop("noise")
        return WithNoiseComponents(self, noise, self.inner.components(**arrays))

    def of_parameters(self, *parameters: Any) -> WithNoiseComponents:
        """From which components are noise (K,), as 0 or 1, and the family's own of all K."""
        noise, *rest = parameters
        return WithNoiseComponents(self, noise, self.inner.of_parameters(*rest))

    def statistics(self, **arrays: Floats) -> Any:
        weight = arrays.pop("weight")
        kind = next(iter(arrays)).split("__")[0]
        own = {name.removeprefix(f"{kind}__"): array for name, array in arrays.items()}
        return NoiseSums(self.name, weight, FAMILIES[kind].statistics(**own))

    def begin(
        self, X: NDArray[Any], weight: Floats | None, resp: NDArray[Any], k: int
    ) -> NoiseSums:
        """Statistics of the family; the last component has a share of all rows, unless given."""
        if resp.ndim == 1:
            resp = (resp[:, None] == np.arange(k)).astype(np.float64)
        if k > 1 and not resp[:, -1].any():
            resp = resp * (1 - SHARE)
            resp[:, -1] = SHARE
        own = self.inner.begin(X, weight, resp, k)
        return NoiseSums(self.name, own.weight, own)

    def n_clusters(self, k: int) -> int:
        return max(1, k - 1)

    def clustered(self, X: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(self.inner.clustered(X))

    def summarize(self, X: NDArray[Any], resp: Floats) -> Any:
        """The last component is noise."""
        noise = np.zeros(resp.shape[1])
        noise[-1] = 1.0
        own = self.inner.summarize(X, resp * (1 - noise))
        return NoiseSums(self.name, mass_of(resp), own)

    def estimate(self, statistics: Any) -> WithNoiseComponents:
        """The family's own, and the last one noise."""
        noise = np.zeros(len(statistics.weight))
        noise[-1] = 1.0
        return WithNoiseComponents(self, noise, self.inner.estimate(statistics.inner))

    def start(self, statistics: Any, given: Mapping[str, Floats]) -> WithNoiseComponents:
        found = self.estimate(statistics)
        return replace(found, inner=self.inner.start(statistics.inner, {}))

    def survey(self, X: NDArray[Any]) -> Bounds:
        own = self.inner.survey(X) if self.inner.surveys else None
        rows = np.asarray(X, np.float64)
        return Bounds(rows.min(axis=0), rows.max(axis=0), own)

    def informed(self, survey: Bounds) -> WithNoise:
        family = self.inner
        if family.surveys:
            family = family.informed(survey.inner)
        low, high = self.low or survey.low, self.high or survey.high
        found = WithNoise(family, tuple(low), tuple(high))
        found.box()
        return found

    def unsuitable(self, X: NDArray[Any]) -> tuple[int, str] | None:
        return self.inner.unsuitable(X)  # type: ignore[no-any-return]

    def box(self) -> list[Side]:
        """The sides of the box; raises DataError where one has no length."""
        return _sides(self.inner, self.low, self.high, range(len(self.low)))


@dataclass(frozen=True, eq=False)
class Bounds:
    """The least and the greatest value of each column, and what the family surveys."""

    low: Floats
    high: Floats
    inner: Any

    def merge(self, other: Bounds) -> Bounds:
        """Of both sets of rows."""
        inner = None if self.inner is None else self.inner.merge(other.inner)
        return Bounds(np.minimum(self.low, other.low), np.maximum(self.high, other.high), inner)


@dataclass(frozen=True)
class Side:
    """Some columns of a box: log of their volume, and bounds or levels to draw from."""

    columns: tuple[int, ...]
    kind: str
    log_volume: float
    low: float = 0.0
    high: float = 0.0
    levels: tuple[float, ...] = ()

    def draw(self, n: int, random_state: np.random.RandomState) -> Floats:
        """Draw n rows of these columns (n, columns)."""
        if self.levels:
            return np.array(self.levels)[random_state.randint(len(self.levels), size=(n, 1))]
        if self.kind == "counting":
            whole = random_state.randint(round(self.high - self.low) + 1, size=(n, 1))
            return np.asarray(self.low + whole)
        if self.kind == "sphere":
            rows = random_state.standard_normal((n, len(self.columns)))
            return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))
        return np.asarray(random_state.uniform(self.low, self.high, (n, 1)))


def _sides(
    family: Family, low: Sequence[float], high: Sequence[float], columns: Sequence[int]
) -> list[Side]:
    """Sides of the box of a family over these columns of the rows; raises DataError."""
    if isinstance(family, Product):
        found = []
        for part in family.parts:
            at = list(part.columns)
            bounds = [low[c] for c in at], [high[c] for c in at]
            found += _sides(part.family, *bounds, [columns[c] for c in at])
        return found
    if isinstance(family, Categorical):
        pairs = zip(columns, family.levels, strict=True)
        return [Side((c,), "levels", float(np.log(len(v))), levels=v) for c, v in pairs]
    measure = family.measure(len(columns))
    if "sphere" in measure:
        half = len(columns) / 2
        area = np.log(2) + half * np.log(np.pi) - gammaln(half)
        return [Side(tuple(columns), "sphere", float(area))]
    found = []
    for column, kind, a, b in zip(columns, measure, low, high, strict=True):
        width = b - a + (kind == "counting")
        if width <= 0:
            raise DataError(
                f"column {column} has the value {a} alone, over which noise cannot be spread; "
                "give WithNoise its low and high, or leave the column out"
            )
        found.append(Side((column,), kind, float(np.log(width)), a, b))
    return found


@dataclass(frozen=True, eq=False)
class NoiseSums:
    """The weight Σ r (K,), and the family's statistics, in which noise has no weight."""

    kind: str
    weight: Floats
    inner: Any

    def merge(self, other: NoiseSums) -> NoiseSums:
        """Of both sets of rows."""
        return NoiseSums(self.kind, self.weight + other.weight, self.inner.merge(other.inner))

    def scale(self, factor: float) -> NoiseSums:
        """The same rows with every weight multiplied by `factor`."""
        return NoiseSums(self.kind, self.weight * factor, self.inner.scale(factor))

    def combine(self, parts: Sequence[NoiseSums], alphas: Floats) -> NoiseSums | None:
        """Σ_i α_i parts_i; None where that is no set of statistics."""
        weight = np.asarray(sum(a * part.weight for a, part in zip(alphas, parts, strict=True)))
        inner = self.inner.combine([part.inner for part in parts], alphas)
        return None if inner is None or min(weight) <= 0 else NoiseSums(self.kind, weight, inner)

    def arrays(self) -> dict[str, Floats]:
        """What is stored: names begin with that of the family."""
        own = {f"{self.inner.kind}__{name}": v for name, v in self.inner.arrays().items()}
        return {"weight": self.weight, **own}


@dataclass(frozen=True, eq=False)
class WithNoiseComponents(TiledComponents):
    """Which components are `noise` (K,), as 0 or 1, and components of the family.

    Those at the places of noise stand for nothing.
    """

    noise: Floats
    inner: Any

    @property
    def n_components(self) -> int:
        """K."""
        return len(self.noise)

    @property
    def n_features(self) -> int:
        """D."""
        return int(self.inner.n_features)

    @property
    def _log_volume(self) -> float:
        return float(sum(side.log_volume for side in self.family.box()))

    def arrays(self) -> dict[str, Floats]:
        """Which are noise, and the family's own."""
        return {"noise": self.noise, **self.inner.arrays()}

    def log_density(self, X: NDArray[Any]) -> Floats:
        """That of the family, and minus the log of the volume, or infinity outside of the box."""
        out = np.array(self.inner.log_density(X))
        known = ~np.isnan(out).any(axis=1)
        family = self.family
        inside = ((np.array(family.low) <= X) & (np.array(family.high) >= X)).all(axis=1)
        uniform = np.where(inside, -self._log_volume, -np.inf)
        at = np.flatnonzero(self.noise)
        out[:, at] = np.where(known, uniform, np.nan)[:, None]
        return out

    def summarize(self, X: NDArray[Any], resp: Floats) -> NoiseSums:
        inner = self.inner.summarize(X, resp * (1 - self.noise))
        return NoiseSums(self.family.name, mass_of(resp), inner)

    def expected_log_density(self, statistics: NoiseSums) -> float:
        volume = float(statistics.weight @ self.noise) * self._log_volume
        return float(self.inner.expected_log_density(statistics.inner)) - volume

    def coordinates(self, weights: Floats, statistics: NoiseSums) -> Floats | None:
        """Those of the family; noise has none but its weight."""
        with np.errstate(divide="ignore", invalid="ignore"):
            own = self.inner.coordinates(weights * (1 - self.noise), statistics.inner)
        return None if own is None else np.nan_to_num(own, posinf=0.0, neginf=0.0)

    def maximize(self, statistics: Any) -> Self:
        """That of the family; noise stays as it is."""
        return replace(self, inner=self.inner.maximize(statistics.inner))

    def take(self, components: NDArray[np.intp]) -> Self:
        return replace(self, noise=self.noise[components], inner=self.inner.take(components))

    def reseed(self, components: NDArray[np.intp], rows: NDArray[Any], weights: Floats) -> Self:
        """Those that are not noise; noise stays as it is."""
        own = np.maximum(weights * (1 - self.noise), 1e-100)
        return replace(self, inner=self.inner.reseed(components, rows, own))

    def sample(
        self, counts: NDArray[np.int64], random_state: np.random.RandomState
    ) -> NDArray[Any]:
        return np.vstack([self.draw(k, int(n), random_state) for k, n in enumerate(counts)])

    def draw(self, k: int, n: int, random_state: np.random.RandomState) -> NDArray[Any]:
        if not self.noise[k]:
            one = self.inner.take(np.array([k]))
            return np.asarray(one.sample(np.array([n]), random_state))
        out = np.empty((n, self.n_features))
        for side in self.family.box():
            out[:, side.columns] = side.draw(n, random_state)
        return out

    def seeded(self, rows: NDArray[Any], average: Mapping[str, Floats]) -> dict[str, Floats]:
        raise NotImplementedError("the family's own are started again: see reseed")
