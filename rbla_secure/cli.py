"""The command line: ``rbla-secure run | check | account | audit | evaluate | resume | keys``.

Exit codes: 0 done, 1 refused or failed (the content of a configuration included), 2 bad command line. With ``--json``
the last line of standard output is one JSON object and everything for people goes to standard error.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from protocols.errors import ProtocolError
from protocols.primitives.certificates import MAX_RANK
from protocols.primitives.secret import Secret
from rbla_secure import __version__, keys
from rbla_secure.config import load_config
from rbla_secure.durable import write_atomic
from rbla_secure.errors import ConfigError, PrivacyError, RblaSecureError
from rbla_secure.federation.checkpoint import RunFolder
from rbla_secure.federation.wanted_budgets import Wanted
from rbla_secure.key_folders import PASSPHRASE_VARIABLE, read_passphrase, take_passphrase
from rbla_secure.planning.checks import check_config
from rbla_secure.planning.opening import asked_threshold, opening_rule, tier_protection
from rbla_secure.planning.plan import Plan
from rbla_secure.planning.warnings import warnings
from rbla_secure.report.console import CellReport, ConsoleReport, band_rows
from rbla_secure.report.defences import band_defences, band_object, defence_lines, defence_object

DONE, FAILED = 0, 1
MAX_DAYS = 36_500


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    # Whatever a command starts, and whatever a library starts for it, must not inherit a passphrase.
    passphrase = take_passphrase()
    options = _parser().parse_args(arguments)
    options.variable = passphrase
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
    budgets = _wanted_budgets(options)
    if budgets is not None:
        # A run that a client refuses leaves no folder behind.
        from rbla_secure.job import check_budgets  # noqa: PLC0415

        check_budgets(config, budgets)
    folder = RunFolder.create(options.out or _default_folder(), config, budgets=budgets)
    return _work(folder, options)


def _wanted_budgets(options: argparse.Namespace) -> Wanted | None:
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
    return Wanted.of(options.budgets, options.data_label, **limits)


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
    # What `run` would refuse is refused here: noise that no grid has room for, which takes the shape of the base, and data
    # that are missing or too few. torch takes seconds to import: only once the configuration is sound.
    from rbla_secure.job import planned  # noqa: PLC0415
    from rbla_secure.tasks.dealing import load_data  # noqa: PLC0415

    planned(config)
    load_data(config)
    rows = band_rows(config)
    with ConsoleReport(_console(options), config) as report:
        report.checked(rows)
        report.tiers(tier_protection(config).items())
        for line in defence_lines(config):
            report.line(line)
        for warning in warnings(config):
            report.line(f"warning: {warning}")
        report.line(f"{opening_rule(config)}; the plan is sound")
    bands = [
        {"band": band, "holders": int(holders), "quorum": int(quorum), **band_object(defence)}
        for (band, holders, quorum, _), defence in zip(rows, band_defences(config), strict=True)
    ]
    return {
        "sound": True,
        "threshold": asked_threshold(config),
        "bands": bands,
        "tiers": tier_protection(config),
        "robustness": defence_object(config),
        "warnings": warnings(config),
    }


def _account(options: argparse.Namespace) -> dict[str, object]:
    if options.target is not None and options.target.is_dir():
        return _account_spent(options)
    config = load_config(options.target, options.set)
    check_config(config)
    # torch takes seconds to import: only the forecast needs the shape of the base.
    from rbla_secure.job import planned  # noqa: PLC0415

    plan = planned(config)
    if plan.mechanism is None and plan.sample_level is None:
        _say(options, "noise-multiplier=0: no noise is added, and nothing bounds epsilon")
        return {"epsilon": None}
    from rbla_secure.planning.forecast import forecast, sample_forecast  # noqa: PLC0415
    from rbla_secure.report import privacy  # noqa: PLC0415

    report, told = ConsoleReport(_console(options), config), dict[str, object](epsilon=None)
    if plan.mechanism is not None:
        found = forecast(plan, plan.mechanism)
        report.account(privacy.forecast_lines(found), privacy.band_ratios(found))
        told = privacy.forecast_object(found)
        told["fewer_rounds"] = _fewer_rounds(report, plan)
    if plan.sample_level is not None:
        examples = sample_forecast(config)
        report.account(privacy.sample_forecast_lines(examples))
        told["sample_level"] = privacy.sample_forecast_object(examples)
    return told


def _fewer_rounds(report: ConsoleReport, plan: Plan) -> dict[str, object] | None:
    from rbla_secure.planning.round_costs import round_costs  # noqa: PLC0415
    from rbla_secure.report import round_costs as told  # noqa: PLC0415

    costs = round_costs(plan)
    if costs is None:
        return None
    report.account(told.round_cost_lines(costs, plan))
    report.table(*told.round_cost_table(costs, plan))
    return told.round_cost_object(costs, plan)


def _account_spent(options: argparse.Namespace) -> dict[str, object]:
    """From the ledger of a run, or clients' budgets; read only, so that a run may be looked at while it goes on."""
    from rbla_secure.report.lifetime import budget_lines, budgets_in  # noqa: PLC0415
    from rbla_secure.report.privacy import spent_in  # noqa: PLC0415

    if options.set:
        raise ConfigError(
            f"--set {options.set[0]} changes nothing that was spent: {options.target} is a folder of what was spent"
        )
    if (budgets := budgets_in(options.target)) is not None:
        _say(options, *budget_lines(budgets))
        return {"budgets": [each.model_dump(mode="json") for each in budgets]}
    privacy, examples = spent_in(options.target)
    if privacy is None and examples is None:
        _say(options, f"{options.target} has no privacy.json: nothing was noised, and nothing bounds epsilon")
        return {"epsilon": None}
    told: dict[str, object] = {"epsilon": None}
    if privacy is not None:
        _say(options, *privacy.lines())
        told = {"epsilon": privacy.epsilon, **privacy.model_dump(mode="json")}
    if examples is not None:
        _say(options, *examples.lines())
        told["sample_level"] = examples.model_dump(mode="json")
    return told


