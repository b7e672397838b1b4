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
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import ChunkError
from streamgmm.sources.base import PIECE_BYTES

if TYPE_CHECKING:
    import zarr

Decode = Callable[[bytes, NDArray[Any]], object]
Span = tuple[int, int]


_free: deque[NDArray[np.uint8]] = deque(maxlen=4)


class _Lent:
    """A buffer that returns to the pool when no array uses it any more."""

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self._memory = memory
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        _free.append(self._memory)


def lend(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
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


class LeftToZarrError(Exception):
    """A chunk that Zarr must read, or find to be damaged."""


@dataclass(frozen=True)
class LocalChunks:
    """Chunks that are files of their own.

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

    def read(self, spans: Sequence[Span]) -> NDArray[Any] | None:
        """Read a box; None if a chunk must be read by Zarr.

        Parameters
        ----------
        spans : sequence of (start, stop)
            Along each axis.

        Raises
        ------
        ChunkError
            If a chunk is shorter or longer than it must be.
        OSError
            If a file cannot be read.
        """
        out = lend(tuple(stop - start for start, stop in spans), self.array.dtype)
        steps = self.array.chunks
        for index in self._indices(spans):
            corner = [i * step for i, step in zip(index, steps, strict=True)]
            ends = [first + step for first, step in zip(corner, steps, strict=True)]
            lows = [max(start, first) for (start, _), first in zip(spans, corner, strict=True)]
            highs = [min(stop, end) for (_, stop), end in zip(spans, ends, strict=True)]
            each = zip(lows, highs, spans, strict=True)
            into = out[tuple(slice(a - start, b - start) for a, b, (start, _) in each)]
            inside = [(a - c, b - c) for a, b, c in zip(lows, highs, corner, strict=True)]
            if not self._read_chunk(index, into, inside):
                return None
        return out

    def _read_chunk(
        self, index: tuple[int, ...], into: NDArray[Any], inside: Sequence[Span]
    ) -> bool:
        """Read the part `inside` of a chunk; False if Zarr must read it."""
        shape = self.array.chunks
        whole = int(np.prod(shape, dtype=np.int64)) * into.itemsize
        try:
            found = self._open(index)
        except LeftToZarrError:
            return False
        if found is None:
            if self.array.fill_value is None:
                return False
            into[...] = self.array.fill_value
            return True
        file, at, size = found
        rows_only = all(span == (0, n) for span, n in zip(inside[1:], shape[1:], strict=True))
        direct = rows_only and into.flags.c_contiguous
        with file:
            if size == 0:
                return False
            if self.codec == "raw":
                if size != whole:
                    raise ChunkError(f"truncated: {size} bytes where it should have {whole}")
                if direct:
                    file.seek(at + inside[0][0] * (whole // shape[0]))
                    _fill(file, into)
                    return True
                file.seek(at)
                chunk = lend(shape, into.dtype)
                _fill(file, chunk)
                into[...] = chunk[tuple(slice(*span) for span in inside)]
                return True
            file.seek(at)
            encoded = _slurp(file, size)
        if _decoded_size(self.codec, encoded) != whole:
            return False
        if direct and len(into) == shape[0]:
            _decoder(self.codec)(encoded, into)
            return True
        chunk = lend(shape, into.dtype)
        _decoder(self.codec)(encoded, chunk)
        into[...] = chunk[tuple(slice(*span) for span in inside)]
        return True

    def _open(self, index: tuple[int, ...]) -> tuple[Any, int, int] | None:
        """Open the file of a chunk; give where in it the chunk begins, and its bytes.

        None for one that was never written.
        """
        try:
            file = open(self._path(index), "rb", buffering=0)  # noqa: SIM115
        except FileNotFoundError:
            return None
        return file, 0, os.fstat(file.fileno()).st_size

    def warm(self, spans: Sequence[Span]) -> None:
        """Ask the system to read the files of a box into the page cache, without waiting."""
        for index in self._indices(spans):
            with suppress(OSError, LeftToZarrError):  # the read that follows gets it too
                found = self._open(index)
                if found is not None:
                    file, at, size = found
                    with file:
                        os.posix_fadvise(file.fileno(), at, size, os.POSIX_FADV_WILLNEED)

    def _indices(self, spans: Sequence[Span]) -> Iterator[tuple[int, ...]]:
        """The chunks of a box."""
        steps = self.array.chunks
        return product(
            *(range(a // step, -(-b // step)) for (a, b), step in zip(spans, steps, strict=True))
        )

    def _path(self, index: tuple[int, ...]) -> str:
        metadata: Any = self.array.metadata
        return os.path.join(self.root, metadata.encode_chunk_key(index))


def local_chunks(array: zarr.Array[Any], root: Path) -> LocalChunks | None:
    """Describe the chunks of an array in a directory, if they can be read without Zarr.

    That is: no shards, no filters, native bytes in C order, and uncompressed or in one frame of
    Blosc or Zstandard.
    """
    metadata: Any = array.metadata
    if array.ndim == 0 or array.shards is not None or array.filters:
        return None
    if not array.dtype.isnative or array.dtype.kind not in "buif":
        return None
    if metadata.zarr_format == 2:
        if metadata.order != "C":
            return None
    elif not is_native_bytes(metadata.codecs[0]):
        return None
    codec = name_codec(array.compressors)
    return None if codec is None else LocalChunks(array, os.path.join(root, array.path), codec)


def is_native_bytes(serializer: Any) -> bool:
    """Whether numbers are stored as they are in memory."""
    endian = getattr(getattr(serializer, "endian", None), "value", sys.byteorder)
    return type(serializer).__name__ == "BytesCodec" and endian == sys.byteorder


def name_codec(compressors: Sequence[Any]) -> str | None:
    """Name what undoes these compressors: ``"raw"``, ``"blosc"``, ``"zstd"``; None if nothing."""
    if not compressors:
        return "raw"
    name = type(compressors[0]).__name__.lower().removesuffix("codec")
    return name if len(compressors) == 1 and name in ("blosc", "zstd") else None


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
