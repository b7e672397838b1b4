"""What is written while following: one entry for each row, or each alarm, exactly once.

Entries are appended before the state is saved. So after a crash an output may be longer than the
state says, and never shorter. The rest is truncated at the next start, and is written again.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import OutputError, OutputExistsError, ParameterError
from streamgmm.online.following.base import Layers
from streamgmm.places import Place

CHUNK_ROWS = 65_536


class Appender(Protocol):
    """An append-only output that can be truncated; `text` if it stores words."""

    text: bool

    def size(self) -> int:
        """Its length, in rows or in bytes."""

    def cut(self, size: int) -> None:
        """Truncate it to this length; raises OutputError where it is shorter."""

    def begin(self, dtype: np.dtype[Any]) -> None:
        """Make what is not there yet, now that the rows' dtype is known."""

    def append(self, values: Any) -> None:
        """Append values."""


def open_appender(
    place: Place, dtype: str | None, columns: Sequence[str], layers: Layers | None = None
) -> Appender:
    """Open an output for appending: lines for .ndjson and .jsonl, else a Zarr array.

    Parameters
    ----------
    place : Place
    dtype : str or None
        Of a Zarr array; None for that of the rows.
    columns : sequence of str
        Names of the values of an entry; an array of one dimension where there is only one.
    layers : Layers or None
        Of a cube, whose shape the array has.
    """
    if place.name.endswith((".ndjson", ".jsonl")):
        return LinesAppender(place, columns)
    if layers is not None and layers.shape:
        return CubeAppender(place, dtype, columns, layers)
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

    def begin(self, dtype: np.dtype[Any]) -> None:
        """Nothing: lines have no dtype."""

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

    def __init__(
        self,
        place: Place,
        dtype: str | None,
        columns: Sequence[str],
        layers: Layers | None = None,
    ) -> None:
        self._place, self._name, self._columns = place, place.name, list(columns)
        self._wide: tuple[int, ...] = () if len(columns) == 1 else (len(columns),)
        self._chunks: tuple[int, ...] = (CHUNK_ROWS, *self._wide)
        if layers is not None:
            self._wide, self._chunks = layers
        self._array: Any = self._open(place)
        if self._array is not None:
            known = ("float32", "float64") if dtype is None else (dtype,)
            if self._array.shape[1:] != self._wide or str(self._array.dtype) not in known:
                raise OutputExistsError(
                    f"output '{self._name}' is {self._array.shape} {self._array.dtype}, not an "
                    f"array of {' or '.join(known)} to append to; give another path"
                )
        elif dtype is not None:
            self.begin(np.dtype(dtype))

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

    def begin(self, dtype: np.dtype[Any]) -> None:
        """Make the array, if there is none."""
        import zarr

        if self._array is None:
            self._array = zarr.create_array(
                self._place.store(),
                shape=(0, *self._wide),
                chunks=self._chunks,
                dtype=dtype,
                attributes={"columns": self._columns},
            )

    def size(self) -> int:
        """Rows."""
        return 0 if self._array is None else int(self._array.shape[0])

    def cut(self, size: int) -> None:
        """Truncate it to so many rows."""
        if self.size() < size:
            raise OutputError(
                f"output '{self._name}' has {self.size()} rows but the state knows of {size}; "
                "restore it, or follow with another state"
            )
        if self._array is not None:
            self._array.resize((size, *self._array.shape[1:]))

    def append(self, values: Any) -> None:
        """Write entries."""
        with np.errstate(over="ignore"):  # beyond float32 is -inf
            rows: NDArray[Any] = np.asarray(values, self._array.dtype)
        if len(rows):
            self._array.append(rows)


class CubeAppender(ZarrAppender):
    """A Zarr array of the samples' shape that grows along its first dimension.

    Its size is in samples, in C order. So the last layer may be there in part; what is not
    written of it is -1 or NaN.
    """

    _n = 0

    def size(self) -> int:
        """Samples; where nothing is known yet, those of all layers that are there."""
        layers = super().size()
        return min(self._n, layers * self._layer) if self._n else layers * self._layer

    def cut(self, size: int) -> None:
        """Truncate it to so many samples."""
        if super().size() * self._layer < size:
            super().cut(-(-size // self._layer))
        self._n = size
        if self._array is not None:
            self._array.resize((-(-size // self._layer), *self._wide))

    def append(self, values: Any) -> None:
        """Write values of the next samples."""
        with np.errstate(over="ignore"):
            given: NDArray[Any] = np.asarray(values, self._array.dtype)
        if not len(given):
            return
        start, stop = self._n, self._n + len(given)
        first, last = start // self._layer, -(-stop // self._layer)
        fill = -1 if given.dtype.kind == "i" else np.nan
        whole = np.full((last - first) * self._layer, fill, given.dtype)
        if start % self._layer:
            whole[: self._layer] = self._array[first].reshape(-1)
        whole[start - first * self._layer : stop - first * self._layer] = given
        self._array.resize((last, *self._wide))
        self._array[first:last] = whole.reshape(last - first, *self._wide)
        self._n = stop

    @property
    def _layer(self) -> int:
        return math.prod(self._wide)
