"""scikit-learn's face of online learning."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils._param_validation import Interval, StrOptions

from streamgmm.errors import DataError, ParameterError, StreamGMMWarning
from streamgmm.estimators.fitted import FittedMixture, squared
from streamgmm.estimators.gaussian import GaussianMixture
from streamgmm.estimators.rows import in_memory, open_rows
from streamgmm.model.components import NO_WEIGHT
from streamgmm.model.covariances import COVARIANCES
from streamgmm.model.families.gaussian import gaussians
from streamgmm.model.mixture import EStep, Mixture, Statistics
from streamgmm.model.moments import Floats
from streamgmm.online.adapt import Adapter, adapt, hold, open_adapter
from streamgmm.online.drift import KINDS, Alarm
from streamgmm.online.state import (
    absorb,
    chain_mixture,
    from_values,
    merge_states,
    state_of_mixture,
    to_values,
)
from streamgmm.online.stepwise import (
    Learned,
    OnlineSettings,
    OnlineState,
    effective_rows,
    learn,
    mixture_of,
)
from streamgmm.passes import LocalExecutor, open_executor
from streamgmm.places import Place
from streamgmm.sources import Block, Piece, Source, check_finite, parse_block_size
from streamgmm.storage import Packed, save_model

BATCH_ROWS = 10_000  # rows of a source that are learned as one batch
JOURNAL = 20_000  # batches that `monitor_` remembers, the latest
WARM_UP_BYTES = 64 << 20
COLUMNS = ("rows", "log_likelihood", *KINDS)


class OnlineGaussianMixture(FittedMixture, DensityMixin, BaseEstimator):
    """Gaussian mixture learned batch by batch from data that never stops, in constant memory.

    Stepwise EM (Cappé & Moulines 2009): the first rows are kept until there are enough of them
    for a fit in memory with restarts; every batch after that is scored, then learned. The model
    is current after each batch, and its labels, densities and files are those of
    `streamgmm.GaussianMixture`.

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

    Attributes
    ----------
    weights_, means_, covariances_, precisions_, precisions_cholesky_ : ndarray
        As in scikit-learn. During the warm-up they are of a fit of the rows so far.
    monitor_ : dict
        Of the latest 20,000 batches: arrays ``rows``; ``log_likelihood``, nats a row before they
        were learned (NaN while there was no model); the latest drift statistics ``likelihood``,
        ``occupancy``, ``means``, ``covariances``, ``cusum``; and ``alarms`` and ``changes``,
        lists of dicts with ``row``, ``kind`` and ``statistic``, or ``components`` and ``gain``.
    n_samples_seen_ : int
        Rows learned or held out.

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

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "covariance_type": [StrOptions(set(COVARIANCES))],
        "reg_covar": [Interval(Real, 0.0, None, closed="left")],
        "step_size": [Interval(Real, 0.5, 1.0, closed="right"), callable],
        "step_rows": [Interval(Integral, 1, None, closed="left")],
        "warm_up": [Interval(Integral, 2, None, closed="left"), StrOptions({"auto"})],
        "half_life": [Interval(Real, 0.0, None, closed="neither"), None],
        "average": ["boolean", None],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "init_params": [StrOptions({"kmeans", "k-means++", "random", "random_from_data"})],
        "random_state": ["random_state"],
        "monitor": ["boolean"],
        "adapt_components": ["boolean"],
        "block_size": [Interval(Integral, 1, None, closed="left"), str],
        "n_jobs": [Integral, None],
    }

    n_features_in_: int
    _journal: list[list[float]]
    _alarms: list[dict[str, Any]]
    _changes: list[dict[str, Any]]
    _adapter: Adapter | None

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

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Forget all, then learn X in one pass, in order.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).
        y : Ignored
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        self : OnlineGaussianMixture

        Raises
        ------
        DataError, SourceError, ParameterError, SingularCovarianceError
            As `partial_fit`; DataError also if there are fewer rows than components.
        """
        before = {key: value for key, value in self.__dict__.items() if key in _LEARNED}
        self._forget()
        try:
            self.partial_fit(X, sample_weight)
            self._model()
        except BaseException:
            self._forget()
            self.__dict__.update(before)
            raise
        return self

    def partial_fit(self, X: Any, sample_weight: Any = None) -> Self:
        """Score a batch, then learn it.

        A batch that cannot be used is refused whole, and the model stays as it was. No rows are
        no change. Where a Dask cluster is active, a source that is not in memory is one pass
        over the workers, and one step.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).
        sample_weight : array-like of shape (n_samples,), optional
            A row of weight w counts as w rows.

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
        if isinstance(X, np.ndarray) and X.ndim == 2 and X.shape[0] == 0:
            self._check_width(X.shape[1], "X")
            return self
        if type(X) is np.ndarray and sample_weight is None and _is_plain(X):
            self._check_width(X.shape[1], "X")
            rows = np.ascontiguousarray(X)
            check_finite(Piece(0, rows, None), "X")
            self._learn([(rows, NO_WEIGHT)], X.shape[1])
            return self
        started = hasattr(self, "n_features_in_")
        source = _open(self, X, sample_weight)
        try:
            if in_memory(source):
                self._learn(_whole(source), source.n_features)
            else:
                self._learn_source(source)
        except BaseException:
            if not started and not self._started():
                for name in ("n_features_in_", "feature_names_in_"):
                    self.__dict__.pop(name, None)
            raise
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
        }
        model = cls(**(known | settings))
        model.n_features_in_ = held.n_features
        how = model._settings(held.n_features)
        model._online = state_of_mixture(how, held, rows)
        return model

    def to_mixture(self) -> GaussianMixture:
        """Give the model as it is now as a `GaussianMixture`, of its own."""
        mixture = self._model()
        model = GaussianMixture(
            mixture.n_components,
            covariance_type=self.covariance_type,
            reg_covar=self.reg_covar,
            random_state=self.random_state,
        )
        model._set_parameters(mixture)
        model.n_features_in_ = mixture.n_features
        model.converged_, model.n_iter_ = True, 0
        model.lower_bound_, model.lower_bounds_ = self._online.level, [self._online.level]
        return model

    def merge(self, other: OnlineGaussianMixture) -> OnlineGaussianMixture:
        """Give the model that would have seen the rows of both; components are matched.

        Each counts by its rows in effect. Watching starts anew.

        Raises
        ------
        DataError, ParameterError
            If they have different features, components, covariance types or `half_life`.
        """
        for name in ("covariance_type", "half_life", "reg_covar"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ParameterError(
                    f"{name} is {mine!r} here and {theirs!r} there; models that are merged must "
                    "have been learned alike"
                )
        self._model_rows(), other._model_rows()
        model = type(self)(**self.get_params(deep=False))
        settings = self._settings(self.n_features_in_)
        model._online = merge_states(settings, self._online, other._online)
        model.n_features_in_ = self.n_features_in_
        return model

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Save the whole state as a Zarr group, without pickle, in one atomic step.

        `streamgmm.load` reads it back; learning then goes on as if it had never stopped.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If nothing has been learned.
        OutputExistsError, OutputError, ParameterError
            As `GaussianMixture.save`; ParameterError also if `step_size` is a function.
        """
        self.save_with(path, {}, overwrite)

    def save_with(
        self, path: str | os.PathLike[str] | Place, more: dict[str, Any], overwrite: bool = False
    ) -> None:
        """As `save`, with more values in the same atomic step."""
        self._model_rows()
        fitted: dict[str, Any] = {
            "n_features_in_": self.n_features_in_,
            "online_": self._values(),
        } | more
        params = self.get_params(deep=False)
        save_model(path, type(self).__name__, params, {}, fitted, overwrite)

    @property
    def n_samples_seen_(self) -> int:
        """Rows learned or held out so far."""
        return self._model_rows()

    @property
    def monitor_(self) -> dict[str, Any]:
        """What was noticed, batch by batch."""
        self._model_rows()
        journal = np.array(self._journal, dtype=np.float64).reshape(-1, len(COLUMNS))
        table: dict[str, Any] = {name: journal[:, i] for i, name in enumerate(COLUMNS)}
        table["rows"] = table["rows"].astype(np.int64)
        table["alarms"] = [dict(alarm) for alarm in self._alarms]
        table["changes"] = [dict(change) for change in self._changes]
        return table

    def __sklearn_is_fitted__(self) -> bool:
        """Whether there are rows; whether they are enough for a model shows when it is used."""
        return self._started()

    @property
    def weights_(self) -> Floats:  # type: ignore[override]
        """Weights (K,)."""
        return self._model().weights

    @property
    def means_(self) -> Floats:  # type: ignore[override]
        """Means (K, D)."""
        return gaussians(self._model().components).means

    @property
    def covariances_(self) -> Floats:  # type: ignore[override]
        """Covariances, of the shape of the covariance type."""
        return gaussians(self._model().components).covariances

    @property
    def precisions_cholesky_(self) -> Floats:  # type: ignore[override]
        """Cholesky factors of the precisions."""
        return gaussians(self._model().components).precisions_cholesky

    @property
    def precisions_(self) -> Floats:  # type: ignore[override]
        """Precisions, of the shape of the covariance type."""
        return squared(self.covariance_type, self.precisions_cholesky_)

    def _mixture(self) -> Mixture:
        return self._model()

    def _model(self) -> Mixture:
        """The model as it is now, made when it is first asked for."""
        self._model_rows()
        held: tuple[OnlineState, Mixture] | None = self.__dict__.get("_held")
        if held is None or held[0] is not self._online:
            settings = self._settings(self.n_features_in_)
            held = self._held = (self._online, mixture_of(settings, self._online))
        return held[1]

    def _started(self) -> bool:
        """Whether there is a state, which a loaded model still has as values."""
        if "_online" not in self.__dict__ and "online_" in self.__dict__:
            values = self.__dict__.pop("online_")
            self._online = from_values(values["state"])
            held = values["held"]
            self._adapter = None if held is None else Adapter(held, values["due"])
            self._journal = values["journal"].tolist()
            self._alarms, self._changes = values["alarms"], values["changes"]
        return "_online" in self.__dict__

    def _model_rows(self) -> int:
        """Rows so far; raises NotFittedError where there are none."""
        if not self._started():
            raise NotFittedError(
                f"This {type(self).__name__} has not seen any rows yet; call 'partial_fit' or "
                "'fit' first."
            )
        return self._online.n_rows

    def _values(self) -> dict[str, Any]:
        adapter = self._adapter
        return {
            "state": Packed(to_values(self._online)),
            "held": None if adapter is None else adapter.held,
            "due": 0 if adapter is None else adapter.due,
            "journal": np.array(self._journal, np.float64).reshape(-1, len(COLUMNS)),
            "alarms": self._alarms,
            "changes": self._changes,
        }

    @property
    def _online(self) -> OnlineState:
        return self.__dict__["_online"]  # type: ignore[no-any-return]

    @_online.setter
    def _online(self, state: OnlineState) -> None:
        if "_online" not in self.__dict__:
            self._journal, self._alarms, self._changes = [], [], []
            self._adapter = None
        self.__dict__["_online"] = state

    def _begin(self, n_features: int) -> None:
        """Start without rows."""
        self._online = OnlineState(n_features)
        self.n_features_in_ = n_features

    def _forget(self) -> None:
        for name in _LEARNED:
            self.__dict__.pop(name, None)

    def _check_width(self, n_features: int, name: str) -> None:
        if hasattr(self, "n_features_in_") and n_features != self.n_features_in_:
            raise DataError(
                f"{name} has {n_features} features, but {type(self).__name__} "
                f"is expecting {self.n_features_in_} features as input."
            )

    def _settings(self, n_features: int) -> OnlineSettings:
        """Parse what the constructor was given; again only when a parameter is another."""
        key = (n_features, *(self.__dict__[name] for name in _PARAMETERS))
        held: tuple[Any, OnlineSettings] | None = self.__dict__.get("_parsed")
        if held is None or held[0] != key:
            held = self._parsed = (key, _parse_settings(self, n_features))
        return held[1]

    def _learn(self, batches: list[tuple[NDArray[Any], Floats]], n_features: int) -> None:
        """Learn batches in memory: all of them, or none."""
        state = self._online if self._started() else OnlineState(n_features)
        settings = self._settings(n_features)
        adapter = self._adapter if self._started() else None
        lines: list[list[float]] = []
        alarms: list[Alarm] = []
        changes: list[dict[str, Any]] = []
        for X, weight in batches:
            row = state.n_rows
            if self.adapt_components and state.chain is not None:
                adapter = adapter or open_adapter(n_features)
                adapter, stay = hold(adapter, X, row)
                X, weight = np.ascontiguousarray(X[stay]), weight[stay] if len(weight) else weight
                lost = int(len(stay) - stay.sum())
            else:
                lost = 0
            state, learned = learn(settings, state, X, weight)
            if lost:
                state = replace(state, n_rows=state.n_rows + lost)
            alarms += learned.alarms
            if adapter is not None:
                state, adapter, found = adapt(settings, state, adapter, now=bool(learned.alarms))
                changes += [vars(each) | {"components": [*each.components]} for each in found]
            lines.append(_line(learned, lost, state))
        self._online = state
        self._adapter = adapter
        self._journal += lines
        self._alarms += [vars(alarm) for alarm in alarms]
        self._changes += changes
        if len(self._journal) > 2 * JOURNAL:
            del self._journal[:-JOURNAL], self._alarms[:-JOURNAL], self._changes[:-JOURNAL]
        self.n_features_in_ = n_features

    def _learn_source(self, source: Source) -> None:
        """Learn a source that is not in memory, batch by batch or as one pass of a cluster."""
        copy = type(self)(**self.get_params(deep=False))
        if self._started():
            copy.__dict__.update({k: v for k, v in self.__dict__.items() if k in _LEARNED})
            for name in ("_journal", "_alarms", "_changes"):
                copy.__dict__[name] = list(self.__dict__[name])
        blocks = source.blocks(parse_block_size(self.block_size, source))
        warm = self._started() and self._online.chain is not None
        with open_executor(blocks) as executor:
            if warm and not isinstance(executor, LocalExecutor):
                settings = copy._settings(source.n_features)
                state = copy._online
                context = (source.name, chain_mixture(settings, state))
                statistics: Statistics = executor.run(_read_block, context)
                copy._online = absorb(settings, state, statistics)
                line = [float("nan")] * len(COLUMNS)
                line[:2] = [statistics.n_rows, statistics.log_likelihood / statistics.weight]
                copy._journal.append(line)
            else:
                for rows, weight in rebatch(_pieces(source, blocks), BATCH_ROWS):
                    copy._learn([(rows, weight)], source.n_features)
        self.__dict__.update({k: v for k, v in copy.__dict__.items() if k in _LEARNED})


_PARAMETERS = tuple(OnlineGaussianMixture._get_param_names())
_LEARNED = {"_online", "_adapter", "_journal", "_alarms", "_changes", "_held", "online_"}
_LEARNED |= {"n_features_in_", "feature_names_in_"}


def _parse_settings(model: OnlineGaussianMixture, n_features: int) -> OnlineSettings:
    model._validate_params()
    k = model.n_components
    p = COVARIANCES[model.covariance_type].n_parameters(k, n_features)
    most = max(2 * k, WARM_UP_BYTES // (8 * n_features))
    warm_up = min(max(10 * p, 2_000), most) if model.warm_up == "auto" else int(model.warm_up)
    if warm_up < max(2, k):
        raise ParameterError(
            f"warm_up={warm_up} rows cannot start {k} components; give at least {max(2, k)}"
        )
    if model.half_life is not None and effective_rows(model.half_life) < 10 * p:
        least = int(np.ceil(10 * p * np.log(2) / 2))
        warnings.warn(
            f"half_life={model.half_life} keeps {effective_rows(model.half_life):.0f} rows in "
            f"effect, fewer than ten for each of {p} parameters: the model will be noisy; give "
            f"half_life={least} or more, or fewer parameters",
            StreamGMMWarning,
            stacklevel=4,
        )
    step_size = model.step_size
    size = step_size if callable(step_size) else partial(_power, float(step_size))
    average = model.half_life is None if model.average is None else bool(model.average)
    return OnlineSettings(
        k, model.covariance_type, float(model.reg_covar), size, int(model.step_rows), warm_up,
        None if model.half_life is None else float(model.half_life), average, int(model.n_init),
        model.init_params, _seed(model.random_state), bool(model.monitor),
    )  # fmt: skip


def _power(exponent: float, count: float) -> float:
    return float(count**-exponent)


def _seed(random_state: Any) -> int:
    if random_state is None:
        return 0
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    return int(random_state)


def _is_plain(X: NDArray[Any]) -> bool:
    return X.dtype in (np.float64, np.float32) and X.dtype.isnative and X.shape[1] > 0


def _open(model: OnlineGaussianMixture, X: Any, sample_weight: Any) -> Source:
    """Open what is no plain array, its width and names checked."""
    if not model._started():
        return open_rows(model, X, sample_weight, fitting=True)
    fresh = type(model)()
    source = open_rows(fresh, X, sample_weight, fitting=True)
    model._check_width(source.n_features, source.name)
    names, known = (getattr(each, "feature_names_in_", None) for each in (fresh, model))
    if names is not None and known is not None and list(names) != list(known):
        raise DataError(
            f"{source.name} has columns {list(names)} where {list(known)} were learned; give the "
            "same columns in the same order"
        )
    return source


def _line(learned: Learned, lost: int, state: OnlineState) -> list[float]:
    level = learned.log_likelihood / learned.mass if learned.mass > 0 else float("nan")
    drift = [float("nan")] * len(KINDS) if state.monitor is None else [*state.monitor.statistics]
    for alarm in learned.alarms:
        drift[KINDS.index(alarm.kind)] = alarm.statistic
    return [learned.n_rows + lost, level, *drift]


def _whole(source: Source) -> list[tuple[NDArray[Any], Floats]]:
    """All rows of a source in memory, as one batch, checked."""
    pieces = []
    for block in source.blocks(1 << 62):
        for piece in block.pieces():
            check_finite(piece, source.name)
            pieces.append((piece.rows, piece.sample_weight))
    rows = pieces[0][0] if len(pieces) == 1 else np.concatenate([rows for rows, _ in pieces])
    if pieces[0][1] is None:
        return [(rows, NO_WEIGHT)]
    return [(rows, np.concatenate([weight for _, weight in pieces if weight is not None]))]


def _pieces(source: Source, blocks: Any) -> Iterator[tuple[NDArray[Any], Floats]]:
    for block in blocks:
        for piece in block.pieces():
            check_finite(piece, source.name)
            yield piece.rows, NO_WEIGHT if piece.sample_weight is None else piece.sample_weight


def rebatch(
    pieces: Iterator[tuple[NDArray[Any], Floats]], n_rows: int
) -> Iterator[tuple[NDArray[Any], Floats]]:
    """The same rows in batches of `n_rows`, the last of fewer, however they were cut before."""
    held: list[tuple[NDArray[Any], Floats]] = []
    count = 0
    for rows, weight in pieces:
        while len(rows):
            take = n_rows - count
            held.append((rows[:take], weight[:take]))
            count += len(held[-1][0])
            rows, weight = rows[take:], weight[take:]
            if count == n_rows:
                yield _joined(held)
                held, count = [], 0
    if held:
        yield _joined(held)


def _joined(held: list[tuple[NDArray[Any], Floats]]) -> tuple[NDArray[Any], Floats]:
    if len(held) == 1:
        return np.ascontiguousarray(held[0][0]), np.ascontiguousarray(held[0][1])
    rows, weights = zip(*held, strict=True)
    return np.concatenate(rows), np.concatenate(weights)


def _read_block(context: tuple[str, Mixture], block: Block) -> Statistics:
    name, mixture = context
    step = EStep([(mixture, None)])
    for piece in block.pieces():
        check_finite(piece, name)
        step.add(piece.rows, NO_WEIGHT if piece.sample_weight is None else piece.sample_weight)
    return step.result()[0]
