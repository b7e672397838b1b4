"""Whole pipelines: saved as one, planned, and given back as they were."""

import warnings

import numpy as np
import pytest
import sklearn.preprocessing
import zarr
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline, make_pipeline

import streamgmm
from streamgmm import (
    PCA,
    GaussianMixture,
    KMeans,
    MixtureModel,
    OnlineGaussianMixture,
    RobustScaler,
    StandardScaler,
    follow,
)
from streamgmm.cli import main
from streamgmm.errors import ModelFileError, OutputExistsError, ParameterError
from streamgmm.estimators.pipelines import map_of

X = np.random.default_rng(0).normal(size=(3000, 6))
X[:1000] += 5


@pytest.fixture
def stored(tmp_path):
    path = str(tmp_path / "x.zarr")
    zarr.create_array(path, data=X, chunks=(300, 6))
    return path


LAST = {
    "mixture": lambda: GaussianMixture(2, random_state=0),
    "kmeans": lambda: KMeans(2, random_state=0),
    "online": lambda: OnlineGaussianMixture(2, random_state=0),
    "family": lambda: MixtureModel(2, "diag", random_state=0),
}


@pytest.mark.parametrize("name", LAST)
def test_a_pipeline_is_one_model(name, stored, tmp_path):
    first = [("robust", RobustScaler()), ("a scale", StandardScaler()), ("p", PCA(3))]
    pipe = Pipeline([*first, ("m", LAST[name]())]).fit(stored)
    path = str(tmp_path / "model.zarr")
    streamgmm.save(pipe, path)
    again = streamgmm.load(path)
    assert [step for step, _ in again.steps] == ["robust", "a scale", "p", "m"]
    assert repr(again) == repr(pipe)
    for one, other in zip(again, pipe, strict=True):
        assert one.get_params() == other.get_params()
    assert np.array_equal(np.asarray(again.predict(stored)), np.asarray(pipe.predict(stored)))
    assert again.score(X) == pipe.score(X)
    with pytest.raises(OutputExistsError):
        streamgmm.save(pipe, path)
    streamgmm.save(pipe, path, overwrite=True)


@pytest.mark.parametrize("make", [StandardScaler, RobustScaler, lambda: PCA(2)])
def test_parts_are_models_too(make, tmp_path):
    model = make().fit(X)
    for i, save in enumerate((lambda p: model.save(p), lambda p: streamgmm.save(model, p))):
        path = str(tmp_path / f"{i}.zarr")
        save(path)
        again = streamgmm.load(path)
        assert type(again) is type(model)
        assert np.array_equal(again.transform(X), model.transform(X))
    before = make_pipeline(StandardScaler(), model).fit(X)
    path = str(tmp_path / "both.zarr")
    streamgmm.save(before, path)
    assert np.array_equal(streamgmm.load(path).transform(X), before.transform(X))


def test_what_cannot_be_saved(tmp_path):
    path = str(tmp_path / "model.zarr")
    theirs = make_pipeline(sklearn.preprocessing.StandardScaler(), GaussianMixture()).fit(X)
    with pytest.raises(ParameterError, match="'standardscaler' is sklearn's StandardScaler"):
        streamgmm.save(theirs, path)
    with pytest.raises(ParameterError, match="sklearn's StandardScaler cannot be saved"):
        streamgmm.save(theirs[0], path)
    with pytest.raises(NotFittedError):
        streamgmm.save(make_pipeline(StandardScaler(), GaussianMixture()), path)
    mixed = make_pipeline(StandardScaler.from_sklearn(theirs[0]), theirs[1])
    streamgmm.save(mixed, path)
    np.testing.assert_allclose(streamgmm.load(path).score(X), theirs.score(X))


def test_a_damaged_step_is_an_error(tmp_path):
    path = str(tmp_path / "model.zarr")
    streamgmm.save(make_pipeline(StandardScaler(), GaussianMixture()).fit(X), path)
    group = zarr.open_group(path, mode="r+")
    arrays = [name for name, _ in group.members(max_depth=None) if name.endswith("mean_")]
    group[arrays[0]][...] = 7.0
    with pytest.raises(ModelFileError, match="damaged"):
        streamgmm.load(path)


