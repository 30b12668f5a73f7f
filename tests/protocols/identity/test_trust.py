"""Whom a party believes: enrolled clients under their one key, by lists in force, and nobody else."""

import hashlib
import itertools
import time
from dataclasses import replace
from typing import Any

import pytest

from protocols.clock import SYSTEM_CLOCK, Clock
from protocols.errors import (
    CertificateError,
    EnrolmentError,
    RevokedError,
    SignatureError,
    WireError,
)
from protocols.identity.certificates import Certificate, issue_certificate
from protocols.identity.revocations import RevocationList, issue_revocations
from protocols.identity.roster import Roster, RosterEntry, signed_bytes
from protocols.identity.trust import MONTH_SECONDS, Identity, ThrowawayAuthority, TrustStore
from protocols.primitives.signing import SigningKey, verify
from protocols.wire import MessageType, Writer

NOW = 1_800_000_000
RANKS = {"alice": 4, "bob": 8, "carol": 8}
PURPOSE = b"a purpose"


def authority(**ranks: int) -> ThrowawayAuthority:
    """An authority whose every byte is known."""
    counter = itertools.count()
    return ThrowawayAuthority.create(
        ranks or RANKS,
        now=NOW,
        random_bytes=lambda size: hashlib.sha256(str(next(counter)).encode()).digest()[:size],
    )


AUTHORITY = authority()
TRUST = AUTHORITY.view
OTHER = ThrowawayAuthority.create(RANKS, now=NOW)


def certify(**changes: Any) -> Certificate:
    """Another certificate of the same authority; by default for alice, with a new key."""
    terms = {"client": "alice", "rank": 4, "public_key": SigningKey.generate().public, "valid_for": 1000}
    return issue_certificate(AUTHORITY.key, AUTHORITY.certificate, **{**terms, "now": NOW, **changes})


def roster(*certificates: Certificate, **changes: Any) -> Roster:
    """A roster of these certificates; of the first view's if there are none."""
    entries = map(RosterEntry.of, certificates) if certificates else TRUST.roster.entries
    terms = {
        "number": 2,
        "least_revocations": 1,
        "issued_at": NOW,
        "expires_at": NOW + 1000,
        "entries": entries,
    }
    return Roster.issue(AUTHORITY.key, **{**terms, **changes})


def revocations(*serials: int, **changes: Any) -> RevocationList:
    """A newer revocation list."""
    terms = {"serials": serials, "number": 2, "now": NOW, "valid_for": 1000}
    return issue_revocations(AUTHORITY.key, AUTHORITY.certificate, **{**terms, **changes})


def view(*certificates: Certificate) -> TrustStore:
    """The view under a roster of exactly these certificates."""
    return TRUST.updated(now=NOW, roster=roster(*certificates), certificates=certificates)


def test_a_signature_is_over_prefix_purpose_and_message() -> None:
    """The signed bytes are the documented ones, and the bare primitive verifies them."""
    alice = AUTHORITY.identity("alice")

    signature = alice.sign(b"survivor list", b"\x00message")

    verify(alice.key.public, signature, b"rbla-secure v1 survivor list\x00\x00message")
    assert signed_bytes(b"survivor list", b"") == b"rbla-secure v1 survivor list\x00"


@pytest.mark.parametrize("client", RANKS)
def test_every_client_is_believed_under_its_own_key(client: str) -> None:
    """The view knows each client's rank and key, and takes its signatures."""
    identity = AUTHORITY.identity(client)

    signature = identity.sign(PURPOSE, b"message")

    TRUST.verify(client, PURPOSE, b"message", signature)
    assert TRUST.check(client) == identity.certificate
    assert TRUST.check(client).rank == RANKS[client]


@pytest.mark.parametrize(
    "changes",
    [
        {"client": "bob"},
        {"purpose": b"another"},
        {"message": b"other"},
        {"signature": bytes(64)},
        {"signature": b""},
    ],
)
def test_a_signature_is_bound_to_signer_purpose_and_message(changes: dict[str, Any]) -> None:
    """Another client, purpose, message or signature raises SignatureError, which names the client."""
    signature = AUTHORITY.identity("alice").sign(PURPOSE, b"message")
    claim = {"client": "alice", "purpose": PURPOSE, "message": b"message", "signature": signature, **changes}

    with pytest.raises(SignatureError, match=claim["client"]):
        TRUST.verify(**claim)


