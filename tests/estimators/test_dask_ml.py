"""dask-ml's wrappers take our estimators as they take scikit-learn's."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest

from streamgmm import GaussianMixture, OnlineGaussianMixture

wrappers = pytest.importorskip("dask_ml.wrappers", reason="an extra for tests")


@pytest.fixture
def X() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(4_000, 3)) + 4.0 * rng.integers(0, 2, size=(4_000, 1))


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_parallel_post_fit(X: np.ndarray, scheduler: str) -> None:
    lazy = da.from_array(X, chunks=(1_000, 3))
    for estimator in (
        GaussianMixture(2, random_state=0),
        OnlineGaussianMixture(2, warm_up=500, n_init=1),
    ):
        with dask.config.set(scheduler=scheduler):
            model = wrappers.ParallelPostFit(estimator).fit(X)
            labels = model.predict(lazy)
            assert isinstance(labels, da.Array)
            np.testing.assert_array_equal(labels.compute(), model.estimator.predict(X))
            # Of a dask array it would ask for `classes_`, which no mixture has.
            resp = model.predict_proba(X)
            np.testing.assert_array_equal(resp, model.estimator.predict_proba(X))
            assert model.score(X, None) == pytest.approx(model.estimator.score(X))


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_incremental_is_partial_fit_of_block_after_block(X: np.ndarray, scheduler: str) -> None:
    lazy = da.from_array(X, chunks=(700, 3))
    with dask.config.set(scheduler=scheduler):
        model = wrappers.Incremental(
            OnlineGaussianMixture(2, warm_up=500, n_init=1), shuffle_blocks=False
        )
        model.partial_fit(lazy)
        model.partial_fit(X[:100])
    alone = OnlineGaussianMixture(2, warm_up=500, n_init=1)
    for first in range(0, len(X), 700):
        alone.partial_fit(X[first : first + 700])
    alone.partial_fit(X[:100])
    np.testing.assert_array_equal(model.estimator_.means_, alone.means_)
    assert model.estimator_.n_samples_seen_ == len(X) + 100
    np.testing.assert_array_equal(model.predict(lazy).compute(), alone.predict(X))
