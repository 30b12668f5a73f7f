"""Opening: recovering the secrets of masks from shares, and removing the masks from the sums."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import final

from protocols.errors import ShareError
from protocols.interface import SumResult, reason_to_reject
from protocols.masking.masks import SegmentMasks
from protocols.masking.messages import RevealedShares, SurvivorList
from protocols.masking.terms import Graph, Terms
from protocols.primitives.agreement import PrivateKey
from protocols.primitives.secret import Secret
from protocols.primitives.shamir import Recovery
from protocols.ring import RingVector, centred
from protocols.session import ClientId, Segment


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskedSums:
    """The sums of all uploads, and what is known of the masks in them.

    Args:
        terms: Of the session.
        survivors: Whose uploads are in the sums, and who masked with them but did not upload.
        mask_keys: The public mask keys of all of these, by position and segment.
        share_graph: Who keeps shares for whom.
        mask_graphs: By segment: who masks with whom.
        sums: By segment; opened in place.
    """

    terms: Terms
    survivors: SurvivorList
    mask_keys: Mapping[int, Mapping[int, bytes]]
    share_graph: Graph
    mask_graphs: list[Graph]
    sums: list[RingVector]

    def present(self, segment: Segment) -> frozenset[int]:
        """The members of a segment whose uploads are in its sum."""
        return self._positions(segment.members).intersection(self.survivors.survivors)

    def gone(self, segment: Segment) -> frozenset[int]:
        """The members of a segment who masked it with the others but did not upload."""
        return self._positions(segment.members).intersection(self.survivors.dropped)

    def holding(self, segment: Segment) -> frozenset[int]:
        """Those present whose upload is more than padding."""
        return self._positions(segment.holders).intersection(self.survivors.survivors)

    def given_out(self, segment: Segment) -> range:
        """The numbers of the extra secrets of a segment of which survivors' shares are given out."""
        return self.terms.given_out(segment, frozenset(self.survivors.survivors))

    def keepers(self, owner: int) -> frozenset[int]:
        """Who keeps shares of a client's secrets; the other way round, whose secrets a client keeps shares of."""
        return self.terms.keepers(self.share_graph[owner], owner)

    def _positions(self, clients: tuple[ClientId, ...]) -> frozenset[int]:
        return frozenset(map(self.terms.session.position, clients))


@final
class Opening:
    """Opens masked sums with the shares that clients revealed.

    Args:
        masked: The sums; opened in place, so an opening is made once.
        revealed: By position: the shares, checked.
        offered: By position: the segments that the client lets open.
    """

    def __init__(
        self,
        masked: MaskedSums,
        *,
        revealed: Mapping[int, RevealedShares],
        offered: Mapping[int, frozenset[int]],
    ) -> None:
        self._masked = masked
        self._terms = masked.terms
        self._session = masked.terms.session
        self._revealed = revealed
        self._offered = offered

    def open(self, bindings: Mapping[int, bytes]) -> SumResult:
        """Remove the masks of every segment that enough clients let open. Called once.

        Args:
            bindings: By segment index; all of them.

        Raises:
            ShareError: The shares of a client do not give the secret they should.
        """
        sums, refused = {}, {}
        extra: dict[tuple[ClientId, int, int], Secret] = {}
        for segment in self._session.segments:
            reason = self._reason_to_refuse(segment)
            if not reason:
                self._unmask(segment, bindings[segment.index])
                summed = centred(self._masked.sums[segment.index], bits=self._session.ring_bits)
                reason = reason_to_reject(self._session, summed, present=len(self._masked.present(segment)))
            if reason:
                refused[segment.index] = reason
            else:
                sums[segment.index] = summed
                extra |= self._recover_extra(segment)
        survivors = tuple(self._session.client_at(position) for position in self._masked.survivors.survivors)
        return SumResult(survivors=survivors, sums=sums, refused=refused, extra_secrets=extra)

    def _reason_to_refuse(self, segment: Segment) -> str:
        """Why a segment stays closed; empty when it opens."""
        holding = self._masked.holding(segment)
        quorum = self._terms.quorum(segment)
        if len(holding) < quorum:
            return f"{len(holding)} surviving holders, quorum {quorum}"
        wards = self._masked.present(segment) | self._masked.gone(segment)
        fewest = min(len(self._helpers(owner, segment)) for owner in wards)
        if fewest < self._terms.share_threshold:
            return f"{fewest} clients let it open, threshold {self._terms.share_threshold}"
        return ""

    def _helpers(self, owner: int, segment: Segment) -> tuple[int, ...]:
        """Who has revealed shares of a client's secrets of a segment."""
        holders = self._masked.keepers(owner) & self._revealed.keys()
        return tuple(sorted(p for p in holders if segment.index in self._offered[p]))

    def _recovery(self, owner: int, segment: Segment) -> Recovery:
        """How to recover a client's secrets; computed once for all who share among the same helpers."""
        return _recovery_over(self._helpers(owner, segment)[: self._terms.share_threshold])

    def _unmask(self, segment: Segment, binding: bytes) -> None:
        index, graph = segment.index, self._masked.mask_graphs[segment.index]
        present = self._masked.present(segment)
        seeds = {}
        for peer in sorted(present):
            recovery = self._recovery(peer, segment)
            shares = {h: self._revealed[h].self_mask_shares[peer, index] for h in recovery.coefficients}
            seeds[peer] = _recover(self._session.client_at(peer), recovery, shares)
        # The secrets of the masks that survivors added towards dropped clients and that nothing cancelled.
        uncancelled = {}
        for gone in sorted(self._masked.gone(segment)):
            key = self._recover_mask_key(gone, segment)
            for peer in sorted(graph[gone] & present):
                uncancelled[gone, peer] = key.agree(self._masked.mask_keys[peer][index])
        masks = SegmentMasks(context=self._terms.context, segment=index, binding=binding)
        masks.remove(self._masked.sums[index], seeds, uncancelled)

    def _recover_mask_key(self, gone: int, segment: Segment) -> PrivateKey:
        name, recovery = self._session.client_at(gone), self._recovery(gone, segment)
        shares = {h: self._revealed[h].mask_key_shares[gone, segment.index] for h in recovery.coefficients}
        key = PrivateKey(_recover(name, recovery, shares))
        if key.public != self._masked.mask_keys[gone][segment.index]:
            raise ShareError(f"{name}: the shares revealed for it do not give the key it advertised")
        return key

    def _recover_extra(self, segment: Segment) -> dict[tuple[ClientId, int, int], Secret]:
        """The extra secrets that the segment's rule gives out. Nothing shows whether a holder's share was wrong."""
        found: dict[tuple[ClientId, int, int], Secret] = {}
        numbers = self._masked.given_out(segment)
        for peer in sorted(self._masked.present(segment)) if numbers else ():
            name, recovery = self._session.client_at(peer), self._recovery(peer, segment)
            for number in numbers:
                key = (peer, segment.index, number)
                shares = {h: self._revealed[h].extra_shares[key] for h in recovery.coefficients}
                found[name, segment.index, number] = _recover(name, recovery, shares)
        return found


@lru_cache(maxsize=4096)
def _recovery_over(helpers: tuple[int, ...]) -> Recovery:
    return Recovery.over(helpers)


def _recover(owner: ClientId, recovery: Recovery, shares: Mapping[int, bytes]) -> Secret:
    try:
        return recovery.combine(shares)
    except ShareError as error:
        raise ShareError(f"{owner}: the shares revealed for it: {error}") from None
