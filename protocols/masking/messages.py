"""The messages of the masking protocol; one class per arrow of Bonawitz et al. 2017, figure 4.

    stage            client sends         server sends before it
    advertise_keys   KeyAdvertisement     (nothing: the session is the invitation)
    share_keys       SealedShares         KeyDirectory
    mask_input       MaskedInput          ShareDelivery
    reveal_shares    RevealedShares       SurvivorList

Every message carries the session's context; parties are named by their position in the session's roster. Decoding
checks form only; what a message may say is checked by whoever handles it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self, final

from protocols.primitives.agreement import PUBLIC_KEY_SIZE
from protocols.primitives.sealed import NONCE_SIZE, TAG_SIZE
from protocols.primitives.secret import Secret
from protocols.primitives.shamir import SHARE_SIZE
from protocols.ring import RingVector
from protocols.wire import DIGEST_SIZE, MessageType, Reader, Writer


def _begin(message_type: MessageType, context: bytes) -> Writer:
    return Writer(message_type).fixed(context, DIGEST_SIZE)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class KeyAdvertisement:
    """A client's two fresh public keys.

    The mask key may be recovered by the server if the client drops out; the sealing key is never shared, so that
    recovering the one does not open the shares sealed with the other.
    """

    context: bytes
    sender: int
    mask_key: bytes
    sealing_key: bytes

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        writer = _begin(MessageType.KEY_ADVERTISEMENT, self.context).unsigned(self.sender, 2)
        return writer.fixed(self.mask_key, PUBLIC_KEY_SIZE).fixed(self.sealing_key, PUBLIC_KEY_SIZE).done()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.KEY_ADVERTISEMENT)
        message = cls(
            context=reader.fixed(DIGEST_SIZE),
            sender=reader.unsigned(2),
            mask_key=reader.fixed(PUBLIC_KEY_SIZE),
            sealing_key=reader.fixed(PUBLIC_KEY_SIZE),
        )
        reader.end()
        return message


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDirectory:
    """The advertisements of everyone who sent one, by increasing sender."""

    context: bytes
    advertisements: tuple[KeyAdvertisement, ...]

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        writer = _begin(MessageType.KEY_DIRECTORY, self.context).unsigned(len(self.advertisements), 2)
        for advertisement in self.advertisements:
            writer.unsigned(advertisement.sender, 2)
            writer.fixed(advertisement.mask_key, PUBLIC_KEY_SIZE)
            writer.fixed(advertisement.sealing_key, PUBLIC_KEY_SIZE)
        return writer.done()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.KEY_DIRECTORY)
        context = reader.fixed(DIGEST_SIZE)
        advertisements = tuple(
            KeyAdvertisement(
                context=context,
                sender=reader.unsigned(2),
                mask_key=reader.fixed(PUBLIC_KEY_SIZE),
                sealing_key=reader.fixed(PUBLIC_KEY_SIZE),
            )
            for _ in range(reader.unsigned(2))
        )
        reader.check_increasing([advertisement.sender for advertisement in advertisements])
        reader.end()
        return cls(context=context, advertisements=advertisements)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShareBundle:
    """The plaintext of one sealed share: what one client entrusts to one other. Secret.

    Args:
        mask_key_share: A share of the sender's private mask key.
        self_mask_shares: By segment index: a share of the sender's self-mask seed.
    """

    mask_key_share: Secret
    self_mask_shares: Mapping[int, Secret] = field(default_factory=dict)

    def to_bytes(self) -> Secret:
        """The canonical bytes."""
        writer = Writer(MessageType.SHARE_BUNDLE).fixed(self.mask_key_share, SHARE_SIZE)
        writer.positions(sorted(self.self_mask_shares))
        for index in sorted(self.self_mask_shares):
            writer.fixed(self.self_mask_shares[index], SHARE_SIZE)
        return Secret(writer.done())

    @classmethod
    def from_bytes(cls, data: Secret) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.SHARE_BUNDLE)
        mask_key_share = Secret(reader.fixed(SHARE_SIZE))
        shares = {index: Secret(reader.fixed(SHARE_SIZE)) for index in reader.positions()}
        reader.end()
        return cls(mask_key_share=mask_key_share, self_mask_shares=shares)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SealedShares:
    """A client's share bundles, sealed to each recipient; the server cannot open them."""

    context: bytes
    sender: int
    sealed: Mapping[int, bytes]

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        writer = _begin(MessageType.SEALED_SHARES, self.context).unsigned(self.sender, 2)
        return _write_blobs(writer, self.sealed).done()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.SEALED_SHARES)
        message = cls(
            context=reader.fixed(DIGEST_SIZE), sender=reader.unsigned(2), sealed=_read_blobs(reader)
        )
        reader.end()
        return message


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShareDelivery:
    """The bundles sealed to one recipient, by sender: also the list of those who take part in masking."""

    context: bytes
    recipient: int
    sealed: Mapping[int, bytes]

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        writer = _begin(MessageType.SHARE_DELIVERY, self.context).unsigned(self.recipient, 2)
        return _write_blobs(writer, self.sealed).done()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.SHARE_DELIVERY)
        message = cls(
            context=reader.fixed(DIGEST_SIZE), recipient=reader.unsigned(2), sealed=_read_blobs(reader)
        )
        reader.end()
        return message


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskedInput:
    """A client's masked summands, by segment index: uniform to whoever lacks its masks."""

    context: bytes
    sender: int
    segments: Mapping[int, RingVector]

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        writer = _begin(MessageType.MASKED_INPUT, self.context).unsigned(self.sender, 2)
        writer.positions(sorted(self.segments))
        for index in sorted(self.segments):
            writer.vector(self.segments[index])
        return writer.done()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.MASKED_INPUT)
        context, sender = reader.fixed(DIGEST_SIZE), reader.unsigned(2)
        segments = {index: reader.vector() for index in reader.positions()}
        reader.end()
        return cls(context=context, sender=sender, segments=segments)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SurvivorList:
    """Whose inputs are in the sum, and who masked with the others but did not upload."""

    context: bytes
    survivors: tuple[int, ...]
    dropped: tuple[int, ...]

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        writer = _begin(MessageType.SURVIVOR_LIST, self.context)
        return writer.positions(self.survivors).positions(self.dropped).done()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.SURVIVOR_LIST)
        message = cls(
            context=reader.fixed(DIGEST_SIZE), survivors=reader.positions(), dropped=reader.positions()
        )
        reader.end()
        return message


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RevealedShares:
    """A client's answer to a survivor list: never both kinds of share of one peer.

    Args:
        mask_key_shares: By dropped peer.
        self_mask_shares: By (surviving peer, segment), for the segments that this client lets open.
    """

    context: bytes
    sender: int
    mask_key_shares: Mapping[int, Secret]
    self_mask_shares: Mapping[tuple[int, int], Secret]

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        writer = _begin(MessageType.REVEALED_SHARES, self.context).unsigned(self.sender, 2)
        writer.positions(sorted(self.mask_key_shares))
        for peer in sorted(self.mask_key_shares):
            writer.fixed(self.mask_key_shares[peer], SHARE_SIZE)
        writer.unsigned(len(self.self_mask_shares), 4)
        for peer, segment in sorted(self.self_mask_shares):
            writer.unsigned(peer, 2).unsigned(segment, 2)
            writer.fixed(self.self_mask_shares[peer, segment], SHARE_SIZE)
        return writer.done()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.REVEALED_SHARES)
        context, sender = reader.fixed(DIGEST_SIZE), reader.unsigned(2)
        mask_key_shares = {peer: Secret(reader.fixed(SHARE_SIZE)) for peer in reader.positions()}
        entries = [
            ((reader.unsigned(2), reader.unsigned(2)), Secret(reader.fixed(SHARE_SIZE)))
            for _ in range(reader.unsigned(4))
        ]
        reader.check_increasing([key for key, _ in entries])
        reader.end()
        return cls(
            context=context, sender=sender, mask_key_shares=mask_key_shares, self_mask_shares=dict(entries)
        )


def _write_blobs(writer: Writer, blobs: Mapping[int, bytes]) -> Writer:
    writer.positions(sorted(blobs))
    for position in sorted(blobs):
        writer.blob(blobs[position])
    return writer


def _read_blobs(reader: Reader) -> dict[int, bytes]:
    return {position: reader.blob() for position in reader.positions()}


def sealed_bundle_size(segments: int) -> int:
    """Bytes of a sealed bundle of a client that belongs to so many segments."""
    header = len(Writer(MessageType.SHARE_BUNDLE).positions(()).done())
    return NONCE_SIZE + header + SHARE_SIZE + segments * (2 + SHARE_SIZE) + TAG_SIZE
