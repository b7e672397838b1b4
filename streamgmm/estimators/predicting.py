"""What a fitted mixture says of rows: labels, responsibilities, log-densities."""

from __future__ import annotations

from typing import Any

from sklearn.utils.validation import check_is_fitted

from streamgmm.errors import ParameterError
from streamgmm.estimators.rows import open_rows
from streamgmm.estimators.rowwise import RowwiseModel
from streamgmm.estimators.uncertain import denoising, noisy
from streamgmm.model.mixture import Mixture


class PredictingMixture(RowwiseModel):
    """Methods of an estimator whose model is what `_mixture` gives."""

    def predict(
        self,
        X: Any,
        *,
        out: Any = None,
        overwrite: bool = False,
        storage_options: dict[str, Any] | None = None,
        noise_variance: Any = None,
        exact: bool = False,
    ) -> Any:
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
        storage_options : dict, optional
            For the file system of `out`, where that is a URL.
        noise_variance : array-like, zarr.Array, path or dask.array, optional
            Variances of the errors of X, (n_samples, n_features), or a covariance matrix for
            each row, (n_samples, n_features, n_features): the component is then that of the true
            values, of Gaussian mixtures.
        exact : bool, default=False
            Whether each row looks at all components, after a fit with `truncation`, where it
            otherwise looks at those that a search finds.

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
        return self._predict(
            X,
            "labels",
            out,
            overwrite,
            storage_options,
            noise_variance=noise_variance,
            exact=exact,
        )

    def predict_proba(
        self,
        X: Any,
        *,
        out: Any = None,
        overwrite: bool = False,
        storage_options: dict[str, Any] | None = None,
        dtype: Any = None,
        noise_variance: Any = None,
        exact: bool = False,
    ) -> Any:
        """Give the posterior probability of each component for each row.

        Parameters
        ----------
        X, out, overwrite, storage_options, noise_variance, exact
            As for `predict`.
        dtype : {"float32", "float64"}, optional
            Of the result; by default that of the rows.

        Returns
        -------
        resp : ndarray, dask.array.Array or zarr.Array of shape (n_samples, n_components)
            Rows sum to one. float32 of rows of float32, else float64.

        Raises
        ------
        sklearn.exceptions.NotFittedError, DataError, OutputExistsError, OutputError
            As `predict`.
        ParameterError
            If `dtype` is another.

        Examples
        --------
        >>> from streamgmm import GaussianMixture
        >>> model = GaussianMixture(2, random_state=0).fit([[0.0], [1.0], [9.0], [10.0]])
        >>> model.predict_proba([[5.0]]).round(3).tolist()
        [[0.5, 0.5]]
        """
        return self._predict(
            X, "proba", out, overwrite, storage_options, dtype, noise_variance, exact
        )

    def score_samples(
        self,
        X: Any,
        *,
        out: Any = None,
        overwrite: bool = False,
        storage_options: dict[str, Any] | None = None,
        dtype: Any = None,
        noise_variance: Any = None,
        exact: bool = False,
    ) -> Any:
        """Give the log-density of each row.

        Parameters
        ----------
        X, out, overwrite, storage_options, noise_variance, exact
            As for `predict`.
        dtype : {"float32", "float64"}, optional
            Of the result; by default that of the rows.

        Returns
        -------
        log_density : ndarray, dask.array.Array or zarr.Array of shape (n_samples,)
            Nats. float32 of rows of float32, else float64.

        Raises
        ------
        sklearn.exceptions.NotFittedError, DataError, OutputExistsError, OutputError
            As `predict`.
        ParameterError
            If `dtype` is another.

        Examples
        --------
        >>> from streamgmm import GaussianMixture
        >>> model = GaussianMixture().fit([[-1.0], [1.0]])
        >>> model.score_samples([[0.0], [3.0]]).round(3).tolist()
        [-0.919, -5.419]
        """
        return self._predict(
            X, "log_density", out, overwrite, storage_options, dtype, noise_variance, exact
        )

    def denoise(
        self,
        X: Any,
        noise_variance: Any,
        *,
        return_std: bool = False,
        out: Any = None,
        overwrite: bool = False,
        storage_options: dict[str, Any] | None = None,
        dtype: Any = None,
    ) -> Any:
        """Give the posterior mean of the true values of rows with errors.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).
        noise_variance : array-like, zarr.Array, str or path, or dask.array.Array
            Variances of their errors, (n_samples, n_features), or a covariance matrix for each
            row, (n_samples, n_features, n_features). Of a variance that is infinite nothing is
            known but what the other values tell.
        return_std : bool, default=False
            Whether posterior standard deviations are given too.
        out : str, path-like, URL or zarr store, or a pair of them, optional
            Where to write Zarr arrays, chunk by chunk; a pair with `return_std`.
        overwrite : bool, default=False
            Whether arrays at `out` may be replaced.
        storage_options : dict, optional
            For the file system of `out`, where that is a URL.
        dtype : {"float32", "float64"}, optional
            Of the result; by default that of the rows and their noise.

        Returns
        -------
        mean : ndarray, dask.array.Array or zarr.Array of shape (n_samples, n_features)
            Σ_k r_k (μ_k + Σ_k (Σ_k + S)⁻¹ (x - μ_k)).
        std : of the same shape
            Where asked for.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If there is no model yet.
        DataError
            If X or its noise cannot be used: names the row.
        ParameterError
            If the components are no Gaussians, or `out` is not as many places as results.
        OutputExistsError, OutputError
            If there is something at `out`, or it could not be written whole.

        Examples
        --------
        >>> from streamgmm import GaussianMixture
        >>> model = GaussianMixture(reg_covar=0).fit([[-1.0], [1.0]])
        >>> model.denoise([[3.0], [3.0]], [[0.0], [1.0]]).round(6).tolist()
        [[3.0], [1.5]]
        """
        check_is_fitted(self)
        model = self._model()
        source = open_rows(self, X, n_features=model.n_features)
        source, known = noisy(source, noise_variance, model)
        if not return_std:
            how = out, overwrite, storage_options, dtype
            return self._say(source, denoising(known, False), "values", *how)
        places = (None, None) if out is None else out
        if not isinstance(places, (tuple, list)) or len(places) != 2:
            raise ParameterError(
                "means and standard deviations are two arrays: give out=(where, where) for them"
            )
        return tuple(
            self._say(
                source,
                denoising(known, spread),
                "values",
                place,
                overwrite,
                storage_options,
                dtype,
            )
            for spread, place in zip((False, True), places, strict=True)
        )

    def _mixture(self) -> Mixture:
        """The model; raises ParameterError where its attributes do not fit one another."""
        raise NotImplementedError

    def _model(self) -> Mixture:
        return self._mixture()
