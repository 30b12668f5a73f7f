"""The parts of a command of the command line."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

Result = dict[str, object]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command.

    Args:
        name: The verb as it is typed.
        summary: One line for the list of commands.
        description: One paragraph on what the command does, for its own help and docs/commands.md.
        notes: A further paragraph after the arguments, such as the keys of its JSON object; empty for none.
        add_arguments: Declares the arguments; ``--json`` is added to every command.
        run: Does the work and returns the object that ``--json`` prints.
    """

    name: str
    summary: str
    description: str
    notes: str = ""
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Result]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CommandGroup:
    """Verbs under one name, such as ``keys enrol``.

    Args:
        name: The name as it is typed.
        summary: One line for the list of commands.
        description: One paragraph on what the verbs have in common.
        actions: The verbs.
    """

    name: str
    summary: str
    description: str
    actions: tuple[Command, ...]
