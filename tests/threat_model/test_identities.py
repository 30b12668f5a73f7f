"""Claims on identities, their lists and the audit log: threat_model.md, claims 15, 18, 19 and 22."""

from dataclasses import replace
from pathlib import Path

import pytest

from protocols.errors import (
    CertificateError,
    ContextError,
    EnrolmentError,
    IdentityError,
    KeyFileError,
    ProtocolError,
    RevokedError,
    RosterError,
    SignatureError,
)
from protocols.identity.certificates import issue_certificate
from protocols.identity.revocations import issue_revocations
from protocols.identity.trust import Roster, RosterEntry, ThrowawayAuthority, TrustStore
from protocols.masking import checks
from protocols.masking.client import (
    create_key_advertisement,
    create_sealed_shares,
)
from protocols.masking.messages import KeyAdvertisement
from protocols.masking.terms import MaskingTerms
from protocols.primitives.secret import Secret
from protocols.profiles import CONSISTENCY, ONE_ANSWER, MaskingProfile
from rbla_secure.errors import RunFolderError
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.round import prepare_round, run_round
from rbla_secure.federation.server.session_server import SessionServer
from rbla_secure.identities import authority
from rbla_secure.identities.folders import load_identity
from rbla_secure.planning.modes import build_secure_sum
from rbla_secure.run_folder.audit_log import AuditLog, EventKind, LogEntry
from rbla_secure.run_folder.folder import RunFolder
from tests.contracts.sessions import (
    make_session,
    names,
)
from tests.protocols.masking.parties import (
    AUTHORITY,
    TRUST,
    advertise,
    directory_of,
    signed_terms,
)
from tests.support.federations import InMemory
from tests.support.identities import NOW, make_authority, server_sum
from tests.threat_model.six_clients import first_session, initial, make_plan, participants, steady

SIGNED = pytest.mark.parametrize("profile", [ONE_ANSWER, CONSISTENCY], ids=lambda profile: profile.name)


def doubted(*, revoked: bool = False, expired: bool = False, enrolled: bool = True) -> TrustStore:
    """What everyone knows a little later, when something has happened to client-02."""
    two = AUTHORITY.identity("client-02")
    brief = issue_certificate(
        AUTHORITY.key,
        AUTHORITY.certificate,
        client="client-02",
        rank=4,
        public_key=two.key.public,
        now=NOW,
        valid_for=60,
    )
    entries = [entry for entry in TRUST.roster.entries if entry.client != "client-02" or not expired]
    entries = [entry for entry in entries if entry.client != "client-02" or enrolled]
    certificates = [brief] if expired else []
    if expired:
        entries = sorted([*entries, RosterEntry.of(brief)], key=lambda entry: entry.client)
    return TRUST.updated(
        now=NOW + 61,
        roster=Roster.issue(
            AUTHORITY.key,
            number=2,
            least_revocations=2,
            issued_at=NOW,
            expires_at=NOW + 1000,
            entries=tuple(entries),
        ),
        revocations=issue_revocations(
            AUTHORITY.key,
            AUTHORITY.certificate,
            serials=[two.certificate.serial] if revoked else [],
            number=2,
            now=NOW,
            valid_for=1000,
        ),
        certificates=certificates,
    )


@SIGNED
@pytest.mark.parametrize(
    ("doubt", "error"),
    [
        ({"revoked": True}, RevokedError),
        ({"expired": True}, CertificateError),
        ({"enrolled": False}, EnrolmentError),
    ],
)
def test_claim_15_a_peer_that_the_authority_does_not_vouch_for_gets_no_share(
    profile: MaskingProfile, doubt: dict[str, bool], error: type[IdentityError]
) -> None:
    """A revoked, expired or unknown peer in the directory stops a client before it shares anything."""
    session = make_session(4)
    terms = MaskingTerms(session=session, profile=profile, trust=doubted(**doubt))
    states, directory = advertise(terms)

    with pytest.raises(error, match="client-02"):
        create_sealed_shares(states[1], directory)
    fine = MaskingTerms(session=session, profile=profile, trust=doubted())
    states, directory = advertise(fine)
    assert create_sealed_shares(states[1], directory).message.sealed


def _forged_advertisements(terms: MaskingTerms) -> dict[str, tuple[KeyAdvertisement, type[ProtocolError]]]:
    """What a server may put in the place of client-02's advertisement, and what stops it."""
    stranger = ThrowawayAuthority.create(dict.fromkeys(names(4), 4), now=NOW).identity("client-02")
    neighbour, own = AUTHORITY.identity("client-03"), AUTHORITY.identity("client-02")
    again = replace(terms, session=replace(terms.session, attempt=2))
    old = create_key_advertisement(again, "client-02", own).message
    genuine = create_key_advertisement(terms, "client-02", own).message
    other = create_key_advertisement(terms, "client-02", own).message
    return {
        "of another authority": (
            create_key_advertisement(terms, "client-02", stranger).message,
            SignatureError,
        ),
        "signed by another client": (
            create_key_advertisement(terms, "client-02", neighbour).message,
            SignatureError,
        ),
        "unsigned": (create_key_advertisement(terms, "client-02").message, SignatureError),
        "with another mask key": (replace(genuine, mask_keys=other.mask_keys), SignatureError),
        "with another sealing key": (replace(genuine, sealing_key=other.sealing_key), SignatureError),
        "replayed": (old, ContextError),
        "replayed under this session": (replace(old, context=terms.context), SignatureError),
    }


