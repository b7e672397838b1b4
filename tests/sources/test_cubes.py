"""Cubes: any number of sample dimensions, any axis of features, any chunks."""

import pickle

import dask.array as da
import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore, MemoryStore, WrapperStore

import streamgmm
from streamgmm import GaussianMixture, select
from streamgmm.errors import DataError, NonFiniteError, ParameterError
from streamgmm.sources import PIECE_BYTES, open_source
from streamgmm.sources.grid import Grid, common_edges, make_grid, regular_edges
from streamgmm.testing import SourceTests

SHAPE = (4, 6, 7, 3)  # time, y, x, band


def cube(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).normal(size=shape) + np.arange(shape[-1])


def read(source, target=300):
    """All rows of a source in C order of the samples, from pickled blocks."""
    rows = np.full((source.n_samples, source.n_features), np.nan)
    for block in pickle.loads(pickle.dumps(source.blocks(target))):
        for piece in block.pieces():
            rows[piece.numbers()] = piece.rows
    return rows


def stored(path, values, chunks, **more):
    return zarr.create_array(str(path), data=values, chunks=chunks, overwrite=True, **more)


class TestCubeInMemory(SourceTests):
    """One sample dimension of length one, so that rows have the order of the suite's."""

    says = r"sample \[{row}, 0\]"

    def source(self, rows, sample_weight, tmp_path):
        weight = None if sample_weight is None else sample_weight[:, None]
        return streamgmm.rows(rows[:, None], sample_weight=weight)


class TestFeaturesFirst(SourceTests):
    def source(self, rows, sample_weight, tmp_path):
        stored(tmp_path / "x.zarr", rows.T.copy(), (1, 50))
        return streamgmm.rows(
            str(tmp_path / "x.zarr"), feature_axis=0, sample_weight=sample_weight
        )


def in_row_order(rows, chunks, make):
    """A cube whose rows, in the order of its regions, are those of the suite."""
    n = len(rows)
    shape = (n, 1) if n % 7 else (n // 7, 7)
    grid = streamgmm.rows(make(np.zeros((*shape, rows.shape[1])), chunks))
    order = np.concatenate([p.numbers() for b in grid.blocks(1 << 40) for p in b.pieces()])
    values = np.empty_like(rows)
    values[order] = rows
    return make(values.reshape(*shape, -1), chunks), shape, order


class TestChunksInTwoDimensionsAndFeatures(SourceTests):
    """Rows come region by region."""

    says = r"sample \[\d+, \d+\]"

    def source(self, rows, sample_weight, tmp_path):
        def make(values, chunks):
            return stored(tmp_path / "x.zarr", values, chunks)

        array, shape, order = in_row_order(rows, (40, 3, 2), make)
        if sample_weight is not None:
            weight = np.empty(len(rows))
            weight[order] = sample_weight
            sample_weight = weight.reshape(shape)
        return streamgmm.rows(array, sample_weight=sample_weight)


class TestDaskCube(SourceTests):
    says = r"sample \[\d+, \d+\]"

    def source(self, rows, sample_weight, tmp_path):
        def make(values, chunks):
            return da.from_array(values, chunks=chunks)

        array, shape, order = in_row_order(rows, (40, 3, 2), make)
        if sample_weight is not None:
            weight = np.empty(len(rows))
            weight[order] = sample_weight
            sample_weight = da.from_array(weight.reshape(shape), chunks=3)
        return streamgmm.rows(array, sample_weight=sample_weight)


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -4])
@pytest.mark.parametrize("chunks", [(1, 6, 7, 3), (3, 4, 2, 2), (4, 6, 7, 1), (2, 5, 3, 3)])
def test_every_layout_gives_the_same_samples(tmp_path, axis, chunks):
    values = cube()
    moved = np.moveaxis(values, -1, axis)
    sizes = tuple(np.moveaxis(np.empty(chunks), -1, axis).shape)
    kinds = [
        moved,
        np.asfortranarray(moved),
        stored(tmp_path / "x.zarr", moved, sizes),
        zarr.create_array(MemoryStore(), data=moved, chunks=sizes),
        da.from_array(moved, chunks=sizes),
    ]
    for data in kinds:
        source = streamgmm.rows(data, feature_axis=axis)
        assert (source.n_samples, source.n_features) == (4 * 6 * 7, 3)
        assert np.array_equal(read(source), values.reshape(-1, 3))


