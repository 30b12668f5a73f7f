"""A participant answers its own plan's sessions, each once, and refuses everything else by name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.plain import PlainInput
from protocols.primitives.secret import Secret
from protocols.ring import centred
from protocols.session import ClientId, ExtraReveal, Segment, Session
from rbla_secure.errors import PrivacyError
from rbla_secure.federation.client.participant import LocalTraining, Participant
from rbla_secure.federation.exchange import Answer, Exchange, Parcel
from rbla_secure.federation.messages import StageRefusal, StageReply, StageRequest, decode_answer
from rbla_secure.federation.round import RoundOutcome, prepare_round, run_round
from rbla_secure.federation.server.session_server import StageOfSession, exchange_stages
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.planning.modes import build_secure_sum
from rbla_secure.planning.plan import Plan
from rbla_secure.seeding import derive_seed
from tests.support.federations import (
    LARGE,
    MEMBERS,
    RUN,
    SMALL,
    InMemory,
    change_adapter,
    diverge,
    drift,
    make_adapter,
    make_participants,
    make_plan,
    make_session,
    open_round,
    play_round,
)
from tests.support.identities import client_sum, make_authority
from tests.support.properties import PROPERTY
from tests.support.reachable import secrets_of

PLAN = make_plan(rounds=9)
SESSION = make_session(PLAN)
ADAPTER = make_adapter(PLAN)
LEVELS = 32767  # of 16 bits
STEP = 0.1 / LEVELS


def participant(
    name: str = "small-01", *, plan: Plan = PLAN, train: LocalTraining = drift, examples: int = 10
) -> Participant:
    return Participant(name, plan=plan, secure_sum=client_sum(plan, name), train=train, examples=examples)


@final
class Backwards(Exchange):
    """Delivers the parcels of every message from last to first."""

    def __init__(self, participants: Mapping[ClientId, Participant]) -> None:
        self._inner = InMemory(participants)

    def send(self, messages: Mapping[ClientId, Sequence[Parcel]]) -> Iterator[Answer]:
        yield from self._inner.send({client: parcels[::-1] for client, parcels in messages.items()})


def request(
    session: Session = SESSION, *, payload: bytes = b"", rank: int = 3, adapter: bytes | None = None
) -> bytes:
    rows = ADAPTER.sliced(rank).to_bytes() if adapter is None else adapter
    return StageRequest(session=session.to_bytes(), payload=payload, adapter=rows).to_bytes()


def refusal(data: bytes) -> StageRefusal:
    answer = decode_answer(data)
    assert isinstance(answer, StageRefusal)
    return answer


def reply(data: bytes) -> bytes:
    answer = decode_answer(data)
    assert isinstance(answer, StageReply)
    return answer.payload


def sent(data: bytes) -> dict[int, Any]:
    """The signed integers of a plain reply, by segment."""
    return {index: centred(vector) for index, vector in PlainInput.from_bytes(reply(data)).segments.items()}


@pytest.mark.parametrize(("name", "rank"), [("small-02", 1), ("large-01", 3)])
def test_a_participant_sends_what_it_learnt(name: str, rank: int) -> None:
    """The integers of all bands are the change of training at the participant's own rank, weight appended."""
    trained = drift(ADAPTER.sliced(rank), derive_seed(0, "training", 1, name))
    change = trained.astype(np.float64) - ADAPTER.rows[:rank]

    integers = sent(participant(name).handle(request()))

    assert sorted(integers) == ([0] if rank == 1 else [0, 1])
    values = np.concatenate([integers[index][:-1] for index in sorted(integers)])
    assert values * STEP == pytest.approx(change.ravel(), abs=STEP)
    assert {int(part[-1]) for part in integers.values()} == {0}


