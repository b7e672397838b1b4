"""Open xarray's datasets and arrays, and give what is said of their samples as xarray's arrays."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError, ParameterError
from streamgmm.sources.dask import check_known, is_dask_array
from streamgmm.sources.dask_boxes import InDask
from streamgmm.sources.grid import Edges, regular_edges
from streamgmm.sources.named import Named, check_names, open_named, parse_names
from streamgmm.sources.regions import RegionSource
from streamgmm.sources.variables import Box, Held

SAID = {
    "labels": "most likely component, -1 where there is none",
    "proba": "probability of each component",
    "distances": "distance from each centre",
    "log_density": "log-density",
    "value": "value of a function of the sample",
    "values": "values of a function of the sample",
}


def is_xarray(value: object) -> bool:
    """Whether `value` is a Dataset or DataArray, without importing xarray."""
    xarray = sys.modules.get("xarray")
    return xarray is not None and isinstance(value, (xarray.Dataset, xarray.DataArray))


@dataclass(frozen=True)
class XarrayPart:
    """A variable that xarray reads from where it is stored, box by box."""

    any_box: ClassVar[bool] = True

    variable: Any
    futures: Mapping[Any, Any] = field(default_factory=dict, repr=False)

    def fill(self, values: Mapping[Any, Any]) -> XarrayPart:
        """Give this part itself, which has no futures."""
        return self

    def read(self, i: int, box: Box) -> NDArray[Any]:
        """Read and decode a box."""
        return np.asarray(self.variable[box].values)

    def check_seen(self) -> None:
        """Opened again, where it is read, by xarray."""


@dataclass(frozen=True)
class InXarray:
    """A variable of a dataset that was opened without Dask."""

    variable: Any

    resident = False
    in_memory = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the variable."""
        return tuple(self.variable.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """As it is decoded."""
        dtype: np.dtype[Any] = self.variable.dtype
        return dtype

    def edges(self, axis: int) -> Edges | None:
        """Those of its chunks, as its encoding says."""
        encoding = self.variable.encoding
        preferred = encoding.get("preferred_chunks", {}).get(self.variable.dims[axis])
        chunks = encoding.get("chunks") or encoding.get("chunksizes")
        step = chunks[axis] if chunks else preferred
        return None if not isinstance(step, int) else regular_edges(self.shape[axis], step)

    def parts(self, runs: Sequence[Sequence[Box]], cuts: Sequence[Edges]) -> list[XarrayPart]:
        """Give the variable itself."""
        return [XarrayPart(self.variable) for _ in runs]


def open_xarray(
    data: Any,
    *,
    features: Any = None,
    feature_axis: Any = -1,
    sample_dims: Sequence[str] | None = None,
    mask: Any = None,
    sample_weight: Any = None,
) -> RegionSource:
    """Open a Dataset, whose variables are features, or a DataArray with a dimension of features.

    Raises
    ------
    DataError, ParameterError
        As `streamgmm.sources.named.open_named`.
    """
    import xarray

    if isinstance(data, xarray.Dataset):
        wanted = list(data.data_vars) if features is None else parse_names(features)
        if not wanted:
            raise DataError("the dataset has no data variables")
        there = [str(each) for each in data.variables]
        check_names(wanted, there, "a variable of the dataset")
        found = [_named(str(each), "variable", data[each]) for each in wanted]
        name = "the dataset"
    else:
        data, found = _features_of(data, features, feature_axis, sample_dims)
        name = found[0].label
    beside = []
    for each, what in ((mask, "mask"), (sample_weight, "sample_weight")):
        if isinstance(each, str) and isinstance(data, xarray.Dataset) and each in data.variables:
            each = data[each]
        beside.append(_named("", what, each) if isinstance(each, xarray.DataArray) else each)
    if sample_dims is None and not isinstance(data, xarray.Dataset):
        sample_dims = [dim for dim in data.dims if dim != found[0].dims[-1]]
    source = open_named(name, found, sample_dims, *beside)
    dims = source.dims or ()
    inside = {each: coord for each, coord in data.coords.items() if set(coord.dims) <= set(dims)}
    return source.with_labels(partial(as_xarray, dims=dims, coords=inside))


def _features_of(
    data: Any, features: Any, feature_axis: Any, sample_dims: Sequence[str] | None
) -> tuple[Any, list[Named]]:
    """The dimension of the features is made the last."""
    if isinstance(feature_axis, str):
        check_names([feature_axis], list(data.dims), "a dimension of the array")
        along = feature_axis
    elif sample_dims is not None:
        given = (sample_dims,) if isinstance(sample_dims, str) else tuple(sample_dims)
        check_names(given, list(data.dims), "a dimension of the array")
        rest = [dim for dim in data.dims if dim not in given]
        if len(rest) != 1:
            raise ParameterError(
                f"sample_dims={given} leave {rest} of the dimensions {data.dims}; one must be "
                "left, along which the features lie"
            )
        along = rest[0]
    else:
        if not -data.ndim <= feature_axis < data.ndim or data.ndim < 2:
            raise ParameterError(
                f"feature_axis={feature_axis!r} is out of range: the array has dimensions "
                f"{data.dims}, of which one is that of the features and the others of samples"
            )
        along = data.dims[feature_axis]
    if features is not None:
        try:
            data = data.sel({along: features}) if _by_label(features) else data[{along: features}]
        except (KeyError, IndexError) as error:
            raise ParameterError(
                f"features={features!r} are not all there along '{along}' of the array"
            ) from error
    data = data.transpose(..., along)
    name = "" if data.name is None else str(data.name)
    return data, [_named(name, "variable" if name else "the array", data)]


def _by_label(features: Any) -> bool:
    return any(isinstance(each, str) for each in features)


def _named(name: str, kind: str, array: Any) -> Named:
    dims = tuple(str(dim) for dim in array.dims)
    return Named(name, kind, stored_in_xarray(array, f"{kind} '{name}'"), dims)


def stored_in_xarray(array: Any, label: str) -> Any:
    """Give a DataArray as something that blocks read."""
    data = array.variable._data
    if is_dask_array(data):
        check_known(data, label)
        return InDask(data)
    if isinstance(data, np.ndarray) or array.variable._in_memory:
        return Held(array.values)
    return InXarray(array.variable)


def as_xarray(values: Any, what: str, *, dims: Sequence[str], coords: Mapping[Any, Any]) -> Any:
    """Give what is said of all samples as a DataArray with the data's coordinates."""
    import xarray

    last = "feature" if what == "values" else "component"
    more = (last,) * (values.ndim - len(dims))
    attributes = {"long_name": SAID[what]} | ({"units": "nats"} if what == "log_density" else {})
    return xarray.DataArray(
        values, dims=(*dims, *more), coords=coords, name=what, attrs=attributes
    )
