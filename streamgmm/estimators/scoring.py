"""How well a fitted mixture explains rows: mean log-density, and the criteria made of it."""

from __future__ import annotations

import math
from typing import Any

from streamgmm.estimators.predicting import PredictingMixture


class ScoringMixture(PredictingMixture):
    """Methods of an estimator that make one read of the rows, and give a number."""

    def score(
        self, X: Any, y: Any = None, sample_weight: Any = None, noise_variance: Any = None
    ) -> float:
        """Mean log-density of a row, in one read of the data.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).
        y : Ignored
        sample_weight : array-like, zarr.Array, path or dask.array of shape (n_samples,), optional
            Rows count by weight.
        noise_variance : array-like, zarr.Array, path or dask.array, optional
            Variances of the errors of X, as for `predict`.

        Returns
        -------
        log_likelihood : float
            Nats a row.

        Raises
        ------
        sklearn.exceptions.NotFittedError, DataError
            As `predict`; DataError also if the weights do not fit the rows.

        Examples
        --------
        >>> from streamgmm import GaussianMixture
        >>> model = GaussianMixture().fit([[-1.0], [1.0]])
        >>> round(model.score([[0.0], [3.0]]), 3)
        -3.169
        """
        return self._score(X, sample_weight, noise_variance).mean

    def bic(self, X: Any, noise_variance: Any = None) -> float:
        """Bayesian information criterion on X, −2 ll + p log N; the lower the better.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).
        noise_variance : array-like, zarr.Array, path or dask.array, optional
            Variances of the errors of X, as for `predict`.

        Returns
        -------
        float
            Nats.

        Raises
        ------
        sklearn.exceptions.NotFittedError, DataError
            As `predict`.

        Examples
        --------
        >>> from streamgmm import GaussianMixture
        >>> X = [[-1.0], [1.0]]
        >>> round(GaussianMixture().fit(X).bic(X), 3)
        7.062
        """
        score = self._score(X, None, noise_variance)
        return -2 * score.log_likelihood + self._n_parameters() * math.log(score.n_rows)

    def aic(self, X: Any, noise_variance: Any = None) -> float:
        """Akaike information criterion on X, −2 ll + 2p; the lower the better.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).
        noise_variance : array-like, zarr.Array, path or dask.array, optional
            Variances of the errors of X, as for `predict`.

        Returns
        -------
        float
            Nats.

        Raises
        ------
        sklearn.exceptions.NotFittedError, DataError
            As `predict`.

        Examples
        --------
        >>> from streamgmm import GaussianMixture
        >>> X = [[-1.0], [1.0]]
        >>> round(GaussianMixture().fit(X).aic(X), 3)
        9.676
        """
        score = self._score(X, None, noise_variance)
        return -2 * score.log_likelihood + 2 * self._n_parameters()

    def _n_parameters(self) -> int:
        """Free parameters."""
        return self._mixture().n_parameters
