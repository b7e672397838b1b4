"""``streamgmm demo``: a script of ``workflows/``, run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import click

from streamgmm.cli.options import PLACE, command
from streamgmm.errors import ParameterError


@command(
    "demo",
    "streamgmm demo",
    "streamgmm demo --frames 4 --out small-demo",
)
@click.option(
    "--out",
    type=PLACE,
    default="streamgmm-demo",
    show_default=True,
    metavar="FOLDER",
    help="Where the rows, the model, the labels and the picture go.",
)
@click.option("--frames", type=click.IntRange(1), help="Views of the photograph; all by default.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Run on N processes of this machine.",
)
@click.option("--memory", help="What each worker may use, such as 700MiB.")
def demo_command(out: str, frames: int | None, workers: int, memory: str | None) -> None:
    """Segment a real photograph, from more rows than memory holds."""
    given = {"n_frames": frames, "worker_memory": memory}
    _workflow("segment_photo").segment(
        out, n_workers=workers, **{k: v for k, v in given.items() if v is not None}
    )


def _workflow(name: str) -> Any:
    """A script of ``workflows/``: installed in the package, or in the repository."""
    package = Path(__file__).parents[1]
    for folder in (package / "workflows", package.parent / "workflows"):
        path = folder / f"{name}.py"
        if path.is_file():
            spec = importlib.util.spec_from_file_location(name, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise ParameterError(f"workflows/{name}.py is not installed; install streamgmm again")
