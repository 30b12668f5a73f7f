"""Field codecs that are composed of other codecs; see :mod:`protocols.codec`.

ByPosition(item)         Mapping[int, T]       the positions, then their items in the same order
SameSize()               Mapping[int, bytes]   the positions, then one blob of values that are equally long
ByNumbers(count, item)   Mapping[tuple, T]     u32 number, then keys of `count` u16 and items, keys strictly increasing
Listed(item, count)      tuple[T, ...]         number in `count` bytes, then the items
Pair(first, second)      tuple[T, U]           the two items
Nested(kind)             message               blob of its bytes
OptionalNested(kind)     message or None       the same; empty for None
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from types import GenericAlias
from typing import Protocol, Self, TypeVar, final

from protocols.codec import Codec
from protocols.errors import WireError
from protocols.wire import Reader, Writer

T = TypeVar("T")
U = TypeVar("U")


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
    """A mapping from positions to values of equal size, which travel in one piece."""

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
        item: Codec of one item.
        count: Bytes of the count field.
        increasing: The attribute of the items by which they must strictly increase; empty where any order will do.
        check: Called with the count before any item is read; raises if the count is impossible.
    """

    item: Codec[T]
    count: int
    increasing: str = ""
    check: Callable[[int], None] | None = None

    @property
    def holds(self) -> object:
        """A tuple."""
        return GenericAlias(tuple, (self.item.holds, ...))

    def write(self, writer: Writer, value: tuple[T, ...]) -> None:
        """Append them."""
        self.write_all(writer, (value,))

    def read(self, reader: Reader) -> tuple[T, ...]:
        """Take them."""
        number = int.from_bytes(reader.fixed(self.count), "little")
        if self.check is not None:
            self.check(number)
        items = self.item.read_all(reader, number)
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
    """Two values, one after the other."""

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
    """A class with a canonical encoding of its own."""

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
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
    """A nested message or None; None is written as an empty blob."""

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
