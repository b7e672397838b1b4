"""Merges and splits on the sample from which very many components start."""

import dask
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from streamgmm import GaussianMixture
from streamgmm.fitting import moves, tree
from streamgmm.fitting.dividing import divide, score
from streamgmm.fitting.moves import improve
from streamgmm.model.families import Gaussian

K, D = 40, 5
FAMILY = Gaussian("diag", truncation=4)
pytestmark = pytest.mark.filterwarnings("ignore:Best performing initialization did not converge")


def blobs(seed, n=64 * K, spread=10.0):
    rng = np.random.default_rng(seed)
    means = spread * rng.normal(size=(K, D))
    labels = rng.integers(0, K, n)
    return means[labels] + rng.normal(size=(n, D)), labels


def wrong(labels):
    """The same with two clusters in one, three times, and three others cut in two."""
    rng = np.random.default_rng(9)
    out = labels.copy()
    for a, b, cut in ((0, 1, 2), (3, 4, 5), (6, 7, 8)):
        out[labels == b] = a
        out[(labels == cut) & (rng.random(len(labels)) < 0.5)] = b
    return out


def same_partition(a, b):
    """Whether nearly all rows of each cluster of one are those of a cluster of the other."""
    table = np.zeros((K, K))
    np.add.at(table, (a, b), 1)
    return table.max(axis=1).sum() > 0.99 * len(a)


def gain_of(X, w, side, floor):
    """By the definition, one cluster at a time."""

    def part(rows, weight):
        mean = weight @ rows / weight.sum()
        variance = weight @ (rows - mean) ** 2 / weight.sum() + floor
        return weight.sum() * (np.log(weight.sum()) - 0.5 * np.log(variance).sum())

    return part(X[side], w[side]) + part(X[~side], w[~side]) - part(X, w)


@pytest.mark.parametrize("weighted", [False, True])
def test_gains_are_what_the_halves_say(weighted, monkeypatch):
    monkeypatch.setattr("streamgmm.fitting.dividing._RUN_ROWS", 300)  # several runs of clusters
    X, labels = blobs(0)
    labels = wrong(labels) + 1  # and one without rows
    w = np.random.default_rng(1).uniform(0.5, 2, len(X)) if weighted else None
    gain, side = divide(X, w, labels, K + 2, 1e-6)
    assert gain[0] == gain[K + 1] == -np.inf
    w = np.ones(len(X)) if w is None else w
    for k in range(1, K + 1):
        mine = labels == k
        few = min(side[mine].sum(), (~side[mine]).sum()) < 12
        said = -np.inf if few else gain_of(X[mine], w[mine], side[mine], 1e-6)
        assert_allclose(gain[k], said, rtol=1e-9)
    assert set(np.argsort(-gain)[:3]) == {1, 4, 7}  # those that two blobs share
    assert (gain[[1, 4, 7]] > 20).all()


def test_gains_do_not_depend_on_offsets_units_and_repeats():
    X, labels = blobs(1)
    labels = wrong(labels)
    gain, side = divide(X, None, labels, K, 0.0)
    moved, there = divide(1e3 * X + 1e6, None, labels, K, 0.0)
    assert_allclose(moved, gain, rtol=1e-5)
    assert_array_equal(there, side)
    twice, _ = divide(np.repeat(X, 2, axis=0), None, np.repeat(labels, 2), K, 0.0)
    heavy, _ = divide(X, np.full(len(X), 2.0), labels, K, 0.0)
    enough = np.isfinite(heavy)  # rows of a half are counted, whatever their weights
    assert enough.sum() > K // 2
    assert_allclose(twice[enough], heavy[enough], rtol=1e-9)


def test_a_shape_that_all_features_share():
    rng = np.random.default_rng(2)
    X = rng.normal(size=(400, 3)) * [1.0, 2.0, 3.0]
    gain, side = divide(X, None, np.zeros(400, int), 1, 0.0, pooled=True)
    parts = [X[side], X[~side], X]
    n = np.array([len(part) for part in parts], float)
    pooled = np.array([np.full(3, part.var(axis=0).mean()) for part in parts])
    said = score(n, pooled)
    assert_allclose(gain[0], said[0] + said[1] - said[2])


