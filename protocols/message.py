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

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Self, TypeVar, final, get_args, get_origin, get_type_hints

from protocols.codec import Codec, Given
from protocols.wire import MessageType, Reader, Writer

# Stands beside a codec: the field is no part of what signatures of the message cover. Such fields come last.
NOT_SIGNED: Final = "not signed"


@final
class Layout:
    """The wire format of one class: its fields in the order in which they are stated.

    Args:
        kind: The class; its bases state no fields.

    Raises:
        TypeError: A field has no codec or one for another type, or a signed field follows one that is not.
    """

    __slots__ = ("_fields", "_signed")

    def __init__(self, kind: type) -> None:
        fields: list[tuple[str, Codec[Any] | Given[Any]]] = []
        signed = 0
        for name, hint in get_type_hints(kind, include_extras=True).items():
            if get_origin(hint) is ClassVar:
                continue
            fields.append((name, _codec_of(f"{kind.__name__}.{name}", hint)))
            if NOT_SIGNED in get_args(hint):
                continue
            signed += 1
            if signed != len(fields):
                raise TypeError(f"{kind.__name__}.{name}: stands behind a field that is not signed")
        self._fields = tuple(fields)
        self._signed = tuple(fields[:signed])

    def write(self, writer: Writer, record: "Record") -> None:
        """Append all fields."""
        self._write(writer, record, self._fields)

    def write_signed(self, writer: Writer, record: "Record") -> None:
        """Append the fields that signatures cover."""
        self._write(writer, record, self._signed)

    @staticmethod
    def _write(
        writer: Writer, record: "Record", fields: tuple[tuple[str, Codec[Any] | Given[Any]], ...]
    ) -> None:
        for name, codec in fields:
            if type(codec) is Given:
                codec = codec.make(getattr(record, codec.source))  # noqa: PLW2901
            codec.write(writer, getattr(record, name))

    def read(self, reader: Reader, told: Mapping[str, object]) -> dict[str, Any]:
        """Take all fields.

        Args:
            reader: Where they begin.
            told: By name: what the fields do not say and a codec depends on.
        """
        found: dict[str, Any] = {}
        for name, codec in self._fields:
            if type(codec) is Given:
                source = codec.source
                codec = codec.make(found[source] if source in found else told[source])  # noqa: PLW2901
            found[name] = codec.read(reader)
        return found


def _codec_of(where: str, hint: Any) -> Codec[Any] | Given[Any]:
    """The one codec of an annotation."""
    codecs = [each for each in get_args(hint)[1:] if isinstance(each, Codec | Given)]
    if get_origin(hint) is not Annotated or len(codecs) != 1:
        raise TypeError(f"{where}: must be annotated with one codec")
    (codec,) = codecs
    if isinstance(codec, Codec) and codec.holds != get_args(hint)[0]:
        raise TypeError(f"{where}: {get_args(hint)[0]} must be {codec.holds}, which its codec holds")
    return codec


class Record:
    """A frozen dataclass whose annotated fields are its wire format. Without a head: a part of messages."""

    __slots__ = ()
    _layout: ClassVar[Layout]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._layout = Layout(cls)

    def write(self, writer: Writer) -> None:
        """Append it to a message."""
        self._layout.write(writer, self)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Take one off the front of a message. Raises WireError."""
        return cls(**cls._layout.read(reader, {}))


class HeadedRecord(Record):
    """A record with a head and an end; :class:`Message` is the one for bytes that are no secret."""

    __slots__ = ()
    message_type: ClassVar[MessageType]

    def _encode(self) -> bytes:
        writer = Writer(self.message_type)
        self._layout.write(writer, self)
        return writer.done()

    @classmethod
    def _decode(cls, data: bytes, **told: object) -> Self:
        """The record of some bytes.

        Args:
            data: The bytes, to the last one.
            told: What a codec depends on and no field says.
        """
        reader = Reader(data, cls.message_type)
        found = cls._layout.read(reader, told)
        reader.end()
        record = cls(**found)
        record._check_form()
        return record

    def _check_form(self) -> None:
        """Refuse decoded fields that contradict each other. Raises WireError."""


class Message(HeadedRecord):
    """What one party sends to another."""

    __slots__ = ()

    def to_bytes(self) -> bytes:
        """The canonical bytes. Raises WireError where a field has another size than the format's."""
        return self._encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        return cls._decode(data)


class SignedMessage(Message):
    """A message that ends in signatures of what stands before them."""

    __slots__ = ()

    def signed_part(self) -> bytes:
        """What the signatures cover: the canonical bytes, without them."""
        writer = Writer(self.message_type)
        self._layout.write_signed(writer, self)
        return writer.done()


R = TypeVar("R", bound=Record)


@final
@dataclass(frozen=True, slots=True)
class Inline(Codec[R]):
    """A record in its place: its fields, and nothing around them."""

    kind: type[R]

    @property
    def holds(self) -> object:
        """The record."""
        return self.kind

    def write(self, writer: Writer, value: R) -> None:
        """Append it."""
        value.write(writer)

    def read(self, reader: Reader) -> R:
        """Take it."""
        return self.kind.read(reader)
