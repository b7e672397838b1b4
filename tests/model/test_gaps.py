"""Rows with gaps: exact EM of Gaussians under missing at random, against a dense reference."""

import numpy as np
import pytest

from streamgmm.model.covariances import COVARIANCES
from streamgmm.model.families import Gaussian
from streamgmm.model.gaps import steps
from streamgmm.model.gaps.patterns import has_gaps, patterns_of
from streamgmm.model.mixture import EStep, Mixture, e_step, free_energy, m_step
from streamgmm.testing.cases import close
from tests.model.dense_gaps import em_step, matrices, posterior

KINDS = tuple(COVARIANCES)


def case(kind, n, d, k, seed=0, share=0.2, offset=0.0, n_patterns=0):
    """A mixture, and rows of another of which some values are missing, and no row is empty."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(k, d, d))
    full = A @ A.transpose(0, 2, 1) + 0.3 * np.eye(d)
    means = 2 * rng.normal(size=(k, d)) + offset
    covariances = {
        "full": full,
        "tied": full[0],
        "diag": np.einsum("kdd->kd", full),
        "spherical": full[:, 0, 0],
    }[kind]
    X = np.array([rng.multivariate_normal(means[j], full[j]) for j in rng.integers(k, size=n)])
    if n_patterns:
        patterns = rng.random((n_patterns, d)) < share
        patterns[0] = False
        X[patterns[rng.integers(n_patterns, size=n)]] = np.nan
    else:
        X[rng.random(X.shape) < share] = np.nan
    X = np.ascontiguousarray(X[~np.isnan(X).all(axis=1)])
    weights = rng.dirichlet(np.full(k, 4.0))
    start = means + 0.3 * rng.normal(size=means.shape)
    return Mixture.of(Gaussian(kind, 1e-6, gaps=True), weights, start, covariances), X


def parameters(mixture):
    return mixture.weights, mixture.components.means, mixture.components.covariances


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("d", "k", "offset"), [(1, 2, 0.0), (3, 2, 1e4), (5, 9, 0.0), (9, 3, 0.0)]
)
def test_a_step_is_that_of_the_dense_reference(kind, d, k, offset):
    mixture, X = case(kind, 240, d, k, offset=offset)
    statistics = e_step(mixture, X)
    found = m_step(mixture, statistics)
    log_likelihood, *expected = em_step(kind, X, *parameters(mixture), 1e-6)
    assert close(statistics.log_likelihood, log_likelihood, 1e-11)
    for mine, theirs in zip(parameters(found), expected, strict=True):
        assert close(mine, theirs, 1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_frequent_patterns_give_what_single_rows_give(kind, monkeypatch):
    mixture, X = case(kind, 2000, 5, 3, n_patterns=6, share=0.4)
    weight = np.random.default_rng(1).random(len(X))
    centres = mixture.components.means + 0.1
    for about in (None, centres):
        few = e_step(mixture, X, weight, centres=about)
        monkeypatch.setattr(steps, "MANY", 10)
        monkeypatch.setattr(steps, "WORTH", 0)
        many = e_step(mixture, X, weight, centres=about)
        monkeypatch.setattr(steps, "MOST_PATTERNS", 2)
        some = e_step(mixture, X, weight, centres=about)
        monkeypatch.undo()
        for other in (many, some):
            assert close(other.log_likelihood, few.log_likelihood, 1e-12)
            assert close(other.entropy, few.entropy, 1e-11)
            for name, value in few.components.arrays().items():
                assert close(other.components.arrays()[name], value, 1e-10), name
    _, *expected = em_step(kind, X, *parameters(mixture), 1e-6, weight)
    for mine, theirs in zip(parameters(m_step(mixture, many)), expected, strict=True):
        assert close(mine, theirs, 1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_rows_without_gaps_have_the_same_bits(kind, dtype):
    mixture, X = case(kind, 700, 4, 3, share=0.0)
    plain = Mixture.of(Gaussian(kind), *parameters(mixture))
    X = X.astype(dtype)
    one, two = e_step(mixture, X), e_step(plain, X)
    assert one.log_likelihood == two.log_likelihood
    assert one.entropy == two.entropy
    for name, value in two.components.arrays().items():
        assert np.array_equal(one.components.arrays()[name], value)
    assert free_energy(mixture, one) == free_energy(plain, two)
    for mine, theirs in zip(
        parameters(m_step(mixture, one)), parameters(m_step(plain, two)), strict=True
    ):
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_free_energy_counts_the_missing_values(kind):
    """F = log p at the parameters of the E-step, and F + KL = log p after an M-step."""
    mixture, X = case(kind, 150, 4, 2, seed=3)
    statistics = e_step(mixture, X)
    assert close(free_energy(mixture, statistics), statistics.log_likelihood, 1e-11)
    updated = m_step(mixture, statistics)
    here, there = (
        posterior(X, m.weights, m.components.means, m.components.full_covariances)
        for m in (mixture, updated)
    )
    q, p = (np.exp(j - np.logaddexp.reduce(j, axis=1)[:, None]) for j, _, _ in (here, there))
    kl = np.sum(q * np.log(q / p))
    for i, x in enumerate(X):
        m = np.isnan(x)
        for k in range(2):
            S, T = (one[2][i, k][np.ix_(m, m)] for one in (here, there))
            shift = there[1][i, k][m] - here[1][i, k][m]
            inverse = np.linalg.inv(T)
            gain = np.trace(inverse @ S) + shift @ inverse @ shift - m.sum()
            logs = np.linalg.slogdet(T)[1] - np.linalg.slogdet(S)[1]
            kl += q[i, k] * 0.5 * (gain + logs)
    after = updated.posterior(X).log_density.sum()
    assert kl > 0
    assert close(free_energy(updated, statistics) + kl, after, 1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_merge_scale_and_are_of_whole_rows(kind):
    mixture, X = case(kind, 400, 4, 3, seed=4)
    whole = e_step(mixture, X)
    step = EStep([(mixture, None)])
    for part in np.split(X, [100, 101, 300]):
        step.add(np.ascontiguousarray(part))
    merged = e_step(mixture, X[:150].copy()).merge(e_step(mixture, X[150:].copy()))
    twice = e_step(mixture, X, np.full(len(X), 2.0)).scale(0.5)
    for other in (step.result()[0], merged, twice):
        assert close(other.log_likelihood, whole.log_likelihood, 1e-12)
        for name, value in whole.components.arrays().items():
            assert close(other.components.arrays()[name], value, 1e-10), name
    again = mixture.family.statistics(**whole.components.arrays())
    assert np.array_equal(again.gap_entropy, whole.components.gap_entropy)
    names = set(mixture.family.statistic_shapes(3, 4))
    assert names == set(whole.components.arrays())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hard", [False, True])
def test_free_energy_never_falls(kind, hard):
    for seed in range(6):
        mixture, X = case(kind, 120, 3, 3, seed=seed, share=0.35)
        before = -np.inf
        for _ in range(12):
            statistics = e_step(mixture, X, hard=hard)
            reached = free_energy(mixture, statistics)
            assert reached >= before - 1e-9 * abs(reached)
            if not hard:
                assert close(reached, statistics.log_likelihood, 1e-10)
            mixture = m_step(mixture, statistics)
            # The ridge may lower F by a hair: 1e-6 of a covariance.
            before = free_energy(mixture, statistics) - 1e-3


def test_hard_steps_count_rows_for_one_component():
    mixture, X = case("full", 900, 4, 3, n_patterns=3)
    found = e_step(mixture, X, hard=True)
    labels = mixture.posterior(X, labels=True).labels
    assert np.array_equal(found.components.weight, np.bincount(labels, minlength=3))
    joint, _, _ = posterior(X, *parameters(mixture))
    assert close(free_energy(mixture, found), joint.max(axis=1).sum(), 1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_densities_are_of_what_was_observed(kind):
    mixture, X = case(kind, 300, 4, 3, seed=5)
    X[7] = np.nan
    full = matrices(kind, mixture.components.covariances, 3, 4)
    rest = np.arange(len(X)) != 7
    joint, _, _ = posterior(X[rest], mixture.weights, mixture.components.means, full)
    density = np.logaddexp.reduce(joint, axis=1)
    found = mixture.posterior(X, labels=True, resp=True)
    assert close(found.log_density[rest], density, 1e-12)
    assert close(found.resp[rest], np.exp(joint - density[:, None]), 1e-11)
    assert np.array_equal(found.labels[rest], joint.argmax(axis=1))
    assert found.log_density[7] == pytest.approx(0.0, abs=1e-12)
    assert np.allclose(found.resp[7], mixture.weights)


def test_a_mixture_that_is_sent_away_gives_the_same(tmp_path):
    import pickle

    mixture, X = case("full", 900, 4, 3, n_patterns=3)
    one = e_step(mixture, X)
    two = e_step(pickle.loads(pickle.dumps(mixture)), X)
    assert one.log_likelihood == two.log_likelihood


@pytest.mark.parametrize("d", [1, 7, 8, 9, 17, 33, 70, 130])
def test_patterns_are_those_of_the_rows(d):
    rng = np.random.default_rng(d)
    X = np.where(rng.random((200, d)) < 0.05, np.nan, 1.0)
    X[::7] = 1.0
    found = patterns_of(X)
    assert np.array_equal(np.sort(found.order), np.arange(200))
    assert len({seen.tobytes() for seen, _ in found}) == len(found.seen)
    for seen, rows in found:
        assert np.array_equal(~np.isnan(X[rows]), np.broadcast_to(seen, (len(rows), d)))
        assert (np.diff(rows) > 0).all()
    assert has_gaps(X)
    assert not has_gaps(np.nan_to_num(X))


def test_marginals_are_let_go(monkeypatch):
    monkeypatch.setattr(steps, "HELD_BYTES", 64 * 3 * 16 * 2)
    monkeypatch.setattr(steps, "MANY", 1)
    monkeypatch.setattr(steps, "WORTH", 0)
    mixture, X = case("full", 300, 4, 3)
    few = e_step(mixture, X)
    assert len(mixture.density.marginals._held) == 2
    monkeypatch.undo()
    assert close(few.log_likelihood, e_step(mixture, X).log_likelihood, 1e-12)
