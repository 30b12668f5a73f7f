"""``rbla-secure evaluate``: attack a configuration, and say what it withstands."""

import argparse
from pathlib import Path

from rbla_secure.cli.arguments import add_configuration, attacker_share, whole_number
from rbla_secure.cli.command import Command, Result
from rbla_secure.cli.output import console, say
from rbla_secure.run_names import new_folder


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_configuration(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the results (default: evaluations/TIME-PROCESS)",
    )
    parser.add_argument("--quick", action="store_true", help="few attacks and defences: minutes")
    parser.add_argument(
        "--share",
        type=attacker_share,
        default=0.2,
        metavar="S",
        help="share of the clients that attack, above 0 and below 0.5 (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds",
        type=whole_number(1, 100),
        default=1,
        metavar="N",
        help="runs of each attack and defence (default: %(default)s)",
    )
    parser.add_argument(
        "--trigger",
        choices=("corner", "scattered"),
        default="corner",
        help="trigger of backdoors: a patch where digits have no ink, or pixels where they have (default: %(default)s)",
    )


def _run(options: argparse.Namespace) -> Result:
    from rbla_secure.config import load_config
    from rbla_secure.planning.checks import check_config

    config = load_config(options.config, options.set)
    check_config(config)
    folder, share = options.out or new_folder("evaluations"), options.share
    # torch takes seconds to import: only once the configuration is sound.
    from rbla_secure.atomic_files import write_atomic
    from rbla_secure.evaluation.poisoning.registry import TriggerName
    from rbla_secure.evaluation.suite import EvaluationTerms, evaluate
    from rbla_secure.report import evaluation
    from rbla_secure.report.console import CellReport

    trigger = TriggerName(options.trigger)
    terms = EvaluationTerms.of(config, share=share, seeds=options.seeds, quick=options.quick, trigger=trigger)
    rows = terms.rows()
    say(options, f"evaluation {folder}: a run of every cell, {share:.0%} of the clients attacking")
    with CellReport(console(options)) as report:
        cells = evaluate(folder, terms, report.cell)
    write_atomic(folder / "evaluation.md", evaluation.document(rows, cells, share=share).encode())
    write_atomic(folder / "evaluation.html", evaluation.page(rows, cells, share=share).encode())
    say(options, "", *evaluation.on_terminal(rows, cells, share=share))
    say(options, f"table and heat maps: {folder}/evaluation.md, evaluation.html")
    return evaluation.as_object(rows, cells, folder=folder, share=share)


COMMAND = Command(
    name="evaluate",
    summary="attack a configuration, and say what it withstands; goes on where --out has stopped",
    description=(
        "Attacks the configuration and its alternatives, one run per attack and defence. Leaves a table, heat maps and a summary in "
        "plain words, and goes on where `--out` has stopped. Ends with an error where an attack did not happen, and calls what a plan "
        "refuses not tested, never withstood."
    ),
    notes="The JSON object has `folder`, `cells` (one for each run) and `summary`.",
    add_arguments=_add_arguments,
    run=_run,
)
