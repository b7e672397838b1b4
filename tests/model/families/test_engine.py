"""Every family through the engine: fits, checkpoints, stored models, rows that are not of it."""

from dataclasses import replace

import numpy as np
import pytest
import zarr
from numpy.testing import assert_allclose

from streamgmm.errors import DataError
from streamgmm.fitting.fit import FitSettings, fit
from streamgmm.fitting.selection import Candidate, rank
from streamgmm.model.families import (
    FAMILIES,
    Bernoulli,
    Categorical,
    Gamma,
    Product,
    StudentT,
    WithNoise,
    settings_of,
    with_settings,
)
from streamgmm.model.mixture import Mixture, e_step
from streamgmm.planning.plan import plan
from streamgmm.predict import predict_rows, predict_to, score_rows
from streamgmm.sources import open_source
from streamgmm.storage import checkpoint, load_mixture, save_mixture
from tests.mixtures import parameters_of
from tests.model.families.cases import MIXTURES

K, D, N = 3, 4, 20_000


class EndedError(Exception):
    pass


FRESH = {
    "product": Product(calls=("poisson", [0]), flag=("bernoulli", [1]), sizes=("full", [2, 3])),
    "with_noise": WithNoise("full"),
}
"""Families that are given with their parts, and without what comes from the rows."""


@pytest.fixture(params=list(MIXTURES))
def kind(request):
    return request.param


def fresh(kind):
    return FRESH.get(kind, kind)


def draw(kind, n=N):
    """Rows of a mixture of three components, shuffled, and the mixture."""
    truth = MIXTURES[kind](np.random.default_rng(3), K, D)
    rows = truth.sample(n, np.random.RandomState(0))[0]
    return truth, rows[np.random.default_rng(0).permutation(n)]


def run(source, family, **settings):
    names = ("checkpoint", "start", "client", "n_threads", "on_progress")
    where = {name: settings.pop(name) for name in names if name in settings}
    chosen = FitSettings(K, **{"family": family, "tol": 1e-6, "max_iter": 300} | settings)
    return fit(source, chosen, np.random.RandomState(0), **where)


def same(a, b):
    theirs = parameters_of(b)
    for name, values in parameters_of(a).items():
        assert values.tobytes() == theirs[name].tobytes()


def test_a_fit_finds_what_made_the_rows(kind):
    truth, X = draw(kind)
    tries = 20 if kind == "with_noise" else 1  # k-means sees two clusters where noise is wide
    result = run(open_source(X), fresh(kind), n_init=tries)
    assert result.converged
    ours, theirs = (score_rows(open_source(X), m).mean for m in (result.mixture, truth))
    p = truth.n_parameters
    assert theirs - 1e-6 <= ours <= theirs + (p / 2 + 6 * np.sqrt(p) + 6) / N
    assert np.all(np.diff(result.history["free_energy"]) >= -1e-9 * np.abs(ours) * N)


def test_bits_are_the_same_on_threads_on_a_cluster_and_from_zarr(kind, tmp_path, client):
    truth, X = draw(kind)
    zarr.create_array(str(tmp_path / "x.zarr"), data=X, chunks=(1000, D))
    how = {"block_size": 64_000, "start": truth, "max_iter": 3, "tol": 0}
    one, two = (run(open_source(X), truth.family, n_threads=n, **how) for n in (1, 2))
    there = run(open_source(str(tmp_path / "x.zarr")), truth.family, client=client, **how)
    same(one.mixture, two.mixture)
    same(one.mixture, there.mixture)
    assert one.lower_bounds == two.lower_bounds == there.lower_bounds


@pytest.mark.parametrize("stage", ["starts", "em"])
def test_a_fit_that_was_ended_goes_on(kind, stage, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "RARE", 0)
    source = open_source(draw(kind)[1])
    how = {"algorithm": "incremental", "block_size": 30_000, "max_iter": 12, "tol": 1e-3}
    whole = run(source, fresh(kind), **how)

    def end(progress):
        if progress.stage == stage:
            raise EndedError

    path = tmp_path / "run.zarr"
    with pytest.raises(EndedError):
        run(source, fresh(kind), checkpoint=path, on_progress=end, **how)
    resumed = run(source, fresh(kind), checkpoint=path, **how)
    same(whole.mixture, resumed.mixture)
    assert whole.mixture.family == resumed.mixture.family
    assert whole.lower_bounds == resumed.lower_bounds


