"""Field codecs: each says how one field of a message stands on the wire, both ways.

A message states its format once, in the annotations of its fields (:mod:`protocols.message`). Every codec has exactly
one encoding for a value and refuses all others; what is variable is preceded by its number, and nothing is allocated
before that many bytes are known to be there.

    Unsigned(size)           int                little-endian, `size` bytes
    Flag(name)               bool               one byte, 0 or 1
    Fixed(size)              bytes              exactly `size` bytes
    Blob()                   bytes              u32 length, bytes
    Text()                   str                u16 length, UTF-8
    Rest(sizes)              bytes              all that is left, one of `sizes` bytes; the last field only
    Vector(bits)             ring elements      u32 number, `bits` each without gaps
    Positions()              tuple[int, ...]    u16 number, u16 each, strictly increasing
    ByPosition(item)         Mapping[int, T]    the positions, then their items in the same order
    SameSize()               Mapping[int, bytes]   the positions, then one blob of values that are equally long
    ByNumbers(count, item)   Mapping[tuple, T]  u32 number, then keys of `count` u16 and items, keys strictly increasing
    Listed(item, count)      tuple[T, ...]      number in `count` bytes, then the items
    Pair(first, second)      tuple[T, U]        the two items
    Nested(kind)             message            blob of its bytes
    OptionalNested(kind)     message or None    the same; empty for None

Compare `Encode`, `Decode` and `ParameterizedDecode` of libprio-rs.
"""

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from types import GenericAlias
from typing import Annotated, Final, Generic, Protocol, Self, TypeVar, final

from protocols.errors import WireError
from protocols.ring import RingVector
from protocols.wire import DIGEST_SIZE, Reader, Writer

# The struct module keeps what it has compiled, a hundred formats, and a peer chooses the count: none becomes large.
_MOST_UNPACKED: Final = 1024

T = TypeVar("T")
U = TypeVar("U")


class Codec(ABC, Generic[T]):
    """One field's two directions."""

    __slots__ = ()

    @property
    def form(self) -> str:
        """Its code in :mod:`struct` where all values have one size and need no check; else empty."""
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
        """Take a value off the front.

        Raises:
            WireError: The bytes at hand are not the one encoding of any.
        """

    def write_all(self, writer: Writer, values: Sequence[T]) -> None:
        """Append values, one behind the other."""
        for value in values:
            self.write(writer, value)

    def read_all(self, reader: Reader, count: int) -> Sequence[T]:
        """Take so many values."""
        return [self.read(reader) for _ in range(count)]


@final
@dataclass(frozen=True, slots=True)
class Unsigned(Codec[int]):
    """An unsigned integer of `size` bytes, little-endian."""

    size: int
    holds = int

    @property
    def form(self) -> str:
        """By its size."""
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
    """A byte that is 0 or 1; errors call it by its name."""

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
class Fixed(Codec[bytes]):
    """Bytes whose number is part of the format."""

    size: int
    holds = bytes

    @property
    def form(self) -> str:
        """By its size."""
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
    """All that is left, which has one of `sizes` bytes: a last field that may be missing."""

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
class ByPosition(Codec[Mapping[int, T]]):
    """A mapping from positions or segment indices: the set of keys, then the items in its order."""

    item: Codec[T]

    @property
    def holds(self) -> object:
        """A mapping."""
        return GenericAlias(Mapping, (int, self.item.holds))

    def write(self, writer: Writer, value: Mapping[int, T]) -> None:
        """Append it."""
        keys = sorted(value)
        writer.positions(keys)
        self.item.write_all(writer, [*map(value.__getitem__, keys)])

    def read(self, reader: Reader) -> Mapping[int, T]:
        """Take it."""
        keys = reader.positions()
        return dict(zip(keys, self.item.read_all(reader, len(keys))))  # noqa: B905  # as many as keys


@final
@dataclass(frozen=True, slots=True)
class SameSize(Codec[Mapping[int, bytes]]):
    """A mapping from positions to values of one and the same size, which travel in one piece."""

    holds = Mapping[int, bytes]

    def write(self, writer: Writer, value: Mapping[int, bytes]) -> None:
        """Append it."""
        if len(set(map(len, value.values()))) > 1:
            raise WireError("values that travel in one piece must have the same size")
        keys = sorted(value)
        writer.positions(keys).blob(b"".join([value[key] for key in keys]))

    def read(self, reader: Reader) -> Mapping[int, bytes]:
        """Take it."""
        keys, whole = reader.positions(), reader.blob()
        size = len(whole) // len(keys) if keys else 0
        if size * len(keys) != len(whole):
            raise WireError(f"{len(whole)} bytes must be {len(keys)} values of the same size")
        return {key: whole[at * size : (at + 1) * size] for at, key in enumerate(keys)}


