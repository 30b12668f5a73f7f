"""The same jobs as on the command line, from Python: in a script, a notebook or another program.

    >>> import rbla_secure
    >>> config = rbla_secure.load_config(None, ["rounds=3"])
    >>> rbla_secure.check(config)["threshold"]
    6

Nothing here needs a main guard: services of the homomorphic mode are started as programs of their own. Ctrl-C ends a run after its
folder is closed, and `resume` continues from the last round. A run keeps torch to one thread, so that its results repeat. Whatever is
refused raises a subclass of :class:`RblaSecureError` or :class:`ProtocolError` that says what was wrong and what to do.
"""

import os
from pathlib import Path

from rich.console import Console

from protocols.errors import ProtocolError
from rbla_secure import actions, errors
from rbla_secure.config import Config, load_config
from rbla_secure.errors import RblaSecureError
from rbla_secure.lora.adapter import Adapter
from rbla_secure.report.summary import Summary

__all__ = [
    "Adapter",
    "Config",
    "ProtocolError",
    "RblaSecureError",
    "Summary",
    "account",
    "check",
    "errors",
    "load_config",
    "resume",
    "run",
]

# A configuration, the path of a TOML file, or None for the default job.
Configured = Config | str | os.PathLike[str] | None


def check(config: Configured = None) -> dict[str, object]:
    """Refuse a configuration that could not keep its promises, its data included.

    Returns:
        What ``rbla-secure check --json`` prints: ``sound``, ``threshold``, ``bands``, ``tiers``, ``robustness``, ``warnings``.

    Raises:
        RblaSecureError: Names the setting, its value and the rule.
    """
    return actions.check(_config(config), _console(quiet=True))


def run(
    config: Configured = None, *, out: str | os.PathLike[str] | None = None, quiet: bool = False
) -> Summary:
    """Train one adapter in a new run folder.

    Args:
        config: The configuration to run.
        out: The run folder; by default ``runs/TIME-PROCESS``.
        quiet: Whether nothing is printed. Otherwise rounds are printed as they end: on a terminal with a progress bar, in a notebook
            as plain text.

    Returns:
        What ``rbla-secure run --json`` prints; the folder's ``adapter/`` loads with PEFT.

    Raises:
        RblaSecureError: The run is refused or has failed; what was saved stays.
    """
    folder = None if out is None else Path(out)
    return actions.run(_config(config), _console(quiet=quiet), out=folder)


def resume(folder: str | os.PathLike[str], *, quiet: bool = False) -> Summary:
    """Continue an interrupted run.

    Args:
        folder: The run folder.
        quiet: Whether nothing is printed, as in :func:`run`.

    Raises:
        RblaSecureError: Its files differ from what its audit log holds, or the run has failed again.
    """
    return actions.resume(Path(folder), _console(quiet=quiet))


def account(target: Configured = None) -> dict[str, object]:
    """Return the privacy that a configuration would spend, or that a run or clients' budgets have spent.

    Args:
        target: A configuration, or the path of a TOML file, run folder, or folder of budgets.

    Returns:
        What ``rbla-secure account --json`` prints; ``epsilon`` is the largest of the views, None where nothing bounds it.

    Raises:
        RblaSecureError: The configuration is not sound, or a ledger is damaged.
    """
    console = _console(quiet=True)
    if target is not None and not isinstance(target, Config) and Path(target).is_dir():
        return actions.account(Path(target), console)
    return actions.forecast(_config(target), console)


def _config(given: Configured) -> Config:
    if isinstance(given, Config):
        return given
    return load_config(None if given is None else Path(given))


def _console(*, quiet: bool) -> Console:
    console = Console(quiet=quiet, highlight=False)
    if not console.is_jupyter:
        return console
    # A notebook gets one stream of plain text: otherwise every line is an output of its own, and tables have escape codes.
    return Console(
        quiet=quiet, highlight=False, force_jupyter=False, force_terminal=False, width=console.width
    )
