"""`select_clusters`: every number of clusters in shared reads."""

import numpy as np
import pytest
import zarr
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.cluster import KMeans as Reference
from sklearn.metrics import silhouette_score

from streamgmm import KMeans, select_clusters
from streamgmm.errors import DataError, ParameterError
from streamgmm.storage import checkpoint

KS = range(1, 8)


class EndedError(Exception):
    pass


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    middles = np.array([[0, 0], [9, 0], [0, 9], [9, 9]])
    return middles[rng.integers(4, size=3000)] + rng.normal(size=(3000, 2))


@pytest.mark.parametrize("criterion", ["silhouette", "elbow"])
def test_the_number_of_clusters_is_found(X, criterion):
    found = select_clusters(X, KS, criterion=criterion, random_state=0)
    assert found.best.n_clusters == 4
    table = found.table
    assert {len(values) for values in table.values()} == {len(KS)}
    assert (np.diff(table["inertia"]) < 0).all()
    labels = found.best.predict(X)
    assert_allclose(table["silhouette"][3], silhouette_score(X, labels), rtol=1e-10)
    assert np.isnan(table["silhouette"][0])
    assert_allclose(found.best.inertia_, table["inertia"][3], rtol=1e-14)
    assert_allclose(-found.best.score(X), found.best.inertia_, rtol=1e-12)
    assert table["elbow"].argmax() == 3
    assert_allclose(table["elbow"][[0, -1]], 0, atol=1e-12)


def test_inertias_are_those_of_k_means(X):
    table = select_clusters(X, (2, 4, 6), n_init=5, random_state=1).table
    for k, value in zip(table["n_clusters"], table["inertia"], strict=True):
        best = Reference(k, n_init=20, random_state=0).fit(X).inertia_
        assert 0.999 * best < value < 1.05 * best


def test_all_candidates_share_every_read(X, tmp_path):
    path = str(tmp_path / "x.zarr")
    zarr.create_array(path, data=X, chunks=(500, 2))
    found = select_clusters(path, KS, random_state=0, n_init=2, block_size=8000)
    here = select_clusters(X, KS, random_state=0, n_init=2, block_size=8000, n_jobs=2)
    assert_allclose(found.table["inertia"], here.table["inertia"], rtol=1e-12)
    # Pass 0, as many iterations as the longest climb of the two starts of each, and the last.
    assert found.passes >= 2 + found.table["n_iter"].max()
    assert found.passes < 2 + found.table["n_iter"].sum()


def test_one_that_was_ended_goes_on(X, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "RARE", 0)
    settings = {"random_state": 0, "block_size": 8000, "silhouette_rows": 700}
    whole = select_clusters(X, KS, **settings)
    told = 0

    def end(progress):
        nonlocal told
        told += progress.stage == "em"
        if told > 20:
            raise EndedError

    with monkeypatch.context() as patch:
        patch.setattr("streamgmm.estimators.clusters.listener", lambda: end)
        with pytest.raises(EndedError):
            select_clusters(X, KS, checkpoint=tmp_path / "run.zarr", **settings)
    resumed = select_clusters(X, KS, checkpoint=tmp_path / "run.zarr", **settings)
    for name, values in whole.table.items():
        assert_array_equal(values, resumed.table[name])
    assert isinstance(resumed.best, KMeans)


def test_what_cannot_be_asked_is_said(X):
    for ks, settings, said in (
        ((2, 3), {"criterion": "bic"}, "criterion='bic': one of silhouette, elbow"),
        ((), {}, "different whole numbers from 1 up"),
        ((2, 2), {}, "different whole numbers from 1 up"),
        ((1,), {}, "a silhouette needs two clusters or more"),
        ((2, 3), {"criterion": "elbow"}, "an elbow needs three"),
        ((2, 3), {"init": "given"}, "centres are drawn for each"),
        ((2, 3), {"tol": -1.0}, "The 'tol' parameter of KMeans must be"),
    ):
        with pytest.raises(ValueError, match=said) as caught:
            select_clusters(X, ks, **settings)
        assert "tol" in said or caught.type is ParameterError
    with pytest.raises(DataError, match="n_samples=3 should be >= n_clusters=4"):
        select_clusters(X[:3], (2, 4))