@SIGNED
@pytest.mark.parametrize(
    "forgery", list(_forged_advertisements(signed_terms(make_session(4, threshold=3), ONE_ANSWER)))
)
def test_claim_15_keys_that_a_peer_did_not_sign_for_this_session_are_refused(
    profile: MaskingProfile, forgery: str
) -> None:
    """Substituted and replayed keys reach no client, whoever put them into the directory."""
    terms = signed_terms(make_session(4), profile)
    states, directory = advertise(terms)
    forged, error = _forged_advertisements(terms)[forgery]
    entries = [forged if entry.sender == 2 else entry for entry in directory.advertisements]

    with pytest.raises(error):
        create_sealed_shares(states[1], directory_of(terms, entries))


@SIGNED
def test_claim_15_keys_that_two_peers_advertise_are_refused(profile: MaskingProfile) -> None:
    """A peer that signs another one's key as its own is noticed."""
    terms = signed_terms(make_session(4), profile)
    states, directory = advertise(terms)
    second, third = directory.advertisements[1:3]
    copied = replace(second, mask_keys=third.mask_keys)
    signature = AUTHORITY.identity("client-02").sign(checks.ADVERTISEMENT, copied.signed_part())
    entries = [replace(copied, signature=signature) if e.sender == 2 else e for e in directory.advertisements]

    with pytest.raises(RosterError, match="key twice"):
        create_sealed_shares(states[1], directory_of(terms, entries))


@pytest.mark.parametrize("profile", ["one-answer", "consistency"])
def test_claim_15_a_revoked_client_costs_the_federation_nobody_else(profile: str) -> None:
    """The server refuses it at its keys, and the round goes on among the others."""
    plan = make_plan(f"masking.profile={profile}")
    authority = make_authority(plan)
    serial = authority.identity("a-03").certificate.serial
    trust = authority.view.updated(
        now=NOW,
        revocations=issue_revocations(
            authority.key, authority.certificate, serials=[serial], number=2, now=NOW, valid_for=1000
        ),
    )
    people = {
        name: Participant(
            name,
            plan=plan,
            secure_sum=build_secure_sum(plan, trust, authority.identity(name)),
            train=steady(0.01),
            examples=10,
        )
        for name in plan.ranks
    }
    session_server = SessionServer(plan, first_session(plan), build_secure_sum(plan, trust))
    network = InMemory(people)
    prepare_round(session_server, network)

    outcome = run_round(plan, session_server, initial(plan), network)

    assert outcome.dropped == {"a-03": "advertise_keys"}
    assert outcome.refusals["a-03"].startswith("RevokedError: ")
    assert outcome.survivors == ("a-01", "a-02", "b-01", "b-02", "b-03")


def test_claim_18_older_lists_than_the_known_ones_are_refused() -> None:
    """After a revocation nobody can be led back to the roster or the revocation list from before it.

    Nor can whoever sees the newest roster for the first time: it names the list that it must be used with.
    """
    known = doubted(revoked=True)

    with pytest.raises(EnrolmentError, match="roster number 1 is older than number 2"):
        known.updated(now=known.now, roster=TRUST.roster)
    with pytest.raises(EnrolmentError, match="revocation list number 1 is older than number 2"):
        known.updated(now=known.now, revocations=TRUST.revocations)
    with pytest.raises(EnrolmentError, match="two different revocation lists with number 2"):
        known.updated(now=known.now, revocations=doubted().revocations)
    with pytest.raises(
        EnrolmentError, match="must be used with revocation list 2 or a newer one, not with 1"
    ):
        TRUST.updated(now=known.now, roster=known.roster)
    assert known.updated(now=known.now + 1, roster=known.roster).roster == known.roster


