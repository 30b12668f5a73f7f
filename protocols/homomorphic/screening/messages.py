"""The messages of screening.

decryptor -> server [-> verifier]   EvaluationKeys     signed, once per session
server    -> verifier, or screener  ScreeningCopy      a client's copy; for a screener with the public direction
verifier, or screener -> server -> decryptor  ScreeningNumbers   two ciphertexts; a verifier's are signed
decryptor -> server     ScreeningResult      a verdict, or values to three decimals
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated, Final, Self, final

import numpy as np

from protocols.codec import U16, Bytes, Codec, Digest, Rest, String
from protocols.errors import WireError
from protocols.homomorphic.receipts import NO_COPY, OptionalSignature
from protocols.homomorphic.screening.screening import SLOTS, STEP, RealVector, Screened
from protocols.message import Message, SignedMessage
from protocols.primitives.signing import SIGNATURE_SIZE
from protocols.wire import DIGEST_SIZE, MessageType, Reader, Writer

EVALUATION_PURPOSE: Final = b"evaluation keys"
NUMBERS_PURPOSE: Final = b"screening numbers"
NO_REFERENCE: Final = bytes(DIGEST_SIZE)
_PER_UNIT: Final = round(1 / STEP)
_VALUE_SIZE: Final = 8


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationKeys(Message):
    """The keys with which the aggregator computes on copies; useless for encrypting or decrypting."""

    message_type = MessageType.EVALUATION_KEYS

    context: Digest
    keys: Bytes
    signature: Annotated[bytes, Rest((0, SIGNATURE_SIZE))] = b""

    def signed_part(self) -> bytes:
        """Return the part that the signature covers: the message with the keys replaced by their digest."""
        writer = Writer(MessageType.EVALUATION_KEYS).fixed(self.context, DIGEST_SIZE)
        return writer.fixed(hashlib.sha256(self.keys).digest(), DIGEST_SIZE).done()


@final
@dataclass(frozen=True, slots=True)
class _Rows(Codec[RealVector | None]):
    """Whole rows of SLOTS finite float64, little-endian, as one blob; none for None."""

    holds = RealVector | None

    def write(self, writer: Writer, value: RealVector | None) -> None:
        """Append them."""
        writer.blob(value.astype("<f8").tobytes() if value is not None else b"")

    def read(self, reader: Reader) -> RealVector | None:
        """Take them."""
        rows = reader.blob()
        if len(rows) % (8 * SLOTS):
            raise WireError(f"{reader.name}: {len(rows)} bytes of a direction must be whole rows")
        direction = np.frombuffer(rows, dtype="<f8").reshape(-1, SLOTS)
        if not np.isfinite(direction).all():
            raise WireError(f"{reader.name}: the direction must be finite")
        return direction if len(direction) else None


@final
@dataclass(frozen=True, slots=True)
class _Thousandths(Codec[int | None]):
    """A signed integer of eight bytes as a blob; an empty one for None."""

    holds = int | None

    def write(self, writer: Writer, value: int | None) -> None:
        """Append it."""
        writer.blob(b"" if value is None else value.to_bytes(_VALUE_SIZE, "little", signed=True))

    def read(self, reader: Reader) -> int | None:
        """Take it."""
        data = reader.blob()
        if len(data) not in (0, _VALUE_SIZE):
            raise WireError(f"{reader.name}: a value has another size")
        return int.from_bytes(data, "little", signed=True) if data else None


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScreeningCopy(Message):
    """A client's copy and the direction to compare it with: rows of unit length altogether, or none.

    A verifier is told whose copy it is, and takes no direction with it.
    """

    message_type = MessageType.SCREENING_COPY

    context: Digest
    sender: U16 = 0
    copy: Bytes
    direction: Annotated[RealVector | None, _Rows()]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScreeningNumbers(SignedMessage):
    """One update's encrypted squared norm and its inner product with the direction, if there is one.

    Args:
        context: Digest of the session under its profile, 32 bytes.
        sender: Position of the client, 0 while nobody has said whose they are.
        copy_digest: Digest of the copy that they were computed from, 32 bytes; the sender's receipt names it.
        reference: The digest of the opened sums whose mean is the direction; NO_REFERENCE where a verifier had none.
        squared_norm: One ciphertext of the lowest level, encoded.
        projection: One ciphertext of the lowest level, encoded; empty where there is no direction.
        signature: The verifier's signature; empty where there is none.
    """

    message_type = MessageType.SCREENING_NUMBERS

    context: Digest
    sender: U16 = 0
    copy_digest: Digest = NO_COPY
    reference: Digest = NO_REFERENCE
    squared_norm: Bytes
    projection: Bytes
    signature: OptionalSignature = b""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ScreeningResult(Message):
    """The decryptor's verdict on one update, with the values that it releases.

    Args:
        reason: Why it is rejected; empty if it passes.
        norm: L2 norm in thousandths of an input bound; None where only verdicts are released.
        cosine: Cosine to the direction in thousandths; None where only verdicts are released, or without a direction.
    """

    message_type = MessageType.SCREENING_RESULT

    reason: String
    norm: Annotated[int | None, _Thousandths()] = None
    cosine: Annotated[int | None, _Thousandths()] = None

    @classmethod
    def of(cls, screened: Screened) -> Self:
        """Return the message of a verdict."""
        norm, cosine = screened.norm, screened.cosine
        return cls(
            reason=screened.reason,
            norm=None if norm is None else round(norm * _PER_UNIT),
            cosine=None if cosine is None else round(cosine * _PER_UNIT),
        )

    @property
    def screened(self) -> Screened:
        """The verdict."""
        return Screened(
            reason=self.reason,
            norm=None if self.norm is None else self.norm * STEP,
            cosine=None if self.cosine is None else self.cosine * STEP,
        )
