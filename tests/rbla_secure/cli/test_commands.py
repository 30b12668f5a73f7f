"""The registry: a command is one file and one line, and the parser needs nothing else."""

import argparse
import importlib
from pathlib import Path

import pytest

import rbla_secure.cli
from rbla_secure.cli.command import Command, CommandGroup
from rbla_secure.cli.commands import COMMANDS
from rbla_secure.cli.parser import build_parser

FOLDER = Path(rbla_secure.cli.__file__).parent


def declared() -> set[str]:
    """The verbs that any file of the folder declares."""
    modules = [importlib.import_module(f"rbla_secure.cli.{path.stem}") for path in FOLDER.glob("[a-z]*.py")]
    found = [
        each
        for module in modules
        for each in vars(module).values()
        if isinstance(each, (Command, CommandGroup))
    ]
    return {each.name for each in found}


def test_every_command_is_registered_once() -> None:
    """A file with a command that the registry has forgotten would be dead code."""
    names = [command.name for command in COMMANDS]

    assert len(names) == len(set(names))
    assert (
        declared()
        == set(names)
        == {"run", "resume", "check", "config", "account", "audit", "evaluate", "keys"}
    )


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_command_has_a_file_of_its_name(command: Command | CommandGroup) -> None:
    """Whoever looks for a verb finds its file."""
    assert (FOLDER / f"{command.name}.py").is_file()


def test_a_new_command_needs_the_registry_alone() -> None:
    """A command that is added to the registry parses its arguments, has --json, and is called with them."""

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--times", type=int, default=1)

    greet = Command(
        name="greet",
        summary="say hello",
        description="Says hello.",
        add_arguments=add_arguments,
        run=lambda options: {"hello": options.times},
    )

    options = build_parser((*COMMANDS, greet)).parse_args(["greet", "--times", "3", "--json"])

    assert options.run(options) == {"hello": 3}
    assert options.json


def test_every_action_of_a_group_is_a_command_too() -> None:
    """Actions are parsed below their group."""
    options = build_parser().parse_args(["keys", "show", "folder"])

    assert options.folder == Path("folder")
    assert not options.json
