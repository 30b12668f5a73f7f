"""All inputs of a sum were computed from one model: who was given another is left out, by aggregator and services alike."""

import pytest

from protocols.errors import BelowThresholdError, InputError, ServiceError
from protocols.homomorphic.terms import Services
from protocols.session import Session
from tests.contracts.sessions import (
    MODEL,
    OTHER_MODEL,
    Inputs,
    make_inputs,
    make_session,
    names,
    plain_sum,
    same_bindings,
    segment,
)
from tests.protocols.homomorphic.meeting import ALONE, VERIFIED, Meeting, charge_for
from tests.protocols.homomorphic.parties.test_decryptor import SESSION as TWO_BANDS
from tests.protocols.homomorphic.parties.test_decryptor import honest

FIRST, SECOND, THIRD, LAST = MEMBERS = names(4)
WHOLE = make_session(4, segment(0, 20, MEMBERS, 3))
CHARGE = charge_for(services=VERIFIED)
BOTH = pytest.mark.parametrize("services", [ALONE, VERIFIED], ids=["alone", "verified"])


def bound(session: Session, odd: dict[str, bytes]) -> Inputs:
    """Everybody's inputs, some of them bound to another model."""
    found = make_inputs(session)
    for member, binding in odd.items():
        found[member] = make_inputs(
            session,
            bindings=dict.fromkeys((0, 1), binding),
        )[member]
    return found


@BOTH
def test_a_few_who_were_given_another_model_are_left_out(services: Services) -> None:
    """They are not asked for ciphertexts; everybody else's sums open exactly."""
    meeting = Meeting.of(
        TWO_BANDS,
        charge_for(services=services),
        bound(TWO_BANDS, {LAST: OTHER_MODEL}),
    )
    meeting.fix()
    others = (FIRST, SECOND, THIRD)

    assert tuple(meeting.server.requests()) == others
    meeting.take(*others)
    assert meeting.sums(same_bindings(TWO_BANDS)) == {
        part.index: plain_sum(meeting.inputs, part, others) for part in TWO_BANDS.segments
    }
    assert meeting.server.contributors == others


def test_a_server_that_knows_its_model_refuses_others_when_they_commit() -> None:
    """Told its own binding, it turns whoever has another one away by name, even if they are most."""
    meeting = Meeting.of(TWO_BANDS, inputs=bound(TWO_BANDS, dict.fromkeys(MEMBERS[1:], OTHER_MODEL)))
    meeting.server.expect(same_bindings(TWO_BANDS))
    meeting.commit(FIRST)

    for member in MEMBERS[1:]:
        with pytest.raises(InputError, match=f"{member}: was bound to another model than the server"):
            meeting.commit(member)
    with pytest.raises(InputError, match="bound to 2 models and must be bound to one"):
        meeting.server.expect({0: MODEL, 1: OTHER_MODEL})
    with pytest.raises(BelowThresholdError):
        meeting.server.close_stage()


def test_one_who_commits_to_another_model_is_turned_away_and_the_others_are_summed() -> None:
    """An aggregator that knows its model does not wait for the end of the stage."""
    meeting = Meeting.of(WHOLE, inputs=bound(WHOLE, {SECOND: OTHER_MODEL}))
    meeting.server.expect(same_bindings(WHOLE))
    with pytest.raises(InputError, match=f"{SECOND}: was bound to another model than the server"):
        meeting.commit(SECOND)
    meeting.fix(FIRST, THIRD, LAST)
    meeting.take(FIRST, THIRD, LAST)

    assert meeting.sums(same_bindings(WHOLE)) == honest(WHOLE, FIRST, THIRD, LAST)


def test_a_server_that_lists_two_models_gets_no_list_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that leaves nobody out ends the session by name, and no ciphertext is asked for."""
    meeting = Meeting.of(TWO_BANDS, CHARGE, bound(TWO_BANDS, {LAST: OTHER_MODEL}))
    monkeypatch.setattr(meeting.server, "_left_out", frozenset)
    meeting.commit(*MEMBERS)
    meeting.server.close_stage()

    with pytest.raises(ServiceError, match="the verifier: InputError: the inputs are bound to different"):
        meeting.server.requests()


def test_a_client_binds_all_its_segments_to_one_model() -> None:
    """Inputs of which one segment is bound to another model are refused by name: a receipt cannot name two."""
    meeting = Meeting.of(TWO_BANDS)
    inputs = make_inputs(TWO_BANDS, bindings={1: OTHER_MODEL})[FIRST]

    with pytest.raises(InputError, match="client-01: its segments are bound to 2 models"):
        meeting.client(FIRST).contribute(meeting.server.requests()[FIRST], inputs)
