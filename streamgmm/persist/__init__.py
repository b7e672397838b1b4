"""Models on disk: Zarr groups with a format version, readable by any Zarr reader.

Nothing is pickled and loading runs no code: parameters and scalars are JSON in the attributes
of the group, arrays are arrays, and a SHA-256 of each is held beside them.

Only the metadata at the root makes a model. It is written last, in one step, and says where the
arrays are: a model that is saved over lies in the group's other slot until that moment. So a
process that is killed, or a disk that fills, leaves the old model or, where there was none,
something that says it is unfinished. This holds on file systems and object stores alike.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from streamgmm.errors import ModelFileError, ParameterError
from streamgmm.persist.model import StoredModel, check_free, is_model, load_group, save_model
from streamgmm.persist.values import is_numeric

__all__ = [
    "KINDS",
    "StoredModel",
    "check_free",
    "is_model",
    "load",
    "load_group",
    "save",
    "save_model",
]

KINDS = {
    "GaussianMixture": "streamgmm.estimators",
    "OnlineGaussianMixture": "streamgmm.online_estimator",
}
"""Where the class of each kind of model is defined."""


def save(
    estimator: Any,
    path: str | os.PathLike[str],
    overwrite: bool = False,
    storage_options: dict[str, Any] | None = None,
) -> None:
    """Save a fitted estimator: its parameters, and all that its fit has left.

    Parameters
    ----------
    estimator : object
        With ``get_params`` and attributes whose names end in ``_``.
    path : str, path-like or URL
        As for `save_model`.
    overwrite : bool
    storage_options : dict, optional

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
    if kind not in KINDS:
        raise ParameterError(f"a {kind} cannot be saved; only {', '.join(KINDS)} can")
    fitted = {
        name: value
        for name, value in sorted(vars(estimator).items())
        if name.endswith("_") and not name.startswith("_")
    }
    arrays = {name: value for name, value in fitted.items() if is_numeric(value)}
    attrs = {name: value for name, value in fitted.items() if name not in arrays}
    save_model(
        path, kind, estimator.get_params(deep=False), arrays, attrs, overwrite, storage_options
    )


def load(path: str | os.PathLike[str], storage_options: dict[str, Any] | None = None) -> Any:
    """Load a model: an estimator of the class that was saved, fitted as it was.

    Parameters
    ----------
    path : str, path-like or URL
    storage_options : dict, optional
        For the fsspec file system of a URL.

    Raises
    ------
    ModelNotFoundError
        If there is nothing.
    ModelFileError
        If it is no model, one of a newer format, unfinished or damaged.

    Examples
    --------
    >>> load("nowhere.zarr")
    Traceback (most recent call last):
    ...
    streamgmm.errors.ModelNotFoundError: there is no model at 'nowhere.zarr'
    """
    stored = load_group(path, storage_options)
    if stored.kind not in KINDS:
        raise ModelFileError(
            f"the model '{path}' is a {stored.kind}, which this release of streamgmm does not "
            f"know; install streamgmm {stored.version} or newer"
        )
    cls = getattr(importlib.import_module(KINDS[stored.kind]), stored.kind)
    try:
        estimator = cls(**stored.params)
    except TypeError as error:
        raise ModelFileError(
            f"the model '{path}' has parameters that this release of streamgmm does not know "
            f"({error}); install streamgmm {stored.version} or newer"
        ) from error
    vars(estimator).update(stored.attrs | stored.arrays)
    return estimator
