"""Pseudo-random ring vectors: AES-128 in counter mode (NIST SP 800-38A), each key used once.

Expansion is fused with the addition in chunks that stay in the cache, into one buffer: the cost of a mask is its AES
and one addition in cache. Memory does not grow with the vector, but for a short one per thread where there are many keys.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import isqrt

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from protocols.primitives.secret import Secret
from protocols.ring import RingVector

KEY_SIZE = 16
_Stream = tuple[Secret, np.ufunc]  # a key, and whether its stream is added or subtracted
CHUNK_BYTES = 256 * 1024  # with its target, fits a core's second-level cache
CHUNK_WORDS = CHUNK_BYTES // 4
_BLOCK = 16
_ZEROS = bytes(CHUNK_BYTES)
_FROM_ZERO = CTR(bytes(_BLOCK))
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
# Below about a millisecond of AES, starting threads costs more than they bring.
_WORTH_SHARING = 2**22
# A target so short may exist once per thread.
_SHORT = 2**20
# Making one more cipher context takes about as long as clearing and adding so many more elements.
_WORTH_A_CONTEXT = 2**13


def _keystream(key: Secret, *, block: int = 0) -> CipherContext:
    # Every key is derived for one stream alone, so the counter starts at zero.
    mode = CTR(block.to_bytes(_BLOCK, "big")) if block else _FROM_ZERO
    return Cipher(AES(key), mode).encryptor()


def apply_streams(
    target: RingVector, *, add: Sequence[Secret] = (), subtract: Sequence[Secret] = (), threads: int = 0
) -> None:
    """Add and subtract the streams of many keys to `target` in place, modulo 2^32.

    A chunk of the target takes all streams before the next chunk is touched, so it is read and written once, however
    many keys there are. Threads share a long target by ranges; many streams over a short target they share by streams,
    each but the first with a target of its own. AES and the addition both let go of the interpreter lock. The result is
    the same to the bit either way.

    Args:
        target: Contiguous ring elements.
        add: Keys, each used for this stream alone.
        subtract: Keys, each used for this stream alone.
        threads: Most threads; 0 chooses: one per core, or one thread where the work is too little to share.
    """
    if not target.flags.c_contiguous or not target.flags.writeable:
        raise ValueError("target must be contiguous and writeable")
    streams: list[_Stream] = [(key, np.add) for key in add]
    streams += [(key, np.subtract) for key in subtract]
    threads = threads or (_CORES if len(target) * len(streams) >= _WORTH_SHARING else 1)
    if len(target) <= min(_SHORT, _WORTH_A_CONTEXT * len(streams)):
        # The threads' targets are added one after the other: beyond this that costs more than a thread brings.
        _share_streams(target, streams, min(threads, isqrt(len(streams))))
    else:
        _share_ranges(target, streams, min(threads, -(-len(target) // CHUNK_WORDS)))


def _share_streams(target: RingVector, streams: list[_Stream], threads: int) -> None:
    """Have every thread sum a share of the streams: no cipher context is made twice, and shares are even."""
    if threads <= 1:
        _apply(target, streams, 0)
        return
    sums = [target, *(np.zeros(len(target), dtype=np.uint32) for _ in range(threads - 1))]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda part, own: _apply(own, streams[part::threads], 0), range(threads), sums))
    for own in sums[1:]:
        np.add(target, own, out=target)


def _share_ranges(target: RingVector, streams: list[_Stream], threads: int) -> None:
    """Have every thread sum all streams over a range of whole chunks: no target exists twice."""
    if threads <= 1:
        _apply(target, streams, 0)
        return
    chunks = -(-len(target) // CHUNK_WORDS)
    bounds = [chunks * part // threads * CHUNK_WORDS for part in range(threads)] + [len(target)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda a, b: _apply(target[a:b], streams, a), bounds[:-1], bounds[1:]))


def _apply(target: RingVector, streams: Sequence[_Stream], start: int) -> None:
    """Do one thread's part: a target that begins at element `start` of the streams, a multiple of a block."""
    block = start * 4 // _BLOCK
    contexts = [(_keystream(key, block=block), ufunc) for key, ufunc in streams]
    buffer = bytearray(min(CHUNK_BYTES, 4 * len(target)) + _BLOCK - 1)
    words = np.frombuffer(buffer, dtype="<u4", count=(len(buffer) - _BLOCK + 1) // 4)
    zeros = memoryview(_ZEROS)
    for at in range(0, len(target), CHUNK_WORDS):
        part = target[at : at + CHUNK_WORDS]
        blank, drawn = zeros[: 4 * len(part)], words[: len(part)]
        for context, ufunc in contexts:
            context.update_into(blank, buffer)
            ufunc(part, drawn, out=part)


class UniformStream:
    """A reproducible stream of pseudo-random numbers for one 16-byte key: AES-128 in counter mode.

    Whoever has no key tells them from uniform ones only by breaking AES. The key of rounding may be public, that of noise may not.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_SIZE:
            raise ValueError(f"a key of {len(key)} bytes must have {KEY_SIZE}")
        self._stream = _keystream(Secret(key))

    def words(self, count: int) -> npt.NDArray[np.uint32]:
        """Return `count` independent uniform 32-bit words."""
        return np.frombuffer(self._stream.update(bytes(4 * count)), dtype="<u4")
