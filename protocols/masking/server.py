"""The server of the masking protocol: one class per stage, each closing into the next (Bonawitz et al. 2017, fig. 4).

    AdvertiseKeys -> ShareKeys -> MaskInput [-> AgreeSurvivors] -> RevealShares -> open()

Uploads are added to one accumulator per segment as they arrive, so memory does not grow with the number of clients.
A reply is checked whole before any of it counts: whoever sent it has answered, or has not. What every client would
refuse is refused here first, so that it costs its sender the round and nobody else.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from typing import ClassVar, Protocol, final

import numpy as np

from protocols.errors import (
    BelowThresholdError,
    ContextError,
    IdentityError,
    InputError,
    KeyAgreementError,
    RosterError,
    SealError,
    ShareError,
)
from protocols.interface import SumResult, reason_to_reject
from protocols.masking import checks
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
    sealed_bundle_size,
)
from protocols.masking.terms import Graph, Terms
from protocols.primitives.agreement import PrivateKey, check_public_key
from protocols.primitives.secret import Secret
from protocols.primitives.shamir import Recovery, decode_share
from protocols.profiles import SurvivorCheck
from protocols.ring import RingVector, centred
from protocols.session import ClientId, Segment


class _FromClient(Protocol):
    @property
    def context(self) -> bytes: ...
    @property
    def sender(self) -> int: ...


class Stage(ABC):
    """What the server does in one stage."""

    name: ClassVar[str]

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.session = terms.session
        self.answered: set[int] = set()

    @property
    @abstractmethod
    def expected(self) -> frozenset[int]:
        """The positions whose reply is awaited."""

    @abstractmethod
    def request(self, position: int) -> bytes:
        """The stage's request to one of them."""

    @abstractmethod
    def receive(self, position: int, reply: bytes) -> None:
        """Check one reply and fold it in."""

    @abstractmethod
    def close(self) -> "Stage | None":
        """The next stage; None after the last."""

    def _check_sender(self, position: int, message: _FromClient) -> ClientId:
        name = self.session.client_at(position)
        if message.context != self.terms.context:
            raise ContextError(f"{name}: the message belongs to another session")
        if message.sender != position:
            raise RosterError(f"{name}: the message is from position {message.sender}, not {position}")
        return name

    def _check_enough(self) -> None:
        if len(self.answered) < self.session.threshold:
            raise BelowThresholdError(
                f"{self.name}: {len(self.answered)} of {len(self.expected)} clients answered, "
                f"threshold={self.session.threshold} are needed"
            )


@final
class AdvertiseKeys(Stage):
    """Collects public keys."""

    name: ClassVar[str] = "advertise_keys"

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._advertisements: dict[int, KeyAdvertisement] = {}
        self._seen: set[bytes] = set()

    @property
    def expected(self) -> frozenset[int]:
        """All members."""
        return frozenset(range(1, len(self.session.members) + 1))

    def request(self, position: int) -> bytes:  # noqa: ARG002
        """Empty: the session itself is the invitation."""
        return b""

    def receive(self, position: int, reply: bytes) -> None:
        """Keep one advertisement."""
        message = KeyAdvertisement.from_bytes(reply)
        name = self._check_sender(position, message)
        checks.check_segments(self.terms, message)
        checks.verify_advertisement(self.terms, message)
        keys = checks.all_keys(message)
        for key in keys:
            _check_public_key(name, key)
        fresh = {*keys, message.nonce}
        if len(fresh) <= len(keys) or fresh & self._seen:
            raise RosterError(
                f"{name}: keys and nonces must be advertised once, by one client, for one purpose"
            )
        self._seen |= fresh
        self._advertisements[position] = message

    def close(self) -> Stage:
        """Publish the directory."""
        self._check_enough()
        return ShareKeys(self.terms, {p: self._advertisements[p] for p in sorted(self.answered)})


