"""Field codecs: each writes and reads one field of a message.

A message states its format once, in the annotations of its fields (:mod:`protocols.message`). Every codec has exactly
one encoding for a value and refuses all others; what is variable is preceded by its number, and nothing is allocated
before that many bytes are known to be there.

    Unsigned(size)      int                little-endian, `size` bytes
    Flag(name)          bool               one byte, 0 or 1
    Choice(kind, name)  IntEnum            one byte, a number of `kind`
    Fixed(size)         bytes              exactly `size` bytes
    Blob()              bytes              u32 length, bytes
    Text()              str                u16 length, UTF-8
    Rest(sizes)         bytes              all that is left, one of `sizes` bytes; the last field only
    Vector(bits)        ring elements      u32 number, `bits` each without gaps
    Positions()         tuple[int, ...]    u16 number, u16 each, strictly increasing

Those that are made of others: :mod:`protocols.containers`. Compare `Encode`, `Decode` and `ParameterizedDecode` of
libprio-rs.
"""

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Final, Generic, TypeVar, final

from protocols.errors import WireError
from protocols.ring import RingVector
from protocols.wire import DIGEST_SIZE, Reader, Writer

# The struct module keeps what it has compiled, a hundred formats, and a peer chooses the count: none becomes large.
_MOST_UNPACKED: Final = 1024

T = TypeVar("T")
E = TypeVar("E", bound=IntEnum)


class Codec(ABC, Generic[T]):
    """The writing and reading of one field."""

    __slots__ = ()

    @property
    def form(self) -> str:
        """The field's code in :mod:`struct` if all values have one size and need no check; else empty.

        What is read by it are plain bytes, also out of a secret.
        """
        return ""

    @property
    @abstractmethod
    def holds(self) -> object:
        """The type of its values, as an annotation states it."""

    @abstractmethod
    def write(self, writer: Writer, value: T) -> None:
        """Append a value.

        Raises:
            WireError: It has another size than the format's.
        """

    @abstractmethod
    def read(self, reader: Reader) -> T:
        """Read a value from the front.

        Raises:
            WireError: The bytes at hand are not the one encoding of any.
        """

    def write_all(self, writer: Writer, values: Sequence[T]) -> None:
        """Append values, one after another."""
        for value in values:
            self.write(writer, value)

    def read_all(self, reader: Reader, count: int) -> Sequence[T]:
        """Read `count` values."""
        return [self.read(reader) for _ in range(count)]


@final
@dataclass(frozen=True, slots=True)
class Unsigned(Codec[int]):
    """An unsigned integer of `size` bytes, little-endian."""

    size: int
    holds = int

    @property
    def form(self) -> str:
        """The code for this size."""
        return {1: "B", 2: "H", 4: "I", 8: "Q"}[self.size]

    def write(self, writer: Writer, value: int) -> None:
        """Append it."""
        writer.parts.append(value.to_bytes(self.size, "little"))

    def read(self, reader: Reader) -> int:
        """Take it."""
        return int.from_bytes(reader.fixed(self.size), "little")


@final
@dataclass(frozen=True, slots=True)
class Flag(Codec[bool]):
    """A byte that is 0 or 1; error messages use its name."""

    name: str
    holds = bool

    def write(self, writer: Writer, value: bool) -> None:  # noqa: FBT001  # the value that it holds
        """Append it."""
        writer.unsigned(value, 1)

    def read(self, reader: Reader) -> bool:
        """Take it."""
        if (value := reader.unsigned(1)) > 1:
            raise WireError(f"{reader.name}: {self.name}={value} must be 0 or 1")
        return value == 1


@final
@dataclass(frozen=True, slots=True)
class Choice(Codec[E]):
    """A member of an enumeration by its number, in one byte; error messages use its name."""

    kind: type[E]
    name: str

    @property
    def holds(self) -> object:
        """The enumeration."""
        return self.kind

    def write(self, writer: Writer, value: E) -> None:
        """Append it."""
        writer.unsigned(value, 1)

    def read(self, reader: Reader) -> E:
        """Take it."""
        number = reader.unsigned(1)
        for choice in self.kind:
            if choice == number:
                return choice
        numbers = ", ".join(str(int(choice)) for choice in self.kind)
        raise WireError(f"{reader.name}: {self.name}={number} must be one of {numbers}")


