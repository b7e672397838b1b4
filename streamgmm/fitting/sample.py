"""Pass 0: all rows looked at once, their moments, and a uniform sample of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import ChunkError, DataError
from streamgmm.fitting.effort import count_parameters, rows_of_start
from streamgmm.fitting.settings import FitSettings
from streamgmm.model.components import Family
from streamgmm.model.moments import Floats, Moments
from streamgmm.sources import Block, Piece, Source, check_finite, unreadable, without_rows

WHOLE_BYTES = 16 << 20  # rows of up to this many bytes are kept whole
RESERVOIR_BYTES = 256 << 20  # the reservoir never exceeds this
LEAST_ROWS_PER_PARAMETER = 10
MOST_ROWS_PER_PARAMETER = 200  # that the best start climbs on, up to a quarter of the data


@dataclass(frozen=True)
class Holdout:
    """Which rows are held out: those whose hash is among the smallest `fraction`."""

    fraction: float
    seed: int

    def mask(self, start: int, n: int) -> NDArray[np.bool_]:
        """True for held-out rows among ``start:start + n``.

        >>> round(float(Holdout(0.25, 1).mask(0, 10_000).mean()), 2)
        0.25
        """
        limit = np.uint64(int(self.fraction * (2**64 - 1)))
        return np.asarray(hash_rows(start, start + n, self.seed) < limit)

    def weights(self, piece: Piece) -> Floats:
        """The piece's weights, zero for held-out rows: as if they were not there."""
        weight = piece.sample_weight
        weight = np.ones(len(piece.rows)) if weight is None else weight.copy()
        weight[self.mask(piece.start, len(piece.rows))] = 0.0
        return weight


@dataclass(frozen=True)
class SamplePlan:
    """How pass 0 samples: the `size` rows of the smallest keys, drawn by `seed`.

    A row's key is a hash of the seed and the row's index, so the sample depends on neither
    blocks nor workers. Rows whose key exceeds `threshold` cannot be among them (but for one
    sample in 1e9) and stay where they are. All rows must suit the `families`.
    """

    name: str
    size: int
    seed: int
    threshold: int
    holdout: Holdout | None = None
    skip: bool = False
    families: tuple[Family, ...] = ()


@dataclass(frozen=True, eq=False)
class Summary:
    """What pass 0 leaves: all rows' moments (one component, diagonal), and the sample.

    `keys`, `index`, `rows` (m, D) and `weight` (m,) are of the sampled rows; `skipped` are runs
    of rows, as (start, stop), that could not be read.
    """

    n_rows: int
    size: int
    moments: Moments
    keys: NDArray[np.uint64]
    index: NDArray[np.int64]
    rows: NDArray[Any]
    weight: Floats
    skipped: tuple[tuple[int, int], ...] = ()

    def merge(self, other: Summary) -> Summary:
        """Moments of all rows, and the smallest keys of both samples."""
        both = Summary(
            self.n_rows + other.n_rows,
            self.size,
            self.moments.merge(other.moments),
            np.concatenate([self.keys, other.keys]),
            np.concatenate([self.index, other.index]),
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.weight, other.weight]),
            self.skipped + other.skipped,
        )
        return both.trimmed(self.size)

    def trimmed(self, size: int) -> Summary:
        """The same moments with the `size` rows of the smallest keys, a uniform sample too."""
        if len(self.keys) <= size:
            return self
        keep = np.sort(np.argpartition(self.keys, size - 1)[:size])
        return replace(
            self,
            size=size,
            keys=self.keys[keep],
            index=self.index[keep],
            rows=self.rows[keep],
            weight=self.weight[keep],
        )

    @property
    def shuffled(self) -> tuple[NDArray[Any], Floats | None]:
        """Sampled rows by their keys, so in random order; no weights where all are the same."""
        order = np.argsort(self.keys, kind="stable")
        weight = self.weight[order]
        same = len(weight) == 0 or np.all(weight == weight[0])
        return self.rows[order], None if same else weight

    @property
    def reservoir(self) -> tuple[NDArray[Any], Floats]:
        """Sampled rows in the order of the data, with their weights."""
        order = np.argsort(self.index, kind="stable")
        return self.rows[order], self.weight[order]