@final
class ShareKeys(Stage):
    """Routes sealed shares, which it cannot open."""

    name: ClassVar[str] = "share_keys"

    def __init__(self, terms: Terms, advertisements: Mapping[int, KeyAdvertisement]) -> None:
        super().__init__(terms)
        self._advertisements = advertisements
        self._nonces = {position: entry.nonce for position, entry in advertisements.items()}
        self._share_graph = terms.share_graph(self._nonces)
        self._mask_graphs = [terms.mask_graph(segment, self._nonces) for segment in self.session.segments]
        self._sealed: dict[int, Mapping[int, bytes]] = {}
        self._everyone: bytes | None = None

    @property
    def expected(self) -> frozenset[int]:
        """Everyone in the directory."""
        return frozenset(self._advertisements)

    def request(self, position: int) -> bytes:
        """The directory: everyone's nonce, and the advertisements of the client's neighbours."""
        if not self.terms.complete:
            partners = (graph[position] for graph in self._mask_graphs if position in graph)
            return self._directory(self._share_graph[position].union(*partners) | {position})
        if self._everyone is None:
            self._everyone = self._directory(self.expected)
        return self._everyone

    def _directory(self, positions: frozenset[int]) -> bytes:
        entries = tuple(self._advertisements[p] for p in sorted(positions))
        return KeyDirectory(
            context=self.terms.context, nonces=self._nonces, advertisements=entries
        ).to_bytes()

    def receive(self, position: int, reply: bytes) -> None:
        """Keep one client's sealed shares."""
        message = SealedShares.from_bytes(reply)
        name = self._check_sender(position, message)
        if set(message.sealed) != self._share_graph[position]:
            raise RosterError(f"{name}: sealed shares must be for every neighbour in the share graph")
        size = sealed_bundle_size([segment.extra_secrets for segment in self.session.segments_of(name)])
        if any(len(blob) != size for blob in message.sealed.values()):
            raise SealError(f"{name}: a sealed bundle must have {size} bytes")
        self._sealed[position] = message.sealed

    def close(self) -> Stage:
        """Fix who masks: those whose shares have arrived."""
        self._check_enough()
        keys = {position: self._advertisements[position].mask_keys for position in sorted(self.answered)}
        return MaskInput(
            self.terms,
            view=checks.view_of(self.terms, self._nonces, sorted(self.answered)),
            mask_keys=keys,
            sealed=self._sealed,
            share_graph=self._share_graph,
            mask_graphs=self._mask_graphs,
        )


@final
class MaskInput(Stage):
    """Adds masked inputs as they arrive."""

    name: ClassVar[str] = "mask_input"

    def __init__(
        self,
        terms: Terms,
        *,
        view: bytes,
        mask_keys: Mapping[int, Mapping[int, bytes]],
        sealed: Mapping[int, Mapping[int, bytes]],
        share_graph: Graph,
        mask_graphs: list[Graph],
    ) -> None:
        super().__init__(terms)
        self._view = view
        self._view_signatures: dict[int, bytes] = {}
        self._mask_keys = mask_keys
        self._sealed = sealed
        self._share_graph = share_graph
        self._mask_graphs = mask_graphs
        self._sums = [np.zeros(segment.length, dtype=np.uint32) for segment in self.session.segments]

    @property
    def expected(self) -> frozenset[int]:
        """Everyone who has shared keys."""
        return frozenset(self._mask_keys)

    def request(self, position: int) -> bytes:
        """Who takes part, and the bundles sealed to one client."""
        senders = self._share_graph[position] & self._mask_keys.keys()
        return ShareDelivery(
            context=self.terms.context,
            recipient=position,
            participants=tuple(self._mask_keys),
            sealed={sender: self._sealed[sender][position] for sender in senders},
        ).to_bytes()

    def receive(self, position: int, reply: bytes) -> None:
        """Check a whole upload, then add it."""
        message = MaskedInput.from_bytes(reply)
        name = self._check_sender(position, message)
        lengths = {segment.index: segment.length for segment in self.session.segments_of(name)}
        if {index: len(vector) for index, vector in message.segments.items()} != lengths:
            raise InputError(f"{name}: the masked input must hold exactly its segments, whole")
        if message.ring_bits != self.session.ring_bits:
            raise InputError(f"{name}: ring_bits={message.ring_bits} must be {self.session.ring_bits}")
        checks.verify_view(self.terms, self._view, position=position, signature=message.view_signature)
        if message.view_signature:
            self._view_signatures[position] = message.view_signature
        for index, vector in message.segments.items():
            self._sums[index] += vector

    def close(self) -> Stage:
        """Fix the one list of survivors."""
        self._check_enough()
        survivors = SurvivorList(
            context=self.terms.context,
            survivors=tuple(sorted(self.answered)),
            dropped=tuple(sorted(self.expected - self.answered)),
            view_signatures=self._view_signatures,
        )
        reveal = RevealShares(
            self.terms,
            survivors=survivors,
            mask_keys=self._mask_keys,
            share_graph=self._share_graph,
            mask_graphs=self._mask_graphs,
            sums=self._sums,
        )
        if self.terms.profile.survivor_check is SurvivorCheck.SIGNED_LIST:
            return AgreeSurvivors(self.terms, survivors, reveal)
        return reveal


