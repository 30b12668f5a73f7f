"""Ciphertexts and public keys as pairs of polynomials, given by their residues modulo a few primes.

This is the one form in which they cross between parties. A residue takes as many bits as its prime, without gaps, so
there are no headers, no compression and no lengths that a sender could lie about: the number of bytes follows from the
profile and the session. Whoever receives them checks that every residue lies below its prime; the encryption library
never sees bytes that a peer wrote. Adding ciphertexts is adding residues (Fan and Vercauteren 2012, section 4, FV.SH.Add),
so the aggregator and the verifier need no encryption library at all.

>>> decode(encode(np.array([[[[5, 6]], [[1, 2]]]] * 4, dtype=np.uint64), [7]), count=4, moduli=[7], degree=2)[0].tolist()
[[[5, 6]], [[1, 2]]]
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from protocols.errors import CiphertextError

# Shape (ciphertexts, 2, primes, degree).
Polynomials = npt.NDArray[np.uint64]

PAIR: Final = 2
_GROUP: Final = 8  # so many residues fill whole bytes, whatever their width
_WORD: Final = 64


def size_of(count: int, *, moduli: Sequence[int], degree: int) -> int:
    """Return the size in bytes of `count` pairs of polynomials."""
    return count * PAIR * degree * sum(modulus.bit_length() for modulus in moduli) // 8


def encode(polynomials: Polynomials, moduli: Sequence[int]) -> bytes:
    """Return the canonical bytes: all residues of the first prime, then of the next; little-endian, without gaps."""
    return b"".join(
        _pack(polynomials[:, :, place, :].reshape(-1), modulus.bit_length())
        for place, modulus in enumerate(moduli)
    )


def decode(data: bytes, *, count: int, moduli: Sequence[int], degree: int) -> Polynomials:
    """Inverse of :func:`encode`, for untrusted bytes.

    Returns: shape (count, 2, primes, degree).

    Raises:
        CiphertextError: The number of bytes is wrong, a residue is not below its prime, or the second polynomial of a
            pair is zero (no encryption yields that, and it would carry its message in the clear).
    """
    expected = size_of(count, moduli=moduli, degree=degree)
    if len(data) != expected:
        raise CiphertextError(f"{len(data)} bytes must be {expected}: {count} pairs of polynomials")
    polynomials = np.empty((count, PAIR, len(moduli), degree), dtype=np.uint64)
    at = 0
    for place, modulus in enumerate(moduli):
        bits = modulus.bit_length()
        end = at + count * PAIR * degree * bits // 8
        residues = _unpack(data[at:end], count * PAIR * degree, bits)
        if count and int(residues.max()) >= modulus:
            raise CiphertextError(f"a residue is not below its prime, {modulus}")
        polynomials[:, :, place, :] = residues.reshape(count, PAIR, degree)
        at = end
    if not polynomials[:, 1].any(axis=(1, 2)).all():
        raise CiphertextError("the second polynomial of a pair is zero")
    return polynomials


def add(target: Polynomials, other: Polynomials, moduli: Sequence[int]) -> None:
    """Add ciphertext by ciphertext, in place."""
    primes = np.array(moduli, dtype=np.uint64)[:, None]
    np.add(target, other, out=target)
    # Where the sum is below its prime, subtracting wraps to a larger number: the minimum is the residue either way.
    np.minimum(target, target - primes, out=target)


def _pack(residues: npt.NDArray[np.uint64], bits: int) -> bytes:
    """Pack eight residues into `bits` bytes; the words of all groups are computed at once."""
    groups = residues.reshape(-1, _GROUP)
    words = np.zeros((len(groups), (bits + 7) // 8), dtype="<u8")
    for place in range(_GROUP):
        word, shift = divmod(place * bits, _WORD)
        words[:, word] |= groups[:, place] << np.uint64(shift)
        if shift + bits > _WORD:
            words[:, word + 1] |= groups[:, place] >> np.uint64(_WORD - shift)
    return words.view(np.uint8)[:, :bits].tobytes()


def _unpack(data: bytes, count: int, bits: int) -> npt.NDArray[np.uint64]:
    """Inverse of :func:`_pack`."""
    octets = np.frombuffer(data, dtype=np.uint8).reshape(-1, bits)
    padded = np.zeros((len(octets), (bits + 7) // 8 * 8), dtype=np.uint8)
    padded[:, :bits] = octets
    words = padded.view("<u8")
    residues = np.empty((count // _GROUP, _GROUP), dtype=np.uint64)
    mask = np.uint64(2**bits - 1)
    for place in range(_GROUP):
        word, shift = divmod(place * bits, _WORD)
        value = words[:, word] >> np.uint64(shift)
        if shift + bits > _WORD:
            value = value | words[:, word + 1] << np.uint64(_WORD - shift)
        residues[:, place] = value & mask
    return residues.reshape(-1)
