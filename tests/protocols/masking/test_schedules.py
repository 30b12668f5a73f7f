"""Neighbouring rounds share their exchanges, and messages are lost, late, doubled and replayed: every sum stays exact.

    exchange    0: advertise 1
    exchange    1: share 1
    exchange    2: mask 1,   advertise 2
    [exchange: agree 1]                          (profiles with a signed list)
    exchange    3: reveal 1, share 2
    exchange    4: mask 2,   advertise 3   ...

A scheduler of our own plays a thousand random schedules over the contract's clients and servers. What must come out is
worked out beside it, from who answered what, in sets and Python integers.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from math import floor
from typing import Any, Final

import numpy as np
import pytest

from protocols.errors import BelowThresholdError, ContextError, ProtocolError, StageError, WireError
from protocols.interface import SegmentInput
from protocols.masking.secure_sum import Masking, MaskingClient, MaskingServer
from protocols.profiles import CONSISTENCY, ONE_ANSWER, SEMI_HONEST, MaskingProfile, by_name
from protocols.session import ClientId, Segment, Session
from tests.protocols.masking.hostile import MASK, MODEL, PLAN, RUN, authority, names

PEOPLE: Final = names(6)
LOSSES: Final = (0.0, 0.02, 0.05, 0.15)
BLOCK: Final = 50
BLOCKS: Final = {"semi-honest": 14, "one-answer": 3, "consistency": 3}

Mishaps = Counter[str]


@lru_cache(maxsize=32)
def secure_sum(profile: MaskingProfile, client: ClientId = "") -> Masking:
    """Masking for one client, or for the server."""
    if profile is SEMI_HONEST:
        return Masking(profile)
    return Masking(profile, trust=authority().view, identity=authority().identity(client) if client else None)


@dataclass(slots=True)
class Round:
    """One session: its parties, what they have sent so far, and who is still in by our own account."""

    session: Session
    inputs: dict[ClientId, dict[int, SegmentInput]]
    stages: tuple[str, ...]
    server: MaskingServer
    clients: dict[ClientId, MaskingClient]
    expected: set[ClientId]
    at: int = 0
    over: bool = False
    uploaded: set[ClientId] = field(default_factory=set)
    requests: list[bytes] = field(default_factory=list)  # that some client of it was handed before
    replies: dict[ClientId, list[bytes]] = field(default_factory=dict)  # of earlier stages

    @property
    def stage(self) -> str:
        """Its current stage."""
        return self.stages[self.at]

    def hand(self, client: ClientId, request: bytes) -> bytes:
        """Give a client a request of the current stage."""
        if self.stage == MASK:
            return self.clients[client].contribute(request, self.inputs[client])
        return self.clients[client].reply(request)


def draw_round(generator: np.random.Generator, profile: MaskingProfile, number: int) -> Round:
    """A session of a random cohort, with one or two random segments; who comes later was in no round before."""
    known = PEOPLE[: min(3 + number, len(PEOPLE))]
    size = int(generator.integers(2, len(known), endpoint=True))
    members = tuple(sorted(generator.choice(known, size=size, replace=False).tolist()))
    threshold = int(generator.integers(profile.threshold(size), size, endpoint=True))
    session = Session(
        run=RUN,
        round=number,
        attempt=1,
        members=members,
        threshold=threshold if generator.random() < 0.3 else profile.threshold(size),
        input_bound=100,
        segments=tuple(draw_segment(generator, index, members) for index in range(generator.integers(1, 3))),
        config_digest=PLAN,
        ring_bits=int(generator.choice([16, 20, 24, 32])),
    )
    inputs = {
        member: {
            part.index: SegmentInput(values=generator.integers(-100, 101, size=part.length), binding=MODEL)
            for part in session.segments_of(member)
        }
        for member in members
    }
    return Round(
        session=session,
        inputs=inputs,
        stages=secure_sum(profile).stages,
        server=secure_sum(profile).server(session),
        clients={member: secure_sum(profile, member).client(session, member) for member in members},
        expected=set(members),
    )


def draw_segment(generator: np.random.Generator, index: int, members: tuple[ClientId, ...]) -> Segment:
    """A segment of one to three values for some of the members, at times padded to all."""
    count = int(generator.integers(1, len(members), endpoint=True))
    holders = tuple(sorted(generator.choice(members, size=count, replace=False).tolist()))
    return Segment(
        index=index,
        length=int(generator.integers(1, 3, endpoint=True)),
        members=members if generator.random() < 0.3 else holders,
        holders=holders,
        quorum=int(generator.integers(1, count, endpoint=True)),
    )


def opening_quorum(profile: MaskingProfile, session: Session, part: Segment) -> int:
    """How many of a segment's holders must survive: under one-answer the least number above the bound of its proof."""
    if profile is not ONE_ANSWER:
        return part.quorum
    n, t, m = len(session.members), session.threshold, len(part.holders)
    return floor(part.quorum - 1 + (m - part.quorum + 1) * (n - t) / n + 1e-9) + 1  # n < 10: c = 0


