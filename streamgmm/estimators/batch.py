"""Fitting in passes over all rows: what every estimator of a batch fit has in common."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from streamgmm.errors import ParameterError
from streamgmm.estimators.fitted import FittedMixture
from streamgmm.estimators.rows import open_rows
from streamgmm.estimators.seen import describe_seen, parse_seen
from streamgmm.estimators.typed import fit_context
from streamgmm.estimators.uncertain import alike, plain, with_errors
from streamgmm.estimators.verbose import teller
from streamgmm.fitting.fit import FitResult, FitSettings, Seen, fit
from streamgmm.fitting.memory import workers_of
from streamgmm.fitting.parameters import parse_means, parse_precisions, parse_weights
from streamgmm.fitting.settings import truncated
from streamgmm.model.components import Family
from streamgmm.model.families.uncertain import uncertain_family
from streamgmm.model.mixture import Mixture
from streamgmm.passes import active_client
from streamgmm.places import ZarrStore
from streamgmm.planning.plan import Plan, plan
from streamgmm.sources import Source
from streamgmm.sources.uncertain import with_noise

CONSTRAINTS: dict[str, list[Any]] = {
    "n_components": [Interval(Integral, 1, None, closed="left")],
    "tol": [Interval(Real, 0.0, None, closed="left")],
    "reg_covar": [Interval(Real, 0.0, None, closed="left")],
    "max_iter": [Interval(Integral, 0, None, closed="left")],
    "n_init": [Interval(Integral, 1, None, closed="left")],
    "init_params": [StrOptions({"kmeans", "random", "random_from_data", "k-means++"})],
    "weights_init": ["array-like", None],
    "means_init": ["array-like", None],
    "precisions_init": ["array-like", None],
    "random_state": ["random_state"],
    "warm_start": ["boolean"],
    "verbose": ["verbose"],
    "verbose_interval": [Interval(Integral, 1, None, closed="left")],
    "algorithm": [StrOptions({"auto", "em", "incremental"})],
    "acceleration": [StrOptions({"auto", "anderson"}), None],
    "block_size": [Interval(Integral, 1, None, closed="left"), str],
    "empty_components": [StrOptions({"keep", "retire", "reseed"})],
    "n_jobs": [Integral, None],
    "checkpoint": [str, os.PathLike, ZarrStore, None],
    "on_bad_chunk": [StrOptions({"raise", "skip"})],
    "cache": [StrOptions({"auto"}), None],
    "assignment": [StrOptions({"soft", "hard"})],
    "missing": [StrOptions({"raise", "omit", "marginalize"})],
}
"""What scikit-learn checks the parameters for that every batch fit has."""


class BatchMixture(FittedMixture, DensityMixin, BaseEstimator):
    """An estimator that is fitted in passes over all rows, by exact or incremental EM.

    A subclass says what its family is (`_family`), and how the model is kept in attributes
    (`_mixture`, `_set_parameters`).
    """

    n_components: int
    tol: float
    reg_covar: float
    max_iter: int
    n_init: int
    init_params: str
    weights_init: Any
    means_init: Any
    precisions_init: Any
    warm_start: bool
    verbose: int
    verbose_interval: int
    algorithm: str
    acceleration: str | None
    empty_components: str
    checkpoint: str | os.PathLike[str] | ZarrStore | None
    on_bad_chunk: str
    cache: str | None
    assignment: str
    missing: str

    converged_: bool
    n_iter_: int
    lower_bound_: float
    lower_bounds_: list[float]
    history_: dict[str, NDArray[Any]]
    timings_: dict[str, Any]
    skipped_rows_: NDArray[np.int64]
    n_missing_: int
    data_seen_: dict[str, Any]

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, noise_variance: Any = None
    ) -> Self:
        """Fit the mixture to all rows of X.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).
        y : Ignored
        sample_weight : array-like, zarr.Array, path or dask.array of shape (n_samples,), optional
            A row of weight w counts as w rows.
        noise_variance : array-like, zarr.Array, path, dask.array or Source, optional
            Variances of the errors of X, of shape (n_samples, n_features), or a covariance matrix
            for each row, (n_samples, n_features, n_features). The model is then of the true
            values: extreme deconvolution (Bovy, Hogg & Roweis 2011). An infinite variance is a
            value that is not known. Of Gaussians alone; see docs/errors_on_rows.md.

        Returns
        -------
        self : GaussianMixture

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If `max_iter` iterations were not enough.

        Raises
        ------
        DataError
            If X cannot be used: NaN or infinity (names the array and the rows), fewer rows than
            components, no rows or columns of real numbers; or if the weights do not fit it.
        SourceError
            If a path is no Zarr array.
        ParameterError
            If an initial parameter has the wrong shape or is out of range.
        DegenerateComponentError
            If rows do not determine a component: of Gaussians SingularCovarianceError, where one
            collapses on a point and `reg_covar` is too small.
        CheckpointError, OutputError
            If the checkpoint is of other data or settings (says what differs), or another job
            writes it; or if it cannot be written.

        Examples
        --------
        >>> from streamgmm import GaussianMixture
        >>> model = GaussianMixture().fit([[0.0], [2.0], [7.0]], sample_weight=[1, 1, 0])
        >>> model.means_.tolist()
        [[1.0]]
        """
        source = open_rows(self, X, sample_weight)
        settings = self._settings(source.n_features)
        if noise_variance is not None:
            if truncated(settings):
                raise ParameterError(
                    "noise_variance goes with all components of each row: leave truncation out"
                )
            source, settings = with_errors(source, noise_variance, settings)
        start = self._start(source, settings)
        result = fit(
            source,
            settings,
            check_random_state(self.random_state),
            start=start.mixture,
            start_bound=start.bound,
            seen=start.seen,
            n_threads=self._n_threads(),
            on_progress=teller(self.verbose, self.verbose_interval, self.tol),
            checkpoint=self.checkpoint,
        )
        self._take_up(result)
        self.n_missing_ = count_missing(source.n_samples, result.n_rows, result.skipped)
        if not self.converged_ and self.max_iter > 0:
            warnings.warn(
                "Best performing initialization did not converge. Try different init "
                "parameters, or increase max_iter, tol, or check for degenerate data.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def fit_predict(
        self, X: Any, y: Any = None, sample_weight: Any = None, noise_variance: Any = None
    ) -> Any:
        """Fit the mixture to X and give each row its label: ``fit(X).predict(X)``.

        Parameters
        ----------
        X, y, sample_weight, noise_variance
            As for `fit`.

        Returns
        -------
        labels : ndarray or dask.array.Array of shape (n_samples,)
            As `predict` gives them.

        Raises
        ------
        DataError, SourceError, ParameterError, SingularCovarianceError
            As `fit`.

        Examples
        --------
        >>> from streamgmm import GaussianMixture
        >>> labels = GaussianMixture(2, random_state=0).fit_predict([[0.0], [0.1], [9.0], [9.1]])
        >>> (labels == labels[0]).tolist()
        [True, True, False, False]
        """
        model = self.fit(X, y, sample_weight, noise_variance)
        return model.predict(X, noise_variance=noise_variance)

    def plan(
        self,
        X: Any,
        sample_weight: Any = None,
        *,
        workers: int | None = None,
        worker_memory: int | str | None = None,
        noise_variance: Any = None,
        **settings: Any,
    ) -> Plan:
        """Plan a fit to X: what it will read, hold and take, from a trial of about a second.

        Parameters
        ----------
        X, sample_weight
            As for `fit`.
        workers : int, optional
            Workers of one thread each; by default those of the active Dask client, or threads
            of this process where there is none.
        worker_memory : int or str, optional
            What each worker has, ``"8GiB"``.
        noise_variance
            As for `fit`.
        **settings
            ``processors``, ``n_candidates``, ``store_bandwidth``, ``rates`` and ``check``: see
            `streamgmm.planning.plan.plan`.

        Returns
        -------
        streamgmm.planning.plan.Plan
            Prints as text; ``to_dict()`` gives plain values.

        Raises
        ------
        PlanError
            If the fit cannot fit in memory; says what to change.
        DataError, SourceError, ParameterError
            As `fit`.

        Examples
        --------
        >>> from streamgmm import GaussianMixture
        >>> X = np.random.default_rng(0).normal(size=(1000, 2))
        >>> p = GaussianMixture(3).plan(X, workers=40, worker_memory="8GiB")
        >>> p.n_rows, p.n_components, p.n_workers
        (1000, 3, 40)
        """
        source, family = open_rows(self, X, sample_weight), self._family()
        if noise_variance is not None:
            found = with_noise(source, noise_variance)
            source, family = found.source, uncertain_family(family, found.matrices)
        client = active_client()
        if workers is None and self.n_jobs is None and client is not None:
            workers, limit = workers_of(client)
            worker_memory = worker_memory or limit or None
            workers = workers or None
        return plan(
            source,
            self.n_components,
            family,
            workers=workers,
            worker_memory=worker_memory,
            block_size=self.block_size,
            algorithm=self.algorithm,
            cache=self.cache,
            **settings,
        )

    def _family(self) -> Family:
        """The family of the components; raises ParameterError."""
        raise NotImplementedError

    def _set_parameters(self, mixture: Mixture) -> None:
        """Set the attributes that are the model."""
        raise NotImplementedError

    def _start(self, source: Source, settings: FitSettings) -> Start:
        """Where the fit starts from: nothing, or the model that is there."""
        if not (self.warm_start and hasattr(self, "converged_")):
            return Start()
        seen = parse_seen(getattr(self, "data_seen_", {}), settings.family)
        return Start(alike(self._mixture(), settings.family), self.lower_bound_, seen)

    def _take_up(self, result: FitResult) -> None:
        """Set the attributes to what a fit has found."""
        self._set_parameters(plain(result.mixture))
        self.converged_ = result.converged
        self.n_iter_ = result.n_iter
        self.lower_bound_ = result.lower_bound
        self.lower_bounds_ = result.lower_bounds
        self.history_ = result.history
        self.timings_ = result.timings
        self.skipped_rows_ = np.array(result.skipped, np.int64).reshape(-1, 2)
        self.data_seen_ = describe_seen(result.seen)

    def _settings(self, n_features: int) -> FitSettings:
        """Parse what the constructor was given."""
        k, family = self.n_components, self._family()
        given = {}
        if self.means_init is not None:
            given["means"] = parse_means(self.means_init, k, n_features)
        if self.precisions_init is not None:
            given["precisions"] = parse_precisions(self.precisions_init, family, k, n_features)
        weights = self.weights_init
        return FitSettings(
            k,
            family,
            self.tol,
            self.max_iter,
            self.n_init,
            self.init_params,
            None if weights is None else parse_weights(weights, k),
            given,
            self.algorithm,  # type: ignore[arg-type]
            self.acceleration,  # type: ignore[arg-type]
            self.block_size,
            self.empty_components,  # type: ignore[arg-type]
            self.on_bad_chunk,  # type: ignore[arg-type]
            self.cache,  # type: ignore[arg-type]
            self.assignment,  # type: ignore[arg-type]
        )


def count_missing(n_samples: int, n_read: int, skipped: Sequence[tuple[int, int]]) -> int:
    """Rows that were left out since they have gaps, and not since they could not be read.

    >>> count_missing(100, 70, [(0, 10)])
    20
    """
    return n_samples - n_read - sum(stop - start for start, stop in skipped)


@dataclass(frozen=True)
class Start:
    """Where a fit starts from: a mixture or None, its lower bound, and what it knows of rows."""

    mixture: Mixture | None = None
    bound: float = -np.inf
    seen: Seen | None = None
