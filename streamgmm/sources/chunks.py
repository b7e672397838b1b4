"""Fast path for chunks on a local disk: they are decoded directly into the array of rows.

Zarr reads every chunk through a pipeline that copies it two or three times. Chunks of
uncompressed, Blosc or Zstandard bytes need one copy at most. For 128 MiB of rows in chunks of
4 MiB that takes 45 ms of a processor instead of 53 uncompressed, and 187 ms instead of 227 in
Zstandard.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import ChunkError
from streamgmm.sources.base import PIECE_BYTES

if TYPE_CHECKING:
    import zarr

Decode = Callable[[bytes, NDArray[Any]], object]


_free: deque[NDArray[np.uint8]] = deque(maxlen=4)


class _Lent:
    """A buffer that returns to the pool when no array uses it any more."""

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self._memory = memory
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        _free.append(self._memory)


def _lend(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Give an array from a pool of buffers, if it is of about the size of a piece.

    The system has to map and clear fresh memory. On two threads that costs a third of the time
    to copy the rows. The pool holds at most four buffers, none of them much larger than a piece.
    """
    n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if not PIECE_BYTES // 8 <= n_bytes <= 2 * PIECE_BYTES:
        return np.empty(shape, dtype)
    try:
        memory = _free.pop()
    except IndexError:
        memory = np.empty(0, np.uint8)
    if len(memory) < n_bytes:
        memory = np.empty(n_bytes, np.uint8)
    return np.asarray(_Lent(memory))[:n_bytes].view(dtype).reshape(shape)


@dataclass(frozen=True)
class LocalChunks:
    """Row chunks that are files of their own, with all columns in each.

    Attributes
    ----------
    array : zarr.Array
    root : str
        The directory of the array.
    codec : str
        ``"raw"``, ``"blosc"`` or ``"zstd"``.
    """

    array: zarr.Array[Any]
    root: str
    codec: str

    def read(self, start: int, stop: int) -> NDArray[Any] | None:
        """Read the rows ``start:stop``; None if a chunk must be read by Zarr.

        Raises
        ------
        ChunkError
            If a chunk is shorter or longer than it must be.
        OSError
            If a file cannot be read.
        """
        array = self.array
        unit = array.chunks[0]
        tail = array.shape[1:]
        out = _lend((stop - start, *tail), array.dtype)
        for i in range(start // unit, -(-stop // unit)):
            a, b = max(start, i * unit), min(stop, (i + 1) * unit)
            into = out[a - start : b - start]
            try:
                file = open(self._path(i), "rb", buffering=0)  # noqa: SIM115
            except FileNotFoundError:
                if array.fill_value is None:
                    return None
                into[...] = array.fill_value
                continue
            with file:
                size = os.fstat(file.fileno()).st_size
                whole = unit * out.itemsize * int(np.prod(tail, dtype=np.int64))
                if size == 0:
                    return None
                if self.codec == "raw":
                    if size != whole:
                        raise ChunkError(f"truncated: {size} bytes where it should have {whole}")
                    file.seek((a - i * unit) * (whole // unit))
                    _fill(file, into)
                    continue
                encoded = _slurp(file, size)
            if _decoded_size(self.codec, encoded) != whole:
                return None
            if len(into) == unit:
                _decoder(self.codec)(encoded, into)
            else:
                chunk = np.empty((unit, *tail), array.dtype)
                _decoder(self.codec)(encoded, chunk)
                into[...] = chunk[a - i * unit : b - i * unit]
        return out

    def warm(self, run: tuple[int, int]) -> None:
        """Ask the system to read the files of some rows into the page cache, without waiting."""
        unit = self.array.chunks[0]
        for i in range(run[0] // unit, -(-run[1] // unit)):
            with suppress(OSError):  # the read that follows gets the error too
                file = os.open(self._path(i), os.O_RDONLY)
                try:
                    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_WILLNEED)
                finally:
                    os.close(file)

    def _path(self, i: int) -> str:
        metadata: Any = self.array.metadata
        key = metadata.encode_chunk_key((i, *(0 for _ in self.array.shape[1:])))
        return os.path.join(self.root, key)


def local_chunks(array: zarr.Array[Any], root: Path) -> LocalChunks | None:
    """Describe the chunks of an array in a directory, if they can be read without Zarr.

    That is: no shards, no filters, native bytes in C order, all columns in every chunk, and
    uncompressed or in one frame of Blosc or Zstandard.
    """
    metadata: Any = array.metadata
    if array.ndim not in (1, 2) or array.shards is not None or array.filters:
        return None
    if array.chunks[1:] != array.shape[1:] or not array.dtype.isnative:
        return None
    if array.dtype.kind not in "buif":
        return None
    if metadata.zarr_format == 2:
        if metadata.order != "C":
            return None
    else:
        serializer: Any = metadata.codecs[0]
        endian = getattr(getattr(serializer, "endian", None), "value", sys.byteorder)
        if type(serializer).__name__ != "BytesCodec" or endian != sys.byteorder:
            return None
    compressors: Any = array.compressors
    codec = "raw"
    if compressors:
        name = type(compressors[0]).__name__.lower().removesuffix("codec")
        if len(compressors) > 1 or name not in ("blosc", "zstd"):
            return None
        codec = name
    return LocalChunks(array, os.path.join(root, array.path), codec)


def _fill(file: Any, into: NDArray[Any]) -> None:
    """Read as many bytes as `into` holds."""
    view = into.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(view):
        n = file.readinto(view[done:])
        if not n:
            raise ChunkError(f"truncated while it was read: {len(view) - done} bytes are missing")
        done += n


def _slurp(file: Any, size: int) -> bytes:
    encoded = bytes(file.read(size))
    while len(encoded) < size:
        more = file.read(size - len(encoded))
        if not more:
            raise ChunkError(f"truncated while it was read: {size - len(encoded)} bytes missing")
        encoded += more
    return encoded


def _decoded_size(codec: str, encoded: bytes) -> int | None:
    """Decoded size that a frame states; None if it states none, or is truncated.

    The layouts are those of Blosc 1's header and of RFC 8878, section 3.1.1.1. The decoder is
    given a buffer of exactly this size, so a wrong frame is an error and never wrong numbers.
    """
    if codec == "blosc":
        if len(encoded) < 16 or int.from_bytes(encoded[12:16], "little") > len(encoded):
            return None
        return int.from_bytes(encoded[4:8], "little")
    if encoded[:4] != b"\x28\xb5\x2f\xfd" or len(encoded) < 18:
        return None
    descriptor = encoded[4]
    single = descriptor >> 5 & 1
    width = (single, 2, 4, 8)[descriptor >> 6]
    at = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3]
    if width == 0:
        return None
    return int.from_bytes(encoded[at : at + width], "little") + (256 if width == 2 else 0)


def _decoder(codec: str) -> Decode:
    import numcodecs

    decode: Decode = numcodecs.Blosc().decode if codec == "blosc" else numcodecs.Zstd().decode
    return decode
