"""Every message of the masking protocol has one encoding, and decoding refuses all other bytes by name."""

import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import WireError
from protocols.masking.commitments import Commitments
from protocols.masking.messages import (
    KeyAdvertisement,
    KeyDirectory,
    MaskedInput,
    RevealedShares,
    SealedShares,
    SegmentShares,
    ShareBundle,
    ShareDelivery,
    SignedSurvivors,
    SurvivorList,
    SurvivorSignatures,
    bundle_commitments_size,
    sealed_bundle_size,
)
from protocols.primitives.sealed import seal
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


NONCES = st.binary(min_size=16, max_size=16)
SIGNATURES = st.binary(min_size=64, max_size=64)
OPTIONAL = st.one_of(st.just(b""), SIGNATURES)
MASK_KEYS = st.dictionaries(U16, KEYS, max_size=3)
# Of one size, as they travel in one piece.
ALIKE = st.integers(0, 20).flatmap(
    lambda size: st.dictionaries(U16, st.binary(min_size=size, max_size=size), max_size=3)
)
COMMITMENTS = st.dictionaries(U16, st.lists(NONCES, max_size=3).map(tuple), max_size=3)
PAIRS = st.dictionaries(st.tuples(U16, U16), SHARES, max_size=3)
SEGMENT_SHARES = st.builds(
    SegmentShares, mask_key=SHARES, self_mask=SHARES, extra=st.lists(SHARES, max_size=2).map(tuple)
)
RINGS = st.sampled_from([16, 20, 24, 32])


@st.composite
def directories(draw: st.DrawFn) -> KeyDirectory:
    """Directories whose entries carry the directory's context and nonces, as they do on the wire."""
    context = draw(CONTEXTS)
    nonces = draw(st.dictionaries(U16, NONCES, max_size=5))
    listed = sorted(draw(st.sets(st.sampled_from(sorted(nonces))))) if nonces else []
    entries = [
        KeyAdvertisement(
            context=context,
            sender=sender,
            mask_keys=draw(MASK_KEYS),
            sealing_key=draw(KEYS),
            nonce=nonces[sender],
            commitments=draw(COMMITMENTS),
            signature=draw(OPTIONAL),
        )
        for sender in listed
    ]
    return KeyDirectory(context=context, nonces=nonces, advertisements=tuple(entries))


MESSAGES: dict[type[Any], st.SearchStrategy[Any]] = {
    KeyAdvertisement: st.builds(
        KeyAdvertisement,
        context=CONTEXTS,
        sender=U16,
        mask_keys=MASK_KEYS,
        sealing_key=KEYS,
        nonce=NONCES,
        commitments=COMMITMENTS,
        signature=OPTIONAL,
    ),
    KeyDirectory: directories(),
    ShareBundle: st.builds(ShareBundle, segments=st.dictionaries(U16, SEGMENT_SHARES, max_size=3)),
    SealedShares: st.builds(SealedShares, context=CONTEXTS, sender=U16, sealed=BLOBS, commitments=ALIKE),
    ShareDelivery: st.builds(
        ShareDelivery,
        context=CONTEXTS,
        recipient=U16,
        participants=SETS,
        sealed=BLOBS,
        digests=ALIKE,
    ),
    MaskedInput: st.builds(
        MaskedInput,
        context=CONTEXTS,
        sender=U16,
        segments=st.dictionaries(U16, VECTORS, max_size=3),
        ring_bits=RINGS,
        disputed=SETS,
        view_signature=OPTIONAL,
    ),
    SurvivorList: st.builds(
        SurvivorList,
        context=CONTEXTS,
        survivors=SETS,
        dropped=SETS,
        view_signatures=st.dictionaries(U16, SIGNATURES, max_size=3),
    ),
    SignedSurvivors: st.builds(SignedSurvivors, context=CONTEXTS, sender=U16, signature=SIGNATURES),
    SurvivorSignatures: st.builds(
        SurvivorSignatures, context=CONTEXTS, signatures=st.dictionaries(U16, SIGNATURES, max_size=3)
    ),
    RevealedShares: st.builds(
        RevealedShares,
        context=CONTEXTS,
        sender=U16,
        mask_key_shares=PAIRS,
        self_mask_shares=PAIRS,
        extra_shares=st.dictionaries(st.tuples(U16, U16, U16), SHARES, max_size=3),
    ),
}
# Those that hold no set.
FLAT = {SignedSurvivors}
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
    return b"RS\x02" + bytes([kind]) + CONTEXT + (b"" if sender is None else u16(sender))


