"""Options that commands share: where they run, progress, JSON."""

from __future__ import annotations

import functools
import importlib
import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import click

from streamgmm.errors import ParameterError

Command = TypeVar("Command", bound=Callable[..., Any])

COVARIANCES = ("full", "tied", "diag", "spherical")

PLACE = click.Path()
"""A path, which a shell completes, or a URL."""


class ExampledCommand(click.Command):
    """A command whose help ends with examples, each on a line of its own."""

    examples: tuple[str, ...] = ()

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        with formatter.section("Examples"):
            for line in self.examples:
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


def command(name: str, *examples: str) -> Callable[[Callable[..., None]], ExampledCommand]:
    """Make a function a command, with examples of its use."""

    def make(function: Callable[..., None]) -> ExampledCommand:
        made = click.command(name, cls=ExampledCommand)(function)
        made.examples = examples
        return made

    return make


@dataclass(frozen=True)
class Running:
    """How a command that makes passes runs: the options that `running` adds."""

    workers: int | None
    scheduler: str | None
    threads: int | None
    block_size: int | str
    overwrite: bool
    quiet: bool
    as_json: bool


def running(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a command that makes passes and writes; it is given them as ``how``."""
    overwrite = click.option("--overwrite", is_flag=True, help="Replace what is at --out.")
    return _given_how(command, [*_where(), block_size_option, overwrite])


def reading(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a command that makes passes and writes nothing; as `running`."""
    return _given_how(command, [*_where(), block_size_option])


def _given_how(command: Callable[..., None], added: list[Any]) -> Callable[..., None]:
    @functools.wraps(command)
    def run(**options: Any) -> None:
        names = [each.name for each in fields(Running)]
        how = Running(**{name: options.pop(name, False) for name in names})
        command(how=how, **options)

    for option in reversed([*added, quiet_option, json_option]):
        run = option(run)
    return run


def _where() -> list[Any]:
    one = click.IntRange(1)
    return [
        click.option("--workers", type=one, help="Run on N processes of this machine."),
        click.option("--scheduler", metavar="ADDRESS", help="Run on a Dask cluster."),
        click.option("--threads", type=one, help="Run on N threads of this process."),
    ]


block_size_option = click.option(
    "--block-size",
    callback=lambda ctx, param, value: int(value) if value.isdigit() else value,
    default="auto",
    show_default=True,
    metavar="SIZE",
    help="Bytes of rows that a task reads, such as 64MiB.",
)

cache_option = click.option(
    "--cache/--no-cache",
    default=True,
    show_default=True,
    help="Keep decoded rows between passes if they fit in an eighth of memory.",
)

quiet_option = click.option("--quiet", "-q", is_flag=True, help="Show no progress.")

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")

components_option = click.option(
    "-k", "--n-components", type=click.IntRange(1), required=True, help="Components."
)

max_iter_option = click.option(
    "--max-iter",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Iterations at most.",
)

weight_option = click.option(
    "--sample-weight",
    type=PLACE,
    metavar="PATH",
    help="A Zarr array of a weight for each row, or the name of a variable.",
)


def covariance_option(
    help: str | None = None, more: tuple[str, ...] = ()
) -> Callable[[Command], Command]:
    """Give the option for one covariance type; `more` are types that not every command has."""
    return click.option(
        "--covariance",
        type=click.Choice((*COVARIANCES, *more)),
        help=f"full by default. {help or ''}".rstrip(),
    )


def family_option(multiple: bool = False) -> Callable[[Command], Command]:
    """Give the option for a family of components, by its name."""
    return click.option(
        "--family",
        multiple=multiple,
        metavar="NAME",
        help="Components of another family, such as poisson, in the place of --covariance."
        + " May be given more than once." * multiple,
    )


def excluded(family: Any, covariance: Any) -> None:
    """Refuse both ways to say what components are."""
    if family and covariance:
        raise click.UsageError("--family and --covariance exclude one another")


@contextmanager
def cluster(how: Running) -> Iterator[None]:
    """Have an active client while inside, where one was asked for."""
    workers, scheduler = how.workers, how.scheduler
    given = {"--workers": workers, "--scheduler": scheduler, "--threads": how.threads}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise click.UsageError(f"{' and '.join(named)} exclude one another")
    if workers is None and scheduler is None:
        yield
        return
    import logging

    distributed: Any = importlib.import_module("distributed")
    if scheduler is not None:
        try:
            client = distributed.Client(scheduler, timeout="10s", set_as_default=False)
        except (OSError, ValueError, ImportError) as error:
            cause = " ".join(str(error).split()) or type(error).__name__
            raise ParameterError(
                f"no scheduler answers at '{scheduler}' ({cause}); give the address that "
                "dask-scheduler prints, such as tcp://host:8786"
            ) from error
        with client, client.as_current():
            yield
        return

    import dask

    # With the default timeout, a worker that dies while it is being restarted is given up.
    patience = dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"})
    with (
        patience,
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.register_worker_callbacks(_ignore_interrupt)
        yield


def _ignore_interrupt() -> None:
    """Ignore Ctrl-C in workers: the terminal sends it to all processes, and the parent acts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def progress(quiet: bool) -> Any:
    """A progress bar for every pass inside, or nothing."""
    from streamgmm.progress import ProgressBar

    return nullcontext() if quiet else ProgressBar()


@contextmanager
def events(wanted: bool) -> Iterator[None]:
    """Write the log as lines of JSON on standard error, if wanted."""
    import logging

    from streamgmm.progress import JsonLines

    log = logging.getLogger("streamgmm")
    handler = JsonLines(sys.stderr)
    level = log.level
    if wanted:
        log.addHandler(handler)
        log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def print_json(value: dict[str, Any]) -> None:
    """Print one line of strict JSON; NaN and infinity are null."""

    def strict(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: strict(inner) for key, inner in item.items()}
        if isinstance(item, list):
            return [strict(inner) for inner in item]
        if isinstance(item, float) and not (abs(item) < float("inf")):
            return None
        return item

    print(json.dumps(strict(value)))
