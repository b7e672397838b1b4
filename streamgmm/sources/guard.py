"""Checks for truncated chunks that Zarr would not notice, or that would crash the process."""

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
    """A store that refuses a shard of no bytes, and a chunk shorter than its Blosc header says.

    Zarr takes an empty shard for one that was never written, and gives the fill value. Blosc's
    decoder reads as many bytes as the header says, past the end of a truncated file. Without
    this check that is a segmentation fault, or gives other memory as numbers.

    Parameters
    ----------
    store : zarr.abc.store.Store
    blosc : bool
        Whether whole chunks are Blosc frames.
    """

    def __init__(self, store: Store, blosc: bool) -> None:
        super().__init__(store)
        self.blosc = blosc

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Get a chunk or a part of one, checked; metadata as it is."""
        value = await super().get(key, prototype, byte_range)
        if value is None or key.endswith(_METADATA):
            return value
        size = len(value)
        if size == 0:
            raise ChunkError("truncated: it is there, but holds no bytes")
        if byte_range is not None or not self.blosc:
            return value
        head = value[:_HEADER].to_bytes()
        expected = int.from_bytes(head[12:16], "little") if size >= _HEADER else _HEADER
        if size < expected:
            raise ChunkError(f"truncated: {size} bytes where its header says {expected}")
        return value
