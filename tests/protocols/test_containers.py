"""Codecs that are made of others keep their strictness, and add what mappings, lists and nested messages need."""

import re
from dataclasses import dataclass
from typing import Any, final

import pytest

from protocols.codec import U16, Blob, Bytes, Codec, Fixed, Text, Unsigned
from protocols.containers import ByNumbers, ByPosition, Listed, Nested, OptionalNested, Pair, SameSize
from protocols.errors import RosterError, WireError
from protocols.message import Inline, Message, Record
from protocols.wire import MessageType
from tests.protocols.test_codec import HEAD, read, written


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Point(Record):
    place: U16
    name: Bytes


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Inner(Message):
    message_type = MessageType.SERVICE_ANSWER

    place: U16


INNER = "52 53 02 54 07 00"
KNOWN: list[tuple[Codec[Any], Any, str]] = [
    (ByPosition(Fixed(2)), {}, "00 00"),
    (ByPosition(Fixed(2)), {3: b"cd", 1: b"ab"}, "02 00 01 00 03 00 61 62 63 64"),
    (ByPosition(Blob()), {1: b"a", 2: b""}, "02 00 01 00 02 00 01 00 00 00 61 00 00 00 00"),
    (ByPosition(Listed(Fixed(1), count=2)), {4: (b"a", b"b")}, "01 00 04 00 02 00 61 62"),
    (SameSize(), {2: b"cd", 1: b"ab"}, "02 00 01 00 02 00 04 00 00 00 61 62 63 64"),
    (SameSize(), {}, "00 00 00 00 00 00"),
    (ByNumbers(2, Fixed(1)), {(1, 2): b"b", (1, 1): b"a"}, "02 00 00 00 01 00 01 00 61 01 00 02 00 62"),
    (ByNumbers(3, Fixed(1)), {(1, 2, 3): b"x"}, "01 00 00 00 01 00 02 00 03 00 78"),
    (Listed(Unsigned(2), count=2), (7, 3), "02 00 07 00 03 00"),
    (Listed(Text(), count=1), ("a",), "01 01 00 61"),
    (Pair(Fixed(1), Unsigned(1)), (b"a", 5), "61 05"),
    (Nested(Inner), Inner(place=7), f"06 00 00 00 {INNER}"),
    (OptionalNested(Inner), Inner(place=7), f"06 00 00 00 {INNER}"),
    (OptionalNested(Inner), None, "00 00 00 00"),
    (Inline(Point), Point(place=7, name=b"x"), "07 00 01 00 00 00 78"),
]
IDS = [f"{type(codec).__name__} {value!r}" for codec, value, _ in KNOWN]


@pytest.mark.parametrize(("codec", "value", "expected"), KNOWN, ids=IDS)
def test_a_value_has_known_bytes(codec: Codec[Any], value: Any, expected: str) -> None:
    """Keys in increasing order whatever the order of the mapping, items as their codec writes them."""
    data = written(codec, value)

    assert data[4:].hex(" ") == expected
    assert read(codec, data) == value


@pytest.mark.parametrize(("codec", "value", "expected"), KNOWN, ids=IDS)
def test_every_truncation_is_refused(codec: Codec[Any], value: Any, expected: str) -> None:
    """Wherever it is cut, and with a byte more."""
    data = HEAD + bytes.fromhex(expected)

    for size in range(4, len(data)):
        with pytest.raises(WireError):
            read(codec, data[:size])
    with pytest.raises(WireError):
        read(codec, data + b"\x00")
    assert read(codec, data) == value


@pytest.mark.parametrize(
    ("codec", "data"),
    [
        (ByPosition(Fixed(1)), "02 00 02 00 01 00 61 62"),
        (ByPosition(Fixed(1)), "02 00 01 00 01 00 61 62"),
        (SameSize(), "02 00 02 00 01 00 02 00 00 00 61 62"),
        (ByNumbers(2, Fixed(1)), "02 00 00 00 01 00 02 00 62 01 00 01 00 61"),
        (ByNumbers(2, Fixed(1)), "02 00 00 00 01 00 01 00 62 01 00 01 00 61"),
        (Listed(Inline(Point), count=1, increasing="place"), "02 02 00 00 00 00 00 01 00 00 00 00 00"),
        (Listed(Inline(Point), count=1, increasing="place"), "02 01 00 00 00 00 00 01 00 00 00 00 00"),
    ],
)
def test_a_set_out_of_order_is_refused(codec: Codec[Any], data: str) -> None:
    """Keys, and items that stand for a set, must strictly increase: otherwise one value had two encodings."""
    with pytest.raises(WireError, match="session: a set is not in strictly increasing order"):
        read(codec, HEAD + bytes.fromhex(data))


def test_a_list_without_a_rule_may_have_any_order() -> None:
    """The control: the same bytes, where the codec states no order."""
    data = HEAD + bytes.fromhex("02 02 00 00 00 00 00 01 00 00 00 00 00")

    found = read(Listed(Inline(Point), count=1), data)

    assert [point.place for point in found] == [2, 1]


def test_a_number_of_items_is_checked_before_they_are_read() -> None:
    """A limit is asked with the number alone: bytes behind it that are no items are not looked at."""
    numbers = []

    def check(number: int) -> None:
        numbers.append(number)
        if number > 2:
            raise RosterError(f"{number} members must be at most 2")

    limited = Listed(Text(), count=2, check=check)

    with pytest.raises(RosterError, match="3 members must be at most 2"):
        read(limited, HEAD + b"\x03\x00\xff\xff\xff")
    assert read(limited, HEAD + b"\x01\x00\x01\x00a") == ("a",)
    assert numbers == [3, 1]


@pytest.mark.parametrize("data", ["02 00 01 00 02 00 03 00 00 00 61 62 63", "00 00 01 00 00 00 61"])
def test_values_in_one_piece_are_of_the_same_size(data: str) -> None:
    """What cannot be cut into as many equal values is refused, received or sent."""
    with pytest.raises(WireError, match="of the same size"):
        read(SameSize(), HEAD + bytes.fromhex(data))
    with pytest.raises(WireError, match="the same size"):
        written(SameSize(), {1: b"a", 2: b"bc"})


def test_a_nested_message_keeps_its_head() -> None:
    """Another type inside is refused by the name of the one that belongs there."""
    other = bytes.fromhex("06 00 00 00 52 53 02 55 07 00")

    for codec in (Nested(Inner), OptionalNested(Inner)):
        with pytest.raises(WireError, match=re.escape("service_answer: message type 85 must be 84")):
            read(codec, HEAD + other)


def test_items_of_another_size_are_not_sent() -> None:
    """One wrong item among many is found, also where they are written together."""
    for codec, value in (
        (ByPosition(Fixed(2)), {1: b"ab", 2: b"c"}),
        (ByNumbers(2, Fixed(2)), {(1, 1): b"ab", (1, 2): b"c"}),
        (Listed(Fixed(2), count=1), (b"ab", b"c")),
    ):
        with pytest.raises(WireError, match="a field of 1 bytes must have 2"):
            written(codec, value)
