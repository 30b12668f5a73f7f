"""The messages of the masking protocol; one class per arrow of Bonawitz et al. 2017, figure 4.

    stage            client sends         server sends before it
    advertise_keys   KeyAdvertisement     (nothing: the session is the invitation)
    share_keys       SealedShares         KeyDirectory
    mask_input       MaskedInput          ShareDelivery
    agree_survivors  SignedSurvivors      SurvivorList        (profiles with a signed list only)
    reveal_shares    RevealedShares       SurvivorList        (there: SurvivorSignatures)

Every message carries the session's context; parties are named by their position in the session's roster. Decoding
checks form only; what a message may say is checked by whoever handles it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self, TypeVar, final

from protocols.errors import WireError
from protocols.primitives import sealed
from protocols.primitives.agreement import PUBLIC_KEY_SIZE
from protocols.primitives.secret import Secret
from protocols.primitives.shamir import SHARE_SIZE
from protocols.primitives.signing import SIGNATURE_SIZE
from protocols.ring import RingVector
from protocols.wire import DIGEST_SIZE, MessageType, Reader, Writer

# Sixteen bytes of everyone's own randomness: what graphs are derived from.
NONCE_SIZE = 16
# Why so few are enough: commitments.py.
COMMITMENT_SIZE = 16

_Key = TypeVar("_Key", bound=tuple[int, ...])


def _begin(message_type: MessageType, context: bytes) -> Writer:
    return Writer(message_type).fixed(context, DIGEST_SIZE)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class KeyAdvertisement:
    """A client's fresh public keys, its nonce, and commitments to the secrets that it will share beside its keys.

    A segment's mask key may be recovered by the server if the client drops out; the sealing key is never shared, so that
    recovering the one does not open the shares sealed with the other. One mask key per segment, so that a client that
    keeps a segment closed keeps it closed altogether. The signature covers everything else; it is empty where the
    profile works without identities.

    Args:
        context: Of the session.
        sender: Its position.
        mask_keys: By segment of the sender.
        sealing_key: For the session.
        nonce: Fresh.
        commitments: By segment of the sender: to its self-mask seed, then to its extra secrets in their order. (What a
            mask key must be is known by its public key.)
        signature: Of the sender's identity.
    """

    context: bytes
    sender: int
    mask_keys: Mapping[int, bytes]
    sealing_key: bytes
    nonce: bytes
    commitments: Mapping[int, tuple[bytes, ...]]
    signature: bytes = b""

    def signed_part(self) -> bytes:
        """What the signature covers."""
        writer = _begin(MessageType.KEY_ADVERTISEMENT, self.context).unsigned(self.sender, 2)
        writer.fixed(self.sealing_key, PUBLIC_KEY_SIZE).fixed(self.nonce, NONCE_SIZE)
        writer.positions(sorted(self.mask_keys))
        for index in sorted(self.mask_keys):
            writer.fixed(self.mask_keys[index], PUBLIC_KEY_SIZE)
        writer.positions(sorted(self.commitments))
        for index in sorted(self.commitments):
            writer.unsigned(len(self.commitments[index]), 2)
            for commitment in self.commitments[index]:
                writer.fixed(commitment, COMMITMENT_SIZE)
        return writer.done()

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        return self.signed_part() + self.signature

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.KEY_ADVERTISEMENT)
        message = cls(
            context=reader.fixed(DIGEST_SIZE),
            sender=reader.unsigned(2),
            sealing_key=reader.fixed(PUBLIC_KEY_SIZE),
            nonce=reader.fixed(NONCE_SIZE),
            mask_keys={index: reader.fixed(PUBLIC_KEY_SIZE) for index in reader.positions()},
            commitments={
                index: _read_commitments(reader, reader.unsigned(2)) for index in reader.positions()
            },
            signature=reader.rest((0, SIGNATURE_SIZE)),
        )
        reader.end()
        return message


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDirectory:
    """The nonces of everyone who advertised, and the advertisements of those whom one client deals with.

    Args:
        context: Of the session.
        nonces: By position: everyone who advertised.
        advertisements: By increasing sender: the recipient's neighbours and itself.
    """

    context: bytes
    nonces: Mapping[int, bytes]
    advertisements: tuple[KeyAdvertisement, ...]

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        writer = _begin(MessageType.KEY_DIRECTORY, self.context).positions(sorted(self.nonces))
        for position in sorted(self.nonces):
            writer.fixed(self.nonces[position], NONCE_SIZE)
        writer.unsigned(len(self.advertisements), 2)
        for advertisement in self.advertisements:
            writer.blob(advertisement.to_bytes())
        return writer.done()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.KEY_DIRECTORY)
        context = reader.fixed(DIGEST_SIZE)
        nonces = {position: reader.fixed(NONCE_SIZE) for position in reader.positions()}
        entries = tuple(KeyAdvertisement.from_bytes(reader.blob()) for _ in range(reader.unsigned(2)))
        reader.check_increasing([advertisement.sender for advertisement in entries])
        reader.end()
        return cls(context=context, nonces=nonces, advertisements=entries)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentShares:
    """One holder's shares of the secrets of one client and segment. Secret.

    Args:
        mask_key: Of the private mask key.
        self_mask: Of the self-mask seed.
        extra: Of the segment's extra secrets, in their order.
    """

    mask_key: Secret
    self_mask: Secret
    extra: tuple[Secret, ...] = ()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShareBundle:
    """The plaintext of one sealed share: what one client entrusts to one other, by segment index. Secret."""

    segments: Mapping[int, SegmentShares]

    def to_bytes(self) -> Secret:
        """The canonical bytes."""
        writer = Writer(MessageType.SHARE_BUNDLE).positions(sorted(self.segments))
        for index in sorted(self.segments):
            shares = self.segments[index]
            writer.fixed(shares.mask_key, SHARE_SIZE).fixed(shares.self_mask, SHARE_SIZE)
            writer.unsigned(len(shares.extra), 1)
            for share in shares.extra:
                writer.fixed(share, SHARE_SIZE)
        return Secret(writer.done())

    @classmethod
    def from_bytes(cls, data: Secret) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.SHARE_BUNDLE)
        segments = {
            index: SegmentShares(
                mask_key=Secret(reader.fixed(SHARE_SIZE)),
                self_mask=Secret(reader.fixed(SHARE_SIZE)),
                extra=tuple(Secret(reader.fixed(SHARE_SIZE)) for _ in range(reader.unsigned(1))),
            )
            for index in reader.positions()
        }
        reader.end()
        return cls(segments=segments)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SealedShares:
    """A client's share bundles, sealed to each recipient; the server cannot open them.

    Args:
        context: Of the session.
        sender: Its position.
        sealed: By share-graph neighbour.
        commitments: By keeper of its shares, itself where it is one: to all shares it keeps, one behind the other. Each
            keeper has as many.
    """

    context: bytes
    sender: int
    sealed: Mapping[int, bytes]
    commitments: Mapping[int, bytes]

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        writer = _begin(MessageType.SEALED_SHARES, self.context).unsigned(self.sender, 2)
        return _write_alike(_write_blobs(writer, self.sealed), self.commitments).done()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.SEALED_SHARES)
        message = cls(
            context=reader.fixed(DIGEST_SIZE),
            sender=reader.unsigned(2),
            sealed=_read_blobs(reader),
            commitments=_read_alike(reader),
        )
        reader.end()
        return message


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShareDelivery:
    """The list of those who mask, and the bundles sealed to one recipient, by sender.

    Args:
        context: Of the session.
        recipient: For whom the bundles are.
        participants: Everyone whose shares have arrived, in increasing order.
        sealed: By sender: those of the recipient's share-graph neighbours who take part.
        digests: By the same senders: of the commitments to the shares that they say are in the bundle.
    """

    context: bytes
    recipient: int
    participants: tuple[int, ...]
    sealed: Mapping[int, bytes]
    digests: Mapping[int, bytes]

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        writer = _begin(MessageType.SHARE_DELIVERY, self.context).unsigned(self.recipient, 2)
        return _write_alike(
            _write_blobs(writer.positions(self.participants), self.sealed), self.digests
        ).done()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.SHARE_DELIVERY)
        message = cls(
            context=reader.fixed(DIGEST_SIZE),
            recipient=reader.unsigned(2),
            participants=reader.positions(),
            sealed=_read_blobs(reader),
            digests=_read_alike(reader),
        )
        reader.end()
        return message


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskedInput:
    """A client's masked summands, by segment index: uniform to whoever lacks its masks.

    The signature says who took part in the client's view: the others reveal its self mask only if they share the view.
    It is empty where the profile works without identities.

    Args:
        context: Of the session.
        sender: Its position.
        segments: By segment of the sender.
        ring_bits: Of an element.
        disputed: The neighbours whose bundles the sender cannot use: they do not open, or do not fit the commitments.
            It will reveal no share of theirs.
        view_signature: Of who took part.
    """

    context: bytes
    sender: int
    segments: Mapping[int, RingVector]
    ring_bits: int = 32
    disputed: tuple[int, ...] = ()
    view_signature: bytes = b""

    def to_bytes(self) -> bytes:
        """The canonical bytes: `ring_bits` an element."""
        writer = _begin(MessageType.MASKED_INPUT, self.context).unsigned(self.sender, 2)
        writer.unsigned(self.ring_bits, 1).positions(sorted(self.segments))
        for index in sorted(self.segments):
            writer.vector(self.segments[index], bits=self.ring_bits)
        return writer.positions(self.disputed).done() + self.view_signature

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.MASKED_INPUT)
        context, sender, bits = reader.fixed(DIGEST_SIZE), reader.unsigned(2), reader.unsigned(1)
        segments = {index: reader.vector(bits=bits) for index in reader.positions()}
        disputed = reader.positions()
        signature = reader.rest((0, SIGNATURE_SIZE))
        return cls(
            context=context,
            sender=sender,
            segments=segments,
            ring_bits=bits,
            disputed=disputed,
            view_signature=signature,
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SurvivorList:
    """Whose inputs are in the sum, who masked with the others but did not upload, and what the survivors saw.

    Args:
        context: Of the session.
        survivors: In increasing order.
        dropped: In increasing order.
        view_signatures: By survivor: its signature of who took part; empty where the profile works without identities.
    """

    context: bytes
    survivors: tuple[int, ...]
    dropped: tuple[int, ...]
    view_signatures: Mapping[int, bytes] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        writer = _begin(MessageType.SURVIVOR_LIST, self.context)
        writer.positions(self.survivors).positions(self.dropped)
        return _write_signatures(writer, self.view_signatures).done()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.SURVIVOR_LIST)
        message = cls(
            context=reader.fixed(DIGEST_SIZE),
            survivors=reader.positions(),
            dropped=reader.positions(),
            view_signatures=_read_signatures(reader),
        )
        reader.end()
        return message


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SignedSurvivors:
    """A client's signature of the survivor list it was given (the ConsistencyCheck of Bonawitz et al. 2017, fig. 4)."""

    context: bytes
    sender: int
    signature: bytes

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        writer = _begin(MessageType.SIGNED_SURVIVORS, self.context).unsigned(self.sender, 2)
        return writer.fixed(self.signature, SIGNATURE_SIZE).done()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.SIGNED_SURVIVORS)
        message = cls(
            context=reader.fixed(DIGEST_SIZE),
            sender=reader.unsigned(2),
            signature=reader.fixed(SIGNATURE_SIZE),
        )
        reader.end()
        return message


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SurvivorSignatures:
    """Everyone's signatures of what must be one and the same survivor list, by signer."""

    context: bytes
    signatures: Mapping[int, bytes]

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        return _write_signatures(
            _begin(MessageType.SURVIVOR_SIGNATURES, self.context), self.signatures
        ).done()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.SURVIVOR_SIGNATURES)
        message = cls(context=reader.fixed(DIGEST_SIZE), signatures=_read_signatures(reader))
        reader.end()
        return message


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RevealedShares:
    """A client's answer to a survivor list: never both kinds of share of one peer and segment.

    Args:
        mask_key_shares: By (dropped peer, segment), for the segments that this client lets open.
        self_mask_shares: By (surviving peer, segment), for the same segments.
        extra_shares: By (surviving peer, segment, number of the secret): those that the segment's rule gives out.
    """

    context: bytes
    sender: int
    mask_key_shares: Mapping[tuple[int, int], Secret]
    self_mask_shares: Mapping[tuple[int, int], Secret]
    extra_shares: Mapping[tuple[int, int, int], Secret] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        writer = _begin(MessageType.REVEALED_SHARES, self.context).unsigned(self.sender, 2)
        _write_shares(writer, self.mask_key_shares)
        _write_shares(writer, self.self_mask_shares)
        return _write_shares(writer, self.extra_shares).done()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.REVEALED_SHARES)

        def pair() -> tuple[int, int]:
            return reader.unsigned(2), reader.unsigned(2)

        def triple() -> tuple[int, int, int]:
            return *pair(), reader.unsigned(2)

        message = cls(
            context=reader.fixed(DIGEST_SIZE),
            sender=reader.unsigned(2),
            mask_key_shares=_read_shares(reader, pair),
            self_mask_shares=_read_shares(reader, pair),
            extra_shares=_read_shares(reader, triple),
        )
        reader.end()
        return message


