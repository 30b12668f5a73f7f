"""``rbla-secure keys``: the enrolment authority, its clients' certificates, and the lists that it signs."""

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rbla_secure.cli.arguments import whole_number
from rbla_secure.cli.command import Command, CommandGroup, Result
from rbla_secure.cli.output import say
from rbla_secure.identities.passphrases import PASSPHRASE_VARIABLE

if TYPE_CHECKING:
    from protocols.primitives.secret import Secret

MAX_DAYS = 36_500


def _create_authority(options: argparse.Namespace) -> Result:
    from rbla_secure.identities import authority

    record = authority.create_authority(
        options.dir, name=options.name, days=options.days, passphrase=_passphrase(options), now=_now()
    )
    say(options, f"authority {record.name!r} in {options.dir}; fingerprint {record.fingerprint}")
    return asdict(record)


def _enrol(options: argparse.Namespace) -> Result:
    from rbla_secure.identities import authority
    from rbla_secure.identities.folders import read_passphrase
    from rbla_secure.report.keys import client_line

    record = authority.enrol(
        options.dir,
        client=options.client,
        rank=options.rank,
        days=options.days,
        out=options.out,
        passphrase=_passphrase(options),
        client_passphrase=read_passphrase(options.client_passphrase_file),
        now=_now(),
    )
    folder = options.out or authority.client_folder(options.dir, options.client)
    locked = "encrypted" if options.client_passphrase_file else "not encrypted"
    say(options, client_line(record))
    say(options, f"hand {folder} to the client, then delete it here; its key is {locked}")
    return {**asdict(record), "folder": str(folder)}


def _revoke(options: argparse.Namespace) -> Result:
    from rbla_secure.identities import authority
    from rbla_secure.report.keys import client_line

    record = authority.revoke(options.dir, client=options.client, passphrase=_passphrase(options), now=_now())
    say(options, client_line(record), "give the new revocation list to every party")
    return asdict(record)


def _renew(options: argparse.Namespace) -> Result:
    from rbla_secure.identities import authority

    record = authority.renew_lists(options.dir, passphrase=_passphrase(options), now=_now())
    say(options, f"roster {record.roster} and revocation list {record.revocations} are in force")
    return asdict(record)


def _list(options: argparse.Namespace) -> Result:
    from rbla_secure.identities import authority
    from rbla_secure.report.keys import authority_lines

    record = authority.list_clients(options.dir, now=_now())
    say(options, *authority_lines(record))
    return asdict(record)


def _show(options: argparse.Namespace) -> Result:
    from rbla_secure.identities import authority
    from rbla_secure.report.keys import client_line

    record = authority.show_client(options.folder, now=_now())
    say(options, client_line(record))
    return asdict(record)


def _passphrase(options: argparse.Namespace) -> "Secret | None":
    from rbla_secure.identities.folders import read_passphrase

    return read_passphrase(options.passphrase_file, options.variable)


def _now() -> int:
    return int(time.time())


def _rank(text: str) -> int:
    """Parse a certified rank. The limit is imported only here: its module imports cryptography."""
    from protocols.identity.certificates import MAX_RANK

    return whole_number(0, MAX_RANK)(text)


def _no_passphrase(_: str) -> NoReturn:
    """Refuse a passphrase option: argparse would print an unknown one, or take its value for a file name."""
    raise argparse.ArgumentTypeError(
        f"a command line is no place for a passphrase; use a file or {PASSPHRASE_VARIABLE}"
    )


def _arguments(
    *parts: Callable[[argparse.ArgumentParser], None],
) -> Callable[[argparse.ArgumentParser], None]:
    """Return a function that adds the arguments of an action, one group after another."""

    def add(parser: argparse.ArgumentParser) -> None:
        for part in parts:
            part(parser)

    return add


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dir", type=Path, required=True, metavar="DIR", help="the authority's folder")


def _add_client(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--client", required=True, metavar="ID", help="client id")


def _add_passphrase(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--passphrase-file", type=Path, metavar="F", help="file with the passphrase of the authority's key"
    )
    parser.add_argument("--passphrase", type=_no_passphrase, help=argparse.SUPPRESS)


def _add_days(default: int) -> Callable[[argparse.ArgumentParser], None]:
    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--days",
            type=whole_number(1, MAX_DAYS),
            default=default,
            metavar="D",
            help="days that the certificate is valid (default: %(default)s)",
        )

    return add


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--name",
        default="enrolment authority",
        metavar="NAME",
        help="name of the authority in its certificate (default: %(default)s)",
    )


def _add_enrolment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rank", type=_rank, required=True, metavar="R", help="rank tier; 0 for a decryptor or verifier"
    )
    parser.add_argument(
        "--out", type=Path, metavar="CLIENTDIR", help="folder for the client (default: DIR/clients/ID)"
    )
    parser.add_argument(
        "--client-passphrase-file",
        type=Path,
        metavar="F",
        help="file with the passphrase that encrypts the client's key",
    )
    parser.add_argument("--client-passphrase", type=_no_passphrase, help=argparse.SUPPRESS)


def _add_client_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="CLIENTDIR", help="the client's folder")


COMMANDS = CommandGroup(
    name="keys",
    summary="make, list and revoke identities",
    description=(
        "The enrolment authority: X.509 certificates with client id and rank, a signed roster, a revocation list. Private keys are "
        "files of mode 0600, encrypted where there is a passphrase. The passphrase of a key comes from a file or from "
        f"{PASSPHRASE_VARIABLE}, never from the command line."
    ),
    actions=(
        Command(
            name="create-authority",
            summary="make an enrolment authority",
            description="Makes an enrolment authority in a new folder: its key, its certificate, and lists without clients.",
            add_arguments=_arguments(_add_folder, _add_name, _add_days(3650), _add_passphrase),
            run=_create_authority,
        ),
        Command(
            name="enrol",
            summary="make a client's key and certificate, and put it on the roster",
            description="Makes a client's key and certificate in a folder of its own, and puts the client on the roster.",
            add_arguments=_arguments(
                _add_folder, _add_client, _add_enrolment, _add_days(365), _add_passphrase
            ),
            run=_enrol,
        ),
        Command(
            name="revoke",
            summary="take a client's certificate back",
            description="Revokes a client's certificate and signs a new revocation list, which every party must be given.",
            add_arguments=_arguments(_add_folder, _add_client, _add_passphrase),
            run=_revoke,
        ),
        Command(
            name="renew",
            summary="sign roster and revocation list again before they expire",
            description="Signs the roster and the revocation list again before they expire.",
            add_arguments=_arguments(_add_folder, _add_passphrase),
            run=_renew,
        ),
        Command(
            name="list",
            summary="who is enrolled",
            description="Lists the clients of an authority, with rank, state, end of validity and fingerprint.",
            add_arguments=_add_folder,
            run=_list,
        ),
        Command(
            name="show",
            summary="what a client's folder says",
            description="Prints what a client's folder says of its certificate.",
            add_arguments=_add_client_folder,
            run=_show,
        ),
    ),
)
