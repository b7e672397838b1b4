"""Quantiles of the rows of each component."""

import numpy as np
import pytest
import zarr
from sklearn.pipeline import make_pipeline

import streamgmm
from streamgmm import PCA, GaussianMixture, KMeans, StandardScaler
from streamgmm.errors import ParameterError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6000, 5)) * [1, 2, 3, 4, 5]
X[:2000] += 20
Q = (0.05, 0.5, 0.95)


@pytest.fixture
def stored(tmp_path):
    path = str(tmp_path / "x.zarr")
    zarr.create_array(path, data=X, chunks=(500, 5))
    return path


MODELS = [
    lambda: GaussianMixture(2, random_state=0, block_size=50_000),
    lambda: KMeans(2, random_state=0, block_size=50_000),
    lambda: make_pipeline(StandardScaler(), PCA(2), GaussianMixture(2, random_state=0)),
]


@pytest.mark.parametrize("make", MODELS)
def test_they_are_those_of_the_rows_with_that_label(make, stored):
    model = make().fit(stored)
    labels = np.asarray(model.predict(X))
    found = streamgmm.quantiles(model, stored, Q)
    assert found.shape == (2, 3, 5)
    for k in range(2):
        rows = np.sort(X[labels == k], axis=0)
        for i, p in enumerate(Q):
            for j in range(5):
                assert abs(np.searchsorted(rows[:, j], found[k, i, j]) / len(rows) - p) < 2e-3
    assert np.array_equal(streamgmm.quantiles(model, X, Q).shape, (2, 3, 5))


def test_weights_masks_and_empty_components(stored):
    model = GaussianMixture(2, random_state=0).fit(X)
    first = X[:, 0] > 10
    found = streamgmm.quantiles(model, streamgmm.rows(stored, mask=first), [0.5])
    empty = np.isnan(found).all(axis=(1, 2))
    assert empty.sum() == 1
    weighed = streamgmm.quantiles(
        model, streamgmm.rows(stored, sample_weight=np.where(first, 0.0, 2.0)), [0.5]
    )
    np.testing.assert_allclose(weighed, found, atol=0.02)


def test_bad_input(stored):
    model = GaussianMixture().fit(X)
    with pytest.raises(ParameterError, match="must be probabilities"):
        streamgmm.quantiles(model, stored, [5, 95])