@pytest.mark.parametrize("purpose", [b"", b"a\x00b", b"A", b"a" * 65, b" a", "ä".encode()])
def test_purposes_hold_no_separator(purpose: bytes) -> None:
    """A purpose that could run into the message raises SignatureError."""
    with pytest.raises(SignatureError, match="purpose"):
        AUTHORITY.identity("alice").sign(purpose, b"")


def test_an_identity_is_one_client_one_key_one_certificate() -> None:
    """Another client's certificate or another key raises EnrolmentError; nothing of the key prints."""
    alice, bob = AUTHORITY.identity("alice"), AUTHORITY.identity("bob")

    with pytest.raises(EnrolmentError, match="is not that of 'alice'"):
        Identity(client="alice", key=alice.key, certificate=bob.certificate)
    with pytest.raises(EnrolmentError, match="another key"):
        Identity(client="alice", key=bob.key, certificate=alice.certificate)
    assert bytes(alice.key.secret).hex() not in repr(alice) + repr(AUTHORITY)
    assert repr(bytes(alice.key.secret)) not in repr(alice) + repr(AUTHORITY)


# --- the roster ---


def test_a_roster_has_the_documented_bytes() -> None:
    """Numbers, times, entries and signature in this order; the digest leaves out the signature."""
    entry = RosterEntry(client="a", rank=8, fingerprint=bytes(range(32)), key_digest=bytes(range(32, 64)))
    signed = Roster.issue(
        AUTHORITY.key, number=3, least_revocations=2, issued_at=5, expires_at=6, entries=[entry]
    )
    content = bytes.fromhex(
        "52530230 0300000000000000 0200000000000000 0500000000000000 0600000000000000 01000000 010061 0800"
        + bytes(range(64)).hex()
    )

    assert signed.to_bytes() == content + signed.signature
    assert signed.digest == hashlib.sha256(b"rbla-secure roster\x00" + content).digest()
    assert signed.signature == AUTHORITY.key.sign(b"rbla-secure v1 roster\x00" + content)


def test_a_roster_comes_back_and_stands_in_order() -> None:
    """Bytes give the same roster; entries are sorted whatever their order was."""
    first = Roster.from_bytes(TRUST.roster.to_bytes())
    shuffled = roster(*(AUTHORITY.identity(client).certificate for client in ("carol", "alice", "bob")))

    first.verify(AUTHORITY.key.public)
    assert first == TRUST.roster
    assert [entry.client for entry in shuffled.entries] == ["alice", "bob", "carol"]


def test_a_change_of_any_byte_of_a_roster_is_refused() -> None:
    """Flipping a bit raises SignatureError, or WireError or EnrolmentError where the form breaks."""
    data = TRUST.roster.to_bytes()

    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises((SignatureError, WireError, EnrolmentError)):
            Roster.from_bytes(changed).verify(AUTHORITY.key.public)


@pytest.mark.parametrize("cut", [1, 64, 65, 200])
def test_a_roster_of_another_length_is_refused(cut: int) -> None:
    """A roster that ends early or goes on raises WireError."""
    data = TRUST.roster.to_bytes()

    with pytest.raises(WireError):
        Roster.from_bytes(data[:-cut])
    with pytest.raises(WireError):
        Roster.from_bytes(data + bytes(cut))


@pytest.mark.parametrize("claim", [3, 2**32 - 1])
def test_a_roster_that_claims_more_entries_than_it_has_is_refused(claim: int) -> None:
    """A count beyond the bytes at hand raises WireError."""
    writer = Writer(MessageType.ROSTER).unsigned(1, 8).unsigned(1, 8).unsigned(1, 8).unsigned(2, 8)
    data = writer.unsigned(claim, 4).done()

    with pytest.raises(WireError):
        Roster.from_bytes(data + bytes(64))


