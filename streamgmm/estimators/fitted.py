"""What every fitted mixture offers: labels, densities, criteria, samples, saving."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from streamgmm.errors import ParameterError
from streamgmm.estimators.rows import few_rows, in_memory, open_rows
from streamgmm.model.covariances import COVARIANCES
from streamgmm.model.families.gaussian import Gaussian, GaussianComponents, gaussians
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats
from streamgmm.passes import default_threads
from streamgmm.passes.base import OnBlock
from streamgmm.predict import (
    Score,
    predict_few,
    predict_lazily,
    predict_rows,
    predict_to,
    score_few,
    score_rows,
)
from streamgmm.progress import listener


class FittedMixture:
    """Methods of an estimator with ``weights_, means_, covariances_, precisions_cholesky_``.

    The attributes are the model: what a person sets there is what is used.

    Data in memory (arrays, lists, tables) give NumPy arrays. A Zarr array, a path or URL of
    one, a dask array or a source give a lazy dask array; or, with `out`, a Zarr array that is
    written chunk by chunk and returned.
    """

    covariance_type: str
    reg_covar: float
    block_size: int | str
    n_jobs: int | None
    random_state: Any
    weights_: Floats
    means_: Floats
    covariances_: Floats
    precisions_: Floats
    precisions_cholesky_: Floats

    def predict(self, X: Any, *, out: Any = None, overwrite: bool = False) -> Any:
        """Give each row the component that most likely made it.

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
            int64; int32 in a Zarr array.

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

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Mean log-density of a row, in one read of the data.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).
        y : Ignored
        sample_weight : array-like, zarr.Array, path or dask.array of shape (n_samples,), optional
            Rows count by weight.

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
        return self._score(X, sample_weight).mean

    def bic(self, X: Any) -> float:
        """Bayesian information criterion on X, −2 ll + p log N; the lower the better.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).

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
        score = self._score(X)
        return -2 * score.log_likelihood + self._n_parameters() * math.log(score.n_rows)

    def aic(self, X: Any) -> float:
        """Akaike information criterion on X, −2 ll + 2p; the lower the better.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).

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
        return -2 * self._score(X).log_likelihood + 2 * self._n_parameters()

    def sample(self, n_samples: int = 1) -> tuple[Floats, NDArray[np.int64]]:
        """Draw rows from the model, as scikit-learn draws them from the same random state.

        Parameters
        ----------
        n_samples : int, default=1

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
        y : ndarray of shape (n_samples,)
            The component that made each row.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If there is no model yet.
        ParameterError
            If `n_samples` is less than one.

        Examples
        --------
        >>> from streamgmm import GaussianMixture
        >>> X, y = GaussianMixture(random_state=0).fit([[-1.0], [1.0]]).sample(3)
        >>> X.shape, y.tolist()
        ((3, 1), [0, 0, 0])
        """
        check_is_fitted(self)
        if n_samples < 1:
            raise ParameterError(
                f"Invalid value for 'n_samples': {n_samples} . The sampling requires at least "
                "one sample."
            )
        mixture = self._mixture()
        return mixture.sample(n_samples, check_random_state(self.random_state))

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

        Examples
        --------
        >>> import tempfile, streamgmm
        >>> path = tempfile.mkdtemp() + "/model.zarr"
        >>> model = streamgmm.GaussianMixture().fit([[-1.0], [1.0]])
        >>> model.save(path)
        >>> bool(streamgmm.load(path).means_ == model.means_)
        True
        """
        from streamgmm.estimators.saving import save

        check_is_fitted(self)
        save(self, path, overwrite)

    def _predict(self, X: Any, what: str, out: Any, overwrite: bool) -> Any:
        check_is_fitted(self)
        mixture = self._mixture()
        rows = None if out is not None else few_rows(self, X, mixture.n_features)
        if rows is not None:
            return predict_few(rows, mixture, what)
        source = open_rows(self, X, n_features=mixture.n_features)
        if out is not None:
            array, _ = predict_to(
                source,
                mixture,
                out,
                what=what,
                overwrite=overwrite,
                block_size=self.block_size,
                n_threads=self._n_threads(),
                on_block=_counter("predict", source.n_samples),
            )
            return array
        if in_memory(source):
            threads = self._n_threads()
            return predict_rows(
                source, mixture, what, block_size=self.block_size, n_threads=threads
            )
        return predict_lazily(source, mixture, what, block_size=self.block_size)

    def _score(self, X: Any, sample_weight: Any = None) -> Score:
        check_is_fitted(self)
        mixture = self._mixture()
        rows = None if sample_weight is not None else few_rows(self, X, mixture.n_features)
        if rows is not None:
            return score_few(rows, mixture)
        source = open_rows(self, X, sample_weight, n_features=mixture.n_features)
        return score_rows(
            source,
            mixture,
            block_size=self.block_size,
            n_threads=self._n_threads(),
            on_block=_counter("score", source.n_samples),
        )

    def _n_threads(self) -> int | None:
        """Threads of the local executor; None leaves the choice, and a cluster, to Dask."""
        if self.n_jobs is None:
            return None
        return self.n_jobs if self.n_jobs >= 0 else max(1, default_threads() + 1 + self.n_jobs)

    def _n_parameters(self) -> int:
        """Free parameters."""
        return COVARIANCES[self.covariance_type].n_parameters(*self.means_.shape)

    def _mixture(self) -> Mixture:
        """The model that the attributes are; raises ParameterError where they do not fit."""
        family = Gaussian(self.covariance_type, float(self.reg_covar))
        covariance = family.covariance
        means = np.ascontiguousarray(self.means_, dtype=np.float64)
        weights = np.ascontiguousarray(self.weights_, dtype=np.float64)
        chol = np.ascontiguousarray(self.precisions_cholesky_, dtype=np.float64)
        if means.ndim != 2 or weights.shape != means.shape[:1]:
            raise ParameterError(
                f"weights_ has shape {weights.shape} but means_ {means.shape}; give one weight a "
                "component, and a row of means for each"
            )
        shape = covariance.covariance_shape(*means.shape)
        if chol.shape != shape:
            raise ParameterError(
                f"precisions_cholesky_ has shape {chol.shape}; {family.name} covariances of "
                f"{means.shape[0]} components and {means.shape[1]} features have {shape}"
            )
        covariances: Any = getattr(self, "covariances_", None)
        if covariances is None or np.shape(covariances) != shape:
            precisions = squared(self.covariance_type, chol)
            matrices = covariance.matrices
            covariances = np.linalg.inv(precisions) if matrices else 1.0 / precisions
        covariances = np.ascontiguousarray(covariances, dtype=np.float64)
        return Mixture(weights, GaussianComponents(family, means, covariances, chol))

    def _set_parameters(self, mixture: Mixture) -> None:
        """Set the attributes: weights, means, covariances and Cholesky factors of precisions."""
        components = gaussians(mixture.components)
        self.weights_, self.means_ = mixture.weights, components.means
        self.covariances_ = components.covariances
        self.precisions_cholesky_ = components.precisions_cholesky
        self.precisions_ = squared(self.covariance_type, self.precisions_cholesky_)


def squared(covariance_type: str, chol: Floats) -> Floats:
    """Precisions A Aᵀ from their Cholesky factors."""
    if COVARIANCES[covariance_type].matrices:
        return np.asarray(chol @ np.swapaxes(chol, -1, -2))
    return np.asarray(chol**2)


@dataclass(frozen=True)
class _Reading:
    """What is told of a pass that has no iterations: a `streamgmm.progress.Event`."""

    stage: str
    rows: int
    n_rows: int
    iteration: int = 0
    lower_bound: float = math.nan
    change: float = math.nan


def _counter(stage: str, n_rows: int) -> OnBlock | None:
    """Give what counts rows for whoever listens to progress; None where nobody does."""
    tell = listener()
    if tell is None:
        return None
    done = 0

    def on_block(rows: int) -> None:
        nonlocal done
        done += rows
        tell(_Reading(stage, done, n_rows))

    return on_block
