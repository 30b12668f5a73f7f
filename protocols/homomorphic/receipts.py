"""Receipts: what a client commits to before anybody's ciphertexts are sent, and the one list of them that a round is over.

    client     -> server                        InputReceipt      digests of everything it will upload, signed
    server     -> verifier, decryptor           CommittedInputs   the receipts of all contributors
    verifier, decryptor -> server -> clients    FixedInputs       digests of the receipts, signed by both

Ciphertexts can be computed with: whoever knew the others' could make its own cancel all but one of them, or repeat one. A
receipt holds SHA-256 of ciphertexts that are drawn afresh, which tells nothing of them and binds their sender to them;
and nobody uploads before the list of receipts is fixed. So whatever a client may see of the others' ciphertexts, its own
were chosen without them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self, final

from protocols.primitives.signing import SIGNATURE_SIZE
from protocols.wire import DIGEST_SIZE, MessageType, Reader, Writer

INPUT_PURPOSE: Final = b"encrypted input"
FIXED_PURPOSE: Final = b"fixed inputs"
NO_COPY: Final = hashlib.sha256().digest()
NO_BINDING: Final = bytes(DIGEST_SIZE)  # of a member that holds no segment


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class InputReceipt:
    """Who will contribute what to which segments, signed, without the ciphertexts.

    All that a client contributes is bound to one model: a receipt cannot name two.

    Args:
        context: Of the session under its profile.
        sender: Position of the client.
        key_id: Of the round key it encrypted under.
        binding: To what its input is bound, 32 bytes; NO_BINDING where it has none.
        digests: By segment index: SHA-256 of its ciphertexts.
        copy_digest: SHA-256 of the copy that is to be screened; of nothing where nothing is.
        signature: The client's.
    """

    context: bytes
    sender: int
    key_id: bytes
    binding: bytes
    digests: Mapping[int, bytes]
    copy_digest: bytes = NO_COPY
    signature: bytes = b""

    def signed_part(self) -> bytes:
        """What the signature covers."""
        writer = Writer(MessageType.INPUT_RECEIPT).fixed(self.context, DIGEST_SIZE).unsigned(self.sender, 2)
        writer.fixed(self.key_id, DIGEST_SIZE).fixed(self.binding, DIGEST_SIZE).positions(
            sorted(self.digests)
        )
        for index in sorted(self.digests):
            writer.fixed(self.digests[index], DIGEST_SIZE)
        return writer.fixed(self.copy_digest, DIGEST_SIZE).done()

    @property
    def digest(self) -> bytes:
        """SHA-256 of the whole receipt: what lists of them hold."""
        return hashlib.sha256(self.to_bytes()).digest()

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        return self.signed_part() + self.signature

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.INPUT_RECEIPT)
        message = cls(
            context=reader.fixed(DIGEST_SIZE),
            sender=reader.unsigned(2),
            key_id=reader.fixed(DIGEST_SIZE),
            binding=reader.fixed(DIGEST_SIZE),
            digests={index: reader.fixed(DIGEST_SIZE) for index in reader.positions()},
            copy_digest=reader.fixed(DIGEST_SIZE),
            signature=reader.fixed(SIGNATURE_SIZE),
        )
        reader.end()
        return message


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FixedInputs:
    """The one list of those who may contribute, and by digest with what; as its services sign it and clients get it.

    Args:
        context: Of the session under its profile.
        key_id: Of the round key.
        receipts: By position: the digest of that client's receipt.
        decryptor: The decryptor's signature.
        verifier: The verifier's; empty where there is none.
    """

    context: bytes
    key_id: bytes
    receipts: Mapping[int, bytes]
    decryptor: bytes = b""
    verifier: bytes = b""

    def signed_part(self) -> bytes:
        """What both signatures cover."""
        writer = Writer(MessageType.FIXED_INPUTS).fixed(self.context, DIGEST_SIZE)
        writer.fixed(self.key_id, DIGEST_SIZE).positions(sorted(self.receipts))
        for sender in sorted(self.receipts):
            writer.fixed(self.receipts[sender], DIGEST_SIZE)
        return writer.done()

    @property
    def digest(self) -> bytes:
        """SHA-256 of the signed part: what sums name."""
        return hashlib.sha256(self.signed_part()).digest()

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        return self.signed_part() + self.decryptor + self.verifier

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.FIXED_INPUTS)
        return cls(
            context=reader.fixed(DIGEST_SIZE),
            key_id=reader.fixed(DIGEST_SIZE),
            receipts={sender: reader.fixed(DIGEST_SIZE) for sender in reader.positions()},
            decryptor=reader.fixed(SIGNATURE_SIZE),
            verifier=reader.rest((0, SIGNATURE_SIZE)),
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedInputs:
    """All receipts that are to be fixed, by increasing position."""

    context: bytes
    key_id: bytes
    receipts: tuple[InputReceipt, ...]

    def listed(self) -> FixedInputs:
        """The list that is to be signed."""
        digests = {receipt.sender: receipt.digest for receipt in self.receipts}
        return FixedInputs(context=self.context, key_id=self.key_id, receipts=digests)

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        writer = Writer(MessageType.COMMITTED_INPUTS).fixed(self.context, DIGEST_SIZE)
        writer.fixed(self.key_id, DIGEST_SIZE).unsigned(len(self.receipts), 2)
        for receipt in self.receipts:
            writer.blob(receipt.to_bytes())
        return writer.done()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.COMMITTED_INPUTS)
        context, key_id = reader.fixed(DIGEST_SIZE), reader.fixed(DIGEST_SIZE)
        receipts = tuple(InputReceipt.from_bytes(reader.blob()) for _ in range(reader.unsigned(2)))
        reader.check_increasing([receipt.sender for receipt in receipts])
        reader.end()
        return cls(context=context, key_id=key_id, receipts=receipts)
