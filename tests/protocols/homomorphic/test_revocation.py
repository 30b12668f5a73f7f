"""Whom the homomorphic mode believes: every party by its own lists, of which all of a session must be the same."""

from dataclasses import replace

import pytest

from protocols.errors import (
    CertificateError,
    ContextError,
    EnrolmentError,
    ProtocolError,
    RevokedError,
    ServiceError,
)
from protocols.homomorphic.messages import RoundKey
from protocols.homomorphic.parties.client import HomomorphicClient
from protocols.homomorphic.parties.server import HomomorphicServer
from protocols.homomorphic.secure_sum import Homomorphic
from protocols.homomorphic.services.calls import Roles
from protocols.homomorphic.services.charge import Charge
from protocols.homomorphic.services.messages import SessionRequest, Setup
from protocols.homomorphic.services.services import KeyedService, LocalChannel, Worker
from protocols.identity.trust import TrustStore
from protocols.session import Segment, Session
from tests.contracts.sessions import make_inputs, make_session, names, plain_sum, same_bindings, segment
from tests.protocols.homomorphic.meeting import AUTHORITY, NOW, SERVICE_KEYS, TRUST, Meeting, charge_for
from tests.protocols.homomorphic.views import ending_after, taking_back, with_certificate

FIRST, SECOND, THIRD, LAST = MEMBERS = names(4)
SESSION = make_session(4, segment(0, 20, MEMBERS, 3))
CHARGE = charge_for()


def with_revoked(*clients: str, number: int = 2, valid_for: int = 1000) -> TrustStore:
    """The view of whoever has the list that takes these certificates back."""
    listed = taking_back(*clients, number=number, valid_for=valid_for)
    return TRUST.updated(now=NOW + 20, revocations=listed)


OLD, NEW, OTHER_NEW = TRUST, with_revoked(LAST), with_revoked()


def decryptor_service(trust: TrustStore, charge: Charge = CHARGE) -> KeyedService:
    """A decryptor whose own operator has set it up with this view."""
    service = KeyedService("decryptor", SERVICE_KEYS["decryptor"])
    service.set_up(Setup(charge=charge, trust=trust))
    return service


def server_with(trust: TrustStore, service: KeyedService, session: Session = SESSION) -> HomomorphicServer:
    """An aggregator of this view, with that decryptor."""
    roles = Roles(decryptor=LocalChannel(service), worker=LocalChannel(Worker()))
    return HomomorphicServer(CHARGE.terms(session, trust), roles)


def client_with(trust: TrustStore, member: str, session: Session = SESSION) -> HomomorphicClient:
    """A member that knows these lists."""
    mode = Homomorphic(CHARGE.profile, CHARGE.services, trust=trust, identity=AUTHORITY.identity(member))
    return mode.client(session, member)


def contribution_of(member: str, trust: TrustStore, request: bytes, session: Session = SESSION) -> bytes:
    """What a member of this view answers to a round key."""
    return client_with(trust, member, session).contribute(request, make_inputs(session)[member])


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
    assert LAST in (meeting.server.contributors or ())
    with pytest.raises(RevokedError):
        NEW.check(LAST)


def test_a_decryptor_with_the_new_list_makes_no_key_for_a_revoked_member() -> None:
    """The aggregator's old list does not matter: the decryptor refuses by its own."""
    server = server_with(OLD, decryptor_service(NEW))

    with pytest.raises(ServiceError, match=f"RevokedError.*{LAST}"):
        server.requests()


def test_a_client_contributes_to_no_session_with_a_revoked_member() -> None:
    """It refuses by name before it sees a key; so do aggregator, decryptor and verifier that know the list."""
    for member in MEMBERS[:3]:
        with pytest.raises(RevokedError, match=LAST):
            client_with(NEW, member)
    with pytest.raises(RevokedError, match=LAST):
        CHARGE.terms(SESSION, NEW)
    with pytest.raises(RevokedError, match=LAST):
        LocalChannel(decryptor_service(NEW)).call(SessionRequest(session=SESSION).to_bytes())


@pytest.mark.parametrize("trust", [OLD, OTHER_NEW], ids=["the older list", "another list of that number"])
def test_parties_that_know_different_lists_complete_nothing(trust: TrustStore) -> None:
    """Without the revoked member too: a key made under another list is taken by nobody who knows this one."""
    session = make_session(3, segment(0, 20, MEMBERS[:3], 3))
    key = LocalChannel(decryptor_service(trust)).call(SessionRequest(session=session).to_bytes())

    client = client_with(NEW, FIRST, session)
    with pytest.raises(ContextError, match="revocations"):
        client.contribute(key, make_inputs(session)[FIRST])
    with pytest.raises(ServiceError, match="the decryptor: ContextError"):
        server_with(NEW, decryptor_service(trust), session).requests()

    own = decryptor_service(NEW)
    good = LocalChannel(own).call(SessionRequest(session=session).to_bytes())
    assert RoundKey.from_bytes(good).context == CHARGE.terms(session, NEW).context


def test_number_and_content_of_a_revocation_list_are_in_the_context() -> None:
    """Also where no member of the session is revoked."""
    views = (OLD, with_revoked(names(24)[-1]), with_revoked(names(24)[-1], number=3), OTHER_NEW)

    assert len({CHARGE.terms(SESSION, view).context for view in views}) == 4


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
        LocalChannel(decryptor_service(trust)).call(SessionRequest(session=session).to_bytes())


def strangers() -> Segment:
    """A segment of three members and a stranger."""
    return segment(0, 20, (*MEMBERS[:3], "stranger"), 3)


def expiring() -> TrustStore:
    """A view in which one client's certificate is over, and nothing else is."""
    return with_certificate(ending_after(5, LAST), after=20)
