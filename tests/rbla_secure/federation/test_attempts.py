"""A round has everyone's input once: a server that sums it twice, over other survivors, meets refusals."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest

from protocols.interface import SumResult
from protocols.plain import PlainInput
from protocols.ring import IntegerVector, centred
from protocols.session import ClientId, Session
from rbla_secure.federation.client.memory import Memory
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.messages import StageRefusal, StageReply, StageRequest, decode_answer
from rbla_secure.federation.round import prepare_round
from rbla_secure.federation.server.session_server import SessionServer, StageOfSession, exchange_stages
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.planning.plan import Plan
from tests.support.federations import (
    LARGE,
    MEMBERS,
    RUN,
    SMALL,
    InMemory,
    diverge,
    drift,
    make_adapter,
    make_participants,
    make_plan,
)
from tests.support.identities import client_sum, server_sum

PROFILES = ("semi-honest", "one-answer", "consistency")
EVERY_PROFILE = pytest.mark.parametrize("profile", PROFILES)
VICTIM = "small-03"


def masked(profile: str, **changes: Any) -> Plan:
    """The small federation under masking."""
    return make_plan(secure_sum="masking", masking={"profile": profile}, **changes)


def session_of(plan: Plan, attempt: int, cohort: Iterable[ClientId] = MEMBERS, *, number: int = 1) -> Session:
    """An attempt at a round over a cohort of the server's choice."""
    return plan.session(run=RUN, round_number=number, attempt=attempt, cohort=tuple(sorted(cohort)))


def attempt_at(
    plan: Plan,
    people: Mapping[ClientId, Participant],
    session: Session,
    *,
    silent_from: Mapping[ClientId, str] | None = None,
) -> tuple[SumResult | None, SessionServer]:
    """One session as a server talks it through that leaves clients unasked from some stage on."""
    session_server, adapter = SessionServer(plan, session, server_sum(plan)), make_adapter(plan)
    network = InMemory(people, silent_from=silent_from)
    prepare_round(session_server, network)
    stages = session_server.stages
    for stage in stages[stages.index(session_server.input_stage) :]:
        broadcast = adapter if stage == session_server.input_stage else None
        exchange_stages(
            network, [StageOfSession(session_server=session_server, stage=stage, adapter=broadcast)]
        )
    return session_server.result(adapter), session_server


def integers_of(client: ClientId, *, number: int = 1, **changes: Any) -> dict[int, IntegerVector]:
    """What a client adds to the bands in a round, read from what it sends in the clear."""
    plan = make_plan(**changes)
    me = Participant(client, plan=plan, secure_sum=client_sum(plan, client), train=drift, examples=10)
    rows = make_adapter(plan).to_bytes()
    request = StageRequest(
        session=session_of(plan, 1, plan.cohort(number), number=number).to_bytes(), payload=b"", adapter=rows
    )
    answer = decode_answer(me.handle(request.to_bytes()))
    assert isinstance(answer, StageReply)
    return {
        index: centred(vector) for index, vector in PlainInput.from_bytes(answer.payload).segments.items()
    }


def without_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Participants that give a round as often as they are asked."""
    monkeypatch.setattr(Memory, "check_not_given", lambda *_arguments: None)


def difference(first: SumResult | None, second: SumResult | None, band: int) -> IntegerVector:
    """What a server learns of a band from two sums of one round."""
    assert first is not None
    assert second is not None
    return np.asarray(first.sums[band] - second.sums[band])


# The attack: a round is summed over everyone, and once more without one client.


@EVERY_PROFILE
def test_two_sums_of_one_round_would_differ_by_one_update(
    monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    """The attack is real: with the check off, the second sum taken from the first is the victim's update, to the bit."""
    without_the_check(monkeypatch)
    plan = masked(profile)
    people = make_participants(plan)

    whole, _ = attempt_at(plan, people, session_of(plan, 1))
    rest, _ = attempt_at(plan, people, session_of(plan, 2), silent_from={VICTIM: "mask_input"})

    assert np.array_equal(difference(whole, rest, 0), integers_of(VICTIM)[0])


@EVERY_PROFILE
def test_a_second_attempt_after_a_sum_is_refused(profile: str) -> None:
    """Every participant that was in the sum refuses by name, before it has made a key, and nothing is opened."""
    plan = masked(profile)
    people = make_participants(plan)
    attempt_at(plan, people, session_of(plan, 1))

    rest, session_server = attempt_at(plan, people, session_of(plan, 2), silent_from={VICTIM: "mask_input"})

    assert rest is None
    assert set(session_server.refusals) == set(MEMBERS)
    assert session_server.dropped == dict.fromkeys(MEMBERS, "advertise_keys")
    (why,) = set(session_server.refusals.values())
    assert why == (
        "RefusalError: round 1 has had this participant's input: another one could show the difference of two sums"
    )


# The same where some clients were never asked for their shares.

WIDE = {"tiers": {"large": {"rank": 3, "clients": 4}, "small": {"rank": 1, "clients": 4}}}
BIG = tuple(f"large-{number:02d}" for number in range(1, 5))
FIRST_SMALL = tuple(f"small-{number:02d}" for number in range(1, 5))


