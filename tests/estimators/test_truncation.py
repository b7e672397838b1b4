"""Fits in which rows look at few of many components."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import zarr
from distributed import Client
from numpy.testing import assert_allclose, assert_array_equal

import streamgmm
from streamgmm import GaussianMixture, MixtureModel
from streamgmm.errors import ParameterError
from streamgmm.model.families import Gaussian

K = 60
HOW = {"truncation": 4, "covariance_type": "diag", "random_state": 3, "tol": 0, "max_iter": 6}
pytestmark = pytest.mark.filterwarnings("ignore:Best performing initialization did not converge")


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    means = 3 * rng.normal(size=(K, 6))
    labels = rng.integers(0, K, 24_000)
    sigma = rng.uniform(0.3, 0.9, size=(K, 6))
    return means[labels] + sigma[labels] * rng.normal(size=(24_000, 6))


@pytest.fixture(scope="module")
def path(X, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("rows") / "x.zarr")
    zarr.create_array(path, data=X, chunks=(1500, 6))
    return path


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_a_fit_ends_where_the_exact_one_does(X, kind):
    how = {"covariance_type": kind, "random_state": 0, "tol": 1e-4}
    first = GaussianMixture(K, truncation=5, max_iter=1, **how).fit(X)
    start = {"weights_init": first.weights_, "means_init": first.means_}
    start["precisions_init"] = first.precisions_
    few = GaussianMixture(K, truncation=5, **how, **start).fit(X)
    exact = GaussianMixture(K, algorithm="em", acceleration=None, **how, **start).fit(X)
    assert_allclose(few.score(X), exact.score(X), rtol=0.005)
    assert (np.diff(few.history_["free_energy"]) >= -1e-6 * len(X)).all()
    assert (few.predict(X) == few.predict(X, exact=True)).mean() > 0.99
    assert (few.score_samples(X) <= few.score_samples(X, exact=True) + 1e-9).all()
    assert_allclose(few.predict_proba(X[:100]).sum(axis=1), 1)


def test_what_the_sets_cost_is_said(X):
    model = GaussianMixture(K, **(HOW | {"truncation": 1})).fit(X)
    history = model.history_
    gap = model.score_samples(X, exact=True).sum() - history["log_likelihood"][-1]
    error = np.hypot(history["kl_error"][-1], 1.0)
    assert history["kl_error"][-1] > 0
    assert abs(gap) < 5 * error
    assert (history["kl"] >= history["kl_of_sets"] - 1e-6).all()
    assert (history["kl_of_sets"] > 0).all()


def test_the_same_bits_on_threads_out_of_core_and_on_workers(path, tmp_path):
    fits = [
        GaussianMixture(K, block_size=150_000, n_jobs=threads, cache=None, **HOW).fit(path)
        for threads in (1, 2)
    ]
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None):
        fits.append(GaussianMixture(K, block_size=150_000, cache=None, **HOW).fit(path))
        kept = GaussianMixture(
            K, block_size=150_000, cache=None, checkpoint=str(tmp_path / "run.zarr"), **HOW
        )
        fits.append(kept.fit(path))
    for other in fits[1:]:
        assert_array_equal(other.means_, fits[0].means_)
        assert_array_equal(other.covariances_, fits[0].covariances_)
        for name in ("free_energy", "log_likelihood", "kl_of_sets", "kl_error"):
            assert_array_equal(other.history_[name], fits[0].history_[name])


def test_going_on_from_a_checkpoint(path, tmp_path):
    run = str(tmp_path / "run.zarr")
    whole = GaussianMixture(K, block_size=150_000, **HOW).fit(path)
    how = HOW | {"block_size": 150_000, "checkpoint": run}
    GaussianMixture(K, **(how | {"max_iter": 3})).fit(path)
    rest = GaussianMixture(K, **how).fit(path)
    assert rest.means_.tobytes() == whole.means_.tobytes()
    assert_array_equal(rest.history_["free_energy"], whole.history_["free_energy"])


KILLED = """
import sys, warnings, zarr
warnings.simplefilter("ignore")
from streamgmm import GaussianMixture
path, run, how = sys.argv[1], sys.argv[2], eval(sys.argv[3])
GaussianMixture(60, checkpoint=run, block_size=150_000, n_jobs=1, **how).fit(path)
"""


@pytest.mark.parametrize("after", [3, 29, 51])
def test_killed_at_any_moment(path, tmp_path, after):
    """The process is ended as soon as so many sets of blocks have been written."""
    run = str(tmp_path / "run.zarr")
    command = [sys.executable, "-c", KILLED, path, run, repr(HOW)]
    whole = GaussianMixture(K, block_size=150_000, **HOW).fit(path)
    wait = f"""
