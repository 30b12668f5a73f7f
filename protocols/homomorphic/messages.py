"""The messages of the homomorphic mode, beside receipts (:mod:`protocols.homomorphic.receipts`).

    decryptor  -> server -> clients    RoundKey          the public key of one session, signed
    client     -> server [-> verifier] EncryptedInput    the ciphertexts of a receipt that is fixed
    server     -> decryptor            EncryptedSum      the sums, and whose inputs they hold
    verifier   -> server -> decryptor  SumSignature      "I have added the same inputs and got the same sums"
    decryptor  -> server               DecryptedSums     signed

A receipt stands for its input where the ciphertexts themselves have no business: the decryptor checks who contributed
to what without ever receiving a single client's ciphertext.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Self, final

from protocols.codec import Blob, Bytes, Digest, PositionSet, Rest, Vector
from protocols.containers import ByPosition, Nested
from protocols.homomorphic.receipts import InputReceipt, Signature
from protocols.message import Message, SignedMessage
from protocols.primitives.signing import SIGNATURE_SIZE
from protocols.ring import IntegerVector, RingVector, centred, to_ring
from protocols.wire import MessageType

# What a signature is for: one of these words stands before every signed message.
KEY_PURPOSE = b"encryption key"
SUM_PURPOSE = b"encrypted sum"
RESULT_PURPOSE = b"decrypted sums"

Ciphertexts = Annotated[Mapping[int, bytes], ByPosition(Blob())]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RoundKey(SignedMessage):
    """The public key of one session.

    Args:
        context: Digest of the session under its profile, 32 bytes.
        key: Residues of the public key, encoded.
        screening_key: Residues of the public key for copies that are screened; empty where nothing is.
        signature: The decryptor's signature.
    """

    message_type = MessageType.ROUND_KEY

    context: Digest
    key: Bytes
    screening_key: Bytes = b""
    signature: Signature = b""

    @property
    def key_id(self) -> bytes:
        """SHA-256 of the signed part; every message about this key names it."""
        return hashlib.sha256(self.signed_part()).digest()


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncryptedInput(Message):
    """A client's ciphertexts by segment index, a copy for screening where there is any, and the receipt of both.

    A verifier that adds is sent it without the copy. Nothing here is signed but the receipt, which was fixed before:
    only what hashes to its digests is taken.
    """

    message_type = MessageType.ENCRYPTED_INPUT

    receipt: Annotated[InputReceipt, Nested(InputReceipt)]
    copy: Bytes = b""
    ciphertexts: Ciphertexts


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncryptedSum(Message):
    """The sums that have to be decrypted.

    Args:
        context: Digest of the session under its profile, 32 bytes.
        key_id: Digest of the round key, 32 bytes.
        inputs_digest: Digest of the fixed list of inputs, 32 bytes.
        contributors: Positions of those whose inputs count, increasing.
        ciphertexts: By segment index: the sums of those segments that are to be opened.
    """

    message_type = MessageType.ENCRYPTED_SUM

    context: Digest
    key_id: Digest
    inputs_digest: Digest
    contributors: PositionSet
    ciphertexts: Ciphertexts

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical bytes, which a verifier signs."""
        return hashlib.sha256(self.to_bytes()).digest()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SumSignature(Message):
    """A verifier's signature of one encrypted sum; empty where there is no verifier."""

    message_type = MessageType.SUM_SIGNATURE

    signature: Annotated[bytes, Rest((0, SIGNATURE_SIZE))]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecryptedSums(SignedMessage):
    """The sums that the decryptor has opened.

    Args:
        context: Digest of the session under its profile, 32 bytes.
        sum_digest: Digest of the encrypted sum, 32 bytes.
        sums: By segment index: the sums of the contributors' integers, padding included, as 32-bit words.
        signature: The decryptor's signature.
    """

    message_type = MessageType.DECRYPTED_SUMS

    context: Digest
    sum_digest: Digest
    sums: Annotated[Mapping[int, RingVector], ByPosition(Vector())]
    signature: Signature = b""

    @classmethod
    def of(cls, *, context: bytes, sum_digest: bytes, sums: Mapping[int, IntegerVector]) -> Self:
        """Return the unsigned message for some sums."""
        words = {index: to_ring(values) for index, values in sums.items()}
        return cls(context=context, sum_digest=sum_digest, sums=words)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical bytes, which identifies a direction for screening."""
        return hashlib.sha256(self.to_bytes()).digest()

    def integers(self, index: int) -> IntegerVector:
        """Return the sum of one segment."""
        return centred(self.sums[index])
