"""Starts of very many components."""

import numpy as np
import pytest

from streamgmm import GaussianMixture
from streamgmm.fitting import tree
from streamgmm.fitting.settings import FitSettings
from streamgmm.model.families import Gaussian


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(tree, "LEAF", 8)


def test_clusters_of_clusters_are_as_many_as_were_asked_for(few):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900, 3)) * rng.gamma(1.0, size=(900, 1))
    for k in (3, 8, 9, 50, 300):
        labels = tree.tree_labels(X, None, k, np.random.RandomState(0))
        assert sorted(np.unique(labels)) == list(range(k))


def test_weights_draw_centres_to_them(few):
    rng = np.random.default_rng(1)
    X = np.vstack([rng.normal(size=(500, 2)), rng.normal(size=(500, 2)) + 20])
    weight = np.repeat([1.0, 400.0], 500)
    labels = tree.tree_labels(X, weight, 40, np.random.RandomState(0))
    assert len(np.unique(labels[500:])) > len(np.unique(labels[:500]))


@pytest.mark.parametrize("n", [40, 41, 60])
def test_hardly_more_rows_than_clusters(few, n):
    X = np.random.default_rng(2).normal(size=(n, 2))
    labels = tree.tree_labels(X, None, 40, np.random.RandomState(0))
    assert len(np.unique(labels)) == 40


@pytest.mark.filterwarnings("ignore:.*converge", "ignore:.*have no rows")
@pytest.mark.parametrize("distinct", [1, 5])
def test_fewer_distinct_rows_than_components(few, distinct):
    X = np.repeat(np.random.default_rng(3).normal(size=(distinct, 2)), 40, axis=0)
    model = GaussianMixture(
        12, covariance_type="diag", truncation=3, random_state=0, max_iter=3
    ).fit(X)
    assert np.isfinite(model.means_).all()
    assert np.isfinite(model.score(X))


def test_as_many_starts_as_were_asked_for():
    X = np.random.default_rng(4).normal(size=(400, 2))
    settings = FitSettings(30, Gaussian("diag", truncation=4), n_init=3)
    starts = tree.tree_starts(X, None, settings, np.random.RandomState(0))
    assert len(starts) == 3
    assert not np.array_equal(starts[0].components.means, starts[1].components.means)
    best = GaussianMixture(30, covariance_type="diag", truncation=4, n_init=3, random_state=0)
    assert np.isfinite(best.fit(X).lower_bound_)


def test_a_moved_start_that_a_search_would_miss_is_refused(monkeypatch):
    X = np.random.default_rng(7).normal(size=(900, 2))
    settings = FitSettings(30, Gaussian("diag", truncation=4))
    other = np.roll(np.arange(900) % 30, 7)

    def start():
        return tree.tree_starts(X, None, settings, np.random.RandomState(0))[0].components.means

    moved = []
    for missed in (0.1, 0.6):  # of a nat that is gained
        looks = iter([(-3.0, 0.0), (-2.0, missed)])
        monkeypatch.setattr(tree, "_looked", lambda *given, looks=looks: next(looks))
        monkeypatch.setattr(tree, "improve", lambda *given: other)
        moved.append(start())
    monkeypatch.setattr(tree, "improve", lambda X, weight, labels, *rest: labels)
    np.testing.assert_array_equal(moved[1], start())
    assert not np.array_equal(moved[0], start())


def test_what_a_search_misses():
    X = np.repeat(np.random.default_rng(8).normal(size=(30, 2)), 20, axis=0)
    settings = FitSettings(30, Gaussian("diag", truncation=30))
    (start,) = tree.tree_starts(X, None, settings, np.random.RandomState(0))
    likely, missed = tree._looked(start, X)
    assert likely == start.posterior(X).log_density.mean()
    assert missed == 0  # which looks at all


def test_what_is_given_is_where_it_starts():
    X = np.random.default_rng(5).normal(size=(400, 2))
    means = np.random.default_rng(6).normal(size=(30, 2))
    settings = FitSettings(30, Gaussian("diag", truncation=4), given={"means": means})
    (start,) = tree.tree_starts(X, None, settings, np.random.RandomState(0))
    np.testing.assert_array_equal(start.components.means, means)
