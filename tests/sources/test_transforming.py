"""Rows that are transformed as they are read: the contract, and what every estimator does."""

import pickle

import dask.array as da
import numpy as np
import pytest
import zarr
from sklearn.pipeline import make_pipeline

import streamgmm
from streamgmm import PCA, GaussianMixture, KMeans, OnlineGaussianMixture, StandardScaler, select
from streamgmm.errors import CheckpointError, DataTypeError, NonFiniteError
from streamgmm.model.affine import Affine
from streamgmm.sources import identity_of, open_source, transformed, underlying
from streamgmm.testing import SourceTests

RNG = np.random.default_rng(0)
MATRIX = RNG.normal(size=(3, 2))
BY = Affine(np.array([1.0, 2.0, 3.0]), None, MATRIX, np.zeros(2))


def rows(n=4000):
    X = np.random.default_rng(1).normal(size=(n, 3))
    X[: n // 2] += 6
    return X


@pytest.fixture
def stored(tmp_path):
    path = str(tmp_path / "x.zarr")
    zarr.create_array(path, data=rows(), chunks=(300, 3))
    return path


def test_blocks_are_those_beneath_and_pieces_keep_their_place(stored):
    source = open_source(stored)
    found = transformed(source, BY)
    blocks, beneath = found.blocks(8_000), source.blocks(12_000)
    assert [(b.start, b.n_rows) for b in blocks] == [(b.start, b.n_rows) for b in beneath]
    for block in pickle.loads(pickle.dumps(blocks)):
        for piece in block.pieces():
            assert piece.rows.shape[1] == 2
            np.testing.assert_allclose(piece.rows, BY.apply(rows()[piece.place()]))


def test_transforms_of_transformed_rows_are_one(stored):
    once = transformed(open_source(stored), Affine.columns(np.zeros(3), np.full(3, 2.0)))
    twice = transformed(once, BY)
    assert twice.source is once.source
    assert underlying(twice) is once.source
    (piece,) = [p for b in twice.blocks(1 << 20) for p in b.pieces()][:1]
    np.testing.assert_allclose(piece.rows, BY.apply(rows()[piece.place()] / 2.0))


def test_float32_stays(tmp_path):
    X = rows().astype(np.float32)
    path = str(tmp_path / "x.zarr")
    zarr.create_array(path, data=X, chunks=(300, 3))
    found = StandardScaler().fit(path).transform(path)
    assert found.dtype == np.float32
    pieces = [piece.rows for block in found.blocks(1 << 20) for piece in block.pieces()]
    assert all(piece.dtype == np.float32 for piece in pieces)
    here = StandardScaler().fit(X).transform(X)
    assert here.dtype == np.float32
    np.testing.assert_allclose(np.concatenate(pieces), here, atol=1e-6)


def test_a_gap_is_named_as_it_is_stored(tmp_path):
    X = rows()
    X[1234, 2] = np.nan
    path = str(tmp_path / "x.zarr")
    zarr.create_array(path, data=X, chunks=(300, 3))
    found = transformed(open_source(path), BY)
    with pytest.raises(NonFiniteError, match=r"1 non-finite value .* row 1234, column 2"):
        GaussianMixture(2, random_state=0).fit(found)


def test_it_is_no_array(stored):
    found = transformed(open_source(stored), BY)
    with pytest.raises(DataTypeError, match="read block by block and is no array in memory"):
        np.asarray(found)


KINDS = ["numpy", "zarr", "cube", "dask", "masked", "weighted"]


def open_kind(kind, tmp_path):
    X = rows()
    cube = X.reshape(40, 100, 3)
    path = str(tmp_path / "x.zarr")
    if kind == "numpy":
        return streamgmm.rows(X)
    if kind == "zarr":
        zarr.create_array(path, data=X, chunks=(300, 3))
        return streamgmm.rows(path)
    if kind == "dask":
        return da.from_array(X, chunks=(900, 3))
    zarr.create_array(path, data=cube, chunks=(7, 100, 3))
    if kind == "cube":
        return streamgmm.rows(path)
    if kind == "masked":
        mask = np.zeros((40, 100), bool)
        mask[3, 50:] = True
        return streamgmm.rows(path, mask=mask)
    weight = np.ones((40, 100))
    weight[5:] = 2.0
    return streamgmm.rows(path, sample_weight=weight)


def make(final):
    return make_pipeline(StandardScaler(), PCA(2), final)


@pytest.mark.parametrize("kind", KINDS)
def test_every_estimator_takes_them(kind, tmp_path):
    X = rows()
    source = open_kind(kind, tmp_path)
    shape = getattr(source, "sample_shape", (4000,))
    pipe = make(GaussianMixture(2, random_state=0)).fit(source)
    weight = None
    if kind == "masked":
        kept = np.ones((40, 100), bool)
        kept[3, 50:] = False
        X = X[kept.ravel()]
    if kind == "weighted":
        weight = np.repeat([1.0, 2.0], [500, 3500])
    scaler = StandardScaler().fit(X, sample_weight=weight)
    np.testing.assert_allclose(pipe[0].mean_, scaler.mean_)
    np.testing.assert_allclose(pipe[0].scale_, scaler.scale_)
    spread = np.cov(scaler.transform(X).T, fweights=None if weight is None else weight.astype(int))
    np.testing.assert_allclose(pipe[1].explained_variance_, np.linalg.eigvalsh(spread)[:0:-1])

    labels = np.asarray(pipe.predict(source))
    assert labels.shape == shape
    written = pipe.predict(source, out=str(tmp_path / "labels.zarr"))
    assert np.array_equal(written[...], labels)
    assert np.asarray(pipe.score_samples(source)).shape == shape
    here = pipe.predict(rows()).reshape(shape)
    assert np.array_equal(labels[labels >= 0], here[labels >= 0])
    assert (labels < 0).sum() == 50 * (kind == "masked")

    lazy = pipe[:-1].transform(source)
    assert lazy.n_features == 2
    assert select(lazy, range(1, 3), "full", random_state=0).best.n_components == 2
    assert pipe[-1].plan(lazy, workers=2, worker_memory="1GiB").n_rows == 4000
    learned = OnlineGaussianMixture(2, random_state=0).partial_fit(lazy)
    assert learned.n_samples_seen_ == 4000 - 50 * (kind == "masked")
    clusters = make(KMeans(2, random_state=0)).fit(source)
    assert np.asarray(clusters.predict(source)).shape == shape


def test_gaps_are_left_out_from_the_first_step_on(tmp_path):
    X = rows()
    X[7, 1] = np.nan
    path = str(tmp_path / "x.zarr")
    zarr.create_array(path, data=X, chunks=(300, 3))
    pipe = make_pipeline(
        StandardScaler(missing="omit"), PCA(2), GaussianMixture(2, random_state=0)
    ).fit(path)
    assert pipe[0].n_samples_seen_ == pipe[1].n_samples_ == 3999
    labels = np.asarray(pipe.predict(path))
    assert np.flatnonzero(labels < 0).tolist() == [7]


def test_a_scaler_and_a_projection_share_one_read(stored, monkeypatch):
    from streamgmm.sources.zarr_ref import ZarrRef

    read = []
    box = ZarrRef.read
    monkeypatch.setattr(
        ZarrRef, "read", lambda self, a, b, *more: read.append(b - a) or box(self, a, b, *more)
    )
    make_pipeline(StandardScaler(), PCA(2)).fit(stored)
    assert sum(read) == 4000


def test_a_checkpoint_is_of_the_transform_too(stored, tmp_path):
    place = str(tmp_path / "run.zarr")
    settings = {"random_state": 0, "checkpoint": place}
    one = transformed(open_source(stored), BY)
    GaussianMixture(2, **settings).fit(one)
    GaussianMixture(2, **settings).fit(one)  # it is finished
    other = transformed(open_source(stored), Affine(BY.centre + 1e-3, None, MATRIX, np.zeros(2)))
    with pytest.raises(CheckpointError, match="what the rows are transformed by differs"):
        GaussianMixture(2, **settings).fit(other)


def test_rows_that_have_grown_are_the_same_only_by_the_same_transform(stored):
    assert identity_of(transformed(open_source(stored), BY)) != identity_of(open_source(stored))


def test_on_a_cluster_the_bits_are_the_same(client, stored):
    here = make(GaussianMixture(2, random_state=0, block_size=6000, n_jobs=1))
    here.set_params(standardscaler__block_size=9000, standardscaler__n_jobs=1)
    there = make(GaussianMixture(2, random_state=0, block_size=6000))
    there.set_params(standardscaler__block_size=9000)
    here, there = here.fit(stored), there.fit(stored)
    assert np.array_equal(here[1].components_, there[1].components_)
    assert np.array_equal(here[2].means_, there[2].means_)
    assert np.array_equal(np.asarray(here.predict(stored)), np.asarray(there.predict(stored)))


class TestContract(SourceTests):
    def source(self, rows, sample_weight, tmp_path):
        zarr.create_array(str(tmp_path / "x.zarr"), data=2 * rows, chunks=(100, rows.shape[1]))
        stored = open_source(str(tmp_path / "x.zarr"), sample_weight=sample_weight)
        halves = Affine.columns(None, np.full(rows.shape[1], 2.0))  # exactly
        return transformed(stored, halves)
