"""Each codec of a single value has one encoding for it and refuses all others."""

import struct
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from protocols.codec import Blob, Choice, Codec, Fixed, Flag, Positions, Rest, Text, Unsigned, Vector
from protocols.errors import WireError
from protocols.wire import MessageType, Reader, Writer

TYPE = MessageType.SESSION
HEAD = b"RS\x02\x01"


class Colour(IntEnum):
    RED = 2
    BLUE = 5


# A codec, a value that it holds, and its bytes behind the head.
KNOWN: list[tuple[Codec[Any], Any, str]] = [
    (Unsigned(1), 0xFE, "fe"),
    (Unsigned(2), 0x0102, "02 01"),
    (Unsigned(4), 1, "01 00 00 00"),
    (Unsigned(8), 2**64 - 1, "ff ff ff ff ff ff ff ff"),
    (Flag("last"), False, "00"),
    (Flag("last"), True, "01"),
    (Choice(Colour, "colour"), Colour.BLUE, "05"),
    (Fixed(3), b"abc", "61 62 63"),
    (Blob(), b"", "00 00 00 00"),
    (Blob(), b"ab", "02 00 00 00 61 62"),
    (Text(), "é", "02 00 c3 a9"),
    (Rest((0, 2)), b"", ""),
    (Rest((0, 2)), b"ab", "61 62"),
    (Positions(), (), "00 00"),
    (Positions(), (1, 256), "02 00 01 00 00 01"),
]
IDS = [f"{codec} {value!r}" for codec, value, _ in KNOWN]


def written(codec: Codec[Any], value: Any) -> bytes:
    """A message of one field."""
    writer = Writer(TYPE)
    codec.write(writer, value)
    return writer.done()


def read(codec: Codec[Any], data: bytes) -> Any:
    """The one field of a message, to its last byte."""
    reader = Reader(data, TYPE)
    value = codec.read(reader)
    reader.end()
    return value


@pytest.mark.parametrize(("codec", "value", "expected"), KNOWN, ids=IDS)
def test_a_value_has_known_bytes(codec: Codec[Any], value: Any, expected: str) -> None:
    """It is written as the table of the module says, and read back as a value of the type that the codec holds."""
    data = written(codec, value)

    found = read(codec, data)

    assert data[4:].hex(" ") == expected
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("codec", "value", "expected"), KNOWN, ids=IDS)
def test_truncated_and_trailing_bytes_are_refused(codec: Codec[Any], value: Any, expected: str) -> None:
    """With a byte less or more the field is no longer one, unless a shorter or longer one is allowed."""
    data = written(codec, value)

    for wrong in (data[:-1], data + b"\x00"):
        with pytest.raises(WireError):
            read(codec, wrong)
    assert len(data) == 4 + len(bytes.fromhex(expected))


@pytest.mark.parametrize(
    ("codec", "value", "expected"), [known for known in KNOWN if not isinstance(known[0], Rest)]
)
def test_many_values_stand_one_behind_the_other(codec: Codec[Any], value: Any, expected: str) -> None:
    """Written and read together they are what they are one by one."""
    writer = Writer(TYPE)

    codec.write_all(writer, [value] * 3)

    data = writer.done()
    assert data == HEAD + 3 * bytes.fromhex(expected)
    reader = Reader(data, TYPE)
    assert list(codec.read_all(reader, 3)) == [value] * 3
    reader.end()


@pytest.mark.parametrize("count", [0, 1, 1024, 1025, 3000])
def test_fixed_fields_are_read_in_bulk_whatever_their_number(count: int) -> None:
    """Above the largest format that is kept, they are cut one by one: the values are the same."""
    data = bytes(number % 251 for number in range(3 * count))
    reader = Reader(HEAD + data, TYPE)

    found = Fixed(3).read_all(reader, count)

    assert list(found) == [data[at : at + 3] for at in range(0, len(data), 3)]


def test_no_peer_fills_memory_with_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    """The struct module keeps the formats that it has compiled: above a number of fields none is made."""
    formats: list[str] = []

    def unpack(form: str, data: bytes) -> tuple[Any, ...]:
        formats.append(form)
        return struct.unpack(form, data)

    monkeypatch.setattr("protocols.codec.struct", SimpleNamespace(unpack=unpack))

    for count in (3, 1025):
        Fixed(1).read_all(Reader(HEAD + bytes(count), TYPE), count)

    assert formats == ["1s1s1s"]


def test_too_few_fixed_fields_are_refused_before_any_is_cut() -> None:
    """A number of fields that a peer claims is compared with the bytes at hand first."""
    reader = Reader(HEAD + bytes(10), TYPE)

    with pytest.raises(WireError, match="ends 137438953430 bytes early"):
        Fixed(32).read_all(reader, 2**32 - 1)


@pytest.mark.parametrize(
    ("codec", "value", "message"),
    [
        (Fixed(3), b"ab", "a field of 2 bytes must have 3"),
        (Fixed(3), b"abcd", "a field of 4 bytes must have 3"),
        (Rest((0, 2)), b"a", r"1 last bytes must be one of \(0, 2\)"),
    ],
)
def test_a_value_of_another_size_is_not_sent(codec: Codec[Any], value: bytes, message: str) -> None:
    """The writer refuses what no reader would take, alone and among others."""
    for write in (
        lambda: written(codec, value),
        lambda: codec.write_all(Writer(TYPE), [value]),
    ):
        with pytest.raises(WireError, match=message):
            write()


@pytest.mark.parametrize(
    ("codec", "data", "message"),
    [
        (Flag("last"), "02", "session: last=2 must be 0 or 1"),
        (Choice(Colour, "colour"), "03", "session: colour=3 must be one of 2, 5"),
        (Text(), "01 00 ff", "session: a text is not UTF-8"),
        (Rest((0, 2)), "61", r"session: 1 last bytes must be one of \(0, 2\)"),
        (Positions(), "02 00 05 00 05 00", "session: a set is not in strictly increasing order"),
        (Blob(), "ff ff ff ff 00", "session: ends 4294967294 bytes early"),
    ],
)
def test_what_is_not_canonical_is_refused_by_name(codec: Codec[Any], data: str, message: str) -> None:
    """The error says which message it was, and what is wrong."""
    with pytest.raises(WireError, match=message):
        read(codec, HEAD + bytes.fromhex(data))


@pytest.mark.parametrize("bits", [16, 20, 24, 32])
def test_a_vector_is_packed(bits: int) -> None:
    """Its elements come back modulo the ring."""
    vector = np.array([1, 2**32 - 2, 0xABCDE], dtype=np.uint32)

    found = read(Vector(bits), written(Vector(bits), vector))

    assert found.tolist() == [word % 2**bits for word in vector.tolist()]