def _audit(options: argparse.Namespace) -> dict[str, object]:
    config = load_config(options.config, options.set)
    check_config(config)
    folder = options.out or Path("audits") / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"
    # torch takes seconds to import: only once the configuration is sound.
    from rbla_secure.evaluation.privacy_audit.suite import Terms, audit  # noqa: PLC0415
    from rbla_secure.report import privacy_audit  # noqa: PLC0415

    terms = Terms(
        config=config, trials=options.trials, seconds=options.seconds, confidence=options.confidence
    )
    _say(options, f"audit {folder}: worst-case neighbours of rounds or steps, told apart by trials")
    report = audit(
        folder, terms, lambda case, done, trials: _say(options, f"{case}: {done} of {trials} trials each")
    )
    table, words = privacy_audit.markdown(report), privacy_audit.in_plain_words(report)
    write_atomic(folder / "audit.md", "\n\n".join([*words, table]).encode())
    _say(options, "", table, *words, f"table and scores: {folder}/audit.md, audit.json")
    if report.refuted:
        raise PrivacyError(privacy_audit.refutation(report.refuted))
    return {"folder": str(folder), **report.model_dump(mode="json")}


def _evaluate(options: argparse.Namespace) -> dict[str, object]:
    config = load_config(options.config, options.set)
    check_config(config)
    folder = options.out or Path("evaluations") / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"
    # torch takes seconds to import: only once the configuration is sound.
    from rbla_secure.evaluation.poisoning.names import TriggerName  # noqa: PLC0415
    from rbla_secure.evaluation.suite import Terms, evaluate  # noqa: PLC0415
    from rbla_secure.report import evaluation  # noqa: PLC0415

    trigger = TriggerName(options.trigger)
    terms = Terms.of(config, share=options.share, seeds=options.seeds, quick=options.quick, trigger=trigger)
    rows = terms.rows()
    _say(options, f"evaluation {folder}: a run of every cell, {options.share:.0%} of the clients attacking")
    with CellReport(_console(options)) as report:
        cells = evaluate(folder, terms, report.cell)
    table, words = (
        evaluation.markdown(rows, cells),
        evaluation.in_plain_words(rows, cells, share=options.share),
    )
    write_atomic(folder / "evaluation.md", "\n\n".join([*words, table]).encode())
    write_atomic(folder / "evaluation.html", evaluation.page(rows, cells, share=options.share).encode())
    _say(options, "", table, *words, f"table and heat maps: {folder}/evaluation.md, evaluation.html")
    return {"folder": str(folder), "cells": [cell.model_dump() for cell in cells], "summary": words}


def _create_authority(options: argparse.Namespace) -> dict[str, object]:
    authority = keys.create_authority(
        options.dir, name=options.name, days=options.days, passphrase=_passphrase(options), now=_now()
    )
    _say(options, f"authority {authority.name!r} in {options.dir}; fingerprint {authority.fingerprint}")
    return asdict(authority)


def _enrol(options: argparse.Namespace) -> dict[str, object]:
    record = keys.enrol(
        options.dir,
        client=options.client,
        rank=options.rank,
        days=options.days,
        out=options.out,
        passphrase=_passphrase(options),
        client_passphrase=read_passphrase(options.client_passphrase_file),
        now=_now(),
    )
    folder = options.out or keys.client_folder(options.dir, options.client)
    locked = "encrypted" if options.client_passphrase_file else "not encrypted"
    _say(options, _line(record), f"hand {folder} to the client, then delete it here; its key is {locked}")
    return {**asdict(record), "folder": str(folder)}


