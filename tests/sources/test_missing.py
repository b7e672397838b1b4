"""Rows with gaps: refused by name, or left out, counted, and marked in their place."""

import warnings

import dask.array as da
import numpy as np
import pytest
import zarr
from sklearn.exceptions import ConvergenceWarning

import streamgmm
from streamgmm import GaussianMixture, MixtureModel, load, select
from streamgmm.errors import CheckpointError, DataError, NonFiniteError
from streamgmm.sources import KeptBlock, omitting, open_source
from streamgmm.testing import SourceTests


class TestOmitting(SourceTests):
    """Where nothing is missing, all laws hold; the row that is NaN is left out."""

    def source(self, rows, sample_weight, tmp_path):
        zarr.create_array(str(tmp_path / "x.zarr"), data=rows, chunks=(100, rows.shape[1]))
        return omitting(open_source(str(tmp_path / "x.zarr"), sample_weight=sample_weight))

    def test_a_row_that_is_not_finite_is_named(self, tmp_path):
        rows = np.ones((5, 2))
        rows[1, 0], rows[3, 1] = np.nan, np.inf
        with pytest.raises(NonFiniteError, match="row 3, column 1"):
            GaussianMixture(1, missing="omit").fit(self.source(rows, None, tmp_path))


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3000, 2)) + 6 * rng.integers(2, size=3000)[:, None]
    rows[rng.random(rows.shape) < 0.1] = np.nan
    rows[100:700] = np.nan  # longer than a chunk
    return rows


def forms(rows, tmp_path):
    """The same rows in every form."""
    table, square = (30, 100), (30, 100, 2)
    zarr.create_array(str(tmp_path / "x.zarr"), data=rows, chunks=(250, 2))
    zarr.create_array(str(tmp_path / "c.zarr"), data=rows.reshape(square), chunks=(7, 30, 1))
    return [
        (rows, (3000,)),
        (str(tmp_path / "x.zarr"), (3000,)),
        (da.from_array(rows, chunks=(400, 1)), (3000,)),
        (streamgmm.rows(rows.reshape(square)), table),
        (streamgmm.rows(str(tmp_path / "c.zarr")), table),
        (streamgmm.rows(da.from_array(rows.reshape(square), chunks=(9, 50, 2))), table),
    ]


@pytest.mark.parametrize("form", range(6))
def test_rows_with_gaps_are_as_if_they_were_not_there(rows, tmp_path, form):
    whole = ~np.isnan(rows).any(axis=1)
    X, shape = forms(rows, tmp_path)[form]
    settings = {"random_state": 0, "tol": 1e-6, "block_size": 4000}
    with pytest.raises(NonFiniteError, match="non-finite"):
        GaussianMixture(2, **settings).fit(X)
    model = GaussianMixture(2, **settings, missing="omit").fit(X)
    plain = GaussianMixture(2, **settings).fit(rows[whole])
    order = np.argsort(model.means_[:, 0])
    same = np.argsort(plain.means_[:, 0])
    assert np.allclose(model.means_[order], plain.means_[same], rtol=1e-4)
    assert model.n_missing_ == np.count_nonzero(~whole)
    assert model.score(X) == pytest.approx(model.score(rows[whole]))
    assert model.aic(X) == pytest.approx(model.aic(rows[whole]))
    for what, fill in (("predict", -1), ("predict_proba", np.nan), ("score_samples", np.nan)):
        expected = getattr(model, what)(rows[whole])
        given = np.asarray(getattr(model, what)(X))
        stored = getattr(model, what)(X, out=str(tmp_path / what))[:]
        for found in (given, stored):
            assert found.shape[: len(shape)] == shape
            flat = found.reshape(3000, *expected.shape[1:])
            assert np.allclose(flat[whole], expected)
            assert np.array_equal(flat[~whole], np.full_like(flat[~whole], fill), equal_nan=True)


