"""Every message of the masking protocol has one encoding, and decoding refuses all other bytes by name."""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import WireError
from protocols.masking.messages import (
    KeyAdvertisement,
    KeyDirectory,
    MaskedInput,
    RevealedShares,
    SealedShares,
    ShareBundle,
    ShareDelivery,
    SurvivorList,
)
from protocols.primitives.secret import Secret
from tests.contracts.sessions import PROPERTY

U16 = st.integers(0, 2**16 - 1)
KEYS = st.binary(min_size=32, max_size=32)
CONTEXTS = KEYS
SHARES = st.binary(min_size=33, max_size=33).map(Secret)
BLOBS = st.dictionaries(U16, st.binary(max_size=20), max_size=3)
SETS = st.sets(U16, max_size=5).map(lambda values: tuple(sorted(values)))
VECTORS = st.lists(st.integers(0, 2**32 - 1), max_size=5).map(
    lambda values: np.array(values, dtype=np.uint32)
)


@st.composite
def directories(draw: st.DrawFn) -> KeyDirectory:
    """Directories whose entries carry the directory's context, as they do on the wire."""
    context = draw(CONTEXTS)
    entries = [
        KeyAdvertisement(context=context, sender=sender, mask_key=draw(KEYS), sealing_key=draw(KEYS))
        for sender in draw(SETS)
    ]
    return KeyDirectory(context=context, advertisements=tuple(entries))


MESSAGES: dict[type[Any], st.SearchStrategy[Any]] = {
    KeyAdvertisement: st.builds(
        KeyAdvertisement, context=CONTEXTS, sender=U16, mask_key=KEYS, sealing_key=KEYS
    ),
    KeyDirectory: directories(),
    ShareBundle: st.builds(
        ShareBundle, mask_key_share=SHARES, self_mask_shares=st.dictionaries(U16, SHARES, max_size=3)
    ),
    SealedShares: st.builds(SealedShares, context=CONTEXTS, sender=U16, sealed=BLOBS),
    ShareDelivery: st.builds(ShareDelivery, context=CONTEXTS, recipient=U16, sealed=BLOBS),
    MaskedInput: st.builds(
        MaskedInput, context=CONTEXTS, sender=U16, segments=st.dictionaries(U16, VECTORS, max_size=3)
    ),
    SurvivorList: st.builds(SurvivorList, context=CONTEXTS, survivors=SETS, dropped=SETS),
    RevealedShares: st.builds(
        RevealedShares,
        context=CONTEXTS,
        sender=U16,
        mask_key_shares=st.dictionaries(U16, SHARES, max_size=3),
        self_mask_shares=st.dictionaries(st.tuples(U16, U16), SHARES, max_size=3),
    ),
}
EACH = pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
CONTEXT = bytes(range(32))
ONE, TWO = b"\x01" * 33, b"\x02" * 33


def u16(*numbers: int) -> bytes:
    """Little-endian 16-bit numbers."""
    return struct.pack(f"<{len(numbers)}H", *numbers)


def u32(number: int) -> bytes:
    """One little-endian 32-bit number."""
    return struct.pack("<I", number)


def places(*positions: int) -> bytes:
    """A list of positions, in the order given."""
    return u16(len(positions), *positions)


def begin(kind: int, *, sender: int | None = 7) -> bytes:
    """Header, context and sender."""
    return b"RS\x01" + bytes([kind]) + CONTEXT + (b"" if sender is None else u16(sender))


def entry(sender: int) -> bytes:
    """A directory entry."""
    return u16(sender) + bytes([sender]) * 32 + bytes([sender + 100]) * 32


def sets_of(first: Sequence[int]) -> dict[type[Any], list[bytes]]:
    """Messages with two-element sets in the order given, written by hand in their documented layout."""
    a, b = first
    blobs = u32(1) + b"x" + u32(2) + b"yz"
    vectors = u32(1) + u32(5) + u32(0)
    return {
        KeyDirectory: [begin(33, sender=None) + u16(2) + entry(a) + entry(b)],
        ShareBundle: [b"RS\x01\x22" + ONE + places(a, b) + ONE + TWO],
        SealedShares: [begin(35) + places(a, b) + blobs],
        ShareDelivery: [begin(36) + places(a, b) + blobs],
        MaskedInput: [begin(37) + places(a, b) + vectors],
        SurvivorList: [
            begin(38, sender=None) + places(a, b) + places(),
            begin(38, sender=None) + places(3) + places(a, b),
        ],
        RevealedShares: [
            begin(39) + places(a, b) + ONE + TWO + u32(0),
            begin(39) + places() + u32(2) + u16(a, 0) + ONE + u16(b, 0) + TWO,
            begin(39) + places() + u32(2) + u16(5, a) + ONE + u16(5, b) + TWO,
        ],
    }


def sample(kind: type[Any]) -> bytes:
    """Bytes of a message of each kind with something in every field."""
    if kind is KeyAdvertisement:
        return begin(32) + b"m" * 32 + b"s" * 32
    return sets_of((1, 2))[kind][-1]


@EACH
@PROPERTY
@given(data=st.data())
def test_what_is_encoded_decodes_to_the_same(kind: type[Any], data: st.DataObject) -> None:
    """Decoding the bytes of any message gives its fields back, and encoding those the same bytes."""
    message = data.draw(MESSAGES[kind])

    decoded = kind.from_bytes(message.to_bytes())

    assert decoded.to_bytes() == message.to_bytes()
    if kind is MaskedInput:
        assert (decoded.context, decoded.sender) == (message.context, message.sender)
        assert {i: v.tolist() for i, v in decoded.segments.items()} == {
            i: v.tolist() for i, v in message.segments.items()
        }
    else:
        assert decoded == message