def _write_shares(writer: Writer, shares: Mapping[_Key, Secret]) -> Writer:
    writer.unsigned(len(shares), 4)
    for key in sorted(shares):
        for number in key:
            writer.unsigned(number, 2)
        writer.fixed(shares[key], SHARE_SIZE)
    return writer


def _read_shares(reader: Reader, read_key: Callable[[], _Key]) -> dict[_Key, Secret]:
    entries = [(read_key(), Secret(reader.fixed(SHARE_SIZE))) for _ in range(reader.unsigned(4))]
    reader.check_increasing([key for key, _ in entries])
    return dict(entries)


def _write_signatures(writer: Writer, signatures: Mapping[int, bytes]) -> Writer:
    writer.positions(sorted(signatures))
    for position in sorted(signatures):
        writer.fixed(signatures[position], SIGNATURE_SIZE)
    return writer


def _read_signatures(reader: Reader) -> dict[int, bytes]:
    return {position: reader.fixed(SIGNATURE_SIZE) for position in reader.positions()}


def _write_blobs(writer: Writer, blobs: Mapping[int, bytes]) -> Writer:
    writer.positions(sorted(blobs))
    for position in sorted(blobs):
        writer.blob(blobs[position])
    return writer


def _read_blobs(reader: Reader) -> dict[int, bytes]:
    return {position: reader.blob() for position in reader.positions()}


