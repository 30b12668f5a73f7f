"""A session: the terms of one secure sum, agreed by all parties before any secret exists.

The canonical bytes of a session hash to its `context`, to which every key, seal and message is bound. Two parties
that disagree about anything in it (roster, threshold, segments, round, attempt, configuration) cannot complete a sum.
"""

import hashlib
import re
from dataclasses import dataclass
from enum import IntEnum, unique
from functools import cached_property
from itertools import pairwise
from typing import Annotated, ClassVar, Self, final

from protocols.codec import U8, U16, U32, Choice, Codec, Digest, Fixed, Given, PositionSet, Text, Unsigned
from protocols.containers import Listed
from protocols.errors import CapacityError, QuorumError, RosterError, SessionError, ThresholdError
from protocols.message import HeadedRecord, Inline, Record
from protocols.ring import RING_BITS, capacity
from protocols.wire import DIGEST_SIZE, MessageType, Reader, Writer

ClientId = str

RUN_ID_SIZE = 16
MIN_MEMBERS = 2
MAX_EXTRA_SECRETS = 255
MAX_MEMBERS = 2**16 - 1
MAX_SEGMENTS = 2**16 - 1
MAX_RANK = 2**16 - 1
_CLIENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@unique
class ExtraReveal(IntEnum):
    """The rule for which extra secrets of its survivors a segment releases when its sum is opened.

    It is one of the terms, and every client works out the numbers from the one survivor list that it answers: no server
    can ask for others. Secrets of a member that is not among the survivors are never given out.

    NOTHING: none.
    BEYOND_MISSING: all but the first k, where k members of the segment are not among the survivors. The rule of
        XNoise (Dordis, EuroSys 2024): secret number i, from 0, is the seed of a noise component that is needed only
        where more than i members are missing.
    """

    NOTHING = 0
    BEYOND_MISSING = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of the summed vector with its own members and its own quorum.

    Args:
        index: Number of the segment in the session, from 0.
        length: Number of ring elements.
        members: The clients that upload it, increasing.
        quorum: Number of surviving holders below which it stays closed.
        holders: The members whose upload is more than padding, increasing; all of them if not given.
        extra_secrets: Further secrets per member, opaque to the sum, that travel as shares beside its self-mask seed.
        extra_reveal: The rule for which of them are recovered when the segment opens.
    """

    index: int
    length: int
    members: tuple[ClientId, ...]
    quorum: int
    holders: tuple[ClientId, ...] = ()
    extra_secrets: int = 0
    extra_reveal: ExtraReveal = ExtraReveal.NOTHING

    def __post_init__(self) -> None:
        if not self.holders:
            object.__setattr__(self, "holders", self.members)
        if not 1 <= self.length < 2**32:
            raise SessionError(f"segment {self.index}: length={self.length} must lie in 1..2**32-1")
        if not 1 <= self.quorum <= len(self.holders):
            raise QuorumError(
                f"segment {self.index}: quorum={self.quorum} must lie in 1..{len(self.holders)}, its number of holders"
            )
        if not 0 <= self.extra_secrets <= MAX_EXTRA_SECRETS:
            raise SessionError(
                f"segment {self.index}: extra_secrets={self.extra_secrets} must lie in 0..{MAX_EXTRA_SECRETS}"
            )


def _members(most: int) -> Listed[ClientId]:
    """Return the codec of the cohort. More members than the limit are refused before they are read."""

    def check(count: int) -> None:
        if count > most:
            raise RosterError(f"{count} members must be at most {most}")

    return Listed(Text(), count=2, check=check)


def _ranks(members: tuple[ClientId, ...]) -> Listed[int]:
    """Return the codec of the ranks: one for each member, or none."""

    def check(count: int) -> None:
        if count not in (0, len(members)):
            raise SessionError(f"{count} ranks must be one for each of {len(members)} members")

    return Listed(Unsigned(2), count=2, check=check)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _SegmentFields(Record):
    """The wire format of a segment: clients by their positions, and no index, which is its place."""

    length: U32
    quorum: U16
    extra_secrets: U8
    extra_reveal: Annotated[ExtraReveal, Choice(ExtraReveal, name="extra_reveal")]
    members: PositionSet
    holders: PositionSet


@final
@dataclass(frozen=True, slots=True)
class _Segments(Codec[tuple[Segment, ...]]):
    """The segments of a session, preceded by their number (u16), which is checked before they are read."""

    members: tuple[ClientId, ...]
    most: int
    holds = tuple[Segment, ...]

    def write(self, writer: Writer, value: tuple[Segment, ...]) -> None:
        """Append them."""
        place_of = {client: place for place, client in enumerate(self.members, start=1)}.__getitem__
        fields = [
            _SegmentFields(
                length=segment.length,
                quorum=segment.quorum,
                extra_secrets=segment.extra_secrets,
                extra_reveal=segment.extra_reveal,
                members=tuple(map(place_of, segment.members)),
                holders=tuple(map(place_of, segment.holders)),
            )
            for segment in value
        ]
        Listed(Inline(_SegmentFields), count=2).write(writer, tuple(fields))

    def read(self, reader: Reader) -> tuple[Segment, ...]:
        """Take them."""
        if (count := reader.unsigned(2)) > self.most:
            raise SessionError(f"{count} segments must be at most {self.most}")
        return tuple(self._segment(index, Inline(_SegmentFields).read(reader)) for index in range(count))

    def _segment(self, index: int, fields: _SegmentFields) -> Segment:
        return Segment(
            index=index,
            length=fields.length,
            quorum=fields.quorum,
            extra_secrets=fields.extra_secrets,
            extra_reveal=fields.extra_reveal,
            members=self._clients(index, fields.members),
            holders=self._clients(index, fields.holders),
        )

    def _clients(self, index: int, positions: tuple[int, ...]) -> tuple[ClientId, ...]:
        if not positions or not 1 <= positions[0] <= positions[-1] <= len(self.members):
            raise RosterError(f"segment {index}: its positions must lie in 1..{len(self.members)}")
        return tuple([self.members[position - 1] for position in positions])


@dataclass(frozen=True, kw_only=True)
class Session(HeadedRecord):
    """The terms of one secure sum.

    Args:
        run: Identity of the run, 16 bytes.
        round: Round of the run, from 1.
        attempt: Attempt at this round, from 1. A round is never summed twice under one attempt.
        members: The cohort, increasing; a client's position is its place in it, from 1.
        threshold: Number of survivors needed to open anything; more than half of the members.
        input_bound: Every summand lies in [-input_bound, input_bound].
        segments: At least one; numbered in order.
        config_digest: SHA-256 of the plan that all parties follow.
        ring_bits: Bits of the ring: sums are taken in Z_{2^ring_bits}, and uploads take so many bits per element.
        ranks: The enrolled rank of every member, in their order; empty where ranks mean nothing to the sum.
        class_quorum: When above 0: members of one rank form a class, and the sum is opened only if of every class no
            member survives, or so many or more. It stops a server from opening a sum in which the members of one rank
            are few and those of the others add zeros. 0: any survivors do.

    Raises:
        SessionError: CapacityError, ThresholdError, QuorumError or itself, when the terms contradict each other.
        RosterError: A member's name is malformed, repeated or out of order.
    """

    message_type = MessageType.SESSION
    most_members: ClassVar[int] = MAX_MEMBERS
    most_segments: ClassVar[int] = MAX_SEGMENTS

    run: Annotated[bytes, Fixed(RUN_ID_SIZE)]
    round: U32
    attempt: U32
    threshold: U16
    input_bound: U32
    ring_bits: U8 = 32
    config_digest: Digest
    members: Annotated[tuple[ClientId, ...], Given(("most_members",), _members)]
    ranks: Annotated[tuple[int, ...], Given(("members",), _ranks)] = ()
    class_quorum: U16 = 0
    segments: Annotated[tuple[Segment, ...], Given(("members", "most_segments"), _Segments)]

    def __post_init__(self) -> None:
        self._check_terms()
        self._check_members()
        self._check_classes()
        members = set(self.members)
        for number, segment in enumerate(self.segments):
            if segment.index != number:
                raise SessionError(f"segment {segment.index} must be numbered {number}")
            _check_roster(segment.members)
            _check_roster(segment.holders)
            if unknown := set(segment.members) - members:
                raise RosterError(f"segment {number}: {min(unknown)!r} is no member of the session")
            if unknown := set(segment.holders) - set(segment.members):
                raise RosterError(f"segment {number}: holder {min(unknown)!r} is no member of the segment")

    def _check_terms(self) -> None:
        if len(self.run) != RUN_ID_SIZE or len(self.config_digest) != DIGEST_SIZE:
            raise SessionError(f"run and config_digest must have {RUN_ID_SIZE} and {DIGEST_SIZE} bytes")
        if not (1 <= self.round < 2**32 and 1 <= self.attempt < 2**32):
            raise SessionError(f"round={self.round} and attempt={self.attempt} must lie in 1..2**32-1")
        if self.ring_bits not in RING_BITS:
            raise SessionError(f"ring_bits={self.ring_bits} must be one of {RING_BITS}")
        if not 1 <= len(self.segments) <= MAX_SEGMENTS:
            raise SessionError(f"{len(self.segments)} segments must be 1..65535")

    def _check_members(self) -> None:
        _check_roster(self.members)
        n = len(self.members)
        if not MIN_MEMBERS <= n <= MAX_MEMBERS:
            raise RosterError(f"{n} members must be {MIN_MEMBERS}..{MAX_MEMBERS}")
        if not n < 2 * self.threshold <= 2 * n:
            raise ThresholdError(
                f"threshold={self.threshold} must be more than half of {n} members and at most {n}"
            )
        limit = capacity(n, bits=self.ring_bits)
        if not 1 <= self.input_bound <= limit:
            raise CapacityError(
                f"input_bound={self.input_bound} must lie in 1..{limit}: the sum of {n} inputs would take more than half "
                f"of the ring of {self.ring_bits} bits, and a sum that went wrong could pass for a right one; "
                "take more ring_bits, a smaller bound or fewer members"
            )

    def _check_classes(self) -> None:
        if self.ranks and len(self.ranks) != len(self.members):
            raise SessionError(f"{len(self.ranks)} ranks must be one for each of {len(self.members)} members")
        if not all(1 <= rank <= MAX_RANK for rank in self.ranks):
            raise SessionError(f"ranks must lie in 1..{MAX_RANK}")
        if not 0 <= self.class_quorum < 2**16:
            raise QuorumError(f"class_quorum={self.class_quorum} must lie in 0..65535")
        if self.class_quorum and not self.ranks:
            raise QuorumError(f"class_quorum={self.class_quorum} must have the ranks of the members")

    @cached_property
    def classes(self) -> tuple[tuple[ClientId, ...], ...]:
        """The members of each rank, by increasing rank; empty where classes have no quorum."""
        if not self.class_quorum:
            return ()
        by_rank: dict[int, list[ClientId]] = {}
        for member, rank in zip(self.members, self.ranks, strict=True):
            by_rank.setdefault(rank, []).append(member)
        return tuple(tuple(by_rank[rank]) for rank in sorted(by_rank))

    def rank_of(self, client: ClientId) -> int | None:
        """Return a member's rank under these terms; None where they name none."""
        return self.ranks[self.position(client) - 1] if self.ranks else None

    @cached_property
    def context(self) -> bytes:
        """SHA-256 of the canonical bytes; every key, seal and message of the session is bound to it."""
        return hashlib.sha256(b"rbla-secure session\x00" + self.to_bytes()).digest()

    @cached_property
    def _positions(self) -> dict[ClientId, int]:
        return {client: place for place, client in enumerate(self.members, start=1)}

    def position(self, client: ClientId) -> int:
        """Return a member's place in the roster, from 1: its Shamir abscissa."""
        try:
            return self._positions[client]
        except KeyError:
            raise RosterError(f"{client!r} is no member of the session") from None

    def client_at(self, position: int) -> ClientId:
        """Return the member at a position."""
        if not 1 <= position <= len(self.members):
            raise RosterError(f"position {position} must lie in 1..{len(self.members)}")
        return self.members[position - 1]

    def segments_of(self, client: ClientId) -> tuple[Segment, ...]:
        """Return the segments to which a member contributes."""
        if client not in self._segments_of:
            self._segments_of[client] = tuple(s for s in self.segments if client in s.members)
        return self._segments_of[client]

    @cached_property
    def _segments_of(self) -> dict[ClientId, tuple[Segment, ...]]:
        """By client: its segments, for those asked so far. Every client asks for every other."""
        return {}

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return self._encoded

    @cached_property
    def _encoded(self) -> bytes:
        return self._encode()

    @classmethod
    def from_bytes(
        cls, data: bytes, *, most_members: int = MAX_MEMBERS, most_segments: int = MAX_SEGMENTS
    ) -> Self:
        """Inverse of :meth:`to_bytes`; the constructor checks the terms.

        Args:
            data: The canonical bytes.
            most_members: Most members; more are refused before they are read. Whoever knows the plan knows the limit.
            most_segments: Most segments; more are refused before they are read.

        Raises:
            WireError: The bytes are not canonical.
            RosterError, SessionError: There are more members or segments than there can be.
        """
        return cls._decode(data, {"most_members": most_members, "most_segments": most_segments})


def _check_roster(members: tuple[ClientId, ...]) -> None:
    for client in members:
        if not _CLIENT_ID.fullmatch(client):
            raise RosterError(f"client id {client!r} must match {_CLIENT_ID.pattern}")
    if any(a >= b for a, b in pairwise(members)):
        raise RosterError("members must be in increasing order, each once")
