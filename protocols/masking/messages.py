"""The messages of the masking protocol; one class per arrow of Bonawitz et al. 2017, figure 4.

    stage            client sends         server sends before it
    advertise_keys   KeyAdvertisement     (nothing: the session is the invitation)
    share_keys       SealedShares         KeyDirectory
    mask_input       MaskedInput          ShareDelivery
    agree_survivors  SignedSurvivors      SurvivorList        (profiles with a signed list only)
    reveal_shares    RevealedShares       SurvivorList        (there: SurvivorSignatures)

Every message carries the session's context; parties are named by their position in the session's roster. Fields stand
on the wire in the order in which they are stated, each as its annotation says (:mod:`protocols.codec`). Decoding checks
form only; what a message may say is checked by whoever handles it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Final, Self, final

from protocols.codec import U8, U16, Blob, Codec, Digest, Fixed, Given, PositionSet, Rest, Vector
from protocols.containers import ByNumbers, ByPosition, Listed, Nested, SameSize
from protocols.message import NOT_SIGNED, HeadedRecord, Inline, Message, Record, SignedMessage
from protocols.primitives import sealed
from protocols.primitives.agreement import PUBLIC_KEY_SIZE
from protocols.primitives.secret import Secret
from protocols.primitives.shamir import SHARE_SIZE
from protocols.primitives.signing import SIGNATURE_SIZE
from protocols.ring import RingVector
from protocols.wire import MessageType, Reader, Writer

# Sixteen bytes of everyone's own randomness: what graphs are derived from.
NONCE_SIZE = 16
# Why so few are enough: commitments.py.
COMMITMENT_SIZE = 16
_SHARE: Final = Fixed(SHARE_SIZE)


@final
@dataclass(frozen=True, slots=True)
class _Share(Codec[Secret]):
    """A Shamir share, which is read as a secret."""

    holds = Secret

    def write(self, writer: Writer, value: Secret) -> None:
        """Append it."""
        _SHARE.write(writer, value)

    def read(self, reader: Reader) -> Secret:
        """Take it."""
        return Secret(reader.fixed(SHARE_SIZE))

    def write_all(self, writer: Writer, values: Sequence[Secret]) -> None:
        """Append them at once."""
        _SHARE.write_all(writer, values)


@cache
def _packed(bits: int) -> ByPosition[RingVector]:
    """Return the codec of vectors by segment index, with `bits` per element."""
    return ByPosition(Vector(bits))


Share = Annotated[Secret, _Share()]
PublicKey = Annotated[bytes, Fixed(PUBLIC_KEY_SIZE)]
Signatures = Annotated[Mapping[int, bytes], ByPosition(Fixed(SIGNATURE_SIZE))]
Blobs = Annotated[Mapping[int, bytes], ByPosition(Blob())]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class KeyAdvertisement(SignedMessage):
    """A client's fresh public keys, its nonce, and commitments to the secrets that it will share beside its keys.

    A segment's mask key may be recovered by the server if the client drops out; the sealing key is never shared, so that
    recovering the one does not open the shares sealed with the other. One mask key per segment, so that a client that
    keeps a segment closed keeps it closed altogether. The signature covers everything else; it is empty where the
    profile works without identities.

    Args:
        context: Digest of the session's terms, 32 bytes.
        sender: Position of the sender.
        sealing_key: Public sealing key, for this session only.
        nonce: Fresh random bytes.
        mask_keys: By segment of the sender: its public mask key.
        commitments: By segment of the sender: to its self-mask seed, then to its extra secrets in their order. (What a
            mask key must be is known by its public key.)
        signature: Signature by the sender's identity.
    """

    message_type = MessageType.KEY_ADVERTISEMENT

    context: Digest
    sender: U16
    sealing_key: PublicKey
    nonce: Annotated[bytes, Fixed(NONCE_SIZE)]
    mask_keys: Annotated[Mapping[int, bytes], ByPosition(Fixed(PUBLIC_KEY_SIZE))]
    commitments: Annotated[
        Mapping[int, tuple[bytes, ...]], ByPosition(Listed(Fixed(COMMITMENT_SIZE), count=2))
    ]
    signature: Annotated[bytes, Rest((0, SIGNATURE_SIZE)), NOT_SIGNED] = b""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDirectory(Message):
    """The nonces of everyone who advertised, and the advertisements of one client's neighbours and its own.

    Args:
        context: Digest of the session's terms, 32 bytes.
        nonces: By position: the nonce of everyone who advertised.
        advertisements: By increasing sender: the advertisements of the recipient's neighbours and its own.
    """

    message_type = MessageType.KEY_DIRECTORY

    context: Digest
    nonces: Annotated[Mapping[int, bytes], ByPosition(Fixed(NONCE_SIZE))]
    advertisements: Annotated[
        tuple[KeyAdvertisement, ...], Listed(Nested(KeyAdvertisement), count=2, increasing="sender")
    ]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentShares(Record):
    """One holder's shares of the secrets of one client and segment. Secret.

    Args:
        mask_key: Share of the private mask key.
        self_mask: Share of the self-mask seed.
        extra: Shares of the segment's extra secrets, in their order.
    """

    mask_key: Share
    self_mask: Share
    extra: Annotated[tuple[Secret, ...], Listed(_Share(), count=1)] = ()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShareBundle(HeadedRecord):
    """The plaintext of one sealed share: what one client entrusts to another, by segment index. Secret."""

    message_type = MessageType.SHARE_BUNDLE

    segments: Annotated[Mapping[int, SegmentShares], ByPosition(Inline(SegmentShares))]

    def to_bytes(self) -> Secret:
        """Return the canonical bytes."""
        return Secret(self._encode())

    @classmethod
    def from_bytes(cls, data: Secret) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        return cls._decode(data)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SealedShares(Message):
    """A client's share bundles, sealed to each recipient; the server cannot open them.

    Args:
        context: Digest of the session's terms, 32 bytes.
        sender: Position of the sender.
        sealed: By share-graph neighbour: the bundle sealed to it.
        commitments: By keeper of its shares, itself where it is one: to all shares it keeps, one behind the other. Each
            keeper has as many.
    """

    message_type = MessageType.SEALED_SHARES

    context: Digest
    sender: U16
    sealed: Blobs
    commitments: Annotated[Mapping[int, bytes], SameSize()]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShareDelivery(Message):
    """The list of those who mask, and the bundles sealed to one recipient, by sender.

    Args:
        context: Digest of the session's terms, 32 bytes.
        recipient: Position of the client that the bundles are for.
        participants: Everyone whose shares have arrived, in increasing order.
        sealed: By sender: the bundles of the recipient's share-graph neighbours who take part.
        digests: By the same senders: digest of the commitments to the shares that they say are in the bundle.
    """

    message_type = MessageType.SHARE_DELIVERY

    context: Digest
    recipient: U16
    participants: PositionSet
    sealed: Blobs
    digests: Annotated[Mapping[int, bytes], SameSize()]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskedInput(Message):
    """A client's masked summands, by segment index; uniform to whoever lacks its masks.

    The signature says who took part in the client's view: the others reveal its self mask only if they share the view.
    It is empty where the profile works without identities.

    Args:
        context: Digest of the session's terms, 32 bytes.
        sender: Position of the sender.
        ring_bits: Bits of one element.
        segments: By segment of the sender: the masked ring elements.
        disputed: The neighbours whose bundles the sender cannot use: they do not open, or do not fit the commitments.
            It will reveal no share of theirs.
        view_signature: Signature of the view: who took part.
    """

    message_type = MessageType.MASKED_INPUT

    context: Digest
    sender: U16
    ring_bits: U8 = 32
    segments: Annotated[Mapping[int, RingVector], Given(("ring_bits",), _packed)]
    disputed: PositionSet = ()
    view_signature: Annotated[bytes, Rest((0, SIGNATURE_SIZE))] = b""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SurvivorList(Message):
    """The list of survivors: their inputs are in the sum. Also who masked but did not upload, and the survivors' views.

    Args:
        context: Digest of the session's terms, 32 bytes.
        survivors: Positions whose inputs are in the sum, in increasing order.
        dropped: Positions that masked with the others but did not upload, in increasing order.
        view_signatures: By survivor: its signature of who took part; empty where the profile works without identities.
    """

    message_type = MessageType.SURVIVOR_LIST

    context: Digest
    survivors: PositionSet
    dropped: PositionSet
    view_signatures: Signatures = field(default_factory=dict)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SignedSurvivors(Message):
    """A client's signature of the survivor list it was given (the ConsistencyCheck of Bonawitz et al. 2017, fig. 4)."""

    message_type = MessageType.SIGNED_SURVIVORS

    context: Digest
    sender: U16
    signature: Annotated[bytes, Fixed(SIGNATURE_SIZE)]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SurvivorSignatures(Message):
    """The signatures by all signers of what must be one and the same survivor list."""

    message_type = MessageType.SURVIVOR_SIGNATURES

    context: Digest
    signatures: Signatures


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RevealedShares(Message):
    """A client's answer to a survivor list: never both kinds of share of one peer and segment.

    Args:
        context: Digest of the session's terms, 32 bytes.
        sender: Position of the sender.
        mask_key_shares: By (dropped peer, segment): the share, for the segments that this client lets open.
        self_mask_shares: By (surviving peer, segment): the share, for the same segments.
        extra_shares: By (surviving peer, segment, number of the secret): the shares that the segment's rule releases.
    """

    message_type = MessageType.REVEALED_SHARES

    context: Digest
    sender: U16
    mask_key_shares: Annotated[Mapping[tuple[int, int], Secret], ByNumbers(2, _Share())]
    self_mask_shares: Annotated[Mapping[tuple[int, int], Secret], ByNumbers(2, _Share())]
    extra_shares: Annotated[Mapping[tuple[int, int, int], Secret], ByNumbers(3, _Share())] = field(
        default_factory=dict
    )


def bundle_commitments_size(extra_secrets: Sequence[int]) -> int:
    """Return the size in bytes of the commitments to one bundle.

    Args:
        extra_secrets: For each segment of the sender, its number of extra secrets.
    """
    return COMMITMENT_SIZE * sum(2 + extra for extra in extra_secrets)


def sealed_bundle_size(extra_secrets: Sequence[int]) -> int:
    """Return the size in bytes of a sealed bundle.

    Args:
        extra_secrets: For each segment of the sender, its number of extra secrets.
    """
    header = len(Writer(MessageType.SHARE_BUNDLE).positions(()).done())
    segments = sum(2 + 1 + SHARE_SIZE * (2 + extra) for extra in extra_secrets)
    return sealed.NONCE_SIZE + header + segments + sealed.TAG_SIZE
