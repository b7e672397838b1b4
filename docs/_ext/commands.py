"""The directive ``commands``: the help of every command of the command line, as it prints it."""

import click
from docutils import nodes
from docutils.parsers.rst import Directive

from streamgmm.cli.main import commands

WIDTH = 80


class Commands(Directive):
    """A section for each command."""

    def run(self):
        """Give the sections."""
        found = []
        for name in sorted(commands.commands):
            command = commands.commands[name]
            context = click.Context(
                command,
                info_name=f"streamgmm {name}",
                terminal_width=WIDTH,
                help_option_names=commands.context_settings["help_option_names"],
            )
            section = nodes.section(ids=[f"streamgmm-{name}"], names=[name])
            section += nodes.title(text=f"streamgmm {name}")
            text = command.get_help(context)
            section += nodes.literal_block(text, text, language="text")
            found.append(section)
        return found


def setup(app):
    """Register the directive."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
