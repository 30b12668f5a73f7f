"""``rbla-secure run``: train one adapter in a new run folder."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rbla_secure.cli.arguments import add_configuration
from rbla_secure.cli.command import Command, Result
from rbla_secure.cli.output import console
from rbla_secure.errors import ConfigError

if TYPE_CHECKING:
    from rbla_secure.run_folder.budget_settings import BudgetSettings


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_configuration(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="run folder (default: runs/TIME-PROCESS)")
    budgets = parser.add_argument_group(
        "lifetime budgets",
        "of every client, over all runs on the same data; kept by the client, no part of the configuration",
    )
    budgets.add_argument(
        "--budgets", type=Path, metavar="DIR", help="where each client keeps its own, in DIR/CLIENT"
    )
    budgets.add_argument("--data-label", metavar="LABEL", help="the clients' name for these data")
    for option, level in (
        ("--lifetime-epsilon", "at client level"),
        ("--lifetime-sample-epsilon", "at the level of single examples"),
    ):
        budgets.add_argument(
            option,
            type=float,
            metavar="E",
            help=f"limit of epsilon {level}; fixed by the label's first run, 0 is none",
        )
    budgets.add_argument(
        "--lifetime-delta", type=float, metavar="D", help="delta of both limits (default: 1e-5)"
    )


def _run(options: argparse.Namespace) -> Result:
    from rbla_secure import actions
    from rbla_secure.config import load_config
    from rbla_secure.planning.checks import check_config

    config = load_config(options.config, options.set)
    # Errors of the configuration are reported before others.
    check_config(config)
    return actions.run(config, console(options), out=options.out, budgets=_budgets(options)).model_dump()


def _budgets(options: argparse.Namespace) -> "BudgetSettings | None":
    from rbla_secure.run_folder.budget_settings import BudgetSettings

    limits = {
        "max_epsilon": options.lifetime_epsilon,
        "max_sample_epsilon": options.lifetime_sample_epsilon,
        "delta": options.lifetime_delta,
    }
    if options.budgets is None:
        if options.data_label is not None or any(value is not None for value in limits.values()):
            raise ConfigError("--data-label and --lifetime-... need --budgets DIR: nothing else reads them")
        return None
    if options.data_label is None:
        raise ConfigError("--budgets needs --data-label LABEL: budgets are kept by the data that they are of")
    return BudgetSettings.of(options.budgets, options.data_label, **limits)


COMMAND = Command(
    name="run",
    summary="train one adapter; without CONFIG, the default job on MNIST-5k",
    description=(
        "Trains one adapter in a new run folder. Without CONFIG it is the default job: ten simulated organisations in four device "
        "tiers on 5,000 handwritten digits. With `--budgets` every client counts what its data spend of privacy over all runs, and "
        "a run that would exceed a limit is refused before anything is trained."
    ),
    notes=(
        "The JSON object has `run`, `accuracy` (`base`, `final`, `last5`), `rounds`, `seconds` (`training`, `protocol`, `evaluation`, "
        "`total`; under noise `evaluation` alone, the others null), `bytes_up_per_client` (mean per round), `refused_bands`, `dropouts`, "
        "`aborted_rounds`, `epsilon` (the largest of the four views; null without noise, and where the server is trusted with the "
        "sums), `privacy` (`views`: epsilon by observer, null where nothing is claimed; `standing`: a bound, or a reading; and what "
        "they mean), `sample_privacy` (of single examples), `suspicion` (with groups: `client`, `suspicion`, `rounds` of the five that "
        "were most often in suspicious ones), `adapter_sha256`, and `services` (homomorphic mode: `service`, `rounds`, `seconds`, "
        "`bytes_to`, `bytes_from` of each, in this process)."
    ),
    add_arguments=_add_arguments,
    run=_run,
)