def test_irregular_chunks_of_dask_and_shards(tmp_path):
    values = cube()
    lazy = da.from_array(values, chunks=((1, 3), (2, 1, 3), (6, 1), (1, 2)))
    assert np.array_equal(read(streamgmm.rows(lazy)), values.reshape(-1, 3))
    sharded = stored(tmp_path / "x.zarr", values, (1, 3, 7, 3), shards=(2, 6, 7, 3))
    assert np.array_equal(read(streamgmm.rows(sharded)), values.reshape(-1, 3))


def test_some_features_in_another_order(tmp_path):
    values = cube()
    array = stored(tmp_path / "x.zarr", values, (2, 6, 7, 1))
    for data in (values, array, da.from_array(values, chunks=(2, 6, 7, 2))):
        assert np.array_equal(
            read(streamgmm.rows(data, features=[2, 0])), values[..., [2, 0]].reshape(-1, 2)
        )


class Counting(WrapperStore):
    """A store that counts the chunks that are read."""

    def __init__(self, store):
        super().__init__(store)
        self.read = []

    async def get(self, key, prototype, byte_range=None):
        if not key.endswith("zarr.json"):
            self.read.append(key)
        return await super().get(key, prototype, byte_range)


@pytest.mark.parametrize("chunks", [(1, 6, 7, 3), (3, 4, 2, 2), (4, 6, 7, 1)])
def test_a_pass_reads_each_chunk_once(tmp_path, chunks):
    stored(tmp_path / "x.zarr", cube(), chunks)
    store = Counting(LocalStore(tmp_path / "x.zarr", read_only=True))
    source = streamgmm.rows(zarr.open_array(store, mode="r"))
    store.read.clear()
    for block in source.blocks(200):
        list(block.pieces())
    n_chunks = np.prod([-(-n // c) for n, c in zip(SHAPE, chunks, strict=True)])
    assert len(store.read) == len(set(store.read)) == n_chunks


def test_features_that_are_not_wanted_are_not_read(tmp_path):
    stored(tmp_path / "x.zarr", cube(), (4, 6, 7, 1))
    store = Counting(LocalStore(tmp_path / "x.zarr", read_only=True))
    source = streamgmm.rows(zarr.open_array(store, mode="r"), features=[1])
    store.read.clear()
    assert sum(len(p.rows) for b in source.blocks(300) for p in b.pieces()) == 168
    assert store.read == ["c/0/0/0/1"]


def test_pieces_are_bounded_whatever_the_chunks_are():
    values = np.zeros((3, 700, 900, 2))
    small = zarr.create_array(MemoryStore(), shape=values.shape, chunks=(1, 50, 60, 2), dtype="f8")
    for data in (values, small):
        source = streamgmm.rows(data)
        for block in source.blocks(1 << 30):
            assert max(piece.rows.nbytes for piece in block.pieces()) <= 2 * PIECE_BYTES


def test_what_is_appended_along_the_first_dimension_comes_last():
    short, long = cube((4, 6, 7, 3)), cube((8, 6, 7, 3))
    long[:4] = short
    one, two = (
        streamgmm.rows(zarr.create_array(MemoryStore(), data=each, chunks=(2, 3, 4, 3)))
        for each in (short, long)
    )
    n = one.n_samples

    def rows(blocks):
        return [(p.start, p.rows.tobytes()) for b in blocks for p in b.pieces()]

    assert rows(one.blocks(500)) == rows(two.blocks(500, 0, n))


def test_a_fit_is_that_of_the_matrix(tmp_path):
    values = cube((12, 20, 15, 3))
    values[:6] += 5
    table = values.reshape(-1, 3)
    array = stored(tmp_path / "x.zarr", np.moveaxis(values, -1, 0).copy(), (2, 5, 20, 4))
    settings = {"n_components": 2, "random_state": 0}
    model = GaussianMixture(**settings).fit(table)
    given = [
        streamgmm.rows(values),
        streamgmm.rows(array, feature_axis=0),
        streamgmm.rows(da.from_array(values, chunks=(5, 7, 15, 2))),
    ]
    for source in given:
        again = GaussianMixture(**settings).fit(source)
        assert np.allclose(again.means_, model.means_, rtol=1e-9)
        assert again.n_iter_ == model.n_iter_
        labels = again.predict(source)
        assert labels.shape == (12, 20, 15)
        assert np.array_equal(np.asarray(labels).ravel(), model.predict(table))
        proba = np.asarray(again.predict_proba(source))
        assert proba.shape == (12, 20, 15, 2)
        assert np.allclose(proba.reshape(-1, 2), model.predict_proba(table))
        density = np.asarray(again.score_samples(source))
        assert np.allclose(density.ravel(), model.score_samples(table))
        assert again.score(source) == pytest.approx(model.score(table), rel=1e-12)
        assert again.bic(source) == pytest.approx(model.bic(table))


def test_samples_for_starts_do_not_depend_on_chunks():
    from streamgmm.fitting.fit import FitSettings
    from streamgmm.fitting.sample import plan_sample, summarize
    from streamgmm.model.families.gaussian import Gaussian

    values = cube((10, 20, 30, 2))
    keys = []
    for chunks in ((10, 20, 30, 2), (3, 7, 11, 1), (1, 20, 30, 2)):
        source = streamgmm.rows(zarr.create_array(MemoryStore(), data=values, chunks=chunks))
        settings = FitSettings(2, Gaussian("full", 1e-6))
        plan = plan_sample(source, settings, whole=False, seed=3)
        assert plan.size < source.n_samples
        blocks = source.blocks(9000)
        summary = summarize(plan, blocks[0])
        for block in blocks[1:]:
            summary = summary.merge(summarize(plan, block))
        rows, _ = summary.first(200)
        keys.append(rows)
    assert np.array_equal(keys[0], keys[1])
    assert np.array_equal(keys[0], keys[2])


@pytest.mark.parametrize("what", ["predict", "predict_proba", "score_samples"])
def test_outputs_have_the_samples_shape_and_chunks(tmp_path, what):
    values = cube((6, 40, 50, 3))
    model = GaussianMixture(2, random_state=0, max_iter=3, tol=10).fit(values.reshape(-1, 3))
    expected = getattr(model, what)(values.reshape(-1, 3))
    tail = expected.shape[1:]
    expected = expected.reshape(6, 40, 50, *tail)
    array = stored(tmp_path / "x.zarr", values, (4, 25, 50, 3))
    lazy = da.from_array(values, chunks=((1, 3, 2), (15, 25), (50,), (2, 1)))
    for i, source in enumerate(map(streamgmm.rows, (array, lazy, values))):
        out = getattr(model, what)(source, out=str(tmp_path / f"{i}.zarr"))
        assert out.shape == (6, 40, 50, *tail)
        assert out.chunks == (*source.grid.largest, *tail)
        assert np.allclose(out[:], expected)
    result = getattr(model, what)(streamgmm.rows(lazy))
    assert result.chunks[:3] == lazy.chunks[:3]
    assert np.allclose(result.compute(), expected)
    assert np.allclose(getattr(model, what)(streamgmm.rows(array)).compute(), expected)


def test_a_cube_that_has_grown_is_read_whole_again(tmp_path):
    values = cube((16, 30, 40, 2))
    values[8:] += 4
    settings = {"n_components": 2, "random_state": 0, "block_size": 9600}
    settings |= {"algorithm": "incremental", "warm_start": True}
    array = stored(tmp_path / "x.zarr", values[:7], (2, 30, 40, 2))
    model = GaussianMixture(**settings).fit(streamgmm.rows(array))
    array.resize(values.shape)
    array[:] = values
    model.fit(streamgmm.rows(array))
    again = GaussianMixture(**settings).fit(streamgmm.rows(values))
    assert model.score(streamgmm.rows(values)) == pytest.approx(again.score(values.reshape(-1, 2)))


@pytest.mark.parametrize("variables", [False, True])
def test_a_cube_that_has_grown_by_whole_regions_costs_its_new_rows(
    variables, tmp_path, monkeypatch
):
    monkeypatch.setattr("streamgmm.sources.grid.REGION_BYTES", 1024)
    values = cube((16, 30, 40, 2))
    values[8:] += 4
    settings = {"n_components": 2, "random_state": 0, "block_size": 9600, "tol": 1e-6}
    settings |= {"algorithm": "incremental", "warm_start": True}

    def data(n):
        if not variables:
            return streamgmm.rows(stored(tmp_path / "x.zarr", values[:n], (2, 15, 10, 2)))
        group = zarr.open_group(str(tmp_path / "g.zarr"), mode="w")
        for j, name in enumerate("ab"):
            group.create_array(name, data=values[:n, ..., j], chunks=(2, 15, 10),
                               dimension_names=("t", "y", "x"))  # fmt: skip
        return streamgmm.rows(tmp_path / "g.zarr", features=["a", "b"])

    model = GaussianMixture(**settings).fit(data(14))
    model.save(tmp_path / "model.zarr")
    for again in (model, streamgmm.load(tmp_path / "model.zarr")):
        again.fit(data(16))
        assert again.history_["passes"][0] == pytest.approx(0.25)  # the new eighth, twice
    anew = GaussianMixture(**settings).fit(values.reshape(-1, 2))
    assert model.score(data(16)) == pytest.approx(anew.score(values.reshape(-1, 2)), abs=1e-4)
    masked = GaussianMixture(**settings).fit(streamgmm.rows(values[:14]))
    masked.fit(streamgmm.rows(values[:, :, :39]))  # another length of another dimension
    assert masked.history_["passes"][0] > 0.5


def test_select_and_plan_take_cubes(tmp_path):
    values = cube((6, 20, 10, 2))
    values[3:] += 9
    array = stored(tmp_path / "x.zarr", values, (2, 20, 10, 2))
    selection = select(streamgmm.rows(array), range(1, 4), "full", random_state=0)
    assert selection.best.n_components == 2
    plan = GaussianMixture(2).plan(streamgmm.rows(array), workers=2, worker_memory="1GiB")
    assert plan.n_rows == 1200


def test_a_mask_leaves_samples_out(tmp_path):
    values = cube((12, 20, 15, 3))
    values[:6] += 5
    land = np.zeros((12, 20, 15), bool)
    land[:, :3] = True
    land[2] = True
    values[land] = np.nan
    settings = {"n_components": 2, "random_state": 0}
    model = GaussianMixture(**settings).fit(values[~land])
    array = stored(tmp_path / "x.zarr", values, (1, 20, 15, 3))
    stored(tmp_path / "land.zarr", land, (5, 20, 15))
    given = [
        streamgmm.rows(values, mask=land),
        streamgmm.rows(array, mask=str(tmp_path / "land.zarr")),
        streamgmm.rows(array, mask=land.astype(float)),
        streamgmm.rows(da.from_array(values, chunks=(3, 7, 15, 3)), mask=land),
        streamgmm.rows(np.ma.masked_array(values, np.isnan(values))),
    ]
    for i, source in enumerate(given):
        again = GaussianMixture(**settings).fit(source)
        assert np.allclose(again.means_, model.means_, rtol=1e-9)
        labels = np.asarray(again.predict(source))
        assert (labels[land] == -1).all()
        assert np.array_equal(labels[~land], model.predict(values[~land]))
        density = again.score_samples(source, out=str(tmp_path / f"{i}.zarr"))[:]
        assert np.isnan(density[land]).all()
        assert np.allclose(density[~land], model.score_samples(values[~land]))
        assert again.bic(source) == pytest.approx(model.bic(values[~land]))


def test_a_mask_for_rows_of_a_table(tmp_path):
    rows = np.random.default_rng(0).normal(size=(500, 2))
    mask = np.arange(500) % 3 == 0
    stored(tmp_path / "x.zarr", rows, (60, 2))
    for data in (rows, str(tmp_path / "x.zarr")):
        source = streamgmm.rows(data, mask=mask)
        model = GaussianMixture(1).fit(source)
        assert np.allclose(model.means_, rows[~mask].mean(0))
        assert np.array_equal(np.asarray(model.predict(source)) == -1, mask)


def test_weights_of_a_latitude_grid(tmp_path):
    values = cube((5, 18, 36, 2))
    weight = np.broadcast_to(np.cos(np.deg2rad(np.linspace(-85, 85, 18)))[:, None], (5, 18, 36))
    array = stored(tmp_path / "x.zarr", values, (2, 9, 36, 2))
    stored(tmp_path / "w.zarr", weight, (1, 18, 36))
    mean = np.average(values.reshape(-1, 2), axis=0, weights=weight.ravel())
    for given in (weight, str(tmp_path / "w.zarr"), da.from_array(weight, chunks=4)):
        model = GaussianMixture(1).fit(streamgmm.rows(array, sample_weight=given))
        assert np.allclose(model.means_[0], mean)


def test_a_value_that_is_not_finite_is_named_by_its_sample(tmp_path):
    values = cube()
    values[2, 4, 5, 1] = np.nan
    array = stored(tmp_path / "x.zarr", values, (3, 4, 2, 2))
    for data in (array, da.from_array(values, chunks=3)):
        with pytest.raises(NonFiniteError, match=r"sample \[2, 4, 5\], column 1"):
            GaussianMixture(2).fit(streamgmm.rows(data))


def test_a_damaged_chunk_is_named(tmp_path):
    stored(tmp_path / "x.zarr", cube(), (3, 4, 7, 3))
    (tmp_path / "x.zarr" / "c" / "1" / "0" / "0" / "0").write_bytes(b"")
    with pytest.raises(OSError, match=r"chunk 'c/1/0/0/0' \(\[3:4, 0:4, 0:7, 0:3\]\)"):
        GaussianMixture(2).fit(streamgmm.rows(str(tmp_path / "x.zarr")))


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"feature_axis": 4}, ParameterError, r"feature_axis=4 is out of range.*-4 to 3"),
        ({"feature_axis": -5}, ParameterError, "out of range"),
        ({"feature_axis": "band"}, ParameterError, "feature_axis='band'"),
        ({"features": [3]}, ParameterError, "3 features without names"),
        ({"features": ["temp"]}, ParameterError, "3 features without names"),
        ({"mask": np.zeros((4, 6))}, DataError, r"mask has shape \(4, 6\).*\(4, 6, 7\)"),
        ({"sample_weight": np.ones((4, 6, 6))}, DataError, r"sample_weight has shape \(4, 6, 6\)"),
        ({"mask": np.full((4, 6, 7), "x")}, DataError, "mask has dtype <U1"),
    ],
)
def test_bad_input(given, error, said):
    with pytest.raises(error, match=said):
        streamgmm.rows(cube(), **given)


