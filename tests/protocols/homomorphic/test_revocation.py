"""Whom the homomorphic mode believes, when, and with which rank: every party by its own lists and its own clock."""

from dataclasses import dataclass, replace

import pytest

from protocols.errors import (
    CertificateError,
    ContextError,
    EnrolmentError,
    ProtocolError,
    QuorumError,
    RevokedError,
    ServiceError,
    StageError,
)
from protocols.homomorphic.adder import Adder
from protocols.homomorphic.calls import Roles
from protocols.homomorphic.charge import Charge
from protocols.homomorphic.client import create_encrypted_input
from protocols.homomorphic.decryptor import Decryptor
from protocols.homomorphic.messages import EncryptedInput, EncryptedSum, RoundKey
from protocols.homomorphic.receipts import CommittedInputs
from protocols.homomorphic.secure_sum import Homomorphic
from protocols.homomorphic.server import HomomorphicServer
from protocols.homomorphic.service_messages import SessionRequest, Setup
from protocols.homomorphic.services import KeyedService, LocalChannel, Worker
from protocols.homomorphic.terms import Terms
from protocols.identity import Identity, ThrowawayAuthority, TrustStore
from protocols.primitives.revocations import issue_revocations
from protocols.session import Session
from tests.contracts.sessions import make_inputs, make_session, names, same_bindings, segment
from tests.protocols.homomorphic.parties import (
    AUTHORITY,
    NOW,
    SERVICE_KEYS,
    TRUST,
    VERIFIED,
    charge_for,
)

FIRST, SECOND, THIRD, LAST = MEMBERS = names(4)
SESSION = make_session(4, segment(0, 20, MEMBERS, 3))
CHARGE = charge_for()


def with_revoked(*clients: str, number: int = 2, valid_for: int = 1000) -> TrustStore:
    """The view of whoever has the list that takes these certificates back."""
    listed = issue_revocations(
        AUTHORITY.key,
        AUTHORITY.certificate,
        serials=[TRUST.certificates[client].serial for client in clients],
        number=number,
        now=NOW + 10,
        valid_for=valid_for,
    )
    return TRUST.updated(now=NOW + 20, revocations=listed)


OLD, NEW = TRUST, with_revoked(LAST)


def decryptor_service(trust: TrustStore, charge: Charge = CHARGE) -> KeyedService:
    """A decryptor whose own operator has set it up with this view."""
    service = KeyedService("decryptor", SERVICE_KEYS["decryptor"])
    service.set_up(Setup(charge=charge, trust=trust))
    return service


def server_with(trust: TrustStore, service: KeyedService, session: Session = SESSION) -> HomomorphicServer:
    """An aggregator of this view, with that decryptor."""
    roles = Roles(decryptor=LocalChannel(service), worker=LocalChannel(Worker()))
    return HomomorphicServer(CHARGE.terms(session, trust), roles)


def contribution_of(member: str, trust: TrustStore, request: bytes, session: Session = SESSION) -> bytes:
    """What a member of this view answers to a round key."""
    mode = Homomorphic(CHARGE.profile, CHARGE.services, trust=trust, identity=AUTHORITY.identity(member))
    return mode.client(session, member).contribute(request, make_inputs(session)[member])


def test_a_decryptor_with_the_new_list_makes_no_key_for_a_revoked_member() -> None:
    """The aggregator's old list does not matter: the decryptor refuses by its own."""
    server = server_with(OLD, decryptor_service(NEW))

    with pytest.raises(ServiceError, match=f"RevokedError.*{LAST}"):
        server.requests()


def test_clients_with_the_new_list_contribute_to_no_session_with_a_revoked_member() -> None:
    """Decryptor and aggregator know only the old list; every honest client checks every member itself."""
    requests = server_with(OLD, decryptor_service(OLD)).requests()

    for member in MEMBERS[:3]:
        with pytest.raises(RevokedError, match=LAST):
            contribution_of(member, NEW, requests[member])


