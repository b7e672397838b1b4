"""Pass 0: all rows looked at once, their moments, and a uniform sample of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import ChunkError, DataError
from streamgmm.fitting.effort import count_parameters, rows_of_start
from streamgmm.fitting.settings import FitSettings, truncated
from streamgmm.kernels.columns import column_sums, observed_sums
from streamgmm.model.components import NO_WEIGHT, Family, takes_gaps
from streamgmm.model.moments import Floats, Moments
from streamgmm.sources import (
    Block,
    Piece,
    Source,
    check_finite,
    shaped,
    unreadable,
    without_rows,
)

WHOLE_BYTES = 16 << 20  # rows of up to this many bytes are kept whole
RESERVOIR_BYTES = 256 << 20  # the reservoir never exceeds this
LEAST_ROWS_PER_PARAMETER = 10
ROWS_OF_FEW = 64  # a component, or four a feature, where rows look at few of the components
MOST_ROWS_PER_PARAMETER = 200  # that the best start climbs on, up to a third of the data


@dataclass(frozen=True)
class Holdout:
    """Which rows are held out: those whose hash is among the smallest `fraction`."""

    fraction: float
    seed: int

    def mask(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """True for those of some rows that are held out.

        >>> round(float(Holdout(0.25, 1).mask(np.arange(10_000)).mean()), 2)
        0.25
        """
        limit = np.uint64(int(self.fraction * (2**64 - 1)))
        return np.asarray(hash_rows(numbers, self.seed) < limit)

    def weights(self, piece: Piece) -> Floats:
        """The piece's weights, zero for held-out rows: as if they were not there."""
        weight = piece.sample_weight
        weight = np.ones(len(piece.rows)) if weight is None else weight.copy()
        weight[self.mask(piece.numbers())] = 0.0
        return weight


@dataclass(frozen=True)
class SamplePlan:
    """How pass 0 samples: the `size` rows of the smallest keys, drawn by `seed`.

    A row's key is a hash of the seed and the row's index, so the sample depends on neither
    blocks nor workers. Rows of weight zero are not sampled. Rows whose key exceeds `threshold`
    cannot be among them (but for one sample in 1e9) and stay where they are. All rows must suit
    the `families`.
    """

    name: str
    size: int
    seed: int
    threshold: int
    holdout: Holdout | None = None
    skip: bool = False
    families: tuple[Family, ...] = ()

    @property
    def thorough(self) -> SamplePlan:
        """The same sample without a threshold: for weights that are mostly zero."""
        return replace(self, threshold=2**64 - 1)


@dataclass(frozen=True, eq=False)
class Summary:
    """What pass 0 leaves: all rows' moments (one component, diagonal), and the sample.

    `keys`, `rows` (m, D) and `weight` (m,) are of the sampled rows, in the order of the data;
    `skipped` are runs of rows, as (start, stop), that could not be read. `surveys` are what
    settings of the plan's families depend on; None for those that take none from the rows.
    """

    n_rows: int
    size: int
    moments: Moments
    keys: NDArray[np.uint64]
    rows: NDArray[Any]
    weight: Floats
    skipped: tuple[tuple[int, int], ...] = ()
    surveys: tuple[Any, ...] = ()

    def merge(self, other: Summary) -> Summary:
        """Moments of all rows, and the smallest keys of both samples.

        There may be more of them than asked for, since trimming copies all that is left, and few
        keys are over the threshold.
        """
        both = Summary(
            self.n_rows + other.n_rows,
            self.size,
            self.moments.merge(other.moments),
            np.concatenate([self.keys, other.keys]),
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.weight, other.weight]),
            self.skipped + other.skipped,
            merge_surveys(self.surveys, other.surveys),
        )
        return both if len(both.keys) <= 2 * self.size else both.trimmed(self.size)

    def trimmed(self, size: int) -> Summary:
        """The same moments with the `size` rows of the smallest keys, a uniform sample too."""
        if len(self.keys) <= size:
            return self
        keep = np.sort(np.argpartition(self.keys, size - 1)[:size])
        return replace(
            self,
            size=size,
            keys=self.keys[keep],
            rows=self.rows[keep],
            weight=self.weight[keep],
        )

    def first(self, n: int) -> tuple[NDArray[Any], Floats | None]:
        """The n rows of the smallest keys, in random order; no weights where all are the same.

        So those of a smaller n are the first of those of a larger one.
        """
        few = self.trimmed(n)
        order = np.argsort(few.keys, kind="stable")
        return few.rows[order], _unless_same(few.weight[order])

    @property
    def known(self) -> tuple[NDArray[Any], Floats | None]:
        """All sampled rows, in the order of the data; no weights where all are the same."""
        return self.rows, _unless_same(self.weight)


