"""Rows in Parquet: a file, a folder of files, or partitions; read by row groups."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import (
    ChunkError,
    DataError,
    ParameterError,
    SourceError,
    SourceNotFoundError,
)
from streamgmm.places import Place
from streamgmm.places.retry import retry
from streamgmm.sources.cubes import make_source
from streamgmm.sources.grid import Edges
from streamgmm.sources.named import check_names, parse_names
from streamgmm.sources.regions import RegionSource
from streamgmm.sources.variables import FEATURE, Box, Variable
from streamgmm.sources.zarr_ref import describe

ENDINGS = (".parquet", ".parq", ".pq")


def is_parquet(X: object) -> bool:
    """Whether `X` is the path of a Parquet file, or of a folder of some.

    >>> is_parquet("flights.parquet"), is_parquet("data.zarr")
    (True, False)
    """
    if not isinstance(X, (str, os.PathLike)):
        return False
    name = os.fsdecode(X).rstrip("/")
    if name.endswith(ENDINGS):
        return True
    folder = Path(name)
    if "://" in name or not folder.is_dir() or (folder / "zarr.json").exists():
        return False
    return any(each.suffix in ENDINGS for each in folder.glob("**/*.*"))


@dataclass(frozen=True)
class ParquetPart:
    """Columns of a table, of which any process reads some rows."""

    any_box: ClassVar[bool] = True

    stored: InParquet
    futures: Mapping[Any, Any] = field(default_factory=dict, repr=False)

    def fill(self, values: Mapping[Any, Any]) -> ParquetPart:
        """Give this part itself, which has no futures."""
        return self

    def read(self, i: int, box: Box) -> NDArray[Any]:
        """Read some rows, and of all columns those of the box."""
        return self.stored.read(box)

    def check_seen(self) -> None:
        """A file that is not there is an error where it is read."""


@dataclass(frozen=True)
class InParquet:
    """Some columns of the row groups of a table.

    Attributes
    ----------
    name : str
        What messages call the table.
    place : Place
        The file or folder.
    groups : tuple of pyarrow.dataset.Fragment
        One for each row group.
    stops : tuple of int
        The row after the last of each.
    columns : tuple of str
    schema : pyarrow.Schema
    """

    shared_by_blocks: ClassVar[bool] = True  # a cluster is sent it once, beside its blocks
    resident: ClassVar[bool] = False
    in_memory: ClassVar[bool] = False

    name: str
    place: Place
    groups: tuple[Any, ...]
    stops: tuple[int, ...]
    columns: tuple[str, ...]
    schema: Any

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.stops[-1], len(self.columns)

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 where every column is, else float64."""
        types = [self.schema.field(column).type for column in self.columns]
        single = all(str(each) in ("float", "halffloat") for each in types)
        return np.dtype(np.float32 if single else np.float64)

    def holds(self, place: Place) -> bool:
        """Whether a file is, or would be, one of the table."""
        own, other = self.place.directory, place.directory
        if own is None or other is None:
            return own == other and self.place.name == place.name
        return other.resolve().is_relative_to(own.resolve())

    def edges(self, axis: int) -> Edges | None:
        """Those of the row groups."""
        return (0, *self.stops) if axis == 0 else None

    def parts(self, runs: Sequence[Sequence[Box]], cuts: Sequence[Edges]) -> list[ParquetPart]:
        """Give the table itself."""
        return [ParquetPart(self) for _ in runs]

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box; raises ChunkError, which names the file and the row group."""
        start, stop, _ = box[0].indices(self.stops[-1])
        columns = self.columns[box[1]]
        out = np.empty((stop - start, len(columns)), self.dtype)
        for i in range(bisect_right(self.stops, start), len(self.groups)):
            first = self.stops[i - 1] if i else 0
            if first >= stop:
                break
            a, b = max(start, first), min(stop, self.stops[i])
            table = self._group(i, first, columns).slice(a - first, b - a)
            for j, column in enumerate(columns):
                out[a - start : b - start, j] = _numbers(table.column(column))
        return out

    def _group(self, i: int, first: int, columns: Sequence[str]) -> Any:
        group = self.groups[i]

        def read() -> Any:
            # In this thread: as many blocks are read at once as there are threads already.
            table = group.to_table(schema=self.schema, columns=list(columns), use_threads=False)
            if table.num_rows != self.stops[i] - first:
                raise ChunkError(f"it has {table.num_rows} rows, and had {self.stops[i] - first}")
            return table

        try:
            return retry(read, f"{self.name}, {group.path}")
        except Exception as error:
            number = group.row_groups[0].id
            raise ChunkError(
                f"{self.name}: row group {number} of '{group.path}' (rows {first}:"
                f"{self.stops[i]}) cannot be read: {describe(error)}; restore it from a copy"
            ) from error


def _numbers(column: Any) -> NDArray[Any]:
    """Give a column of Arrow as numbers, NaN where it has none."""
    import pyarrow as pa

    if not pa.types.is_floating(column.type):
        column = column.cast(pa.float64(), safe=False)
    return np.asarray(column.to_numpy())


def open_parquet(
    path: Any,
    *,
    features: Any = None,
    mask: Any = None,
    sample_weight: Any = None,
    storage_options: dict[str, Any] | None = None,
) -> RegionSource:
    """Open a table: a file, a folder of files, or partitions named ``key=value``.

    Only the columns that are asked for are read.

    Raises
    ------
    SourceNotFoundError, SourceError
        If there is nothing, or it is no Parquet.
    DataError
        If columns are no numbers (all that are not are named), or there are no rows.
    ParameterError
        If there is no such column, which is nearest; or if PyArrow is not installed.
    """
    place = Place.parse(path, storage_options)
    name = f"table '{place}'"
    dataset = _open(place, name)
    found = [(each, each.row_groups[0].num_rows) for each in _row_groups(dataset, name)]
    found = [(each, n) for each, n in found if n]
    if not found:
        raise DataError(f"{name}: 0 sample(s) (it has no rows) while a minimum of 1 is required.")
    stops = tuple(accumulate(n for _, n in found))
    there = list(dataset.schema.names)
    wanted = there if features is None else parse_names(features)
    check_names(wanted, there, f"a column of {name}")
    check_numbers({each: dataset.schema.field(each).type for each in wanted}, name)
    groups = tuple(each for each, _ in found)
    stored = InParquet(name, place, groups, stops, tuple(wanted), dataset.schema)
    beside = []
    for each, what in ((mask, "mask"), (sample_weight, "sample_weight")):
        if isinstance(each, str) and each in there:
            check_numbers({each: dataset.schema.field(each).type}, name)
            column = replace(stored, columns=(each,))
            each = Variable(f"{what} (column '{each}')", column, (0, FEATURE))
        beside.append(each)
    variable = Variable(name, stored, (0, FEATURE))
    return make_source(name, (stops[-1],), (variable,), *beside, feature_names=tuple(wanted))


def _open(place: Place, name: str) -> Any:
    try:
        import pyarrow.dataset
    except ImportError as error:
        raise ParameterError(
            f"{name} needs PyArrow: pip install 'streamgmm[arrow]' ({error})"
        ) from error
    where: Any = None if place.directory is None else str(place.directory)
    options: dict[str, Any] = {}
    try:
        if where is None:
            import fsspec

            options["filesystem"], where = fsspec.url_to_fs(
                place.name, **(place.storage_options or {})
            )
        return pyarrow.dataset.dataset(where, format="parquet", partitioning="hive", **options)
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"there is nothing at '{place}'") from error
    except Exception as error:
        raise SourceError(f"'{place}' cannot be read as Parquet: {describe(error)}") from error


def _row_groups(dataset: Any, name: str) -> list[Any]:
    try:
        return [part for each in dataset.get_fragments() for part in each.split_by_row_group()]
    except Exception as error:
        raise SourceError(f"{name} cannot be read as Parquet: {describe(error)}") from error


def check_numbers(types: Mapping[str, Any], name: str) -> None:
    """Check that columns of Arrow are numbers or flags; raises DataError, which names others."""
    import pyarrow as pa

    kinds = pa.types
    numbers = (
        kinds.is_integer,
        kinds.is_floating,
        kinds.is_boolean,
        kinds.is_decimal,
        kinds.is_null,
    )
    other = [
        f"'{column}' ({kind})"
        for column, kind in types.items()
        if not any(is_number(kind) for is_number in numbers)
    ]
    if other:
        raise DataError(
            f"{name}: column{'s' * (len(other) > 1)} {', '.join(other)} cannot be used as "
            "numbers; name the columns to use in features=, number categories, and take times in "
            "seconds"
        )
