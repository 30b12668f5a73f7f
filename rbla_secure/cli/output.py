"""Where commands write: for people to standard output, or with ``--json`` to standard error."""

import argparse
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console


def say(options: argparse.Namespace, *lines: str) -> None:
    """Print lines for people."""
    for line in lines:
        print(line, file=_stream(options))


def console(options: argparse.Namespace) -> "Console":
    """A console for people, with progress bars where it is a terminal."""
    from rich.console import Console

    return Console(file=_stream(options), highlight=False)


def _stream(options: argparse.Namespace) -> TextIO:
    return sys.stderr if options.json else sys.stdout
