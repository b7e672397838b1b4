"""What commands share: where they run, how they show progress and print JSON."""

from __future__ import annotations

import importlib
import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import click

from streamgmm.errors import ParameterError


def running(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of every command that makes passes."""
    options = [
        click.option(
            "--workers", type=click.IntRange(1), help="Run on N processes of this machine."
        ),
        click.option("--scheduler", metavar="ADDRESS", help="Run on a Dask cluster."),
        click.option(
            "--threads", type=click.IntRange(1), help="Run on N threads of this process."
        ),
        click.option(
            "--block-size",
            default="auto",
            show_default=True,
            metavar="SIZE",
            help="Bytes of rows that a task reads, such as 64MiB.",
        ),
        click.option("--overwrite", is_flag=True, help="Replace what is at --out."),
        click.option("--quiet", "-q", is_flag=True, help="Show no progress."),
        json_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


cache_option = click.option(
    "--cache/--no-cache",
    default=True,
    show_default=True,
    help="Keep decoded rows between passes if they fit in an eighth of memory.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@contextmanager
def cluster(workers: int | None, scheduler: str | None, threads: int | None) -> Iterator[None]:
    """Have an active client while inside, where one was asked for."""
    given = {"--workers": workers, "--scheduler": scheduler, "--threads": threads}
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

    # A worker that is lost again while it is being replaced would be given up for good.
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
    """Leave Ctrl-C, which reaches every process of a terminal, to the one that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def progress(quiet: bool) -> Any:
    """A progress bar for every pass inside, or nothing."""
    from streamgmm.progress import ProgressBar

    return nullcontext() if quiet else ProgressBar()


@contextmanager
def events(wanted: bool) -> Iterator[None]:
    """Lines of JSON on standard error for all that the log is told, where wanted."""
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
    """One line of strict JSON: what is not finite is null."""

    def strict(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: strict(inner) for key, inner in item.items()}
        if isinstance(item, list):
            return [strict(inner) for inner in item]
        if isinstance(item, float) and not (abs(item) < float("inf")):
            return None
        return item

    print(json.dumps(strict(value)))
