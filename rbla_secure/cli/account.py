"""``rbla-secure account``: the privacy that a configuration would spend, or that was spent."""

import argparse
from pathlib import Path

from rbla_secure.cli.arguments import add_overrides
from rbla_secure.cli.command import Command, Result
from rbla_secure.cli.output import console
from rbla_secure.errors import ConfigError


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target",
        nargs="?",
        type=Path,
        metavar="CONFIG|DIR",
        help="TOML file, run folder, or folder of budgets; without it, the default job",
    )
    add_overrides(parser)


def _run(options: argparse.Namespace) -> Result:
    from rbla_secure import actions

    if options.target is not None and options.target.is_dir():
        if options.set:
            raise ConfigError(
                f"--set {options.set[0]} changes nothing that was spent: {options.target} is a folder of what was spent"
            )
        return actions.account(options.target, console(options))
    from rbla_secure.config import load_config

    return actions.forecast(load_config(options.target, options.set), console(options))


COMMAND = Command(
    name="account",
    summary="privacy that a configuration would spend, or a run has spent",
    description=(
        "Says what a configuration would spend of privacy; what a run has spent, as a table of four observers, and whether the "
        "figures are a bound or a reading; or what clients' data have spent over all runs, and what is left."
    ),
    notes=(
        "The JSON object has `epsilon` (the largest of the four views; null where nothing bounds it) and, where there is noise, `views`, "
        "`delta` and what the lines say: for a configuration `assumptions`, `advice`, `bands` and `fewer_rounds`; for a run "
        "`standing`, `max_epsilon` and `attempts`; in both `sample_level` where single examples are protected. For a folder of budgets "
        "it has `budgets`, one for each client and label."
    ),
    add_arguments=_add_arguments,
    run=_run,
)
