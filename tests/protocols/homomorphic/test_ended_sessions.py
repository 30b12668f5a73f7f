"""Newer lists end the session at hand, whomever they take back and whether or not the service can take them up.

The attack throughout: an aggregator that has everybody's ciphertexts goes on after an operator has handed in a list that takes
somebody back: a client, the decryptor or the verifier.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from protocols.errors import (
    BelowThresholdError,
    CertificateError,
    EnrolmentError,
    KeyUseError,
    ProtocolError,
    RevokedError,
    ServiceError,
    StageError,
    WireError,
)
from protocols.homomorphic.messages import DecryptedSums, RoundKey
from protocols.homomorphic.parties.decryptor import Decryptor
from protocols.homomorphic.parties.verifier import Verifier
from protocols.homomorphic.receipts import CommittedInputs
from protocols.homomorphic.screening.screening import Screening, ScreeningRelease
from protocols.homomorphic.services.messages import HELLO, SessionRequest, Setup
from protocols.homomorphic.services.services import Channel, KeyedService, LocalChannel, payload_of
from protocols.homomorphic.terms import Services
from protocols.identity.trust import TrustStore
from tests.contracts.sessions import make_session, names, plain_sum, same_bindings, segment
from tests.protocols.homomorphic.meeting import (
    NOW,
    SERVICE_KEYS,
    TRUST,
    VERIFIED,
    Meeting,
    charge_for,
    server_of,
    terms_of,
)
from tests.protocols.homomorphic.views import taking_back

FIRST, SECOND, THIRD, LAST = MEMBERS = names(4)
SESSION = make_session(4, segment(0, 20, MEMBERS, 3))
CHARGE = charge_for(services=VERIFIED)
SCREENED = charge_for(
    services=VERIFIED, screening=Screening(max_norm=1000.0, release=ScreeningRelease.VALUES)
)
TAKEN_BACK = pytest.mark.parametrize("revoked", [LAST, "decryptor", "verifier"])
SERVICE = pytest.mark.parametrize("name", ["decryptor", "verifier"])


def view(*revoked: str, number: int = 2, after: int = 10, valid_for: int = 1000) -> TrustStore:
    """The view of whoever has the list that takes these certificates back."""
    listed = taking_back(*revoked, number=number, after=after, valid_for=valid_for)
    return replace(TRUST, revocations=listed, now=NOW + after)


def behind(channel: Channel | None) -> KeyedService:
    """The service behind a local channel."""
    assert isinstance(channel, LocalChannel)
    assert isinstance(channel.service, KeyedService)
    return channel.service


def of(meeting: Meeting, name: str) -> KeyedService:
    """The decryptor's or verifier's service of a session."""
    return behind(meeting.roles.decryptor if name == "decryptor" else meeting.roles.verifier)


def handed_in(service: KeyedService, trust: TrustStore) -> str:
    """What the operator is answered: the name of the error, if there is one."""
    try:
        payload_of(service.operate(Setup(charge=CHARGE, trust=trust).to_bytes()))
    except ProtocolError as error:
        return type(error).__name__
    return ""


@SERVICE
@TAKEN_BACK
def test_a_service_that_goes_on_after_a_newer_list_opens_the_sum(
    monkeypatch: pytest.MonkeyPatch, name: str, revoked: str
) -> None:
    """The control: one that takes lists up between sessions alone completes the round with whom they take back."""
    for role in (Decryptor, Verifier):
        for method in ("end_session", "believe"):
            monkeypatch.setattr(role, method, lambda *_: None)
    meeting = Meeting.of(SESSION, CHARGE)
    meeting.take(*MEMBERS)
    handed_in(of(meeting, name), view(revoked))

    assert meeting.sums(same_bindings(SESSION)) == {
        0: plain_sum(meeting.inputs, SESSION.segments[0], MEMBERS)
    }


@SERVICE
@TAKEN_BACK
def test_a_newer_list_ends_the_session_at_hand(name: str, revoked: str) -> None:
    """Nothing is opened or signed any more, and where the list takes the service itself back, it says so to its operator."""
    meeting = Meeting.of(SESSION, CHARGE)
    meeting.take(*MEMBERS)

    answered = handed_in(of(meeting, name), view(revoked))

    assert answered == ("RevokedError" if revoked == name else "")
    with pytest.raises(
        ServiceError, match=f"the {name}: (KeyUseError: there is no key|StageError: .*follows no session)"
    ):
        meeting.sums(same_bindings(SESSION))


def test_a_verifier_whose_session_was_ended_adds_nothing_more() -> None:
    """Nor does the aggregator, without it."""
    meeting = Meeting.of(SESSION, CHARGE)
    meeting.take(*MEMBERS[:3])
    handed_in(of(meeting, "verifier"), view(LAST))

    with pytest.raises(ServiceError, match="the verifier: StageError"):
        meeting.take(LAST)


def test_a_decryptor_whose_session_was_ended_fixes_nothing_more() -> None:
    """Before the list of inputs is fixed as after."""
    meeting = Meeting.of(SESSION, CHARGE)
    meeting.commit(*MEMBERS)
    meeting.server.close_stage()
    handed_in(of(meeting, "decryptor"), view(names(24)[-1]))

    with pytest.raises(ServiceError, match="the decryptor: KeyUseError: there is no key"):
        meeting.server.requests()


@SERVICE
def test_a_service_that_was_taken_back_serves_nobody(name: str) -> None:
    """It has taken up the list: no later session is opened either, until a list says otherwise."""
    meeting = Meeting.of(SESSION, CHARGE)
    meeting.server.requests()
    handed_in(of(meeting, name), view(name))
    following = replace(SESSION, round=2)
    request = SessionRequest(session=following)
    if name == "verifier":
        key = meeting.roles.decryptor.call(request.to_bytes())
        request = replace(request, key=RoundKey.from_bytes(key))
    channel = LocalChannel(of(meeting, name))

    with pytest.raises(RevokedError, match=name):
        channel.call(request.to_bytes())
    assert handed_in(of(meeting, name), view(number=3)) == ""
    if name == "decryptor":
        channel.call(request.to_bytes())


def at_a_later_time(trust: TrustStore, seconds: int) -> bytes:
    """The setup of lists that have expired by the time that it names: no code of ours would make it."""
    data = Setup(charge=CHARGE, trust=trust).to_bytes()
    moments = [(trust.now + more).to_bytes(8, "little") for more in (0, seconds)]
    assert data.count(moments[0]) == 1
    return data.replace(*moments)


REFUSED: dict[str, tuple[Callable[[], bytes], type[ProtocolError]]] = {
    "an older list": (lambda: Setup(charge=CHARGE, trust=view(LAST)).to_bytes(), EnrolmentError),
    "another list of that number": (
        lambda: Setup(charge=CHARGE, trust=view(LAST, number=3)).to_bytes(),
        EnrolmentError,
    ),
    "a list that has expired": (
        lambda: at_a_later_time(view(LAST, number=4, valid_for=100), 200),
        CertificateError,
    ),
    "bytes that are no setup": (
        lambda: Setup(charge=CHARGE, trust=view(LAST, number=4)).to_bytes()[:-1],
        WireError,
    ),
    "a newer list beside another charge": (
        lambda: Setup(charge=replace(CHARGE, least_quorum=2), trust=view(LAST, number=4)).to_bytes(),
        StageError,
    ),
    "a newer list for other services": (
        lambda: Setup(
            charge=replace(CHARGE, services=Services(decryptor="another")), trust=view(LAST, number=4)
        ).to_bytes(),
        StageError,
    ),
}


@SERVICE
@pytest.mark.parametrize("kind", REFUSED)
def test_a_setup_that_is_refused_ends_it_too(name: str, kind: str) -> None:
    """Whoever handed it in meant other lists than those of the session at hand: it is over before anything is refused."""
    request, error = REFUSED[kind]
    services = {each: KeyedService(each, SERVICE_KEYS[each]) for each in VERIFIED.names}
    for service in services.values():
        service.set_up(Setup(charge=CHARGE, trust=view(number=3)))
    key = RoundKey.from_bytes(services["decryptor"].answer(SessionRequest(session=SESSION).to_bytes()))
    services["verifier"].answer(SessionRequest(session=SESSION, key=key).to_bytes())
    nothing = CommittedInputs(context=key.context, key_id=key.key_id, receipts=()).to_bytes()
    with pytest.raises(BelowThresholdError):
        services[name].answer(nothing)

    with pytest.raises(error):
        payload_of(services[name].operate(request()))

    with pytest.raises((KeyUseError, StageError), match=r"there is no key|follows no session"):
        services[name].answer(nothing)
    # What was refused counts for nothing else: the lists of before still do.
    services[name].set_up(Setup(charge=CHARGE, trust=view(number=3)))


@SERVICE
def test_the_same_lists_again_end_nothing(name: str) -> None:
    """An operator that only tells the time, or asks for the key, leaves the session as it is."""
    meeting = Meeting.of(SESSION, CHARGE)
    meeting.take(*MEMBERS)
    payload_of(of(meeting, name).operate(HELLO))
    assert handed_in(of(meeting, name), TRUST.updated(now=NOW + 50)) == ""

    assert meeting.sums(same_bindings(SESSION)) == {
        0: plain_sum(meeting.inputs, SESSION.segments[0], MEMBERS)
    }


# --- what a decryptor that was taken back has opened ---


def opened_but_not_shown() -> tuple[Meeting, DecryptedSums]:
    """A screened round whose aggregator keeps what was opened."""
    meeting, kept = Meeting.of(SESSION, SCREENED), list[DecryptedSums]()
    meeting.server._calls.show_opened = kept.append  # type: ignore[method-assign]
    meeting.take(*MEMBERS)
    meeting.sums(same_bindings(SESSION))
    return meeting, kept[0]


def test_a_verifier_that_forgets_nothing_takes_a_direction_from_a_revoked_decryptor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: the sum that it signed last is still open to an answer, which bears a revoked decryptor's name."""
    meeting, opened = opened_but_not_shown()
    monkeypatch.setattr(Verifier, "end_session", lambda _: None)
    verifier = of(meeting, "verifier")
    verifier.set_up(Setup(charge=SCREENED, trust=view("decryptor")))

    verifier.answer(opened.to_bytes())


