"""`--version` and every `--help` answer without loading a library: counted as modules in a fresh process, not as time."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest

from rbla_secure.cli.command import CommandGroup
from rbla_secure.cli.commands import COMMANDS
from tests.support.tiny_job import environment

# Prints the modules that were loaded since the interpreter was up, so that what a site configuration loads does not count.
PROGRAM = """
import contextlib, io, json, sys
before = set(sys.modules)
from rbla_secure.cli import main
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main(arguments)
print(json.dumps(sorted(set(sys.modules) - before)))
"""
LIGHT = (
    "rbla_secure.cli",
    "rbla_secure.errors",
    "rbla_secure.identities.passphrases",
    "rbla_secure.run_names",
    "protocols.errors",
    "protocols.primitives.secret",
)
PACKAGES = {"rbla_secure", "rbla_secure.identities", "protocols", "protocols.primitives"}


def every_help() -> Iterator[list[str]]:
    """The help of the program, of every command, and of every action."""
    yield ["--help"]
    for command in COMMANDS:
        yield [command.name, "--help"]
        if isinstance(command, CommandGroup):
            yield from ([command.name, action.name, "--help"] for action in command.actions)


def modules(*command_lines: Sequence[str]) -> set[str]:
    """What is loaded in a fresh process that runs these command lines."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(command_lines)],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    return set(json.loads(ended.stdout.splitlines()[-1]))


def foreign(loaded: set[str]) -> set[str]:
    """Of these, whatever is neither of the standard library nor one of our light modules."""
    return {
        name
        for name in loaded - PACKAGES
        if name.split(".")[0] not in sys.stdlib_module_names and not name.startswith(LIGHT)
    }


@pytest.mark.parametrize("command_lines", [[["--version"]], list(every_help())], ids=["version", "help"])
def test_version_and_help_load_no_library(command_lines: list[list[str]]) -> None:
    """The standard library and the command line's own files are all that is loaded."""
    loaded = modules(*command_lines)

    assert foreign(loaded) == set()
    assert "rbla_secure.cli.run" in loaded


@pytest.mark.parametrize(
    ("command_line", "library"),
    [
        (["config"], "pydantic"),
        (["keys", "list", "--dir", "nowhere"], "cryptography"),
        (["check", "--set", "min-holders=99"], "numpy"),
    ],
)
def test_the_count_sees_what_a_command_loads(command_line: list[str], library: str) -> None:
    """Control: the same count finds the libraries that a command works with."""
    loaded = modules(command_line)

    assert library in {name.split(".")[0] for name in foreign(loaded)}


def test_every_help_is_asked_for() -> None:
    """Control: the command lines above are all that there are, actions of a group too."""
    lines = list(every_help())

    assert ["keys", "enrol", "--help"] in lines
    assert len(lines) == 1 + len(COMMANDS) + 6
