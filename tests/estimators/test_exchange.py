"""Fitted models to scikit-learn's and back: equal predictions."""

import numpy as np
import pytest
import sklearn.cluster
import sklearn.decomposition
import sklearn.mixture
import sklearn.preprocessing
from sklearn.exceptions import NotFittedError

from streamgmm import PCA, GaussianMixture, KMeans, RobustScaler, StandardScaler
from streamgmm.errors import ParameterError

X = np.random.default_rng(0).normal(size=(900, 4))
X[:300] += 4
X[300:500, 1] -= 6

CASES = {
    "full": (lambda: GaussianMixture(3, random_state=0), sklearn.mixture.GaussianMixture),
    "tied": (
        lambda: GaussianMixture(3, covariance_type="tied", random_state=0),
        sklearn.mixture.GaussianMixture,
    ),
    "diag": (
        lambda: GaussianMixture(3, covariance_type="diag", random_state=0),
        sklearn.mixture.GaussianMixture,
    ),
    "spherical": (
        lambda: GaussianMixture(3, covariance_type="spherical", random_state=0),
        sklearn.mixture.GaussianMixture,
    ),
    "kmeans": (lambda: KMeans(3, random_state=0), sklearn.cluster.KMeans),
    "standard": (StandardScaler, sklearn.preprocessing.StandardScaler),
    "unscaled": (lambda: StandardScaler(with_std=False), sklearn.preprocessing.StandardScaler),
    "robust": (lambda: RobustScaler(unit_variance=True), sklearn.preprocessing.RobustScaler),
    "pca": (lambda: PCA(2, whiten=True), sklearn.decomposition.PCA),
}
METHODS = ("predict", "predict_proba", "score_samples", "transform", "inverse_transform", "score")


def alike(one, other):
    compared = 0
    for name in METHODS:
        if name == "score_samples" and getattr(one, "whiten", False):
            continue  # whitening is no part of the density here
        if not (hasattr(one, name) and hasattr(other, name)) or (
            name == "score" and getattr(one, "whiten", False)
        ):
            continue
        rows = X if name != "inverse_transform" else one.transform(X)
        found, wanted = getattr(one, name)(rows), getattr(other, name)(rows)
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9, err_msg=name)
        compared += 1
    assert compared >= 1
    params = one.get_params(deep=False)
    known = other.get_params(deep=False)
    assert all(params[name] == known[name] for name in set(params) & set(known))
    assert one.n_features_in_ == other.n_features_in_ == 4


@pytest.mark.parametrize("case", CASES)
def test_to_scikit_learn(case):
    make, kind = CASES[case]
    mine = make().fit(X)
    theirs = mine.to_sklearn()
    assert type(theirs) is kind
    alike(mine, theirs)
    again = type(mine).from_sklearn(theirs)
    assert type(again) is type(mine)
    alike(again, theirs)


@pytest.mark.parametrize("case", CASES)
def test_from_scikit_learn(case, tmp_path):
    make, kind = CASES[case]
    known = kind._get_param_names()
    asked = {k: v for k, v in make().get_params(deep=False).items() if k in known}
    theirs = kind(**asked).fit(X)
    mine = type(make()).from_sklearn(theirs)
    alike(mine, theirs)
    mine.save(str(tmp_path / "model.zarr"))
    theirs_attributes = vars(theirs)
    for name in mine.shared:
        value = getattr(mine, name)
        if isinstance(value, np.ndarray):
            assert value is not theirs_attributes[name]


def test_what_is_near_enough():
    minibatch = sklearn.cluster.MiniBatchKMeans(3, random_state=0).fit(X)
    assert np.array_equal(KMeans.from_sklearn(minibatch).predict(X), minibatch.predict(X))
    incremental = sklearn.decomposition.IncrementalPCA(2).fit(X)
    mine = PCA.from_sklearn(incremental)
    np.testing.assert_allclose(mine.transform(X), incremental.transform(X), atol=1e-12)
    assert mine.n_samples_ == 900


def test_learning_goes_on_from_centres_of_scikit_learn():
    theirs = sklearn.cluster.KMeans(3, random_state=0).fit(X)
    model = KMeans.from_sklearn(theirs).partial_fit(X)
    assert model.counts_.sum() == 1800
    np.testing.assert_allclose(model.cluster_centers_, theirs.cluster_centers_, atol=1e-9)


def test_what_cannot_be_exchanged():
    with pytest.raises(ParameterError, match="sklearn's BayesianGaussianMixture cannot be made a"):
        GaussianMixture.from_sklearn(sklearn.mixture.BayesianGaussianMixture().fit(X))
    with pytest.raises(ParameterError, match="give scikit-learn's PCA or IncrementalPCA"):
        PCA.from_sklearn(sklearn.preprocessing.StandardScaler().fit(X))
    with pytest.raises(NotFittedError):
        StandardScaler.from_sklearn(sklearn.preprocessing.StandardScaler())
    with pytest.raises(NotFittedError):
        StandardScaler().to_sklearn()
