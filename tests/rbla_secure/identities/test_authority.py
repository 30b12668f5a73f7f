"""Key folders through the command line: what they hold, who may read it, and what is refused in one line."""

import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from protocols.clock import Clock
from protocols.errors import (
    CertificateError,
    EnrolmentError,
    KeyFileError,
    RevokedError,
    SignatureError,
)
from protocols.identity.trust import TrustStore
from protocols.primitives.secret import Secret
from rbla_secure.atomic_files import write_atomic
from rbla_secure.cli import main
from rbla_secure.errors import KeyFolderError
from rbla_secure.identities import authority, folders
from rbla_secure.identities.authority import CLOCK_SKEW_SECONDS, DAY_SECONDS, LIST_DAYS
from rbla_secure.identities.folders import (
    load_authority,
    load_identity,
    load_trust_store,
    read_key,
    read_passphrase,
)
from rbla_secure.identities.passphrases import PASSPHRASE_VARIABLE

NOW = 1_800_000_000
PASSPHRASE = "correct horse battery staple"  # noqa: S105 - of tests only
Command = Callable[..., dict[str, Any]]
posix = pytest.mark.skipif(os.name != "posix", reason="other systems keep permissions elsewhere")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """A known time, and no passphrase from outside."""
    monkeypatch.setattr("rbla_secure.cli.keys._now", lambda: NOW)
    monkeypatch.delenv(PASSPHRASE_VARIABLE, raising=False)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a keys command that must be done, and gives its JSON."""

    def command(*arguments: object) -> dict[str, Any]:
        code = main(["keys", *map(str, arguments), "--json"])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        assert PASSPHRASE not in captured.out + captured.err
        result: dict[str, Any] = json.loads(captured.out)
        return result

    return command


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a keys command that must be refused with exit code 1 and one line, and gives kind and line."""

    def command(*arguments: object) -> str:
        code = main(["keys", *map(str, arguments), "--json"])
        captured = capsys.readouterr()
        assert code == 1, captured.out
        assert captured.err.count("\n") == 1
        assert "Traceback" not in captured.err
        assert PASSPHRASE not in captured.out + captured.err
        result = json.loads(captured.out)
        assert captured.err == f"rbla-secure: {result['message']}\n"
        return f"{result['error']}: {result['message']}"

    return command


@pytest.fixture
def office(tmp_path: Path, run: Command) -> Path:
    """An authority's folder with alice (rank 4) and bob (rank 8)."""
    folder = tmp_path / "authority"
    run("create-authority", "--dir", folder, "--name", "Test authority")
    run("enrol", "--dir", folder, "--client", "alice", "--rank", 4)
    run("enrol", "--dir", folder, "--client", "bob", "--rank", 8)
    return folder


def trust_of(folder: Path, now: int = NOW) -> TrustStore:
    """Whom a party believes that has the authority's certificate from alice's folder."""
    return load_trust_store(folder, authority=load_authority(folder / "clients" / "alice"), now=now)


def mode(path: Path) -> int:
    """A file's permissions."""
    return stat.S_IMODE(path.stat().st_mode)


def write_passphrase(folder: Path, text: str = PASSPHRASE + "\n") -> Path:
    """A file with a passphrase."""
    path = folder / "passphrase"
    path.write_text(text)
    return path


# --- the main way ---


def test_enrolled_clients_sign_and_are_believed(office: Path) -> None:
    """From the folders alone: a client signs with its identity, and a party that knows the authority verifies."""
    alice = load_identity(office / "clients" / "alice")

    trust = trust_of(office)

    trust.verify("alice", b"a purpose", b"message", alice.sign(b"a purpose", b"message"))
    assert (trust.check("alice").rank, trust.check("bob").rank) == (4, 8)
    assert trust.roster.number == 3


def test_list_says_who_is_enrolled(office: Path, run: Command) -> None:
    """Authority, numbers, dates, and each client's rank, state and fingerprint."""
    listing = run("list", "--dir", office)

    alice = load_identity(office / "clients" / "alice").certificate
    assert listing["name"] == "Test authority"
    assert listing["fingerprint"] == load_authority(office).fingerprint.hex()
    assert (listing["roster"], listing["revocations"]) == (3, 1)
    assert listing["roster_expires_at"] == listing["next_update"] == NOW + LIST_DAYS * DAY_SECONDS
    assert [(client["client"], client["rank"], client["state"]) for client in listing["clients"]] == [
        ("alice", 4, "valid"),
        ("bob", 8, "valid"),
    ]
    assert listing["clients"][0]["fingerprint"] == alice.fingerprint.hex()
    assert listing["clients"][0]["not_after"] == alice.not_after == NOW + 365 * DAY_SECONDS