def hash_rows(start: int, stop: int, seed: int) -> NDArray[np.uint64]:
    """A uniform 64-bit key for each row index (Steele, Lea & Flood 2014, SplitMix64).

    >>> hash_rows(0, 2, 0).tolist() == hash_rows(0, 9, 0)[:2].tolist()
    True
    """
    with np.errstate(over="ignore"):
        z = np.arange(start, stop, dtype=np.uint64) + np.uint64(seed) * np.uint64(
            0xD1342543DE82EF95
        )
        z = (z + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))


def plan_sample(source: Source, settings: FitSettings, *, whole: bool, seed: int) -> SamplePlan:
    """Up to 200 rows a parameter, the whole data where `whole` and it is small enough.

    200 only up to a quarter of the data: the likelihood of the best model of m rows lies about
    p/2m nats a row short of that of all, which full reads have to make good. But never fewer
    than ten, nor than four times the rows that a start is drawn from. The whole data also where
    that is no more than the sample would be.
    """
    n_parameters = count_parameters(settings, source.n_features)
    n_start = rows_of_start(settings, source.n_features)
    row_bytes = source.n_features * source.dtype.itemsize
    size = min(MOST_ROWS_PER_PARAMETER * n_parameters, source.n_samples // 4)
    size = max(size, LEAST_ROWS_PER_PARAMETER * n_parameters, 4 * n_start)
    if whole:
        size = max(size, WHOLE_BYTES // row_bytes)
    size = max(1, min(size, RESERVOIR_BYTES // row_bytes))
    n = source.n_samples
    most = 2**64 - 1
    if n <= size:
        return SamplePlan(source.name, n, seed, most, families=(settings.family,))
    share = (size + 6 * size**0.5) / n
    threshold = most if share >= 1 else int(share * most)
    return SamplePlan(source.name, size, seed, threshold, families=(settings.family,))


def check_suitable(family: Family, piece: Piece, name: str) -> None:
    """Check that finite rows can be of a family; raises DataError, which names one."""
    found = family.unsuitable(piece.rows)
    if found is not None:
        row, why = found
        raise DataError(
            f"{name}, row {piece.start + row}: {why}; {family.name} components cannot have made "
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
    moments = None
    n_rows = 0
    parts: list[tuple[Any, ...]] = []
    for piece in block.pieces():
        check_finite(piece, plan.name)
        for family in plan.families:
            check_suitable(family, piece, plan.name)
        stop = piece.start + len(piece.rows)
        if plan.holdout is not None:
            weight = plan.holdout.weights(piece)
        elif piece.sample_weight is None:
            weight = np.ones(len(piece.rows))
        else:
            weight = piece.sample_weight
        keys = hash_rows(piece.start, stop, plan.seed)
        whole = plan.threshold == 2**64 - 1
        chosen: Any = slice(None) if whole else keys <= np.uint64(plan.threshold)
        index = np.arange(piece.start, stop)
        parts.append((keys[chosen], index[chosen], piece.rows[chosen], weight[chosen]))
        own = overall_moments(piece.rows, weight)
        moments = own if moments is None else moments.merge(own)
        n_rows += len(piece.rows)
    if moments is None:
        return _nothing(plan, block)
    keys, index, rows, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Summary(n_rows, plan.size, moments, keys, index, rows, weights).trimmed(plan.size)


def _nothing(plan: SamplePlan, block: Block) -> Summary:
    """The summary of a block of which no row can be read."""
    d: int = block.n_features  # type: ignore[attr-defined]
    rows = np.empty((0, d), block.dtype)  # type: ignore[attr-defined]
    empty = np.empty(0)
    keys, index = empty.astype(np.uint64), empty.astype(np.int64)
    return Summary(0, plan.size, overall_moments(rows, empty), keys, index, rows, empty)


def overall_moments(X: NDArray[Any], weight: Floats) -> Moments:
    """Moments of all rows as one diagonal component."""
    total = weight.sum()
    if total == 0:
        return Moments("diag", np.zeros(1), np.zeros((1, X.shape[1])), np.zeros((1, X.shape[1])))
    centre = X[0].astype(np.float64)
    centred = X - centre
    first = weight @ centred
    second = weight @ centred**2
    return Moments.about("diag", centre[None], np.array([total]), first[None], second[None])
