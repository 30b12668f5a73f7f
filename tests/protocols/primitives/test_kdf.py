"""Labelled key derivation is HKDF-SHA256 (RFC 5869) over an unambiguous encoding of label and context."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.primitives.kdf import derive_key, hkdf_expand, purpose
from protocols.primitives.secret import Secret
from tests.contracts.sessions import PROPERTY

KEY = Secret(bytes(range(32)))
LABELS = st.text(max_size=12)
CONTEXTS = st.lists(st.binary(max_size=6), max_size=4).map(tuple)


def hkdf(salt: bytes, key_material: bytes, info: bytes, size: int) -> bytes:
    """HKDF-SHA256 written from RFC 5869, sections 2.2 and 2.3, with `hmac` alone."""
    extracted = hmac.digest(salt or bytes(hashlib.sha256().digest_size), key_material, "sha256")
    return expand(extracted, info, size)


def expand(key: bytes, info: bytes, size: int) -> bytes:
    """HKDF-Expand alone, from RFC 5869, section 2.3."""
    block, output, counter = b"", b"", 0
    while len(output) < size:
        counter += 1
        block = hmac.digest(key, block + info + bytes([counter]), "sha256")
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

    assert bytes(key).hex() == hkdf(b"", secret, encode(label, context), size).hex()
    assert isinstance(key, Secret)


# The pseudo-random keys, infos and output keys of RFC 5869, appendix A.1, A.2 and A.3.
EXPANSIONS = [
    (
        "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
        "f0f1f2f3f4f5f6f7f8f9",
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
        bytes(range(0xB0, 0x100)).hex(),
        (
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c"
            "59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71"
            "cc30c58179ec3e87c14c01d5c1f3434f1d87"
        ),
    ),
    (
        "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
        "",
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
]


@pytest.mark.parametrize(("key", "info", "output"), EXPANSIONS)
def test_expansion_alone_gives_the_values_of_rfc_5869(key: str, info: str, output: str) -> None:
    """From each published pseudo-random key and info, the published output, at our oracle and at our wrapper."""
    secret, bound, size = bytes.fromhex(key), bytes.fromhex(info), len(output) // 2

    expanded = hkdf_expand(Secret(secret), info=bound, size=size)

    assert bytes(expanded).hex() == expand(secret, bound, size).hex() == output
    assert isinstance(expanded, Secret)


@PROPERTY
@given(secret=st.binary(min_size=32, max_size=64), label=LABELS, context=CONTEXTS, size=st.integers(1, 100))
def test_expanded_keys_are_of_label_and_context(
    secret: bytes, label: str, context: tuple[bytes, ...], size: int
) -> None:
    """A purpose is encoded the same way whether or not the secret is extracted first, and the two keys differ."""
    key = hkdf_expand(Secret(secret), info=purpose(label, *context), size=size)

    assert bytes(key).hex() == expand(secret, encode(label, context), size).hex()
    if size >= 16:
        assert key != derive_key(Secret(secret), label=label, context=context, size=size)


@pytest.mark.parametrize("size", [0, 16, 31])
def test_what_is_too_short_to_be_uniform_is_not_expanded_alone(size: int) -> None:
    """RFC 5869 asks for a key of the hash's size or more; a shorter one raises ValueError."""
    with pytest.raises(ValueError, match=f"a key of {size} bytes must have 32"):
        hkdf_expand(Secret(bytes(size)), info=b"", size=16)


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
        flipped = bytes(byte ^ (1 << bit % 8) * (place == bit // 8) for place, byte in enumerate(bytes(KEY)))
        keys.add(derive_key(Secret(flipped), label="a", context=(), size=16))

    assert len(keys) == 1 + 8 * len(KEY)
