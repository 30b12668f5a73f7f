"""The story of one session in one process: who is asked, who is silent, what the network changes, what is counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import BelowThresholdError, ProtocolError, WireError
from protocols.interface import SecureSum
from protocols.masking.secure_sum import Masking
from protocols.plain import Plain
from protocols.profiles import CONSISTENCY, ONE_ANSWER, MaskingProfile
from protocols.run import run_session
from protocols.session import Session
from protocols.transcript import Transcript
from tests.contracts.sessions import (
    PROPERTY,
    foretell,
    make_inputs,
    make_session,
    names,
    plain_sum,
    same_bindings,
    segment,
    sessions,
    silences,
)
from tests.protocols.masking.parties import EveryonesMasking

BOTH = pytest.mark.parametrize("secure_sum", [Plain(), Masking()], ids=lambda secure_sum: secure_sum.name)
SIGNED = pytest.mark.parametrize("profile", [ONE_ANSWER, CONSISTENCY], ids=lambda profile: profile.name)


@BOTH
def test_everyone_answers_by_default(secure_sum: SecureSum) -> None:
    """A run without incidents sums all inputs."""
    session = make_session()
    inputs = make_inputs(session)

    result = run_session(secure_sum, session, inputs, bindings=same_bindings(session))

    assert result.survivors == session.members
    assert result.sums[0].tolist() == plain_sum(inputs, session.segments[0], session.members)


@BOTH
@PROPERTY
@given(data=st.data(), session=sessions())
def test_silence_has_the_foretold_outcome(
    secure_sum: SecureSum, data: st.DataObject, session: Session
) -> None:
    """Clients fall silent from the stage given on, and the outcome is the one worked out independently."""
    silent = data.draw(silences(session, secure_sum.stages))
    inputs, bindings = make_inputs(session), same_bindings(session)
    outcome = foretell(
        session, inputs, stages=secure_sum.stages, input_stage=secure_sum.input_stage, silent_from=silent
    )

    if outcome is None:
        with pytest.raises(BelowThresholdError):
            run_session(secure_sum, session, inputs, bindings=bindings, silent_from=silent)
    else:
        result = run_session(secure_sum, session, inputs, bindings=bindings, silent_from=silent)

        assert result.survivors == outcome.survivors
        assert {index: values.tolist() for index, values in result.sums.items()} == outcome.sums


@BOTH
def test_a_thin_segment_stays_closed_alike(secure_sum: SecureSum) -> None:
    """Survivors, sums and closed segments do not depend on the implementation."""
    session = make_session(5, segment(0, 6, names(5), 3), segment(1, 4, names(3), 3), segment(2, 2, names(2)))
    inputs = make_inputs(session)
    silent = {"client-02": secure_sum.input_stage}

    result = run_session(secure_sum, session, inputs, bindings=same_bindings(session), silent_from=silent)

    survivors = ("client-01", "client-03", "client-04", "client-05")
    assert result.survivors == survivors
    assert {index: values.tolist() for index, values in result.sums.items()} == {
        index: plain_sum(inputs, session.segments[index], survivors) for index in (0, 2)
    }
    assert set(result.refused) == {1}


@BOTH
def test_the_network_can_spoil_a_reply(secure_sum: SecureSum) -> None:
    """What `tamper` returns is what the server receives, once per reply, and its refusal is raised."""
    session = make_session()
    seen = []

    def cut(client: str, stage: str, reply: bytes) -> bytes:
        seen.append((client, stage))
        return reply[:-1] if (client, stage) == ("client-03", secure_sum.input_stage) else reply

    with pytest.raises(WireError):
        run_session(secure_sum, session, make_inputs(session), bindings=same_bindings(session), tamper=cut)

    before = secure_sum.stages[: secure_sum.stages.index(secure_sum.input_stage)]
    assert seen == [(client, stage) for stage in before for client in session.members] + [
        (client, secure_sum.input_stage) for client in session.members[:3]
    ]


@BOTH
def test_a_transcript_counts_what_crossed(secure_sum: SecureSum) -> None:
    """Every request is counted, answered or not, and every reply at its size on the wire."""
    session = make_session()
    transcript, sizes = Transcript(), {}

    def weigh(client: str, stage: str, reply: bytes) -> bytes:
        sizes[client, stage] = len(reply)
        return reply

    run_session(
        secure_sum,
        session,
        make_inputs(session),
        bindings=same_bindings(session),
        silent_from={"client-04": secure_sum.stages[-1]},
        transcript=transcript,
        tamper=weigh,
    )

    assert transcript.received == sizes
    assert set(transcript.sent) == {
        (client, stage) for client in session.members for stage in secure_sum.stages
    }
    assert set(sizes) == set(transcript.sent) - {("client-04", secure_sum.stages[-1])}


@pytest.mark.parametrize(("bits", "more"), [(16, 20_000), (20, 25_000), (24, 30_000), (32, 40_000)])
def test_a_masked_upload_takes_the_bits_of_its_ring_per_value(bits: int, more: int) -> None:
    """Ten thousand more values cost each client so many more bytes, in masking as in the clear."""
    sizes = {}

    for secure_sum in (Plain(), Masking()):
        for length in (1, 10_001):
            transcript = Transcript()
            session = make_session(4, segment(0, length, names(4)), ring_bits=bits)
            run_session(
                secure_sum,
                session,
                make_inputs(session),
                bindings=same_bindings(session),
                transcript=transcript,
            )
            sizes[secure_sum.name, length] = transcript.bytes_up()

    for name in ("plain", "masking"):
        for client in names(4):
            assert sizes[name, 10_001][client] - sizes[name, 1][client] == more


def test_identities_cost_signatures_alone() -> None:
    """With signed messages a client sends one signature of 64 bytes with its keys and one with its upload."""
    session = make_session()
    sizes = []

    for secure_sum in (Masking(), EveryonesMasking(ONE_ANSWER)):
        transcript = Transcript()
        run_session(
            secure_sum,
            session,
            make_inputs(session),
            bindings=same_bindings(session),
            transcript=transcript,
        )
        sizes.append(transcript.received)

    unsigned, signed = sizes
    assert {key: signed[key] - unsigned[key] for key in unsigned} == {
        (client, stage): 64 if stage in {"advertise_keys", "mask_input"} else 0
        for client in names(4)
        for stage in Masking().stages
    }


@SIGNED
def test_a_signed_session_runs_like_any_other(profile: MaskingProfile) -> None:
    """A client that falls silent at any stage leaves the exact sum over those who have uploaded."""
    secure_sum, session = EveryonesMasking(profile), make_session()
    inputs = make_inputs(session)

    for stage in secure_sum.stages:
        result = run_session(
            secure_sum,
            session,
            inputs,
            bindings=same_bindings(session),
            silent_from={"client-02": stage},
        )

        late = secure_sum.stages.index(stage) > secure_sum.stages.index("mask_input")
        survivors = names(4) if late else ("client-01", "client-03", "client-04")
        assert result.survivors == survivors
        assert result.sums[0].tolist() == plain_sum(inputs, session.segments[0], survivors)


@BOTH
def test_bindings_reach_the_server(secure_sum: SecureSum) -> None:
    """A run whose server has no binding for an open segment raises what the server raises."""
    session = make_session()

    with pytest.raises(ProtocolError):
        run_session(secure_sum, session, make_inputs(session), bindings={})