def test_parties_of_different_lists_complete_nothing_together() -> None:
    """Also where no member of the session is revoked: number and digest of the list are in the session's context."""
    newer = with_revoked(names(24)[-1])
    requests = server_with(OLD, decryptor_service(OLD)).requests()

    with pytest.raises(ContextError):
        contribution_of(FIRST, newer, requests[FIRST])
    with pytest.raises(ServiceError, match="ContextError"):
        server_with(OLD, decryptor_service(newer)).requests()
    renumbered = with_revoked(names(24)[-1], number=3)
    assert len({CHARGE.terms(SESSION, view).context for view in (OLD, newer, renumbered)}) == 3


def test_without_these_checks_the_revoked_client_is_in_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: parties that check no member and bind to no list sum its input, though honest clients know better."""
    monkeypatch.setattr(TrustStore, "digest", property(lambda _: bytes(32)))
    monkeypatch.setattr(TrustStore, "check_client", lambda *_arguments, **_named: None)
    server = server_with(OLD, decryptor_service(OLD))
    requests = server.requests()
    clients = {}
    for member in MEMBERS:
        view = OLD if member == LAST else NEW
        mode = Homomorphic(CHARGE.profile, CHARGE.services, trust=view, identity=AUTHORITY.identity(member))
        clients[member] = mode.client(SESSION, member)
        server.receive(member, clients[member].contribute(requests[member], make_inputs(SESSION)[member]))
    server.close_stage()
    for member, request in server.requests().items():
        server.receive(member, clients[member].reply(request))
    server.close_stage()

    result = server.result(same_bindings(SESSION))

    assert LAST in result.survivors
    assert 0 in result.sums


def test_the_aggregators_channel_sets_no_list() -> None:
    """A setup with an older or newer list that comes by the aggregator's channel is refused; the operator's counts."""
    service = decryptor_service(OLD)
    channel = LocalChannel(service)

    for view in (OLD, NEW):
        with pytest.raises(StageError, match="by its own operator"):
            channel.call(Setup(charge=CHARGE, trust=view).to_bytes())
    service.set_up(Setup(charge=CHARGE, trust=NEW))
    with pytest.raises(EnrolmentError, match="older"):
        service.set_up(Setup(charge=CHARGE, trust=OLD))

    with pytest.raises(RevokedError):
        channel.call(SessionRequest(session=SESSION).to_bytes())


@pytest.mark.parametrize("name", ["decryptor", "verifier"])
def test_a_clock_that_passes_an_expiry_is_noticed(name: str) -> None:
    """The service's own clock runs on between sessions: once its revocation list has expired it serves nobody."""
    elapsed = [0.0]
    charge = charge_for(services=VERIFIED)
    services = {
        each: KeyedService(each, SERVICE_KEYS[each], ticks=lambda: elapsed[0]) for each in VERIFIED.names
    }
    view = with_revoked(names(24)[-1], valid_for=100)
    for service in services.values():
        service.set_up(Setup(charge=charge, trust=view))

    def opening(round_number: int) -> SessionRequest:
        session = replace(SESSION, round=round_number)
        if name == "decryptor":
            return SessionRequest(session=session)
        answer = services["decryptor"].answer(SessionRequest(session=session).to_bytes())
        return SessionRequest(session=session, key=RoundKey.from_bytes(answer))

    services[name].answer(opening(1).to_bytes())
    second = opening(2)
    elapsed[0] = 200.0

    with pytest.raises(CertificateError):
        services[name].answer(second.to_bytes())


def test_a_view_that_changes_ends_the_open_session() -> None:
    """A key that was made under the old list opens nothing once the operator has given a new one."""
    decryptor = Decryptor(
        CHARGE,
        OLD,
        Identity(client="decryptor", key=SERVICE_KEYS["decryptor"], certificate=TRUST.check("decryptor")),
    )
    key = decryptor.create_round_key(SESSION)
    decryptor.believe(NEW)

    with pytest.raises(ProtocolError, match="no key"):
        decryptor.fix_inputs(CommittedInputs(context=key.context, key_id=key.key_id, receipts=()))


