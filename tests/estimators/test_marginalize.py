"""`missing="marginalize"`: exact EM over rows with gaps, through the whole engine."""

import dask.array as da
import numpy as np
import pytest
import zarr

import streamgmm
from streamgmm import GaussianMixture, MixtureModel, load, select
from streamgmm.errors import DataError, NonFiniteError, ParameterError
from tests.model.dense_gaps import em_step

KINDS = ("full", "tied", "diag", "spherical")


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(3, 3, 3))
    means = np.array([[0.0, 0.0, 0.0], [6.0, 0.0, 3.0], [0.0, 6.0, -3.0]])
    labels = rng.integers(3, size=1500)
    rows = means[labels] + np.einsum("nij,nj->ni", A[labels], rng.normal(size=(1500, 3)))
    rows[rng.random(rows.shape) < 0.2] = np.nan
    rows[100:140] = np.nan
    return rows


def matched(a, b):
    """Order of the components of b that brings them nearest to those of a."""
    return [int(np.argmin(((b - mean) ** 2).sum(axis=1))) for mean in a]


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_is_that_of_the_dense_reference(rows, kind):
    some = rows[60:310]
    start = GaussianMixture(2, covariance_type=kind, missing="marginalize", random_state=0)
    start.fit(some, sample_weight=np.arange(len(some)) % 2)
    settings = {"weights_init": [0.4, 0.6], "means_init": start.means_}
    settings["precisions_init"] = start.precisions_
    model = GaussianMixture(
        2, covariance_type=kind, missing="marginalize", tol=0.0, max_iter=8,
        algorithm="em", acceleration=None, **settings,
    )  # fmt: skip
    with pytest.warns(UserWarning, match="did not converge"):
        model.fit(some)
    known = some[~np.isnan(some).all(axis=1)]
    found = np.array([0.4, 0.6]), start.means_, start.covariances_
    bounds = []
    for _ in range(8):
        log_likelihood, *found = em_step(kind, known, *found, 1e-6)
        bounds.append(log_likelihood / len(known))
    for mine, theirs in zip(
        (model.weights_, model.means_, model.covariances_), found, strict=True
    ):
        assert np.allclose(mine, theirs, rtol=1e-9, atol=1e-12)
    assert np.allclose(model.lower_bounds_[-1], bounds[-1], rtol=1e-9)
    assert model.n_missing_ == len(some) - len(known)
    history = model.history_
    known_kl = ~np.isnan(history["kl"])
    assert (history["kl"][known_kl] >= -1e-9).all()
    assert np.allclose(
        history["free_energy"][known_kl] + history["kl"][known_kl],
        history["log_likelihood"][known_kl],
    )


@pytest.mark.parametrize("kind", KINDS)
def test_whole_rows_give_the_bits_of_the_ordinary_fit(rows, kind, tmp_path):
    whole = rows[~np.isnan(rows).any(axis=1)]
    zarr.create_array(str(tmp_path / "x.zarr"), data=whole, chunks=(100, 3))
    for X in (whole, whole.astype(np.float32), str(tmp_path / "x.zarr")):
        one, two = (
            GaussianMixture(
                3, covariance_type=kind, missing=missing, random_state=0, block_size=6000
            ).fit(X)
            for missing in ("raise", "marginalize")
        )
        assert np.array_equal(one.means_, two.means_)
        assert np.array_equal(one.covariances_, two.covariances_)
        assert one.lower_bounds_ == two.lower_bounds_
        assert one.score(X) == two.score(X)
        for what in ("predict", "predict_proba", "score_samples"):
            mine, theirs = (np.asarray(getattr(each, what)(X)) for each in (one, two))
            assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("form", range(5))
def test_every_form_of_rows(rows, tmp_path, form):
    cube = rows.reshape(30, 50, 3)
    zarr.create_array(str(tmp_path / "x.zarr"), data=rows, chunks=(250, 3))
    zarr.create_array(str(tmp_path / "c.zarr"), data=cube, chunks=(7, 30, 1))
    X = [
        rows,
        str(tmp_path / "x.zarr"),
        da.from_array(rows, chunks=(400, 1)),
        streamgmm.rows(cube),
        streamgmm.rows(str(tmp_path / "c.zarr")),
    ][form]
    shape = (30, 50) if form > 2 else (1500,)
    settings = {"random_state": 0, "tol": 1e-7, "max_iter": 400, "missing": "marginalize"}
    plain = GaussianMixture(3, **settings).fit(rows)
    model = GaussianMixture(3, **settings, block_size=4000).fit(X)
    order = matched(plain.means_, model.means_)
    assert np.allclose(model.means_[order], plain.means_, rtol=1e-3, atol=1e-3)
    empty = np.isnan(rows).all(axis=1)
    assert model.n_missing_ == empty.sum() > 0
    expected = model.score_samples(rows)
    assert np.isnan(expected[empty]).all()
    assert np.isfinite(expected[~empty]).all()
    assert model.score(X) == pytest.approx(np.nanmean(expected))
    for what, fill in (("predict", -1), ("predict_proba", np.nan), ("score_samples", np.nan)):
        known = getattr(model, what)(rows)
        given = np.asarray(getattr(model, what)(X))
        stored = getattr(model, what)(X, out=str(tmp_path / what))[:]
        for found in (given, stored):
            assert found.shape[: len(shape)] == shape
            flat = found.reshape(1500, *known.shape[1:])
            assert np.allclose(flat, known, equal_nan=True)
            assert np.array_equal(flat[empty], np.full_like(flat[empty], fill), equal_nan=True)


