"""``streamgmm score``: how well a model explains rows, in one read of them."""

from __future__ import annotations

import time

import click

from streamgmm.cli.given import Given, load_density, missing_option, rows_options
from streamgmm.cli.options import (
    PLACE,
    Running,
    cluster,
    command,
    print_json,
    progress,
    reading,
    weight_option,
)


@command(
    "score",
    "streamgmm score model.zarr new.zarr",
    "streamgmm score model.zarr new.zarr --json",
)
@click.argument("model", type=PLACE)
@click.argument("data", type=PLACE)
@weight_option
@missing_option
@rows_options
@reading
def score_command(
    model: str,
    data: str,
    sample_weight: str | None,
    missing: str,
    given: Given,
    how: Running,
) -> None:
    """Say how well MODEL explains the rows of DATA, in one read.

    The mean log-density of a row in nats, the log-likelihood, BIC and AIC.
    """
    import math

    from streamgmm.estimators.pipelines import open_for
    from streamgmm.predict import score_rows

    loaded, last = load_density(model, "scored by")
    mixture = last._mixture()
    _, source = open_for(loaded, given.open(data, sample_weight), missing=missing)
    started = time.perf_counter()
    with cluster(how), progress(how.quiet) as bar:
        done = 0

        def on_block(rows: int) -> None:
            nonlocal done
            done += rows
            if bar is not None:
                bar.tell("score", done, source.n_samples)

        score = score_rows(
            source,
            mixture,
            block_size=how.block_size,
            n_threads=how.threads,
            on_block=on_block,
        )
    seconds = time.perf_counter() - started
    n_parameters = mixture.n_parameters
    told = {
        "rows": score.n_rows,
        "weight": score.weight,
        "log_likelihood": score.log_likelihood,
        "log_likelihood_per_row": score.mean,
        "n_parameters": n_parameters,
        "bic": -2 * score.log_likelihood + n_parameters * math.log(score.n_rows),
        "aic": -2 * score.log_likelihood + 2 * n_parameters,
    }
    if how.as_json:
        print_json({"model": model, "data": data, "seconds": seconds} | told)
        return
    print(f"{score.mean:.6f} nats a row, over {score.n_rows:,} rows in {seconds:.1f} s")
    print(
        f"log-likelihood {score.log_likelihood:.3f}; {n_parameters} parameters: "
        f"BIC {told['bic']:.1f}, AIC {told['aic']:.1f}"
    )