def test_a_long_update_is_clipped() -> None:
    """However far training goes, what is sent has at most the clip norm."""

    def leap(adapter: Adapter, seed: int) -> Rows:
        return (adapter.rows + np.float32(1e6) * (1 + seed % 2)).astype(np.float32)

    integers = sent(participant("large-01", train=leap).handle(request(rank=3)))

    values = np.concatenate([integers[index][:-1] for index in (0, 1)]) * STEP
    assert np.linalg.norm(values) <= 1.0
    # One clip over all 33 equal values; each is cut off at the bound of a coordinate.
    assert values == pytest.approx(np.full(33, 0.1), abs=STEP)
    assert [int(integers[index][-1]) for index in (0, 1)] == [LEVELS, LEVELS]


@pytest.mark.parametrize(
    ("examples", "share"), [(0, 1 / 16), (1, 1 / 16), (50, 0.5), (100, 1.0), (10_000, 1.0)]
)
def test_examples_weigh_up_to_their_cap(examples: int, share: float) -> None:
    """With weights by examples, a client's weight is its share of the cap, at most one and at least the least weight."""
    plan = make_plan(weights="examples", examples_cap=100)

    integers = sent(participant(plan=plan, examples=examples).handle(request(make_session(plan))))

    assert integers[0][-2] == round(share * LEVELS)


@pytest.mark.parametrize("examples", [1, 10_000])
def test_uniform_weights_do_not_tell_the_number_of_examples(examples: int) -> None:
    """By default everyone weighs the same, and no weight is sent."""
    plan = make_plan()

    integers = sent(participant(examples=examples).handle(request()))

    assert integers[0].tolist() == sent(participant(examples=100).handle(request()))[0].tolist()
    assert len(integers[0]) == plan.layout.row_length + 1


def test_the_same_request_gets_the_same_reply() -> None:
    """A request that is repeated is not computed again."""
    calls = []

    def train(adapter: Adapter, seed: int) -> Rows:
        calls.append(seed)
        return drift(adapter, seed)

    me = participant(train=train)

    answers = {me.handle(request()) for _ in range(3)}

    assert len(answers) == 1
    assert len(calls) == 1


def test_one_session_gets_one_contribution() -> None:
    """Another model in the same session is answered with the first contribution or not at all."""
    me = participant()
    first = me.handle(request())

    second = me.handle(change_adapter(request()))

    assert second == first


@pytest.mark.parametrize("client", ["small-01", "large-02"])
def test_a_masked_session_gets_one_contribution(client: str) -> None:
    """After a whole round of masking, its input request with another model yields nothing new."""
    plan = make_plan(secure_sum="masking")
    participants = make_participants(plan)
    exchange = InMemory(participants)
    play_round(plan, make_adapter(plan), exchange)
    (input_request,) = [
        data for stage, name, data in exchange.seen if (stage, name) == ("mask_input", client)
    ]

    answers = [
        decode_answer(participants[client].handle(data))
        for data in (input_request, change_adapter(input_request))
    ]

    # Masks depend on the model, so a contribution that was computed anew would differ from the first one.
    payloads = {answer.payload for answer in answers if isinstance(answer, StageReply)}
    assert len(payloads) <= 1


def test_a_round_has_the_same_integers_in_every_attempt() -> None:
    """Training and rounding depend on the round alone: a client that was started anew gives what it gave before."""
    me, other = participant(), participant()

    first = sent(me.handle(request(make_session(PLAN, round_number=2, attempt=1))))
    later = sent(me.handle(request(make_session(PLAN, round_number=3))))
    elsewhere = sent(other.handle(request(make_session(PLAN, round_number=2, attempt=7))))

    assert first[0].tobytes() == elsewhere[0].tobytes()
    assert first[0].tobytes() != later[0].tobytes()


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


@pytest.mark.parametrize("upload", ["banded", "padded"])
def test_a_padded_upload_has_zeros_beyond_the_participants_rank(upload: str) -> None:
    """What it holds is as in a banded upload; what it does not hold is zero, and weighs nothing."""
    plan = make_plan(upload=upload)
    banded = sent(participant().handle(request()))

    integers = sent(participant(plan=plan).handle(request(make_session(plan))))

    assert integers[0].tobytes() == banded[0].tobytes()
    assert sorted(integers) == ([0, 1] if upload == "padded" else [0])
    assert not any(integers[index].any() for index in integers if index)


