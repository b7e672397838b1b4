"""`GaussianMixture`: scikit-learn's estimator, for data of any size."""

from __future__ import annotations

import os
import time
import warnings
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, DensityMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from streamgmm.estimators.fitted import FittedMixture
from streamgmm.estimators.rows import open_rows
from streamgmm.estimators.seen import describe_seen, parse_seen
from streamgmm.fitting.fit import FitSettings, fit
from streamgmm.fitting.memory import workers_of
from streamgmm.fitting.parameters import parse_means, parse_precisions, parse_weights
from streamgmm.model.families import Gaussian
from streamgmm.passes import active_client
from streamgmm.planning.plan import Plan, plan
from streamgmm.progress import Listener, listener


class GaussianMixture(FittedMixture, DensityMixin, BaseEstimator):
    """Gaussian mixture, fitted by exact EM to data of any size.

    Parameters, attributes and methods are those of `sklearn.mixture.GaussianMixture`, with the
    same meaning and defaults, and a few more. X may be an array or table in memory, a Zarr
    array, its path or URL, a dask array, or a source from `streamgmm.sources.open_source`; what
    is not in memory is read block by block, and kept only where it is small (`cache`).

    Parameters
    ----------
    n_components : int, default=1
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
        Each component its own matrix; one matrix for all; its own variances; one variance each.
    tol : float, default=1e-3
        Iteration stops when the mean log-likelihood of a row rises by less (nats).
    reg_covar : float, default=1e-6
        Added to the diagonals of the covariances.
    max_iter : int, default=100
    n_init : int, default=1
        Starts; the best result is kept.
    init_params : {"kmeans", "k-means++", "random", "random_from_data"}, default="kmeans"
        How starts are made, on all rows where they are few, on a uniform sample elsewhere.
    weights_init : array-like of shape (n_components,), optional
    means_init : array-like of shape (n_components, n_features), optional
    precisions_init : array-like of the shape of `precisions_`, optional
    random_state : int, RandomState or None, default=None
    warm_start : bool, default=False
        Whether `fit` goes on from the model that is there. If the array has grown, its new rows
        are read first, and the statistics of the others are used again.
    verbose : int, default=0
        1 prints iterations, 2 also the change and the time. For a progress bar see
        `streamgmm.ProgressBar`.
    verbose_interval : int, default=10
        Iterations between prints.
    algorithm : {"auto", "em", "incremental"}, default="auto"
        Exact EM reads all rows for each iteration. Incremental EM (Neal & Hinton 1998) updates
        the model several times in a read. ``"auto"`` takes incremental EM where the data are
        too many to be sampled whole.
    acceleration : {"auto", "anderson"} or None, default="auto"
        Whether steps are extrapolated, never at the price of a lower bound that falls.
    block_size : "auto", int or str, default="auto"
        Bytes of rows that a task reads (``"64MiB"``).
    empty_components : {"keep", "retire", "reseed"}, default="keep"
        What becomes of a component that loses its rows (fewer than n_features + 2 are left): it
        is kept as it is, as in scikit-learn; dropped; or started again, at most five times, at
        the least likely rows of the sample. A warning names it.
    n_jobs : int, optional
        Threads in this process, -1 for one a processor. By default a Dask cluster is used where
        a client is active, and one thread a processor elsewhere.

    checkpoint : str, path-like or URL, optional
        Where `fit` puts down what it knows after every pass, and every group of blocks of
        incremental EM; a `fit` of the same data and settings goes on from there, to the bits of
        one that nothing ended. A finished one is given back at once, and goes on where
        `max_iter` has been raised. `random_state` should be an int.
    on_bad_chunk : {"raise", "skip"}, default="raise"
        What to do about stored chunks that cannot be read or decoded: stop, or fit the rest and
        name the rows in `skipped_rows_`. Storage that does not answer is always an error.
    cache : "auto" or None, default="auto"
        Whether rows are kept, decoded, where they were first read, so that later passes of the
        same `fit` need not read them: all, where they fit in an eighth of the memory that there
        is (of this process, or of the workers together, each taken for the smallest), or none.
        The result is the same to the last bit. The last pass reads the data again in any case,
        and notices if they have changed. Processes that fit side by side on one machine do not
        know of each other: there, None.
    assignment : {"soft", "hard"}, default="soft"
        Soft responsibilities are EM. With hard ones each row counts for its likeliest component
        alone: classification EM (Celeux & Govaert 1992), which raises Σ log max_k π_k p(x | θ_k)
        in place of the log-likelihood, ends of itself, and is not accelerated. It finds
        components that lie apart, with weights and covariances that are biased where they
        overlap. ``lower_bound_`` and ``free_energy`` in `history_` are of that sum; ``kl`` is
        the log-likelihood less it.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    means_ : ndarray of shape (n_components, n_features)
    covariances_, precisions_, precisions_cholesky_ : ndarray
        Of shape (n_components, n_features, n_features) for full covariances, (n_features,
        n_features) for tied, (n_components, n_features) for diag, (n_components,) for
        spherical. All parameters are float64, whatever the data's dtype.
    converged_ : bool
    n_iter_ : int
        Iterations of the best start.
    lower_bound_ : float
        Lower bound of the mean log-likelihood of a row at the last iteration, nats.
    lower_bounds_ : list of float
        The same at every iteration.
    history_ : dict of str to ndarray
        Of the latest `fit`, a value an iteration: ``iteration``; ``log_likelihood``,
        ``free_energy`` and ``kl`` (nats, NaN where no read was made at one model); ``rows`` and
        ``passes`` over the data so far, kept or not; ``bytes`` of rows that were really read for
        them, decoded; ``seconds``; ``mended`` where components were retired or reseeded just
        before, the only iterations whose free energy may be less than the one before. A fit that
        goes on from a checkpoint reads again what was kept, which is in its ``bytes``.
    timings_ : dict
        Seconds that the parts of the latest `fit` took: ``sample`` (pass 0), ``starts``,
        ``passes``, ``last_read``, and ``total``, from the call; and ``n_starts``, how many starts
        were tried, and ``why`` that was enough.
    data_seen_ : dict
        What the model was fitted to: ``name`` and ``n_samples`` of the array and, after
        incremental EM, the statistics from which ``warm_start`` goes on when rows have been
        appended to it.
    skipped_rows_ : ndarray of shape (n, 2)
        Runs of rows, start and stop, in chunks that could not be read.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        If X had names that are all strings.

    Examples
    --------
    >>> import numpy as np
    >>> from streamgmm import GaussianMixture
    >>> X = np.array([[1, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]])
    >>> model = GaussianMixture(n_components=2, random_state=0).fit(X)
    >>> model.means_.round(6)
    array([[10.,  2.],
           [ 1.,  2.]])
    >>> model.predict([[0, 0], [12, 3]])
    array([1, 0])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "covariance_type": [StrOptions({"full", "tied", "diag", "spherical"})],
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
        "checkpoint": [str, os.PathLike, None],
        "on_bad_chunk": [StrOptions({"raise", "skip"})],
        "cache": [StrOptions({"auto"}), None],
        "assignment": [StrOptions({"soft", "hard"})],
    }

    converged_: bool
    n_iter_: int
    lower_bound_: float
    lower_bounds_: list[float]
    history_: dict[str, NDArray[Any]]
    timings_: dict[str, Any]
    skipped_rows_: NDArray[np.int64]
    data_seen_: dict[str, Any]

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "kmeans",
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
        algorithm: str = "auto",
        acceleration: str | None = "auto",
        block_size: int | str = "auto",
        empty_components: str = "keep",
        n_jobs: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        on_bad_chunk: str = "raise",
        cache: str | None = "auto",
        assignment: str = "soft",
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.algorithm = algorithm
        self.acceleration = acceleration
        self.block_size = block_size
        self.empty_components = empty_components
        self.n_jobs = n_jobs
        self.checkpoint = checkpoint
        self.on_bad_chunk = on_bad_chunk
        self.cache = cache
        self.assignment = assignment

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit the mixture to all rows of X.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).
        y : Ignored
        sample_weight : array-like, zarr.Array, path or dask.array of shape (n_samples,), optional
            A row of weight w counts as w rows.

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
        SingularCovarianceError
            If a component collapses on a point and `reg_covar` is too small.
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
        going_on = self.warm_start and hasattr(self, "converged_")
        result = fit(
            source,
            settings,
            check_random_state(self.random_state),
            start=self._mixture() if going_on else None,
            start_bound=self.lower_bound_ if going_on else -np.inf,
            seen=parse_seen(getattr(self, "data_seen_", {}), self.covariance_type)
            if going_on
            else None,
            n_threads=self._n_threads(),
            on_progress=self._teller(),
            checkpoint=self.checkpoint,
        )
        self._set_parameters(result.mixture)
        self.converged_ = result.converged
        self.n_iter_ = result.n_iter
        self.lower_bound_ = result.lower_bound
        self.lower_bounds_ = result.lower_bounds
        self.history_ = result.history
        self.timings_ = result.timings
        self.skipped_rows_ = np.array(result.skipped, np.int64).reshape(-1, 2)
        self.data_seen_ = describe_seen(result.seen)
        if not self.converged_ and self.max_iter > 0:
            warnings.warn(
                "Best performing initialization did not converge. Try different init "
                "parameters, or increase max_iter, tol, or check for degenerate data.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit the mixture to X and give each row its label: ``fit(X).predict(X)``.

        Parameters
        ----------
        X, y, sample_weight
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
        return self.fit(X, y, sample_weight).predict(X)

    def plan(
        self,
        X: Any,
        sample_weight: Any = None,
        *,
        workers: int | None = None,
        worker_memory: int | str | None = None,
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
        source = open_rows(self, X, sample_weight)
        client = active_client()
        if workers is None and self.n_jobs is None and client is not None:
            workers, limit = workers_of(client)
            worker_memory = worker_memory or limit or None
            workers = workers or None
        return plan(
            source,
            self.n_components,
            self.covariance_type,
            workers=workers,
            worker_memory=worker_memory,
            block_size=self.block_size,
            algorithm=self.algorithm,
            cache=self.cache,
            **settings,
        )

    def _settings(self, n_features: int) -> FitSettings:
        """Parse what the constructor was given."""
        k = self.n_components
        weights, means, precisions = self.weights_init, self.means_init, self.precisions_init
        given = {}
        if means is not None:
            given["means"] = parse_means(means, k, n_features)
        if precisions is not None:
            kind = self.covariance_type
            given["precisions"] = parse_precisions(precisions, kind, k, n_features)
        return FitSettings(
            k,
            Gaussian(self.covariance_type, float(self.reg_covar)),
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

    def _teller(self) -> Listener | None:
        """Give what is told of progress: who listens, and what `verbose` prints."""
        listens = listener()
        if not self.verbose:
            return listens
        prints = _Printer(int(self.verbose), self.verbose_interval, self.tol)

        def both(progress: Any) -> None:
            prints(progress)
            if listens is not None:
                listens(progress)

        return both


class _Printer:
    """Prints iterations in scikit-learn's words."""

    def __init__(self, verbose: int, interval: int, tol: float) -> None:
        self.verbose, self.interval, self.tol = verbose, interval, tol
        self.began: dict[int, float] = {}
        self.last: dict[int, float] = {}

    def __call__(self, progress: Any) -> None:
        if progress.stage != "em" or np.isnan(progress.lower_bound):
            return
        which, now = progress.candidate, time.perf_counter()
        if which not in self.began:
            print(f"Initialization {which}")
            self.began[which] = self.last[which] = now
        if progress.iteration % self.interval == 0:
            lapse, self.last[which] = now - self.last[which], now
            more = f"\t time lapse {lapse:.5f}s\t ll change {progress.change:.5f}"
            print(f"  Iteration {progress.iteration}" + more * (self.verbose > 1))
        if progress.finished:
            said = "converged" if abs(progress.change) < self.tol else "did not converge"
            lapse = now - self.began[which]
            more = f" time lapse {lapse:.5f}s\t lower bound {progress.lower_bound:.5f}."
            print(f"Initialization {said}." + more * (self.verbose > 1))
