"""Open cubes: arrays with any number of sample dimensions and one axis of features."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np

from streamgmm.errors import DataError, ParameterError
from streamgmm.places import Place
from streamgmm.sources import dask as _dask
from streamgmm.sources.base import float_dtype
from streamgmm.sources.dask_boxes import InDask
from streamgmm.sources.decoding import decoding_of
from streamgmm.sources.grid import make_grid
from streamgmm.sources.hdf5 import is_hdf5, open_dataset
from streamgmm.sources.names import check_names
from streamgmm.sources.regions import RegionSource
from streamgmm.sources.variables import FEATURE, Held, InZarr, Variable, check_broadcast
from streamgmm.sources.zarr_open import is_zarr, open_ref

SMALL_BYTES = 16 << 20
"""A variable that lacks dimensions, a mask or weights up to this size are read when opened."""


def open_stored(X: Any, name: str, storage_options: dict[str, Any] | None = None) -> Any:
    """Open an array of any number of dimensions: its name, and how boxes of it are read.

    Raises
    ------
    SourceNotFoundError, SourceError, DataError, DataTypeError
        As `open_source`.
    """
    if is_hdf5(X):
        return open_dataset(X, storage_options)
    if is_zarr(X):
        ref = open_ref(X, storage_options)
        return ref.name, InZarr(ref), dict(ref.array.attrs)
    if _dask.is_dask_array(X):
        _dask.check_known(X, name)
        return name, InDask(X), {}
    try:
        return name, Held(np.asarray(X)), {}
    except (ValueError, TypeError) as error:
        raise DataError(f"{name} cannot be made into an array: {error}") from error


def open_cube(
    X: Any,
    *,
    name: str = "X",
    features: Any = None,
    feature_axis: Any = -1,
    mask: Any = None,
    sample_weight: Any = None,
    storage_options: dict[str, Any] | None = None,
) -> RegionSource:
    """Open an array whose axes are the samples' dimensions, and one of features.

    Raises
    ------
    ParameterError
        If the axis is out of range, or a feature is.
    DataError
        If there are no samples or no features, or no real numbers; or if the mask or the
        weights do not fit the samples.
    """
    gaps = None
    if isinstance(X, np.ma.MaskedArray):
        X, gaps = X.data, np.ma.getmaskarray(X)
    name, stored, attributes = open_stored(X, name, storage_options)
    axis = parse_axis(feature_axis, stored.shape, name)
    check_lengths(stored.shape, name)
    float_dtype(stored.dtype, name)
    axes = [i - (i > axis) for i in range(len(stored.shape))]
    axes[axis] = FEATURE
    size = stored.shape[axis]
    names = names_of(attributes, size) if axis == len(stored.shape) - 1 else None
    picks = None if features is None else parse_picks(features, size, name, names)
    variable = Variable(name, stored, tuple(axes), decoding_of(attributes), picks)
    if gaps is not None and gaps.any():
        chosen = gaps if picks is None else np.take(gaps, picks, axis)
        if mask is not None:
            raise DataError(f"{name} is a masked array, and a mask is given too; give one of them")
        mask = chosen.any(axis)
    shape = stored.shape[:axis] + stored.shape[axis + 1 :]
    if names is not None and picks is not None:
        names = tuple(names[pick] for pick in picks)
    return make_source(name, shape, (variable,), mask, sample_weight, feature_names=names)


def make_source(
    name: str,
    shape: tuple[int, ...],
    variables: tuple[Variable, ...],
    mask: Any,
    sample_weight: Any,
    **more: Any,
) -> RegionSource:
    """Put variables, a mask and weights together."""
    n_columns = sum(variable.n_columns for variable in variables)
    dtype = np.result_type(*(variable.dtype for variable in variables))
    variables = tuple(small_at_once(each, len(shape)) for each in variables)
    chunkings = [variable.chunking(len(shape)) for variable in variables]
    lazy = any(isinstance(variable.stored, InDask) for variable in variables)
    grid = make_grid(shape, chunkings, n_columns * dtype.itemsize, together=not lazy)
    masking = None if mask is None else open_beside(mask, shape, "mask", name)
    weighing = None
    if sample_weight is not None:
        weighing = open_beside(sample_weight, shape, "sample_weight", name)
    return RegionSource(name, grid, variables, weighing, masking, **more)


def open_beside(given: Any, shape: tuple[int, ...], what: str, name: str) -> Variable:
    """Open a mask or weights: an array of the samples' shape, one number, or a `Variable`.

    Raises
    ------
    DataError
        If it is of another shape, or no real numbers.
    """
    if isinstance(given, Variable):
        variable = given
    else:
        if np.isscalar(given) and not isinstance(given, str):
            given = np.broadcast_to(np.asarray(given), shape)
        label, stored, attributes = open_stored(given, what)
        if isinstance(given, (str, os.PathLike, Place)):
            label = f"{what} ({label})"
        if stored.shape != shape:
            raise DataError(
                f"{label} has shape {tuple(stored.shape)}, but the samples of {name} have shape "
                f"{shape}; give one value for each sample"
            )
        variable = Variable(label, stored, tuple(range(len(shape))), decoding_of(attributes))
    check_broadcast(variable, shape, name)
    if variable.stored.dtype.kind not in "buif":
        raise DataError(f"{variable.name} has dtype {variable.stored.dtype}, which is no number")
    return small_at_once(variable, 0)


def small_at_once(variable: Variable, n_dims: int) -> Variable:
    """Read a small variable now, where its chunks would be read again for each region."""
    stored = variable.stored
    small = int(np.prod(stored.shape)) * stored.dtype.itemsize <= SMALL_BYTES
    lacks = sum(axis != FEATURE for axis in variable.axes) < n_dims
    if isinstance(stored, InZarr) and small and (lacks or n_dims == 0):
        box = tuple(slice(0, n) for n in stored.shape)
        return replace(variable, stored=Held(stored.ref.read_box(box), stored.ref))
    return variable


def parse_axis(feature_axis: Any, shape: tuple[int, ...], name: str) -> int:
    """Give the axis of the features, from 0; raises ParameterError, DataError.

    >>> parse_axis(-1, (4, 5, 3), "X")
    2
    """
    n = len(shape)
    if n < 2:
        raise DataError(
            f"{name} has shape {tuple(shape)}; rows need an axis of samples and one of features"
        )
    whole = isinstance(feature_axis, Integral) and not isinstance(feature_axis, bool)
    if not whole or not -n <= feature_axis < n:
        raise ParameterError(
            f"feature_axis={feature_axis!r} is out of range: {name} has shape {tuple(shape)}, so "
            f"it is one of {-n} to {n - 1}"
        )
    return int(feature_axis) % n


def names_of(attributes: Mapping[str, Any], n_features: int) -> tuple[str, ...] | None:
    """Give the names of features that are in the attributes of an array; None where none are.

    >>> names_of({"streamgmm": {"feature_names": ["delay", "distance"]}}, 2)
    ('delay', 'distance')
    """
    said = attributes.get("streamgmm")
    names = said.get("feature_names") if isinstance(said, Mapping) else None
    if not isinstance(names, list) or len(names) != n_features:
        return None
    return tuple(map(str, names))


def parse_picks(
    features: Any, size: int, name: str, names: Sequence[str] | None = None
) -> tuple[int, ...]:
    """Give the indices of features, from 0; raises ParameterError.

    >>> parse_picks([0, -1], 4, "X"), parse_picks("b", 2, "X", ["a", "b"])
    ((0, 3), (1,))
    """
    given: list[Any] = [features] if isinstance(features, (str, Integral)) else list(features)
    if names is not None and given and all(isinstance(each, str) for each in given):
        check_names(given, names, f"a feature of {name}")
        return tuple(names.index(each) for each in given)
    whole = all(isinstance(each, Integral) and not isinstance(each, bool) for each in given)
    if not whole or not given or not all(-size <= each < size for each in given):
        raise ParameterError(
            f"features={features!r}: {name} has {size} features without names; give their "
            f"indices, 0 to {size - 1}"
        )
    return tuple(int(each) % size for each in given)


def check_lengths(shape: Sequence[int], name: str, dims: Sequence[str] | None = None) -> None:
    """Check that no dimension is of length zero; raises DataError, which names it."""
    for i, size in enumerate(shape):
        if size == 0:
            which = f"axis {i}" if dims is None else f"dimension '{dims[i]}'"
            raise DataError(f"{name} has shape {tuple(shape)}: {which} has length zero")
