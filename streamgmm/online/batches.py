"""Rows of any source as the batches of a learner, whoever reads them.

Where a batch begins and ends depends on the rows alone: not on chunks, and not on whether this
process reads them or the workers of a cluster do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError
from streamgmm.model.components import NO_WEIGHT
from streamgmm.model.moments import Floats
from streamgmm.passes import active_client, open_executor
from streamgmm.sources import Block, Piece, Source, check_finite, parse_block_size

BLOCK_BYTES = 16 << 20  # bytes that one task of a cluster reads
WINDOW_BYTES = 128 << 20  # bytes that are fetched from a cluster at a time

Rows = tuple[NDArray[Any], Floats]


def cut(rows: NDArray[Any], weight: Floats, most: int) -> Iterator[Rows]:
    """Runs of at most `most` rows, and their weights or none."""
    for first in range(0, len(rows), most):
        yield rows[first : first + most], weight[first : first + most]


def checked(rows: NDArray[Any], n_features: int, most: int, name: str) -> Iterator[Rows]:
    """Rows in memory in batches of `most`, after checking their width and that they are finite.

    Raises
    ------
    DataError
        Names the width.
    NonFiniteError
        Names the rows.
    """
    if rows.shape[1] != n_features:
        raise DataError(
            f"{name} has rows of {rows.shape[1]} features where {n_features} were learned; give "
            "the same columns"
        )
    rows = np.ascontiguousarray(rows)
    check_finite(Piece(0, rows, None), "X")
    return cut(rows, NO_WEIGHT, most)


def batches_of(
    source: Source, most: int, block_size: int | str = "auto", here: bool = False
) -> Iterator[Rows]:
    """All rows of a source in batches of `most`, the last of fewer.

    Where a Dask cluster is active, its workers read and decode, a bounded number of bytes at a
    time. With `here`, this process does.

    Raises
    ------
    NonFiniteError
        Names the rows.
    DataError
        After the last batch, if no row has any weight.
    """
    client = None if here else active_client()
    if client is None:
        blocks = source.blocks(parse_block_size(block_size, source))
        pieces = pieces_of(source.name, blocks, has_unknown(source))
    else:
        pieces = _fetched(source, client)
    return rebatch(_weighed(pieces), most)


def _weighed(pieces: Iterator[Rows]) -> Iterator[Rows]:
    """The same rows; raises DataError after the last where all weights were zero."""
    read = some = False
    for rows, weight in pieces:
        read = True
        some = some or len(weight) == 0 or bool(weight.any())
        yield rows, weight
    if read and not some:  # all rows of a batch may be left out
        raise DataError("sample_weight is zero for every row; give some row weight")


def pieces_of(name: str, blocks: Sequence[Block], gaps: bool = False) -> Iterator[Rows]:
    """The pieces of blocks in order, checked for values that are not finite, or infinite."""
    for block in blocks:
        for piece in block.pieces():
            check_finite(piece, name, gaps)
            yield piece.rows, NO_WEIGHT if piece.sample_weight is None else piece.sample_weight


@dataclass(frozen=True, eq=False)
class Fetched:
    """Rows that workers have read, in order."""

    parts: tuple[Rows, ...]

    def merge(self, other: Fetched) -> Fetched:
        """Both, one after the other."""
        return Fetched(self.parts + other.parts)


def fetch(context: tuple[str, bool], block: Block) -> Fetched:
    """Read and decode a block where this runs; context: the name, and whether NaN is a gap."""
    name, gaps = context
    return Fetched(tuple(pieces_of(name, [block], gaps)))


def has_unknown(source: Source) -> bool:
    """Whether NaN is a value of the source that was not observed."""
    return bool(getattr(source, "empty", False))


def _fetched(source: Source, client: Any) -> Iterator[Rows]:
    """All rows in order, read by the workers of a cluster, some blocks at a time."""
    blocks = source.blocks(BLOCK_BYTES)
    row_bytes = source.n_features * source.dtype.itemsize
    context = source.name, has_unknown(source)
    with open_executor(blocks, client=client) as executor:
        first = 0
        while first < len(blocks):
            last, size = first, 0
            while last < len(blocks) and (last == first or size < WINDOW_BYTES):
                size += blocks[last].n_rows * row_bytes
                last += 1
            found: Fetched = executor.run(fetch, context, blocks=range(first, last))
            yield from found.parts
            first = last


def rebatch(pieces: Iterator[Rows], n_rows: int) -> Iterator[Rows]:
    """The same rows in batches of `n_rows`, the last of fewer, however they were cut before."""
    held: list[Rows] = []
    count = 0
    for rows, weight in pieces:
        while len(rows):
            take = n_rows - count
            held.append((rows[:take], weight[:take]))
            count += len(held[-1][0])
            rows, weight = rows[take:], weight[take:]
            if count == n_rows:
                yield _joined(held)
                held, count = [], 0
    if held:
        yield _joined(held)


def _joined(held: Sequence[Rows]) -> Rows:
    if len(held) == 1:
        return np.ascontiguousarray(held[0][0]), np.ascontiguousarray(held[0][1])
    rows, weights = zip(*held, strict=True)
    return np.concatenate(rows), np.concatenate(weights)
