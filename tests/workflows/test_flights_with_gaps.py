"""Flights with gaps, as the workflow shows them, on a small cut."""

from __future__ import annotations

from pathlib import Path

from tests.daemons import script_here


def test_gaps_are_shown(tmp_path: Path) -> None:
    picture = tmp_path / "gaps.png"
    said = script_here("flights_with_gaps", "--rows", "4000", "-k", "2", "--picture", str(picture))
    lines = {line.split("  ")[0]: line.split() for line in said.splitlines()}
    assert "have a gap" in said
    assert lines["marginalize"][1] == "4,000"
    assert int(lines["omit"][1].replace(",", "")) < 4000
    assert "median arrival delay" in said
    assert picture.stat().st_size > 10_000
