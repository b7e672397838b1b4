"""Fits that are ended and gone on with, refusals, and places that fail."""

from __future__ import annotations

import errno
import json
import math
import os
import time

import numpy as np
import pytest
import zarr
from sklearn.base import clone

import streamgmm
from streamgmm import GaussianMixture
from streamgmm.errors import CheckpointError, DataError, OutputError
from streamgmm.fitting.contest import Contest
from streamgmm.fitting.fit import FitSettings, fit
from streamgmm.fitting.reading import Reader
from streamgmm.model.families import Gaussian
from streamgmm.model.moments import Moments
from streamgmm.places import Place
from streamgmm.sources import open_source
from streamgmm.storage import lock
from streamgmm.storage.checkpoint import Checkpoint
from streamgmm.storage.checkpoint.store import CheckpointStore
from streamgmm.storage.group import AtomicGroup
from tests.mixtures import parameters_of

rng = np.random.default_rng(0)
X = rng.normal(size=(5, 3))[rng.integers(5, size=6000)] * 1.5 + rng.normal(size=(6000, 3))
BLOCK = 3000
KINDS = {
    "batch": {"algorithm": "em"},
    "two starts": {"algorithm": "em", "n_init": 2, "family": "diag"},
    "incremental": {"algorithm": "incremental", "family": "tied"},
    "reseeding": {"algorithm": "incremental", "n_components": 9, "empty_components": "reseed"},
}


@pytest.fixture(autouse=True)
def after_every_read(monkeypatch):
    monkeypatch.setattr("streamgmm.storage.checkpoint.QUIET_SECONDS", 0.0)
    monkeypatch.setattr("streamgmm.storage.checkpoint.RARE", 0.0)


def run(checkpoint=None, rows=X, seed=0, start=None, **given):
    settings = {"n_components": 4, "block_size": BLOCK, "tol": 1e-4, "max_iter": 12} | given
    source = rows if hasattr(rows, "blocks") else open_source(rows)
    state = np.random.RandomState(seed)
    return fit(
        source, FitSettings(**settings), state, n_threads=1, checkpoint=checkpoint, start=start
    )


def same(a, b):
    theirs = parameters_of(b.mixture)
    for name, values in parameters_of(a.mixture).items():
        assert values.tobytes() == theirs[name].tobytes()
    assert a.lower_bounds == b.lower_bounds
    assert (a.n_iter, a.converged, a.n_rows) == (b.n_iter, b.converged, b.n_rows)
    assert a.statistics.log_likelihood == b.statistics.log_likelihood
    for name in a.history.keys() - {"seconds"}:
        np.testing.assert_array_equal(a.history[name], b.history[name], err_msg=name)
    for one, other in zip(a.seen.groups, b.seen.groups, strict=True):
        assert one.components.scatter.tobytes() == other.components.scatter.tobytes()


class EndedError(Exception):
    pass


@pytest.fixture
def ending(monkeypatch):
    """Makes fits end at their nth read of the data, or round of starts."""
    left = [math.inf]

    def counted(real):
        def call(self, *args, **options):
            if getattr(self, "_name", "") != "the sample of the data":
                left[0] -= 1
                if left[0] < 0:
                    raise EndedError
            return real(self, *args, **options)

        return call

    monkeypatch.setattr(Reader, "run", counted(Reader.run))
    monkeypatch.setattr(Contest, "tell", counted(Contest.tell))

    def end_after(n):
        left[0] = n

    return end_after


@pytest.mark.filterwarnings("ignore:components")
@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_that_is_ended_again_and_again_has_the_same_bits(kind, ending, tmp_path):
    undisturbed = run(**KINDS[kind])
    path = tmp_path / "run.zarr"
    for n in range(1, 400):
        ending(2 + n % 7)
        try:
            result = run(path, **KINDS[kind])
        except EndedError:
            continue
        break
    assert n > 1
    same(result, undisturbed)
    ending(0)
    same(run(path, **KINDS[kind]), undisturbed)  # without a read