@pytest.mark.parametrize(
    "changes",
    [
        *({"number": 0}, {"number": 2**63}, {"least_revocations": 0}, {"least_revocations": 2**63}),
        *({"issued_at": -1}, {"expires_at": NOW}, {"expires_at": 2**62}),
    ],
)
def test_rosters_that_break_a_rule_are_not_issued(changes: dict[str, Any]) -> None:
    """A number or time out of range raises EnrolmentError."""
    with pytest.raises(EnrolmentError):
        roster(**changes)


@pytest.mark.parametrize(
    "entries",
    [[("a", 1), ("a", 1)], [("a", 1), ("a", 2)], [("a/b", 1)], [("", 1)], [("a", -1)], [("a", 2**16)]],
)
def test_entries_that_break_a_rule_are_not_issued(entries: list[tuple[str, int]]) -> None:
    """A client listed twice, a malformed client id or rank raises EnrolmentError."""
    records = [
        RosterEntry(client=client, rank=rank, fingerprint=bytes(32), key_digest=bytes(32))
        for client, rank in entries
    ]

    with pytest.raises(EnrolmentError):
        roster(entries=records)


def test_an_unsorted_roster_is_refused() -> None:
    """The reader does not sort: entries out of order raise EnrolmentError."""
    writer = Writer(MessageType.ROSTER).unsigned(1, 8).unsigned(1, 8).unsigned(1, 8).unsigned(2, 8)
    writer.unsigned(2, 4)
    for client in ("b", "a"):
        writer.text(client).unsigned(1, 2).fixed(bytes(32), 32).fixed(bytes(32), 32)

    with pytest.raises(EnrolmentError, match="increasing"):
        Roster.from_bytes(writer.done() + bytes(64))


# --- one client ---


def test_strangers_are_refused() -> None:
    """A client that is not on the roster raises EnrolmentError, even with a certificate of the authority."""
    stranger = certify(client="mallory")
    trust = TRUST.updated(now=NOW, certificates=[stranger])

    with pytest.raises(EnrolmentError, match="'mallory' is not enrolled by roster 1"):
        trust.check("mallory")


def test_a_missing_certificate_is_refused() -> None:
    """A client on the roster whose certificate nobody has shown raises EnrolmentError."""
    certificates = {client: TRUST.certificates[client] for client in ("alice", "bob")}
    trust = replace(TRUST, certificates=certificates)

    with pytest.raises(EnrolmentError, match="'carol' is missing"):
        trust.check("carol")


@pytest.mark.parametrize("changes", [{}, {"rank": 8, "public_key": TRUST.certificates["alice"].public_key}])
def test_a_rebound_key_or_rank_is_refused(changes: dict[str, Any]) -> None:
    """A second certificate of an enrolled client, for another key or rank, raises EnrolmentError."""
    trust = TRUST.updated(now=NOW, certificates=[certify(**changes)])

    with pytest.raises(EnrolmentError, match="not the one on roster 1"):
        trust.check("alice")


def test_a_key_of_two_clients_is_refused() -> None:
    """Two enrolled clients with one key both raise EnrolmentError; the others go on."""
    shared = SigningKey.generate().public
    twins = [certify(client=client, public_key=shared) for client in ("alice", "bob")]
    trust = view(*twins, AUTHORITY.identity("carol").certificate)

    for client in ("alice", "bob"):
        with pytest.raises(EnrolmentError, match="shares its key"):
            trust.check(client)
    trust.check("carol")


def test_a_twin_cannot_be_hidden() -> None:
    """Two clients with one key are seen from the roster alone, though the other one's certificate is withheld."""
    shared = SigningKey.generate().public
    twins = [certify(client=client, public_key=shared) for client in ("alice", "bob")]
    whole = view(*twins, AUTHORITY.identity("carol").certificate)

    trust = replace(whole, certificates={name: whole.certificates[name] for name in ("alice", "carol")})

    with pytest.raises(EnrolmentError, match="'alice' shares its key"):
        trust.check("alice")
    with pytest.raises(EnrolmentError, match="'bob' is missing"):
        trust.check("bob")
    trust.check("carol")


