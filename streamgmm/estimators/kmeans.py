"""`KMeans`: scikit-learn's estimator, for data of any size.

A long file for its docstrings: half of it says the parameters and methods of scikit-learn's face.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from streamgmm.errors import DataError, ParameterError
from streamgmm.estimators.batch import count_missing
from streamgmm.estimators.centred import LearningCentres
from streamgmm.estimators.exchange import Exchanged
from streamgmm.estimators.nearest import FittedCentres
from streamgmm.estimators.reporting import Reporting
from streamgmm.estimators.rows import in_memory, open_rows
from streamgmm.estimators.typed import fit_context
from streamgmm.fitting.centres import (
    centroids,
    check_centres,
    fit_centres,
    inertia,
    learn_centres,
    settings_of_centres,
)
from streamgmm.fitting.fit import FitResult
from streamgmm.model.families.centroids import CentroidComponents, Pooled
from streamgmm.model.families.recall import Recall
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats
from streamgmm.places import ZarrStore
from streamgmm.predict import predict_rows
from streamgmm.predict.rows import sample_shape
from streamgmm.progress import Listener, listener
from streamgmm.sources import Source

MANY_CENTRES = 2000  # from which ``truncation="auto"`` has rows compared with `AUTO_CENTRES`
AUTO_CENTRES = 64


class KMeans(
    LearningCentres,
    FittedCentres,
    Exchanged,
    Reporting,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    ClusterMixin,
    BaseEstimator,
):
    """K-means by Lloyd's iterations on data of any size, one read each.

    It is the hard EM of Gaussians of equal weight and one variance that all share, fitted by the
    engine of `GaussianMixture` to the same kinds of data. Parameters, attributes and methods are
    those of `sklearn.cluster.KMeans`, with the same meaning and defaults, and a few more. From
    the same start it makes the same iterations: same labels, same inertia, same `n_iter_`.

    A centre that is nearest to no row goes to the row farthest from its own centre, as in
    scikit-learn; finding it takes one more read of the data in that iteration.

    Parameters
    ----------
    n_clusters : int, default=8
    init : {"k-means++", "random"}, callable or array-like, default="k-means++"
        How starts are made, or the centres (n_clusters, n_features). A callable is given rows,
        `n_clusters` and a random state. Where rows are more than 16 MiB, starts are made and
        taken to their end on a uniform sample of them, and the best goes on to all rows.
    n_init : "auto" or int, default="auto"
        Starts. ``"auto"`` is 10 for ``"random"`` and callables, and 1 otherwise.
    max_iter : int, default=300
    tol : float, default=1e-4
        Iteration stops when the squared shifts of all centres together are at most `tol` times
        the mean variance of the features (rows counted by weight), or when no label changes.
    verbose : int, default=0
        Whether iterations are printed.
    random_state : int, RandomState or None, default=None
    copy_x : bool, default=True
        Of no meaning here: rows are never changed.
    algorithm : {"lloyd", "elkan"}, default="lloyd"
        Both give the same numbers, and are one here.
    block_size, n_jobs, checkpoint, on_bad_chunk, cache
        As for `GaussianMixture`.
    missing : {"raise", "omit"}, default="raise"
        What to do about rows with a gap (NaN, masked, a fill value): raise, or leave them out,
        with label −1 and NaN for distances.
    truncation : int or "auto", optional
        For thousands of clusters: each row is compared with so many centres, its own and those
        nearest to that, so that a pass does not grow with `n_clusters` (docs/many_components.md).
        ``"auto"`` is 64 from 2,000 clusters on. The inertia never rises from pass to pass;
        ``inertia_of_sets`` in `history_` estimates by how much it is too high, from rows that
        are compared with all centres. Starts are then one k-means of few rows a cluster.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (n_clusters, n_features)
        float64, whatever the data's dtype.
    labels_ : ndarray of shape (n_samples,), or of the samples' shape
        int32; only where the rows were in memory.
    inertia_ : float
        ``Σ w |x - c|²`` over rows and their nearest centres.
    variance_ : float
        The same for each value: the variance σ² of the mixture that all clusters share.
    counts_ : ndarray of shape (n_clusters,)
        Weight of the rows of each cluster.
    n_iter_ : int
        Iterations of the best start.
    history_ : dict of str to ndarray
        A value an iteration: ``inertia`` and ``free_energy`` F, after the centres have moved, and
        what `GaussianMixture` has beside these. F is that of the hard assignments under the
        mixture, nats summed over rows. ``log_likelihood`` and ``kl`` are NaN, since a pass of
        k-means does not sum them; `streamgmm.trace_bound` does. With `truncation` also
        ``inertia_of_sets``, by how much the inertia is too high since rows are compared with
        some centres only, ``inertia_error``, the standard error of that, and ``agreement``, the
        share of rows that are in the cluster of their nearest centre.
    timings_, skipped_rows_, n_missing_
        As of `GaussianMixture`.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)
        If X had names that are all strings.

    Examples
    --------
    >>> from streamgmm import KMeans
    >>> X = [[1, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]]
    >>> model = KMeans(n_clusters=2, random_state=0).fit(X)
    >>> model.cluster_centers_, model.inertia_
    (array([[10.,  2.],
           [ 1.,  2.]]), 16.0)
    >>> model.predict([[0, 0], [12, 3]]).tolist()
    [1, 0]
    """

    exchanged = ("sklearn.cluster.KMeans", "sklearn.cluster.MiniBatchKMeans")
    shared = ("cluster_centers_", "labels_", "inertia_", "n_iter_")

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "init": [StrOptions({"k-means++", "random"}), callable, "array-like"],
        "n_init": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
        "copy_x": ["boolean"],
        "algorithm": [StrOptions({"lloyd", "elkan"})],
        "block_size": [Interval(Integral, 1, None, closed="left"), str],
        "n_jobs": [Integral, None],
        "checkpoint": [str, os.PathLike, ZarrStore, None],
        "on_bad_chunk": [StrOptions({"raise", "skip"})],
        "cache": [StrOptions({"auto"}), None],
        "missing": [StrOptions({"raise", "omit"})],
        "truncation": [Interval(Integral, 2, None, closed="left"), StrOptions({"auto"}), None],
    }

    cluster_centers_: Floats
    labels_: NDArray[np.int32]
    inertia_: float
    variance_: float
    counts_: Floats
    n_iter_: int
    history_: dict[str, NDArray[Any]]
    timings_: dict[str, Any]
    skipped_rows_: NDArray[np.int64]
    n_missing_: int

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Any = "k-means++",
        n_init: Any = "auto",
        max_iter: int = 300,
        tol: float = 1e-4,
        verbose: int = 0,
        random_state: Any = None,
        copy_x: bool = True,
        algorithm: str = "lloyd",
        block_size: int | str = "auto",
        n_jobs: int | None = None,
        checkpoint: str | os.PathLike[str] | ZarrStore | None = None,
        on_bad_chunk: str = "raise",
        cache: str | None = "auto",
        missing: str = "raise",
        truncation: int | str | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.verbose = verbose
        self.random_state = random_state
        self.copy_x = copy_x
        self.algorithm = algorithm
        self.block_size = block_size
        self.n_jobs = n_jobs
        self.checkpoint = checkpoint
        self.on_bad_chunk = on_bad_chunk
        self.cache = cache
        self.missing = missing
        self.truncation = truncation

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Find the centres of all rows of X.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).
        y : Ignored
        sample_weight : array-like, zarr.Array, path or dask.array of shape (n_samples,), optional
            A row of weight w counts as w rows.

        Returns
        -------
        self : KMeans

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If fewer rows differ than there are clusters.

        Raises
        ------
        DataError
            If X cannot be used: NaN or infinity (names the array and the rows), fewer rows than
            clusters, no rows or columns of real numbers; or if weights or centres do not fit it.
        SourceError, CheckpointError, OutputError
            As `GaussianMixture.fit`.

        Examples
        --------
        >>> from streamgmm import KMeans
        >>> model = KMeans(1).fit([[0.0], [2.0], [7.0]], sample_weight=[1, 1, 0])
        >>> model.cluster_centers_.tolist(), model.inertia_
        ([[1.0]], 2.0)
        """
        return self._learn(open_rows(self, X, sample_weight), self.checkpoint)

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Take in a batch of rows, once.

        The first batch is fitted as by `fit`, unless there has been a `fit`. Rows of later ones
        go to their nearest centres, and each centre to the mean of all rows that it ever got
        (Sculley 2010, "Web-scale k-means clustering"). What a row of an earlier batch was given
        to is not looked at again.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).
        y : Ignored
        sample_weight : array-like, zarr.Array, path or dask.array of shape (n_samples,), optional

        Returns
        -------
        self : KMeans
            `counts_`, `inertia_` and `variance_` are of all rows so far, in the clusters that
            they were given to. Of labels there are none.

        Raises
        ------
        DataError, SourceError
            As `fit`.

        Examples
        --------
        >>> from streamgmm import KMeans
        >>> model = KMeans(2, random_state=0).partial_fit([[0.0], [9.0]])
        >>> model.partial_fit([[2.0], [9.0], [12.0]]).cluster_centers_.ravel().tolist()
        [10.0, 1.0]
        """
        if not hasattr(self, "cluster_centers_"):
            self._learn(open_rows(self, X, sample_weight), None)
        else:
            d = self.cluster_centers_.shape[1]
            source = open_rows(self, X, sample_weight, n_features=d)
            spread = np.array([self.variance_ * self.counts_.sum() * d])
            known = Pooled(self.counts_, self.cluster_centers_, spread)
            mixture, found = learn_centres(
                source,
                self._mixture(),
                known,
                block_size=self.block_size,
                n_threads=self._n_threads(),
            )
            self.cluster_centers_ = mixture.components.arrays()["means"]
            self.counts_ = found.weight
            self.inertia_ = found.scatter.item()
            self.variance_ = self.inertia_ / (found.weight.sum() * d)
        if hasattr(self, "labels_"):
            del self.labels_
        return self

    def _learn(self, source: Source, checkpoint: Any) -> Self:
        """Fit to all rows of a source."""
        recall = Recall()
        result = self._fit(
            source, on_progress=self._teller(), checkpoint=checkpoint, recall=recall
        )
        self._set_result(result, source.n_features)
        self.n_missing_ = count_missing(source.n_samples, result.n_rows, result.skipped)
        if hasattr(self, "labels_"):
            del self.labels_
        if in_memory(source):
            components = result.mixture.components
            assert isinstance(components, CentroidComponents)
            labels = recall.labels(components.trail, source.n_samples)
            if labels is None:
                labels = self._labels(source)
            self.labels_ = labels.reshape(sample_shape(source))
        found = int(np.count_nonzero(result.statistics.components.weight))
        if found < self.n_clusters:
            warnings.warn(
                f"Number of distinct clusters ({found}) found smaller than n_clusters "
                f"({self.n_clusters}). Possibly due to duplicate points in X.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return self

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Find the centres of X and give the distances: ``fit(X).transform(X)``.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        distances : ndarray or dask.array.Array of shape (n_samples, n_clusters)

        Raises
        ------
        DataError, SourceError
            As `fit`.
        """
        return self.fit(X, y, sample_weight).transform(X)

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Find the centres of X and give its labels.

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
        DataError, SourceError
            As `fit`.
        """
        self.fit(X, y, sample_weight)
        return self.labels_ if isinstance(X, np.ndarray) else self.predict(X)

    def _complete(self, model: Any) -> None:
        model._n_threads = 1  # of OpenMP, which scikit-learn's fit sets

    def _taken_from(self, model: Any) -> None:
        if hasattr(self, "labels_"):  # of rows that all counted once, for all that is known
            self.counts_ = np.bincount(self.labels_, minlength=self.n_clusters).astype(float)
            self.variance_ = self.inertia_ / (self.counts_.sum() * self.n_features_in_)

    def _settings(self, n_features: int) -> Any:
        """Parse what the constructor was given; raises DataError."""
        named = self.init if isinstance(self.init, str) else "given"
        n_init = self.n_init
        if n_init == "auto":
            n_init = 10 if named == "random" or callable(self.init) else 1
        return settings_of_centres(
            self.n_clusters,
            init=named,
            n_init=n_init,
            max_iter=self.max_iter,
            tol=self.tol,
            block_size=self.block_size,
            on_bad_chunk=self.on_bad_chunk,  # type: ignore[arg-type]
            cache=self.cache,  # type: ignore[arg-type]
            truncation=self._truncation(),
        )

    def _truncation(self) -> int | None:
        """How many centres a row is compared with; None where that is all."""
        size, k = self.truncation, self.n_clusters
        if size is None or size == "auto":
            return AUTO_CENTRES if size == "auto" and k >= MANY_CENTRES else None
        if int(size) > k:
            raise ParameterError(
                f"truncation={size} is more than n_clusters={k}; pass None, and each row is "
                "compared with all centres"
            )
        return int(size)

    def _init(self, source: Source) -> Floats | Callable[..., Any] | None:
        """The centres to start from, or what makes them; None where they are drawn."""
        if isinstance(self.init, str):
            return None
        if callable(self.init):
            return self.init  # type: ignore[no-any-return]
        centres = np.ascontiguousarray(self.init, np.float64)
        check_centres(centres, self.n_clusters, source.n_features)
        if not np.isfinite(centres).all():
            raise DataError("init has values that are not finite; give centres of finite numbers")
        return centres

    def _set_result(self, result: FitResult, n_features: int) -> None:
        self.cluster_centers_ = result.mixture.components.arrays()["means"]
        self.counts_ = result.statistics.components.weight
        self.inertia_ = inertia(result)
        self.variance_ = self.inertia_ / (result.statistics.weight * n_features)
        self.n_iter_ = result.n_iter
        self.history_ = result.history
        self.timings_ = result.timings
        self.skipped_rows_ = np.array(result.skipped, np.int64).reshape(-1, 2)

    def _fit(self, source: Source, **settings: Any) -> FitResult:
        return fit_centres(
            source,
            self._settings(source.n_features),
            check_random_state(self.random_state),
            init=self._init(source),
            n_threads=self._n_threads(),
            **settings,
        )

    def _start(self, source: Source) -> Mixture:
        """Where `fit` starts: the first of its starts."""
        return self._fit(source, sweeps=0).mixture.exact

    def _mixture(self) -> Mixture:
        """The mixture of which k-means is the hard EM."""
        centres = np.ascontiguousarray(self.cluster_centers_, np.float64)
        return centroids(centres, float(self.variance_))

    def _labels(self, source: Source) -> NDArray[np.int32]:
        labels = predict_rows(
            source,
            self._model(),
            "labels",
            block_size=self.block_size,
            n_threads=self._n_threads(),
        )
        return labels.astype(np.int32)

    def _teller(self) -> Listener | None:
        """Give what is told of progress: who listens, and what `verbose` prints."""
        listens = listener()
        if not self.verbose:
            return listens

        def both(progress: Any) -> None:
            if progress.stage == "em" and not np.isnan(progress.lower_bound):
                bound = f"F {progress.lower_bound:.6g} nats a row"
                print(f"Start {progress.candidate}, iteration {progress.iteration}, {bound}.")
            if listens is not None:
                listens(progress)

        return both
