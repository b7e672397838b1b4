"""A mixture of any family as a model file, and back."""

from __future__ import annotations

import os
from typing import Any

from streamgmm.errors import ModelFileError, ParameterError
from streamgmm.model.families import parse_family, settings_of
from streamgmm.model.mixture import Mixture
from streamgmm.storage.model import load_group, save_model

_KIND = "Mixture"


def save_mixture(
    path: str | os.PathLike[str],
    mixture: Mixture,
    overwrite: bool = False,
    storage_options: dict[str, Any] | None = None,
) -> None:
    """Write weights and components, with the name and the settings of their family.

    Parameters
    ----------
    path, overwrite, storage_options
        As for `save_model`.
    mixture : Mixture

    Raises
    ------
    OutputExistsError, OutputError, ParameterError
        As `save_model`.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> path = tempfile.mkdtemp() + "/model.zarr"
    >>> save_mixture(path, Mixture.of("poisson", np.ones(1), np.full((1, 2), 3.0)))
    >>> load_mixture(path).components.arrays()
    {'rates': array([[3., 3.]])}
    """
    family = mixture.family
    params = {"family": family.name, "settings": settings_of(family)}
    arrays = {"weights": mixture.weights, **mixture.components.arrays()}
    save_model(path, _KIND, params, arrays, {}, overwrite, storage_options)


def load_mixture(
    path: str | os.PathLike[str], storage_options: dict[str, Any] | None = None
) -> Mixture:
    """Read what `save_mixture` wrote.

    Raises
    ------
    ModelNotFoundError
        If there is nothing.
    ModelFileError
        If it is no such model, or a damaged one; or if its family is not known to this
        installation, by its name.
    """
    stored = load_group(path, storage_options)
    if stored.kind != _KIND:
        raise ModelFileError(f"the model '{path}' is a {stored.kind}; load it as one")
    try:
        family = parse_family(stored.params["family"], stored.params["settings"])
    except ParameterError as error:
        raise ModelFileError(f"the model '{path}' cannot be loaded: {error}") from error
    arrays = dict(stored.arrays)
    return Mixture(arrays.pop("weights"), family.components(**arrays))
