"""Receipts: each client's commitment before any ciphertexts are sent, and the one list of them in a round.

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
from typing import Annotated, Final, final

from protocols.codec import U16, Digest, Fixed, Rest
from protocols.containers import ByPosition, Listed, Nested
from protocols.errors import RosterError
from protocols.message import NOT_SIGNED, Message, SignedMessage
from protocols.primitives.signing import SIGNATURE_SIZE
from protocols.wire import DIGEST_SIZE, MessageType

INPUT_PURPOSE: Final = b"encrypted input"
FIXED_PURPOSE: Final = b"fixed inputs"
NO_COPY: Final = hashlib.sha256().digest()
NO_BINDING: Final = bytes(DIGEST_SIZE)  # of a member that holds no segment
Signature = Annotated[bytes, Fixed(SIGNATURE_SIZE), NOT_SIGNED]
OptionalSignature = Annotated[bytes, Rest((0, SIGNATURE_SIZE)), NOT_SIGNED]
Digests = Annotated[Mapping[int, bytes], ByPosition(Fixed(DIGEST_SIZE))]
_DOMAIN: Final = b"rbla-secure committed ciphertexts 2\x00"  # 1 were plain digests of the ciphertexts


def commitment_to(context: bytes, sender: int, index: int, ciphertexts: bytes) -> bytes:
    """Return SHA-256 that binds one client to the ciphertexts of one segment, in one session.

    Args:
        context: Digest of the session under its profile, 32 bytes.
        sender: Position of the client.
        index: Index of the segment.
        ciphertexts: The encoded ciphertexts.
    """
    return _commitment(context, sender, b"segment" + index.to_bytes(2, "little"), ciphertexts)


def commitment_to_copy(context: bytes, sender: int, copy: bytes) -> bytes:
    """Return SHA-256 that binds one client to its copy for screening; NO_COPY where there is none."""
    return _commitment(context, sender, b"copy\x00\x00\x00\x00\x00", copy) if copy else NO_COPY


def _commitment(context: bytes, sender: int, place: bytes, data: bytes) -> bytes:
    # All that stands before the data has one length: no two tuples hash the same bytes.
    return hashlib.sha256(_DOMAIN + context + sender.to_bytes(2, "little") + place + data).digest()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class InputReceipt(SignedMessage):
    """A signed commitment to a contribution: who contributes to which segments, without the ciphertexts.

    All that a client contributes is bound to one model: a receipt cannot name two.

    Args:
        context: Digest of the session under its profile, 32 bytes.
        sender: Position of the client.
        key_id: Digest of the round key that it encrypted under, 32 bytes.
        binding: Digest that the input is bound to, 32 bytes; NO_BINDING where it has none.
        digests: By segment index: :func:`commitment_to` its ciphertexts.
        copy_digest: :func:`commitment_to_copy`, of what is to be screened; NO_COPY where nothing is.
        signature: The client's signature.
    """

    message_type = MessageType.INPUT_RECEIPT

    context: Digest
    sender: U16
    key_id: Digest
    binding: Digest
    digests: Digests
    copy_digest: Digest = NO_COPY
    signature: Signature = b""

    def names(self, index: int, ciphertexts: bytes) -> bool:
        """Return whether its sender is committed to these ciphertexts in this segment."""
        return self.digests.get(index) == commitment_to(self.context, self.sender, index, ciphertexts)

    def names_copy(self, copy: bytes) -> bool:
        """Return whether its sender is committed to this copy."""
        return self.copy_digest == commitment_to_copy(self.context, self.sender, copy)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the whole receipt, which lists of receipts hold."""
        return hashlib.sha256(self.to_bytes()).digest()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FixedInputs(SignedMessage):
    """The one list of receipts that a round is over, as its services sign it and clients get it.

    Args:
        context: Digest of the session under its profile, 32 bytes.
        key_id: Digest of the round key, 32 bytes.
        receipts: By position: the digest of that client's receipt.
        decryptor: The decryptor's signature.
        verifier: The verifier's signature; empty where there is none.
    """

    message_type = MessageType.FIXED_INPUTS

    context: Digest
    key_id: Digest
    receipts: Digests
    decryptor: Signature = b""
    verifier: OptionalSignature = b""

    @property
    def digest(self) -> bytes:
        """SHA-256 of the signed part, which sums name."""
        return hashlib.sha256(self.signed_part()).digest()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedInputs(Message):
    """All receipts that have to be fixed, by increasing position.

    Raises:
        RosterError: A sender has two, or they are not in order.
    """

    message_type = MessageType.COMMITTED_INPUTS

    context: Digest
    key_id: Digest
    receipts: Annotated[tuple[InputReceipt, ...], Listed(Nested(InputReceipt), count=2, increasing="sender")]

    def __post_init__(self) -> None:
        for before, after in pairwise(self.receipts):
            if before.sender >= after.sender:
                raise RosterError(
                    f"a list of inputs names position {after.sender} after {before.sender}: every sender has one receipt in it, "
                    "by increasing position"
                )

    def listed(self) -> FixedInputs:
        """Return the list that has to be signed."""
        digests = {receipt.sender: receipt.digest for receipt in self.receipts}
        return FixedInputs(context=self.context, key_id=self.key_id, receipts=digests)
