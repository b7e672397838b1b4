"""`PCA`: scikit-learn's, exact, for data of any size in one read.

A long file for its docstrings: half of it says the parameters and methods of scikit-learn's face.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, _fit_context
from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions
from sklearn.utils.validation import check_is_fitted

from streamgmm.estimators.exchange import Exchanged
from streamgmm.estimators.rows import in_memory, open_rows
from streamgmm.estimators.transforming import (
    CONSTRAINTS,
    RowTransformer,
    known_moments,
    weighted,
)
from streamgmm.fitting.spectrum import Spectrum, of_moments, of_rows, solver_of
from streamgmm.model.affine import Affine
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats
from streamgmm.predict.transformed import read_rows
from streamgmm.sources import Source


class PCA(ClassNamePrefixFeaturesOutMixin, Exchanged, RowTransformer):
    """Project rows on their principal components, found in one read of all rows.

    The scatter of one full Gaussian is all that principal components are made of; after a
    `StandardScaler` in a pipeline not even one read is needed. Parameters, attributes and
    methods are those of `sklearn.decomposition.PCA`, with its signs.

    Parameters
    ----------
    n_components : int, float, "mle" or None, default=None
        Components that are kept: so many; as many as explain that share of the variance; as
        many as Minka's maximum likelihood says; or all, the lesser of rows and features.
    copy : bool, default=True
        Of no meaning here: rows are never changed.
    whiten : bool, default=False
        Whether projections are divided by their standard deviations.
    svd_solver : {"auto", "full", "covariance_eigh", "arpack", "randomized"}, default="auto"
        Of no meaning here: all are exact. Rows in memory that are fewer than ten times their
        features (or of more than 1000) are taken apart themselves, all others by their scatter.
    tol, iterated_power, n_oversamples, power_iteration_normalizer, random_state
        Of no meaning here: those of scikit-learn's approximate solvers.
    block_size, n_jobs, missing
        As for `GaussianMixture`.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        Directions of the greatest variance, orthonormal; the entry of each that is largest in
        absolute value is positive.
    explained_variance_ : ndarray of shape (n_components,)
        Variances along them, with n − 1 in the denominator.
    explained_variance_ratio_ : ndarray of shape (n_components,)
    singular_values_ : ndarray of shape (n_components,)
        Of the centred rows.
    mean_ : ndarray of shape (n_features,)
    n_components_ : int
    n_samples_ : int or float
        Rows; their total weight where they have weights.
    noise_variance_ : float
        Mean of the variances that are left out: of probabilistic PCA (Tipping & Bishop 1999).
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)
        If X had names that are all strings.

    Examples
    --------
    >>> from streamgmm import PCA
    >>> X = [[-1, -1], [-2, -1], [-3, -2], [1, 1], [2, 1], [3, 2]]
    >>> pca = PCA(n_components=2).fit(X)
    >>> pca.explained_variance_ratio_.round(4).tolist()
    [0.9924, 0.0076]
    >>> pca.singular_values_.round(4).tolist()
    [6.3006, 0.5498]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [
            Interval(Integral, 0, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="neither"),
            StrOptions({"mle"}),
            None,
        ],
        "copy": ["boolean"],
        "whiten": ["boolean"],
        "svd_solver": [StrOptions({"auto", "full", "covariance_eigh", "arpack", "randomized"})],
        "tol": [Interval(Real, 0, None, closed="left")],
        "iterated_power": [StrOptions({"auto"}), Interval(Integral, 0, None, closed="left")],
        "n_oversamples": [Interval(Integral, 1, None, closed="left")],
        "power_iteration_normalizer": [StrOptions({"auto", "QR", "LU", "none"})],
        "random_state": ["random_state"],
        **CONSTRAINTS,
    }

    exchanged = ("sklearn.decomposition.PCA", "sklearn.decomposition.IncrementalPCA")
    shared = (
        "components_", "explained_variance_", "explained_variance_ratio_", "singular_values_",
        "mean_", "n_components_", "n_samples_", "noise_variance_",
    )  # fmt: skip

    components_: Floats
    explained_variance_: Floats
    explained_variance_ratio_: Floats
    singular_values_: Floats
    mean_: Floats
    n_components_: int
    n_samples_: float
    noise_variance_: float

    def __init__(
        self,
        n_components: float | str | None = None,
        *,
        copy: bool = True,
        whiten: bool = False,
        svd_solver: str = "auto",
        tol: float = 0.0,
        iterated_power: int | str = "auto",
        n_oversamples: int = 10,
        power_iteration_normalizer: str = "auto",
        random_state: Any = None,
        block_size: int | str = "auto",
        n_jobs: int | None = None,
        missing: str = "raise",
    ) -> None:
        self.n_components = n_components
        self.copy = copy
        self.whiten = whiten
        self.svd_solver = svd_solver
        self.tol = tol
        self.iterated_power = iterated_power
        self.n_oversamples = n_oversamples
        self.power_iteration_normalizer = power_iteration_normalizer
        self.random_state = random_state
        self.block_size = block_size
        self.n_jobs = n_jobs
        self.missing = missing

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the principal components, in one read.

        Rows that a `StandardScaler` has just scaled, out of core, are not read: their scatter
        follows from that of the rows.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features). A row of weight w (`streamgmm.rows`) counts as w.
        y : Ignored

        Returns
        -------
        self : PCA

        Raises
        ------
        DataError
            If X cannot be used: NaN or infinity (names the array and the rows), a single row, no
            rows or columns of real numbers.
        ParameterError
            If there are fewer rows or features than components.
        SourceError
            If a path is no Zarr array.
        """
        source = open_rows(self, X)
        shape = (source.n_samples, source.n_features)
        self._fit_svd_solver = solver_of(self.svd_solver, shape, self.n_components)
        self._set_spectrum(self._spectrum(source), weighted(source))
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Find the components and project the rows: ``fit(X).transform(X)``.

        Parameters
        ----------
        X, y
            As for `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_components), or Source
            As `transform` gives them.

        Raises
        ------
        DataError, ParameterError, SourceError
            As `fit`.
        """
        return self.fit(X).transform(X)

    def score_samples(self, X: Any, *, out: Any = None, overwrite: bool = False) -> Any:
        """Give the log-density of each row under probabilistic PCA.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).
        out : str, path-like, URL or zarr store, optional
            Where to write a Zarr array of them, chunk by chunk.
        overwrite : bool, default=False
            Whether an array at `out` may be replaced.

        Returns
        -------
        log_density : ndarray, dask.array.Array or zarr.Array of shape (n_samples,)
            float64, nats.

        Raises
        ------
        sklearn.exceptions.NotFittedError, DataError, OutputExistsError, OutputError
            As `GaussianMixture.score_samples`.
        SingularCovarianceError
            If the components leave no noise, and some have no variance.
        """
        return self._predict(X, "log_density", out, overwrite)

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log-density of rows under probabilistic PCA, in one read.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).
        y : Ignored

        Returns
        -------
        float
            Nats a row.

        Raises
        ------
        sklearn.exceptions.NotFittedError, DataError, SingularCovarianceError
            As `score_samples`.
        """
        return self._score(X).mean

    def get_covariance(self) -> Floats:
        """Covariance of the rows as the components and the noise have it.

        Returns
        -------
        ndarray of shape (n_features, n_features)
            Tipping & Bishop (1999): Vᵀ (Λ − σ²) V + σ².

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If it has not been fitted.
        """
        check_is_fitted(self)
        over = np.maximum(self.explained_variance_ - self.noise_variance_, 0.0)
        covariance = (self.components_.T * over) @ self.components_
        covariance.flat[:: len(covariance) + 1] += self.noise_variance_
        return np.asarray(covariance)

    def get_precision(self) -> Floats:
        """Inverse of that covariance.

        Returns
        -------
        ndarray of shape (n_features, n_features)

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If it has not been fitted.
        """
        check_is_fitted(self)
        noise = self.noise_variance_
        if noise == 0.0:
            return np.asarray(np.linalg.inv(self.get_covariance()))
        # By components: (Vᵀ (Λ − σ²) V + σ²)⁻¹ = Vᵀ (Λ⁻¹ − σ⁻²) V + σ⁻² for orthonormal V.
        least = np.maximum(self.explained_variance_, noise)
        less = (self.components_.T * (1.0 / least - 1.0 / noise)) @ self.components_
        less.flat[:: len(less) + 1] += 1.0 / noise
        return np.asarray(less)

    @property
    def _n_features_out(self) -> int:
        """Columns that `transform` gives."""
        return len(self.components_)

    def _spectrum(self, source: Source) -> Spectrum:
        """Variances and directions of the rows, all of them."""
        n, d = source.n_samples, source.n_features
        tall = solver_of("auto", (n, d), None) == "covariance_eigh"
        if not tall and in_memory(source) and not weighted(source) and not _known(source):
            rows = read_rows(source, block_size=self.block_size, n_threads=self._n_threads())
            return of_rows(rows[~np.isnan(rows).any(axis=1)], source.name)
        return of_moments(self._moments(source, "full"), source.name)

    def _set_spectrum(self, found: Spectrum, weighted: bool) -> None:
        k = found.n_kept(self.n_components, self._fit_svd_solver)
        self.n_samples_ = found.weight if weighted else round(found.weight)
        self.n_components_ = k
        self.mean_ = found.mean
        self.components_ = found.directions[:k].copy()
        self.explained_variance_ = found.variances[:k].copy()
        self.explained_variance_ratio_ = found.ratios[:k].copy()
        self.singular_values_ = np.sqrt(self.explained_variance_ * (found.weight - 1.0))
        rest = found.variances[k : found.rank]
        self.noise_variance_ = float(rest.mean()) if len(rest) else 0.0

    def _affine(self) -> Affine:
        matrix = self.components_.T
        if self.whiten:
            matrix = matrix / self._deviations()
        return Affine(self.mean_, None, np.ascontiguousarray(matrix), np.zeros(len(matrix.T)))

    def _inverse(self) -> Affine:
        matrix = self.components_
        if self.whiten:
            matrix = matrix * self._deviations()[:, None]
        return Affine(np.zeros(len(matrix)), None, matrix, self.mean_)

    def _deviations(self) -> Floats:
        """Standard deviations along the components, never zero."""
        return np.maximum(np.sqrt(self.explained_variance_), np.finfo(np.float64).eps)

    def _taken_from(self, model: Any) -> None:
        if not hasattr(self, "n_samples_"):  # of scikit-learn's IncrementalPCA
            self.n_samples_ = int(model.n_samples_seen_)

    def _model(self) -> Mixture:
        """One Gaussian: probabilistic PCA; raises SingularCovarianceError."""
        covariance = self.get_covariance()
        return Mixture.of("full", np.ones(1), self.mean_[None], covariance[None])


def _known(source: Source) -> bool:
    return known_moments(source) is not None