@pytest.mark.parametrize("kind", ["diag", "spherical", "full", "tied"])
@pytest.mark.parametrize("weighted", [False, True])
def test_clusters_that_share_a_component_get_one_each(kind, weighted):
    X, truth = blobs(3)
    weight = np.random.default_rng(4).uniform(0.5, 2, len(X)) if weighted else None
    begun = wrong(truth)
    assert not same_partition(truth, begun)
    found = improve(X, weight, begun, K, Gaussian(kind, truncation=4))
    assert same_partition(truth, found)
    assert same_partition(found, truth)


def test_what_is_right_stays():
    X, truth = blobs(5)
    assert_array_equal(improve(X, None, truth, K, FAMILY), truth)


def test_noise_is_not_split():
    """One blob in many parts: no other parts are better by more than noise."""
    X = np.random.default_rng(6).normal(size=(64 * K, D))
    labels = tree.tree_labels(X, None, K, np.random.RandomState(0))
    found = improve(X, None, labels, K, FAMILY)
    assert len(np.unique(found)) == K


def test_the_same_on_any_number_of_threads():
    X, _ = blobs(7, 600 * K)
    labels = tree.tree_labels(X, None, K, np.random.RandomState(1))
    found = []
    for n in (1, 2, 5):
        with dask.config.set(num_workers=n):
            found.append(improve(X.astype(np.float32), None, labels, K, FAMILY))
    assert not np.array_equal(found[0], labels)
    assert_array_equal(found[1], found[0])
    assert_array_equal(found[2], found[0])


@pytest.mark.parametrize("n", [K, K + 5, 3 * K])
def test_hardly_any_rows(n):
    X = np.random.default_rng(8).normal(size=(n, 2))
    labels = tree.tree_labels(X, None, K, np.random.RandomState(0))
    assert len(np.unique(improve(X, None, labels, K, FAMILY))) == K


def test_heavy_tails_and_equal_rows():
    rng = np.random.default_rng(9)
    X = np.vstack([rng.standard_cauchy(size=(1000, 2)), np.repeat(rng.normal(size=(5, 2)), 60, 0)])
    labels = tree.tree_labels(X, None, K, np.random.RandomState(0))
    for floor in (0.0, 1e-6):
        family = Gaussian("diag", reg_covar=floor, truncation=4)
        assert len(np.unique(improve(X, None, labels, K, family))) == K


@pytest.mark.parametrize("kind", ["diag", "full"])
def test_fits_end_higher(kind, monkeypatch):
    """On rows that they have not seen, of clusters that are well apart."""
    how = {"truncation": 4, "covariance_type": kind}
    X, _ = blobs(10, 12_000)
    rows, held = X[:8000], X[8000:]
    moved = [GaussianMixture(K, random_state=s, **how).fit(rows).score(held) for s in range(3)]
    monkeypatch.setattr(tree, "improve", lambda X, weight, labels, k, family, n_rows: labels)
    plain = [GaussianMixture(K, random_state=s, **how).fit(rows).score(held) for s in range(3)]
    assert np.mean(moved) > np.mean(plain)
    assert (np.array(moved) > np.array(plain) - 0.01).all()


@pytest.mark.parametrize(("n_rows", "most"), [(0, 3), (64 * K * 10, 8), (10**9, 15)])
def test_the_budget_is_work(n_rows, most, monkeypatch):
    climbs = []
    climb = moves._climb
    monkeypatch.setattr(moves, "_climb", lambda *given: climbs.append(1) or climb(*given))
    monkeypatch.setattr(moves, "_better", lambda gains: True)  # it would go on for ever
    monkeypatch.setattr(moves, "_MARGIN", -np.inf)
    X, truth = blobs(11)
    improve(X, None, truth, K, FAMILY, n_rows)
    assert most <= len(climbs) - 1 <= most + 2  # with the first; a round that began is ended
