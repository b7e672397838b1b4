"""K-means in which rows are compared with few of many centres."""

import os
import signal
import subprocess
import sys

import dask.array as da
import numpy as np
import pytest
import zarr
from distributed import Client
from numpy.testing import assert_allclose, assert_array_equal

import streamgmm
from streamgmm import KMeans, MixtureModel
from streamgmm.errors import DataError, ParameterError
from streamgmm.fitting import sample
from streamgmm.model.families import Centroids, nearby
from streamgmm.model.families.nearest import Table
from streamgmm.model.mixture import Mixture, e_step, free_energy
from streamgmm.model.truncation.sets import Memory, Turn

K = 80
HOW = {"truncation": 10, "random_state": 3, "tol": 0, "max_iter": 6}


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    means = 2 * rng.normal(size=(K, 5))
    return means[rng.integers(0, K, 20_000)] + rng.normal(size=(20_000, 5))


@pytest.fixture(scope="module")
def path(X, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("rows") / "x.zarr")
    zarr.create_array(path, data=X, chunks=(1500, 5))
    return path


def squares(X, centres):
    return ((X[:, None, :].astype(np.float64) - centres) ** 2).sum(axis=2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("n", "k", "d", "size"), [(900, 40, 1, 5), (700, 30, 7, 30), (65, 33, 16, 13), (9, 3, 3, 2)]
)
def test_the_nearest_of_a_list(n, k, d, size, dtype):
    rng = np.random.default_rng(n)
    centres, X = rng.normal(size=(k, d)), rng.normal(size=(n, d)).astype(dtype)
    lists = nearby.Nearby.of(centres, size)
    distances = squares(centres, centres)
    np.fill_diagonal(distances, -1)
    assert_array_equal(np.sort(lists.lists), np.sort(np.argsort(distances, axis=1)[:, :size]))
    assert_array_equal(lists.lists[:, 0], np.arange(k))
    own = rng.integers(k, size=n)
    found = lists.nearest(Table.of(centres), X, own)
    each = np.take_along_axis(squares(X, centres), lists.lists[own].astype(int), axis=1)
    expected = lists.lists[own, each.argmin(axis=1)]
    assert_array_equal(found, expected)


def test_lists_that_are_not_full_and_centres_that_are_the_same():
    lists = nearby.Nearby(np.array([[0, -1], [1, 0], [2, 1]], np.int32))
    X = np.array([[9.0], [9.0], [0.1]])
    table = Table.of(np.array([[0.0], [5.0], [5.0]]))
    assert_array_equal(lists.nearest(table, X, np.array([0, 1, 2])), [0, 1, 2])
    same = nearby.Nearby.of(np.zeros((4, 2)), 3)
    assert_array_equal(same.lists[:, 0], np.arange(4))
    assert_array_equal(same.nearest(Table.of(np.zeros((4, 2))), np.ones((4, 2)), np.arange(4)),
                       np.arange(4))  # fmt: skip


