"""Vectors in the ring Z_{2^b}, b at most 32: unsigned 32-bit words whose addition wraps.

Arithmetic is modulo 2^32 everywhere and is reduced to b bits where a vector travels or is read: since 2^b divides 2^32
the results agree, and a smaller ring costs fewer bytes at the same speed. A sum of n integers of magnitude at most x is
recovered exactly by the centred lift when n * x < 2^(b-1), and a wrapped sum is silently wrong. `capacity` keeps one bit
more free, n * x < 2^(b-2): what honest inputs can add up to is then at most half of the ring, so that a sum in which a
mask, or anything else that is uniform over the ring, was left shows it with probability 1 - 2^-L or more in L elements.
A session that leaves no such room is refused when it is constructed.

>>> centred(to_ring(np.array([-3])) + to_ring(np.array([1])), bits=16)
array([-2])
"""

import numpy as np
import numpy.typing as npt

from protocols.errors import WireError

# Rings that pack into whole bytes, one or two elements at a time.
RING_BITS = (16, 20, 24, 32)

RingVector = npt.NDArray[np.uint32]
IntegerVector = npt.NDArray[np.int64]


def capacity(summands: int, *, bits: int = 32) -> int:
    """Return the largest magnitude that each of so many integers may have: the sum stays within half of the ring."""
    return int((2 ** (bits - 2) - 1) // summands)


def to_ring(values: IntegerVector) -> RingVector:
    """Return signed integers as words modulo 2^32, in a fresh array."""
    return values.astype(np.int64, copy=False).astype(np.uint32)


def centred(vector: RingVector, *, bits: int = 32) -> IntegerVector:
    """Return the representatives modulo 2^bits in [-2^(bits-1), 2^(bits-1))."""
    shift = np.uint32(32 - bits)
    # The wanted bits to the top, then an arithmetic shift back carries their sign down.
    return ((vector << shift).view(np.int32) >> np.int32(shift)).astype(np.int64)


def folded(vector: RingVector, *, bits: int) -> IntegerVector:
    """Return a lift without a jump, in [-2^(bits-2), 2^(bits-2)]: centred within a quarter, reflected beyond it.

    Words that differ by d modulo 2^bits have lifts that differ by |d| at most, wherever they lie. Centred ones do not: beside half
    of the ring a step of 1 turns the largest integer into the smallest. Whoever may send what it likes can put a sum there, and
    have noise that is added afterwards, scaled for what one honest input can change, hide nothing. What `capacity` allows lies
    within the quarter and is lifted as it is.

    >>> folded(np.array([5, 2**14 + 1, 2**15, 2**16 - 5], dtype=np.uint32), bits=16)
    array([    5, 16383,     0,    -5])
    """
    lifted = centred(vector, bits=bits)
    half = 2 ** (bits - 1)
    return np.where(np.abs(lifted) <= half // 2, lifted, np.sign(lifted) * (half - np.abs(lifted)))


def packed_size(length: int, *, bits: int) -> int:
    """Return the size in bytes of so many packed elements."""
    return (length * bits + 7) // 8


def pack(vector: RingVector, *, bits: int) -> bytes:
    """Pack the low bits of every element, little-endian, without gaps. Odd 20-bit vectors end in a zero half byte."""
    if bits == 32:  # noqa: PLR2004  # the four rings of RING_BITS
        return vector.astype("<u4", copy=False).tobytes()
    if bits == 16:  # noqa: PLR2004
        return vector.astype("<u2").tobytes()
    octets = np.ascontiguousarray(vector, dtype="<u4").view(np.uint8).reshape(-1, 4)
    if bits == 24:  # noqa: PLR2004
        return octets[:, :3].tobytes()
    return _pack_pairs(vector)


def unpack(data: bytes, length: int, *, bits: int) -> RingVector:
    """Inverse of :func:`pack`, modulo 2^bits.

    Raises:
        WireError: The number of bytes is wrong, or padding is not zero.
    """
    if len(data) != packed_size(length, bits=bits):
        raise WireError(
            f"{len(data)} bytes must be {packed_size(length, bits=bits)} for {length} elements of {bits} bits"
        )
    if bits == 32:  # noqa: PLR2004
        return np.frombuffer(data, dtype="<u4").astype(np.uint32, copy=False)
    if bits == 16:  # noqa: PLR2004
        return np.frombuffer(data, dtype="<u2").astype(np.uint32)
    if bits == 24:  # noqa: PLR2004
        # Overlapping words read straight from the bytes, three apart; the fourth byte of each is its neighbour's.
        words = np.ndarray((length,), "<u4", buffer=data + bytes(1), strides=(3,))
        return (words & np.uint32(0xFFFFFF)).astype(np.uint32, copy=False)
    return _unpack_pairs(data, length)


def _pack_pairs(vector: RingVector) -> bytes:
    """Pack two elements of 20 bits in five bytes."""
    low = np.uint64(0xFFFFF)
    even = np.zeros(len(vector) + len(vector) % 2, dtype=np.uint64)
    even[: len(vector)] = vector
    pairs = (even[0::2] & low) | (even[1::2] & low) << np.uint64(20)
    octets = pairs.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :5]
    return octets.tobytes()[: packed_size(len(vector), bits=20)]


def _unpack_pairs(data: bytes, length: int) -> RingVector:
    """Unpack two elements of 20 bits from every five bytes, read as overlapping words of eight."""
    count = (length + 1) // 2
    padded = data + bytes(5 * count - len(data) + 3)
    pairs = np.ndarray((count,), "<u8", buffer=padded, strides=(5,))
    low = np.uint64(0xFFFFF)
    elements = np.empty(2 * count, dtype=np.uint32)
    elements[0::2] = pairs & low
    elements[1::2] = (pairs >> np.uint64(20)) & low
    if len(elements) > length and elements[length]:
        raise WireError("the padding of a packed vector must be zero")
    return elements[:length]
