"""What time it is for a decryptor or verifier: its operator's, running on within a session, and never back."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from protocols.errors import CertificateError, EnrolmentError, ProtocolError, ServiceError
from protocols.homomorphic.messages import RoundKey
from protocols.homomorphic.services.messages import SessionRequest, Setup
from protocols.homomorphic.services.services import KeyedService, LocalChannel, payload_of
from protocols.homomorphic.terms import EncryptionTerms
from protocols.identity.trust import TrustStore
from tests.contracts.sessions import make_session, names, plain_sum, same_bindings, segment
from tests.protocols.homomorphic.meeting import (
    NOW,
    SERVICE_KEYS,
    TRUST,
    VERIFIED,
    Meeting,
    charge_for,
)
from tests.protocols.homomorphic.views import ending_after, taking_back, with_certificate

FIRST, SECOND, THIRD, LAST = MEMBERS = names(4)
SESSION = make_session(4, segment(0, 20, MEMBERS, 3))
CHARGE = charge_for(services=VERIFIED)
SERVICE = pytest.mark.parametrize("name", ["decryptor", "verifier"])
HOUR, DAY = 3600, 86_400
SHORT = 100  # seconds that something is valid


@dataclass
class Seconds:
    """A steady clock that a test lets run."""

    passed: float = 1000.0

    def __call__(self) -> float:
        return self.passed


def with_short_certificate(name: str) -> TrustStore:
    """A view in which one certificate expires soon, and nothing else does."""
    return with_certificate(ending_after(SHORT, name))


def with_short_list(number: int = 2, valid_for: int = SHORT) -> TrustStore:
    """A view whose revocation list expires soon."""
    return TRUST.updated(now=NOW + 1, revocations=taking_back(number=number, after=0, valid_for=valid_for))


def services_with(trust: TrustStore, clocks: dict[str, Seconds]) -> dict[str, KeyedService]:
    """Both services, each with a clock of its own."""
    services = {}
    for name in VERIFIED.names:
        services[name] = KeyedService(name, SERVICE_KEYS[name], ticks=clocks[name])
        services[name].set_up(Setup(charge=CHARGE, trust=trust))
    return services


def timed(trust: TrustStore) -> tuple[Meeting, dict[str, Seconds], dict[str, KeyedService]]:
    """A session in which both services have clocks; aggregator and clients have none, and never see anything expire."""
    clocks = {name: Seconds() for name in VERIFIED.names}
    meeting = Meeting.of(SESSION, CHARGE, trust=trust)
    services = services_with(trust, clocks)
    roles = {name: LocalChannel(service) for name, service in services.items()}
    meeting.use(replace(meeting.roles, decryptor=roles["decryptor"], verifier=roles["verifier"]))
    return meeting, clocks, services


EXPIRING: dict[str, Callable[[], TrustStore]] = {
    "a client's certificate": lambda: with_short_certificate(LAST),
    "the decryptor's certificate": lambda: with_short_certificate("decryptor"),
    "the verifier's certificate": lambda: with_short_certificate("verifier"),
    "the revocation list": with_short_list,
}


@SERVICE
@pytest.mark.parametrize("kind", EXPIRING)
def test_what_expires_within_a_session_is_noticed_before_it_is_opened(name: str, kind: str) -> None:
    """By the verifier before it signs, and by the decryptor before it opens what a verifier with a slow clock has signed."""
    meeting, clocks, _ = timed(EXPIRING[kind]())
    meeting.take(*MEMBERS)
    clocks[name].passed += SHORT

    with pytest.raises(ServiceError, match=f"the {name}: CertificateError"):
        meeting.sums(same_bindings(SESSION))


@pytest.mark.parametrize("kind", EXPIRING)
def test_services_that_look_when_a_session_opens_alone_open_it(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The control: whoever expired in the middle is in the sum, by services whose time stands still and that do not look again."""
    monkeypatch.setattr(TrustStore, "moment", property(lambda store: store.now))
    meeting, clocks, _ = timed(EXPIRING[kind]())
    meeting.take(*MEMBERS)
    for clock in clocks.values():
        clock.passed += SHORT

    assert meeting.sums(same_bindings(SESSION)) == {
        0: plain_sum(meeting.inputs, SESSION.segments[0], MEMBERS)
    }


