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
from streamgmm.sources.blocks import BlockBase, WrappedBlock, capable, shaped, unwrapped
from streamgmm.sources.given import rows
from streamgmm.sources.keeping import KeptBlock, is_kept, kept_bytes, read_and_keep
from streamgmm.sources.omitting import omitting, on_top, underlying
from streamgmm.sources.opening import open_source
from streamgmm.sources.readahead import alone
from streamgmm.sources.skipping import unreadable, without_rows
from streamgmm.sources.transforming import TransformedSource, identity_of, transformed

__all__ = [
    "PIECE_BYTES",
    "Block",
    "BlockBase",
    "KeptBlock",
    "Piece",
    "Source",
    "TransformedSource",
    "WrappedBlock",
    "alone",
    "capable",
    "check_finite",
    "identity_of",
    "is_kept",
    "kept_bytes",
    "omitting",
    "on_top",
    "open_source",
    "parse_block_size",
    "read_and_keep",
    "rows",
    "shaped",
    "transformed",
    "underlying",
    "unreadable",
    "unwrapped",
    "without_rows",
]
