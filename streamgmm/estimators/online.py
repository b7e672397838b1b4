"""scikit-learn's face of online learning."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from streamgmm.errors import ParameterError
from streamgmm.estimators.gaussian import GaussianMixture
from streamgmm.estimators.learned import LearnedMixture
from streamgmm.estimators.learning import CONSTRAINTS, LEARNED
from streamgmm.model.covariances import COVARIANCES
from streamgmm.online.merging import from_mixture, merge


class OnlineGaussianMixture(LearnedMixture):
    """Gaussian mixture learned batch by batch from data that never stops, in constant memory.

    Stepwise EM (Cappé & Moulines 2009): the first rows, the warm-up, are kept until there are
    enough of them for a fit in memory with restarts; every batch after that is scored, then
    learned. The model is current after each batch, and its labels, densities and files are those
    of `streamgmm.GaussianMixture`.

    The warm-up's fit is spread over batches, so that none takes more than about half a second for
    it: the work a batch is counted, not timed, and so the same on every machine. Rows that come
    meanwhile wait, and are learned as soon as the fit is over. Until then the model is the best
    start so far. If more than 64 MiB of rows wait, the fit is cut short. `fit` does not spread it.

    Parameters
    ----------
    n_components : int, default=1
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
    reg_covar : float, default=1e-6
        Added to the diagonals of the covariances.
    step_size : float or callable, default=0.6
        The weight γ of a step against all before it: ``count ** -step_size``, in (0.5, 1], or a
        function of the count of steps, in rows seen over `step_rows`. A model with a function
        cannot be saved.
    step_rows : int, default=500
        Rows of a step; larger batches are cut, a smaller one is a part of a step.
    warm_up : int or "auto", default="auto"
        Rows of the first fit. Auto is ten a parameter and at least 2,000, up to 64 MiB of them.
        More rows buy a better optimum, which no later step leaves.
    half_life : float, optional
        Rows after which a row counts half, for data that drifts. None forgets nothing.
    average : bool, optional
        Whether the model is that of averaged statistics (Polyak), weighted to the late ones: the
        noise of single steps leaves it. By default where there is no `half_life`.
    n_init : int, default=16
        Starts of the first fit; a poor one is left by no later step.
    init_params : {"kmeans", "k-means++", "random", "random_from_data"}, default="kmeans"
    random_state : int, RandomState or None, default=None
        For the starts. None is 0, so that a stream that is learned again gives the same model.
    monitor : bool, default=True
        Whether the stream is watched for drift, from the end of the warm-up.
    adapt_components : bool, default=False
        Whether components are retired, merged and born. One row in sixteen is then held out to
        judge by, and `n_components` is where it starts.
    block_size : int or str, default="auto"
        Bytes of the blocks that a source is read in.
    n_jobs : int, optional
        Threads that predict; by default all, or the active Dask cluster.
    missing : {"raise", "omit", "marginalize"}, default="raise"
        As for `streamgmm.GaussianMixture`: what to do about rows with a gap. With
        ``"marginalize"`` steps are of completed moments, and drift is tested on rows whose gaps
        are filled by draws of the mixture given what was observed, so that a change of what is
        missing alone is no alarm.

    Attributes
    ----------
    weights_, means_, covariances_, precisions_, precisions_cholesky_ : ndarray
        As in scikit-learn. While rows are gathered for the warm-up they are of a fit of the rows
        so far, which is made when it is asked for and takes as long as a fit takes. Asking never
        changes what is learned.
    monitor_ : dict
        Of the latest 20,000 batches: arrays ``rows``; ``log_likelihood``, nats a row before they
        were learned (NaN while there was no model); the latest drift statistics ``likelihood``,
        ``occupancy``, ``means``, ``covariances``, ``cusum``; and ``alarms`` and ``changes``,
        lists of dicts with ``row``, ``kind`` and ``statistic``, or ``components`` and ``gain``.
    n_samples_seen_ : int
        Rows learned, held out, or waiting to be learned.
    learner_ : streamgmm.online.learner.Learner
        All that is known. A follower goes on with it.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> model = OnlineGaussianMixture(2, warm_up=500)
    >>> for _ in range(20):
    ...     batch = rng.normal(size=(100, 1)) + 10 * rng.integers(0, 2, size=(100, 1))
    ...     model = model.partial_fit(batch)
    >>> sorted(int(mean) for mean in model.means_.round().ravel())
    [0, 10]
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = CONSTRAINTS | {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "covariance_type": [StrOptions(set(COVARIANCES))],
        "reg_covar": [Interval(Real, 0.0, None, closed="left")],
        "average": ["boolean", None],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "init_params": [StrOptions({"kmeans", "k-means++", "random", "random_from_data"})],
        "random_state": ["random_state"],
        "monitor": ["boolean"],
        "adapt_components": ["boolean"],
        "block_size": [Interval(Integral, 1, None, closed="left"), str],
        "n_jobs": [Integral, None],
        "missing": [StrOptions({"raise", "omit", "marginalize"})],
    }

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        reg_covar: float = 1e-6,
        step_size: float | Callable[[float], float] = 0.6,
        step_rows: int = 500,
        warm_up: int | str = "auto",
        half_life: float | None = None,
        average: bool | None = None,
        n_init: int = 16,
        init_params: str = "kmeans",
        random_state: Any = None,
        monitor: bool = True,
        adapt_components: bool = False,
        block_size: int | str = "auto",
        n_jobs: int | None = None,
        missing: str = "raise",
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.reg_covar = reg_covar
        self.step_size = step_size
        self.step_rows = step_rows
        self.warm_up = warm_up
        self.half_life = half_life
        self.average = average
        self.n_init = n_init
        self.init_params = init_params
        self.random_state = random_state
        self.monitor = monitor
        self.adapt_components = adapt_components
        self.block_size = block_size
        self.n_jobs = n_jobs
        self.missing = missing

    def fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, noise_variance: Any = None
    ) -> Self:
        """Forget all, then learn X in one pass, in order.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).
        y : Ignored
        sample_weight : array-like of shape (n_samples,), optional
        noise_variance : array-like, zarr.Array, path or dask.array, optional
            As for `partial_fit`.

        Returns
        -------
        self : OnlineGaussianMixture

        Raises
        ------
        DataError, SourceError, ParameterError, SingularCovarianceError
            As `partial_fit`; DataError also if there are fewer rows than components.
        """
        before = {name: self.__dict__.pop(name) for name in LEARNED if name in vars(self)}
        try:
            self._learn(X, sample_weight, np.inf, noise_variance)
            self._mixture()
        except BaseException:
            for name in LEARNED:
                self.__dict__.pop(name, None)
            self.__dict__.update(before)
            raise
        return self

    def partial_fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, noise_variance: Any = None
    ) -> Self:
        """Score a batch, then learn it.

        A batch that cannot be used is refused whole, and the model stays as it was. No rows are
        no change. More than 10,000 rows are batches of 10,000, and so are those of a source that
        is not in memory. Its rows are read by the workers where a Dask cluster is active, and
        learned here in any case: the model does not depend on it.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).
        y : Ignored
        sample_weight : array-like of shape (n_samples,), optional
            A row of weight w counts as w rows.
        noise_variance : array-like, zarr.Array, path or dask.array, optional
            Variances of the errors of X, as for `streamgmm.GaussianMixture.fit`, with the first
            rows too; rows without have no errors. Drift is not watched then.

        Returns
        -------
        self : OnlineGaussianMixture

        Raises
        ------
        DataError
            If X has NaN or infinity (names the rows), another width, or weights that do not fit.
        SourceError
            If a path is no Zarr array.
        ParameterError
            If a setting is out of range.
        SingularCovarianceError
            If a component collapses on a point and `reg_covar` is too small.
        """
        self._learn(X, sample_weight, noise_variance=noise_variance)
        return self

    @classmethod
    def from_mixture(cls, mixture: GaussianMixture, rows: float, **settings: Any) -> Self:
        """Go on online from a mixture that has been fitted.

        Parameters
        ----------
        mixture : GaussianMixture
        rows : float
            How many rows it counts as: those it was fitted to, or fewer to let it change faster.
        **settings
            Parameters of the constructor, other than those that the mixture has.

        Returns
        -------
        OnlineGaussianMixture
        """
        if not rows > 0:
            raise ParameterError(f"rows={rows!r} must be positive: what the mixture counts as")
        held = mixture._mixture()
        known: dict[str, Any] = {
            "n_components": held.n_components,
            "covariance_type": mixture.covariance_type,
            "reg_covar": mixture.reg_covar,
            "missing": mixture.missing,
        }
        model = cls(**(known | settings))
        model.n_features_in_ = held.n_features
        model.learner_ = from_mixture(model._learning_settings(held.n_features), held, rows)
        return model

    def merge(self, other: OnlineGaussianMixture) -> OnlineGaussianMixture:
        """Give the model that would have seen the rows of both; components are matched.

        Each counts by its rows in effect. Watching starts anew.

        Raises
        ------
        DataError, ParameterError
            If they have different features, components, covariance types or `half_life`.
        """
        if hasattr(self, "noise_") or hasattr(other, "noise_"):
            raise ParameterError(
                "models of rows with errors (noise_variance) cannot be merged; learn the rows of "
                "both with one of them"
            )
        for name in ("covariance_type", "half_life", "reg_covar"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ParameterError(
                    f"{name} is {mine!r} here and {theirs!r} there; models that are merged must "
                    "have been learned alike"
                )
        one, two = self._known(), other._known()
        one.settings = self._learning_settings(one.n_features)
        model = type(self)(**self.get_params(deep=False))
        model.learner_, model.n_features_in_ = merge(one, two), self.n_features_in_
        return model
