"""`select`: numbers of components and their families, compared in shared reads."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from streamgmm.errors import ParameterError
from streamgmm.estimators.batch import count_missing
from streamgmm.estimators.gaussian import GaussianMixture
from streamgmm.estimators.mixture import REG_COVAR, MixtureModel
from streamgmm.estimators.rows import open_rows
from streamgmm.fitting.fit import history
from streamgmm.fitting.selection import Candidate, Ranking, rank
from streamgmm.fitting.stability import doubt
from streamgmm.model.covariances import COVARIANCES
from streamgmm.model.families import settings_of
from streamgmm.model.families.own import family_of
from streamgmm.pages.shown import Text, position, table_of
from streamgmm.places import ZarrStore
from streamgmm.progress import listener
from streamgmm.sources import Source
from streamgmm.storage.values import STATISTICS

DEFAULT_TYPES = ("full", "diag")
SEEN = ("n_features_in_", "feature_names_in_")


@dataclass(frozen=True, eq=False)
class Selection:
    """What `select` found.

    Attributes
    ----------
    table : dict of str to ndarray
        A value a candidate: ``n_components``, ``covariance_type`` (``family`` where families were
        given), ``log_likelihood`` (nats,
        summed over the rows that were fitted), ``n_parameters``, ``bic``, ``aic``, ``icl``,
        ``holdout_log_likelihood`` and its standard error ``holdout_error`` (nats a row, of the
        rows held out), ``passes`` and ``converged``: False also for a candidate that left
        because it could no longer come out best. With ``criterion="stability"`` also
        ``stability``, the mean adjusted Rand index of the labels of two restarts, its standard
        error ``stability_error``, ``fowlkes_mallows``, the same by that index, and
        ``neighbours``, the mean adjusted Rand index with the next fewer and the next more
        components; NaN for one component. ``failure`` says why a candidate could not be
        fitted, and its numbers are NaN; it is empty for the others.
    best : GaussianMixture or MixtureModel
        Fitted to all rows but those held out. Its ``selection_`` is this table, with the
        criterion and the choices, and is saved with it.
    passes : float
        Reads of the data in all.
    timings : dict
        As ``timings_`` of `GaussianMixture`.
    criterion : str
        What `best` was chosen by.
    choices : dict of str to int
        The row of the table that each criterion would choose.
    """

    table: dict[str, NDArray[Any]]
    best: Any
    passes: float
    timings: dict[str, Any]
    criterion: str = "bic"
    choices: dict[str, int] = field(default_factory=dict)

    def _shown(self) -> Text:
        k, kind = self.best.n_components, self.best._family().name
        title = f"best: {k} components ({kind}); {self.passes:.1f} reads of the data"
        return table_of(self.table, position(self.table, k, kind), title)

    def __repr__(self) -> str:
        """The table of the candidates, the best marked."""
        return str(self._shown())

    def _repr_html_(self) -> str:
        return self._shown().html


def select(
    X: Any,
    n_components: int | Iterable[int] = range(1, 13),
    covariance_types: str | Iterable[str] = DEFAULT_TYPES,
    *,
    family: Any = None,
    n_init: int | None = None,
    criterion: str = "bic",
    holdout: float = 0.03,
    sample_weight: Any = None,
    tol: float = 1e-3,
    reg_covar: float = 1e-6,
    max_iter: int = 100,
    init_params: str = "kmeans",
    random_state: Any = None,
    block_size: int | str = "auto",
    n_jobs: int | None = None,
    checkpoint: str | os.PathLike[str] | ZarrStore | None = None,
    on_bad_chunk: str = "raise",
    cache: Literal["auto"] | None = "auto",
    missing: str = "raise",
) -> Selection:
    """Fit every number of components with every covariance type or family, and take the best.

    All candidates share every read of the data. Each starts from the best of several climbs on
    a sample in memory, and leaves when it has converged or can no longer come out best.

    Parameters
    ----------
    X : array-like, zarr.Array, str or path, dask.array.Array, or Source
        Of shape (n_samples, n_features).
    n_components : int or iterable of int, default=range(1, 13)
    covariance_types : str or iterable of str, default=("full", "diag")
    family : str, Family, class, or iterable of these, optional
        Families in the place of covariance types, as `streamgmm.MixtureModel` takes them. Their
        densities must be with respect to the same measure: counts beside counts.
    n_init : int, optional
        Starts on the sample for each candidate, by default two; never fewer than four. With
        ``criterion="stability"``, by default five: as many restarts, each of which is one start
        that is taken to its end on all rows.
    criterion : {"bic", "aic", "icl", "holdout", "stability"}, default="bic"
        ``"stability"`` takes the most components among those whose restarts agree as well as the
        best do, within a standard error, or 0.01 in the adjusted Rand index (Hubert & Arabie
        1985). Labels are compared in the last read, by tables that merge; none are kept.
    holdout : float, default=0.03
        Share of the rows, chosen by a hash of their index, that no candidate is fitted to.
    sample_weight, tol, reg_covar, max_iter, init_params, random_state, block_size, n_jobs
        As for `GaussianMixture`; tol is of the gain that is still to come.
    checkpoint, on_bad_chunk, cache, missing
        As for `GaussianMixture`.

    Returns
    -------
    Selection

    Warns
    -----
    UserWarning
        If no number of components is stable: restarts agree to less than 0.65.

    Raises
    ------
    ParameterError
        If there is no candidate, a setting is out of range, or likelihoods of the families
        cannot be compared.
    DataError, SourceError, PlanError, CheckpointError, OutputError
        As `GaussianMixture.fit`.
    DegenerateComponentError
        If no candidate could be fitted; of Gaussians SingularCovarianceError.

    Examples
    --------
    >>> import numpy as np
    >>> from streamgmm import select
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(900, 2)) + 8 * rng.integers(3, size=900)[:, None]
    >>> selection = select(X, range(1, 6), random_state=0)
    >>> selection.best.n_components
    3
    """
    ks = [n_components] if isinstance(n_components, int) else list(n_components)
    _check(ks, on_bad_chunk, cache)
    if n_init is None:
        n_init = 5 if criterion == "stability" else 2
    name, kinds = _kinds(covariance_types, family)
    settings: dict[str, Any] = {
        "tol": tol,
        "reg_covar": reg_covar,
        "max_iter": max_iter,
        "n_init": n_init,
        "init_params": init_params,
        "random_state": random_state,
        "block_size": block_size,
        "n_jobs": n_jobs,
        "cache": cache,
        "on_bad_chunk": on_bad_chunk,
        "missing": missing,
    }
    models = [_model(name, kind, settings) for kind in kinds]
    first = models[0] if models else GaussianMixture()
    source = open_rows(first, X, sample_weight)
    for model in models[1:]:  # as `open_rows` has set them
        vars(model).update({n: v for n, v in vars(first).items() if n in SEEN})
    candidates = [Candidate(int(k), model._family()) for model in models for k in ks]
    ranking = rank(
        source,
        candidates,
        check_random_state(random_state),
        first._settings(source.n_features),
        criterion=criterion,
        holdout=holdout,
        n_threads=first._n_threads(),
        on_progress=listener(),
        checkpoint=checkpoint,
    )
    if criterion == "stability" and (said := doubt(ranking.table["stability"])):
        warnings.warn(said, UserWarning, stacklevel=2)
    table = {name if key == "family" else key: col for key, col in ranking.table.items()}
    i = ranking.best
    model = models[i // len(ks)].set_params(n_components=candidates[i].n_components)
    _take_up(model, ranking, source)
    model.selection_ = table | {"criterion": criterion, "choices": ranking.choices}
    model.data_seen_ = {"name": source.name, "n_samples": source.n_samples}
    return Selection(table, model, ranking.passes, ranking.timings, criterion, ranking.choices)


def _check(ks: list[Any], on_bad_chunk: str, cache: str | None) -> None:
    if any(k != int(k) or k < 1 for k in ks):
        raise ParameterError(f"n_components={ks}: whole numbers from 1 up")
    if on_bad_chunk not in ("raise", "skip"):
        raise ParameterError(f"on_bad_chunk={on_bad_chunk!r} must be 'raise' or 'skip'")
    if cache not in ("auto", None):
        raise ParameterError(f"cache={cache!r} must be 'auto' or None")


def _kinds(covariance_types: Any, family: Any) -> tuple[str, list[Any]]:
    """The parameter of an estimator that candidates differ in, and its values."""
    if family is None:
        kinds = [covariance_types] if isinstance(covariance_types, str) else [*covariance_types]
        for kind in kinds:
            if kind not in COVARIANCES:
                raise ParameterError(f"covariance type {kind!r}: one of {', '.join(COVARIANCES)}")
        return "covariance_type", kinds
    if covariance_types is not DEFAULT_TYPES and tuple(covariance_types) != DEFAULT_TYPES:
        raise ParameterError(
            "covariance_types and family exclude one another; 'full' and 'diag' are families too"
        )
    alone = isinstance(family, str) or not isinstance(family, Iterable)
    return "family", [family] if alone else [*family]


def _model(name: str, kind: Any, settings: dict[str, Any]) -> Any:
    """The estimator of one kind of components; `reg_covar` is for those that have it."""
    if name == "covariance_type":
        return GaussianMixture(covariance_type=kind, **settings)
    has = "reg_covar" in settings_of(family_of(kind))
    return MixtureModel(family=kind, **settings | ({} if has else {"reg_covar": REG_COVAR}))


def _take_up(model: Any, ranking: Ranking, source: Source) -> None:
    """Set the attributes of the estimator that came out best."""
    mixture, ascent = ranking.mixtures[ranking.best], ranking.ascents[ranking.best]
    assert ascent is not None
    assert mixture is not None
    model._set_parameters(mixture)
    if isinstance(model, MixtureModel):
        model.statistics_ = STATISTICS.apart(ranking.statistics)
    if ascent.steps:
        ascent.steps[-1].log_likelihood = float(ranking.table["log_likelihood"][ranking.best])
    model.converged_ = ascent.converged
    model.n_iter_ = len(ascent.steps)
    model.lower_bounds_ = list(ascent.bounds)
    model.lower_bound_ = ascent.bounds[-1] if ascent.bounds else -np.inf
    model.history_ = history(ascent.steps, source)
    model.timings_ = ranking.timings
    n_read = ranking.statistics.n_rows
    model.n_missing_ = count_missing(source.n_samples, n_read, ranking.skipped)
    model.skipped_rows_ = np.array(ranking.skipped, np.int64).reshape(-1, 2)
