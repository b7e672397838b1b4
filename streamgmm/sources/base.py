"""What all sources share: the contract, the division into blocks, the checks of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError, DataTypeError, NonFiniteError, ParameterError
from streamgmm.sources.no_array import NotAnArray
from streamgmm.sources.piece import Piece as Piece

MIB = 1 << 20

PIECE_BYTES = 8 * MIB
"""Bytes of rows that a block reads at a time; a larger chunk is read as a whole."""

AUTO_MIN_BYTES = 1 * MIB
AUTO_MAX_BYTES = 128 * MIB
AUTO_BLOCKS = 60
FEW_BLOCKS = 4  # of a little data, if they have a quarter of the least size each


@runtime_checkable
class Block(Protocol):
    """A run of rows that one task reads, on the worker that runs it. Small and picklable.

    Attributes
    ----------
    start, n_rows : int
        Its rows are ``start : start + n_rows`` of the source.
    resident : bool
        Whether its pickle contains the rows (or anything as large). Then it is sent to a
        cluster once, and not once for each pass.
    """

    @property
    def start(self) -> int: ...  # noqa: D102

    @property
    def n_rows(self) -> int: ...  # noqa: D102

    @property
    def resident(self) -> bool: ...  # noqa: D102

    def pieces(self) -> Iterator[Piece]:
        """Read the rows in order, each exactly once, a bounded piece at a time."""


@runtime_checkable
class Source(Protocol):
    """Rows that can be read again and again.

    Attributes
    ----------
    name : str
        What messages call it: ``X``, ``array 'x.zarr'``.
    n_samples, n_features : int
    dtype : numpy.dtype
        float32 or float64, as the pieces are given.
    nbytes : int
        ``n_samples * n_features * dtype.itemsize``.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def n_samples(self) -> int: ...  # noqa: D102

    @property
    def n_features(self) -> int: ...  # noqa: D102

    @property
    def dtype(self) -> np.dtype[Any]: ...  # noqa: D102

    @property
    def nbytes(self) -> int: ...  # noqa: D102

    def blocks(
        self, target_bytes: int, start: int = 0, stop: int | None = None
    ) -> Sequence[Block]:
        """Divide a range of rows into blocks of about `target_bytes` each, in order.

        The division depends on the range and the chunks alone. Rows that are appended to the
        array later do not change the blocks of the rows before them.
        """


