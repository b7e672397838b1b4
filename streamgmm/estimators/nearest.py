"""What centres say of rows: labels, distances, and the inertia."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamgmm.estimators.rowwise import RowwiseModel
from streamgmm.model.moments import Floats
from streamgmm.predict.centres import NearestCentres


class FittedCentres(RowwiseModel):
    """Methods of an estimator with ``cluster_centers_``, which are the model."""

    cluster_centers_: Floats

    def predict(
        self,
        X: Any,
        *,
        out: Any = None,
        overwrite: bool = False,
        storage_options: dict[str, Any] | None = None,
    ) -> Any:
        """Give each row the cluster of the nearest centre.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).
        out : str, path-like, URL or zarr store, optional
            Where to write a Zarr array of the labels, chunk by chunk.
        overwrite : bool, default=False
            Whether an array at `out` may be replaced.
        storage_options : dict, optional
            For the file system of `out`, where that is a URL.

        Returns
        -------
        labels : ndarray, dask.array.Array or zarr.Array of shape (n_samples,)
            int32; int64 in a dask or xarray array. By ``|x - c|²`` in float64, ties to the
            lowest.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If there is no model yet.
        DataError
            If X has another number of features, or values that are not finite.
        OutputExistsError, OutputError
            If there is something at `out`, or it could not be written whole.

        Examples
        --------
        >>> from streamgmm import KMeans
        >>> model = KMeans(2, random_state=0).fit([[0.0], [1.0], [9.0], [10.0]])
        >>> labels = model.predict([[0.5], [9.5], [0.6]])
        >>> (labels == labels[0]).tolist()
        [True, False, True]
        """
        found = self._predict(X, "labels", out, overwrite, storage_options)
        return found.astype(np.int32) if isinstance(found, np.ndarray) else found

    def transform(
        self,
        X: Any,
        *,
        out: Any = None,
        overwrite: bool = False,
        storage_options: dict[str, Any] | None = None,
        dtype: Any = None,
    ) -> Any:
        """Give the distance of each row from each centre.

        Parameters
        ----------
        X, out, overwrite, storage_options
            As for `predict`.
        dtype : {"float32", "float64"}, optional
            Of the result; by default that of the rows.

        Returns
        -------
        distances : ndarray, dask.array.Array or zarr.Array of shape (n_samples, n_clusters)
            float32 of rows of float32, else float64.

        Raises
        ------
        sklearn.exceptions.NotFittedError, DataError, OutputExistsError, OutputError
            As `predict`.
        ParameterError
            If `dtype` is another.

        Examples
        --------
        >>> from streamgmm import KMeans
        >>> KMeans(1).fit([[0.0], [2.0]]).transform([[4.0]]).tolist()
        [[3.0]]
        """
        return self._predict(X, "distances", out, overwrite, storage_options, dtype)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Minus the inertia of X, in one read of the data.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).
        y : Ignored
        sample_weight : array-like, zarr.Array, path or dask.array of shape (n_samples,), optional

        Returns
        -------
        float

        Raises
        ------
        sklearn.exceptions.NotFittedError, DataError
            As `predict`; DataError also if the weights do not fit the rows.

        Examples
        --------
        >>> from streamgmm import KMeans
        >>> KMeans(1).fit([[0.0], [2.0]]).score([[4.0]])
        -9.0
        """
        return self._score(X, sample_weight).log_likelihood

    def __sklearn_tags__(self) -> Any:
        """Distances have the rows' dtype."""
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @property
    def _n_features_out(self) -> int:
        """Columns that `transform` gives."""
        return len(self.cluster_centers_)

    def _model(self) -> NearestCentres:
        return NearestCentres.at(np.ascontiguousarray(self.cluster_centers_, np.float64))
