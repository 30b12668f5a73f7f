"""A server that chooses who takes part: smaller cohorts, other cohorts, other rounds, until a sum shows somebody."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from protocols.interface import SumResult
from protocols.masking.parameters import reveal_quorum
from protocols.session import ClientId, Session
from rbla_secure.errors import RefusalError
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.messages import StageRefusal, StageRequest, decode_answer
from rbla_secure.federation.round import prepare_round
from rbla_secure.federation.server.session_server import SessionServer, StageOfSession, exchange_stages
from rbla_secure.planning import plan as plans
from rbla_secure.planning.plan import Plan
from tests.support.federations import RUN, InMemory, make_adapter, make_participants, make_plan
from tests.support.identities import server_sum

GROUPED: dict[str, Any] = {
    "tiers": {"lab": {"rank": 1, "clients": 12}},
    "secure_sum": "masking",
    "masking": {"profile": "one-answer"},
    "robustness": {"f": 1, "group_size": 3},
}
VICTIM, CORRUPT = "lab-01", frozenset({"lab-10", "lab-11"})


def play(plan: Plan, session: Session, people: dict[ClientId, Participant]) -> SumResult | None:
    """A round over whatever session the server has made up."""
    adapter, network = make_adapter(plan), InMemory(people)
    talk = SessionServer(plan, session, server_sum(plan))
    prepare_round(talk, network)
    for stage in talk.stages[talk.stages.index(talk.input_stage) :]:
        exchange_stages(
            network,
            [
                StageOfSession(
                    session_server=talk, stage=stage, adapter=adapter if stage == talk.input_stage else None
                )
            ],
        )
    return talk.result(adapter)


def believe_any_cohort(monkeypatch: pytest.MonkeyPatch, cohort: tuple[ClientId, ...]) -> None:
    """Parties whose plan gives whatever cohort the server names."""
    monkeypatch.setattr(plans, "planned_cohort", lambda *_given, **_named: cohort)


def ground_cohort(monkeypatch: pytest.MonkeyPatch) -> tuple[ClientId, ...]:
    """A cohort in which the victim's group holds corrupt clients besides it, found by leaving others out."""
    names = tuple(make_plan(**GROUPED).ranks)
    honest = [name for name in names if name not in CORRUPT | {VICTIM}]
    for size in (1, 2, 3):
        for out in itertools.combinations(honest, size):
            cohort = tuple(name for name in names if name not in out)
            with monkeypatch.context() as careless:
                believe_any_cohort(careless, cohort)
                if alone_with_corrupt(make_plan(**GROUPED)) is not None:
                    return cohort
    raise AssertionError("no such cohort")


def alone_with_corrupt(plan: Plan) -> int | None:
    session = plan.session(run=RUN, round_number=1, attempt=1)
    for part in session.segments:
        if VICTIM in part.members and set(part.members) - {VICTIM} <= CORRUPT:
            return part.index
    return None


def test_a_cohort_of_the_servers_choosing_would_put_a_client_among_corrupt_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The attack is real: parties that believe the cohort open a group of the victim and two corrupt clients."""
    cohort = ground_cohort(monkeypatch)
    believe_any_cohort(monkeypatch, cohort)
    plan = make_plan(**GROUPED)
    index = alone_with_corrupt(plan)

    result = play(plan, plan.session(run=RUN, round_number=1, attempt=1), make_participants(plan))

    assert index is not None
    assert result is not None
    assert index in result.sums


def test_participants_refuse_such_a_cohort(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every one of them, by name, and nothing opens; nor does the plan itself make such a session."""
    cohort = ground_cohort(monkeypatch)
    plan = make_plan(**GROUPED)
    with monkeypatch.context() as careless:
        believe_any_cohort(careless, cohort)
        session = make_plan(**GROUPED).session(run=RUN, round_number=1, attempt=1)
    people = make_participants(plan)

    result = play(plan, session, people)

    assert result is None
    answers = [decode_answer(people[name].handle(asked(session))) for name in cohort]
    assert all(isinstance(answer, StageRefusal) for answer in answers)
    assert all(
        "the cohort of round 1 is not the plan's" in getattr(answer, "reason", "") for answer in answers
    )
    with pytest.raises(RefusalError, match="the cohort of round 1 is not the plan's"):
        plan.session(run=RUN, round_number=1, attempt=1, cohort=cohort)