def test_people_read_lines(office: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --json every command tells its result on standard output."""
    assert main(["keys", "list", "--dir", str(office)]) == 0
    assert main(["keys", "show", str(office / "clients" / "bob")]) == 0
    assert main(["keys", "renew", "--dir", str(office)]) == 0
    assert main(["keys", "enrol", "--dir", str(office), "--client", "carol", "--rank", "2"]) == 0
    assert main(["keys", "revoke", "--dir", str(office), "--client", "carol"]) == 0

    output = capsys.readouterr()
    assert "authority 'Test authority', fingerprint" in output.out
    assert output.out.count("bob  rank 8  valid, ends 2028-01-15") == 2
    assert "carol  rank 2  revoked" in output.out
    assert "its key is not encrypted" in output.out
    assert output.err == ""


def test_the_real_clock_is_used_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Command
) -> None:
    """What is made on the command line is valid now, also for a party whose clock lags a little."""
    monkeypatch.undo()

    run("create-authority", "--dir", tmp_path / "a")
    run("enrol", "--dir", tmp_path / "a", "--client", "alice", "--rank", 4)

    for now in (int(time.time()), int(time.time()) - CLOCK_SKEW_SECONDS // 2):
        trust_of(tmp_path / "a", now).check("alice")


def test_show_reads_a_client_folder(office: Path, run: Command) -> None:
    """A client's folder says who it is for, without a passphrase."""
    shown = run("show", office / "clients" / "alice")

    early = authority.show_client(office / "clients" / "alice", now=NOW - CLOCK_SKEW_SECONDS - 1)
    assert (shown["client"], shown["rank"], shown["state"]) == ("alice", 4, "valid")
    assert early.state is authority.KeyState.NOT_YET_VALID


def test_a_client_folder_can_stand_elsewhere(office: Path, tmp_path: Path, run: Command) -> None:
    """With --out the folder to hand over is made there, whole, and nothing of it in the authority's."""
    out = tmp_path / "usb" / "carol"

    result = run("enrol", "--dir", office, "--client", "carol", "--rank", 2, "--out", out)

    assert result["folder"] == str(out)
    assert sorted(path.name for path in out.iterdir()) == ["authority.pem", "client.key", "client.pem"]
    assert load_identity(out).client == "carol"
    assert not (office / "clients" / "carol").exists()


def test_certificates_end_with_their_days(tmp_path: Path, run: Command) -> None:
    """--days counts from now; lists end with the authority at the latest."""
    run("create-authority", "--dir", tmp_path / "a", "--days", 30)

    shown = run("enrol", "--dir", tmp_path / "a", "--client", "alice", "--rank", 4, "--days", 7)

    assert shown["not_after"] == NOW + 7 * DAY_SECONDS
    assert shown["not_before"] == NOW - CLOCK_SKEW_SECONDS
    assert run("list", "--dir", tmp_path / "a")["roster_expires_at"] == NOW + 30 * DAY_SECONDS


# --- revocation and the order of lists ---


def test_a_revoked_client_is_no_longer_believed(office: Path, run: Command) -> None:
    """After revoke the next view refuses alice's signature by name; bob goes on; list says so."""
    result = run("revoke", "--dir", office, "--client", "alice")

    alice = load_identity(office / "clients" / "alice")
    trust = trust_of(office)
    assert result["state"] == "revoked"
    with pytest.raises(RevokedError, match="alice"):
        trust.verify("alice", b"a purpose", b"", alice.sign(b"a purpose", b""))
    trust.check("bob")
    assert [client["state"] for client in run("list", "--dir", office)["clients"]] == ["revoked", "valid"]


def test_a_revoked_client_can_be_enrolled_anew(office: Path, tmp_path: Path, run: Command) -> None:
    """A new enrolment gives a new key, on which the old certificate's revocation has no hold."""
    run("revoke", "--dir", office, "--client", "alice")

    run("enrol", "--dir", office, "--client", "alice", "--rank", 16, "--out", tmp_path / "new")

    trust = trust_of(office)
    old, new = load_identity(office / "clients" / "alice"), load_identity(tmp_path / "new")
    assert trust.check("alice") == new.certificate
    assert trust.check("alice").rank == 16
    with pytest.raises(SignatureError):
        trust.verify("alice", b"a purpose", b"", old.sign(b"a purpose", b""))


def test_lists_from_before_a_revocation_are_refused(office: Path, run: Command) -> None:
    """A party that has seen the newer lists refuses the older ones: EnrolmentError."""
    before = trust_of(office)
    run("revoke", "--dir", office, "--client", "alice")
    run("enrol", "--dir", office, "--client", "carol", "--rank", 2)
    after = trust_of(office)

    current = before.updated(
        now=NOW,
        roster=after.roster,
        revocations=after.revocations,
        certificates=after.certificates.values(),
    )

    assert current == after
    with pytest.raises(EnrolmentError, match="revocation list number 1 is older than number 2"):
        current.updated(now=NOW, revocations=before.revocations)
    with pytest.raises(EnrolmentError, match="roster number 3 is older than number 5"):
        current.updated(now=NOW, roster=before.roster)


def test_a_revocation_list_cannot_be_held_back_alone(office: Path, run: Command) -> None:
    """Whoever is given the newest roster with the list from before a revocation refuses: the roster names the new one.

    The control is the roster from before: with it the old list is believed, which is why revoke signs a new one.
    """
    list_before, roster_before = (
        (office / "revocations.crl").read_bytes(),
        (office / "roster.bin").read_bytes(),
    )
    run("revoke", "--dir", office, "--client", "alice")
    roster_after, list_after = (office / "roster.bin").read_bytes(), (office / "revocations.crl").read_bytes()

    (office / "revocations.crl").write_bytes(list_before)
    with pytest.raises(EnrolmentError, match="roster 4 must be used with revocation list 2"):
        trust_of(office)
    (office / "roster.bin").write_bytes(roster_before)
    trust_of(office).check("alice")
    (office / "revocations.crl").write_bytes(list_after)
    with pytest.raises(RevokedError):
        trust_of(office).check("alice")
    (office / "roster.bin").write_bytes(roster_after)
    with pytest.raises(RevokedError):
        trust_of(office).check("alice")


# --- an authority's folder in which somebody else has put things ---


def as_on_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """An authority that believes its folder: the control."""
    monkeypatch.setattr(folders.PublicLists, "check_agreement", lambda _lists, **_but: None)


@pytest.mark.parametrize(
    "command", [("renew",), ("revoke", "--client", "carol"), ("enrol", "--client", "dora", "--rank", 2)]
)
def test_a_revocation_list_that_is_put_back_stops_the_authority(
    office: Path,
    run: Command,
    refusal: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[object, ...],
) -> None:
    """The list from before bob's revocation lies there: nothing is signed, or bob would be believed again (the control)."""
    run("enrol", "--dir", office, "--client", "carol", "--rank", 2)
    path = office / "revocations.crl"
    before = path.read_bytes()
    run("revoke", "--dir", office, "--client", "bob")
    newest = path.read_bytes()
    path.write_bytes(before)
    files = {each: each.read_bytes() for each in office.rglob("*") if each.is_file()}

    message = refusal(command[0], "--dir", office, *command[1:])

    assert "revocations.crl is revocation list 1, and roster 5 was signed beside list 2" in message
    assert {each: each.read_bytes() for each in office.rglob("*") if each.is_file()} == files
    assert "restore the newest list" in refusal("list", "--dir", office)
    path.write_bytes(newest)
    assert run("list", "--dir", office)["revocations"] == 2
    path.write_bytes(before)
    as_on_paper(monkeypatch)
    run(command[0], "--dir", office, *command[1:])
    if command[0] != "enrol":  # which signs a roster that is used with list 1 again
        assert trust_of(office).revocations.number == 2
    trust_of(office).check("bob")


def test_another_clients_certificate_under_a_name_is_not_revoked(
    office: Path, run: Command, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alice's certificate as bob.pem: revoking bob would revoke alice and leave bob in force (the control)."""
    path = office / "certificates" / "bob.pem"
    good = path.read_bytes()
    path.write_bytes((office / "certificates" / "alice.pem").read_bytes())

    for command in (("revoke", "--client", "bob"), ("revoke", "--client", "alice"), ("renew",), ("list",)):
        message = refusal(command[0], "--dir", office, *command[1:])
        assert "certificates/bob.pem, of client 'alice' with serial" in message
        assert "is not the certificate of 'bob' on roster 3" in message

    as_on_paper(monkeypatch)
    run("revoke", "--dir", office, "--client", "bob")
    path.write_bytes(good)
    trust_of(office).check("bob")
    with pytest.raises(RevokedError):
        trust_of(office).check("alice")


def test_another_certificate_under_a_name_is_replaced_by_enrolling_anew(
    office: Path, run: Command, tmp_path: Path
) -> None:
    """Alice's certificate as bob.pem says nothing of whether bob is enrolled."""
    (office / "certificates" / "bob.pem").write_bytes((office / "certificates" / "alice.pem").read_bytes())

    run("enrol", "--dir", office, "--client", "bob", "--rank", 8, "--out", tmp_path / "bob")

    assert trust_of(office).check("bob") == load_identity(tmp_path / "bob").certificate
    trust_of(office).check("alice")


def test_a_clients_own_older_certificate_is_not_revoked_in_the_place_of_the_one_in_force(
    office: Path, run: Command, refusal: Callable[..., str], tmp_path: Path
) -> None:
    """Bob was enrolled anew, and his first certificate is put back: revoking it would leave the second in force."""
    path = office / "certificates" / "bob.pem"
    first = path.read_bytes()
    run("revoke", "--dir", office, "--client", "bob")
    run("enrol", "--dir", office, "--client", "bob", "--rank", 8, "--out", tmp_path / "bob")
    second = path.read_bytes()
    path.write_bytes(first)

    assert "is not the certificate of 'bob' on roster 5" in refusal(
        "revoke", "--dir", office, "--client", "bob"
    )

    path.write_bytes(second)
    run("revoke", "--dir", office, "--client", "bob")
    with pytest.raises(RevokedError):
        trust_of(office).check("bob")


def test_an_enrolment_that_a_crash_cut_short_can_be_repeated(
    office: Path, run: Command, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A new certificate without its roster is named by every other command, and replaced by enrolling again."""
    run("revoke", "--dir", office, "--client", "bob")

    def crash(*_arguments: object, **_more: object) -> None:
        raise OSError(5, "crash")

    enrol = ["enrol", "--dir", office, "--client", "bob", "--rank", 8, "--out"]
    first = {"client": "bob", "rank": 8, "days": 9, "passphrase": None, "client_passphrase": None, "now": NOW}
    with monkeypatch.context() as patch:
        patch.setattr(authority._Office, "write_roster", crash)
        with pytest.raises(OSError, match="crash"):
            authority.enrol(office, out=tmp_path / "first", **first)

    assert "enrol the client anew" in refusal("renew", "--dir", office)
    run(*enrol, tmp_path / "second")

    assert trust_of(office).check("bob") == load_identity(tmp_path / "second").certificate
    assert run("list", "--dir", office)["clients"][1]["state"] == "valid"


def test_every_roster_names_the_list_in_force(office: Path, run: Command) -> None:
    """After enrol, revoke and renew the roster asks for the very list that lies beside it."""
    for command in (
        ("revoke", "--dir", office, "--client", "alice"),
        ("enrol", "--dir", office, "--client", "carol", "--rank", 2),
        ("renew", "--dir", office),
        ("revoke", "--dir", office, "--client", "bob"),
    ):
        run(*command)
        trust = load_trust_store(office, authority=load_authority(office), now=NOW)
        assert trust.roster.least_revocations == trust.revocations.number


@pytest.mark.parametrize("command", ["revoke", "renew"])
def test_a_crash_between_two_lists_leaves_a_pair_that_holds(
    office: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """The revocation list is written first: if the roster is not, what lies there is believed, and alice is not."""

    def crash(*_arguments: object, **_more: object) -> None:
        raise OSError(5, "crash")

    monkeypatch.setattr(authority._Office, "write_roster", crash)
    who = ["--client", "alice"] if command == "revoke" else []

    assert main(["keys", command, "--dir", str(office), *who]) == 1

    monkeypatch.undo()
    monkeypatch.setattr("rbla_secure.cli.keys._now", lambda: NOW)
    trust = trust_of(office)
    assert (trust.roster.number, trust.revocations.number) == (3, 2)
    trust.check("bob")
    if command == "revoke":
        with pytest.raises(RevokedError):
            trust.check("alice")
    # Repeated, it brings the roster that asks for the new list; once more, and a revocation is refused as done.
    assert main(["keys", command, "--dir", str(office), *who]) == 0
    roster = trust_of(office).roster
    assert (roster.number, roster.least_revocations) == (4, 2 if command == "revoke" else 3)
    assert main(["keys", command, "--dir", str(office), *who]) == (1 if command == "revoke" else 0)


def test_a_view_from_a_folder_reads_the_clock(office: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a moment the view of a folder asks the system's clock at every check, and notices what expires."""
    wall = [float(NOW)]
    monkeypatch.setattr(folders, "SYSTEM_CLOCK", Clock(lambda: wall[0], lambda: 0.0))
    trust = load_trust_store(office, authority=load_authority(office))

    trust.check("alice")
    wall[0] += LIST_DAYS * DAY_SECONDS + 1

    with pytest.raises(EnrolmentError, match="roster 3 expired 1 seconds ago"):
        trust.check("alice")


def test_renewed_lists_are_newer_and_in_force_longer(
    office: Path, monkeypatch: pytest.MonkeyPatch, run: Command
) -> None:
    """Expired lists are refused by name; renew signs them again under higher numbers, revocations kept."""
    run("revoke", "--dir", office, "--client", "alice")
    later = NOW + (LIST_DAYS + 1) * DAY_SECONDS
    with pytest.raises(EnrolmentError, match="roster 4 expired"):
        trust_of(office, later)
    monkeypatch.setattr("rbla_secure.cli.keys._now", lambda: later)

    listing = run("renew", "--dir", office)

    assert (listing["roster"], listing["revocations"]) == (5, 3)
    trust = trust_of(office, later)
    trust.check("bob")
    with pytest.raises(RevokedError):
        trust.check("alice")


def test_an_expired_client_is_refused_and_can_be_enrolled_anew(
    office: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Command
) -> None:
    """After its days a certificate raises CertificateError, list says expired, and a new one replaces it."""
    later = NOW + 366 * DAY_SECONDS
    monkeypatch.setattr("rbla_secure.cli.keys._now", lambda: later)
    run("renew", "--dir", office)
    with pytest.raises(CertificateError, match="expired"):
        trust_of(office, later).check("alice")
    assert {client["state"] for client in run("list", "--dir", office)["clients"]} == {"expired"}

    run("enrol", "--dir", office, "--client", "alice", "--rank", 4, "--out", tmp_path / "new")

    trust_of(office, later).check("alice")


# --- private keys ---


@posix
def test_private_keys_are_for_their_owner_alone(office: Path, tmp_path: Path, run: Command) -> None:
    """Under the widest umask both kinds of key still have mode 0600."""
    before = os.umask(0)
    try:
        run("create-authority", "--dir", tmp_path / "open")
        run("enrol", "--dir", tmp_path / "open", "--client", "a", "--rank", 1)
    finally:
        os.umask(before)

    for folder in (office, tmp_path / "open"):
        secrets = list(folder.rglob("*.key"))
        assert len(secrets) == (3 if folder == office else 2)
        assert {mode(path) for path in secrets} == {0o600}
        others_write = [path for path in [folder, *folder.rglob("*")] if mode(path) & 0o022]
        assert not others_write


@posix
def test_a_file_is_never_open_to_others_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A private file has its mode from its first moment, whatever mode a crash left behind."""
    path, seen = tmp_path / "file.key", []
    (tmp_path / ".file.key.tmp").touch(mode=0o666)
    path.touch(mode=0o666)
    flush = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: (seen.append(stat.S_IMODE(os.fstat(file).st_mode)), flush(file))
    )

    write_atomic(path, b"secret", mode=0o600)

    assert seen[0] == mode(path) == 0o600


@posix
@pytest.mark.parametrize("wide", [0o640, 0o604, 0o620, 0o602, 0o644, 0o777, 0o610])
def test_a_key_that_others_can_reach_is_refused(office: Path, refusal: Callable[..., str], wide: int) -> None:
    """A private key whose mode lets others in raises KeyFileError, for clients and authority alike."""
    client = office / "clients" / "alice"
    (client / "client.key").chmod(wide)
    (office / "authority.key").chmod(wide)

    with pytest.raises(KeyFileError, match=f"mode {wide:04o}"):
        load_identity(client)
    assert f"KeyFileError: {client / 'client.key'}: mode {wide:04o}" in refusal("show", client)
    assert "KeyFileError" in refusal("revoke", "--dir", office, "--client", "alice")
    assert "KeyFileError" in refusal("enrol", "--dir", office, "--client", "carol", "--rank", 1)


def test_a_passphrase_protects_the_authority(
    tmp_path: Path, run: Command, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a passphrase the key opens by file or variable; without it, or with another, it is refused."""
    folder, file = tmp_path / "a", write_passphrase(tmp_path)
    run("create-authority", "--dir", folder, "--passphrase-file", file)
    enrol = ["enrol", "--dir", folder, "--rank", 1, "--client"]

    run(*enrol, "by-file", "--passphrase-file", file)
    monkeypatch.setenv(PASSPHRASE_VARIABLE, PASSPHRASE)
    run(*enrol, "by-variable")
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "wrong")
    message = refusal(*enrol, "x")
    assert "KeyFileError" in message
    assert "the passphrase is wrong" in message
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "wrong")
    run(*enrol, "file-first", "--passphrase-file", file)
    assert "a passphrase is needed" in refusal(*enrol, "x")

    assert b"ENCRYPTED" in (folder / "authority.key").read_bytes()
    names = [client["client"] for client in run("list", "--dir", folder)["clients"]]
    assert names == ["by-file", "by-variable", "file-first"]


def test_a_client_has_a_passphrase_of_its_own(office: Path, tmp_path: Path, run: Command) -> None:
    """--client-passphrase-file encrypts the client's key, and load_identity wants it."""
    file = write_passphrase(tmp_path)

    run("enrol", "--dir", office, "--client", "carol", "--rank", 2, "--client-passphrase-file", file)

    folder = office / "clients" / "carol"
    assert load_identity(folder, passphrase=read_passphrase(file)).client == "carol"
    with pytest.raises(KeyFileError, match="a passphrase is needed"):
        load_identity(folder)
    assert run("show", folder)["client"] == "carol"


def test_a_passphrase_that_is_not_needed_is_refused(
    office: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    """Whoever gives a passphrase for a key that has none is told so."""
    file = write_passphrase(tmp_path)

    message = refusal("revoke", "--dir", office, "--client", "alice", "--passphrase-file", file)

    assert "KeyFileError" in message
    assert "is not encrypted" in message


@pytest.mark.parametrize("content", ["", "\n", "\r\n"])
def test_an_empty_passphrase_is_refused(tmp_path: Path, refusal: Callable[..., str], content: str) -> None:
    """A passphrase file that holds nothing is refused before anything is made."""
    file = write_passphrase(tmp_path, content)

    message = refusal("create-authority", "--dir", tmp_path / "a", "--passphrase-file", file)

    assert "KeyFileError" in message
    assert "the passphrase is empty" in message
    assert not (tmp_path / "a").exists()


def test_a_passphrase_is_read_from_file_first(tmp_path: Path) -> None:
    """A file goes before the variable, its line end does not count, and it does not print."""
    file = write_passphrase(tmp_path, " with spaces \r\n")

    passphrase = read_passphrase(file, Secret(b"variable"))

    assert passphrase is not None
    assert bytes(passphrase) == b" with spaces "
    assert "spaces" not in f"{passphrase}{passphrase!r}"
    assert read_passphrase(None, Secret(b"variable")) == b"variable"
    assert read_passphrase(None) is None


def test_a_passphrase_leaves_the_environment(
    monkeypatch: pytest.MonkeyPatch, run: Command, tmp_path: Path
) -> None:
    """Whatever the command is, a process started during or after it does not find the passphrase in its environment."""
    monkeypatch.setenv(PASSPHRASE_VARIABLE, PASSPHRASE)
    show = [sys.executable, "-c", f"import os; print(os.environ.get({PASSPHRASE_VARIABLE!r}))"]
    heard = []
    monkeypatch.setattr(
        authority,
        "create_authority",
        lambda _folder, **given: heard.append((given["passphrase"], subprocess.check_output(show))) or Told(),
    )
    assert subprocess.check_output(show).decode().strip() == PASSPHRASE  # control: before, it is inherited

    run("create-authority", "--dir", tmp_path / "a")

    assert heard == [(PASSPHRASE.encode(), b"None\n")]
    assert subprocess.check_output(show) == b"None\n"


@dataclass
class Told:
    """What a command says of an authority."""

    name: str = ""
    fingerprint: str = ""


# --- refusals ---


def test_an_enrolled_client_is_not_enrolled_again(
    office: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    """While its certificate is in force a client gets no second one, and nothing changes."""
    before = (office / "roster.bin").read_bytes()

    message = refusal("enrol", "--dir", office, "--client", "alice", "--rank", 8, "--out", tmp_path / "x")

    assert message == "EnrolmentError: client 'alice' is already enrolled; revoke it first"
    assert (office / "roster.bin").read_bytes() == before
    assert not (tmp_path / "x").exists()


def test_unknown_and_revoked_clients_are_not_revoked(
    office: Path, run: Command, refusal: Callable[..., str]
) -> None:
    """Revoking a stranger, or a client twice, is refused by name."""
    run("revoke", "--dir", office, "--client", "alice")

    assert "EnrolmentError: client 'mallory'" in refusal("revoke", "--dir", office, "--client", "mallory")
    assert "EnrolmentError" in refusal("revoke", "--dir", office, "--client", "../alice")
    assert "RevokedError" in refusal("revoke", "--dir", office, "--client", "alice")


@pytest.mark.parametrize("client", ["", "../x", "a/b", "a b", ".hidden", "a" * 65])
def test_client_ids_stay_inside_their_folder(office: Path, refusal: Callable[..., str], client: str) -> None:
    """A client id that no session would take is refused before any file is named after it."""
    before = sorted(office.parent.rglob("*"))

    message = refusal("enrol", "--dir", office, f"--client={client}", "--rank", 1)

    assert message.startswith("CertificateError: client id")
    assert sorted(office.parent.rglob("*")) == before


def test_folders_with_something_in_them_are_not_replaced(
    office: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    """Neither an authority nor a client is put over files that are there: they might be keys."""
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "file").touch()
    key = (office / "authority.key").read_bytes()

    for folder in (office, taken):
        assert "KeyFolderError" in refusal("create-authority", "--dir", folder)
        message = refusal("enrol", "--dir", office, "--client", "carol", "--rank", 1, "--out", folder)
        assert "keys are never overwritten" in message
    assert (office / "authority.key").read_bytes() == key
    assert "carol" not in trust_of(office).certificates


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["list", "--dir", "{}"], "authority.pem"),
        (["renew", "--dir", "{}"], "authority.pem"),
        (["revoke", "--dir", "{}", "--client", "a"], "authority.pem"),
        (["enrol", "--dir", "{}", "--client", "a", "--rank", "1"], "authority.pem"),
        (["show", "{}"], "authority.pem"),
        (["create-authority", "--dir", "{}", "--passphrase-file", "{}/passphrase"], "passphrase"),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path, refusal: Callable[..., str], arguments: list[str], missing: str
) -> None:
    """A folder or file that is not there is refused with its name."""
    folder = tmp_path / "nowhere"

    message = refusal(*(argument.format(folder) for argument in arguments))

    assert message == f"KeyFolderError: {folder / missing} is missing"
    assert not folder.exists()


@pytest.mark.parametrize("name", ["authority.key", "roster.bin", "revocations.crl", "certificates/bob.pem"])
def test_a_missing_file_of_the_authority_is_named(
    office: Path, refusal: Callable[..., str], name: str
) -> None:
    """A file that somebody deleted is refused with its name."""
    (office / name).unlink()

    message = refusal("renew", "--dir", office)

    assert message == f"KeyFolderError: {office / name} is missing"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("authority.key", "KeyFileError"),
        ("authority.pem", "CertificateError"),
        ("roster.bin", "WireError"),
        ("revocations.crl", "CertificateError"),
        ("certificates/bob.pem", "CertificateError"),
    ],
)
def test_a_damaged_file_of_the_authority_is_named(
    office: Path, refusal: Callable[..., str], name: str, kind: str
) -> None:
    """A file that is not what it was is refused with its name."""
    path = office / name
    path.write_bytes(path.read_bytes()[:40])

    message = refusal("renew", "--dir", office)

    assert message.startswith(f"{kind}: {path}: ")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("authority.key", "KeyFileError"),
        ("roster.bin", "SignatureError"),
        ("revocations.crl", "CertificateError"),
        ("certificates/bob.pem", "CertificateError"),
    ],
)
def test_files_of_another_authority_are_refused(
    office: Path, run: Command, refusal: Callable[..., str], name: str, kind: str
) -> None:
    """A key, list or certificate from another authority's folder is refused with its name."""
    other = office.parent / "other"
    run("create-authority", "--dir", other)
    run("enrol", "--dir", other, "--client", "bob", "--rank", 8)

    write_atomic(office / name, (other / name).read_bytes(), mode=0o600)

    assert refusal("renew", "--dir", office).startswith(f"{kind}: {office / name}")


