"""Save and load a model: its kind, parameters, arrays and attributes, in one atomic step."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm._version import __version__
from streamgmm.errors import (
    ModelFileError,
    ModelNotFoundError,
    OutputError,
    OutputExistsError,
)
from streamgmm.places import Place, ZarrStore
from streamgmm.storage.group import AtomicGroup, DamagedError, describe, digest
from streamgmm.storage.values import decode, encode

FORMAT = "streamgmm"
FORMAT_VERSION = 2  # 1 knew no packed values
_SLOTS = ("", "alternate/")
_READ_TRIES = 3

Where = str | os.PathLike[str] | ZarrStore | Place


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
    path: Where,
    kind: str,
    params: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    attrs: Mapping[str, Any],
    overwrite: bool = False,
    storage_options: dict[str, Any] | None = None,
) -> None:
    """Write a model as a Zarr group, in one atomic step.

    Parameters
    ----------
    path : str, path-like, URL or Place
        A URL is opened by fsspec.
    kind : str
    params, attrs : dict
        Values that `streamgmm.storage.values.encode` takes.
    arrays : dict of str to ndarray
        Stored as ``path/name``.
    overwrite : bool
        Whether an existing model may be replaced. Anything else is never replaced.
    storage_options : dict, optional
        For the fsspec file system of a URL.

    Raises
    ------
    OutputExistsError
        If there is something at `path`, and it is no model or `overwrite` is false.
    OutputError
        If it could not be written; an older model is still there.
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
    group = AtomicGroup(Place.parse(path, storage_options))
    every: dict[str, NDArray[Any]] = {}

    def put(name: str, array: NDArray[Any]) -> str:
        every[name] = array
        return name

    fitted = {name: np.asarray(array) for name, array in arrays.items()} | dict(attrs)
    meta: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "streamgmm_version": __version__,
        "kind": kind,
        "params": {k: encode(f"params/{k}", v, put) for k, v in params.items()},
        "fitted": {k: encode(k, v, put) for k, v in fitted.items()},
        "arrays": {name: describe(array) for name, array in every.items()},
    }
    old = _check_free(group, overwrite)
    old_slot = _SLOTS[1] if old is None else old.get("slot")
    meta["slot"] = _SLOTS[0] if old_slot == _SLOTS[1] else _SLOTS[1]
    meta["sha256"] = digest(meta)
    try:
        if old is None:
            group.commit({"format": FORMAT, "format_version": FORMAT_VERSION, "kind": None})
        for name, array in every.items():
            group.write(meta["slot"] + name, array)
        group.sync()
        group.commit(meta)
    except BaseException as error:
        if old is None:
            group.clear()
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
        group.remove([f"{old_slot}{name}" for name in old.get("arrays", ())])


def check_free(
    path: Where,
    overwrite: bool = False,
    storage_options: dict[str, Any] | None = None,
) -> None:
    """Check, before the work that makes a model, that it may be saved.

    Raises
    ------
    OutputExistsError
        As `save_model`.
    """
    _check_free(AtomicGroup(Place.parse(path, storage_options)), overwrite)


def is_model(path: Where, storage_options: dict[str, Any] | None = None) -> bool:
    """Whether there is a model at `path`, be it unfinished or damaged.

    Examples
    --------
    >>> is_model("nowhere.zarr")
    False
    """
    try:
        _any_meta(AtomicGroup(Place.parse(path, storage_options)))
    except ModelFileError:
        return False
    return True