def test_more_bad_input():
    with pytest.raises(DataError, match="axis 1 has length zero"):
        streamgmm.rows(np.zeros((4, 0, 3)))
    with pytest.raises(DataError, match="rows need an axis of samples"):
        streamgmm.rows(np.zeros(4), features=[0])
    with pytest.raises(DataError, match="not a number"):
        streamgmm.rows(np.full((4, 2, 3), "2020-01-01", "M8[D]"))
    with pytest.raises(ParameterError, match="open already"):
        streamgmm.rows(open_source(np.ones((4, 2))), mask=np.zeros(4))
    with pytest.raises(DataError, match="nothing to fit"):
        GaussianMixture(1).fit(streamgmm.rows(cube(), mask=np.ones(SHAPE[:3])))
    with pytest.raises(DataError, match=r"Expected 2D array.*streamgmm.rows\(array"):
        GaussianMixture(1).fit(da.from_array(cube(), chunks=2))
    with pytest.raises(DataError, match="weights must be finite"):
        GaussianMixture(1).fit(streamgmm.rows(cube(), sample_weight=np.full(SHAPE[:3], -1.0)))


def test_chunks_that_are_not_what_the_graph_says_are_refused():
    lazy = da.ones((4, 4, 2), chunks=2).map_blocks(lambda x: x[:1], chunks=(2, 2, 2))
    with pytest.raises(DataError, match=r"has shape \(1, 2, 2\), but the array says \(2, 2, 2\)"):
        GaussianMixture(1).fit(streamgmm.rows(lazy))


def test_a_plain_table_needs_no_regions():
    assert type(streamgmm.rows(np.ones((5, 2)))) is type(open_source(np.ones((5, 2))))


def test_grids():
    assert common_edges([regular_edges(10, 2), regular_edges(10, 3)]) == (0, 6, 10)
    huge = [[regular_edges(10**6, 999)], [regular_edges(10**6, 1000)]]
    assert make_grid((10**6,), huge, 800).largest == (1000,)  # and not 999,000
    assert Grid(((0, 3, 5, 9),)).regular is False
    assert make_grid((10**8,), [[None]], 8).largest == (1 << 17,)
