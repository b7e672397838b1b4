"""Sample weights beside the rows: in memory, in Zarr, or lazy in Dask."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError

if TYPE_CHECKING:
    from streamgmm.sources.dask import Lazy
    from streamgmm.sources.zarr import ZarrRef

Values = NDArray[np.float64]
Reader = Callable[[int, int], Values]

_RUN_ROWS = 4 << 20
"""Rows of stored weights read at once (32 MiB), so that their chunks are decoded about once."""


class WeightPart(Protocol):
    """The weights of one block.

    Attributes
    ----------
    resident : bool
        Whether pickling it carries the weights themselves.
    futures : mapping
        Results on a cluster that it waits for, by key.
    """

    @property
    def resident(self) -> bool: ...  # noqa: D102

    @property
    def futures(self) -> Mapping[Any, Any]: ...  # noqa: D102

    def fill(self, values: Mapping[Any, Any]) -> WeightPart:
        """Give this part with the values of its futures in their place."""

    def reader(self) -> Reader:
        """Give a function of ``(start, stop)``, rows of the source, to be called in order."""


class Weights(Protocol):
    """The weights of a whole source."""

    def part(self, start: int, stop: int) -> WeightPart:
        """Give the weights of the rows ``start:stop``."""


def check_weights(values: NDArray[Any], start: int, name: str = "sample_weight") -> Values:
    """Check that weights are finite and not negative; give them as float64.

    Raises
    ------
    DataError
        Names the rows.
    """
    try:
        values = np.ascontiguousarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} holds values that are not numbers: {error}") from error
    # One pass where all is well: NaN fails every comparison.
    if values.size and not (values.min() >= 0.0 and values.max() < np.inf):
        finite = np.isfinite(values)
        bad, what = (~finite, "non-finite") if not finite.all() else (values < 0, "negative")
        count = int(np.count_nonzero(bad))
        raise DataError(
            f"{name}, rows {start}:{start + len(values)}: {count} {what} "
            f"weight{'s' if count > 1 else ''}, the first in row {start + int(np.argmax(bad))}; "
            "weights must be finite and 0 or more"
        )
    return values


def _check_length(shape: tuple[int, ...], n_samples: int, name: str) -> None:
    if len(shape) != 1:
        raise DataError(
            f"Sample weights must be 1D array or scalar; {name} has shape {shape}, give one "
            "weight per row"
        )
    if shape[0] != n_samples:
        raise DataError(
            f"sample_weight has {shape[0]} weights but {name_of_rows(n_samples)}; "
            "give one weight per row"
        )


def name_of_rows(n_samples: int) -> str:
    """Say how many rows the data has."""
    return f"the data has {n_samples} row{'s' if n_samples != 1 else ''}"


@dataclass(frozen=True)
class ArrayPart:
    """Weights in memory, of the rows from `start` on."""

    start: int
    values: Values

    resident = True
    futures: Mapping[Any, Any] = field(default_factory=dict, repr=False)

    def fill(self, values: Mapping[Any, Any]) -> ArrayPart:
        """Give this part: it waits for nothing."""
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


@dataclass(frozen=True)
class ZarrPart:
    """Weights in a Zarr array, of the rows ``start:stop``."""

    ref: ZarrRef
    stop: int

    futures: Mapping[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def resident(self) -> bool:
        """Whether the store lives in this process's memory."""
        return self.ref.resident

    def fill(self, values: Mapping[Any, Any]) -> ZarrPart:
        """Give this part: it waits for nothing."""
        return self

    def reader(self) -> Reader:
        """Give slices of runs that are read as they are wanted."""
        lock = threading.Lock()
        start, run = 0, np.empty(0)

        def read(a: int, b: int) -> Values:
            nonlocal start, run
            with lock:
                if not (start <= a and b <= start + len(run)):
                    start, stop = a, min(max(b, a + _RUN_ROWS), self.stop)
                    run = check_weights(self.ref.read(a, stop), a, self.ref.name)
                return run[a - start : b - start]

        return read


@dataclass(frozen=True)
class ZarrWeights:
    """Weights in a one-dimensional Zarr array."""

    ref: ZarrRef

    def part(self, start: int, stop: int) -> ZarrPart:
        """Give the weights of the rows ``start:stop``, to be read where they are used."""
        return ZarrPart(self.ref, stop)


@dataclass(frozen=True)
class DaskPart:
    """Lazy weights of the rows from `start` on, computed together when first wanted."""

    start: int
    lazy: Lazy

    resident = True

    @property
    def futures(self) -> Mapping[Any, Any]:
        """The results that the graph waits for."""
        return self.lazy.futures

    def fill(self, values: Mapping[Any, Any]) -> DaskPart:
        """Put values in the place of the futures."""
        return replace(self, lazy=self.lazy.fill(values))

    def reader(self) -> Reader:
        """Give slices of the weights, computed once."""
        lock = threading.Lock()
        whole: Values | None = None

        def read(a: int, b: int) -> Values:
            nonlocal whole
            with lock:
                if whole is None:
                    whole = check_weights(np.concatenate(self.lazy.compute()), self.start)
            return whole[a - self.start : b - self.start]

        return read


@dataclass(frozen=True)
class DaskWeights:
    """Weights in a one-dimensional dask array."""

    array: Any

    def part(self, start: int, stop: int) -> DaskPart:
        """Give the graph of the weights of the rows ``start:stop``."""
        from streamgmm.sources.dask import lazy_parts

        array = self.array[start:stop]
        return DaskPart(start, lazy_parts(array, [array.__dask_keys__()])[0])


def open_weights(sample_weight: object, n_samples: int) -> Weights | None:
    """Open the weights of `n_samples` rows.

    Parameters
    ----------
    sample_weight : None, float, array-like of shape (n_samples,), zarr.Array, path, dask.array
    n_samples : int

    Returns
    -------
    Weights or None
        None where every row counts once.

    Raises
    ------
    DataError
        If there is not one weight per row, or (in memory) one is negative or not finite, or
        all are zero.
    """
    if sample_weight is None:
        return None
    if isinstance(sample_weight, Real):
        weight = check_weights(np.full(1, float(sample_weight)), 0)
        if weight[0] == 0.0:
            raise DataError("sample_weight is zero for every row; give some row weight")
        return ArrayWeights(np.broadcast_to(weight, (n_samples,)))

    from streamgmm.sources import dask, zarr_open

    if dask.is_dask_array(sample_weight):
        array: Any = sample_weight
        dask.check_known(array, "sample_weight")
        _check_length(tuple(array.shape), n_samples, "sample_weight")
        return DaskWeights(array)
    if zarr_open.is_zarr(sample_weight):
        ref = zarr_open.open_ref(sample_weight)
        ref = replace(ref, name=f"sample_weight ({ref.name})")
        _check_length(ref.array.shape, n_samples, ref.name)
        if ref.array.dtype.kind not in "buif":
            raise DataError(f"{ref.name} has dtype {ref.array.dtype}, which is not a real number")
        return ZarrWeights(ref)
    values = np.asarray(sample_weight)
    _check_length(values.shape, n_samples, "sample_weight")
    values = check_weights(values, 0)
    if not values.any():
        raise DataError("sample_weight is zero for every row; give some row weight")
    return ArrayWeights(values)
