"""Values as JSON and arrays, and back: one codec for models, checkpoints and online states.

JSON has no word for NaN, tuples or arrays. Each is written as an object of one key, its kind:

========================= =========================================================
``{"float": …}``          NaN or infinity, as Python writes it
``{"tuple": […]}``        a tuple
``{"dict": {…}}``         a dict, whose keys are identifiers
``{"array": …}``          an array of numbers; whoever encodes says where it is
``{"strings": […]}``      a one-dimensional array of strings
``{"packed": {…}}``       a value whose arrays are stored as one for each dtype
``{"shared": …}``         a value in a table beside this one
``{"random_state": {…}}`` the state of a ``numpy.random.RandomState``
``{<name>: {…}}``         a type of our own, by its fields
========================= =========================================================

Nothing is pickled, and decoding runs no code of the file's.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import ModelFileError, ParameterError
from streamgmm.model.components import ComponentStatistics, Family
from streamgmm.model.families import parse_family, settings_of
from streamgmm.model.families.own import family_of, is_family
from streamgmm.model.mixture import Mixture, Statistics

Array = NDArray[Any]
Put = Callable[[str, Array], Any]
Get = Callable[[Any], Array]
Share = Callable[[Any], int]


@dataclass(frozen=True)
class ValueType:
    """How a value of our own is taken apart into fields, and put together again.

    Fields are anything that `encode` takes, and are flat where they can be.
    """

    apart: Callable[[Any], dict[str, Any]]
    together: Callable[[dict[str, Any]], Any]


def _parts_apart(parts: ComponentStatistics) -> dict[str, Any]:
    return {"kind": parts.kind, **parts.arrays()}


def _parts_together(found: dict[str, Any]) -> ComponentStatistics:
    return parse_family(found.pop("kind")).statistics(**found)


def _statistics_apart(statistics: Statistics) -> dict[str, Any]:
    found = {each.name: getattr(statistics, each.name) for each in fields(statistics)}
    parts = _parts_apart(found.pop("components"))
    return found | {f"component_{name}": value for name, value in parts.items()}


def _statistics_together(found: dict[str, Any]) -> Statistics:
    prefix = "component_"
    parts = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
    rest = {k: v for k, v in found.items() if not k.startswith(prefix)}
    return Statistics(**rest, components=_parts_together(parts))


def _mixture_apart(mixture: Mixture) -> dict[str, Any]:
    family = mixture.family
    named = {"family": family.name, "settings": settings_of(family), "weights": mixture.weights}
    return named | mixture.components.arrays()


def _mixture_together(found: dict[str, Any]) -> Mixture:
    family = parse_family(found.pop("family"), found.pop("settings"))
    return Mixture(found.pop("weights"), family.components(**found))


def _family_apart(family: Any) -> dict[str, Any]:
    family = family_of(family)  # a class is one without settings
    return {"name": family.name, "settings": settings_of(family)}


def _family_together(found: dict[str, Any]) -> Family:
    return parse_family(found["name"], found["settings"])


COMPONENTS = ValueType(_parts_apart, _parts_together)
"""Statistics of components, of whatever family."""

STATISTICS = ValueType(_statistics_apart, _statistics_together)

_TYPES: dict[str, ValueType] = {
    "components": COMPONENTS,
    "statistics": STATISTICS,
    "mixture": ValueType(_mixture_apart, _mixture_together),
    "family": ValueType(_family_apart, _family_together),
}
"""The types of our own that may be saved, by the name they have on disk."""


def _type_of(value: object) -> str | None:
    """The name on disk of a type of our own."""
    if isinstance(value, Statistics):
        return "statistics"
    if isinstance(value, Mixture):
        return "mixture"
    if is_family(value):
        return "family"
    return "components" if hasattr(value, "arrays") and hasattr(value, "kind") else None


class Packer:
    """Many small arrays as one flat array for each dtype, since a file each is slow to write."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[Array]] = {}
        self._sizes: dict[str, int] = {}

    def put(self, array: Array) -> tuple[str, int, list[int]]:
        """Take an array; give its dtype, where it begins in the flat array, and its shape."""
        dtype = array.dtype.name
        offset = self._sizes.get(dtype, 0)
        self._pieces.setdefault(dtype, []).append(array.reshape(-1))
        self._sizes[dtype] = offset + array.size
        return dtype, offset, list(array.shape)

    def flat(self) -> dict[str, Array]:
        """Give the flat arrays, by dtype."""
        return {dtype: np.concatenate(pieces) for dtype, pieces in self._pieces.items()}


