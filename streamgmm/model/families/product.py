"""Tables of mixed columns: within a component, parts of the columns are independent.

    log p(x | θ_k) = Σ_parts log p(x_part | θ_k,part)

Each part has its columns and a family, its components and its statistics. So an M-step is that
of every part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError, ParameterError
from streamgmm.model.components import Shapes
from streamgmm.model.families.known import FAMILIES, parse_family
from streamgmm.model.moments import Floats
from streamgmm.model.tiles import TiledComponents, TiledFamily, mass_of

SEPARATOR = "__"  # between the name of a part and that of an array, as in scikit-learn


class Part(NamedTuple):
    """Some of the columns and their family; columns are numbers, or names until they are known."""

    name: str
    family: Any
    columns: tuple[Any, ...]

    def of(self, X: NDArray[Any]) -> NDArray[Any]:
        """The columns of the part, of rows (n, D)."""
        return np.ascontiguousarray(X[:, self.columns])

    def told(self, why: str) -> str:
        """What a family says of its columns, with their numbers among all.

        >>> Part("a", None, (4, 7)).told("a negative count, -1, in column 1")
        'a negative count, -1, in column 7'
        """
        return re.sub(r"\bcolumn (\d+)", lambda m: f"column {self.columns[int(m[1])]}", why)


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
        found = [_part(*each) for each in parts]
        found += [_part(name, *_pair(name, each)) for name, each in (numbered | named).items()]
        _check_apart(found)
        object.__setattr__(self, "parts", tuple(found))

    @property
    def surveys(self) -> bool:  # type: ignore[override]
        """Whether any part still takes settings from the rows."""
        return any(part.family.surveys for part in self.parts)

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
        missing = [c for p in self.parts for c in p.columns if c not in numbers and _named(c)]
        if missing:
            raise ParameterError(
                f"there is no column '{missing[0]}'; the columns are {', '.join(map(str, names))}"
            )
        return Product(
            parts=[
                (p.name, p.family, [numbers[c] if _named(c) else c for c in p.columns])
                for p in self.parts
            ]
        )

    def check_columns(self, d: int) -> None:
        """Check that the parts are all of D columns; raises ParameterError."""
        every = [c for part in self.parts for c in part.columns]
        names = [c for c in every if _named(c)]
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
        split = _split(arrays)
        parts = tuple(p.family.components(**split[p.name]) for p in self.parts)
        return ProductComponents(self, parts)

    def of_parameters(self, *parameters: Any) -> ProductComponents:
        """Components of a tuple of parameters for each part, in the order of the parts."""
        parts = zip(self.parts, parameters, strict=True)
        return ProductComponents(self, tuple(p.family.of_parameters(*own) for p, own in parts))

    def statistics(self, **arrays: Floats) -> Any:
        weight = arrays.pop("weight")
        parts = {}
        for name, own in _split(arrays).items():
            ((kind, each),) = _split(own).items()
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


def _named(column: Any) -> bool:
    return isinstance(column, str)


def _pair(name: str, given: Any) -> tuple[Any, Any]:
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise ParameterError(
            f"{name}={given!r}: give a family and its columns, such as ('poisson', [0, 1])"
        )
    return given[0], given[1]


def _part(name: str, family: Any, columns: Any) -> Part:
    """A part, with its family by its name and its columns as a tuple; raises ParameterError."""
    if not name.isidentifier() or SEPARATOR in name or name.endswith("_"):
        raise ParameterError(
            f"'{name}' cannot be the name of a part: give letters and digits without "
            f"'{SEPARATOR}' in them"
        )
    given = (columns,) if isinstance(columns, (str, int, np.integer)) else tuple(columns)
    parsed = tuple(c if _named(c) else int(c) for c in given)
    if not parsed:
        raise ParameterError(f"part '{name}' has no columns")
    if any(not _named(c) and c < 0 for c in parsed):
        raise ParameterError(f"part '{name}': columns are counted from 0, {min(parsed)} is none")
    return Part(name, parse_family(family), parsed)


def _check_apart(parts: Sequence[Part]) -> None:
    owner: dict[Any, str] = {}
    if len({part.name for part in parts}) < len(parts):
        raise ParameterError("two parts of a Product have the same name")
    for part in parts:
        for column in part.columns:
            called = repr(column) if _named(column) else str(column)
            if owner.get(column) == part.name:
                raise ParameterError(f"column {called} is named twice in '{part.name}'")
            if column in owner:
                raise ParameterError(
                    f"column {called} is in '{owner[column]}' and in '{part.name}'; give each "
                    "column to one part"
                )
            owner[column] = part.name


def _split(arrays: Mapping[str, Floats]) -> dict[str, dict[str, Floats]]:
    """Arrays by what stands before the first separator of their names."""
    out: dict[str, dict[str, Floats]] = {}
    for name, array in arrays.items():
        first, _, rest = name.partition(SEPARATOR)
        out.setdefault(first, {})[rest] = array
    return out


def _scaled(part: Part, X: NDArray[Any]) -> NDArray[Any]:
    seen = np.asarray(part.family.clustered(X), np.float64)
    spread = seen.var(axis=0)
    alike = set(part.family.measure(len(part.columns))) != {"lebesgue"}
    if alike or seen.shape[1] != len(part.columns):
        spread = np.full(seen.shape[1], spread.sum() / len(part.columns))
    scale = np.sqrt(np.where(spread > 0, spread, 1.0))
    return np.asarray((seen - seen.mean(axis=0)) / scale)


@dataclass(frozen=True, eq=False)
class Surveys:
    """What settings of each part depend on."""

    each: tuple[Any, ...]

    def merge(self, other: Surveys) -> Surveys:
        """Of both sets of rows."""
        pairs = zip(self.each, other.each, strict=True)
        return Surveys(tuple(None if a is None else a.merge(b) for a, b in pairs))


@dataclass(frozen=True, eq=False)
class ProductSums:
    """The weight Σ r (K,), and the statistics of each part, by its name."""

    kind: str
    weight: Floats
    parts: Mapping[str, Any]

    def merge(self, other: ProductSums) -> ProductSums:
        """Part by part."""
        parts = {name: own.merge(other.parts[name]) for name, own in self.parts.items()}
        return ProductSums(self.kind, self.weight + other.weight, parts)

    def scale(self, factor: float) -> ProductSums:
        """Part by part."""
        parts = {name: own.scale(factor) for name, own in self.parts.items()}
        return ProductSums(self.kind, self.weight * factor, parts)

    def combine(self, parts: Sequence[ProductSums], alphas: Floats) -> ProductSums | None:
        """Part by part; None where that is no set of statistics of any part."""
        weight = sum(a * part.weight for a, part in zip(alphas, parts, strict=True))
        made = {
            name: own.combine([part.parts[name] for part in parts], alphas)
            for name, own in self.parts.items()
        }
        if any(own is None for own in made.values()) or not np.all(weight > 0):
            return None
        return ProductSums(self.kind, np.asarray(weight), made)

    def arrays(self) -> dict[str, Floats]:
        """What is stored: names are of the part, its family and its array."""
        return {"weight": self.weight} | {
            SEPARATOR.join((name, own.kind, array)): value
            for name, own in self.parts.items()
            for array, value in own.arrays().items()
        }


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
