"""What a checkpoint holds, as JSON and arrays of float64 that are written once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import CheckpointError
from streamgmm.model.families import parse_family, settings_of
from streamgmm.model.mixture import Mixture, Statistics

Put = Callable[[Any], int]


@dataclass(frozen=True)
class Record:
    """Where a value lies: in the array `part`, from `offset`; `what` says how to read it."""

    part: str
    offset: int
    what: list[Any]


def encode(value: Any, put: Put) -> Any:
    """Give `value` as JSON; statistics, mixtures and arrays are `put` elsewhere.

    >>> encode({"a": (1, math.inf), "b": np.zeros(2)}, lambda value: 7)
    {'dict': {'a': [1, {'float': 'inf'}], 'b': {'value': 7}}}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, (list, tuple)):
        return [encode(item, put) for item in value]
    if isinstance(value, Mapping):
        return {"dict": {key: encode(item, put) for key, item in value.items()}}
    known = isinstance(value, (Statistics, Mixture, np.ndarray)) or hasattr(value, "arrays")
    assert known, f"a checkpoint has no word for a {type(value).__name__}"
    return {"value": put(value)}


def decode(value: Any, values: Sequence[Any]) -> Any:
    """Give back what `encode` was given, tuples as lists."""
    if isinstance(value, list):
        return [decode(item, values) for item in value]
    if not isinstance(value, dict):
        return value
    ((what, inner),) = value.items()
    if what == "float":
        return float(inner)
    if what == "value":
        return values[inner]
    if what == "dict":
        return {key: decode(item, values) for key, item in inner.items()}
    raise CheckpointError(f"a value of unknown kind '{what}'")


def flatten(value: Any) -> tuple[list[Any], list[NDArray[Any]]]:
    """How to read a value, and the arrays of one dtype that it is."""
    if isinstance(value, np.ndarray):
        return ["array", value.dtype.name, list(value.shape)], [value]
    if isinstance(value, Statistics):
        (_, *what), arrays = flatten(value.components)
        sums = [value.n_rows, value.weight, value.log_likelihood, value.entropy]
        return ["statistics", *what], [np.array(sums, np.float64), *arrays]
    if isinstance(value, Mixture):
        named = value.components.arrays()
        what = [value.family.name, settings_of(value.family)]
        return ["mixture", *what, _shapes(named)], [value.weights, *named.values()]
    named = value.arrays()
    return ["components", value.kind, _shapes(named)], list(named.values())


def restore(what: Sequence[Any], flat: NDArray[Any]) -> Any:
    """Make a value from the front of a flat array; the inverse of `flatten`.

    Raises
    ------
    ParameterError
        If it is of a family that this installation does not know.

    Examples
    --------
    >>> restore(*[f(x) for x in [flatten(np.eye(2))] for f in (lambda x: x[0], lambda x: x[1][0])])
    array([[1., 0.],
           [0., 1.]])
    """
    flat = flat.reshape(-1)
    kind, name, *rest = what
    if kind == "array":
        return _take(flat, {"": rest[0]})[""]
    if kind == "mixture":
        settings, shapes = rest
        k = next(iter(shapes.values()))[0]
        arrays = _take(flat, {"weights": [k]} | shapes)
        family = parse_family(name, settings)
        return Mixture(arrays.pop("weights"), family.components(**arrays))
    (shapes,) = rest
    if kind == "components":
        return parse_family(name).statistics(**_take(flat, shapes))
    if kind == "statistics":
        n_rows, weight, log_likelihood, entropy = flat[:4].tolist()
        components = parse_family(name).statistics(**_take(flat[4:], shapes))
        return Statistics(int(n_rows), weight, log_likelihood, entropy, components)
    raise CheckpointError(f"a value of unknown kind '{kind}'")


def _shapes(arrays: Mapping[str, NDArray[Any]]) -> dict[str, list[int]]:
    return {name: list(array.shape) for name, array in arrays.items()}


def _take(flat: NDArray[Any], shapes: Mapping[str, Sequence[int]]) -> dict[str, NDArray[Any]]:
    out, offset = {}, 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        out[name] = flat[offset : offset + size].reshape(tuple(shape)).copy()
        offset += size
    return out
