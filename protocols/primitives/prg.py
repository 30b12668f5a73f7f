"""Pseudo-random ring vectors: AES-128 in counter mode (NIST SP 800-38A), keyed once and never again.

Expansion is fused with the addition in chunks that stay in the cache, into one buffer: the cost of a mask is its AES
and one addition in cache, and memory does not grow with the vector.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from protocols.primitives.secret import Secret
from protocols.ring import RingVector

KEY_SIZE = 16
CHUNK_BYTES = 256 * 1024  # with its target, fits a core's second-level cache
CHUNK_WORDS = CHUNK_BYTES // 4
_BLOCK = 16
_ZEROS = bytes(CHUNK_BYTES)
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
# Below about a millisecond of AES, starting threads costs more than they bring.
_WORTH_SHARING = 2**22


def _keystream(key: Secret, *, block: int = 0) -> CipherContext:
    # Every key is derived for one stream alone, so the counter starts at zero.
    return Cipher(AES(key), CTR(block.to_bytes(_BLOCK, "big"))).encryptor()


def apply_streams(
    target: RingVector, *, add: Sequence[Secret] = (), subtract: Sequence[Secret] = (), threads: int = 0
) -> None:
    """Add and subtract the streams of many keys to `target` in place, modulo 2^32.

    A chunk of the target takes all streams before the next chunk is touched, so it is read and written once, however
    many keys there are. Threads share the target by ranges; AES and the addition both let go of the interpreter lock.

    Args:
        target: Contiguous ring elements.
        add: Keys, each used for this stream alone.
        subtract: The same.
        threads: 0 chooses: as many as cores, one where the work is too little to share.
    """
    if not target.flags.c_contiguous or not target.flags.writeable:
        raise ValueError("target must be contiguous and writeable")
    chunks = -(-len(target) // CHUNK_WORDS)
    work = len(target) * (len(add) + len(subtract))
    threads = min(threads or (_CORES if work >= _WORTH_SHARING else 1), chunks)
    if threads <= 1:
        _apply(target, add, subtract, 0)
        return
    bounds = [chunks * part // threads * CHUNK_WORDS for part in range(threads)] + [len(target)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda a, b: _apply(target[a:b], add, subtract, a), bounds[:-1], bounds[1:]))


def _apply(target: RingVector, add: Sequence[Secret], subtract: Sequence[Secret], start: int) -> None:
    """One thread's range, which begins at element `start` of the streams, a multiple of a block."""
    block = start * 4 // _BLOCK
    streams: list[tuple[CipherContext, np.ufunc]] = [(_keystream(key, block=block), np.add) for key in add]
    streams += [(_keystream(key, block=block), np.subtract) for key in subtract]
    buffer = bytearray(min(CHUNK_BYTES, 4 * len(target)) + _BLOCK - 1)
    words = np.frombuffer(buffer, dtype="<u4", count=(len(buffer) - _BLOCK + 1) // 4)
    zeros = memoryview(_ZEROS)
    for at in range(0, len(target), CHUNK_WORDS):
        part = target[at : at + CHUNK_WORDS]
        blank, drawn = zeros[: 4 * len(part)], words[: len(part)]
        for stream, ufunc in streams:
            stream.update_into(blank, buffer)
            ufunc(part, drawn, out=part)


class UniformStream:
    """A reproducible stream of uniform numbers for one 16-byte key; for rounding, whose key may be public."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_SIZE:
            raise ValueError(f"a key of {len(key)} bytes must have {KEY_SIZE}")
        self._stream = _keystream(Secret(key))

    def words(self, count: int) -> npt.NDArray[np.uint32]:
        """So many independent uniform 32-bit words."""
        return np.frombuffer(self._stream.update(bytes(4 * count)), dtype="<u4")
