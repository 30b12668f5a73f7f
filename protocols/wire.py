"""Canonical bytes: every message has exactly one encoding, and decoding refuses all others.

    magic "RS" | version u8 | type u8 | fields ...

Integers are little-endian and of fixed width; every variable part is preceded by its length; lists that stand for
sets are strictly increasing. `Reader.end` refuses trailing bytes. Nothing is allocated on the word of a length field
alone: a length beyond the bytes at hand is refused first.

Here are the registry and the steps; messages state their formats in terms of :mod:`protocols.codec`.
"""

import struct
from collections.abc import Sequence
from enum import IntEnum, unique
from functools import lru_cache
from operator import lt
from typing import Any, Self

from protocols.errors import WireError
from protocols.ring import RING_BITS, RingVector, pack, packed_size, unpack

MAGIC = b"RS"
VERSION = 2
DIGEST_SIZE = 32


@unique
class MessageType(IntEnum):
    """The one registry of message types of both packages."""

    SESSION = 1
    STAGE_REQUEST = 2
    STAGE_REPLY = 3
    STAGE_REFUSAL = 4
    PLAIN_INPUT = 16
    KEY_ADVERTISEMENT = 32
    KEY_DIRECTORY = 33
    SHARE_BUNDLE = 34
    SEALED_SHARES = 35
    SHARE_DELIVERY = 36
    MASKED_INPUT = 37
    SURVIVOR_LIST = 38
    REVEALED_SHARES = 39
    SIGNED_SURVIVORS = 40
    SURVIVOR_SIGNATURES = 41
    ROSTER = 48
    ROUND_KEY = 64
    INPUT_RECEIPT = 65
    ENCRYPTED_INPUT = 66
    ENCRYPTED_SUM = 67
    DECRYPTED_SUMS = 68
    SUM_SIGNATURE = 69
    EVALUATION_KEYS = 70
    SCREENING_NUMBERS = 71
    SCREENING_RESULT = 72
    COMMITTED_INPUTS = 73
    FIXED_INPUTS = 74
    SERVICE_HELLO = 80
    SERVICE_SETUP = 81
    SERVICE_SESSION = 82
    SERVICE_DECRYPT = 83
    SERVICE_ANSWER = 84
    SERVICE_REFUSAL = 85
    STORED_SUMS = 86
    SERVICE_SCREENING = 87
    SCREENING_COPY = 88
    SERVICE_REFERENCE = 89


_HEAD_SIZE = 4
# By number: to look one up in a dictionary would call the hash function of the enumeration, which is Python.
_HEADS = [MAGIC + bytes((VERSION, number)) for number in range(256)]


@lru_cache(maxsize=256)
def _numbers(count: int) -> struct.Struct:
    """Return the codec of so many u16."""
    return struct.Struct(f"<{count}H")


class Writer:
    """A writer that appends fields to one message.

    Attributes:
        parts: The parts appended so far, head first: their concatenation is the message.
    """

    __slots__ = ("parts",)

    def __init__(self, message_type: MessageType) -> None:
        self.parts: list[bytes] = [_HEADS[message_type]]

    def unsigned(self, value: int, size: int) -> Self:
        """Append an unsigned integer of `size` bytes."""
        self.parts.append(value.to_bytes(size, "little"))
        return self

    def fixed(self, value: bytes, size: int) -> Self:
        """Append bytes whose number is fixed by the format."""
        if len(value) != size:
            raise WireError(f"a field of {len(value)} bytes must have {size}")
        self.parts.append(value)
        return self

    def blob(self, value: bytes) -> Self:
        """Append bytes preceded by their number (u32)."""
        self.parts += (len(value).to_bytes(4, "little"), value)
        return self

    def text(self, value: str) -> Self:
        """Append UTF-8 preceded by its length (u16)."""
        data = value.encode()
        self.parts += (len(data).to_bytes(2, "little"), data)
        return self

    def vector(self, value: RingVector, *, bits: int = 32) -> Self:
        """Append ring elements packed to `bits` each, preceded by their number (u32)."""
        self.parts += (len(value).to_bytes(4, "little"), pack(value, bits=bits))
        return self

    def positions(self, values: Sequence[int]) -> Self:
        """Append a set of positions in a roster: u16 each, strictly increasing, preceded by their number."""
        count = len(values)
        self.parts.append(_numbers(count + 1).pack(count, *values))
        return self

    def done(self) -> bytes:
        """Return the whole message."""
        return b"".join(self.parts)


