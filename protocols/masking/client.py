"""The client of the masking protocol: four pure steps, one per stage (Bonawitz et al. 2017, figure 4).

    Advertised --create_sealed_shares--> Shared --create_masked_input--> Masked --create_revealed_shares--> Revealed

Each step takes exactly the state that makes it legal, one message and the randomness it uses, and returns the next
state and one message. Each state holds only what later steps need; the last one holds no secret.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar, final

from protocols.errors import BelowThresholdError, ContextError, RosterError, SealError, WireError
from protocols.interface import SegmentInput, check_inputs
from protocols.masking.masks import SEED_SIZE, SegmentMasks
from protocols.masking.messages import (
    KeyAdvertisement,
    KeyDirectory,
    MaskedInput,
    RevealedShares,
    SealedShares,
    ShareBundle,
    ShareDelivery,
    SurvivorList,
)
from protocols.primitives.agreement import PRIVATE_KEY_SIZE, PrivateKey
from protocols.primitives.kdf import derive_key
from protocols.primitives.sealed import KEY_SIZE, open_sealed, seal
from protocols.primitives.secret import SYSTEM_RANDOM, RandomBytes, Secret
from protocols.primitives.shamir import split
from protocols.ring import RingVector, to_ring
from protocols.session import ClientId, Segment, Session

State = TypeVar("State")
Message = TypeVar("Message")


class Step(NamedTuple, Generic[State, Message]):
    """What a step returns."""

    state: State
    message: Message


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Advertised:
    """After advertise_keys: two private keys."""

    session: Session
    me: int
    mask_key: PrivateKey
    sealing_key: PrivateKey


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """After share_keys: the peers' mask keys, the secrets shared with them, this client's own seeds and bundle."""

    session: Session
    me: int
    mask_key: PrivateKey
    peers: Mapping[int, bytes]
    sealing_secrets: Mapping[int, Secret]
    seeds: Mapping[int, Secret]
    own_bundle: ShareBundle = field(repr=False)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """After mask_input: the bundles of everyone who masks, one's own included."""

    session: Session
    me: int
    bundles: Mapping[int, ShareBundle] = field(repr=False)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Revealed:
    """After reveal_shares: nothing secret is left. `refused` lists the segments this client kept closed."""

    session: Session
    me: int
    refused: tuple[int, ...]


def create_key_advertisement(
    session: Session, me: ClientId, random_bytes: RandomBytes = SYSTEM_RANDOM
) -> Step[Advertised, KeyAdvertisement]:
    """Stage advertise_keys: two fresh key pairs, used in this session only.

    Raises:
        RosterError: This client is no member of the session.
    """
    state = Advertised(
        session=session,
        me=session.position(me),
        mask_key=PrivateKey(Secret.random(PRIVATE_KEY_SIZE, random_bytes)),
        sealing_key=PrivateKey(Secret.random(PRIVATE_KEY_SIZE, random_bytes)),
    )
    message = KeyAdvertisement(
        context=session.context,
        sender=state.me,
        mask_key=state.mask_key.public,
        sealing_key=state.sealing_key.public,
    )
    return Step(state, message)


def create_sealed_shares(
    state: Advertised, directory: KeyDirectory, random_bytes: RandomBytes = SYSTEM_RANDOM
) -> Step[Shared, SealedShares]:
    """Stage share_keys: share the mask key and one fresh self-mask seed per segment among everyone in the directory.

    Shares of every segment's seed go to all, not only to the segment's members: a thin segment stays recoverable.

    Raises:
        ContextError, RosterError: The directory is of another session, or lacks this client or holds strangers.
        BelowThresholdError: The directory is shorter than the threshold.
    """
    peers = _check_directory(state, directory)
    session = state.session
    mine = session.segments_of(session.client_at(state.me))
    seeds = {segment.index: Secret.random(SEED_SIZE, random_bytes) for segment in mine}
    bundles = _split_secrets(state, seeds, sorted({*peers, state.me}), random_bytes)
    secrets = {peer: state.sealing_key.agree(entry.sealing_key) for peer, entry in peers.items()}
    sealed = {
        peer: seal(
            _sealing_key(session, secret, sender=state.me, recipient=peer),
            bundles[peer].to_bytes(),
            context=session.context,
            random_bytes=random_bytes,
        )
        for peer, secret in secrets.items()
    }
    after = Shared(
        session=session,
        me=state.me,
        mask_key=state.mask_key,
        peers={peer: entry.mask_key for peer, entry in peers.items()},
        sealing_secrets=secrets,
        seeds=seeds,
        own_bundle=bundles[state.me],
    )
    return Step(after, SealedShares(context=session.context, sender=state.me, sealed=sealed))


