"""What scalers and projections do with rows: arrays in memory, lazily everywhere else."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_array, check_is_fitted

from streamgmm.errors import DataError
from streamgmm.estimators.rows import missing_of, open_rows
from streamgmm.estimators.rowwise import RowwiseModel, count_rows
from streamgmm.fitting.moments import Kind, RowMoments, moments_of
from streamgmm.model.affine import Affine
from streamgmm.predict.transformed import read_rows
from streamgmm.sources import Source, TransformedSource, omitting, open_source, transformed
from streamgmm.sources.opening import is_lazy

CONSTRAINTS: dict[str, list[Any]] = {
    "block_size": [Interval(Integral, 1, None, closed="left"), str],
    "n_jobs": [Integral, None],
    "missing": [StrOptions({"raise", "omit"})],
}
"""What scikit-learn checks the parameters for that every transformer has beside its own."""

PASSES_GAPS: dict[str, list[Any]] = {
    "missing": [StrOptions({"raise", "omit", "marginalize"})],
}
"""Of those that map columns one by one, so that a gap stays in its place."""

SHARED_FEATURES = 1024
"""Up to so many features `fit_transform` sums the whole scatter, for a projection after it."""


def shares(X: Any, source: Source) -> bool:
    """Whether what is fitted and transformed is worth summing for whoever comes after."""
    return is_lazy(X) and source.n_features <= SHARED_FEATURES


class RowTransformer(RowwiseModel, TransformerMixin, BaseEstimator):
    """An estimator whose fitted model is an affine map of rows, which `_affine` gives."""

    missing: str
    n_features_in_: int

    def transform(self, X: Any) -> Any:
        """Transform rows.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).

        Returns
        -------
        ndarray of shape (n_samples, n_features_out), or Source
            An array for arrays, lists and tables in memory. Otherwise rows that are transformed
            as they are read, which every estimator takes; nothing is read yet, and nothing
            written. float32 rows stay float32.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If it has not been fitted.
        DataError
            If X has another number of features; or, where it is read, values that are not
            finite.
        """
        check_is_fitted(self)
        source = open_rows(self, X, n_features=self.n_features_in_)
        return self._mapped(source, self._affine(), not is_lazy(X))

    def inverse_transform(self, X: Any) -> Any:
        """Take transformed rows back to what they were before.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features_out).

        Returns
        -------
        ndarray of shape (n_samples, n_features), or Source
            As `transform` gives them.

        Raises
        ------
        sklearn.exceptions.NotFittedError, DataError
            As `transform`.
        """
        check_is_fitted(self)
        lazy = is_lazy(X)
        if not lazy and type(X) not in (np.ndarray, np.memmap):
            X = check_array(X, dtype=[np.float64, np.float32], ensure_all_finite=False)
        source = open_source(X)
        back, wanted = self._inverse(), self._affine().n_features
        if source.n_features != wanted:
            raise DataError(
                f"{source.name} has {source.n_features} features, but inverse_transform of "
                f"{type(self).__name__} is expecting {wanted} features as input"
            )
        return self._mapped(
            omitting(source) if missing_of(self) == "omit" else source, back, not lazy
        )

    def _affine(self) -> Affine:
        """The fitted map."""
        raise NotImplementedError

    def _inverse(self) -> Affine:
        """The map back."""
        return self._affine().inverse()

    def _mapped(
        self, source: Source, affine: Affine, here: bool, summary: RowMoments | None = None
    ) -> Any:
        rows = transformed(source, affine, summary)
        if not here:
            return rows
        gaps = self.missing == "marginalize"
        threads = self._n_threads()
        return read_rows(rows, gaps=gaps, block_size=self.block_size, n_threads=threads)

    def _moments(self, source: Source, kind: Kind) -> RowMoments:
        """The moments of all rows: in one read, or in none where they are known."""
        known = known_moments(source)
        if known is not None:
            return known
        return moments_of(
            source,
            kind,
            block_size=self.block_size,
            n_threads=self._n_threads(),
            on_block=count_rows("fit", source.n_samples),
        )

    def __sklearn_tags__(self) -> Any:
        """As scikit-learn's: float32 stays float32."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing != "raise"
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def known_moments(source: Source) -> RowMoments | None:
    """The moments that were left with rows by the step before, whole scatters."""
    summary = source.summary if isinstance(source, TransformedSource) else None
    return summary if isinstance(summary, RowMoments) else None


def weighted(source: Source) -> bool:
    """Whether rows have weights of their own."""
    return getattr(source, "weights", None) is not None
