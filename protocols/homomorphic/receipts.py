"""Receipts: what a client commits to before anybody's ciphertexts are sent, and the one list of them that a round is over.

    client     -> server                        InputReceipt      digests of everything it will upload, signed
    server     -> verifier, decryptor           CommittedInputs   the receipts of all contributors
    verifier, decryptor -> server -> clients    FixedInputs       digests of the receipts, signed by both

Ciphertexts can be computed with: whoever knew the others' could make its own cancel all but one of them, or repeat one. So
nobody uploads before the list of receipts is fixed, and a receipt holds a commitment to each of its ciphertexts: SHA-256 over
session, sender, place and ciphertext. What that is good for (SHA-256 as a random oracle, and collision resistant):

    hiding        the ciphertext is drawn afresh, from far more than 2^128: nobody finds it by its digest
    binding       nobody has another ciphertext for a digest that it has signed
    independence  sender and place are hashed along, so a digest that is copied out of another's receipt is that of no
                  ciphertext of the copier's: whoever signs it has nothing to upload, and loses its own place in the
                  round (commitments that can be repeated give no independence: Gennaro, ICDCS 1995)

So whatever a client may see of the others' receipts and ciphertexts, its own were chosen without them. That a digest stands
twice on a list is therefore not looked for: whoever looked would turn the one away that commits second, and that may be the
one that was copied. A client that encrypts the same twice, or what another one has told it, adds what it could add anyway.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self, final

from protocols.errors import RosterError
from protocols.primitives.signing import SIGNATURE_SIZE
from protocols.wire import DIGEST_SIZE, MessageType, Reader, Writer

INPUT_PURPOSE: Final = b"encrypted input"
FIXED_PURPOSE: Final = b"fixed inputs"
NO_COPY: Final = hashlib.sha256().digest()
NO_BINDING: Final = bytes(DIGEST_SIZE)  # of a member that holds no segment
_DOMAIN: Final = b"rbla-secure committed ciphertexts 2\x00"  # 1 were plain digests of the ciphertexts


def commitment_to(context: bytes, sender: int, index: int, ciphertexts: bytes) -> bytes:
    """SHA-256 that binds one client to the ciphertexts of one segment, in one session.

    Args:
        context: Of the session under its profile, 32 bytes.
        sender: Position of the client.
        index: Of the segment.
        ciphertexts: Encoded.
    """
    return _commitment(context, sender, b"segment" + index.to_bytes(2, "little"), ciphertexts)


def commitment_to_copy(context: bytes, sender: int, copy: bytes) -> bytes:
    """The same of the copy that is to be screened; NO_COPY where there is none."""
    return _commitment(context, sender, b"copy\x00\x00\x00\x00\x00", copy) if copy else NO_COPY


def _commitment(context: bytes, sender: int, place: bytes, data: bytes) -> bytes:
    # All that stands before the data has one length: no two tuples hash the same bytes.
    return hashlib.sha256(_DOMAIN + context + sender.to_bytes(2, "little") + place + data).digest()


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
        digests: By segment index: :func:`commitment_to` its ciphertexts.
        copy_digest: :func:`commitment_to_copy`, of what is to be screened; NO_COPY where nothing is.
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

    def names(self, index: int, ciphertexts: bytes) -> bool:
        """Whether its sender is committed to these ciphertexts in this segment."""
        return self.digests.get(index) == commitment_to(self.context, self.sender, index, ciphertexts)

    def names_copy(self, copy: bytes) -> bool:
        """Whether its sender is committed to this copy."""
        return self.copy_digest == commitment_to_copy(self.context, self.sender, copy)

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
    """All receipts that are to be fixed, by increasing position.

    Raises:
        RosterError: A sender has two, or they are not in order.
    """

    context: bytes
    key_id: bytes
    receipts: tuple[InputReceipt, ...]

    def __post_init__(self) -> None:
        for before, after in pairwise(self.receipts):
            if before.sender >= after.sender:
                raise RosterError(
                    f"a list of inputs names position {after.sender} after {before.sender}: every sender has one receipt in it, "
                    "by increasing position"
                )

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
