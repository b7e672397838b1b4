"""Where in the data rows are: runs of rows along a stream, or cells of a map of a cube.

In each cell: how many rows, of which components, how certain their labels are, how likely they
are. Rows of a block lie in neighbouring cells, so what a block leaves is a slab of cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.model.components import Posterior
from streamgmm.model.moments import Floats
from streamgmm.sources import Piece
from streamgmm.summaries.histograms import weights_of

DOUBTFUL = 0.8  # probability of the likeliest component, below which a label is doubtful


@dataclass(frozen=True)
class Cells:
    """A division of samples into cells.

    Parameters
    ----------
    sample_shape : tuple of int
        Lengths of the samples' dimensions: (N,) of a table.
    shape : tuple of int
        Cells along the last one or two of them; all others share a cell.

    Examples
    --------
    >>> Cells((10,), (5,)).of(np.arange(10)).tolist()
    [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    >>> Cells((2, 2, 4), (2, 2)).of(np.arange(16)).tolist()
    [0, 0, 1, 1, 2, 2, 3, 3, 0, 0, 1, 1, 2, 2, 3, 3]
    """

    sample_shape: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def n_cells(self) -> int:
        """How many."""
        return math.prod(self.shape)

    def of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The cell of each sample."""
        cell = np.zeros(len(numbers), np.int64)
        rest, factor = numbers, 1
        for n, c in zip(self.sample_shape[::-1], self.shape[::-1], strict=False):
            rest, at = np.divmod(rest, n)
            cell += factor * (at * c // n)
            factor *= c
        return cell


def certainty_of(posterior: Posterior) -> Floats:
    """The probability of each row's likeliest component (n,)."""
    own = np.take_along_axis(posterior.resp, posterior.labels[:, None].astype(np.intp), axis=1)
    return np.asarray(own[:, 0])


def rows_in_cells(n_samples: int, most: int = 100) -> Cells:
    """Even runs of rows, as many as there can be of `most`."""
    return Cells((n_samples,), (min(most, n_samples),))


def map_of(sample_shape: tuple[int, ...], most: int = 320) -> Cells:
    """A map of the last two dimensions, of at most `most` cells along each."""
    last = sample_shape[-2:]
    return Cells(sample_shape, tuple(min(most, n) for n in last))


@dataclass(frozen=True, eq=False)
class CellRequest:
    """Cells, the components that are told apart (S,), and the log-density of unlikely rows.

    Components that are not among `shown` are counted together.
    """

    cells: Cells
    shown: NDArray[np.intp]
    n_components: int
    unlikely: float = -math.inf

    posterior = True

    def open(self) -> CellCounter:
        """What counts rows in these cells."""
        return CellCounter(self)


@dataclass(frozen=True, eq=False)
class CellCounts:
    """Weight of rows in the cells from `first` on: a value that merges.

    `labels` (c, S + 1): of the rows whose likeliest component is each of those shown, and any
    other. `sums` (c, 4) are Σ w times the probability of the likeliest component, times the
    log-density (nats), over doubtful rows and over unlikely ones.
    """

    request: CellRequest
    first: int
    labels: Floats
    sums: Floats

    def merge(self, other: CellCounts) -> CellCounts:
        """Counts of both sets of rows."""
        if not len(self.labels) or not len(other.labels):
            return other if not len(self.labels) else self
        first = min(self.first, other.first)
        stop = max(self.first + len(self.labels), other.first + len(other.labels))
        labels = np.zeros((stop - first, self.labels.shape[1]))
        sums = np.zeros((stop - first, self.sums.shape[1]))
        for each in (self, other):
            at = slice(each.first - first, each.first - first + len(each.labels))
            labels[at] += each.labels
            sums[at] += each.sums
        return CellCounts(self.request, first, labels, sums)

    def whole(self) -> CellCounts:
        """The same with every cell, those without rows too."""
        n, shape = self.request.cells.n_cells, (self.labels.shape[1], self.sums.shape[1])
        none = CellCounts(self.request, 0, np.zeros((n, shape[0])), np.zeros((n, shape[1])))
        return none.merge(self)

    @property
    def weight(self) -> Floats:
        """Weight of the rows in each cell (c,)."""
        return np.asarray(self.labels.sum(axis=1))

    def mean(self, j: int) -> Floats:
        """One of the sums by the weight of the rows (c,); NaN in cells without rows."""
        weight = self.weight
        out = np.full(len(weight), np.nan)
        return np.asarray(np.divide(self.sums[:, j], weight, out=out, where=weight > 0))

    @property
    def certainty(self) -> Floats:
        """Mean probability of the likeliest component (c,)."""
        return self.mean(0)

    @property
    def log_density(self) -> Floats:
        """Mean log-density of a row (c,), nats."""
        return self.mean(1)

    @property
    def doubtful(self) -> Floats:
        """Weight of the doubtful rows in each cell (c,)."""
        return self.sums[:, 2]

    @property
    def unlikely(self) -> Floats:
        """Weight of the unlikely rows in each cell (c,)."""
        return self.sums[:, 3]


class CellCounter:
    """Counts pieces of rows, then gives `CellCounts`."""

    def __init__(self, request: CellRequest) -> None:
        self._request = request
        self._place = np.full(request.n_components, len(request.shown), np.int64)
        self._place[request.shown] = np.arange(len(request.shown))
        self._found = CellCounts(
            request, 0, np.zeros((0, len(request.shown) + 1)), np.zeros((0, 4))
        )

    def add(self, piece: Piece, posterior: Posterior | None) -> None:
        """Add rows."""
        assert posterior is not None
        request, weight = self._request, weights_of(piece)
        cell = request.cells.of(piece.numbers())
        first = int(cell.min())
        cell -= first
        n, wide = int(cell.max()) + 1, len(request.shown) + 1
        given: Any = weight if len(weight) else None
        flat = cell * wide + self._place[posterior.labels]
        labels = np.bincount(flat, given, n * wide).reshape(n, wide).astype(np.float64)
        certainty = certainty_of(posterior)
        low = posterior.log_density < request.unlikely
        density = np.maximum(posterior.log_density, -1e300)  # minus infinity would hide all
        columns = (certainty, density, certainty < DOUBTFUL, low)
        factor = weight if len(weight) else 1.0
        sums = np.stack([np.bincount(cell, c * factor, n) for c in columns], axis=1).astype(float)
        self._found = self._found.merge(CellCounts(request, first, labels, sums))

    def result(self) -> CellCounts:
        """The counts of all rows added."""
        return self._found
