"""``streamgmm select``: numbers of components and their families side by side."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from streamgmm.cli.given import Given, missing_option, rows_options
from streamgmm.cli.options import (
    COVARIANCES,
    PLACE,
    Running,
    cache_option,
    cluster,
    command,
    excluded,
    family_option,
    max_iter_option,
    print_json,
    progress,
    running,
    weight_option,
)


def parse_counts(ctx: click.Context, param: click.Parameter, value: str) -> list[int]:
    """Numbers of components: ``1:12`` for all from 1 to 12, or ``2,4,8``."""
    try:
        if ":" in value:
            first, last = (int(part) for part in value.split(":"))
            found = list(range(first, last + 1))
        else:
            found = [int(part) for part in value.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise click.BadParameter(f"{value!r} is no list such as 2,4,8 and no range such as 1:12")
    return found


@command(
    "select",
    "streamgmm select data.zarr -k 1:12 --out model.zarr",
    "streamgmm select data.zarr -k 2,4,8 --covariance diag --criterion holdout",
)
@click.argument("data", type=PLACE)
@click.option(
    "-k",
    "--n-components",
    callback=parse_counts,
    default="1:12",
    show_default=True,
    metavar="1:12|2,4,8",
    help="Numbers of components.",
)
@click.option(
    "--covariance",
    type=click.Choice(COVARIANCES),
    multiple=True,
    help="May be given more than once; full and diag by default.",
)
@family_option(multiple=True)
@click.option(
    "--criterion",
    type=click.Choice(["bic", "aic", "icl", "holdout", "stability"]),
    default="bic",
    show_default=True,
    help="What the best candidate is best by; stability: whether fits from other starts find the "
    "same clusters again.",
)
@click.option(
    "--holdout",
    type=click.FloatRange(0, 0.5),
    default=0.03,
    show_default=True,
    help="Share of the rows that no candidate is fitted to.",
)
@click.option(
    "--n-init", type=click.IntRange(1), help="Starts; 2 by default, 5 restarts for stability."
)
@click.option(
    "--tol",
    type=click.FloatRange(0),
    default=1e-3,
    show_default=True,
    help="Stop when the rise that is still to come is less, in nats a row.",
)
@max_iter_option
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Makes a selection repeatable.")
@weight_option
@click.option("--out", type=PLACE, metavar="MODEL", help="Where to save the best model.")
@missing_option
@cache_option
@rows_options
@running
def select_command(
    data: str,
    n_components: list[int],
    covariance: tuple[str, ...],
    family: tuple[str, ...],
    criterion: str,
    holdout: float,
    n_init: int | None,
    tol: float,
    max_iter: int,
    seed: int | None,
    sample_weight: str | None,
    out: str | None,
    missing: str,
    cache: bool,
    given: Given,
    how: Running,
) -> None:
    """Compare models of DATA in reads that all of them share."""
    from streamgmm.estimators import select
    from streamgmm.storage import check_free

    excluded(family, covariance)
    if out is not None:
        check_free(out, how.overwrite)
    source = given.open(data, sample_weight)
    started = time.perf_counter()
    with cluster(how), progress(how.quiet):
        selection = select(
            source,
            n_components,
            covariance or ("full", "diag"),
            family=family or None,
            n_init=n_init,
            criterion=criterion,
            holdout=holdout,
            tol=tol,
            max_iter=max_iter,
            random_state=seed,
            block_size=how.block_size,
            n_jobs=how.threads,
            cache="auto" if cache else None,
            missing=missing,
        )
    if out is not None:
        selection.best.save(out, overwrite=how.overwrite)
    seconds = time.perf_counter() - started
    said = f"best by {criterion}"
    _report(selection, said, data, source.n_samples, out, seconds, how.as_json)


def _report(
    selection: Any,
    said: str,
    data: str,
    n_samples: int,
    out: str | None,
    seconds: float,
    as_json: bool,
) -> None:
    """Print the table, and which candidate is best."""
    best = selection.best
    name = "family" if "family" in selection.table else "covariance_type"
    chosen = {"n_components": best.n_components, name: getattr(best, name)}
    if as_json:
        table = {name: column.tolist() for name, column in selection.table.items()}
        passes = selection.passes
        print_json(
            {"best": chosen, "model": out, "passes": passes, "seconds": seconds} | {"table": table}
        )
        return
    _print_table(selection.table, chosen, name)
    kind = chosen[name] if name == "family" else f"{chosen[name]} covariances"
    print(
        f"{said}: {best.n_components} components, {kind}; "
        f"{selection.passes:.1f} reads of {n_samples:,} rows in all, "
        f"{seconds:.1f} s" + (f"; saved in {out}" if out else "")
    )
    if out is None:
        print("next: the same with --out model.zarr saves the best model")
    else:
        print(f"next: streamgmm predict {out} {data} --out labels.zarr")


def _print_table(table: dict[str, Any], chosen: dict[str, Any], kinds: str) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table(title="held out: log-density of a row, nats")
    stable = "stability" in table
    names = ("k", kinds.removesuffix("_type"), "BIC", "ICL", "held out", "reads", "")
    for name in names[:5] + (("stability",) if stable else ()) + names[5:]:
        shown.add_column(name, justify="right", no_wrap=True)
    for i in range(len(table["bic"])):
        k, kind = int(table["n_components"][i]), str(table[kinds][i])
        best = {"n_components": k, kinds: kind} == chosen
        mean, error = table["holdout_log_likelihood"][i], table["holdout_error"][i]
        shown.add_row(
            str(k),
            kind,
            *(f"{table[name][i]:.1f}" for name in ("bic", "icl")),
            "-" if mean != mean else f"{mean:.4f} ± {error:.4f}",
            *([f"{table['stability'][i]:.3f}"] if stable else []),
            f"{table['passes'][i]:.1f}",
            "best" if best else ("" if table["converged"][i] else "left"),
            style="bold" if best else None,
        )
    Console(file=sys.stdout).print(shown)
