"""Models on disk: what was saved comes back, and what is not that is an error that says so."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr

from streamgmm.errors import (
    ModelFileError,
    ModelNotFoundError,
    OutputError,
    OutputExistsError,
    ParameterError,
)
from streamgmm.estimators.loading import load
from streamgmm.estimators.seen import describe_seen, parse_seen
from streamgmm.storage import load_group, save_model
from streamgmm.storage.group import AtomicGroup

ARRAYS = {
    "weights_": np.array([0.25, 0.75]),
    "means_": np.arange(6.0).reshape(2, 3) * np.pi,
    "counts_": np.arange(3, dtype=np.int32),
    "flag_": np.array(True),
    "none_": np.empty((0, 3), np.float32),
}
ATTRS = {
    "n_iter_": 5,
    "converged_": True,
    "lower_bound_": -1.25,
    "gap_": float("inf"),
    "history_": {"iteration": np.arange(4), "log_likelihood": np.linspace(-9, -1, 4)},
    "alarms_": [{"row": 3, "kind": "mean"}],
    "source_": {"name": "array 'x.zarr'", "rows": 10**12},
    "names_": np.array(["a", "b"], dtype=object),
}
PARAMS = {
    "n_components": np.int64(2),
    "tol": 1e-3,
    "means_init": np.ones((2, 3), ">f4"),
    "random_state": None,
    "block_size": "auto",
    "shape": (1, 2),
}


def write(path, scale=1.0, **kwargs):
    arrays = ARRAYS | {"means_": ARRAYS["means_"] * scale}
    save_model(path, "GaussianMixture", PARAMS, arrays, ATTRS, **kwargs)


def check(path, scale=1.0):
    stored = load_group(path)
    assert stored.kind == "GaussianMixture"
    assert stored.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert stored.arrays[name].dtype == array.dtype
        wanted = array * scale if name == "means_" else array
        np.testing.assert_array_equal(stored.arrays[name], wanted)
    np.testing.assert_array_equal(stored.params.pop("means_init"), PARAMS["means_init"])
    assert stored.params == {k: v for k, v in PARAMS.items() if k != "means_init"}
    np.testing.assert_equal(stored.attrs, ATTRS)


@pytest.fixture
def places(tmp_path):
    return {
        "directory": tmp_path / "model.zarr",
        "url": f"memory://{tmp_path.name}-{os.getpid()}/model.zarr",
        "file url": f"file://{tmp_path}/other.zarr",
    }


@pytest.mark.parametrize("kind", ["directory", "url", "file url"])
def test_what_was_saved_comes_back(places, kind):
    path = places[kind]
    write(path)
    check(path)
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        write(path, scale=2.0)
    check(path)
    for scale in (2.0, 3.0, 4.0):  # through both slots, and back
        write(path, scale, overwrite=True)
        check(path, scale)
    # No array of an older save stays behind.
    n_arrays = sum(isinstance(node, zarr.Array) for _, node in _walk(path))
    assert n_arrays == len(ARRAYS) + 2 + 1


def _walk(path):
    return zarr.open_group(str(path), mode="r").members(max_depth=None)


def test_any_zarr_reader_can_read_it_and_there_is_no_pickle(tmp_path):
    write(tmp_path / "m.zarr")
    group = zarr.open_group(tmp_path / "m.zarr", mode="r")
    np.testing.assert_array_equal(group["means_"][...], ARRAYS["means_"])
    assert group["history_/iteration"].shape == (4,)
    root = json.loads((tmp_path / "m.zarr/zarr.json").read_text())  # strict JSON, no NaN
    assert root["attributes"]["format"] == "streamgmm"
    assert root["attributes"]["fitted"]["source_"] == {
        "dict": {"name": "array 'x.zarr'", "rows": 10**12}
    }


def test_a_random_state_goes_on_where_it_was(tmp_path):
    random = np.random.RandomState(3)
    random.standard_normal(5)
    save_model(tmp_path / "m.zarr", "GaussianMixture", {"random_state": random}, {}, {})
    again = load_group(tmp_path / "m.zarr").params["random_state"]
    np.testing.assert_array_equal(again.standard_normal(9), random.standard_normal(9))


@pytest.mark.parametrize(
    "value", [np.random.default_rng(0), len, np.array([1j]), {"a b": 1}, {1: 2}, object()]
)
def test_what_has_no_place_in_a_file_is_refused(tmp_path, value):
    with pytest.raises(ParameterError, match=r"random_state.*cannot be saved"):
        save_model(tmp_path / "m.zarr", "GaussianMixture", {"random_state": value}, {}, {})
    assert not (tmp_path / "m.zarr").exists()


def _edit(path, **changes):
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"] |= changes
    (path / "zarr.json").write_text(json.dumps(root))


def _truncate(path):
    chunk = next(p for p in (path / "means_").rglob("*") if p.is_file() and p.name != "zarr.json")
    chunk.write_bytes(chunk.read_bytes()[:-3])


def _other_values(path):
    zarr.open_array(path / "means_", mode="r+")[0, 0] = 7.0


def _other_shape(path):
    zarr.create_array(path, name="means_", data=np.ones((2, 2)), overwrite=True)


DAMAGE = {
    "array missing": (lambda p: shutil.rmtree(p / "means_"), "'means_' is missing"),
    "chunk missing": (lambda p: shutil.rmtree(p / "means_/c"), "the values of its array 'means_'"),
    "chunk truncated": (_truncate, "'means_' cannot be read"),
    "other values": (_other_values, "the values of its array 'means_'"),
    "other shape": (_other_shape, r"'means_' has shape \[2, 2\] where \[2, 3\]"),
    "other settings": (lambda p: _edit(p, params={}), "its metadata is not what was saved"),
    "root truncated": (lambda p: (p / "zarr.json").write_text("{"), "zarr.json is damaged"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_damage_is_named(tmp_path, how):
    path = tmp_path / "m.zarr"
    write(path)
    damage, message = DAMAGE[how]
    damage(path)
    with pytest.raises(ModelFileError, match=message) as caught:
        load(path)
    assert "m.zarr" in str(caught.value)


def test_a_newer_format_says_what_to_install(tmp_path):
    path = tmp_path / "m.zarr"
    write(path)
    _edit(path, format_version=3, streamgmm_version="3.1.0")
    with pytest.raises(ModelFileError, match=r"format 3.*pip install.*streamgmm>=3\.1\.0"):
        load(path)
    with pytest.raises(OutputExistsError):
        write(path)


def test_what_is_no_model_says_what_it_is_and_is_never_replaced(tmp_path):
    zarr.create_array(tmp_path / "array.zarr", data=np.ones((4, 2)))
    zarr.create_group(tmp_path / "group.zarr").create_array("x", data=np.ones(3))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    said = {
        "array.zarr": r"a Zarr array of shape \(4, 2\), not a model",
        "group.zarr": "a Zarr group that holds 'x', not a streamgmm model",
        "folder": "a directory, not a model",
        "file": "a file, not a model",
    }
    for name, message in said.items():
        with pytest.raises(ModelFileError, match=message):
            load(tmp_path / name)
        with pytest.raises(OutputExistsError, match=message):
            write(tmp_path / name, overwrite=True)
    assert (tmp_path / "file").read_text() == (tmp_path / "folder/notes.txt").read_text() == "mine"
    for nowhere in (tmp_path / "nowhere", "memory://nowhere/model.zarr"):
        with pytest.raises(ModelNotFoundError, match="there is no model at"):
            load(nowhere)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["directory", "url"])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_full_disk_leaves_the_old_model_or_nothing(places, kind, replaced, monkeypatch):
    path = places[kind]
    if replaced:
        write(path)
    plain = AtomicGroup.write

    def full(self, key, array):
        if key.endswith("means_"):
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(self, key, array)

    monkeypatch.setattr(AtomicGroup, "write", full)
    with pytest.raises(OutputError, match="No space left"):
        write(path, scale=2.0, overwrite=True)
    monkeypatch.undo()
    if replaced:
        check(path)
    else:
        with pytest.raises(ModelFileError):
            load(path)
    write(path, scale=3.0, overwrite=True)
    check(path, scale=3.0)


KILLED = """
import os, sys
import numpy as np
from tests.storage.test_persist import write
from streamgmm.storage.group import AtomicGroup
plain, left = AtomicGroup.write, int(sys.argv[2])
def write_some(self, key, array):
    global left
    left -= 1
    if left < 0:
        os._exit(9)
    plain(self, key, array)
