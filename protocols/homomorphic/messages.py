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
from typing import Self, final

from protocols.homomorphic.receipts import InputReceipt
from protocols.primitives.signing import SIGNATURE_SIZE
from protocols.ring import IntegerVector, RingVector, centred, to_ring
from protocols.wire import DIGEST_SIZE, MessageType, Reader, Writer

# What a signature is for: one of these words stands before every signed message.
KEY_PURPOSE = b"encryption key"
SUM_PURPOSE = b"encrypted sum"
RESULT_PURPOSE = b"decrypted sums"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RoundKey:
    """The public key of one session.

    Args:
        context: Of the session under its profile.
        key: Residues of the public key, encoded.
        screening_key: Residues of the public key for copies that are screened; empty where nothing is.
        signature: The decryptor's.
    """

    context: bytes
    key: bytes
    screening_key: bytes = b""
    signature: bytes = b""

    def signed_part(self) -> bytes:
        """What the signature covers."""
        writer = Writer(MessageType.ROUND_KEY).fixed(self.context, DIGEST_SIZE)
        return writer.blob(self.key).blob(self.screening_key).done()

    @property
    def key_id(self) -> bytes:
        """SHA-256 of the signed part: what every message about this key names."""
        return hashlib.sha256(self.signed_part()).digest()

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        return self.signed_part() + self.signature

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.ROUND_KEY)
        message = cls(
            context=reader.fixed(DIGEST_SIZE),
            key=reader.blob(),
            screening_key=reader.blob(),
            signature=reader.fixed(SIGNATURE_SIZE),
        )
        reader.end()
        return message


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncryptedInput:
    """A client's ciphertexts by segment index, a copy for screening where there is any, and the receipt of both.

    A verifier that adds is sent it without the copy. Nothing here is signed but the receipt, which was fixed before:
    only what hashes to its digests is taken.
    """

    receipt: InputReceipt
    ciphertexts: Mapping[int, bytes]
    copy: bytes = b""

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        writer = Writer(MessageType.ENCRYPTED_INPUT).blob(self.receipt.to_bytes()).blob(self.copy)
        return _write_ciphertexts(writer, self.ciphertexts).done()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.ENCRYPTED_INPUT)
        message = cls(
            receipt=InputReceipt.from_bytes(reader.blob()),
            copy=reader.blob(),
            ciphertexts=_read_ciphertexts(reader),
        )
        reader.end()
        return message


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncryptedSum:
    """The sums that are to be decrypted.

    Args:
        context: Of the session under its profile.
        key_id: Of the round key.
        inputs_digest: Of the fixed list of inputs.
        contributors: Positions of those whose inputs count, increasing.
        ciphertexts: By segment index: the sums of those segments that are to be opened.
    """

    context: bytes
    key_id: bytes
    inputs_digest: bytes
    contributors: tuple[int, ...]
    ciphertexts: Mapping[int, bytes]

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical bytes: what a verifier signs."""
        return hashlib.sha256(self.to_bytes()).digest()

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        writer = Writer(MessageType.ENCRYPTED_SUM).fixed(self.context, DIGEST_SIZE)
        writer.fixed(self.key_id, DIGEST_SIZE).fixed(self.inputs_digest, DIGEST_SIZE)
        writer.positions(self.contributors)
        return _write_ciphertexts(writer, self.ciphertexts).done()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.ENCRYPTED_SUM)
        message = cls(
            context=reader.fixed(DIGEST_SIZE),
            key_id=reader.fixed(DIGEST_SIZE),
            inputs_digest=reader.fixed(DIGEST_SIZE),
            contributors=reader.positions(),
            ciphertexts=_read_ciphertexts(reader),
        )
        reader.end()
        return message


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SumSignature:
    """A verifier's word for one encrypted sum; with an empty signature, the lack of one."""

    signature: bytes

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        return Writer(MessageType.SUM_SIGNATURE).done() + self.signature

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.SUM_SIGNATURE)
        return cls(signature=reader.rest((0, SIGNATURE_SIZE)))


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecryptedSums:
    """What the decryptor found.

    Args:
        context: Of the session under its profile.
        sum_digest: Of the encrypted sum.
        sums: By segment index: the sums of the contributors' integers, padding included, as 32-bit words.
        signature: The decryptor's.
    """

    context: bytes
    sum_digest: bytes
    sums: Mapping[int, RingVector]
    signature: bytes = b""

    @classmethod
    def of(cls, *, context: bytes, sum_digest: bytes, sums: Mapping[int, IntegerVector]) -> Self:
        """The unsigned message of some sums."""
        words = {index: to_ring(values) for index, values in sums.items()}
        return cls(context=context, sum_digest=sum_digest, sums=words)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical bytes: what a direction for screening is known by."""
        return hashlib.sha256(self.to_bytes()).digest()

    def integers(self, index: int) -> IntegerVector:
        """The sum of one segment."""
        return centred(self.sums[index])

    def signed_part(self) -> bytes:
        """What the signature covers."""
        writer = Writer(MessageType.DECRYPTED_SUMS).fixed(self.context, DIGEST_SIZE)
        writer.fixed(self.sum_digest, DIGEST_SIZE).positions(sorted(self.sums))
        for index in sorted(self.sums):
            writer.vector(self.sums[index])
        return writer.done()

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        return self.signed_part() + self.signature

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.DECRYPTED_SUMS)
        message = cls(
            context=reader.fixed(DIGEST_SIZE),
            sum_digest=reader.fixed(DIGEST_SIZE),
            sums={index: reader.vector() for index in reader.positions()},
            signature=reader.fixed(SIGNATURE_SIZE),
        )
        reader.end()
        return message


def _write_ciphertexts(writer: Writer, ciphertexts: Mapping[int, bytes]) -> Writer:
    writer.positions(sorted(ciphertexts))
    for index in sorted(ciphertexts):
        writer.blob(ciphertexts[index])
    return writer


def _read_ciphertexts(reader: Reader) -> dict[int, bytes]:
    return {index: reader.blob() for index in reader.positions()}
