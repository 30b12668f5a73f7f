"""The server of the masking protocol: one class per stage, each closing into the next (Bonawitz et al. 2017, fig. 4).

    AdvertiseKeys --close--> ShareKeys --close--> MaskInput --close--> RevealShares --close--> (Mapping of open sums)

Uploads are added to one accumulator per segment as they arrive, so memory does not grow with the number of clients.
A reply is checked whole before any of it counts: whoever sent it has answered, or has not.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Protocol, final

import numpy as np

from protocols.errors import (
    BelowThresholdError,
    ContextError,
    InputError,
    KeyAgreementError,
    RosterError,
    SealError,
    ShareError,
)
from protocols.interface import SumResult, check_binding, reason_to_reject
from protocols.masking.masks import SegmentMasks
from protocols.masking.messages import (
    KeyAdvertisement,
    KeyDirectory,
    MaskedInput,
    RevealedShares,
    SealedShares,
    ShareDelivery,
    SurvivorList,
    sealed_bundle_size,
)
from protocols.primitives.agreement import PrivateKey, check_public_key
from protocols.primitives.secret import Secret
from protocols.primitives.shamir import Recovery, decode_share
from protocols.ring import RingVector, centred
from protocols.session import ClientId, Segment, Session


class _FromClient(Protocol):
    @property
    def context(self) -> bytes: ...
    @property
    def sender(self) -> int: ...


class Stage(ABC):
    """What the server does in one stage."""

    name: ClassVar[str]

    def __init__(self, session: Session) -> None:
        self.session = session
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

    def _check_sender(self, position: int, message: _FromClient) -> None:
        name = self.session.client_at(position)
        if message.context != self.session.context:
            raise ContextError(f"{name}: the message belongs to another session")
        if message.sender != position:
            raise RosterError(f"{name}: the message is from position {message.sender}, not {position}")

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

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._advertisements: dict[int, KeyAdvertisement] = {}
        self._keys: set[bytes] = set()

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
        self._check_sender(position, message)
        name = self.session.client_at(position)
        # What every client would refuse is refused here, so that it costs its sender the round and nobody else.
        for key in (message.mask_key, message.sealing_key):
            _check_public_key(name, key)
        if message.mask_key == message.sealing_key or {message.mask_key, message.sealing_key} & self._keys:
            raise RosterError(f"{name}: a key must be advertised once, by one client, for one purpose")
        self._keys |= {message.mask_key, message.sealing_key}
        self._advertisements[position] = message

    def close(self) -> Stage:
        """Publish the directory."""
        self._check_enough()
        entries = tuple(self._advertisements[position] for position in sorted(self.answered))
        return ShareKeys(self.session, KeyDirectory(context=self.session.context, advertisements=entries))


@final
class ShareKeys(Stage):
    """Routes sealed shares, which it cannot open."""

    name: ClassVar[str] = "share_keys"

    def __init__(self, session: Session, directory: KeyDirectory) -> None:
        super().__init__(session)
        self._directory = directory
        self._request = directory.to_bytes()
        self._sealed: dict[int, SealedShares] = {}

    @property
    def expected(self) -> frozenset[int]:
        """Everyone in the directory."""
        return frozenset(entry.sender for entry in self._directory.advertisements)

    def request(self, position: int) -> bytes:  # noqa: ARG002
        """The directory."""
        return self._request

    def receive(self, position: int, reply: bytes) -> None:
        """Keep one client's sealed shares."""
        message = SealedShares.from_bytes(reply)
        self._check_sender(position, message)
        name = self.session.client_at(position)
        if set(message.sealed) != self.expected - {position}:
            raise RosterError(f"{name}: sealed shares must be for every peer in the directory")
        size = sealed_bundle_size(len(self.session.segments_of(name)))
        if any(len(blob) != size for blob in message.sealed.values()):
            raise SealError(f"{name}: a sealed bundle must have {size} bytes")
        self._sealed[position] = message

    def close(self) -> Stage:
        """Fix who masks: those whose shares have arrived."""
        self._check_enough()
        keys = {
            entry.sender: entry.mask_key
            for entry in self._directory.advertisements
            if entry.sender in self.answered
        }
        return MaskInput(self.session, mask_keys=keys, sealed=self._sealed)


@final
class MaskInput(Stage):
    """Adds masked inputs as they arrive."""

    name: ClassVar[str] = "mask_input"

    def __init__(
        self, session: Session, *, mask_keys: Mapping[int, bytes], sealed: Mapping[int, SealedShares]
    ) -> None:
        super().__init__(session)
        self._mask_keys = mask_keys
        self._sealed = sealed
        self._sums = [np.zeros(segment.length, dtype=np.uint32) for segment in session.segments]

    @property
    def expected(self) -> frozenset[int]:
        """Everyone who has shared keys."""
        return frozenset(self._mask_keys)

    def request(self, position: int) -> bytes:
        """The bundles sealed to one client."""
        sealed = {
            sender: message.sealed[position] for sender, message in self._sealed.items() if sender != position
        }
        return ShareDelivery(context=self.session.context, recipient=position, sealed=sealed).to_bytes()

    def receive(self, position: int, reply: bytes) -> None:
        """Check a whole upload, then add it."""
        message = MaskedInput.from_bytes(reply)
        self._check_sender(position, message)
        name = self.session.client_at(position)
        lengths = {segment.index: segment.length for segment in self.session.segments_of(name)}
        if {index: len(vector) for index, vector in message.segments.items()} != lengths:
            raise InputError(f"{name}: the masked input must hold exactly its segments, whole")
        for index, vector in message.segments.items():
            self._sums[index] += vector

    def close(self) -> Stage:
        """Fix the one list of survivors."""
        self._check_enough()
        survivors = SurvivorList(
            context=self.session.context,
            survivors=tuple(sorted(self.answered)),
            dropped=tuple(sorted(self.expected - self.answered)),
        )
        return RevealShares(self.session, survivors=survivors, mask_keys=self._mask_keys, sums=self._sums)


