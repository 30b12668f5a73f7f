"""Checks by the client: every message is checked here before any secret of the step is used."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Final

from protocols.errors import (
    BelowThresholdError,
    ContextError,
    EnrolmentError,
    InputError,
    QuorumError,
    RosterError,
    SignatureError,
)
from protocols.identity.trust import Identity
from protocols.masking.messages import (
    KeyAdvertisement,
    KeyDirectory,
    ShareDelivery,
    SurvivorList,
    SurvivorSignatures,
)
from protocols.masking.terms import MaskingTerms
from protocols.primitives.agreement import check_encoding
from protocols.primitives.secret import Secret
from protocols.primitives.shamir import SECRET_SIZE
from protocols.session import Segment

# What a signature is for: one of these words stands before every signed message.
ADVERTISEMENT: Final = b"key advertisement"
VIEW: Final = b"participants"
SURVIVORS: Final = b"survivor list"


def signed(message: KeyAdvertisement, identity: Identity | None) -> KeyAdvertisement:
    """Return the advertisement with its client's signature, where clients have identities."""
    if identity is None:
        return message
    return replace(message, signature=identity.sign(ADVERTISEMENT, message.signed_part()))


def verify_advertisement(terms: MaskingTerms, message: KeyAdvertisement) -> None:
    """Refuse an advertisement that its client's certified identity has not signed.

    Raises:
        IdentityError: The client is not enrolled, is a service or of another rank than in the session, expired or was
            revoked, or the signature is not its own.
    """
    _verify(terms, message.sender, ADVERTISEMENT, message.signed_part(), message.signature)


def check_own(terms: MaskingTerms, identity: Identity) -> None:
    """Refuse to take part if this client's own certificate does not fit the session: the others must refuse it.

    Raises:
        EnrolmentError: It says another rank or a service, or is not the one on the roster.
        IdentityError: It has expired or was revoked.
    """
    if terms.trust is None:
        return
    terms.check_member(identity.client)
    if terms.trust.certificates[identity.client] != identity.certificate:
        raise EnrolmentError(
            f"{identity.client}: its own certificate is not the one on {terms.trust.roster.name}"
        )


def view_of(terms: MaskingTerms, nonces: Mapping[int, bytes], participants: Sequence[int]) -> bytes:
    """Return what a client's masks depend on and only the server told it: who advertised, and who takes part.

    A server that tells a victim of few participants could otherwise have their mask keys revealed by clients that were
    told of all of them, and open the victim's input alone. How long the two lists are stands before them, so that no two
    views have the same bytes.
    """
    counts = len(nonces).to_bytes(2, "big") + len(participants).to_bytes(2, "big")
    digest = hashlib.sha256(b"rbla-secure view\x00" + terms.context + counts)
    for position in sorted(nonces):
        digest.update(position.to_bytes(2, "big") + nonces[position])
    digest.update(b"".join(position.to_bytes(2, "big") for position in sorted(participants)))
    return digest.digest()


def verify_view(terms: MaskingTerms, view: bytes, *, position: int, signature: bytes) -> None:
    """Refuse an upload whose sender saw other participants.

    Raises:
        IdentityError: The signature is not the sender's, or of another view.
    """
    _verify(terms, position, VIEW, view, signature)


def _verify(terms: MaskingTerms, position: int, purpose: bytes, message: bytes, signature: bytes) -> None:
    name = terms.session.client_at(position)
    if terms.trust is not None:
        # At every signature, not only at the first: in a sparse graph a client sees advertisements of its neighbours
        # alone, and who expires in the middle of a session counts no more.
        terms.check_member(name)
        terms.trust.verify(name, purpose, message, signature)
    elif signature:
        raise SignatureError(f"{name}: a signature that nobody can verify, in a session without identities")


def check_context(terms: MaskingTerms, context: bytes) -> None:
    """Refuse a message of another session."""
    if context != terms.context:
        raise ContextError(
            "the message belongs to another session (run, round, attempt, roster, revocation list, profile or configuration)"
        )