AtomicGroup.write = write_some
write(sys.argv[1], scale=2.0, overwrite=True)
"""


@pytest.mark.parametrize("replaced", [False, True])
def test_a_process_that_ends_between_two_writes_leaves_the_old_model(tmp_path, replaced):
    path = tmp_path / "m.zarr"
    if replaced:
        write(path)
    root = Path(__file__).parents[2]
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(path), "3"]
    assert subprocess.run(command, cwd=root, check=False).returncode == 9
    if replaced:
        check(path)
    else:
        with pytest.raises(ModelFileError, match="unfinished"):
            load(path)
    write(path, scale=3.0, overwrite=replaced)
    check(path, scale=3.0)


def test_a_model_replaced_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    path = tmp_path / "m.zarr"
    write(path)
    plain, replaced = AtomicGroup.read, []

    def read(self, key, name, wanted):
        if name == "means_" and not replaced:
            replaced.append(True)
            write(path, scale=2.0, overwrite=True)
        return plain(self, key, name, wanted)

    monkeypatch.setattr(AtomicGroup, "read", read)
    check(path, scale=2.0)


def test_models_of_format_1_are_read_and_go_on(tmp_path):
    """Saved by the release before packed values: a batch model, and one that learns online."""
    with zipfile.ZipFile(Path(__file__).parents[1] / "data/models_format_1.zip") as archive:
        archive.extractall(tmp_path)
    expected = json.loads((tmp_path / "expected.json").read_text())
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 2)) + 6.0 * rng.integers(0, 2, size=(2000, 1))
    batch, online = load(tmp_path / "batch.zarr"), load(tmp_path / "online.zarr")
    assert batch.means_.tolist() == expected["batch"]["means_"]
    assert batch.lower_bounds_ == expected["batch"]["lower_bounds_"]
    seen = parse_seen(batch.data_seen_, "full")
    assert sum(group.n_rows for group in seen.groups) == 2000
    np.testing.assert_equal(describe_seen(seen), batch.data_seen_)
    online.partial_fit(X[1500:1600])
    assert online.n_samples_seen_ == expected["n_samples_seen_"]
    for name in ("weights_", "means_"):
        np.testing.assert_allclose(getattr(online, name), expected[name], rtol=1e-9)
    for name, model in (("batch", batch), ("online", online)):
        model.save(tmp_path / f"{name}.zarr", overwrite=True)
        again = load(tmp_path / f"{name}.zarr")
        np.testing.assert_array_equal(again.means_, model.means_)
