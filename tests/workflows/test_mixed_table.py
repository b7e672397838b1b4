"""A table of mixed columns on two worker processes, as the workflow runs it."""

from __future__ import annotations

from pathlib import Path

import streamgmm
from streamgmm import MixtureModel
from tests.daemons import script


def test_a_mixed_table_has_the_bits_of_threads(tmp_path: Path) -> None:
    said = script("mixed_table", str(tmp_path), "--rows", "40000", "-k", "3", "--workers", "2")
    assert "on 2 workers" in said
    assert said.count("% cancelled") == 3
    there = streamgmm.load(str(tmp_path / "model.zarr"))
    here = MixtureModel(3, there.family, random_state=0, n_jobs=2).fit(
        str(tmp_path / "flights.zarr")
    )
    assert here.weights_.tobytes() == there.weights_.tobytes()
    for name, values in here.components_.items():
        assert values.tobytes() == there.components_[name].tobytes()
    assert here.lower_bounds_ == there.lower_bounds_