@pytest.mark.parametrize("kind", ["batch", "incremental"])
def test_a_finished_fit_goes_on_where_max_iter_is_raised(kind, tmp_path):
    path = tmp_path / "run.zarr"
    for max_iter in (1, 2, 5, 12):
        result = run(path, max_iter=max_iter, tol=0, **KINDS[kind])
        assert result.n_iter == max_iter
    same(result, run(max_iter=12, tol=0, **KINDS[kind]))
    with pytest.raises(CheckpointError, match="12 iterations, more than max_iter = 3"):
        run(path, max_iter=3, tol=0, **KINDS[kind])


def test_the_random_state_goes_on_too(tmp_path):
    states = [np.random.RandomState(0) for _ in range(2)]
    for state in states:
        settings = FitSettings(3, block_size=BLOCK, algorithm="incremental", max_iter=2)
        fit(open_source(X), settings, state, n_threads=1, checkpoint=tmp_path / "run.zarr")
    assert states[0].randint(1 << 30) == states[1].randint(1 << 30)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"n_components": 5}, "n_components is 4 there and 5 here"),
        ({"family": "diag"}, "covariance_type is 'full' there and 'diag' here"),
        (
            {"tol": 0.5, "family": Gaussian("full", 0.1)},
            "tol is .* here; reg_covar is 1e-06 there and 0.1 here",
        ),
        ({"seed": 1}, "random_state differs"),
        ({"rows": X[:-1]}, r"shape is \(6000, 3\) there and \(5999, 3\) here"),
        ({"rows": X.astype(np.float32)}, "dtype is 'float64' there and 'float32' here"),
        ({"rows": X + 1}, "the values of the data differ"),
        ({"block_size": 10 * BLOCK}, "the cut of the rows into blocks differs"),
        ({"given": {"means": X[:4]}}, "means_init differs"),
    ],
)
def test_a_checkpoint_of_another_fit_is_refused(other, said, tmp_path):
    run(tmp_path / "run.zarr", max_iter=1)
    with pytest.raises(ValueError, match=said):
        run(tmp_path / "run.zarr", max_iter=1, **other)


def test_another_start_is_another_fit(tmp_path):
    start, other = run(max_iter=1).mixture, run(max_iter=2).mixture
    run(tmp_path / "run.zarr", start=start)
    run(tmp_path / "run.zarr", start=start)
    with pytest.raises(CheckpointError, match="the model that the fit starts from differs"):
        run(tmp_path / "run.zarr", start=other)


def test_data_may_move_but_not_change(tmp_path):
    for name, values in (("a", X), ("b", X), ("c", np.where(np.arange(6000) == 2500, 0.5, X.T).T)):
        zarr.create_array(str(tmp_path / name), data=values, chunks=(100, 3))
    path = tmp_path / "run.zarr"
    a = run(path, str(tmp_path / "a"), max_iter=2)
    same(a, run(path, str(tmp_path / "b"), max_iter=2))
    with pytest.raises(CheckpointError, match="whose values are not those of"):
        run(path, str(tmp_path / "c"), max_iter=2)


def test_what_is_no_checkpoint_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    zarr.create_array(str(tmp_path / "array.zarr"), data=X[:10])
    GaussianMixture().fit(X[:50]).save(tmp_path / "model.zarr")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    for name in ("file", "array.zarr", "model.zarr", "folder"):
        with pytest.raises(CheckpointError, match=f"'.*{name}' is a .*not a checkpoint"):
            run(tmp_path / name)
    assert streamgmm.load(tmp_path / "model.zarr").n_components == 1


