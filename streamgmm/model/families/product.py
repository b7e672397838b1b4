"""Tables of mixed columns: within a component, parts of the columns are independent.

    log p(x | θ_k) = Σ_parts log p(x_part | θ_k,part)

Each part has its columns and a family, its components and its statistics. So an M-step is that
of every part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError, ParameterError
from streamgmm.model.components import Shapes, takes_gaps
from streamgmm.model.families.known import FAMILIES, with_gaps
from streamgmm.model.families.parts import (
    SEPARATOR,
    Part,
    ProductSums,
    Surveys,
    check_apart,
    is_named,
    pair_of,
    part_of,
    split_names,
)
from streamgmm.model.gaps.patterns import has_gaps
from streamgmm.model.gaps.starting import observed
from streamgmm.model.moments import Floats
from streamgmm.model.responsibilities import mass_of
from streamgmm.model.tiles import TiledComponents, TiledFamily


@dataclass(frozen=True, init=False)
class Product(TiledFamily):
    """A family for each part of the columns, which are independent within a component.

    Parameters
    ----------
    *unnamed : (family, columns)
        Parts that are called ``part0``, ``part1`` and so on.
    parts : sequence of (name, family, columns)
        The same as the parts that are named; stored models have it.
    **named : (family, columns)
        Each a family or the name of one, and the numbers of its columns, or their names where
        rows are a table that has them (`with_columns`). Together they are all columns.

    Raises
    ------
    ParameterError
        If columns are in two parts, or twice in one, or a family is not known.

    Examples
    --------
    >>> flights = Product(carrier=("categorical", [0]), times=("full", [1, 2, 3]))
    >>> [part.name for part in flights.parts], flights.parts[1].columns
    (['carrier', 'times'], (1, 2, 3))
    >>> Product(a=("poisson", [0, 1]), b=("full", [1, 2]))
    Traceback (most recent call last):
    streamgmm.errors.ParameterError: column 1 is in 'a' and in 'b'; give each column to one part
    """

    parts: tuple[Part, ...] = field(default=())

    name = "product"

    def __init__(self, *unnamed: Any, parts: Sequence[Any] = (), **named: Any) -> None:
        """Check that the parts are apart."""
        numbered = {f"part{i}": each for i, each in enumerate(unnamed)}
        found = [part_of(*each) for each in parts]
        found += [part_of(name, *pair_of(name, each)) for name, each in (numbered | named).items()]
        check_apart(found)
        object.__setattr__(self, "parts", tuple(found))

    @property
    def surveys(self) -> bool:  # type: ignore[override]
        """Whether any part still takes settings from the rows."""
        return any(part.family.surveys for part in self.parts)

    @property
    def gaps(self) -> bool:  # type: ignore[override]
        """Whether rows of all parts may have gaps."""
        return bool(self.parts) and all(takes_gaps(part.family) for part in self.parts)

    def with_gaps(self, gaps: bool) -> Product:
        """The same parts over rows with gaps; raises ParameterError where one takes none."""
        return Product(parts=[(p.name, with_gaps(p.family, gaps), p.columns) for p in self.parts])

    @property
    def lighter(self) -> str:  # type: ignore[override]
        """What a part could have instead, where memory is short."""
        hints = (f"{p.name}: {p.family.lighter}" for p in self.parts if p.family.lighter)
        return next(hints, "")

    def with_columns(self, names: Sequence[str]) -> Product:
        """The same parts with the numbers of columns that were given by name.

        Raises
        ------
        ParameterError
            If there is no such column.

        Examples
        --------
        >>> Product(n=("poisson", ["calls"])).with_columns(["age", "calls"]).parts[0].columns
        (1,)
        """
        numbers = {name: i for i, name in enumerate(names)}
        missing = [c for p in self.parts for c in p.columns if c not in numbers and is_named(c)]
        if missing:
            raise ParameterError(
                f"there is no column '{missing[0]}'; the columns are {', '.join(map(str, names))}"
            )
        return Product(
            parts=[
                (p.name, p.family, [numbers[c] if is_named(c) else c for c in p.columns])
                for p in self.parts
            ]
        )

    def check_columns(self, d: int) -> None:
        """Check that the parts are all of D columns; raises ParameterError."""
        every = [c for part in self.parts for c in part.columns]
        names = [c for c in every if is_named(c)]
        if names:
            raise ParameterError(
                f"column '{names[0]}' is given by its name, and the rows have none; give its "
                "number, or a table with named columns"
            )
        if not self.parts:
            raise ParameterError(
                'a Product needs parts, such as Product(calls=("poisson", [0, 1]))'
            )
        beyond = [c for c in every if c >= d]
        if beyond:
            raise ParameterError(f"column {beyond[0]} is beyond the rows, which have {d} columns")
        missing = sorted(set(range(d)) - set(every))
        if missing:
            listed = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
            raise ParameterError(f"columns {listed} are in no part of the Product; give them one")

    def measure(self, d: int) -> tuple[str, ...]:
        self.check_columns(d)
        out = [""] * d
        for part in self.parts:
            own = part.family.measure(len(part.columns))
            for column, each in zip(part.columns, own, strict=True):
                out[column] = each
        return tuple(out)

    def n_parameters(self, k: int, d: int) -> int:
        self.check_columns(d)
        own = (p.family.n_parameters(k, len(p.columns)) - (k - 1) for p in self.parts)
        return int(sum(own)) + k - 1

    def least_rows(self, d: int) -> int:
        return int(max(p.family.least_rows(len(p.columns)) for p in self.parts))

    def parameter_shapes(self, k: int, d: int) -> Shapes:
        self.check_columns(d)
        return {
            p.name + SEPARATOR + name: shape
            for p in self.parts
            for name, shape in p.family.parameter_shapes(k, len(p.columns)).items()
        }

    def sum_shapes(self, k: int, d: int) -> Shapes:
        self.check_columns(d)
        return {
            SEPARATOR.join((p.name, p.family.name, name)): shape
            for p in self.parts
            for name, shape in p.family.statistic_shapes(k, len(p.columns)).items()
        }

    def components(self, **arrays: Floats) -> ProductComponents:
        split = split_names(arrays)
        parts = tuple(p.family.components(**split[p.name]) for p in self.parts)
        return ProductComponents(self, parts)

    def of_parameters(self, *parameters: Any) -> ProductComponents:
        """Components of a tuple of parameters for each part, in the order of the parts."""
        parts = zip(self.parts, parameters, strict=True)
        return ProductComponents(self, tuple(p.family.of_parameters(*own) for p, own in parts))

    def statistics(self, **arrays: Floats) -> Any:
        weight = arrays.pop("weight")
        parts = {}
        for name, own in split_names(arrays).items():
            ((kind, each),) = split_names(own).items()
            parts[name] = FAMILIES[kind].statistics(**each)
        return ProductSums(self.name, weight, parts)

    def begin(
        self, X: NDArray[Any], weight: Floats | None, resp: NDArray[Any], k: int
    ) -> ProductSums:
        """Those of every part."""
        parts = {p.name: p.family.begin(p.of(X), weight, resp, k) for p in self.parts}
        return ProductSums(self.name, next(iter(parts.values())).weight, parts)

    def summarize(self, X: NDArray[Any], resp: Floats) -> Any:
        """Those of every part."""
        parts = {p.name: p.family.summarize(p.of(X), resp) for p in self.parts}
        return ProductSums(self.name, mass_of(resp), parts)

    def estimate(self, statistics: Any) -> ProductComponents:
        """Those of every part."""
        return self._each(lambda part, own: part.family.estimate(own), statistics)

    def start(self, statistics: Any, given: Mapping[str, Floats]) -> ProductComponents:
        return self._each(lambda part, own: part.family.start(own, {}), statistics)

    def _each(self, make: Callable[[Part, Any], Any], statistics: Any) -> ProductComponents:
        made = tuple(make(part, statistics.parts[part.name]) for part in self.parts)
        return ProductComponents(self, made)

    def survey(self, X: NDArray[Any]) -> Surveys:
        found = []
        for part in self.parts:
            try:
                found.append(part.family.survey(part.of(X)) if part.family.surveys else None)
            except DataError as error:
                raise DataError(f"'{part.name}': {part.told(str(error))}") from error
        return Surveys(tuple(found))

    def informed(self, survey: Surveys) -> Product:
        pairs = zip(self.parts, survey.each, strict=True)
        parts = [(p.name, p.family.informed(s) if p.family.surveys else p.family, p.columns)
                 for p, s in pairs]  # fmt: skip
        return Product(parts=parts)

    def clustered(self, X: NDArray[Any]) -> NDArray[Any]:
        """Columns of all parts as these see them, each as wide as another.

        A column with a density is divided by its standard deviation. Categories, counts and
        directions keep their proportions, and have variance one a column of the part.
        """
        return np.concatenate([_scaled(part, part.of(X)) for part in self.parts], axis=1)

    def unsuitable(self, X: NDArray[Any]) -> tuple[int, str] | None:
        found = []
        for part in self.parts:
            each = part.family.unsuitable(part.of(X))
            if each is not None:
                found.append((each[0], f"'{part.name}': {part.told(each[1])}"))
        return min(found, default=None)


def _scaled(part: Part, X: NDArray[Any]) -> NDArray[Any]:
    seen = np.asarray(part.family.clustered(X), np.float64)
    if takes_gaps(part.family) and has_gaps(seen):
        _, centre, spread = observed(seen)
    else:
        centre, spread = seen.mean(axis=0), seen.var(axis=0)
    alike = set(part.family.measure(len(part.columns))) != {"lebesgue"}
    if alike or seen.shape[1] != len(part.columns):
        spread = np.full(seen.shape[1], spread.sum() / len(part.columns))
    scale = np.sqrt(np.where(spread > 0, spread, 1.0))
    return np.asarray((seen - centre) / scale)


@dataclass(frozen=True, eq=False)
class ProductComponents(TiledComponents):
    """The components of each part, in the order of the parts."""

    parts: tuple[Any, ...]

    def _pairs(self) -> list[tuple[Part, Any]]:
        return list(zip(self.family.parts, self.parts, strict=True))

    def _with(self, parts: Sequence[Any]) -> Self:
        return type(self)(self.family, tuple(parts))

    @property
    def n_components(self) -> int:
        """K."""
        return int(self.parts[0].n_components)

    @property
    def n_features(self) -> int:
        """D."""
        return sum(len(part.columns) for part in self.family.parts)

    def arrays(self) -> dict[str, Floats]:
        """Those of every part; names begin with that of the part."""
        return {
            part.name + SEPARATOR + name: value
            for part, own in self._pairs()
            for name, value in own.arrays().items()
        }

    def log_density(self, X: NDArray[Any]) -> Floats:
        total = np.zeros((len(X), self.n_components))
        for part, own in self._pairs():
            total += own.log_density(part.of(X))
        return total

    def summarize(self, X: NDArray[Any], resp: Floats) -> ProductSums:
        parts = {part.name: own.summarize(part.of(X), resp) for part, own in self._pairs()}
        return ProductSums(self.family.name, mass_of(resp), parts)

    def expected_log_density(self, statistics: ProductSums) -> float:
        return float(
            sum(own.expected_log_density(statistics.parts[p.name]) for p, own in self._pairs())
        )

    def coordinates(self, weights: Floats, statistics: ProductSums) -> Floats | None:
        """Those of all parts, where each has some."""
        each = [own.coordinates(weights, statistics.parts[p.name]) for p, own in self._pairs()]
        return None if any(one is None for one in each) else np.concatenate(each)

    def maximize(self, statistics: Any) -> Self:
        return self._with(
            [own.maximize(statistics.parts[part.name]) for part, own in self._pairs()]
        )

    def take(self, components: NDArray[np.intp]) -> Self:
        return self._with([own.take(components) for own in self.parts])

    def reseed(self, components: NDArray[np.intp], rows: NDArray[Any], weights: Floats) -> Self:
        return self._with(
            [own.reseed(components, part.of(rows), weights) for part, own in self._pairs()]
        )

    def sample(
        self, counts: NDArray[np.int64], random_state: np.random.RandomState
    ) -> NDArray[Any]:
        out = np.empty((int(counts.sum()), self.n_features))
        for part, own in self._pairs():
            out[:, part.columns] = own.sample(counts, random_state)
        return out

    def draw(self, k: int, n: int, random_state: np.random.RandomState) -> NDArray[Any]:
        counts = np.zeros(self.n_components, np.int64)
        counts[k] = n
        return self.sample(counts, random_state)

    def seeded(self, rows: NDArray[Any], average: Mapping[str, Floats]) -> dict[str, Floats]:
        raise NotImplementedError("parts are started again one by one: see reseed")