@SERVICE
def test_who_expires_before_the_list_is_fixed_is_not_on_it(name: str) -> None:
    """The receipt is not taken either."""
    meeting, clocks, _ = timed(with_short_certificate(LAST))
    meeting.commit(*MEMBERS)
    meeting.server.close_stage()
    clocks[name].passed += SHORT

    with pytest.raises(ServiceError, match=f"the {name}: CertificateError"):
        meeting.server.requests()


@SERVICE
def test_who_expires_and_does_not_contribute_stops_nobody(name: str) -> None:
    """A member that dropped out after it had committed counts in no sum, and its certificate in no check of one."""
    meeting, clocks, _ = timed(with_short_certificate(LAST))
    meeting.take(*MEMBERS[:3])
    clocks[name].passed += SHORT

    assert meeting.sums(same_bindings(SESSION)) == {
        0: plain_sum(meeting.inputs, SESSION.segments[0], MEMBERS[:3])
    }


def opening(service: KeyedService, round_number: int) -> RoundKey:
    """The key of a round, from a decryptor."""
    request = SessionRequest(session=replace(SESSION, round=round_number))
    return RoundKey.from_bytes(service.answer(request.to_bytes()))


@SERVICE
def test_between_sessions_a_list_expires_too_and_a_newer_one_brings_it_back(name: str) -> None:
    """Once its revocation list has expired it serves nobody, until its operator has a newer one."""
    clocks = {each: Seconds() for each in VERIFIED.names}
    services = services_with(with_short_list(), clocks)
    second = request_for(name, services, 2)
    clocks[name].passed += SHORT
    with pytest.raises(CertificateError, match="revocation list 2"):
        services[name].answer(second)

    services[name].set_up(Setup(charge=CHARGE, trust=with_short_list(number=3, valid_for=DAY)))
    if name == "verifier":  # whose key must be of the newer list as well
        services["decryptor"].set_up(Setup(charge=CHARGE, trust=with_short_list(number=3, valid_for=DAY)))
    services[name].answer(request_for(name, services, 3))


def request_for(name: str, services: dict[str, KeyedService], round_number: int) -> bytes:
    """What begins a round at a service."""
    session = replace(SESSION, round=round_number)
    if name == "decryptor":
        return SessionRequest(session=session).to_bytes()
    return SessionRequest(session=session, key=opening(services["decryptor"], round_number)).to_bytes()


def test_the_same_setup_again_puts_no_time_back() -> None:
    """Lists that have expired by the service's time stay so, whatever moment its operator's setup names."""
    clock = Seconds()
    service = services_with(with_short_list(), {"decryptor": clock, "verifier": Seconds()})["decryptor"]
    opening(service, 1)
    clock.passed += SHORT
    with pytest.raises(CertificateError, match="revocation list 2"):
        opening(service, 2)

    with pytest.raises(CertificateError, match="revocation list 2"):
        service.set_up(Setup(charge=CHARGE, trust=with_short_list()))

    with pytest.raises(CertificateError, match="revocation list 2"):
        opening(service, 2)


def test_where_a_setup_tells_the_time_expired_lists_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a service that believes the moment of the last setup serves under them once more."""
    clock = Seconds()
    service = services_with(with_short_list(), {"decryptor": clock, "verifier": Seconds()})["decryptor"]
    clock.passed += SHORT

    def careless(self: KeyedService, setup: Setup) -> None:
        assert self._role is not None
        self._role.believe(setup.trust)

    monkeypatch.setattr(KeyedService, "set_up", careless)
    payload_of(service.operate(Setup(charge=CHARGE, trust=with_short_list()).to_bytes()))

    opening(service, 2)


def test_a_setup_that_is_ahead_puts_the_time_forward_and_it_runs_on_from_there() -> None:
    """By the later of the operator's time and its own, and at once, not when the next check comes."""
    clock = Seconds()
    service = services_with(with_short_list(valid_for=DAY), {"decryptor": clock, "verifier": Seconds()})[
        "decryptor"
    ]

    service.set_up(Setup(charge=CHARGE, trust=replace(view_of(service), now=NOW + DAY - HOUR, clock=None)))
    clock.passed += HOUR
    opening(service, 1)
    clock.passed += 1  # the last second that counts is the one before
    with pytest.raises(CertificateError, match="revocation list 2"):
        opening(service, 2)


