"""HDF5: datasets of any number of dimensions, read where they lie, whole chunks at a time.

A file is open while a block is read and closed again, so that blocks pickle small, and so that
whoever wants to write to it later may.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import (
    ChunkError,
    DataTypeError,
    ParameterError,
    SourceError,
    SourceNotFoundError,
)
from streamgmm.places import Place
from streamgmm.places.retry import retry
from streamgmm.sources.grid import Edges, regular_edges
from streamgmm.sources.names import check_names
from streamgmm.sources.variables import Box, Held
from streamgmm.sources.zarr_ref import describe

ENDINGS = (".h5", ".hdf5", ".he5", ".h5ad", ".h5mu")

_LISTED = 12


def is_hdf5(X: object) -> bool:
    """Whether `X` is a dataset or group of h5py, or names one: ``"file.h5/group/name"``.

    >>> is_hdf5("run.h5/images"), is_hdf5("cells.h5ad"), is_hdf5("data.zarr")
    (True, True, False)
    """
    module = sys.modules.get("h5py")
    if module is not None and isinstance(X, (module.Dataset, module.Group)):
        return True
    return isinstance(X, (str, os.PathLike, Place)) and _split(X) is not None


def _split(X: Any) -> tuple[str, str] | None:
    """The file and what is inside of it; None if no part of the path is named as such a file."""
    parts = (X.name if isinstance(X, Place) else os.fsdecode(X)).split("/")
    for i, part in enumerate(parts):
        if part.lower().endswith(ENDINGS):
            file = "/".join(parts[: i + 1])
            inside = "/".join(each for each in parts[i + 1 :] if each)
            return None if Path(file).is_dir() else (file, inside)
    return None


@contextmanager
def open_node(
    X: Any, storage_options: dict[str, Any] | None = None
) -> Iterator[tuple[Any, str, Place | None]]:
    """Have a dataset or a group open while inside; give it, what messages call it, and its file.

    The file is None where h5py's own object was given.

    Raises
    ------
    SourceNotFoundError
        If there is no such file, or nothing of that name in it; says which is nearest.
    SourceError
        If it is no HDF5.
    ParameterError
        If h5py is not installed.
    """
    found = _split(X) if isinstance(X, (str, os.PathLike, Place)) else None
    if found is None:
        yield X, f"{X.file.filename}{X.name}".rstrip("/"), None
        return
    file, inside = found
    if isinstance(X, Place):
        storage_options = X.storage_options
    place = Place.parse(file, storage_options)
    with _open(place) as root:
        if not inside:
            yield root, file, place
            return
        if inside not in root:
            there: list[str] = []
            root.visit(there.append)
            try:
                check_names([inside], there, f"in '{file}'")
            except ParameterError as error:
                raise SourceNotFoundError(str(error)) from None
        yield root[inside], f"{file}/{inside}", place


@contextmanager
def _open(place: Place) -> Iterator[Any]:
    try:
        import h5py
    except ImportError as error:
        raise ParameterError(
            f"'{place}' needs h5py: pip install 'streamgmm[hdf5]' ({error})"
        ) from error
    if place.directory is not None and not place.directory.exists():
        raise SourceNotFoundError(f"there is nothing at '{place}'")
    remote: Any = None
    try:
        if place.directory is None:
            import fsspec

            remote = fsspec.open(place.name, "rb", **(place.storage_options or {})).open()
            file = h5py.File(remote, "r")
        else:
            file = h5py.File(place.directory, "r")
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"there is nothing at '{place}'") from error
    except Exception as error:
        if remote is not None:
            remote.close()
        raise SourceError(f"'{place}' cannot be read as HDF5: {describe(error)}") from error
    try:
        yield file
    finally:
        file.close()
        if remote is not None:
            remote.close()


_held: dict[Place, _Held] = {}
_lock = threading.Lock()


@dataclass
class _Held:
    """A file that is open for some blocks of this process."""

    file: Any
    closing: ExitStack
    blocks: int = 0


@contextmanager
def _hold(place: Place) -> Iterator[None]:
    """Keep a file open meanwhile. Where it cannot be opened, whoever reads meets the error."""
    with _lock:
        held = _held.get(place)
        if held is None:
            closing = ExitStack()
            try:
                held = _held[place] = _Held(closing.enter_context(_open(place)), closing)
            except Exception:
                held = _Held(None, closing)
        held.blocks += 1
    try:
        yield
    finally:
        with _lock:
            held.blocks -= 1
            if not held.blocks:
                if _held.get(place) is held:
                    del _held[place]
                held.closing.close()


@contextmanager
def _file(place: Place) -> Iterator[Any]:
    """Have a file: the one that is held open, or open it."""
    held = _held.get(place)
    if held is not None and held.file:
        yield held.file
        return
    with _open(place) as file:
        yield file


@dataclass(frozen=True)
class HDF5Part:
    """A dataset, of which any process reads boxes."""

    any_box: ClassVar[bool] = True

    stored: InHDF5
    futures: Mapping[Any, Any] = field(default_factory=dict, repr=False)

    def fill(self, values: Mapping[Any, Any]) -> HDF5Part:
        """Give this part itself, which has no futures."""
        return self

    def read(self, i: int, box: Box) -> NDArray[Any]:
        """Read the chunks of a box."""
        return self.stored.read(box)

    def hold(self) -> AbstractContextManager[None]:
        """Keep the file open while inside, where it is needed."""
        return _hold(self.stored.place) if self.stored.offset is None else nullcontext()

    def check_seen(self) -> None:
        """Check that this process sees the dataset."""
        self.stored.check_seen()


@dataclass(frozen=True)
class InHDF5:
    """A dataset in a file.

    Attributes
    ----------
    name : str
        What messages call it.
    place : Place
        The file.
    inside : str
        The dataset in it.
    shape, dtype, chunks
        Of the dataset; `chunks` is None where it is contiguous.
    offset : int or None
        Where its values begin in the file, if they lie there one after another as in memory.
    """

    shared_by_blocks: ClassVar[bool] = True  # a cluster is sent it once, beside its blocks
    resident: ClassVar[bool] = False
    in_memory: ClassVar[bool] = False

    name: str
    place: Place
    inside: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...] | None
    offset: int | None

    def edges(self, axis: int) -> Edges | None:
        """Those of its chunks; None where it has none."""
        if self.chunks is None:
            return None
        return regular_edges(self.shape[axis], self.chunks[axis])

    def parts(self, runs: Sequence[Sequence[Box]], cuts: Sequence[Edges]) -> list[HDF5Part]:
        """Give the dataset itself."""
        return [HDF5Part(self) for _ in runs]

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box; raises ChunkError, which names the chunk, or SourceError."""
        spans = [each.indices(n)[:2] for each, n in zip(box, self.shape, strict=True)]
        try:
            return retry(lambda: self._read(spans), f"{self.name}, {_say(spans)}")
        except (MemoryError, SourceError):
            raise
        except Exception as error:
            first, cause = self._first_bad(spans, error)
            raise ChunkError(
                f"{self.name}: {_say(first)} cannot be read: {describe(cause)}; restore it from "
                "a copy, or write the file again"
            ) from cause

    def _read(self, spans: Sequence[tuple[int, int]]) -> NDArray[Any]:
        whole = all(span == (0, n) for span, n in zip(spans[1:], self.shape[1:], strict=True))
        shape = tuple(stop - start for start, stop in spans)
        if self.offset is not None and whole and 0 not in shape:
            row = int(np.prod(self.shape[1:], dtype=np.int64))
            first, count = spans[0][0] * row, shape[0] * row
            at = self.offset + first * self.dtype.itemsize
            path = self.place.directory
            assert path is not None
            values = np.fromfile(path, self.dtype, count, offset=at)
            if values.size < count:
                raise ChunkError(f"truncated: {values.size} values where there should be {count}")
            return values.reshape(shape)
        with self._dataset() as dataset:
            try:
                return np.asarray(dataset[tuple(slice(a, b) for a, b in spans)])
            except OSError as error:
                if error.errno is None and "errno" not in str(error):  # no use to try again
                    raise ChunkError(str(error)) from error
                raise

    def _first_bad(
        self, spans: Sequence[tuple[int, int]], error: Exception
    ) -> tuple[list[tuple[int, int]], Exception]:
        """The first chunk of a box that cannot be read, and why."""
        if self.chunks is not None:
            each = zip(spans, self.chunks, strict=True)
            for index in product(*(range(a // step, -(-b // step)) for (a, b), step in each)):
                chunk = [
                    (i * step, min(n, (i + 1) * step))
                    for i, step, n in zip(index, self.chunks, self.shape, strict=True)
                ]
                try:
                    self._read(chunk)
                except Exception as found:
                    return chunk, found
        return list(spans), error

    @contextmanager
    def _dataset(self) -> Iterator[Any]:
        with _file(self.place) as file:
            dataset = file.get(self.inside)
            shape = getattr(dataset, "shape", None) or ()
            if shape[1:] != self.shape[1:] or shape[:1] < self.shape[:1]:
                raise SourceError(
                    f"{self.name} had shape {self.shape} where it was opened, and has {shape} "
                    "now; give a file that is not written to meanwhile"
                )
            yield dataset

    def check_seen(self) -> None:
        """Check that this process sees the dataset; raises SourceError."""
        try:
            with self._dataset():
                pass
        except SourceNotFoundError as error:
            raise SourceError(
                f"{self.name} was opened elsewhere but is not to be seen from this process "
                f"({error}); give a path or URL that every worker can open"
            ) from error


def stored_in_hdf5(dataset: Any, place: Place | None = None) -> Any:
    """Give an open dataset as something that blocks read: in its file, or in memory.

    Parameters
    ----------
    dataset : h5py.Dataset
    place : Place, optional
        Its file; by default the file that h5py has opened.

    Raises
    ------
    ParameterError
        If its file is neither on a disk nor at a URL, so that nobody else can open it.
    DataTypeError
        If it is empty.
    """
    file = dataset.file
    where = str(place or file.filename)
    name = f"dataset '{where}{dataset.name}'"
    if dataset.shape is None:
        raise DataTypeError(f"{name} is empty")
    if file.driver == "core":
        return Held(np.asarray(dataset[()]))
    if file.driver == "fileobj" and place is None:
        raise ParameterError(
            f"{name} is in a file object, which no other process can open; give its path or URL"
        )
    place = place or Place.parse(where)
    offset = None
    plain = dataset.chunks is None and dataset.external is None and not dataset.is_virtual
    if plain and place.directory is not None and dataset.dtype.kind in "iuf":
        offset = None if file.userblock_size else dataset.id.get_offset()
    return InHDF5(name, place, dataset.name, dataset.shape, dataset.dtype, dataset.chunks, offset)


def open_dataset(X: Any, storage_options: dict[str, Any] | None = None) -> tuple[str, Any, Any]:
    """Give what messages call a dataset, what reads it, and its attributes.

    Raises
    ------
    SourceError
        If it is a group; says which datasets it has. Also as `open_node`.
    """
    import h5py

    with open_node(X, storage_options) as (node, name, place):
        if isinstance(node, h5py.Dataset):
            return f"dataset '{name}'", stored_in_hdf5(node, place), dict(node.attrs)
        found = datasets_of(node)
        listed = ", ".join(f"'{key}' {each.shape} {each.dtype}" for key, each in found[:_LISTED])
        more = ", and more" * (len(found) > _LISTED)
        first = f"'{name.rstrip('/')}/{found[0][0]}'" if found else ""
        raise SourceError(
            f"'{name}' is a group of HDF5, not a dataset; it holds {listed or 'nothing'}{more}"
            + f". Name one, as in {first}, or say which are features, as in rows(…, features=…)"
            * bool(found)
        )


def datasets_of(group: Any) -> list[tuple[str, Any]]:
    """Give the datasets of a group and of those in it, by name."""
    import h5py

    found: list[tuple[str, Any]] = []

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            found.append((name, node))

    group.visititems(visit)
    return found


def _say(spans: Sequence[tuple[int, int]]) -> str:
    each = [f"{start}:{stop}" for start, stop in spans]
    return f"rows {each[0]}" if len(each) in (1, 2) else f"[{', '.join(each)}]"