def test_a_plan_of_a_pipeline_that_is_not_fitted(stored):
    pipe = make_pipeline(StandardScaler(), PCA(2), GaussianMixture(3))
    found = streamgmm.plan(pipe, stored, workers=4, worker_memory="1GiB")
    assert (found.n_rows, found.n_features, found.n_components) == (3000, 2, 3)
    assert not hasattr(pipe[0], "mean_")
    one = streamgmm.plan(GaussianMixture(3), stored, workers=4)
    assert one.n_features == 6
    with pytest.raises(ParameterError, match="streamgmm's KMeans has no plan"):
        streamgmm.plan(make_pipeline(StandardScaler(), KMeans(2)), stored)


def learning():
    first = make_pipeline(StandardScaler(), PCA(3)).fit(X)
    model = OnlineGaussianMixture(2, warm_up=500, random_state=0)
    return Pipeline([*first.steps, ("mixture", model)])


def test_a_pipeline_follows(stored, tmp_path):
    state, labels = str(tmp_path / "state.zarr"), str(tmp_path / "labels.zarr")
    followed = follow(stored, state, learning(), once=True, labels=labels)
    assert isinstance(followed, Pipeline)
    by_hand = OnlineGaussianMixture(2, warm_up=500, random_state=0)
    rows = map_of(learning().steps[:-1]).apply(X)  # scaled and projected at once
    plain = follow([rows[a : a + 300] for a in range(0, 3000, 300)], str(tmp_path / "s"), by_hand)
    assert np.array_equal(followed[-1].means_, plain.means_)
    again = streamgmm.load(state)
    assert np.array_equal(np.asarray(again.predict(stored)), followed.predict(X))

    array = zarr.open_array(stored)
    array.append(X[:600])
    whole = follow(stored, state, learning(), once=True, labels=labels)
    assert whole[-1].n_samples_seen_ == 3600
    assert zarr.open_array(labels).shape == (3600,)
    found = follow(stored, state, once=True, labels=labels)  # as it was saved
    assert found[-1].n_samples_seen_ == 3600

    other = learning()
    other[0].mean_ = other[0].mean_ + 1.0
    with pytest.raises(ParameterError, match="whose steps before the last transform rows other"):
        follow(stored, state, other, once=True)
    with pytest.raises(NotFittedError):
        follow(stored, str(tmp_path / "new"), make_pipeline(StandardScaler(), by_hand), once=True)


def test_transformed_rows_are_followed(stored, tmp_path):
    state = str(tmp_path / "state.zarr")
    by = StandardScaler().fit(X)
    model = OnlineGaussianMixture(2, warm_up=500, random_state=0)
    found = follow(by.transform(stored), state, model, once=True)
    assert abs(found.means_).max() < 3
    zarr.open_array(stored).append(X[:300])
    assert follow(by.transform(stored), state, once=True).n_samples_seen_ == 3300
    other = StandardScaler().fit(X[:1500])
    with pytest.raises(ParameterError, match="follows rows transformed by"):
        follow(other.transform(stored), state, once=True)
    with pytest.raises(ParameterError, match="follows rows transformed by"):
        follow(stored, state, once=True)


@pytest.mark.parametrize("name", ["mixture", "family"])
def test_the_command_line_predicts_with_a_pipeline(name, stored, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    model, out = str(tmp_path / "model.zarr"), str(tmp_path / "labels.zarr")
    pipe = make_pipeline(StandardScaler(), PCA(3), LAST[name]()).fit(stored)
    streamgmm.save(pipe, model)
    assert main(["predict", model, stored, "--out", out, "--quiet"]) in (None, 0)
    assert np.array_equal(zarr.open_array(out)[:], pipe.predict(X))
    assert main(["info", model]) in (None, 0)
    said = capsys.readouterr().out
    assert "after standardscaler (StandardScaler), pca (PCA)" in said
    assert "2 components" in said


def test_the_command_line_tells_of_a_projection(stored, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    model = str(tmp_path / "model.zarr")
    PCA(3).fit(stored).save(model)
    assert main(["info", model]) in (None, 0)
    assert "PCA: 6 features to 3" in capsys.readouterr().out
