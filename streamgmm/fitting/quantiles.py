"""Quantiles of every column, in one read: t-digests that merge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError, MissingExtraError
from streamgmm.fitting.moments import RowMoments, RowScatter, nothing
from streamgmm.model.components import NO_WEIGHT
from streamgmm.model.moments import Floats
from streamgmm.passes import one_blas_thread, open_executor
from streamgmm.passes.base import OnBlock
from streamgmm.sources import Block, Source, check_finite, parse_block_size

COMPRESSION = 1000
"""Of the digests: a centroid at the median holds about a 300th of the rows at most, fewer in the
tails, and values within it are interpolated."""


@dataclass(frozen=True, eq=False)
class Digests:
    """A digest of every column (Dunning & Ertl 2019), and the moments of the rows, if asked for.

    Merged in the order of the rows, so they have the same bits on any number of workers.
    """

    n_rows: int
    each: tuple[Any, ...]
    moments: RowMoments | None

    def merge(self, other: Digests) -> Digests:
        """Of both sets of rows."""
        each = []
        for ours, theirs in zip(self.each, other.each, strict=True):
            both = new_digest()
            both.merge(ours, theirs)
            each.append(both)
        moments = None
        if self.moments is not None and other.moments is not None:
            moments = self.moments.merge(other.moments)
        return Digests(self.n_rows + other.n_rows, tuple(each), moments)

    def quantiles(self, probabilities: Sequence[float]) -> Floats:
        """Quantiles (P, D) of all columns.

        Raises
        ------
        DataError
            If no row has any weight.
        """
        if not self.n_rows or not all(each.size() > 0 for each in self.each):
            raise DataError("no row has any weight; there are no quantiles of nothing")
        found = [[each.quantile(p) for each in self.each] for p in probabilities]
        return np.array(found)


def new_digest() -> Any:
    """An empty digest; raises MissingExtraError, in one line."""
    try:
        from crick import TDigest
    except ImportError as error:
        raise MissingExtraError(
            "quantiles of many rows need crick: pip install 'streamgmm[quantiles]'"
        ) from error
    return TDigest(COMPRESSION)


def digests_of(
    source: Source,
    *,
    scatter: bool = False,
    gaps: bool = False,
    block_size: int | str = "auto",
    n_threads: int | None = None,
    on_block: OnBlock | None = None,
) -> Digests:
    """Read all rows once for digests of their columns, and their whole scatter, if asked for.

    Parameters
    ----------
    source : Source
    scatter : bool
    gaps : bool
        Whether gaps (NaN) are passed by, column by column, and are no error.
    block_size, n_threads
        See `parse_block_size` and `open_executor`.
    on_block : callable, optional
        Called with the rows of each block as it finishes.

    Raises
    ------
    NonFiniteError
        Names the array and the rows.
    MissingExtraError
        If crick is not installed.
    """
    new_digest()
    blocks = source.blocks(parse_block_size(block_size, source))
    with one_blas_thread(), open_executor(blocks, n_threads=n_threads) as executor:
        context = (source.name, source.n_features, scatter, gaps)
        found: Digests = executor.run(_digest_block, context, on_block=on_block)
    return found


def _digest_block(context: tuple[str, int, bool, bool], block: Block) -> Digests:
    name, d, scatter, gaps = context
    each = tuple(new_digest() for _ in range(d))
    sums = RowScatter()
    n_rows, seen = 0, False
    for piece in block.pieces():
        check_finite(piece, name, gaps)
        weight = piece.sample_weight
        if scatter:
            sums.add(piece.rows, NO_WEIGHT if weight is None else weight)
        n_rows += digest_rows(each, piece.rows, weight)
        seen = True
    moments = None
    if scatter:
        moments = RowMoments(n_rows, sums.result() if seen else nothing("full", d))
    return Digests(n_rows, each, moments)


def digest_rows(digests: Sequence[Any], rows: NDArray[Any], weight: Floats | None) -> int:
    """Add rows (n, D) to the digests of their columns; gives how many of them have weight."""
    if weight is not None:
        rows, weight = rows[weight > 0], weight[weight > 0]
    if not len(rows):
        return 0
    columns = np.ascontiguousarray(rows.T, np.float64)
    for column, digest in zip(columns, digests, strict=True):
        there = ~np.isnan(column)
        whole = there.all()
        values = column if whole else column[there]
        if weight is None:
            digest.update(values)
        else:
            digest.update(values, weight if whole else weight[there])
    return len(rows)
