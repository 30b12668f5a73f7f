"""What a party of the homomorphic mode refuses, before it computes anything with it."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from protocols.errors import CiphertextError, ContextError, InputError, KeyUseError, RosterError
from protocols.homomorphic.messages import (
    INPUT_PURPOSE,
    KEY_PURPOSE,
    NO_COPY,
    EncryptedInput,
    EncryptedSum,
    InputReceipt,
    RoundKey,
    digest_of,
)
from protocols.homomorphic.terms import Terms
from protocols.session import Segment


def check_round_key(terms: Terms, message: RoundKey) -> None:
    """Refuse a key of another session, or one that the decryptor has not signed.

    Raises:
        ContextError: Another session, roster, profile or service.
        IdentityError: The signature is not the decryptor's, or the decryptor cannot be believed.
    """
    check_context(terms, message.context)
    terms.trust.verify(terms.services.decryptor, KEY_PURPOSE, message.signed_part(), message.signature)


def check_context(terms: Terms, context: bytes) -> None:
    """Refuse a message of another session."""
    if context != terms.context:
        raise ContextError(
            "the message belongs to another session (run, round, attempt, roster, profile, services or configuration)"
        )


def check_key_id(key_id: bytes, expected: bytes) -> None:
    """Refuse what is under another key."""
    if key_id != expected:
        raise KeyUseError("encrypted under another key than this session's")


def check_receipt(terms: Terms, receipt: InputReceipt, *, key_id: bytes) -> None:
    """Refuse a receipt of another session or key, of a stranger, for other segments than its own, or unsigned.

    Raises:
        ContextError, KeyUseError, RosterError, InputError: As said.
        IdentityError: The signature is not its sender's, or the sender cannot be believed.
    """
    check_context(terms, receipt.context)
    check_key_id(receipt.key_id, key_id)
    name = terms.session.client_at(receipt.sender)
    if terms.screening is None and receipt.copy_digest != NO_COPY:
        raise InputError(f"{name}: a copy to be screened, in a session that screens nothing")
    if set(receipt.parts) != {segment.index for segment in terms.session.segments_of(name)}:
        raise InputError(f"{name}: the encrypted input must hold exactly its segments")
    terms.trust.verify(name, INPUT_PURPOSE, receipt.signed_part(), receipt.signature)


def check_input(terms: Terms, message: EncryptedInput, *, key_id: bytes) -> None:
    """Refuse an input whose receipt is refused or is not about its ciphertexts, or whose size is wrong.

    Raises:
        CiphertextError: A segment's ciphertexts are missing, too many, of another size, or not those of the receipt.
        ContextError, KeyUseError, RosterError, InputError, IdentityError: As :func:`check_receipt`.
    """
    receipt = message.receipt
    check_receipt(terms, receipt, key_id=key_id)
    name = terms.session.client_at(receipt.sender)
    if set(message.ciphertexts) != set(receipt.parts):
        raise CiphertextError(f"{name}: ciphertexts must be for exactly the segments of the receipt")
    for index, ciphertexts in message.ciphertexts.items():
        check_size(terms, terms.session.segments[index], ciphertexts)
        if digest_of(ciphertexts) != receipt.parts[index].digest:
            raise CiphertextError(f"{name}: the ciphertexts of segment {index} are not those of its receipt")


def check_copy(terms: Terms, message: EncryptedInput) -> None:
    """Refuse an input whose copy for screening is missing, superfluous, of another size, or not that of its receipt.

    Raises:
        CiphertextError: That is the case.
    """
    name = terms.session.client_at(message.receipt.sender)
    if len(message.copy) != terms.copy_size(name):
        raise CiphertextError(
            f"{name}: {len(message.copy)} bytes of a copy for screening must be {terms.copy_size(name)}"
        )
    if digest_of(message.copy) != message.receipt.copy_digest:
        raise CiphertextError(f"{name}: the copy for screening is not that of its receipt")


def check_size(terms: Terms, segment: Segment, ciphertexts: bytes) -> None:
    """Refuse another number of bytes than a segment's ciphertexts have."""
    if len(ciphertexts) != terms.ciphertext_size(segment):
        raise CiphertextError(
            f"segment {segment.index}: {len(ciphertexts)} bytes of ciphertexts must be {terms.ciphertext_size(segment)}"
        )


def contributors(terms: Terms, message: EncryptedSum, *, key_id: bytes) -> frozenset[int]:
    """The positions of those whose inputs are in a sum, every one by a receipt that holds.

    Raises:
        ContextError, KeyUseError, RosterError, InputError, IdentityError: As :func:`check_receipt`.
        CiphertextError: A segment of the sum does not exist or has the wrong size.
    """
    check_context(terms, message.context)
    check_key_id(message.key_id, key_id)
    for receipt in message.receipts:
        check_receipt(terms, receipt, key_id=key_id)
    for index, ciphertexts in message.ciphertexts.items():
        if index >= len(terms.session.segments):
            raise CiphertextError(f"segment {index} does not exist")
        check_size(terms, terms.session.segments[index], ciphertexts)
    return frozenset(receipt.sender for receipt in message.receipts)


def reason_to_keep_closed(
    terms: Terms, segment: Segment, receipts: Iterable[InputReceipt], present: AbstractSet[int]
) -> str:
    """Why a segment may not be opened over these contributors; empty if it may."""
    holding = terms.holding(segment, frozenset(present))
    if holding < segment.quorum:
        return f"{holding} surviving holders, quorum {segment.quorum}"
    bindings = {
        receipt.parts[segment.index].binding for receipt in receipts if segment.index in receipt.parts
    }
    if len(bindings) > 1:
        return "its members were bound to different models"
    return ""


def check_member(terms: Terms, position: int, receipt: InputReceipt) -> None:
    """Refuse a receipt that another member sent than the one it names."""
    if receipt.sender != position:
        name = terms.session.client_at(position)
        raise RosterError(f"{name}: the message is from position {receipt.sender}, not {position}")
