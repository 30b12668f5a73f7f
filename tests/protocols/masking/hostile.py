"""A server that keeps everything it sees and obeys nothing, with some clients in its pay: for tests of what stops it.

It speaks to honest clients in bytes alone. What it makes of their answers is worked out here, not by the package's
server: which secrets t shares recover, and over whom that takes every mask off.
"""

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import lru_cache
from hashlib import sha256
from itertools import combinations
from typing import Any, Self

import numpy as np

from protocols.identity.trust import Identity, ThrowawayAuthority, TrustStore
from protocols.interface import SegmentInput
from protocols.masking import checks
from protocols.masking import client as steps
from protocols.masking.masks import SegmentMasks
from protocols.masking.messages import (
    KeyAdvertisement,
    KeyDirectory,
    MaskedInput,
    RevealedShares,
    SealedShares,
    ShareDelivery,
    SignedSurvivors,
    SurvivorList,
    SurvivorSignatures,
)
from protocols.masking.secure_sum import Masking, MaskingClient
from protocols.masking.terms import MaskingTerms
from protocols.primitives.agreement import PrivateKey
from protocols.primitives.secret import RandomBytes, Secret
from protocols.primitives.shamir import Recovery
from protocols.profiles import ONE_ANSWER, MaskingProfile, SurvivorCheck
from protocols.ring import IntegerVector, RingVector, centred
from protocols.session import ClientId, Segment, Session

NOW = 1_760_000_000
RUN = bytes(range(16))
PLAN = sha256(b"a plan").digest()
MODEL = sha256(b"a model").digest()
OTHER_MODEL = sha256(b"another model").digest()
ENROLLED = 7

ADVERTISE, SHARE, MASK, AGREE, REVEAL = (
    "advertise_keys",
    "share_keys",
    "mask_input",
    "agree_survivors",
    "reveal_shares",
)


def names(count: int) -> tuple[ClientId, ...]:
    """So many client ids in increasing order; the first is at position 1."""
    return tuple(f"client-{number:02d}" for number in range(1, count + 1))


def stream(name: str) -> RandomBytes:
    """A reproducible source of bytes: SHA-256 of a name and a counter."""
    counter, store = 0, b""

    def take(size: int) -> bytes:
        nonlocal counter, store
        while len(store) < size:
            store += sha256(f"{name} {counter}".encode()).digest()
            counter += 1
        taken, store = store[:size], store[size:]
        return taken

    return take


@lru_cache(maxsize=4)
def authority(name: str = "enrolment") -> ThrowawayAuthority:
    """The authority that enrolled everyone, made once; another name is another authority."""
    return ThrowawayAuthority.create(dict.fromkeys(names(ENROLLED), 8), now=NOW, random_bytes=stream(name))


def segment(index: int, members: Iterable[ClientId], quorum: int = 2, length: int = 3) -> Segment:
    """A segment in fewer words."""
    return Segment(index=index, length=length, members=tuple(members), quorum=quorum)


def make_session(count: int, *segments: Segment, **terms: Any) -> Session:
    """A session of so many members; by default with one segment for all of them and one that the last does not hold."""
    members = names(count)
    defaults: dict[str, Any] = {
        "run": RUN,
        "round": 2,
        "attempt": 1,
        "members": members,
        "threshold": ONE_ANSWER.threshold(count),
        "input_bound": 1000,
        "segments": segments or (segment(0, members), segment(1, members[:-1])),
        "config_digest": PLAN,
    }
    return Session(**{**defaults, **terms})


def make_inputs(
    session: Session, *, seed: int = 0, binding: bytes = MODEL
) -> dict[int, dict[int, SegmentInput]]:
    """By position and segment: summands over the whole range that the session allows."""
    generator, bound = np.random.default_rng(seed), session.input_bound
    return {
        session.position(member): {
            part.index: SegmentInput(
                values=generator.integers(-bound, bound, size=part.length, endpoint=True, dtype=np.int64),
                binding=binding,
            )
            for part in session.segments_of(member)
        }
        for member in session.members
    }