def check_nonces(terms: MaskingTerms, directory: KeyDirectory, own: KeyAdvertisement) -> None:
    """Refuse a directory of another session, of strangers, without this client, or below the threshold."""
    check_context(terms, directory.context)
    for position in directory.nonces:
        terms.session.client_at(position)
    if directory.nonces.get(own.sender) != own.nonce:
        raise RosterError("the key directory lacks this client, or gives another nonce for it")
    if len(set(directory.nonces.values())) != len(directory.nonces):
        raise RosterError("the key directory gives one nonce twice")
    if len(directory.nonces) < terms.session.threshold:
        raise BelowThresholdError(
            f"{len(directory.nonces)} advertised clients must be >= threshold={terms.session.threshold}"
        )


def check_advertisements(
    terms: MaskingTerms, directory: KeyDirectory, own: KeyAdvertisement, *, expected: AbstractSet[int]
) -> dict[int, KeyAdvertisement]:
    """Return the advertisements of this client's neighbours, each signed, fresh to the session and given once.

    Every key must be in its canonical form, so that keys that differ as bytes differ. Small order is refused later, by
    whoever agrees.
    """
    listed = {entry.sender: entry for entry in directory.advertisements}
    if listed.pop(own.sender, None) != own:
        raise RosterError(
            "the key directory lacks this client, or gives other keys for it than it advertised"
        )
    if set(listed) != expected:
        raise RosterError("the key directory must hold exactly this client's neighbours")
    keys = [key for entry in directory.advertisements for key in all_keys(entry)]
    for key in keys:
        check_encoding(key)
    if len(set(keys)) != len(keys):
        raise RosterError("the key directory gives one key twice")
    for entry in listed.values():
        check_context(terms, entry.context)
        check_segments(terms, entry)
        if entry.nonce != directory.nonces[entry.sender]:
            raise RosterError(
                f"position {entry.sender}: its advertisement has another nonce than the directory"
            )
        verify_advertisement(terms, entry)
    return listed


def all_keys(entry: KeyAdvertisement) -> list[bytes]:
    """Return the public keys of one advertisement."""
    return [entry.sealing_key, *entry.mask_keys.values()]


def check_segments(terms: MaskingTerms, entry: KeyAdvertisement) -> None:
    """Refuse an advertisement with other mask keys or commitments than its sender's segments have secrets."""
    name = terms.session.client_at(entry.sender)
    segments = terms.session.segments_of(name)
    if set(entry.mask_keys) != {segment.index for segment in segments}:
        raise RosterError(f"{name}: must advertise one mask key for each of its segments")
    owed = {segment.index: 1 + segment.extra_secrets for segment in segments}
    if {index: len(made) for index, made in entry.commitments.items()} != owed:
        raise RosterError(
            f"{name}: must commit to one self-mask seed, and to the extra secrets, of each of its segments"
        )


def check_extra_secrets(
    mine: Sequence[Segment], given: Mapping[int, Sequence[Secret]]
) -> dict[int, Sequence[Secret]]:
    """Refuse other extra secrets than the segments have room for."""
    if strangers := set(given) - {segment.index for segment in mine}:
        raise InputError(f"extra secrets for segment {min(strangers)}, which is not this client's")
    for segment in mine:
        values = given.get(segment.index, ())
        if len(values) != segment.extra_secrets or any(len(value) != SECRET_SIZE for value in values):
            raise InputError(
                f"segment {segment.index}: {len(values)} extra secrets must be "
                f"{segment.extra_secrets} of {SECRET_SIZE} bytes"
            )
    return {segment.index: given.get(segment.index, ()) for segment in mine}


