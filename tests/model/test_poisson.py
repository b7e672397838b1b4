"""Counts: a family of one file, through the whole engine."""

from itertools import pairwise

import numpy as np
import pytest
import zarr
from numpy.testing import assert_allclose

from streamgmm.errors import CheckpointError, DataError, ModelFileError, ParameterError
from streamgmm.fitting.fit import FitSettings, fit
from streamgmm.fitting.selection import Candidate, rank
from streamgmm.model.families import FAMILIES, Poisson
from streamgmm.model.mixture import Mixture, blend_step, e_step
from streamgmm.planning.plan import plan
from streamgmm.predict import predict_rows, predict_to, score_rows
from streamgmm.sources import open_source
from streamgmm.storage import checkpoint, load_mixture, save_mixture
from tests.mixtures import parameters_of


class EndedError(Exception):
    pass


TRUTH = Mixture.of(
    "poisson",
    np.array([0.5, 0.3, 0.2]),
    np.array([[1.0, 8.0, 3.0, 4.0], [6.0, 2.0, 4.0, 4.0], [3.0, 3.0, 9.0, 0.5]]),
)
N = 30_000


@pytest.fixture(scope="module")
def X():
    rows = TRUTH.sample(N, np.random.RandomState(0))[0]
    return rows[np.random.default_rng(0).permutation(N)]


def run(source, **settings):
    names = ("checkpoint", "start", "client", "n_threads", "on_progress")
    names = ("checkpoint", "start", "client", "n_threads", "on_progress")
    where = {name: settings.pop(name) for name in names if name in settings}
    chosen = FitSettings(3, **{"family": "poisson", "tol": 1e-6, "max_iter": 200} | settings)
    return fit(source, chosen, np.random.RandomState(0), **where)


def same(a, b):
    theirs = parameters_of(b.mixture)
    for name, values in parameters_of(a.mixture).items():
        assert values.tobytes() == theirs[name].tobytes()


@pytest.mark.parametrize(
    "settings",
    [
        {"algorithm": "em", "acceleration": None},
        {"algorithm": "em", "acceleration": "anderson"},
        {"algorithm": "incremental", "block_size": 30_000},
        {},
    ],
    ids=str,
)
def test_a_fit_finds_the_rates(X, settings):
    result = run(open_source(X), **settings)
    order = np.argsort(-result.mixture.weights)
    assert result.converged
    assert_allclose(result.mixture.weights[order], TRUTH.weights, atol=0.02)
    assert_allclose(
        result.mixture.components.rates[order], TRUTH.components.rates, atol=0.15, rtol=0.03
    )
    energy = result.history["free_energy"]
    assert all(b >= a - 1e-9 * abs(a) for a, b in pairwise(energy))


def test_jumps_are_made_and_save_reads(X):
    """Components that overlap make EM slow; both ways end at the same height."""
    truth = Mixture.of("poisson", np.array([0.5, 0.5]), np.array([[3.0, 4.0], [4.0, 5.5]]))
    rows = truth.sample(8000, np.random.RandomState(1))[0]
    start = Mixture.of("poisson", np.array([0.4, 0.6]), np.array([[2.5, 3.0], [4.0, 6.0]]))

    def climb(acceleration):
        settings = FitSettings(
            2, "poisson", tol=1e-9, max_iter=3000, algorithm="em", acceleration=acceleration
        )
        return fit(open_source(rows), settings, np.random.RandomState(0), start=start)

    plain, fast = climb(None), climb("anderson")
    assert fast.n_iter < plain.n_iter / 2
    assert fast.statistics.log_likelihood >= plain.statistics.log_likelihood - 1e-2


def test_weights_are_repeated_rows(X):
    counts = np.random.default_rng(1).integers(0, 3, 3000)
    start = {"start": TRUTH}
    settings = FitSettings(3, "poisson", max_iter=5, tol=0, algorithm="em", acceleration=None)
    weighted = fit(
        open_source(X[:3000], sample_weight=counts.astype(float)), settings,
        np.random.RandomState(0), **start,
    )  # fmt: skip
    repeated = fit(
        open_source(np.repeat(X[:3000], counts, axis=0)), settings, np.random.RandomState(0),
        **start,
    )  # fmt: skip
    assert_allclose(
        weighted.mixture.components.rates, repeated.mixture.components.rates, rtol=1e-9
    )


def test_selection_finds_the_number_of_components_and_the_family(X):
    rare = Poisson(4.0)  # no rate below four
    candidates = [Candidate(k, kind) for kind in ("poisson", rare) for k in (2, 3, 4)]
    settings = FitSettings(1, tol=1e-4)
    ranking = rank(open_source(X), candidates, np.random.RandomState(0), settings)
    assert ranking.table["family"].tolist() == ["poisson"] * 6
    assert ranking.best == 1
    candidates.append(Candidate(2, "diag"))
    with pytest.raises(
        ParameterError,
        match=r"diag components \(densities by lebesgue measure\) and of poisson comp",
    ):
        rank(open_source(X), candidates[::-1], np.random.RandomState(0), settings)


def test_from_zarr_and_on_a_cluster_bits_are_those_of_an_array(X, tmp_path, client):
    zarr.create_array(str(tmp_path / "x.zarr"), data=X.astype(np.int16), chunks=(1000, 4))
    source = open_source(str(tmp_path / "x.zarr"))
    there = run(source, block_size=64_000, client=client)
    here = run(source, block_size=64_000, n_threads=2)
    same(here, there)
    assert here.lower_bound == there.lower_bound


