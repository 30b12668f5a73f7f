"""The command line: ``rbla-secure run | check | resume``.

Exit codes: 0 done, 1 refused or failed (the content of a configuration included), 2 bad command line. With ``--json``
the last line of standard output is one JSON object and everything for people goes to standard error.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from protocols.errors import ProtocolError
from rbla_secure import __version__
from rbla_secure.config import load_config
from rbla_secure.errors import RblaSecureError
from rbla_secure.federation.checkpoint import RunFolder
from rbla_secure.federation.plan import check_config, threshold, warnings
from rbla_secure.report.console import ConsoleReport, band_rows

DONE, FAILED = 0, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        result = options.command(options)
    except (RblaSecureError, ProtocolError) as error:
        return _fail(options, type(error).__name__, str(error))
    except OSError as error:
        return _fail(
            options, type(error).__name__, f"{error.filename or 'system'}: {error.strerror or error}"
        )
    except KeyboardInterrupt:
        return _fail(options, "Interrupted", "interrupted; 'rbla-secure resume' goes on from the last round")
    if options.json:
        print(json.dumps(result), flush=True)
    return DONE


def _run(options: argparse.Namespace) -> dict[str, object]:
    config = load_config(options.config, options.set)
    check_config(config)
    folder = RunFolder.create(options.out or _default_folder(), config)
    return _work(folder, options)


def _resume(options: argparse.Namespace) -> dict[str, object]:
    return _work(RunFolder.open(options.folder), options)


def _work(folder: RunFolder, options: argparse.Namespace) -> dict[str, object]:
    try:
        with ConsoleReport(_console(options), folder.config) as report:
            report.begin(str(folder.path))
            # torch takes seconds to import: only once the folder is there, so that a kill finds it.
            from rbla_secure.job import run_job  # noqa: PLC0415

            return run_job(folder, report).model_dump()
    finally:
        folder.close()


def _check(options: argparse.Namespace) -> dict[str, object]:
    config = load_config(options.config, options.set)
    check_config(config)
    # The data set is read whole: what `run` would refuse is refused here.
    from rbla_secure.tasks.datasets import load_images, split  # noqa: PLC0415

    split(load_images(config.task), held_out=config.task.held_out, public=config.task.public, seed=0)
    rows = band_rows(config)
    with ConsoleReport(_console(options), config) as report:
        report.checked(rows)
        for warning in warnings(config):
            report.line(f"warning: {warning}")
        report.line(f"threshold {threshold(config)}; the plan is sound")
    bands = [
        {"band": band, "holders": int(holders), "quorum": int(quorum)} for band, holders, quorum, _ in rows
    ]
    return {"sound": True, "threshold": threshold(config), "bands": bands, "warnings": warnings(config)}


def _console(options: argparse.Namespace) -> Console:
    return Console(file=sys.stderr if options.json else sys.stdout, highlight=False)


def _fail(options: argparse.Namespace, kind: str, message: str) -> int:
    text = " ".join(message.split())
    print(f"rbla-secure: {text}", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps({"error": kind, "message": text}), flush=True)
    return FAILED


def _default_folder() -> Path:
    """runs/<time>-<process>: two runs begun in the same second do not meet."""
    return Path("runs") / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"


def _override(text: str) -> str:
    key, equals, _ = text.partition("=")
    if not equals or not key.strip():
        raise argparse.ArgumentTypeError(f"{text!r} must be key=value")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rbla-secure", description="Secure federated LoRA fine-tuning.")
    parser.add_argument("--version", action="version", version=f"rbla-secure {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="train one adapter; without CONFIG, the default job on MNIST-5k")
    run.add_argument("--out", type=Path, metavar="DIR", help="run folder (default: runs/<time>)")
    run.set_defaults(command=_run)

    check = commands.add_parser("check", help="refuse a configuration that could not keep its promises")
    check.set_defaults(command=_check)

    for command in (run, check):
        command.add_argument("config", nargs="?", type=Path, metavar="CONFIG", help="TOML file")
        command.add_argument(
            "--set", action="append", default=[], type=_override, metavar="KEY=VALUE", help="override one key"
        )

    resume = commands.add_parser("resume", help="go on with a run that was interrupted")
    resume.add_argument("folder", type=Path, metavar="DIR", help="its run folder")
    resume.set_defaults(command=_resume)

    for command in (run, check, resume):
        command.add_argument("--json", action="store_true", help="one JSON object as the last line")
    return parser


if __name__ == "__main__":
    sys.exit(main())
