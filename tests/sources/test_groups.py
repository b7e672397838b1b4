"""Groups of Zarr arrays, and xarray's datasets: variables by name, put together by dimensions."""

import dask.array as da
import numpy as np
import pytest
import zarr

import streamgmm
from streamgmm import GaussianMixture, KMeans
from streamgmm.errors import DataError, ParameterError, SourceError
from streamgmm.sources import KeptBlock
from streamgmm.testing import SourceTests

from .test_cubes import Counting, read

xr = pytest.importorskip("xarray")

DIMS = ("time", "y", "x")
SHAPE = (6, 10, 12)


@pytest.fixture
def ocean():
    rng = np.random.default_rng(0)
    temp = rng.normal(size=SHAPE).astype(np.float32)
    temp[3:] += 6
    return xr.Dataset(
        {
            "temp": (DIMS, temp),
            "salt": (("x", "time", "y"), rng.normal(size=(12, 6, 10))),
            "depth": (("y", "x"), rng.normal(size=(10, 12))),
        },
        coords={"time": np.arange(6), "y": np.linspace(-60, 60, 10), "lon": ("x", np.arange(12))},
        attrs={"source": "made"},
    )


def stacked(ocean, names=("temp", "salt", "depth")):
    """The rows, by xarray itself."""
    whole = xr.broadcast(ocean[list(names)])[0].transpose(*DIMS)
    return np.stack([whole[name].values for name in names], axis=-1).astype(np.float64)


def group_of(ocean, path, chunks=(2, 5, 12)):
    group = zarr.open_group(str(path), mode="w")
    sizes = dict(zip(DIMS, chunks, strict=True))
    for name, variable in ocean.data_vars.items():
        group.create_array(
            name,
            data=variable.values,
            chunks=tuple(sizes[dim] for dim in variable.dims),
            dimension_names=variable.dims,
        )
    return group


class TestGroup(SourceTests):
    """One variable is one array, chunked otherwise than the next."""

    def source(self, rows, sample_weight, tmp_path):
        group = zarr.open_group(str(tmp_path / "g.zarr"), mode="w")
        names = [f"v{i}" for i in range(rows.shape[1])]
        for i, name in enumerate(names):
            group.create_array(
                name, data=rows[:, i], chunks=(30 * (i + 1),), dimension_names=("row",)
            )
        return streamgmm.rows(
            str(tmp_path / "g.zarr"), features=names, sample_weight=sample_weight
        )


class TestDataset(SourceTests):
    def source(self, rows, sample_weight, tmp_path):
        data = {f"v{i}": ("row", column) for i, column in enumerate(rows.T)}
        return streamgmm.rows(xr.Dataset(data).chunk(row=70), sample_weight=sample_weight)


class TestDatasetOnDisk(SourceTests):
    """Opened without Dask, read by xarray."""

    def source(self, rows, sample_weight, tmp_path):
        data = {f"v{i}": ("row", column) for i, column in enumerate(rows.T)}
        path = str(tmp_path / "d.zarr")
        xr.Dataset(data).to_zarr(path, consolidated=False)
        stored = xr.open_zarr(path, chunks=None, consolidated=False)
        return streamgmm.rows(stored, features=list(data), sample_weight=sample_weight)


def test_variables_are_broadcast_by_the_names_of_their_dimensions(ocean, tmp_path):
    group = group_of(ocean, tmp_path / "g.zarr")
    names = ["salt", "temp", "depth"]
    given = [
        streamgmm.rows(str(tmp_path / "g.zarr"), features=names, sample_dims=DIMS),
        streamgmm.rows(group, features=names, sample_dims=DIMS),
        streamgmm.rows(ocean, features=names, sample_dims=DIMS),
        streamgmm.rows(ocean.chunk(time=4, x=5), features=names, sample_dims=DIMS),
    ]
    for source in given:
        assert source.sample_shape == SHAPE
        assert source.dtype == np.float64
        assert source.feature_names == tuple(names)
        assert np.array_equal(read(source), stacked(ocean, names).reshape(-1, 3))


def test_levels_of_a_profile_are_features(ocean, tmp_path):
    group = group_of(ocean, tmp_path / "g.zarr")
    given = [
        streamgmm.rows(group, features=["temp", "salt"], sample_dims=["y", "x"]),
        streamgmm.rows(ocean, features=["temp", "salt"], sample_dims=["y", "x"]),
    ]
    table = stacked(ocean, ("temp", "salt")).transpose(1, 2, 3, 0).reshape(120, 12)
    for source in given:
        assert source.feature_names == (
            *(f"temp_{i}" for i in range(6)), *(f"salt_{i}" for i in range(6)),
        )  # fmt: skip
        assert np.array_equal(read(source), table)


