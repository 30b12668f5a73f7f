"""Whom a decryptor and a verifier believe, and what time it is, their own operators say; revoked clients are in no sum."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from protocols.errors import (
    CertificateError,
    ContextError,
    EnrolmentError,
    ProtocolError,
    RevokedError,
    RosterError,
    ServiceError,
    SessionError,
    StageError,
)
from protocols.homomorphic.client import HomomorphicClient
from protocols.homomorphic.messages import RoundKey
from protocols.homomorphic.secure_sum import Homomorphic
from protocols.homomorphic.service_messages import SessionRequest, Setup
from protocols.homomorphic.services import KeyedService, LocalChannel
from protocols.identity import TrustStore
from protocols.primitives.certificates import issue_certificate
from protocols.primitives.revocations import RevocationList, issue_revocations
from protocols.primitives.secret import SYSTEM_RANDOM
from protocols.roster import Roster, RosterEntry
from protocols.session import Segment, Session
from protocols.wire import MessageType, Writer
from tests.contracts.sessions import make_inputs, make_session, names, plain_sum, same_bindings, segment
from tests.protocols.homomorphic.parties import (
    AUTHORITY,
    NOW,
    SERVICE_KEYS,
    TRUST,
    VERIFIED,
    Meeting,
    charge_for,
    local_roles,
    server_of,
)

FIRST, SECOND, THIRD, REVOKED = MEMBERS = names(4)
SESSION = make_session(4, segment(0, 20, MEMBERS, 3))
CHARGE = charge_for()


def revocation_list(number: int, *clients: str) -> RevocationList:
    """One that takes back these clients' certificates."""
    serials = [TRUST.certificates[client].serial for client in clients]
    return issue_revocations(
        AUTHORITY.key, AUTHORITY.certificate, serials=serials, number=number, now=NOW + 10, valid_for=1000
    )


NEW = TRUST.updated(now=NOW + 20, revocations=revocation_list(2, REVOKED))
OTHER_NEW = TRUST.updated(now=NOW + 20, revocations=revocation_list(2))


def client_with(trust: TrustStore, member: str, session: Session = SESSION) -> HomomorphicClient:
    """A member that knows these lists."""
    secure_sum = Homomorphic(
        CHARGE.profile, CHARGE.services, trust=trust, identity=AUTHORITY.identity(member)
    )
    return secure_sum.client(session, member)


def decryptor_with(trust: TrustStore, *, ticks: Callable[[], float] = lambda: 0.0) -> KeyedService:
    """A decryptor whose operator has told it these lists."""
    service = KeyedService("decryptor", SERVICE_KEYS["decryptor"], ticks=ticks)
    service.set_up(Setup(charge=CHARGE, trust=trust))
    return service


# --- a revoked client ---


def test_where_lists_are_not_bound_a_revoked_client_is_in_the_opened_sum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: clients that check neither members nor the list's digest contribute beside one they know to be revoked."""
    monkeypatch.setattr(TrustStore, "digest", property(lambda store: store.roster.digest))
    monkeypatch.setattr(TrustStore, "check_client", lambda *_, **__: None)
    meeting = Meeting.of(SESSION, CHARGE)
    meeting.clients |= {member: client_with(NEW, member) for member in MEMBERS[:3]}
    meeting.take(*MEMBERS)

    found = meeting.sums(same_bindings(SESSION))

    assert found == {0: plain_sum(meeting.inputs, SESSION.segments[0], MEMBERS)}
    with pytest.raises(RevokedError):
        NEW.check(REVOKED)


def test_a_client_contributes_to_no_session_with_a_revoked_member() -> None:
    """It refuses by name before it sees a key; so do aggregator, decryptor and verifier that know the list."""
    for member in MEMBERS[:3]:
        with pytest.raises(RevokedError, match=REVOKED):
            client_with(NEW, member)
    with pytest.raises(RevokedError, match=REVOKED):
        CHARGE.terms(SESSION, NEW)
    with pytest.raises(RevokedError, match=REVOKED):
        LocalChannel(decryptor_with(NEW)).call(SessionRequest(session=SESSION).to_bytes())