def take(flat: Array, offset: int, shape: Sequence[int]) -> Array:
    """Copy an array out of a flat one, which the copy does not keep in memory."""
    return flat[offset : offset + math.prod(shape)].reshape(shape).copy()


@dataclass(frozen=True)
class Packed:
    """A value whose arrays are to be stored as one for each dtype; decoded as the value."""

    value: Any


def is_numeric(value: object) -> bool:
    """Whether `value` is an array of booleans, integers or real numbers."""
    return isinstance(value, np.ndarray) and value.dtype.kind in "biuf"


def encode(name: str, value: Any, put: Put, share: Share | None = None) -> Any:
    """Give `value` as JSON; each array of numbers goes to `put`.

    Parameters
    ----------
    name : str
        What errors call it; arrays inside are ``name/key``.
    value : object
        None, bool, int, float, str, a path, an array of numbers or strings, a `RandomState`, a
        type of our own, or a list, tuple, dict or `Packed` of these.
    put : callable
        Called with the name and the array; what it gives, which is JSON, is `decode`'s `get`
        called with.
    share : callable, optional
        Called with each value of a type of our own, which it puts into a table; gives its index
        there. By default such values are encoded in place.

    Raises
    ------
    ParameterError
        If a value has no place in a file without code: a function, a generator.

    Examples
    --------
    >>> encode("x", {"a": (1, math.inf), "b": np.zeros(2)}, lambda name, array: name)
    {'dict': {'a': {'tuple': [1, {'float': 'inf'}]}, 'b': {'array': 'x/b'}}}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, os.PathLike):
        value = os.fsdecode(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, np.ndarray):
        if is_numeric(value):
            return {"array": put(name, value)}
        flat = value.tolist()
        if value.ndim == 1 and all(isinstance(item, str) for item in flat):
            return {"strings": flat}
    if isinstance(value, (list, tuple)):
        items = [encode(f"{name}/{i}", item, put, share) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, Mapping) and all(isinstance(k, str) and k.isidentifier() for k in value):
        return {"dict": _encode_fields(name, value, put, share)}
    if (kind := _type_of(value)) is not None:
        if share is not None:
            return {"shared": share(value)}
        return {kind: _encode_fields(name, _TYPES[kind].apart(value), put)}
    if isinstance(value, Packed):
        packer = Packer()
        inner = encode(name, value.value, lambda _, array: packer.put(array))
        flat = _encode_fields(name, packer.flat(), put)
        return {"packed": {"value": inner, "arrays": flat}}
    if isinstance(value, np.random.RandomState):
        state: Any = value.get_state(legacy=False)
        if state["bit_generator"] == "MT19937":
            key = state["state"]["key"].tolist()
            return {"random_state": state | {"state": state["state"] | {"key": key}}}
    raise ParameterError(
        f"{name} is a {type(value).__name__}, which cannot be saved in a file that holds no "
        "code; give it as numbers, strings or arrays"
        + (", or random_state as an int" if "random" in name else "")
    )


def _encode_fields(
    name: str, found: Mapping[str, Any], put: Put, share: Share | None = None
) -> dict[str, Any]:
    return {key: encode(f"{name}/{key}", value, put, share) for key, value in found.items()}


def decode(value: Any, get: Get, shared: Sequence[Any] = ()) -> Any:
    """Give back what `encode` was given.

    Parameters
    ----------
    value : JSON
        From `encode`.
    get : callable
        Called with what `put` gave for an array; gives the array.
    shared : sequence
        The table of values that `share` has filled.

    Raises
    ------
    ModelFileError
        If a kind of value is not known.
    ParameterError
        If a family is not known to this installation.

    Examples
    --------
    >>> decode({"tuple": [{"array": 7}, {"float": "nan"}]}, lambda where: np.arange(where))
    (array([0, 1, 2, 3, 4, 5, 6]), nan)
    """
    if isinstance(value, list):
        return [decode(item, get, shared) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "float":
        return float(inner)
    if kind == "array":
        return get(inner)
    if kind == "shared":
        return shared[inner]
    if kind == "strings":
        return np.array(inner, dtype=object)
    if kind == "tuple":
        return tuple(decode(item, get, shared) for item in inner)
    if kind == "random_state":
        random = np.random.RandomState()
        random.set_state(inner)
        return random
    if kind == "packed":
        flat = {dtype: decode(item, get) for dtype, item in inner["arrays"].items()}
        return decode(inner["value"], lambda at: take(flat[at[0]], *at[1:]))
    if kind != "dict" and kind not in _TYPES:
        raise ModelFileError(f"a value of unknown kind '{kind}'")
    found = {key: decode(item, get, shared) for key, item in inner.items()}
    return found if kind == "dict" else _TYPES[kind].together(found)
