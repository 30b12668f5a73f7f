"""Mask expansion is AES-128 in counter mode from zero, added or subtracted in place over any length."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given
from hypothesis import strategies as st

from protocols.primitives.prg import CHUNK_BYTES, UniformStream, add_stream, subtract_stream
from protocols.primitives.secret import Secret
from tests.contracts.sessions import PROPERTY

WORDS_PER_CHUNK = CHUNK_BYTES // 4
KEY = Secret(bytes(range(16)))
LENGTHS = sorted(
    {1, 2, 3, 4, 5, 31}
    | {chunks * WORDS_PER_CHUNK + offset for chunks in (1, 2) for offset in (-5, -1, 0, 1, 3)}
    | {3 * WORDS_PER_CHUNK + 17}
)


def keystream(key: bytes, size: int, *, counter: int = 0) -> bytes:
    """Counter mode built from single AES blocks: block i encrypts counter + i (NIST SP 800-38A, section 6.5)."""
    blocks = -(-size // 16)
    numbers = b"".join((counter + number).to_bytes(16, "big") for number in range(blocks))
    return Cipher(AES(key), ECB()).encryptor().update(numbers)[:size]  # noqa: S305 - single blocks are the point


def expand(key: bytes, length: int) -> list[int]:
    """The mask of so many ring elements: little-endian words of the key stream, in Python integers."""
    stream = keystream(key, 4 * length)
    return [int.from_bytes(stream[at : at + 4], "little") for at in range(0, len(stream), 4)]


def test_the_oracle_gives_the_values_of_sp_800_38a() -> None:
    """The test's own counter mode passes F.5.1 of NIST SP 800-38A (CTR-AES128.Encrypt)."""
    key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    counter = int("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", 16)
    plaintext = (
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )

    encrypted = int(plaintext, 16) ^ int.from_bytes(keystream(key, 64, counter=counter), "big")

    assert f"{encrypted:0128x}" == (
        "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"
        "5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee"
    )


def test_the_first_block_is_the_known_encryption_of_zero() -> None:
    """Under the zero key the stream begins with AES-128 of the zero block, read as little-endian words."""
    target = np.zeros(4, dtype=np.uint32)

    add_stream(target, Secret(bytes(16)))

    assert target.astype("<u4").tobytes().hex() == "66e94bd4ef8a2c3b884cfa59ca342b2e"


@pytest.mark.parametrize("length", LENGTHS)
def test_expansion_does_not_depend_on_chunks(length: int) -> None:
    """Adding to a vector of any length gives the words of one unchunked stream, modulo 2^32."""
    target = np.arange(length, dtype=np.uint32) * np.uint32(65537)
    expected = [
        (before + word) % 2**32 for before, word in zip(target.tolist(), expand(KEY, length), strict=True)
    ]

    add_stream(target, KEY)

    assert target.tolist() == expected


@pytest.mark.parametrize("length", LENGTHS)
def test_subtracting_takes_the_stream_away(length: int) -> None:
    """Subtracting from zero gives the negated words, modulo 2^32."""
    target = np.zeros(length, dtype=np.uint32)

    subtract_stream(target, KEY)

    assert target.tolist() == [-word % 2**32 for word in expand(KEY, length)]


@PROPERTY
@given(values=st.lists(st.integers(0, 2**32 - 1), max_size=40), key=st.binary(min_size=16, max_size=16))
def test_add_then_subtract_restores(values: list[int], key: bytes) -> None:
    """A mask that is added and removed leaves the vector as it was, in either order, empty vectors included."""
    target = np.array(values, dtype=np.uint32)

    add_stream(target, Secret(key))
    subtract_stream(target, Secret(key))
    subtract_stream(target, Secret(key))
    add_stream(target, Secret(key))

    assert target.tolist() == values


@pytest.mark.parametrize("length", [1, 7, WORDS_PER_CHUNK, WORDS_PER_CHUNK + 3])
def test_nothing_outside_the_target_is_touched(length: int) -> None:
    """Masking a window of a larger array leaves its neighbours alone."""
    whole = np.full(length + 64, 0xABCD, dtype=np.uint32)

    add_stream(whole[32 : 32 + length], KEY)

    assert whole[:32].tolist() == whole[-32:].tolist() == [0xABCD] * 32
    assert whole[32 : 32 + length].tolist() == [(0xABCD + word) % 2**32 for word in expand(KEY, length)]


def test_a_strided_target_is_masked_in_place() -> None:
    """A view that is not contiguous gets the same words as a vector."""
    whole = np.zeros(20, dtype=np.uint32)

    add_stream(whole[::2], KEY)

    assert whole[::2].tolist() == expand(KEY, 10)
    assert not whole[1::2].any()


def test_masks_reach_the_whole_ring() -> None:
    """Over 2^20 words every top byte occurs, and values above 2^32 - 2^13 and below 2^13 do."""
    target = np.zeros(2**20, dtype=np.uint32)

    add_stream(target, KEY)

    assert np.unique(target >> np.uint32(24)).tolist() == list(range(256))
    assert target.max() >= 2**32 - 2**13
    assert target.min() < 2**13


def test_masks_of_different_keys_share_hardly_a_word() -> None:
    """Two keys that differ in one bit give unrelated words."""
    one, other = np.zeros(1000, dtype=np.uint32), np.zeros(1000, dtype=np.uint32)

    add_stream(one, Secret(bytes(16)))
    add_stream(other, Secret(bytes(15) + b"\x01"))

    assert np.count_nonzero(one == other) <= 1


@pytest.mark.parametrize("counts", [[10], [4, 6], [1, 2, 3, 4], [0, 10], [7, 0, 3]])
def test_a_uniform_stream_continues(counts: list[int]) -> None:
    """Words drawn in several portions are the words of one stream, and the same for the same key."""
    stream = UniformStream(bytes(KEY))

    words = [word for count in counts for word in stream.words(count).tolist()]

    assert words == expand(KEY, 10)
