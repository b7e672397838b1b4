"""Scalers and PCA beside scikit-learn's: the same numbers, of rows of every kind."""

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import zarr
from sklearn import decomposition, preprocessing
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, QuantileTransformer

import streamgmm
from streamgmm import PCA, GaussianMixture, RobustScaler, StandardScaler
from streamgmm.errors import DataError, DataTypeError, NonFiniteError, ParameterError
from streamgmm.sources import Source

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3000, 6)) @ RNG.normal(size=(6, 6)) + np.array([0, 1, -50, 1e4, 3, 8])


@pytest.fixture
def stored(tmp_path):
    path = str(tmp_path / "x.zarr")
    zarr.create_array(path, data=X, chunks=(170, 6))
    return path


def same(mine, theirs, names, **tolerance):
    for name in names:
        a, b = getattr(mine, name), getattr(theirs, name)
        assert (a is None) == (b is None), name
        if b is not None:
            assert np.shape(a) == np.shape(b), name
            np.testing.assert_allclose(a, b, err_msg=name, **tolerance)


SCALED = ("mean_", "var_", "scale_", "n_samples_seen_", "n_features_in_")


@pytest.mark.parametrize("with_mean", [True, False])
@pytest.mark.parametrize("with_std", [True, False])
def test_standard_scaler(with_mean, with_std, stored):
    asked = {"with_mean": with_mean, "with_std": with_std}
    theirs = preprocessing.StandardScaler(**asked).fit(X)
    for rows in (X, stored, da.from_array(X, chunks=(700, 6))):
        mine = StandardScaler(**asked, block_size=40_000).fit(rows)
        same(mine, theirs, SCALED, rtol=1e-12)
        np.testing.assert_allclose(mine.transform(X), theirs.transform(X), rtol=1e-9, atol=1e-11)
        back = mine.inverse_transform(mine.transform(X))
        np.testing.assert_allclose(back, X, rtol=1e-14, atol=1e-14)


def test_standard_scaler_has_the_very_bits_of_scikit_learn_from_the_same_attributes():
    mine = StandardScaler().fit(X)
    theirs = preprocessing.StandardScaler().fit(X)
    theirs.mean_, theirs.scale_ = mine.mean_, mine.scale_
    assert np.array_equal(mine.transform(X), theirs.transform(X))


def test_partial_fit_and_weights():
    weight = RNG.integers(0, 4, size=len(X)).astype(float)
    theirs = preprocessing.StandardScaler().fit(X, sample_weight=weight)
    mine = StandardScaler().fit(X, sample_weight=weight)
    same(mine, theirs, SCALED, rtol=1e-12)
    parts = StandardScaler()
    for a in range(0, 3000, 1000):
        parts.partial_fit(X[a : a + 1000], sample_weight=weight[a : a + 1000])
    same(parts, theirs, SCALED, rtol=1e-12)
    assert isinstance(parts.n_samples_seen_, float)
    assert StandardScaler().fit(X).n_samples_seen_ == 3000


def test_a_feature_that_does_not_vary_is_left():
    flat = np.column_stack([X[:, 0], np.full(3000, 1e9 + 0.1), np.zeros(3000)])
    mine, theirs = StandardScaler().fit(flat), preprocessing.StandardScaler().fit(flat)
    assert mine.scale_[1:].tolist() == theirs.scale_[1:].tolist() == [1.0, 1.0]