def test_scale_offset_and_fill_values_are_those_of_xarray(ocean, tmp_path):
    ocean["temp"][0, :, 3] = np.nan
    ocean["salt"][2] = np.nan
    packed = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 2.0, "_FillValue": -9999}
    filled = {"_FillValue": -1e20}
    path = str(tmp_path / "d.zarr")
    for version in (2, 3):
        ocean.to_zarr(
            path, mode="w", consolidated=False, zarr_format=version,
            encoding={"temp": packed, "salt": filled},
        )  # fmt: skip
        decoded = xr.open_zarr(path, consolidated=False).load()
        names = ["temp", "salt", "depth"]
        source = streamgmm.rows(path, features=names, sample_dims=DIMS)
        expected = stacked(decoded, names).reshape(-1, 3)
        assert np.isnan(expected).any()
        assert np.allclose(read(source), expected, rtol=1e-6, equal_nan=True)
        model = GaussianMixture(2, missing="omit", random_state=0).fit(source)
        assert model.n_missing_ == np.isnan(expected).any(axis=1).sum()


def test_xarray_in_xarray_out(ocean, tmp_path):
    model = GaussianMixture(2, random_state=0).fit(ocean)
    assert list(model.feature_names_in_) == ["temp", "salt", "depth"]
    labels = model.predict(ocean)
    assert labels.dims == DIMS
    assert labels.name == "labels"
    assert set(labels.coords) == {"time", "y", "lon"}
    assert isinstance(labels.data, np.ndarray)
    lazy = model.predict(ocean.chunk(time=2))
    assert isinstance(lazy.data, da.Array)
    assert lazy.chunks[0] == (2, 2, 2)
    xr.testing.assert_equal(lazy.compute(), labels)
    proba = model.predict_proba(ocean)
    assert proba.dims == (*DIMS, "component")
    density = model.score_samples(ocean.chunk(y=5))
    assert density.attrs["units"] == "nats"
    density.to_dataset().to_zarr(str(tmp_path / "density.zarr"), consolidated=False)
    again = xr.open_zarr(str(tmp_path / "density.zarr"), consolidated=False)
    assert np.allclose(again.log_density, model.score_samples(ocean))
    out = model.predict(ocean, out=str(tmp_path / "labels.zarr"))
    assert out.metadata.dimension_names == DIMS
    assert np.array_equal(out[:], labels.values)


def test_centres_of_xarray(ocean):
    model = KMeans(2, random_state=0).fit(ocean)
    assert model.labels_.shape == SHAPE
    for labels in (model.predict(ocean), model.fit_predict(ocean)):
        assert labels.dims == DIMS
        assert np.array_equal(labels, model.labels_)
    distances = model.transform(ocean)
    assert distances.dims == (*DIMS, "component")
    assert np.array_equal(distances.argmin("component"), model.labels_)
    lazy = model.transform(ocean.chunk(time=2))
    assert isinstance(lazy.data, da.Array)
    xr.testing.assert_allclose(lazy.compute(), distances)


def test_a_data_array(ocean):
    bands = ocean[["temp", "salt"]].to_dataarray("band").transpose("band", *DIMS)
    table = bands.transpose(*DIMS, "band").values.reshape(-1, 2)
    for given in ({"feature_axis": 0}, {"feature_axis": "band"}, {"sample_dims": DIMS}):
        assert np.array_equal(read(streamgmm.rows(bands, **given)), table)
    one = streamgmm.rows(bands, feature_axis="band", features=["salt"])
    assert np.array_equal(read(one), table[:, 1:])
    labels = (
        GaussianMixture(2, random_state=0)
        .fit(table)
        .predict(streamgmm.rows(bands, feature_axis="band"))
    )
    assert labels.dims == DIMS
    assert "band" not in labels.coords


def test_features_are_reordered_when_they_come_in_another_order(ocean, tmp_path):
    group = group_of(ocean, tmp_path / "g.zarr")
    model = GaussianMixture(2, random_state=0).fit(
        streamgmm.rows(group, features=["temp", "salt", "depth"])
    )
    expected = model.predict(ocean)
    other = streamgmm.rows(group, features=["depth", "salt", "temp"], sample_dims=DIMS)
    assert np.array_equal(model.predict(other).compute(), expected.values)
    assert np.array_equal(
        model.predict(ocean[["salt", "depth", "temp"]]).transpose(*DIMS), expected
    )
    with pytest.raises(ParameterError, match=r"'temp' is not a feature of .*'tempe'"):
        model.predict(ocean.rename(temp="tempe"))
    profiles = streamgmm.rows(ocean, features=["temp", "salt"], sample_dims=["y", "x"])
    names = list(profiles.feature_names)[::-1]
    assert np.array_equal(read(profiles.reordered(names)), read(profiles)[:, ::-1])


