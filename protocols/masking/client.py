"""The client of the masking protocol: pure steps, one per stage (Bonawitz et al. 2017, figure 4).

    Advertised --create_sealed_shares--> Shared --create_masked_input--> Masked --create_revealed_shares--> Revealed
                                                    Masked --create_signed_survivors--> Agreed --reveal_agreed--> Revealed

The second way is that of profiles whose clients sign the survivor list before anyone reveals. Each step takes exactly
the state that makes it legal, one message and the randomness it uses, and returns the next state and one message. Each
state holds only what later steps need; the last one holds no secret.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar, final

from protocols.errors import BelowThresholdError, SealError, WireError
from protocols.identity.trust import Identity
from protocols.interface import ExtraSecrets, SegmentInput, check_inputs
from protocols.masking import checks
from protocols.masking.masks import SEED_SIZE, SegmentMasks
from protocols.masking.messages import (
    NONCE_SIZE,
    KeyAdvertisement,
    KeyDirectory,
    MaskedInput,
    RevealedShares,
    SealedShares,
    SegmentShares,
    ShareBundle,
    ShareDelivery,
    SignedSurvivors,
    SurvivorList,
    SurvivorSignatures,
)
from protocols.masking.terms import MaskingTerms
from protocols.primitives.agreement import PRIVATE_KEY_SIZE, PrivateKey
from protocols.primitives.kdf import derive_key
from protocols.primitives.sealed import KEY_SIZE, open_sealed, seal
from protocols.primitives.secret import SYSTEM_RANDOM, RandomBytes, Secret
from protocols.primitives.shamir import split
from protocols.ring import RingVector, to_ring
from protocols.session import ClientId, Segment

State = TypeVar("State")
Message = TypeVar("Message")


class Step(NamedTuple, Generic[State, Message]):
    """The new state and the message that a step returns."""

    state: State
    message: Message


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Advertised:
    """State after advertise_keys: private keys, and by segment mask keys, seeds and extra secrets committed to."""

    terms: MaskingTerms = field(repr=False)
    me: int
    advertisement: KeyAdvertisement
    mask_keys: Mapping[int, PrivateKey]
    sealing_key: PrivateKey
    seeds: Mapping[int, Secret]
    extra_secrets: ExtraSecrets


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """State after share_keys: the neighbours, the secrets shared with them, this client's own seeds and bundle.

    Args:
        terms: The terms of the session.
        me: This client's position.
        nonces: The nonces of everyone who advertised, by position.
        partners: By segment of this client: the public mask keys of those it masks with.
        sealing_secrets: By share-graph neighbour: the secret shared with it.
        mask_keys: By segment: the private mask key.
        seeds: By segment: the self-mask seed.
        own_bundle: The shares this client keeps of its own secrets, if any.
    """

    terms: MaskingTerms = field(repr=False)
    me: int
    nonces: Mapping[int, bytes] = field(repr=False)
    partners: Mapping[int, Mapping[int, bytes]] = field(repr=False)
    sealing_secrets: Mapping[int, Secret]
    mask_keys: Mapping[int, PrivateKey]
    seeds: Mapping[int, Secret]
    own_bundle: ShareBundle | None = field(repr=False)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """State after mask_input: who masks, and the bundles of the share-graph neighbours among them, its own included.

    Bundles that are disputed are not among them.
    """

    terms: MaskingTerms = field(repr=False)
    me: int
    participants: frozenset[int]
    view: bytes
    bundles: Mapping[int, ShareBundle] = field(repr=False)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """State after agree_survivors: the list this client has signed, and what it would reveal for it."""

    masked: Masked
    survivors: SurvivorList


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Revealed:
    """State after reveal_shares: nothing secret is left. `refused` lists the segments this client kept closed."""

    terms: MaskingTerms = field(repr=False)
    me: int
    refused: tuple[int, ...]


def create_key_advertisement(
    terms: MaskingTerms,
    me: ClientId,
    identity: Identity | None = None,
    random_bytes: RandomBytes = SYSTEM_RANDOM,
    *,
    extra_secrets: ExtraSecrets | None = None,
) -> Step[Advertised, KeyAdvertisement]:
    """Stage advertise_keys: fresh key pairs and seeds, used in this session only, signed by the client's identity.

    Keys are shown, seeds and extra secrets committed to: what is recovered from shares of them can be checked.

    Raises:
        RosterError: This client is no member of the session.
        InputError: The extra secrets are not those that the segments have room for.
    """
    position, mine = terms.session.position(me), terms.session.segments_of(me)
    extra = checks.check_extra_secrets(mine, extra_secrets or {})
    mask_keys = {part.index: PrivateKey(Secret.random(PRIVATE_KEY_SIZE, random_bytes)) for part in mine}
    sealing_key = PrivateKey(Secret.random(PRIVATE_KEY_SIZE, random_bytes))
    nonce = random_bytes(NONCE_SIZE)
    seeds = {part.index: Secret.random(SEED_SIZE, random_bytes) for part in mine}
    message = checks.signed(
        KeyAdvertisement(
            context=terms.context,
            sender=position,
            mask_keys={index: key.public for index, key in mask_keys.items()},
            sealing_key=sealing_key.public,
            nonce=nonce,
            commitments={
                index: terms.commitments.secrets(seed, extra[index], owner=position, segment=index)
                for index, seed in seeds.items()
            },
        ),
        identity,
    )
    state = Advertised(
        terms=terms,
        me=position,
        advertisement=message,
        mask_keys=mask_keys,
        sealing_key=sealing_key,
        seeds=seeds,
        extra_secrets=extra,
    )
    return Step(state, message)


def create_sealed_shares(
    state: Advertised, directory: KeyDirectory, random_bytes: RandomBytes = SYSTEM_RANDOM
) -> Step[Shared, SealedShares]:
    """Stage share_keys: share each segment's mask key and self-mask seed with the share graph's neighbours.

    Shares of every segment's secrets go to all neighbours, not only to the segment's members: a thin segment stays
    recoverable. A segment's extra secrets (32 bytes each) travel beside its seed. The server gets a commitment to every
    share, and can tell later whether what a holder reveals is what it was dealt.

    Raises:
        ContextError, RosterError: The directory is of another session, lacks this client, holds strangers, a key twice,
            or others than this client's neighbours.
        IdentityError: A neighbour's advertisement is not signed by its certified, unrevoked identity.
        KeyAgreementError: A key is not canonical, or a neighbour's sealing key has small order.
        BelowThresholdError: Fewer clients than the threshold advertised.
    """
    terms = state.terms
    mine = terms.session.segments_of(terms.session.client_at(state.me))
    checks.check_nonces(terms, directory, state.advertisement)
    neighbours = terms.share_graph(directory.nonces)[state.me]
    partners = {s.index: terms.mask_graph(s, directory.nonces)[state.me] for s in mine}
    peers = checks.check_advertisements(
        terms, directory, state.advertisement, expected=neighbours.union(*partners.values())
    )
    bundles = _split_secrets(state, sorted(terms.keepers(neighbours, state.me)), random_bytes)
    secrets = {peer: state.sealing_key.agree(peers[peer].sealing_key) for peer in sorted(neighbours)}
    sealed = {
        peer: seal(
            _sealing_key(terms, secret, sender=state.me, recipient=peer),
            bundles[peer].to_bytes(),
            context=terms.context,
            random_bytes=random_bytes,
        )
        for peer, secret in secrets.items()
    }
    after = Shared(
        terms=terms,
        me=state.me,
        nonces=directory.nonces,
        partners={i: {peer: peers[peer].mask_keys[i] for peer in sorted(p)} for i, p in partners.items()},
        sealing_secrets=secrets,
        mask_keys=state.mask_keys,
        seeds=state.seeds,
        own_bundle=bundles.get(state.me),
    )
    commitments = {
        holder: terms.commitments.bundle(bundle, owner=state.me, holder=holder)
        for holder, bundle in bundles.items()
    }
    message = SealedShares(context=terms.context, sender=state.me, sealed=sealed, commitments=commitments)
    return Step(after, message)


def create_masked_input(
    state: Shared,
    delivery: ShareDelivery,
    inputs: Mapping[int, SegmentInput],
    identity: Identity | None = None,
) -> Step[Masked, MaskedInput]:
    """Stage mask_input: add the self mask and the masks towards all partners who take part, and sign who that is.

    A neighbour's bundle that does not open, or does not fit the commitments that the server has to it, is put aside and
    named: it costs this client nothing but the shares in it. (To refuse the round instead would let one dishonest dealer
    turn everyone away.) A server that tampers with bundles gets fewer shares, never more. With fewer usable bundles than
    it takes to recover a secret it is not a few dealers who are at fault, and the client refuses.

    Raises:
        ContextError, RosterError: The delivery is of another session, for another client, holds strangers, or lacks a
            bundle that its list promises.
        BelowThresholdError: Fewer clients than the threshold have shared, or fewer of this client's neighbours than
            could ever recover its secrets.
        SealError: Fewer bundles can be used than recover a secret.
        InputError: The inputs do not fit the session.
        KeyAgreementError: A partner's mask key has small order.
    """
    terms, session = state.terms, state.terms.session
    name = session.client_at(state.me)
    checks.check_delivery(
        terms, delivery, me=state.me, known=state.nonces.keys(), neighbours=state.sealing_secrets.keys()
    )
    check_inputs(session, name, inputs)
    bundles, disputed = _open_bundles(state, delivery)
    participants = frozenset(delivery.participants)
    view = checks.view_of(terms, state.nonces, delivery.participants)
    masked = {
        segment.index: _mask(state, segment, inputs[segment.index], participants)
        for segment in session.segments_of(name)
    }
    after = Masked(
        terms=terms,
        me=state.me,
        participants=participants,
        view=view,
        bundles=bundles,
    )
    message = MaskedInput(
        context=terms.context,
        sender=state.me,
        segments=masked,
        ring_bits=session.ring_bits,
        disputed=disputed,
        view_signature=identity.sign(checks.VIEW, view) if identity is not None else b"",
    )
    return Step(after, message)


def create_revealed_shares(state: Masked, request: SurvivorList) -> Step[Revealed, RevealedShares]:
    """Stage reveal_shares: for each neighbour that masked, either self-mask or mask-key shares, never both.

    A segment with fewer surviving holders than its quorum under the profile is left out altogether: it stays closed.
    Of the extra secrets of the survivors of an open segment, shares are given out as the segment's rule says.

    Raises:
        ContextError: The list is of another session.
        RosterError: The lists overlap, lack this client, or do not make up exactly those who masked.
        BelowThresholdError: Fewer survivors than the threshold.
        IdentityError: A survivor has not signed that it saw the same participants.
    """
    terms = state.terms
    checks.check_survivors(terms, request, me=state.me, participants=state.participants, view=state.view)
    survivors = frozenset(request.survivors)
    refused = tuple(s.index for s in terms.session.segments if not checks.meets_quorum(terms, s, survivors))
    entrusted = {
        (peer, index): shares
        for peer, bundle in state.bundles.items()
        for index, shares in bundle.segments.items()
        if index not in refused
    }
    given_out = [terms.given_out(segment, survivors) for segment in terms.session.segments]
    message = RevealedShares(
        context=terms.context,
        sender=state.me,
        mask_key_shares={
            key: shares.mask_key for key, shares in entrusted.items() if key[0] not in survivors
        },
        self_mask_shares={key: shares.self_mask for key, shares in entrusted.items() if key[0] in survivors},
        extra_shares={
            (peer, index, number): shares.extra[number]
            for (peer, index), shares in entrusted.items()
            if peer in survivors
            for number in given_out[index]
        },
    )
    return Step(Revealed(terms=terms, me=state.me, refused=refused), message)


def create_signed_survivors(
    state: Masked, request: SurvivorList, identity: Identity
) -> Step[Agreed, SignedSurvivors]:
    """Stage agree_survivors: sign the one survivor list that this client will ever answer.

    Raises:
        As :func:`create_revealed_shares`.
    """
    checks.check_survivors(
        state.terms, request, me=state.me, participants=state.participants, view=state.view
    )
    signature = identity.sign(checks.SURVIVORS, request.to_bytes())
    message = SignedSurvivors(context=state.terms.context, sender=state.me, signature=signature)
    return Step(Agreed(masked=state, survivors=request), message)


def reveal_agreed(state: Agreed, request: SurvivorSignatures) -> Step[Revealed, RevealedShares]:
    """Stage reveal_shares after agree_survivors: reveal once enough survivors have signed the very same list.

    Raises:
        ContextError, RosterError: The signatures are of another session or of others than survivors.
        SignatureError: A signature is not of this list.
        BelowThresholdError: Fewer signatures than the threshold.
    """
    checks.check_signatures(state.masked.terms, request, state.survivors)
    return create_revealed_shares(state.masked, state.survivors)


def _sealing_key(terms: MaskingTerms, secret: Secret, *, sender: int, recipient: int) -> Secret:
    """Return the sealing key of one direction: what u seals for v cannot be replayed as v's message for u."""
    context = (terms.context, sender.to_bytes(2, "big"), recipient.to_bytes(2, "big"))
    return derive_key(secret, label="sealed shares", context=context, size=KEY_SIZE)