def _revoke(options: argparse.Namespace) -> dict[str, object]:
    record = keys.revoke(options.dir, client=options.client, passphrase=_passphrase(options), now=_now())
    _say(options, _line(record), "give the new revocation list to every party")
    return asdict(record)


def _renew(options: argparse.Namespace) -> dict[str, object]:
    authority = keys.renew_lists(options.dir, passphrase=_passphrase(options), now=_now())
    _say(options, f"roster {authority.roster} and revocation list {authority.revocations} are in force")
    return asdict(authority)


def _list_keys(options: argparse.Namespace) -> dict[str, object]:
    authority = keys.list_clients(options.dir, now=_now())
    _say(
        options,
        f"authority {authority.name!r}, fingerprint {authority.fingerprint}",
        f"roster {authority.roster} until {_day(authority.roster_expires_at)}, "
        f"revocation list {authority.revocations} until {_day(authority.next_update)}",
        *map(_line, authority.clients),
    )
    return asdict(authority)


def _show_key(options: argparse.Namespace) -> dict[str, object]:
    record = keys.show_client(options.folder, now=_now())
    _say(options, _line(record))
    return asdict(record)


def _passphrase(options: argparse.Namespace) -> Secret | None:
    return read_passphrase(options.passphrase_file, options.variable)


def _line(record: keys.ClientRecord) -> str:
    end = _day(record.not_after)
    return f"{record.client}  rank {record.rank}  {record.state}, ends {end}  {record.fingerprint[:16]}"


