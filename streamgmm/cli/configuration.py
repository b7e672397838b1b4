"""Settings from a file: a TOML table for each command, with its options by their names.

    threads = 4            # of every command that has it

    [fit]
    covariance = "diag"
    cache = false          # --no-cache

What stands on the command line goes before the environment (``STREAMGMM_FIT_COVARIANCE``), and
that before the file.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any

import click

NAME = "streamgmm.toml"


def find() -> Path | None:
    """The file that is read where none is named: here, or in the folder for settings."""
    for folder in (Path(), Path(click.get_app_dir("streamgmm"))):
        path = folder / NAME
        if path.is_file():
            return path
    return None


def read(path: Path, group: click.Group) -> dict[str, dict[str, Any]]:
    """Read the defaults of every command, by the names of its parameters.

    Raises
    ------
    click.UsageError
        If the file cannot be read, or names a command or an option that there is not.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise click.UsageError(f"the configuration '{path}' cannot be read: {error}") from error
    options = {name: _options(command) for name, command in group.commands.items()}
    defaults: dict[str, dict[str, Any]] = {name: {} for name in options}
    for key, value in found.items():
        if isinstance(value, dict):
            if key not in options:
                raise _unknown(path, f"command '{key}'", key, options)
            continue
        having = [name for name in options if key in options[name]]
        if not having:
            every = {each for known in options.values() for each in known}
            raise _unknown(path, f"option '{key}' of any command", key, every)
        for name in having:
            defaults[name][options[name][key]] = value
    for name, table in found.items():
        if not isinstance(table, dict):
            continue
        for key, value in table.items():
            if key not in options[name]:
                raise _unknown(path, f"option '{key}' of '{name}'", key, options[name])
            defaults[name][options[name][key]] = value
    return defaults


def _options(command: click.Command) -> dict[str, str]:
    """The parameter of each option, by its long names without dashes."""
    return {
        name.removeprefix("--"): str(each.name)
        for each in command.params
        if isinstance(each, click.Option)
        for name in each.opts
        if name.startswith("--")
    }


def _unknown(path: Path, what: str, name: str, known: Any) -> click.UsageError:
    near = difflib.get_close_matches(name, list(known), 1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return click.UsageError(f"the configuration '{path}' knows no {what}{hint}")
