"""``rbla-secure audit``: try to refute what a configuration claims of privacy."""

import argparse
from pathlib import Path

from rbla_secure.cli.arguments import add_configuration, confidence, whole_number
from rbla_secure.cli.command import Command, Result
from rbla_secure.cli.output import say
from rbla_secure.errors import PrivacyError
from rbla_secure.run_names import new_folder


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_configuration(parser)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the results (default: audits/TIME-PROCESS)"
    )
    parser.add_argument(
        "--trials",
        type=whole_number(100, 10**6),
        default=2000,
        metavar="N",
        help="trials of each case with the canary, and as many without (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=whole_number(1, 10**7),
        default=1800,
        metavar="S",
        help="time for all trials; fewer are made where all would take longer, 100 at least (default: %(default)s)",
    )
    parser.add_argument(
        "--confidence",
        type=confidence,
        default=0.999,
        metavar="C",
        help="confidence of all bounds together (default: %(default)s)",
    )


def _run(options: argparse.Namespace) -> Result:
    from rbla_secure.config import load_config
    from rbla_secure.planning.checks import check_config

    config = load_config(options.config, options.set)
    check_config(config)
    folder = options.out or new_folder("audits")
    # torch takes seconds to import: only once the configuration is sound.
    from rbla_secure.atomic_files import write_atomic
    from rbla_secure.evaluation.privacy_audit.suite import AuditTerms, audit
    from rbla_secure.report import privacy_audit

    terms = AuditTerms(
        config=config, trials=options.trials, seconds=options.seconds, confidence=options.confidence
    )
    say(options, f"audit {folder}: worst-case neighbours of rounds or steps, told apart by trials")
    report = audit(
        folder, terms, lambda case, done, trials: say(options, f"{case}: {done} of {trials} trials each")
    )
    write_atomic(folder / "audit.md", privacy_audit.document(report).encode())
    say(options, "", *privacy_audit.on_terminal(report), f"table and scores: {folder}/audit.md, audit.json")
    if report.refuted:
        raise PrivacyError(privacy_audit.refutation(report.refuted))
    return {"folder": str(folder), **report.model_dump(mode="json")}


COMMAND = Command(
    name="audit",
    summary="try to refute what a configuration claims of privacy, on its own rounds; goes on where --out has stopped",
    description=(
        "Tries to refute what the configuration claims of privacy: worst-case neighbours are told apart over many of its own rounds and "
        "steps. Prints lower bounds of epsilon beside the claims, and the most that so many trials could show. The exit code is 1 "
        "where a bound exceeds a claim. Goes on where `--out` has stopped."
    ),
    notes="The JSON object has `folder`, `confidence`, `rows` (one for each case and observer), `not_tried` and `remarks`.",
    add_arguments=_add_arguments,
    run=_run,
)
