"""Chunks inside shards on a local disk, read by themselves: a shard's index is read once.

A shard is a file of many chunks, with an index of where each lies (Zarr's codec
``sharding_indexed``). Zarr reads the index again for each selection, and copies every chunk two or
three times. What is known of a shard is forgotten once its file is another.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import ChunkError
from streamgmm.sources.chunks import (
    LeftToZarrError,
    LocalChunks,
    is_native_bytes,
    name_codec,
)

if TYPE_CHECKING:
    import zarr

MOST_INDICES = 256
"""Indices that a process keeps; one of 64 chunks has 1 KiB."""

_NONE = np.uint64(2**64 - 1)
_kept: dict[str, tuple[tuple[int, int, int], NDArray[np.uint64]]] = {}


@dataclass(frozen=True)
class LocalShards(LocalChunks):
    """As `LocalChunks`, of chunks that lie in shards.

    Attributes
    ----------
    at_end : bool
        Whether the index is at the end of a shard.
    """

    at_end: bool

    def _open(self, index: tuple[int, ...]) -> tuple[Any, int, int] | None:
        """Open the shard of a chunk; give where in it the chunk lies."""
        shards: Any = self.array.shards
        per = [n // step for n, step in zip(shards, self.array.chunks, strict=True)]
        path = self._path(tuple(i // n for i, n in zip(index, per, strict=True)))
        try:
            file = open(path, "rb", buffering=0)  # noqa: SIM115
        except FileNotFoundError:
            return None
        try:
            start, size, total = self._place(file, path, index, per)
            if start == size == int(_NONE):
                file.close()
                return None
            if start + size > total or size == 0:
                raise ChunkError(f"truncated: its shard has {total} bytes, and it ends later")
            if self.codec == "blosc" and size < 16:
                raise ChunkError("truncated: it is shorter than its header")
        except BaseException:
            file.close()
            raise
        return file, start, size

    def _place(
        self, file: Any, path: str, index: tuple[int, ...], per: list[int]
    ) -> tuple[int, int, int]:
        """Where a chunk begins in its shard, its bytes, and those of the shard."""
        status = os.fstat(file.fileno())
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        known = _kept.get(path)
        if known is None or known[0] != stamp:
            while len(_kept) >= MOST_INDICES:
                _kept.pop(next(iter(_kept), ""), None)
            known = _kept[path] = stamp, self._read_index(file, status.st_size, per)
        start, size = known[1][tuple(i % n for i, n in zip(index, per, strict=True))]
        return int(start), int(size), status.st_size

    def _read_index(self, file: Any, total: int, per: list[int]) -> NDArray[np.uint64]:
        """Read and check the index of a shard: offset and bytes of each chunk."""
        import google_crc32c

        n_bytes = int(np.prod(per, dtype=np.int64)) * 16
        if total < n_bytes + 4:
            raise LeftToZarrError
        found = os.pread(file.fileno(), n_bytes + 4, total - n_bytes - 4 if self.at_end else 0)
        checksum = int.from_bytes(found[n_bytes:], "little")
        if len(found) != n_bytes + 4 or google_crc32c.value(found[:n_bytes]) != checksum:
            raise LeftToZarrError
        return np.frombuffer(found[:n_bytes], "<u8").reshape(*per, 2)


def local_shards(array: zarr.Array[Any], root: Path) -> LocalShards | None:
    """Describe the chunks of a sharded array in a directory, if they can be read without Zarr.

    That is: chunks as `local_chunks` says, and an index of little-endian numbers with a checksum.
    """
    codecs: Any = array.metadata.codecs  # type: ignore[union-attr]
    if array.ndim == 0 or array.shards is None or len(codecs) != 1:
        return None
    if not array.dtype.isnative or array.dtype.kind not in "buif" or not hasattr(os, "pread"):
        return None
    sharding = codecs[0]
    kinds = [type(each).__name__ for each in sharding.index_codecs]
    if kinds != ["BytesCodec", "Crc32cCodec"] or sharding.index_codecs[0].endian.value != "little":
        return None
    if not is_native_bytes(sharding.codecs[0]):
        return None
    codec = name_codec(sharding.codecs[1:])
    if codec is None:
        return None
    at_end = sharding.index_location.value == "end"
    return LocalShards(array, os.path.join(root, array.path), codec, at_end)
