"""`impute`: conditional means, standard deviations and draws, on every source."""

import dask.array as da
import numpy as np
import pytest
import zarr

import streamgmm
from streamgmm import GaussianMixture, MixtureModel, OnlineGaussianMixture
from streamgmm.errors import DataError, NonFiniteError, OutputExistsError, ParameterError
from tests.model.dense_gaps import matrices, posterior

KINDS = ("full", "tied", "diag", "spherical")


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(3, 5, 5))
    labels = rng.integers(3, size=600)
    rows = 4 * rng.normal(size=(3, 5))[labels]
    rows += np.einsum("nij,nj->ni", A[labels], rng.normal(size=(600, 5)))
    rows[rng.random(rows.shape) < 0.3] = np.nan
    rows[5] = np.nan
    return rows


def closed_form(model, kind, X):
    """Conditional means and variances of the mixture, row by row."""
    full = matrices(kind, model.covariances_, *model.means_.shape)
    joint, filled, spread = posterior(X, model.weights_, model.means_, full)
    r = np.exp(joint - np.logaddexp.reduce(joint, axis=1)[:, None])
    mean = np.einsum("nk,nkd->nd", r, filled)
    own = np.einsum("nkdd->nkd", spread) + (filled - mean[:, None]) ** 2
    return mean, np.einsum("nk,nkd->nd", r, own)


@pytest.mark.parametrize("kind", KINDS)
def test_conditional_means_are_the_closed_form(rows, kind):
    model = GaussianMixture(3, covariance_type=kind, missing="marginalize", random_state=0)
    model.fit(rows)
    filled, std = model.impute(rows, return_std=True)
    some = np.arange(len(rows)) != 5
    mean, variance = closed_form(model, kind, rows[some])
    assert np.allclose(filled[some], mean, rtol=1e-12, atol=1e-12)
    assert np.allclose(std[some] ** 2, variance, rtol=1e-10, atol=1e-12)
    known = ~np.isnan(rows)
    assert np.array_equal(filled[known], rows[known])
    assert (std[known] == 0).all()
    assert (std[~known] > 0).all()
    # Of which nothing was observed: the mixture itself.
    assert np.allclose(filled[5], model.weights_ @ model.means_)


@pytest.mark.parametrize("missing", ["raise", "omit", "marginalize"])
def test_a_model_of_whole_rows_fills_gaps(rows, missing):
    whole = rows[~np.isnan(rows).any(axis=1)]
    plain = GaussianMixture(1, missing="raise").fit(whole)
    model = GaussianMixture(1, missing=missing).fit(whole)
    assert np.array_equal(model.impute(rows), plain.impute(rows))
    assert np.array_equal(model.impute(whole), whole)
    assert np.array_equal(model.impute(rows[:3].tolist()), model.impute(rows)[:3])


@pytest.mark.parametrize("form", range(6))
@pytest.mark.parametrize("seed", [None, 7])
def test_every_form_of_rows(rows, tmp_path, form, seed):
    cube = rows.reshape(20, 30, 5)
    zarr.create_array(str(tmp_path / "x.zarr"), data=rows, chunks=(70, 5))
    zarr.create_array(str(tmp_path / "c.zarr"), data=cube, chunks=(7, 30, 2))
    X = [
        rows,
        str(tmp_path / "x.zarr"),
        da.from_array(rows, chunks=(110, 2)),
        streamgmm.rows(cube),
        streamgmm.rows(str(tmp_path / "c.zarr")),
        rows.astype(np.float32),
    ][form]
    shape = (20, 30, 5) if form in (3, 4) else (600, 5)
    model = GaussianMixture(3, missing="marginalize", random_state=0, block_size=3000).fit(rows)
    expected, spread = model.impute(rows, return_std=True, random_state=seed)
    found, std = model.impute(X, return_std=True, random_state=seed)
    if form in (1, 2, 4):
        assert isinstance(found, da.Array)
    places = str(tmp_path / "filled"), str(tmp_path / "std")
    stored = model.impute(X, places, return_std=True, random_state=seed)
    rtol = 1e-5 if form == 5 else 1e-12
    for mine, theirs in ((found, expected), (stored[0][:], expected), (std, spread)):
        assert mine.shape == shape
        flat = np.asarray(mine).reshape(600, 5)
        assert np.allclose(flat, theirs, rtol=rtol, atol=rtol)
    assert np.allclose(stored[1][:].reshape(600, 5), spread, rtol=rtol, atol=rtol)
    with pytest.raises(OutputExistsError):
        model.impute(X, places[0])
    model.impute(X, places[0], overwrite=True)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_have_the_conditional_distribution(rows, kind):
    model = GaussianMixture(3, covariance_type=kind, missing="marginalize", random_state=0)
    model.fit(rows)
    X = np.repeat(rows[[0, 1, 5]], 20_000, axis=0)
    gone = np.isnan(rows[[0, 1, 5]])
    drawn = model.impute(X, random_state=3).reshape(3, 20_000, 5)
    mean, std = model.impute(rows[[0, 1, 5]], return_std=True)
    assert np.allclose(drawn.mean(axis=1), mean, atol=5 * std.max() / np.sqrt(20_000))
    assert np.allclose(drawn.std(axis=1), std, rtol=0.05)
    assert (np.ptp(drawn, axis=1)[~gone] == 0).all()
    # All of a row together: covariances of the mixture itself where nothing was observed.
    centre = model.weights_ @ model.means_
    full = matrices(kind, model.covariances_, 3, 5)
    off = model.means_ - centre
    covariance = np.einsum("k,kde->de", model.weights_, full + off[:, :, None] * off[:, None])
    scale = np.sqrt(np.diag(covariance))
    error = (np.cov(drawn[2].T) - covariance) / scale[:, None] / scale
    assert np.abs(error).max() < 0.06
    assert np.array_equal(model.impute(X, random_state=3), drawn.reshape(-1, 5))
    assert not np.array_equal(model.impute(X, random_state=4), drawn.reshape(-1, 5))


def test_other_estimators_and_bad_input(rows, tmp_path):
    whole = rows[~np.isnan(rows).any(axis=1)]
    one, two, three = (
        model.fit(np.vstack([whole] * 30)).impute(rows)
        for model in (
            GaussianMixture(1),
            MixtureModel(1, "full"),
            OnlineGaussianMixture(1, warm_up=500),
        )
    )
    assert np.allclose(one, two)
    assert np.allclose(one, three, rtol=0.2, atol=1)
    model = GaussianMixture(1).fit(whole)
    infinite = rows.copy()
    infinite[3, 1] = np.inf
    with pytest.raises(NonFiniteError, match="row 3, column 1"):
        model.impute(infinite)
    with pytest.raises(DataError, match="4 features"):
        model.impute(rows[:, :4])
    with pytest.raises(ParameterError, match="two arrays"):
        model.impute(rows, str(tmp_path / "x"), return_std=True)
    with pytest.raises(ParameterError, match="student_t"):
        MixtureModel(1, "student_t").fit(whole).impute(rows)