def _unless_same(weight: Floats) -> Floats | None:
    return None if len(weight) == 0 or np.all(weight == weight[0]) else weight


def hash_rows(numbers: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """A uniform 64-bit key for each row number (Steele, Lea & Flood 2014, SplitMix64).

    >>> hash_rows(np.arange(2), 0).tolist() == hash_rows(np.arange(9), 0)[:2].tolist()
    True
    """
    with np.errstate(over="ignore"):
        z = numbers.astype(np.uint64) + np.uint64(seed) * np.uint64(0xD1342543DE82EF95)
        z = (z + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))


def plan_sample(source: Source, settings: FitSettings, *, whole: bool, seed: int) -> SamplePlan:
    """Up to 200 rows a parameter, the whole data where `whole` and it is small enough.

    200 only up to a third of the data: the likelihood of the best model of m rows lies about
    p/2m nats a row short of that of all, which full reads have to make good. But never fewer
    than ten, nor than four times the rows that a start is drawn from. The whole data also where
    that is no more than the sample would be.
    """
    if truncated(settings):
        return _plan_few(source, settings, seed)
    n_parameters = count_parameters(settings, source.n_features)
    n_start = rows_of_start(settings, source.n_features)
    row_bytes = source.n_features * source.dtype.itemsize
    size = min(MOST_ROWS_PER_PARAMETER * n_parameters, source.n_samples // 3)
    size = max(size, LEAST_ROWS_PER_PARAMETER * n_parameters, 4 * n_start)
    size = max(1, min(size, RESERVOIR_BYTES // row_bytes))
    n = source.n_samples
    if whole and n * row_bytes <= WHOLE_BYTES:
        size = n
    return _plan(source, settings, size, seed)


def _plan_few(source: Source, settings: FitSettings, seed: int) -> SamplePlan:
    """Rows that one start of very many components is drawn from."""
    size = settings.n_components * max(ROWS_OF_FEW, 4 * source.n_features)
    row_bytes = source.n_features * source.dtype.itemsize
    return _plan(source, settings, max(1, min(size, RESERVOIR_BYTES // row_bytes)), seed)


def _plan(source: Source, settings: FitSettings, size: int, seed: int) -> SamplePlan:
    n, most = source.n_samples, 2**64 - 1
    if n <= size:
        return SamplePlan(source.name, n, seed, most, families=(settings.family,))
    share = (size + 6 * size**0.5) / n
    threshold = most if share >= 1 else int(share * most)
    return SamplePlan(source.name, size, seed, threshold, families=(settings.family,))


def takes_all_gaps(families: tuple[Family, ...]) -> bool:
    """Whether rows of all families may have gaps."""
    return bool(families) and all(map(takes_gaps, families))


def merge_surveys(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Surveys of both sets of rows, family by family; None is that of no rows."""
    return tuple(
        a if b is None else b if a is None else a.merge(b)
        for a, b in zip(ours, theirs, strict=True)
    )


def check_suitable(family: Family, piece: Piece, name: str) -> None:
    """Check that rows can be of a family; raises DataError, or NonFiniteError, which name one."""
    found = family.unsuitable(piece.rows)
    if found is not None:
        check_finite(piece, name, takes_gaps(family))
        row, why = found
        raise DataError(
            f"{name}, {piece.say(row)}: {why}; {family.name} components cannot have made "
            "it: leave such rows out, or choose another family"
        )


def summarize(plan: SamplePlan, block: Block) -> Summary:
    """Pass 0 over one block; raises DataError, and ChunkError unless the plan skips."""
    try:
        return _summarize(plan, block)
    except ChunkError:
        skipped = unreadable(block) if plan.skip else ()
        if not skipped:
            raise
        return replace(_summarize(plan, without_rows(block, skipped)), skipped=skipped)


def _summarize(plan: SamplePlan, block: Block) -> Summary:
    gaps = takes_all_gaps(plan.families)
    sums = RowSums(gaps)
    n_rows = 0
    parts: list[tuple[Any, ...]] = []
    surveys: tuple[Any, ...] = (None,) * len(plan.families)
    for piece in block.pieces():
        for family in plan.families:
            check_suitable(family, piece, plan.name)
        surveys = merge_surveys(
            surveys, tuple(f.survey(piece.rows) if f.surveys else None for f in plan.families)
        )
        weight = piece.sample_weight
        if plan.holdout is not None:
            weight = plan.holdout.weights(piece)
        sums.add(piece.rows, NO_WEIGHT if weight is None else weight)
        keys = hash_rows(piece.numbers(), plan.seed)
        chosen: Any = keys <= np.uint64(plan.threshold)
        if weight is None:
            weight = np.ones(len(piece.rows))
        else:
            chosen &= weight > 0
        parts.append((keys[chosen], piece.rows[chosen], weight[chosen]))
        n_rows += len(piece.rows)
    if not parts:
        return _nothing(plan, block)
    if not sums.finite:
        for piece in block.pieces():
            check_finite(piece, plan.name, gaps)
    keys, rows, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Summary(n_rows, plan.size, sums.result(), keys, rows, weights, surveys=surveys)


class RowSums:
    """Moments of all rows as one diagonal component, summed about the first row.

    With `gaps` there is a component of one feature for each column, of what was observed in it.
    """

    def __init__(self, gaps: bool = False) -> None:
        self._gaps = gaps
        self._weight: Any = 0.0
        self._ref: Floats | None = None

    def add(self, X: NDArray[Any], weight: Floats) -> None:
        """Add rows (n, D); weights (n,) or none."""
        if self._ref is None:
            self._ref = np.where(np.isfinite(X[0]), X[0], 0.0).astype(np.float64)
            self._first, self._second = np.zeros((2, X.shape[1]))
            if self._gaps:
                self._ref, self._weight = np.full(X.shape[1], np.nan), np.zeros(X.shape[1])
        if self._gaps:
            observed_sums(X, weight, self._ref, self._weight, self._first, self._second)
        else:
            self._weight += column_sums(X, weight, self._ref, self._first, self._second)

    @property
    def finite(self) -> bool:
        """Whether all rows were, and their squares."""
        return bool(np.isfinite(self._second).all())

    def result(self) -> Moments:
        """The moments of all rows added."""
        assert self._ref is not None
        if self._gaps:
            about = np.where(np.isnan(self._ref), 0.0, self._ref)[:, None]
            sums = self._first[:, None], self._second[:, None]
            return Moments.about("diag", about, self._weight, *sums)
        if self._weight == 0:
            k = len(self._ref)
            return Moments("diag", np.zeros(1), np.zeros((1, k)), np.zeros((1, k)))
        weight = np.array([self._weight])
        return Moments.about(
            "diag", self._ref[None], weight, self._first[None], self._second[None]
        )


def no_moments(d: int, gaps: bool) -> Moments:
    """The moments of no rows of D features: see `RowSums`."""
    k, d = (d, 1) if gaps else (1, d)
    return Moments("diag", np.zeros(k), np.zeros((k, d)), np.zeros((k, d)))


def _nothing(plan: SamplePlan, block: Block) -> Summary:
    """The summary of a block of which no row can be read."""
    inner = shaped(block)
    d: int = inner.n_features
    rows = np.empty((0, d), inner.dtype)
    moments = no_moments(d, takes_all_gaps(plan.families))
    empty = np.empty(0)
    surveys = (None,) * len(plan.families)
    keys = empty.astype(np.uint64)
    return Summary(0, plan.size, moments, keys, rows, empty, surveys=surveys)