def create_masked_input(
    state: Shared, delivery: ShareDelivery, inputs: Mapping[int, SegmentInput]
) -> Step[Masked, MaskedInput]:
    """Stage mask_input: add the self mask and the pairwise masks of everyone whose shares were delivered.

    Raises:
        ContextError, RosterError: The delivery is of another session, for another client, or holds strangers.
        BelowThresholdError: Fewer clients than the threshold have shared.
        SealError: A bundle does not authenticate, or holds other shares than its sender owes.
        InputError: The inputs do not fit the session.
    """
    session = state.session
    _check_delivery(state, delivery)
    check_inputs(session, session.client_at(state.me), inputs)
    bundles = {sender: _open_bundle(state, sender, sealed) for sender, sealed in delivery.sealed.items()}
    pairwise = {peer: state.mask_key.agree(state.peers[peer]) for peer in bundles}
    masked = {
        segment.index: _mask(state, segment, inputs[segment.index], pairwise)
        for segment in session.segments_of(session.client_at(state.me))
    }
    after = Masked(session=session, me=state.me, bundles={**bundles, state.me: state.own_bundle})
    return Step(after, MaskedInput(context=session.context, sender=state.me, segments=masked))


def create_revealed_shares(state: Masked, request: SurvivorList) -> Step[Revealed, RevealedShares]:
    """Stage reveal_shares: for each peer that masked, either a self-mask share or a mask-key share, never both.

    A segment with fewer survivors than its quorum is left out: without its self masks it stays closed.

    Raises:
        ContextError: The list is of another session.
        RosterError: The lists overlap, lack this client, or do not make up exactly those who masked.
        BelowThresholdError: Fewer survivors than the threshold.
    """
    session = state.session
    _check_survivors(state, request)
    survivors = set(request.survivors)
    open_segments = {
        segment.index: {session.position(client) for client in segment.members} & survivors
        for segment in session.segments
    }
    refused = tuple(s.index for s in session.segments if len(open_segments[s.index]) < s.quorum)
    self_mask_shares = {
        (peer, index): state.bundles[peer].self_mask_shares[index]
        for index, present in open_segments.items()
        if index not in refused
        for peer in present
    }
    message = RevealedShares(
        context=session.context,
        sender=state.me,
        mask_key_shares={peer: state.bundles[peer].mask_key_share for peer in request.dropped},
        self_mask_shares=self_mask_shares,
    )
    return Step(Revealed(session=session, me=state.me, refused=refused), message)


def _check_context(session: Session, context: bytes) -> None:
    if context != session.context:
        raise ContextError(
            "the message belongs to another session (run, round, attempt, roster or configuration)"
        )


def _check_directory(state: Advertised, directory: KeyDirectory) -> dict[int, KeyAdvertisement]:
    """The peers' advertisements, this client's own taken out."""
    session = state.session
    _check_context(session, directory.context)
    listed = {advertisement.sender: advertisement for advertisement in directory.advertisements}
    _check_positions(session, listed)
    own = listed.pop(state.me, None)
    if own is None:
        raise RosterError("the key directory lacks this client")
    if (own.mask_key, own.sealing_key) != (state.mask_key.public, state.sealing_key.public):
        raise RosterError("the key directory gives other keys for this client than it advertised")
    keys = [key for entry in directory.advertisements for key in (entry.mask_key, entry.sealing_key)]
    if len(set(keys)) != len(keys):
        raise RosterError("the key directory gives one key twice")
    if len(listed) + 1 < session.threshold:
        raise BelowThresholdError(
            f"{len(listed) + 1} advertised clients must be >= threshold={session.threshold}"
        )
    return listed