def test_an_entry_with_another_key_digest_lists_nobody() -> None:
    """A roster cannot hide a twin behind a digest of another key: such an entry is not its certificate's."""
    entries = [
        replace(entry, key_digest=bytes(32)) if entry.client == "alice" else entry
        for entry in TRUST.roster.entries
    ]
    trust = TRUST.updated(now=NOW, roster=roster(entries=entries))

    with pytest.raises(EnrolmentError, match="not the one on roster 2"):
        trust.check("alice")
    trust.check("bob")


def test_a_revoked_client_is_refused() -> None:
    """A revoked certificate raises RevokedError, at once and for its signatures; the others go on."""
    alice = AUTHORITY.identity("alice")
    trust = TRUST.updated(now=NOW, revocations=revocations(alice.certificate.serial))

    with pytest.raises(RevokedError, match="'alice' was revoked"):
        trust.verify("alice", PURPOSE, b"", alice.sign(PURPOSE, b""))
    trust.check("bob")


def test_a_client_is_believed_only_during_its_validity() -> None:
    """Before and after the validity of its certificate a client raises CertificateError."""
    young, old = certify(client="young", now=NOW + 500), certify(client="old", valid_for=100)
    trust = view(young, old)

    with pytest.raises(CertificateError, match="not yet valid"):
        trust.check("young")
    trust.check("old")
    later = trust.updated(now=NOW + 500)
    later.check("young")
    with pytest.raises(CertificateError, match="expired"):
        later.check("old")


# --- who takes part, and with which rank ---


@pytest.mark.parametrize("client", RANKS)
def test_a_client_takes_part_with_its_own_rank(client: str) -> None:
    """The enrolled rank passes, and where ranks mean nothing to the session the client alone; the certificate comes back."""
    certificate = AUTHORITY.identity(client).certificate

    assert TRUST.check_client(client, rank=RANKS[client]) == certificate
    assert TRUST.check_client(client) == certificate


@pytest.mark.parametrize("rank", [0, 1, 3, 5, 8, 65535])
def test_no_client_takes_part_with_another_rank(rank: int) -> None:
    """Any other rank than the certified one, above or below, raises EnrolmentError, which names both."""
    with pytest.raises(
        EnrolmentError, match=f"'alice' is enrolled with rank 4, and the plan gives it rank {rank}"
    ):
        TRUST.check_client("alice", rank=rank)


@pytest.mark.parametrize("rank", [None, 0, 4])
def test_a_service_takes_no_part_as_a_client(rank: int | None) -> None:
    """A certificate of rank 0 raises EnrolmentError, whatever rank the session gives it or none."""
    served = ThrowawayAuthority.create(RANKS, now=NOW, services={"decryptor": SigningKey.generate().public})

    served.view.check("decryptor")
    with pytest.raises(EnrolmentError, match="'decryptor' is enrolled as a service"):
        served.view.check_client("decryptor", rank=rank)


def test_who_takes_part_is_believed_first() -> None:
    """A right rank helps no client that is revoked, unknown or expired."""
    serial = AUTHORITY.identity("alice").certificate.serial
    trust = TRUST.updated(now=NOW, revocations=revocations(serial), certificates=[certify(client="dave")])

    with pytest.raises(RevokedError):
        trust.check_client("alice", rank=4)
    with pytest.raises(EnrolmentError, match="'dave' is not enrolled"):
        trust.check_client("dave", rank=4)
    with pytest.raises(CertificateError, match="expired"):
        view(certify(valid_for=100)).updated(now=NOW + 101).check_client("alice", rank=4)


# --- what sessions are bound to ---


def test_the_digest_has_the_documented_bytes() -> None:
    """SHA-256 over the roster's digest, the list's number and the list's own digest."""
    listed = (1).to_bytes(8, "big") + hashlib.sha256(TRUST.revocations.der).digest()

    assert TRUST.digest == hashlib.sha256(b"rbla-secure trust\x00" + TRUST.roster.digest + listed).digest()


