"""What k-means sees of the rows at the start."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from streamgmm.fitting.initial import initial_mixture
from streamgmm.model.families import (
    Categorical,
    Gaussian,
    Multinomial,
    Poisson,
    Product,
    WithNoise,
)
from streamgmm.model.mixture import Mixture, e_step, m_step
from tests.model.families.cases import MIXTURES, shares


def wide_counts(rng, k, d):
    """Rates from less than one to some hundreds: raw distances see the large ones alone."""
    return Mixture.of("poisson", shares(rng, k), np.exp(rng.normal(2, 1.5, (k, d))))


def reached(truth, X, seed, iterations=30):
    mixture = initial_mixture(X, None, truth.family, 5, "kmeans", np.random.RandomState(seed))
    for _ in range(iterations):
        mixture = m_step(mixture, e_step(mixture, X))
    return e_step(mixture, X).log_likelihood / len(X)


@pytest.mark.parametrize(
    "make", [wide_counts, MIXTURES["gamma"], MIXTURES["categorical"]], ids=lambda f: f.__name__
)
def test_a_start_ends_higher_than_one_on_the_rows_as_they_are(make, monkeypatch):
    ends = []
    for seed in range(6):
        truth = make(np.random.default_rng(seed), 5, 6)
        X = truth.sample(3000, np.random.RandomState(seed))[0]
        there = reached(truth, X, seed)
        with monkeypatch.context() as patch:
            patch.setattr(type(truth.family), "clustered", lambda self, X: X)
            ends.append((there, reached(truth, X, seed)))
    seen, raw = np.mean(ends, axis=0)
    assert seen > raw + 0.01


def test_distances_are_those_that_a_family_means():
    X = np.array([[7.0, 1], [7, 3], [9, 3]])
    one_hot = Categorical(levels=((7, 9), (1, 3))).clustered(X)
    squares = ((one_hot[:, None] - one_hot) ** 2).sum(axis=2)
    assert_allclose(squares, [[0, 1, 2], [1, 0, 1], [2, 1, 0]], rtol=1e-6)
    many = np.random.default_rng(0).integers(900, size=(60, 40)).astype(float)
    family = Categorical()
    hashed = family.informed(family.survey(many)).clustered(many)
    assert hashed.shape == (60, 512)
    found = ((hashed[:, None] - hashed) ** 2).sum(axis=2)
    wanted = (many[:, None] != many).sum(axis=2)
    assert_allclose(found[wanted > 0].mean(), wanted[wanted > 0].mean(), rtol=0.05)
    assert found[wanted > 0].min() > 15
    counts = np.array([[1.0, 3], [10, 30], [30, 10]])
    shared = Multinomial().clustered(counts)
    assert_allclose(shared[0], shared[1])
    assert_allclose((shared**2).sum(axis=1), 1)
    assert_allclose(Poisson().clustered(np.array([[100.0]])), 2 * np.sqrt(100.375))
    assert Gaussian().clustered(X) is X


def test_columns_of_a_product_are_as_wide_as_one_another():
    rng = np.random.default_rng(0)
    X = np.column_stack([
        rng.normal(0, 1e6, 5000), rng.normal(5, 1e-3, 5000), rng.integers(4, size=5000),
        rng.random(5000) < 0.5, np.full(5000, 3.0),
    ])  # fmt: skip
    family = Product(
        sizes=("diag", [0, 1]), kind=("categorical", [2]), flag=("bernoulli", [3]),
        one=("poisson", [4]),
    )  # fmt: skip
    family = family.informed(family.survey(X))
    seen = family.clustered(X)
    assert seen.shape == (5000, 2 + 4 + 1 + 1)
    spread = seen.var(axis=0)
    assert_allclose([spread[0], spread[1], spread[2:6].sum(), spread[6], spread[7]],
                    [1, 1, 1, 1, 0], atol=1e-12)  # fmt: skip
    assert WithNoise(family).n_clusters(4) == 3
    assert_allclose(WithNoise(family).clustered(X), seen)
