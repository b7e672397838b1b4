"""Cubes and groups of variables that grow along the first dimension of their samples, followed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import zarr

import streamgmm
from streamgmm import OnlineGaussianMixture, follow, rows
from streamgmm.errors import OutputExistsError, ParameterError, SourceError
from streamgmm.online.following.outstanding import Outstanding

SHAPE = (12, 5, 8)
rng = np.random.default_rng(3)
BANDS = rng.normal(size=(*SHAPE, 3)) + 6 * rng.integers(0, 2, SHAPE)[..., None]
LAND = rng.random(SHAPE[1:]) < 0.3


def learner(warm_up=200):
    return OnlineGaussianMixture(2, random_state=0, warm_up=warm_up)


def same(a, b):
    for name in ("weights_", "means_", "covariances_"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def cube(folder, n=0, chunks=(2, 3, 8, 2), name="cube.zarr"):
    array = zarr.create_array(
        str(folder / name), shape=(n, *BANDS.shape[1:]), chunks=chunks, dtype="f8"
    )
    array[:] = BANDS[:n]
    return folder / name


def grow(path, n, values=BANDS, axis=0):
    array = zarr.open_array(str(path), mode="r+")
    before = array.shape[axis]
    array.resize(tuple(n if i == axis else size for i, size in enumerate(array.shape)))
    box = tuple(slice(before, n) if i == axis else slice(None) for i in range(array.ndim))
    array[box] = values[box]


@pytest.mark.parametrize("chunks", [(2, 3, 8, 2), (1, 5, 8, 3), (4, 2, 3, 1)])
def test_a_cube_is_learned_as_it_grows_as_its_rows_in_c_order_are(chunks, tmp_path):
    path = cube(tmp_path, 4, chunks)
    out = {"labels": tmp_path / "labels.zarr", "log_density": tmp_path / "density.zarr"}
    state = tmp_path / "state.zarr"
    for n in (4, 6, 12):
        if n > 4:
            grow(path, n)
        model = follow(rows(path), state, learner(), once=True, batch_rows=70, **out)
        labels = zarr.open_array(str(out["labels"]), mode="r")
        whole = n // chunks[0] * chunks[0] if n == 6 else n
        assert labels.shape == (whole, *SHAPE[1:]) if whole >= 6 else labels.shape[1:] == SHAPE[1:]
    step = chunks[0]
    slabs = [BANDS[a : a + step].reshape(-1, 3) for a in range(0, 12, step)]
    plain = {name: tmp_path / f"flat-{name}.zarr" for name in out}
    expected = follow(slabs, tmp_path / "flat.zarr", learner(), batch_rows=70, **plain)
    same(model, expected)
    for name in out:
        found = zarr.open_array(str(out[name]), mode="r")
        flat = zarr.open_array(str(plain[name]), mode="r")[:]
        assert found.shape == SHAPE
        assert found.dtype == flat.dtype
        np.testing.assert_array_equal(found[:].reshape(-1), flat)


def test_looking_more_often_or_ending_between_changes_nothing(tmp_path):
    path, again = cube(tmp_path, 12), cube(tmp_path, 0, name="again.zarr")
    once = follow(rows(path), tmp_path / "one.zarr", learner(), once=True, labels=tmp_path / "a")
    for n in (0, 3, 4, 5, 9, 12):
        grow(again, n)
        if n:
            often = follow(
                rows(again), tmp_path / "two.zarr", learner(), once=True, labels=tmp_path / "b",
                save_rows=50,
            )  # fmt: skip
    same(once, often)
    a, b = (zarr.open_array(str(tmp_path / each), mode="r")[:] for each in "ab")
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("warm_up", [20, 300])
def test_masked_samples_are_not_learned_and_keep_their_places(warm_up, tmp_path):
    group = zarr.create_group(str(tmp_path / "ocean.zarr"))
    dims = ("time", "y", "x")
    for j, name in enumerate(("temp", "salt")):
        values = np.where(LAND, np.nan, BANDS[..., j])
        group.create_array(name, data=values, chunks=(j + 1, 3, 8), dimension_names=dims)
    group.create_array("land", data=LAND, dimension_names=dims[1:])
    group.create_array("depth", data=rng.normal(size=(5, 8)), dimension_names=dims[1:])
    features = ["temp", "salt", "depth"]
    ocean = rows(tmp_path / "ocean.zarr", features=features, mask="land")
    out = {"labels": tmp_path / "labels.zarr", "log_density": tmp_path / "density.zarr"}
    for _ in range(2):
        model = follow(
            ocean, tmp_path / "state.zarr", learner(warm_up), once=True, batch_rows=33, **out
        )
    assert model.n_features_in_ == 3
    assert int(model.monitor_["rows"].sum()) <= 12 * int((~LAND).sum())
    labels, density = (zarr.open_array(str(each), mode="r")[:] for each in out.values())
    assert labels.shape == density.shape == SHAPE
    assert (labels[:, LAND] == -1).all()
    assert (labels[:, ~LAND] >= 0).all()
    np.testing.assert_array_equal(np.isnan(density), labels == -1)


def test_one_killed_while_rows_wait_labels_all_the_same(tmp_path):
    """The warm-up is longer than the first save: labels of masked cubes come later, in place."""
    mask = np.broadcast_to(LAND, SHAPE)
    zarr.create_array(str(tmp_path / "mask.zarr"), data=mask, chunks=(2, 5, 8))
    path = cube(tmp_path, 12)
    found = {}
    for name, cuts in {"one": (12,), "many": (2, 6, 8, 12)}.items():
        part = cube(tmp_path, 0, name=f"{name}.zarr")
        for n in cuts:
            grow(part, n)
            sea = rows(part, mask=tmp_path / "mask.zarr") if n == 12 else None
            if sea is None:
                zarr.create_array(
                    str(tmp_path / "some.zarr"), data=mask[:n], chunks=(2, 5, 8), overwrite=True
                )
                sea = rows(part, mask=tmp_path / "some.zarr")
            follow(
                sea, tmp_path / f"{name}-state.zarr", learner(150), once=True, save_rows=1,
                labels=tmp_path / f"{name}-labels.zarr",
            )  # fmt: skip
        found[name] = zarr.open_array(str(tmp_path / f"{name}-labels.zarr"), mode="r")[:]
    assert path.exists()
    np.testing.assert_array_equal(found["one"], found["many"])
    assert ((found["one"] == -1) == mask).all()


def test_layers_that_are_not_written_yet_are_waited_for(tmp_path):
    path = cube(tmp_path, 4, (1, 3, 8, 3))
    array = zarr.open_array(str(path), mode="r+")
    array.resize((6, *BANDS.shape[1:]))
    array[4, :3] = BANDS[4, :3]  # half of a layer: another chunk of it is to come
    labels = tmp_path / "labels.zarr"
    follow(rows(path), tmp_path / "state.zarr", learner(50), once=True, labels=labels)
    assert zarr.open_array(str(labels), mode="r").shape[0] == 4
    array[4:6] = BANDS[4:6]
    follow(rows(path), tmp_path / "state.zarr", learner(50), once=True, labels=labels)
    assert zarr.open_array(str(labels), mode="r").shape == (6, 5, 8)


def test_variables_are_followed_as_far_as_all_go(tmp_path):
    group = zarr.create_group(str(tmp_path / "g.zarr"))
    for name, n in {"a": 12, "b": 12}.items():
        group.create_array(name, data=BANDS[:n, ..., 0] + len(name), chunks=(1, 5, 8),
                           dimension_names=("t", "y", "x"))  # fmt: skip
    labels = tmp_path / "labels.zarr"
    source = rows(group, features=["a", "b"])
    grow(tmp_path / "g.zarr" / "a", 14, np.concatenate([BANDS, BANDS])[..., 0])
    grow(tmp_path / "g.zarr" / "b", 13, np.concatenate([BANDS, BANDS])[..., 0])
    follow(source, tmp_path / "state.zarr", learner(), once=True, labels=labels)
    assert zarr.open_array(str(labels), mode="r").shape[0] == 13


def test_what_cannot_grow_is_refused(tmp_path):
    path = cube(tmp_path, 4)
    state = tmp_path / "state.zarr"
    with pytest.raises(ParameterError, match="cannot be followed: X is not a Zarr array"):
        follow(rows(BANDS), state, learner(), once=True)
    with pytest.raises(ParameterError, match="mask is not a Zarr array"):
        follow(rows(path, mask=np.zeros((4, 5, 8), bool)), state, learner(), once=True)
    zarr.create_array(str(tmp_path / "w.zarr"), data=np.ones((4, 5, 8)), chunks=(1, 5, 8))
    with pytest.raises(ParameterError, match="has weights"):
        follow(rows(path, sample_weight=tmp_path / "w.zarr"), state, learner(), once=True)
    with pytest.raises(SourceError, match=r"of a cube, pass streamgmm.rows\(array, feature_axis"):
        follow(path, state, learner(), once=True)
    source = rows(path)
    follow(source, state, learner(50), once=True)
    grow(path, 9, np.concatenate([BANDS[:4]] * 2, 1), axis=1)
    with pytest.raises(SourceError, match="had length 5 along axis 1 and has 9 now"):
        follow(source, state, learner(50), once=True)


def test_what_was_rewritten_or_has_shrunk_is_noticed(tmp_path):
    path = cube(tmp_path, 6)
    state = tmp_path / "state.zarr"
    follow(rows(path), state, learner(50), once=True)
    array = zarr.open_array(str(path), mode="r+")
    array[0, 0, 0, 0] += 1
    with pytest.raises(SourceError, match=r"samples 0:\d+ in C order: they are not those"):
        follow(rows(path), state, learner(50), once=True)
    array[:] = BANDS[:6]
    follow(rows(path), state, learner(50), once=True)
    array.resize((4, *BANDS.shape[1:]))
    with pytest.raises(SourceError, match="has shrunk"):
        follow(rows(path), state, learner(50), once=True)


def test_rows_of_a_matrix_are_followed_as_its_path(tmp_path):
    flat = BANDS.reshape(-1, 3)
    zarr.create_array(str(tmp_path / "x.zarr"), data=flat, chunks=(60, 3))
    a = follow(tmp_path / "x.zarr", tmp_path / "a.zarr", learner(), once=True)
    b = follow(rows(tmp_path / "x.zarr"), tmp_path / "b.zarr", learner(), once=True)
    same(a, b)
    zarr.create_array(str(tmp_path / "there.zarr"), shape=(0, 7), chunks=(5, 7), dtype="i4")
    with pytest.raises(OutputExistsError, match="not an array"):
        follow(
            rows(cube(tmp_path, 4)), tmp_path / "c.zarr", learner(), once=True,
            labels=tmp_path / "there.zarr",
        )  # fmt: skip


def test_runs_of_gaps_are_given_back_in_place():
    for seed in range(30):
        draw = np.random.default_rng(seed)
        kept = draw.random(200) < draw.random()
        waiting, out, at = Outstanding(), [], 0
        values = np.arange(200)[kept]
        for part in np.split(kept, np.sort(draw.integers(0, 200, 9))):
            waiting.add(part)
            ready = int(
                draw.integers(0, int(kept[: at + len(part)].sum()) - len(values) + len(values) + 1)
            )
            known = int(kept[: at + len(part)].sum())
            done = int((np.concatenate(out) >= 0).sum()) if out else 0
            out.append(waiting.take(values[done : min(known, max(done, ready))], -1))
            out.append(np.full(waiting.gaps(), -1))
            at += len(part)
        done = int((np.concatenate(out) >= 0).sum())
        out.append(waiting.take(values[done:], -1))
        out.append(np.full(waiting.gaps(), -1))
        assert not math.fsum(waiting.runs)
        np.testing.assert_array_equal(np.concatenate(out), np.where(kept, np.arange(200), -1))
    assert streamgmm.follow is follow
