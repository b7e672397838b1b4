"""``streamgmm plan``: what a fit will read, hold and take."""

from __future__ import annotations

import json

import click

from streamgmm.cli.given import Given, rows_options
from streamgmm.cli.options import (
    PLACE,
    block_size_option,
    cache_option,
    command,
    components_option,
    covariance_option,
    excluded,
    family_option,
    json_option,
)


@command(
    "plan",
    "streamgmm plan data.zarr -k 64",
    "streamgmm plan data.zarr -k 64 --workers 40 --worker-memory 8GiB",
)
@click.argument("data", type=PLACE)
@components_option
@covariance_option()
@family_option()
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Workers of one thread on a cluster of machines like this one; threads here by default.",
)
@click.option("--worker-memory", metavar="SIZE", help="What each worker has, such as 8GiB.")
@click.option(
    "--processors",
    type=click.FloatRange(0, min_open=True),
    help="Of all workers together; one each by default.",
)
@click.option("--store-bandwidth", metavar="SIZE", help="Of all readers together, such as 10GB.")
@click.option(
    "--candidates",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Starts that share the passes.",
)
@block_size_option
@cache_option
@rows_options
@json_option
def plan_command(
    data: str,
    n_components: int,
    covariance: str | None,
    family: str | None,
    workers: int | None,
    worker_memory: str | None,
    processors: float | None,
    store_bandwidth: str | None,
    candidates: int,
    block_size: int | str,
    cache: bool,
    as_json: bool,
    given: Given,
) -> None:
    """Say what a fit to DATA will read, hold and take.

    One that cannot fit in memory is refused. Times a few reads and computations on this
    machine, and takes the workers for like it.
    """
    from streamgmm.planning.plan import plan

    excluded(family, covariance)
    found = plan(
        given.open(data),
        n_components,
        family or covariance or "full",
        workers=workers,
        worker_memory=worker_memory,
        processors=processors,
        store_bandwidth=store_bandwidth,
        n_candidates=candidates,
        block_size=block_size,
        cache="auto" if cache else None,
    )
    print(json.dumps(found.to_dict()) if as_json else found.render())
