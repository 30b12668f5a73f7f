"""The plain sum keeps the contract, and its one message is canonical."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import BelowThresholdError, InputError, WireError
from protocols.interface import SecureSum, SumResult
from protocols.plain import Plain, PlainInput
from protocols.ring import centred, to_ring
from protocols.session import Session
from tests.contracts.secure_sum import SecureSumContract
from tests.contracts.sessions import MODEL, PROPERTY, Play, make_session, names, same_bindings, segment

CONTEXT = bytes(32)
VECTORS = st.lists(st.integers(0, 2**32 - 1), max_size=6).map(
    lambda values: np.array(values, dtype=np.uint32)
)


class TestPlain(SecureSumContract):
    """It reads the bindings, so it refuses a segment in which they differ."""

    secure_sum: ClassVar[SecureSum] = Plain()

    def check_mixed_bindings(
        self, session: Session, result: SumResult, sums_of_inputs: dict[int, list[int]]
    ) -> None:
        """Segment 0 stays closed and says why."""
        assert set(result.sums) == set(sums_of_inputs) - {0}
        assert "different models" in result.refused[0]

    def check_foreign_server_binding(
        self, session: Session, result: SumResult, sums_of_inputs: dict[int, list[int]]
    ) -> None:
        """The same."""
        self.check_mixed_bindings(session, result, sums_of_inputs)


class TestPlainIn20Bits(TestPlain):
    """The same in the ring whose elements take half bytes."""

    ring_bits: ClassVar[int] = 20


@PROPERTY
@given(
    sender=st.integers(0, 2**16 - 1),
    segments=st.dictionaries(st.integers(0, 2**16 - 1), VECTORS, max_size=3),
    bits=st.sampled_from([16, 20, 24, 32]),
)
def test_an_input_survives_the_wire(sender: int, segments: dict[int, np.ndarray], bits: int) -> None:
    """Decoding the bytes of a plain input gives its fields back, the vectors modulo its ring."""
    bindings = {index: bytes([number]) * 32 for number, index in enumerate(segments)}
    message = PlainInput(context=CONTEXT, sender=sender, segments=segments, bindings=bindings, ring_bits=bits)

    decoded = PlainInput.from_bytes(message.to_bytes())

    assert (decoded.context, decoded.sender, decoded.bindings) == (CONTEXT, sender, bindings)
    assert decoded.ring_bits == bits
    assert {index: vector.tolist() for index, vector in decoded.segments.items()} == {
        index: [word % 2**bits for word in vector.tolist()] for index, vector in segments.items()
    }
    assert decoded.to_bytes() == message.to_bytes()


@PROPERTY
@given(data=st.binary(max_size=120))
def test_random_bytes_are_no_input(data: bytes) -> None:
    """Random bytes behind a right header decode or raise WireError, and what decodes is canonical."""
    message = b"RS\x02\x10" + bytes(32) + data

    try:
        decoded = PlainInput.from_bytes(message)
    except WireError:
        decoded = None

    assert decoded is None or decoded.to_bytes() == message


@pytest.mark.parametrize(
    "lengths", [{}, {0: 5}, {0: 5, 1: 3}, {0: 5, 1: 5}, {0: 4, 1: 4}, {0: 5, 1: 4, 2: 4}]
)
def test_an_upload_holds_exactly_the_clients_segments(lengths: dict[int, int]) -> None:
    """A missing, extra, short or long segment raises InputError, and the right upload is still taken."""
    session = make_session(4, segment(0, 5, names(4)), segment(1, 4, names(3)), segment(2, 4, names(4)[2:]))
    play = Play(Plain(), session)
    message = PlainInput(
        context=session.context,
        sender=1,
        segments={index: np.zeros(length, dtype=np.uint32) for index, length in lengths.items()},
        bindings=dict.fromkeys(lengths, MODEL),
    )

    with pytest.raises(InputError, match="client-01"):
        play.server.receive("client-01", message.to_bytes())
    play.play("upload")

    assert play.sums() == play.honest_sums()


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_an_upload_in_another_ring_is_refused(bits: int) -> None:
    """An input packed for another ring than the session's raises InputError, and the right one is still taken."""
    session = make_session(ring_bits=20)
    play = Play(Plain(), session)
    message = PlainInput(
        context=session.context,
        sender=1,
        segments={0: np.zeros(5, dtype=np.uint32)},
        bindings={0: MODEL},
        ring_bits=bits,
    )

    with pytest.raises(InputError, match=f"client-01: ring_bits={bits}"):
        play.server.receive("client-01", message.to_bytes())
    play.play("upload")

    assert play.sums() == play.honest_sums()


