"""A message's bytes follow from its annotations, and an annotation that cannot be right is refused at import."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, final

import pytest

from protocols.codec import U8, U16, Bytes, Digest, Fixed, Given, Rest, Unsigned
from protocols.containers import ByPosition
from protocols.errors import WireError
from protocols.message import NOT_SIGNED, HeadedRecord, Message, Record, SignedMessage
from protocols.wire import MessageType


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Signed(SignedMessage):
    message_type = MessageType.SERVICE_ANSWER

    context: Digest
    sender: U16
    payload: Bytes
    signature: Annotated[bytes, Fixed(4), NOT_SIGNED] = b"sign"
    second: Annotated[bytes, Rest((0, 4)), NOT_SIGNED] = b""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Sized(HeadedRecord):
    """Values of as many bytes as a field before them says, of at most so many as the reader is told."""

    message_type = MessageType.SERVICE_ANSWER
    most: ClassVar[int] = 9

    size: U8
    values: Annotated[
        Mapping[int, bytes], Given(("size", "most"), lambda size, most: ByPosition(Fixed(min(size, most))))
    ] = field(default_factory=dict)


MESSAGE = Signed(context=bytes(range(32)), sender=0x0102, payload=b"xy")
PART = b"RS\x02\x54" + bytes(range(32)) + b"\x02\x01" + b"\x02\x00\x00\x00xy"


def test_fields_stand_in_the_order_in_which_they_are_stated() -> None:
    """Head, then each field as its annotation says."""
    assert MESSAGE.to_bytes() == PART + b"sign"
    assert Signed.from_bytes(PART + b"sign") == MESSAGE


def test_the_signed_part_leaves_out_what_is_not_signed() -> None:
    """Both signatures cover the same bytes: all that stands before the first of them."""
    twice = Signed.from_bytes(PART + b"signalso")

    assert twice.second == b"also"
    assert twice.signed_part() == MESSAGE.signed_part() == PART


@pytest.mark.parametrize("end", [b"", b"sig", b"signa", b"signalso1"])
def test_a_message_ends_where_its_fields_do(end: bytes) -> None:
    """Signatures of another size are trailing bytes or a message cut short."""
    with pytest.raises(WireError, match="service_answer: "):
        Signed.from_bytes(PART + end)


@pytest.mark.parametrize("size", range(len(PART)))
def test_fields_that_are_read_together_are_refused_when_cut(size: int) -> None:
    """Wherever it ends early, the error names the message."""
    with pytest.raises(WireError, match="service_answer: "):
        Signed.from_bytes(PART[:size])


def test_a_field_of_another_size_is_not_sent() -> None:
    """No bytes leave that every reader would refuse."""
    for wrong in ({"context": bytes(31)}, {"signature": b""}, {"second": b"x"}):
        message = Signed(**{"context": bytes(32), "sender": 1, "payload": b"", **wrong})

        with pytest.raises(WireError):
            message.to_bytes()


@pytest.mark.parametrize(("most", "expected"), [(9, {1: b"ab"}), (1, None)])
def test_a_codec_may_depend_on_other_values(most: int, expected: Mapping[int, bytes] | None) -> None:
    """On a field before it, and on what the reader of the message is told."""
    data = Sized(size=2, values={1: b"ab"})._encode()

    assert data[4:] == b"\x02\x01\x00\x01\x00ab"
    if expected is None:
        with pytest.raises(WireError, match="1 trailing bytes"):
            Sized._decode(data, {"most": most})
    else:
        assert Sized._decode(data, {"most": most}).values == expected


def define(annotation: Any, *, after: Any = None) -> Callable[[], type]:
    """What defines a record with one field of an annotation, or with another one before it."""
    fields = {"first": after, "field": annotation} if after is not None else {"field": annotation}

    def make() -> type:
        return type("Planted", (Record,), {"__annotations__": fields})

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (define(int), "Planted.field: must be annotated with one codec"),
        (define(Annotated[int, "seconds"]), "Planted.field: must be annotated with one codec"),
        (define(Annotated[int, Unsigned(1), Unsigned(2)]), "Planted.field: must be annotated with one codec"),
        (define(Annotated[str, Unsigned(2)]), "Planted.field: <class 'str'> must be <class 'int'>"),
        (
            define(Annotated[Mapping[str, bytes], ByPosition(Fixed(2))]),
            "Planted.field: collections.abc.Mapping",
        ),
        (define(U16, after=Annotated[bytes, Fixed(4), NOT_SIGNED]), "Planted: a signed field stands behind"),
    ],
    ids=["no codec", "another note", "two codecs", "another type", "another key", "signed behind unsigned"],
)
def test_an_annotation_that_cannot_be_right_is_refused(make: Callable[[], type], message: str) -> None:
    """When the class is defined, not when its first message arrives."""
    with pytest.raises(TypeError, match=message):
        make()


def test_a_right_annotation_is_taken() -> None:
    """The control: the same way of defining a class, with what its codec holds."""
    kind = define(Annotated[Mapping[int, bytes], ByPosition(Fixed(2))], after=U16)()

    assert issubclass(kind, Record)


def test_a_message_is_frozen_and_has_no_more_than_its_fields() -> None:
    """The bases add no dictionary to a slotted record."""
    with pytest.raises(AttributeError):
        MESSAGE.sender = 2  # type: ignore[misc]
    assert not hasattr(MESSAGE, "__dict__")
    assert issubclass(Signed, Message)