def check_result(profile: MaskingProfile, played: Round, seed: int) -> None:
    """The sums are those of the survivors' inputs, of the segments that have enough holders left."""
    result = played.server.result({part.index: MODEL for part in played.session.segments})
    opened = {
        part.index: [
            sum(int(played.inputs[m][part.index].values[at]) for m in played.uploaded if m in part.members)
            for at in range(part.length)
        ]
        for part in played.session.segments
        if len(played.uploaded & set(part.holders)) >= opening_quorum(profile, played.session, part)
    }

    assert set(result.survivors) == played.uploaded, seed
    assert {index: values.tolist() for index, values in result.sums.items()} == opened, seed
    assert set(result.refused) == {part.index for part in played.session.segments} - set(opened), seed


@dataclass(slots=True)
class Schedule:
    """One random run of some overlapping rounds."""

    seed: int
    profile: MaskingProfile
    generator: np.random.Generator
    loss: float
    rounds: list[Round]
    mishaps: Mishaps = field(default_factory=Counter)

    @classmethod
    def draw(cls, seed: int, profile: MaskingProfile) -> "Schedule":
        """A schedule of two or three rounds."""
        generator = np.random.default_rng([seed, len(profile.name)])
        return cls(
            seed=seed,
            profile=profile,
            generator=generator,
            loss=float(generator.choice(LOSSES)),
            rounds=[
                draw_round(generator, profile, number)
                for number in range(1, int(generator.integers(2, 4)) + 1)
            ],
        )

    def happens(self, what: str, chance: float) -> bool:
        """Whether a mishap happens now; counted."""
        if self.generator.random() >= chance:
            return False
        self.mishaps[what] += 1
        return True

    def exchanges(self) -> Iterator[list[Round]]:
        """The rounds that are in each exchange: two where they overlap, unless one is over."""
        length = len(secure_sum(self.profile).stages) - 2  # exchanges from one masked input to the next
        turns = [
            [
                max(0, 2 + (place - 1) * length),
                1 + place * length,
                *range(2 + place * length, 2 + (place + 1) * length),
            ]
            for place in range(len(self.rounds))
        ]
        for step in range(2 + length * len(self.rounds)):
            yield [
                played
                for played, in_turn in zip(self.rounds, turns, strict=True)
                if step in in_turn and not played.over
            ]

    def play(self) -> None:
        """All exchanges; whoever is asked in two rounds at once gets both requests in one message."""
        for due in self.exchanges():
            requests = {id(played): dict(played.server.requests()) for played in due}
            for played in due:
                assert set(requests[id(played)]) == played.expected, self.seed
            answered: dict[int, set[ClientId]] = {id(played): set() for played in due}
            for client in self.generator.permutation(PEOPLE).tolist():
                asked = [played for played in due if client in played.expected]
                self.meddle(client, asked, due, requests)
                for played in self.exchange(client, asked, requests):
                    answered[id(played)].add(client)
            for played in due:
                played.requests += set(requests[id(played)].values()) - {b""}
                self.close(played, answered[id(played)])

    def exchange(
        self, client: ClientId, asked: list[Round], requests: dict[int, dict[ClientId, bytes]]
    ) -> list[Round]:
        """One client's merged message and answer; the rounds whose server gets its answer."""
        if self.happens("request lost", self.loss):
            return []
        got = []
        whole_answer_lost = self.happens("answer lost", self.loss)
        for played in asked:
            if self.happens("half a request lost", self.loss / 2):
                continue
            request = requests[id(played)][client]
            reply = played.hand(client, request)
            if self.happens("request twice", 0.1):
                assert played.hand(client, request) == reply, self.seed
            if whole_answer_lost or self.happens("half an answer lost", self.loss / 2):
                played.replies.setdefault(client, []).append(reply)  # it may come late
                continue
            played.server.receive(client, reply)
            got.append(played)
            if self.happens("answer twice", 0.1):
                with pytest.raises(StageError):
                    played.server.receive(client, reply)
            played.replies.setdefault(client, []).append(reply)
        return got

    def meddle(
        self,
        client: ClientId,
        asked: list[Round],
        due: list[Round],
        requests: dict[int, dict[ClientId, bytes]],
    ) -> None:
        """What belongs to another round, or to an earlier stage, changes nothing at client or server."""
        for played in asked:
            others = [other for other in self.rounds if other is not played]
            now = [requests[id(other)].get(client, b"") for other in due if other is not played]
            foreign = [request for request in now if request]
            past = [request for other in others for request in other.requests]
            if past and self.happens("request of another round", 0.2):
                foreign.append(past[int(self.generator.integers(len(past)))])
            for request in foreign:
                self.mishaps["request of the other session"] += 1
                self.check_refused(played, client, request)
            if played.requests and self.happens("request of an earlier stage", 0.2):
                self.check_replayed(played, client)
            for other in (other for other in others if client in other.replies):
                if self.happens("answer of another round", 0.3):
                    with pytest.raises((ContextError, WireError)):
                        played.server.receive(client, other.replies[client][-1])
            if played.replies.get(client) and self.happens("answer of an earlier stage", 0.3):
                with pytest.raises(ProtocolError):
                    played.server.receive(client, played.replies[client][0])

    def check_refused(self, played: Round, client: ClientId, request: bytes) -> None:
        """The client takes it neither as a request for an answer nor as one for its input."""
        party = played.clients[client]
        before = dict(vars(party))

        with pytest.raises((ContextError, WireError, StageError)):
            party.reply(request)
        with pytest.raises((ContextError, WireError, StageError)):
            party.contribute(request, played.inputs[client])

        assert vars(party) == before, self.seed

    def check_replayed(self, played: Round, client: ClientId) -> None:
        """A request that was answered is answered as before, any other is refused; neither changes the client."""
        party = played.clients[client]
        before = dict(vars(party))
        request = played.requests[int(self.generator.integers(len(played.requests)))]
        try:
            answer = played.clients[client].reply(request)
        except ProtocolError:
            pass
        else:
            assert answer in played.replies[client], self.seed

        assert vars(party) == before, self.seed

    def close(self, played: Round, answered: set[ClientId]) -> None:
        """The stage closes over those who answered, or the round ends by name; late answers are refused."""
        late = {client: replies[-1] for client, replies in played.replies.items() if client not in answered}
        stage = played.stage
        if len(answered) < played.session.threshold:
            with pytest.raises(BelowThresholdError, match=stage):
                played.server.close_stage()
            with pytest.raises(StageError):
                played.server.requests()
            with pytest.raises(StageError):
                played.server.result({part.index: MODEL for part in played.session.segments})
            self.mishaps["round ended"] += 1
            self.end(played)
            return
        played.server.close_stage()
        for client, reply in late.items():
            with pytest.raises(ProtocolError):
                played.server.receive(client, reply)
        played.expected = answered
        if stage == MASK:
            played.uploaded = answered
        played.at += 1
        if played.at == len(played.stages):
            check_result(self.profile, played, self.seed)
            self.mishaps["round summed"] += 1
            self.end(played)

    def end(self, played: Round) -> None:
        """Everybody forgets the round."""
        played.over = True
        for client, party in played.clients.items():
            party.end()
            for request in played.requests[-1:]:
                with pytest.raises(StageError):
                    party.reply(request)
                with pytest.raises(StageError):
                    party.contribute(request, played.inputs[client])