def test_a_client_does_not_believe_another_authority(office: Path, tmp_path: Path, run: Command) -> None:
    """A client that keeps its own authority's certificate refuses everything under a server's own one."""
    other = tmp_path / "other"
    run("create-authority", "--dir", other)

    with pytest.raises(SignatureError, match="roster"):
        load_trust_store(other, authority=load_authority(office / "clients" / "alice"), now=NOW)


def test_a_client_folder_of_two_clients_is_refused(office: Path) -> None:
    """Another client's certificate beside a key raises EnrolmentError."""
    alice, bob = office / "clients" / "alice", office / "clients" / "bob"
    (alice / "client.pem").write_bytes((bob / "client.pem").read_bytes())

    with pytest.raises(EnrolmentError, match="binds another key"):
        load_identity(alice)


def test_nothing_outlives_its_authority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Command, refusal: Callable[..., str]
) -> None:
    """A certificate beyond the authority's end is refused, and after that end so is everything else."""
    folder = tmp_path / "a"
    run("create-authority", "--dir", folder, "--days", 10)

    assert "must not outlive" in refusal("enrol", "--dir", folder, "--client", "a", "--rank", 1, "--days", 11)
    monkeypatch.setattr("rbla_secure.cli.keys._now", lambda: NOW + 11 * DAY_SECONDS)
    assert "CertificateError: the certificate of authority" in refusal("renew", "--dir", folder)