def test_a_step_by_numpy(X):
    """Labels, sums, F and what the sample says, of a second read; the first compares with all."""
    rng = np.random.default_rng(1)
    rows, w = X[:3000], rng.integers(0, 3, 3000).astype(float)
    before, after = X[:K], X[:K] + rng.normal(size=(K, 5))
    sets = Memory()

    def read(centres, turn):
        family = Centroids(truncation=6)
        mixture = Mixture(
            np.full(K, 1 / K), family.components(means=centres, variance=np.array([2.0]))
        )
        step = mixture.density.hard_accumulator()
        step.remember(sets, Turn(0, turn))
        step.place(500)
        step.add(rows, w)
        found = step.result()
        kept = sets.take(Turn(0, turn), 500)
        return mixture, found, kept.ids[:, 0].astype(int)

    first = read(before, 0)[2]
    assert_array_equal(first, squares(rows, before).argmin(axis=1))
    mixture, found, labels = read(after, 1)
    each = squares(rows, after)
    lists = nearby.Nearby.of(after, 6).lists[first].astype(int)
    expected = np.take_along_axis(
        lists, np.take_along_axis(each, lists, axis=1).argmin(axis=1)[:, None], axis=1
    )[:, 0]
    assert_array_equal(labels, expected)
    parts = found.statistics
    assert_allclose(parts.weight, np.bincount(labels, w, K))
    own = each[np.arange(3000), labels]
    assert (own <= each[np.arange(3000), first]).all()
    assert_allclose(
        found.log_likelihood, -(w @ own) / 4 - w.sum() * (2.5 * np.log(4 * np.pi) + np.log(K))
    )
    n, weight, more, squared, same = parts.sampled
    chosen = np.flatnonzero((np.arange(500, 3500) % (10 * K // 6) == 0) & (w > 0))
    cost = own - each.min(axis=1)
    assert (n, weight) == (len(chosen), w[chosen].sum())
    assert_allclose([more, squared], [w[chosen] @ cost[chosen], w[chosen] @ cost[chosen] ** 2])
    assert same == w[chosen] @ (labels == each.argmin(axis=1))[chosen]
    assert_allclose(parts.merge(parts).sampled, 2 * parts.sampled)
    again = mixture.family.statistics(**parts.arrays())
    assert_array_equal(again.scale(0.5).sampled, parts.sampled / 2)
    assert set(parts.arrays()) == set(mixture.family.statistic_shapes(K, 5))


@pytest.mark.parametrize("weighted", [False, True])
def test_inertia_never_rises_and_ends_near_that_of_all_centres(X, weighted):
    w = np.random.default_rng(2).uniform(0, 2, len(X)) if weighted else None
    few = KMeans(K, truncation=20, random_state=0, tol=1e-6).fit(X, sample_weight=w)
    exact = KMeans(K, init=X[:K], random_state=0, tol=1e-6).fit(X, sample_weight=w)
    assert_allclose(few.inertia_, exact.inertia_, rtol=0.02)
    history = few.history_
    assert (np.diff(history["inertia"]) <= 1e-9 * history["inertia"][0]).all()
    assert (np.diff(history["free_energy"]) >= -1e-6 * len(X)).all()
    weight = np.ones(len(X)) if w is None else w
    own = squares(X, few.cluster_centers_)[np.arange(len(X)), few.labels_]
    assert_allclose(few.inertia_, weight @ own, rtol=1e-10)
    assert_allclose(few.counts_, np.bincount(few.labels_, weight, K), rtol=1e-10)
    assert -few.score(X, sample_weight=w) <= few.inertia_ * (1 + 1e-12)


def test_what_the_lists_cost_is_said(X):
    model = KMeans(K, **(HOW | {"truncation": 3, "max_iter": 12})).fit(X)
    history = model.history_
    gap = model.inertia_ + model.score(X)
    assert gap > 0
    assert abs(gap - history["inertia_of_sets"][-1]) < 5 * history["inertia_error"][-1]
    agree = (model.labels_ == model.predict(X)).mean()
    assert abs(agree - history["agreement"][-1]) < 0.1
    assert "kl_of_sets" not in history


def test_as_many_as_there_are_is_exact(X):
    start = X[:K]
    few = KMeans(K, init=start, truncation=K, max_iter=9).fit(X)
    exact = KMeans(K, init=start, max_iter=9).fit(X)
    assert few.cluster_centers_.tobytes() == exact.cluster_centers_.tobytes()
    assert_array_equal(few.labels_, exact.labels_)
    all_but_one = KMeans(K, init=start, truncation=K - 1, max_iter=9).fit(X)
    assert_allclose(all_but_one.inertia_, exact.inertia_, rtol=1e-6)


def test_the_same_bits_from_all_sources_on_threads_and_on_workers(X, path, tmp_path):
    how = HOW | {"block_size": 60_000, "cache": None}
    fits = [KMeans(K, n_jobs=threads, **how).fit(path) for threads in (1, 2)]
    fits.append(KMeans(K, **(how | {"cache": "auto"})).fit(da.from_zarr(path)))
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None):
        fits.append(KMeans(K, **how).fit(path))
        fits.append(KMeans(K, checkpoint=str(tmp_path / "run.zarr"), **how).fit(path))
    for other in fits[1:]:
        assert other.cluster_centers_.tobytes() == fits[0].cluster_centers_.tobytes()
        assert other.inertia_ == fits[0].inertia_
        for name in ("inertia", "inertia_of_sets", "inertia_error", "agreement"):
            assert_array_equal(other.history_[name], fits[0].history_[name])
    memory = KMeans(K, **HOW).fit(X)
    assert_allclose(memory.inertia_, fits[0].inertia_, rtol=0.02)


KILLED = """
import os, signal, sys
from streamgmm import KMeans
from streamgmm.storage.checkpoint import sets
leave, left = sets.StoredSets.leave, []
def dying(self, *given):
    leave(self, *given)
    left.append(1)
    if len(left) == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
sets.StoredSets.leave = dying
how = eval(sys.argv[3])
KMeans(80, checkpoint=sys.argv[2], block_size=120_000, n_jobs=1, **how).fit(sys.argv[1])
"""


@pytest.mark.parametrize("after", [3, 30])
def test_killed_at_any_moment(path, tmp_path, after):
    run = str(tmp_path / "run.zarr")
    whole = KMeans(K, block_size=120_000, **HOW).fit(path)
    command = [sys.executable, "-c", KILLED, path, run, repr(HOW), str(after)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    rest = KMeans(K, checkpoint=run, block_size=120_000, **HOW).fit(path)
    assert rest.cluster_centers_.tobytes() == whole.cluster_centers_.tobytes()
    assert_array_equal(rest.history_["inertia"], whole.history_["inertia"])
    assert_array_equal(rest.history_["inertia_of_sets"], whole.history_["inertia_of_sets"])


def test_labels_that_are_damaged_are_found_anew(path, tmp_path, caplog):
    run = tmp_path / "run.zarr"
    how = HOW | {"block_size": 120_000, "checkpoint": str(run)}
    KMeans(K, **(how | {"max_iter": 3})).fit(path)
    chunk = next(p for p in sorted((run / "sets" / "0" / "0").rglob("c/0/0")) if p.is_file())
    chunk.write_bytes(b"\xff" * os.path.getsize(chunk))
    assert KMeans(K, **how).fit(path).n_iter_ == 6
    assert "searched anew" in caplog.text


def test_centres_without_rows_get_the_farthest(X):
    start = X[:K].copy()
    start[2:5] = 500.0 + np.arange(3)[:, None]
    model = KMeans(K, init=start, truncation=8, max_iter=8, tol=0).fit(X)
    assert (model.counts_ > 0).all()
    assert np.abs(model.cluster_centers_).max() < 100
    assert (np.diff(model.history_["inertia"]) <= 0).all()


@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_several_starts_from_a_sample_and_from_all_rows(X, monkeypatch, init):
    how = HOW | {"init": init, "n_init": 3}
    whole = KMeans(K, **how).fit(X)
    monkeypatch.setattr(sample, "RESERVOIR_BYTES", 3000 * 40)
    sampled = KMeans(K, **how).fit(X)
    assert_allclose(sampled.inertia_, whole.inertia_, rtol=0.1)
    assert sampled.timings_["why"] == "the best of n_init on a sample"


def test_saved_loaded_and_batches(X, tmp_path):
    model = KMeans(K, **HOW).fit(X)
    model.save(tmp_path / "model.zarr")
    again = streamgmm.load(tmp_path / "model.zarr")
    assert again.truncation == 10
    assert_array_equal(again.predict(X), model.predict(X))
    before = again.counts_.sum()
    assert again.partial_fit(X[:100]).counts_.sum() == before + 100


def test_its_bound_is_traced(X):
    model = KMeans(20, truncation=5, init=X[:20], max_iter=4)
    found = streamgmm.trace_bound(model, X[:2000])
    assert (np.diff(found["free_energy"]) >= -1e-6).all()


def test_auto(monkeypatch):
    X = np.random.default_rng(0).normal(size=(9000, 2))
    how = {"max_iter": 2, "truncation": "auto", "random_state": 0}
    assert "agreement" not in KMeans(20, **how).fit(X).history_
    assert "agreement" in KMeans(2000, **how).fit(X).history_


def test_a_row_that_is_not_finite_is_named(X, tmp_path):
    bad = X.copy()
    bad[1234, 2] = np.nan
    with pytest.raises(DataError, match="1234"):
        KMeans(K, **HOW).fit(bad)
    omitted = KMeans(K, missing="omit", **HOW).fit(bad)
    assert omitted.labels_[1234] == -1
    assert omitted.n_missing_ == 1


@pytest.mark.parametrize(
    ("size", "error", "said"),
    [(9, ParameterError, "more than n_clusters=3"), (1, ValueError, "truncation"),
     ("all", ValueError, "truncation")],
)  # fmt: skip
def test_what_cannot_be_asked_for(size, error, said):
    X = np.random.default_rng(0).normal(size=(50, 3))
    with pytest.raises(error, match=said):
        KMeans(3, truncation=size).fit(X)


def test_centroids_are_truncated_for_hard_assignments_alone():
    X = np.random.default_rng(0).normal(size=(300, 2))
    with pytest.raises(ParameterError, match="at least 2"):
        Centroids(truncation=1)
    with pytest.raises(ParameterError, match="assignment='hard'"):
        MixtureModel(5, family=Centroids(truncation=3)).fit(X)
    hard = MixtureModel(5, family=Centroids(truncation=3), assignment="hard", max_iter=3).fit(X)
    assert (np.diff(hard.history_["free_energy"]) >= -1e-9).all()


def test_a_mixture_of_truncated_centroids_and_its_exact_one(X):
    family = Centroids(truncation=5)
    mixture = Mixture(np.full(K, 1 / K), family.components(means=X[:K], variance=np.array([1.0])))
    rows = X[:500]
    found, exact = (e_step(each, rows, hard=True) for each in (mixture, mixture.exact))
    assert found.components.sampled is not None
    assert exact.components.sampled is None
    assert_allclose(free_energy(mixture, found), free_energy(mixture, exact), rtol=1e-12)