def _split_secrets(
    state: Advertised, holders: list[int], random_bytes: RandomBytes
) -> dict[int, ShareBundle]:
    threshold = state.terms.share_threshold
    if len(holders) < threshold:
        raise BelowThresholdError(f"{len(holders)} holders of this client's shares must be >= {threshold}")

    def shares_of(secret: Secret) -> dict[int, Secret]:
        return split(secret, threshold=threshold, abscissas=holders, random_bytes=random_bytes)

    mask_keys = {index: shares_of(key.secret) for index, key in state.mask_keys.items()}
    self_masks = {index: shares_of(seed) for index, seed in state.seeds.items()}
    extras = {index: [shares_of(value) for value in values] for index, values in state.extra_secrets.items()}
    return {
        holder: ShareBundle(
            segments={
                index: SegmentShares(
                    mask_key=mask_keys[index][holder],
                    self_mask=self_masks[index][holder],
                    extra=tuple(shares[holder] for shares in extras[index]),
                )
                for index in state.seeds
            }
        )
        for holder in holders
    }


def _open_bundles(state: Shared, delivery: ShareDelivery) -> tuple[dict[int, ShareBundle], tuple[int, ...]]:
    """Return the bundles that this client can use, its own included, by dealer; and the dealers of the others."""
    bundles = {} if state.own_bundle is None else {state.me: state.own_bundle}
    disputed: dict[int, str] = {}
    for sender, sealed in sorted(delivery.sealed.items()):
        try:
            bundles[sender] = _open_bundle(state, sender, sealed, digest=delivery.digests[sender])
        except (SealError, WireError) as error:
            disputed[sender] = f"the share bundle of {state.terms.session.client_at(sender)}: {error}"
    if disputed and len(bundles) < state.terms.share_threshold:
        raise SealError(
            f"{len(bundles)} bundles that can be used must be >= {state.terms.share_threshold}, or the server tampers "
            f"with them or gave others other terms: {'; '.join(disputed.values())}"
        )
    return bundles, tuple(disputed)


