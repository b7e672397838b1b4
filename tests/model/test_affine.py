"""Affine maps: composition is exact algebra, centring costs no digits, moments need no rows."""

import pickle

import numpy as np
import pytest

from streamgmm.fitting.moments import moments_of
from streamgmm.model.affine import Affine
from streamgmm.sources import open_source

RNG = np.random.default_rng(0)


def columns(d, shift=True):
    more = RNG.normal(size=d) if shift else None
    return Affine.columns(RNG.normal(size=d), RNG.uniform(0.5, 2.0, size=d), more)


def product(d, f):
    return Affine(RNG.normal(size=d), None, RNG.normal(size=(d, f)), RNG.normal(size=f))


MAPS = {
    "columns": lambda: columns(5),
    "columns without shift": lambda: columns(5, shift=False),
    "centre alone": lambda: Affine.columns(RNG.normal(size=5), None),
    "nothing": lambda: Affine.nothing(5),
    "product": lambda: product(5, 5),
}


@pytest.mark.parametrize("first", MAPS)
@pytest.mark.parametrize("second", MAPS)
def test_two_maps_are_one(first, second):
    a, b = MAPS[first](), MAPS[second]()
    X = RNG.normal(size=(400, 5))
    np.testing.assert_allclose(a.then(b).apply(X), b.apply(a.apply(X)), atol=1e-13)


@pytest.mark.parametrize("name", MAPS)
def test_moments_of_mapped_rows_need_no_rows(name):
    by = MAPS[name]()
    X = RNG.normal(size=(400, 5)) @ RNG.normal(size=(5, 5)) + 7
    found = moments_of(open_source(X), "full").by(by)
    read = moments_of(open_source(by.apply(X)), "full")
    np.testing.assert_allclose(found.mean, read.mean, atol=1e-13)
    np.testing.assert_allclose(found.moments.scatter, read.moments.scatter, rtol=1e-12, atol=1e-11)
    if not by.mixes:
        diag = moments_of(open_source(X), "diag").by(by)
        np.testing.assert_allclose(diag.variance, read.variance, rtol=1e-12)


@pytest.mark.parametrize("name", ["columns", "columns without shift", "centre alone", "nothing"])
def test_there_and_back(name):
    by = MAPS[name]()
    X = RNG.normal(size=(400, 5))
    np.testing.assert_allclose(by.inverse().apply(by.apply(X)), X, atol=1e-14)


def test_an_offset_costs_no_digits():
    """Of rows 1e8 standard deviations from the origin, all digits that they have."""
    X = RNG.normal(size=(1000, 4))
    far = X + 1e8
    near = far - 1e8  # exact
    matrix = RNG.normal(size=(4, 2))
    scale = np.full(4, 2.0)
    found = Affine.columns(np.full(4, 1e8), scale).then(
        Affine(np.zeros(4), None, matrix, np.zeros(2))
    )
    np.testing.assert_allclose(found.apply(far), (near / 2.0) @ matrix, atol=1e-14)


@pytest.mark.parametrize("name", MAPS)
def test_float32_rows_are_mapped_in_float32_as_well_as_it_can(name):
    by = MAPS[name]()
    X = (RNG.normal(size=(400, 5)) + 1000).astype(np.float32)
    by = Affine.columns(np.full(5, 1000.0 + 1 / 3), None).then(by)
    found = by.apply(X)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by.apply(X.astype(np.float64)), atol=2e-6)


def test_digests_tell_maps_apart_and_pickles_are_the_same():
    by = product(5, 3)
    assert pickle.loads(pickle.dumps(by)).digest == by.digest
    assert len({each().digest for each in MAPS.values()}) == len(MAPS)