from streamgmm.storage.checkpoint import sets
leave, left = sets.StoredSets.leave, []
def dying(self, *given):
    leave(self, *given)
    left.append(1)
    if len(left) == {after}:
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
sets.StoredSets.leave = dying
"""
    command[2] = wait + KILLED
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    rest = GaussianMixture(K, checkpoint=run, block_size=150_000, **HOW).fit(path)
    assert rest.means_.tobytes() == whole.means_.tobytes()
    assert_array_equal(rest.history_["free_energy"], whole.history_["free_energy"])


def test_sets_that_are_damaged_are_searched_anew(path, tmp_path, caplog):
    run = tmp_path / "run.zarr"
    how = HOW | {"block_size": 150_000, "checkpoint": str(run)}
    GaussianMixture(K, **(how | {"max_iter": 3})).fit(path)
    chunk = next(p for p in (run / "sets" / "0" / "0").rglob("c/0/0") if p.is_file())
    chunk.write_bytes(b"\xff" * os.path.getsize(chunk))
    lost = run / "sets" / "0" / "0"
    removed = next(p for p in sorted(lost.iterdir()) if p.is_dir() and p not in chunk.parents)
    for each in sorted(removed.rglob("*"), reverse=True):
        each.rmdir() if each.is_dir() else each.unlink()
    rest = GaussianMixture(K, **how).fit(path)
    assert "searched anew" in caplog.text
    assert rest.n_iter_ == 6


def test_saved_and_loaded(X, tmp_path):
    model = GaussianMixture(K, **HOW).fit(X)
    model.save(tmp_path / "model.zarr")
    again = streamgmm.load(tmp_path / "model.zarr")
    assert again.truncation == 4
    assert_array_equal(again.predict(X), model.predict(X))
    assert_array_equal(again.predict(X, exact=True), model.predict(X, exact=True))


def test_auto():
    X = np.random.default_rng(0).normal(size=(5000, 2))
    how = {"covariance_type": "spherical", "max_iter": 1, "random_state": 0}
    assert "kl_of_sets" not in GaussianMixture(20, truncation="auto", **how).fit(X).history_
    assert "kl_of_sets" in GaussianMixture(200, truncation="auto", **how).fit(X).history_


def test_weights_of_rows_count(X):
    weight = np.random.default_rng(1).integers(0, 3, len(X)).astype(float)
    one = GaussianMixture(K, **(HOW | {"max_iter": 1})).fit(X)
    start = {"weights_init": one.weights_, "means_init": one.means_}
    start["precisions_init"] = one.precisions_
    weighted = GaussianMixture(K, **HOW, **start).fit(X, sample_weight=weight)
    repeated = GaussianMixture(K, **HOW, **start).fit(np.repeat(X, weight.astype(int), axis=0))
    assert_allclose(weighted.score(X, weight), repeated.score(X, weight), rtol=2e-3)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"truncation": 9}, "more than n_components=3"),
        ({"truncation": 2, "missing": "marginalize"}, "missing='omit'"),
        ({"truncation": 9, "covariance_type": "ppca", "n_factors": 1}, "more than n_components=3"),
    ],
)
def test_what_does_not_go_together(how, said):
    X = np.random.default_rng(0).normal(size=(50, 3))
    with pytest.raises(ParameterError, match=said):
        GaussianMixture(3, **how).fit(X)


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_hard_assignments(X, kind):
    """F never falls and is Σ max over sets; it ends near where comparing with all does."""
    how = {"covariance_type": kind, "random_state": 0, "assignment": "hard", "tol": 1e-6}
    start = GaussianMixture(K, truncation=5, max_iter=1, **how).fit(X)
    given = {"weights_init": start.weights_, "means_init": start.means_}
    given["precisions_init"] = start.precisions_
    few = GaussianMixture(K, truncation=5, **how, **given).fit(X)
    exact = GaussianMixture(K, **how, **given).fit(X)
    history = few.history_
    assert (np.diff(history["free_energy"]) >= -1e-6 * len(X)).all()
    assert (history["kl"] >= history["kl_of_sets"] - 1e-6).all()
    assert_allclose(few.lower_bound_, exact.lower_bound_, rtol=0.01)
    assert history["agreement"][-1] > 0.97
    family = MixtureModel(K, family=Gaussian(kind, truncation=5), assignment="hard", max_iter=2)
    assert "kl_of_sets" in family.fit(X).history_


def test_hard_assignments_on_threads_and_after_an_end(path, tmp_path):
    how = HOW | {"assignment": "hard", "block_size": 150_000, "cache": None}
    one, two = (GaussianMixture(K, n_jobs=threads, **how).fit(path) for threads in (1, 2))
    run = str(tmp_path / "run.zarr")
    GaussianMixture(K, checkpoint=run, **(how | {"max_iter": 3})).fit(path)
    rest = GaussianMixture(K, checkpoint=run, **how).fit(path)
    for other in (two, rest):
        assert other.means_.tobytes() == one.means_.tobytes()
        assert_array_equal(other.history_["free_energy"], one.history_["free_energy"])


@pytest.mark.parametrize("kind", ["factor", "ppca"])
def test_factor_analysers(X, kind, tmp_path):
    how = {"covariance_type": kind, "n_factors": 2, "random_state": 0, "tol": 1e-4}
    few = GaussianMixture(K, truncation=5, max_iter=30, **how).fit(X)
    history = few.history_
    assert (np.diff(history["free_energy"]) >= -1e-6 * len(X)).all()
    assert (history["kl"] >= history["kl_of_sets"] - 1e-6).all()
    assert (few.predict(X) == few.predict(X, exact=True)).mean() > 0.99
    bound, density = few.score_samples(X), few.score_samples(X, exact=True)
    assert (bound <= density + 1e-9).all()
    error = np.hypot(history["kl_error"][-1], 1.0)
    assert abs(density.sum() - history["log_likelihood"][-1]) < 5 * error
    exact = GaussianMixture(K, max_iter=30, acceleration=None, algorithm="em", **how).fit(X)
    assert_allclose(density.mean(), exact.score(X), rtol=0.02)
    few.save(tmp_path / "model.zarr")
    again = streamgmm.load(tmp_path / "model.zarr")
    assert_array_equal(again.predict(X), few.predict(X))
    hard = GaussianMixture(K, truncation=5, assignment="hard", max_iter=5, **how).fit(X)
    assert (np.diff(hard.history_["free_energy"]) >= -1e-6 * len(X)).all()


def test_factor_analysers_have_the_same_bits(path, tmp_path):
    how = HOW | {"covariance_type": "factor", "n_factors": 2, "block_size": 150_000}
    one, two = (GaussianMixture(K, n_jobs=threads, **how).fit(path) for threads in (1, 2))
    run = str(tmp_path / "run.zarr")
    GaussianMixture(K, checkpoint=run, **(how | {"max_iter": 3})).fit(path)
    rest = GaussianMixture(K, checkpoint=run, **how).fit(path)
    for other in (two, rest):
        assert other.loadings_.tobytes() == one.loadings_.tobytes()
        for name in ("free_energy", "log_likelihood", "kl_of_sets"):
            assert_array_equal(other.history_[name], one.history_[name])


def test_not_with_noise():
    X = np.random.default_rng(0).normal(size=(50, 3))
    with pytest.raises(ParameterError, match="leave truncation out"):
        GaussianMixture(3, truncation=2).fit(X, noise_variance=np.ones_like(X))


def test_components_that_lose_their_rows(X):
    how = HOW | {"empty_components": "retire", "max_iter": 8}
    start = {"weights_init": np.full(K + 1, 1 / (K + 1))}
    start["means_init"] = np.vstack([GaussianMixture(K, **HOW).fit(X).means_, np.full(6, 1e4)])
    start["precisions_init"] = np.ones((K + 1, 6))
    with pytest.warns(match="lost their rows"):
        model = GaussianMixture(K + 1, **how, **start).fit(X)
    assert len(model.weights_) <= K
    assert np.isfinite(model.score(X))


def test_at_the_command_line(path, tmp_path):
    from streamgmm.cli import main

    model, labels = str(tmp_path / "model.zarr"), tmp_path / "labels"
    how = ["--covariance", "diag", "--seed", "0", "--quiet"]
    assert main(["fit", path, "-k", "60", "--truncation", "4", "--out", model, *how]) == 0
    found = []
    for name, more in (("few", []), ("all", ["--exact"])):
        out = str(labels / name)
        assert main(["predict", model, path, "--out", out, "--quiet", *more]) == 0
        found.append(zarr.open_array(out, mode="r")[...])
    assert (found[0] == found[1]).mean() > 0.99
    assert main(["fit", path, "-k", "60", "--truncation", "some", "--out", model]) == 2