def test_the_digest_is_of_both_lists_and_of_nothing_else() -> None:
    """Every other roster and every other revocation list gives another digest; moments, clocks and certificates none."""
    alice = AUTHORITY.identity("alice").certificate
    others = [
        TRUST.updated(now=NOW, roster=roster()),
        TRUST.updated(now=NOW, roster=roster(number=3)),
        TRUST.updated(now=NOW, roster=roster(expires_at=NOW + 999)),
        TRUST.updated(now=NOW, roster=roster(alice)),
        TRUST.updated(now=NOW, revocations=revocations()),
        TRUST.updated(now=NOW, revocations=revocations(number=3)),
        TRUST.updated(now=NOW, revocations=revocations(alice.serial)),
        TRUST.updated(now=NOW, revocations=revocations(alice.serial, valid_for=999)),
        TRUST.updated(now=NOW, roster=roster(least_revocations=2), revocations=revocations()),
        OTHER.view,
    ]
    same = [
        TRUST.updated(now=NOW + 5),
        replace(TRUST, clock=Clock(lambda: NOW, lambda: 0)),
        replace(TRUST, certificates={"alice": alice}),
    ]

    assert len({TRUST.digest, *(view.digest for view in others)}) == 1 + len(others)
    assert {view.digest for view in same} == {TRUST.digest}


# --- a roster and the revocations before it ---


def test_a_new_roster_is_not_used_with_an_old_revocation_list() -> None:
    """Whoever shows the newest roster must show the list that it names, or a newer one: else EnrolmentError."""
    newest = roster(least_revocations=3)

    for number in (1, 2):
        with pytest.raises(
            EnrolmentError, match=f"roster 2 must be used with revocation list 3 .* not with {number}"
        ):
            TRUST.updated(
                now=NOW, roster=newest, revocations=revocations(number=number) if number > 1 else None
            )
    for number in (3, 4):
        assert TRUST.updated(now=NOW, roster=newest, revocations=revocations(number=number)).roster == newest


def test_a_revoked_client_does_not_come_back_with_the_newest_roster() -> None:
    """A server that holds back the revocation list alone is caught; by a roster that names none (control) it is not."""
    alice = AUTHORITY.identity("alice")
    old = TRUST.revocations  # from before alice was revoked

    careless = TRUST.updated(now=NOW, roster=roster(least_revocations=1), revocations=old)
    careless.verify("alice", PURPOSE, b"", alice.sign(PURPOSE, b""))

    with pytest.raises(EnrolmentError, match="must be used with revocation list 2"):
        TRUST.updated(now=NOW, roster=roster(least_revocations=2), revocations=old)
    with pytest.raises(EnrolmentError, match="must be used with revocation list 2"):
        TrustStore.read(
            authority=TRUST.authority,
            roster=roster(least_revocations=2).to_bytes(),
            revocations=old.der,
            certificates=[alice.certificate.der],
            now=NOW,
        )


# --- the clock ---


class Wall:
    """A wall clock and a steady clock that a test sets."""

    def __init__(self, now: float) -> None:
        self.now, self.passed = now, 0.0

    def clock(self) -> Clock:
        """The clock under test on top of them."""
        return Clock(lambda: self.now, lambda: self.passed)

    def wait(self, seconds: float) -> None:
        """Both go on."""
        self.now += seconds
        self.passed += seconds


def test_a_client_that_expires_is_refused_from_then_on() -> None:
    """One and the same view believes a client until its certificate ends, and not a second longer."""
    wall = Wall(NOW)
    trust = replace(view(certify(valid_for=100)), clock=wall.clock())

    trust.check("alice")
    wall.wait(100)
    trust.check("alice")
    wall.wait(1)

    with pytest.raises(CertificateError, match="expired 1 seconds ago"):
        trust.check("alice")