def plain_sum(
    inputs: Mapping[int, Mapping[int, SegmentInput]], segment_index: int, chosen: Iterable[int]
) -> list[int]:
    """The sum over the chosen who hold the segment, in Python integers."""
    columns = [inputs[p][segment_index].values.tolist() for p in chosen if segment_index in inputs[p]]
    return [sum(column) for column in zip(*columns, strict=True)]


@dataclass(slots=True)
class Seen:
    """The shares that somebody revealed or that a corrupt client was entrusted with, by (owner, segment) and holder."""

    mask_keys: dict[tuple[int, int], dict[int, Secret]] = field(default_factory=dict)
    self_masks: dict[tuple[int, int], dict[int, Secret]] = field(default_factory=dict)

    def keep(self, message: RevealedShares) -> None:
        """Add what one client revealed."""
        for key, share in message.mask_key_shares.items():
            self.mask_keys.setdefault(key, {})[message.sender] = share
        for key, share in message.self_mask_shares.items():
            self.self_masks.setdefault(key, {})[message.sender] = share


class HostileServer:
    """The attacker's side of one session.

    `present` are the positions it lets take part from now on; `step` plays the current stage honestly with them, and
    everything in between is the attacker's own. Corrupt clients' states lie open in `puppets`. With `repeats` honest clients draw the
    same bytes in every session, as if they had been set back to a copy of themselves.
    """

    def __init__(
        self,
        session: Session,
        profile: MaskingProfile = ONE_ANSWER,
        *,
        corrupt: Collection[int] = (),
        trust: TrustStore | None = None,
        seed: str = "",
        repeats: bool = False,
    ) -> None:
        signed = profile.survivor_check is not SurvivorCheck.TRUST_SERVER
        self.terms = MaskingTerms(
            session=session, profile=profile, trust=(trust or authority().view) if signed else None
        )
        self.session, self.profile = session, profile
        self.stages = Masking(profile).stages
        self.stage: str | None = ADVERTISE
        self.seed = seed
        self.repeats = repeats
        self.corrupt = tuple(corrupt)
        self.inputs = make_inputs(session)
        self.present = set(range(1, len(session.members) + 1))
        self.clients = {p: self.client(p) for p in sorted(self.present - set(corrupt))}
        self.puppets: dict[int, Any] = dict.fromkeys(corrupt)
        self.mask_keys: dict[int, Mapping[int, PrivateKey]] = {}  # of the corrupt
        self.advertisements: dict[int, KeyAdvertisement] = {}
        self.nonces: Mapping[int, bytes] = {}
        self.sealed: dict[int, SealedShares] = {}
        self.views: dict[int, frozenset[int]] = {}
        self.uploads: dict[int, MaskedInput] = {}
        self.signatures: dict[int, bytes] = {}
        self.seen = Seen()

    # Who is who.

    def identity(self, position: int) -> Identity | None:
        """A member's identity, where the profile works with identities."""
        if self.terms.trust is None:
            return None
        return authority().identity(self.session.client_at(position))

    def client(self, position: int, terms: MaskingTerms | None = None) -> MaskingClient:
        """A fresh honest client for a member, by default under the session's own terms."""
        fresh = "" if self.repeats else self.session.context.hex()
        name, identity = self.session.client_at(position), self.identity(position)
        extra = {
            part.index: [Secret(sha256(b"%d" % number).digest()) for number in range(part.extra_secrets)]
            for part in (terms or self.terms).session.segments_of(name)
        }
        source = stream(f"{self.seed} {position} {fresh}")
        return MaskingClient(terms or self.terms, name, identity, source, extra_secrets=extra)

    def fork(self) -> Self:
        """The same moment once more: what happens to the copy does not happen here."""
        twin = copy.copy(self)
        for name in ("puppets", "mask_keys", "advertisements", "sealed", "views", "uploads", "signatures"):
            setattr(twin, name, dict(getattr(self, name)))
        twin.present = set(self.present)
        twin.clients = {position: copy.copy(client) for position, client in self.clients.items()}
        twin.seen = copy.deepcopy(self.seen)
        return twin

    # Playing on.

    def step(self) -> None:
        """The current stage as the protocol has it, with those who are present."""
        for position in sorted(self.present):
            if position in self.corrupt:
                self._play_puppet(position)
            else:
                self.take(position, self.hand(position, self.request(position)))
        following = self.stages.index(self.stage or "") + 1
        self.stage = self.stages[following] if following < len(self.stages) else None

    def play_before(self, stage: str) -> Self:
        """All stages before this one."""
        while self.stage != stage:
            self.step()
        return self

    def finish(self) -> dict[int, list[int] | None]:
        """All stages that are left, then every segment's sum over the honest who are present."""
        while self.stage is not None:
            self.step()
        honest = sorted(self.present - set(self.corrupt))
        return {part.index: self.open_over(honest, part.index) for part in self.session.segments}

    def plain(self) -> dict[int, list[int]]:
        """What :meth:`finish` should find."""
        honest = sorted(self.present - set(self.corrupt))
        return {part.index: plain_sum(self.inputs, part.index, honest) for part in self.session.segments}

    def hand(self, position: int, request: bytes) -> bytes:
        """Give an honest client some bytes at the current stage."""
        if self.stage == MASK:
            return self.clients[position].contribute(request, self.inputs[position])
        return self.clients[position].reply(request)

    def take(self, position: int, reply: bytes) -> None:
        """Keep an honest client's answer to the current stage's request."""
        if self.stage == ADVERTISE:
            self.advertisements[position] = KeyAdvertisement.from_bytes(reply)
        elif self.stage == SHARE:
            self.sealed[position] = SealedShares.from_bytes(reply)
            self.nonces = self.directory().nonces
        elif self.stage == MASK:
            self.uploads[position] = MaskedInput.from_bytes(reply)
            self.views.setdefault(position, frozenset(self.present))
        elif self.stage == AGREE:
            self.signatures[position] = SignedSurvivors.from_bytes(reply).signature
        else:
            self.seen.keep(RevealedShares.from_bytes(reply))

    def request(self, position: int) -> bytes:
        """The honest request of the current stage."""
        if self.stage == ADVERTISE:
            return b""
        if self.stage == SHARE:
            return self.directory().to_bytes()
        if self.stage == MASK:
            return self.delivery(position).to_bytes()
        if self.stage == REVEAL and AGREE in self.stages:
            return self.shown().to_bytes()
        return self.survivors(position).to_bytes()

    # Its messages.

    def directory(self, *others: KeyAdvertisement) -> KeyDirectory:
        """The directory of those present, with some entries replaced or added."""
        entries = {p: self.advertisements[p] for p in sorted(self.present)}
        entries.update({entry.sender: entry for entry in others})
        ordered = tuple(entries[position] for position in sorted(entries))
        nonces = {entry.sender: entry.nonce for entry in ordered}
        return KeyDirectory(context=self.terms.context, nonces=nonces, advertisements=ordered)

    def delivery(self, recipient: int, participants: Iterable[int] | None = None) -> ShareDelivery:
        """What was sealed to one client, with the participants it is told of."""
        told = tuple(sorted(self.present if participants is None else participants))
        others, digest = [p for p in told if p != recipient], self.terms.commitments.digest
        return ShareDelivery(
            context=self.terms.context,
            recipient=recipient,
            participants=told,
            sealed={p: self.sealed[p].sealed[recipient] for p in others},
            digests={
                p: digest(self.sealed[p].commitments[recipient], owner=p, holder=recipient) for p in others
            },
        )

    def upload(self, position: int, participants: Iterable[int]) -> None:
        """Have a client mask for the participants it is told of."""
        told = frozenset(participants)
        self.views[position] = told
        if position in self.corrupt:
            self._mask_puppet(position, told)
        else:
            self.take(position, self.hand(position, self.delivery(position, told).to_bytes()))

    def survivors(
        self,
        recipient: int,
        survivors: Iterable[int] | None = None,
        participants: Iterable[int] | None = None,
    ) -> SurvivorList:
        """A list for one client, by default the honest one, with the view signatures that were really given.

        A corrupt client signs whatever view the recipient has.
        """
        told = set(self.views[recipient] if participants is None else participants)
        surviving = sorted(self.present & told if survivors is None else survivors)
        return SurvivorList(
            context=self.terms.context,
            survivors=tuple(surviving),
            dropped=tuple(sorted(told - set(surviving))),
            view_signatures=self._view_signatures(recipient, surviving),
        )

    def shown(self, signatures: Mapping[int, bytes] | None = None) -> SurvivorSignatures:
        """The signatures of the survivor list, by default those really given."""
        given = self.signatures if signatures is None else signatures
        return SurvivorSignatures(context=self.terms.context, signatures=given)

    def view(self, position: int) -> bytes:
        """What a client signs about who takes part."""
        return checks.view_of(self.terms, self.nonces, sorted(self.views[position]))

    def _view_signatures(self, recipient: int, survivors: Iterable[int]) -> dict[int, bytes]:
        if self.terms.trust is None:
            return {}
        given = {p: upload.view_signature for p, upload in self.uploads.items()}
        for puppet in self.corrupt:
            identity = self.identity(puppet)
            assert identity is not None
            given[puppet] = identity.sign(checks.VIEW, self.view(recipient))
        return {p: given[p] for p in survivors if p in given}

    # Its corrupt clients.

    def _play_puppet(self, position: int) -> None:
        if self.stage == ADVERTISE:
            source = stream(f"puppet {self.seed} {position}")
            name = self.session.client_at(position)
            state, message = steps.create_key_advertisement(self.terms, name, self.identity(position), source)
            self.puppets[position], self.advertisements[position] = state, message
            self.mask_keys[position] = state.mask_keys
        elif self.stage == SHARE:
            source = stream(f"puppet shares {self.seed} {position}")
            shared = steps.create_sealed_shares(self.puppets[position], self.directory(), source)
            self.puppets[position], self.sealed[position] = shared
        elif self.stage == MASK:
            self._mask_puppet(position, frozenset(self.present))
        elif self.stage == AGREE:
            self.signatures[position] = self.puppet_signature(position, self.survivors(position))

    def _mask_puppet(self, position: int, told: frozenset[int]) -> None:
        delivery = self.delivery(position, told)
        identity = self.identity(position)
        masked = steps.create_masked_input(self.puppets[position], delivery, self.inputs[position], identity)
        self.views[position] = told
        self.puppets[position] = masked.state
        # It keeps nothing back from the server: both kinds of share of everyone.
        for owner, bundle in masked.state.bundles.items():
            for index, shares in bundle.segments.items():
                self.seen.mask_keys.setdefault((owner, index), {})[position] = shares.mask_key
                self.seen.self_masks.setdefault((owner, index), {})[position] = shares.self_mask

    def puppet_signature(self, position: int, survivors: SurvivorList) -> bytes:
        """A corrupt client signs any survivor list."""
        identity = self.identity(position)
        assert identity is not None
        return identity.sign(checks.SURVIVORS, survivors.to_bytes())

    # What it can work out.

    def _recovered(self, shares: Mapping[int, Secret]) -> Secret | None:
        holders = sorted(shares)[: self.terms.share_threshold]
        if len(holders) < self.terms.share_threshold:
            return None
        return Recovery.over(holders).combine(shares)

    def seed_of(self, owner: int, index: int) -> Secret | None:
        """A client's self-mask seed, if enough shares of it were seen."""
        return self._recovered(self.seen.self_masks.get((owner, index), {}))

    def mask_key_of(self, owner: int, index: int) -> PrivateKey | None:
        """A client's private mask key, if it is corrupt or enough shares of it were seen."""
        if owner in self.corrupt:
            return self.mask_keys[owner][index]
        secret = self._recovered(self.seen.mask_keys.get((owner, index), {}))
        return None if secret is None else PrivateKey(secret)

    def pair_secret(self, one: int, other: int, index: int) -> Secret | None:
        """The secret behind two clients' masks towards each other, if the private key of either is known."""
        for mine, peer in ((one, other), (other, one)):
            key = self.mask_key_of(mine, index)
            if key is not None:
                return key.agree(self.advertisements[peer].mask_keys[index])
        return None

    def unmask(self, chosen: Iterable[int], index: int, *, blind: bool = False) -> RingVector | None:
        """The sum of some honest clients' uploads of a segment with every mask removed, None if one is not known.

        Args:
            chosen: Positions; those who do not hold the segment do not matter.
            index: The segment.
            blind: Leave the masks on that are not known.
        """
        holders = {self.session.position(member) for member in self.session.segments[index].members}
        summed = sorted(holders.intersection(chosen))
        seeds = {p: self.seed_of(p, index) for p in summed}
        pairs = {
            (peer, p): self.pair_secret(peer, p, index)
            for p in summed
            for peer in (holders & self.views[p]) - {p}
            if not (peer in summed and p in self.views[peer])
        }
        if not summed or (not blind and None in (*seeds.values(), *pairs.values())):
            return None
        total = np.zeros(self.session.segments[index].length, dtype=np.uint32)
        for position in summed:
            total += self.uploads[position].segments[index]
            masks = SegmentMasks(
                context=self.terms.context, segment=index, binding=self.inputs[position][index].binding
            )
            seed = seeds[position]
            masks.remove(
                total,
                {} if seed is None else {position: seed},
                {
                    pair: secret
                    for pair, secret in pairs.items()
                    if pair[1] == position and secret is not None
                },
            )
        return total

    def open_over(self, chosen: Iterable[int], index: int) -> list[int] | None:
        """The sum of some honest clients' inputs, None if anything hides it."""
        total = self.unmask(chosen, index)
        return None if total is None else self.read(total)

    def read(self, total: RingVector) -> list[int]:
        """Ring elements as signed integers."""
        values: IntegerVector = centred(total, bits=self.session.ring_bits)
        return [int(value) for value in values]

    def opened(self, index: int) -> dict[frozenset[int], list[int]]:
        """Every set of honest holders whose sum of a segment it can open."""
        holders = {self.session.position(member) for member in self.session.segments[index].members}
        found = {}
        for chosen in subsets(sorted(holders & self.uploads.keys())):
            values = self.open_over(chosen, index) if chosen else None
            if values is not None:
                found[chosen] = values
        return found


