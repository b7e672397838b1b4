"""`GaussianMixture`: scikit-learn's estimator, for data of any size."""

from __future__ import annotations

import os
from numbers import Integral
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval, StrOptions

from streamgmm.errors import ParameterError
from streamgmm.estimators.attributes import FACTORS, GaussianAttributes
from streamgmm.estimators.batch import CONSTRAINTS, BatchMixture
from streamgmm.estimators.exchange import Exchanged
from streamgmm.estimators.rows import missing_of
from streamgmm.model.components import Family
from streamgmm.model.covariances import COVARIANCES
from streamgmm.model.families.known import with_gaps
from streamgmm.places import ZarrStore


class GaussianMixture(GaussianAttributes, Exchanged, BatchMixture):
    """Gaussian mixture, fitted by exact EM to data of any size.

    Parameters, attributes and methods are those of `sklearn.mixture.GaussianMixture`, with the
    same meaning and defaults, and a few more. X may be an array or table in memory, a Zarr
    array, its path or URL, a dask array, or a source from `streamgmm.sources.open_source`; what
    is not in memory is read block by block, and kept only where it is small (`cache`).

    Parameters
    ----------
    n_components : int, default=1
    covariance_type : {"full", "tied", "diag", "spherical", "factor", "ppca"}, default="full"
        Each component its own matrix; one matrix for all; its own variances; one variance each.
        Or, for many features, matrices of a few factors and noise: with a variance for each
        feature (factor analysers), or one for all (probabilistic principal components).
    tol : float, default=1e-3
        Iteration stops when the mean log-likelihood of a row rises by less (nats).
    reg_covar : float, default=1e-6
        Added to the diagonals of the covariances. Of factor analysers, the least variance of the
        noise.
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

    checkpoint : str, path-like, URL or Zarr store, optional
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
    missing : {"raise", "omit", "marginalize"}, default="raise"
        What to do about rows with a gap (NaN, masked, a fill value): raise; leave them out, with
        label −1, and NaN for probabilities and density; or take what was observed of them, by
        exact EM under missing at random (Ghahramani & Jordan 1994; docs/gaps.md). Densities are
        then of what was observed, and only rows without any value are left out. Infinity is never
        a gap.
    n_factors : int, optional
        Factors of each component, for the types that have them.
    truncation : int or "auto", optional
        For thousands of components: each row looks at so many of them, which it keeps from pass
        to pass and changes only for likelier ones, so that its cost does not grow with
        `n_components` (docs/many_components.md). ``"auto"`` is 8 from 200 components on. The
        likelihood is then a lower bound, which never falls; ``kl_of_sets`` in `history_`
        estimates by how much it is too low, from rows that are compared with all components, and
        ``agreement`` how many rows find their likeliest.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    means_ : ndarray of shape (n_components, n_features)
    covariances_, precisions_, precisions_cholesky_ : ndarray
        Of shape (n_components, n_features, n_features) for full covariances, (n_features,
        n_features) for tied, (n_components, n_features) for diag, (n_components,) for
        spherical. All parameters are float64, whatever the data's dtype. Those of factor
        analysers are made by `get_covariance`.
    loadings_, noise_variances_ : ndarray
        Of factor analysers: (n_components, n_features, n_factors) and (n_components,
        n_features). A covariance is the loadings times their transpose, and the noise.
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
    n_missing_ : int
        Rows that were left out, since they have gaps or were masked; with
        ``missing="marginalize"`` those of which nothing was observed.
    skipped_rows_ : ndarray of shape (n, 2)
        Runs of rows, start and stop, in chunks that could not be read.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)
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

    exchanged = ("sklearn.mixture.GaussianMixture",)
    shared = (
        "weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_",
        "converged_", "n_iter_", "lower_bound_", "lower_bounds_",
    )  # fmt: skip

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = CONSTRAINTS | {
        "covariance_type": [StrOptions({*COVARIANCES, *FACTORS})],
        "n_factors": [Interval(Integral, 1, None, closed="left"), None],
        "truncation": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"}), None],
    }

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
        checkpoint: str | os.PathLike[str] | ZarrStore | None = None,
        on_bad_chunk: str = "raise",
        cache: str | None = "auto",
        assignment: str = "soft",
        missing: str = "raise",
        n_factors: int | None = None,
        truncation: int | str | None = None,
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
        self.missing = missing
        self.n_factors = n_factors
        self.truncation = truncation

    def _family(self) -> Family:
        if self.covariance_type in FACTORS:
            return with_gaps(
                self._analyzer(),
                missing_of(self) == "marginalize",
            )
        if self.n_factors is not None:
            raise ParameterError(
                f"n_factors={self.n_factors} is for covariance_type='factor' or 'ppca', not "
                f"'{self.covariance_type}'; leave it out"
            )
        return self._gaussian()
