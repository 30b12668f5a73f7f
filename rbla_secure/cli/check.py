"""``rbla-secure check``: refuse a configuration that could not keep its promises."""

import argparse

from rbla_secure.cli.arguments import add_configuration
from rbla_secure.cli.command import Command, Result
from rbla_secure.cli.output import console


def _run(options: argparse.Namespace) -> Result:
    from rbla_secure import actions
    from rbla_secure.config import load_config

    return actions.check(load_config(options.config, options.set), console(options))


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
