"""Batch by batch, for any family: `MixtureModel.partial_fit`, and `follow`."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

import streamgmm
from streamgmm import MixtureModel, OnlineGaussianMixture, follow, select
from streamgmm.errors import DataError, ModelFileError, ParameterError
from streamgmm.model.families import FAMILIES, Poisson
from streamgmm.model.mixture import Mixture
from streamgmm.online.settings import OnlineSettings, parse_settings
from tests.mixtures import TYPES, draw, random_mixture

TRUTH = Mixture.of(
    "poisson",
    np.array([0.5, 0.3, 0.2]),
    np.array([[1.0, 8.0, 3.0], [6.0, 2.0, 4.0], [3.0, 3.0, 9.0]]),
)
ROWS = TRUTH.sample(20_000, np.random.RandomState(0))[0]
ROWS = ROWS[np.random.default_rng(0).permutation(len(ROWS))]
X = draw(random_mixture("full", 3, 2, seed=5, spread=3.0), 6000)


def learn(model: Any, rows: Any = ROWS, step: int = 700, **more: Any) -> Any:
    for a in range(0, len(rows), step):
        model.partial_fit(rows[a : a + step], **more)
    return model


def same(a: Any, b: Any) -> None:
    assert a.weights_.tobytes() == b.weights_.tobytes()
    for name, values in a.components_.items():
        assert values.tobytes() == b.components_[name].tobytes()


@pytest.mark.parametrize("kind", TYPES)
def test_gaussians_have_the_bits_of_the_online_mixture(kind: str) -> None:
    ours = learn(MixtureModel(3, kind, random_state=0), X)
    theirs = OnlineGaussianMixture(3, covariance_type=kind, random_state=0, monitor=False)
    learn(theirs, X)
    assert ours.components_["means"].tobytes() == theirs.means_.tobytes()
    assert ours.components_["covariances"].tobytes() == theirs.covariances_.tobytes()
    assert ours.n_samples_seen_ == theirs.n_samples_seen_ == len(X)
    assert_array_equal(ours.monitor_["log_likelihood"], theirs.monitor_["log_likelihood"])


@pytest.mark.parametrize("half_life", [None, 3000.0])
@pytest.mark.parametrize("kind", TYPES)
def test_compiled_steps_are_the_same_law(
    kind: str, half_life: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"random_state": 0, "half_life": half_life, "warm_up": 2000}
    weight = np.random.default_rng(3).integers(0, 3, len(X)).astype(float)
    ends = []
    for compiled in (True, False):
        monkeypatch.setattr(OnlineSettings, "compiled", compiled)
        model = MixtureModel(3, kind, **settings)
        for a in range(0, len(X), 900):
            model.partial_fit(X[a : a + 900], sample_weight=weight[a : a + 900])
        ends.append((model.weights_, *model.components_.values(), *model.monitor_.values()))
    for one, two in zip(*(end[:5] for end in ends), strict=True):
        assert_allclose(one, two, rtol=1e-7, atol=1e-9)


def test_a_family_without_compiled_steps_comes_to_where_batch_em_does() -> None:
    batch = MixtureModel(3, "poisson", random_state=0, tol=1e-6).fit(ROWS)
    held = TRUTH.sample(5000, np.random.RandomState(9))[0]
    averaged = learn(MixtureModel(3, "poisson"))
    assert averaged.score(held) > batch.score(held) - 2e-3
    assert averaged.n_samples_seen_ == len(ROWS)
    assert np.isfinite(averaged.monitor_["log_likelihood"][-10:]).all()
    forgetting = learn(MixtureModel(3, "poisson", half_life=2000))
    assert forgetting.score(held) > batch.score(held) - 2e-2
    drifted = learn(forgetting, ROWS + 3)
    assert drifted.score(held + 3) > averaged.score(held + 3) + 0.5


def test_the_model_does_not_depend_on_where_rows_are(tmp_path: Any) -> None:
    zarr.create_array(str(tmp_path / "x.zarr"), data=ROWS.astype(np.int16), chunks=(1000, 3))
    one = MixtureModel(3, "poisson").partial_fit(str(tmp_path / "x.zarr"))
    same(one, MixtureModel(3, "poisson").partial_fit(ROWS))


def test_rows_that_cannot_be_are_refused_whole() -> None:
    model = learn(MixtureModel(3, "poisson"), ROWS[:9000])
    before, rows = pickle.dumps(model.components_), ROWS[9000:9500].copy()
    rows[7, 1] = -1
    with pytest.raises(DataError, match=r"the rows to learn, row 7: a negative count, -1\.0"):
        model.partial_fit(rows)
    with pytest.raises(DataError, match="has 2 features"):
        model.partial_fit(rows[:, :2])
    assert pickle.dumps(model.components_) == before
    assert model.n_samples_seen_ == 9000
    fresh = MixtureModel(3, "poisson")
    with pytest.raises(DataError, match="row 7"):
        fresh.partial_fit(rows)
    assert not hasattr(fresh, "n_features_in_")


@pytest.mark.parametrize("n", [500, 9000])
def test_saved_and_loaded_it_goes_on(n: int, tmp_path: Any) -> None:
    """During the warm-up, and after it."""
    model = learn(MixtureModel(3, "poisson", random_state=1), ROWS[:n], 250)
    model.save(tmp_path / "model.zarr")
    again = streamgmm.load(tmp_path / "model.zarr")
    same(model, again)
    more = ROWS[n : n + 5000]
    same(learn(model, more), learn(again, more))
    assert again.n_samples_seen_ == n + 5000
    assert_array_equal(again.monitor_["rows"], model.monitor_["rows"])


@pytest.mark.parametrize("family", ["poisson", "full", "tied"])
def test_it_goes_on_from_a_fit(family: str, tmp_path: Any) -> None:
    model = MixtureModel(3, family, random_state=0).fit(ROWS[:10_000])
    model.save(tmp_path / "model.zarr")
    again, score = streamgmm.load(tmp_path / "model.zarr"), model.score(ROWS)
    rows = ROWS[10_000:]
    same(learn(model, rows), learn(again, rows))
    assert model.n_samples_seen_ == len(ROWS)
    assert model.score(ROWS) > score - 1e-3
    assert not hasattr(clone(model).fit(rows), "learner_")
    model.fit(rows)
    same(model, clone(model).fit(rows))


def test_it_goes_on_from_a_selection_and_back_to_a_fit() -> None:
    best = select(ROWS[:6000], [2, 3], family="poisson", random_state=0).best
    learn(best, ROWS[6000:])
    assert best.n_samples_seen_ == pytest.approx(len(ROWS))
    score = best.score(ROWS)
    best.set_params(warm_start=True).fit(ROWS)
    assert best.score(ROWS) >= score
    assert best.history_["passes"][-1] < 12


def test_attributes_set_by_hand_end_the_learning() -> None:
    model = learn(MixtureModel(3, "poisson"), ROWS[:9000])
    weights = model.weights_
    model.components_ = {"rates": TRUTH.components.rates}
    assert model.weights_ is weights
    assert not hasattr(model, "learner_")
    with pytest.raises(ParameterError, match="set by hand, and partial_fit goes on from the stat"):
        model.partial_fit(ROWS[:10])
    model.set_params(max_iter=200)
    model.converged_, model.lower_bound_ = False, -np.inf
    model.set_params(warm_start=True).fit(ROWS).partial_fit(ROWS[:10])


def test_the_family_of_a_model_does_not_change() -> None:
    fitted = MixtureModel(3, "poisson", random_state=0).fit(ROWS[:5000])
    learned = learn(MixtureModel(3, "poisson"), ROWS[:9000])
    for model in (fitted, learned):
        model.set_params(family="diag")
        with pytest.raises(ParameterError, match="has poisson components and diag ones are asked"):
            model.partial_fit(ROWS[:10])
        assert model.fit(ROWS[:500]).partial_fit(ROWS[:10]).family_.name == "diag"


def test_what_cannot_be_asked_for() -> None:
    resp = np.full((len(ROWS), 3), 1 / 3)
    with pytest.raises(ParameterError, match="partial_fit takes no resp_init"):
        MixtureModel(3, "poisson", resp_init=resp).partial_fit(ROWS)
    params = MixtureModel(3)._learning_params()
    for name in ("monitor", "adapt_components"):
        with pytest.raises(ParameterError, match=f"{name}=True is for Gaussian components"):
            parse_settings(params | {name: True}, Poisson(), 3)


@dataclass(frozen=True)
class Counts(Poisson):
    """A family of one's own."""

    name = "counts"


