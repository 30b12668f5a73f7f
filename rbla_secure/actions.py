"""The actions `run`, `resume`, `check` and `account`, for the command line (`cli/`) and for Python (`api.py`).

Each reports its progress on a console and returns the result. Libraries are imported where they are needed: a refused
configuration must not wait for torch, and a run's folder exists before torch is loaded, so that whoever ends the
program finds it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from rbla_secure.config import Config
    from rbla_secure.planning.plan import Plan
    from rbla_secure.report.summary import Summary
    from rbla_secure.run_folder.budget_settings import BudgetSettings
    from rbla_secure.run_folder.folder import RunFolder


def check(config: "Config", console: "Console") -> dict[str, object]:
    """Refuse a configuration that could not keep its promises, and check its data; print what a sound one promises.

    Raises:
        RblaSecureError: Names the setting, its value and the rule.
    """
    # What `run` would refuse is refused here: noise that no grid has room for, which takes the shape of the base, and data
    # that are missing or too few.
    promises = _plan(config).promises
    from rbla_secure.report.checked import checked_object, tell_checked
    from rbla_secure.report.console import ConsoleReport
    from rbla_secure.tasks.splits import load_data

    load_data(config)
    with ConsoleReport(console, config) as report:
        tell_checked(report, promises)
    return checked_object(promises)


def run(
    config: "Config", console: "Console", *, out: Path | None, budgets: "BudgetSettings | None" = None
) -> "Summary":
    """Train one adapter in a new run folder.

    Args:
        config: The configuration to run.
        console: Where progress is printed for people.
        out: The run folder; by default ``runs/TIME-PROCESS``.
        budgets: Settings of the clients' lifetime privacy budgets over all runs; None keeps none.

    Raises:
        RblaSecureError: The run is refused or has failed; what was saved stays.
    """
    from rbla_secure.planning.checks import check_config
    from rbla_secure.run_folder.folder import RunFolder
    from rbla_secure.run_names import new_folder

    check_config(config)
    if budgets is not None:
        # A run that a client refuses leaves no folder behind.
        from rbla_secure.job import check_budgets

        check_budgets(config, budgets)
    return _work(RunFolder.create(out or new_folder("runs"), config, budgets=budgets), console)


def resume(folder: Path, console: "Console") -> "Summary":
    """Continue an interrupted run.

    Raises:
        RblaSecureError: Its files differ from what its audit log holds, or the run has failed again.
    """
    from rbla_secure.run_folder.folder import RunFolder

    return _work(RunFolder.open(folder), console)


def forecast(config: "Config", console: "Console") -> dict[str, object]:
    """Print the privacy that a configuration would spend.

    Raises:
        RblaSecureError: The configuration is not sound.
    """
    plan = _plan(config)
    from rbla_secure.report.account import tell_forecast
    from rbla_secure.report.console import ConsoleReport

    return tell_forecast(ConsoleReport(console, config), plan)


def account(folder: Path, console: "Console") -> dict[str, object]:
    """Print the privacy that a run, or the clients' budgets, have spent. Read-only: the run may continue meanwhile.

    Raises:
        RblaSecureError: A ledger is missing, damaged or edited.
    """
    from rbla_secure.report.account import spent

    lines, result = spent(folder)
    for line in lines:
        console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)
    return result


def _plan(config: "Config") -> "Plan":
    from rbla_secure.planning.checks import check_config

    check_config(config)
    from rbla_secure.job import planned

    return planned(config)


def _work(folder: "RunFolder", console: "Console") -> "Summary":
    """Run the remaining rounds of a run folder, then release it."""
    try:
        from rbla_secure.report.console import ConsoleReport

        with ConsoleReport(console, folder.config) as report:
            report.begin(str(folder.path))
            from rbla_secure.job import run_job

            return run_job(folder, report)
    finally:
        folder.close()