def test_few_rows_batches_and_models_that_were_saved(rows, tmp_path):
    model = GaussianMixture(2, random_state=0, missing="omit").fit(rows)
    model.save(str(tmp_path / "model.zarr"))
    again = load(str(tmp_path / "model.zarr"))
    assert again.missing == "omit"
    few = np.array([[np.nan, 1.0], [0.0, 0.0]])
    assert again.predict(few).tolist() == [-1, model.predict([[0.0, 0.0]])[0]]
    learned = MixtureModel(2, missing="omit", random_state=0)
    for i in range(0, 3000, 200):
        learned.partial_fit(rows[i : i + 200])
    assert learned.n_samples_seen_ == np.count_nonzero(~np.isnan(rows).any(axis=1))


def test_select_leaves_rows_out(rows, tmp_path):
    X = str(tmp_path / "x.zarr")
    forms(rows, tmp_path)
    selection = select(X, range(1, 4), "full", random_state=0, missing="omit")
    assert selection.best.n_components == 2
    assert selection.best.n_missing_ == np.count_nonzero(np.isnan(rows).any(axis=1))


def test_weights_stay_with_their_rows(rows):
    weight = np.random.default_rng(1).random(3000)
    whole = ~np.isnan(rows).any(axis=1)
    model = GaussianMixture(1, missing="omit").fit(rows, sample_weight=weight)
    mean = np.average(rows[whole], axis=0, weights=weight[whole])
    assert np.allclose(model.means_[0], mean)


def test_kept_rows_keep_their_numbers(rows):
    (block,) = omitting(open_source(rows)).blocks(1 << 30)
    kept = KeptBlock(block)
    first = [piece.numbers() for piece in kept.pieces()]
    second = [piece.numbers() for piece in kept.pieces()]
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert np.array_equal(np.concatenate(first), np.flatnonzero(~np.isnan(rows).any(axis=1)))


def test_nothing_is_left():
    with pytest.raises(DataError, match="nothing to fit"):
        GaussianMixture(1, missing="omit").fit(np.full((9, 2), np.nan))


def test_on_a_cluster(client, rows, tmp_path):
    here = GaussianMixture(2, random_state=0, missing="omit", block_size=4000, n_jobs=1)
    there = GaussianMixture(2, random_state=0, missing="omit", block_size=4000)
    for X, shape in forms(rows, tmp_path)[4:]:
        one, two = here.fit(X), there.fit(X)
        assert np.array_equal(one.means_, two.means_)
        labels = there.predict(X, out=str(tmp_path / "labels.zarr"), overwrite=True)
        assert labels.shape == shape
        assert np.array_equal(labels[:], np.asarray(here.predict(X)))
    with pytest.raises(DataError, match="persisted on a cluster"):
        there.predict(streamgmm.rows(da.ones((4, 4, 2), chunks=2).persist()))


@pytest.mark.parametrize("stored", [False, True])
def test_a_checkpoint_is_of_one_mask(stored, tmp_path):
    cube = np.random.default_rng(0).normal(size=(30, 20, 10, 2))
    zarr.create_array(str(tmp_path / "x.zarr"), data=cube, chunks=(2, 20, 10, 2))
    mask = np.zeros((30, 20, 10), bool)
    mask[:4] = True  # whole blocks have no row
    mask[13, 7, 3] = True
    other = np.roll(mask, 1, -1)  # as many, one of them elsewhere
    run = tmp_path / "run.zarr"

    def fit(mask, n):
        if stored and mask is not None:
            path = tmp_path / "mask.zarr"
            zarr.create_array(str(path), data=mask, chunks=(7, 20, 10), overwrite=True)
            mask = path
        model = streamgmm.GaussianMixture(
            2, random_state=0, checkpoint=run, max_iter=n, tol=0.0, block_size=6400
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return model.fit(streamgmm.rows(tmp_path / "x.zarr", mask=mask))

    fit(mask, 2)
    for another in (other, None):
        with pytest.raises(CheckpointError, match=r"of another fit.*the mask differs"):
            fit(another, 4)
    assert fit(mask, 4).n_iter_ == 4
