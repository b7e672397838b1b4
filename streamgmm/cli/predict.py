"""``streamgmm predict``: what a model says of every row, written to Zarr or Parquet."""

from __future__ import annotations

import time

import click

from streamgmm.cli.given import Given, missing_option, rows_options
from streamgmm.cli.options import PLACE, Running, cluster, command, print_json, progress, running

WHAT = ("labels", "proba", "log-density")
MOST_SAID = 40  # components whose rows are told


@command(
    "predict",
    "streamgmm predict model.zarr data.zarr --out labels.zarr",
    "streamgmm predict model.zarr data.zarr --what log-density --out scores.zarr",
)
@click.argument("model", type=PLACE)
@click.argument("data", type=PLACE)
@click.option(
    "--out",
    required=True,
    type=PLACE,
    metavar="ARRAY",
    help="Where to write a Zarr array, or a .parquet file.",
)
@click.option(
    "--what",
    type=click.Choice(WHAT),
    default="labels",
    show_default=True,
    help="The likeliest component of each row; the probability of each; or the log-density.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    help="Of probabilities and log-densities; by default that of the rows.",
)
@click.option(
    "--exact",
    is_flag=True,
    help="Compare each row with all components, after a fit with --truncation.",
)
@missing_option
@rows_options
@running
def predict_command(
    model: str,
    data: str,
    out: str,
    what: str,
    dtype: str | None,
    exact: bool,
    missing: str,
    given: Given,
    how: Running,
) -> None:
    """Write what MODEL says of every row of DATA, to Zarr or Parquet."""
    from streamgmm.estimators.loading import load
    from streamgmm.estimators.pipelines import open_for
    from streamgmm.predict import predict_out
    from streamgmm.predict.rows import result_shape

    last, source = open_for(load(model), given.open(data), missing=missing)
    mixture = last._mixture()
    if exact:
        mixture = mixture.exact
    mixture.prepare()
    started = time.perf_counter()
    with cluster(how), progress(how.quiet) as bar:
        done = 0

        def on_block(rows: int) -> None:
            nonlocal done
            done += rows
            if bar is not None:
                bar.tell("predict", done, source.n_samples)

        written, tally = predict_out(
            source,
            mixture,
            out,
            what=what.replace("-", "_"),
            dtype=dtype,
            overwrite=how.overwrite,
            block_size=how.block_size,
            n_threads=how.threads,
            on_block=on_block,
        )
    seconds = time.perf_counter() - started
    if how.as_json:
        print_json(
            {
                "out": out,
                "what": what,
                "shape": list(result_shape(source, mixture, what.replace("-", "_"))),
                "dtype": str(getattr(written, "dtype", None) or written.schema.types[0]),
                "rows": tally.n_rows,
                "rows_by_component": tally.counts.tolist(),
                "lowest_log_density": tally.lowest,
                "lowest_row": tally.lowest_row,
                "seconds": seconds,
            }
        )
        return
    largest = (-tally.counts).argsort(kind="stable")[:MOST_SAID]
    said = sorted(largest.tolist())
    counts = ", ".join(f"{k}: {tally.counts[k]:,}" for k in said)
    if len(tally.counts) > MOST_SAID:
        counts += f"; these are the largest of {len(tally.counts):,}"
    print(f"{what} of {tally.n_rows:,} rows in {seconds:.1f} s; written to {out}")
    print(f"rows by component: {counts}")
    print(f"least likely row: {tally.lowest_row} (log-density {tally.lowest:.3f})")
