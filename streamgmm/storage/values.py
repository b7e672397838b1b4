"""Parameters and attributes as JSON, with the arrays among them put aside."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import ModelFileError, ParameterError


def is_numeric(value: object) -> bool:
    """Whether `value` is an array of booleans, integers or real numbers."""
    return isinstance(value, np.ndarray) and value.dtype.kind in "biuf"


def encode(name: str, value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    """Give `value` as JSON; arrays of numbers are put in `arrays` and referred to.

    What JSON has no word for is an object of one key, its kind.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, os.PathLike):
        value = os.fsdecode(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else {"float": repr(value)}
    if isinstance(value, np.ndarray):
        if is_numeric(value):
            arrays[name] = value
            return {"array": name}
        flat = value.tolist()
        if value.ndim == 1 and all(isinstance(item, str) for item in flat):
            return {"strings": flat}
    if isinstance(value, (list, tuple)):
        items = [encode(f"{name}/{i}", item, arrays) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, Mapping) and all(isinstance(k, str) and k.isidentifier() for k in value):
        return {"dict": {k: encode(f"{name}/{k}", v, arrays) for k, v in value.items()}}
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


def decode(value: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    """Give back what `encode` was given."""
    if isinstance(value, list):
        return [decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    ((what, inner),) = value.items()
    if what == "float":
        return float(inner)
    if what == "array":
        return arrays[inner]
    if what == "strings":
        return np.array(inner, dtype=object)
    if what == "tuple":
        return tuple(decode(item, arrays) for item in inner)
    if what == "dict":
        return {k: decode(v, arrays) for k, v in inner.items()}
    if what == "random_state":
        random = np.random.RandomState()
        random.set_state(inner)
        return random
    raise ModelFileError(f"a value of unknown kind '{what}'")