def load_group(path: Where, storage_options: dict[str, Any] | None = None) -> StoredModel:
    """Read a model file and verify all of it.

    If another process replaces the model meanwhile, the new one is read.

    Parameters
    ----------
    path : str, path-like, URL or Place
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
    group = AtomicGroup(Place.parse(path, storage_options))
    meta = _whole_meta(group)
    for attempt in range(1, _READ_TRIES + 1):
        try:
            every = {
                name: group.read(meta["slot"] + name, name, wanted)
                for name, wanted in meta["arrays"].items()
            }
            break
        except DamagedError as error:
            latest = _whole_meta(group)
            if latest["sha256"] == meta["sha256"] or attempt == _READ_TRIES:
                raise _damaged(group.place, str(error)) from error.__cause__
            meta = latest
    fitted = {k: decode(v, every.__getitem__) for k, v in meta["fitted"].items()}
    arrays = {k: v for k, v in fitted.items() if k in every}
    return StoredModel(
        meta["kind"],
        {k: decode(v, every.__getitem__) for k, v in meta["params"].items()},
        arrays,
        {k: v for k, v in fitted.items() if k not in arrays},
        meta["streamgmm_version"],
    )


def is_unfinished(path: Where) -> bool:
    """Whether a model is being written at `path`, or its writer ended before it was whole.

    Raises
    ------
    ModelNotFoundError, ModelFileError
        If there is no model.
    """
    return _is_unfinished(_any_meta(AtomicGroup(Place.parse(path))))


def _is_unfinished(meta: Mapping[str, Any]) -> bool:
    return "kind" in meta and meta["kind"] is None


def _any_meta(group: AtomicGroup) -> dict[str, Any]:
    """Metadata of the model at a place, finished or not; the error says what else is there."""
    import zarr

    place = group.place
    try:
        node = group.node()
    except NotADirectoryError:
        raise ModelFileError(f"'{place}' is a file, not a model") from None
    except DamagedError as error:
        raise ModelFileError(
            f"'{place}' is no model that can be read: {error}"
        ) from error.__cause__
    if isinstance(node, zarr.Array):
        raise ModelFileError(f"'{place}' is a Zarr array of shape {node.shape}, not a model")
    if node is None:
        if place.directory is None or not place.directory.exists():
            raise ModelNotFoundError(f"there is no model at '{place}'")
        raise ModelFileError(f"'{place}' is a directory, not a model")
    meta = dict(node.attrs)
    if meta.get("format") != FORMAT:
        if not meta and place.directory is None and set(node.keys()) <= {"lock"}:
            raise ModelNotFoundError(f"there is no model at '{place}'")
        arrays = ", ".join(f"'{key}'" for key in sorted(node.array_keys())[:12])
        held = f" that holds {arrays}" if arrays else ""
        raise ModelFileError(f"'{place}' is a Zarr group{held}, not a streamgmm model")
    return meta


def _whole_meta(group: AtomicGroup) -> dict[str, Any]:
    """Metadata of the finished model at a place, verified."""
    meta, place = _any_meta(group), group.place
    version = meta.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        writer = meta.get("streamgmm_version")
        wanted = f"streamgmm>={writer}" if isinstance(writer, str) else "streamgmm"
        raise ModelFileError(
            f"the model '{place}' has format {version}; streamgmm {__version__} reads "
            f"formats up to {FORMAT_VERSION}: pip install --upgrade '{wanted}'"
        )
    if _is_unfinished(meta):
        raise ModelFileError(
            f"the model '{place}' is unfinished: what wrote it was ended; save it again"
        )
    if meta.get("sha256") != digest(meta):
        raise _damaged(place, "its metadata is not what was saved")
    return meta


def _damaged(place: Place, what: str) -> ModelFileError:
    return ModelFileError(
        f"the model '{place}' is damaged: {what}; restore it from a copy or fit it again"
    )


def _check_free(group: AtomicGroup, overwrite: bool) -> dict[str, Any] | None:
    """Check that a model may be written at a place; give the metadata of one to replace."""
    place = group.place
    folder = place.directory
    if folder is not None and folder.is_dir() and not any(folder.iterdir()):
        return None
    try:
        meta = _any_meta(group)
    except ModelNotFoundError:
        return None
    except ModelFileError as error:
        raise OutputExistsError(
            f"{error}; it is not replaced: give another path, or remove it first"
        ) from error
    if _is_unfinished(meta):
        return None
    if not overwrite:
        raise OutputExistsError(
            f"'{place}' exists; pass overwrite=True to replace it, or another path"
        )
    return meta
