"""Whether fits from other starts find the same clusters again."""

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import adjusted_rand_score, fowlkes_mallows_score

from streamgmm import select, select_clusters
from streamgmm.errors import ParameterError
from streamgmm.fitting import selection as ranking
from streamgmm.fitting.stability import adjusted_rand, count_pairs, fowlkes_mallows, most_stable

LABELS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=2, max_size=40)


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(4)
    centres = np.array([[0, 0, 0], [7, 0, 0], [0, 7, 0], [7, 7, 7]])
    return centres[rng.integers(4, size=4000)] + rng.normal(size=(4000, 3))


@given(LABELS)
def test_indices_are_scikit_learns(pairs):
    a, b = np.array(pairs).T
    (table,) = count_pairs({0: a, 1: b}, {0: 4, 1: 3}, ((0, 1),), None)
    assert_allclose(adjusted_rand(table), adjusted_rand_score(a, b), rtol=1e-12, atol=1e-12)
    assert_allclose(fowlkes_mallows(table), fowlkes_mallows_score(a, b), rtol=1e-12, atol=1e-12)


@given(LABELS, st.data())
def test_weights_are_repeats(pairs, data):
    a, b = np.array(pairs).T
    w = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(a), max_size=len(a))))
    (weighted,) = count_pairs({0: a, 1: b}, {0: 4, 1: 3}, ((0, 1),), w.astype(float))
    again = {0: np.repeat(a, w), 1: np.repeat(b, w)}
    assert_array_equal(weighted, count_pairs(again, {0: 4, 1: 3}, ((0, 1),), None)[0])


def test_what_was_planted_is_stable(X):
    found = select(X, range(1, 8), "full", criterion="stability", random_state=0)
    assert found.best.n_components == 4
    table = found.table
    assert {len(values) for values in table.values()} == {7}
    assert np.isnan(table["stability"][0])
    assert table["stability"][3] > 0.99
    assert table["fowlkes_mallows"][3] > 0.99
    assert table["stability"][6] < 0.95
    assert found.criterion == "stability"
    assert found.choices["bic"] == found.choices["stability"] == 3
    # The best restart of each is its row: more components never do worse by much.
    assert_allclose(table["log_likelihood"][3], found.best.score(X) * len(X), rtol=0.05)


def test_two_restarts_agree_as_their_labels_do(X):
    """A table of two restarts is what the labels of the two models say."""
    seen = []
    rank = ranking.Session.score

    def keep(self, mixtures, pairs=()):
        seen.append((mixtures, pairs))
        rank(self, mixtures, pairs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking.Session, "score", keep)
        table = select(
            X, (5, 6), "diag", n_init=2, criterion="stability", random_state=3, holdout=0.1
        ).table
    ((mixtures, pairs),) = seen
    assert len(mixtures) == 4
    assert pairs == ((0, 1), (2, 3), (0, 2), (1, 3))
    labels = [m.posterior(X, labels=True).labels for m in mixtures]
    rand = {pair: adjusted_rand_score(labels[pair[0]], labels[pair[1]]) for pair in pairs}
    assert_allclose(table["stability"], [rand[0, 1], rand[2, 3]], rtol=1e-10)
    assert_allclose(table["neighbours"], (rand[0, 2] + rand[1, 3]) / 2, rtol=1e-10)
    assert_allclose(
        table["fowlkes_mallows"][0], fowlkes_mallows_score(labels[0], labels[1]), rtol=1e-10
    )


def test_reads_of_one_candidate_and_at_most_three_more(X, tmp_path):
    path = str(tmp_path / "x.zarr")
    zarr.create_array(path, data=X, chunks=(500, 3))
    found = select(path, range(2, 8), "full", criterion="stability", random_state=0)
    assert found.passes <= found.table["passes"].max() + 3
    here = select(X, range(2, 8), "full", criterion="stability", random_state=0)
    assert_array_equal(here.table["stability"] > 0.99, found.table["stability"] > 0.99)


def test_goes_on_from_a_checkpoint(X, tmp_path, monkeypatch):
    """What was compared in the last read is there after it, too."""
    arguments = {"n_components": (3, 4, 5), "covariance_types": "diag", "n_init": 3}
    arguments |= {"criterion": "stability", "random_state": 1}
    whole = select(X, **arguments)
    path = tmp_path / "c"
    select(X, **arguments, checkpoint=path)

    def refuse(*_):
        raise AssertionError("read again")

    monkeypatch.setattr("streamgmm.fitting.reading.score_block", refuse)
    again = select(X, **arguments, checkpoint=path)
    for name in whole.table:
        assert_array_equal(whole.table[name], again.table[name])


def test_weighted_rows(X):
    weight = np.random.default_rng(0).integers(0, 3, len(X))
    found = select(X, (3, 4), "diag", criterion="stability", random_state=0, sample_weight=weight)
    assert found.best.n_components == 4


def test_clusters(X, tmp_path):
    found = select_clusters(X, range(1, 8), criterion="stability", random_state=0)
    assert found.best.n_clusters == 4
    assert np.isnan(found.table["stability"][0])
    assert found.table["stability"][3] > 0.99
    assert_allclose(found.best.inertia_, found.table["inertia"][3], rtol=1e-14)
    assert found.passes <= 4 + 300


def test_the_most_components_of_equals():
    ks = np.array([2, 3, 4])
    none = np.zeros(3)
    assert most_stable(np.array([1.0, 0.995, 0.5]), none, ks) == 1
    assert most_stable(np.array([1.0, 0.9, 0.5]), none, ks) == 0
    assert most_stable(np.array([0.9, 0.85, 0.5]), np.full(3, 0.06), ks) == 1
    assert most_stable(np.full(3, np.nan), none, ks) == -1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_init": 1}, "n_init of 2 or more"),
        ({"n_components": 1}, "two components or more"),
    ],
)
def test_wrong_use(X, arguments, message):
    given = {"n_components": (2, 3), "criterion": "stability"} | arguments
    with pytest.raises(ParameterError, match=message):
        select(X, **given)
    if "n_init" in arguments:
        with pytest.raises(ParameterError, match="2 or more"):
            select_clusters(X, (2, 3), criterion="stability", n_init=1)


def test_nothing_stable_is_said(X):
    rows = np.random.default_rng(0).normal(size=(3000, 3))
    with pytest.warns(UserWarning, match="no number of components is stable"):
        select(rows, (4, 5, 6), "full", criterion="stability", random_state=0)
