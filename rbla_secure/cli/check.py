"""``rbla-secure check``: refuse a configuration that could not keep its promises."""

import argparse

from rbla_secure.cli.arguments import add_configuration
from rbla_secure.cli.command import Command, Result
from rbla_secure.cli.output import console


def _run(options: argparse.Namespace) -> Result:
    from rbla_secure.config import load_config
    from rbla_secure.planning.checks import check_config

    config = load_config(options.config, options.set)
    promises = check_config(config)
    # What `run` would refuse is refused here: noise that no grid has room for, which takes the shape of the base, and data
    # that are missing or too few. torch takes seconds to import: only once the configuration is sound.
    from rbla_secure.job import planned
    from rbla_secure.report.checked import checked_object, tell_checked
    from rbla_secure.report.console import ConsoleReport
    from rbla_secure.tasks.splits import load_data

    planned(config)
    load_data(config)
    with ConsoleReport(console(options), config) as report:
        tell_checked(report, promises)
    return checked_object(promises)


COMMAND = Command(
    name="check",
    summary="refuse a configuration that could not keep its promises",
    description=(
        "Refuses what could not keep its promises: a band that can never open, a threshold above the cohort, a sum that could wrap, "
        "a filter or groups that could not stand `robustness.f`, missing data. Prints bands, quorums, and how many hostile clients "
        "each band stands."
    ),
    notes=(
        "The JSON object has `sound`, `threshold`, `bands` (`band`, `holders`, `quorum`, `groups`, `largest_f`), `tiers`, `robustness` "
        "and `warnings`."
    ),
    add_arguments=add_configuration,
    run=_run,
)
