"""Fitted estimators to model files."""

from __future__ import annotations

import os
from typing import Any

from streamgmm.errors import ParameterError
from streamgmm.places import Place, ZarrStore
from streamgmm.storage import is_numeric, save_model

KINDS = (
    "GaussianMixture",
    "KMeans",
    "MixtureModel",
    "MixtureRegressor",
    "OnlineGaussianMixture",
    "PCA",
    "RobustScaler",
    "StandardScaler",
)
"""The classes that can be saved, by name, as `streamgmm.estimators.loading` knows them."""


def save(
    estimator: Any,
    path: str | os.PathLike[str] | ZarrStore | Place,
    overwrite: bool = False,
    storage_options: dict[str, Any] | None = None,
    **more: Any,
) -> None:
    """Save a fitted estimator: its parameters, and all that its fit has left.

    Parameters
    ----------
    estimator : object
        With ``get_params`` and attributes whose names end in ``_``.
    path : str, path-like, URL or Zarr store
        As for `save_model`.
    overwrite : bool
    storage_options : dict, optional
    **more
        What is saved beside it, by name.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If it has not been fitted.
    OutputExistsError, OutputError, ParameterError
        As `save_model`.
    """
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(estimator)
    kind = type(estimator).__name__
    params = params_of(estimator)
    if kind not in KINDS:
        raise ParameterError(f"a {kind} cannot be saved; only {', '.join(KINDS)} can")
    fitted = fitted_of(estimator) | more
    arrays = {name: value for name, value in fitted.items() if is_numeric(value)}
    attrs = {name: value for name, value in fitted.items() if name not in arrays}
    save_model(path, kind, params, arrays, attrs, overwrite, storage_options)


def params_of(estimator: Any) -> dict[str, Any]:
    """The parameters, less stores of Zarr, which are of this process alone."""
    return {
        name: None if isinstance(value, ZarrStore) else value
        for name, value in estimator.get_params(deep=False).items()
    }


def fitted_of(estimator: Any) -> dict[str, Any]:
    """What a fit has left, by name."""
    return {
        name: value
        for name, value in sorted(vars(estimator).items())
        if name.endswith("_") and not name.startswith("_")
    }
