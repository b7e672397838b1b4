"""Rows as the kernels of k-means want them, and the threads that share them out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamgmm.errors import DataError
from streamgmm.kernels import centres as moving
from streamgmm.kernels import kmeans

Floats = NDArray[np.float64]

BLOCK_ROWS = 8192  # at least so many rows are summed before blocks are merged
MOST_BLOCKS = 64
SUMS_BYTES = 64 << 20  # that the sums of all blocks may take
CHUNK_BYTES = 512 << 10  # of rows, that stay in the second cache from ranking to summing
_SOME = 256  # rows that tell the range of a feature
_FAR = 1e8  # squared standard deviations from the mean at which a variance loses half its digits

S = TypeVar("S")


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows in memory, and what several runs of k-means on them have in common.

    `X` (n, D) is C-contiguous float32 or float64; `weight` (n,) is float64, or empty for none.
    """

    X: NDArray[Any]
    weight: Floats

    @property
    def ref(self) -> Floats:
        """What the kernels subtract (D,): the mean, in steps of about a percent of the range.

        It has so few digits that the difference from rows on a grid, such as whole numbers, is
        exact: rows that are equally far from two centres stay so.
        """
        return self._centre[0]

    @cached_property
    def arrays(self) -> tuple[NDArray[Any], Floats, Floats]:
        """Rows, weights and reference as the kernels want them."""
        return self.X, self.weight, padded(self.ref[None])

    @property
    def variance(self) -> float:
        """Mean over features of the variances, the unit of scikit-learn's ``tol``."""
        return self._centre[1]

    @cached_property
    def _centre(self) -> tuple[Floats, float]:
        first = 0 if self.weight.size == 0 else int(np.argmax(self.weight > 0))
        ref = self.X[first].astype(np.float64)
        shift, square = self._about(ref)
        variance = square - float(shift @ shift)
        if not float(shift @ shift) < _FAR * variance:
            shift_again, square = self._about(ref + shift)
            variance = square - float(shift_again @ shift_again)
        some = self.X[:: -(-len(self.X) // _SOME)].astype(np.float64)
        exponents = np.frexp(np.ptp(some, axis=0))[1]
        mean, step = ref + shift, np.ldexp(1.0, exponents - 7)
        ref = np.where(np.ptp(some, axis=0) > 0, np.rint(mean / step) * step, mean)
        return ref, max(0.0, variance) / len(ref)

    def _about(self, ref: Floats) -> tuple[Floats, float]:
        """Means of x - ref and of |x - ref|²: sums of one cluster in which all rows are."""
        n, d = self.X.shape
        labels, until = np.zeros(n, np.int32), np.full(n, np.inf, np.float32)
        n_blocks, block = self.blocks(1)
        sums = sums_of(n_blocks, 1, d)
        model = Model.of(np.zeros((1, d)))
        kmeans.assign(
            (self.X, self.weight, padded(ref[None])), model.arrays, (labels, until), sums,
            self.scratch(1), block, True, 0, n_blocks,
        )  # fmt: skip
        mass, _, first, counts = (part.reshape(n_blocks, -1).sum(axis=0) for part in sums)
        return first[:d] / mass, float(counts[0] / mass[0])

    def blocks(self, k: int) -> tuple[int, int]:
        """How many blocks rows are summed in, and rows of each: the data decide, not threads."""
        n, d = self.X.shape
        most = min(MOST_BLOCKS, max(1, SUMS_BYTES // (8 * k * d)), max(1, n // BLOCK_ROWS))
        strips = -(-n // (most * kmeans.STRIP))
        size = strips * kmeans.STRIP
        return -(-n // size), size

    def scratch(self, k: int) -> tuple[NDArray[Any], ...]:
        """What one thread needs to assign rows to `k` centres."""
        d = self.X.shape[1]
        chunk = CHUNK_BYTES // (8 * d) // kmeans.STRIP * kmeans.STRIP  # whatever the dtype
        chunk = min(2048, max(kmeans.STRIP, chunk))
        tile = np.empty(kmeans.FEATURES + multiple(d, 8) * kmeans.STRIP, np.float32)
        return tile, np.empty(chunk, np.int64), np.empty(multiple(k, 8))


@dataclass(frozen=True, eq=False)
class Model:
    """Centres as the kernels want them (see `kernels.kmeans`)."""

    arrays: tuple[NDArray[Any], ...]

    @classmethod
    def of(cls, centres: Floats) -> Model:
        """From centres (K, D) less the reference; what is derived from them is not set yet."""
        k, d = centres.shape
        k4, k8 = multiple(k, 4), multiple(k, 8)
        return cls(
            (
                padded(centres),
                np.empty(k4 * d, np.float32),
                np.empty(k4, np.float32),
                np.zeros(k8 * d),
                np.empty(3, np.float32),
                np.zeros(k),
                np.zeros(multiple(d, 8)),
            )
        )


def prepare(model: tuple[NDArray[Any], ...]) -> None:
    """Set what is derived from the centres of a `Model`, by moving them nowhere."""
    size, k = model[0].size, model[5].size
    still = np.ones(k), np.ones(k), np.zeros(size), np.zeros(4)
    moving.move(model, still, 0.0, True)


def rehearse_moves() -> None:
    """Compile what moves centres."""
    prepare(Model.of(np.zeros((1, 1))).arrays)


def multiple(n: int, of: int) -> int:
    """The smallest multiple that is at least n."""
    return -(-n // of) * of


def padded(values: Floats) -> Floats:
    """Rows (m, D) with zeros up to a multiple of 8, flat."""
    m, d = values.shape
    out = np.zeros((m, multiple(d, 8)))
    out[:, :d] = values
    return out.ravel()


def sums_of(n_blocks: int, k: int, d: int) -> tuple[Floats, ...]:
    """Room for the sums of blocks (see `kernels.kmeans`)."""
    m = n_blocks * k
    return np.empty(m), np.empty(m), np.empty(m * multiple(d, 8)), np.empty(n_blocks * 4)


def parse_rows(X: ArrayLike | Rows, sample_weight: ArrayLike | None = None) -> Rows:
    """Rows (n, D) and their weights (n,), once for several runs on the same rows.

    Float32 stays float32; anything else becomes float64. Rows are taken to be finite.

    Raises
    ------
    DataError
        If X is not rows of features, or the weights do not fit them, are negative or all zero.

    Examples
    --------
    >>> parse_rows([[0.0, 1.0], [2.0, 3.0]]).ref
    array([1., 2.])
    """
    if isinstance(X, Rows):
        return X
    rows: NDArray[Any] = np.asarray(X)
    dtype = np.float32 if rows.dtype == np.float32 else np.float64
    rows = np.ascontiguousarray(rows, dtype)
    if rows.ndim != 2 or 0 in rows.shape:
        raise DataError(f"X must be rows of features, of shape (n, D), and is {rows.shape}")
    if sample_weight is None:
        return Rows(rows, np.empty(0))
    weight = np.ascontiguousarray(sample_weight, np.float64)
    if weight.shape != rows.shape[:1]:
        raise DataError(f"sample_weight must be of shape ({len(rows)},), and is {weight.shape}")
    if not (weight.min() >= 0 and weight.max() > 0):
        raise DataError("sample_weight must not be negative, nor zero for all rows")
    return Rows(rows, weight)


class Team(Generic[S]):
    """Threads that share out a kernel's tasks, each with scratch of its own.

    One thread does them all in one call.
    """

    def __init__(self, n_threads: int, scratch: Callable[[], S]) -> None:
        self._scratch = [scratch() for _ in range(max(1, n_threads))]
        others = len(self._scratch) - 1
        self._pool = ThreadPoolExecutor(others, "streamgmm-clusters") if others else None

    def __enter__(self) -> Team[S]:
        """Threads start where there is work for them."""
        return self

    def __exit__(self, *error: object) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def run(self, work: Callable[[S, int, int], None], n: int, step: int = 1) -> None:
        """Call ``work(scratch, start, stop)`` for runs of `step` out of `n` tasks."""
        if self._pool is None:
            work(self._scratch[0], 0, n)
            return
        starts = deque(range(0, n, step))

        def take(scratch: S) -> None:
            while True:
                try:
                    start = starts.popleft()
                except IndexError:
                    return
                work(scratch, start, min(n, start + step))

        others = [self._pool.submit(take, scratch) for scratch in self._scratch[1:]]
        take(self._scratch[0])
        for other in others:
            other.result()
