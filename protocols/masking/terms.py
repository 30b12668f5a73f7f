"""A session under a profile: the values that the server and all clients of masking derive from it.

The share graph says who keeps shares of whose secrets; each segment has a mask graph of its own, over its own members,
that says who masks with whom. Up to a hundred parties both are complete. Above, they are random regular graphs (Bell et
al. 2020) derived from the session and from a nonce of everyone who advertised; a segment that all corrupt and dropped members
of the session could nearly fill is masked by all with all, however many they are.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import final

from protocols.errors import SessionError
from protocols.identity.trust import TrustStore
from protocols.masking.commitments import Commitments
from protocols.masking.graph import graph_seed, neighbours
from protocols.masking.parameters import (
    COMPLETE_UP_TO,
    GraphParameters,
    class_reveal_quorum,
    mask_graph_degree,
    reveal_quorum,
    share_graph_parameters,
)
from protocols.profiles import MaskingProfile, SurvivorCheck
from protocols.session import ClientId, ExtraReveal, Segment, Session

Graph = Mapping[int, frozenset[int]]


@final
@dataclass(frozen=True, kw_only=True)
class MaskingTerms:
    """The terms of a masking session.

    Args:
        session: The terms that every secure sum has.
        profile: Security parameters, and how clients check the survivor list.
        trust: The view of whose signatures count; None leaves messages unsigned, only against a semi-honest server.

    Raises:
        SessionError: The profile needs signatures and there is nobody to vouch for them; or extra secrets are to be
            given out by the number of the missing, about which the profile lets a server tell clients different things.
        ThresholdError: The session's threshold is not enough for the profile.
        IdentityError: The roster or the revocation list has expired.
    """

    session: Session
    profile: MaskingProfile
    trust: TrustStore | None

    def __post_init__(self) -> None:
        if self.profile.survivor_check is SurvivorCheck.REVEAL_QUORUM and not self.complete:
            raise SessionError(
                f"profile {self.profile.name} is for at most {COMPLETE_UP_TO} members, not "
                f"{len(self.session.members)}: its argument needs everyone to share with everyone"
            )
        if self.trust is None and self.profile.survivor_check is not SurvivorCheck.TRUST_SERVER:
            raise SessionError(f"profile {self.profile.name} needs certified identities")
        if self.trust is not None:
            self.trust.check_in_force()
        self.profile.check_threshold(self.session.threshold, members=len(self.session.members))
        if self.profile.survivor_check is SurvivorCheck.REVEAL_QUORUM:
            self._check_no_extra_reveal()

    def _check_no_extra_reveal(self) -> None:
        for segment in self.session.segments:
            if segment.extra_reveal is not ExtraReveal.NOTHING:
                raise SessionError(
                    f"segment {segment.index}: extra_reveal={segment.extra_reveal.name} must be NOTHING under profile "
                    f"{self.profile.name}: a server may tell its clients different survivors, and a list that is too "
                    "long gives out too many secrets"
                )

    @cached_property
    def context(self) -> bytes:
        """The digest that binds every key, seal, signature and message to session, profile, roster and revocations.

        Parties that know different rosters or revocation lists end in a refusal at the first message: nobody's input is
        summed beside that of a client whom it knows to be revoked.
        """
        believed = self.trust.digest if self.trust is not None else bytes(32)
        text = b"rbla-secure masking\x00" + self.session.context + believed + self.profile.name.encode()
        return hashlib.sha256(text).digest()

    def check_member(self, client: ClientId) -> None:
        """Refuse a member that may not take part now with the rank that the session gives it.

        Quorums count holders by the ranks of the session, and the bands of a high rank are the thinnest. A member whose
        certificate says another rank would count where the authority never put it; a service would count at all.

        Raises:
            EnrolmentError: It is not enrolled, shares its key, is a service, or was enrolled with another rank.
            RevokedError, CertificateError: It is revoked; it or a list has expired.
        """
        if self.trust is not None:
            self.trust.check_client(client, rank=self.session.rank_of(client))

    @cached_property
    def commitments(self) -> Commitments:
        """The maker of this session's commitments to secrets and shares."""
        return Commitments(self.context)

    @cached_property
    def _shares(self) -> GraphParameters:
        return share_graph_parameters(len(self.session.members), self.profile)

    @property
    def complete(self) -> bool:
        """Whether everyone shares with everyone."""
        return self._shares.degree >= len(self.session.members) - 1

    @property
    def share_threshold(self) -> int:
        """Shares that recover a secret: the threshold of the session, or in a sparse graph that of the graph."""
        return self.session.threshold if self.complete else self._shares.threshold

    def quorum(self, segment: Segment) -> int:
        """Return how many surviving holders a client requires in its list before it reveals a share of a segment.

        Never more than there are: with all its holders there, every segment opens under every profile.
        """
        if self.profile.survivor_check is not SurvivorCheck.REVEAL_QUORUM:
            return segment.quorum
        members = len(self.session.members)
        return reveal_quorum(
            segment_members=len(segment.holders),
            quorum=segment.quorum,
            members=members,
            threshold=self.session.threshold,
            corrupt=self.profile.corrupt(members),
        )

    def class_quorum(self, size: int) -> int:
        """Return how many surviving members a client requires of a class of `size` in its list, if any of it are there.

        A class that is too small for its quorum is never in a sum: no number of its members is enough.
        """
        quorum, members = self.session.class_quorum, len(self.session.members)
        if self.profile.survivor_check is not SurvivorCheck.REVEAL_QUORUM or size < quorum:
            return quorum
        return class_reveal_quorum(
            class_members=size,
            quorum=quorum,
            members=members,
            threshold=self.session.threshold,
            corrupt=self.profile.corrupt(members),
        )

    def thin_classes(self, survivors: Collection[int]) -> tuple[tuple[int, ...], ...]:
        """Return the positions of every class of which some members survive, but fewer than its quorum."""
        found = []
        for members in self.session.classes:
            positions = tuple(map(self.session.position, members))
            present = sum(position in survivors for position in positions)
            if 0 < present < self.class_quorum(len(positions)):
                found.append(positions)
        return tuple(found)

    def given_out(self, segment: Segment, survivors: Collection[int]) -> range:
        """Return the numbers, from 0, of the extra secrets that a segment releases of its survivors."""
        if segment.extra_reveal is ExtraReveal.NOTHING:
            return range(0)
        missing = sum(self.session.position(client) not in survivors for client in segment.members)
        return range(missing, segment.extra_secrets)

    def keepers(self, neighbours: frozenset[int], owner: int) -> frozenset[int]:
        """Return the keepers of an owner's shares: its neighbours, and in a complete graph the owner itself.

        In a sparse graph the threshold is counted among the neighbours alone.
        """
        return neighbours | {owner} if self.complete else neighbours

    def share_graph(self, nonces: Mapping[int, bytes]) -> Graph:
        """Return who keeps shares for whom, among those who advertised."""
        return self._graph(nonces, "share graph", self._shares.degree)

    def mask_graph(self, segment: Segment, nonces: Mapping[int, bytes]) -> Graph:
        """Return who masks a segment with whom, among its members who advertised."""
        members = set(map(self.session.position, segment.members))
        seed_of = {position: nonce for position, nonce in nonces.items() if position in members}
        return self._graph(seed_of, f"mask graph {segment.index}", self._mask_degree(segment))

    def _mask_degree(self, segment: Segment) -> int:
        """Return the mask-graph degree. It assumes all corrupt and dropped of the session to be in this segment."""
        sparse = sum(len(each.members) > COMPLETE_UP_TO for each in self.session.segments)
        return mask_graph_degree(
            len(segment.members),
            members=len(self.session.members),
            profile=self.profile,
            segments=max(1, sparse),
        )

    def _graph(self, nonces: Mapping[int, bytes], label: str, degree: int) -> Graph:
        positions = sorted(nonces)
        if degree >= len(positions) - 1:
            everyone = frozenset(positions)
            return {position: everyone - {position} for position in positions}
        return neighbours(positions, degree, graph_seed(self.context, nonces, label))
