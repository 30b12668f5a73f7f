"""Key folders through the command line: what they hold, who may read it, and what is refused in one line."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from protocols.clock import Clock
from protocols.errors import (
    CertificateError,
    EnrolmentError,
    RevokedError,
    SignatureError,
)
from rbla_secure.cli import main
from rbla_secure.identities import authority, folders
from rbla_secure.identities.authority import CLOCK_SKEW_SECONDS, DAY_SECONDS, LIST_DAYS
from rbla_secure.identities.folders import (
    load_authority,
    load_identity,
    load_trust_store,
)
from tests.rbla_secure.identities.offices import NOW, Command, as_on_paper, trust_of

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