class Reader:
    """A strict reader that takes the fields of one message from the front.

    Raises:
        WireError: From every method, when the bytes at hand are not the canonical form.
    """

    __slots__ = ("_at", "_data", "_message_type")

    def __init__(self, data: bytes, message_type: MessageType) -> None:
        self._data = data
        self._at = 0
        self._message_type = message_type
        if data.startswith(_HEADS[message_type]):
            self._at = _HEAD_SIZE
        else:
            self._refuse_head()

    @property
    def name(self) -> str:
        """The message's name in errors."""
        return self._message_type.name.lower()

    def _refuse_head(self) -> None:
        """Raise an error that names the wrong part of the head."""
        message_type = self._message_type
        if self.fixed(2) != MAGIC:
            raise WireError(f"{self.name}: does not begin with the magic bytes")
        if (version := self.unsigned(1)) != VERSION:
            raise WireError(f"{self.name}: version={version} must be {VERSION}")
        if (found := self.unsigned(1)) != message_type:
            raise WireError(f"{self.name}: message type {found} must be {int(message_type)}")

    def unsigned(self, size: int) -> int:
        """Read an unsigned integer of `size` bytes."""
        return int.from_bytes(self.fixed(size), "little")

    def fixed(self, size: int) -> bytes:
        """Read `size` bytes."""
        start, end = self._at, self._at + size
        if end > len(self._data):
            raise WireError(f"{self.name}: ends {end - len(self._data)} bytes early")
        self._at = end
        return self._data[start:end]

    def blob(self) -> bytes:
        """Read bytes preceded by their number."""
        return self.fixed(int.from_bytes(self.fixed(4), "little"))

    def text(self) -> str:
        """Read UTF-8 preceded by its length."""
        try:
            return self.fixed(self.unsigned(2)).decode()
        except UnicodeDecodeError:
            raise WireError(f"{self.name}: a text is not UTF-8") from None

    def vector(self, *, bits: int = 32) -> RingVector:
        """Read packed ring elements; at 32 bits a read-only view of the message."""
        count = self.unsigned(4)
        if bits not in RING_BITS:
            raise WireError(f"{self.name}: bits={bits} must be one of {RING_BITS}")
        return unpack(self.fixed(packed_size(count, bits=bits)), count, bits=bits)

    def positions(self) -> tuple[int, ...]:
        """Read a set of positions, strictly increasing."""
        count = int.from_bytes(self.fixed(2), "little")
        values: tuple[int, ...] = _numbers(count).unpack(self.fixed(2 * count))
        if count > 1:
            self.check_increasing(values)
        return values

    def check_increasing(self, values: Sequence[Any]) -> None:
        """Refuse a list that stands for a set and is not strictly increasing."""
        if not all(map(lt, values, values[1:])):
            raise WireError(f"{self.name}: a set is not in strictly increasing order")

    def rest(self, sizes: Sequence[int]) -> bytes:
        """Read everything that is left, which must have one of these sizes."""
        left = len(self._data) - self._at
        if left not in sizes:
            raise WireError(f"{self.name}: {left} last bytes must be one of {tuple(sizes)}")
        return self.fixed(left)

    def end(self) -> None:
        """Refuse trailing bytes."""
        if left := len(self._data) - self._at:
            raise WireError(f"{self.name}: {left} trailing bytes")
