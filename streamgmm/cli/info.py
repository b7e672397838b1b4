"""``streamgmm info``: what a model, an array or an output is."""

from __future__ import annotations

from typing import Any

import click

from streamgmm.cli.describe import describe_model, ended, said_of_map
from streamgmm.cli.options import PLACE, command, json_option, print_json
from streamgmm.cli.table import print_components


@command(
    "info",
    "streamgmm info model.zarr",
    "streamgmm info data.zarr --json",
)
@click.argument("path", metavar="MODEL_OR_DATA", type=PLACE)
@json_option
def info_command(path: str, as_json: bool) -> None:
    """Say what a model, an array of rows or an output is."""
    from streamgmm.estimators.loading import load
    from streamgmm.places import Place
    from streamgmm.storage import is_model
    from streamgmm.storage.output import is_unfinished

    place = Place.parse(path)
    if is_model(place):
        model = load(place)
        described = {"kind": "model", "path": path} | describe_model(model)
        if as_json:
            print_json(described)
            return
        if "steps" in described:
            print("after " + ", ".join(f"{s['name']} ({s['class']})" for s in described["steps"]))
        if "components" not in described:
            print(said_of_map(described))
            return
        print_components(described)
        what = (
            f"{described['family']} components"
            if "family" in described
            else f"{described['covariance_type']} covariances"
        )
        print(f"{what}, {described['n_features']} features; {_came_to_be(described)}")
        return
    if is_unfinished(place):
        described = {"kind": "unfinished output", "path": path}
        said = f"{path}: an output that is being written, or was when its writer ended"
    else:
        described = {"kind": "array", "path": path} | _describe_array(place)
        said = (
            f"{path}: a Zarr array of shape {tuple(described['shape'])}, {described['dtype']}, "
            f"{described['bytes']:,} bytes\nchunks of {tuple(described['chunks'])}"
        )
        if described["blocks"] is not None:
            n = described["blocks"]
            said += f", read as {n:,} block{'s' * (n != 1)}"
    if as_json:
        print_json(described)
    else:
        print(said)


def _describe_array(place: Any) -> dict[str, Any]:
    from streamgmm.sources import open_source, parse_block_size
    from streamgmm.sources.zarr_open import open_ref

    array = open_ref(place).array
    blocks = None
    if array.ndim == 2 and array.dtype.kind in "buif" and array.size:
        source = open_source(place)
        blocks = len(source.blocks(parse_block_size("auto", source)))
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "bytes": int(array.nbytes),
        "chunks": list(array.chunks),
        "blocks": blocks,
    }


def _came_to_be(described: dict[str, Any]) -> str:
    if "alarms" in described:
        latest = described["alarms"][-3:]
        alarms = "".join(f"; alarm after row {a['row']:,} ({a['kind']})" for a in latest)
        return f"learned from {described['rows']:,} rows{alarms}"
    if "inertia" in described:
        return f"inertia {described['inertia']:.6g} after {described['n_iter']} iterations"
    return f"{ended(described)} after {described['n_iter']} iterations"
