"""A model as values: its kind, parameters, arrays and attributes, written and read whole."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm._version import __version__
from streamgmm.errors import ModelFileError, OutputError
from streamgmm.storage.place import FORMAT, FORMAT_VERSION, Place, describe, digest
from streamgmm.storage.values import decode, encode

_SLOTS = ("", "alternate/")
_READ_TRIES = 3


@dataclass(frozen=True)
class StoredModel:
    """What a model file holds.

    Attributes
    ----------
    kind : str
        Name of the class.
    params : dict
        Parameters of the constructor.
    arrays : dict of str to ndarray
    attrs : dict
        Everything else that was fitted.
    version : str
        The release of streamgmm that wrote it.
    """

    kind: str
    params: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    attrs: dict[str, Any]
    version: str = ""


def save_model(
    path: str | os.PathLike[str],
    kind: str,
    params: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    attrs: Mapping[str, Any],
    overwrite: bool = False,
    storage_options: dict[str, Any] | None = None,
) -> None:
    """Write a model as a Zarr group, whole or not at all.

    Parameters
    ----------
    path : str, path-like or URL
        A URL is opened by fsspec.
    kind : str
    params, attrs : dict
        Values are None, bool, int, float, str, arrays of numbers or strings,
        ``numpy.random.RandomState``, and lists, tuples and dicts of these.
    arrays : dict of str to ndarray
        Stored as ``path/name``.
    overwrite : bool
        Whether a model that is there may be replaced. What is no model never is.
    storage_options : dict, optional
        For the fsspec file system of a URL.

    Raises
    ------
    OutputExistsError
        If there is something at `path`, and it is no model or `overwrite` is false.
    OutputError
        If it could not be written whole; an older model is still there.
    ParameterError
        If a value has no place in a file without code: a function, a generator.

    Examples
    --------
    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/model.zarr"
    >>> save_model(path, "GaussianMixture", {"tol": 1e-3}, {"weights_": np.ones(1)}, {"n": 5})
    >>> stored = load_group(path)
    >>> stored.kind, stored.params, stored.arrays, stored.attrs
    ('GaussianMixture', {'tol': 0.001}, {'weights_': array([1.])}, {'n': 5})
    """
    where = Place.parse(path, storage_options)
    every: dict[str, NDArray[Any]] = {}
    fitted = {name: np.asarray(array) for name, array in arrays.items()} | dict(attrs)
    meta: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "streamgmm_version": __version__,
        "kind": kind,
        "params": {k: encode(f"params/{k}", v, every) for k, v in params.items()},
        "fitted": {k: encode(k, v, every) for k, v in fitted.items()},
        "arrays": {name: describe(array) for name, array in every.items()},
    }
    old = where.check_free(overwrite)
    old_slot = _SLOTS[1] if old is None else old.get("slot")
    meta["slot"] = _SLOTS[0] if old_slot == _SLOTS[1] else _SLOTS[1]
    meta["sha256"] = digest(meta)
    try:
        if old is None:
            where.commit({"format": FORMAT, "format_version": FORMAT_VERSION, "kind": None})
        for name, array in every.items():
            where.write(meta["slot"] + name, array)
        where.settle()
        where.commit(meta)
    except BaseException as error:
        if old is None:
            where.clear()
        if isinstance(error, OSError):
            kept = (
                "nothing is there that looks whole"
                if old is None
                else "the older model is still there"
            )
            raise OutputError(
                f"the model '{path}' could not be written ({error}); {kept}"
            ) from error
        raise
    if old is not None:
        where.remove([f"{old_slot}{name}" for name in old.get("arrays", ())])


def check_free(
    path: str | os.PathLike[str],
    overwrite: bool = False,
    storage_options: dict[str, Any] | None = None,
) -> None:
    """Check, before the work that makes a model, that it may be saved.

    Raises
    ------
    OutputExistsError
        As `save_model`.
    """
    Place.parse(path, storage_options).check_free(overwrite)


def is_model(path: str | os.PathLike[str], storage_options: dict[str, Any] | None = None) -> bool:
    """Whether there is a model at `path`, be it unfinished or damaged.

    Examples
    --------
    >>> is_model("nowhere.zarr")
    False
    """
    try:
        Place.parse(path, storage_options).meta()
    except ModelFileError:
        return False
    return True


def load_group(
    path: str | os.PathLike[str], storage_options: dict[str, Any] | None = None
) -> StoredModel:
    """Read a model file and verify all of it.

    A model that is replaced meanwhile is read again.

    Parameters
    ----------
    path : str, path-like or URL
    storage_options : dict, optional

    Returns
    -------
    StoredModel

    Raises
    ------
    ModelNotFoundError
        If there is nothing.
    ModelFileError
        If it is no model, one of a newer format, unfinished or damaged.
    """
    where = Place.parse(path, storage_options)
    meta = where.model()
    for attempt in range(1, _READ_TRIES + 1):
        try:
            every = {
                name: where.read(meta["slot"] + name, name, wanted)
                for name, wanted in meta["arrays"].items()
            }
            break
        except ModelFileError:
            latest = where.model()
            if latest["sha256"] == meta["sha256"] or attempt == _READ_TRIES:
                raise
            meta = latest
    fitted = {k: decode(v, every) for k, v in meta["fitted"].items()}
    arrays = {k: v for k, v in fitted.items() if k in every}
    return StoredModel(
        meta["kind"],
        {k: decode(v, every) for k, v in meta["params"].items()},
        arrays,
        {k: v for k, v in fitted.items() if k not in arrays},
        meta["streamgmm_version"],
    )
