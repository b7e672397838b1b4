"""``ds.streamgmm``: a model asked from the dataset; there without importing xarray for others."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
import zarr

import streamgmm
import streamgmm.xarray
from streamgmm.errors import ParameterError

rng = np.random.default_rng(0)
SHAPE = (3, 20, 30)
OCEAN = xr.Dataset(
    {
        "temp": (("time", "y", "x"), rng.normal(size=SHAPE).astype("f4")),
        "salt": (("time", "y", "x"), rng.normal(size=SHAPE).astype("f4")),
        "land": (("y", "x"), rng.random(SHAPE[1:]) < 0.3),
        "note": ("station", np.arange(7)),
    },
    coords={"y": np.linspace(-60, 60, 20), "station": list("abcdefg")},
)
ROWS = streamgmm.rows(OCEAN, features=["temp", "salt"], mask="land")
MODEL = streamgmm.GaussianMixture(2, random_state=0).fit(ROWS)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("what", ["predict", "predict_proba", "score_samples"])
def test_what_a_model_says_of_a_dataset(what, lazy):
    data = OCEAN.chunk({"time": 1}) if lazy else OCEAN
    rows = streamgmm.rows(data, features=["temp", "salt"], mask="land")
    expected = getattr(MODEL, what)(rows)
    found = getattr(data.streamgmm, what)(MODEL, mask="land")
    assert (found.chunks is not None) == lazy
    assert found.dims[:3] == ("time", "y", "x")
    xr.testing.assert_identical(found, expected)
    whole = getattr(data.streamgmm, what)(MODEL)  # land is no feature of the model's
    assert whole.shape == expected.shape
    assert bool(whole.notnull().all())


def test_dtype_out_and_distances(tmp_path):
    found = OCEAN.streamgmm.score_samples(MODEL, dtype="float64")
    assert found.dtype == np.float64
    assert OCEAN.streamgmm.score_samples(MODEL).dtype == np.float32
    array = OCEAN.streamgmm.predict(MODEL, out=tmp_path / "labels.zarr")
    assert isinstance(array, zarr.Array)
    np.testing.assert_array_equal(array[:], OCEAN.streamgmm.predict(MODEL))
    OCEAN.streamgmm.predict(MODEL, out=tmp_path / "labels.zarr", overwrite=True)
    centres = streamgmm.KMeans(3, random_state=0).fit(OCEAN[["temp", "salt"]])
    assert OCEAN.streamgmm.transform(centres).shape == (*SHAPE, 3)
    assert OCEAN.streamgmm.predict(centres).dims == ("time", "y", "x")


def test_a_data_array():
    bands = xr.DataArray(rng.normal(size=(2, 5, 6)), dims=("band", "y", "x"))
    plain = streamgmm.GaussianMixture(2, random_state=0).fit(rng.normal(size=(300, 2)))
    found = bands.streamgmm.predict(plain, feature_axis="band")
    assert found.dims == ("y", "x")
    assert bands.streamgmm.rows(feature_axis=0).n_samples == 30


def test_a_misspelt_feature_is_named():
    with pytest.raises(ParameterError, match="did you mean 'temp'"):
        OCEAN.streamgmm.predict(MODEL, features=["tmp", "salt"])


CASES = {
    "streamgmm first": "import streamgmm\nimport xarray\nstreamgmm.GaussianMixture\n",
    "xarray first": "import xarray\nfrom streamgmm import load\n",
    "a name before xarray": (
        "from streamgmm import GaussianMixture\nimport xarray\n"
        "GaussianMixture(1).fit([[0.0], [1.0]])\n"
    ),
    "by hand": "import streamgmm.xarray\nimport xarray\n",
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_there_without_more_ado(case):
    code = f"{CASES[case]}assert 'predict' in dir(xarray.Dataset.streamgmm)\n"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_xarray_is_not_imported_for_it():
    code = (
        "import sys, streamgmm\nstreamgmm.rows, streamgmm.load\nassert 'xarray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
