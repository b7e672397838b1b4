"""What is written while following: one entry a row, or an alarm, exactly once.

An output is only ever longer than the state says, by what was written after the state was last
saved: that is cut off when the follower starts again, and written again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import OutputError, OutputExistsError

CHUNK_ROWS = 65_536


class Output(Protocol):
    """Something that grows at its end and can be cut back; `text` if it takes words."""

    text: bool

    def size(self) -> int:
        """How long it is: rows, or bytes."""

    def cut(self, size: int) -> None:
        """Make it as long as it was; raises OutputError where it is shorter."""

    def append(self, values: Any) -> None:
        """Put values behind the others."""


def open_output(path: str | os.PathLike[str], dtype: str, columns: Sequence[str]) -> Output:
    """Open a path for appending: lines for .ndjson and .jsonl, else a Zarr array.

    Parameters
    ----------
    path : str or path-like
    dtype : str
    columns : sequence of str
        Names of the values of an entry; an array of one dimension where there is only one.
    """
    name = os.fsdecode(path)
    if name.endswith((".ndjson", ".jsonl")):
        return LinesOutput(name, columns)
    return ZarrOutput(name, dtype, columns)


class LinesOutput:
    """One JSON object a line."""

    text = True

    def __init__(self, name: str, columns: Sequence[str]) -> None:
        self._path, self._columns = Path(name), columns

    def size(self) -> int:
        """Bytes; 0 where there is no file."""
        return self._path.stat().st_size if self._path.exists() else 0

    def cut(self, size: int) -> None:
        """Cut it back to so many bytes."""
        if self.size() < size:
            raise OutputError(
                f"output '{self._path}' has {self.size()} bytes but the state knows of {size}; "
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


class ZarrOutput:
    """A Zarr array that grows by rows."""

    text = False

    def __init__(self, name: str, dtype: str, columns: Sequence[str]) -> None:
        import zarr

        self._name, self._columns = name, columns
        wide = () if len(columns) == 1 else (len(columns),)
        if Path(name).exists():
            try:
                self._array: Any = zarr.open_array(name, mode="r+")
            except Exception as error:
                raise OutputExistsError(
                    f"output '{name}' is there, and no Zarr array to append to; give another path"
                ) from error
            if self._array.shape[1:] != wide or self._array.dtype != np.dtype(dtype):
                raise OutputExistsError(
                    f"output '{name}' is {self._array.shape} {self._array.dtype}, not an array of "
                    f"{dtype} to append to; give another path"
                )
        else:
            self._array = zarr.create_array(
                name,
                shape=(0, *wide),
                chunks=(CHUNK_ROWS, *wide),
                dtype=dtype,
                attributes={"columns": list(columns)},
            )

    def size(self) -> int:
        """Rows."""
        return int(self._array.shape[0])

    def cut(self, size: int) -> None:
        """Cut it back to so many rows."""
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
