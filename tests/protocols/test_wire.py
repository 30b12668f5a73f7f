"""The wire codec writes one form and reads no other."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import WireError
from protocols.wire import MessageType, Reader, Writer
from tests.contracts.sessions import PROPERTY

TYPE = MessageType.SESSION
HEADER = b"RS\x02\x01"

# Each kind of field: what writes it, what reads it, and the values that it holds.
FIELDS: dict[str, tuple[Callable[[Writer, Any], Writer], Callable[[Reader], Any], st.SearchStrategy[Any]]] = {
    "u16": (lambda w, v: w.unsigned(v, 2), lambda r: r.unsigned(2), st.integers(0, 2**16 - 1)),
    "u32": (lambda w, v: w.unsigned(v, 4), lambda r: r.unsigned(4), st.integers(0, 2**32 - 1)),
    "fixed": (lambda w, v: w.fixed(v, 5), lambda r: r.fixed(5), st.binary(min_size=5, max_size=5)),
    "blob": (lambda w, v: w.blob(v), lambda r: r.blob(), st.binary(max_size=20)),
    "text": (lambda w, v: w.text(v), lambda r: r.text(), st.text(max_size=10)),
    "vector": (
        lambda w, v: w.vector(np.array(v, dtype=np.uint32)),
        lambda r: r.vector().tolist(),
        st.lists(st.integers(0, 2**32 - 1), max_size=6),
    ),
    **{
        f"vector of {bits} bits": (
            lambda w, v, bits=bits: w.vector(np.array(v, dtype=np.uint32), bits=bits),
            lambda r, bits=bits: r.vector(bits=bits).tolist(),
            st.lists(st.integers(0, 2**bits - 1), max_size=6),
        )
        for bits in (16, 20, 24)
    },
    "positions": (
        lambda w, v: w.positions(v),
        lambda r: list(r.positions()),
        st.sets(st.integers(0, 2**16 - 1), max_size=6).map(sorted),
    ),
}
CONTENTS = st.lists(
    st.sampled_from(sorted(FIELDS)).flatmap(lambda kind: st.tuples(st.just(kind), FIELDS[kind][2])),
    max_size=5,
)


def write(contents: list[tuple[str, Any]]) -> bytes:
    """A message with these fields."""
    writer = Writer(TYPE)
    for kind, value in contents:
        FIELDS[kind][0](writer, value)
    return writer.done()


def read(data: bytes, kinds: list[str]) -> list[Any]:
    """The values of the fields of these kinds, to the last byte."""
    reader = Reader(data, TYPE)
    values = [FIELDS[kind][1](reader) for kind in kinds]
    reader.end()
    return values


def test_the_layout_is_the_documented_one() -> None:
    """Magic, version, type, then little-endian fields with their lengths in front."""
    writer = Writer(MessageType.MASKED_INPUT).unsigned(0x0102, 2).fixed(b"ab", 2).blob(b"xyz").text("é")

    data = writer.vector(np.array([1, 2**32 - 2], dtype=np.uint32)).positions([3, 256]).done()

    assert data.hex(" ") == (
        "52 53 02 25 "
        "02 01 "
        "61 62 "
        "03 00 00 00 78 79 7a "
        "02 00 c3 a9 "
        "02 00 00 00 01 00 00 00 fe ff ff ff "
        "02 00 03 00 00 01"
    )


def test_a_packed_vector_has_its_number_of_elements_in_front() -> None:
    """A vector of b bits is a count and so many times b bits, rounded up to bytes."""
    vector = np.array([1, 2**20 - 2, 0xABCDE], dtype=np.uint32)

    data = {bits: Writer(TYPE).vector(vector, bits=bits).done()[4:].hex(" ") for bits in (16, 20, 24)}

    assert data == {
        16: "03 00 00 00 01 00 fe ff de bc",
        20: "03 00 00 00 01 00 e0 ff ff de bc 0a",
        24: "03 00 00 00 01 00 00 fe ff 0f de bc 0a",
    }


def test_message_types_keep_their_numbers() -> None:
    """The registry is part of the format: a number never changes its meaning."""
    numbers = {kind.name: int(kind) for kind in MessageType}

    assert numbers.items() >= {
        ("SESSION", 1),
        ("PLAIN_INPUT", 16),
        ("KEY_ADVERTISEMENT", 32),
        ("KEY_DIRECTORY", 33),
        ("SHARE_BUNDLE", 34),
        ("SEALED_SHARES", 35),
        ("SHARE_DELIVERY", 36),
        ("MASKED_INPUT", 37),
        ("SURVIVOR_LIST", 38),
        ("REVEALED_SHARES", 39),
        ("SIGNED_SURVIVORS", 40),
        ("SURVIVOR_SIGNATURES", 41),
        ("ROSTER", 48),
    }
    assert all(0 < number < 256 for number in numbers.values())


@PROPERTY
@given(contents=CONTENTS)
def test_what_is_written_is_read(contents: list[tuple[str, Any]]) -> None:
    """Any fields in any order come back."""
    kinds = [kind for kind, _ in contents]

    values = read(write(contents), kinds)

    assert values == [value for _, value in contents]


@PROPERTY
@given(contents=CONTENTS)
def test_every_truncation_is_refused(contents: list[tuple[str, Any]]) -> None:
    """A message that lacks bytes at its end raises WireError, wherever it is cut."""
    data, kinds = write(contents), [kind for kind, _ in contents]

    for size in range(len(data)):
        with pytest.raises(WireError):
            read(data[:size], kinds)


@PROPERTY
@given(contents=CONTENTS, more=st.binary(min_size=1, max_size=4))
def test_trailing_bytes_are_refused(contents: list[tuple[str, Any]], more: bytes) -> None:
    """A message with bytes after its last field raises WireError."""
    data, kinds = write(contents), [kind for kind, _ in contents]

    with pytest.raises(WireError):
        read(data + more, kinds)


@PROPERTY
@given(data=st.binary(max_size=60), kinds=st.lists(st.sampled_from(sorted(FIELDS)), max_size=4))
def test_random_fields_are_canonical_or_refused(data: bytes, kinds: list[str]) -> None:
    """Whatever decodes without WireError encodes to the same bytes again."""
    try:
        values = read(HEADER + data, kinds)
    except WireError:
        values = None

    assert values is None or write(list(zip(kinds, values, strict=True))) == HEADER + data


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"R",
        b"RS",
        b"RS\x02",
        b"SR\x01\x01",
        b"RS\x00\x01",
        b"RS\x01\x01",
        b"RS\x03\x01",
        b"RS\x02\x02",
        b"RS\x02\x00",
    ],
)
def test_another_header_is_refused(header: bytes) -> None:
    """Wrong magic, version or type, and a header cut short, raise WireError."""
    with pytest.raises(WireError):
        Reader(header, TYPE)


@pytest.mark.parametrize("positions", [[1, 1], [2, 1], [0, 5, 4], [3, 4, 4]])
def test_sets_out_of_order_are_refused(positions: list[int]) -> None:
    """A set with a repeated or unsorted element raises WireError."""
    data = Writer(TYPE).positions(positions).done()

    with pytest.raises(WireError):
        Reader(data, TYPE).positions()


@pytest.mark.parametrize("values", [[(1, 2), (1, 2)], [(1, 3), (1, 2)], [(2, 0), (1, 9)]])
def test_pairs_out_of_order_are_refused(values: list[tuple[int, int]]) -> None:
    """A set of pairs is held to the same order."""
    reader = Reader(HEADER, TYPE)

    with pytest.raises(WireError):
        reader.check_increasing(values)


@pytest.mark.parametrize("text", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80"])
def test_text_that_is_not_utf_8_is_refused(text: bytes) -> None:
    """Malformed UTF-8, surrogates and overlong forms raise WireError."""
    data = HEADER + bytes([len(text), 0]) + text

    with pytest.raises(WireError):
        Reader(data, TYPE).text()


@pytest.mark.parametrize(
    "kind", ["blob", *(kind for kind in FIELDS if "vector" in kind), "text", "positions"]
)
def test_a_length_beyond_the_bytes_at_hand_is_refused(kind: str) -> None:
    """A field that claims the largest length raises WireError instead of allocating it."""
    data = HEADER + b"\xff\xff\xff\xff" + bytes(16)

    with pytest.raises(WireError):
        read(data, [kind])


@pytest.mark.parametrize("size", [0, 4, 6])
def test_a_fixed_field_is_written_at_its_size_only(size: int) -> None:
    """Bytes of another number than the format's raise WireError at the writer."""
    writer = Writer(TYPE)

    with pytest.raises(WireError):
        writer.fixed(bytes(size), 5)


