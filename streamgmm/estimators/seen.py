"""`Seen` as an attribute that can be saved: plain numbers and arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamgmm.fitting.fit import Seen
from streamgmm.model.components import Family
from streamgmm.model.families import Gaussian
from streamgmm.storage.values import COMPONENTS, STATISTICS


def describe_seen(seen: Seen) -> dict[str, Any]:
    """Give what a model was fitted to as ``data_seen_``.

    Statistics of groups are kept only where there are several: a fit that goes on after rows
    were appended has no use for those of one. They are stacked, an array for each field.
    """
    described: dict[str, Any] = {"name": seen.name, "n_samples": seen.n_rows}
    if len(seen.groups) > 1:
        overall = {f"component_{k}": v for k, v in COMPONENTS.apart(seen.overall).items()}
        described |= {
            "regions": np.array(seen.regions),
            "overall": _stack([overall]),
            "skipped": np.array(seen.skipped, np.int64).reshape(-1, 2),
            "groups": _stack([STATISTICS.apart(group) for group in seen.groups]),
        }
        if seen.shape is not None:
            described["shape"] = np.array(seen.shape, np.int64)
    return described


def parse_seen(described: dict[str, Any], family: Family) -> Seen | None:
    """Give back what `describe_seen` was given, or None where it kept no statistics."""
    if "groups" not in described:
        return None
    (overall,) = _unstack(described["overall"], Gaussian("diag"))
    return Seen(
        described["name"],
        tuple((int(stop), int(size), int(n)) for stop, size, n in described["regions"]),
        tuple(STATISTICS.together(each) for each in _unstack(described["groups"], family)),
        COMPONENTS.together({k.removeprefix("component_"): v for k, v in overall.items()}),
        tuple((int(start), int(stop)) for start, stop in described.get("skipped", ())),
        tuple(int(n) for n in described["shape"]) if "shape" in described else None,
    )


def _stack(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """An array for each field but the family, which the model knows."""
    names = [name for name in rows[0] if name != "component_kind"]
    return {name: np.stack([row[name] for row in rows]) for name in names}


def _unstack(columns: dict[str, Any], family: Family) -> list[dict[str, Any]]:
    n = len(columns["component_weight"])
    rows = [{name: column[g] for name, column in columns.items()} for g in range(n)]
    return [
        {name: value if value.ndim else value.item() for name, value in row.items()}
        | {"component_kind": family}
        for row in rows
    ]