def blob(data: bytes) -> bytes:
    """Bytes with their number in front."""
    return u32(len(data)) + data


def entry(sender: int, *segments: int, signature: bytes = b"") -> bytes:
    """An advertisement with a mask key for each of these segments, and one commitment more than its number."""
    keys = b"".join(bytes([number + 100]) * 32 for number in segments)
    made = b"".join(u16(number + 1) + b"c" * 16 * (number + 1) for number in segments)
    keys = places(*segments) + keys + places(*segments) + made
    return begin(32, sender=sender) + b"s" * 32 + b"n" * 16 + keys + signature


def sets_of(first: Sequence[int]) -> dict[type[Any], list[bytes]]:
    """Messages with two-element sets in the order given, written by hand in their documented layout."""
    a, b = first
    blobs = u32(1) + b"x" + u32(2) + b"yz"
    vectors = u32(1) + u32(5) + u32(0)
    digests = u32(64) + b"d" * 32 + b"e" * 32
    signatures = b"\x0a" * 64 + b"\x0b" * 64
    nonces = b"\x01" * 16 + b"\x02" * 16
    bare = ONE + TWO + b"\x00"
    return {
        KeyAdvertisement: [entry(7, a, b), entry(7, a, b, signature=b"S" * 64)],
        KeyDirectory: [
            begin(33, sender=None) + places(a, b) + nonces + u16(0),
            begin(33, sender=None) + places(1, 2) + nonces + u16(2) + blob(entry(a, 0)) + blob(entry(b)),
        ],
        ShareBundle: [b"RS\x02\x22" + places(a, b) + bare + ONE + TWO + b"\x02" + TWO + ONE],
        SealedShares: [
            begin(35) + places() + places(a, b) + u32(6) + b"onetwo",
            begin(35) + places(a, b) + blobs + places(1, 2) + u32(6) + b"onetwo",
        ],
        ShareDelivery: [
            begin(36) + places(a, b) + places() + places() + u32(0),
            begin(36) + places(1, 2, 7) + places() + places(a, b) + digests,
            begin(36) + places(1, 2, 7) + places(a, b) + blobs + places(1, 2) + digests,
        ],
        MaskedInput: [
            begin(37) + b"\x20" + places(a, b) + vectors + places(3, 4) + b"S" * 64,
            begin(37)
            + b"\x14"
            + places(a, b)
            + u32(3)
            + b"\x01\x20\x00\x03\x00\xf0\xff\x0f"
            + u32(0)
            + places(),
            begin(37) + b"\x20" + places() + places(a, b),
            begin(37) + b"\x20" + places(a, b) + vectors + places(),
        ],
        SurvivorList: [
            begin(38, sender=None) + places(a, b) + places() + places(),
            begin(38, sender=None) + places(3) + places() + places(a, b) + signatures,
            begin(38, sender=None) + places(3) + places(a, b) + places(),
        ],
        SurvivorSignatures: [begin(41, sender=None) + places(a, b) + signatures],
        RevealedShares: [
            begin(39) + u32(2) + u16(a, 0) + ONE + u16(b, 0) + TWO + u32(0) + u32(0),
            begin(39) + u32(2) + u16(5, a) + ONE + u16(5, b) + TWO + u32(0) + u32(0),
            begin(39) + u32(0) + u32(2) + u16(a, 0) + ONE + u16(b, 0) + TWO + u32(0),
            begin(39) + u32(0) + u32(0) + u32(2) + u16(5, 3, a) + ONE + u16(5, 3, b) + TWO,
            begin(39) + u32(0) + u32(0) + u32(2) + u16(5, a, 0) + ONE + u16(5, b, 0) + TWO,
            begin(39) + u32(0) + u32(2) + u16(5, a) + ONE + u16(5, b) + TWO + u32(1) + u16(5, 1, 3) + TWO,
        ],
    }


def sample(kind: type[Any]) -> bytes:
    """Bytes of a message of each kind with something in every field that it must have."""
    if kind is SignedSurvivors:
        return begin(40) + b"S" * 64
    if kind is KeyAdvertisement:
        return entry(7, 1, 2)
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
        for field in ("context", "sender", "ring_bits", "disputed", "view_signature"):
            assert getattr(decoded, field) == getattr(message, field)
        assert {i: v.tolist() for i, v in decoded.segments.items()} == {
            i: [word % 2**message.ring_bits for word in v.tolist()] for i, v in message.segments.items()
        }
    else:
        assert decoded == message


