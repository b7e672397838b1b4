"""One codec: what is encoded comes back, whoever keeps the arrays."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from streamgmm.errors import ModelFileError, ParameterError
from streamgmm.model.mixture import Mixture, Statistics
from streamgmm.model.moments import Moments
from streamgmm.storage.values import Packed, decode, encode

rng = np.random.default_rng(0)


def same(a, b):
    """Whether two values are the same to the last bit, and of the same types."""
    if is_dataclass(a) and type(a) is type(b):
        return all(same(getattr(a, each.name), getattr(b, each.name)) for each in fields(a))
    if isinstance(a, np.ndarray):
        return (a.dtype, a.shape) == (b.dtype, b.shape) and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return (
            type(a) is type(b)
            and len(a) == len(b)
            and all(same(x, y) for x, y in zip(a, b, strict=True))
        )
    return a is b or (type(a) is type(b) and (a == b or (a != a and b != b)))


NAMES = st.text("abcxyz_", min_size=1, max_size=5)
ARRAYS = hnp.arrays(
    st.sampled_from(["f8", "f4", "i8", "i4", "u1", "?", "u8"]),
    hnp.array_shapes(min_dims=0, min_side=0, max_side=4),
)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | ARRAYS
NESTED = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(NAMES, inner, max_size=4)
    ),
    max_leaves=12,
)


def through_json(value):
    """What comes back, and the arrays that were kept beside the JSON."""
    arrays = []

    def put(name, array):
        arrays.append(array)
        return len(arrays) - 1

    text = json.dumps(encode("x", value, put), allow_nan=False)
    return decode(json.loads(text), arrays.__getitem__), arrays


@given(NESTED)
def test_plain_values_come_back(value):
    assert same(through_json(value)[0], value)
    assert same(through_json(Packed(value))[0], value)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_values_of_our_own_come_back(kind):
    shapes = {"full": (2, 3, 3), "tied": (3, 3), "diag": (2, 3), "spherical": (2,)}
    moments = Moments(kind, np.ones(2), rng.normal(size=(2, 3)), rng.normal(size=shapes[kind]))
    eyes = {"full": np.stack([np.eye(3)] * 2), "tied": np.eye(3)}
    covariances = eyes.get(kind, np.ones(shapes[kind]))
    value = {
        "statistics": [Statistics(7, 6.5, -math.inf, math.nan, moments)],
        "moments": moments,
        "mixture": (Mixture.of(kind, np.full(2, 0.5), rng.normal(size=(2, 3)), covariances), None),
    }
    assert same(through_json(value)[0], value)
    assert same(through_json(Packed(value))[0], value)


def test_many_arrays_are_packed_into_one_for_each_dtype():
    value = {"a": np.ones((2, 3)), "b": [np.zeros(4), np.arange(3)]}
    back, arrays = through_json([Packed(value), np.ones(1)])
    assert same(back, [value, np.ones(1)])
    assert [(array.dtype, array.shape) for array in arrays] == [
        ("float64", (10,)),
        ("int64", (3,)),
        ("float64", (1,)),
    ]


@pytest.mark.parametrize(
    "value", [len, np.array([1j]), {"a b": 1}, {1: 2}, object(), np.random.default_rng(0)]
)
def test_what_has_no_word_is_refused_by_name(value):
    with pytest.raises(ParameterError, match=r"what/0 is a .* which cannot be saved"):
        encode("what", [value], lambda name, array: name)


def test_an_unknown_kind_of_value_is_an_error():
    with pytest.raises(ModelFileError, match="a value of unknown kind 'code'"):
        decode({"code": "print()"}, {}.__getitem__)