@EACH
def test_the_layout_is_the_documented_one(kind: type[Any]) -> None:
    """Bytes written by hand in the documented layout decode and encode to themselves."""
    written = [sample(kind)] if kind is KeyAdvertisement else sets_of((1, 2))[kind]

    encoded = [kind.from_bytes(data).to_bytes() for data in written]

    assert encoded == written


def test_fields_land_in_their_places() -> None:
    """The hand-written bytes decode to the values they were written from."""
    advertisement = KeyAdvertisement.from_bytes(sample(KeyAdvertisement))
    directory = KeyDirectory.from_bytes(sample(KeyDirectory))
    delivery = ShareDelivery.from_bytes(sample(ShareDelivery))
    upload = MaskedInput.from_bytes(sample(MaskedInput))
    survivors = SurvivorList.from_bytes(sample(SurvivorList))
    revealed = RevealedShares.from_bytes(sample(RevealedShares))

    assert advertisement == KeyAdvertisement(
        context=CONTEXT, sender=7, mask_key=b"m" * 32, sealing_key=b"s" * 32
    )
    assert [(e.context, e.sender, e.mask_key[0], e.sealing_key[0]) for e in directory.advertisements] == [
        (CONTEXT, 1, 1, 101),
        (CONTEXT, 2, 2, 102),
    ]
    assert (delivery.recipient, delivery.sealed) == (7, {1: b"x", 2: b"yz"})
    assert {index: vector.tolist() for index, vector in upload.segments.items()} == {1: [5], 2: []}
    assert (survivors.survivors, survivors.dropped) == ((3,), (1, 2))
    assert revealed.self_mask_shares == {(5, 1): ONE, (5, 2): TWO}


@EACH
def test_every_truncation_is_refused(kind: type[Any]) -> None:
    """A message that is cut anywhere raises WireError."""
    data = sample(kind)

    for size in range(len(data)):
        with pytest.raises(WireError):
            kind.from_bytes(data[:size])


@EACH
def test_every_trailing_byte_is_refused(kind: type[Any]) -> None:
    """A message followed by any single byte raises WireError."""
    data = sample(kind)

    for value in range(256):
        with pytest.raises(WireError):
            kind.from_bytes(data + bytes([value]))


@pytest.mark.parametrize("order", [(2, 1), (1, 1)], ids=["unsorted", "duplicate"])
@pytest.mark.parametrize(
    "kind", [kind for kind in MESSAGES if kind is not KeyAdvertisement], ids=lambda k: k.__name__
)
def test_sets_out_of_order_are_refused(kind: type[Any], order: tuple[int, int]) -> None:
    """A set of a message with an unsorted or repeated element raises WireError."""
    for data in sets_of(order)[kind]:
        with pytest.raises(WireError):
            kind.from_bytes(data)


@EACH
def test_a_message_of_another_type_is_refused(kind: type[Any]) -> None:
    """The bytes of every other message raise WireError."""
    for other in MESSAGES:
        if other is not kind:
            with pytest.raises(WireError):
                kind.from_bytes(sample(other))


@EACH
@PROPERTY
@given(data=st.binary(max_size=200))
def test_random_bytes_raise_only_wire_errors(kind: type[Any], data: bytes) -> None:
    """Random bytes, bare or behind the right header, decode canonically or raise WireError and nothing else."""
    for message in (data, sample(kind)[:4] + data, sample(kind)[:36] + data):
        try:
            decoded = kind.from_bytes(message)
        except WireError:
            continue
        assert decoded.to_bytes() == message


@EACH
@PROPERTY
@given(data=st.data())
def test_mutated_messages_raise_only_wire_errors(kind: type[Any], data: st.DataObject) -> None:
    """A valid message with bytes changed, removed or inserted decodes canonically or raises WireError."""
    message = bytearray(data.draw(MESSAGES[kind]).to_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(message) - 1))
        message[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        if not message:
            break

    try:
        decoded = kind.from_bytes(bytes(message))
    except WireError:
        decoded = None

    assert decoded is None or decoded.to_bytes() == bytes(message)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_keys_of_another_size_are_not_sent(size: int) -> None:
    """A key or context that has not 32 bytes raises WireError at the sender."""
    for field in ("context", "mask_key", "sealing_key"):
        fields: dict[str, Any] = {"context": CONTEXT, "mask_key": bytes(32), "sealing_key": bytes(32)}
        message = KeyAdvertisement(sender=1, **{**fields, field: bytes(size)})

        with pytest.raises(WireError):
            message.to_bytes()


def test_decoded_shares_are_secrets() -> None:
    """Shares keep the type that does not print through encoding and decoding."""
    bundle = ShareBundle.from_bytes(Secret(sample(ShareBundle)))
    revealed = RevealedShares.from_bytes(sets_of((1, 2))[RevealedShares][0])

    shares = [bundle.mask_key_share, *bundle.self_mask_shares.values(), *revealed.mask_key_shares.values()]

    assert len(shares) == 5
    assert all(type(share) is Secret for share in shares)
    assert type(bundle.to_bytes()) is Secret
