"""The same jobs as on the command line, from Python: in a script, a notebook or another program.

    >>> import rbla_secure
    >>> config = rbla_secure.load_config(None, ["rounds=3"])
    >>> rbla_secure.check(config)["threshold"]
    6

Nothing here needs a main guard: services of the homomorphic mode are started as programs of their own. Ctrl-C ends a run after its
folder is closed, and `resume` goes on from the last round. A run keeps torch to one thread, so that its results repeat. Whatever is
refused raises a subclass of :class:`RblaSecureError` or :class:`ProtocolError` that says what was wrong and what to do.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from protocols.errors import ProtocolError
from rbla_secure import errors
from rbla_secure.config import Config, load_config
from rbla_secure.errors import RblaSecureError
from rbla_secure.lora.adapter import Adapter
from rbla_secure.planning.checks import check_config
from rbla_secure.report.account import spent, tell_forecast
from rbla_secure.report.checked import checked_object
from rbla_secure.report.console import ConsoleReport
from rbla_secure.report.summary import Summary
from rbla_secure.run_folder.folder import RunFolder
from rbla_secure.run_names import new_folder

if TYPE_CHECKING:
    from rbla_secure.planning.plan import Plan

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
    from rbla_secure.tasks.splits import load_data  # noqa: PLC0415  # it brings torch

    found = _config(config)
    plan = _plan(found)
    load_data(found)
    return checked_object(plan.promises)


def run(
    config: Configured = None, *, out: str | os.PathLike[str] | None = None, quiet: bool = False
) -> Summary:
    """Train one adapter in a new run folder.

    Args:
        config: What to run.
        out: The run folder; by default ``runs/TIME-PROCESS``.
        quiet: Whether nothing is printed. Otherwise rounds are told as they end, with a progress bar on a terminal or in a notebook.

    Returns:
        What ``rbla-secure run --json`` prints; the folder's ``adapter/`` loads with PEFT.

    Raises:
        RblaSecureError: The run is refused or has failed; what was saved stays.
    """
    found = _config(config)
    check_config(found)
    folder = RunFolder.create(Path(out) if out is not None else new_folder("runs"), found)
    return _work(folder, quiet=quiet)


def resume(folder: str | os.PathLike[str], *, quiet: bool = False) -> Summary:
    """Go on with a run that was interrupted.

    Args:
        folder: The run folder.
        quiet: As of :func:`run`.

    Raises:
        RblaSecureError: Its files differ from what its audit log holds, or the run has failed again.
    """
    return _work(RunFolder.open(Path(folder)), quiet=quiet)


def account(target: Configured = None) -> dict[str, object]:
    """The privacy that a configuration would spend, or that a run or clients' budgets have spent.

    Args:
        target: A configuration, or the path of a TOML file, run folder, or folder of budgets.

    Returns:
        What ``rbla-secure account --json`` prints; ``epsilon`` is the largest of the views, None where nothing bounds it.

    Raises:
        RblaSecureError: The configuration is not sound, or a ledger is damaged.
    """
    if target is not None and not isinstance(target, Config) and Path(target).is_dir():
        return spent(Path(target))[1]
    plan = _plan(_config(target))
    return tell_forecast(ConsoleReport(Console(quiet=True), plan.config), plan)


def _config(given: Configured) -> Config:
    if isinstance(given, Config):
        return given
    return load_config(None if given is None else Path(given))


def _plan(config: Config) -> "Plan":
    check_config(config)
    from rbla_secure.job import planned  # noqa: PLC0415  # it brings torch

    return planned(config)


def _work(folder: RunFolder, *, quiet: bool) -> Summary:
    try:
        with ConsoleReport(Console(quiet=quiet, highlight=False), folder.config) as report:
            report.begin(str(folder.path))
            from rbla_secure.job import run_job  # noqa: PLC0415  # only once the folder is there, so that a kill finds it

            return run_job(folder, report)
    finally:
        folder.close()
