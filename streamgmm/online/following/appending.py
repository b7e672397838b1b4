"""What is written while following: one entry for each row, or each alarm, exactly once.

Entries are appended before the state is saved. So after a crash an output may be longer than the
state says, and never shorter. The rest is truncated at the next start, and is written again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import OutputError, OutputExistsError, ParameterError
from streamgmm.places import Place

CHUNK_ROWS = 65_536


class Appender(Protocol):
    """An append-only output that can be truncated; `text` if it stores words."""

    text: bool

    def size(self) -> int:
        """Its length, in rows or in bytes."""

    def cut(self, size: int) -> None:
        """Truncate it to this length; raises OutputError where it is shorter."""

    def append(self, values: Any) -> None:
        """Append values."""


def open_appender(place: Place, dtype: str, columns: Sequence[str]) -> Appender:
    """Open an output for appending: lines for .ndjson and .jsonl, else a Zarr array.

    Parameters
    ----------
    place : Place
    dtype : str
    columns : sequence of str
        Names of the values of an entry; an array of one dimension where there is only one.
    """
    if place.name.endswith((".ndjson", ".jsonl")):
        return LinesAppender(place, columns)
    return ZarrAppender(place, dtype, columns)


class LinesAppender:
    """One JSON object a line."""

    text = True

    def __init__(self, place: Place, columns: Sequence[str]) -> None:
        if place.directory is None:
            raise ParameterError(
                f"output '{place}' is a URL, where no lines can be appended; give a local path, "
                "or the name of a Zarr array"
            )
        self._name, self._path, self._columns = place.name, place.directory, columns

    def size(self) -> int:
        """Bytes; 0 where there is no file."""
        return self._path.stat().st_size if self._path.exists() else 0

    def cut(self, size: int) -> None:
        """Truncate it to so many bytes."""
        if self.size() < size:
            raise OutputError(
                f"output '{self._name}' has {self.size()} bytes but the state knows of {size}; "
                "restore it, or follow with another state"
            )
        self._path.touch()
        os.truncate(self._path, size)

    def append(self, values: Any) -> None:
        """Write entries, each a row of values, or a value."""
        rows = values.tolist() if isinstance(values, np.ndarray) else values
        if len(self._columns) == 1:
            rows = [[value] for value in rows]
        lines = [json.dumps(dict(zip(self._columns, row, strict=True))) + "\n" for row in rows]
        with self._path.open("a") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())


class ZarrAppender:
    """A Zarr array that grows by rows."""

    text = False

    def __init__(self, place: Place, dtype: str, columns: Sequence[str]) -> None:
        import zarr

        self._name = name = place.name
        wide = () if len(columns) == 1 else (len(columns),)
        self._array: Any = self._open(place)
        if self._array is not None:
            if self._array.shape[1:] != wide or self._array.dtype != np.dtype(dtype):
                raise OutputExistsError(
                    f"output '{name}' is {self._array.shape} {self._array.dtype}, not an array of "
                    f"{dtype} to append to; give another path"
                )
        else:
            self._array = zarr.create_array(
                place.store(),
                shape=(0, *wide),
                chunks=(CHUNK_ROWS, *wide),
                dtype=dtype,
                attributes={"columns": list(columns)},
            )

    def _open(self, place: Place) -> Any:
        """Open the array that is there; None if nothing is."""
        import zarr

        directory = place.directory
        if directory is not None and not directory.exists():
            return None
        try:
            return zarr.open_array(place.store(), mode="r+")
        except Exception as error:
            if directory is None and isinstance(error, FileNotFoundError):
                return None
            raise OutputExistsError(
                f"output '{place}' is there, and no Zarr array to append to; give another path"
            ) from error

    def size(self) -> int:
        """Rows."""
        return int(self._array.shape[0])

    def cut(self, size: int) -> None:
        """Truncate it to so many rows."""
        if self.size() < size:
            raise OutputError(
                f"output '{self._name}' has {self.size()} rows but the state knows of {size}; "
                "restore it, or follow with another state"
            )
        self._array.resize((size, *self._array.shape[1:]))

    def append(self, values: Any) -> None:
        """Write entries."""
        rows: NDArray[Any] = np.asarray(values, self._array.dtype)
        if len(rows):
            self._array.append(rows)
