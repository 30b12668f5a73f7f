"""Pseudo-random ring vectors: AES-128 in counter mode (NIST SP 800-38A), keyed once and never again.

Expansion is fused with the addition in chunks that stay in the cache, into one buffer: the cost of a mask is one
pass of AES and one of addition, and memory does not grow with the vector.
"""

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from protocols.primitives.secret import Secret
from protocols.ring import RingVector

KEY_SIZE = 16
CHUNK_BYTES = 256 * 1024  # fits a core's second-level cache together with its target
_BLOCK = 16
_ZEROS = bytes(CHUNK_BYTES)


def _keystream(key: Secret) -> CipherContext:
    # Every key is derived for one stream alone, so the counter starts at zero.
    return Cipher(AES(key), CTR(bytes(_BLOCK))).encryptor()


def _combine(target: RingVector, key: Secret, ufunc: np.ufunc) -> None:
    stream = _keystream(key)
    buffer = bytearray(min(CHUNK_BYTES, 4 * len(target)) + _BLOCK - 1)
    words = np.frombuffer(buffer, dtype="<u4", count=(len(buffer) - _BLOCK + 1) // 4)
    zeros = memoryview(_ZEROS)
    for start in range(0, len(target), CHUNK_BYTES // 4):
        part = target[start : start + CHUNK_BYTES // 4]
        stream.update_into(zeros[: 4 * len(part)], buffer)
        ufunc(part, words[: len(part)], out=part)


def add_stream(target: RingVector, key: Secret) -> None:
    """Add the key's stream to `target` in place, modulo 2^32."""
    _combine(target, key, np.add)


def subtract_stream(target: RingVector, key: Secret) -> None:
    """Subtract the key's stream from `target` in place, modulo 2^32."""
    _combine(target, key, np.subtract)


class UniformStream:
    """A reproducible stream of uniform numbers for one 16-byte key; for rounding, whose key may be public."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_SIZE:
            raise ValueError(f"a key of {len(key)} bytes must have {KEY_SIZE}")
        self._stream = _keystream(Secret(key))

    def words(self, count: int) -> npt.NDArray[np.uint32]:
        """So many independent uniform 32-bit words."""
        return np.frombuffer(self._stream.update(bytes(4 * count)), dtype="<u4")