@pytest.mark.parametrize("trust", [TRUST, OTHER_NEW], ids=["the older list", "another list of that number"])
def test_parties_that_know_different_lists_complete_nothing(trust: TrustStore) -> None:
    """Without the revoked member too: a key made under another list is taken by nobody who knows this one."""
    session = make_session(3, segment(0, 20, MEMBERS[:3], 3))
    key = LocalChannel(decryptor_with(trust)).call(SessionRequest(session=session).to_bytes())
    roles = replace(local_roles(CHARGE), decryptor=LocalChannel(decryptor_with(trust)))

    client = client_with(NEW, FIRST, session)
    with pytest.raises(ContextError, match="revocations"):
        client.contribute(key, make_inputs(session)[FIRST])
    with pytest.raises(ServiceError, match="the decryptor: ContextError"):
        server_of(CHARGE.terms(session, NEW), roles).requests()

    own = decryptor_with(NEW)
    good = LocalChannel(own).call(SessionRequest(session=session).to_bytes())
    assert RoundKey.from_bytes(good).context == CHARGE.terms(session, NEW).context


@pytest.mark.parametrize("kind", ["unknown", "another rank", "expired"])
def test_a_member_that_cannot_be_believed_is_refused_by_name(kind: str) -> None:
    """Whoever is not enrolled, enrolled with another rank, or enrolled no longer, keeps a session from being anybody's."""
    trust, session = TRUST, SESSION
    error: type[ProtocolError] = EnrolmentError
    if kind == "unknown":
        session = replace(SESSION, members=(*MEMBERS[:3], "stranger"), segments=(strangers(),))
    elif kind == "another rank":
        session = replace(SESSION, ranks=(4, 4, 4, 8))
    else:
        trust, error = expiring(), CertificateError

    with pytest.raises(error):
        CHARGE.terms(session, trust)
    with pytest.raises(error):
        LocalChannel(decryptor_with(trust)).call(SessionRequest(session=session).to_bytes())


def strangers() -> Segment:
    """A segment of three members and a stranger."""
    return segment(0, 20, (*MEMBERS[:3], "stranger"), 3)


def expiring() -> TrustStore:
    """A view in which one client's certificate is over, and nothing else is."""
    old = TRUST.certificates[REVOKED]
    short = issue_certificate(
        AUTHORITY.key,
        AUTHORITY.certificate,
        client=REVOKED,
        rank=old.rank,
        public_key=old.public_key,
        now=NOW,
        valid_for=5,
        random_bytes=SYSTEM_RANDOM,
    )
    certificates = {**TRUST.certificates, REVOKED: short}
    roster = Roster.issue(
        AUTHORITY.key,
        number=2,
        issued_at=NOW,
        expires_at=TRUST.roster.expires_at,
        least_revocations=1,
        entries=map(RosterEntry.of, certificates.values()),
    )
    return TRUST.updated(now=NOW + 20, roster=roster, certificates=[short])


# --- the operator's side ---


def test_newer_lists_count_from_the_next_session_and_older_ones_never() -> None:
    """The operator may hand in newer lists; one that is older, or another one of that number, is refused by name."""
    service = decryptor_with(TRUST)
    channel = LocalChannel(service)
    channel.call(SessionRequest(session=SESSION).to_bytes())

    service.set_up(Setup(charge=CHARGE, trust=NEW))

    with pytest.raises(RevokedError):
        channel.call(SessionRequest(session=replace(SESSION, round=2)).to_bytes())
    for old in (TRUST, OTHER_NEW):
        with pytest.raises(EnrolmentError):
            service.set_up(Setup(charge=CHARGE, trust=old))


