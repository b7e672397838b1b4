"""Fits by passes: climbs that never fall, few reads, grown and degenerate data."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import zarr
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Reference

from streamgmm import GaussianMixture, errors
from streamgmm.fitting.acceleration import coefficients, combine
from streamgmm.fitting.ascent import Ascent
from streamgmm.fitting.fit import FitSettings, fit
from streamgmm.fitting.reading import deal
from streamgmm.fitting.rules import Rules, Step
from streamgmm.fitting.sample import Holdout, hash_rows, plan_sample, summarize
from streamgmm.model.families import Gaussian
from streamgmm.model.mixture import Mixture, e_step
from streamgmm.sources import open_source
from tests.mixtures import TYPES, assert_close, draw, parameters_of, random_mixture

SMALL = 1 << 11  # bytes a block, so that a few thousand rows are many blocks


def blobs(n=3000, k=4, d=3, seed=0, spread=2.0):
    """Rows of a mixture that overlaps."""
    return draw(random_mixture("full", k, d, seed, spread=spread), n, seed)


def run(X, k=4, *, state=0, start=None, seen=None, **settings):
    chosen = FitSettings(k, **({"block_size": SMALL} | settings))
    source = X if hasattr(X, "blocks") else open_source(X)
    return fit(source, chosen, np.random.RandomState(state), start=start, seen=seen)


def same(a, b):
    theirs = parameters_of(b.mixture)
    for name, values in parameters_of(a.mixture).items():
        np.testing.assert_array_equal(values, theirs[name])


@pytest.mark.parametrize("seed", range(40))
def test_free_energy_never_falls(seed):
    """Whatever the algorithm, the data and the blocks; and F + KL is the log-likelihood."""
    rng = np.random.default_rng(seed)
    k, d = int(rng.integers(1, 6)), int(rng.integers(1, 5))
    X = blobs(int(rng.integers(400, 2000)), k, d, seed, spread=rng.uniform(0.3, 4))
    result = run(
        X,
        int(rng.integers(1, 6)),
        state=seed,
        family=Gaussian(TYPES[seed % 4], 0.0),
        algorithm=("em", "incremental")[seed // 4 % 2],
        acceleration=("anderson", None)[seed // 8 % 2],
        init_params=("kmeans", "random")[seed // 16 % 2],
        tol=0.0,
        max_iter=25,
        block_size=int(rng.integers(600, 9000)),
    )
    energy = result.history["free_energy"]
    assert np.all(np.diff(energy) >= -1e-12 * np.abs(energy[1:])), np.diff(energy).min()
    known = np.isfinite(result.history["log_likelihood"])
    assert known[-1]
    gap = result.history["kl"][known]
    assert np.all(gap >= -1e-9 * np.abs(energy[known]))
    final = result.statistics.log_likelihood
    assert result.history["log_likelihood"][-1] == final
    np.testing.assert_allclose(energy[-1] + gap[-1], final, rtol=1e-9)


def test_final_likelihood_is_that_of_the_parameters_returned():
    X = blobs()
    for settings in ({}, {"algorithm": "incremental"}, {"acceleration": "anderson"}):
        result = run(X, **settings)
        log_density = result.mixture.posterior(X).log_density
        np.testing.assert_allclose(result.statistics.log_likelihood, log_density.sum(), rtol=1e-12)


@pytest.mark.parametrize("kind", TYPES)
def test_incremental_arrives_where_batch_does(kind):
    X = blobs(spread=4.0)
    start = run(X, family=kind, max_iter=2).mixture
    batch = run(X, family=kind, tol=1e-10, max_iter=1000, start=start)
    others = [
        run(X, family=kind, tol=1e-10, max_iter=400, start=start, **settings)
        for settings in (
            {"algorithm": "incremental", "acceleration": None},
            {"algorithm": "incremental"},
            {"algorithm": "em", "acceleration": "anderson"},
        )
    ]
    for other in others:
        assert other.converged
        np.testing.assert_allclose(
            other.statistics.log_likelihood / 3000,
            batch.statistics.log_likelihood / 3000,
            atol=1e-6,
        )
    assert others[1].history["passes"][-1] <= 1.1 * others[0].history["passes"][-1] + 1


def test_incremental_is_the_same_to_the_last_bit_on_any_threads():
    X = blobs()
    settings = FitSettings(4, algorithm="incremental", block_size=SMALL, tol=1e-6)
    one, two, three = (
        fit(open_source(X), settings, np.random.RandomState(1), n_threads=n) for n in (1, 2, 3)
    )
    same(one, two)
    same(one, three)
    np.testing.assert_array_equal(one.history["free_energy"], three.history["free_energy"])


def test_incremental_is_the_same_to_the_last_bit_on_a_cluster(tmp_path, client):
    X = blobs()
    array = zarr.create_array(tmp_path / "x.zarr", data=X, chunks=(300, 3))
    settings = FitSettings(4, algorithm="incremental", block_size=SMALL, tol=1e-4)
    here = fit(open_source(array), settings, np.random.RandomState(1), n_threads=2)
    there = fit(open_source(array), settings, np.random.RandomState(1), client=client)
    same(here, there)


def test_candidates_share_every_read():
    X = blobs()
    alone = [run(X, n_init=1, state=s, init_params="random") for s in range(3)]
    together = run(X, n_init=3, init_params="random")
    assert together.history["passes"][-1] <= 1 + together.n_iter
    assert together.lower_bound >= alone[0].lower_bound


@pytest.mark.parametrize("cache", ["auto", None])
def test_passes_are_what_was_read(cache):
    """Rows that blocks really gave, counted, against what the history says."""
    X = blobs()
    source = open_source(X)
    given = 0

    class Counted:
        name, dtype, nbytes = "X", source.dtype, source.nbytes
        n_samples, n_features = X.shape

        def blocks(self, target_bytes, start=0, stop=None):
            return [CountedBlock(b) for b in source.blocks(target_bytes, start, stop)]

    class CountedBlock:
        resident = False

        def __init__(self, block):
            self.block, self.start, self.n_rows = block, block.start, block.n_rows

        def pieces(self):
            nonlocal given
            for piece in self.block.pieces():
                given += len(piece.rows)
                yield piece

    chosen = FitSettings(
        4, algorithm="incremental", block_size=SMALL, max_iter=5, tol=0, cache=cache
    )
    result = fit(Counted(), chosen, np.random.RandomState(0), n_threads=1)
    passes = result.history["passes"][-1] + 1  # one more to score
    assert passes == 7
    assert given == (2 if cache else 7) * len(X)  # the first and the last read in any case
    assert result.history["rows"][-1] == 6 * len(X)
    assert result.history["bytes"][-1] == (given - len(X)) * 24


def test_groups_are_spread_over_sorted_data():
    """Data sorted by component: every group sees every component."""
    truth = random_mixture("full", 4, 3, 5, spread=8.0)
    X = draw(truth, 4000, 5)
    X = X[np.argsort(truth.posterior(X, labels=True).labels, kind="stable")]
    result = run(X, algorithm="incremental", tol=1e-6, block_size=SMALL // 8)
    for group in result.seen.groups:
        assert np.all(group.components.weight > 5)
    assert deal(5, 2) == [range(0, 5, 2), range(1, 5, 2)]


def test_appended_rows_are_read_first(tmp_path):
    X = blobs(8000)
    array = zarr.create_array(tmp_path / "x.zarr", data=X[:7000], chunks=(350, 3))
    model = GaussianMixture(
        4, algorithm="incremental", block_size=SMALL, tol=1e-7, warm_start=True, random_state=0
    ).fit(array)
    assert model.data_seen_["n_samples"] == 7000
    array.append(X[7000:])
    model.save(tmp_path / "model.zarr")
    import streamgmm

    for again in (model, streamgmm.load(tmp_path / "model.zarr")):
        again.fit(zarr.open_array(tmp_path / "x.zarr", mode="r"))
        assert again.data_seen_["n_samples"] == 8000
        np.testing.assert_allclose(again.history_["passes"][0], 0.25)  # the new eighth, twice
        anew = GaussianMixture(4, algorithm="em", tol=1e-9, max_iter=1000)
        anew.set_params(
            weights_init=model.weights_,
            means_init=model.means_,
            precisions_init=model.precisions_,
        ).fit(X)
        short = anew.score(X) - again.history_["free_energy"] / 8000
        assert again.history_["passes"][np.flatnonzero(short <= 1e-5)[0]] <= 3
    np.testing.assert_array_equal(model.means_, again.means_)


def test_an_array_that_changes_between_passes(tmp_path):
    X = blobs()
    array = zarr.create_array(tmp_path / "x.zarr", data=X, chunks=(300, 3))
    source = open_source(array)
    calls = 0

    def meddle(progress):
        nonlocal calls
        calls += progress.stage == "em"
        if calls == 5:
            array[1200:1500] = X[1200:1500] + 0.5

    with pytest.raises(errors.DataError, match=r"x\.zarr' changed while it was being fitted"):
        fit(
            source, FitSettings(4, tol=0, max_iter=4), np.random.RandomState(0), on_progress=meddle
        )


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("algorithm", ["em", "incremental"])
def test_degenerate_rows_do_not_crash(kind, algorithm):
    """Constant and duplicated columns, rows that are all the same, few distinct rows."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(400, 2))
    few = rng.normal(size=(3, 2))[rng.integers(3, size=400)]
    for X in (
        np.column_stack([base, np.ones(400)]),
        np.column_stack([base, base]),
        np.ones((400, 2)),
        few,
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = run(X, 4, family=kind, algorithm=algorithm, max_iter=20, block_size=1 << 11)
        assert np.all(np.isfinite(result.mixture.components.means))
        assert np.isfinite(result.statistics.log_likelihood)
        assert result.mixture.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("kind", TYPES)
def test_components_without_rows(kind):
    """Kept, retired or reseeded by choice, and named."""
    X = blobs(2000, 3, 2, spread=5.0)
    start = run(X, 3, family=kind, max_iter=5).mixture
    far = {
        "weights_init": np.append(start.weights * 0.75, 0.25),
        "means_init": np.vstack([start.components.means, [[1e6, 1e6]]]),
        "precisions_init": _precisions(kind, 4, 2),
    }
    model = GaussianMixture(4, covariance_type=kind, reg_covar=1e-3, max_iter=300, **far)
    with pytest.warns(errors.StreamGMMWarning, match="components 3 have no rows"):
        kept = model.fit(X)
    assert kept.weights_[3] == 0
    assert not kept.history_["mended"].any()
    np.testing.assert_array_equal(kept.means_[3], [1e6, 1e6])
    with pytest.warns(errors.StreamGMMWarning, match="components 3 lost their rows and were ret"):
        retired = model.set_params(empty_components="retire").fit(X)
    assert retired.weights_.shape == (3,)
    _only_falls_where_mended(retired.history_)
    with pytest.warns(errors.StreamGMMWarning, match="components 3 lost their rows and were res"):
        reseeded = model.set_params(empty_components="reseed").fit(X)
    assert reseeded.weights_.min() > 0
    _only_falls_where_mended(reseeded.history_)
    assert reseeded.score(X) >= retired.score(X) - 1e-3


def _only_falls_where_mended(history):
    energy, mended = history["free_energy"], history["mended"]
    assert mended.any()
    falls = np.diff(energy) < -1e-12 * np.abs(energy[1:])
    assert not (falls & ~mended[1:]).any()


def _precisions(kind, k, d):
    full = np.tile(np.eye(d), (k, 1, 1))
    return {
        "full": full,
        "tied": np.eye(d),
        "diag": np.ones((k, d)),
        "spherical": np.ones(k),
    }[kind]


@pytest.mark.parametrize("how", ["kmeans", "k-means++", "random", "random_from_data"])
def test_starts_are_those_of_scikit_learn(how):
    """The same random numbers on the same rows, start after start."""
    X = blobs(700)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs = Reference(4, n_init=3, init_params=how, random_state=3, max_iter=30).fit(X)
    ours = run(X, n_init=3, init_params=how, state=3, max_iter=30)
    np.testing.assert_allclose(ours.mixture.components.means, theirs.means_, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ours.lower_bound, theirs.lower_bound_, rtol=1e-12)
    assert ours.n_iter == theirs.n_iter_


def test_the_sample_depends_on_the_seed_alone():
    X = np.arange(9000.0).reshape(-1, 1)
    samples = []
    for size in (1 << 10, 1 << 12, 1 << 20):
        source = open_source(X)
        plan = plan_sample(source, FitSettings(1), whole=False, seed=7)
        assert plan.size == 800
        parts = [summarize(plan, block) for block in source.blocks(size)]
        whole = parts[0]
        for part in parts[1:]:
            whole = whole.merge(part)
        samples.append(whole.trimmed(plan.size).rows.ravel())
        assert whole.n_rows == 9000
        np.testing.assert_allclose(whole.moments.mean, [[X.mean()]])
        np.testing.assert_allclose(whole.moments.scatter, [[9000 * X.var()]])
    assert len(samples[0]) == 800
    np.testing.assert_array_equal(samples[0], samples[1])
    np.testing.assert_array_equal(samples[0], samples[2])
    assert abs(samples[0].mean() - 4500) < 4 * 2598 / 800**0.5


def test_keys_are_uniform():
    keys = hash_rows(np.arange(100_000), 3) / 2**64
    counts = np.histogram(keys, 20, (0, 1))[0]
    assert np.all(np.abs(counts - 5000) < 5 * np.sqrt(5000))
    assert abs(np.corrcoef(keys[:-1], keys[1:])[0, 1]) < 0.02
    assert Holdout(0.0, 1).mask(np.arange(10)).sum() == 0


def test_combining_statistics_is_linear():
    """Weights that make one of many give that one; sums of two halves give the whole."""
    mixture = random_mixture("full", 3, 2)
    X = draw(mixture, 900)
    parts = [e_step(mixture, X[i::3]) for i in range(3)]
    assert_close(combine(parts, np.array([0.0, 0.0, 1.0])), parts[2])
    both = combine(parts[:2], np.ones(2)).components
    merged = parts[0].merge(parts[1]).components
    np.testing.assert_allclose(both.weight, merged.weight)
    np.testing.assert_allclose(both.mean, merged.mean)
    np.testing.assert_allclose(both.scatter, merged.scatter)
    assert combine(parts[:2], np.array([1.0, -5.0])) is None  # weights below zero
    a = coefficients([np.zeros(2), np.ones(2)], [np.ones(2), np.ones(2) * 1.5])
    np.testing.assert_allclose(a.sum(), 1)


def test_a_mixture_on_its_own():
    """`take` and `reseed` keep what they do not change."""
    mixture = random_mixture("diag", 3, 2)
    two = mixture.take(np.array([0, 2]))
    np.testing.assert_array_equal(two.components.means, mixture.components.means[[0, 2]])
    assert two.weights.sum() == pytest.approx(1)
    pool = np.array([[0.0, 0.0], [50.0, 50.0]])
    again = mixture.reseed(np.array([1]), pool)
    np.testing.assert_array_equal(again.components.means[1], [50, 50])
    assert isinstance(again, Mixture)
    np.testing.assert_allclose(again.weights[1], 1 / 3)


def test_the_sample_is_a_third_at_most_unless_that_is_too_few():
    """A full component of eight features has 44 parameters: 200 rows, of which four times."""
    sizes = {
        n: plan_sample(open_source(np.zeros((n, 8))), FitSettings(1), whole=False, seed=0).size
        for n in (400, 2000, 20_000, 100_000)
    }
    assert sizes == {400: 400, 2000: 800, 20_000: 6666, 100_000: 8800}


def test_what_is_left_of_a_climb_that_was_just_mended():
    """Gains are known, and no statistics: they are asked for again."""
    steps = [Step(energy, passes) for passes, energy in enumerate((-9.0, -5.0, -3.0), start=1)]
    climb = Ascent(random_mixture("diag", 2, 2, 0), Rules(1e-3, 10), steps=steps, mended=True)
    assert climb.request is not None
    assert np.isnan(climb.steps_left)
    assert climb.gap == np.inf