def _check_positions(session: Session, positions: Mapping[int, object]) -> None:
    for position in positions:
        session.client_at(position)


def _check_delivery(state: Shared, delivery: ShareDelivery) -> None:
    _check_context(state.session, delivery.context)
    if delivery.recipient != state.me:
        raise RosterError(f"shares for position {delivery.recipient} were delivered to {state.me}")
    if strangers := set(delivery.sealed) - set(state.peers):
        raise RosterError(f"position {min(strangers)} shares without having advertised, or is this client")
    if len(delivery.sealed) + 1 < state.session.threshold:
        raise BelowThresholdError(
            f"{len(delivery.sealed) + 1} sharing clients must be >= threshold={state.session.threshold}"
        )


def _check_survivors(state: Masked, request: SurvivorList) -> None:
    _check_context(state.session, request.context)
    survivors, dropped = set(request.survivors), set(request.dropped)
    if both := survivors & dropped:
        raise RosterError(f"position {min(both)} is listed both as survivor and as dropped")
    if state.me not in survivors:
        raise RosterError("the survivor list lacks this client, whose input was sent")
    if survivors | dropped != set(state.bundles):
        raise RosterError("survivors and dropped together must be exactly the clients that shared keys")
    if len(survivors) < state.session.threshold:
        raise BelowThresholdError(
            f"{len(survivors)} survivors must be >= threshold={state.session.threshold}"
        )


def _sealing_key(session: Session, secret: Secret, *, sender: int, recipient: int) -> Secret:
    """One key per direction: what u seals for v cannot be played back as v's for u."""
    context = (session.context, sender.to_bytes(2, "big"), recipient.to_bytes(2, "big"))
    return derive_key(secret, label="sealed shares", context=context, size=KEY_SIZE)


def _split_secrets(
    state: Advertised, seeds: Mapping[int, Secret], holders: list[int], random_bytes: RandomBytes
) -> dict[int, ShareBundle]:
    def shares_of(secret: Secret) -> dict[int, Secret]:
        return split(secret, threshold=state.session.threshold, abscissas=holders, random_bytes=random_bytes)

    mask_key_shares = shares_of(state.mask_key.secret)
    seed_shares = {index: shares_of(seed) for index, seed in seeds.items()}
    return {
        holder: ShareBundle(
            mask_key_share=mask_key_shares[holder],
            self_mask_shares={index: shares[holder] for index, shares in seed_shares.items()},
        )
        for holder in holders
    }


def _open_bundle(state: Shared, sender: int, sealed: bytes) -> ShareBundle:
    session = state.session
    key = _sealing_key(session, state.sealing_secrets[sender], sender=sender, recipient=state.me)
    name = session.client_at(sender)
    try:
        bundle = ShareBundle.from_bytes(open_sealed(key, sealed, context=session.context))
    except (SealError, WireError) as error:
        raise SealError(f"the share bundle of {name}: {error}") from None
    if set(bundle.self_mask_shares) != {segment.index for segment in session.segments_of(name)}:
        raise SealError(f"the share bundle of {name} holds shares of other segments than its own")
    return bundle


def _mask(state: Shared, segment: Segment, given: SegmentInput, pairwise: Mapping[int, Secret]) -> RingVector:
    session = state.session
    masks = SegmentMasks(context=session.context, segment=segment.index, binding=given.binding)
    masked = to_ring(given.values)
    masks.add_self(masked, state.seeds[segment.index], owner=state.me)
    for peer in map(session.position, segment.members):
        if peer in pairwise:
            masks.add_pairwise(masked, pairwise[peer], owner=state.me, peer=peer)
    return masked
