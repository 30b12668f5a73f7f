"""``rbla-secure resume``: go on with an interrupted run."""

import argparse
from pathlib import Path

from rbla_secure.cli.command import Command, Result
from rbla_secure.cli.output import console


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="run folder")


def _run(options: argparse.Namespace) -> Result:
    from rbla_secure import actions

    return actions.resume(options.folder, console(options)).model_dump()


COMMAND = Command(
    name="resume",
    summary="go on with a run that was interrupted",
    description=(
        "Goes on with an interrupted run: the adapter and `metrics.jsonl` come out byte for byte as if it had never stopped. A folder "
        "whose files differ from what its `events.jsonl` holds, or hold what no crash leaves beside it, is refused by file name "
        "before anything is written."
    ),
    notes="The JSON object is that of `run`.",
    add_arguments=_add_arguments,
    run=_run,
)