@final
class AgreeSurvivors(Stage):
    """Collects everyone's signature of the survivor list."""

    name: ClassVar[str] = "agree_survivors"

    def __init__(self, terms: Terms, survivors: SurvivorList, reveal: "RevealShares") -> None:
        super().__init__(terms)
        self._list = survivors
        self._reveal = reveal
        self._signatures: dict[int, bytes] = {}

    @property
    def expected(self) -> frozenset[int]:
        """The survivors."""
        return frozenset(self._list.survivors)

    def request(self, position: int) -> bytes:  # noqa: ARG002
        """The survivor list."""
        return self._list.to_bytes()

    def receive(self, position: int, reply: bytes) -> None:
        """Keep one signature of this very list."""
        message = SignedSurvivors.from_bytes(reply)
        name = self._check_sender(position, message)
        try:
            checks.verify_survivors(self.terms, self._list, position=position, signature=message.signature)
        except IdentityError as error:
            raise type(error)(f"{name}: {error}") from None
        self._signatures[position] = message.signature

    def close(self) -> Stage:
        """Show everyone's signatures to those who gave one."""
        self._check_enough()
        signatures = {position: self._signatures[position] for position in sorted(self.answered)}
        shown = SurvivorSignatures(context=self.terms.context, signatures=signatures)
        self._reveal.await_only(frozenset(self.answered), shown.to_bytes())
        return self._reveal


