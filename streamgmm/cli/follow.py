"""``streamgmm follow``: learn a mixture from data that grow."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import Any

import click

from streamgmm.cli.options import (
    PLACE,
    command,
    covariance_option,
    excluded,
    family_option,
    json_option,
    quiet_option,
)


@command(
    "follow",
    "streamgmm follow telemetry.zarr --state state.zarr -k 8 --half-life 100000",
    "streamgmm follow telemetry.zarr --state state.zarr --labels labels.zarr --once",
    "tail -f rows.csv | streamgmm follow - --state state.zarr -k 3",
)
@click.argument("data", metavar="DATA", type=PLACE)
@click.option(
    "--state", required=True, type=PLACE, metavar="STATE", help="Where the model and position are."
)
@click.option("-k", "--n-components", type=click.IntRange(1), help="Components, of a new state.")
@covariance_option("Of a new state, as are the six that follow.")
@family_option()
@click.option(
    "--half-life",
    type=click.FloatRange(0, min_open=True),
    metavar="ROWS",
    help="Rows after which a row counts half; by default nothing is forgotten.",
)
@click.option("--warm-up", type=click.IntRange(2), metavar="ROWS", help="Rows of the first fit.")
@click.option(
    "--reg-covar",
    type=click.FloatRange(0),
    default=1e-6,
    show_default=True,
    help="Added to the diagonals of covariances.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Of the starts.",
)
@click.option("--adapt", is_flag=True, help="Let components come and go.")
@click.option("--once", is_flag=True, help="End when all that is there has been learned.")
@click.option(
    "--interval",
    type=click.FloatRange(0, min_open=True),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="From one look to the next.",
)
@click.option(
    "--batch-rows",
    type=click.IntRange(1),
    default=1_000,
    show_default=True,
    help="Rows that are learned together.",
)
@click.option(
    "--save-rows",
    type=click.IntRange(1),
    default=100_000,
    show_default=True,
    help="Rows from one save to the next.",
)
@click.option(
    "--labels", type=PLACE, metavar="PATH", help="Append each row's label: Zarr, or .ndjson."
)
@click.option(
    "--log-density", type=PLACE, metavar="PATH", help="Append each row's log-density, in nats."
)
@click.option("--alarms", type=PLACE, metavar="PATH", help="Append alarms.")
@click.option("--partial-chunks", is_flag=True, help="Read chunks that are not whole, too.")
@click.option("--skip-refused", is_flag=True, help="Pass over batches with NaN or infinity.")
@click.option("--columns", metavar="A,B,...", help="Columns of Parquet files.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["csv", "ndjson", "arrow"]),
    default="csv",
    show_default=True,
    help="Of standard input.",
)
@click.option(
    "--no-replay", is_flag=True, help="Standard input goes on where it was left, after a restart."
)
@click.option("--branch", default="main", show_default=True, help="Of an Icechunk repository.")
@click.option("--array", default="", help="Of an Icechunk repository.")
@quiet_option
@json_option
def follow_command(
    data: str,
    state: str,
    n_components: int | None,
    covariance: str | None,
    family: str | None,
    half_life: float | None,
    warm_up: int | None,
    reg_covar: float,
    seed: int,
    adapt: bool,
    once: bool,
    interval: float,
    columns: str | None,
    kind: str,
    no_replay: bool,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Learn a mixture from data that grows, each row exactly once.

    DATA is a Zarr array that grows by rows, a folder to which Zarr, npy or Parquet files are
    added, - for standard input, or icechunk:PATH. Start it again with the same STATE to go on.
    """
    from streamgmm.estimators.following import follow

    make = _model(family, covariance, adapt)
    model: Any = None
    if n_components is not None:
        model = make(
            n_components,
            half_life=half_life,
            warm_up="auto" if warm_up is None else warm_up,
            reg_covar=reg_covar,
            random_state=seed,
        )
    told = _Teller(quiet or as_json)
    learned = follow(
        data,
        state,
        model,
        once=once,
        interval=interval,
        columns=None if columns is None else columns.split(","),
        format=kind,
        replay=not no_replay,
        on_batch=told,
        **options,
    )
    seen = learned.n_samples_seen_
    if as_json:
        alarms = learned.monitor_["alarms"]
        print(json.dumps({"state": state, "rows": seen, "new": told.rows, "alarms": alarms}))
    elif not quiet:
        print(f"{state}: {told.rows:,} new rows, {seen:,} in all")


def _model(family: str | None, covariance: str | None, adapt: bool) -> Any:
    """What makes the model of the components that were asked for."""
    from streamgmm.estimators import MixtureModel
    from streamgmm.estimators.online import OnlineGaussianMixture

    excluded(family, covariance)
    if family is None:
        kind = covariance or "full"
        return partial(OnlineGaussianMixture, covariance_type=kind, adapt_components=adapt)
    if adapt:
        raise click.UsageError("--adapt is for Gaussian components, without --family")
    return partial(MixtureModel, family=family)


class _Teller:
    """Prints progress, at most one line a second, and the latest alarm."""

    def __init__(self, quiet: bool) -> None:
        self.rows, self.alarms, self.quiet, self.last = 0, -1, quiet, 0.0

    def __call__(self, model: Any, n_rows: int) -> None:
        self.rows += n_rows
        if self.quiet:
            return
        alarms = model.monitor_["alarms"] if self._due() else []
        if alarms and len(alarms) != self.alarms:
            latest = alarms[-1]
            click.echo(f"alarm after row {latest['row']:,}: {latest['kind']}", err=True)
            self.alarms = len(alarms)

    def _due(self) -> bool:
        now = time.monotonic()
        if now - self.last < 1.0:
            return False
        self.last = now
        click.echo(f"{self.rows:,} rows", err=True)
        return True
