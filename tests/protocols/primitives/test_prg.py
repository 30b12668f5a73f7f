"""Mask expansion is AES-128 in counter mode from zero, added or subtracted in place over any length, for many keys."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given
from hypothesis import strategies as st

from protocols.primitives import prg
from protocols.primitives.prg import CHUNK_BYTES, UniformStream, apply_streams
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

    apply_streams(target, add=[Secret(bytes(16))])

    assert target.astype("<u4").tobytes().hex() == "66e94bd4ef8a2c3b884cfa59ca342b2e"


@pytest.mark.parametrize("length", LENGTHS)
def test_expansion_does_not_depend_on_chunks(length: int) -> None:
    """Adding to a vector of any length gives the words of one unchunked stream, modulo 2^32."""
    target = np.arange(length, dtype=np.uint32) * np.uint32(65537)
    expected = [
        (before + word) % 2**32 for before, word in zip(target.tolist(), expand(KEY, length), strict=True)
    ]

    apply_streams(target, add=[KEY])

    assert target.tolist() == expected


@pytest.mark.parametrize("length", LENGTHS)
def test_subtracting_takes_the_stream_away(length: int) -> None:
    """Subtracting from zero gives the negated words, modulo 2^32."""
    target = np.zeros(length, dtype=np.uint32)

    apply_streams(target, subtract=[KEY])

    assert target.tolist() == [-word % 2**32 for word in expand(KEY, length)]


@PROPERTY
@given(values=st.lists(st.integers(0, 2**32 - 1), max_size=40), key=st.binary(min_size=16, max_size=16))
def test_add_then_subtract_restores(values: list[int], key: bytes) -> None:
    """A mask that is added and removed leaves the vector as it was, in either order, empty vectors included."""
    target = np.array(values, dtype=np.uint32)

    apply_streams(target, add=[Secret(key)])
    apply_streams(target, subtract=[Secret(key)])
    apply_streams(target, subtract=[Secret(key)])
    apply_streams(target, add=[Secret(key)])

    assert target.tolist() == values


@pytest.mark.parametrize("length", [1, 7, WORDS_PER_CHUNK, WORDS_PER_CHUNK + 3])
def test_nothing_outside_the_target_is_touched(length: int) -> None:
    """Masking a window of a larger array leaves its neighbours alone."""
    whole = np.full(length + 64, 0xABCD, dtype=np.uint32)

    apply_streams(whole[32 : 32 + length], add=[KEY])

    assert whole[:32].tolist() == whole[-32:].tolist() == [0xABCD] * 32
    assert whole[32 : 32 + length].tolist() == [(0xABCD + word) % 2**32 for word in expand(KEY, length)]


def test_a_strided_target_is_refused() -> None:
    """A view that is not contiguous raises ValueError and is left alone: chunks of it would be slow and uneven."""
    whole = np.zeros(20, dtype=np.uint32)

    with pytest.raises(ValueError, match="contiguous"):
        apply_streams(whole[::2], add=[KEY])

    assert not whole.any()


def test_a_read_only_target_is_refused() -> None:
    """A vector that cannot be written raises ValueError before anything is expanded."""
    target = np.zeros(20, dtype=np.uint32)
    target.flags.writeable = False

    with pytest.raises(ValueError, match="writeable"):
        apply_streams(target, add=[KEY])


# Many keys.


def applied_by_hand(values: list[int], add: list[Secret], subtract: list[Secret]) -> list[int]:
    """The values plus and minus the words of all keys, in Python integers."""
    total = list(values)
    for sign, keys in ((1, add), (-1, subtract)):
        for key in keys:
            total = [t + sign * word for t, word in zip(total, expand(key, len(total)), strict=True)]
    return [t % 2**32 for t in total]


def keys(count: int, first: int = 0) -> list[Secret]:
    """So many different keys."""
    return [Secret(bytes([first + number]) * 16) for number in range(count)]


@pytest.mark.parametrize("length", [0, 1, 5, WORDS_PER_CHUNK - 1, WORDS_PER_CHUNK + 3, 2 * WORDS_PER_CHUNK])
@pytest.mark.parametrize(("added", "subtracted"), [(0, 0), (1, 1), (3, 0), (0, 3), (2, 3)])
def test_all_keys_are_applied(length: int, added: int, subtracted: int) -> None:
    """The target takes every stream of both lists, each once, and nothing where there are no keys."""
    target = np.arange(length, dtype=np.uint32) * np.uint32(65537)
    add, subtract = keys(added), keys(subtracted, first=100)
    expected = applied_by_hand(target.tolist(), add, subtract)

    apply_streams(target, add=add, subtract=subtract)

    assert target.tolist() == expected


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 5, 64])
@pytest.mark.parametrize(
    "length", [0, 1, WORDS_PER_CHUNK, WORDS_PER_CHUNK + 1, 3 * WORDS_PER_CHUNK, 4 * WORDS_PER_CHUNK + 17]
)
def test_the_number_of_threads_does_not_matter(length: int, threads: int) -> None:
    """However the target is divided, each range continues the streams where the one before it ends."""
    target = np.arange(length, dtype=np.uint32)
    add, subtract = keys(2), keys(1, first=9)
    expected = target.copy()
    for key, ufunc in [(add[0], np.add), (add[1], np.add), (subtract[0], np.subtract)]:
        ufunc(expected, np.frombuffer(keystream(key, 4 * length), dtype="<u4"), out=expected)

    apply_streams(target, add=add, subtract=subtract, threads=threads)

    assert (target == expected).all()


def test_much_work_is_shared_by_itself() -> None:
    """Where threads are worth their start the result is that of one thread."""
    length = 3 * WORDS_PER_CHUNK + 5
    many = keys(-(-prg._WORTH_SHARING // length))
    shared, alone = np.zeros(length, dtype=np.uint32), np.zeros(length, dtype=np.uint32)

    apply_streams(shared, add=many)
    apply_streams(alone, add=many, threads=1)

    assert shared.any()
    assert (shared == alone).all()


def many_keys(count: int) -> list[Secret]:
    """More keys than a byte can number."""
    return [Secret(number.to_bytes(16, "big")) for number in range(count)]


# By streams and by ranges: lengths on both sides of what so many keys are worth, and of one chunk.
@pytest.mark.parametrize("threads", [1, 2, 3, 7, 64])
@pytest.mark.parametrize(
    "length", [1, 7, WORDS_PER_CHUNK - 1, WORDS_PER_CHUNK + 5, 11 * 2**13, 11 * 2**13 + 1]
)
def test_many_keys_are_applied_by_any_number_of_threads(length: int, threads: int) -> None:
    """Whether threads share the keys or the target, each key is applied once and whole."""
    target = np.arange(length, dtype=np.uint32)
    chosen = many_keys(11)
    expected = target.copy()
    for number, key in enumerate(chosen):
        ufunc = np.add if number < 6 else np.subtract
        ufunc(expected, np.frombuffer(keystream(key, 4 * length), dtype="<u4"), out=expected)

    apply_streams(target, add=chosen[:6], subtract=chosen[6:], threads=threads)

    assert (target == expected).all()


@pytest.mark.parametrize(("length", "made"), [(1000, 40), (40 * 2**13, 40), (40 * 2**13 + 1, 160)])
def test_many_keys_over_a_short_target_are_scheduled_once(
    monkeypatch: pytest.MonkeyPatch, length: int, made: int
) -> None:
    """Threads that share the keys make each cipher context once; threads that share a long target, once each."""
    count = 0

    def counting(*arguments: Any, **more: Any) -> Any:
        nonlocal count
        count += 1
        return genuine(*arguments, **more)

    genuine = prg._keystream
    monkeypatch.setattr(prg, "_keystream", counting)

    apply_streams(np.zeros(length, dtype=np.uint32), add=many_keys(40), threads=4)

    assert count == made


@pytest.mark.parametrize(("count", "started"), [(1, []), (3, []), (4, [2]), (100, [10]), (200, [14])])
def test_threads_that_share_keys_are_no_more_than_pay_off(
    monkeypatch: pytest.MonkeyPatch, count: int, started: list[int]
) -> None:
    """Each further thread costs one addition of the target, so they stay below the root of the number of keys."""
    pools: list[int] = []

    def pool(threads: int) -> ThreadPoolExecutor:
        pools.append(threads)
        return ThreadPoolExecutor(threads)

    monkeypatch.setattr(prg, "ThreadPoolExecutor", pool)

    apply_streams(np.zeros(1000, dtype=np.uint32), add=many_keys(count), threads=64)

    assert pools == started


@pytest.mark.parametrize(("length", "most"), [(2**20, 3), (2**20 + 1, 0)])
def test_threads_copy_no_long_target(length: int, most: int) -> None:
    """Sharing the keys costs a target per further thread, and only where targets are short."""
    target, chosen = np.zeros(length, dtype=np.uint32), many_keys(128)
    room = 4 * (CHUNK_BYTES + 2**16) + 2**20  # buffers of four threads, contexts, and what starts threads

    tracemalloc.start()
    apply_streams(target, add=chosen, threads=4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert most * target.nbytes <= peak <= most * target.nbytes + room


@pytest.mark.parametrize(("length", "count"), [(3 * WORDS_PER_CHUNK + 3, 1), (1000, 50)])
def test_threads_touch_nothing_outside_the_target(length: int, count: int) -> None:
    """A window of a larger array is masked by several threads without its neighbours, however they share the work."""
    whole = np.zeros(length + 64, dtype=np.uint32)

    apply_streams(whole[32 : 32 + length], add=many_keys(count), threads=3)

    assert not whole[:32].any()
    assert not whole[-32:].any()
    assert whole[32 : 32 + length].any()


@PROPERTY
@given(
    values=st.lists(st.integers(0, 2**32 - 1), max_size=20),
    chosen=st.lists(st.binary(min_size=16, max_size=16).map(Secret), max_size=5),
)
def test_a_key_on_both_lists_cancels(values: list[int], chosen: list[Secret]) -> None:
    """Adding and subtracting the same keys in one call leaves the vector as it was."""
    target = np.array(values, dtype=np.uint32)

    apply_streams(target, add=chosen, subtract=chosen[::-1])

    assert target.tolist() == values


def test_masks_reach_the_whole_ring() -> None:
    """Over 2^20 words every top byte occurs, and values above 2^32 - 2^13 and below 2^13 do."""
    target = np.zeros(2**20, dtype=np.uint32)

    apply_streams(target, add=[KEY])

    assert np.unique(target >> np.uint32(24)).tolist() == list(range(256))
    assert target.max() >= 2**32 - 2**13
    assert target.min() < 2**13


def test_masks_of_different_keys_share_hardly_a_word() -> None:
    """Two keys that differ in one bit give unrelated words."""
    one, other = np.zeros(1000, dtype=np.uint32), np.zeros(1000, dtype=np.uint32)

    apply_streams(one, add=[Secret(bytes(16))])
    apply_streams(other, add=[Secret(bytes(15) + b"\x01")])

    assert np.count_nonzero(one == other) <= 1


@pytest.mark.parametrize("counts", [[10], [4, 6], [1, 2, 3, 4], [0, 10], [7, 0, 3]])
def test_a_uniform_stream_continues(counts: list[int]) -> None:
    """Words drawn in several portions are the words of one stream, and the same for the same key."""
    stream = UniformStream(bytes(KEY))

    words = [word for count in counts for word in stream.words(count).tolist()]

    assert words == expand(KEY, 10)
