"""Checks by the parties of the homomorphic mode, made before they compute anything with a message."""

from collections.abc import Set as AbstractSet

from protocols.errors import (
    CiphertextError,
    CommitmentError,
    ContextError,
    InputError,
    KeyUseError,
    QuorumError,
    RosterError,
    SignatureError,
)
from protocols.homomorphic.messages import (
    KEY_PURPOSE,
    DecryptedSums,
    EncryptedInput,
    EncryptedSum,
    RoundKey,
)
from protocols.homomorphic.receipts import (
    FIXED_PURPOSE,
    INPUT_PURPOSE,
    NO_BINDING,
    NO_COPY,
    FixedInputs,
    InputReceipt,
)
from protocols.homomorphic.terms import EncryptionTerms
from protocols.interface import reason_to_reject
from protocols.ring import IntegerVector
from protocols.session import Segment


def check_round_key(terms: EncryptionTerms, message: RoundKey) -> None:
    """Refuse a key of another session, or one that the decryptor has not signed.

    Raises:
        ContextError: Another session, roster, revocation list, profile or service.
        IdentityError: The signature is not the decryptor's, or the decryptor cannot be believed.
    """
    check_context(terms, message.context)
    terms.trust.verify(terms.services.decryptor, KEY_PURPOSE, message.signed_part(), message.signature)


def check_context(terms: EncryptionTerms, context: bytes) -> None:
    """Refuse a message of another session."""
    if context != terms.context:
        raise ContextError(
            "the message belongs to another session (run, round, attempt, roster, revocations, profile, services or "
            "configuration)"
        )


def check_key_id(key_id: bytes, expected: bytes) -> None:
    """Refuse a message under another key."""
    if key_id != expected:
        raise KeyUseError("encrypted under another key than this session's")


def check_receipt(terms: EncryptionTerms, receipt: InputReceipt, *, key_id: bytes) -> None:
    """Refuse a receipt of another session or key, of a stranger, for other segments than its own, or unsigned.

    Raises:
        ContextError, KeyUseError, RosterError, InputError: As said.
        IdentityError: The signature is not its sender's, or the sender cannot be believed.
    """
    check_context(terms, receipt.context)
    check_key_id(receipt.key_id, key_id)
    name = terms.session.client_at(receipt.sender)
    held = {segment.index for segment in terms.session.segments_of(name)}
    if set(receipt.digests) != held:
        raise InputError(f"{name}: the encrypted input must hold exactly its segments")
    if (terms.copy_size(name) == 0) != (receipt.copy_digest == NO_COPY):
        raise InputError(
            f"{name}: a copy to be screened must be there exactly if the session screens updates (one that screens "
            "nothing takes none)"
        )
    if (receipt.binding == NO_BINDING) == bool(held):
        raise InputError(f"{name}: a binding must be there exactly if the client holds a segment")
    terms.trust.check_client(name, rank=terms.session.rank_of(name))
    terms.trust.verify(name, INPUT_PURPOSE, receipt.signed_part(), receipt.signature)


def check_fixed(terms: EncryptionTerms, message: FixedInputs, *, mine: InputReceipt) -> None:
    """Refuse a list of inputs that the services have not both fixed, or that lacks one's own receipt. Run by a client.

    The decryptor's signature is what counts: it signs one list per key, and opens nothing else.

    Raises:
        ContextError, KeyUseError: Another session or key.
        CommitmentError: One's own receipt is missing or another, or the list is shorter than the threshold.
        IdentityError: A signature is missing, superfluous or not the service's.
    """
    check_context(terms, message.context)
    check_key_id(message.key_id, mine.key_id)
    services, signed = terms.services, message.signed_part()
    terms.trust.verify(services.decryptor, FIXED_PURPOSE, signed, message.decryptor)
    if services.verifier:
        terms.trust.verify(services.verifier, FIXED_PURPOSE, signed, message.verifier)
    elif message.verifier:
        raise SignatureError("a verifier's signature, where there is no verifier")
    if message.receipts.get(mine.sender) != mine.digest:
        raise CommitmentError("the list of inputs lacks this client's own, or names another for it")
    if len(message.receipts) < terms.session.threshold:
        raise CommitmentError(
            f"a list of {len(message.receipts)} inputs must hold threshold={terms.session.threshold}"
        )


def check_input(
    terms: EncryptionTerms, message: EncryptedInput, *, key_id: bytes, committed: InputReceipt
) -> None:
    """Refuse an input that is not the one its sender has committed to.

    Raises:
        ContextError, KeyUseError: Another session or key.
        CommitmentError: Another receipt than the committed one.
        CiphertextError: A segment's ciphertexts are missing, too many, of another size, or not those of the receipt.
    """
    receipt = message.receipt
    check_context(terms, receipt.context)
    check_key_id(receipt.key_id, key_id)
    name = terms.session.client_at(receipt.sender)
    if receipt != committed:
        raise CommitmentError(f"{name}: the receipt is not the one that it has committed to")
    if set(message.ciphertexts) != set(receipt.digests):
        raise CiphertextError(f"{name}: ciphertexts must be for exactly the segments of the receipt")
    for index, ciphertexts in message.ciphertexts.items():
        check_size(terms, terms.session.segments[index], ciphertexts)
        if not receipt.names(index, ciphertexts):
            raise CiphertextError(f"{name}: the ciphertexts of segment {index} are not those of its receipt")