def test_masks_and_weights_by_name(ocean, tmp_path):
    land = ocean.depth > 0.5
    ocean["land"] = land.astype(np.int8)
    ocean["area"] = ("y", np.cos(np.deg2rad(ocean.y.values)))
    group = group_of(ocean, tmp_path / "g.zarr")
    rows = stacked(ocean, ("temp", "salt"))
    sea = ~np.broadcast_to(land.values, SHAPE)
    weight = np.broadcast_to(ocean.area.values[:, None], SHAPE)
    mean = np.average(rows[sea], axis=0, weights=weight[sea])
    features = ["temp", "salt"]
    given = [
        streamgmm.rows(group, features=features, mask="land", sample_weight="area"),
        streamgmm.rows(ocean, features=features, mask="land", sample_weight="area"),
        streamgmm.rows(ocean, features=features, mask=land, sample_weight=ocean.area),
        streamgmm.rows(ocean, features=features, mask=~sea, sample_weight=weight),
    ]
    for source in given:
        model = GaussianMixture(1).fit(source)
        assert np.allclose(model.means_[0], mean)
        assert np.array_equal(np.asarray(model.predict(source)) == -1, ~sea)


def test_a_pass_reads_each_chunk_of_the_variables_once(ocean, tmp_path):
    group_of(ocean, tmp_path / "g.zarr")
    store = Counting(zarr.storage.LocalStore(tmp_path / "g.zarr", read_only=True))
    source = streamgmm.rows(
        zarr.open_group(store, mode="r"), features=["temp", "depth"], sample_dims=DIMS
    )
    at_once = list(store.read)
    store.read.clear()
    for block in source.blocks(300):
        list(KeptBlock(block).pieces())
    assert len(store.read) == len(set(store.read)) == 3 * 2
    assert [key for key in at_once if "/c/" in key] == [
        "depth/c/0/0",
        "depth/c/1/0",
    ]  # small, the same at all times


def test_bad_input(ocean, tmp_path):
    group = group_of(ocean, tmp_path / "g.zarr")
    path = str(tmp_path / "g.zarr")
    with pytest.raises(SourceError, match=r"a Zarr group.*'temp' .*features=\['depth'\]"):
        streamgmm.rows(path)
    with pytest.raises(ParameterError, match=r"'tmp' is not an array.*did you mean 'temp'"):
        streamgmm.rows(path, features=["tmp"])
    with pytest.raises(ParameterError, match=r"'tmp' is not a variable.*did you mean 'temp'"):
        streamgmm.rows(ocean, features=["tmp"])
    with pytest.raises(ParameterError, match=r"'tim' is not a dimension.*did you mean 'time'"):
        streamgmm.rows(path, features=["temp"], sample_dims=["tim", "y", "x"])
    with pytest.raises(DataError, match=r"\['time', 'x'\] are not the samples'"):
        streamgmm.rows(path, features=["temp"], sample_dims=["y"])
    with pytest.raises(ParameterError, match="there twice"):
        streamgmm.rows(path, features=["temp", "temp"])
    with pytest.raises(ParameterError, match="names of dimensions"):
        streamgmm.rows(np.ones((3, 4, 2)), sample_dims=["y", "x"])
    with pytest.raises(ParameterError, match="'bond' is not a dimension"):
        streamgmm.rows(ocean.temp, feature_axis="bond")
    with pytest.raises(DataError, match=r"mask is mask with dimensions \('time',\)"):
        streamgmm.rows(ocean, features=["depth"], mask=ocean.temp[:, 0, 0] > 0)
    group.create_array("short", data=np.ones((6, 10, 7)), dimension_names=DIMS)
    with pytest.raises(DataError, match=r"'temp' and variable 'short'.*'x' has length 12"):
        streamgmm.rows(path, features=["temp", "short"])
    group.create_array("loose", data=np.ones((6, 10)))
    with pytest.raises(DataError, match="'loose' has no names of its dimensions"):
        streamgmm.rows(path, features=["loose", "temp"])
    ocean["when"] = ("time", np.arange(6).astype("M8[s]"))
    with pytest.raises(DataError, match=r"'when' has dtype datetime64.*timedelta64"):
        GaussianMixture(1).fit(ocean)


def test_arrays_without_names_of_dimensions(tmp_path):
    group = zarr.open_group(str(tmp_path / "g.zarr"), mode="w", zarr_format=2)
    values = np.random.default_rng(0).normal(size=(2, 8, 9))
    for name, each in zip("ab", values, strict=True):
        group.create_array(name, data=each, chunks=(4, 4))
    source = streamgmm.rows(group, features=["a", "b"])
    assert np.array_equal(read(source), values.reshape(2, -1).T)