@final
@dataclass(frozen=True, slots=True)
class Fixed(Codec[bytes]):
    """Bytes whose number is fixed by the format."""

    size: int
    holds = bytes

    @property
    def form(self) -> str:
        """The code for this size."""
        return f"{self.size}s"

    def write(self, writer: Writer, value: bytes) -> None:
        """Append it."""
        if len(value) != self.size:
            raise WireError(f"a field of {len(value)} bytes must have {self.size}")
        writer.parts.append(value)

    def read(self, reader: Reader) -> bytes:
        """Take it."""
        return reader.fixed(self.size)

    def write_all(self, writer: Writer, values: Sequence[bytes]) -> None:
        """Append them at once."""
        size = self.size
        for value in values:
            if len(value) != size:
                raise WireError(f"a field of {len(value)} bytes must have {size}")
        writer.parts += values

    def read_all(self, reader: Reader, count: int) -> Sequence[bytes]:
        """Take so many at once."""
        size, whole = self.size, reader.fixed(count * self.size)
        if count > _MOST_UNPACKED:
            return [whole[at : at + size] for at in range(0, len(whole), size)]
        return struct.unpack(f"{size}s" * count, whole)


@final
@dataclass(frozen=True, slots=True)
class Blob(Codec[bytes]):
    """Bytes preceded by their number."""

    holds = bytes

    def write(self, writer: Writer, value: bytes) -> None:
        """Append it."""
        writer.blob(value)

    def read(self, reader: Reader) -> bytes:
        """Take it."""
        return reader.blob()

    def write_all(self, writer: Writer, values: Sequence[bytes]) -> None:
        """Append them."""
        parts = writer.parts
        for value in values:
            parts += (len(value).to_bytes(4, "little"), value)

    def read_all(self, reader: Reader, count: int) -> Sequence[bytes]:
        """Take so many."""
        return [reader.blob() for _ in range(count)]


@final
@dataclass(frozen=True, slots=True)
class Text(Codec[str]):
    """UTF-8 preceded by its length."""

    holds = str

    def write(self, writer: Writer, value: str) -> None:
        """Append it."""
        writer.text(value)

    def read(self, reader: Reader) -> str:
        """Take it."""
        return reader.text()


@final
@dataclass(frozen=True, slots=True)
class Rest(Codec[bytes]):
    """All remaining bytes, whose number is one of `sizes`: a last field that may be missing."""

    sizes: tuple[int, ...]
    holds = bytes

    def write(self, writer: Writer, value: bytes) -> None:
        """Append it."""
        if len(value) not in self.sizes:
            raise WireError(f"{len(value)} last bytes must be one of {self.sizes}")
        writer.fixed(value, len(value))

    def read(self, reader: Reader) -> bytes:
        """Take it."""
        return reader.rest(self.sizes)


@final
@dataclass(frozen=True, slots=True)
class Vector(Codec[RingVector]):
    """Ring elements of `bits` each; read at 32 bits, a read-only view of the message."""

    bits: int = 32
    holds = RingVector

    def write(self, writer: Writer, value: RingVector) -> None:
        """Append it."""
        writer.vector(value, bits=self.bits)

    def read(self, reader: Reader) -> RingVector:
        """Take it."""
        return reader.vector(bits=self.bits)


@final
@dataclass(frozen=True, slots=True)
class Positions(Codec[tuple[int, ...]]):
    """A set of positions, strictly increasing."""

    holds = tuple[int, ...]

    def write(self, writer: Writer, value: tuple[int, ...]) -> None:
        """Append it."""
        writer.positions(value)

    def read(self, reader: Reader) -> tuple[int, ...]:
        """Take it."""
        return reader.positions()


@final
@dataclass(frozen=True, slots=True)
class Given(Generic[T]):
    """A codec that depends on other values: earlier fields, or values that the reader of a message was given.

    The annotation of its field is not checked when the class is defined: its codec is known with the message.

    Args:
        sources: Names of those fields. What is told has a class attribute of its name: the value for writing.
        make: The codec for their values.
    """

    sources: tuple[str, ...]
    make: Callable[..., Codec[T]]
    form = ""


U8 = Annotated[int, Unsigned(1)]
U16 = Annotated[int, Unsigned(2)]
U32 = Annotated[int, Unsigned(4)]
U64 = Annotated[int, Unsigned(8)]
Digest = Annotated[bytes, Fixed(DIGEST_SIZE)]
Bytes = Annotated[bytes, Blob()]
String = Annotated[str, Text()]
PositionSet = Annotated[tuple[int, ...], Positions()]
