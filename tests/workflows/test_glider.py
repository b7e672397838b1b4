"""Profiles that end early, as the workflow shows them, on a small cut."""

from __future__ import annotations

import re
from pathlib import Path

from tests.daemons import script_here


def test_missing_levels_are_told(tmp_path: Path) -> None:
    picture = tmp_path / "glider.png"
    folder = str(tmp_path / "glider")
    said = script_here("glider", "--rows", "6000", "--folder", folder, "--picture", str(picture))
    shares = {
        line.split()[0]: [float(each) for each in re.findall(r"([\d.]+)%", line)]
        for line in said.splitlines()
        if "shares" in line
    }
    assert max(abs(a - b) for a, b in zip(shares["marginalize"], shares["truth"], strict=True)) < 3
    assert max(abs(a - b) for a, b in zip(shares["omit"], shares["truth"], strict=True)) > 10
    assert float(re.search(r"within ([\d.]+) °C", said)[1]) < 0.5
    assert 90 < float(re.search(r"([\d.]+)% lie within 2", said)[1]) < 99
    assert picture.stat().st_size > 10_000