def test_a_follower_of_a_family_of_ones_own(tmp_path: Any) -> None:
    """Another process knows the family by the model that it is given, or not at all."""
    batches = [ROWS[a : a + 1000] for a in range(0, 6000, 1000)]
    try:
        follow(batches[:4], tmp_path / "state.zarr", MixtureModel(3, Counts))
        del FAMILIES["counts"]
        with pytest.raises(ModelFileError, match="family='counts' is not known"):
            follow(batches, tmp_path / "state.zarr")
        model = follow(batches[:5], tmp_path / "state.zarr", MixtureModel(3, Counts()))
        model = follow(batches, tmp_path / "state.zarr", MixtureModel(3, Counts))
        assert model.n_samples_seen_ == 6000
        same(model, learn(MixtureModel(3, Counts), ROWS[:6000], 1000))
    finally:
        FAMILIES.pop("counts", None)


def test_a_follower_of_any_family(tmp_path: Any) -> None:
    path, state = str(tmp_path / "x.zarr"), tmp_path / "state.zarr"
    array = zarr.create_array(path, data=ROWS[:12_000].astype(np.int16), chunks=(1000, 3))
    new = MixtureModel(3, "poisson")
    follow(path, state, new, once=True, labels=tmp_path / "labels.zarr")
    array.append(ROWS[12_000:].astype(np.int16))
    model = follow(path, state, clone(new), once=True, labels=tmp_path / "labels.zarr")
    assert model.n_samples_seen_ == len(ROWS)
    same(model, learn(MixtureModel(3, "poisson"), ROWS, 1000))
    same(model, streamgmm.load(state))
    assert zarr.open_array(tmp_path / "labels.zarr").shape == (len(ROWS),)
    with pytest.raises(ParameterError, match="is of a MixtureModel, not of a OnlineGaussianMix"):
        follow(path, state, OnlineGaussianMixture(3), once=True)