def test_recovery_where_omitting_is_biased():
    """Values are missing where another is large: at random, given what was observed."""
    rng = np.random.default_rng(1)
    X = rng.multivariate_normal([0.0, 0.0], [[1.0, 0.8], [0.8, 1.0]], size=20_000)
    X[X[:, 0] > 0.3, 1] = np.nan
    exact = GaussianMixture(1, missing="marginalize", tol=1e-9, max_iter=500).fit(X)
    omitted = GaussianMixture(1, missing="omit").fit(X)
    assert abs(exact.means_[0, 1]) < 0.05
    assert abs(exact.covariances_[0, 0, 1] - 0.8) < 0.05
    assert omitted.means_[0, 1] < -0.3


@pytest.mark.parametrize("algorithm", ["em", "incremental"])
@pytest.mark.parametrize("acceleration", ["anderson", None])
def test_the_likelihood_never_falls(rows, algorithm, acceleration, tmp_path):
    for seed in range(4):
        model = GaussianMixture(
            3, random_state=seed, missing="marginalize", algorithm=algorithm, tol=1e-5,
            acceleration=acceleration, block_size=3000, max_iter=2000, reg_covar=1e-12,
            init_params=("kmeans", "k-means++", "random", "random_from_data")[seed],
        ).fit(rows)  # fmt: skip
        energy = model.history_["free_energy"]
        assert (np.diff(energy) >= -1e-8 * np.abs(energy[:-1])).all()
        known = model.history_["kl"][~np.isnan(model.history_["kl"])]
        assert (known >= -1e-6).all()


def test_checkpoints_go_on_to_the_same_bits(rows, tmp_path):
    settings = {"random_state": 0, "missing": "marginalize", "block_size": 4000, "tol": 0.0}
    settings["algorithm"] = "incremental"
    place = str(tmp_path / "checkpoint")
    with pytest.warns(UserWarning, match="did not converge"):
        whole = GaussianMixture(3, **settings, max_iter=6).fit(rows)
    with pytest.warns(UserWarning, match="did not converge"):
        GaussianMixture(3, **settings, max_iter=3, checkpoint=place).fit(rows)
    with pytest.warns(UserWarning, match="did not converge"):
        again = GaussianMixture(3, **settings, max_iter=6, checkpoint=place).fit(rows)
    assert np.array_equal(whole.means_, again.means_)
    assert np.array_equal(whole.covariances_, again.covariances_)
    assert whole.lower_bounds_ == again.lower_bounds_


def test_rows_that_were_appended(rows, tmp_path):
    array = zarr.create_array(str(tmp_path / "x.zarr"), data=rows[:1000], chunks=(50, 3))
    model = GaussianMixture(
        3, missing="marginalize", algorithm="incremental", warm_start=True, random_state=0,
        block_size=1200, tol=1e-7, max_iter=300,
    ).fit(array)  # fmt: skip
    model.save(str(tmp_path / "model.zarr"))
    again = load(str(tmp_path / "model.zarr"))
    array.resize((1500, 3))
    array[1000:] = rows[1000:]
    for each in (model, again):
        each.fit(array)
    assert np.array_equal(model.means_, again.means_)
    afresh = GaussianMixture(3, missing="marginalize", random_state=0, tol=1e-7, max_iter=300).fit(
        rows
    )
    assert model.score(rows) == pytest.approx(afresh.score(rows), abs=1e-3)


def test_saved_models_know_of_gaps(rows, tmp_path):
    model = GaussianMixture(3, missing="marginalize", random_state=0).fit(rows)
    mixed = MixtureModel(3, "full", missing="marginalize", random_state=0).fit(rows)
    for i, each in enumerate((model, mixed)):
        each.save(str(tmp_path / f"{i}.zarr"))
        again = load(str(tmp_path / f"{i}.zarr"))
        assert again.missing == "marginalize"
        assert np.array_equal(again.score_samples(rows), each.score_samples(rows), equal_nan=True)
    few = np.array([[np.nan, 1.0, np.nan], [np.nan] * 3])
    assert model.predict(few)[1] == -1
    assert np.isfinite(model.score_samples(few)[0])


