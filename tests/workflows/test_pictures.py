"""Jobs on data as people have them, each with a picture, on a small cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import zarr
from PIL import Image

import streamgmm
from tests.daemons import script_here

FLIGHTS = Path(__file__).parents[1] / "data" / "flights.parquet"


def picture(path: Path) -> np.ndarray:
    """A picture that is there and shows something."""
    drawn = np.asarray(Image.open(path).convert("RGB"))
    assert min(drawn.shape[:2]) > 300
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 100
    return drawn


def test_flights_from_parquet_to_parquet(tmp_path: Path) -> None:
    said = script_here("flights", str(tmp_path), "--data", str(FLIGHTS), "-k", "3")
    assert "4,000 flights, 109 without times" in said
    picture(tmp_path / "flights.png")
    labels = pq.read_table(tmp_path / "labels.parquet")["labels"].to_numpy()
    table = pq.read_table(FLIGHTS)
    gaps = np.isnan(table["air_time"].to_numpy()) | np.isnan(table["arr_delay"].to_numpy())
    assert np.array_equal(labels == -1, gaps)
    model = streamgmm.load(str(tmp_path / "model.zarr"))
    assert list(model.feature_names_in_) == ["dep_delay", "arr_delay", "air_time", "distance"]
    again = streamgmm.GaussianMixture(3, missing="omit", random_state=0).fit(
        streamgmm.rows(FLIGHTS, features=list(model.feature_names_in_))
    )
    assert np.array_equal(again.means_, model.means_)


def test_a_photograph_as_a_cube(tmp_path: Path) -> None:
    said = script_here("photo_cube", str(tmp_path), "-k", "3", "--step", "4")
    assert "(107, 160) labels" in said
    picture(tmp_path / "photo.png")
    labels = zarr.open_array(str(tmp_path / "labels.zarr"), mode="r")
    assert labels.shape == (107, 160)
    assert set(np.unique(labels[:])) == {0, 1, 2}
    bands = zarr.open_array(str(tmp_path / "photo.zarr"), mode="r")[:]
    model = streamgmm.GaussianMixture(3, random_state=0).fit(bands.reshape(-1, 3))
    same = model.predict(bands.reshape(-1, 3)).reshape(labels.shape) == labels[:]
    assert same.mean() > 0.999


def test_cells_of_an_anndata_store(tmp_path: Path) -> None:
    small = ("--cells", "12000", "--most", "11", "--sample", "600")
    said = script_here("cells", str(tmp_path), *small)
    assert "9 kinds by BIC of 9" in said
    picture(tmp_path / "cells.png")
    there = zarr.open_group(str(tmp_path / "cells.zarr"), mode="r")
    assert there["obs"].attrs["column-order"] == ["kind"]
    assert set(np.unique(there["obs/kind"][:])) == set(range(9))
    assert np.allclose(there["obsm/kind_probability"][:].sum(axis=1), 1)
