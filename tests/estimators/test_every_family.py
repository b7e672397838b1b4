"""`MixtureModel` with every family that there is: the same face for all of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import zarr
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

import streamgmm
from streamgmm import MixtureModel, families, select
from streamgmm.errors import DataError, ParameterError
from tests.model.families.cases import MIXTURES

K, D, N = 3, 4, 9000
GIVEN = {
    "product": families.Product(
        calls=("poisson", [0]), flag=("bernoulli", [1]), sizes=("full", [2, 3])
    ),
    "with_noise": families.WithNoise("full"),
}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def draw(kind, n=N):
    truth = MIXTURES[kind](np.random.default_rng(3), K, D)
    rows = truth.sample(n, np.random.RandomState(0))[0]
    return truth, rows[np.random.default_rng(0).permutation(n)]


def same(a, b):
    assert a.weights_.tobytes() == b.weights_.tobytes()
    for name, values in a.components_.items():
        assert values.tobytes() == b.components_[name].tobytes()


@pytest.fixture(params=list(MIXTURES))
def kind(request):
    return request.param


def test_fitted_stored_and_gone_on_with(kind, tmp_path):
    _, X = draw(kind)
    zarr.create_array(str(tmp_path / "x.zarr"), data=X, chunks=(1000, D))
    family = GIVEN.get(kind, kind)
    model = MixtureModel(K, family, random_state=0, block_size="32 KiB", max_iter=20)
    model.fit(str(tmp_path / "x.zarr"))
    assert {len(values) for values in model.components_.values()} == {K}
    same(model, clone(model).fit(str(tmp_path / "x.zarr")))
    log_density = model.score_samples(X)
    assert_allclose(model.score(X), log_density.mean(), rtol=1e-10)
    assert_allclose(model.predict_proba(X).sum(axis=1), 1.0, rtol=1e-9)
    assert_array_equal(model.predict(str(tmp_path / "x.zarr")).compute(), model.predict(X))
    assert model.sample(7)[0].shape == (7, D)
    model.save(tmp_path / "model.zarr")
    again = streamgmm.load(tmp_path / "model.zarr")
    assert again.family_ == model.family_
    assert again.family == model.family
    assert_array_equal(again.score_samples(X), log_density)
    before = model.lower_bound_
    for each in (model, again):
        each.set_params(warm_start=True, max_iter=5).fit(X)
    same(model, again)
    assert model.lower_bound_ >= before - 1e-9


def test_started_from_responsibilities(kind):
    _, X = draw(kind, 2000)
    resp = np.random.default_rng(0).dirichlet(np.ones(K), len(X))
    settings = {"resp_init": resp, "tol": 0, "algorithm": "em", "acceleration": None}
    zero = MixtureModel(K, GIVEN.get(kind, kind), max_iter=0, **settings).fit(X)
    assert_allclose(zero.weights_, resp.mean(axis=0), rtol=1e-9)
    one = MixtureModel(K, GIVEN.get(kind, kind), max_iter=4, **settings).fit(X)
    assert_allclose(one.lower_bounds_[0], zero.score(X), rtol=1e-9)
    assert (np.diff(one.lower_bounds_) >= -1e-10 * np.abs(one.lower_bounds_[1:])).all()


def test_learned_batch_by_batch(kind, tmp_path):
    """Saved in the warm-up and after it, and as high as a fit of all rows that starts there."""
    _, X = draw(kind, 12_000)
    model = MixtureModel(K, GIVEN.get(kind, kind), warm_up=3000, random_state=0)
    for a in range(0, len(X), 1000):
        model.partial_fit(X[a : a + 1000])
        if a in (2000, 8000):
            model.save(tmp_path / "model.zarr", overwrite=True)
            again = streamgmm.load(tmp_path / "model.zarr")
            same(again.partial_fit(X[:10]), pickled(model).partial_fit(X[:10]))
    assert model.n_samples_seen_ == len(X)
    score = model.score(X)
    assert model.set_params(warm_start=True).fit(X).score(X) < score + 0.02


def pickled(model):
    import pickle

    return pickle.loads(pickle.dumps(model))


def test_a_table_whose_columns_have_names():
    _, X = draw("product")
    table = pd.DataFrame(X, columns=["calls", "flag", "length", "width"])
    family = families.Product(
        calls=("poisson", ["calls"]), flag=("bernoulli", ["flag"]),
        sizes=("full", ["length", "width"]),
    )  # fmt: skip
    settings = {"random_state": 0, "max_iter": 10}
    for given, numbered in (
        (family, GIVEN["product"]),
        (families.WithNoise(family), families.WithNoise(GIVEN["product"])),
    ):
        named = MixtureModel(K, given, **settings).fit(table)
        same(named, MixtureModel(K, numbered, **settings).fit(X))
        assert_array_equal(named.predict(table), named.predict(table.copy()))
    with pytest.raises(ParameterError, match="column 'calls' is given by its name"):
        MixtureModel(K, family).fit(X)
    swapped = family.with_columns(list(table))
    online = MixtureModel(K, family, warm_up=500).partial_fit(table)
    assert online.family_ == swapped
    best = select(table, 2, family=[family, GIVEN["product"]], random_state=0).best
    assert best.family_ == swapped


def test_a_category_that_was_never_seen():
    X = np.random.default_rng(0).integers(0, 3, (4000, 2)).astype(float)
    other = X[:50].copy()
    other[7, 1] = 9
    model = MixtureModel(2, "categorical", warm_up=500, random_state=0).partial_fit(X)
    before = model.n_samples_seen_
    for call in (model.partial_fit, model.predict, model.score):
        with pytest.raises(DataError, match="row 7"):
            call(other)
    assert model.n_samples_seen_ == before
    open_minded = MixtureModel(2, families.Categorical(unknown="ignore"), warm_up=500)
    assert open_minded.partial_fit(X).partial_fit(other).n_samples_seen_ == 4050


def test_likelihoods_of_counts_and_of_their_shares_are_not_compared():
    _, X = draw("multinomial", 500)
    with pytest.raises(ParameterError, match="counting given totals"):
        select(X, 2, family=["poisson", "multinomial"])