def _open_bundle(state: Shared, sender: int, sealed: bytes, *, digest: bytes) -> ShareBundle:
    terms, commitments = state.terms, state.terms.commitments
    key = _sealing_key(terms, state.sealing_secrets[sender], sender=sender, recipient=state.me)
    bundle = ShareBundle.from_bytes(open_sealed(key, sealed, context=terms.context))
    owed = {
        part.index: part.extra_secrets for part in terms.session.segments_of(terms.session.client_at(sender))
    }
    if {index: len(shares.extra) for index, shares in bundle.segments.items()} != owed:
        raise SealError("the bundle holds other shares than those of its dealer's segments")
    held = commitments.bundle(bundle, owner=sender, holder=state.me)
    if commitments.digest(held, owner=sender, holder=state.me) != digest:
        raise SealError("the shares are not those that the server has commitments to")
    return bundle


def _mask(state: Shared, segment: Segment, given: SegmentInput, participants: AbstractSet[int]) -> RingVector:
    masks = SegmentMasks(context=state.terms.context, segment=segment.index, binding=given.binding)
    key = state.mask_keys[segment.index]
    partners = {
        peer: key.agree(public)
        for peer, public in state.partners[segment.index].items()
        if peer in participants
    }
    masked = to_ring(given.values)
    masks.hide(masked, state.seeds[segment.index], partners, owner=state.me)
    return masked
