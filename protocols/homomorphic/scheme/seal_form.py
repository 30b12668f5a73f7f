"""SEAL's and TenSEAL's own bytes, written and read for the local library only: never for a peer.

What a peer sends are residues (:mod:`protocols.homomorphic.scheme.polynomials`). Here they get the headers under which the
library takes them, all of which are ours: nothing in them was written by somebody else.

    SEAL stream       magic u16 | header size u8 | version 4.3 | compression u8 | reserved u16 | size u64 | body
    ciphertext body   parameter id 4 x u64 | NTT form u8 | polynomials u64 | degree u64 | primes u64 | scale f64
                      | correction factor u64 | SEAL stream of: number of residues u64 | residues u64 each
    TenSEAL vector    protobuf: 1 = lengths, 2 = SEAL stream of each ciphertext [, 3 = scale]
    TenSEAL context   protobuf: 1 = parameters, 2 = public part (1 = public key, ... flags and scale), 3 = secret part

The layout is that of SEAL 4.3 in TenSEAL 0.3.18; a test compares it with what the installed library writes.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from protocols.errors import CiphertextError
from protocols.homomorphic.scheme.polynomials import PAIR, Polynomials

_HEADER: Final = struct.Struct("<HBBBBHQ")
_MAGIC, _VERSION = 0xA15E, (4, 3)
_STORED, _ZSTANDARD = 0, 2
_BODY: Final = struct.Struct("<4QBQQQdQ")
_COUNT: Final = struct.Struct("<Q")
_VARINT, _DOUBLE, _BYTES = 0, 1, 2
_CONTINUES: Final = 0x80


class Level(NamedTuple):
    """The level of a pair of polynomials in the chain of moduli, and its form.

    Args:
        parameters: SEAL's hash of the encryption parameters at this level, four words.
        ntt: Whether residues are stored transformed (public keys, CKKS) or not (BFV ciphertexts).
        scale: Scale of CKKS; 1 in BFV.
    """

    parameters: tuple[int, ...]
    ntt: bool
    scale: float = 1.0


class Field(NamedTuple):
    """One field of a protobuf message."""

    number: int
    kind: int
    value: bytes


def pair_stream(residues: Polynomials, level: Level) -> bytes:
    """Return the SEAL stream of one pair of polynomials, shape (2, primes, degree)."""
    _, primes, degree = residues.shape
    data = _stream(_COUNT.pack(residues.size) + residues.astype("<u8", copy=False).tobytes())
    return _stream(_BODY.pack(*level.parameters, level.ntt, PAIR, degree, primes, level.scale, 1) + data)


def read_pair(stream: bytes, level: Level, *, primes: int, degree: int) -> Polynomials:
    """Return the residues in a stream that the local library wrote, shape (2, primes, degree).

    Raises:
        CiphertextError: The library wrote something else than this layout.
    """
    residues = PAIR * primes * degree
    size = _BODY.size + _HEADER.size + _COUNT.size + 8 * residues
    body = _unwrapped(stream, size)
    head = _BODY.pack(*level.parameters, level.ntt, PAIR, degree, primes, level.scale, 1)
    inner = _HEADER.pack(_MAGIC, _HEADER.size, *_VERSION, _STORED, 0, size - _BODY.size)
    if len(body) != size or not body.startswith(head + inner + _COUNT.pack(residues)):
        raise CiphertextError(
            "the encryption library wrote another layout than SEAL 4.3's: use the TenSEAL release that pyproject.toml names"
        )
    data = np.frombuffer(body, dtype="<u8", offset=size - 8 * residues)
    return data.reshape(PAIR, primes, degree).astype(np.uint64, copy=False)


def vector(streams: Sequence[bytes], *, length: int, scale: float | None = None) -> bytes:
    """Return a TenSEAL vector of ciphertexts that hold `length` numbers each."""
    sizes = b"".join(_varint(length) for _ in streams)
    parts = [_field(1, sizes), *(_field(2, stream) for stream in streams)]
    if scale is not None:
        parts.append(bytes((3 << 3 | _DOUBLE,)) + struct.pack("<d", scale))
    return b"".join(parts)


def streams_of(vector_bytes: bytes) -> list[bytes]:
    """Return the SEAL streams of the ciphertexts in a TenSEAL vector that the local library wrote."""
    return [field.value for field in _fields(vector_bytes) if field.number == 2]  # noqa: PLR2004


def public_key_of(context: bytes) -> bytes:
    """Return the SEAL stream of the public key in a TenSEAL context that the local library wrote."""
    public = next(field.value for field in _fields(context) if field.number == 2)  # noqa: PLR2004
    return next(field.value for field in _fields(public) if field.number == 1)


def with_public_key(parameters_only: bytes, key: bytes) -> bytes:
    """Return a TenSEAL context that holds nothing but parameters, completed by a public key's SEAL stream."""
    parameters, public = (field.value for field in _fields(parameters_only))
    return _field(1, parameters) + _field(2, _field(1, key) + public)


def _stream(body: bytes) -> bytes:
    return _HEADER.pack(_MAGIC, _HEADER.size, *_VERSION, _STORED, 0, _HEADER.size + len(body)) + body


def _unwrapped(stream: bytes, size: int) -> bytes:
    """Return the body of a stream, at most one byte longer than it should be."""
    compression = _HEADER.unpack_from(stream)[4]
    if compression == _STORED:
        return stream[_HEADER.size :]
    if compression != _ZSTANDARD:
        raise CiphertextError(f"the encryption library compresses by method {compression}, not by Zstandard")
    import zstandard  # noqa: PLC0415  # installed with the encryption library, and needed only where that is

    with zstandard.ZstdDecompressor().stream_reader(stream[_HEADER.size :]) as reader:
        return reader.read(size + 1)


def _field(number: int, value: bytes) -> bytes:
    return bytes((number << 3 | _BYTES,)) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    octets = bytearray()
    while value >= _CONTINUES:
        octets.append(value & (_CONTINUES - 1) | _CONTINUES)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def _fields(data: bytes) -> Iterator[Field]:
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        number, kind = key >> 3, key & 7
        begin = at
        if kind == _BYTES:
            length, begin = _read_varint(data, at)
            at = begin + length
        elif kind == _DOUBLE:
            at += 8
        else:
            _, at = _read_varint(data, at)
        yield Field(number, kind, data[begin:at])


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while data[at] >= _CONTINUES:
        value |= (data[at] & (_CONTINUES - 1)) << shift
        shift, at = shift + 7, at + 1
    return value | data[at] << shift, at + 1
