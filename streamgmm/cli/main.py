"""The command line: parse, call, print.

Results go to standard output, as tables or with ``--json`` as one JSON object. Progress, warnings
and errors go to standard error. Heavy modules are imported only by the commands that need them.

Exit statuses: 0, done; 1, the reader of standard output went away, or a fault of this program,
with a traceback; 2, a mistake or bad data, said in one line; 130, interrupted by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import click

from streamgmm._version import __version__
from streamgmm.cli import configuration
from streamgmm.cli.convert import convert_command
from streamgmm.cli.demo import demo_command
from streamgmm.cli.fit import fit_command
from streamgmm.cli.follow import follow_command
from streamgmm.cli.info import info_command
from streamgmm.cli.plan import plan_command
from streamgmm.cli.predict import predict_command
from streamgmm.cli.report import report_command
from streamgmm.cli.sample import sample_command
from streamgmm.cli.score import score_command
from streamgmm.cli.select import select_command
from streamgmm.errors import StreamGMMError

INTERRUPTED = 130
MISTAKEN = 2


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
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 80,
        "auto_envvar_prefix": "STREAMGMM",
    },
    epilog="Exit status: 0 done, 2 a mistake or bad data, 130 interrupted. Every option has a "
    "variable of the environment, such as STREAMGMM_FIT_SEED.",
)
@click.version_option(__version__, message="streamgmm %(version)s")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"Settings in TOML; {configuration.NAME} here, or where settings are kept, by default.",
)
@click.pass_context
def commands(ctx: click.Context, config: Path | None) -> None:
    """Gaussian and other mixtures by exact EM for data larger than memory.

    DATA is a Zarr array of rows: a path (data.zarr, data.zarr/name) or a URL (s3://...). Cubes
    and groups are rows too: see --feature-axis and --features.
    """
    path = config or configuration.find()
    if path is not None:
        ctx.default_map = configuration.read(path, commands)


for command in (
    fit_command,
    predict_command,
    score_command,
    info_command,
    convert_command,
    demo_command,
    follow_command,
    plan_command,
    report_command,
    sample_command,
    select_command,
):
    commands.add_command(command)