def sum_without_asking(
    profile: str,
) -> tuple[Plan, dict[ClientId, Participant], SumResult | None]:
    """A first sum whose shares come from the first small clients and as few large ones as are needed for them."""
    plan = masked(profile, **WIDE)
    people = make_participants(plan)
    session = session_of(plan, 1, BIG + FIRST_SMALL)
    unasked = BIG[: len(session.members) - session.threshold]
    stage = "agree_survivors" if profile == "consistency" else "reveal_shares"
    result, _ = attempt_at(plan, people, session, silent_from=dict.fromkeys(unasked, stage))
    return plan, people, result


@pytest.mark.parametrize("profile", ["semi-honest", "one-answer"])
def test_a_reveal_need_not_ask_those_whose_input_it_opens(
    monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    """With the check off: large clients that were never asked to reveal are summed again without the fourth."""
    without_the_check(monkeypatch)
    plan, people, whole = sum_without_asking(profile)

    again = session_of(plan, 2, BIG + FIRST_SMALL)
    rest, session_server = attempt_at(plan, people, again, silent_from={"large-04": "mask_input"})

    assert not session_server.refusals
    assert np.array_equal(difference(whole, rest, 1), integers_of("large-04", **WIDE)[1])


@EVERY_PROFILE
def test_who_was_not_asked_to_reveal_gives_no_second_input_either(profile: str) -> None:
    """A participant cannot know whether its input was opened without it: it is the sending that counts."""
    plan, people, whole = sum_without_asking(profile)
    assert whole is not None
    assert set(whole.sums) == {0, 1}

    rest, session_server = attempt_at(plan, people, session_of(plan, 2, BIG + FIRST_SMALL))

    assert set(session_server.refusals) == set(BIG + FIRST_SMALL)
    assert rest is None


# What stays allowed.


@EVERY_PROFILE
@pytest.mark.parametrize("stage", ["advertise_keys", "share_keys", "mask_input"])
def test_before_its_input_a_participant_tries_again(profile: str, stage: str) -> None:
    """An attempt that ends before anything was sent but keys and shares is followed by another one that opens."""
    plan = masked(profile)
    people = make_participants(plan)
    broken, first = attempt_at(plan, people, session_of(plan, 1), silent_from=dict.fromkeys(MEMBERS, stage))

    whole, second = attempt_at(plan, people, session_of(plan, 2))

    assert broken is None
    assert first.aborted
    assert whole is not None
    assert whole.survivors == MEMBERS
    assert not second.refusals


@EVERY_PROFILE
def test_those_who_sent_nothing_may_be_in_the_next_attempt(profile: str) -> None:
    """In a mixed cohort those who gave their input refuse and the others do not."""
    plan = masked(profile)
    people = make_participants(plan)
    attempt_at(plan, people, session_of(plan, 1), silent_from=dict.fromkeys(LARGE, "mask_input"))

    _, session_server = attempt_at(plan, people, session_of(plan, 2))

    assert set(session_server.refusals) == set(SMALL)


def test_an_input_that_failed_was_not_sent() -> None:
    """A client whose training diverged is there for another attempt at the round."""
    plan = masked("one-answer")
    trainings = iter([diverge, drift])

    def train(adapter: Adapter, seed: int) -> Rows:
        return next(trainings)(adapter, seed)

    people = make_participants(plan, train={VICTIM: train})
    attempt_at(plan, people, session_of(plan, 1), silent_from=dict.fromkeys(LARGE + SMALL[:2], "mask_input"))

    whole, _ = attempt_at(plan, people, session_of(plan, 2))

    assert whole is not None
    assert VICTIM in whole.survivors


@EVERY_PROFILE
def test_the_session_that_has_the_input_goes_on(profile: str) -> None:
    """A refused attempt leaves the first one as it is: its requests are answered, the next round is entered."""
    plan = masked(profile)
    people = make_participants(plan)
    session_server, adapter = SessionServer(plan, session_of(plan, 1), server_sum(plan)), make_adapter(plan)
    network = InMemory(people)
    prepare_round(session_server, network)
    exchange_stages(
        network, [StageOfSession(session_server=session_server, stage="mask_input", adapter=adapter)]
    )

    _, second = attempt_at(plan, people, session_of(plan, 2))
    for stage in session_server.stages[session_server.stages.index("mask_input") + 1 :]:
        exchange_stages(network, [StageOfSession(session_server=session_server, stage=stage)])
    whole = session_server.result(adapter)
    after, _ = attempt_at(plan, people, session_of(plan, 1, number=2))

    assert set(second.refusals) == set(MEMBERS)
    assert whole is not None
    assert whole.survivors == MEMBERS
    assert after is not None


def test_in_the_clear_an_upload_is_the_last_word_too() -> None:
    """The plain sum hides nothing, and keeps the same rule."""
    plan = make_plan()
    me = make_participants(plan)["large-01"]
    rows = make_adapter(plan).to_bytes()

    answers = [
        decode_answer(me.handle(StageRequest(session=data, payload=b"", adapter=rows).to_bytes()))
        for data in (session_of(plan, attempt).to_bytes() for attempt in (1, 2, 1))
    ]

    assert [type(answer) for answer in answers] == [StageReply, StageRefusal, StageReply]
    assert answers[0] == answers[2]