def asked(session: Session) -> bytes:
    return StageRequest(session=session.to_bytes(), payload=b"").to_bytes()


def smaller(session: Session) -> Iterator[Session]:
    """The session over every smaller cohort, its segments cut to it, with the threshold and quorums that remain."""
    for size in range(2, len(session.members)):
        for members in itertools.combinations(session.members, size):
            parts = []
            for part in session.segments:
                kept = tuple(name for name in part.members if name in members)
                if kept:
                    quorum = min(part.quorum, len(kept))
                    parts.append(replace(part, index=len(parts), members=kept, holders=kept, quorum=quorum))
            ranks = tuple(session.ranks[session.position(name) - 1] for name in members)
            threshold = max(min(session.threshold, size), size // 2 + 1)
            yield replace(session, members=members, ranks=ranks, segments=tuple(parts), threshold=threshold)


@pytest.mark.parametrize("mode", ["plain", "masking"])
def test_no_smaller_cohort_is_accepted(mode: str) -> None:
    """Absent members are drop-outs of the whole cohort: every session over fewer is refused by everybody in it."""
    plan = make_plan(secure_sum=mode)
    session = plan.session(run=RUN, round_number=1, attempt=1)

    for other in smaller(session):
        people = make_participants(plan)
        for name in other.members:
            assert isinstance(decode_answer(people[name].handle(asked(other))), StageRefusal)


def test_colluders_are_counted_by_the_plans_cohort() -> None:
    """Inviting 17 of 20 clients would lower the colluders that are counted on from two to one, and a reveal quorum with it."""
    tiers = {"large": {"rank": 3, "clients": 5}, "small": {"rank": 1, "clients": 15}}
    plan = make_plan(secure_sum="masking", masking={"profile": "one-answer"}, tiers=tiers)
    session = plan.session(run=RUN, round_number=1, attempt=1)
    invited = tuple(name for name in session.members if name not in {"small-13", "small-14", "small-15"})

    quorums = [
        reveal_quorum(segment_members=5, quorum=3, members=n, threshold=session.threshold, corrupt=c)
        for n, c in ((20, 2), (17, 1))
    ]

    assert session.members == tuple(plan.ranks)
    assert quorums[1] < quorums[0]
    with pytest.raises(RefusalError, match="it lacks small-13"):
        plan.session(run=RUN, round_number=1, attempt=1, cohort=invited)


def test_rounds_that_the_plan_does_not_have_give_no_further_draws() -> None:
    """Cohorts and groups follow from the round: a server may not try numbers beyond the plan's."""
    plan = make_plan(rounds=5, tiers={"lab": {"rank": 1, "clients": 12, "cohort": 6}})

    drawn = {plan.cohort(number) for number in range(1, 6)}

    assert len(drawn) > 1
    for number in (0, 6, 2**32 - 1):
        with pytest.raises(RefusalError, match="the rounds of the plan"):
            plan.cohort(number)


def test_cohorts_do_not_depend_on_attempt_or_run() -> None:
    """Neither can be tried until it gives a cohort or groups that somebody likes."""
    plan = make_plan(**GROUPED)
    sessions = [
        plan.session(run=run, round_number=2, attempt=attempt)
        for run in (RUN, bytes(16))
        for attempt in (1, 2, 9)
    ]

    assert len({(each.members, each.segments) for each in sessions}) == 1
    assert np.unique([each.threshold for each in sessions]).size == 1
