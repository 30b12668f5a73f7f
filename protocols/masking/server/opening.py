"""Opening: recovering the secrets of masks from shares, and removing the masks from the sums."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import final

from protocols.errors import ShareError
from protocols.interface import SumResult, reason_to_reject
from protocols.masking.commitments import EXTRA, SELF_MASK
from protocols.masking.masks import SegmentMasks
from protocols.masking.messages import RevealedShares, SurvivorList
from protocols.masking.server.tracing import Dealings
from protocols.masking.terms import Graph, MaskingTerms
from protocols.primitives.agreement import PrivateKey
from protocols.primitives.secret import Secret
from protocols.primitives.shamir import Recovery
from protocols.ring import IntegerVector, RingVector, centred, folded
from protocols.session import ClientId, Segment


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskedSums:
    """The sums of all uploads, and the records of the masks in them.

    Args:
        terms: The terms of the session.
        survivors: The survivor list: whose uploads are in the sums, and who masked with them but did not upload.
        mask_keys: The public mask keys of all of these, by position and segment.
        dealings: The records of their commitments.
        share_graph: By position: the neighbours in the share graph.
        mask_graphs: By segment: the mask graph.
        sums: By segment: the sum, opened in place.
    """

    terms: MaskingTerms
    survivors: SurvivorList
    mask_keys: Mapping[int, Mapping[int, bytes]]
    dealings: Dealings
    share_graph: Graph
    mask_graphs: list[Graph]
    sums: list[RingVector]

    def present(self, segment: Segment) -> frozenset[int]:
        """Return the members of a segment whose uploads are in its sum."""
        return self._positions(segment.members).intersection(self.survivors.survivors)

    def gone(self, segment: Segment) -> frozenset[int]:
        """Return the members of a segment who masked it with the others but did not upload."""
        return self._positions(segment.members).intersection(self.survivors.dropped)

    def holding(self, segment: Segment) -> frozenset[int]:
        """Return those present whose upload is more than padding."""
        return self._positions(segment.holders).intersection(self.survivors.survivors)

    def given_out(self, segment: Segment) -> range:
        """Return the numbers of the extra secrets that a segment releases of its survivors."""
        return self.terms.given_out(segment, frozenset(self.survivors.survivors))

    def keepers(self, owner: int) -> frozenset[int]:
        """Return the keepers of shares of a client's secrets."""
        return self.terms.keepers(self.share_graph[owner], owner)

    def wards(self, holder: int) -> frozenset[int]:
        """Return the owners of the secrets of which a client has usable shares."""
        return self.keepers(holder) - self.dealings.disputed_by(holder)

    def _positions(self, clients: tuple[ClientId, ...]) -> frozenset[int]:
        return frozenset(map(self.terms.session.position, clients))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Secrets:
    """The secrets recovered for one segment.

    Args:
        seeds: By survivor: the self-mask seed.
        mask_keys: By member that masked but did not upload: the private mask key.
        extra: By (survivor, segment, number): the extra secret.
    """

    seeds: Mapping[int, Secret]
    mask_keys: Mapping[int, PrivateKey]
    extra: Mapping[tuple[int, int, int], Secret]


