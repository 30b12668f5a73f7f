"""What the authority refuses, by name, and leaves as it was."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from protocols.errors import (
    EnrolmentError,
    RevokedError,
    SignatureError,
)
from rbla_secure.atomic_files import write_atomic
from rbla_secure.cli import main
from rbla_secure.errors import KeyFolderError
from rbla_secure.identities import authority
from rbla_secure.identities.authority import DAY_SECONDS
from rbla_secure.identities.folders import (
    load_authority,
    load_identity,
    load_trust_store,
)
from tests.rbla_secure.identities.offices import NOW, Command, as_on_paper, posix, trust_of


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
