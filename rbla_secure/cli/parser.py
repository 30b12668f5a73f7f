"""The parser of the whole command line, from the registry of commands."""

import argparse
from collections.abc import Sequence

from rbla_secure import __version__
from rbla_secure.cli.command import Command, CommandGroup
from rbla_secure.cli.commands import COMMANDS


def build_parser(commands: Sequence[Command | CommandGroup] = COMMANDS) -> argparse.ArgumentParser:
    """The parser of ``rbla-secure``; what it parses has the function to call in ``run``.

    Args:
        commands: The commands of ``rbla-secure``, in the order of the help.
    """
    parser = argparse.ArgumentParser(prog="rbla-secure", description="Secure federated LoRA fine-tuning.")
    parser.add_argument(
        "--version", action="version", version=f"rbla-secure {__version__}", help="print name and version"
    )
    _add(parser, commands, "COMMAND")
    return parser


def _add(parser: argparse.ArgumentParser, commands: Sequence[Command | CommandGroup], metavar: str) -> None:
    places = parser.add_subparsers(required=True, metavar=metavar)
    for command in commands:
        own = places.add_parser(command.name, help=command.summary, description=command.description)
        if isinstance(command, CommandGroup):
            _add(own, command.actions, "ACTION")
            continue
        own.epilog = command.notes or None
        command.add_arguments(own)
        own.add_argument("--json", action="store_true", help="print one JSON object as the last line")
        own.set_defaults(run=command.run)
