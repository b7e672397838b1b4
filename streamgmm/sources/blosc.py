"""A guard for chunks compressed by Blosc, whose decoder trusts the length in their header."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zarr.abc.store import Store
from zarr.storage import WrapperStore

from streamgmm.errors import ChunkError

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

_HEADER = 16
_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


class GuardedStore(WrapperStore[Store]):
    """A store that refuses a chunk shorter than its Blosc header says.

    Blosc's decoder reads as many bytes as the header names, past the end of a truncated file:
    without this the process ends in a segmentation fault, or gives numbers from elsewhere.
    """

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Get a whole chunk, checked; ranges and metadata as they are."""
        value = await super().get(key, prototype, byte_range)
        if value is None or byte_range is not None or key.endswith(_METADATA):
            return value
        size = len(value)
        head = value[:_HEADER].to_bytes()
        expected = int.from_bytes(head[12:16], "little") if size >= _HEADER else _HEADER
        if size < expected:
            raise ChunkError(f"truncated: {size} bytes where its header says {expected}")
        return value