def test_a_verifier_takes_nothing_from_a_revoked_decryptor() -> None:
    """The same on ours: the last signed sum went with the session."""
    meeting, opened = opened_but_not_shown()
    verifier = of(meeting, "verifier")
    verifier.set_up(Setup(charge=SCREENED, trust=view("decryptor")))

    with pytest.raises(StageError, match="no sum was signed"):
        verifier.answer(opened.to_bytes())


@pytest.mark.parametrize("shown", [True, False], ids=["shown", "kept"])
def test_after_newer_lists_screening_goes_on_without_a_direction(shown: bool) -> None:  # noqa: FBT001
    """Whether or not it was shown the last sums: norms alone, which the decryptor opens; cosines from the next round on."""
    meeting = Meeting.of(SESSION, SCREENED)
    if not shown:
        meeting.server._calls.show_opened = lambda _: None  # type: ignore[method-assign]
    meeting.take(*MEMBERS)
    meeting.sums(same_bindings(SESSION))
    newer = view(names(24)[-1])
    for name in VERIFIED.names:
        of(meeting, name).set_up(Setup(charge=SCREENED, trust=newer))

    for number, with_cosine in ((2, False), (3, True)):
        session = replace(SESSION, round=number)
        following = Meeting.of(session, SCREENED, trust=newer)
        following.roles = meeting.roles
        following.server = server_of(terms_of(session, SCREENED, newer), meeting.roles)
        following.take(*MEMBERS)
        told = following.server.screened.values()
        assert all(each.norm is not None and (each.cosine is not None) == with_cosine for each in told)
        following.sums(same_bindings(session))
