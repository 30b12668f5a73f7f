"""What a verifier computes where updates are screened: of whose copy, along which direction, under whose keys."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from protocols.errors import (
    CiphertextError,
    ContextError,
    ProtocolError,
    ScreeningError,
    ServiceError,
    SignatureError,
    StageError,
)
from protocols.homomorphic.messages import DecryptedSums, EncryptedInput
from protocols.homomorphic.parties.verifier import Verifier
from protocols.homomorphic.screening.messages import (
    NO_REFERENCE,
    NUMBERS_PURPOSE,
    EvaluationKeys,
    ScreeningCopy,
    ScreeningNumbers,
    ScreeningResult,
)
from protocols.homomorphic.screening.screening import (
    SLOTS,
    Screening,
    ScreeningRelease,
)
from protocols.homomorphic.services.calls import Roles
from protocols.homomorphic.services.messages import SCREENING
from protocols.homomorphic.services.services import Channel, KeyedService, LocalChannel
from protocols.interface import SegmentInput
from protocols.session import Session
from tests.contracts.sessions import MODEL, Inputs, make_session, names, same_bindings, segment
from tests.protocols.homomorphic.meeting import (
    VERIFIED,
    Meeting,
    charge_for,
    server_of,
    service_identity,
    terms_of,
)

VICTIM, *OTHERS = MEMBERS = names(4)
RULE = Screening(max_norm=1000.0, release=ScreeningRelease.VALUES)
CHARGE = charge_for(services=VERIFIED, screening=RULE)
SESSION = make_session(4, segment(0, 50, MEMBERS, 3))


def updates(seed: int = 0) -> Inputs:
    """Everybody's update, at random."""
    generator = np.random.default_rng(seed)
    return {
        member: {0: SegmentInput(values=generator.integers(-1000, 1001, 50), binding=MODEL)}
        for member in MEMBERS
    }


def meet(session: Session = SESSION, *, roles: Roles | None = None, inputs: Inputs | None = None) -> Meeting:
    """A session with a verifier; with the services of the session before, if they are given."""
    meeting = Meeting.of(session, CHARGE, inputs or updates())
    if roles is not None:
        meeting.roles = roles
        meeting.server = server_of(terms_of(session, CHARGE), roles)
    return meeting


def service_of(channel: Channel | None) -> object:
    """What stands behind a local channel."""
    assert isinstance(channel, LocalChannel)
    assert isinstance(channel.service, KeyedService)
    return channel.service._role


# --- what the verifier computes ---


def test_numbers_are_those_of_the_committed_copies() -> None:
    """With a verifier the aggregator learns every norm to three decimals, and the sums open exactly."""
    meeting = meet()
    meeting.take(*MEMBERS)

    for place, member in enumerate(MEMBERS, start=1):
        norm = np.linalg.norm(meeting.inputs[member][0].values / 1000)
        assert meeting.server.screened[place].norm == pytest.approx(norm, abs=1e-3)
        assert meeting.server.screened[place].cosine is None
    assert meeting.roles.verifier is not None
    expected = sum(meeting.inputs[member][0].values for member in MEMBERS)
    assert meeting.sums(same_bindings(SESSION)) == {0: expected.tolist()}  # type: ignore[union-attr]


def after_a_round() -> tuple[Meeting, np.ndarray]:
    """The second session of a run, and the mean update of the first."""
    first = meet()
    first.take(*MEMBERS)
    (summed,) = first.sums(same_bindings(SESSION)).values()
    second = meet(replace(SESSION, round=2), roles=first.roles, inputs=updates(1))
    return second, np.array(summed) / 4


def test_the_direction_is_the_mean_of_the_sums_that_were_opened_last() -> None:
    """From the second round on cosines are to the first one's mean update, whatever the aggregator would name."""
    meeting, mean = after_a_round()

    meeting.take(*MEMBERS)

    for place, member in enumerate(MEMBERS, start=1):
        values = meeting.inputs[member][0].values
        cosine = values @ mean / np.linalg.norm(values) / np.linalg.norm(mean)
        assert meeting.server.screened[place].cosine == pytest.approx(cosine, abs=1e-3)


def test_a_direction_that_an_aggregator_names_is_refused() -> None:
    """The verifier takes none, and the decryptor none that is not of the sums it opened last."""
    meeting, _ = after_a_round()
    copy = EncryptedInput.from_bytes(meeting.upload(VICTIM)).copy
    verifier, decryptor = meeting.roles.verifier, meeting.roles.decryptor
    assert verifier is not None
    meeting.server._calls.evaluation_keys()
    direction = np.zeros((1, SLOTS))
    direction[0, 0] = 1.0
    asked = ScreeningCopy(context=meeting.terms.context, copy=copy, sender=1, direction=direction)
    with pytest.raises(ScreeningError, match="nobody names another"):
        verifier.call(asked.to_bytes())

    numbers = ScreeningNumbers.from_bytes(verifier.call(replace(asked, direction=None).to_bytes()))
    assert numbers.reference not in {NO_REFERENCE, bytes(32)}
    for change in (
        {"reference": MODEL},
        {"reference": NO_REFERENCE},
        {"projection": b""},
    ):
        changed = replace(numbers, **change)  # type: ignore[arg-type]
        with pytest.raises(SignatureError):
            decryptor.call(changed.to_bytes())
        own = service_identity("verifier").sign(NUMBERS_PURPOSE, changed.signed_part())
        with pytest.raises(ScreeningError, match="not the mean of the sums that were opened last"):
            decryptor.call(replace(changed, signature=own).to_bytes())

    assert ScreeningResult.from_bytes(decryptor.call(numbers.to_bytes())).cosine is not None


