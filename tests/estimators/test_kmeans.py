"""`KMeans`: scikit-learn's numbers, on every source."""

import dask.array as da
import numpy as np
import pytest
import zarr
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.cluster import KMeans as Reference
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

import streamgmm
from streamgmm import KMeans, load
from streamgmm.errors import CheckpointError, DataError, NonFiniteError, ParameterError
from streamgmm.fitting import centres as fitting
from streamgmm.fitting import sample
from streamgmm.kernels import kmeans as kernels
from streamgmm.model.families import nearest, recall
from streamgmm.model.mixture import Mixture
from streamgmm.predict import predict_rows
from streamgmm.predict.centres import NearestCentres
from streamgmm.sources import open_source
from streamgmm.storage import checkpoint

K = 7


class EndedError(Exception):
    pass


def blobs(n=6000, d=3, dtype=np.float64, seed=0):
    """Overlapping clusters, in random order."""
    rng = np.random.default_rng(seed)
    middles = 2.0 * rng.normal(size=(K, d))
    return (middles[rng.integers(K, size=n)] + rng.normal(size=(n, d))).astype(dtype)


@pytest.fixture(scope="module")
def X():
    return blobs()


def same(ours, theirs, rtol=1e-10):
    """Iterations, labels and inertia."""
    assert ours.n_iter_ == theirs.n_iter_
    assert_array_equal(ours.labels_, theirs.labels_)
    assert_allclose(ours.inertia_, theirs.inertia_, rtol=rtol)
    assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tol", [1e-4, 0.0])
@pytest.mark.parametrize("d", [1, 3, 16])
def test_numbers_are_scikit_learns_from_the_same_centres(d, tol):
    X = blobs(d=d)
    theirs = Reference(K, init=X[:K], n_init=1, tol=tol, max_iter=400).fit(X)
    ours = KMeans(K, init=X[:K], tol=tol, max_iter=400).fit(X)
    same(ours, theirs)
    assert_allclose(ours.score(X), theirs.score(X), rtol=1e-10)
    assert_allclose(ours.transform(X[:50]), theirs.transform(X[:50]), rtol=1e-10)
    assert_array_equal(ours.predict(X[::3]), theirs.predict(X[::3]))


def test_float32_has_the_labels_of_scikit_learn_and_the_inertia_of_float64():
    """Scikit-learn sums float32 in float32; the same labels have the same inertia in float64."""
    X = blobs(dtype=np.float32)
    theirs = Reference(K, init=X[:K], n_init=1, tol=0, max_iter=400).fit(X)
    ours = KMeans(K, init=X[:K], tol=0, max_iter=400).fit(X)
    assert_array_equal(ours.labels_, theirs.labels_)
    assert_allclose(ours.inertia_, theirs.inertia_, rtol=1e-5)
    wide = Reference(K, init=X[:K], n_init=1, tol=0, max_iter=400).fit(X.astype(np.float64))
    same(ours, wide)


@pytest.mark.parametrize("init", ["k-means++", "random"])
@pytest.mark.parametrize("n_init", ["auto", 3])
def test_random_numbers_are_scikit_learns(X, init, n_init):
    theirs = Reference(K, init=init, n_init=n_init, random_state=4).fit(X)
    same(KMeans(K, init=init, n_init=n_init, random_state=4).fit(X), theirs)


def test_a_callable_makes_the_start(X):
    def first(rows, n_clusters, random_state):
        return rows[:n_clusters]

    ours = KMeans(K, init=first, n_init=1).fit(X)
    same(ours, Reference(K, init=X[:K], n_init=1).fit(X))


def test_weights_are_those_of_scikit_learn_and_repeated_rows(X):
    w = np.random.default_rng(1).integers(0, 4, len(X)).astype(np.float64)
    start = X[:K]
    ours = KMeans(K, init=start, tol=0, max_iter=500).fit(X, sample_weight=w)
    same(ours, Reference(K, init=start, n_init=1, tol=0, max_iter=500).fit(X, sample_weight=w))
    repeated = KMeans(K, init=start, tol=0, max_iter=500).fit(np.repeat(X, w.astype(int), axis=0))
    assert_allclose(ours.cluster_centers_, repeated.cluster_centers_, rtol=1e-9)
    assert_allclose(ours.inertia_, repeated.inertia_, rtol=1e-12)
    assert_allclose(ours.score(X, sample_weight=w), -ours.inertia_, rtol=1e-12)


