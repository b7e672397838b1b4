"""The worked example: it prints what is known of these data, and draws both pictures."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image
from scipy.stats import norm

from streamgmm import GaussianMixture

SCRIPT = Path(__file__).parents[2] / "workflows" / "two_components.py"
pytest.importorskip("matplotlib", reason="an extra")


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("two_components", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_prints_the_fit_that_is_known_and_draws_it(tmp_path):
    """π, means, deviations and likelihood as Benaglia et al. (2009), J. Stat. Softw. 32(6), §3."""
    command = [sys.executable, str(SCRIPT), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "π = 0.6391" in done.stdout
    assert "z = 0: 54.61 ± 5.87" in done.stdout
    assert "z = 1: 80.09 ± 5.87" in done.stdout
    assert "log-likelihood -1034.002 nats" in done.stdout
    for name in ("two_components.png", "staircase.png"):
        drawn = np.asarray(Image.open(tmp_path / "out" / name).convert("RGB"))
        assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 50


def test_the_data_are_those_of_the_source(example):
    waiting = np.loadtxt(example.DATA).ravel()
    assert waiting.shape == (272,)
    assert waiting[:5].tolist() == [79, 54, 74, 62, 85]
    assert_allclose([waiting.mean(), waiting.std(ddof=1)], [70.897059, 13.594974], rtol=1e-7)


def test_responsibilities_cross_at_the_boundaries(example):
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(0, 1, 400), rng.normal(1, 4, 400)])[:, None]
    model = GaussianMixture(2, means_init=[[0.0], [1.0]], tol=1e-8, max_iter=500).fit(X)
    found = example.boundaries(model)
    assert len(found) == 2  # the narrow one is likelier in between
    assert_allclose(model.predict_proba(found[:, None]), 0.5, atol=1e-9)
    x = np.linspace(-9, 9, 50)
    each = model.weights_ * norm(model.means_.T, np.sqrt(model.covariances_.ravel())).pdf(
        x[:, None]
    )
    assert_allclose(example.densities(model, x), each, rtol=1e-9)


def test_components_of_one_variance_cross_once(example):
    model = GaussianMixture(2, covariance_type="tied", means_init=[[0.0], [4.0]])
    model.fit(np.random.default_rng(1).normal([[0.0]] * 300 + [[4.0]] * 500, 1.0))
    model.covariances_ = np.repeat(model.covariances_.ravel(), 2)  # one for each
    (found,) = example.boundaries(model)
    assert_allclose(model.predict_proba([[found]]), 0.5, atol=1e-6)