def test_a_verifier_that_was_not_shown_what_opened_holds_updates_against_nothing() -> None:
    """An aggregator that keeps the opened sums to itself gets norms alone, and the round goes on."""
    first = meet()
    first.take(*MEMBERS)
    first.server._calls.show_opened = lambda _: None  # type: ignore[method-assign]
    first.sums(same_bindings(SESSION))
    meeting = meet(replace(SESSION, round=2), roles=first.roles, inputs=updates(1))

    meeting.take(*MEMBERS)

    assert all(told.norm is not None for told in meeting.server.screened.values())
    assert all(told.cosine is None for told in meeting.server.screened.values())


def opened_lies(opened: DecryptedSums) -> Iterable[tuple[DecryptedSums, type[ProtocolError]]]:
    """What an aggregator could show instead of the opened sums."""
    yield replace(opened, signature=bytes(64)), SignatureError
    yield replace(opened, sums={0: opened.sums[0] * 0 + np.uint32(1)}), SignatureError
    yield replace(opened, sum_digest=bytes(32)), ContextError
    yield replace(opened, context=bytes(32)), ContextError


def test_a_verifier_takes_no_other_opened_sums() -> None:
    """Only the decryptor's own answer about the very sum that it has signed; once."""
    shown: list[DecryptedSums] = []
    first = meet()
    first.take(*MEMBERS)
    first.server._calls.show_opened = shown.append  # type: ignore[method-assign]
    first.sums(same_bindings(SESSION))
    verifier = service_of(first.roles.verifier)
    assert isinstance(verifier, Verifier)

    for lie, error in opened_lies(shown[0]):
        with pytest.raises(error):
            verifier.take_opened(lie)
    verifier.take_opened(shown[0])
    with pytest.raises(StageError, match="no sum was signed"):
        verifier.take_opened(shown[0])


# --- whose copy ---


def test_a_copy_is_screened_for_the_client_that_committed_to_it() -> None:
    """In another's place, changed, before the keys or before the list, it is refused by name."""
    meeting = meet()
    terms, verifier = meeting.terms, meeting.roles.verifier
    assert verifier is not None
    early = ScreeningCopy(context=terms.context, copy=b"", sender=1, direction=None)
    meeting.server.requests()
    with pytest.raises(StageError, match="not fixed yet"):
        verifier.call(early.to_bytes())
    copy = EncryptedInput.from_bytes(meeting.upload(VICTIM)).copy
    asked = replace(early, copy=copy)
    with pytest.raises(StageError, match="no evaluation keys"):
        verifier.call(asked.to_bytes())
    meeting.server._calls.evaluation_keys()

    odd: list[tuple[ScreeningCopy, type[ProtocolError]]] = [
        (replace(asked, sender=2), CiphertextError),
        (replace(asked, copy=bytes((copy[0] ^ 1,)) + copy[1:]), CiphertextError),
        (replace(asked, copy=copy[:-1]), CiphertextError),
        (replace(asked, copy=b""), CiphertextError),
        (replace(asked, copy=meeting.made(OTHERS[0]).copy), CiphertextError),
        (replace(asked, context=bytes(32)), ContextError),
    ]
    for message, error in odd:
        with pytest.raises(error):
            verifier.call(message.to_bytes())
    verifier.call(asked.to_bytes())


def test_an_update_beyond_the_rule_is_in_neither_sum() -> None:
    """Screened out by the verifier's numbers, it is added by nobody; the others' sum opens."""
    rule = replace(RULE, max_norm=1.0)
    charge = charge_for(services=VERIFIED, screening=rule)
    inputs = updates()
    for member in OTHERS:
        inputs[member] = {0: SegmentInput(values=np.ones(50, dtype=np.int64), binding=MODEL)}
    meeting = Meeting.of(SESSION, charge, inputs)
    meeting.fix()

    with pytest.raises(ScreeningError, match=f"{VICTIM}: its norm exceeds 1 input bounds"):
        meeting.take(VICTIM)
    meeting.take(*OTHERS)

    assert meeting.sums(same_bindings(SESSION)) == {0: [3] * 50}


def test_evaluation_keys_are_the_decryptors() -> None:
    """A verifier computes under no others, and in no session that screens nothing."""
    meeting = meet()
    verifier = service_of(meeting.roles.verifier)
    assert isinstance(verifier, Verifier)
    meeting.fix()
    keys = EvaluationKeys.from_bytes(meeting.roles.decryptor.call(SCREENING))

    for odd, error in (
        (replace(keys, signature=bytes(64)), SignatureError),
        (replace(keys, context=bytes(32)), ContextError),
        (replace(keys, keys=keys.keys[:-1]), SignatureError),
    ):
        with pytest.raises(error):
            verifier.take_evaluation_keys(odd)
    plain = Meeting.of(SESSION, charge_for(services=VERIFIED))
    plain.fix()
    unscreened = service_of(plain.roles.verifier)
    assert isinstance(unscreened, Verifier)
    with pytest.raises(ScreeningError, match="screens nothing"):
        unscreened.take_evaluation_keys(keys)


def test_a_server_without_verifier_and_screener_says_so() -> None:
    """What cannot work ends by name when the first copy comes."""
    meeting = Meeting.of(SESSION, charge_for(screening=RULE), updates())
    meeting.server = server_of(meeting.terms, replace(meeting.roles, screener=None))
    meeting.fix()

    with pytest.raises(ServiceError, match="has no screener"):
        meeting.take(VICTIM)
