"""Tiles and vectors against NumPy, and what compiling them costs."""

import json
import os
import subprocess
import sys

import mpmath
import numpy as np
import pytest
from numba import njit
from numpy.testing import assert_allclose, assert_array_equal

from streamgmm.kernels import elementary, normalisation, tiles, vectors
from streamgmm.kernels.compiled import compiled
from streamgmm.kernels.drivers import scratch_sizes
from streamgmm.model.covariances.base import Layout


@njit
def apply_exp(x, out):
    for i in range(0, len(x), 8):
        vectors.store(out, i, elementary.exp(vectors.load(x, i)))


@njit
def apply_log(x, out):
    for i in range(0, len(x), 8):
        vectors.store(out, i, elementary.log(vectors.load(x, i)))


@njit
def load_tile(X, weight, first, n, ref, xt, wt, T):
    tiles.load_tile(X, weight, first, n, ref, xt, wt, T)


@njit
def normalize(q, K, T, const, wt, resp, log_density, entropy):
    normalisation.normalize(q, K, T, const, wt, resp, log_density, entropy)


@pytest.mark.parametrize(
    ("function", "oracle", "low", "high"),
    [(apply_exp, mpmath.exp, -708.0, 0.0), (apply_log, mpmath.log, 1.0, 1e6)],
)
def test_exponential_and_logarithm_to_two_units_in_the_last_place(function, oracle, low, high):
    rng = np.random.default_rng(0)
    x = np.concatenate([np.linspace(low, high, 512), rng.uniform(low, min(high, low + 40), 512)])
    out = np.empty_like(x)
    function(x, out)
    with mpmath.workdps(30):
        exact = np.array([float(oracle(mpmath.mpf(v))) for v in x])
    assert_allclose(out, exact, rtol=2**-51, atol=2**-52 if function is apply_log else 0)
    function(np.full(8, np.nan), out)
    assert np.isnan(out[:8]).all()


@pytest.mark.parametrize("rows", [np.float32, np.float64])
@pytest.mark.parametrize("tile", [np.float32, np.float64])
@pytest.mark.parametrize("d", [1, 7, 8, 9, 16, 21])
@pytest.mark.parametrize("n", [1, 8, 13, 64])
def test_a_tile_is_the_rows_turned(rows, tile, d, n):
    T, first = 64, 3
    rng = np.random.default_rng([d, n])
    X = rng.normal(size=(n + 5, d)).astype(rows)
    ref, weight = rng.normal(size=d), rng.random(n + 5)
    xt, wt = np.full(d * T, 9, tile), np.full(T, 9.0)
    load_tile(X, weight, first, n, ref, xt, wt, T)
    exact = (X[first : first + n].astype(float) - ref).astype(tile)
    assert_array_equal(xt.reshape(d, T)[:, :n], exact.T)
    assert_array_equal(xt.reshape(d, T)[:, n:], 0)
    assert_array_equal(wt[:n], weight[first : first + n])
    assert_array_equal(wt[n:], 0)


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-13), (np.float32, 1e-6)])
def test_normalized_weights_and_entropy(dtype, rtol):
    K, T = 5, 64
    rng = np.random.default_rng(0)
    q, const, wt = 40 * rng.random(K * T).astype(dtype), rng.normal(size=K), rng.random(T)
    q[3] = np.nan
    resp, log_density, entropy = np.empty(K * T, dtype), np.empty(T), np.empty(T)
    normalize(q, K, T, const, wt, resp, log_density, entropy)
    log_prob = const[:, None] - 0.5 * q.astype(float).reshape(K, T)
    assert np.isnan(log_density[3])
    with np.errstate(invalid="ignore"):
        exact = np.logaddexp.reduce(log_prob, axis=0)
    assert_allclose(log_density, exact, rtol=rtol)
    r = np.exp(log_prob - log_density)
    assert_allclose(resp.reshape(K, T), r * wt, rtol=3 * rtol)
    assert_allclose(entropy, -np.sum(r * np.log(r), axis=0), rtol=10 * rtol, atol=rtol)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scratch_of_a_thread_is_bounded(dtype):
    for k in (1, 16, 64, 1000):
        for d in (1, 16, 64):
            layout = Layout(k, d, np.dtype(dtype))
            assert layout.work.nbytes + layout.rows.nbytes < 8 << 20
            assert layout.T % (4 * layout.W) == 0
            assert scratch_sizes(k, layout.D, layout.T, layout.W)[1] == len(layout.rows)


PROBE = """
import json, sys
import numpy as np
import streamgmm.kernels.drivers as drivers
from streamgmm.model.mixture import Mixture, e_step
kernels = {name: getattr(drivers, name) for name in ("full_sums", "near_diag_sums")}
before = {name: len(k.signatures) for name, k in kernels.items()}
mixture = Mixture.of("diag", np.ones(1), np.zeros((1, 2)), np.ones((1, 2)))
e_step(mixture, np.zeros((4, 2)))
stats = drivers.near_diag_sums.stats
print(json.dumps([before, sum(stats.cache_hits.values()), sum(stats.cache_misses.values())]))
"""


def probe(folder, source=PROBE):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    run = subprocess.run(
        [sys.executable, "-c", source],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(run.stdout)


def test_without_a_place_to_keep_it_every_process_compiles(monkeypatch):
    def nowhere(function):
        raise RuntimeError("cannot cache function 'f': no locator available")

    monkeypatch.setattr("streamgmm.kernels.compiled._Cache", nowhere)
    assert compiled(lambda x: x + 1)(1) == 2


def test_nothing_is_compiled_at_import_and_a_second_process_compiles_nothing(tmp_path):
    before, hits, misses = probe(tmp_path)
    assert set(before.values()) == {0}
    assert (hits, misses) == (0, 1)
    assert probe(tmp_path)[1:] == [1, 0]
    changed = "import streamgmm.kernels.compiled as c; c.SOURCES = 'another version'" + PROBE
    assert probe(tmp_path, changed)[1:] == [0, 1]
