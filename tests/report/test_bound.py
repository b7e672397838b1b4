"""Every half-step of EM: F, the log-likelihood, and what lies between."""

import numpy as np
import pytest
import zarr
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.utils.validation import check_is_fitted

from streamgmm import GaussianMixture, KMeans, OnlineGaussianMixture, trace_bound
from streamgmm.errors import ParameterError
from streamgmm.fitting.tracing import trace
from streamgmm.model.mixture import Mixture
from streamgmm.report import save_staircase
from streamgmm.sources import open_source

N_ITER = 6


def overlapping(n=3000, seed=0):
    rng = np.random.default_rng(seed)
    middles = np.array([[0.0, 0.0], [2.5, 1.0], [0.0, 3.0]])
    return middles[rng.integers(3, size=n)] + rng.normal(size=(n, 2)) * [1.0, 0.6]


@pytest.fixture(scope="module")
def X():
    return overlapping()


def model(kind="full", **settings):
    every = {"random_state": 0, "tol": 0, "max_iter": N_ITER, "acceleration": None}
    every |= {"init_params": "random_from_data"}
    return GaussianMixture(3, covariance_type=kind, **every | settings)


def check(found, exact):
    """F never falls, and is a bound; an exact E-step closes the gap."""
    energy, above, kl = (found[name] for name in ("free_energy", "log_likelihood", "kl"))
    rounding = 1e-12 * np.abs(energy).max()
    assert len({len(values) for values in found.values()}) == 1
    assert_array_equal(kl, above - energy)
    assert (np.diff(energy) >= -rounding).all()
    assert (kl >= -rounding).all()
    assert np.isfinite(energy).all()
    if exact:
        assert_array_equal(found["half_step"], ["E", "M"] * N_ITER)
        assert_allclose(kl[::2], 0, atol=rounding)
        assert_array_equal(above[1:-1:2], above[2::2])  # the E-step does not change θ
    assert (kl[1::2] > 0).all()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("assignment", ["soft", "hard"])
def test_a_fit_and_its_trace_agree(X, kind, assignment):
    start = {} if assignment == "soft" else {"init_params": "kmeans", "tol": 1e-12}
    estimator = model(kind, assignment=assignment, **start)
    found = trace_bound(estimator, X, N_ITER)
    check(found, exact=assignment == "soft")
    with pytest.raises(NotFittedError):
        check_is_fitted(estimator)  # it was not changed
    history = estimator.fit(X).history_
    assert len(history["kl"]) == N_ITER
    assert_allclose(found["free_energy"][1::2], history["free_energy"], rtol=1e-12)
    assert_allclose(found["log_likelihood"][1::2], history["log_likelihood"], rtol=1e-12)
    assert_allclose(found["kl"][1::2], history["kl"], atol=1e-9 * len(X))
    assert_allclose(found["log_likelihood"][-1], len(X) * estimator.score(X), rtol=1e-12)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_fitted_model_goes_on(X):
    estimator = model().fit(X)
    found = trace_bound(estimator, X, N_ITER)
    check(found, exact=True)
    assert_allclose(found["free_energy"][0], len(X) * estimator.score(X), rtol=1e-12)
    whole = trace_bound(model(), X, 2 * N_ITER)
    assert_allclose(whole["free_energy"][2 * N_ITER :], found["free_energy"], rtol=1e-10)


def test_hard_assignments_are_minus_log_max_r_short(X):
    """After the E-step, KL = -Σ log max_k r_k."""
    estimator = model(assignment="hard", max_iter=100, tol=1e-9).fit(X)
    found = trace_bound(estimator, X, 1)
    r = estimator.predict_proba(X)
    assert_allclose(found["kl"][0], -np.log(r.max(axis=1)).sum(), rtol=1e-9)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("assignment", ["soft", "hard"])
def test_incremental_em_lags_behind(X, assignment):
    settings = {"algorithm": "incremental", "block_size": 4000, "assignment": assignment}
    estimator = model(max_iter=3, **settings)
    found = trace_bound(estimator, X, 3)
    check(found, exact=False)
    n_groups = (len(found["half_step"]) // 2 - 1) // 2  # the first sweep is one step
    assert n_groups > 1
    assert (found["kl"][2::2] > 1e-6).all()
    history = estimator.fit(X).history_
    ends = 1 + 2 * n_groups * np.arange(3)
    assert_allclose(found["free_energy"][ends], history["free_energy"], rtol=1e-12)


def test_k_means_raises_the_same_bound(X):
    estimator = KMeans(3, init=X[:3], tol=0, max_iter=N_ITER)
    found = trace_bound(estimator, X, N_ITER)
    check(found, exact=False)
    estimator.fit(X)
    assert_allclose(found["free_energy"][1::2], estimator.history_["free_energy"], rtol=1e-12)
    on = trace_bound(estimator, X, 1)
    inertia, variance = estimator.inertia_, estimator.variance_
    wanted = -inertia / (2 * variance) - len(X) * (np.log(2 * np.pi * variance) + np.log(3))
    assert_allclose(on["free_energy"][0], wanted, rtol=1e-12)


def test_any_family_and_source(tmp_path):
    truth = Mixture.of("poisson", np.array([0.4, 0.6]), np.array([[2.0, 5.0], [6.0, 1.0]]))
    X = truth.sample(2000, np.random.RandomState(0))[0]
    zarr.create_array(str(tmp_path / "x.zarr"), data=X, chunks=(300, 2))
    start = Mixture.of("poisson", np.array([0.5, 0.5]), np.array([[3.0, 3.0], [4.0, 2.0]]))
    here = trace(open_source(X), start, N_ITER)
    there = trace(open_source(str(tmp_path / "x.zarr")), start, N_ITER, n_threads=2)
    check(here, exact=True)
    for name in ("free_energy", "log_likelihood"):
        assert_allclose(here[name], there[name], rtol=1e-12)
    check(trace(open_source(X), start, N_ITER, hard=True), exact=False)


def test_weights_are_repeated_rows(X):
    counts = np.random.default_rng(3).integers(0, 3, len(X))
    start = model(max_iter=50, tol=1e-2).fit(X)
    weighted = trace_bound(start, X, 3, sample_weight=counts.astype(np.float64))
    repeated = trace_bound(start, np.repeat(X, counts, axis=0), 3)
    for name in ("free_energy", "log_likelihood"):
        assert_allclose(weighted[name], repeated[name], rtol=1e-10)


def test_what_cannot_be_traced_is_said(X):
    with pytest.raises(ParameterError, match="n_iter=0 must be 1 or more"):
        trace_bound(model(), X, 0)
    with pytest.raises(ParameterError, match="LinearRegression is no mixture"):
        trace_bound(LinearRegression(), X)
    with pytest.raises(ParameterError, match="has not learned yet: fit it first"):
        trace_bound(OnlineGaussianMixture(2), X)
    learned = OnlineGaussianMixture(2, warm_up=500, n_init=1).partial_fit(X)
    check(trace_bound(learned, X, N_ITER), exact=True)


@pytest.mark.parametrize("assignment", ["soft", "hard"])
def test_the_staircase_is_drawn(X, tmp_path, assignment):
    pytest.importorskip("matplotlib", reason="an extra")
    found = trace_bound(model(assignment=assignment), X, N_ITER)
    save_staircase(tmp_path / "stairs.svg", found, title="what EM does")
    drawn = (tmp_path / "stairs.svg").read_text()
    assert "E-step, over q" in drawn or len(drawn) > 10_000
    with pytest.raises(ParameterError, match="no half-step"):
        save_staircase(tmp_path / "none.svg", {name: v[:0] for name, v in found.items()})