def test_a_stored_model_says_the_same(kind, tmp_path):
    truth, X = draw(kind, 500)
    save_mixture(tmp_path / "model.zarr", truth)
    again = load_mixture(tmp_path / "model.zarr")
    assert again.family == truth.family
    here, there = (predict_rows(open_source(X), m, "log_density") for m in (truth, again))
    assert here.tobytes() == there.tobytes()
    labels = predict_rows(open_source(X), truth, "labels")
    array, _ = predict_to(open_source(X), again, tmp_path / "labels.zarr")
    assert (array[:] == labels).all()


def test_rows_in_single_precision_are_the_same_rows(kind):
    truth, X = draw(kind, 700)
    narrow = X.astype(np.float32)
    same_rows = e_step(truth, narrow.astype(np.float64))
    found = e_step(truth, narrow)
    assert_allclose(found.log_likelihood, same_rows.log_likelihood, rtol=1e-5)
    for name, value in found.components.arrays().items():
        assert_allclose(value, same_rows.components.arrays()[name], rtol=1e-4, atol=1e-4)


def test_settings_are_json_and_come_back(kind):
    family = MIXTURES[kind](np.random.default_rng(0), 2, D).family
    assert with_settings(FAMILIES[family.name], settings_of(family)) == family


def test_a_plan_reads_little_and_knows_the_family(kind):
    found = plan(open_source(draw(kind, 4000)[1]), K, fresh(kind), workers=2, worker_memory="1GiB")
    assert found.covariance_type == kind


BAD = {
    "bernoulli": (1.5, "1.5 in column 2, which is neither 0 nor 1"),
    "multinomial": (-1, "a negative count, -1.0, in column 2"),
    "poisson": (-3, "a negative count, -3.0, in column 2"),
    "exponential": (-0.5, "a negative value, -0.5, in column 2"),
    "gamma": (0, "0.0 in column 2, which is not positive"),
    "lognormal": (0, "0.0 in column 2, which is not positive"),
    "vonmisesfisher": (9, r"a row of length 9\.\d+, which is not one"),
    "categorical": (7.25, "category 7.25 in column 2, which no row had"),
}


@pytest.mark.parametrize("bad", list(BAD))
def test_rows_that_are_not_of_the_family_are_named(bad, tmp_path):
    value, said = BAD[bad]
    truth, X = draw(bad, 3000)
    X[1234, 2] = value
    zarr.create_array(str(tmp_path / "x.zarr"), data=X, chunks=(100, D))
    match = rf"row 1234: {said}.*; {bad} components cannot have made it"
    if bad != "categorical":  # whose levels a fit takes from the rows
        with pytest.raises(DataError, match=match):
            run(open_source(X), bad)
    for source in (open_source(X), open_source(str(tmp_path / "x.zarr"))):
        for what in ("labels", "proba", "log_density"):
            with pytest.raises(DataError, match=match):
                predict_rows(source, truth, what, block_size=40_000)
        with pytest.raises(DataError, match=match):
            score_rows(source, truth)
        with pytest.raises(DataError, match=match):
            run(source, truth.family, start=truth)


def test_rows_that_are_not_finite_are_named_as_such(kind):
    _, X = draw(kind, 3000)
    X[77, 1] = np.nan
    with pytest.raises(DataError, match="row 77, column 1"):
        run(open_source(X), fresh(kind))


def test_rows_of_shares_are_drawn_with_the_mean_total():
    _, X = draw("multinomial", 3000)
    X[:1500] *= 2
    result = run(open_source(X), "multinomial")
    assert result.mixture.family.trials == 30
    assert (result.mixture.sample(50, np.random.RandomState(0))[0].sum(axis=1) == 30).all()


# Levels


def colours(n=6000):
    """Two groups of rows whose categories are any numbers, and one column of one value."""
    rng = np.random.default_rng(0)
    left = rng.random(n) < 0.4
    a = np.where(left, rng.choice([-7.5, 3, 100], n, p=[0.8, 0.1, 0.1]), rng.choice([3, 100], n))
    b = np.where(left, rng.choice([1, 2], n, p=[0.9, 0.1]), rng.choice([2, 1e6], n))
    return np.stack([a, b, np.full(n, 4.0)], axis=1)


