"""What centres say of rows: labels, distances, and the inertia."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from streamgmm.estimators.rows import few_rows, in_memory, open_rows
from streamgmm.model.moments import Floats
from streamgmm.passes import default_threads
from streamgmm.predict import predict_few, predict_lazily, predict_rows, predict_to, score_rows
from streamgmm.predict.centres import NearestCentres


class FittedCentres:
    """Methods of an estimator with ``cluster_centers_``, which are the model.

    Data in memory give NumPy arrays, others a lazy dask array; or, with `out`, a Zarr array that
    is written chunk by chunk and returned.
    """

    block_size: int | str
    n_jobs: int | None
    cluster_centers_: Floats

    def predict(self, X: Any, *, out: Any = None, overwrite: bool = False) -> Any:
        """Give each row the cluster of the nearest centre.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).
        out : str, path-like, URL or zarr store, optional
            Where to write a Zarr array of the labels, chunk by chunk.
        overwrite : bool, default=False
            Whether an array at `out` may be replaced.

        Returns
        -------
        labels : ndarray, dask.array.Array or zarr.Array of shape (n_samples,)
            int32; int64 in a dask array. By |x - c|² in float64, ties to the lowest.

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
        found = self._predict(X, "labels", out, overwrite)
        return found.astype(np.int32) if isinstance(found, np.ndarray) else found

    def transform(self, X: Any, *, out: Any = None, overwrite: bool = False) -> Any:
        """Give the distance of each row from each centre.

        Parameters
        ----------
        X, out, overwrite
            As for `predict`.

        Returns
        -------
        distances : ndarray, dask.array.Array or zarr.Array of shape (n_samples, n_clusters)
            float64.

        Raises
        ------
        sklearn.exceptions.NotFittedError, DataError, OutputExistsError, OutputError
            As `predict`.

        Examples
        --------
        >>> from streamgmm import KMeans
        >>> KMeans(1).fit([[0.0], [2.0]]).transform([[4.0]]).tolist()
        [[3.0]]
        """
        return self._predict(X, "distances", out, overwrite)

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
        check_is_fitted(self)
        source = open_rows(self, X, sample_weight, n_features=self.cluster_centers_.shape[1])
        found = score_rows(
            source, self._nearest(), block_size=self.block_size, n_threads=self._n_threads()
        )
        return found.log_likelihood

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Save the model as a Zarr group, without pickle; `streamgmm.load` reads it back.

        Parameters
        ----------
        path : str, path-like or URL
        overwrite : bool, default=False
            Whether a model at `path` may be replaced.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If there is no model yet.
        OutputExistsError, OutputError, ParameterError
            As `streamgmm.storage.save_model`.
        """
        from streamgmm.estimators.saving import save

        check_is_fitted(self)
        save(self, path, overwrite)

    @property
    def _n_features_out(self) -> int:
        """Columns that `transform` gives."""
        return len(self.cluster_centers_)

    def _nearest(self) -> NearestCentres:
        """The model that the attributes are."""
        return NearestCentres.at(np.ascontiguousarray(self.cluster_centers_, np.float64))

    def _predict(self, X: Any, what: str, out: Any, overwrite: bool) -> Any:
        check_is_fitted(self)
        model, threads = self._nearest(), self._n_threads()
        rows = None if out is not None else few_rows(self, X, model.n_features)
        if rows is not None:
            return predict_few(rows, model, what)
        source = open_rows(self, X, n_features=model.n_features)
        size = self.block_size
        if out is not None:
            array, _ = predict_to(
                source, model, out, what=what, overwrite=overwrite, block_size=size,
                n_threads=threads,
            )  # fmt: skip
            return array
        if in_memory(source):
            return predict_rows(source, model, what, block_size=size, n_threads=threads)
        return predict_lazily(source, model, what, block_size=size)

    def _n_threads(self) -> int | None:
        """Threads of the local executor; None leaves the choice, and a cluster, to Dask."""
        if self.n_jobs is None:
            return None
        return self.n_jobs if self.n_jobs >= 0 else max(1, default_threads() + 1 + self.n_jobs)