def test_a_decoded_vector_is_read_only() -> None:
    """A vector is a view of the message and cannot be written to by accident."""
    vector = Reader(Writer(TYPE).vector(np.arange(3, dtype=np.uint32)).done(), TYPE).vector()

    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 1


@pytest.mark.parametrize("bits", [-8, 0, 1, 8, 12, 31, 33, 64, 255])
def test_a_vector_of_an_unknown_ring_is_refused(bits: int) -> None:
    """A number of bits that no ring has, which may come from the message itself, raises WireError."""
    data = Writer(TYPE).vector(np.arange(3, dtype=np.uint32)).done()

    with pytest.raises(WireError, match=f"bits={bits}"):
        Reader(data, TYPE).vector(bits=bits)


def test_padding_in_a_vector_is_refused() -> None:
    """Half a byte that is not zero behind an odd vector of 20 bits raises WireError: there is one encoding only."""
    data = bytearray(Writer(TYPE).vector(np.arange(3, dtype=np.uint32), bits=20).done())
    data[-1] |= 0x10

    with pytest.raises(WireError, match="padding"):
        Reader(bytes(data), TYPE).vector(bits=20)


@pytest.mark.parametrize("left", [0, 1, 2, 63, 64, 65])
def test_the_rest_has_one_of_its_sizes(left: int) -> None:
    """What is left of a message is taken whole if its size is allowed, and raises WireError otherwise."""
    data = bytes(range(left))
    reader = Reader(HEADER + b"\x05\x00" + data, TYPE)
    reader.unsigned(2)

    if left in {0, 64}:
        assert reader.rest((0, 64)) == data
        reader.end()
    else:
        with pytest.raises(WireError, match=f"{left} last bytes"):
            reader.rest((0, 64))


def test_the_rest_is_taken_once() -> None:
    """After the rest nothing is left, not even for another rest."""
    reader = Reader(HEADER + b"abc", TYPE)

    taken = [reader.rest((0, 3)), reader.rest((0, 3))]

    assert taken == [b"abc", b""]


def test_errors_name_the_message() -> None:
    """A WireError says which message was being decoded."""
    with pytest.raises(WireError, match="survivor_list"):
        Reader(b"RS\x02\x01", MessageType.SURVIVOR_LIST)
    with pytest.raises(WireError, match="session"):
        Reader(HEADER + b"a", TYPE).rest((0,))
