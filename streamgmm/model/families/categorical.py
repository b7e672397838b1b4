"""Categories: columns of any number of levels that are independent within a component."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError, ParameterError
from streamgmm.kernels import categories
from streamgmm.model.components import NO_WEIGHT, Accumulator, BlockSums, Posterior, Shapes
from streamgmm.model.covariances.base import Layout
from streamgmm.model.families.multinomial import shares
from streamgmm.model.gaps.apart import RowsApart
from streamgmm.model.gaps.patterns import has_gaps
from streamgmm.model.moments import Floats
from streamgmm.model.responsibilities import mass_of
from streamgmm.model.sums import Sums
from streamgmm.model.tiles import TiledAccumulator, TiledComponents, TiledDensity, TiledFamily

MOST_COLUMNS = 512  # that k-means sees
FEW = 8  # levels a column that are assumed before the rows have been read


@dataclass(frozen=True)
class Categorical(TiledFamily):
    """Categorical components: in each column a probability for every level.

    Parameters
    ----------
    unknown : {"raise", "ignore"}, default="raise"
        What to do with a value that no row had when the model was fitted: name the row and the
        value, or leave that column of the row out of its density.
    least_probability : float, default=1e-10
        No probability is estimated below it. So a level that no row of a component has is
        unlikely in it, and not impossible.
    most_levels : int, default=1000
        Columns of more distinct values are refused: they are no categories.
    levels : tuple of tuples of float, default=()
        The values of each column, sorted. Where it is empty, a fit takes those of the rows. They
        need be neither whole numbers nor next to one another.

    Examples
    --------
    >>> Categorical(levels=((0, 1, 2), (5, 7))).n_parameters(2, 2)
    7
    """

    unknown: str = "raise"
    least_probability: float = 1e-10
    most_levels: int = 1000
    levels: tuple[tuple[float, ...], ...] = ()
    gaps: bool = field(default=False, repr=False)

    name = "categorical"
    base = "counting"

    def __post_init__(self) -> None:
        """Check the settings; levels become sorted tuples of floats."""
        if self.unknown not in ("raise", "ignore"):
            raise ParameterError(f"unknown={self.unknown!r} is neither 'raise' nor 'ignore'")
        levels = tuple(tuple(sorted({float(v) for v in column})) for column in self.levels)
        if not all(levels):
            raise ParameterError("levels: every column needs one level or more")
        object.__setattr__(self, "levels", levels)

    @property
    def surveys(self) -> bool:  # type: ignore[override]
        """Whether levels are still to be taken from the rows."""
        return not self.levels

    def counts(self, d: int) -> list[int]:
        """How many levels each of D columns has; a guess before the rows have been read."""
        if self.levels and len(self.levels) != d:
            raise ParameterError(f"levels are of {len(self.levels)} columns, and rows have {d}")
        return [len(column) for column in self.levels] or [FEW] * d

    def n_parameters(self, k: int, d: int) -> int:
        return k * sum(n - 1 for n in self.counts(d)) + k - 1

    def parameter_shapes(self, k: int, d: int) -> Shapes:
        return {"probabilities": (k, d, max(self.counts(d)))}

    def sum_shapes(self, k: int, d: int) -> Shapes:
        return {"counts": (k, d, max(self.counts(d)))}

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """Which places of (D, levels) are levels of their column."""
        sizes = np.array([len(column) for column in self.levels])
        return np.asarray(np.arange(sizes.max()) < sizes[:, None])

    @cached_property
    def flat(self) -> tuple[Floats, NDArray[np.int64]]:
        """All levels in one array, and where those of each column begin."""
        sizes = [len(column) for column in self.levels]
        return np.concatenate(self.levels), np.concatenate([[0], np.cumsum(sizes)])

    @property
    def regular(self) -> bool:
        """Whether the levels of every column are consecutive whole numbers."""
        return all(v == column[0] + i for column in self.levels for i, v in enumerate(column))

    def codes(self, X: NDArray[Any]) -> NDArray[np.int32]:
        """Which level each value of rows (n, D) is; -1 where it is none."""
        out = np.empty(X.shape, np.int32)
        categories.encode(np.ascontiguousarray(X), *self.flat, out)
        return out

    def survey(self, X: NDArray[Any]) -> Levels:
        """The distinct values of each column; raises DataError where there are too many."""
        if self.gaps and has_gaps(X):
            each = (np.unique(column[~np.isnan(column)]) for column in X.T)
            return Levels(self.most_levels, tuple(v.astype(np.float64) for v in each)).checked()
        first = [np.unique(column) for column in X[:1000].T]
        found = Levels(self.most_levels, tuple(v.astype(np.float64) for v in first)).checked()
        if not len(X):
            return found
        codes = self.informed(found).codes(X)
        for d in np.flatnonzero((codes == categories.UNKNOWN).any(axis=0)):
            values = list(found.values)
            values[d] = np.union1d(values[d], X[codes[:, d] == categories.UNKNOWN, d])
            found = Levels(self.most_levels, tuple(values)).checked()
        return found

    def informed(self, survey: Levels) -> Categorical:
        """With the levels of all rows."""
        return replace(self, levels=tuple(tuple(v.tolist()) for v in survey.values))

    def clustered(self, X: NDArray[Any]) -> NDArray[Any]:
        """A column for each level, 1/√2 where a row has it: rows that differ are at distance 1.

        Where levels are many, some share a column, with random signs, which keeps distances in
        the mean (feature hashing: Weinberger et al. 2009).
        """
        codes, (levels, starts) = self.codes(X), self.flat
        n = len(levels)
        at, value = np.arange(n), np.full(n, np.sqrt(0.5), np.float32)
        if n > MOST_COLUMNS:
            random = np.random.default_rng(0)
            at = random.integers(MOST_COLUMNS, size=n)
            value *= random.choice(np.array([-1, 1], np.float32), n)
        out = np.zeros((len(X), min(n, MOST_COLUMNS)), np.float32)
        rows, columns = np.nonzero(codes != categories.UNKNOWN)
        level = starts[columns] + codes[rows, columns]
        np.add.at(out, (rows, at[level]), value[level])
        return out

    def components(self, **arrays: Floats) -> CategoricalComponents:
        return CategoricalComponents(self, **arrays)

    def of_parameters(self, *parameters: Floats) -> CategoricalComponents:
        return CategoricalComponents(self, *parameters)

    def summarize(self, X: NDArray[Any], resp: Floats) -> Sums:
        """Σ r of each level of each column."""
        levels, starts = self.flat
        counts = np.zeros((len(levels), resp.shape[1]))
        categories.count(self.codes(X), np.ascontiguousarray(resp), starts, counts)
        return Sums(self.name, mass_of(resp), {"counts": self.padded(counts.T)})

    def padded(self, flat: Floats) -> Floats:
        """Values of all levels (K, all of them) as (K, D, levels), zero where there is none."""
        out = np.zeros((len(flat), *self.mask.shape))
        out[:, self.mask] = flat
        return out

    def estimate(self, statistics: Sums) -> CategoricalComponents:
        """The share of each level among the rows of a component."""
        out = np.zeros_like(statistics["counts"])
        for d, column in enumerate(self.levels):
            here = slice(None), d, slice(len(column))
            out[here] = shares(statistics["counts"][here], self)
        return CategoricalComponents(self, out)

    def unsuitable(self, X: NDArray[Any]) -> tuple[int, str] | None:
        gone = np.isnan(X) & self.gaps
        bad = ~np.isfinite(X) & ~gone
        if self.levels and self.unknown == "raise":
            bad |= (self.codes(X) == categories.UNKNOWN) & ~gone
        if not bad.any():
            return None
        row, column = divmod(int(bad.argmax()), X.shape[1])
        why = f"category {float(X[row, column])} in column {column}, which no row had in the fit"
        return row, f"{why} (unknown='ignore' leaves the column out of the row's density)"


@dataclass(frozen=True, eq=False)
class Levels:
    """The distinct values of each column, sorted; no more than `most`."""

    most: int
    values: tuple[Floats, ...]

    def merge(self, other: Levels) -> Levels:
        """Those of both sets of rows; raises DataError where there are too many."""
        both = tuple(np.union1d(a, b) for a, b in zip(self.values, other.values, strict=True))
        return Levels(self.most, both).checked()

    def checked(self) -> Levels:
        """These levels; raises DataError where there are too many."""
        for column, values in enumerate(self.values):
            if len(values) > self.most:
                raise DataError(
                    f"column {column} has more than {self.most} distinct values: they are no "
                    "categories; choose another family for it, or raise most_levels"
                )
        return self


@dataclass(frozen=True, eq=False)
class CategoricalComponents(TiledComponents):
    """Probabilities of each level of each column (K, D, levels).

    Columns of fewer levels than others are padded with zeros; the levels themselves are
    `Categorical.levels`, in the same order.
    """

    probabilities: Floats

    @property
    def logs(self) -> Floats:
        """log p of all levels of all columns (K, all of them)."""
        return np.asarray(np.log(self.probabilities[:, self.family.mask]))

    def density(self, weights: Floats) -> CategoricalDensity:
        """As the kernels take them."""
        return CategoricalDensity(weights, self)

    def log_density(self, X: NDArray[Any]) -> Floats:
        """Σ_d log p of a row's levels; NaN for a row with an unknown one that is to be named."""
        codes, (_, starts) = self.family.codes(X), self.family.flat
        gone = np.isnan(X) & self.family.gaps
        table = np.vstack([self.logs.T, np.zeros(len(self.probabilities))])
        out = np.zeros((len(X), len(self.probabilities)))
        for d in range(X.shape[1]):
            unknown = codes[:, d] == categories.UNKNOWN
            out += table[np.where(unknown, -1, starts[d] + codes[:, d])]
            if self.family.unknown == "raise":
                out[unknown & ~gone[:, d]] = np.nan
        out[~(np.isfinite(X) | gone).all(axis=1)] = np.nan
        return out

    def expected_log_density(self, statistics: Sums) -> float:
        return float(np.sum(statistics["counts"][:, self.family.mask] * self.logs))

    def coordinates(self, weights: Floats, statistics: Sums) -> Floats:
        """√(π/p) times the shift of the probabilities."""
        mask = self.family.mask
        counts = statistics["counts"]
        known = counts.sum(axis=2, keepdims=True) / statistics.weight[:, None, None]
        p = self.probabilities
        shift = self.family.estimate(statistics).probabilities - p
        scaled = shift * np.sqrt(weights[:, None, None] * known)
        return np.asarray((scaled[:, mask] / np.sqrt(p[:, mask])).ravel())

    def draw(self, k: int, n: int, random_state: np.random.RandomState) -> NDArray[Any]:
        columns = [
            np.array(levels)[random_state.choice(len(levels), n, p=p[: len(levels)])]
            for levels, p in zip(self.family.levels, self.probabilities[k], strict=True)
        ]
        return np.stack(columns, axis=1)

    def seeded(self, rows: NDArray[Any], average: Mapping[str, Floats]) -> dict[str, Floats]:
        """Half way from the others' probabilities to the row, which is but one draw."""
        own = average["probabilities"][None] / 2
        out = np.repeat(own, len(rows), axis=0)
        codes = self.family.codes(np.asarray(rows))
        at, columns = np.nonzero(codes != categories.UNKNOWN)
        out[at, columns, codes[at, columns]] += 0.5
        unknown = np.nonzero(codes == categories.UNKNOWN)
        out[unknown] *= 2
        return {"probabilities": out}


