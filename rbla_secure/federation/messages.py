"""The messages between coordinator and participant: requests, replies and refusals, as bytes."""

from dataclasses import dataclass
from typing import Annotated, final

from protocols.codec import Bytes, Codec, String
from protocols.errors import WireError
from protocols.message import Message
from protocols.wire import MessageType, Reader, Writer

MAX_REASON = 1000  # characters: a reason is one line for a log


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StageRequest(Message):
    """One stage of one session, to one client.

    Args:
        session: The session's canonical bytes.
        payload: The secure sum's own request.
        adapter: At the input stage, the rows of the global adapter that the plan gives the client; empty at all others.
        digests: At the input stage, the digests of the bands that are not sent, in order; empty at all others.
    """

    message_type = MessageType.STAGE_REQUEST

    session: Bytes
    payload: Bytes
    adapter: Bytes = b""
    digests: Bytes = b""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StageReply(Message):
    """A client's answer to one stage: the secure sum's own reply."""

    message_type = MessageType.STAGE_REPLY

    payload: Bytes


@final
@dataclass(frozen=True, slots=True)
class _Reason(Codec[str]):
    """Codec of a text that is cut to MAX_REASON characters when it is written."""

    holds = str

    def write(self, writer: Writer, value: str) -> None:
        """Append the text, cut to its limit."""
        writer.text(value[:MAX_REASON])

    def read(self, reader: Reader) -> str:
        """Read a text."""
        return reader.text()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StageRefusal(Message):
    """A client declines to go on with this session.

    Args:
        error: Name of the error that the client raised.
        reason: Its message; never secret bytes.
    """

    message_type = MessageType.STAGE_REFUSAL

    error: String
    reason: Annotated[str, _Reason()]


def decode_answer(data: bytes) -> StageReply | StageRefusal:
    """Decode a client's answer, a reply or a refusal.

    Raises:
        WireError: The bytes are neither.
    """
    if data[3:4] == bytes((MessageType.STAGE_REFUSAL,)):
        refusal = StageRefusal.from_bytes(data)
        if not refusal.error.isidentifier() or not refusal.reason.isprintable():
            raise WireError("stage_refusal: its texts must be printable")
        if len(refusal.reason) > MAX_REASON:
            raise WireError(
                f"stage_refusal: a reason of {len(refusal.reason)} characters must have {MAX_REASON}"
            )
        return refusal
    return StageReply.from_bytes(data)
