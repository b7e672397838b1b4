"""Learning batch by batch from rows with gaps."""

import numpy as np
import pytest
import zarr

from streamgmm import GaussianMixture, MixtureModel, OnlineGaussianMixture, load
from streamgmm.errors import DataError, NonFiniteError

KINDS = ("full", "tied", "diag", "spherical")
MEANS = np.array([[0.0, 0.0, 0.0], [8.0, 0.0, 4.0]])


def stream(n, seed=0, share=0.25, means=MEANS):
    rng = np.random.default_rng(seed)
    X = means[rng.integers(2, size=n)] + rng.normal(size=(n, 3))
    X[:, 1] += 0.7 * X[:, 0]
    X[rng.random(X.shape) < share] = np.nan
    return X


def learned(X, kind="full", **settings):
    settings = {"warm_up": 1000, "missing": "marginalize", "n_init": 4} | settings
    model = OnlineGaussianMixture(2, covariance_type=kind, **settings)
    for i in range(0, len(X), 700):
        model.partial_fit(X[i : i + 700])
    model._known().finish()
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_with_gaps_is_learned(kind, tmp_path):
    X = stream(12_000)
    model = learned(X, kind)
    batch = GaussianMixture(2, covariance_type=kind, missing="marginalize", random_state=0).fit(X)
    here, there = np.argsort(model.means_[:, 0]), np.argsort(batch.means_[:, 0])
    assert np.allclose(model.means_[here], batch.means_[there], atol=0.15)
    assert model.score(X) == pytest.approx(batch.score(X), abs=0.02)
    assert model.n_samples_seen_ == np.count_nonzero(~np.isnan(X).all(axis=1))
    assert model.monitor_["alarms"] == []
    model.save(str(tmp_path / "model.zarr"))
    again = load(str(tmp_path / "model.zarr"))
    for each in (model, again):
        each.partial_fit(stream(1500, seed=9))
    assert np.array_equal(model.means_, again.means_)
    assert again.missing == "marginalize"


@pytest.mark.parametrize("kind", KINDS)
def test_whole_rows_give_the_bits_of_the_ordinary_steps(kind):
    X = stream(4000, share=0.0)
    one, two = (learned(X, kind, missing=missing) for missing in ("raise", "marginalize"))
    assert np.array_equal(one.means_, two.means_)
    assert np.array_equal(one.covariances_, two.covariances_)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_gaps_is_the_compiled_step_where_one_value_is_missing(kind):
    """One gap among many rows moves a step by little: both steps have the same law."""
    whole = stream(4000, share=0.0)
    model = learned(whole, kind)
    more = stream(2000, seed=5, share=0.0)
    gap = more.copy()
    gap[0, 1] = np.nan
    one, two = learned(whole, kind).partial_fit(more), model.partial_fit(gap)
    assert np.allclose(one.means_, two.means_, atol=1e-2)
    assert np.allclose(one.covariances_, two.covariances_, atol=1e-2)
    assert not np.array_equal(one.means_, two.means_)


def test_a_change_of_what_is_missing_alone_is_no_alarm_and_a_shift_is_one():
    start = stream(12_000)
    model = learned(start, half_life=20_000)
    for i in range(8):
        model.partial_fit(stream(2000, seed=20 + i, share=0.6))
    assert model.monitor_["alarms"] == []
    for i in range(4):
        model.partial_fit(stream(2000, seed=40 + i, means=MEANS + np.array([0.0, 3.0, 0.0])))
    assert len(model.monitor_["alarms"]) > 0


def test_components_come_and_go_with_gaps():
    X = stream(30_000, share=0.2)
    model = learned(X, n_init=4, adapt_components=True)
    new = np.array([[0.0, 0.0, 0.0], [-9.0, 9.0, 9.0]])
    for i in range(12):
        model.partial_fit(stream(2500, seed=60 + i, share=0.2, means=new))
    assert np.isfinite(model.means_).all()
    assert any(change["kind"] == "birth" for change in model.monitor_["changes"])


def test_sources_and_bad_rows(tmp_path):
    X = stream(6000)
    zarr.create_array(str(tmp_path / "x.zarr"), data=X, chunks=(900, 3))
    one = OnlineGaussianMixture(2, warm_up=1000, missing="marginalize", n_init=4)
    two = OnlineGaussianMixture(2, warm_up=1000, missing="marginalize", n_init=4)
    assert np.array_equal(one.fit(X).means_, two.fit(str(tmp_path / "x.zarr")).means_)
    with pytest.raises(NonFiniteError, match="infinite"):
        one.partial_fit(np.array([[np.inf, 0.0, np.nan]]))
    with pytest.raises(NonFiniteError, match="non-finite"):
        OnlineGaussianMixture(2, warm_up=1000).fit(X)
    omitted = OnlineGaussianMixture(2, warm_up=1000, missing="omit", n_init=4).fit(X)
    assert omitted.n_samples_seen_ == np.count_nonzero(~np.isnan(X).any(axis=1))
    lost = X.copy()
    lost[:, 2] = np.nan
    with pytest.raises(DataError, match="nothing was observed of feature 2"):
        OnlineGaussianMixture(2, warm_up=1000, missing="marginalize").fit(lost)


def test_other_families_learn_what_was_observed():
    rng = np.random.default_rng(0)
    rates = np.array([[2.0, 9.0], [12.0, 1.0]])
    X = rng.poisson(rates[rng.integers(2, size=9000)]).astype(float)
    X[rng.random(X.shape) < 0.2] = np.nan
    model = MixtureModel(2, "poisson", missing="marginalize", warm_up=1500, random_state=0)
    for i in range(0, 9000, 500):
        model.partial_fit(X[i : i + 500])
    found = model.components_["rates"]
    assert np.allclose(found[np.argsort(found[:, 0])], rates, rtol=0.1)
    fitted = MixtureModel(2, "full", missing="marginalize", random_state=0).fit(stream(3000))
    fitted.partial_fit(stream(2000, seed=3))
    assert np.isfinite(fitted.components_["means"]).all()