@EACH
def test_the_layout_is_the_documented_one(kind: type[Any]) -> None:
    """Bytes written by hand in the documented layout decode and encode to themselves."""
    written = [sample(kind), *sets_of((1, 2)).get(kind, [])]

    encoded = [kind.from_bytes(data).to_bytes() for data in written]

    assert encoded == written


def test_fields_land_in_their_places() -> None:
    """The hand-written bytes decode to the values they were written from."""
    written = sets_of((1, 2))
    unsigned, signed = map(KeyAdvertisement.from_bytes, written[KeyAdvertisement])
    directory = KeyDirectory.from_bytes(sample(KeyDirectory))
    bundle = ShareBundle.from_bytes(Secret(sample(ShareBundle)))
    shares = SealedShares.from_bytes(sample(SealedShares))
    delivery = ShareDelivery.from_bytes(sample(ShareDelivery))
    uploads = list(map(MaskedInput.from_bytes, written[MaskedInput]))
    survivors = SurvivorList.from_bytes(sample(SurvivorList))
    seen = SurvivorList.from_bytes(written[SurvivorList][1])
    revealed = RevealedShares.from_bytes(sample(RevealedShares))
    recovered = RevealedShares.from_bytes(written[RevealedShares][0])

    keys = {1: b"e" * 32, 2: b"f" * 32}
    assert unsigned == KeyAdvertisement(
        context=CONTEXT,
        sender=7,
        mask_keys=keys,
        sealing_key=b"s" * 32,
        nonce=b"n" * 16,
        commitments={1: (b"c" * 16,) * 2, 2: (b"c" * 16,) * 3},
    )
    assert signed == replace(unsigned, signature=b"S" * 64)
    assert directory.nonces == {1: b"\x01" * 16, 2: b"\x02" * 16}
    assert [(e.context, e.sender, e.mask_keys) for e in directory.advertisements] == [
        (CONTEXT, 1, {0: b"d" * 32}),
        (CONTEXT, 2, {}),
    ]
    assert bundle.segments == {
        1: SegmentShares(mask_key=Secret(ONE), self_mask=Secret(TWO)),
        2: SegmentShares(mask_key=Secret(ONE), self_mask=Secret(TWO), extra=(Secret(TWO), Secret(ONE))),
    }
    assert (delivery.recipient, delivery.participants) == (7, (1, 2, 7))
    assert delivery.sealed == shares.sealed == {1: b"x", 2: b"yz"}
    assert shares.commitments == {1: b"one", 2: b"two"}
    assert delivery.digests == {1: b"d" * 32, 2: b"e" * 32}
    assert [{index: v.tolist() for index, v in upload.segments.items()} for upload in uploads] == [
        {1: [5], 2: []},
        {1: [0x02001, 0x00030, 0xFFFF0], 2: []},
        {},
        {1: [5], 2: []},
    ]
    assert [(u.ring_bits, u.disputed, u.view_signature) for u in uploads] == [
        (32, (3, 4), b"S" * 64),
        (20, (), b""),
        (32, (1, 2), b""),
        (32, (), b""),
    ]
    assert (survivors.survivors, survivors.dropped, survivors.view_signatures) == ((3,), (1, 2), {})
    assert (seen.survivors, seen.dropped) == ((3,), ())
    assert seen.view_signatures == {1: b"\x0a" * 64, 2: b"\x0b" * 64}
    assert (revealed.mask_key_shares, revealed.self_mask_shares) == ({}, {(5, 1): ONE, (5, 2): TWO})
    assert revealed.extra_shares == {(5, 1, 3): TWO}
    assert (recovered.mask_key_shares, recovered.self_mask_shares) == ({(1, 0): ONE, (2, 0): TWO}, {})


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
@pytest.mark.parametrize("kind", [kind for kind in MESSAGES if kind not in FLAT], ids=lambda k: k.__name__)
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


