"""Model files to the estimators that were saved."""

from __future__ import annotations

import os
from typing import Any

from sklearn.pipeline import Pipeline

from streamgmm.errors import ModelFileError, ParameterError
from streamgmm.estimators.gaussian import GaussianMixture
from streamgmm.estimators.kmeans import KMeans
from streamgmm.estimators.mixture import MixtureModel
from streamgmm.estimators.online import OnlineGaussianMixture
from streamgmm.estimators.pca import PCA
from streamgmm.estimators.regressor import MixtureRegressor
from streamgmm.estimators.robust import RobustScaler
from streamgmm.estimators.standard import StandardScaler
from streamgmm.places import Place, ZarrStore
from streamgmm.sources.accessor import register
from streamgmm.storage import load_group


def load(
    path: str | os.PathLike[str] | ZarrStore | Place,
    storage_options: dict[str, Any] | None = None,
) -> Any:
    """Load a model: an estimator of the class that was saved, or a pipeline, fitted as it was.

    Parameters
    ----------
    path : str, path-like, URL or Zarr store
    storage_options : dict, optional
        For the fsspec file system of a URL.

    Raises
    ------
    ModelNotFoundError
        If there is nothing.
    ModelFileError
        If it is no model, one of a newer format, unfinished or damaged; or if its family is
        not known to this installation, by its name.

    Examples
    --------
    >>> load("nowhere.zarr")
    Traceback (most recent call last):
    ...
    streamgmm.errors.ModelNotFoundError: there is no model at 'nowhere.zarr'
    """
    register()
    try:
        stored = load_group(path, storage_options)
    except ParameterError as error:  # of a family that this installation has not
        raise ModelFileError(f"the model '{path}' cannot be loaded: {error}") from error
    estimator = _made(stored.kind, stored.params, path, stored.version)
    attrs = dict(stored.attrs)
    online = attrs.pop("online_", None)
    before, name = attrs.pop("before_", None), attrs.pop("step_", None)
    vars(estimator).update(attrs | stored.arrays)
    if online is not None:
        estimator._restore(online)
    if before is None:
        return estimator
    steps = []
    for each in before:
        step = _made(each["kind"], each["params"], path, stored.version)
        vars(step).update(each["fitted"])
        steps.append((each["name"], step))
    return Pipeline([*steps, (name, estimator)])


def _made(kind: str, params: dict[str, Any], path: Any, version: str) -> Any:
    """An estimator with these parameters; raises ModelFileError."""
    known = (
        GaussianMixture, KMeans, MixtureModel, MixtureRegressor, OnlineGaussianMixture, PCA,
        RobustScaler, StandardScaler,
    )  # fmt: skip
    classes = {cls.__name__: cls for cls in known}
    if kind not in classes:
        raise ModelFileError(
            f"the model '{path}' is a {kind}, which this release of streamgmm does not "
            f"know; install streamgmm {version} or newer"
        )
    try:
        estimator: Any = classes[kind](**params)
    except TypeError as error:
        raise ModelFileError(
            f"the model '{path}' has parameters that this release of streamgmm does not know "
            f"({error}); install streamgmm {version} or newer"
        ) from error
    return estimator