def _write_alike(writer: Writer, values: Mapping[int, bytes]) -> Writer:
    """Values of one and the same size, in one piece."""
    positions = sorted(values)
    if len({len(value) for value in values.values()}) > 1:
        raise WireError("values that travel in one piece must have the same size")
    return writer.positions(positions).blob(b"".join([values[position] for position in positions]))


def _read_alike(reader: Reader) -> dict[int, bytes]:
    positions, whole = reader.positions(), reader.blob()
    size = len(whole) // len(positions) if positions else 0
    if size * len(positions) != len(whole):
        raise WireError(f"{len(whole)} bytes must be {len(positions)} values of the same size")
    return {position: whole[at * size : (at + 1) * size] for at, position in enumerate(positions)}


def _read_commitments(reader: Reader, count: int) -> tuple[bytes, ...]:
    made = reader.fixed(count * COMMITMENT_SIZE)
    return tuple([made[at : at + COMMITMENT_SIZE] for at in range(0, len(made), COMMITMENT_SIZE)])


def bundle_commitments_size(extra_secrets: Sequence[int]) -> int:
    """Bytes of the commitments to one bundle.

    Args:
        extra_secrets: For each segment of the sender, its number of extra secrets.
    """
    return COMMITMENT_SIZE * sum(2 + extra for extra in extra_secrets)


def sealed_bundle_size(extra_secrets: Sequence[int]) -> int:
    """Bytes of a sealed bundle.

    Args:
        extra_secrets: For each segment of the sender, its number of extra secrets.
    """
    header = len(Writer(MessageType.SHARE_BUNDLE).positions(()).done())
    segments = sum(2 + 1 + SHARE_SIZE * (2 + extra) for extra in extra_secrets)
    return sealed.NONCE_SIZE + header + segments + sealed.TAG_SIZE
