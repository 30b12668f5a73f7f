"""The command line as the page docs/commands.md, from its parser.

The page does not use argparse's help, which depends on the width of the terminal and on the version of Python.
"""

import argparse
from collections.abc import Iterable, Iterator
from typing import Final

_INTRODUCTION: Final = """\
# Commands

Exit codes: 0 done, 1 refused or failed (the content of a configuration included), 2 bad command line. An error is one line on standard
error that begins with `rbla-secure:`. With `--json` the last line of standard output is one JSON object (after an error, with its name as
`error` and its text as `message`), and everything for people goes to standard error.

CONFIG is a TOML file with the keys of [Configuration](configuration.md).
"""


def commands_page(parser: argparse.ArgumentParser) -> str:
    """Every command with its usage and arguments, as Markdown."""
    parts = [_INTRODUCTION.rstrip()]
    for each in _parsers(parser):
        parts += _command(each)
    return "\n\n".join(parts) + "\n"


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of all commands and of their actions, in the order of the help; not the parser itself."""
    for action in _actions(parser):
        if isinstance(action.choices, dict):
            for each in action.choices.values():
                yield each
                yield from _parsers(each)


def _command(parser: argparse.ArgumentParser) -> Iterator[str]:
    depth = len(parser.prog.split())
    yield f"{'#' * depth} `{parser.prog}`"
    yield parser.description or ""
    if any(isinstance(action.choices, dict) for action in _actions(parser)):
        return  # its actions have usages of their own
    yield f"```\n{' '.join([parser.prog, *map(_usage, _actions(parser))])}\n```"
    groups = [group for group in parser._action_groups if group.description]  # noqa: SLF001 - not listed publicly
    grouped = [action for group in groups for action in group._group_actions]  # noqa: SLF001 - the same
    yield _list(action for action in _actions(parser) if action not in grouped)
    for group in groups:
        yield f"{str(group.title).capitalize()}, {group.description}:"
        yield _list(group._group_actions)  # noqa: SLF001 - the same
    if parser.epilog:
        yield parser.epilog


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the documented arguments, without ``--help``, which every command has."""
    actions = parser._actions  # noqa: SLF001 - argparse has no public list of its arguments
    return [
        each for each in actions if each.help != argparse.SUPPRESS and "--help" not in each.option_strings
    ]


def _list(actions: Iterable[argparse.Action]) -> str:
    return "\n".join(f"* `{_name(action)}`: {_help(action)}" for action in actions)


def _usage(action: argparse.Action) -> str:
    several = "..." if isinstance(action.default, list) else ""
    needed = action.required and action.nargs != "?"
    return (_name(action) if needed else f"[{_name(action)}]") + several


def _name(action: argparse.Action) -> str:
    """``--out DIR``, ``--quick``, ``--explain [KEY]`` or ``CONFIG``."""
    value = str(action.metavar or "|".join(action.choices or ()))
    if not action.option_strings or not value:
        return value or action.option_strings[0]
    return f"{action.option_strings[0]} {f'[{value}]' if action.nargs == '?' else value}"


def _help(action: argparse.Action) -> str:
    return f"{(action.help or '') % {'default': action.default}}."