def test_a_fit_that_was_ended_goes_on(X, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "QUIET_SECONDS", 0.0)  # every state is written
    monkeypatch.setattr(checkpoint, "RARE", 0)
    path, source = tmp_path / "run.zarr", open_source(X)
    settings = {"algorithm": "incremental", "block_size": 30_000, "tol": 1e-7}
    whole = run(source, **settings)
    told = 0

    def end(progress):
        nonlocal told
        told += progress.stage == "em"
        if told > 40:
            raise EndedError

    chosen = FitSettings(3, **{"family": "poisson", "max_iter": 200} | settings)
    with pytest.raises(EndedError):
        fit(source, chosen, np.random.RandomState(0), checkpoint=path, on_progress=end)
    stages = set()
    resumed = run(source, checkpoint=path, on_progress=lambda p: stages.add(p.stage), **settings)
    assert stages == {"em", "score"}  # pass 0 and the starts were not made again
    same(whole, resumed)
    assert whole.lower_bounds == resumed.lower_bounds
    same(resumed, run(source, checkpoint=path, **settings))
    with pytest.raises(CheckpointError, match=r"least_rate is 1e-10 there and 0\.5 here"):
        run(source, checkpoint=path, **settings | {"family": Poisson(0.5)})
    with pytest.raises(CheckpointError, match="family is 'Poisson' there and 'Gaussian' here"):
        run(source, checkpoint=path, **settings | {"family": "diag"})


def test_saving_and_loading(tmp_path, monkeypatch):
    family = Poisson(1e-3)
    mixture = Mixture.of(family, TRUTH.weights, TRUTH.components.rates)
    save_mixture(tmp_path / "model.zarr", mixture)
    again = load_mixture(tmp_path / "model.zarr")
    assert again.family == family
    assert again.components.rates.tobytes() == mixture.components.rates.tobytes()
    monkeypatch.delitem(FAMILIES, "poisson")
    with pytest.raises(ModelFileError, match="family='poisson' is not known to this install"):
        load_mixture(tmp_path / "model.zarr")


def test_what_a_model_says_of_rows(X, tmp_path):
    source = open_source(X)
    labels = predict_rows(source, TRUTH, "labels")
    resp = predict_rows(source, TRUTH, "proba")
    assert_allclose(resp.sum(axis=1), 1.0, rtol=1e-12)
    assert (labels == resp.argmax(axis=1)).all()
    array, tally = predict_to(source, TRUTH, tmp_path / "labels.zarr")
    assert (array[:] == labels).all()
    assert tally.counts.sum() == N
    log_density = predict_rows(source, TRUTH, "log_density")
    assert_allclose(score_rows(source, TRUTH).log_likelihood, log_density.sum(), rtol=1e-12)


def test_a_negative_count_is_named(X):
    rows = X.copy()
    rows[1234, 2] = -3
    with pytest.raises(DataError, match=r"X, row 1234: a negative count, -3.0, in column 2"):
        run(open_source(rows))


def test_data_that_change_are_noticed(X, tmp_path):
    array = zarr.create_array(str(tmp_path / "x.zarr"), data=X, chunks=(1000, 4))
    source = open_source(str(tmp_path / "x.zarr"))

    def meddle(progress):
        if progress.stage == "em" and progress.finished:
            array[777, 1] = X[777, 1] + 1

    settings = FitSettings(3, "poisson", max_iter=3)
    with pytest.raises(DataError, match="changed while it was being fitted"):
        fit(source, settings, np.random.RandomState(0), on_progress=meddle)


def test_a_count_that_the_sample_has_not_is_unlikely_and_not_impossible():
    mixture = Mixture.of(Poisson(), np.ones(1), np.array([[2.0, 1e-10]]))
    assert np.isfinite(mixture.posterior(np.array([[1.0, 3.0]])).log_density).all()


def test_a_plan(X):
    found = plan(open_source(X), 3, "poisson", workers=4, worker_memory="1GiB")
    assert found.covariance_type == "poisson"
    assert found.result_bytes == 8 * (3 + 3 * 4 + 3 + 4)


def test_lost_components_are_started_again(X):
    far = np.array([[1.0, 8.0, 3.0, 4.0], [6.0, 2.0, 4.0, 4.0], [900.0, 900.0, 900.0, 900.0]])
    start = Mixture.of("poisson", np.full(3, 1 / 3), far)
    settings = FitSettings(3, "poisson", empty_components="reseed", tol=1e-6, max_iter=300)
    with pytest.warns(UserWarning, match="components 2 lost their rows and were reseeded"):
        result = fit(open_source(X), settings, np.random.RandomState(0), start=start)
    assert_allclose(np.sort(result.mixture.weights), np.sort(TRUTH.weights), atol=0.02)


def test_learning_batch_by_batch(X):
    """Stepwise EM goes to where batch EM goes."""
    batch = run(open_source(X), start=TRUTH)
    mixture, statistics = TRUTH, e_step(TRUTH, X[:200])
    for i in range(200, N, 100):
        gain = (i / 100) ** -0.7
        mixture, statistics = blend_step(mixture, statistics, X[i : i + 100], gain)
    held = TRUTH.sample(5000, np.random.RandomState(9))[0]
    ours, theirs = (m.posterior(held).log_density.mean() for m in (mixture, batch.mixture))
    assert ours > theirs - 5e-3
    assert_allclose(statistics.weight, 200.0)
