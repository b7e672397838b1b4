"""scikit-learn's pipelines of our steps: taken apart, and what they do to rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sklearn.base import clone
from sklearn.pipeline import Pipeline

from streamgmm.errors import ParameterError
from streamgmm.estimators.batch import BatchMixture
from streamgmm.estimators.rows import open_rows
from streamgmm.estimators.transforming import RowTransformer
from streamgmm.model.affine import Affine
from streamgmm.planning.plan import Plan
from streamgmm.sources import Source, transformed

Steps = Sequence[tuple[str, Any]]
TRIAL_ROWS = 10_000  # that steps are fitted to for a plan


def apart(model: Any) -> tuple[Steps, Any]:
    """The steps before the last one, by name, and the last one; a model is its own last step.

    Raises
    ------
    ParameterError
        If a step is none of ours; says which, and what to use.
    """
    if not isinstance(model, Pipeline):
        return (), model
    steps = [
        (name, step) for name, step in model.steps if step is not None and step != "passthrough"
    ]
    if not steps:
        raise ParameterError("the pipeline has no steps")
    for name, step in steps[:-1]:
        if not isinstance(step, RowTransformer):
            raise ParameterError(
                f"step '{name}' is {said(step)}, and only streamgmm.StandardScaler, "
                "streamgmm.RobustScaler and streamgmm.PCA can stand before a model here; use one "
                "of these, with from_sklearn where it was fitted"
            )
    return steps[:-1], steps[-1][1]


def said(step: Any) -> str:
    """Name the class of a step, and whose it is."""
    kind = type(step)
    return f"{kind.__module__.partition('.')[0]}'s {kind.__name__}"


def map_of(steps: Steps) -> Affine | None:
    """What fitted steps do to rows, as one map; None where there are none."""
    found = None
    for _, step in steps:
        found = step._affine() if found is None else found.then(step._affine())
    return found


def open_for(model: Any, X: Any, *, missing: str | None = None) -> tuple[Any, Source]:
    """The last step of a fitted pipeline, or the model, and the rows as it is given them.

    Parameters
    ----------
    model : Pipeline or estimator
    X : array-like, zarr.Array, str or path, dask.array.Array, or Source
    missing : str, optional
        What all estimators are to do about gaps; ``"raise"`` leaves it to them.
    """
    steps, last = apart(model)
    estimators = [*(step for _, step in steps), last]
    if missing not in (None, "raise"):
        for each in estimators:
            each.missing = missing
    if not steps:
        return last, open_rows(last, X, n_features=last._model().n_features)
    source = open_rows(steps[0][1], X, n_features=steps[0][1].n_features_in_)
    by = map_of(steps)
    assert by is not None
    return last, open_rows(last, transformed(source, by), n_features=last._model().n_features)


def plan(model: Any, X: Any, sample_weight: Any = None, **settings: Any) -> Plan:
    """Plan a fit of a model or a pipeline to X: what it will read, hold and take.

    Of a pipeline the steps before the mixture are fitted to a few thousand rows, which is enough
    to tell what transforming costs. Their own read of all rows (one for a scaler, and none more
    for a `PCA` after it) comes on top of what the plan says.

    Parameters
    ----------
    model : GaussianMixture, MixtureModel or sklearn.pipeline.Pipeline
        It need not be fitted.
    X : array-like, zarr.Array, str or path, dask.array.Array, or Source
        Of shape (n_samples, n_features).
    sample_weight : array-like, zarr.Array, path or dask.array of shape (n_samples,), optional
    **settings
        As for `GaussianMixture.plan`: ``workers``, ``worker_memory`` and others.

    Returns
    -------
    streamgmm.planning.plan.Plan

    Raises
    ------
    ParameterError
        If the model has no plan, or a step of the pipeline is none of ours.
    PlanError, DataError, SourceError
        As `GaussianMixture.plan`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from streamgmm import PCA, GaussianMixture, StandardScaler, plan
    >>> X = np.random.default_rng(0).normal(size=(1000, 5))
    >>> p = plan(make_pipeline(StandardScaler(), PCA(2), GaussianMixture(3)), X, workers=4)
    >>> p.n_rows, p.n_components
    (1000, 3)
    """
    steps, last = apart(model)
    if not isinstance(last, BatchMixture):
        raise ParameterError(
            f"{said(last)} has no plan; give a GaussianMixture, a MixtureModel, or a pipeline "
            "that ends with one"
        )
    if not steps:
        return last.plan(X, sample_weight, **settings)
    fresh = [clone(step) for _, step in steps]
    source = open_rows(fresh[0], X, sample_weight)
    rows = next(iter(source.blocks(1)[0].pieces())).rows[:TRIAL_ROWS]
    by = None
    for step in fresh:
        rows = step.fit_transform(rows)
        by = step._affine() if by is None else by.then(step._affine())
    assert by is not None
    return last.plan(transformed(source, by), **settings)