@pytest.mark.parametrize("bits", [0, 8, 12, 31, 64, 255])
def test_a_ring_that_does_not_exist_is_refused(bits: int) -> None:
    """An input that claims another number of bits than the format knows raises WireError."""
    good = PlainInput(
        context=CONTEXT, sender=1, segments={0: np.zeros(5, dtype=np.uint32)}, bindings={0: MODEL}
    ).to_bytes()
    place = 4 + 32 + 2  # behind header, context and sender

    with pytest.raises(WireError, match=f"bits={bits}"):
        PlainInput.from_bytes(good[:place] + bytes([bits]) + good[place + 1 :])


def test_a_client_forgets_its_input_when_it_ends() -> None:
    """After `end` nothing of the upload is left in the client."""
    play = Play(Plain(), make_session())
    sent = play.answers("upload")["client-01"]

    play.clients["client-01"].end()

    assert sent not in vars(play.clients["client-01"]).values()


@pytest.mark.parametrize("beyond", [0, 1])
def test_where_noise_comes_after_the_sum_an_upload_out_of_bounds_costs_its_sender_alone(beyond: int) -> None:
    """Held against the bound by its sum alone, it has the segment of all closed or not by what the others have sent."""
    session = make_session(4, segment(0, 5, names(4)))
    held, careless = Play(Plain(bounded=True), session), Play(Plain(), session)
    for each in (held, careless):
        sent = {name: PlainInput.from_bytes(each.answers("upload")[name]) for name in names(4)}
        for name in names(4)[1:]:
            each.server.receive(name, sent[name].to_bytes())
        others = sum(int(centred(sent[name].segments[0], bits=32)[0]) for name in names(4)[1:])
        values = centred(sent["client-01"].segments[0], bits=32)
        values[0] = 4 * session.input_bound - others + beyond
        far = replace(sent["client-01"], segments={0: to_ring(values)}).to_bytes()
        if each is held:
            with pytest.raises(InputError, match="client-01: a value of segment 0 leaves"):
                each.server.receive("client-01", far)
        else:
            each.server.receive("client-01", far)
        each.server.close_stage()

    assert held.server.result(same_bindings(session)).refused == {}
    assert list(careless.server.result(same_bindings(session)).refused) == [0] * beyond


@pytest.mark.parametrize("answering", [0, 1, 2, 4])
def test_whoever_is_there_is_summed_where_nobody_is_counted(answering: int) -> None:
    """Below threshold and quorum every segment opens, over nobody as zeros; as it is by default, the session ends."""
    session = make_session(4, segment(0, 5, names(4)), segment(1, 4, names(3)))
    play, strict = Play(Plain(whoever_is_there=True), session), Play(Plain(), session)
    for each in (play, strict):
        for member in names(4)[:answering]:
            each.server.receive(member, each.answers("upload")[member])

    play.server.close_stage()
    found = play.server.result(same_bindings(session))

    assert found.refused == {}
    assert found.survivors == names(4)[:answering]
    assert {index: len(values) for index, values in found.sums.items()} == {0: 5, 1: 4}
    assert all(values.any() == bool(answering) for values in found.sums.values())
    if answering < session.threshold:
        with pytest.raises(BelowThresholdError):
            strict.server.close_stage()