@pytest.mark.parametrize("what", ["roster", "revocations"])
def test_a_list_that_expires_is_noticed_in_the_middle_of_a_run(what: str) -> None:
    """When the roster or the revocation list of a living view ends, nobody is believed any more."""
    wall = Wall(NOW)
    lists: dict[str, Any] = {"roster": roster(expires_at=NOW + 50), "revocations": revocations(valid_for=50)}
    trust = replace(TRUST.updated(now=NOW, **{what: lists[what]}), clock=wall.clock())
    alice = AUTHORITY.identity("alice")

    wall.wait(50)
    trust.verify("alice", PURPOSE, b"", alice.sign(PURPOSE, b""))
    wall.wait(1)

    for ask in (trust.check, trust.check_client, lambda name: trust.verify(name, PURPOSE, b"", b"")):
        with pytest.raises((EnrolmentError, CertificateError), match=r"(list|roster) 2 expired"):
            ask("alice")
    with pytest.raises((EnrolmentError, CertificateError), match="expired"):
        trust.check_in_force()


def test_a_view_without_a_clock_stays_where_it_is() -> None:
    """With an explicit moment alone nothing ever expires: for tests, and for one check."""
    assert TRUST.moment == NOW
    assert AUTHORITY.trust(NOW + 7).moment == NOW + 7


def test_setting_the_clock_back_brings_nothing_back() -> None:
    """A wall clock that is set back neither revives what has expired nor gives a second to what has not."""
    wall = Wall(NOW)
    trust = replace(view(certify(valid_for=100)), clock=wall.clock())
    wall.wait(90)
    trust.check("alice")

    wall.now = NOW  # ninety seconds are set back
    assert trust.moment == NOW + 90
    wall.wait(10)
    trust.check("alice")
    wall.wait(1)

    with pytest.raises(CertificateError, match="expired 1 seconds ago"):
        trust.check("alice")


def test_a_wall_clock_that_stands_still_does_not_stop_time() -> None:
    """Time that is held back from the machine passes all the same, by the steady clock."""
    wall = Wall(NOW)
    trust = replace(view(certify(valid_for=100)), clock=wall.clock())

    wall.passed += 101

    with pytest.raises(CertificateError, match="expired"):
        trust.check("alice")


def test_a_clock_before_the_moment_of_a_view_does_not_turn_it_back() -> None:
    """A view never counts from before the moment that it was given, whatever its clock says."""
    late = NOW + 1000
    behind = replace(view(certify(valid_for=10_000)), now=late, clock=Wall(NOW - 5).clock())

    assert behind.moment == late
    assert behind.updated(now=NOW).moment == late


def test_newer_lists_do_not_turn_a_view_back() -> None:
    """Updated with an earlier moment leaves the later one: what has expired stays expired."""
    trust = view(certify(valid_for=100)).updated(now=NOW + 101)

    again = trust.updated(now=NOW, revocations=revocations())

    with pytest.raises(CertificateError, match="expired"):
        again.check("alice")


def test_views_are_equal_whatever_their_clocks() -> None:
    """A clock is no part of what a view says; it goes along when the lists are brought up to date."""
    clock = Wall(NOW).clock()
    ticking = replace(TRUST, clock=clock)

    assert ticking == TRUST
    assert ticking.updated(now=NOW, revocations=revocations()).clock is clock
    assert ThrowawayAuthority.create(RANKS, now=NOW, clock=clock).trust(NOW).clock is clock


def test_the_clock_of_the_system_tells_the_time() -> None:
    """It reads between two readings of the wall clock, and goes on."""
    before, told, after = int(time.time()), SYSTEM_CLOCK(), int(time.time()) + 1

    assert before - 1 <= told <= after
    assert SYSTEM_CLOCK() >= told


# --- the view ---


def test_a_view_of_another_authority_is_refused() -> None:
    """A roster, list or certificate that another authority signed raises its named error."""
    with pytest.raises(SignatureError, match="roster 1 was not signed"):
        replace(TRUST, roster=OTHER.view.roster)
    with pytest.raises(CertificateError, match="not signed"):
        replace(TRUST, revocations=OTHER.view.revocations)
    with pytest.raises(CertificateError, match="not signed"):
        replace(TRUST, certificates=OTHER.view.certificates)


def test_records_that_their_bytes_do_not_bear_out_are_refused() -> None:
    """A certificate or list with an altered field raises CertificateError, a wrong name EnrolmentError."""
    alice = TRUST.certificates["alice"]

    with pytest.raises(CertificateError, match="not what its bytes say"):
        replace(TRUST, certificates={"alice": replace(alice, rank=16)})
    with pytest.raises(CertificateError, match="not what its bytes say"):
        replace(TRUST, revocations=replace(TRUST.revocations, serials=frozenset({1})))
    with pytest.raises(EnrolmentError, match="stands under 'bob'"):
        replace(TRUST, certificates={"bob": alice})


