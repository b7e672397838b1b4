"""What a fitted mixture says of rows: labels, responsibilities, log-densities."""

from __future__ import annotations

from typing import Any

from streamgmm.estimators.rowwise import RowwiseModel
from streamgmm.model.mixture import Mixture


class PredictingMixture(RowwiseModel):
    """Methods of an estimator whose model is what `_mixture` gives."""

    def predict(self, X: Any, *, out: Any = None, overwrite: bool = False) -> Any:
        """Give each row the component that most likely made it.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).
        out : str, path-like, URL or zarr store, optional
            Where to write a Zarr array of the labels, chunk by chunk. Rows of tables may go to
            a Parquet file, ``"labels.parquet"``, in their order.
        overwrite : bool, default=False
            Whether an array at `out` may be replaced.

        Returns
        -------
        labels : ndarray, dask.array.Array or zarr.Array of shape (n_samples,)
            int64; int32 in a Zarr array. A `pyarrow.dataset.Dataset` of a Parquet file.

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
        >>> from streamgmm import GaussianMixture
        >>> model = GaussianMixture(2, random_state=0).fit([[0.0], [1.0], [9.0], [10.0]])
        >>> labels = model.predict([[0.5], [9.5], [0.6]])
        >>> (labels == labels[0]).tolist()
        [True, False, True]
        """
        return self._predict(X, "labels", out, overwrite)

    def predict_proba(self, X: Any, *, out: Any = None, overwrite: bool = False) -> Any:
        """Give the posterior probability of each component for each row.

        Parameters
        ----------
        X, out, overwrite
            As for `predict`.

        Returns
        -------
        resp : ndarray, dask.array.Array or zarr.Array of shape (n_samples, n_components)
            float64; rows sum to one.

        Raises
        ------
        sklearn.exceptions.NotFittedError, DataError, OutputExistsError, OutputError
            As `predict`.

        Examples
        --------
        >>> from streamgmm import GaussianMixture
        >>> model = GaussianMixture(2, random_state=0).fit([[0.0], [1.0], [9.0], [10.0]])
        >>> model.predict_proba([[5.0]]).round(3).tolist()
        [[0.5, 0.5]]
        """
        return self._predict(X, "proba", out, overwrite)

    def score_samples(self, X: Any, *, out: Any = None, overwrite: bool = False) -> Any:
        """Give the log-density of each row.

        Parameters
        ----------
        X, out, overwrite
            As for `predict`.

        Returns
        -------
        log_density : ndarray, dask.array.Array or zarr.Array of shape (n_samples,)
            float64, nats.

        Raises
        ------
        sklearn.exceptions.NotFittedError, DataError, OutputExistsError, OutputError
            As `predict`.

        Examples
        --------
        >>> from streamgmm import GaussianMixture
        >>> model = GaussianMixture().fit([[-1.0], [1.0]])
        >>> model.score_samples([[0.0], [3.0]]).round(3).tolist()
        [-0.919, -5.419]
        """
        return self._predict(X, "log_density", out, overwrite)

    def _mixture(self) -> Mixture:
        """The model; raises ParameterError where its attributes do not fit one another."""
        raise NotImplementedError

    def _model(self) -> Mixture:
        return self._mixture()
