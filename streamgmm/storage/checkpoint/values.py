"""What a checkpoint holds, as JSON and arrays of float64 that are written once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import CheckpointError
from streamgmm.model.families import FAMILIES
from streamgmm.model.mixture import Mixture, Statistics
from streamgmm.model.moments import Moments

Put = Callable[[Any], int]
_VALUES = (Statistics, Mixture, Moments, np.ndarray)


@dataclass(frozen=True)
class Record:
    """Where a value lies: in the array `part`, from `offset`; `what` says how to read it."""

    part: str
    offset: int
    what: list[Any]


def encode(value: Any, put: Put) -> Any:
    """Give `value` as JSON; statistics, mixtures, moments and arrays are `put` elsewhere.

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
    assert isinstance(value, _VALUES), f"a checkpoint has no word for a {type(value).__name__}"
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
    if isinstance(value, Statistics):
        moments = value.components
        what, arrays = flatten(moments)
        sums = [value.n_rows, value.weight, value.log_likelihood, value.entropy]
        return ["statistics", *what[1:]], [np.array(sums, np.float64), *arrays]
    if isinstance(value, Moments):
        arrays = [value.weight, value.mean, value.scatter]
        return ["moments", value.kind, *value.mean.shape], arrays
    if isinstance(value, Mixture):
        arrays = [value.weights, value.means, value.covariances, value.precisions_cholesky]
        return ["mixture", value.family.name, *value.means.shape], arrays
    return ["array", value.dtype.name, *value.shape], [value]


def restore(what: Sequence[Any], flat: NDArray[Any]) -> Any:
    """Make a value from the front of a flat array; the inverse of `flatten`.

    >>> restore(*[f(x) for x in [flatten(np.eye(2))] for f in (lambda x: x[0], lambda x: x[1][0])])
    array([[1., 0.],
           [0., 1.]])
    """
    flat = flat.reshape(-1)
    kind, name, *shape = what
    if kind == "array":
        return _take(flat, [tuple(shape)])[0]
    k, d = shape
    scatter = FAMILIES[name].covariance_shape(k, d)
    if kind == "mixture":
        parts = _take(flat, [(k,), (k, d), scatter, scatter])
        return Mixture(FAMILIES[name], *parts)
    if kind == "moments":
        return Moments(name, *_take(flat, [(k,), (k, d), scatter]))
    if kind == "statistics":
        n_rows, weight, log_likelihood, entropy = flat[:4].tolist()
        moments = Moments(name, *_take(flat[4:], [(k,), (k, d), scatter]))
        return Statistics(int(n_rows), weight, log_likelihood, entropy, moments)
    raise CheckpointError(f"a value of unknown kind '{kind}'")


def _take(flat: NDArray[Any], shapes: Sequence[tuple[int, ...]]) -> list[NDArray[Any]]:
    out, offset = [], 0
    for shape in shapes:
        size = math.prod(shape)
        out.append(flat[offset : offset + size].reshape(shape).copy())
        offset += size
    return out
