"""Mixtures of factor analysers, as people call them."""

import numpy as np
import pytest
import zarr
from distributed import Client
from numpy.testing import assert_allclose, assert_array_equal

from streamgmm import GaussianMixture, MixtureModel, cli, load, select
from streamgmm.errors import ParameterError
from streamgmm.families import FactorAnalyzer


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    n, d, q = 6000, 12, 2
    means, loadings = 3 * rng.normal(size=(3, d)), 1.5 * rng.normal(size=(3, d, q))
    noise = rng.uniform(0.2, 0.8, size=(3, d))
    k = rng.integers(3, size=n)
    rows = means[k] + np.einsum("ndq,nq->nd", loadings[k], rng.normal(size=(n, q)))
    return rows + rng.normal(size=(n, d)) * np.sqrt(noise[k])


@pytest.mark.parametrize("kind", ["factor", "ppca"])
def test_a_fit(X, kind, tmp_path):
    how = {"tol": 1e-6, "acceleration": "anderson", "random_state": 0}
    model = GaussianMixture(3, covariance_type=kind, n_factors=2, **how).fit(X)
    full = GaussianMixture(3, **how).fit(X)
    order, wanted = np.argsort(model.means_[:, 0]), np.argsort(full.means_[:, 0])
    assert_allclose(model.means_[order], full.means_[wanted], atol=0.1)
    assert model.loadings_.shape == (3, 12, 2)
    assert model.noise_variances_.shape == (3, 12)
    if kind == "factor":
        assert_allclose(model.get_covariance()[order], full.get_covariance()[wanted], atol=0.4)
        assert model.bic(X) < full.bic(X)
    assert np.all(np.diff(model.history_["free_energy"]) >= -1e-6)
    path = tmp_path / "m.zarr"
    model.save(path)
    again = load(path)
    assert_array_equal(again.score_samples(X), model.score_samples(X))
    assert_array_equal(again.predict(X), model.predict(X))
    rows, labels = model.sample(10)
    assert rows.shape == (10, 12)
    assert labels.shape == (10,)


def test_the_same_bits_out_of_core_and_on_two_workers(X, tmp_path):
    path = str(tmp_path / "x.zarr")
    zarr.create_array(path, data=X, chunks=(700, 12))

    def fit():
        how = {"covariance_type": "factor", "n_factors": 2, "random_state": 1, "max_iter": 8}
        model = GaussianMixture(3, tol=0, block_size=70_000, **how)
        with pytest.warns(match="did not converge"):
            return model.fit(path)

    here = fit()
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        assert client
        there = fit()
    assert_array_equal(here.loadings_, there.loadings_)
    assert_array_equal(here.noise_variances_, there.noise_variances_)


def test_the_number_of_factors_is_chosen(X):
    found = select(X, 3, family=[FactorAnalyzer(q) for q in (1, 2, 3)], random_state=0)
    assert found.choices["bic"] == 1
    assert found.best.family.n_factors == 2


def test_other_ways_in(X):
    model = MixtureModel(3, FactorAnalyzer(2), random_state=0).fit(X)
    assert set(model.components_) == {"means", "loadings", "noise_variances"}
    hard = GaussianMixture(
        3, covariance_type="factor", n_factors=2, random_state=0, assignment="hard"
    ).fit(X)
    assert hard.converged_
    weights = np.random.default_rng(0).integers(1, 3, len(X))
    start = model.components_["means"]
    how = {"covariance_type": "factor", "n_factors": 1, "means_init": start, "random_state": 0}
    one = GaussianMixture(3, **how).fit(X, sample_weight=weights)
    two = GaussianMixture(3, **how).fit(np.repeat(X, weights, axis=0))
    assert_allclose(one.lower_bound_, two.lower_bound_, rtol=1e-3)
    assert GaussianMixture(3, covariance_type="factor", n_factors=2).plan(X).n_components == 3


def test_learned_batch_by_batch(X):
    model = MixtureModel(3, FactorAnalyzer(2), random_state=0)
    for first in range(0, len(X), 500):
        model.partial_fit(X[first : first + 500])
    whole = MixtureModel(3, FactorAnalyzer(2), random_state=0).fit(X)
    assert model.score(X) > whole.score(X) - 0.1


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"covariance_type": "factor"}, "needs n_factors"),
        ({"n_factors": 2}, "leave it out"),
        ({"covariance_type": "ppca", "n_factors": 12}, "less than the number of features, 12"),
    ],
)
def test_wrong_use(X, how, message):
    with pytest.raises(ParameterError, match=message):
        GaussianMixture(2, **how).fit(X)


def test_on_the_command_line(X, tmp_path, capsys):
    path, out = str(tmp_path / "x.zarr"), str(tmp_path / "m.zarr")
    zarr.create_array(path, data=X, chunks=(2000, 12))
    assert cli.main(["fit", path, "-k", "3", "--n-factors", "2", "--seed", "0", "--out", out]) == 0
    assert cli.main(["info", out]) == 0
    assert cli.main(["score", out, path]) == 0
    assert "factor" in capsys.readouterr().out
    assert load(out).n_factors == 2
    assert cli.main(["fit", path, "--covariance", "ppca", "-k", "3", "--out", out + "2"]) == 2
    assert "n_factors" in capsys.readouterr().err
    model = load(out)
    model.report(str(tmp_path / "r.html"), path)
    assert "factor" in model.summary()
    filled = model.condition([0, 1]).predict(X[:, :2])
    assert filled.shape == (len(X), 10)