def subsets(items: Collection[int]) -> Iterator[frozenset[int]]:
    """All subsets, the empty one included."""
    for size in range(len(items) + 1):
        yield from map(frozenset, combinations(items, size))


def secrets_in(found: Any) -> list[bytes]:
    """Every secret, private key and upload that an object still reaches; long-term identities do not count."""
    return [bytes(value) for value in _reachable(found) if isinstance(value, Secret)] + [
        value.secret for value in _reachable(found) if isinstance(value, PrivateKey)
    ]


def bytes_in(found: Any) -> list[bytes]:
    """Every byte string that an object still reaches."""
    return [bytes(value) for value in _reachable(found) if isinstance(value, bytes)]


def _reachable(found: Any) -> Iterator[Any]:
    if isinstance(found, (MaskingTerms, Identity)):
        return
    yield found
    if isinstance(found, Mapping):
        parts: Iterable[Any] = [*found.keys(), *found.values()]
    elif isinstance(found, (tuple, list, set, frozenset)):
        parts = found
    elif is_dataclass(found) and not isinstance(found, type):
        parts = [getattr(found, entry.name) for entry in fields(found)]
    elif isinstance(found, (MaskingClient, PrivateKey)):
        slots = [name for name in getattr(type(found), "__slots__", ()) if name != "_key"]
        parts = [*getattr(found, "__dict__", {}).values(), *(getattr(found, name) for name in slots)]
    else:
        return
    for part in parts:
        yield from _reachable(part)


def tampered(entry: KeyAdvertisement, identity: Identity | None, **changes: Any) -> KeyAdvertisement:
    """An advertisement with something else in it, signed by this identity; unsigned changes keep the old signature."""
    changed = replace(entry, **changes)
    return changed if identity is None else checks.signed(changed, identity)