# --- ranks ---

RANKS = dict(zip(names(6), (2, 2, 2, 4, 4, 4), strict=True))
RANKED_AUTHORITY = ThrowawayAuthority.create(
    RANKS, now=NOW, services={name: key.public for name, key in SERVICE_KEYS.items()}
)


@dataclass
class RankedRound:
    """A decryptor's key for members of two ranks, and everybody's inputs."""

    decryptor: Decryptor
    session: Session
    terms: Terms
    key: RoundKey
    inputs: dict[str, EncryptedInput]

    def summed(self, *members: str) -> EncryptedSum:
        """The sum over some members."""
        adder = Adder(self.terms.profile, self.session)
        for member in members:
            adder.add(self.inputs[member].ciphertexts)
        receipts = tuple(self.inputs[member].receipt for member in self.session.members)
        listed = CommittedInputs(context=self.key.context, key_id=self.key.key_id, receipts=receipts).listed()
        return EncryptedSum(
            context=self.key.context,
            key_id=self.key.key_id,
            inputs_digest=listed.digest,
            contributors=tuple(sorted(map(self.session.position, members))),
            ciphertexts=adder.sums(),
        )


def ranked_decryptor(charge: Charge = CHARGE) -> Decryptor:
    """A decryptor that knows the ranks."""
    view = RANKED_AUTHORITY.view
    identity = Identity(
        client="decryptor", key=SERVICE_KEYS["decryptor"], certificate=view.check("decryptor")
    )
    return Decryptor(charge, view, identity)


def ranked_round(session: Session) -> RankedRound:
    """Everybody's inputs, fixed."""
    decryptor = ranked_decryptor()
    key = decryptor.create_round_key(session)
    terms = CHARGE.terms(session, RANKED_AUTHORITY.view)
    plain = make_inputs(session)
    inputs = {
        member: create_encrypted_input(terms, member, key, plain[member], RANKED_AUTHORITY.identity(member))
        for member in session.members
    }
    playing = RankedRound(decryptor, session, terms, key, inputs)
    receipts = tuple(message.receipt for message in inputs.values())
    decryptor.fix_inputs(CommittedInputs(context=key.context, key_id=key.key_id, receipts=receipts))
    return playing


@pytest.mark.parametrize("ranks", [(2, 2, 2, 4, 4, 8), (4, 2, 2, 4, 4, 4), (4, 4, 4, 2, 2, 2)])
def test_a_rank_that_the_certificate_does_not_have_is_refused(ranks: tuple[int, ...]) -> None:
    """A session that gives a member another rank than it is enrolled with gets no key, and no client's input."""
    session = make_session(6, segment(0, 20, names(6), 3), ranks=ranks)

    with pytest.raises(EnrolmentError, match="is enrolled with rank"):
        ranked_decryptor().create_round_key(session)
    with pytest.raises(EnrolmentError, match="is enrolled with rank"):
        CHARGE.terms(session, RANKED_AUTHORITY.view)


def test_a_service_is_no_member() -> None:
    """A verifier's certificate, which is a service's, takes no part in a sum."""
    members = (*names(3), "verifier")
    session = make_session(4, segment(0, 20, members, 3), members=members)

    with pytest.raises(EnrolmentError, match="enrolled as a service"):
        ranked_decryptor().create_round_key(session)
    with pytest.raises(EnrolmentError, match="enrolled as a service"):
        CHARGE.terms(session, RANKED_AUTHORITY.view)


def test_a_class_quorum_below_its_own_is_refused() -> None:
    """A session without classes, or with smaller ones, gets no key from a decryptor that was set up with classes."""
    decryptor = ranked_decryptor(charge_for(class_quorum=3))
    session = make_session(6, segment(0, 20, names(6), 3), ranks=tuple(RANKS.values()), class_quorum=2)

    for odd in (session, replace(session, class_quorum=0)):
        with pytest.raises(QuorumError, match="class_quorum="):
            decryptor.create_round_key(odd)
    decryptor.create_round_key(replace(session, class_quorum=3))
