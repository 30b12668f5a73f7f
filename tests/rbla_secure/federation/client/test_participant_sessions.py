"""Which sessions a participant answers: terms, cohorts, order, and what it forgets of those that are over."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, final

import pytest

from protocols.primitives.secret import Secret
from protocols.session import ClientId, ExtraReveal, Segment, Session
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.exchange import Answer, Exchange, Parcel
from rbla_secure.federation.messages import StageRefusal, StageReply, decode_answer
from rbla_secure.federation.round import RoundOutcome, prepare_round, run_round
from rbla_secure.federation.server.session_server import StageOfSession, exchange_stages
from rbla_secure.planning.modes import build_secure_sum
from tests.rbla_secure.federation.client.asked import (
    LEVELS,
    PLAN,
    SESSION,
    participant,
    refusal,
    reply,
    request,
    sent,
)
from tests.support.federations import (
    LARGE,
    MEMBERS,
    RUN,
    SMALL,
    InMemory,
    drift,
    make_adapter,
    make_participants,
    make_plan,
    make_session,
    open_round,
    play_round,
)
from tests.support.identities import client_sum, make_authority
from tests.support.reachable import secrets_of


@final
class Backwards(Exchange):
    """Delivers the parcels of every message from last to first."""

    def __init__(self, participants: Mapping[ClientId, Participant]) -> None:
        self._inner = InMemory(participants)

    def send(self, messages: Mapping[ClientId, Sequence[Parcel]]) -> Iterator[Answer]:
        yield from self._inner.send({client: parcels[::-1] for client, parcels in messages.items()})


def first_segment(session: Session, **changes: Any) -> Session:
    return replace(session, segments=(replace(session.segments[0], **changes), *session.segments[1:]))


@pytest.mark.parametrize(
    "change",
    [
        lambda s: replace(s, threshold=5),
        lambda s: replace(s, input_bound=s.input_bound + 1),
        lambda s: replace(s, input_bound=s.input_bound - 1),
        lambda s: replace(s, config_digest=bytes(32)),
        lambda s: replace(s, segments=s.segments[:1]),
        lambda s: replace(s, segments=(*s.segments, replace(s.segments[1], index=2))),
        lambda s: first_segment(s, quorum=1),
        lambda s: first_segment(s, quorum=4),
        lambda s: first_segment(s, length=s.segments[0].length - 1),
        lambda s: first_segment(s, length=s.segments[0].length + 11),
        lambda s: first_segment(s, members=SMALL, holders=SMALL),
        lambda s: first_segment(s, holders=SMALL),
        lambda s: first_segment(s, extra_secrets=1),
        lambda s: first_segment(s, extra_reveal=ExtraReveal.BEYOND_MISSING),
        lambda s: replace(s, segments=(s.segments[0], replace(s.segments[1], members=MEMBERS))),
        lambda s: replace(
            s, segments=(s.segments[0], replace(s.segments[1], members=MEMBERS, holders=MEMBERS))
        ),
        lambda s: replace(s, ring_bits=24),
        lambda _: make_session(make_plan(seed=1)),
        lambda _: make_session(make_plan(min_holders=2)),
        lambda _: make_session(make_plan(secure_sum="masking")),
        lambda _: make_session(make_plan(upload="padded")),
        lambda _: make_session(make_plan(masking={"profile": "consistency"})),
    ],
)
def test_terms_that_are_not_the_plans_are_refused(change: Callable[[Session], Session]) -> None:
    """Another threshold, quorum, segment table, bound or plan is refused, and the honest session still goes on."""
    me = participant()
    session = change(SESSION)

    refused = refusal(me.handle(request(session)))

    assert refused.error in {"RefusalError", "SessionError"}
    assert "not the plan's" in refused.reason or "at most 2" in refused.reason
    assert sent(me.handle(request()))


def test_a_round_that_the_plan_does_not_have_is_refused() -> None:
    """A server cannot try round numbers until it likes the cohort and the groups that follow from them."""
    session = replace(SESSION, round=10)

    refused = refusal(participant().handle(request(session)))

    assert (refused.error, refused.reason) == (
        "RefusalError",
        "round 10 must lie in 1..9, the rounds of the plan",
    )


def over(segment: Segment, members: tuple[str, ...]) -> Segment:
    """A segment of other members, one of whom is enough."""
    return replace(segment, members=members, holders=members, quorum=1)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (("large-01", "large-02", "large-03", "small-02", "small-03"), "it lacks small-01"),
        (("large-02", "large-03", *SMALL), "it lacks large-01"),
        (("Large-01", *MEMBERS[1:]), "it lacks large-01 and Large-01 is not in it"),
    ],
)
def test_a_cohort_that_does_not_fit_the_roster_is_refused(members: tuple[str, ...], reason: str) -> None:
    """A client that is unknown, or a cohort without this one, is refused by name."""
    me = participant()
    parts = [
        over(segment, tuple(name for name in segment.members if name in members))
        for segment in SESSION.segments
    ]
    ranks = tuple(PLAN.ranks.get(member, 3) for member in members)
    session = replace(SESSION, members=members, segments=tuple(parts), ranks=ranks)

    refused = refusal(me.handle(request(session)))

    assert refused.error == "RefusalError"
    assert refused.reason == (
        f"the cohort of round 1 is not the plan's ({reason}): it follows from tiers, seed and round; whoever is not there has "
        "dropped out"
    )


def test_more_members_than_the_plan_has_are_not_even_read() -> None:
    """How many there can be is known before a session is parsed."""
    members = (*MEMBERS, "zzz-01")
    session = replace(SESSION, members=members, ranks=(*SESSION.ranks, 1), threshold=5)

    refused = refusal(participant().handle(request(session)))

    assert (refused.error, refused.reason) == ("RosterError", "7 members must be at most 6")


@pytest.mark.parametrize("members", [("large-01", "small-01"), LARGE, ("small-01", "small-02", "small-03")])
def test_a_cohort_below_the_plan_is_refused(members: tuple[str, ...]) -> None:
    """A server cannot shrink the cohort until a sum shows somebody: the plan's threshold and quorums stand."""
    small = make_plan(tiers={"large": {"rank": 3, "clients": 3}, "small": {"rank": 1, "clients": 3}})
    session = Session(
        run=RUN,
        round=1,
        attempt=1,
        members=members,
        threshold=len(members),
        input_bound=LEVELS,
        segments=(over(SESSION.segments[0], members),),
        config_digest=small.digest,
    )

    refused = refusal(participant(members[0]).handle(request(session, rank=small.ranks[members[0]])))

    assert refused.error in {"RefusalError", "ThresholdError", "QuorumError"}  # whichever is seen first


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((2, 1), (2, 2), StageReply),
        ((2, 1), (3, 1), StageReply),
        ((2, 5), (3, 1), StageReply),
        ((2, 2), (2, 1), StageRefusal),
        ((2, 1), (1, 1), StageRefusal),
        ((2, 1), (1, 9), StageRefusal),
    ],
)
def test_rounds_and_attempts_only_move_forward(
    first: tuple[int, int], second: tuple[int, int], expected: type
) -> None:
    """After the keys of a session, only a later attempt or a later round is entered."""
    plan = make_plan(secure_sum="masking")
    me = participant(plan=plan)
    earlier = make_session(plan, round_number=first[0], attempt=first[1])
    later = make_session(plan, round_number=second[0], attempt=second[1])
    reply(me.handle(request(earlier, adapter=b"")))

    answer = decode_answer(me.handle(request(later, adapter=b"")))

    assert type(answer) is expected
    if isinstance(answer, StageRefusal):
        assert answer.error == "RefusalError"
        assert "must come after round 2" in answer.reason


