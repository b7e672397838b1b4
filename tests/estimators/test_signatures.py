"""Every estimator has scikit-learn's face: the same arguments in the same places."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.cluster import KMeans as ReferenceKMeans
from sklearn.decomposition import PCA as ReferencePCA
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture as Reference
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import RobustScaler as ReferenceRobustScaler
from sklearn.preprocessing import StandardScaler

import streamgmm
from streamgmm import (
    PCA,
    GaussianMixture,
    KMeans,
    MixtureModel,
    OnlineGaussianMixture,
    RobustScaler,
)
from streamgmm import StandardScaler as OurScaler

TRANSFORMERS = {
    OurScaler: StandardScaler,
    RobustScaler: ReferenceRobustScaler,
    PCA: ReferencePCA,
}
EVERY = [
    value
    for name in dir(streamgmm)
    if isinstance(value := getattr(streamgmm, name), type)
    and issubclass(value, BaseEstimator)
    and not issubclass(value, RegressorMixin)  # those learn from y
]
ESTIMATORS = [kind for kind in EVERY if kind not in TRANSFORMERS]
MIXTURES = [kind for kind in ESTIMATORS if kind is not KMeans]
TEACH = {"fit", "partial_fit", "fit_predict", "score"}
X = np.random.default_rng(0).normal(size=(300, 2))


def methods(kind: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(value)
        for name, value in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }


def test_all_estimators_are_looked_at() -> None:
    assert set(EVERY) - set(ESTIMATORS) == set(TRANSFORMERS)
    assert set(ESTIMATORS) == {GaussianMixture, KMeans, MixtureModel, OnlineGaussianMixture}


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_arguments_are_where_scikit_learn_has_them(kind: type) -> None:
    mine = methods(kind)
    for name, theirs in methods(ReferenceKMeans if kind is KMeans else Reference).items():
        if kind is KMeans and name in ("set_fit_request", "set_score_request", "set_output"):
            continue
        if name not in mine:
            assert name == "fit_predict", "a stream has no labels of its own rows"
            assert kind is OnlineGaussianMixture
            continue
        known = list(theirs.parameters.values())
        found = list(mine[name].parameters.values())
        assert [(p.name, p.default, p.kind) for p in found[: len(known)]] == [
            (p.name, p.default, p.kind) for p in known
        ], name


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_transformers_have_the_arguments_of_scikit_learn(kind: type) -> None:
    theirs, mine = TRANSFORMERS[kind], methods(kind)
    assert {name for name in dir(theirs) if not name.startswith("_")} - set(dir(kind)) <= {
        "set_callbacks",  # of scikit-learn 1.9, for its own progress bars
        "set_inverse_transform_request",  # since `copy` is taken, and of no meaning
        "set_transform_request",
    }
    wanted = list(inspect.signature(theirs).parameters.values())
    found = list(inspect.signature(kind).parameters.values())
    assert [(p.name, p.default, p.kind) for p in found[: len(wanted)]] == [
        (p.name, p.default, p.kind) for p in wanted
    ]
    for name in ("fit", "partial_fit", "transform", "inverse_transform", "score", "score_samples"):
        if not hasattr(theirs, name):
            assert not hasattr(kind, name)
            continue
        known = inspect.signature(getattr(theirs, name)).parameters.values()
        found = list(mine[name].parameters.values())
        assert [(p.name, p.default) for p in found[: len(known)]] == [
            (p.name, p.default) for p in known
        ], name


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_y_is_the_second_argument_of_whatever_learns_or_scores(kind: type) -> None:
    found = methods(kind)
    assert set(found) & TEACH
    for name in TEACH & set(found):
        names = list(found[name].parameters)
        assert names[:3] == ["self", "X", "y"], name
        assert found[name].parameters["y"].default is None
        if "sample_weight" in names:
            assert names[3] == "sample_weight"
            assert found[name].parameters["sample_weight"].default is None


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_y_is_ignored(kind: type) -> None:
    y = np.full(len(X), np.nan)
    for name in TEACH & set(methods(kind)):
        one, two = (make(kind).fit(X) for _ in range(2))
        getattr(one, name)(X, y)
        getattr(two, name)(X)
        what = "predict" if kind is KMeans else "predict_proba"
        np.testing.assert_array_equal(getattr(one, what)(X), getattr(two, what)(X))
    piped = make_pipeline(StandardScaler(), make(kind)).fit(X, y)
    assert np.isfinite(piped.score(X, y))


@pytest.mark.parametrize("kind", MIXTURES)
def test_before_there_are_rows_nothing_is_there(kind: type) -> None:
    """For tab completion, `hasattr` and wrappers, which ask for whatever may be."""
    model = make(kind)
    assert "fit" in dir(model)
    learned = [name for name in dir(model) if name.endswith("_") and not name.startswith("_")]
    assert not [name for name in learned if hasattr(model, name)]
    names = ("means_", "covariances_", "precisions_", "precisions_cholesky_")
    for name in ("weights_", *(("components_",) if kind is MixtureModel else names)):
        assert not hasattr(model, name)
        assert hasattr(make(kind).fit(X), name)
    with pytest.raises(NotFittedError):
        model.predict(X)
    with pytest.raises(NotFittedError):
        model.score_samples(X)


def test_with_too_few_rows_there_is_no_model() -> None:
    model = OnlineGaussianMixture(3).partial_fit(X[:2])
    assert not hasattr(model, "means_")
    assert hasattr(model, "n_samples_seen_")
    with pytest.raises(AttributeError, match="2 rows so far: a model of 3 components needs"):
        _ = model.means_


def make(kind: type) -> Any:
    return kind(2, random_state=0, n_init=1)
