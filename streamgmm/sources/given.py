"""`rows`: what belongs to the data, said of the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from streamgmm.errors import ParameterError
from streamgmm.places import Place
from streamgmm.sources import hdf5
from streamgmm.sources.base import Source
from streamgmm.sources.cells import held_cells, is_anndata, is_cells, open_cells, stored_cells
from streamgmm.sources.cubes import open_cube, open_stored
from streamgmm.sources.datasets import is_xarray, open_xarray
from streamgmm.sources.frames import is_dask_frame, open_frame
from streamgmm.sources.groups import open_group
from streamgmm.sources.npy import is_npy, open_npy
from streamgmm.sources.opening import open_source
from streamgmm.sources.parquet import is_parquet, open_parquet
from streamgmm.sources.tables import is_table, open_table
from streamgmm.sources.zarr_open import is_zarr, open_node


def rows(
    data: Any,
    *,
    features: str | Sequence[str] | Sequence[int] | None = None,
    feature_axis: int | str = -1,
    sample_dims: str | Sequence[str] | None = None,
    mask: Any = None,
    sample_weight: Any = None,
    storage_options: dict[str, Any] | None = None,
) -> Source:
    """Say how data are rows: which axis is of features, which features, what is masked.

    What it gives is taken by every estimator, `select`, `plan` and the functions of prediction,
    wherever they take plain data. Nothing is read yet. A cube is read where it lies, in regions
    of whole chunks; what is said of its samples has their shape.

    Parameters
    ----------
    data : array-like, zarr.Array, str or path, Zarr store, or dask.array.Array
        With one axis of features, and any number of axes of samples; the path of a ``.npy``
        file is mapped. Or a Zarr group, the path of one, or an `xarray.Dataset`, whose variables
        are features; or an `xarray.DataArray`. Or a table, whose columns are: a pandas or Polars
        DataFrame, an Arrow table or stream, a ``dask.dataframe``, whatever has
        ``__dataframe__``, or the path or URL of Parquet (a file, a folder, partitions). Or HDF5:
        an object of h5py, or ``"file.h5/name"``. Or AnnData: an object, or the path of a store
        (Zarr, or ``.h5ad``).
    features : sequence of str or of int, optional
        Names of variables or columns, in order, each a feature (or as many as it is long along a
        dimension that is not of the samples). By default all data variables of a Dataset, all
        columns of a table. Of an array, indices (or labels, where it is xarray's) along the axis
        of the features.
    feature_axis : int or str, default=-1
        The axis of the features of an array; of xarray's by name, too.
    sample_dims : sequence of str, optional
        Names of the samples' dimensions, in the order that results have. By default all that
        the features have; a variable that lacks some is the same along those.
    mask : array-like, zarr.Array, str or path, or dask.array.Array, optional
        Of the samples' shape; or the name of a variable or column; or a DataArray.
        As in NumPy's masked arrays, samples where it is true (not zero) are left out: they are
        not fitted, and get label −1 and density NaN.
    sample_weight : float, array-like, zarr.Array, str or path, or dask.array.Array, optional
        As the mask: finite, not negative.
    storage_options : dict, optional
        For the file systems of URLs: of the data, the mask and the weights.

    Returns
    -------
    Source

    Raises
    ------
    ParameterError
        If the axis is out of range, or there is no such feature or dimension; says which is
        nearest.
    DataError, DataTypeError
        If there are no samples, no features or no real numbers; or if the mask or the weights
        are of another shape; or if dimensions of variables do not fit one another.
    SourceNotFoundError, SourceError
        If a path holds nothing, or no Zarr array.

    Examples
    --------
    >>> import numpy as np
    >>> import streamgmm
    >>> bands = np.random.default_rng(0).normal(size=(3, 20, 30))  # band, y, x
    >>> cube = streamgmm.rows(bands, feature_axis=0)
    >>> cube.n_samples, cube.n_features
    (600, 3)
    >>> streamgmm.GaussianMixture(2, random_state=0).fit(cube).predict(cube).shape
    (20, 30)
    """
    if storage_options:
        mask, sample_weight = (_place(each, storage_options) for each in (mask, sample_weight))
    beside = {"mask": mask, "sample_weight": sample_weight}
    tables = (is_dask_frame, is_anndata, is_table, is_parquet)
    if not is_xarray(data) and any(is_kind(data) for is_kind in tables):
        _check_rows_only(feature_axis, sample_dims)
    if is_dask_frame(data):  # first: to ask it for what a source has is an error
        return open_frame(data, features=features, **beside)
    if isinstance(data, Source):
        given = {"features": features, "sample_dims": sample_dims} | beside
        named = [name for name, value in given.items() if value is not None]
        if named or feature_axis != -1:
            raise ParameterError(
                f"these rows are open already; give {' and '.join(named) or 'feature_axis'} "
                "where they are opened"
            )
        return data
    if is_xarray(data):
        return open_xarray(
            data, features=features, feature_axis=feature_axis, sample_dims=sample_dims, **beside
        )
    if is_anndata(data):
        return open_cells(held_cells(data), features=features, **beside)
    if is_table(data):
        return open_table(data, features=features, **beside)
    if is_parquet(data):
        return open_parquet(data, features=features, **beside, storage_options=storage_options)
    if is_npy(data):
        data = open_npy(data)
    if hdf5.is_hdf5(data):
        with hdf5.open_node(data, storage_options) as (node, name, place):
            if is_cells(node):
                _check_rows_only(feature_axis, sample_dims)
                return open_cells(stored_cells(node, name, place), features=features, **beside)
            if hasattr(node, "keys") and features is not None:
                return open_group(
                    node, name, features=features, sample_dims=sample_dims, **beside, place=place
                )
    elif is_zarr(data):
        node, name = open_node(data, storage_options)
        if is_cells(node):
            _check_rows_only(feature_axis, sample_dims)
            return open_cells(stored_cells(node, name), features=features, **beside)
        if hasattr(node, "members") and features is not None:
            return open_group(node, name, features=features, sample_dims=sample_dims, **beside)
    if sample_dims is not None:
        raise ParameterError(
            "sample_dims are names of dimensions, which a group, a Dataset or a DataArray has; "
            "of an array give feature_axis, and all other axes are of samples"
        )
    _, stored, _ = open_stored(data, "X", storage_options)
    plain = features is None and mask is None and feature_axis in (-1, 1)
    plain = plain and not np.ma.is_masked(data)
    if plain and len(stored.shape) == 2:
        return open_source(data, sample_weight=sample_weight, storage_options=storage_options)
    return open_cube(
        data,
        features=features,
        feature_axis=feature_axis,
        mask=mask,
        sample_weight=sample_weight,
        storage_options=storage_options,
    )


def _check_rows_only(feature_axis: int | str, sample_dims: Any) -> None:
    """Refuse what tables do not have; raises ParameterError."""
    if feature_axis not in (-1, 1) or sample_dims is not None:
        given = f"feature_axis={feature_axis!r}" if sample_dims is None else "sample_dims"
        raise ParameterError(
            f"{given} is of arrays; what has columns by name has rows only: name them in features="
        )


def _place(given: Any, storage_options: dict[str, Any]) -> Any:
    """Open the URL of a mask or of weights as that of the data."""
    url = isinstance(given, str) and ("://" in given or "::" in given)
    return Place.parse(given, storage_options) if url else given
