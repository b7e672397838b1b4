"""Against extended precision. The full run is ``python -m benchmarks.accuracy``."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from benchmarks.accuracy import TYPES, ratios
from streamgmm.model.mixture import e_step, m_step
from tests.mixtures import gaussian_mixture, random_mixture, step_error


def test_log_densities_are_within_the_stated_bound():
    assert max(ratio for _, _, ratio in ratios(300, 0, 60)) <= 1.0


@pytest.mark.parametrize("kind", TYPES)
def test_scatter_at_an_offset_of_a_million_deviations(kind):
    k, d, n = 3, 6, 3000
    rng = np.random.default_rng(1)
    near = np.round(rng.normal(size=(n, d)) * 2**20) / 2**20  # so that the offset is exact
    X = near + 1e6
    start = random_mixture(kind, k, d, 2)
    mixture = gaussian_mixture(
        kind, start.weights, start.components.means / 4 + 1e6, start.components.covariances
    )
    parts = [e_step(mixture, X[i : i + 500]) for i in range(0, n, 500)]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)
    resp = mixture.posterior(X, resp=True).resp.astype(np.longdouble)
    weight = resp.sum(axis=0)
    mean = resp.T @ near / weight[:, None]
    gap = near[:, None, :] - mean
    full = np.einsum("nk,nki,nkj->kij", resp, gap, gap)
    exact = {
        "full": full,
        "tied": full.sum(axis=0),
        "diag": np.einsum("kdd->kd", full),
        "spherical": np.einsum("kdd->k", full),
    }[kind].astype(float)
    size = {"full": np.einsum("kdd->kd", full), "tied": np.diagonal(full.sum(axis=0))}
    if kind == "full":
        size = np.sqrt(size["full"][:, :, None] * size["full"][:, None, :])
    elif kind == "tied":
        size = np.sqrt(np.outer(size["tied"], size["tied"]))
    else:
        size = exact
    for statistics in (e_step(mixture, X), merged):
        error = np.abs(statistics.components.scatter - exact) / size.astype(float)
        assert error.max() <= 1e-9
        assert_allclose(statistics.components.mean - 1e6, mean.astype(float), atol=1e-9)


@pytest.mark.parametrize("kind", TYPES)
def test_a_second_look_puts_a_far_start_right(kind):
    rng = np.random.default_rng(3)
    near = np.round(rng.normal(size=(2000, 4)) * 2**20) / 2**20
    X = near + 1e6
    k = 1
    start = random_mixture(kind, k, 4, 4)
    mixture = gaussian_mixture(
        kind, start.weights, np.zeros((k, 4)), 1e10 * start.components.covariances
    )
    first = m_step(mixture, e_step(mixture, X))
    assert step_error(mixture, first) > 1e-9
    again = m_step(mixture, e_step(mixture, X, centres=first.components.means))
    assert step_error(mixture, again, first.components.means) <= 1e-9
    full = np.cov(near.T, bias=True)
    exact = {"full": full[None], "tied": full, "diag": np.diagonal(full)[None]}
    wanted = exact.get(kind, np.trace(full)[None] / 4)
    assert_allclose(again.components.covariances, wanted, rtol=1e-9, atol=1e-9)
