"""Transformed rows in memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.passes import default_threads, open_executor
from streamgmm.sources import Block, Source, check_finite, parse_block_size


def read_rows(
    source: Source,
    *,
    gaps: bool = False,
    block_size: int | str = "auto",
    n_threads: int | None = None,
) -> NDArray[Any]:
    """All rows (N, D) as an array of the source's dtype; NaN where they are left out.

    Parameters
    ----------
    source : Source
    gaps : bool
        Whether NaN is kept in its place, and is no error.
    block_size, n_threads
        See `parse_block_size` and `open_executor`.

    Raises
    ------
    NonFiniteError
        Names the array and the rows.
    """
    shape = (source.n_samples, source.n_features)
    omits = getattr(source, "omits", False)
    out = np.full(shape, math.nan, source.dtype) if omits else np.empty(shape, source.dtype)
    blocks = source.blocks(parse_block_size(block_size, source))
    threads = min(default_threads() if n_threads is None else n_threads, len(blocks))
    with open_executor(blocks, n_threads=threads) as executor:
        executor.run(_read_block, (source.name, gaps, out))
    return out


class _Done:
    """Nothing to merge."""

    def merge(self, other: _Done) -> _Done:
        return self


def _read_block(context: tuple[str, bool, NDArray[Any]], block: Block) -> _Done:
    name, gaps, out = context
    for piece in block.pieces():
        check_finite(piece, name, gaps)
        out[piece.place()] = piece.rows
    return _Done()