def test_claim_18_the_authority_signs_nothing_beside_an_older_list(tmp_path: Path) -> None:
    """The list from before a revocation is put back into the authority's folder: no command goes on from it."""
    office, common = tmp_path / "office", {"passphrase": None, "now": NOW}
    authority.create_authority(office, name="test", days=30, **common)
    for client in ("a-01", "a-02"):
        authority.enrol(office, client=client, rank=2, days=10, out=None, client_passphrase=None, **common)
    older = (office / "revocations.crl").read_bytes()
    authority.revoke(office, client="a-01", **common)
    newest = (office / "revocations.crl").read_bytes()

    (office / "revocations.crl").write_bytes(older)
    with pytest.raises(EnrolmentError, match=r"revocations\.crl is revocation list 1, and roster 4"):
        authority.renew_lists(office, **common)
    (office / "revocations.crl").write_bytes(newest)
    (office / "certificates" / "a-02.pem").write_bytes((office / "certificates" / "a-01.pem").read_bytes())
    with pytest.raises(EnrolmentError, match=r"a-02\.pem, of client 'a-01'"):
        authority.revoke(office, client="a-02", **common)


@pytest.mark.parametrize("passphrase", [None, Secret(b"correct horse battery staple")], ids=repr)
def test_claim_19_a_private_key_is_its_owners_alone(tmp_path: Path, passphrase: Secret | None) -> None:
    """Its file has mode 0600 and is encrypted if a passphrase was given; one that others can open is not read."""
    office, folder = tmp_path / "office", tmp_path / "client"
    authority.create_authority(office, name="test", days=30, passphrase=passphrase, now=NOW)
    authority.enrol(
        office,
        client="a-01",
        rank=2,
        days=10,
        out=folder,
        passphrase=passphrase,
        client_passphrase=passphrase,
        now=NOW,
    )
    path = folder / "client.key"

    identity = load_identity(folder, passphrase=passphrase)

    assert identity.client == "a-01"
    for private in (path, *office.glob("*.key")):
        assert private.stat().st_mode & 0o777 == 0o600
        assert (b"ENCRYPTED" in private.read_bytes()) == (passphrase is not None)
        assert bytes(identity.key.secret) not in private.read_bytes()
    with pytest.raises(KeyFileError, match="passphrase"):
        load_identity(folder, passphrase=Secret(b"wrong"))
    for mode in (0o640, 0o604, 0o660, 0o602):
        path.chmod(mode)
        with pytest.raises(KeyFileError, match=f"mode 0{mode:o} opens the private key to others"):
            load_identity(folder, passphrase=passphrase)


def _a_logged_run(folder: Path) -> list[str]:
    """A run folder whose events are those of one session; its lines."""
    plan = make_plan()
    made = RunFolder.create(folder, plan.config)
    session_server = SessionServer(plan, first_session(plan), server_sum(plan), log=made.log)
    prepare_round(session_server, InMemory(participants(plan), silent_from={"a-01": "share_keys"}))
    made.log.append(LogEntry.of_run(EventKind.STEP_CHECKED, reason="scaled"))
    made.close()
    return (folder / "events.jsonl").read_text().splitlines()


def test_claim_22_a_changed_line_of_the_log_is_noticed(tmp_path: Path) -> None:
    """Each line but the last, changed in a character, left out, or exchanged with the next, is named on opening."""
    folder = tmp_path / "run"
    lines = _a_logged_run(folder)
    assert len(lines) == 3

    for number in range(len(lines) - 1):
        before, line, after = lines[:number], lines[number], lines[number + 1 :]
        for tampered in (
            [*before, line.replace('"number":', '"number": '), *after],
            [*before, line.replace('"time":1', '"time":2'), *after],
            [*before, *after],
            [*before, after[0], line, *after[1:]],
            [*before, line, line, *after],
        ):
            (folder / "events.jsonl").write_text("".join(each + "\n" for each in tampered))

            with pytest.raises(RunFolderError, match=rf"events\.jsonl line {number + 1}|line {number + 2}"):
                RunFolder.open(folder)


def test_claim_22_a_torn_line_is_no_tampering(tmp_path: Path) -> None:
    """What a crash left of the last line goes, and everything before it stays."""
    folder = tmp_path / "run"
    lines = _a_logged_run(folder)
    (folder / "events.jsonl").write_text("".join(line + "\n" for line in lines[:-1]) + lines[-1][:50])

    opened = RunFolder.open(folder)
    opened.log.append(LogEntry.of_run(EventKind.RUN_FINISHED, rounds=0, adapter_file="ab" * 32))
    opened.close()

    assert (folder / "events.jsonl").read_text().splitlines()[:-1] == lines[:-1]


def test_claim_22_the_head_is_what_a_rewritten_chain_cannot_have(tmp_path: Path) -> None:
    """The limit is true: a chain that was written anew opens, and only a head that is known elsewhere tells."""
    folder = tmp_path / "run"
    lines = _a_logged_run(folder)
    opened = RunFolder.open(folder)
    known = opened.log.head
    named = {"run": opened.run_id.hex(), "config": opened.config.digest().hex()}
    opened.close()

    AuditLog.create(folder / "events.jsonl", LogEntry.of_run(EventKind.RUN_CREATED, **named))
    again = RunFolder.open(folder)

    assert len(again.log) < len(lines)
    assert again.log.head != known
