"""The manual page, from the commands themselves.

python -m streamgmm.cli.manual > docs/streamgmm.1
"""

from __future__ import annotations

from typing import Any

import click

from streamgmm._version import __version__
from streamgmm.cli.main import __doc__ as OF_THE_COMMAND_LINE
from streamgmm.cli.main import commands
from streamgmm.cli.options import ExampledCommand

ENVIRONMENT = """\
Every option has a variable: STREAMGMM_, the command, the option, such as STREAMGMM_FIT_SEED.
They go before the file that --config names, and after what is typed."""


def manual() -> str:
    """Write the page, in the macros of man(7)."""
    lines = [
        f'.TH STREAMGMM 1 "" "streamgmm {__version__}" "User Commands"',
        ".SH NAME",
        "streamgmm \\- mixture models by exact EM for data larger than memory",
        ".SH SYNOPSIS",
        ".B streamgmm",
        "[\\fB\\-\\-config\\fR \\fIFILE\\fR] \\fICOMMAND\\fR [\\fIARGUMENTS\\fR]",
        ".SH DESCRIPTION",
        *_paragraphs(commands.help or ""),
        ".SH OPTIONS",
        *_options(commands),
        ".SH COMMANDS",
    ]
    for name in sorted(commands.commands):
        lines += _command(name, commands.commands[name])
    status = (OF_THE_COMMAND_LINE or "").partition("Exit statuses: ")[2].strip()
    lines += [".SH EXIT STATUS"]
    for entry in status.rstrip(".").split(";"):
        number, _, meaning = " ".join(entry.split()).partition(", ")
        lines += [".TP", f".B {number}", _text(f"{meaning}.")]
    lines += [".SH ENVIRONMENT", *_paragraphs(ENVIRONMENT)]
    return "\n".join(lines) + "\n"


def _command(name: str, command: click.Command) -> list[str]:
    arguments = [each for each in command.params if isinstance(each, click.Argument)]
    named = " ".join((each.metavar or str(each.name)).upper() for each in arguments)
    lines = [
        f".SS {name}",
        f".B streamgmm {name}",
        f"[\\fIOPTIONS\\fR] \\fI{_text(named)}\\fR",
        ".PP",
        *_paragraphs(command.help or ""),
        *_options(command),
    ]
    examples = command.examples if isinstance(command, ExampledCommand) else ()
    if examples:
        lines += [".PP", "Examples:", ".PP", ".nf", ".RS"]
        lines += [_text(each) for each in examples]
        lines += [".RE", ".fi"]
    return lines


def _options(command: click.Command) -> list[str]:
    lines = []
    for each in command.params:
        if isinstance(each, click.Option) and not each.hidden:
            names = ", ".join(f"\\fB{_text(name)}\\fR" for name in _names(each))
            value = "" if each.is_flag else f" \\fI{_text(_value(each))}\\fR"
            lines += [".TP", names + value, _text(_help(each))]
    return lines


def _names(option: click.Option) -> list[str]:
    """All names, the short ones first."""
    return sorted([*option.opts, *option.secondary_opts], key=lambda name: name.startswith("--"))


def _value(option: click.Option) -> str:
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Choice):
        return "|".join(option.type.choices)
    return str(option.type.name).partition(" ")[0].upper()


def _help(option: click.Option) -> str:
    said = " ".join((option.help or "").split())
    if option.required:
        return f"{said} Required."
    shown: Any = option.default
    if option.show_default and not option.is_flag and shown is not None:
        return f"{said} By default {shown}."
    return said


def _paragraphs(text: str) -> list[str]:
    found = [_text(" ".join(part.split())) for part in text.split("\n\n")]
    return [line for part in found for line in (part, ".PP")][:-1]


def _text(text: str) -> str:
    """Escape what is a macro or a hyphenation."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    print(manual(), end="")
