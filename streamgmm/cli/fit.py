"""``streamgmm fit``: a mixture from all rows, saved."""

from __future__ import annotations

import time

import click

from streamgmm.cli.describe import describe_model, ended, print_components
from streamgmm.cli.options import cache_option, cluster, events, print_json, progress, running

INIT = ("kmeans", "k-means++", "random", "random_from_data")


@click.command("fit")
@click.argument("data")
@click.option("-k", "--n-components", type=click.IntRange(1), required=True, help="Components.")
@click.option(
    "--covariance",
    type=click.Choice(["full", "tied", "diag", "spherical"]),
    default="full",
    show_default=True,
)
@click.option("--out", required=True, metavar="MODEL", help="Where to save the model.")
@click.option("--init", type=click.Choice(INIT), default="kmeans", show_default=True)
@click.option("--n-init", type=click.IntRange(1), default=1, show_default=True, help="Starts.")
@click.option(
    "--tol",
    type=click.FloatRange(0),
    default=1e-3,
    show_default=True,
    help="Stop when the log-likelihood of a row rises by less, in nats.",
)
@click.option("--max-iter", type=click.IntRange(1), default=100, show_default=True)
@click.option(
    "--reg-covar",
    type=click.FloatRange(0),
    default=1e-6,
    show_default=True,
    help="Added to the diagonals of covariances.",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Makes a fit repeatable.")
@click.option(
    "--algorithm",
    type=click.Choice(["auto", "em", "incremental"]),
    default="auto",
    show_default=True,
    help="Incremental EM updates the model several times in a read.",
)
@click.option("--sample-weight", metavar="PATH", help="A Zarr array of a weight for each row.")
@click.option(
    "--checkpoint", metavar="RUN", help="Put down what is known here, and go on from it if it is."
)
@click.option(
    "--on-bad-chunk",
    type=click.Choice(["raise", "skip"]),
    default="raise",
    show_default=True,
    help="What to do about chunks that cannot be read.",
)
@cache_option
@click.option("--json-events", is_flag=True, help="Tell of progress in lines of JSON.")
@running
def fit_command(
    data: str,
    n_components: int,
    covariance: str,
    out: str,
    init: str,
    n_init: int,
    tol: float,
    max_iter: int,
    reg_covar: float,
    seed: int | None,
    algorithm: str,
    sample_weight: str | None,
    checkpoint: str | None,
    on_bad_chunk: str,
    cache: bool,
    json_events: bool,
    workers: int | None,
    scheduler: str | None,
    threads: int | None,
    block_size: str,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Fit a mixture to all rows of DATA and save it.

    Example: streamgmm fit data.zarr -k 8 --out model.zarr --workers 4
    """
    from streamgmm.estimators import GaussianMixture
    from streamgmm.sources import open_source, parse_block_size
    from streamgmm.storage import check_free

    check_free(out, overwrite)
    source = open_source(data, sample_weight=sample_weight)
    parse_block_size(block_size, source)
    model = GaussianMixture(
        n_components,
        covariance_type=covariance,
        init_params=init,
        n_init=n_init,
        tol=tol,
        max_iter=max_iter,
        reg_covar=reg_covar,
        random_state=seed,
        algorithm=algorithm,
        block_size=int(block_size) if block_size.isdigit() else block_size,
        n_jobs=threads,
        checkpoint=checkpoint,
        on_bad_chunk=on_bad_chunk,
        cache="auto" if cache else None,
    )
    started = time.perf_counter()
    with (
        cluster(workers, scheduler, threads),
        progress(quiet or json_events),
        events(json_events),
    ):
        model.fit(source)
    model.save(out, overwrite=overwrite)
    seconds = time.perf_counter() - started
    described = describe_model(model)
    if as_json:
        print_json({"model": out, "data": data, "seconds": seconds} | described)
        return
    print_components(described)
    print(
        f"{ended(described)} after {described['n_iter']} iterations and "
        f"{described['passes']:.1f} reads of {source.n_samples:,} rows in {seconds:.1f} s; "
        f"saved in {out}"
    )
    print(f"next: streamgmm predict {out} {data} --out labels.zarr")
