"""`rows`: what belongs to the data, said of the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from streamgmm.errors import ParameterError
from streamgmm.sources.base import Source
from streamgmm.sources.cubes import open_cube, open_stored
from streamgmm.sources.opening import open_source


def rows(
    data: Any,
    *,
    features: Sequence[int] | None = None,
    feature_axis: int = -1,
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
    data : array-like, zarr.Array, str or path, or dask.array.Array
        With one axis of features, and any number of axes of samples.
    features : sequence of int, optional
        Which features, by index, in this order; all by default.
    feature_axis : int, default=-1
        The axis of the features.
    mask : array-like, zarr.Array, str or path, or dask.array.Array, optional
        Of the samples' shape. As in NumPy's masked arrays, samples where it is true (not zero)
        are left out: they are not fitted, and get label −1 and density NaN.
    sample_weight : float, array-like, zarr.Array, str or path, or dask.array.Array, optional
        Of the samples' shape: finite, not negative.
    storage_options : dict, optional
        For the file system of a URL.

    Returns
    -------
    Source

    Raises
    ------
    ParameterError
        If the axis is out of range, or a feature is.
    DataError, DataTypeError
        If there are no samples, no features or no real numbers; or if the mask or the weights
        are of another shape.
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
    if isinstance(data, Source):
        given = {"features": features, "mask": mask, "sample_weight": sample_weight}
        named = [name for name, value in given.items() if value is not None]
        if named or feature_axis != -1:
            raise ParameterError(
                f"these rows are open already; give {' and '.join(named) or 'feature_axis'} "
                "where they are opened"
            )
        return data
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