def test_one_attempt_has_one_cohort() -> None:
    """The same round and attempt with other members is refused: two sums would show their difference."""
    plan = make_plan(tiers={"lab": {"rank": 1, "clients": 6, "cohort": 4}})
    first = plan.session(run=RUN, round_number=1, attempt=1)
    (absent, *_) = set(plan.ranks) - set(first.members)
    others = tuple(sorted({*first.members[:-1], absent}))
    parts = tuple(replace(part, members=others, holders=others) for part in first.segments)
    me = participant(first.members[0], plan=plan)
    rows = make_adapter(plan).to_bytes()
    reply(me.handle(request(first, adapter=rows)))

    refused = refusal(me.handle(request(replace(first, members=others, segments=parts), adapter=rows)))

    assert refused.reason == "round 1 attempt 1 must come after round 1 attempt 1"


def test_a_session_stays_open_while_the_next_round_begins() -> None:
    """The keys of the next round are asked for before this round is revealed: both are answered, in either order."""
    me = participant()
    this, following = (request(make_session(PLAN, round_number=number)) for number in (1, 2))
    first = reply(me.handle(this))

    second = reply(me.handle(following))

    assert reply(me.handle(this)) == first
    assert reply(me.handle(following)) == second != first


@pytest.mark.parametrize(("number", "attempt"), [(1, 2), (3, 1), (7, 4)])
def test_an_old_session_is_over_once_a_new_one_began(number: int, attempt: int) -> None:
    """After another attempt at its round, or a round beyond the next, a session's requests are refused."""
    plan = make_plan(secure_sum="masking", rounds=9)
    me = participant(plan=plan)
    old = request(make_session(plan, round_number=1), adapter=b"")
    reply(me.handle(old))
    reply(me.handle(request(make_session(plan, round_number=number, attempt=attempt), adapter=b"")))

    refused = refusal(me.handle(old))

    assert refused.error == "RefusalError"


PROFILES = ("semi-honest", "one-answer", "consistency")


