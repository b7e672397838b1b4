"""The command line: parse, call, print.

Results go to standard output, as tables or (``--json``) one JSON object; progress, warnings and
errors to standard error. What a person can mend ends with one line and exit status 2; Ctrl-C
ends with 130. Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import click

from streamgmm._version import __version__
from streamgmm.cli.follow import follow_command
from streamgmm.cli.options import (
    cache_option,
    cluster,
    events,
    json_option,
    print_json,
    progress,
    running,
)
from streamgmm.cli.plan import plan_command
from streamgmm.cli.select import select_command
from streamgmm.errors import ParameterError, StreamGMMError

INTERRUPTED = 130
MISTAKEN = 2
SHOWN_FEATURES = 6
INIT = ("kmeans", "k-means++", "random", "random_from_data")
WHAT = ("labels", "proba", "log-density")


def main(args: list[str] | None = None) -> int:
    """Run a command; give its exit status."""
    warnings.showwarning = _show_warning
    try:
        commands.main(args, prog_name="streamgmm", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        print("streamgmm: interrupted", file=sys.stderr)
        return INTERRUPTED
    except click.ClickException as error:
        hint = ""
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f"; see {error.ctx.command_path} --help"
        return _fail(error.format_message().rstrip(".") + hint)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - whatever is flushed at exit goes there
        return 1
    except (StreamGMMError, OSError) as error:
        return _fail(str(error).replace("overwrite=True", "--overwrite"))
    return 0


def _fail(message: str) -> int:
    print("streamgmm:", " ".join(message.split()), file=sys.stderr)
    return MISTAKEN


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    if not issubclass(category, (DeprecationWarning, PendingDeprecationWarning)):
        print("streamgmm: warning:", " ".join(str(message).split()), file=sys.stderr)


@click.group(
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 99},
)
@click.version_option(__version__, message="streamgmm %(version)s")
def commands() -> None:
    """Gaussian mixtures by exact EM for data larger than memory.

    DATA is a two-dimensional Zarr array of rows: a path (data.zarr, data.zarr/name) or a URL
    (s3://...).
    """


@commands.command("fit")
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
    described = _describe_model(model)
    if as_json:
        print_json({"model": out, "data": data, "seconds": seconds} | described)
        return
    _print_components(described)
    print(
        f"{_ended(described)} after {described['n_iter']} iterations and "
        f"{described['passes']:.1f} reads of {source.n_samples:,} rows in {seconds:.1f} s; "
        f"saved in {out}"
    )
    print(f"next: streamgmm predict {out} {data} --out labels.zarr")


@commands.command("predict")
@click.argument("model")
@click.argument("data")
@click.option("--out", required=True, metavar="ARRAY", help="Where to write a Zarr array.")
@click.option(
    "--what",
    type=click.Choice(WHAT),
    default="labels",
    show_default=True,
    help="The likeliest component of each row; the probability of each; or the log-density.",
)
@running
def predict_command(
    model: str,
    data: str,
    out: str,
    what: str,
    workers: int | None,
    scheduler: str | None,
    threads: int | None,
    block_size: str,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write what MODEL says of every row of DATA to a Zarr array.

    Example: streamgmm predict model.zarr data.zarr --out labels.zarr
    """
    from streamgmm.estimators.loading import load
    from streamgmm.predict import predict_to
    from streamgmm.sources import open_source

    mixture = load(model)._mixture()
    source = open_source(data)
    started = time.perf_counter()
    with cluster(workers, scheduler, threads), progress(quiet) as bar:
        done = 0

        def on_block(rows: int) -> None:
            nonlocal done
            done += rows
            if bar is not None:
                bar.tell("predict", done, source.n_samples)

        array, tally = predict_to(
            source,
            mixture,
            out,
            what=what.replace("-", "_"),
            overwrite=overwrite,
            block_size=int(block_size) if block_size.isdigit() else block_size,
            n_threads=threads,
            on_block=on_block,
        )
    seconds = time.perf_counter() - started
    if as_json:
        print_json(
            {
                "out": out,
                "what": what,
                "shape": list(array.shape),
                "dtype": str(array.dtype),
                "rows": tally.n_rows,
                "rows_by_component": tally.counts.tolist(),
                "lowest_log_density": tally.lowest,
                "lowest_row": tally.lowest_row,
                "seconds": seconds,
            }
        )
        return
    counts = ", ".join(f"{k}: {n:,}" for k, n in enumerate(tally.counts))
    print(f"{what} of {tally.n_rows:,} rows in {seconds:.1f} s; written to {out}")
    print(f"rows by component: {counts}")
    print(f"least likely row: {tally.lowest_row} (log-density {tally.lowest:.3f})")


@commands.command("info")
@click.argument("path", metavar="MODEL_OR_DATA")
@json_option
def info_command(path: str, as_json: bool) -> None:
    """Say what a model, an array of rows or an output is."""
    from streamgmm.estimators.loading import load
    from streamgmm.storage import is_model
    from streamgmm.storage.output import is_unfinished

    if is_model(path):
        described = {"kind": "model", "path": path} | _describe_model(load(path))
        if as_json:
            print_json(described)
            return
        _print_components(described)
        print(
            f"{described['covariance_type']} covariances, {described['n_features']} features; "
            f"{_came_to_be(described)}"
        )
        return
    if is_unfinished(path):
        described = {"kind": "unfinished output", "path": path}
        said = f"{path}: an output that is being written, or was when its writer ended"
    else:
        described = {"kind": "array", "path": path} | _describe_array(path)
        said = (
            f"{path}: a Zarr array of shape {tuple(described['shape'])}, {described['dtype']}, "
            f"{described['bytes']:,} bytes\nchunks of {tuple(described['chunks'])}"
        )
        if described["blocks"] is not None:
            said += f", read as {described['blocks']} blocks"
    if as_json:
        print_json(described)
    else:
        print(said)


@commands.command("demo")
@click.option("--out", default="streamgmm-demo", show_default=True, metavar="FOLDER")
@click.option("--frames", type=click.IntRange(1), help="Views of the photograph; all by default.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True)
@click.option("--memory", help="What each worker may use, such as 700MiB.")
def demo_command(out: str, frames: int | None, workers: int, memory: str | None) -> None:
    """Segment a real photograph, from more rows than the workers' memory holds."""
    given = {"n_frames": frames, "worker_memory": memory}
    _workflow("segment_photo").segment(
        out, n_workers=workers, **{k: v for k, v in given.items() if v is not None}
    )


commands.add_command(follow_command)


commands.add_command(plan_command)
commands.add_command(select_command)


def _workflow(name: str) -> Any:
    """A script of ``workflows/``: installed in the package, or in the repository."""
    package = Path(__file__).parents[1]
    for folder in (package / "workflows", package.parent / "workflows"):
        path = folder / f"{name}.py"
        if path.is_file():
            spec = importlib.util.spec_from_file_location(name, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise ParameterError(f"workflows/{name}.py is not installed; install streamgmm again")


def _describe_model(model: Any) -> dict[str, Any]:
    mixture = model._mixture()
    variances = mixture.family.variances(mixture.covariances, *mixture.means.shape)
    return {
        "class": type(model).__name__,
        "covariance_type": model.covariance_type,
        "n_components": mixture.n_components,
        "n_features": mixture.n_features,
        **_describe_learning(model),
        "components": [
            {"weight": weight, "mean": mean.tolist(), "standard_deviation": sigma.tolist()}
            for weight, mean, sigma in zip(
                mixture.weights.tolist(), mixture.means, variances**0.5, strict=True
            )
        ],
    }


def _describe_learning(model: Any) -> dict[str, Any]:
    """How the model came to be: fitted in passes, or learned from a stream."""
    if not hasattr(model, "history_"):
        seen = model.monitor_
        last = seen["log_likelihood"].tolist()[-1:]
        return {
            "rows": model.n_samples_seen_,
            "log_likelihood_per_row": last[0] if last else None,
            "alarms": seen["alarms"],
            "changes": seen["changes"],
        }
    return {
        "converged": model.converged_,
        "n_iter": model.n_iter_,
        "passes": float(model.history_["passes"][-1]),
        "lower_bound": model.lower_bound_,
        "log_likelihood": float(model.history_["log_likelihood"][-1]),
    }


def _describe_array(path: str) -> dict[str, Any]:
    from streamgmm.sources import open_source, parse_block_size
    from streamgmm.sources.zarr_open import open_ref

    array = open_ref(path).array
    blocks = None
    if array.ndim == 2 and array.dtype.kind in "buif" and array.size:
        source = open_source(path)
        blocks = len(source.blocks(parse_block_size("auto", source)))
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "bytes": int(array.nbytes),
        "chunks": list(array.chunks),
        "blocks": blocks,
    }


def _ended(described: dict[str, Any]) -> str:
    return "converged" if described["converged"] else "not converged"


def _came_to_be(described: dict[str, Any]) -> str:
    if "alarms" in described:
        latest = described["alarms"][-3:]
        alarms = "".join(f"; alarm after row {a['row']:,} ({a['kind']})" for a in latest)
        return f"learned from {described['rows']:,} rows{alarms}"
    return f"{_ended(described)} after {described['n_iter']} iterations"


def _print_components(described: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{described['n_components']} components: mean ± standard deviation")
    shown = min(SHOWN_FEATURES, described["n_features"])
    for name in ("", "weight", *(f"x{d}" for d in range(shown))):
        table.add_column(name, justify="right")
    if shown < described["n_features"]:
        table.add_column(f"and {described['n_features'] - shown} more")
    for k, component in enumerate(described["components"]):
        values = zip(component["mean"], component["standard_deviation"], strict=True)
        cells = [f"{m:.4g} ± {s:.2g}" for m, s in list(values)[:shown]]
        table.add_row(str(k), f"{component['weight']:.4f}", *cells)
    Console(file=sys.stdout).print(table)


if __name__ == "__main__":
    sys.exit(main())