def test_select_over_rows_with_gaps(rows):
    found = select(rows, range(1, 5), random_state=0, missing="marginalize")
    assert found.best.n_components == 3
    assert found.best.missing == "marginalize"
    assert found.best.n_missing_ == np.isnan(rows).all(axis=1).sum()
    assert np.isfinite(found.table["holdout_log_likelihood"]).all()
    icl = found.table["icl"] - found.table["bic"]
    assert (icl >= -1e-6).all()  # twice the entropy of the labels, and not of what is missing


def test_bad_rows(rows):
    lost = rows.copy()
    lost[:, 1] = np.nan
    with pytest.raises(DataError, match="nothing was observed of feature 1;"):
        GaussianMixture(2, missing="marginalize").fit(lost)
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(lost, columns=["a", "b", "c"])
    with pytest.raises(DataError, match="nothing was observed of feature 'b';"):
        GaussianMixture(2, missing="marginalize").fit(table)
    infinite = rows.copy()
    infinite[5, 2] = np.inf
    with pytest.raises(NonFiniteError, match="row 5, column 2; a gap is NaN"):
        GaussianMixture(2, missing="marginalize").fit(infinite)
    model = GaussianMixture(2, missing="marginalize", random_state=0).fit(rows)
    for what in ("predict", "score_samples", "score"):
        with pytest.raises(NonFiniteError, match="infinite"):
            getattr(model, what)(infinite)
    with pytest.raises(DataError, match="nothing to fit"):
        GaussianMixture(1, missing="marginalize").fit(np.full((9, 2), np.nan))
    with pytest.raises(NonFiniteError, match="non-finite"):
        GaussianMixture(2).fit(rows)
    with pytest.raises(ParameterError, match="missing='marginalize': family='student_t'"):
        MixtureModel(2, "student_t", missing="marginalize").fit(rows)
    with pytest.raises(ParameterError, match="missing='marginalize': family='student_t'"):
        select(rows, 2, family=["full", "student_t"], missing="marginalize")


def test_components_start_again_at_rows_with_gaps(rows):
    model = GaussianMixture(
        6, missing="marginalize", empty_components="reseed", random_state=0, max_iter=200,
        means_init=np.vstack([np.zeros((5, 3)) + np.arange(5)[:, None], [[1e3, 1e3, 1e3]]]),
    )  # fmt: skip
    with pytest.warns(UserWarning, match="reseeded"):
        model.fit(rows)
    assert np.isfinite(model.means_).all()


def test_on_a_cluster(client, rows):
    settings = {"missing": "marginalize", "random_state": 0, "block_size": 4000}
    here = GaussianMixture(3, **settings, n_jobs=1).fit(rows)
    two = GaussianMixture(3, **settings, n_jobs=2).fit(rows)
    there = GaussianMixture(3, **settings).fit(rows)
    for each in (two, there):
        assert np.array_equal(here.means_, each.means_)
        assert np.array_equal(here.covariances_, each.covariances_)


def test_a_gap_is_the_limit_of_infinite_noise(rows):
    some = rows[~np.isnan(rows).all(axis=1)]
    settings = {
        "means_init": [[0, 0, 0], [6, 0, 3], [0, 6, -3]], "tol": 0.0, "max_iter": 10,
        "weights_init": np.full(3, 1 / 3), "precisions_init": [np.eye(3)] * 3,
        "acceleration": None, "algorithm": "em",
    }  # fmt: skip
    unknown = np.where(np.isnan(some), np.inf, 0.0)
    fits = [
        (GaussianMixture(3, missing="marginalize", **settings), some, None),
        (GaussianMixture(3, missing="marginalize", **settings), some, np.zeros(some.shape)),
        (GaussianMixture(3, **settings), np.nan_to_num(some), unknown),
    ]
    for model, X, noise in fits:
        with pytest.warns(UserWarning, match="did not converge"):
            model.fit(X, noise_variance=noise)
    gaps, *others = (model for model, _, _ in fits)
    for model in others:
        assert np.allclose(model.means_, gaps.means_, rtol=1e-10, atol=1e-12)
        assert np.allclose(model.covariances_, gaps.covariances_, rtol=1e-10, atol=1e-12)
    density = others[1].score_samples(np.nan_to_num(some), noise_variance=unknown)
    assert np.allclose(density, gaps.score_samples(some), rtol=1e-10)
