"""The messages between coordinator and participant have one encoding each, and hostile ones are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import WireError
from rbla_secure.federation.messages import StageRefusal, StageReply, StageRequest, decode_answer
from tests.support.properties import PROPERTY

BLOB = st.binary(max_size=30)
PRINTABLE = st.text(max_size=50).filter(str.isprintable)
HEAD = b"RS\x02"


@PROPERTY
@given(session=BLOB, payload=BLOB, adapter=BLOB)
def test_a_request_round_trips(session: bytes, payload: bytes, adapter: bytes) -> None:
    """A request survives its bytes."""
    message = StageRequest(session=session, payload=payload, adapter=adapter)

    decoded = StageRequest.from_bytes(message.to_bytes())

    assert decoded == message


@PROPERTY
@given(payload=BLOB)
def test_a_reply_round_trips(payload: bytes) -> None:
    """A reply survives its bytes and is told from a refusal."""
    message = StageReply(payload=payload)

    decoded = decode_answer(message.to_bytes())

    assert decoded == message


@PROPERTY
@given(error=st.sampled_from(["RefusalError", "WireError", "_x1"]), reason=PRINTABLE)
def test_a_refusal_round_trips(error: str, reason: str) -> None:
    """A refusal survives its bytes, its reason included."""
    message = StageRefusal(error=error, reason=reason)

    decoded = decode_answer(message.to_bytes())

    assert decoded == message


@pytest.mark.parametrize("letter", ["x", "ż", "\N{GRINNING FACE}"])
def test_a_long_reason_is_cut(letter: str) -> None:
    """However long the reason and however wide its characters, a refusal can be sent."""
    message = StageRefusal(error="RefusalError", reason=letter * 100_000)

    decoded = decode_answer(message.to_bytes())

    assert decoded == StageRefusal(error="RefusalError", reason=letter * 1000)


def test_a_request_is_a_known_answer() -> None:
    """Magic, version, type, then each part behind its length."""
    message = StageRequest(session=b"ab", payload=b"", adapter=b"c", digests=b"d")

    data = message.to_bytes()

    assert data == HEAD + b"\x02" + b"\x02\0\0\0ab" + b"\0\0\0\0" + b"\x01\0\0\0c" + b"\x01\0\0\0d"


@pytest.mark.parametrize(
    "reason",
    [
        "two\nlines",
        "\x1b[31mred",
        "\r",
        "a\u202eb",  # turns the direction of writing around
        "\x00",
        "a\u2028b",  # ends a line
        "\u200b",  # takes no space
    ],
)
def test_a_reason_that_could_forge_a_line_is_refused(reason: str) -> None:
    """What a client says ends up on a terminal and in a file, so it must be printable."""
    data = StageRefusal(error="RefusalError", reason=reason).to_bytes()

    with pytest.raises(WireError, match="printable"):
        decode_answer(data)


@pytest.mark.parametrize("error", ["", "a b", "1x", "x;", "../x", "x\n", "[red]"])
def test_an_error_that_is_no_name_is_refused(error: str) -> None:
    """The name of an error is an identifier."""
    data = StageRefusal(error=error, reason="because").to_bytes()

    with pytest.raises(WireError, match="printable"):
        decode_answer(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RS",
        HEAD,
        b"XX\x02\x03\0\0\0\0",  # magic
        b"RS\x01\x03\0\0\0\0",  # version
        HEAD + b"\x02" + bytes(12),  # a request is no answer
        HEAD + b"\x03\0\0\0\0\0",  # trailing byte
        HEAD + b"\x03\xff\xff\xff\xff",  # a length beyond the bytes at hand
        HEAD + b"\x04\x01\0a",  # a refusal without reason
        HEAD + b"\x04\x01\0a\x01\0bb",  # trailing byte
        HEAD + b"\x04\x01\0a\x01\0\xff",  # not UTF-8
    ],
)
def test_bytes_that_are_no_answer_are_refused(data: bytes) -> None:
    """Only the canonical bytes of a reply or of a refusal are one."""
    with pytest.raises(WireError):
        decode_answer(data)


@PROPERTY
@given(payload=BLOB, position=st.integers(0, 100), value=st.integers(0, 255))
def test_a_changed_byte_never_goes_unnoticed_elsewhere(payload: bytes, position: int, value: int) -> None:
    """Whatever decodes at all encodes to exactly the bytes it came from."""
    data = bytearray(StageReply(payload=payload).to_bytes())
    data[position % len(data)] = value

    try:
        encoded = decode_answer(bytes(data)).to_bytes()
    except WireError:
        encoded = bytes(data)

    assert encoded == bytes(data)


@PROPERTY
@given(data=st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: HEAD + tail))
def test_random_bytes_end_in_a_wire_error_or_a_message(data: bytes) -> None:
    """Decoding raises nothing else."""
    for decode in (decode_answer, StageRequest.from_bytes):
        try:
            encoded = decode(data).to_bytes()
        except WireError:
            encoded = data
        assert encoded == data