def test_levels_are_the_distinct_values_of_all_rows():
    X = colours()
    X[4321, 0] = 55.5  # in one row alone
    result = fit(open_source(X), FitSettings(2, "categorical"), np.random.RandomState(0))
    family = result.mixture.family
    assert family.levels == ((-7.5, 3.0, 55.5, 100.0), (1.0, 2.0, 1e6), (4.0,))
    p = result.mixture.components.probabilities
    assert p.shape == (2, 3, 4)
    assert_allclose(p.sum(axis=2), 1.0, rtol=1e-12)
    overall = np.einsum("k,kl->l", result.mixture.weights, p[:, 0])
    assert_allclose(overall, [(X[:, 0] == v).mean() for v in family.levels[0]], rtol=1e-6)
    assert result.mixture.n_parameters == 2 * (3 + 2 + 0) + 1


def test_an_unknown_category_is_named_or_left_out():
    X = colours()
    result = fit(open_source(X), FitSettings(2, "categorical"), np.random.RandomState(0))
    strict, new = result.mixture, X[:50].copy()
    new[31, 1] = 8.0
    with pytest.raises(DataError, match=r"row 31: category 8\.0 in column 1"):
        predict_rows(open_source(new), strict, "labels")
    family = replace(strict.family, unknown="ignore")
    lenient = Mixture.of(family, strict.weights, strict.components.probabilities)
    rest = replace(family, levels=(family.levels[0], family.levels[2]))
    without = Mixture.of(rest, strict.weights, strict.components.probabilities[:, [0, 2]])
    assert_allclose(
        predict_rows(open_source(new), lenient, "log_density")[31],
        predict_rows(open_source(new[:, [0, 2]]), without, "log_density")[31],
        rtol=1e-12,
    )


def test_columns_of_numbers_are_no_categories():
    X = np.random.default_rng(0).normal(size=(5000, 2))
    with pytest.raises(DataError, match="column 0 has more than 1000 distinct values"):
        fit(open_source(X), FitSettings(2, "categorical"), np.random.RandomState(0))


def test_categories_of_two_levels_are_flags():
    truth, X = draw("bernoulli", 3000)
    levels = ((0.0, 1.0),) * D
    p = truth.components.probabilities
    same_thing = Mixture.of(Categorical(levels=levels), truth.weights, np.stack([1 - p, p], 2))
    assert_allclose(
        same_thing.posterior(X).log_density, truth.posterior(X).log_density, rtol=1e-12
    )


def test_candidates_of_a_selection_learn_their_levels():
    X = colours()
    candidates = [Candidate(k, "categorical") for k in (1, 2)] + [Candidate(2, "poisson")]
    ranking = rank(
        open_source(np.abs(X)), candidates, np.random.RandomState(0), FitSettings(1, tol=1e-4)
    )
    assert ranking.table["n_parameters"][:2].tolist() == [4, 9]
    assert ranking.mixtures[1].family.levels[0] == (3.0, 7.5, 100.0)


# Degenerate maxima


def test_degenerate_maxima_stay_finite():
    flags = np.zeros((500, 2))
    flags[:, 1] = 1
    p = fit(open_source(flags), FitSettings(1, Bernoulli(1e-4)), np.random.RandomState(0))
    assert_allclose(p.mixture.components.probabilities, [[1e-4, 1 - 1e-4]], rtol=1e-9)
    equal = np.full((500, 2), 3.0)
    sizes = fit(open_source(equal), FitSettings(1, Gamma(1e5)), np.random.RandomState(0))
    assert_allclose(sizes.mixture.components.shapes, 1e5, rtol=1e-3)
    assert_allclose(sizes.mixture.components.scales, 3e-5, rtol=1e-3)
    one_way = np.tile([0.6, 0.8], (500, 1))
    way = fit(open_source(one_way), FitSettings(1, "vonmisesfisher"), np.random.RandomState(0))
    assert_allclose(way.mixture.components.concentrations, 1e6)
    logs = fit(open_source(equal), FitSettings(1, "lognormal"), np.random.RandomState(0))
    assert_allclose(logs.mixture.components.scales, 1e-6)
    zeros = fit(open_source(0 * equal), FitSettings(1, "exponential"), np.random.RandomState(0))
    assert_allclose(zeros.mixture.components.rates, 1e10)
    light = np.random.default_rng(0).uniform(size=(5000, 2))
    tails = fit(open_source(light), FitSettings(1, StudentT(most_degrees=12.0)),
                np.random.RandomState(0))  # fmt: skip
    assert_allclose(tails.mixture.components.degrees_of_freedom, 12.0)