def _day(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"


def _now() -> int:
    return int(time.time())


def _say(options: argparse.Namespace, *lines: str) -> None:
    for line in lines:
        print(line, file=sys.stderr if options.json else sys.stdout)


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


def _whole(least: int, largest: int) -> Callable[[str], int]:
    """What reads a whole number in least..largest off the command line."""

    def number(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or not least <= int(text) <= largest:
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number in {least}..{largest}")
        return int(text)

    return number


def _share(text: str) -> float:
    """A share of attackers, above 0 and below 1/2."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 0.5:  # noqa: PLR2004 - half of all clients have no honest majority to attack
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0 and below 0.5")
    return value


def _confidence(text: str) -> float:
    """Of an audit, above 1/2 and at most 1 - 1e-9: of errors without a chance nothing is a bound."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.5 < value <= 1 - 1e-9:  # noqa: PLR2004 - what is more likely wrong than right bounds nothing
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0.5 and at most 0.999999999")
    return value


def _no_passphrase(_: str) -> None:
    """Known only to be refused: as an unknown option it would be printed, as an abbreviation taken for a file name."""
    raise argparse.ArgumentTypeError(
        f"a command line is no place for a passphrase; use a file or {PASSPHRASE_VARIABLE}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rbla-secure", description="Secure federated LoRA fine-tuning.")
    parser.add_argument("--version", action="version", version=f"rbla-secure {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="train one adapter; without CONFIG, the default job on MNIST-5k")
    run.add_argument("--out", type=Path, metavar="DIR", help="run folder (default: runs/<time>)")
    _add_budgets(run)
    run.set_defaults(command=_run)

    check = commands.add_parser("check", help="refuse a configuration that could not keep its promises")
    check.set_defaults(command=_check)

    evaluate = commands.add_parser(
        "evaluate", help="attack a configuration, and say what it withstands; goes on where --out has stopped"
    )
    evaluate.add_argument("--out", type=Path, metavar="DIR", help="where results go (evaluations/<time>)")
    evaluate.add_argument("--quick", action="store_true", help="few attacks and defences: minutes")
    evaluate.add_argument(
        "--share", type=_share, default=0.2, metavar="S", help="of the clients that attack (0.2)"
    )
    evaluate.add_argument(
        "--seeds", type=_whole(1, 100), default=1, metavar="N", help="runs of each cell (1)"
    )
    evaluate.add_argument(
        "--trigger",
        choices=("corner", "scattered"),
        default="corner",
        help="of backdoors: a patch where digits have no ink, or pixels where they have (corner)",
    )
    evaluate.set_defaults(command=_evaluate)

    audit = commands.add_parser(
        "audit",
        help="try to refute what a configuration claims of privacy, on its own rounds; goes on where --out has stopped",
    )
    audit.add_argument("--out", type=Path, metavar="DIR", help="where results go (audits/<time>)")
    audit.add_argument(
        "--trials",
        type=_whole(100, 10**6),
        default=2000,
        metavar="N",
        help="of each case, with the canary and as many without (2000)",
    )
    audit.add_argument(
        "--seconds",
        type=_whole(1, 10**7),
        default=1800,
        metavar="S",
        help="in which trials are made; fewer of them if all would take longer, 100 at least (1800)",
    )
    audit.add_argument(
        "--confidence", type=_confidence, default=0.999, metavar="C", help="of all bounds together (0.999)"
    )
    audit.set_defaults(command=_audit)

    for command in (run, check, evaluate, audit):
        command.add_argument("config", nargs="?", type=Path, metavar="CONFIG", help="TOML file")
        command.add_argument(
            "--set", action="append", default=[], type=_override, metavar="KEY=VALUE", help="override one key"
        )

    account = commands.add_parser(
        "account", help="privacy that a configuration would spend, or a run has spent"
    )
    account.add_argument(
        "target",
        nargs="?",
        type=Path,
        metavar="CONFIG|DIR",
        help="TOML file, run folder, or folder of budgets",
    )
    account.add_argument(
        "--set", action="append", default=[], type=_override, metavar="KEY=VALUE", help="override one key"
    )
    account.set_defaults(command=_account)

    resume = commands.add_parser("resume", help="go on with a run that was interrupted")
    resume.add_argument("folder", type=Path, metavar="DIR", help="its run folder")
    resume.set_defaults(command=_resume)

    for command in (run, check, account, audit, evaluate, resume, *_add_keys(commands)):
        command.add_argument("--json", action="store_true", help="one JSON object as the last line")
    return parser


def _add_budgets(run: argparse.ArgumentParser) -> None:
    about = (
        "of every client, over all runs on the same data; kept by the client, no part of the configuration"
    )
    group = run.add_argument_group("lifetime budgets", about)
    group.add_argument(
        "--budgets", type=Path, metavar="DIR", help="where each client keeps its own, in DIR/CLIENT"
    )
    group.add_argument("--data-label", metavar="LABEL", help="the clients' name for these data")
    for option, level in (
        ("--lifetime-epsilon", "client level"),
        ("--lifetime-sample-epsilon", "single examples"),
    ):
        group.add_argument(
            option,
            type=float,
            metavar="E",
            help=f"limit at {level}; fixed by the label's first run, 0 is none",
        )
    group.add_argument("--lifetime-delta", type=float, metavar="D", help="of both limits (1e-5)")


def _add_keys(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> list[argparse.ArgumentParser]:
    about = f"identities; the passphrase of a key comes from a file or from {PASSPHRASE_VARIABLE}"
    parser = commands.add_parser("keys", help="make, list and revoke identities", description=about)
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    create = actions.add_parser("create-authority", help="make an enrolment authority")
    create.add_argument("--name", default="enrolment authority", metavar="NAME", help="what people call it")
    create.add_argument("--days", type=_whole(1, MAX_DAYS), default=3650, metavar="D", help="validity (3650)")
    create.set_defaults(command=_create_authority)

    enrol = actions.add_parser("enrol", help="make a client's key and certificate, and put it on the roster")
    enrol.add_argument(
        "--rank",
        type=_whole(0, MAX_RANK),
        required=True,
        metavar="R",
        help="its rank tier; 0 for a decryptor or verifier",
    )
    enrol.add_argument("--days", type=_whole(1, MAX_DAYS), default=365, metavar="D", help="validity (365)")
    enrol.add_argument("--out", type=Path, metavar="CLIENTDIR", help="its folder (DIR/clients/ID)")
    enrol.add_argument("--client-passphrase-file", type=Path, metavar="F", help="encrypts the client's key")
    enrol.add_argument("--client-passphrase", type=_no_passphrase, help=argparse.SUPPRESS)
    enrol.set_defaults(command=_enrol)

    revoke = actions.add_parser("revoke", help="take a client's certificate back")
    revoke.set_defaults(command=_revoke)

    renew = actions.add_parser("renew", help="sign roster and revocation list again before they expire")
    renew.set_defaults(command=_renew)

    listing = actions.add_parser("list", help="who is enrolled")
    listing.set_defaults(command=_list_keys)

    show = actions.add_parser("show", help="what a client's folder says")
    show.add_argument("folder", type=Path, metavar="CLIENTDIR", help="the client's folder")
    show.set_defaults(command=_show_key)

    for action in (create, enrol, revoke, renew, listing):
        action.add_argument("--dir", type=Path, required=True, metavar="DIR", help="the authority's folder")
    for action in (enrol, revoke):
        action.add_argument("--client", required=True, metavar="ID", help="client id")
    for action in (create, enrol, revoke, renew):
        action.add_argument("--passphrase-file", type=Path, metavar="F", help="of the authority's key")
        action.add_argument("--passphrase", type=_no_passphrase, help=argparse.SUPPRESS)
    return [create, enrol, revoke, renew, listing, show]


if __name__ == "__main__":
    sys.exit(main())