def view_of(service: KeyedService) -> TrustStore:
    """Whom it believes."""
    assert service._setup is not None
    return service._setup.trust


def test_a_setup_that_is_behind_leaves_the_time() -> None:
    """Newer lists from an operator whose clock is behind count from the service's own time."""
    clock = Seconds()
    service = services_with(TRUST, {"decryptor": clock, "verifier": Seconds()})["decryptor"]
    clock.passed += DAY

    service.set_up(Setup(charge=CHARGE, trust=with_short_list(valid_for=2 * DAY)))
    assert view_of(service).moment == NOW + DAY
    with pytest.raises(CertificateError):
        service.set_up(Setup(charge=CHARGE, trust=with_short_list(number=3)))

    clock.passed += HOUR
    assert view_of(service).moment == NOW + DAY + HOUR


def test_a_refused_setup_with_other_lists_tells_no_time() -> None:
    """A moment in the far future beside lists that are not taken would stop the service for good."""
    clock = Seconds()
    service = services_with(TRUST, {"decryptor": clock, "verifier": Seconds()})["decryptor"]
    other = replace(CHARGE, least_quorum=2)
    late = replace(with_short_list(valid_for=20 * DAY), now=NOW + 10 * DAY)

    with pytest.raises(ProtocolError):
        payload_of(service.operate(Setup(charge=other, trust=late).to_bytes()))

    assert view_of(service).moment == NOW


def test_other_lists_that_have_expired_tell_no_time() -> None:
    """Nor does a moment beside lists that were never taken and are no longer in force."""
    service = services_with(TRUST, {"decryptor": Seconds(), "verifier": Seconds()})["decryptor"]
    data = Setup(charge=CHARGE, trust=with_short_list()).to_bytes()
    late = data.replace((NOW + 1).to_bytes(8, "little"), (NOW + 1 + SHORT).to_bytes(8, "little"))

    with pytest.raises(CertificateError):
        payload_of(service.operate(late))

    assert view_of(service).moment == NOW


def test_a_refused_setup_with_the_known_lists_tells_the_time() -> None:
    """Its operator has said what time it is, whatever else is wrong."""
    service = services_with(TRUST, {"decryptor": Seconds(), "verifier": Seconds()})["decryptor"]
    other = replace(CHARGE, least_quorum=2)

    with pytest.raises(ProtocolError):
        service.set_up(Setup(charge=other, trust=TRUST.updated(now=NOW + DAY)))

    assert view_of(service).moment == NOW + DAY


@SERVICE
@pytest.mark.parametrize("careless", [True, False], ids=["careless", "ours"])
def test_lists_that_its_operator_says_have_expired_serve_nobody(
    monkeypatch: pytest.MonkeyPatch, name: str, *, careless: bool
) -> None:
    """The setup is refused, as its lists are no longer in force, and by the control with it the time."""
    services = services_with(with_short_list(), {each: Seconds() for each in VERIFIED.names})
    if careless:
        monkeypatch.setattr(KeyedService, "_tell_time_of", lambda *_: None)
    data = Setup(charge=CHARGE, trust=with_short_list()).to_bytes()
    said = (NOW + 1).to_bytes(8, "little")
    assert data.count(said) == 1
    late = data.replace(said, (NOW + 1 + SHORT).to_bytes(8, "little"))
    opens = request_for(name, services, 2)

    with pytest.raises(CertificateError):
        payload_of(services[name].operate(late))

    if careless:
        services[name].answer(opens)
    else:
        with pytest.raises(CertificateError, match="revocation list 2"):
            services[name].answer(opens)


def test_a_roster_expires_within_a_session_too() -> None:
    """The terms of an open session read the clock whenever they are asked."""
    clock = Seconds()
    service = services_with(TRUST, {"decryptor": clock, "verifier": Seconds()})["decryptor"]
    terms = EncryptionTerms(
        session=SESSION, profile=CHARGE.profile, trust=view_of(service), services=CHARGE.services
    )
    clock.passed += TRUST.roster.expires_at - NOW + 1

    with pytest.raises(EnrolmentError, match="roster 1 expired"):
        terms.check_parties([1])
