"""Whom a party believes: enrolled clients under their one key, by lists in force, and nobody else."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from protocols.clock import Clock
from protocols.errors import (
    CertificateError,
    EnrolmentError,
    RevokedError,
    SignatureError,
)
from protocols.identity.roster import signed_bytes
from protocols.identity.trust import MONTH_SECONDS, Identity, ThrowawayAuthority, TrustStore
from protocols.primitives.signing import SigningKey, verify
from tests.protocols.identity.views import (
    AUTHORITY,
    NOW,
    PURPOSE,
    RANKS,
    TRUST,
    authority,
    certify,
    revocations,
    roster,
    view,
)

OTHER = ThrowawayAuthority.create(RANKS, now=NOW)


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
