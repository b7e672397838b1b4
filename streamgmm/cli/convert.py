"""``streamgmm convert``: rows of any kind as a Zarr array that is good to read."""

from __future__ import annotations

import time

import click

from streamgmm.cli.given import Given, rows_options
from streamgmm.cli.options import PLACE, command, json_option, print_json, progress, quiet_option


@command(
    "convert",
    "streamgmm convert flights.parquet flights.zarr --features delay,distance",
    "streamgmm convert photo.zarr rows.zarr --feature-axis 0 --dtype float32",
)
@click.argument("source", type=PLACE)
@click.argument("out", type=PLACE)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    help="Of the numbers that are written; by default as they are read.",
)
@click.option(
    "--shards",
    default="auto",
    show_default=True,
    metavar="SIZE",
    help="Bytes of chunks in a file, such as 512MiB; auto: so many where there are many chunks; "
    "none: a file for each chunk.",
)
@click.option("--overwrite", is_flag=True, help="Replace what is at OUT.")
@rows_options
@quiet_option
@json_option
def convert_command(
    source: str,
    out: str,
    dtype: str | None,
    shards: str,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
    given: Given,
) -> None:
    """Write rows of any kind to a Zarr array, in chunks of whole rows.

    SOURCE is a cube, a group, Parquet, HDF5, AnnData or a .npy file, and is read once. Names of
    columns are kept. A run that was interrupted goes on where it was when it is started again.
    """
    from streamgmm.storage.converting import convert

    rows = given.open(source)
    started = time.perf_counter()
    done = 0
    with progress(quiet) as bar:

        def on_rows(n: int) -> None:
            nonlocal done
            done += n
            if bar is not None:
                bar.tell("convert", done, rows.n_samples)

        array = convert(
            rows,
            out,
            dtype=dtype,
            shards=None if shards == "none" else int(shards) if shards.isdigit() else shards,
            overwrite=overwrite,
            on_rows=on_rows,
        )
    seconds = time.perf_counter() - started
    shape, chunks = list(array.shape), list(array.chunks)
    if as_json:
        in_shards = None if array.shards is None else list(array.shards)
        told = {"out": out, "shape": shape, "chunks": chunks, "shards": in_shards}
        print_json(told | {"seconds": seconds})
        return
    print(f"{rows.n_samples:,} rows in {seconds:.1f} s; written to {out}, {shape} in {chunks}")
    print(f"next: streamgmm fit {out} -k 8 --out model.zarr")
