"""Rows in: NumPy arrays, Zarr arrays by object, path or URL, and dask arrays.

A source can be read again and again. It is divided into blocks: runs of whole chunks, each read
by one task. A block gives the rows in pieces of bounded size. A new kind of source is a new file
here and a line in `open_source` (opening.py).
"""

from __future__ import annotations

from streamgmm.sources.base import (
    PIECE_BYTES,
    Block,
    Piece,
    Source,
    check_finite,
    parse_block_size,
)
from streamgmm.sources.blocks import BlockBase, WrappedBlock, capable, unwrapped
from streamgmm.sources.given import rows
from streamgmm.sources.keeping import KeptBlock, is_kept, kept_bytes, read_and_keep
from streamgmm.sources.omitting import omitting, underlying
from streamgmm.sources.opening import open_source
from streamgmm.sources.readahead import alone
from streamgmm.sources.skipping import unreadable, without_rows

__all__ = [
    "PIECE_BYTES",
    "Block",
    "BlockBase",
    "KeptBlock",
    "Piece",
    "Source",
    "WrappedBlock",
    "alone",
    "capable",
    "check_finite",
    "is_kept",
    "kept_bytes",
    "omitting",
    "open_source",
    "parse_block_size",
    "read_and_keep",
    "rows",
    "underlying",
    "unreadable",
    "unwrapped",
    "without_rows",
]
