"""Rows that are transformed as they are read; nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamgmm.sources.base import Block, Piece, Source, check_finite
from streamgmm.sources.blocks import WrappedBlock
from streamgmm.sources.no_array import SourceOver


class Transform(Protocol):
    """What is done to each row by itself. Small, immutable and picklable.

    Attributes
    ----------
    n_features : int
        Columns that it gives.
    mixes : bool
        Whether a column that it gives depends on several: then a row with a gap is refused, and
        else the gap stays in its place.
    digest : str
        The same for transforms that do the same.
    """

    @property
    def n_features(self) -> int: ...  # noqa: D102

    @property
    def mixes(self) -> bool: ...  # noqa: D102

    @property
    def digest(self) -> str: ...  # noqa: D102

    def ready(self, dtype: np.dtype[Any]) -> Callable[[NDArray[Any]], NDArray[Any]]:
        """Give a function of rows (n, D) of float32 or float64, to new ones of that dtype."""

    def then(self, other: Any) -> Any:
        """Give this transform and then another, as one."""


class TransformedBlock(WrappedBlock):
    """A block whose rows are transformed as they are read.

    Parameters
    ----------
    block : Block
    transform : Transform
    dtype : numpy.dtype
    name : str
        Of the source, for messages.
    """

    in_memory = False  # the rows that it gives are not, even where those beneath are

    def __init__(
        self, block: Block, transform: Transform, dtype: np.dtype[Any], name: str
    ) -> None:
        super().__init__(block)
        self.transform, self.dtype, self.name = transform, dtype, name

    @property
    def n_features(self) -> int:
        """Columns of the rows that it gives."""
        return self.transform.n_features

    def pieces(self) -> Iterator[Piece]:
        """Give the transformed rows; the block begins to read at the call."""
        return self._transformed(self.block.pieces())

    def _transformed(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        apply = self.transform.ready(self.dtype)
        for piece in pieces:
            with np.errstate(all="ignore"):
                rows = apply(piece.rows)
                whole = not self.transform.mixes or np.isfinite(rows.sum())
            if not whole:  # said of the row and column as they are stored
                check_finite(piece, self.name)
            yield piece._replace(rows=rows)

    def part(self, start: int, stop: int) -> TransformedBlock:
        """Give the block of some of its rows, transformed too."""
        return self._around(super().part(start, stop))

    def fill(self, values: Mapping[Any, Any]) -> TransformedBlock:
        """Replace the futures by their values."""
        return self._around(super().fill(values))

    def _around(self, block: Block) -> TransformedBlock:
        return TransformedBlock(block, self.transform, self.dtype, self.name)


@dataclass(frozen=True)
class TransformedSource(SourceOver):
    """A source whose rows are transformed as they are read.

    Attributes
    ----------
    source : Source
        The rows as they are stored.
    transform : Transform
    summary : object or None
        Moments of all transformed rows, where they are known: whoever needs them need not read.
    """

    source: Any
    transform: Any
    summary: Any = field(default=None, compare=False)

    feature_names = None  # of the stored rows, whose columns these are not

    def blocks(
        self, target_bytes: int, start: int = 0, stop: int | None = None
    ) -> Sequence[Block]:
        """Those of the source with as many rows as `target_bytes` of these are."""
        target = max(1, target_bytes * self.source.n_features // self.n_features)
        return [
            TransformedBlock(block, self.transform, self.dtype, self.name)
            for block in self.source.blocks(target, start, stop)
        ]

    @property
    def n_features(self) -> int:
        """Columns that the transform gives."""
        return int(self.transform.n_features)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows, transformed."""
        return self.n_samples * self.n_features * self.dtype.itemsize

    def on(self, source: Source) -> TransformedSource:
        """Give the same transform of other rows."""
        return replace(self, source=source)


def transformed(source: Source, transform: Transform, summary: Any = None) -> TransformedSource:
    """Give the rows of a source, transformed as they are read.

    Transforms of transformed rows become one.

    Parameters
    ----------
    source : Source
    transform : Transform
    summary : object, optional
        Moments of all transformed rows, where they are known.
    """
    if isinstance(source, TransformedSource):
        return TransformedSource(source.source, source.transform.then(transform), summary)
    return TransformedSource(source, transform, summary)


def identity_of(source: Source) -> str:
    """The name of a source, and by which transform its rows come, if by any."""
    transform = getattr(source, "transform", None)
    return source.name if transform is None else f"{source.name}, by {transform.digest[:16]}"
