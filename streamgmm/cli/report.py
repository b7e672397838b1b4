"""``streamgmm report``: one page of HTML about a model and its rows."""

from __future__ import annotations

import os
import shlex

import click

from streamgmm.cli.given import Given, rows_options
from streamgmm.cli.options import (
    PLACE,
    Running,
    cluster,
    command,
    print_json,
    progress,
    running,
    weight_option,
)


@command(
    "report",
    "streamgmm report model.zarr data.zarr --out report.html",
    "streamgmm report model.zarr --out model-alone.html",
)
@click.argument("model", type=PLACE)
@click.argument("data", type=PLACE, required=False)
@click.option(
    "--out",
    required=True,
    type=click.Path(),
    metavar="FILE",
    help="Where to write the page of HTML.",
)
@weight_option
@rows_options
@running
def report_command(
    model: str,
    data: str | None,
    out: str,
    sample_weight: str | None,
    given: Given,
    how: Running,
) -> None:
    """Write a page of HTML about MODEL and all rows of DATA.

    It is one file, and needs no network. DATA are read once. Rows with gaps are counted, and left
    out of the rest. Of a pipeline it is about the model at its end, and the rows as it sees them.
    """
    from streamgmm.estimators.loading import load
    from streamgmm.estimators.pipelines import apart, open_for
    from streamgmm.pages.report import check_page

    check_page(out, how.overwrite)
    loaded = load(model)
    source, (_, last) = None, apart(loaded)
    if data is not None:
        last, source = open_for(loaded, given.open(data, sample_weight))
    last.set_params(block_size=how.block_size, n_jobs=how.threads)
    with cluster(how), progress(how.quiet):
        last._write_report(out, source, overwrite=how.overwrite, commands=[_repeated()])
    size = os.path.getsize(out)
    if how.as_json:
        print_json({"report": out, "model": model, "data": data, "bytes": size})
        return
    print(f"{out}: {size / 1e6:.1f} MB; open it in a browser")


def _repeated() -> str:
    """The command as it was given, with --overwrite, so that it can be given again."""
    context = click.get_current_context()
    words = ["streamgmm", "report"]
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if isinstance(parameter, click.Argument):
            words += [] if value is None else [shlex.quote(str(value))]
        elif isinstance(value, bool) or value is None or value == parameter.default:
            continue
        else:
            words += [parameter.opts[0], shlex.quote(str(value))]
    return " ".join(words)