@final
class Opening:
    """The opening of masked sums with the shares that clients revealed.

    Only right shares are used: those that fit the commitments of who dealt them. So a secret that does not fit its own
    commitment, or the public key, convicts its dealer; the segment stays closed, and the others open.

    Args:
        masked: The masked sums; opened in place, so an opening is made once.
        revealed: By position: the checked shares.
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
        self._dealings = masked.dealings
        self._revealed = revealed
        self._offered = offered
        self._helping: dict[tuple[int, int], tuple[int, ...]] = {}

    def open(self, bindings: Mapping[int, bytes], *, noise_follows: bool = False) -> SumResult:
        """Remove the masks of every segment that enough clients let open. Called once.

        Args:
            bindings: By segment index: the binding, for all segments.
            noise_follows: Whether sums get their noise afterwards: then none is refused for its values, and none jumps.
        """
        sums, refused = {}, {}
        extra: dict[tuple[ClientId, int, int], Secret] = {}
        for segment in self._session.segments:
            try:
                secrets = self._recover(segment)
                sums[segment.index] = self._opened(
                    segment, secrets, bindings[segment.index], noise_follows=noise_follows
                )
            except _ClosedError as error:
                refused[segment.index] = str(error)
            else:
                extra |= {(self._name(p), index, n): value for (p, index, n), value in secrets.extra.items()}
        return SumResult(
            survivors=tuple(map(self._name, self._masked.survivors.survivors)),
            sums=sums,
            refused=refused,
            extra_secrets=extra,
            faults=self._dealings.faults(),
            disputes=self._dealings.disputes(),
        )

    def _recover(self, segment: Segment) -> _Secrets:
        """Recover all secrets that open a segment; note every dealer whose shares give other secrets."""
        if reason := self._reason_to_refuse(segment):
            raise _ClosedError(reason)
        present, gone = sorted(self._masked.present(segment)), sorted(self._masked.gone(segment))
        found = {peer: self._recover_survivor(peer, segment) for peer in present}
        keys = {peer: self._recover_mask_key(peer, segment) for peer in gone}
        bad = [peer for peer, secret in (*found.items(), *keys.items()) if secret is None]
        for dealer in bad:
            self._dealings.convict(dealer, segment.index)
        if bad:
            raise _ClosedError(
                f"the shares that {self._name(bad[0])} dealt do not give the secrets it committed to"
            )
        numbers = self._masked.given_out(segment)
        own = {peer: secrets for peer, secrets in found.items() if secrets is not None}
        return _Secrets(
            seeds={peer: secrets[0] for peer, secrets in own.items()},
            mask_keys={peer: key for peer, key in keys.items() if key is not None},
            extra={
                (peer, segment.index, number): secret
                for peer, secrets in own.items()
                for number, secret in zip(numbers, secrets[1:], strict=True)
            },
        )

    def _opened(
        self, segment: Segment, secrets: _Secrets, binding: bytes, *, noise_follows: bool
    ) -> IntegerVector:
        """Return the sum of a segment as integers."""
        self._unmask(segment, secrets, binding)
        words, bits = self._masked.sums[segment.index], self._session.ring_bits
        if noise_follows:
            # Whether it lies within bounds depends on everybody's input: that is for whoever adds the noise to ask, after it.
            return folded(words, bits=bits)
        summed, present = centred(words, bits=bits), len(self._masked.present(segment))
        if reason := reason_to_reject(self._session, summed, present=present):
            raise _ClosedError(reason)
        return summed

    def _unmask(self, segment: Segment, secrets: _Secrets, binding: bytes) -> None:
        """Remove the masks from the sum of a segment."""
        index, graph = segment.index, self._masked.mask_graphs[segment.index]
        present = self._masked.present(segment)
        # The secrets of the masks that survivors added towards dropped clients and that nothing cancelled.
        uncancelled = {
            (gone, peer): key.agree(self._masked.mask_keys[peer][index])
            for gone, key in secrets.mask_keys.items()
            for peer in sorted(graph[gone] & present)
        }
        masks = SegmentMasks(context=self._terms.context, segment=index, binding=binding)
        masks.remove(self._masked.sums[index], secrets.seeds, uncancelled)

    def _reason_to_refuse(self, segment: Segment) -> str:
        """Return why a segment stays closed; empty when it opens."""
        holding = self._masked.holding(segment)
        quorum = self._terms.quorum(segment)
        if len(holding) < quorum:
            return f"{len(holding)} surviving holders, quorum {quorum}"
        wards = self._masked.present(segment) | self._masked.gone(segment)
        fewest, owner = min((len(self._helpers(owner, segment)), owner) for owner in wards)
        if fewest < self._terms.share_threshold:
            return (
                f"{fewest} clients let it open, threshold {self._terms.share_threshold}: "
                f"so many revealed right shares of {self._name(owner)}"
            )
        return ""

    def _helpers(self, owner: int, segment: Segment) -> tuple[int, ...]:
        """Return who has revealed right shares of a client's secrets of a segment; computed once."""
        key = (owner, segment.index)
        if key not in self._helping:
            holders = (self._masked.keepers(owner) & self._revealed.keys()) - self._dealings.unusable(*key)
            self._helping[key] = tuple(sorted(p for p in holders if segment.index in self._offered[p]))
        return self._helping[key]

    def _recovery(self, owner: int, segment: Segment) -> Recovery:
        """Return the recovery of a client's secrets; computed once for all who share among the same helpers."""
        return _recovery_over(self._helpers(owner, segment)[: self._terms.share_threshold])

    def _recover_survivor(self, peer: int, segment: Segment) -> tuple[Secret, ...] | None:
        """Return a survivor's seed and its released extra secrets; None if one differs from its commitment."""
        index, recovery, revealed = segment.index, self._recovery(peer, segment), self._revealed
        shares = [(SELF_MASK, {h: revealed[h].self_mask_shares[peer, index] for h in recovery.coefficients})]
        shares += [
            (EXTRA + n, {h: revealed[h].extra_shares[peer, index, n] for h in recovery.coefficients})
            for n in self._masked.given_out(segment)
        ]
        found = []
        for number, given in shares:
            secret = _combined(recovery, given)
            if secret is None or not self._dealings.fits(secret, owner=peer, segment=index, number=number):
                return None
            found.append(secret)
        return tuple(found)

    def _recover_mask_key(self, gone: int, segment: Segment) -> PrivateKey | None:
        """Return the mask key of a client that dropped out; None if it is not the one it advertised."""
        recovery = self._recovery(gone, segment)
        shares = {h: self._revealed[h].mask_key_shares[gone, segment.index] for h in recovery.coefficients}
        secret = _combined(recovery, shares)
        key = PrivateKey(secret) if secret is not None else None
        return key if key is not None and key.public == self._masked.mask_keys[gone][segment.index] else None

    def _name(self, position: int) -> ClientId:
        return self._session.client_at(position)


class _ClosedError(Exception):
    """A segment stays closed, for the reason given."""


@lru_cache(maxsize=4096)
def _recovery_over(helpers: tuple[int, ...]) -> Recovery:
    return Recovery.over(helpers)


def _combined(recovery: Recovery, shares: Mapping[int, bytes]) -> Secret | None:
    """Return the secret of these shares; None if they belong to none."""
    try:
        return recovery.combine(shares)
    except ShareError:
        return None