@final
class RevealShares(Stage):
    """Collects the shares that remove the masks."""

    name: ClassVar[str] = "reveal_shares"

    def __init__(
        self,
        terms: Terms,
        *,
        survivors: SurvivorList,
        mask_keys: Mapping[int, Mapping[int, bytes]],
        share_graph: Graph,
        mask_graphs: list[Graph],
        sums: list[RingVector],
    ) -> None:
        super().__init__(terms)
        self._list = survivors
        self._survivors = frozenset(survivors.survivors)
        self._awaited = self._survivors
        self._request = survivors.to_bytes()
        self._mask_keys = mask_keys
        self._share_graph = share_graph
        self._mask_graphs = mask_graphs
        self._sums = sums
        self._revealed: dict[int, RevealedShares] = {}
        self._offered: dict[int, frozenset[int]] = {}

    def await_only(self, positions: frozenset[int], request: bytes) -> None:
        """After agree_survivors: ask only those who signed, and with the signatures."""
        self._awaited, self._request = positions, request

    @property
    def expected(self) -> frozenset[int]:
        """The survivors, or those of them who have signed."""
        return self._awaited

    def request(self, position: int) -> bytes:  # noqa: ARG002
        """The survivor list, or the signatures of it."""
        return self._request

    def receive(self, position: int, reply: bytes) -> None:
        """Keep one client's shares: of all its wards in whole segments."""
        message = RevealedShares.from_bytes(reply)
        name = self._check_sender(position, message)
        offered = frozenset(index for _, index in (*message.mask_key_shares, *message.self_mask_shares))
        if strangers := [index for index in offered if index >= len(self.session.segments)]:
            raise ShareError(f"{name}: segment {min(strangers)} does not exist")
        wards = self.terms.keepers(self._share_graph[position], position)
        segments = [self.session.segments[index] for index in offered]
        if set(message.self_mask_shares) != {
            (p, s.index) for s in segments for p in wards & self._present(s)
        }:
            raise ShareError(
                f"{name}: self-mask shares must be for all its survivors of a segment or for none"
            )
        if set(message.mask_key_shares) != {(p, s.index) for s in segments for p in wards & self._gone(s)}:
            raise ShareError(
                f"{name}: mask-key shares must be for all its dropped peers of a segment or for none"
            )
        for share in (*message.mask_key_shares.values(), *message.self_mask_shares.values()):
            _check_share(name, share)
        self._revealed[position] = message
        self._offered[position] = offered

    def close(self) -> None:
        """Nothing follows; the sums can be opened."""
        self._check_enough()

    def open(self, bindings: Mapping[int, bytes]) -> SumResult:
        """Remove the masks of every segment that enough clients let open. Called once: the sums are opened in place.

        Args:
            bindings: By segment index; all of them.

        Raises:
            ShareError: The shares of a client do not give the secret they should.
        """
        sums, refused = {}, {}
        for segment in self.session.segments:
            reason = self._reason_to_refuse(segment)
            if not reason:
                self._unmask(segment, bindings[segment.index])
                summed = centred(self._sums[segment.index], bits=self.session.ring_bits)
                reason = reason_to_reject(self.session, summed, present=len(self._present(segment)))
            if reason:
                refused[segment.index] = reason
            else:
                sums[segment.index] = summed
        survivors = tuple(self.session.client_at(position) for position in self._list.survivors)
        return SumResult(survivors=survivors, sums=sums, refused=refused)

    def _present(self, segment: Segment) -> frozenset[int]:
        return self._survivors.intersection(map(self.session.position, segment.members))

    def _gone(self, segment: Segment) -> frozenset[int]:
        return frozenset(self._list.dropped).intersection(map(self.session.position, segment.members))

    def _reason_to_refuse(self, segment: Segment) -> str:
        """Why a segment stays closed; empty when it opens."""
        holding = self._survivors.intersection(map(self.session.position, segment.holders))
        quorum = self.terms.quorum(segment)
        if len(holding) < quorum:
            return f"{len(holding)} surviving holders, quorum {quorum}"
        wards = self._present(segment) | self._gone(segment)
        fewest = min(len(self._helpers(owner, segment)) for owner in wards)
        if fewest < self.terms.share_threshold:
            return f"{fewest} clients let it open, threshold {self.terms.share_threshold}"
        return ""

    def _helpers(self, owner: int, segment: Segment) -> tuple[int, ...]:
        """Who has revealed shares of a client's secrets of a segment."""
        holders = self.terms.keepers(self._share_graph[owner], owner) & self._revealed.keys()
        return tuple(sorted(p for p in holders if segment.index in self._offered[p]))

    def _recovery(self, owner: int, segment: Segment) -> Recovery:
        """How to recover a client's secrets; computed once for all who share among the same helpers."""
        return _recovery_over(self._helpers(owner, segment)[: self.terms.share_threshold])

    def _unmask(self, segment: Segment, binding: bytes) -> None:
        index, graph = segment.index, self._mask_graphs[segment.index]
        present = self._present(segment)
        seeds = {}
        for peer in sorted(present):
            recovery = self._recovery(peer, segment)
            shares = {h: self._revealed[h].self_mask_shares[peer, index] for h in recovery.coefficients}
            seeds[peer] = _recover(self.session.client_at(peer), recovery, shares)
        # The secrets of the masks that survivors added towards dropped clients and that nothing cancelled.
        uncancelled = {}
        for gone in sorted(self._gone(segment)):
            key = self._recover_mask_key(gone, segment)
            for peer in sorted(graph[gone] & present):
                uncancelled[gone, peer] = key.agree(self._mask_keys[peer][index])
        masks = SegmentMasks(context=self.terms.context, segment=index, binding=binding)
        masks.remove(self._sums[index], seeds, uncancelled)

    def _recover_mask_key(self, gone: int, segment: Segment) -> PrivateKey:
        name, recovery = self.session.client_at(gone), self._recovery(gone, segment)
        shares = {h: self._revealed[h].mask_key_shares[gone, segment.index] for h in recovery.coefficients}
        key = PrivateKey(_recover(name, recovery, shares))
        if key.public != self._mask_keys[gone][segment.index]:
            raise ShareError(f"{name}: the shares revealed for it do not give the key it advertised")
        return key


@lru_cache(maxsize=4096)
def _recovery_over(helpers: tuple[int, ...]) -> Recovery:
    return Recovery.over(helpers)


def _check_public_key(name: ClientId, key: bytes) -> None:
    try:
        check_public_key(key)
    except KeyAgreementError as error:
        raise KeyAgreementError(f"{name}: {error}") from None


def _check_share(name: ClientId, share: bytes) -> None:
    try:
        decode_share(share)
    except ShareError as error:
        raise ShareError(f"{name}: {error}") from None


def _recover(owner: ClientId, recovery: Recovery, shares: Mapping[int, bytes]) -> Secret:
    try:
        return recovery.combine(shares)
    except ShareError as error:
        raise ShareError(f"{owner}: the shares revealed for it: {error}") from None