@pytest.mark.parametrize(
    "changes",
    [{}, {"upload": "padded"}, {"upload": "padded", "lora": {"rest": "dropped"}}],
)
def test_a_client_is_sent_all_rows_and_trains_its_own(changes: Mapping[str, Any]) -> None:
    """Where the rest is folded or uploads are padded, the adapter must have the largest rank."""
    plan = make_plan(**changes)
    ranks: list[int] = []

    def train(adapter: Adapter, seed: int) -> Rows:
        ranks.append(adapter.rank)
        return drift(adapter, seed)

    me = participant(plan=plan, train=train)
    refused = refusal(me.handle(request(make_session(plan), rank=1)))

    reply(me.handle(request(make_session(plan), rank=3)))

    assert "rank 1 must be 3" in refused.reason
    assert ranks == [1]


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


@pytest.mark.parametrize(
    ("name", "rank", "rest"),
    [
        ("small-01", 1, "folded"),
        ("small-01", 2, "folded"),
        ("large-01", 2, "folded"),
        ("small-01", 2, "dropped"),
        ("small-01", 3, "dropped"),
        ("large-01", 1, "dropped"),
    ],
)
def test_an_adapter_of_another_rank_is_refused(name: str, rank: int, rest: str) -> None:
    """A participant is sent all rows, or where the rest is dropped those of its enrolled rank, and no others."""
    plan = make_plan(lora={"rest": rest})
    me = participant(name, plan=plan)

    refused = refusal(me.handle(request(make_session(plan), rank=rank)))

    assert refused.error == "RefusalError"
    assert f"rank {rank} must be {plan.broadcast_rank(name)}" in refused.reason


@pytest.mark.parametrize("adapter", [b"x", bytes(43), bytes(45), np.full(11, np.nan, "<f4").tobytes()])
def test_a_malformed_adapter_is_refused(adapter: bytes) -> None:
    """Bytes that are no rows, or rows that are not finite, are refused before training."""
    refused = refusal(participant().handle(request(adapter=adapter)))

    assert refused.error == "AdapterError"


