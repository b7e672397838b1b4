"""One read of all rows for their moments: what scalers and principal components are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError
from streamgmm.fitting.sample import RowSums
from streamgmm.model.affine import Affine, tiles
from streamgmm.model.components import NO_WEIGHT
from streamgmm.model.moments import Floats, Moments
from streamgmm.passes import one_blas_thread, open_executor
from streamgmm.passes.base import OnBlock
from streamgmm.sources import Block, Source, check_finite, parse_block_size

SCATTER_TILE_BYTES = 1 << 20
"""Bytes of centred rows in float64 whose products are summed at a time."""

Kind = Literal["diag", "full"]


@dataclass(frozen=True, eq=False)
class RowMoments:
    """How many rows have weight, and the moments of all of them as one component."""

    n_rows: int
    moments: Moments

    def merge(self, other: RowMoments) -> RowMoments:
        """Of both sets of rows."""
        return RowMoments(self.n_rows + other.n_rows, self.moments.merge(other.moments))

    def by(self, transform: Affine) -> RowMoments:
        """Of the rows transformed, without reading them."""
        return RowMoments(self.n_rows, transform.moments(self.moments))

    @property
    def weight(self) -> float:
        """Total weight of the rows."""
        return float(self.moments.weight[0])

    @property
    def mean(self) -> Floats:
        """Mean (D,)."""
        return np.asarray(self.moments.mean[0])

    @property
    def variance(self) -> Floats:
        """Variance (D,), the sum of squares divided by the weight."""
        scatter = self.moments.scatter[0]
        squares = scatter if self.moments.kind == "diag" else np.diagonal(scatter)
        return np.asarray(np.maximum(squares, 0.0) / self.weight)


class RowScatter:
    """The scatter of all rows as one full component, summed about the mean of the first ones.

    Products are those of matrices, in float64 whatever the rows are.
    """

    def __init__(self) -> None:
        self._weight = 0.0
        self._ref: Floats | None = None

    def add(self, X: NDArray[Any], weight: Floats) -> None:
        """Add rows (n, D); weights (n,) or none."""
        n, d = X.shape
        parts = tiles(X, SCATTER_TILE_BYTES * X.itemsize // 8)
        if self._ref is None:
            with np.errstate(all="ignore"):
                ref = X[parts[0]].mean(axis=0, dtype=np.float64)
            self._ref = np.where(np.isfinite(ref), ref, 0.0)
            self._first, self._second = np.zeros(d), np.zeros((d, d))
        self._weight += float(weight.sum()) if len(weight) else float(n)
        held = np.empty((parts[0].stop, d))
        with np.errstate(all="ignore"):
            for part in parts:
                x = held[: part.stop - part.start]
                x[...] = X[part]
                x -= self._ref
                if len(weight):
                    w = weight[part]
                    self._first += w @ x
                    x *= np.sqrt(w)[:, None]
                else:
                    self._first += x.sum(axis=0)
                self._second += x.T @ x

    @property
    def finite(self) -> bool:
        """Whether all rows were, and their squares."""
        return bool(np.isfinite(self._second).all())

    def result(self) -> Moments:
        """The moments of all rows added."""
        assert self._ref is not None
        weight = np.array([self._weight])
        if self._weight == 0:
            return nothing("full", len(self._ref))
        first, second = self._first[None], self._second[None]
        return Moments.about("full", self._ref[None], weight, first, second)


def moments_of(
    source: Source,
    kind: Kind,
    *,
    block_size: int | str = "auto",
    n_threads: int | None = None,
    on_block: OnBlock | None = None,
) -> RowMoments:
    """Read all rows once, for their mean and variances, or their whole scatter.

    Parameters
    ----------
    source : Source
    kind : {"diag", "full"}
    block_size, n_threads
        See `parse_block_size` and `open_executor`.
    on_block : callable, optional
        Called with the rows of each block as it finishes.

    Raises
    ------
    NonFiniteError
        Names the array and the rows.
    DataError
        If no row has any weight.
    """
    blocks = source.blocks(parse_block_size(block_size, source))
    with one_blas_thread(), open_executor(blocks, n_threads=n_threads) as executor:
        context = (source.name, kind, source.n_features)
        found: RowMoments = executor.run(_sum_block, context, on_block=on_block)
    if found.weight <= 0:
        if getattr(source, "weights", None) is not None:
            raise DataError("sample_weight is zero for every row; give some row weight")
        raise DataError(f"{source.name}: every row has a gap or is masked; nothing is left")
    return found


def _sum_block(context: tuple[str, Kind, int], block: Block) -> RowMoments:
    name, kind, d = context
    sums = RowScatter() if kind == "full" else RowSums()
    n_rows, seen = 0, False
    for piece in block.pieces():
        weight = NO_WEIGHT if piece.sample_weight is None else piece.sample_weight
        sums.add(piece.rows, weight)
        n_rows += int(np.count_nonzero(weight)) if len(weight) else len(piece.rows)
        seen = True
    if not seen:
        return RowMoments(0, nothing(kind, d))
    if not sums.finite:
        for piece in block.pieces():
            check_finite(piece, name)
    return RowMoments(n_rows, sums.result())


def columns_of(
    source: Source,
    *,
    block_size: int | str = "auto",
    n_threads: int | None = None,
    on_block: OnBlock | None = None,
) -> Moments:
    """Read all rows once, for the moments of each column over the values that it has.

    Gaps (NaN) are passed by, column by column.

    Returns
    -------
    Moments
        Of D components of one feature each: the columns.

    Raises
    ------
    NonFiniteError
        If a value is infinite; names the array and the row.
    DataError
        If a column has no value with any weight; names it.
    """
    blocks = source.blocks(parse_block_size(block_size, source))
    with open_executor(blocks, n_threads=n_threads) as executor:
        context = (source.name, source.n_features)
        found: Moments = executor.run(_sum_columns, context, on_block=on_block)
    if not (found.weight > 0).all():
        names = getattr(source, "feature_names", None)
        first = int(np.argmin(found.weight > 0))
        which = first if names is None else f"'{names[first]}'"
        raise DataError(f"{source.name}: column {which} has no value; leave it out")
    return found


def _sum_columns(context: tuple[str, int], block: Block) -> Moments:
    name, d = context
    zeros = np.zeros((d, 1))
    found = Moments("diag", np.zeros(d), zeros, zeros)
    for piece in block.pieces():
        check_finite(piece, name, gaps=True)
        there = ~np.isnan(piece.rows)
        weight = there.astype(np.float64)
        if piece.sample_weight is not None:
            weight *= piece.sample_weight[:, None]
        count = there.sum(axis=0)
        rows = np.where(there, piece.rows, 0.0)
        ref = rows.sum(axis=0, dtype=np.float64) / np.maximum(count, 1)
        rows = np.where(there, rows - ref, 0.0)
        first, second = (weight * rows).sum(axis=0), (weight * rows * rows).sum(axis=0)
        found = found.merge(
            Moments.about(
                "diag", ref[:, None], weight.sum(axis=0), first[:, None], second[:, None]
            )
        )
    return found


def nothing(kind: Kind, d: int) -> Moments:
    """Moments of no rows."""
    shape = (1, d, d) if kind == "full" else (1, d)
    return Moments(kind, np.zeros(1), np.zeros((1, d)), np.zeros(shape))