def check_copy(terms: EncryptionTerms, receipt: InputReceipt, copy: bytes) -> None:
    """Refuse a copy for screening that is missing, superfluous, of another size, or not that of a receipt.

    Raises:
        CiphertextError: The copy is one of these.
    """
    name = terms.session.client_at(receipt.sender)
    if len(copy) != terms.copy_size(name):
        raise CiphertextError(
            f"{name}: {len(copy)} bytes of a copy for screening must be {terms.copy_size(name)}"
        )
    if not receipt.names_copy(copy):
        raise CiphertextError(f"{name}: the copy for screening is not that of its receipt")


def check_size(terms: EncryptionTerms, segment: Segment, ciphertexts: bytes) -> None:
    """Refuse a segment whose number of bytes is not that of its ciphertexts."""
    if len(ciphertexts) != terms.ciphertext_size(segment):
        raise CiphertextError(
            f"segment {segment.index}: {len(ciphertexts)} bytes of ciphertexts must be {terms.ciphertext_size(segment)}"
        )


def check_sum(terms: EncryptionTerms, message: EncryptedSum, *, key_id: bytes) -> None:
    """Refuse a sum of another session or key, or of another shape.

    Raises:
        ContextError, KeyUseError: As said.
        CiphertextError: A segment of the sum does not exist or has the wrong size.
    """
    check_context(terms, message.context)
    check_key_id(message.key_id, key_id)
    for index, ciphertexts in message.ciphertexts.items():
        if index >= len(terms.session.segments):
            raise CiphertextError(f"segment {index} does not exist")
        check_size(terms, terms.session.segments[index], ciphertexts)


def check_classes(terms: EncryptionTerms, present: AbstractSet[int]) -> None:
    """Refuse contributors of which some rank has a few members, but fewer than its quorum.

    Clients of different ranks may have computed from different functions, and a server can choose the adapter so that all
    but one rank add zeros: then the sum over everybody is the sum over that rank's members alone.

    Raises:
        QuorumError: There is such a rank.
    """
    for thin in terms.thin_classes(present):
        name = terms.session.client_at(min(thin))
        raise QuorumError(
            f"{len(thin.intersection(present))} contributors of rank {terms.session.rank_of(name)} must be none or >= "
            f"class_quorum={terms.session.class_quorum}"
        )


def reason_to_keep_closed(terms: EncryptionTerms, segment: Segment, present: AbstractSet[int]) -> str:
    """Return why a segment may not be opened over these contributors; empty if it may."""
    holding = terms.holding(segment, frozenset(present))
    if holding < segment.quorum:
        return f"{holding} surviving holders, quorum {segment.quorum}"
    return ""


def check_whole(terms: EncryptionTerms, present: AbstractSet[int], message: EncryptedSum) -> None:
    """Refuse a sum of a session that screens updates if it leaves out a band that may be opened.

    What is opened is what the next updates are held against: an aggregator that chose the bands would choose the direction. Which
    clients it is over, it chooses all the same, as far as threshold, quorums and classes let it.

    Raises:
        CiphertextError: The sum leaves out such a band.
    """
    if terms.screening is None:
        return
    for segment in terms.session.segments:
        if segment.index not in message.ciphertexts and not reason_to_keep_closed(terms, segment, present):
            raise CiphertextError(
                f"segment {segment.index}: its sum is missing: where updates are screened every band that meets its quorum "
                "is opened, or none"
            )


def check_lengths(terms: EncryptionTerms, message: DecryptedSums) -> None:
    """Refuse opened sums of segments that do not exist, or of another length than their ciphertexts have slots.

    Raises:
        ContextError: There is such a sum.
    """
    profile, segments = terms.profile, terms.session.segments
    for index, words in message.sums.items():
        if index >= len(segments):
            raise ContextError(f"segment {index} does not exist")
        if len(words) != profile.ciphertexts(segments[index].length) * profile.values_per_ciphertext:
            raise ContextError(f"segment {index}: the decryptor has answered with another length")


def reason_to_discard(
    terms: EncryptionTerms, segment: Segment, present: AbstractSet[int], summed: IntegerVector
) -> str:
    """Return why an opened sum must be discarded; empty if it counts. The verifier applies it to its direction.

    Args:
        terms: The terms of the session.
        segment: The segment.
        present: Positions of the contributors.
        summed: The opened sum, including the padding of the last ciphertext.
    """
    contributors = len(terms.present(segment, frozenset(present)))
    if reason := reason_to_reject(terms.session, summed, present=contributors):
        return reason
    if summed[segment.length :].any():
        return "what fills up its last ciphertext is not zero: a member did not follow the protocol"
    return ""


def check_member(terms: EncryptionTerms, position: int, receipt: InputReceipt) -> None:
    """Refuse a receipt that another member sent than the one it names."""
    if receipt.sender != position:
        name = terms.session.client_at(position)
        raise RosterError(f"{name}: the message is from position {receipt.sender}, not {position}")