@pytest.mark.parametrize(
    ("train", "name"), [(diverge, "small-01"), (diverge, "large-01"), (lambda a, _: a.rows / 0, "small-01")]
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_training_that_diverges_is_refused_by_its_client(train: LocalTraining, name: str) -> None:
    """NaN or infinity out of local training never enters a sum: the client says so and stays out."""
    refused = refusal(participant(name, train=train).handle(request()))

    assert refused.error == "UpdateError"
    assert "not finite" in refused.reason


def test_a_client_that_diverged_is_there_for_the_next_round() -> None:
    """One bad round leaves no trace."""
    trainings = iter([diverge, drift])

    def train(adapter: Adapter, seed: int) -> Rows:
        return next(trainings)(adapter, seed)

    me = participant(train=train)
    refusal(me.handle(request()))

    integers = sent(me.handle(request(make_session(PLAN, round_number=2))))

    assert integers[0].any()


def fails(adapter: Adapter, seed: int) -> Rows:
    """Local training that raises, as memory that runs out or a fold that overflows."""
    raise ValueError(f"{adapter.rank} rows and seed {seed}")


@pytest.mark.parametrize("mechanism", ["distributed", "central"])
@pytest.mark.parametrize("name", ["small-01", "large-01"])
def test_under_noise_nobody_is_told_that_training_failed(name: str, mechanism: str) -> None:
    """The integers are those of a client that learned nothing: a refusal would depend on the data, and no epsilon counts it."""
    privacy = {"mechanism": mechanism, "colluders": 0, "simulation": True}
    plan = make_plan(noise_multiplier=2.0, privacy=privacy)
    asked = request(make_session(plan))

    failed, idle = (
        sent(participant(name, plan=plan, train=train).handle(asked))
        for train in (fails, lambda adapter, _: adapter.rows)
    )

    assert sorted(failed) == sorted(idle)
    for index, values in idle.items():
        np.testing.assert_array_equal(failed[index], values)
        assert values.any() == (mechanism == "distributed")
    refused = refusal(participant(name, train=fails).handle(request()))
    assert refused.error == "RefusalError", "control: without noise the server is told"
    assert refused.reason == "local training failed: ValueError"


def does_not_fit(adapter: Adapter, seed: int) -> Rows:
    """Local training that refuses the model, before it has looked at an example."""
    raise PrivacyError(f"the model has nothing to train at rank {adapter.rank}, seed {seed}")


def test_with_noise_inside_clients_nobody_is_told_what_an_example_did() -> None:
    """Whatever torch raises counts as no change; that the model does not fit is about no example, and is said."""
    plan = make_plan(
        sample_level={"noise_multiplier": 1.0, "clip_norm": 1.0, "sample_rate": 0.5}, training={"steps": 3}
    )
    asked = request(make_session(plan))

    failed, idle = (
        sent(participant(plan=plan, train=train).handle(asked))
        for train in (fails, lambda adapter, _: adapter.rows)
    )

    for index, values in idle.items():
        np.testing.assert_array_equal(failed[index], values)
    assert "PrivacyError" in refusal(participant(plan=plan, train=does_not_fit).handle(asked)).reason


def test_a_request_without_adapter_at_the_input_stage_is_refused() -> None:
    """Without a model there is nothing to train."""
    refused = refusal(participant().handle(request(adapter=b"")))

    assert refused.error == "StageError"


def test_a_masking_client_contributes_only_after_it_shared() -> None:
    """An adapter out of turn gets no masked input."""
    plan = make_plan(secure_sum="masking")

    refused = refusal(participant(plan=plan).handle(request(make_session(plan))))

    assert refused.error == "StageError"


@PROPERTY
@given(data=st.binary(max_size=80) | st.binary(max_size=80).map(lambda tail: b"RS\x02\x02" + tail))
def test_random_bytes_are_answered_with_a_refusal(data: bytes) -> None:
    """Whatever arrives, the answer is a refusal that names its error, never an exception."""
    refused = refusal(participant().handle(data))

    assert refused.error == "WireError"


@PROPERTY
@given(
    position=st.integers(0, 10**6),
    value=st.integers(1, 255),
    cut=st.integers(0, 10**6),
    name=st.sampled_from(["small-01", "large-01"]),
)
def test_a_damaged_request_never_raises(position: int, value: int, cut: int, name: str) -> None:
    """A request with one byte changed, or cut short anywhere, is answered, and mostly refused."""
    good = request()
    changed = bytearray(good)
    changed[position % len(good)] ^= value

    answers = [participant(name).handle(bytes(data)) for data in (changed, good[: cut % len(good)])]

    # Outside of run, round, attempt and adapter every byte is checked.
    assert isinstance(decode_answer(answers[0]), StageReply | StageRefusal)
    assert refusal(answers[1]).error == "WireError"


@PROPERTY
@given(position=st.integers(0, 10**6), value=st.integers(1, 255))
def test_no_byte_of_the_terms_can_be_changed(position: int, value: int) -> None:
    """After a run's first session, every changed byte of the next one's terms leads to a refusal or a later attempt."""
    me = participant()
    reply(me.handle(request()))
    data = bytearray(make_session(PLAN, round_number=2).to_bytes())
    data[position % len(data)] ^= value
    message = StageRequest(session=bytes(data), payload=b"", adapter=ADAPTER.to_bytes())

    answer = decode_answer(me.handle(message.to_bytes()))

    if isinstance(answer, StageReply):
        accepted = Session.from_bytes(bytes(data))
        assert (accepted.round, accepted.attempt) > (1, 1)
        assert accepted == replace(make_session(PLAN), round=accepted.round, attempt=accepted.attempt)
