"""`Seen` as an attribute that can be saved: plain numbers and arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamgmm.fitting.fit import Seen
from streamgmm.model.families import parse_family
from streamgmm.model.mixture import Statistics

_SCALARS = ("n_rows", "weight", "log_likelihood", "entropy")


def describe_seen(seen: Seen) -> dict[str, Any]:
    """Give what a model was fitted to as ``data_seen_``.

    Statistics of groups are kept only where there are several: a fit that goes on after rows
    were appended has no use for those of one.
    """
    described: dict[str, Any] = {"name": seen.name, "n_samples": seen.n_rows}
    if len(seen.groups) > 1:
        described |= {
            "regions": np.array(seen.regions),
            "overall": _arrays([seen.overall]),
            "skipped": np.array(seen.skipped, np.int64).reshape(-1, 2),
            "groups": _arrays([group.components for group in seen.groups])
            | {name: np.array([getattr(g, name) for g in seen.groups]) for name in _SCALARS},
        }
    return described


def parse_seen(described: dict[str, Any], family: str) -> Seen | None:
    """Give back what `describe_seen` was given, or None where it kept no statistics."""
    if "groups" not in described:
        return None
    groups = described["groups"]
    return Seen(
        described["name"],
        tuple((int(stop), int(size), int(n)) for stop, size, n in described["regions"]),
        tuple(
            Statistics(
                int(groups["n_rows"][g]),
                float(groups["weight"][g]),
                float(groups["log_likelihood"][g]),
                float(groups["entropy"][g]),
                _statistics(family, groups, g),
            )
            for g in range(len(groups["n_rows"]))
        ),
        _statistics("diag", described["overall"], 0),
        tuple((int(start), int(stop)) for start, stop in described.get("skipped", ())),
    )


def _arrays(statistics: list[Any]) -> dict[str, Any]:
    each = [s.arrays() for s in statistics]
    return {f"component_{name}": np.stack([arrays[name] for arrays in each]) for name in each[0]}


def _statistics(family: str, arrays: dict[str, Any], g: int) -> Any:
    named = {
        name.removeprefix("component_"): values[g]
        for name, values in arrays.items()
        if name.startswith("component_")
    }
    return parse_family(family).statistics(**named)
