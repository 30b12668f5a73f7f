"""Labelled key derivation is HKDF-SHA256 (RFC 5869) over an unambiguous encoding of label and context."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.primitives.kdf import derive_key
from protocols.primitives.secret import Secret
from tests.contracts.sessions import PROPERTY

KEY = Secret(bytes(range(32)))
LABELS = st.text(max_size=12)
CONTEXTS = st.lists(st.binary(max_size=6), max_size=4).map(tuple)


def hkdf(salt: bytes, key_material: bytes, info: bytes, size: int) -> bytes:
    """HKDF-SHA256 written from RFC 5869, sections 2.2 and 2.3, with `hmac` alone."""
    extracted = hmac.digest(salt or bytes(hashlib.sha256().digest_size), key_material, "sha256")
    block, output, counter = b"", b"", 0
    while len(output) < size:
        counter += 1
        block = hmac.digest(extracted, block + info + bytes([counter]), "sha256")
        output += block
    return output[:size]


def encode(label: str, context: tuple[bytes, ...]) -> bytes:
    """The info string: each part preceded by two bytes of length, the first naming package, version and purpose."""
    parts = [b"rbla-secure v1 " + label.encode("utf-8"), *context]
    return b"".join(bytes([len(part) // 256, len(part) % 256]) + part for part in parts)


def test_the_oracle_gives_the_values_of_rfc_5869() -> None:
    """The test's own HKDF passes test cases 1 and 3 of RFC 5869 appendix A."""
    first = hkdf(bytes(range(13)), b"\x0b" * 22, bytes(range(0xF0, 0xFA)), 42)
    third = hkdf(b"", b"\x0b" * 22, b"", 42)

    assert first.hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
    assert third.hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


@PROPERTY
@given(secret=st.binary(min_size=1, max_size=64), label=LABELS, context=CONTEXTS, size=st.integers(1, 100))
def test_keys_are_hkdf_of_label_and_context(
    secret: bytes, label: str, context: tuple[bytes, ...], size: int
) -> None:
    """A derived key equals an independent HKDF over an independent encoding."""
    key = derive_key(Secret(secret), label=label, context=context, size=size)

    assert key.hex() == hkdf(b"", secret, encode(label, context), size).hex()
    assert isinstance(key, Secret)


@PROPERTY
@given(one=st.tuples(LABELS, CONTEXTS), other=st.tuples(LABELS, CONTEXTS))
def test_different_purposes_get_different_keys(
    one: tuple[str, tuple[bytes, ...]], other: tuple[str, tuple[bytes, ...]]
) -> None:
    """Two keys are equal exactly if label and context are."""
    first, second = (
        derive_key(KEY, label=label, context=context, size=16) for label, context in (one, other)
    )

    assert (first == second) == (one == other)


@pytest.mark.parametrize(
    ("label", "context"),
    [
        ("ab", (b"c", b"d")),
        ("a", (b"bc", b"d")),
        ("a", (b"b", b"cd")),
        ("a", (b"b", b"c", b"d")),
        ("a", (b"bcd",)),
        ("a", (b"bcd", b"")),
        ("a", (b"", b"bcd")),
        ("abcd", ()),
    ],
)
def test_where_a_part_ends_matters(label: str, context: tuple[bytes, ...]) -> None:
    """Moving a border between label and context, or between parts, changes the key."""
    reference = derive_key(KEY, label="a", context=(b"b", b"c", b"d", b""), size=16)

    moved = derive_key(KEY, label=label, context=context, size=16)

    assert moved != reference


def test_every_bit_of_the_secret_matters() -> None:
    """Flipping any bit of the secret changes the key: nothing is folded or cut off."""
    keys = {derive_key(KEY, label="a", context=(), size=16)}

    for bit in range(8 * len(KEY)):
        flipped = bytes(byte ^ (1 << bit % 8) * (place == bit // 8) for place, byte in enumerate(KEY))
        keys.add(derive_key(Secret(flipped), label="a", context=(), size=16))

    assert len(keys) == 1 + 8 * len(KEY)