def check_delivery(
    terms: MaskingTerms,
    delivery: ShareDelivery,
    *,
    me: int,
    known: AbstractSet[int],
    neighbours: AbstractSet[int],
) -> None:
    """Refuse a delivery that is not this client's, names strangers, or lacks a promised bundle."""
    check_context(terms, delivery.context)
    if delivery.recipient != me:
        raise RosterError(f"shares for position {delivery.recipient} were delivered to {me}")
    participants = set(delivery.participants)
    if strangers := participants - known:
        raise RosterError(f"position {min(strangers)} shares without having advertised")
    if me not in participants:
        raise RosterError("the list of participants lacks this client, which has shared")
    if set(delivery.sealed) != participants & neighbours:
        raise RosterError("bundles must be delivered from exactly the participating neighbours")
    if delivery.digests.keys() != delivery.sealed.keys():
        raise RosterError("bundles must be delivered each with the digest of its commitments")
    if len(participants) < terms.session.threshold:
        raise BelowThresholdError(
            f"{len(participants)} sharing clients must be >= threshold={terms.session.threshold}"
        )
    keepers = len(terms.keepers(frozenset(delivery.sealed), me))
    if keepers < terms.share_threshold:
        raise BelowThresholdError(
            f"{keepers} keepers of this client's shares must be >= {terms.share_threshold}"
        )


def check_survivors(
    terms: MaskingTerms, request: SurvivorList, *, me: int, participants: Collection[int], view: bytes
) -> None:
    """Refuse a survivor list of another session, one that overlaps, lacks this client, or is not about who masked."""
    check_context(terms, request.context)
    survivors, dropped = set(request.survivors), set(request.dropped)
    if both := survivors & dropped:
        raise RosterError(f"position {min(both)} is listed both as survivor and as dropped")
    if me not in survivors:
        raise RosterError("the survivor list lacks this client, whose input was sent")
    if survivors | dropped != set(participants):
        raise RosterError("survivors and dropped together must be exactly the clients that shared keys")
    if len(survivors) < terms.session.threshold:
        raise BelowThresholdError(
            f"{len(survivors)} survivors must be >= threshold={terms.session.threshold}"
        )
    for thin in terms.thin_classes(survivors):
        raise QuorumError(
            f"{len(survivors.intersection(thin))} survivors of rank {terms.session.ranks[thin[0] - 1]} must be none or >= "
            f"{terms.class_quorum(len(thin))}: clients of other ranks may have computed from another function"
        )
    if set(request.view_signatures) != (survivors if terms.trust is not None else set()):
        raise RosterError("the survivor list must show every survivor's signature of who took part")
    for position in survivors - {me} if terms.trust is not None else ():
        verify_view(terms, view, position=position, signature=request.view_signatures[position])


def check_signatures(terms: MaskingTerms, request: SurvivorSignatures, survivors: SurvivorList) -> None:
    """Refuse a list that fewer survivors than the threshold have signed.

    Two different lists would need 2t signatures, and at most n + c can be made when c clients sign twice.
    """
    check_context(terms, request.context)
    if strangers := set(request.signatures) - set(survivors.survivors):
        raise RosterError(f"position {min(strangers)} signs the survivor list without being on it")
    if len(request.signatures) < terms.session.threshold:
        raise BelowThresholdError(
            f"{len(request.signatures)} signatures of the survivor list must be >= "
            f"threshold={terms.session.threshold}"
        )
    for position, signature in request.signatures.items():
        verify_survivors(terms, survivors, position=position, signature=signature)


def verify_survivors(
    terms: MaskingTerms, survivors: SurvivorList, *, position: int, signature: bytes
) -> None:
    """Refuse a signature that is not this party's signature of this very list.

    Raises:
        IdentityError: It is not.
    """
    _verify(terms, position, SURVIVORS, survivors.to_bytes(), signature)


def meets_quorum(terms: MaskingTerms, segment: Segment, survivors: Collection[int]) -> bool:
    """Return whether enough holders of a segment are on a survivor list for a client to let it open."""
    present = sum(terms.session.position(client) in survivors for client in segment.holders)
    return present >= terms.quorum(segment)
