"""`MixtureRegressor`: regression by a Gaussian mixture of features and targets together."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin, _fit_context
from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted

from streamgmm.errors import ParameterError
from streamgmm.estimators.attributes import GaussianAttributes
from streamgmm.estimators.conditioning import Form, check_targets, predict
from streamgmm.estimators.gaussian import GaussianMixture
from streamgmm.estimators.rows import in_memory, missing_of, open_rows
from streamgmm.estimators.rowwise import RowwiseModel, count_rows
from streamgmm.model.conditional import Conditional, condition
from streamgmm.passes import open_executor
from streamgmm.predict.determination import Explained, explain_block
from streamgmm.sources import Source, omitting, open_source, parse_block_size, rows
from streamgmm.sources.dask import is_dask_array
from streamgmm.sources.datasets import is_xarray
from streamgmm.sources.joined import beside, columns_of
from streamgmm.sources.named import check_names
from streamgmm.sources.parquet import is_parquet
from streamgmm.sources.tables import is_table
from streamgmm.sources.variables import FEATURE
from streamgmm.sources.zarr_open import is_zarr


class MixtureRegressor(
    GaussianAttributes, MultiOutputMixin, RegressorMixin, RowwiseModel, BaseEstimator
):
    """Regression by a Gaussian mixture: E[y | x] under a mixture of (x, y), and its spread.

    A mixture is fitted by exact EM to features and targets together, as `GaussianMixture` fits
    it, and the prediction is the conditional mean (Ghahramani & Jordan 1994): smooth, locally
    linear, with a standard deviation that depends on x. Data may be of any size.

    Parameters
    ----------
    n_components : int, default=1
        One component is linear regression.
    covariance_type : {"full", "tied", "diag", "spherical", "factor", "ppca"}, default="full"
        Of features and targets together. With ``"diag"`` and ``"spherical"`` the prediction is a
        weighted mean of the components' means.
    tol, reg_covar, max_iter, n_init, init_params, weights_init, means_init, precisions_init
        As for `streamgmm.GaussianMixture`; initial parameters are of features, then targets.
    random_state, warm_start, verbose, verbose_interval, algorithm, acceleration, block_size
        As for `streamgmm.GaussianMixture`.
    empty_components, n_jobs, checkpoint, on_bad_chunk, cache, assignment, missing, n_factors
        As for `streamgmm.GaussianMixture`.

    Attributes
    ----------
    weights_, means_, covariances_, precisions_, precisions_cholesky_ : ndarray
        Of the mixture of features and targets, the features first.
    n_targets_ : int
    one_target_ : bool
        Whether y had one axis, and so have predictions.
    target_names_ : list of str
        Where y was a list of names.
    converged_, n_iter_, lower_bound_, lower_bounds_, history_, timings_
        As of `streamgmm.GaussianMixture`.
    data_seen_, skipped_rows_, n_missing_, n_features_in_, feature_names_in_
        As of `streamgmm.GaussianMixture`; features alone.

    Examples
    --------
    >>> import numpy as np
    >>> from streamgmm import MixtureRegressor
    >>> x = np.linspace(-1, 1, 200)[:, None]
    >>> model = MixtureRegressor(4, random_state=0).fit(x, np.abs(x[:, 0]))
    >>> mean, std = model.predict([[-0.8], [0.5]], return_std=True)
    >>> mean.round(1).tolist(), bool((std < 0.1).all())
    ([0.8, 0.5], True)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = GaussianMixture._parameter_constraints

    weights_: Any
    n_targets_: int
    n_features_in_: int

    __init__ = GaussianMixture.__init__

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the mixture of features and targets to all rows.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).
        y : array-like, zarr.Array, str or path, dask.array.Array, or names
            Of shape (n_samples,) or (n_samples, n_targets): read beside X, and not copied. Or,
            where X has names (a table, Parquet, a dataset, `streamgmm.rows`), the name of one of
            its columns, or a list of names; the others are the features.
        sample_weight : array-like, zarr.Array, path or dask.array of shape (n_samples,), optional
            A row of weight w counts as w rows.

        Returns
        -------
        self : MixtureRegressor

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If `max_iter` iterations were not enough.

        Raises
        ------
        DataError
            As `streamgmm.GaussianMixture.fit`, and if y does not fit X.
        SourceError, ParameterError, SingularCovarianceError, CheckpointError, OutputError
            As `streamgmm.GaussianMixture.fit`.
        """
        source, joint, told = self._opened(X, y, sample_weight)
        mixture = GaussianMixture(**self.get_params(deep=False))
        before = {name: v for name, v in vars(self).items() if name.endswith("_")}
        if self.warm_start and hasattr(self, "converged_"):
            mixture.__dict__.update(before)
        mixture.fit(joint)
        kept = ("n_features_in_", "feature_names_in_")
        for name in set(before) - set(kept):
            delattr(self, name)
        found = {name: v for name, v in vars(mixture).items() if name.endswith("_")}
        self.__dict__.update({name: v for name, v in found.items() if name not in kept})
        self.n_targets_ = joint.n_features - source.n_features
        self.one_target_ = told is True
        if isinstance(told, list):
            self.target_names_ = told
        return self

    def predict(
        self,
        X: Any,
        return_std: bool = False,
        return_cov: bool = False,
        *,
        out: Any = None,
        overwrite: bool = False,
        storage_options: dict[str, Any] | None = None,
        dtype: Any = None,
    ) -> Any:
        """Conditional means E[y | x], and their spread.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).
        return_std, return_cov : bool, default=False
            Whether standard deviations, or covariance matrices, of y given x are given too. One
            of both.
        out : str, path-like, URL or zarr store, or a pair of them, optional
            Where to write Zarr arrays, chunk by chunk; a pair where the spread is asked for.
        overwrite : bool, default=False
            Whether arrays at `out` may be replaced.
        storage_options : dict, optional
            For the file system of `out`, where that is a URL.
        dtype : {"float32", "float64"}, optional
            Of the results; by default that of the rows.

        Returns
        -------
        mean : ndarray, dask.array.Array or zarr.Array
            (n_samples,) where y was, else (n_samples, n_targets).
        spread : as `mean`, or of shape (n_samples, n_targets, n_targets)
            Where asked for. A Zarr array of covariances has (n_samples, n_targets²).

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If there is no model yet.
        DataError
            If X has another number of features, or values that are not finite.
        ParameterError, OutputExistsError, OutputError
            As `ConditionedMixture.predict`.
        """
        check_is_fitted(self)
        form = Form(out, overwrite, storage_options, dtype)
        known = self._conditional()
        return predict(self, known, X, self.one_target_, return_std, return_cov, form)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Coefficient of determination R², the mean over targets; one read of stored rows.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        float

        Raises
        ------
        sklearn.exceptions.NotFittedError, DataError
            As `predict`, and if y does not fit X.
        """
        check_is_fitted(self)
        plain = not (is_lazy(X) or is_lazy(y) or names_of(y))
        if plain and missing_of(self) == "raise":
            return float(super().score(X, y, sample_weight))
        source, joint, _ = self._opened(X, y, sample_weight, self.n_features_in_)
        check_targets(joint.n_features - source.n_features, range(self.n_targets_), "y")
        blocks = joint.blocks(parse_block_size(self.block_size, joint))
        with open_executor(blocks, n_threads=self._n_threads()) as executor:
            context = (self._conditional(), joint.name)
            on_block = count_rows("score", joint.n_samples)
            found: Explained = executor.run(explain_block, context, on_block=on_block)
        return found.r2

    def _conditional(self) -> Conditional:
        return condition(self._mixture(), range(self.n_features_in_))

    def _opened(
        self, X: Any, y: Any, sample_weight: Any, n_features: int | None = None
    ) -> tuple[Source, Source, Any]:
        """The features, features and targets together, and what is known of y.

        That is True where it has one axis, its names where it was given by name, else False.
        """
        if y is None:
            raise ParameterError(
                "This MixtureRegressor estimator requires y to be passed, but the target y is None"
            )
        source = self._named_rows(X, sample_weight) if names_of(y) else None
        if source is not None:
            names = list(source.feature_names)
            targets = names_of(y)
            if not isinstance(y, str) or y in names:
                check_names(targets, names, f"a column of {source.name}")
                rest = [name for name in names if name not in targets]
                if not rest:
                    raise ParameterError(f"y={y!r}: that are all columns of {source.name}")
                features = open_rows(self, source.reordered(rest), n_features=n_features)
                joint = source.reordered([*rest, *targets])
                joint = omitting(joint) if missing_of(self) == "omit" else joint
                return features, joint, True if isinstance(y, str) else targets
            X, sample_weight = source, None
        features = open_rows(self, X, sample_weight, n_features=n_features)
        if not is_lazy(y):
            y = check_array(
                y,
                ensure_2d=False,
                dtype=[np.float64, np.float32],
                ensure_all_finite=missing_of(self) == "raise",
                input_name="y",
                estimator=self,
            )
            if in_memory(features) and not hasattr(features, "sample_shape"):
                check_consistent_length(np.empty(features.n_samples), y)
        columns = columns_of(y, features, "y")
        return features, beside(features, [columns]), FEATURE not in columns.axes

    def _named_rows(self, X: Any, sample_weight: Any) -> Any:
        """Rows whose columns have names; None where X is none of such."""
        if is_table(X) or is_xarray(X) or is_parquet(X):
            X, sample_weight = rows(X, sample_weight=sample_weight), None
        if not isinstance(X, Source) or getattr(X, "feature_names", None) is None:
            return None
        return open_source(X, sample_weight=sample_weight)


def is_lazy(value: Any) -> bool:
    """Whether rows or targets are opened where they are, and not looked at as arrays."""
    lazy = isinstance(value, Source) or is_zarr(value) or is_dask_array(value)
    return bool(lazy or is_xarray(value) or is_parquet(value))


def names_of(y: Any) -> list[str]:
    """Names of columns, where that is what y may be; none elsewhere.

    >>> names_of("salt"), names_of(["u", "v"]), names_of([1.0, 2.0])
    (['salt'], ['u', 'v'], [])
    """
    if isinstance(y, str):
        return [y]
    if isinstance(y, (list, tuple)) and y and all(isinstance(each, str) for each in y):
        return list(y)
    return []
