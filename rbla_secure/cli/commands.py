"""The registry of commands, in the order of the help."""

from typing import Final

from rbla_secure.cli import account, audit, check, config, evaluate, keys, resume, run
from rbla_secure.cli.command import Command, CommandGroup

COMMANDS: Final[tuple[Command | CommandGroup, ...]] = (
    run.COMMAND,
    resume.COMMAND,
    check.COMMAND,
    config.COMMAND,
    account.COMMAND,
    audit.COMMAND,
    evaluate.COMMAND,
    keys.COMMANDS,
)
