"""`StandardScaler`: scikit-learn's, for data of any size."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import OneToOneFeatureMixin, _fit_context

from streamgmm.estimators.exchange import Exchanged
from streamgmm.estimators.rows import open_rows
from streamgmm.estimators.rowwise import count_rows
from streamgmm.estimators.transforming import (
    CONSTRAINTS,
    PASSES_GAPS,
    RowTransformer,
    shares,
    weighted,
)
from streamgmm.fitting.moments import RowMoments, columns_of
from streamgmm.model.affine import Affine
from streamgmm.model.moments import Floats, Moments
from streamgmm.sources import Source
from streamgmm.sources.opening import is_lazy


class StandardScaler(OneToOneFeatureMixin, Exchanged, RowTransformer):
    """Take the mean from every feature and divide it by its standard deviation.

    Parameters, attributes and methods are those of `sklearn.preprocessing.StandardScaler`, for
    rows of any size, in one read. Out of core `transform` is lazy, and `fit_transform` sums the
    whole scatter in the same read, so that a `PCA` after it in a pipeline reads nothing.

    Parameters
    ----------
    copy : bool, default=True
        Of no meaning here: rows are never changed.
    with_mean : bool, default=True
        Whether the mean is taken away.
    with_std : bool, default=True
        Whether features are divided by their standard deviations.
    block_size, n_jobs
        As for `GaussianMixture`.
    missing : {"raise", "omit", "marginalize"}, default="raise"
        What to do about gaps (NaN). ``"marginalize"``, as scikit-learn does: mean and variance are
        of the values that a feature has, and gaps stay in their place, for a mixture after it.

    Attributes
    ----------
    scale_ : ndarray of shape (n_features,) or None
        Standard deviations (of the population); 1 for a feature that does not vary. None where
        `with_std` is false.
    mean_ : ndarray of shape (n_features,) or None
        None where neither is asked for.
    var_ : ndarray of shape (n_features,) or None
        None where `with_std` is false.
    n_samples_seen_ : int, float or ndarray of shape (n_features,)
        Rows; their total weight where they have weights. An array where features have gaps.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)
        If X had names that are all strings.

    Examples
    --------
    >>> from streamgmm import StandardScaler
    >>> scaler = StandardScaler().fit([[0.0, 5.0], [2.0, 5.0]])
    >>> scaler.mean_, scaler.scale_
    (array([1., 5.]), array([1., 1.]))
    >>> scaler.transform([[4.0, 6.0]])
    array([[3., 1.]])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "copy": ["boolean"],
        "with_mean": ["boolean"],
        "with_std": ["boolean"],
        **CONSTRAINTS,
        **PASSES_GAPS,
    }

    exchanged = ("sklearn.preprocessing.StandardScaler",)
    shared = ("mean_", "var_", "scale_", "n_samples_seen_")

    scale_: Floats | None
    mean_: Floats | None
    var_: Floats | None
    n_samples_seen_: Any

    def __init__(
        self,
        *,
        copy: bool = True,
        with_mean: bool = True,
        with_std: bool = True,
        block_size: int | str = "auto",
        n_jobs: int | None = None,
        missing: str = "raise",
    ) -> None:
        self.copy = copy
        self.with_mean = with_mean
        self.with_std = with_std
        self.block_size = block_size
        self.n_jobs = n_jobs
        self.missing = missing

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Find the mean and variance of every feature, in one read.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).
        y : Ignored
        sample_weight : array-like, zarr.Array, path or dask.array of shape (n_samples,), optional
            A row of weight w counts as w rows.

        Returns
        -------
        self : StandardScaler

        Raises
        ------
        DataError
            If X cannot be used: NaN or infinity (names the array and the rows), no rows or
            columns of real numbers; or if the weights do not fit it.
        SourceError
            If a path is no Zarr array.
        """
        source = open_rows(self, X, sample_weight)
        self._set(self._columns(source), weighted(source))
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Find means and variances, and scale the rows: ``fit(X).transform(X)``.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_features), or Source
            As `transform` gives them. A Source keeps the scatter of its rows, as they are now,
            for a `PCA` that is fitted to it.

        Raises
        ------
        DataError, SourceError
            As `fit`.
        """
        if sample_weight is not None or self.missing == "marginalize":
            # Weights are this step's, and not the rows'; and rows with gaps have no scatter.
            return self.fit(X, y, sample_weight).transform(X)
        source = open_rows(self, X)
        shared = shares(X, source)
        found = self._moments(source, "full" if shared else "diag")
        self._set(columns(found), weighted(source))
        affine = self._affine()
        known = found.by(affine) if shared else None
        return self._mapped(source, affine, not is_lazy(X), known)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Take in more rows, as if they had been there in `fit`.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        self : StandardScaler

        Raises
        ------
        DataError, SourceError
            As `fit`.

        Examples
        --------
        >>> from streamgmm import StandardScaler
        >>> StandardScaler().partial_fit([[0.0]]).partial_fit([[4.0]]).var_
        array([4.])
        """
        before = self._before() if hasattr(self, "n_samples_seen_") else None
        known = None if before is None else self.n_features_in_
        source = open_rows(self, X, sample_weight, n_features=known)
        found = self._columns(source)
        counted = weighted(source)
        if before is not None:
            found = before.merge(found)
            counted = counted or np.asarray(self.n_samples_seen_).dtype.kind == "f"
        self._set(found, counted)
        return self

    def transform(self, X: Any, copy: bool | None = None) -> Any:
        """Scale rows.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).
        copy : bool, optional
            Of no meaning here: rows are never changed.

        Returns
        -------
        ndarray of shape (n_samples, n_features), or Source
            An array for arrays, lists and tables in memory. Otherwise rows that are scaled as
            they are read, which every estimator takes; nothing is read yet, and nothing written.
            float32 rows stay float32.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If it has not been fitted.
        DataError
            If X has another number of features; or, where it is read, values that are not
            finite.
        """
        return super().transform(X)

    def inverse_transform(self, X: Any, copy: bool | None = None) -> Any:
        """Take scaled rows back to what they were.

        Parameters
        ----------
        X, copy
            As for `transform`.

        Returns
        -------
        ndarray of shape (n_samples, n_features), or Source
            As `transform` gives them.

        Raises
        ------
        sklearn.exceptions.NotFittedError, DataError
            As `transform`.
        """
        return super().inverse_transform(X)

    def _affine(self) -> Affine:
        if not (self.with_mean or self.with_std):
            return Affine.nothing(self.n_features_in_)
        return Affine.columns(
            self.mean_ if self.with_mean else None, self.scale_ if self.with_std else None
        )

    def _columns(self, source: Source) -> Moments:
        """The moments of each column, over the values that it has."""
        if self.missing != "marginalize":
            return columns(self._moments(source, "diag"))
        return columns_of(
            source,
            block_size=self.block_size,
            n_threads=self._n_threads(),
            on_block=count_rows("fit", source.n_samples),
        )

    def _set(self, found: Moments, weighted: bool) -> None:
        weight, mean = found.weight, found.mean[:, 0]
        counts = weight if weighted else np.round(weight).astype(np.int64)
        same = bool((counts == counts[0]).all())
        self.n_samples_seen_ = counts[0].item() if same else counts
        any_asked = self.with_mean or self.with_std
        self.mean_ = mean.copy() if any_asked else None
        self.var_ = found.scatter[:, 0] / weight if self.with_std else None
        self.scale_ = None if self.var_ is None else scales(self.var_, mean, weight)

    def _before(self) -> Moments:
        """The moments of the columns of rows that were seen."""
        zeros = np.zeros(self.n_features_in_)
        weight = zeros + self.n_samples_seen_
        mean = zeros if self.mean_ is None else self.mean_
        scatter = zeros if self.var_ is None else self.var_ * weight
        return Moments("diag", weight, mean[:, None], scatter[:, None])


def columns(found: RowMoments) -> Moments:
    """The moments of columns: of D components of one feature each."""
    d = len(found.mean)
    scatter = found.variance * found.weight
    return Moments("diag", np.full(d, found.weight), found.mean[:, None], scatter[:, None])


def scales(variance: Floats, mean: Floats, weight: Floats) -> Floats:
    """Standard deviations; 1 for a feature that does not vary but by rounding.

    The bound is that of scikit-learn: Chan, Golub & LeVeque (1983), n ε σ² + (n μ ε)².

    >>> scales(np.array([4.0, 0.0]), np.array([1.0, 5.0]), np.full(2, 10.0)).tolist()
    [2.0, 1.0]
    """
    eps = np.finfo(np.float64).eps
    constant = variance <= weight * eps * variance + (weight * mean * eps) ** 2
    return np.where(constant, 1.0, np.sqrt(variance))