class Neighbours:
    """A participant whose keys for round 2 ride along with round 1."""

    def __init__(self, profile: str) -> None:
        self.plan = make_plan(secure_sum="masking", masking={"profile": profile}, rounds=9)
        people = make_participants(self.plan)
        self.exchange = InMemory(people)
        self.me = people["large-01"]
        self.lasting = secrets_of(self.me)  # its identity's

    def held(self) -> set[Secret]:
        """The secrets of sessions that can still be reached."""
        return secrets_of(self.me) - self.lasting

    def prepare(self, number: int, *, attempt: int = 1) -> None:
        prepare_round(open_round(self.plan, round_number=number, attempt=attempt), self.exchange)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_end_drops_the_secrets_of_both_sessions(profile: str) -> None:
    """However far the sessions of two rounds have come, no key, seed or share is left."""
    run = Neighbours(profile)
    run.prepare(1)
    first = run.held()
    run.prepare(2)
    both = run.held()

    run.me.end()

    assert first
    assert first < both
    assert run.held() == set()


def test_after_the_end_no_session_is_answered() -> None:
    """Not even a request that was answered before is repeated, and neither session is entered again."""
    me = participant()
    requests = [request(make_session(PLAN, round_number=number)) for number in (1, 2)]
    for each in requests:
        reply(me.handle(each))

    me.end()

    assert [refusal(me.handle(each)).error for each in requests] == ["RefusalError"] * 2


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("number", "attempt"), [(3, 1), (9, 1)])
def test_the_round_after_the_next_drops_a_sessions_secrets(profile: str, number: int, attempt: int) -> None:
    """A session that never finished is over two rounds later: only neighbours are open together."""
    run = Neighbours(profile)
    run.prepare(1)
    first = run.held()
    run.prepare(2)
    second = run.held() - first

    run.prepare(number, attempt=attempt)

    assert not first & run.held()
    assert (second <= run.held()) == (number == 3)


@pytest.mark.parametrize("profile", PROFILES)
def test_another_attempt_drops_the_secrets_of_the_one_before(profile: str) -> None:
    """Of one round, one attempt is open; the round before it stays."""
    run = Neighbours(profile)
    run.prepare(1)
    first = run.held()
    run.prepare(2)
    second = run.held() - first

    run.prepare(2, attempt=2)

    assert not second & run.held()
    assert first < run.held()


@pytest.mark.parametrize("profile", PROFILES)
def test_a_finished_session_has_no_secrets(profile: str) -> None:
    """Once a client has revealed its shares, nothing is left of the session but public answers."""
    run = Neighbours(profile)

    play_round(run.plan, make_adapter(run.plan), run.exchange)

    assert run.held() == set()


def test_the_requests_of_two_rounds_are_answered_in_any_order() -> None:
    """A network that delivers the next round's invitation first changes nothing."""
    plan = make_plan(secure_sum="masking")
    adapter = make_adapter(plan)

    def outcome(exchange: InMemory) -> RoundOutcome:
        this, following = open_round(plan), open_round(plan, round_number=2)
        prepare_round(this, exchange)
        first = run_round(plan, this, adapter, exchange, upcoming=following)
        return run_round(plan, following, first.adapter, exchange)

    straight = outcome(InMemory(make_participants(plan)))
    reversed_ = outcome(Backwards(make_participants(plan)))

    assert reversed_.adapter.to_bytes() == straight.adapter.to_bytes()
    assert reversed_.survivors == MEMBERS
    assert (reversed_.refusals, reversed_.dropped) == ({}, {})


def test_participants_that_live_on_skip_the_round_of_a_killed_server() -> None:
    """Invited to the next round, they answer no other attempt at this one; the next round goes on."""
    plan = make_plan(secure_sum="masking")
    exchange = InMemory(make_participants(plan))
    adapter = make_adapter(plan)
    this, following = open_round(plan), open_round(plan, round_number=2)
    prepare_round(this, exchange)
    exchange_stages(
        exchange,
        [
            StageOfSession(session_server=this, stage="mask_input", adapter=adapter),
            StageOfSession(session_server=following, stage="advertise_keys"),
        ],
    )

    # The server is killed here; resumed, it begins another attempt at round 1, and then at round 2.
    skipped = play_round(plan, adapter, exchange, attempt=2)
    outcome = play_round(plan, adapter, exchange, round_number=2, attempt=2)

    assert skipped.aborted
    assert all("must come after" in reason for reason in skipped.refusals.values())
    assert outcome.refusals == {}
    assert outcome.survivors == MEMBERS


@pytest.mark.parametrize("profile", ["one-answer", "consistency"])
def test_a_participant_without_its_own_identity_is_in_no_session(profile: str) -> None:
    """Where messages are signed, a missing or another client's identity is refused by name, and nothing is sent."""
    plan = make_plan(secure_sum="masking", masking={"profile": profile})
    session = make_session(plan)
    view = make_authority(plan).view

    for secure_sum in (build_secure_sum(plan, view), client_sum(plan, "small-02")):
        me = Participant("small-01", plan=plan, secure_sum=secure_sum, train=drift, examples=10)
        refused = refusal(me.handle(request(session, adapter=b"")))

        assert refused.error == "RosterError"
        assert "no identity to sign with" in refused.reason


def test_another_run_is_refused() -> None:
    """A participant serves one run, and the run's name cannot be changed under it."""
    me = participant()
    reply(me.handle(request()))

    refused = refusal(me.handle(request(make_session(PLAN, round_number=2, run=bytes(16)))))

    assert (refused.error, refused.reason) == ("RefusalError", "the session belongs to another run")
