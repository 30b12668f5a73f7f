"""The plain sum keeps the contract, and its one message is canonical."""

from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import InputError, WireError
from protocols.interface import SecureSum, SumResult
from protocols.plain import Plain, PlainInput
from protocols.session import Session
from tests.contracts.secure_sum import SecureSumContract
from tests.contracts.sessions import MODEL, PROPERTY, Play, make_session, names, segment

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


@PROPERTY
@given(
    sender=st.integers(0, 2**16 - 1),
    segments=st.dictionaries(st.integers(0, 2**16 - 1), VECTORS, max_size=3),
)
def test_an_input_survives_the_wire(sender: int, segments: dict[int, np.ndarray]) -> None:
    """Decoding the bytes of a plain input gives its fields back."""
    bindings = {index: bytes([number]) * 32 for number, index in enumerate(segments)}
    message = PlainInput(context=CONTEXT, sender=sender, segments=segments, bindings=bindings)

    decoded = PlainInput.from_bytes(message.to_bytes())

    assert (decoded.context, decoded.sender, decoded.bindings) == (CONTEXT, sender, bindings)
    assert {index: vector.tolist() for index, vector in decoded.segments.items()} == {
        index: vector.tolist() for index, vector in segments.items()
    }
    assert decoded.to_bytes() == message.to_bytes()


@PROPERTY
@given(data=st.binary(max_size=120))
def test_random_bytes_are_no_input(data: bytes) -> None:
    """Random bytes behind a right header decode or raise WireError, and what decodes is canonical."""
    message = b"RS\x01\x10" + bytes(32) + data

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
