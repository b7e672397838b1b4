"""``streamgmm sample``: rows that a model would give."""

from __future__ import annotations

import time

import click

from streamgmm.cli.options import PLACE, command, json_option, print_json, progress, quiet_option
from streamgmm.errors import ParameterError


@command(
    "sample",
    "streamgmm sample model.zarr -n 1000000 --seed 0 --out drawn.zarr",
    "streamgmm sample model.zarr -n 1000 --out drawn.zarr --labels true.zarr",
)
@click.argument("model", type=PLACE)
@click.option(
    "--rows", "-n", "n_rows", type=click.IntRange(1), required=True, metavar="N", help="Rows."
)
@click.option(
    "--out", required=True, type=PLACE, metavar="ARRAY", help="Where to write a Zarr array."
)
@click.option(
    "--labels", type=PLACE, metavar="ARRAY", help="Where to write the component of each row."
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Makes a sample repeatable.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default="float64",
    show_default=True,
    help="Of the numbers that are written.",
)
@click.option("--overwrite", is_flag=True, help="Replace what is at --out and --labels.")
@quiet_option
@json_option
def sample_command(
    model: str,
    n_rows: int,
    out: str,
    labels: str | None,
    seed: int | None,
    dtype: str,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write rows drawn from MODEL to a Zarr array of any length.

    They are in random order, and drawn a chunk at a time.
    """
    from streamgmm.cli.given import load_density
    from streamgmm.predict.drawing import draw_to

    loaded, last = load_density(model, "sampled from")
    if loaded is not last:
        raise ParameterError(
            f"'{model}' is a pipeline, and what it would draw are rows as its last step sees "
            "them; save that step as a model of its own to sample from it"
        )
    mixture = last._mixture()
    started = time.perf_counter()
    with progress(quiet) as bar:
        done = 0

        def on_block(rows: int) -> None:
            nonlocal done
            done += rows
            if bar is not None:
                bar.tell("predict", done, n_rows)

        array = draw_to(
            mixture,
            n_rows,
            out,
            labels=labels,
            seed=seed,
            dtype=dtype,
            overwrite=overwrite,
            on_block=on_block,
        )
    seconds = time.perf_counter() - started
    if as_json:
        shape = list(array.shape)
        print_json({"out": out, "labels": labels, "shape": shape, "seconds": seconds})
        return
    print(f"{n_rows:,} rows of {mixture.n_features} features in {seconds:.1f} s; written to {out}")