FITTED = (
    "components_", "explained_variance_", "explained_variance_ratio_", "singular_values_",
    "mean_", "n_components_", "n_samples_", "noise_variance_", "n_features_in_",
)  # fmt: skip


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("n_components", [None, 1, 4, 6, 0.9, 0.999999, "mle"])
def test_pca(n_components, whiten, stored):
    asked = {"n_components": n_components, "whiten": whiten}
    theirs = decomposition.PCA(**asked, svd_solver="full").fit(X)
    for rows in (X, stored, da.from_array(X, chunks=(700, 3))):
        mine = PCA(**asked, block_size=40_000).fit(rows)
        same(mine, theirs, FITTED, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(mine.transform(X), theirs.transform(X), atol=1e-7)
        there = mine.transform(X)
        np.testing.assert_allclose(
            mine.inverse_transform(there), theirs.inverse_transform(there), atol=1e-8
        )
        assert list(mine.get_feature_names_out()) == list(theirs.get_feature_names_out())
    np.testing.assert_allclose(mine.fit_transform(X), theirs.fit_transform(X), atol=1e-7)


@pytest.mark.parametrize("n_components", [2, 6])
def test_the_density_of_pca(n_components, stored, tmp_path):
    mine = PCA(n_components).fit(stored)
    theirs = decomposition.PCA(n_components, svd_solver="full").fit(X)
    np.testing.assert_allclose(mine.get_covariance(), theirs.get_covariance(), rtol=1e-7)
    np.testing.assert_allclose(mine.get_precision(), theirs.get_precision(), rtol=1e-6)
    wanted = theirs.score_samples(X)
    np.testing.assert_allclose(mine.score_samples(X), wanted, rtol=1e-7)
    np.testing.assert_allclose(np.asarray(mine.score_samples(stored)), wanted, rtol=1e-7)
    written = mine.score_samples(stored, out=str(tmp_path / "density.zarr"))
    np.testing.assert_allclose(written[:], wanted, rtol=1e-7)
    assert mine.score(stored) == pytest.approx(theirs.score(X))


def test_pca_of_fewer_rows_than_features():
    wide = RNG.normal(size=(9, 40))
    theirs = decomposition.PCA(svd_solver="full").fit(wide)
    mine = PCA().fit(wide)
    same(mine, theirs, FITTED[1:], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(mine.components_[:8], theirs.components_[:8], atol=1e-9)
    lazy = PCA().fit(da.from_array(wide, chunks=(4, 40)))  # by its scatter
    np.testing.assert_allclose(lazy.explained_variance_, theirs.explained_variance_, atol=1e-12)


def test_an_offset_costs_pca_no_digits(stored):
    far = X - X.mean(axis=0) + 1e6
    near = far - 1e6
    theirs = decomposition.PCA(3, svd_solver="full").fit(near)
    mine = PCA(3).fit(da.from_array(far, chunks=(700, 6)))
    np.testing.assert_allclose(mine.explained_variance_, theirs.explained_variance_, rtol=1e-9)


def test_weighted_rows_count_as_often(stored):
    weight = RNG.integers(0, 4, size=len(X))
    theirs = decomposition.PCA(3, svd_solver="full").fit(np.repeat(X, weight, axis=0))
    mine = PCA(3).fit(streamgmm.rows(stored, sample_weight=weight.astype(float)))
    same(mine, theirs, FITTED, rtol=1e-9, atol=1e-10)


def test_a_pipeline_shares_its_read_and_loses_nothing(stored):
    theirs = make_pipeline(
        preprocessing.StandardScaler(), decomposition.PCA(3, svd_solver="full")
    ).fit(X)
    mine = make_pipeline(StandardScaler(), PCA(3)).fit(stored)
    same(mine[1], theirs[1], FITTED, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(mine.transform(X), theirs.transform(X), atol=1e-9)


def test_weights_of_a_step_are_its_own(stored):
    weight = RNG.random(len(X))
    steps = {"standardscaler__sample_weight": weight, "gaussianmixture__sample_weight": weight}
    pipes = [
        make_pipeline(StandardScaler(), PCA(2), GaussianMixture()).fit(rows, **steps)
        for rows in (X, stored)
    ]
    for here, there in zip(*pipes, strict=True):
        names = [n for n in vars(here) if n in (*SCALED, *FITTED, "means_", "covariances_")]
        same(there, here, names, rtol=1e-9, atol=1e-9)


CENTRED = ("center_", "scale_", "n_features_in_")


@pytest.mark.parametrize("unit_variance", [False, True])
@pytest.mark.parametrize("quantile_range", [(25.0, 75.0), (5, 99)])
@pytest.mark.parametrize("with_centering", [True, False])
@pytest.mark.parametrize("with_scaling", [True, False])
def test_robust_scaler(unit_variance, quantile_range, with_centering, with_scaling, stored):
    asked = {
        "unit_variance": unit_variance, "quantile_range": quantile_range,
        "with_centering": with_centering, "with_scaling": with_scaling,
    }  # fmt: skip
    theirs = preprocessing.RobustScaler(**asked).fit(X)
    for rows in (X, stored):
        mine = RobustScaler(**asked).fit(rows)
        same(mine, theirs, CENTRED, rtol=1e-12)
        np.testing.assert_allclose(mine.transform(X), theirs.transform(X), rtol=1e-12)
        np.testing.assert_allclose(mine.inverse_transform(mine.transform(X)), X, rtol=1e-9)


def many_rows(tmp_path, n=400_000):
    """Too many to be read whole: more than 16 MiB, of which one column is heavy-tailed."""
    rng = np.random.default_rng(3)
    rows = np.column_stack(
        [rng.normal(size=n), rng.standard_cauchy(size=n), *rng.random((4, n)) ** 3]
    )
    path = str(tmp_path / "many.zarr")
    zarr.create_array(path, data=rows, chunks=(20_000, 6))
    return rows, path


def test_quantiles_of_many_rows_are_as_near_as_they_say(tmp_path):
    rows, path = many_rows(tmp_path)
    mine = RobustScaler(block_size="1MiB").fit(path)
    for j in range(rows.shape[1]):
        column = np.sort(rows[:, j])
        rank = np.searchsorted(column, mine.center_[j]) / len(column)
        assert abs(rank - 0.5) < 1e-3
    theirs = preprocessing.RobustScaler().fit(rows)
    np.testing.assert_allclose(mine.scale_, theirs.scale_, rtol=1e-3)
    again = RobustScaler(block_size="1MiB", n_jobs=1).fit(path)
    assert np.array_equal(again.center_, mine.center_)
    assert np.array_equal(again.scale_, mine.scale_)


def test_a_robust_scaler_shares_its_read_too(tmp_path):
    rows, path = many_rows(tmp_path)
    mine = make_pipeline(RobustScaler(), PCA(2)).fit(path)
    there = PCA(2).fit(mine[0].transform(rows))
    np.testing.assert_allclose(mine[1].explained_variance_, there.explained_variance_, rtol=1e-9)


def test_weighted_quantiles(tmp_path):
    rows, path = many_rows(tmp_path)
    weight = np.where(rows[:, 0] > 0, 3.0, 0.0)
    mine = RobustScaler().fit(streamgmm.rows(path, sample_weight=weight))
    theirs = preprocessing.RobustScaler().fit(rows[rows[:, 0] > 0])
    np.testing.assert_allclose(mine.center_, theirs.center_, atol=1e-3)
    np.testing.assert_allclose(mine.scale_, theirs.scale_, rtol=1e-3)


@pytest.mark.parametrize("kind", [StandardScaler, RobustScaler, PCA])
def test_gaps(kind, tmp_path):
    gappy = X.copy()
    gappy[5, 2] = gappy[2000, 0] = np.nan
    path = str(tmp_path / "x.zarr")
    zarr.create_array(path, data=gappy, chunks=(170, 6))
    whole = np.delete(gappy, [5, 2000], axis=0)
    wanted = kind().fit(whole).transform(whole)
    for rows in (gappy, path):
        with pytest.raises(NonFiniteError, match="row 5, column 2"):
            kind().fit(rows)
        mine = kind(missing="omit").fit(rows)
        np.testing.assert_allclose(mine.transform(whole), wanted, atol=1e-7)
    found = kind(missing="omit").fit_transform(gappy)
    assert np.isnan(found[[5, 2000]]).all()
    np.testing.assert_allclose(np.delete(found, [5, 2000], axis=0), wanted, atol=1e-7)


def with_gaps():
    gappy = X.copy()
    gappy[RNG.random(X.shape) < 0.1] = np.nan
    gappy[:, 5] = X[:, 5]
    return gappy


@pytest.mark.parametrize("kind", ["StandardScaler", "RobustScaler"])
def test_gaps_are_passed_by_as_scikit_learn_does(kind, tmp_path):
    gappy = with_gaps()
    path = str(tmp_path / "x.zarr")
    zarr.create_array(path, data=gappy, chunks=(170, 6))
    theirs = getattr(preprocessing, kind)().fit(gappy)
    for rows in (gappy, path):
        mine = getattr(streamgmm, kind)(missing="marginalize", block_size=40_000).fit(rows)
        names = SCALED if kind == "StandardScaler" else CENTRED
        same(mine, theirs, names, rtol=1e-11)
        np.testing.assert_allclose(mine.transform(gappy), theirs.transform(gappy), atol=1e-9)
    back = mine.inverse_transform(mine.transform(gappy))
    np.testing.assert_allclose(back, gappy, rtol=1e-12)
    with pytest.raises(NonFiniteError, match="infinite"):
        mine.fit(np.where(np.isnan(gappy), np.inf, gappy))
    with pytest.raises(DataError, match="column 1 has no value"):
        mine.fit(np.where(np.arange(6) == 1, np.nan, gappy))


def test_partial_fit_with_gaps():
    gappy = with_gaps()
    mine, theirs = StandardScaler(missing="marginalize"), preprocessing.StandardScaler()
    for a in range(0, 3000, 1000):
        mine.partial_fit(gappy[a : a + 1000])
        theirs.partial_fit(gappy[a : a + 1000])
    same(mine, theirs, SCALED, rtol=1e-12)


def test_a_mixture_marginalizes_what_a_scaler_has_left(tmp_path):
    gappy = with_gaps()
    path = str(tmp_path / "x.zarr")
    zarr.create_array(path, data=gappy, chunks=(170, 6))
    scaled = preprocessing.StandardScaler().fit_transform(gappy)
    plain = GaussianMixture(missing="marginalize").fit(scaled)
    pipe = make_pipeline(
        StandardScaler(missing="marginalize"), GaussianMixture(missing="marginalize")
    ).fit(path)
    np.testing.assert_allclose(pipe[1].means_, plain.means_, atol=1e-6)
    np.testing.assert_allclose(pipe[1].covariances_, plain.covariances_, atol=1e-6)
    there = np.asarray(pipe.score_samples(path))
    np.testing.assert_allclose(there, plain.score_samples(scaled), atol=1e-4)


def test_sketches_pass_gaps_by_too(tmp_path):
    rows, _ = many_rows(tmp_path)
    rows[::7, 0] = np.nan
    path = str(tmp_path / "gappy.zarr")
    zarr.create_array(path, data=rows, chunks=(20_000, 6))
    mine = RobustScaler(missing="marginalize").fit(path)
    theirs = preprocessing.RobustScaler().fit(rows)
    np.testing.assert_allclose(mine.center_, theirs.center_, atol=1e-3)
    np.testing.assert_allclose(mine.scale_, theirs.scale_, rtol=2e-3)


@pytest.mark.parametrize("kind", [StandardScaler, RobustScaler, PCA])
def test_names_and_their_order(kind):
    frame = pd.DataFrame(X, columns=list("abcdef"))
    mine = kind().fit(frame)
    assert list(mine.feature_names_in_) == list("abcdef")
    if kind is not PCA:
        assert list(mine.get_feature_names_out()) == list("abcdef")
    other = streamgmm.rows(frame[list("fedcba")])  # reordered where it is opened
    lazy = mine.transform(other)
    assert isinstance(lazy, Source)
    (block,) = lazy.blocks(1 << 30)
    found = np.concatenate([piece.rows for piece in block.pieces()])
    np.testing.assert_allclose(found, mine.transform(frame), atol=1e-9)
    framed = kind().set_output(transform="pandas").fit_transform(frame)
    assert list(framed.columns) == list(mine.get_feature_names_out())


@pytest.mark.parametrize("kind", [StandardScaler, RobustScaler, PCA])
def test_lazy_there_and_back(kind, stored):
    mine = kind().fit(stored)
    back = mine.inverse_transform(mine.transform(stored))
    rows = np.concatenate([p.rows for b in back.blocks(1 << 20) for p in b.pieces()])
    np.testing.assert_allclose(rows, X, rtol=1e-9, atol=1e-8)


OTHERS = [
    (decomposition.PCA(2), "sklearn's PCA needs all rows.*use streamgmm.PCA in its place"),
    (QuantileTransformer(), "sklearn's QuantileTransformer needs all.*streamgmm.RobustScaler"),
    (FunctionTransformer(np.log1p), "sklearn's FunctionTransformer needs all rows"),
]


@pytest.mark.parametrize(("step", "said"), OTHERS)
def test_a_step_that_needs_all_rows_in_memory_is_named(step, said, stored):
    pipe = make_pipeline(StandardScaler(), step, GaussianMixture())
    with pytest.raises(DataTypeError, match=said):
        pipe.fit(stored)
    with pytest.raises(DataTypeError, match=said):
        make_pipeline(step, GaussianMixture()).fit(streamgmm.rows(stored))


def test_bad_input(stored):
    with pytest.raises(ParameterError, match="n_components=7 must be between 0 and"):
        PCA(7).fit(stored)
    with pytest.raises(ParameterError, match="Invalid quantile range"):
        RobustScaler(quantile_range=(80, 20)).fit(X)
    with pytest.raises(DataError, match="n_samples=1"):
        PCA().fit(X[:1])
    with pytest.raises(DataError, match="has 6 features, but StandardScaler is expecting 2"):
        StandardScaler().fit(X[:, :2]).transform(stored)
    with pytest.raises(DataError, match="inverse_transform of PCA is expecting 2"):
        PCA(2).fit(X).inverse_transform(X)
    with pytest.raises(DataError, match="zero for every row"):
        StandardScaler().fit(X, sample_weight=np.zeros(len(X)))
    with pytest.raises(DataError, match="open already"):
        GaussianMixture().fit(streamgmm.rows(stored), sample_weight=np.ones(len(X)))
    for kind in (StandardScaler, RobustScaler, PCA):
        with pytest.raises(NotFittedError):
            kind().transform(stored)
