"""The ocean section, on a small cut: classes are the regimes, and land has none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zarr
from PIL import Image

import streamgmm
from tests.daemons import script_here

LATITUDE = np.arange(-60.0, 66.0, 0.5)


def test_water_masses_are_told_apart(tmp_path: Path) -> None:
    said = script_here("ocean_section", str(tmp_path), "--times", "40", "-k", "6")
    assert "10,080 profiles of 140 values" in said
    assert "9,200 of them whole" in said
    labels = zarr.open_array(str(tmp_path / "labels.zarr"))[:]
    assert labels.shape == (40, len(LATITUDE))
    missing = ((LATITUDE >= 30) & (LATITUDE <= 33)) | (LATITUDE > 58)
    assert np.array_equal(labels < 0, np.broadcast_to(missing, labels.shape))
    cores = {
        name: labels[:, np.abs(LATITUDE - at) < 1]
        for name, at in (("polar", -57), ("subpolar", -44), ("tropical", 0), ("northern", 52))
    }
    found = {name: np.unique(each) for name, each in cores.items()}
    assert all(len(each) == 1 for each in found.values())
    assert len(set(map(int, (each[0] for each in found.values())))) == 4

    pipe = streamgmm.load(str(tmp_path / "model.zarr"))
    rows = streamgmm.rows(
        str(tmp_path / "section.zarr"),
        features=["temperature", "salinity"],
        sample_dims=["time", "latitude"],
    )
    assert np.array_equal(np.asarray(pipe.predict(rows)), labels)
    with Image.open(tmp_path / "section.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 20) or ()) > 200
