"""Identities that a hostile server makes up, renames or brings back are refused by everyone."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from protocols.errors import (
    CertificateError,
    EnrolmentError,
    ProtocolError,
    RevokedError,
    RosterError,
    SignatureError,
)
from protocols.identity.certificates import Certificate, issue_certificate
from protocols.identity.revocations import issue_revocations
from protocols.identity.trust import Identity, TrustStore
from protocols.masking.secure_sum import Masking
from protocols.primitives.secret import Secret
from protocols.primitives.signing import SigningKey
from protocols.profiles import ONE_ANSWER, MaskingProfile
from tests.protocols.masking.hostile import NOW, SHARE, HostileServer, authority, make_session, stream
from tests.protocols.masking.hostile_scenes import (
    PUPPET,
    SIGNED,
    assert_finishes,
    assert_refused,
    first_four,
    genuine,
    profile_name,
    roster_of,
    swap,
    view_with,
)

# Who is who.


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A client's identity that is not to be believed, and what the attacker signs with."""

    trust: Callable[[], TrustStore]
    signer: Callable[[], Identity]
    doubted: frozenset[int]
    error: type[ProtocolError]
    match: str


def certified(key: SigningKey, *, valid_for: int = 86_400) -> Certificate:
    """A certificate of the last client for a key, by the real authority."""
    issuer = authority()
    return issue_certificate(
        issuer.key,
        issuer.certificate,
        client="client-05",
        rank=8,
        public_key=key.public,
        now=NOW,
        valid_for=valid_for,
        random_bytes=stream("another certificate"),
    )


def view_without_the_last() -> TrustStore:
    """A view in which the last client is not enrolled."""
    return authority().view.updated(now=NOW, roster=roster_of(*first_four()))


def view_with_revocation() -> TrustStore:
    """A view in which the last client's certificate was taken back."""
    issuer = authority()
    taken_back = issue_revocations(
        issuer.key,
        issuer.certificate,
        serials=[genuine(5).certificate.serial],
        number=2,
        now=NOW,
        valid_for=86_400,
    )
    return issuer.view.updated(now=NOW, revocations=taken_back)


def fifth_with(key: SigningKey) -> Identity:
    """The last client's identity with this key."""
    return Identity(client="client-05", key=key, certificate=certified(key))


NEW_KEY = SigningKey(Secret(bytes(range(32))))

DOUBTS: dict[str, Doubt] = {
    "unknown": Doubt(
        trust=view_without_the_last,
        signer=lambda: genuine(5),
        doubted=frozenset({5}),
        error=EnrolmentError,
        match="'client-05' is not enrolled",
    ),
    "duplicate: two clients with one key": Doubt(
        trust=lambda: view_with(certified(genuine(4).key)),
        signer=lambda: fifth_with(genuine(4).key),
        doubted=frozenset({4, 5}),
        error=EnrolmentError,
        match="'client-0[45]' shares its key",
    ),
    "re-bound to another key": Doubt(
        trust=lambda: view_with(certified(NEW_KEY), on_roster=False),
        signer=lambda: fifth_with(NEW_KEY),
        doubted=frozenset({5}),
        error=EnrolmentError,
        match="'client-05' is not the one on roster 2",
    ),
    "expired": Doubt(
        trust=lambda: view_with(certified(NEW_KEY, valid_for=60), now=NOW + 61),
        signer=lambda: fifth_with(NEW_KEY),
        doubted=frozenset({5}),
        error=CertificateError,
        match="'client-05' expired",
    ),
    "revoked": Doubt(
        trust=view_with_revocation,
        signer=lambda: genuine(5),
        doubted=frozenset({5}),
        error=RevokedError,
        match="'client-05' was revoked",
    ),
    "signed with a key that was replaced": Doubt(
        trust=lambda: view_with(certified(NEW_KEY)),
        signer=lambda: genuine(5),
        doubted=frozenset({5}),
        error=SignatureError,
        match="'client-05', key advertisement",
    ),
}


@pytest.mark.parametrize("name", DOUBTS)
def test_an_identity_in_doubt_is_refused_by_everyone(name: str) -> None:
    """A peer whose key is unknown, shared, re-bound, expired or revoked gets no share from anybody."""
    doubt = DOUBTS[name]
    server = HostileServer(make_session(5), ONE_ANSWER, corrupt=(PUPPET,), trust=doubt.trust())
    server.play_before(SHARE)
    request = swap(server, PUPPET, signer=doubt.signer())

    for position in (1, 2, 3):
        assert_refused(server, position, request, doubt.error, doubt.match)

    server.present -= doubt.doubted
    assert_finishes(server)


def test_a_certificate_of_the_servers_own_authority_is_not_believed() -> None:
    """Only certificates and rosters of the one authority that the client knows enter its view."""
    fake = authority("the server's own")

    with pytest.raises(CertificateError):
        authority().view.updated(now=NOW, certificates=[fake.identity("client-02").certificate])
    with pytest.raises(SignatureError):
        authority().view.updated(
            now=NOW, roster=replace(fake.view.roster, number=2, signature=fake.view.roster.signature)
        )


def test_a_roster_from_before_is_not_believed() -> None:
    """The server cannot bring back a roster that still lists somebody."""
    newer = authority().view.updated(now=NOW, roster=roster_of(*first_four()))

    with pytest.raises(EnrolmentError, match="older than number 2"):
        newer.updated(now=NOW, roster=authority().view.roster)


@pytest.mark.parametrize("profile", SIGNED, ids=profile_name)
def test_a_session_without_the_client_is_refused(profile: MaskingProfile) -> None:
    """A client asked into a session whose cohort lacks it says so before it makes any key."""
    session = make_session(5, threshold=profile.threshold(5))
    outside = authority().identity("client-06")

    with pytest.raises(RosterError, match="'client-06' is no member"):
        Masking(profile, trust=authority().view, identity=outside).client(session, "client-06")


@pytest.mark.parametrize("profile", SIGNED, ids=profile_name)
def test_a_session_that_speaks_for_another_client_is_refused(profile: MaskingProfile) -> None:
    """A client takes part under its own name alone."""
    session = make_session(5, threshold=profile.threshold(5))

    with pytest.raises(RosterError, match="no identity"):
        Masking(profile, trust=authority().view, identity=genuine(2)).client(session, "client-01")