@final
@dataclass(frozen=True, slots=True)
class ByNumbers(Codec[Mapping[tuple[int, ...], T]]):
    """A mapping from tuples of `count` numbers, each a u16, strictly increasing as tuples."""

    count: int
    item: Codec[T]

    @property
    def holds(self) -> object:
        """A mapping."""
        return GenericAlias(Mapping, (GenericAlias(tuple, (int,) * self.count), self.item.holds))

    def write(self, writer: Writer, value: Mapping[tuple[int, ...], T]) -> None:
        """Append it."""
        form = struct.Struct(f"<{self.count}H")
        writer.unsigned(len(value), 4)
        for key in sorted(value):
            writer.fixed(form.pack(*key), form.size)
            self.item.write(writer, value[key])

    def read(self, reader: Reader) -> Mapping[tuple[int, ...], T]:
        """Take it."""
        form = struct.Struct(f"<{self.count}H")
        entries = [
            (form.unpack(reader.fixed(form.size)), self.item.read(reader)) for _ in range(reader.unsigned(4))
        ]
        reader.check_increasing([key for key, _ in entries])
        return dict(entries)


@final
@dataclass(frozen=True, slots=True)
class Listed(Codec[tuple[T, ...]]):
    """Items preceded by their number.

    Args:
        item: One of them.
        count: Bytes of the number.
        increasing: The attribute of the items by which they must strictly increase; empty where any order will do.
    """

    item: Codec[T]
    count: int
    increasing: str = ""

    @property
    def holds(self) -> object:
        """A tuple."""
        return GenericAlias(tuple, (self.item.holds, ...))

    def write(self, writer: Writer, value: tuple[T, ...]) -> None:
        """Append them."""
        self.write_all(writer, (value,))

    def read(self, reader: Reader) -> tuple[T, ...]:
        """Take them."""
        items = self.item.read_all(reader, reader.unsigned(self.count))
        if self.increasing:
            reader.check_increasing(list(map(attrgetter(self.increasing), items)))
        return tuple(items)

    def write_all(self, writer: Writer, values: Sequence[tuple[T, ...]]) -> None:
        """Append several lists."""
        parts, count, write_items = writer.parts, self.count, self.item.write_all
        for value in values:
            parts.append(len(value).to_bytes(count, "little"))
            write_items(writer, value)


@final
@dataclass(frozen=True, slots=True)
class Pair(Codec[tuple[T, U]]):
    """Two values, one behind the other."""

    first: Codec[T]
    second: Codec[U]

    @property
    def holds(self) -> object:
        """A pair."""
        return GenericAlias(tuple, (self.first.holds, self.second.holds))

    def write(self, writer: Writer, value: tuple[T, U]) -> None:
        """Append both."""
        self.first.write(writer, value[0])
        self.second.write(writer, value[1])

    def read(self, reader: Reader) -> tuple[T, U]:
        """Take both."""
        return self.first.read(reader), self.second.read(reader)


class Encodable(Protocol):
    """Whatever has canonical bytes of its own."""

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        ...

    @classmethod
    def from_bytes(cls, data: bytes, /) -> Self:
        """Inverse of :meth:`to_bytes`."""
        ...


Message = TypeVar("Message", bound=Encodable)


@final
@dataclass(frozen=True, slots=True)
class Nested(Codec[Message]):
    """A message inside a message: its bytes, with its head, preceded by their number."""

    kind: type[Message]

    @property
    def holds(self) -> object:
        """The message."""
        return self.kind

    def write(self, writer: Writer, value: Message) -> None:
        """Append it."""
        writer.blob(value.to_bytes())

    def read(self, reader: Reader) -> Message:
        """Take it."""
        return self.kind.from_bytes(reader.blob())

    def write_all(self, writer: Writer, values: Sequence[Message]) -> None:
        """Append them."""
        for value in values:
            data = value.to_bytes()
            writer.parts += (len(data).to_bytes(4, "little"), data)

    def read_all(self, reader: Reader, count: int) -> Sequence[Message]:
        """Take so many."""
        return [self.kind.from_bytes(reader.blob()) for _ in range(count)]


@final
@dataclass(frozen=True, slots=True)
class OptionalNested(Codec[Message | None]):
    """The same, or nothing: no bytes, preceded by their number."""

    kind: type[Message]

    @property
    def holds(self) -> object:
        """The message or None."""
        return self.kind | None

    def write(self, writer: Writer, value: Message | None) -> None:
        """Append it."""
        writer.blob(b"" if value is None else value.to_bytes())

    def read(self, reader: Reader) -> Message | None:
        """Take it."""
        data = reader.blob()
        return self.kind.from_bytes(data) if data else None


@final
@dataclass(frozen=True, slots=True)
class Given(Generic[T]):
    """A codec that other values decide: fields that stand before it, or what the reader of a message was told.

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
BlobsByPosition: Final = ByPosition(Blob())