class Table(NotAnArray, ABC):
    """A source that is one two-dimensional array, in memory, stored or lazy."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call it."""

    @property
    @abstractmethod
    def table(self) -> Any:
        """The array, which has a shape and a dtype."""

    @property
    def n_samples(self) -> int:
        """Rows."""
        return int(self.table.shape[0])

    @property
    def n_features(self) -> int:
        """Columns."""
        return int(self.table.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64, as the pieces are given."""
        return float_dtype(self.table.dtype, self.name)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows, as the pieces are given."""
        return self.n_samples * self.n_features * self.dtype.itemsize


def parse_block_size(block_size: int | str, source: Source) -> int:
    """Parse a block size into bytes.

    ``"auto"`` depends on the data alone, never on the number of threads or workers. It is a 60th
    of the data, but at least about 1 MiB and at most 128 MiB. An array under 4 MiB has up to
    four blocks of at least 256 KiB. One of 12 MiB to 7.5 GiB has 12, 24, 36, 48 or 60, numbers
    that most numbers of threads divide evenly. A larger one has blocks of 128 MiB.

    Parameters
    ----------
    block_size : int or str
        Bytes, or a string as Dask writes them (``"64MiB"``), or ``"auto"``.
    source : Source

    Returns
    -------
    int
        Bytes of rows in a block, as the pieces are given.

    Raises
    ------
    ParameterError
        If it is no size, or not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from streamgmm.sources import open_source, parse_block_size
    >>> source = open_source(np.zeros((1000, 4)))
    >>> parse_block_size("auto", source), parse_block_size("64MiB", source)
    (262144, 67108864)
    """
    if isinstance(block_size, str):
        if block_size == "auto":
            least = AUTO_MIN_BYTES // FEW_BLOCKS
            few = min(source.nbytes // least, FEW_BLOCKS)
            n = max(1, few, min(source.nbytes // AUTO_MIN_BYTES, AUTO_BLOCKS))
            n -= n % 12 if n > 12 else 0
            even = source.nbytes // n * 101 // 100  # rounding up to whole chunks adds no block
            return min(max(even, least), AUTO_MAX_BYTES)
        from dask.utils import parse_bytes

        try:
            n_bytes = int(parse_bytes(block_size))
        except ValueError as error:
            raise ParameterError(
                f"block_size={block_size!r} is no size; give 'auto', bytes as an int, or "
                "a string such as '64MiB'"
            ) from error
    elif isinstance(block_size, (int, np.integer)) and not isinstance(block_size, bool):
        n_bytes = int(block_size)
    else:
        raise ParameterError(
            f"block_size={block_size!r} is no size; give 'auto', bytes as an int, or "
            "a string such as '64MiB'"
        )
    if n_bytes <= 0:
        raise ParameterError(f"block_size={block_size!r} must be positive")
    return n_bytes


def even_runs(
    start: int, stop: int, unit: int, row_bytes: int, target_bytes: int
) -> list[tuple[int, int]]:
    """Cut the rows ``start:stop`` into runs of whole units of at most `target_bytes`, evenly.

    A unit larger than the target is a run by itself. At the ends of the range a run may hold a
    part of a unit.

    Parameters
    ----------
    start, stop, unit : int
        Rows, and rows in an indivisible unit (a chunk), the first of which begins at row 0.
    row_bytes, target_bytes : int
        Bytes.

    Returns
    -------
    list of (start, stop)
        Rows; the last stop is `stop`.
    """
    first = start // unit
    n_units = -(-stop // unit) - first
    most = max(1, target_bytes // max(1, unit * row_bytes))
    n_runs = -(-n_units // most)
    edges = [(first + n_units * i // n_runs) * unit for i in range(n_runs)] + [stop]
    return list(pairwise([start, *edges[1:]]))


def fixed_runs(start: int, stop: int, rows: int) -> list[tuple[int, int]]:
    """Cut the rows ``start:stop`` every `rows` rows."""
    return [(a, min(a + rows, stop)) for a in range(start, stop, rows)]


def float_dtype(dtype: np.dtype[Any], name: str) -> np.dtype[Any]:
    """Which of float32 and float64 the rows of an array of `dtype` are given as.

    Parameters
    ----------
    dtype : numpy.dtype
        As stored: boolean, integer or real.
    name : str
        The array, for the message.

    Raises
    ------
    DataError
        If it is complex, text, dates, structured or Python objects.
    """
    if dtype.kind == "c":
        raise DataError(
            f"Complex data not supported: {name} has dtype {dtype}; pass its real and "
            "imaginary parts as columns"
        )
    if dtype.kind in "mM":
        raise DataError(
            f"{name} has dtype {dtype}, which is not a number; convert it, such as by "
            "(t - t[0]) / numpy.timedelta64(1, 's')"
        )
    if dtype.kind not in "buif":
        raise DataError(
            f"{name} has dtype {dtype}, which is not a number; convert it to float32 or float64"
        )
    single = dtype.kind == "f" and dtype.itemsize <= 4
    return np.dtype(np.float32) if single else np.dtype(np.float64)


def check_shape(shape: Sequence[int], name: str) -> tuple[int, int]:
    """Check that `shape` is that of a table with at least one row and one column.

    Raises
    ------
    DataError
        Worded as scikit-learn words it, so that its users know it.
    """
    if len(shape) != 2:
        kind = "scalar array" if len(shape) == 0 else f"{len(shape)}D array"
        raise DataError(
            f"Expected 2D array, got {kind} instead: {name} has shape {tuple(shape)}. "
            "Reshape your data to rows and columns, using array.reshape(-1, 1) if it has a "
            "single feature or array.reshape(1, -1) if it is a single sample; of a cube with more "
            "axes of samples than one, pass streamgmm.rows(array, feature_axis=...)"
        )
    n_samples, n_features = shape
    if n_samples == 0:
        raise DataError(
            f"{name}: 0 sample(s) (shape=({n_samples}, {n_features})) while a minimum of 1 "
            "is required."
        )
    if n_features == 0:
        raise DataError(
            f"{name}: 0 feature(s) (shape=({n_samples}, {n_features})) while a minimum of 1 "
            "is required."
        )
    return int(n_samples), int(n_features)


def as_rows(values: object, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Give `values` as a C-contiguous native array of `dtype`; no copy where it already is."""
    try:
        return np.ascontiguousarray(values, dtype=dtype)
    except TypeError as error:
        raise DataTypeError(f"the rows are no numbers: {error}") from error


def split_piece(piece: Piece) -> Iterator[Piece]:
    """Give a piece larger than twice ``PIECE_BYTES`` as views of about that size."""
    n_rows, n_features = piece.rows.shape
    most = max(1, PIECE_BYTES // (n_features * piece.rows.itemsize))
    if n_rows <= 2 * most:
        yield piece
        return
    for a, b in fixed_runs(0, n_rows, most):
        yield piece.part(a, b)


def check_finite(piece: Piece, name: str, gaps: bool = False) -> None:
    """Check that every value of a piece is finite; with `gaps`, that none is infinite.

    Costs one sum where all is well.

    Parameters
    ----------
    piece : Piece
    name : str
        The source's name, for the message.
    gaps : bool
        Whether NaN is a value that was not observed, and no error.

    Raises
    ------
    NonFiniteError
        Names the array, the rows, how many values, and the first of them.

    Examples
    --------
    >>> import numpy as np
    >>> from streamgmm.sources import Piece, check_finite
    >>> check_finite(Piece(0, np.ones((3, 2)), None), "array 'x.zarr'")
    """
    rows = piece.rows
    with np.errstate(all="ignore"):
        if np.isfinite(rows.sum()):
            return
    finite = ~np.isinf(rows) if gaps else np.isfinite(rows)
    count = int(rows.size - np.count_nonzero(finite))
    if count == 0:  # the sum overflowed, the values did not
        return
    row, column = np.unravel_index(int(np.argmin(finite)), finite.shape)
    values = "value" if count == 1 else "values"
    if gaps:
        raise NonFiniteError(
            f"{name}, rows {piece.start}:{piece.start + len(rows)}: {count} infinite {values}, "
            f"the first in {piece.say(int(row))}, column {int(column)}; a gap is NaN, and "
            "infinity is none: drop those rows, or put NaN there"
        )
    raise NonFiniteError(
        f"{name}, rows {piece.start}:{piece.start + len(rows)}: {count} non-finite {values} "
        f"(NaN or infinity), the first in {piece.say(int(row))}, column {int(column)}; "
        "drop those rows or fill them in before fitting"
    )