def test_lists_that_are_not_in_force_are_refused() -> None:
    """A roster outside its validity raises EnrolmentError, a revocation list CertificateError."""
    short = TRUST.updated(now=NOW, roster=roster(expires_at=NOW + 10))
    stale = TRUST.updated(now=NOW, revocations=revocations(valid_for=10))

    with pytest.raises(EnrolmentError, match="roster 2 expired 1 seconds ago"):
        short.updated(now=NOW + 11)
    with pytest.raises(EnrolmentError, match="roster 1 is not yet valid"):
        replace(TRUST, now=NOW - 1)
    with pytest.raises(CertificateError, match="revocation list 2 expired"):
        stale.updated(now=NOW + 11)


def test_a_view_goes_forward_only() -> None:
    """A roster or revocation list with a lower number raises EnrolmentError; the known one may come again."""
    newer = TRUST.updated(now=NOW, roster=roster(number=5), revocations=revocations(number=5))

    with pytest.raises(EnrolmentError, match="roster number 1 is older than number 5"):
        newer.updated(now=NOW, roster=TRUST.roster)
    with pytest.raises(EnrolmentError, match="revocation list number 1 is older than number 5"):
        newer.updated(now=NOW, revocations=TRUST.revocations)
    assert newer.updated(now=NOW, roster=newer.roster, revocations=newer.revocations) == newer


def test_two_lists_under_one_number_are_refused() -> None:
    """An authority that signs two rosters or revocation lists of one number is caught: EnrolmentError."""
    with pytest.raises(EnrolmentError, match="two different rosters with number 1"):
        TRUST.updated(now=NOW, roster=roster(number=1))
    with pytest.raises(EnrolmentError, match="two different revocation lists with number 1"):
        TRUST.updated(now=NOW, revocations=revocations(7, number=1))


def test_a_view_is_read_from_bytes() -> None:
    """Bytes as they come from the disk give the same view; two certificates of one client EnrolmentError."""
    parts: dict[str, Any] = {
        "authority": AUTHORITY.key.public,
        "roster": TRUST.roster.to_bytes(),
        "revocations": TRUST.revocations.der,
        "now": NOW,
    }
    certificates = [certificate.der for certificate in TRUST.certificates.values()]

    assert TrustStore.read(**parts, certificates=certificates) == TRUST
    with pytest.raises(EnrolmentError, match="two certificates of 'alice'"):
        TrustStore.read(**parts, certificates=[*certificates, certify().der])


def test_a_view_cannot_be_changed() -> None:
    """Neither the certificates of a view nor those it was made from can be exchanged afterwards."""
    given = dict(TRUST.certificates)
    trust = replace(TRUST, certificates=given)

    given["alice"] = certify()

    assert trust.check("alice") == TRUST.certificates["alice"]
    with pytest.raises(TypeError):
        trust.certificates["alice"] = certify()  # type: ignore[index]


# --- the throwaway authority ---


def test_a_throwaway_authority_lasts_as_long_as_it_says() -> None:
    """Everything it makes is believed to the last second, and nothing after it."""
    last = AUTHORITY.trust(NOW + MONTH_SECONDS)

    assert [last.check(client).client for client in RANKS] == list(RANKS)
    with pytest.raises(EnrolmentError, match="expired"):
        AUTHORITY.trust(NOW + MONTH_SECONDS + 1)


def test_two_throwaway_authorities_share_nothing() -> None:
    """Keys are fresh by default and made of the given bytes in tests; strangers have no identity."""
    assert AUTHORITY.view == authority().view
    assert AUTHORITY.view.authority != OTHER.view.authority
    assert AUTHORITY.identity("alice").key.public != OTHER.identity("alice").key.public
    with pytest.raises(EnrolmentError, match="'dave' is not enrolled"):
        AUTHORITY.identity("dave")
