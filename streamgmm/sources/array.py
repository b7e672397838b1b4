"""Rows in memory: NumPy arrays, and what NumPy makes of lists and tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError, DataTypeError
from streamgmm.sources.base import (
    PIECE_BYTES,
    Block,
    Piece,
    Table,
    as_rows,
    check_shape,
    even_runs,
    fixed_runs,
    float_dtype,
)
from streamgmm.sources.blocks import BlockBase
from streamgmm.sources.weights import Reader, Values, WeightPart, Weights

_UNIT_ROWS = 8
"""Blocks of an array in memory start at multiples of this."""


@dataclass(frozen=True)
class ArrayBlock(BlockBase):
    """A view of some rows in memory; its pickle contains them."""

    start: int
    rows: NDArray[Any]
    dtype: np.dtype[Any]
    weights: WeightPart | None

    resident = True

    @property
    def n_rows(self) -> int:
        """Rows in the block."""
        return len(self.rows)

    @property
    def n_features(self) -> int:
        """Columns."""
        return int(self.rows.shape[1])

    @property
    def carried_bytes(self) -> int:  # type: ignore[override]
        """Bytes of the rows."""
        return int(self.rows.nbytes)

    @property
    def futures(self) -> Mapping[Any, Any]:
        """Results on a cluster that the weights wait for."""
        return {} if self.weights is None else self.weights.futures

    def fill(self, values: Mapping[Any, Any]) -> ArrayBlock:
        """Replace the futures by their values."""
        if self.weights is None:
            return self
        return ArrayBlock(self.start, self.rows, self.dtype, self.weights.fill(values))

    def pieces(self) -> Iterator[Piece]:
        """Give views; copies only if the layout or the dtype needs them."""
        read = None if self.weights is None else self.weights.reader()
        step = max(1, PIECE_BYTES // (self.rows.shape[1] * self.dtype.itemsize))
        for a, b in fixed_runs(0, self.n_rows, step):
            start = self.start + a
            weight = None if read is None else read(start, self.start + b)
            yield Piece(start, as_rows(self.rows[a:b], self.dtype), weight)


@dataclass(frozen=True)
class ArraySource(Table):
    """A two-dimensional array in memory.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_features)
        Of any real dtype and any layout; a memory map stays one.
    weights : Weights or None
    name : str
    """

    rows: NDArray[Any]
    weights: Weights | None
    name: str = "X"

    @property
    def table(self) -> Any:
        """The rows."""
        return self.rows

    def blocks(
        self, target_bytes: int, start: int = 0, stop: int | None = None
    ) -> Sequence[Block]:
        """Cut the rows evenly at multiples of 8 rows."""
        row_bytes = self.n_features * self.dtype.itemsize
        return [
            ArrayBlock(
                a,
                self.rows[a:b],
                self.dtype,
                None if self.weights is None else self.weights.part(a, b),
            )
            for a, b in even_runs(
                start,
                self.n_samples if stop is None else stop,
                _UNIT_ROWS,
                row_bytes,
                target_bytes,
            )
        ]


@dataclass(frozen=True)
class ArrayPart:
    """Weights in memory, of the rows from `start` on."""

    start: int
    values: Values

    resident = True
    futures: Mapping[Any, Any] = field(default_factory=dict, repr=False)

    def fill(self, values: Mapping[Any, Any]) -> ArrayPart:
        """Give this part itself, which has no futures."""
        return self

    def reader(self) -> Reader:
        """Give slices of the values."""
        return lambda a, b: np.ascontiguousarray(self.values[a - self.start : b - self.start])


@dataclass(frozen=True)
class ArrayWeights:
    """Weights in memory, checked whole when opened."""

    values: Values

    def part(self, start: int, stop: int) -> ArrayPart:
        """Give a view of the weights of the rows ``start:stop``."""
        return ArrayPart(start, self.values[start:stop])


def parse_array(X: object, name: str = "X") -> NDArray[Any]:
    """Make an array of real numbers with rows and columns of what a person passes.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
    name : str
        What messages call it.

    Returns
    -------
    ndarray
        `X` itself where it already is one; objects that hold numbers become float64.

    Raises
    ------
    DataTypeError
        If it is sparse, or holds objects that are no numbers.
    DataError
        If it is not two-dimensional, empty, complex, text, dates, ragged, or masked in places.

    Examples
    --------
    >>> parse_array([[1, 2], [3, 4]]).shape
    (2, 2)
    """
    sparse = sys.modules.get("scipy.sparse")
    if sparse is not None and sparse.issparse(X):
        raise DataTypeError(
            f"Sparse data was passed as {name}, but dense data is required. Use "
            f"'{name}.toarray()' to convert to a dense numpy array."
        )
    if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        raise DataError(
            f"{name} is a masked array with masked values; drop those rows, or fill them with "
            f"{name}.filled(...)"
        )
    try:
        array = np.asarray(X)
    except ValueError as error:
        raise DataError(f"{name} cannot be made into an array of rows: {error}") from error
    except TypeError as error:
        raise DataTypeError(f"{name} cannot be made into an array of rows: {error}") from error
    if array.dtype.kind == "O" and array.ndim > 0:
        array = _numbers(array, name)
    elif array.dtype.kind == "O":
        raise DataTypeError(
            f"{name} is a {type(X).__name__}, which has no rows of numbers; pass a NumPy array, "
            "a Zarr array or its path, or a dask.array"
        )
    float_dtype(array.dtype, name)
    check_shape(array.shape, name)
    return array


def _numbers(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Convert an array of Python objects to float64, as scikit-learn does."""
    if any(isinstance(value, (complex, np.complexfloating)) for value in array.flat):
        raise DataError(f"Complex data not supported: {name} holds complex numbers")
    try:
        return array.astype(np.float64)
    except TypeError as error:
        raise DataTypeError(f"{name} holds objects that are no numbers: {error}") from error
    except ValueError as error:
        raise DataError(f"{name} holds objects that are no numbers: {error}") from error