def blocks() -> list[Any]:
    """A thousand schedules in blocks: profile and first seed."""
    return [(name, BLOCK * block) for name, count in BLOCKS.items() for block in range(count)]


@pytest.mark.parametrize(("name", "first"), blocks(), ids=str)
def test_overlapping_rounds_give_the_plain_sums_or_end_by_name(name: str, first: int) -> None:
    """Whatever is lost, late, doubled or replayed, each round's sum is that of its own survivors, or it ends by name."""
    profile = by_name(name)
    mishaps: Mishaps = Counter()

    for seed in range(first, first + BLOCK):
        schedule = Schedule.draw(seed, profile)
        schedule.play()
        assert all(played.over for played in schedule.rounds), seed
        mishaps += schedule.mishaps

    # The block has seen everything that it is about.
    assert mishaps["round summed"] > BLOCK / 2
    assert min(mishaps.values()) > 0
    assert set(mishaps) == {
        "request lost",
        "answer lost",
        "half a request lost",
        "half an answer lost",
        "request twice",
        "answer twice",
        "request of another round",
        "request of the other session",
        "request of an earlier stage",
        "answer of another round",
        "answer of an earlier stage",
        "round ended",
        "round summed",
    }


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        (ONE_ANSWER, {(MASK, "advertise_keys"), ("reveal_shares", "share_keys")}),
        (CONSISTENCY, {(MASK, "advertise_keys"), ("agree_survivors",), ("reveal_shares", "share_keys")}),
    ],
    ids=["one-answer", "consistency"],
)
def test_the_exchanges_are_shared_as_foretold(
    profile: MaskingProfile, expected: set[tuple[str, ...]]
) -> None:
    """Masked input rides with the next round's keys, and shares are revealed with the next round's shares."""
    schedule = Schedule.draw(0, profile)
    seen = []
    for due in schedule.exchanges():
        seen.append(tuple(played.stage for played in due))
        for played in due:
            played.at += 1

    assert seen[:2] == [("advertise_keys",), ("share_keys",)]
    assert set(seen[2 : 1 + len(expected)]) <= expected <= set(seen)


def test_there_are_a_thousand_schedules() -> None:
    """As many as were promised, two or three rounds each."""
    assert sum(BLOCKS.values()) * BLOCK == 1000
    assert {len(Schedule.draw(seed, SEMI_HONEST).rounds) for seed in range(10)} == {2, 3}
