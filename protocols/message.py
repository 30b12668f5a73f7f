"""Messages whose bytes follow from the annotations of their fields.

    @final
    @dataclass(frozen=True, slots=True, kw_only=True)
    class SignedSurvivors(Message):
        message_type = MessageType.SIGNED_SURVIVORS

        context: Digest
        sender: U16
        signature: Annotated[bytes, Fixed(SIGNATURE_SIZE)]

is on the wire, in the order in which the fields are stated,

    head (4) | context (32) | sender (u16) | signature (64)

An annotation is checked against its codec when the class is defined: a field of another type, or without a codec, is a
TypeError at import. Codecs: :mod:`protocols.codec`.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, Any, ClassVar, Final, Self, TypeVar, final, get_args, get_origin, get_type_hints

from protocols.codec import Codec, Fixed, Given
from protocols.wire import MessageType, Reader, Writer

# Stands beside a codec: the field is no part of what signatures of the message cover. Such fields come last.
NOT_SIGNED: Final = "not signed"
NOTHING: Final[Mapping[str, object]] = {}


_Write = Callable[[Writer, Any], None]
_Read = Callable[[Reader], Any]


@final
class Layout:
    """The wire format of one class: its fields in the order in which they are stated.

    What can be looked up once for all messages of the class is: methods of codecs, and one :class:`struct.Struct` for
    neighbouring fields of constant size, which are read at once.

    Args:
        kind: The class; its base classes declare no fields.

    Raises:
        TypeError: A field has no codec or one for another type, or a signed field stands behind one that is not.
    """

    __slots__ = ("_given", "_names", "_reads", "_signed", "_writes")

    def __init__(self, kind: type) -> None:
        hints = get_type_hints(kind, include_extras=True)
        stated = {name: hint for name, hint in hints.items() if get_origin(hint) is not ClassVar}
        codecs = {name: _codec_of(f"{kind.__name__}.{name}", hint) for name, hint in stated.items()}
        signed = [NOT_SIGNED not in get_args(hint) for hint in stated.values()]
        if signed != sorted(signed, reverse=True):
            raise TypeError(f"{kind.__name__}: a signed field stands behind one that is not signed")
        self._names = tuple(codecs)
        self._given = {name: codec for name, codec in codecs.items() if isinstance(codec, Given)}
        # Of fixed bytes their number, else 0; of a given codec None, as there is one for each message.
        self._writes = tuple(
            (
                name,
                codec.size if isinstance(codec, Fixed) else 0,
                None if isinstance(codec, Given) else codec.write,
            )
            for name, codec in codecs.items()
        )
        self._signed = sum(signed)
        self._reads = tuple(_reads(codecs))

    def write(self, writer: Writer, record: "Record") -> None:
        """Append all fields."""
        for name, size, write in self._writes:
            value = getattr(record, name)
            # Fixed bytes in place: most fields are, and a call for each would be a tenth of the time of small messages.
            if size and len(value) == size:
                writer.parts.append(value)
            else:
                (write or self._write_of(name, record))(writer, value)

    def write_signed(self, writer: Writer, record: "Record") -> None:
        """Append the fields that signatures cover."""
        for name, _, write in self._writes[: self._signed]:
            (write or self._write_of(name, record))(writer, getattr(record, name))

    def _write_of(self, name: str, record: "Record") -> _Write:
        given = self._given[name]
        return given.make(*(getattr(record, source) for source in given.sources)).write

    def read(self, reader: Reader, told: Mapping[str, object]) -> dict[str, Any]:
        """Take all fields.

        Args:
            reader: The reader, at the first field.
            told: By name: values that a codec depends on and that no field holds.
        """
        found: list[Any] = []
        for form, read in self._reads:
            if form is not None:
                found += form.unpack(reader.fixed(form.size))
            else:
                found.append((read or self._read_of(found, told))(reader))
        return dict(zip(self._names, found))  # noqa: B905  # one for each

    def _read_of(self, found: list[Any], told: Mapping[str, object]) -> _Read:
        """Return the reader of the next field, whose codec depends on the values known so far."""
        given = self._given[self._names[len(found)]]
        known = {**told, **dict(zip(self._names, found, strict=False))}
        return given.make(*(known[source] for source in given.sources)).read


def _reads(
    codecs: Mapping[str, Codec[Any] | Given[Any]],
) -> Iterator[tuple[struct.Struct | None, _Read | None]]:
    """Yield one step of reading at a time: neighbouring fields of constant size, or one field of another kind."""
    for constant, run in groupby(codecs.values(), lambda codec: bool(codec.form)):
        fields = list(run)
        if constant and len(fields) > 1:
            yield struct.Struct("<" + "".join(codec.form for codec in fields)), None
        else:
            yield from ((None, None if isinstance(codec, Given) else codec.read) for codec in fields)


def _codec_of(where: str, hint: Any) -> Codec[Any] | Given[Any]:
    """Return the one codec of an annotation."""
    codecs = [each for each in get_args(hint)[1:] if isinstance(each, Codec | Given)]
    if get_origin(hint) is not Annotated or len(codecs) != 1:
        raise TypeError(f"{where}: must be annotated with one codec")
    (codec,) = codecs
    if isinstance(codec, Codec) and codec.holds != get_args(hint)[0]:
        raise TypeError(f"{where}: {get_args(hint)[0]} must be {codec.holds}, which its codec holds")
    return codec


class Record:
    """A frozen dataclass whose annotated fields are its wire format. It has no head: it is a part of messages."""

    __slots__ = ()
    layout: ClassVar[Layout]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.layout = Layout(cls)


class HeadedRecord(Record):
    """A record with a head and an end; :class:`Message` is the one for bytes that are not secret."""

    __slots__ = ()
    message_type: ClassVar[MessageType]

    def _encode(self) -> bytes:
        writer = Writer(self.message_type)
        self.layout.write(writer, self)
        return writer.done()

    @classmethod
    def _decode(cls, data: bytes, told: Mapping[str, object] = NOTHING) -> Self:
        """Read a record from bytes.

        Args:
            data: The bytes of the whole record.
            told: By name: values that a codec depends on and that no field holds.
        """
        reader = Reader(data, cls.message_type)
        found = cls.layout.read(reader, told)
        reader.end()
        return cls(**found)


class Message(HeadedRecord):
    """A message from one party to another."""

    __slots__ = ()

    def to_bytes(self) -> bytes:
        """Return the canonical bytes. Raises WireError where a field has another size than the format's."""
        writer = Writer(self.message_type)
        self.layout.write(writer, self)
        return b"".join(writer.parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        return cls._decode(data)


class SignedMessage(Message):
    """A message whose last fields are signatures of the fields before them."""

    __slots__ = ()

    def signed_part(self) -> bytes:
        """Return the canonical bytes that the signatures cover: all but the signatures themselves."""
        writer = Writer(self.message_type)
        self.layout.write_signed(writer, self)
        return writer.done()


R = TypeVar("R", bound=Record)


@final
@dataclass(frozen=True, slots=True)
class Inline(Codec[R]):
    """A record inside another record: its fields, with nothing around them."""

    kind: type[R]

    @property
    def holds(self) -> object:
        """The record."""
        return self.kind

    def write(self, writer: Writer, value: R) -> None:
        """Append it."""
        self.kind.layout.write(writer, value)

    def read(self, reader: Reader) -> R:
        """Take it."""
        return self.kind(**self.kind.layout.read(reader, NOTHING))
