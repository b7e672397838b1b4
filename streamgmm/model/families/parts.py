"""Parts of a table: some of its columns, their family, and the statistics of all parts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import ParameterError
from streamgmm.model.families.known import parse_family
from streamgmm.model.moments import Floats

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


def is_named(column: Any) -> bool:
    """Whether a column is given by its name."""
    return isinstance(column, str)


def pair_of(name: str, given: Any) -> tuple[Any, Any]:
    """A family and its columns, as a person gives them; raises ParameterError."""
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise ParameterError(
            f"{name}={given!r}: give a family and its columns, such as ('poisson', [0, 1])"
        )
    return given[0], given[1]


def part_of(name: str, family: Any, columns: Any) -> Part:
    """A part, with its family by its name and its columns as a tuple; raises ParameterError."""
    if not name.isidentifier() or SEPARATOR in name or name.endswith("_"):
        raise ParameterError(
            f"'{name}' cannot be the name of a part: give letters and digits without "
            f"'{SEPARATOR}' in them"
        )
    given = (columns,) if isinstance(columns, (str, int, np.integer)) else tuple(columns)
    parsed = tuple(c if is_named(c) else int(c) for c in given)
    if not parsed:
        raise ParameterError(f"part '{name}' has no columns")
    if any(not is_named(c) and c < 0 for c in parsed):
        raise ParameterError(f"part '{name}': columns are counted from 0, {min(parsed)} is none")
    return Part(name, parse_family(family), parsed)


def check_apart(parts: Sequence[Part]) -> None:
    """Check that no column is in two parts, or twice in one; raises ParameterError."""
    owner: dict[Any, str] = {}
    if len({part.name for part in parts}) < len(parts):
        raise ParameterError("two parts of a Product have the same name")
    for part in parts:
        for column in part.columns:
            called = repr(column) if is_named(column) else str(column)
            if owner.get(column) == part.name:
                raise ParameterError(f"column {called} is named twice in '{part.name}'")
            if column in owner:
                raise ParameterError(
                    f"column {called} is in '{owner[column]}' and in '{part.name}'; give each "
                    "column to one part"
                )
            owner[column] = part.name


def split_names(arrays: Mapping[str, Floats]) -> dict[str, dict[str, Floats]]:
    """Arrays by what stands before the first separator of their names."""
    out: dict[str, dict[str, Floats]] = {}
    for name, array in arrays.items():
        first, _, rest = name.partition(SEPARATOR)
        out.setdefault(first, {})[rest] = array
    return out


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
