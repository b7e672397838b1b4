"""The command line: parse, call, print; a file for each command."""

from streamgmm.cli.main import main

__all__ = ["main"]
