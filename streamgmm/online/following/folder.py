"""A folder to which Zarr, npy or Parquet files are added, in the order of their names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import ParameterError, SourceError, SourceNotFoundError
from streamgmm.online.following.array import has_unwritten
from streamgmm.online.following.base import Position, Unit, digest_rows
from streamgmm.places import Place
from streamgmm.sources.base import float_dtype
from streamgmm.sources.zarr_open import open_ref

KINDS = (".npy", ".parquet", ".zarr")


class Unfinished(Exception):
    """A file that is not whole yet."""


class FolderFeed:
    """Each file from its first row to its last, the files by name.

    Names must sort in the order in which files are added, so that the position is one name. The
    last file may still be written: one that is not whole is left for later. Names that start
    with a dot or an underscore are not looked at; a writer can rename from there.
    """

    endless = True

    def __init__(
        self, where: Place, *, batch_rows: int, columns: Sequence[str] | None = None
    ) -> None:
        assert where.directory is not None
        self._folder, self._batch_rows, self._columns = where.directory, batch_rows, columns
        self.name = f"folder '{where}'"
        if not self._folder.is_dir():
            raise SourceNotFoundError(f"{self.name}: there is no such folder")

    def _names(self) -> list[str]:
        return sorted(
            path.name
            for path in self._folder.iterdir()
            if path.suffix in KINDS and path.name[0] not in "._"
        )

    def check(self, position: Position) -> None:
        """Check that no file was added, removed or rewritten up to the position."""
        name, row = position["file"], int(position["row"])
        names = [other for other in self._names() if other <= name]
        if name not in names or len(names) != position["files"]:
            raise SourceError(
                f"{self.name} has {len(names)} files up to '{name}' but {position['files']} were "
                "learned: one was added or removed behind the position; give new files names "
                "that sort last, or follow with another state"
            )
        first, known = int(position["first"]), position["digest"]
        rows = np.concatenate([np.empty(0), *self._rows(name, first, row, False)], axis=None)
        if digest_rows(rows) != known:
            raise SourceError(
                f"{self.name}, file '{name}', rows {first}:{row}: they are not those that were "
                "learned; the file was rewritten; follow with another state"
            )

    def units(self, position: Position | None) -> Iterator[Unit]:
        """What is whole, in batches that begin anew with each file."""
        names = self._names()
        done = "" if position is None else position["file"]
        row = 0 if position is None else int(position["row"])
        for index, name in enumerate(names):
            if name < done:
                continue
            first = row if name == done else 0
            last_file = index == len(names) - 1
            try:
                for rows in self._rows(name, first, None, last_file):
                    after = {
                        "file": name,
                        "files": index + 1,
                        "first": first,
                        "row": first + len(rows),
                        "digest": digest_rows(np.asarray(rows, np.float64).ravel()),
                    }
                    yield Unit(rows, after)
                    first += len(rows)
            except Unfinished as error:
                if not last_file:
                    raise SourceError(
                        f"{self.name}, file '{name}' is not whole ({error}); restore it, or "
                        "remove it"
                    ) from error
                return

    def _rows(
        self, name: str, first: int, last: int | None, may_wait: bool
    ) -> Iterator[NDArray[Any]]:
        """Rows ``first:last`` of a file, a batch at a time."""
        path = self._folder / name
        reader = {".npy": self._npy, ".parquet": self._parquet, ".zarr": self._zarr}
        for start, rows in reader[path.suffix](path, first, may_wait):
            stop = len(rows) if last is None else min(len(rows), last - start)
            if stop <= 0:
                return
            yield np.ascontiguousarray(rows[:stop])

    def _npy(self, path: Path, first: int, may_wait: bool) -> Iterator[tuple[int, NDArray[Any]]]:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise Unfinished(str(error)) from error
        return self._batches(array, len(array), first, str(path))

    def _zarr(self, path: Path, first: int, may_wait: bool) -> Iterator[tuple[int, NDArray[Any]]]:
        ref = open_ref(path)
        array = ref.array
        if may_wait:
            step = (array.shards or array.chunks)[0]
            for start in range(0, array.shape[0], step):
                if has_unwritten(ref.read(start, min(start + step, array.shape[0])), array):
                    raise Unfinished("rows of it are not written")
        return self._batches(array, int(array.shape[0]), first, str(path))

    def _batches(
        self, array: Any, n: int, first: int, name: str
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        dtype = float_dtype(array.dtype, f"'{name}'")
        if len(array.shape) != 2:
            raise SourceError(f"'{name}' has shape {array.shape}; rows and columns are needed")
        while first < n:
            last = min(n, (first // self._batch_rows + 1) * self._batch_rows)
            yield first, np.asarray(array[first:last]).astype(dtype)
            first = last

    def _parquet(
        self, path: Path, first: int, may_wait: bool
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        parquet = import_arrow("pyarrow.parquet")
        arrow = import_arrow("pyarrow")
        try:
            file = parquet.ParquetFile(path)
        except (arrow.ArrowInvalid, OSError) as error:
            raise Unfinished(str(error)) from error
        with file:
            start = 0
            for batch in file.iter_batches(self._batch_rows, columns=self._columns):
                rows = rows_of_table(batch, str(path))
                if start + len(rows) > first:
                    yield max(start, first), rows[max(0, first - start) :]
                start += len(rows)


def import_arrow(name: str) -> Any:
    """Import a module of pyarrow, which is an extra."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ParameterError(
            "Parquet and Arrow need pyarrow: pip install 'streamgmm[arrow]'"
        ) from error


def rows_of_table(batch: Any, name: str) -> NDArray[Any]:
    """Rows (n, d) float64 of an Arrow record batch whose columns are numbers; null is NaN."""
    columns = []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        values = column.to_numpy(zero_copy_only=False)
        if values.dtype.kind not in "buif":
            raise SourceError(
                f"'{name}', column '{field.name}' is {field.type}, not a number; name the columns "
                "to use"
            )
        columns.append(values.astype(np.float64))
    return np.stack(columns, axis=1)