@posix
def test_one_process_at_a_time_works_on_a_folder(office: Path, refusal: Callable[..., str]) -> None:
    """While another process enrols, a second one is refused: two rosters never get one number."""
    import fcntl  # noqa: PLC0415 - not on every system

    with (office / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        message = refusal("enrol", "--dir", office, "--client", "carol", "--rank", 1)

    assert message == f"KeyFolderError: {office} is in use by another process"


@posix
def test_enrolments_at_the_same_time_lose_nobody(office: Path) -> None:
    """Of clients enrolled from several threads at once, whoever was not refused is on the roster."""
    done: list[str] = []

    def enrol(client: str) -> None:
        terms = {"rank": 1, "days": 1, "out": None, "passphrase": None, "client_passphrase": None}
        try:
            authority.enrol(office, client=client, now=NOW, **terms)  # type: ignore[arg-type]
            done.append(client)
        except KeyFolderError:
            pass

    threads = [threading.Thread(target=enrol, args=(f"client-{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    roster = trust_of(office).roster
    assert done
    assert {entry.client for entry in roster.entries} == {"alice", "bob", *done}
    assert roster.number == 3 + len(done)


@pytest.mark.parametrize("fault", [1, 2, 3, 4, 5])
def test_a_failure_while_enrolling_leaves_the_old_roster(
    office: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Command, fault: int
) -> None:
    """Whichever of the five writes fails, everybody enrolled stays so, and a second try goes through."""
    calls = iter(range(1, 100))

    def failing(path: Path, data: bytes, **options: Any) -> None:
        if next(calls) == fault:
            raise OSError(28, "No space left on device", str(path))
        write_atomic(path, data, **options)

    with monkeypatch.context() as patch:
        patch.setattr(authority, "write_atomic", failing)
        assert main(["keys", "enrol", "--dir", str(office), "--client", "carol", "--rank", "1"]) == 1

    assert set(trust_of(office).certificates) == {"alice", "bob"}
    run("enrol", "--dir", office, "--client", "carol", "--rank", 1, "--out", tmp_path / "again")
    assert trust_of(office).check("carol").rank == 1


def test_a_key_is_read_from_its_file(office: Path) -> None:
    """The authority's key file holds the key of its certificate; a missing one raises KeyFolderError."""
    assert read_key(office / "authority.key").public == load_authority(office).public_key

    with pytest.raises(KeyFolderError, match="nowhere is missing"):
        read_key(office / "nowhere")
