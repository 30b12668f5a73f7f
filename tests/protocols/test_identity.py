"""Whom a party believes: enrolled clients under their one key, by lists in force, and nobody else."""

import hashlib
import itertools
from dataclasses import replace
from typing import Any

import pytest

from protocols.errors import (
    CertificateError,
    EnrolmentError,
    RevokedError,
    SignatureError,
    WireError,
)
from protocols.identity import MONTH_SECONDS, Identity, ThrowawayAuthority, TrustStore
from protocols.primitives.certificates import Certificate, issue_certificate
from protocols.primitives.revocations import RevocationList, issue_revocations
from protocols.primitives.signing import SigningKey, verify
from protocols.roster import Roster, RosterEntry, signed_bytes
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
    terms = {"number": 2, "issued_at": NOW, "expires_at": NOW + 1000, "entries": entries}
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
    """Number, times, entries and signature in this order; the digest leaves out the signature."""
    entry = RosterEntry(client="a", rank=8, fingerprint=bytes(range(32)))
    signed = Roster.issue(AUTHORITY.key, number=3, issued_at=5, expires_at=6, entries=[entry])
    content = bytes.fromhex(
        "52530230 0300000000000000 0500000000000000 0600000000000000 01000000 010061 0800"
        + bytes(range(32)).hex()
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
    data = Writer(MessageType.ROSTER).unsigned(1, 8).unsigned(1, 8).unsigned(2, 8).unsigned(claim, 4).done()

    with pytest.raises(WireError):
        Roster.from_bytes(data + bytes(64))


@pytest.mark.parametrize(
    "changes",
    [{"number": 0}, {"number": 2**63}, {"issued_at": -1}, {"expires_at": NOW}, {"expires_at": 2**62}],
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
    records = [RosterEntry(client=client, rank=rank, fingerprint=bytes(32)) for client, rank in entries]

    with pytest.raises(EnrolmentError):
        roster(entries=records)


def test_an_unsorted_roster_is_refused() -> None:
    """The reader does not sort: entries out of order raise EnrolmentError."""
    writer = Writer(MessageType.ROSTER).unsigned(1, 8).unsigned(1, 8).unsigned(2, 8).unsigned(2, 4)
    for client in ("b", "a"):
        writer.text(client).unsigned(1, 2).fixed(bytes(32), 32)

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
        TRUST.updated(now=NOW - 1)
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
