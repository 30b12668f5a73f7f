"""Screening at the verifier: it computes the numbers itself, from inputs that no aggregator chooses.

The copy is the one that the client's receipt names on the fixed list. The direction is the mean of the sums that the
decryptor opened last, band by band; the verifier knows them by the decryptor's signature and by the sum that it has signed
itself. An aggregator that named a direction of its own could read an update coordinate by coordinate, and one that
computed the numbers could have anything opened in their place. What clients can do to the direction: `screening.py`. A
verifier that is started again knows no sum. Its operator, and nobody else, can give it the direction that it held before.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Final, Self, final

import numpy as np

from protocols.codec import Codec, Digest
from protocols.containers import ByPosition
from protocols.errors import ContextError, ScreeningError, StageError, WireError
from protocols.homomorphic import checks
from protocols.homomorphic.messages import RESULT_PURPOSE, DecryptedSums
from protocols.homomorphic.receipts import InputReceipt
from protocols.homomorphic.scheme.ckks import Evaluator
from protocols.homomorphic.screening.messages import (
    EVALUATION_PURPOSE,
    NO_REFERENCE,
    NUMBERS_PURPOSE,
    EvaluationKeys,
    ScreeningCopy,
    ScreeningNumbers,
)
from protocols.homomorphic.screening.numbers import compute_numbers
from protocols.homomorphic.screening.screening import RealVector, unit_direction
from protocols.homomorphic.terms import EncryptionTerms
from protocols.identity.trust import Identity
from protocols.message import HeadedRecord
from protocols.wire import MessageType, Reader, Writer

_MEAN_SIZE: Final = 8


@final
@dataclass(frozen=True, slots=True)
class _Means(Codec[RealVector]):
    """Finite float64, little-endian, as one blob: nothing is lost."""

    holds = RealVector

    def write(self, writer: Writer, value: RealVector) -> None:
        """Append them."""
        writer.blob(value.astype("<f8").tobytes())

    def read(self, reader: Reader) -> RealVector:
        """Take them."""
        data = reader.blob()
        if len(data) % _MEAN_SIZE:
            raise WireError(f"{reader.name}: means must be of {_MEAN_SIZE} bytes each")
        means = np.frombuffer(data, dtype="<f8").astype(np.float64)
        if not np.isfinite(means).all():
            raise WireError(f"{reader.name}: means must be finite")
        return means


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reference(HeadedRecord):
    """The mean update of the sums that were opened last.

    Args:
        digest: Digest of the decryptor's message with these sums; NO_REFERENCE before there are any.
        means: By segment index: shape (length,), float64; zeros where nothing was opened, in the place of a segment's statistics,
            and everywhere if any opened sum was discarded.
    """

    message_type = MessageType.SERVICE_REFERENCE

    digest: Digest = NO_REFERENCE
    means: Annotated[Mapping[int, RealVector], ByPosition(_Means())]

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return self._encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reference = cls._decode(data)
        if (reference.digest == NO_REFERENCE) != (not reference.means):
            raise WireError(
                "service_reference: there are means if and only if there are sums that they are of"
            )
        return reference

    def direction(self, terms: EncryptionTerms, sender: int) -> RealVector | None:
        """Return a client's direction, of length 1 over its segments; None if there is none."""
        segments = terms.session.segments_of(terms.session.client_at(sender))
        if terms.screening is None or any(
            self.means.get(segment.index, np.zeros(0)).shape != (segment.length,) for segment in segments
        ):
            return None
        return unit_direction(dict(self.means), segments, terms.screening)


NOTHING_YET: Final = Reference(means={})


def reference_of(
    terms: EncryptionTerms, present: frozenset[int], sum_digest: bytes, opened: DecryptedSums
) -> Reference:
    """Return the reference that follows from the outcome of a signed sum.

    Where the server discards a sum, as no honest inputs add up to it, there is no direction at all: one client could otherwise
    point it along a single coordinate with a value beyond its bound, or spoil one band to leave another one alone in it.

    Args:
        terms: The terms of the session that is over.
        present: Positions of its contributors.
        sum_digest: Digest of the encrypted sum that was signed here, 32 bytes.
        opened: The decryptor's answer.

    Raises:
        ContextError: The answer is about another sum, or of another length.
        IdentityError: It is not the decryptor's.
    """
    checks.check_context(terms, opened.context)
    if opened.sum_digest != sum_digest:
        raise ContextError("the opened sums are of another sum than the one that was signed here")
    terms.trust.verify(terms.services.decryptor, RESULT_PURPOSE, opened.signed_part(), opened.signature)
    checks.check_lengths(terms, opened)
    means = {segment.index: np.zeros(segment.length) for segment in terms.session.segments}
    tail = terms.screening.ignored_tail if terms.screening is not None else 0
    sums = {index: opened.integers(index) for index in opened.sums}
    discarded = any(
        checks.reason_to_discard(terms, terms.session.segments[index], present, summed)
        for index, summed in sums.items()
    )
    for index, summed in () if discarded else sums.items():
        segment = terms.session.segments[index]
        means[index] = summed[: segment.length] / max(1, terms.holding(segment, present))
        # Statistics are no part of an update, and of no use to whoever keeps this.
        means[index][segment.length - tail :] = 0.0
    return Reference(digest=opened.digest, means=means)


@final
class VerifiedScreening:
    """The screening of one session at the verifier.

    Args:
        terms: The terms of the session.
        identity: The identity of the verifier.
        reference: The mean update that updates are compared with.
    """

    def __init__(self, terms: EncryptionTerms, identity: Identity, reference: Reference) -> None:
        self._terms = terms
        self._identity = identity
        self._reference = reference
        self._evaluator: Evaluator | None = None

    def take_keys(self, keys: EvaluationKeys) -> None:
        """Begin to compute under the decryptor's evaluation keys.

        Raises:
            ScreeningError: The session screens nothing.
            ContextError, IdentityError, CiphertextError: They are of another session, not the decryptor's, or none.
        """
        if self._terms.screening is None:
            raise ScreeningError("the session screens nothing")
        checks.check_context(self._terms, keys.context)
        decryptor = self._terms.services.decryptor
        self._terms.trust.verify(decryptor, EVALUATION_PURPOSE, keys.signed_part(), keys.signature)
        self._evaluator = Evaluator(keys.keys)

    def numbers(self, message: ScreeningCopy, receipt: InputReceipt) -> ScreeningNumbers:
        """Return the signed numbers of the copy that a receipt on the fixed list names.

        Raises:
            StageError: There are no evaluation keys yet.
            ContextError, CiphertextError, ScreeningError: The copy is of another session, or not the receipt's.
        """
        if self._evaluator is None:
            raise StageError("the verifier has no evaluation keys of this session")
        checks.check_context(self._terms, message.context)
        if message.direction is not None:
            raise ScreeningError("the direction is the mean of the last opened sums: nobody names another")
        checks.check_copy(self._terms, receipt, message.copy)
        direction = self._reference.direction(self._terms, message.sender)
        found = compute_numbers(self._evaluator, message, direction)
        reference = self._reference.digest if direction is not None else NO_REFERENCE
        found = replace(found, reference=reference)
        return replace(found, signature=self._identity.sign(NUMBERS_PURPOSE, found.signed_part()))
