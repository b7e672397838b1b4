"""`select`: planted models found, in reads that all candidates share."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from sklearn.model_selection import GridSearchCV

from streamgmm import GaussianMixture, MixtureModel, Selection, errors, select
from streamgmm.model.families import Poisson
from streamgmm.model.mixture import Mixture
from tests.mixtures import draw, random_mixture


@pytest.fixture(scope="module")
def X():
    return draw(random_mixture("full", 3, 2, 1, spread=5.0), 4000, 1)


@pytest.fixture(scope="module")
def selection(X):
    return select(X, range(1, 7), ("full", "tied", "diag", "spherical"), random_state=0)


def test_finds_what_was_planted(selection):
    assert isinstance(selection, Selection)
    assert (selection.best.n_components, selection.best.covariance_type) == (3, "full")
    sizes = {len(column) for column in selection.table.values()}
    assert sizes == {24}


def test_the_table_is_what_the_models_say(selection, X):
    """Criteria from the log-likelihood of the rows that were fitted, at the model returned."""
    table, best = selection.table, selection.best
    i = int(np.argmin(table["bic"]))
    assert np.isfinite(table["holdout_log_likelihood"]).all()
    assert np.all(table["holdout_error"] > 0)
    n = len(X)
    mean = best.score(X)
    np.testing.assert_allclose(table["log_likelihood"][i] / (0.97 * n), mean, rtol=0.02)
    np.testing.assert_allclose(
        table["aic"], -2 * table["log_likelihood"] + 2 * table["n_parameters"]
    )
    assert np.all(table["icl"] >= table["bic"] - 1e-9)
    assert abs(table["holdout_log_likelihood"][i] - mean) < 5 * table["holdout_error"][i]
    assert best.history_["log_likelihood"][-1] == table["log_likelihood"][i]


def test_every_candidate_shares_every_read(selection):
    assert selection.passes <= 1.1 * (selection.table["passes"].max() + 1)


def test_without_holdout_the_table_is_exact(X):
    found = select(X, [2, 3], "full", holdout=0, random_state=0, tol=1e-8)
    assert found.best.n_components == 3
    np.testing.assert_allclose(found.table["bic"].min(), found.best.bic(X), rtol=1e-9)
    np.testing.assert_allclose(found.table["aic"].min(), found.best.aic(X), rtol=1e-9)
    assert np.isnan(found.table["holdout_log_likelihood"]).all()


@pytest.mark.parametrize("criterion", ["aic", "icl", "holdout"])
def test_criteria(X, criterion):
    found = select(X, range(1, 5), "full", criterion=criterion, random_state=0, holdout=0.2)
    assert found.best.n_components in (3, 4)


def test_on_disk_as_in_memory(tmp_path, X):
    array = zarr.create_array(tmp_path / "x.zarr", data=X, chunks=(500, 2))
    here = select(X, [2, 3], "diag", random_state=0)
    there = select(tmp_path / "x.zarr", [2, 3], "diag", random_state=0)
    assert array.shape == X.shape
    np.testing.assert_allclose(here.table["bic"], there.table["bic"], rtol=1e-6)


def test_batches_where_memory_is_short(monkeypatch, X):
    together = select(X, [2, 3], "diag", random_state=0)
    monkeypatch.setattr("streamgmm.fitting.selection.STATISTICS_BYTES", 1)
    apart = select(X, [2, 3], "diag", random_state=0)
    assert apart.passes > together.passes
    np.testing.assert_allclose(apart.table["bic"], together.table["bic"], rtol=1e-6)


def test_with_weights(X):
    """Rows of weight zero are as if they were not there."""
    weight = np.r_[np.ones(4000), np.zeros(500)]
    more = np.vstack([X, np.full((500, 2), 40.0)])
    found = select(more, [2, 3], "full", sample_weight=weight, random_state=0)
    assert found.best.n_components == 3
    assert np.abs(found.best.means_).max() < 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"criterion": "r2"}, "criterion='r2'"),
        ({"holdout": 0.9}, "holdout=0.9"),
        ({"criterion": "holdout", "holdout": 0}, "needs a holdout"),
        ({"n_components": []}, "no candidates"),
        ({"n_components": [0]}, "from 1 up"),
        ({"covariance_types": "round"}, "'round'"),
        ({"n_components": [9000]}, "n_samples >= n_components"),
    ],
)
def test_wrong_use(X, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        select(X, **arguments)
    assert isinstance(caught.value, errors.StreamGMMError)


def test_in_scikit_learns_own_search(X):
    search = GridSearchCV(GaussianMixture(random_state=0), {"n_components": [1, 2, 3]}, cv=3).fit(
        X
    )
    assert search.best_params_ == {"n_components": 3}


def test_on_the_command_line(tmp_path, capsys, X):
    import json

    from streamgmm import load
    from streamgmm.cli import main

    zarr.create_array(tmp_path / "x.zarr", data=X, chunks=(500, 2))
    data, out = str(tmp_path / "x.zarr"), str(tmp_path / "model.zarr")
    arguments = ["select", data, "-k", "1:4", "--covariance", "full", "--seed", "0", "-q"]
    assert main([*arguments, "--out", out, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["best"] == {"n_components": 3, "covariance_type": "full"}
    assert load(out).n_components == 3
    assert main([*arguments]) == 0
    assert "best by bic: 3 components" in capsys.readouterr().out
    assert main([*arguments, "--out", out]) == 2
    assert main(["select", data, "-k", "many"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_families_are_candidates_where_their_likelihoods_can_be_compared(tmp_path):
    rates = np.array([[1.0, 8, 3], [6, 2, 4]])
    truth = Mixture.of("poisson", np.array([0.6, 0.4]), rates)
    counts = truth.sample(4000, np.random.RandomState(0))[0]
    zarr.create_array(str(tmp_path / "x.zarr"), data=counts.astype(np.int32), chunks=(500, 3))
    common = Poisson(4.0)  # no rate below four
    found = select(str(tmp_path / "x.zarr"), [1, 2, 3], family=["poisson", common], random_state=0)
    assert isinstance(found.best, MixtureModel)
    assert (found.best.n_components, found.best.family) == (2, "poisson")
    assert found.table["family"].tolist() == ["poisson"] * 6
    i = int(np.argmin(found.table["bic"]))
    assert i == 1
    np.testing.assert_allclose(
        found.best.score(counts), found.table["log_likelihood"][i] / (0.97 * 4000), rtol=0.01
    )
    with pytest.raises(errors.ParameterError, match="cannot be compared: select among families"):
        select(counts, 2, family=["poisson", "full"])
    with pytest.raises(errors.ParameterError, match="covariance_types and family exclude one an"):
        select(counts, 2, "tied", family="poisson")
    alone = select(counts, 2, family=common, random_state=0).best
    assert alone.family_ == common


def test_gaussian_families_are_what_covariance_types_are(X):
    one = select(X, [2, 3], ("full", "diag"), random_state=0, reg_covar=1e-4)
    two = select(X, [2, 3], family=("full", "diag"), random_state=0, reg_covar=1e-4)
    for name, column in one.table.items():
        theirs = two.table["family" if name == "covariance_type" else name]
        np.testing.assert_array_equal(column, theirs)
    assert two.best.components_["means"].tobytes() == one.best.means_.tobytes()