@final
class RevealShares(Stage):
    """Collects the shares that remove the masks."""

    name: ClassVar[str] = "reveal_shares"

    def __init__(
        self,
        session: Session,
        *,
        survivors: SurvivorList,
        mask_keys: Mapping[int, bytes],
        sums: list[RingVector],
    ) -> None:
        super().__init__(session)
        self._list = survivors
        self._request = survivors.to_bytes()
        self._mask_keys = mask_keys
        self._sums = sums
        self._revealed: dict[int, RevealedShares] = {}

    @property
    def expected(self) -> frozenset[int]:
        """The survivors."""
        return frozenset(self._list.survivors)

    def request(self, position: int) -> bytes:  # noqa: ARG002
        """The survivor list."""
        return self._request

    def receive(self, position: int, reply: bytes) -> None:
        """Keep one client's shares: for every dropped peer, and for whole segments."""
        message = RevealedShares.from_bytes(reply)
        self._check_sender(position, message)
        name = self.session.client_at(position)
        if set(message.mask_key_shares) != set(self._list.dropped):
            raise ShareError(f"{name}: mask-key shares must be for exactly the dropped clients")
        offered = {index for _, index in message.self_mask_shares}
        owed = {(peer, index) for index in offered for peer in self._present(self._segment(name, index))}
        if set(message.self_mask_shares) != owed:
            raise ShareError(f"{name}: self-mask shares must be for all survivors of a segment or for none")
        for share in (*message.mask_key_shares.values(), *message.self_mask_shares.values()):
            _check_share(name, share)
        self._revealed[position] = message

    def close(self) -> None:
        """Nothing follows; the sums can be opened."""
        self._check_enough()

    def _segment(self, name: ClientId, index: int) -> Segment:
        if index >= len(self.session.segments):
            raise ShareError(f"{name}: segment {index} does not exist")
        return self.session.segments[index]

    def _present(self, segment: Segment) -> list[int]:
        survivors = set(self._list.survivors)
        return [p for p in map(self.session.position, segment.members) if p in survivors]

    def open(self, bindings: Mapping[int, bytes]) -> SumResult:
        """Remove the masks of every segment that enough clients let open. Called once: the sums are opened in place.

        Raises:
            ShareError: The shares of a dropped client do not give the key it advertised.
            InputError: The binding of an open segment is missing.
        """
        secrets = self._recover_pairwise_secrets()
        sums, refused = {}, {}
        for segment in self.session.segments:
            if reason := self._reason_to_refuse(segment):
                refused[segment.index] = reason
            else:
                self._unmask(segment, secrets, check_binding(segment.index, bindings.get(segment.index)))
                summed = centred(self._sums[segment.index])
                if reason := reason_to_reject(self.session, summed, present=len(self._present(segment))):
                    refused[segment.index] = reason
                else:
                    sums[segment.index] = summed
        survivors = tuple(self.session.client_at(position) for position in self._list.survivors)
        return SumResult(survivors=survivors, sums=sums, refused=refused)

    def _reason_to_refuse(self, segment: Segment) -> str:
        """Why a segment stays closed; empty when it opens."""
        present, willing = len(self._present(segment)), len(self._willing(segment))
        if present < segment.quorum:
            return f"{present} surviving members, quorum {segment.quorum}"
        if willing < self.session.threshold:
            return f"{willing} clients let it open, threshold {self.session.threshold}"
        return ""

    def _willing(self, segment: Segment) -> list[int]:
        """Who revealed self-mask shares of a segment, in order of position."""
        return sorted(
            position
            for position, message in self._revealed.items()
            if any(index == segment.index for _, index in message.self_mask_shares)
        )

    def _recover_pairwise_secrets(self) -> dict[tuple[int, int], Secret]:
        """By (dropped client, survivor): the secret of the masks that the survivor added and nothing cancelled."""
        helpers = sorted(self._revealed)[: self.session.threshold]
        recovery = Recovery.over(helpers)
        secrets = {}
        for gone in self._list.dropped:
            name = self.session.client_at(gone)
            shares = {h: self._revealed[h].mask_key_shares[gone] for h in helpers}
            key = PrivateKey(_recover(name, recovery, shares))
            if key.public != self._mask_keys[gone]:
                raise ShareError(f"{name}: the shares revealed for it do not give the key it advertised")
            for peer in self._list.survivors:
                secrets[gone, peer] = key.agree(self._mask_keys[peer])
        return secrets

    def _unmask(self, segment: Segment, secrets: Mapping[tuple[int, int], Secret], binding: bytes) -> None:
        total = self._sums[segment.index]
        masks = SegmentMasks(context=self.session.context, segment=segment.index, binding=binding)
        helpers = self._willing(segment)[: self.session.threshold]
        recovery = Recovery.over(helpers)
        present = set(self._present(segment))
        for peer in present:
            shares = {h: self._revealed[h].self_mask_shares[peer, segment.index] for h in helpers}
            masks.remove_self(total, _recover(self.session.client_at(peer), recovery, shares), owner=peer)
        members = set(map(self.session.position, segment.members))
        for (gone, peer), secret in secrets.items():
            if gone in members and peer in present:
                # What the dropped client would have added is what is missing for the pair to cancel.
                masks.add_pairwise(total, secret, owner=gone, peer=peer)


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
