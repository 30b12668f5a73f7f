"""What the engine carries between coordinator and participant: requests, replies and refusals, as bytes."""

from dataclasses import dataclass
from typing import Self, final

from protocols.errors import WireError
from protocols.wire import MessageType, Reader, Writer

MAX_REASON = 1000  # characters: a reason is one line for a log


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StageRequest:
    """One stage of one session, to one client.

    Args:
        session: The session's canonical bytes.
        payload: The secure sum's own request.
        adapter: At the input stage: the rows of the global adapter that the plan gives the client; empty at all others.
        digests: There: of the bands that are not sent, in order.
    """

    session: bytes
    payload: bytes
    adapter: bytes = b""
    digests: bytes = b""

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        writer = Writer(MessageType.STAGE_REQUEST).blob(self.session).blob(self.payload)
        return writer.blob(self.adapter).blob(self.digests).done()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.STAGE_REQUEST)
        message = cls(
            session=reader.blob(), payload=reader.blob(), adapter=reader.blob(), digests=reader.blob()
        )
        reader.end()
        return message


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StageReply:
    """A client's answer to one stage: the secure sum's own reply."""

    payload: bytes

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        return Writer(MessageType.STAGE_REPLY).blob(self.payload).done()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StageRefusal:
    """A client declines to go on with this session.

    Args:
        error: Name of the error that the client raised.
        reason: Its message; never secret bytes.
    """

    error: str
    reason: str

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        return Writer(MessageType.STAGE_REFUSAL).text(self.error).text(self.reason[:MAX_REASON]).done()


def decode_answer(data: bytes) -> StageReply | StageRefusal:
    """A client's answer, whichever it is.

    Raises:
        WireError: The bytes are neither.
    """
    if data[3:4] == bytes((MessageType.STAGE_REFUSAL,)):
        reader = Reader(data, MessageType.STAGE_REFUSAL)
        refusal = StageRefusal(error=reader.text(), reason=reader.text())
        reader.end()
        if not refusal.error.isidentifier() or not refusal.reason.isprintable():
            raise WireError("stage_refusal: its texts must be printable")
        if len(refusal.reason) > MAX_REASON:
            raise WireError(
                f"stage_refusal: a reason of {len(refusal.reason)} characters must have {MAX_REASON}"
            )
        return refusal
    reader = Reader(data, MessageType.STAGE_REPLY)
    reply = StageReply(payload=reader.blob())
    reader.end()
    return reply
