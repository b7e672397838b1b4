"""`select`: numbers of components and covariance types, compared in shared reads."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from streamgmm.errors import ParameterError
from streamgmm.estimators.gaussian import GaussianMixture
from streamgmm.estimators.rows import open_rows
from streamgmm.fitting.fit import history
from streamgmm.fitting.selection import Candidate, rank
from streamgmm.model.covariances import COVARIANCES
from streamgmm.model.families import Gaussian
from streamgmm.progress import listener


@dataclass(frozen=True, eq=False)
class Selection:
    """What `select` found.

    Attributes
    ----------
    table : dict of str to ndarray
        A value a candidate: ``n_components``, ``covariance_type``, ``log_likelihood`` (nats,
        summed over the rows that were fitted), ``n_parameters``, ``bic``, ``aic``, ``icl``,
        ``holdout_log_likelihood`` and its standard error ``holdout_error`` (nats a row, of the
        rows held out), ``passes`` and ``converged``: False also for a candidate that left
        because it could no longer come out best. ``failure`` says why a candidate could not be
        fitted, and its numbers are NaN; it is empty for the others.
    best : GaussianMixture
        Fitted to all rows but those held out.
    passes : float
        Reads of the data in all.
    timings : dict
        As ``timings_`` of `GaussianMixture`.
    """

    table: dict[str, NDArray[Any]]
    best: GaussianMixture
    passes: float
    timings: dict[str, Any]


def select(
    X: Any,
    n_components: int | Iterable[int] = range(1, 13),
    covariance_types: str | Iterable[str] = ("full", "diag"),
    *,
    n_init: int = 2,
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
    checkpoint: str | os.PathLike[str] | None = None,
    on_bad_chunk: str = "raise",
    cache: Literal["auto"] | None = "auto",
) -> Selection:
    """Fit every number of components with every covariance type, and take the best.

    All candidates share every read of the data. Each starts from the best of several climbs on
    a sample in memory, and leaves when it has converged or can no longer come out best.

    Parameters
    ----------
    X : array-like, zarr.Array, str or path, dask.array.Array, or Source
        Of shape (n_samples, n_features).
    n_components : int or iterable of int, default=range(1, 13)
    covariance_types : str or iterable of str, default=("full", "diag")
    n_init : int, default=2
        Starts on the sample for each candidate; never fewer than four.
    criterion : {"bic", "aic", "icl", "holdout"}, default="bic"
    holdout : float, default=0.03
        Share of the rows, chosen by a hash of their index, that no candidate is fitted to.
    sample_weight, tol, reg_covar, max_iter, init_params, random_state, block_size, n_jobs
        As for `GaussianMixture`; tol is of the gain that is still to come.
    checkpoint, on_bad_chunk, cache
        As for `GaussianMixture`.

    Returns
    -------
    Selection

    Raises
    ------
    ParameterError
        If there is no candidate, or a setting is out of range.
    DataError, SourceError, PlanError, CheckpointError, OutputError
        As `GaussianMixture.fit`.
    SingularCovarianceError
        If no candidate could be fitted.

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
    kinds = [covariance_types] if isinstance(covariance_types, str) else list(covariance_types)
    for kind in kinds:
        if kind not in COVARIANCES:
            raise ParameterError(f"covariance type {kind!r}: one of {', '.join(COVARIANCES)}")
    if any(k != int(k) or k < 1 for k in ks):
        raise ParameterError(f"n_components={ks}: whole numbers from 1 up")
    if on_bad_chunk not in ("raise", "skip"):
        raise ParameterError(f"on_bad_chunk={on_bad_chunk!r} must be 'raise' or 'skip'")
    if cache not in ("auto", None):
        raise ParameterError(f"cache={cache!r} must be 'auto' or None")
    families = [Gaussian(kind, float(reg_covar)) for kind in kinds]
    candidates = [Candidate(int(k), family) for family in families for k in ks]
    model = GaussianMixture(
        tol=tol,
        reg_covar=reg_covar,
        max_iter=max_iter,
        n_init=n_init,
        init_params=init_params,
        random_state=random_state,
        block_size=block_size,
        n_jobs=n_jobs,
        cache=cache,
        on_bad_chunk=on_bad_chunk,
    )
    source = open_rows(model, X, sample_weight)
    ranking = rank(
        source,
        candidates,
        check_random_state(random_state),
        model._settings(source.n_features),
        criterion=criterion,
        holdout=holdout,
        n_threads=model._n_threads(),
        on_progress=listener(),
        checkpoint=checkpoint,
    )
    chosen, ascent = candidates[ranking.best], ranking.ascents[ranking.best]
    mixture = ranking.mixtures[ranking.best]
    assert ascent is not None
    assert mixture is not None
    table = {
        "covariance_type" if name == "family" else name: values
        for name, values in ranking.table.items()
    }
    kind = str(table["covariance_type"][ranking.best])
    model.set_params(n_components=chosen.n_components, covariance_type=kind)
    model._set_parameters(mixture)
    if ascent.steps:
        ascent.steps[-1].log_likelihood = float(ranking.table["log_likelihood"][ranking.best])
    model.converged_ = ascent.converged
    model.n_iter_ = len(ascent.steps)
    model.lower_bounds_ = list(ascent.bounds)
    model.lower_bound_ = ascent.bounds[-1] if ascent.bounds else -np.inf
    model.history_ = history(ascent.steps, source)
    model.timings_ = ranking.timings
    model.skipped_rows_ = np.array(ranking.skipped, np.int64).reshape(-1, 2)
    return Selection(table, model, ranking.passes, ranking.timings)
