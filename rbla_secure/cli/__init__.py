"""The command line, one file a verb: ``rbla-secure run | resume | check | account | audit | evaluate | keys | config``.

Exit codes: 0 done, 1 refused or failed (the content of a configuration included), 2 bad command line. With ``--json``
the last line of standard output is one JSON object and everything for people goes to standard error.

A new command is one file with a :class:`rbla_secure.cli.command.Command` in it and one line in
:mod:`rbla_secure.cli.commands`. Only light modules are imported at the top of these files: what a command works with (torch
takes seconds) is imported by its function, so that ``--version`` and every ``--help`` answer at once.
"""

from rbla_secure.cli.entry_point import main

__all__ = ["main"]