@pytest.mark.parametrize("kind", [KeyAdvertisement, MaskedInput], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("size", [1, 32, 63, 65, 128])
def test_a_trailing_signature_is_whole_or_missing(kind: type[Any], size: int) -> None:
    """Where a message may end in a signature, it ends in none or in 64 bytes."""
    with pytest.raises(WireError):
        kind.from_bytes(sample(kind) + bytes(size))

    assert kind.from_bytes(sample(kind) + bytes(64)).to_bytes() == sample(kind) + bytes(64)


def test_the_signed_part_is_everything_but_the_signature() -> None:
    """What a client signs is the advertisement as it stands on the wire without its signature."""
    unsigned, signed = map(KeyAdvertisement.from_bytes, sets_of((1, 2))[KeyAdvertisement])

    assert signed.signed_part() == unsigned.signed_part() == unsigned.to_bytes()
    assert signed.to_bytes() == signed.signed_part() + b"S" * 64


@pytest.mark.parametrize("bits", [0, 8, 17, 33, 64])
def test_an_upload_in_an_unknown_ring_is_refused(bits: int) -> None:
    """An upload that claims another number of bits than the format knows raises WireError."""
    data = bytearray(sample(MaskedInput))
    data[38] = bits

    with pytest.raises(WireError, match=f"bits={bits}"):
        MaskedInput.from_bytes(bytes(data))


@pytest.mark.parametrize(("bits", "size"), [(16, 10), (20, 13), (24, 15), (32, 20)])
def test_an_upload_is_packed(bits: int, size: int) -> None:
    """Five elements take so many bytes behind header, context, sender, ring, segment and count."""
    message = MaskedInput(
        context=CONTEXT, sender=1, segments={0: np.ones(5, dtype=np.uint32)}, ring_bits=bits
    )

    assert len(message.to_bytes()) == 4 + 32 + 2 + 1 + (2 + 2) + 4 + size + 2


@pytest.mark.parametrize("extra", [(), (0,), (0, 0), (3,), (0, 2, 255)])
def test_the_size_of_a_sealed_bundle_is_known(extra: tuple[int, ...]) -> None:
    """The sizes that the server asks of a bundle and its commitments are those of one with so many extra secrets."""
    share = Secret(bytes(33))
    shares = {
        index: SegmentShares(mask_key=share, self_mask=share, extra=(share,) * number)
        for index, number in enumerate(extra)
    }

    sealed = seal(Secret(bytes(16)), ShareBundle(segments=shares).to_bytes(), context=CONTEXT)

    made = Commitments(CONTEXT).bundle(ShareBundle(segments=shares), owner=1, holder=2)
    assert sealed_bundle_size(extra) == len(sealed)
    assert bundle_commitments_size(extra) == len(made)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_keys_of_another_size_are_not_sent(size: int) -> None:
    """A key or context that has not 32 bytes, or a nonce that has not 16, raises WireError at the sender."""
    fields: dict[str, Any] = {
        "context": CONTEXT,
        "mask_keys": {0: bytes(32)},
        "sealing_key": bytes(32),
        "nonce": bytes(16),
        "commitments": {0: (bytes(16),)},
    }
    for field, value in [
        ("commitments", {0: (bytes(16), bytes(size))}),
        ("context", bytes(size)),
        ("mask_keys", {0: bytes(size)}),
        ("mask_keys", {0: bytes(32), 1: bytes(size)}),
        ("sealing_key", bytes(size)),
        ("nonce", bytes(size)),
    ]:
        message = KeyAdvertisement(sender=1, **{**fields, field: value})

        with pytest.raises(WireError):
            message.to_bytes()


def test_decoded_shares_are_secrets() -> None:
    """Shares keep the type that does not print through encoding and decoding."""
    bundle = ShareBundle.from_bytes(Secret(sample(ShareBundle)))
    written = sets_of((1, 2))[RevealedShares]
    recovered, revealed = (RevealedShares.from_bytes(written[place]) for place in (0, -1))

    shares = [*recovered.mask_key_shares.values(), *revealed.self_mask_shares.values()]
    shares += revealed.extra_shares.values()
    for part in bundle.segments.values():
        shares += [part.mask_key, part.self_mask, *part.extra]

    assert len(shares) == 11
    assert all(type(share) is Secret for share in shares)
    assert type(bundle.to_bytes()) is Secret


def test_commitments_of_different_sizes_do_not_travel() -> None:
    """They are sent in one piece, of which each keeper has the same share: others raise WireError, sent or received."""
    message = SealedShares(context=CONTEXT, sender=1, sealed={}, commitments={1: bytes(16), 2: bytes(17)})

    with pytest.raises(WireError, match="same size"):
        message.to_bytes()
    for places_and_blob in (places(1, 2) + blob(bytes(33)), places() + blob(b"x")):
        with pytest.raises(WireError, match="of the same size"):
            SealedShares.from_bytes(begin(35) + places() + places_and_blob)