def test_a_damaged_checkpoint_says_so(tmp_path):
    path = tmp_path / "run.zarr"
    run(path, max_iter=2)
    chunk = max((path / "parts").rglob("c/0"), key=lambda file: file.stat().st_size)
    kept = chunk.read_bytes()
    chunk.write_bytes(kept[:-1])
    with pytest.raises(CheckpointError, match="is damaged: its part"):
        run(path, max_iter=2)
    chunk.write_bytes(kept)
    run(path, max_iter=2)
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"]["state"] = root["attributes"]["state"].replace("1.0", "2.0")
    (path / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(CheckpointError, match="its metadata are not what was saved"):
        run(path, max_iter=2)


def test_litter_of_a_killed_writer_is_swept_up(tmp_path):
    path = tmp_path / "run.zarr"
    run(path, max_iter=2)
    parts = sorted(file.name for file in (path / "parts").iterdir())
    AtomicGroup(Place.parse(path)).write("parts/litter", np.ones(3))
    (path / "zarr.0123456789abcdef.partial").write_text("{")
    run(path, max_iter=2)
    assert sorted(file.name for file in (path / "parts").iterdir()) == parts
    assert not list(path.glob("*.partial"))


@pytest.mark.parametrize("step", ["write", "commit"])
def test_a_disk_that_fills(step, tmp_path, monkeypatch):
    path = tmp_path / "run.zarr"
    real = getattr(AtomicGroup, step)
    left = [4]

    def full(self, *args):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(AtomicGroup, step, full)
        with pytest.raises(OutputError, match=r"No space left .*make room, and run again"):
            run(path, **KINDS["incremental"])
    same(run(path, **KINDS["incremental"]), run(**KINDS["incremental"]))


def test_a_place_that_cannot_be_written():
    with pytest.raises(OutputError, match=r"no checkpoint can be written at '/proc/run.zarr'"):
        run("/proc/run.zarr")


def test_two_jobs_and_one_checkpoint(tmp_path):
    path = tmp_path / "run.zarr"
    with Checkpoint(path) as one:
        said = f"process {os.getpid()} on .* is writing the checkpoint"
        with pytest.raises(CheckpointError, match=said):
            run(path)
        assert one.load({}) is None
    run(path, max_iter=1)


def test_the_lock_of_another_host_is_watched(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.3)
    path = tmp_path / "run.zarr"
    path.mkdir()
    record = {"token": "t", "host": "elsewhere", "pid": 7, "started": 1.0, "beat": 3}
    (path / "lock").write_text(json.dumps(record))
    run(path, max_iter=1)  # it stood still
    real = time.sleep

    def beat(seconds):
        real(seconds)
        record["beat"] += 1
        (path / "lock").write_text(json.dumps(record))

    (path / "lock").write_text(json.dumps(record))
    monkeypatch.setattr(lock.time, "sleep", beat)
    with pytest.raises(CheckpointError, match="process 7 on elsewhere is writing"):
        run(path, max_iter=1)


def test_an_object_store(ending):
    url = f"memory://run-{os.getpid()}.zarr"
    undisturbed = run(**KINDS["incremental"])
    ending(9)
    with pytest.raises(EndedError):
        run(url, **KINDS["incremental"])
    ending(math.inf)
    same(run(url, **KINDS["incremental"]), undisturbed)
    with pytest.raises(CheckpointError, match="tol is"):
        run(url, **KINDS["incremental"] | {"tol": 0.1})


def test_whoever_loses_an_object_store_notices(monkeypatch):
    url = f"memory://lost-{os.getpid()}.zarr"
    one = Checkpoint(url)
    one.load({})
    one.save({"passes": 1.0}, whole=True, wait=True)
    with pytest.raises(CheckpointError, match="is writing"):
        Checkpoint(url)
    monkeypatch.setattr(lock, "_started", lambda pid: None)  # as if it were dead
    with Checkpoint(url):
        with pytest.raises(CheckpointError, match="has taken over the checkpoint"):
            one.save({"passes": 2.0}, whole=True, wait=True)
        with pytest.raises(CheckpointError):
            one.__exit__(None, None, None)


def test_at_the_face_of_scikit_learn(ending, tmp_path):
    path = tmp_path / "run.zarr"
    model = GaussianMixture(
        4, random_state=0, tol=1e-4, algorithm="incremental", block_size=BLOCK, n_jobs=1
    )
    undisturbed = clone(model).fit(X)
    model.set_params(checkpoint=path)
    ending(25)
    with pytest.raises(EndedError):
        model.fit(X)
    ending(math.inf)
    model.fit(X)
    np.testing.assert_array_equal(model.means_, undisturbed.means_)
    assert model.lower_bounds_ == undisturbed.lower_bounds_
    model.save(tmp_path / "model.zarr")
    assert streamgmm.load(tmp_path / "model.zarr").checkpoint == str(path)


def test_data_that_change_meanwhile(tmp_path, ending):
    zarr.create_array(str(tmp_path / "x.zarr"), data=X, chunks=(100, 3))
    ending(5)
    with pytest.raises(EndedError):
        run(tmp_path / "run.zarr", str(tmp_path / "x.zarr"))
    ending(math.inf)
    zarr.open_array(str(tmp_path / "x.zarr"))[1234] += 5
    with pytest.raises(DataError, match="changed while it was being fitted"):
        run(tmp_path / "run.zarr", str(tmp_path / "x.zarr"))


def test_a_checkpoint_of_an_older_format_says_what_to_do(tmp_path):
    path = tmp_path / "run.zarr"
    (path / "parts").mkdir(parents=True)
    meta = {
        "format": "streamgmm checkpoint",
        "format_version": 1,
        "streamgmm_version": "0.1.0",
        "fingerprint": {"shape": [6000, 3]},
        "state": '{"dict": {"passes": 1.0}}',
        "values": "[]",
        "parts": {},
        "sha256": "0" * 64,
    }
    root = {"zarr_format": 3, "node_type": "group", "attributes": meta}
    (path / "zarr.json").write_text(json.dumps(root))
    said = r"run.zarr' has format 1, written by streamgmm 0\.1\.0; .* format 2 only: remove it, or"
    with pytest.raises(CheckpointError, match=said):
        run(path, max_iter=1)
    meta["format_version"] = 3
    (path / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(CheckpointError, match=r"has format 3, .* upgrade streamgmm"):
        run(path, max_iter=1)
    assert json.loads((path / "zarr.json").read_text()) == root


def test_an_array_is_written_once(tmp_path, monkeypatch):
    written = []
    real = AtomicGroup.write

    def write(self, key, array):
        written.append(array.size)
        real(self, key, array)

    monkeypatch.setattr(AtomicGroup, "write", write)
    moments = Moments("diag", np.ones(2), np.zeros((2, 3)), np.ones((2, 3)))
    one, other = np.arange(5), np.arange(7)
    with Checkpoint(tmp_path / "run.zarr") as book:
        book.load({})
        book.save({"a": moments, "b": [one, one]}, whole=True, wait=True)
        book.save({"a": moments, "b": [one]}, whole=True, wait=True)
    assert written == [14, 5]
    with Checkpoint(tmp_path / "run.zarr") as book:
        state = book.load({})
        book.save(state | {"c": other}, whole=True, wait=True)
        assert written == [14, 5, 7]
        book.save({"c": other}, whole=True, wait=True)
    assert written == [14, 5, 7]
    assert [path.name[-5:] for path in (tmp_path / "run.zarr/parts").glob("*-*")] == ["int64"]
    with Checkpoint(tmp_path / "run.zarr") as book:
        np.testing.assert_array_equal(book.load({})["c"], other)


def test_a_value_in_two_places_is_written_once_and_stays_one(tmp_path):
    moments = Moments("diag", np.ones(2), np.zeros((2, 3)), np.ones((2, 3)))
    book = CheckpointStore(Place.parse(tmp_path / "run.zarr"))
    for state in ([moments], [moments, (moments, np.arange(3))]):
        book.save({"x": state}, {}, "token")
    again = CheckpointStore(Place.parse(tmp_path / "run.zarr"))
    for _ in range(2):
        meta = again.meta()
        assert len(json.loads(meta["values"])) == 1
        state = again.load(meta)
        assert state["x"][0] is state["x"][1][0]
        np.testing.assert_array_equal(state["x"][0].scatter, moments.scatter)
        assert state["x"][1][1].tolist() == [0, 1, 2]
        again.save(state, {}, "another")
    assert set(again.meta()["parts"]) == {"token-0-float64", "token-1-int64"}