@pytest.mark.parametrize("n_empty", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_centres_without_rows_get_the_farthest_as_in_scikit_learn(X, n_empty, weighted):
    start = X[:K].copy()
    start[2 : 2 + n_empty] = 500.0 + np.arange(n_empty)[:, None]
    w = np.random.default_rng(2).uniform(0.5, 2, len(X)) if weighted else None
    theirs = Reference(K, init=start, n_init=1).fit(X, sample_weight=w)
    ours = KMeans(K, init=start, block_size=20_000).fit(X, sample_weight=w)
    same(ours, theirs)
    assert ours.history_["passes"][0] == 3  # pass 0, the E-step, and once more for the rows
    assert (np.diff(ours.history_["inertia"]) <= 0).all()


def test_fewer_rows_that_differ_than_clusters():
    X = np.repeat([[0.0, 1.0], [2.0, 5.0], [7.0, 7.0]], 20, axis=0)
    with pytest.warns(ConvergenceWarning, match=r"distinct clusters \(3\) found smaller"):
        model = KMeans(5, random_state=0).fit(X)
    assert model.inertia_ == 0
    assert len(np.unique(model.labels_)) == 3
    assert np.isfinite(model.history_["free_energy"]).all()


def test_history_tells_f_which_never_falls(X):
    model = KMeans(K, init=X[:K], tol=0, max_iter=500).fit(X)
    energy, inertia = model.history_["free_energy"], model.history_["inertia"]
    n, d = X.shape
    variance = inertia / (n * d)
    wanted = -n * d / 2 * (np.log(2 * np.pi * variance) + 1) - n * np.log(K)
    assert_allclose(energy, wanted, rtol=1e-12)
    assert (np.diff(energy) >= -1e-9).all()
    assert_allclose(inertia[-1], model.inertia_, rtol=1e-10)
    assert np.isnan(model.history_["kl"]).all()


def test_offsets_cost_no_digits(X):
    far = X + 1e7
    ours = KMeans(K, init=far[:K], tol=0, max_iter=500).fit(far)
    near = KMeans(K, init=far[:K] - 1e7, tol=0, max_iter=500).fit(far - 1e7)
    assert_array_equal(ours.labels_, near.labels_)
    assert_allclose(ours.inertia_, near.inertia_, rtol=1e-9)


def test_sources_workers_and_threads_give_the_same_bits(tmp_path, client):
    X = blobs(1200)  # takes 16 iterations, each of 12 blocks
    path = str(tmp_path / "x.zarr")
    zarr.create_array(path, data=X, chunks=(100, 3))
    settings = {"init": X[:K], "tol": 0, "block_size": 2400}
    here = KMeans(K, n_jobs=1, **settings).fit(path)
    for kind, rows in (
        ("threads", path),
        ("cluster", path),
        ("dask", da.from_array(X, chunks=(100, 3))),
    ):
        n_jobs = 2 if kind == "threads" else None
        there = KMeans(K, n_jobs=n_jobs, **settings).fit(rows)
        assert there.cluster_centers_.tobytes() == here.cluster_centers_.tobytes(), kind
        assert there.inertia_ == here.inertia_
    assert not hasattr(here, "labels_")  # as long as the data
    same_rows = KMeans(K, n_jobs=2, **settings).fit(X)
    lazy = here.predict(path)
    assert_array_equal(lazy.compute(), same_rows.labels_)
    written = here.predict(path, out=tmp_path / "labels.zarr")
    assert_array_equal(written[:], same_rows.labels_)
    far = here.transform(path, out=tmp_path / "far.zarr")
    assert_allclose(far[:], same_rows.transform(X), rtol=1e-12)
    assert_allclose(here.score(path), -here.inertia_, rtol=1e-12)


def test_data_larger_than_the_sample_start_from_it(X, monkeypatch):
    monkeypatch.setattr(sample, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(sample, "MOST_ROWS_PER_PARAMETER", 10)
    tried = []
    lloyd = fitting.lloyd
    monkeypatch.setattr(
        fitting, "lloyd", lambda rows, *a, **k: tried.append(len(rows.X)) or lloyd(rows, *a, **k)
    )
    model = KMeans(K, n_init=4, random_state=0, block_size=20_000).fit(X)
    assert len(tried) == 4
    assert max(tried) < len(X)
    best = Reference(K, n_init=10, random_state=0).fit(X).inertia_
    assert model.inertia_ < 1.02 * best
    assert model.timings_["why"] == "the best of n_init on a sample"


def test_a_fit_that_was_ended_goes_on(X, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "RARE", 0)
    settings = {"random_state": 0, "n_init": 2, "tol": 0, "block_size": 20_000}
    whole = KMeans(K, **settings).fit(X)
    path = tmp_path / "run.zarr"
    told = 0

    def end(progress):
        nonlocal told
        told += progress.stage == "em"
        if told > 25:
            raise EndedError

    model = KMeans(K, checkpoint=path, **settings)
    monkeypatch.setattr(KMeans, "_teller", lambda self: end)
    with pytest.raises(EndedError):
        model.fit(X)
    monkeypatch.undo()
    resumed = clone(model).fit(X)
    assert resumed.cluster_centers_.tobytes() == whole.cluster_centers_.tobytes()
    assert resumed.n_iter_ == whole.n_iter_
    with pytest.raises(CheckpointError, match="n_components is 7 there and 6 here"):
        clone(model).set_params(n_clusters=6).fit(X)


def test_saving_and_loading(X, tmp_path):
    model = KMeans(K, random_state=0).fit(X)
    model.save(tmp_path / "model.zarr")
    again = load(tmp_path / "model.zarr")
    assert isinstance(again, KMeans)
    assert_array_equal(again.predict(X), model.labels_)
    assert again.inertia_ == model.inertia_


def test_verbose_prints_iterations(X, capsys):
    KMeans(K, init=X[:K], verbose=1).fit(X)
    assert "iteration 1, F " in capsys.readouterr().out


def test_what_cannot_be_used_is_named(X):
    with pytest.raises(NotFittedError):
        KMeans().predict(X)
    with pytest.raises(DataError, match="n_samples=3 should be >= n_clusters=8"):
        KMeans().fit(X[:3])
    with pytest.raises(DataError, match=r"initial centers \(2, 3\) does not match the number of"):
        KMeans(K, init=X[:2]).fit(X)
    with pytest.raises(DataError, match="does not match the number of features of the data 3"):
        KMeans(K, init=np.zeros((K, 2))).fit(X)
    with pytest.raises(DataError, match="init has values that are not finite"):
        KMeans(1, init=[[np.nan] * 3]).fit(X)
    rows = X.copy()
    rows[1234, 1] = np.nan
    with pytest.raises(NonFiniteError, match="row 1234, column 1"):
        KMeans(K).fit(rows)
    with pytest.raises(DataError, match="has 2 features, but"):
        KMeans(K, random_state=0).fit(X).predict(X[:, :2])


@parametrize_with_checks(
    [KMeans(n_clusters=3)],
    expected_failed_checks=lambda _: {
        "check_sample_weight_equivalence_on_dense_data": (
            "a start is drawn from the rows, as in scikit-learn's own, which fails here too: "
            "repeated rows draw another start"
        )
    },
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_estimator_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("room", [0, 30_000, 1 << 20])
def test_what_is_remembered_changes_no_bit(X, monkeypatch, room):
    """And rows that cannot have changed their centre are not compared with all of them again."""
    settings = {"init": X[:K], "tol": 0, "block_size": 20_000, "n_jobs": 1}
    ranked = []
    assign = kernels.assign

    def counting(rows, model, known, sums, *rest):
        assign(rows, model, known, sums, *rest)
        ranked.append(sums[3][3])

    monkeypatch.setattr(nearest.kmeans, "assign", counting)
    monkeypatch.setattr(recall.Recall.__init__, "__defaults__", (0,))
    plain = KMeans(K, **settings).fit(X)
    every = sum(ranked)
    ranked.clear()
    monkeypatch.setattr(recall.Recall.__init__, "__defaults__", (room,))
    model = KMeans(K, **settings).fit(X)
    found = sum(ranked)
    assert model.cluster_centers_.tobytes() == plain.cluster_centers_.tobytes()
    assert model.inertia_ == plain.inertia_
    assert_array_equal(model.labels_, plain.labels_)
    assert_array_equal(model.labels_, model.predict(X))
    reads = plain.n_iter_ + 2  # the last one, and labels
    assert every == reads * len(X)
    assert found == every if room == 0 else found < 0.9 * every


def test_a_chain_that_forks_forgets():
    first = recall.Trail()
    centres = np.zeros((2, 1))
    one, two = (first.next(centres, centres + move) for move in (1.0, 3.0))
    memory = recall.Recall()
    known = memory.take(first, 0, 4)
    known.labels[:] = 1
    memory.leave(first, known)
    assert (memory.take(one, 0, 4).labels == 1).all()  # its parent's
    memory.leave(one, known)
    assert (memory.take(two, 0, 4).labels == -1).all()  # not the other branch's
    assert memory.labels(two, 4) is None  # nobody has looked yet
    memory.leave(two, known)
    assert memory.labels(two, 4) is not None
    assert memory.labels(two, 5) is None


def test_batches_move_each_centre_to_the_mean_of_all_rows_that_it_got(X, tmp_path):
    parts = np.split(X, [2000, 3000, 4500])
    model = KMeans(K, tol=0, random_state=0).partial_fit(parts[0])
    whole = KMeans(K, tol=0, random_state=0).fit(parts[0])
    assert_array_equal(model.cluster_centers_, whole.cluster_centers_)
    assert not hasattr(model, "labels_")
    given = [whole.labels_]
    for part in parts[1:]:
        given.append(model.predict(part))
        model.partial_fit(part)
    labels = np.concatenate(given)
    means = np.array([X[labels == k].mean(axis=0) for k in range(K)])
    assert_allclose(model.cluster_centers_, means, rtol=1e-10)
    assert_allclose(model.counts_, np.bincount(labels, minlength=K), rtol=1e-12)
    assert_allclose(model.inertia_, ((X - means[labels]) ** 2).sum(), rtol=1e-10)
    best = KMeans(K, n_init=5, random_state=0).fit(X).inertia_
    assert best <= -model.score(X) < 1.1 * best
    model.save(tmp_path / "model.zarr")
    again, later = load(tmp_path / "model.zarr"), model.partial_fit(X[:50])
    assert_array_equal(again.partial_fit(X[:50]).cluster_centers_, later.cluster_centers_)


def test_cubes_keep_their_shape_and_progress_is_told(X, tmp_path, monkeypatch):
    cube = streamgmm.rows(X[:2400].reshape(40, 60, -1))
    mask = np.arange(40) < 3
    part = streamgmm.rows(X[:2400].reshape(40, 60, -1), mask=np.repeat(mask, 60).reshape(40, 60))
    flat = KMeans(K, random_state=0).fit(X[:2400])
    model = KMeans(K, random_state=0).fit(cube)
    assert_array_equal(model.labels_.ravel(), flat.labels_)
    for found in (model.labels_, model.predict(cube), model.fit_predict(cube)):
        assert_array_equal(found, flat.labels_.reshape(40, 60))
    assert model.transform(cube).shape == (40, 60, K)
    assert model.score(cube) == pytest.approx(-flat.inertia_)
    labels = KMeans(K, random_state=0).fit(part).labels_
    assert_array_equal(labels == -1, np.repeat(mask, 60).reshape(40, 60))
    told = []
    monkeypatch.setattr("streamgmm.estimators.rowwise.listener", lambda: told.append)
    model.score(cube)
    model.predict(cube, out=tmp_path / "labels.zarr")
    assert [(each.stage, each.rows) for each in told if each.rows == each.n_rows] == [
        ("score", 2400),
        ("predict", 2400),
    ]


def test_batches_go_on_from_a_fit_and_count_by_weight(X):
    w = np.random.default_rng(0).integers(0, 3, 1000)
    one, two = (KMeans(K, random_state=0).fit(X[1000:]) for _ in range(2))
    one.partial_fit(X[:1000], sample_weight=w)
    two.partial_fit(np.repeat(X[:1000], w, axis=0))
    assert_allclose(one.cluster_centers_, two.cluster_centers_, rtol=1e-12)
    with pytest.raises(DataError, match="2 features"):
        one.partial_fit(X[:, :2])


def test_centres_give_no_probabilities_and_mixtures_no_distances(X):
    source = open_source(X)
    centres = NearestCentres.at(X[:K])
    with pytest.raises(ParameterError, match="'proba' is none of 'labels', 'distances'"):
        predict_rows(source, centres, "proba")
    with pytest.raises(ParameterError, match="'distances' is none of 'labels', 'proba'"):
        predict_rows(source, Mixture.of("centroids", np.full(K, 1 / K), X[:K], np.ones(1)),
                     "distances")  # fmt: skip


def test_rows_with_gaps_are_left_out(tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3000, 3)) + 8 * rng.integers(3, size=3000)[:, None]
    gaps = rng.random(3000) < 0.2
    holes = np.where(gaps[:, None] & (np.arange(3) == 1), np.nan, rows)
    start = rows[~gaps][:3]
    model = KMeans(3, init=start, missing="omit").fit(holes)
    whole = KMeans(3, init=start).fit(rows[~gaps])
    np.testing.assert_allclose(model.cluster_centers_, whole.cluster_centers_, rtol=1e-12)
    np.testing.assert_array_equal(model.labels_[~gaps], whole.labels_)
    assert (model.labels_[gaps] == -1).all()
    assert model.n_missing_ == gaps.sum()
    assert np.isnan(model.transform(holes)[gaps]).all()
    path = str(tmp_path / "x.zarr")
    zarr.create_array(path, data=holes, chunks=(500, 3))
    stored = KMeans(3, init=start, missing="omit").fit(path)
    np.testing.assert_allclose(stored.cluster_centers_, whole.cluster_centers_, rtol=1e-12)
    np.testing.assert_array_equal(stored.predict(path).compute(), model.labels_)
    with pytest.raises(DataError, match="non-finite"):
        KMeans(3).fit(holes)
