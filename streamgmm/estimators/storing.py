"""A fitted model, or a whole pipeline, to one model file."""

from __future__ import annotations

import os
from typing import Any

from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from streamgmm.errors import ParameterError
from streamgmm.estimators.pipelines import Steps, apart, said
from streamgmm.estimators.saving import KINDS, fitted_of
from streamgmm.estimators.saving import save as save_one
from streamgmm.places import Place


def save(
    model: Any,
    path: str | os.PathLike[str],
    overwrite: bool = False,
    storage_options: dict[str, Any] | None = None,
) -> None:
    """Save a fitted model, or a whole pipeline as one; `streamgmm.load` reads it back.

    Parameters
    ----------
    model : estimator of streamgmm, or sklearn.pipeline.Pipeline of such
    path : str, path-like or URL
    overwrite : bool, default=False
        Whether a model at `path` may be replaced.
    storage_options : dict, optional
        For the fsspec file system of a URL.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If it has not been fitted.
    ParameterError
        If it, or a step of it, is none of ours; says which, and what to use.
    OutputExistsError, OutputError
        As `GaussianMixture.save`.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.pipeline import make_pipeline
    >>> import streamgmm
    >>> path = tempfile.mkdtemp() + "/model.zarr"
    >>> pipe = make_pipeline(streamgmm.StandardScaler(), streamgmm.GaussianMixture())
    >>> streamgmm.save(pipe.fit([[0.0], [4.0], [5.0]]), path)
    >>> [name for name, _ in streamgmm.load(path).steps]
    ['standardscaler', 'gaussianmixture']
    """
    steps, last = apart(model)
    check_ours(last)
    place = Place.parse(path, storage_options)
    more = before(steps, model.steps[-1][0]) if isinstance(model, Pipeline) else {}
    learned = getattr(last, "taught", None)
    if learned is not None and learned() is not None:
        last.save_with(place, more, overwrite)
    else:
        save_one(last, place, overwrite, **more)


def before(steps: Steps, name: str) -> dict[str, Any]:
    """What is saved with the last step of a pipeline, `name`: the fitted steps before it."""
    found = []
    for each, step in steps:
        check_is_fitted(step)
        known = {"kind": type(step).__name__, "params": step.get_params(deep=False)}
        found.append({"name": each, **known, "fitted": fitted_of(step)})
    return {"before_": found, "step_": name}


def check_ours(model: Any) -> None:
    """Check that a model is one of ours; raises ParameterError, which names it."""
    kind = type(model)
    if kind.__name__ not in KINDS or not kind.__module__.startswith("streamgmm."):
        raise ParameterError(
            f"{said(model)} cannot be saved; only {', '.join(KINDS)} can, and pipelines of them"
        )
