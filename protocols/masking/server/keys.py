"""The two key stages: publish public keys, route sealed shares. There is no input yet."""

from collections.abc import Mapping
from typing import ClassVar, final

from protocols.errors import KeyAgreementError, RosterError, SealError
from protocols.masking import checks
from protocols.masking.messages import (
    KeyAdvertisement,
    KeyDirectory,
    SealedShares,
    bundle_commitments_size,
    sealed_bundle_size,
)
from protocols.masking.server.masked_input import MaskInput
from protocols.masking.server.stage import Stage
from protocols.masking.server.tracing import Dealings
from protocols.masking.terms import MaskingTerms
from protocols.primitives.agreement import check_public_key
from protocols.session import ClientId


@final
class AdvertiseKeys(Stage):
    """The stage that collects public keys."""

    name: ClassVar[str] = "advertise_keys"

    def __init__(self, terms: MaskingTerms) -> None:
        super().__init__(terms)
        self._advertisements: dict[int, KeyAdvertisement] = {}
        self._seen: set[bytes] = set()

    @property
    def expected(self) -> frozenset[int]:
        """All members."""
        return frozenset(range(1, len(self.session.members) + 1))

    def request(self, position: int) -> bytes:  # noqa: ARG002
        """Return an empty request: the session itself is the invitation."""
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
    """The stage that routes sealed shares, which it cannot open, and keeps the commitments to them."""

    name: ClassVar[str] = "share_keys"

    def __init__(self, terms: MaskingTerms, advertisements: Mapping[int, KeyAdvertisement]) -> None:
        super().__init__(terms)
        self._advertisements = advertisements
        self._nonces = {position: entry.nonce for position, entry in advertisements.items()}
        self._share_graph = terms.share_graph(self._nonces)
        self._mask_graphs = [terms.mask_graph(segment, self._nonces) for segment in self.session.segments]
        self._sealed: dict[int, Mapping[int, bytes]] = {}
        self._dealt: dict[int, Mapping[int, bytes]] = {}
        self._everyone: bytes | None = None

    @property
    def expected(self) -> frozenset[int]:
        """Everyone in the directory."""
        return frozenset(self._advertisements)

    def request(self, position: int) -> bytes:
        """Return the directory: everyone's nonce, and the advertisements of the client's neighbours."""
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
        if set(message.commitments) != self.terms.keepers(self._share_graph[position], position):
            raise RosterError(f"{name}: commitments to shares must be for everyone who keeps some")
        extra = [segment.extra_secrets for segment in self.session.segments_of(name)]
        size, committed = sealed_bundle_size(extra), bundle_commitments_size(extra)
        if any(len(blob) != size for blob in message.sealed.values()):
            raise SealError(f"{name}: a sealed bundle must have {size} bytes")
        if any(len(blob) != committed for blob in message.commitments.values()):
            raise SealError(f"{name}: the commitments to a bundle must have {committed} bytes")
        self._sealed[position], self._dealt[position] = message.sealed, message.commitments

    def close(self) -> Stage:
        """Fix who masks: those whose shares have arrived."""
        self._check_enough()
        keys = {position: self._advertisements[position].mask_keys for position in sorted(self.answered)}
        return MaskInput(
            self.terms,
            view=checks.view_of(self.terms, self._nonces, sorted(self.answered)),
            mask_keys=keys,
            sealed=self._sealed,
            dealings=Dealings(self.terms, advertisements=self._advertisements, dealt=self._dealt),
            share_graph=self._share_graph,
            mask_graphs=self._mask_graphs,
        )


def _check_public_key(name: ClientId, key: bytes) -> None:
    try:
        check_public_key(key)
    except KeyAgreementError as error:
        raise KeyAgreementError(f"{name}: {error}") from None