def test_a_session_that_was_begun_under_older_lists_is_over() -> None:
    """Whoever was revoked in the middle of a round is in no sum that is opened afterwards: the key is forgotten."""
    meeting = Meeting.of(SESSION, CHARGE)
    meeting.take(*MEMBERS)
    channel = meeting.roles.decryptor
    assert isinstance(channel, LocalChannel)
    assert isinstance(channel.service, KeyedService)
    channel.service.set_up(Setup(charge=CHARGE, trust=NEW))

    with pytest.raises(ServiceError, match="the decryptor: KeyUseError"):
        meeting.sums(same_bindings(SESSION))


def test_a_verifier_obeys_its_own_operator_too() -> None:
    """It drops what it was adding when its lists change."""
    meeting = Meeting.of(SESSION, charge_for(services=VERIFIED))
    meeting.take(*MEMBERS[:3])
    channel = meeting.roles.verifier
    assert isinstance(channel, LocalChannel)
    assert isinstance(channel.service, KeyedService)
    channel.service.set_up(Setup(charge=charge_for(services=VERIFIED), trust=NEW))
    with pytest.raises(ServiceError, match="the verifier: StageError"):
        meeting.take(REVOKED)


@dataclass
class Clock:
    """Seconds that a test lets pass."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_service_keeps_its_operators_time() -> None:
    """Lists and certificates expire while it runs: from its setup on by its own clock, whatever an aggregator says."""
    clock = Clock()
    service = decryptor_with(OTHER_NEW, ticks=clock)
    channel = LocalChannel(service)
    channel.call(SessionRequest(session=SESSION).to_bytes())

    clock.now += 2000
    with pytest.raises(CertificateError, match="revocation list 2"):
        channel.call(SessionRequest(session=replace(SESSION, round=2)).to_bytes())

    fresh = issue_revocations(
        AUTHORITY.key, AUTHORITY.certificate, serials=[], number=3, now=NOW + 2000, valid_for=1000
    )
    service.set_up(Setup(charge=CHARGE, trust=TRUST.updated(now=NOW + 2020, revocations=fresh)))
    channel.call(SessionRequest(session=replace(SESSION, round=2)).to_bytes())


# --- what is parsed ---

MEMBERS_COUNTED = 4 + 16 + 4 + 4 + 2 + 4 + 1 + 32 + 2  # bytes of a session up to the number of its members


def test_sessions_are_capped_before_they_are_read() -> None:
    """A service refuses more members or segments than its charge knows by their numbers alone."""
    service = KeyedService("decryptor", SERVICE_KEYS["decryptor"])
    service.set_up(Setup(charge=replace(CHARGE, most_members=4, most_segments=1), trust=TRUST))
    channel = LocalChannel(service)
    two = make_session(4, segment(0, 5, MEMBERS), segment(1, 5, MEMBERS))

    with pytest.raises(RosterError, match="5 members must be at most 4"):
        channel.call(SessionRequest(session=make_session(5)).to_bytes())
    with pytest.raises(SessionError, match="2 segments must be at most 1"):
        channel.call(SessionRequest(session=two).to_bytes())
    channel.call(SessionRequest(session=SESSION).to_bytes())

    # What is not even there is not waited for: all that follows the number of members is missing.
    counted = make_session(5).to_bytes()[:MEMBERS_COUNTED]
    request = Writer(MessageType.SERVICE_SESSION).blob(counted).blob(b"").text("").unsigned(0, 2).done()
    with pytest.raises(RosterError, match="5 members must be at most 4"):
        channel.call(request)


def test_what_a_service_says_of_a_refusal_is_short() -> None:
    """A peer's own words in an error are cut where the refusal is made."""
    service = KeyedService("decryptor" + "x" * 30_000, SERVICE_KEYS["decryptor"])

    with pytest.raises(StageError) as found:
        LocalChannel(service).call(SessionRequest(session=SESSION).to_bytes())

    assert len(str(found.value)) == 500
