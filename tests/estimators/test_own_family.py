"""The family of docs/own_family.md: it keeps the laws, and is fitted as it stands there."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.testing import assert_allclose
from scipy.optimize import minimize

import streamgmm
from streamgmm import MixtureModel, select
from streamgmm.model.families import FAMILIES, Poisson
from streamgmm.model.mixture import Mixture, e_step, m_step
from streamgmm.testing import ComponentsTests

DOCS = Path(__file__).parents[2] / "docs"
spec = importlib.util.spec_from_file_location("own_family", DOCS / "own_family.py")
assert spec is not None
assert spec.loader is not None
own_family = importlib.util.module_from_spec(spec)
sys.modules["own_family"] = own_family
spec.loader.exec_module(own_family)
FAMILY = own_family.ZeroInflatedPoisson()

TRUTH = Mixture.of(
    FAMILY,
    np.array([0.6, 0.4]),
    np.array([[2.0, 9.0, 4.0], [7.0, 3.0, 4.0]]),
    np.array([[0.3, 0.0, 0.5], [0.1, 0.4, 0.05]]),
)


@pytest.fixture(autouse=True)
def _known_for_a_test() -> Any:
    before = dict(FAMILIES)
    yield
    FAMILIES.clear()
    FAMILIES.update(before)


class TestZeroInflatedPoisson(ComponentsTests):
    def mixture(self, rng, k, d):
        rates = rng.uniform(1, 9, size=(k, d))
        weights = rng.dirichlet(np.full(k, 5.0))
        return Mixture.of(FAMILY, weights, rates, rng.uniform(0, 0.6, size=(k, d)))

    def near(self, components, rng):
        arrays = components.arrays()
        rates = arrays["rates"] * rng.uniform(0.95, 1.05, size=arrays["rates"].shape)
        inflations = arrays["inflations"] + rng.uniform(-0.02, 0.02, size=rates.shape)
        return FAMILY.components(rates=rates, inflations=np.clip(inflations, 0, 0.99))


def test_the_guide_shows_the_file_as_it_is():
    guide, code = (DOCS / "own_family.md").read_text(), (DOCS / "own_family.py").read_text()
    assert code in re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert len(code.splitlines()) < 80


def test_the_m_step_is_what_a_numerical_maximum_is():
    rows = TRUTH.sample(400, np.random.RandomState(0))[0]
    statistics = e_step(TRUTH, rows)
    found = m_step(TRUTH, statistics).components

    def loss(parameters):
        rates, inflations = parameters.reshape(2, 2, 3)
        tried = FAMILY.components(rates=rates, inflations=inflations)
        return -tried.expected_log_density(statistics.components)

    start = np.concatenate([np.full(6, 3.0), np.full(6, 0.2)])
    bounds = [(1e-3, 30.0)] * 6 + [(0.0, 0.99)] * 6
    best = minimize(loss, start, bounds=bounds, options={"ftol": 1e-15, "gtol": 1e-9})
    rates, inflations = best.x.reshape(2, 2, 3)
    assert_allclose(found.rates, rates, rtol=1e-4)
    assert_allclose(found.inflations, inflations, atol=1e-4)
    assert -loss(np.stack([found.rates, found.inflations]).ravel()) >= -best.fun - 1e-9


def test_it_is_fitted_on_a_zarr_array(tmp_path):
    rows = TRUTH.sample(20_000, np.random.RandomState(1))[0].astype(np.int16)
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    path = str(tmp_path / "counts.zarr")
    zarr.create_array(path, data=rows, chunks=(2000, 3))
    model = MixtureModel(2, own_family.ZeroInflatedPoisson, random_state=0, tol=1e-6).fit(path)
    order = np.argsort(-model.weights_)
    assert_allclose(model.weights_[order], TRUTH.weights, atol=0.02)
    for name, values in TRUTH.components.arrays().items():
        assert_allclose(model.components_[name][order], values, atol=0.15)
    model.save(tmp_path / "model.zarr")
    again = streamgmm.load(tmp_path / "model.zarr")
    assert again.score(path) == model.score(path)
    found = select(path, 2, family=[Poisson(), own_family.ZeroInflatedPoisson], random_state=0)
    assert found.best.family is own_family.ZeroInflatedPoisson
    online = MixtureModel(2, FAMILY).partial_fit(rows)
    assert online.score(rows) > model.score(rows) - 5e-3


def test_many_zeros_and_none():
    rows = np.array([[0.0, 3.0], [0.0, 5.0], [0.0, 4.0], [1.0, 2.0]])
    for part in (rows, rows[:3]):
        one = FAMILY.estimate(FAMILY.summarize(part, np.ones((len(part), 1))))
        assert np.isfinite(one.log_density(rows)).all()
        assert one.inflations[0, 1] == 0.0
        assert_allclose(one.rates[0, 1], part[:, 1].mean())