@dataclass(frozen=True, eq=False)
class CategoricalDensity(TiledDensity):
    """Components and weights, with the tables of the kernels."""

    @cached_property
    def tables(self) -> tuple[Layout, int, tuple[Any, ...]]:
        """The layout of tiles, the width of the table, and what the kernels are told."""
        components: Any = self.components
        logs, family = components.logs, components.family
        k, d = len(self.weights), len(family.levels)
        width = -(-k // 8) * 8
        table = np.zeros((logs.shape[1] + 1, width))
        table[:-1, :k] = logs.T
        with np.errstate(divide="ignore"):
            const = np.log(self.weights)
        told = *family.flat, family.regular, table.ravel(), const, family.unknown == "raise"
        return Layout(k, d, np.dtype(np.float64)), width, told

    def __getstate__(self) -> dict[str, Any]:
        """What is sent to others: not the tables."""
        return {name: value for name, value in self.__dict__.items() if name != "tables"}

    def scratch(self) -> tuple[Any, ...]:
        """Rows of a tile, and arrays that the kernels write to."""
        at, width, _ = self.tables
        work = np.empty(2 * at.k * at.T + width)
        return at.T, work, at.rows, np.empty(at.T * at.d, np.int64)

    def accumulator(
        self, like: NDArray[Any], weighted: bool = False, centres: Floats | None = None
    ) -> Accumulator:
        """A compiled E-step."""
        if self.components.family.gaps:
            return RowsApart(CategoricalAccumulator(self), TiledAccumulator(self))
        return CategoricalAccumulator(self)

    def posterior(self, X: NDArray[Any], *, labels: bool = False, resp: bool = False) -> Posterior:
        """Log-densities of rows (n, D), with labels and responsibilities where asked for."""
        if self.components.family.gaps and has_gaps(X):
            return super().posterior(X, labels=labels, resp=resp)
        n, k = len(X), len(self.weights)
        out = Posterior(
            np.empty(n), np.empty(n if labels else 0, np.int32), np.empty((n if resp else 0, k))
        )
        _, _, told = self.tables
        categories.category_posterior(
            np.ascontiguousarray(X), *told, *self.scratch(), out.log_density, out.labels, out.resp
        )
        return out


class CategoricalAccumulator:
    """An E-step in compiled tiles: see `Accumulator`."""

    def __init__(self, density: CategoricalDensity) -> None:
        at, width, told = density.tables
        self._density, self._scratch = density, density.scratch()
        self._totals, self._n = np.zeros(2), np.zeros(at.k)
        self._counts = np.zeros((len(told[0]) + 1) * width)

    def add(self, X: NDArray[Any], sample_weight: Floats = NO_WEIGHT) -> None:
        """Add rows (n, D), and weights (n,) or none."""
        _, _, told = self._density.tables
        categories.category_sums(
            np.ascontiguousarray(X), sample_weight, *told, *self._scratch,
            self._totals, self._n, self._counts,
        )  # fmt: skip

    def result(self) -> BlockSums:
        """The sums of all rows added."""
        at, width, _ = self._density.tables
        family = self._density.components.family
        counts = family.padded(self._counts.reshape(-1, width)[:-1, : at.k].T)
        statistics = Sums(family.name, self._n, {"counts": counts})
        return BlockSums(float(self._totals[0]), float(self._totals[1]), statistics)
