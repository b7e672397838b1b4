"""An open Zarr array, format 2 or 3, that any process can read; errors say which chunk failed."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import (
    ChunkError,
    SourceError,
)
from streamgmm.places.retry import advice, retry, said
from streamgmm.sources.chunks import LocalChunks
from streamgmm.sources.readahead import run_here

if TYPE_CHECKING:
    import zarr

_PROCESS = uuid.uuid4().hex
_seen: set[str] = set()


@dataclass(frozen=True)
class ZarrRef:
    """An open Zarr array that pickles small and reads in any process.

    Attributes
    ----------
    array : zarr.Array
    name : str
        What messages call it.
    local : bool
        Whether its store is a directory, which reader threads read themselves.
    resident : bool
        Whether its store is in this process's memory, so that no other process can read it.
    chunks : LocalChunks or None
        The fast path to its chunks without Zarr, if there is one.
    process, token : str
        The process that opened it, and the id of this opening.
    """

    shared_by_blocks: ClassVar[bool] = True  # a cluster is sent it once, beside its blocks

    array: zarr.Array[Any]
    name: str
    local: bool
    resident: bool
    chunks: LocalChunks | None = None
    process: str = _PROCESS
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Read the rows ``start:stop``, all columns.

        Raises
        ------
        ChunkError
            If a chunk cannot be read or decoded; names it.
        SourceError
            If this process does not see the array that the other one opened.
        """
        return self.read_box((slice(start, stop), *(slice(None) for _ in self.array.shape[1:])))

    def read_box(self, box: tuple[slice, ...]) -> NDArray[Any]:
        """Read a box, as `read` does rows.

        Raises
        ------
        ChunkError, SourceError
            As `read`.
        """
        self.check_seen()
        spans = [each.indices(n)[:2] for each, n in zip(box, self.array.shape, strict=True)]

        def read() -> NDArray[Any]:
            values = None if self.chunks is None else self.chunks.read(spans)
            return self._get(box) if values is None else values

        try:
            return retry(read, f"{self.name}, {_say(spans)}")
        except MemoryError:
            raise
        except Exception as error:
            self._name_chunk(spans, error)
            raise AssertionError from error

    def _get(self, selection: tuple[slice, ...]) -> NDArray[Any]:
        array = self.array
        if self.local:
            return np.asarray(run_here(lambda: array.async_array.getitem(selection)))
        return np.asarray(array[selection])

    def _name_chunk(self, spans: Sequence[tuple[int, int]], error: Exception) -> None:
        """Read chunk by chunk, and raise an error that names the first that cannot be read."""
        array = self.array
        shape = array.shape
        unit = array.shards or array.chunks
        grid = [
            range(lo // step, -(-hi // step)) for (lo, hi), step in zip(spans, unit, strict=True)
        ]
        for index in product(*grid):
            selection = tuple(
                slice(max(lo, i * step), min(hi, (i + 1) * step))
                for i, step, (lo, hi) in zip(index, unit, spans, strict=True)
            )
            try:
                if self.chunks is not None:
                    self.chunks.read([(part.start, part.stop) for part in selection])
                self._get(selection)
            except Exception as found:
                key = array.metadata.encode_chunk_key(index)
                whole = [
                    (i * step, min(n, (i + 1) * step))
                    for i, step, n in zip(index, unit, shape, strict=True)
                ]
                what = advice(found) or "restore it from a copy, or write the array again"
                raise ChunkError(
                    f"{self.name}: chunk '{key}' ({_say(whole)}) cannot be read: "
                    f"{describe(found)}; {what}"
                ) from found
        raise ChunkError(
            f"{self.name}: {_say(spans)} could not be read: {describe(error)}; each chunk "
            "could on a second try, so run again, and look at the storage if it recurs"
        ) from error

    def warm(self, box: tuple[slice, ...]) -> None:
        """Ask the system to load the files of a box, where there are some, without waiting."""
        if self.chunks is not None and hasattr(os, "posix_fadvise"):
            spans = [each.indices(n)[:2] for each, n in zip(box, self.array.shape, strict=True)]
            self.chunks.warm(spans)

    def fetch(self, start: int, stop: int) -> int:
        """Read the stored bytes of the rows ``start:stop`` and discard them; give how many.

        Of a chunk or shard with other rows in it, the bytes are counted in proportion.
        """
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        array = self.array
        unit = array.shards or array.chunks
        spans = [range(start // unit[0], -(-stop // unit[0]))]
        spans += [range(-(-n // step)) for n, step in zip(array.shape[1:], unit[1:], strict=True)]
        prefix = f"{array.path}/" if array.path else ""

        async def get() -> int:
            size = 0
            for index in product(*spans):
                key = prefix + array.metadata.encode_chunk_key(index)
                value = await array.store.get(key, default_buffer_prototype())
                size += 0 if value is None else len(value)
            return size

        size: int = run_here(get) if self.local else sync(get())
        return size * (stop - start) // (len(spans[0]) * unit[0])

    def check_seen(self) -> None:
        """Check that this process has access to the array.

        Zarr gives the fill value for a chunk that does not exist. Without this check, a worker
        without access to the file system of the client would read an array of zeros.

        Raises
        ------
        SourceError
        """
        if self.process == _PROCESS or self.token in _seen:
            return
        import zarr

        array = self.array
        store = getattr(array.store, "_store", array.store)
        advice = "give a path or URL that every worker can open, such as a shared file system"
        try:
            here = zarr.open_array(
                store, path=array.path, mode="r", zarr_format=array.metadata.zarr_format
            )
        except Exception as error:
            raise SourceError(
                f"{self.name} was opened elsewhere but is not to be seen from this worker "
                f"({describe(error)}); {advice}"
            ) from error
        if (here.shape, here.dtype, here.chunks) != (array.shape, array.dtype, array.chunks):
            raise SourceError(
                f"{self.name} is {array.shape} {array.dtype} where it was opened, "
                f"but {here.shape} {here.dtype} on this worker; {advice}"
            )
        _seen.add(self.token)


def _say(spans: Sequence[tuple[int, int]]) -> str:
    """Name a box: by its rows where there are rows and columns.

    >>> _say([(0, 9), (0, 3)]), _say([(0, 9), (4, 8), (0, 3)])
    ('rows 0:9', '[0:9, 4:8, 0:3]')
    """
    each = [f"{start}:{stop}" for start, stop in spans]
    return f"rows {each[0]}" if len(each) in (1, 2) else f"[{', '.join(each)}]"


def describe(error: BaseException) -> str:
    """Give the kind of an error and what it says."""
    text, kind = said(error), type(error).__name__
    return kind if text == kind else f"{kind}: {text}"
