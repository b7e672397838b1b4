"""Open what a person passes as rows, and as their weights, whatever kind it is."""

from __future__ import annotations

from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np

from streamgmm.errors import DataError
from streamgmm.sources import dask as _dask
from streamgmm.sources.array import ArraySource, ArrayWeights, parse_array
from streamgmm.sources.base import Source, check_shape
from streamgmm.sources.cells import held_cells, is_anndata, open_cells
from streamgmm.sources.cubes import open_cube
from streamgmm.sources.datasets import is_xarray, open_xarray
from streamgmm.sources.frames import is_dask_frame, open_frame
from streamgmm.sources.hdf5 import is_hdf5, open_dataset
from streamgmm.sources.npy import is_npy, open_npy
from streamgmm.sources.parquet import is_parquet, open_parquet
from streamgmm.sources.tables import is_stream, open_table
from streamgmm.sources.transforming import TransformedSource
from streamgmm.sources.weights import Weights, check_length, check_weights
from streamgmm.sources.zarr import ZarrSource, ZarrWeights
from streamgmm.sources.zarr_open import is_zarr, open_ref, parse_zarr


def open_source(
    X: object,
    *,
    sample_weight: object = None,
    name: str = "X",
    storage_options: dict[str, Any] | None = None,
) -> Source:
    """Open data as rows that can be read again and again.

    Parameters
    ----------
    X : array-like, zarr.Array, str or path, dask.array.Array, xarray.Dataset, or Source
        Of shape (n_samples, n_features). A string or path is a Zarr array on disk
        (``"data.zarr"``, ``"data.zarr/name"``) or a URL that fsspec opens (``"s3://…"``).
        Of a Dataset the data variables are the features, of Parquet the columns. A source is
        given back as it is.
    sample_weight : None, float, array-like, zarr.Array, str or path, or dask.array.Array
        Of shape (n_samples,): finite, not negative. What is in memory is checked here, what is
        lazy when it is read.
    name : str, default="X"
        What messages call an array that has no name of its own.
    storage_options : dict, optional
        For the file system of a URL.

    Returns
    -------
    Source

    Raises
    ------
    DataError
        If it is not two-dimensional, has no rows or no columns, or is no real number; or if the
        weights do not fit it.
    DataTypeError
        If it is sparse, or objects that are no numbers.
    SourceNotFoundError, SourceError
        If a path holds nothing, or no Zarr array.

    Examples
    --------
    >>> import numpy as np
    >>> source = open_source(np.arange(6).reshape(3, 2))
    >>> source.n_samples, source.n_features, source.dtype
    (3, 2, dtype('float64'))
    >>> [block.n_rows for block in source.blocks(1 << 20)]
    [3]
    """
    if is_dask_frame(X):  # first: to ask it for what a source has is an error
        return open_frame(X, sample_weight=sample_weight)
    if isinstance(X, Source):
        return X if sample_weight is None else _weighted(X, sample_weight)
    if is_xarray(X):
        return open_xarray(X, sample_weight=sample_weight)
    if is_anndata(X):
        return open_cells(held_cells(X), sample_weight=sample_weight)
    if is_stream(X):
        return open_table(X, sample_weight=sample_weight)
    if is_parquet(X):
        return open_parquet(X, sample_weight=sample_weight, storage_options=storage_options)
    if is_hdf5(X):
        found, stored, _ = open_dataset(X, storage_options)
        check_shape(stored.shape, found)
        return open_cube(
            X, name=found, sample_weight=sample_weight, storage_options=storage_options
        )
    if is_npy(X):
        X, name = open_npy(X), f"array '{X}'"
    if is_zarr(X):
        ref = parse_zarr(X, storage_options)
        return ZarrSource(ref, open_weights(sample_weight, int(ref.array.shape[0])))
    if _dask.is_dask_array(X):
        array = _dask.parse_dask(X, name)
        return _dask.DaskSource(array, open_weights(sample_weight, int(array.shape[0])), name)
    rows = parse_array(X, name)
    return ArraySource(rows, open_weights(sample_weight, len(rows)), name)


def _weighted(source: Any, sample_weight: object) -> Source:
    """Give weights to rows that are transformed; raises DataError for others that are open."""
    beneath = source.source if isinstance(source, TransformedSource) else source
    plain = isinstance(beneath, (ArraySource, ZarrSource, _dask.DaskSource))
    if beneath is source or not plain or beneath.weights is not None:
        raise DataError("this source is open already; give its weights where it is opened")
    weights = open_weights(sample_weight, beneath.n_samples)
    return TransformedSource(replace(beneath, weights=weights), source.transform)


def is_lazy(X: object) -> bool:
    """Whether `X` is opened where it is, and not made into an array first.

    >>> is_lazy("data.zarr"), is_lazy([[1.0], [2.0]])
    (True, False)
    """
    kinds = (
        is_zarr, is_hdf5, _dask.is_dask_array, is_xarray, is_anndata, is_dask_frame, is_stream,
    )  # fmt: skip
    return any(is_kind(X) for is_kind in kinds) or isinstance(X, Source)


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
    if _dask.is_dask_array(sample_weight):
        array: Any = sample_weight
        _dask.check_known(array, "sample_weight")
        check_length(tuple(array.shape), n_samples, "sample_weight")
        return _dask.DaskWeights(array)
    if is_hdf5(sample_weight):
        _, stored, _ = open_dataset(sample_weight)
        check_length(stored.shape, n_samples, "sample_weight")
        sample_weight = stored.read((slice(None),)) if hasattr(stored, "read") else stored.array
    if is_zarr(sample_weight):
        ref = open_ref(sample_weight)
        ref = replace(ref, name=f"sample_weight ({ref.name})")
        check_length(ref.array.shape, n_samples, ref.name)
        if ref.array.dtype.kind not in "buif":
            raise DataError(f"{ref.name} has dtype {ref.array.dtype}, which is not a real number")
        return ZarrWeights(ref)
    values = np.asarray(sample_weight)
    check_length(values.shape, n_samples, "sample_weight")
    values = check_weights(values, 0)
    if not values.any():
        raise DataError("sample_weight is zero for every row; give some row weight")
    return ArrayWeights(values)
