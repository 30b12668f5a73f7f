"""The messages of screening.

decryptor -> server [-> verifier]   EvaluationKeys     signed, once per session
server    -> verifier, or screener  ScreeningCopy      a client's copy; for a screener with the public direction
verifier, or screener -> server -> decryptor  ScreeningNumbers   two ciphertexts; a verifier's are signed
decryptor -> server     ScreeningResult      a verdict, or values to three decimals
"""

import hashlib
from dataclasses import dataclass
from typing import Final, Self, final

import numpy as np

from protocols.errors import WireError
from protocols.homomorphic.receipts import NO_COPY
from protocols.homomorphic.screening import SLOTS, STEP, RealVector, Screened
from protocols.primitives.signing import SIGNATURE_SIZE
from protocols.wire import DIGEST_SIZE, MessageType, Reader, Writer

EVALUATION_PURPOSE: Final = b"evaluation keys"
NUMBERS_PURPOSE: Final = b"screening numbers"
NO_REFERENCE: Final = bytes(DIGEST_SIZE)
_PER_UNIT: Final = round(1 / STEP)
_VALUE_SIZE: Final = 8


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationKeys:
    """What the aggregator needs to compute on copies; of no use for decrypting or encrypting."""

    context: bytes
    keys: bytes
    signature: bytes = b""

    def signed_part(self) -> bytes:
        """What the signature covers."""
        writer = Writer(MessageType.EVALUATION_KEYS).fixed(self.context, DIGEST_SIZE)
        return writer.fixed(hashlib.sha256(self.keys).digest(), DIGEST_SIZE).done()

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        writer = Writer(MessageType.EVALUATION_KEYS).fixed(self.context, DIGEST_SIZE).blob(self.keys)
        return writer.done() + self.signature

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.EVALUATION_KEYS)
        context, keys = reader.fixed(DIGEST_SIZE), reader.blob()
        return cls(context=context, keys=keys, signature=reader.rest((0, SIGNATURE_SIZE)))


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScreeningCopy:
    """A client's copy, and the direction it is held against: rows of unit length altogether, or none.

    A verifier is told whose copy it is, and takes no direction with it.
    """

    context: bytes
    copy: bytes
    direction: RealVector | None
    sender: int = 0

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        rows = self.direction.astype("<f8").tobytes() if self.direction is not None else b""
        writer = Writer(MessageType.SCREENING_COPY).fixed(self.context, DIGEST_SIZE).unsigned(self.sender, 2)
        return writer.blob(self.copy).blob(rows).done()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.SCREENING_COPY)
        context, sender = reader.fixed(DIGEST_SIZE), reader.unsigned(2)
        copy, rows = reader.blob(), reader.blob()
        reader.end()
        if len(rows) % (8 * SLOTS):
            raise WireError(f"screening_copy: {len(rows)} bytes of a direction must be whole rows")
        direction = np.frombuffer(rows, dtype="<f8").reshape(-1, SLOTS)
        if not np.isfinite(direction).all():
            raise WireError("screening_copy: the direction must be finite")
        return cls(context=context, sender=sender, copy=copy, direction=direction if len(direction) else None)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScreeningNumbers:
    """One update's encrypted squared norm and its inner product with the direction, if there is one.

    Args:
        context: Of the session.
        squared_norm: One ciphertext of the lowest level, encoded.
        projection: The same; empty where there is no direction.
        sender: Position of the client, 0 while nobody has said whose they are.
        copy_digest: Of the copy that they were computed from, which its receipt names.
        reference: The digest of the opened sums whose mean is the direction; NO_REFERENCE where a verifier had none.
        signature: The verifier's; empty where there is none.
    """

    context: bytes
    squared_norm: bytes
    projection: bytes
    sender: int = 0
    copy_digest: bytes = NO_COPY
    reference: bytes = NO_REFERENCE
    signature: bytes = b""

    def signed_part(self) -> bytes:
        """What a verifier's signature covers."""
        writer = Writer(MessageType.SCREENING_NUMBERS).fixed(self.context, DIGEST_SIZE)
        writer.unsigned(self.sender, 2).fixed(self.copy_digest, DIGEST_SIZE).fixed(
            self.reference, DIGEST_SIZE
        )
        return writer.blob(self.squared_norm).blob(self.projection).done()

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        return self.signed_part() + self.signature

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.SCREENING_NUMBERS)
        return cls(
            context=reader.fixed(DIGEST_SIZE),
            sender=reader.unsigned(2),
            copy_digest=reader.fixed(DIGEST_SIZE),
            reference=reader.fixed(DIGEST_SIZE),
            squared_norm=reader.blob(),
            projection=reader.blob(),
            signature=reader.rest((0, SIGNATURE_SIZE)),
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ScreeningResult:
    """What the decryptor lets out of one update.

    Args:
        reason: Why it is rejected; empty if it passes.
        norm: In thousandths of an input bound; None where verdicts alone are let out.
        cosine: In thousandths; None there, and without a direction.
    """

    reason: str
    norm: int | None = None
    cosine: int | None = None

    @classmethod
    def of(cls, screened: Screened) -> Self:
        """The message of a verdict."""
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

    def to_bytes(self) -> bytes:
        """The canonical bytes; absent values are empty."""
        writer = Writer(MessageType.SCREENING_RESULT).text(self.reason)
        writer.blob(b"" if self.norm is None else self.norm.to_bytes(_VALUE_SIZE, "little", signed=True))
        cosine = b"" if self.cosine is None else self.cosine.to_bytes(_VALUE_SIZE, "little", signed=True)
        return writer.blob(cosine).done()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.SCREENING_RESULT)
        reason, *values = reader.text(), reader.blob(), reader.blob()
        reader.end()
        if any(len(value) not in (0, _VALUE_SIZE) for value in values):
            raise WireError("screening_result: a value has another size")
        norm, cosine = (int.from_bytes(v, "little", signed=True) if v else None for v in values)
        return cls(reason=reason, norm=norm, cosine=cosine)
