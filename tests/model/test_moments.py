import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from streamgmm.model.moments import Moments, spread
from tests.mixtures import TYPES

kinds = st.sampled_from(TYPES)
seeds = st.integers(0, 2**32 - 1)


def moments_of(kind, X, resp):
    """By the definition, in two passes."""
    weight = resp.sum(axis=0)
    mean = (resp.T @ X) / weight[:, None]
    gap = X[:, None, :] - mean
    full = np.einsum("nk,nki,nkj->kij", resp, gap, gap)
    scatter = {
        "full": full,
        "tied": full.sum(axis=0),
        "diag": np.einsum("kdd->kd", full),
        "spherical": np.einsum("kdd->k", full),
    }[kind]
    return Moments(kind, weight, mean, scatter)


def rows(seed, n, k, d, offset=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) + offset, rng.dirichlet(np.ones(k), size=n)


def assert_same(a, b, rtol=1e-10):
    assert_allclose(a.weight, b.weight, rtol=rtol)
    assert_allclose(a.mean, b.mean, rtol=rtol, atol=rtol)
    assert_allclose(a.scatter, b.scatter, rtol=rtol, atol=rtol * np.abs(b.scatter).max())


@given(
    kinds, seeds, st.integers(1, 4), st.integers(1, 5), st.lists(st.integers(1, 20), min_size=1)
)
@settings(max_examples=60, deadline=None)
def test_any_chunking_gives_the_pooled_moments(kind, seed, k, d, sizes):
    X, resp = rows(seed, sum(sizes), k, d)
    ends = np.cumsum(sizes)
    parts = [
        moments_of(kind, X[b - s : b], resp[b - s : b]) for s, b in zip(sizes, ends, strict=True)
    ]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)
    assert_same(merged, moments_of(kind, X, resp))


@given(kinds, seeds)
@settings(max_examples=40, deadline=None)
def test_merge_is_associative_and_commutative(kind, seed):
    X, resp = rows(seed, 30, 3, 4)
    a, b, c = (moments_of(kind, X[i : i + 10], resp[i : i + 10]) for i in (0, 10, 20))
    assert_same(a.merge(b).merge(c), a.merge(b.merge(c)))
    assert_same(a.merge(b), b.merge(a))


@given(kinds, seeds)
@settings(max_examples=20, deadline=None)
def test_merge_has_an_identity_to_the_last_bit(kind, seed):
    X, resp = rows(seed, 12, 3, 2)
    a = moments_of(kind, X, resp)
    nothing = Moments(kind, np.zeros(3), np.full((3, 2), 7.0), np.zeros_like(a.scatter))
    for merged in (a.merge(nothing), nothing.merge(a)):
        assert_array_equal(merged.weight, a.weight)
        assert_array_equal(merged.mean, a.mean)
        assert_array_equal(merged.scatter, a.scatter)


@pytest.mark.parametrize("kind", TYPES)
def test_merge_keeps_its_digits_at_an_offset(kind):
    near, resp = rows(1, 400, 2, 3)
    X = near + 1e6
    parts = [moments_of(kind, X[i : i + 40], resp[i : i + 40]) for i in range(0, 400, 40)]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)
    exact = moments_of(kind, X - 1e6, resp)  # the subtraction is exact
    assert_allclose(merged.scatter, exact.scatter, rtol=1e-9, atol=1e-9 * exact.scatter.max())


@pytest.mark.parametrize("kind", TYPES)
def test_scale_is_the_same_rows_with_other_weights(kind):
    X, resp = rows(2, 20, 2, 3)
    assert_same(moments_of(kind, X, resp).scale(3.0), moments_of(kind, X, 3.0 * resp))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("scale", [1.0, 1e-310])
def test_sums_about_any_centre_give_the_moments(kind, scale):
    X, resp = rows(3, 50, 2, 3)
    centre = np.array([[1.0, 2.0, 3.0], [0.0, -1.0, 0.5]])
    gap = X[:, None, :] - centre
    full = np.einsum("nk,nki,nkj->kij", resp, gap, gap)
    second = {
        "full": full,
        "tied": full.sum(axis=0),
        "diag": np.einsum("kdd->kd", full),
        "spherical": np.einsum("kdd->k", full),
    }[kind]
    first = np.einsum("nk,nkd->kd", resp, gap)
    about = Moments.about(kind, centre, scale * resp.sum(axis=0), scale * first, scale * second)
    exact = moments_of(kind, X, resp)
    assert_allclose(about.mean, exact.mean, rtol=1e-9)
    if scale == 1.0:
        assert_same(about, exact)


@pytest.mark.parametrize("kind", TYPES)
def test_spread_has_the_shape_of_its_kind(kind):
    out = spread(kind, np.ones(2), np.ones((2, 3)))
    assert (
        out.shape == {"full": (2, 3, 3), "tied": (3, 3), "diag": (2, 3), "spherical": (2,)}[kind]
    )
