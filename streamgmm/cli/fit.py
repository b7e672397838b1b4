"""``streamgmm fit``: a mixture from all rows, saved."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import click

from streamgmm.cli.describe import describe_model, ended
from streamgmm.cli.given import Given, missing_option, rows_options
from streamgmm.cli.options import (
    PLACE,
    Running,
    cache_option,
    cluster,
    command,
    components_option,
    covariance_option,
    events,
    excluded,
    family_option,
    max_iter_option,
    print_json,
    progress,
    running,
    weight_option,
)
from streamgmm.cli.table import print_components

INIT = ("kmeans", "k-means++", "random", "random_from_data")


@command(
    "fit",
    "streamgmm fit data.zarr -k 8 --out model.zarr --workers 4",
    "streamgmm fit counts.zarr -k 8 --family poisson --out model.zarr",
    "streamgmm fit data.zarr -k 8 --checkpoint run.zarr --out model.zarr",
)
@click.argument("data", type=PLACE)
@components_option
@covariance_option(more=("factor", "ppca"))
@click.option(
    "--n-factors",
    type=click.IntRange(1),
    help="Factors of each component, for covariances of type factor or ppca.",
)
@click.option(
    "--truncation",
    metavar="C",
    help="Components that a row looks at, of thousands: a number, or auto.",
)
@family_option()
@click.option("--out", required=True, type=PLACE, metavar="MODEL", help="Where to save the model.")
@click.option(
    "--init",
    type=click.Choice(INIT),
    default="kmeans",
    show_default=True,
    help="How starts are made.",
)
@click.option("--n-init", type=click.IntRange(1), default=1, show_default=True, help="Starts.")
@click.option(
    "--tol",
    type=click.FloatRange(0),
    default=1e-3,
    show_default=True,
    help="Stop when the log-likelihood of a row rises by less, in nats.",
)
@max_iter_option
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
@weight_option
@click.option(
    "--checkpoint",
    type=PLACE,
    metavar="RUN",
    help="Save the state of the fit here, and resume from it.",
)
@click.option(
    "--on-bad-chunk",
    type=click.Choice(["raise", "skip"]),
    default="raise",
    show_default=True,
    help="What to do about chunks that cannot be read.",
)
@missing_option
@cache_option
@click.option("--json-events", is_flag=True, help="Write progress as lines of JSON.")
@rows_options
@running
def fit_command(
    data: str,
    n_components: int,
    covariance: str | None,
    n_factors: int | None,
    truncation: str | None,
    family: str | None,
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
    missing: str,
    cache: bool,
    json_events: bool,
    given: Given,
    how: Running,
) -> None:
    """Fit a mixture to all rows of DATA and save it."""
    from streamgmm.sources import parse_block_size
    from streamgmm.storage import check_free

    excluded(family, covariance)
    check_free(out, how.overwrite)
    source = given.open(data, sample_weight)
    parse_block_size(how.block_size, source)
    kind = _model(family, covariance, n_factors, _truncation(truncation))
    model = kind(
        n_components,
        init_params=init,
        n_init=n_init,
        tol=tol,
        max_iter=max_iter,
        reg_covar=reg_covar,
        random_state=seed,
        algorithm=algorithm,
        block_size=how.block_size,
        n_jobs=how.threads,
        checkpoint=checkpoint,
        on_bad_chunk=on_bad_chunk,
        cache="auto" if cache else None,
        missing=missing,
    )
    started = time.perf_counter()
    with (
        cluster(how),
        progress(how.quiet or json_events),
        events(json_events),
    ):
        model.fit(source)
    model.save(out, overwrite=how.overwrite)
    seconds = time.perf_counter() - started
    _report(model, data, source.n_samples, out, seconds, how.as_json)


def _truncation(text: str | None) -> int | str | None:
    """A number, or ``"auto"``."""
    if text is None or text == "auto":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise click.BadParameter(
            f"'{text}' is no number from 1 up, nor auto", param_hint="--truncation"
        )
    return int(text)


def _model(
    family: str | None,
    covariance: str | None,
    n_factors: int | None,
    truncation: int | str | None,
) -> Any:
    """What makes the estimator of the components that were asked for."""
    from streamgmm.estimators import GaussianMixture, MixtureModel

    if family is None:
        kind = covariance or ("full" if n_factors is None else "factor")
        return partial(
            GaussianMixture, covariance_type=kind, n_factors=n_factors, truncation=truncation
        )
    if n_factors is not None:
        raise click.UsageError("--n-factors is for covariances of type factor or ppca")
    if truncation is not None:
        raise click.UsageError("--truncation is for Gaussians: leave --family out")
    return partial(MixtureModel, family=family)


def _report(
    model: Any, data: str, n_samples: int, out: str, seconds: float, as_json: bool
) -> None:
    """Print what the fit has found."""
    described = describe_model(model)
    if as_json:
        print_json({"model": out, "data": data, "seconds": seconds} | described)
        return
    print_components(described)
    print(
        f"{ended(described)} after {described['n_iter']} iterations and "
        f"{described['passes']:.1f} reads of {n_samples:,} rows in {seconds:.1f} s; "
        f"saved in {out}"
    )
    if getattr(model, "n_missing_", 0):
        print(f"{model.n_missing_:,} rows were left out, since they have gaps or are masked")
    print(f"next: streamgmm predict {out} {data} --out labels.zarr")
