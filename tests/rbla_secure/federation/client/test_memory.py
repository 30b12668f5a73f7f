"""A participant forgets neither which round has its input nor which models it was sent."""

from typing import Any

import numpy as np
import pytest

from protocols.interface import SumResult
from protocols.session import ClientId
from rbla_secure.errors import RefusalError
from rbla_secure.federation.broadcast import Broadcast, band_digests
from rbla_secure.federation.client.memory import Memory
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.messages import StageReply, StageRequest, decode_answer
from rbla_secure.federation.round import prepare_round
from rbla_secure.federation.server.session_server import SessionServer, StageOfSession, exchange_stages
from rbla_secure.federation.step_bound import step_limit
from rbla_secure.lora.adapter import Adapter
from rbla_secure.planning.plan import Plan
from tests.support.federations import (
    MEMBERS,
    InMemory,
    drift,
    make_adapter,
    make_participants,
    make_plan,
    make_session,
    open_round,
)
from tests.support.identities import client_sum
from tests.support.model_world import believe_anything

PROFILES = pytest.mark.parametrize("profile", ["semi-honest", "one-answer", "consistency"])


def sent(plan: Plan, adapter: Adapter) -> Broadcast:
    return Broadcast(adapter=adapter, digests=band_digests(plan, adapter))


def moved(plan: Plan, by: float, *, seed: int = 0, since: Adapter | None = None) -> Adapter:
    """An adapter so far away from another one, by default from the first."""
    start = plan.initial_adapter if since is None else since
    direction = np.random.default_rng(seed).standard_normal(start.rows.shape)
    rows = start.rows + by * direction / np.linalg.norm(direction)
    return Adapter(layout=plan.layout, rows=rows.astype(np.float32))


# The input of a round.


def sums_of(session_server: SessionServer, adapter: Adapter, network: InMemory) -> SumResult | None:
    stages = session_server.stages
    for stage in stages[stages.index(session_server.input_stage) :]:
        broadcast = adapter if stage == session_server.input_stage else None
        exchange_stages(
            network, [StageOfSession(session_server=session_server, stage=stage, adapter=broadcast)]
        )
    return session_server.result(adapter)


def second_input(
    profile: str, victim: ClientId = "small-03"
) -> tuple[SumResult | None, SumResult | None, Any]:
    """Round 2, then round 1 whose keys were exchanged before, then round 2 once more without the victim."""
    plan = make_plan(secure_sum="masking", masking={"profile": profile})
    people, adapter = make_participants(plan), make_adapter(plan)
    network = InMemory(people)
    one, two = open_round(plan, round_number=1), open_round(plan, round_number=2)
    prepare_round(one, network)
    prepare_round(two, network)
    first = sums_of(two, adapter, network)
    exchange_stages(network, [StageOfSession(session_server=one, stage="mask_input", adapter=adapter)])
    again = open_round(plan, round_number=2, attempt=2)
    without = InMemory(people, silent_from={victim: "mask_input"})
    prepare_round(again, without)
    return first, sums_of(again, adapter, without), (one, again)


@PROFILES
def test_an_older_round_in_between_would_make_a_client_give_a_round_twice(
    monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    """The attack is real: with a memory of the last round alone, two sums of round 2 differ by the victim's integers.

    Such a memory takes models in any order too.
    """
    believe_anything(monkeypatch)

    def forgetful(memory: Memory, round_number: int) -> None:
        if round_number == memory.given:
            raise RefusalError("given")

    monkeypatch.setattr(Memory, "check_not_given", forgetful)

    first, second, (_, again) = second_input(profile)

    assert first is not None
    assert second is not None
    assert not again.refusals
    assert np.any(first.sums[0] != second.sums[0])
    assert len(first.survivors) == len(second.survivors) + 1


@PROFILES
def test_a_round_below_the_highest_one_given_gets_nothing(profile: str) -> None:
    """At the input stage of a session that was open already, and at the opening of another one, everybody refuses."""
    first, second, (one, again) = second_input(profile)

    assert first is not None
    assert second is None
    assert set(one.refusals) == set(again.refusals) == set(MEMBERS)
    assert "round 1 is over for this participant, whose input round 2 has had" in one.refusals["small-01"]
    assert "round 2 has had this participant's input" in again.refusals["small-01"]


# The models.


def roomy() -> Plan:
    """A plan in which no single value is limited before a whole step is."""
    return make_plan(rounds=9, quantization={"bits": 16, "bound": 1.0})


def accepts(memory: Memory, plan: Plan, adapter: Adapter, number: int) -> bool:
    try:
        memory.accept(sent(plan, adapter), number)
    except RefusalError:
        return False
    return True


def test_the_first_model_follows_from_the_seed_to_the_bit() -> None:
    """One changed bit in any row, or zero with another sign, is another model."""
    plan = make_plan()
    rows = plan.initial_adapter.rows

    for row in range(3):
        changed = rows.copy()
        changed[row, 0] = np.nextafter(changed[row, 0], np.float32(9))
        assert not accepts(Memory(plan), plan, Adapter(layout=plan.layout, rows=changed), 1)
    assert accepts(Memory(plan), plan, plan.initial_adapter, 1)


@pytest.mark.parametrize("number", [2, 3, 7])
def test_a_model_moves_by_honest_steps_at_most(number: int) -> None:
    """Within (n - m) steps of the last model that the client was sent it is accepted, beyond them refused by name."""
    plan = roomy()
    limit = step_limit(plan) * (number - 1)

    assert accepts(Memory(plan), plan, moved(plan, 0.8 * limit), number)
    with pytest.raises(RefusalError, match=rf"has moved by .* in {number - 1} rounds, more than"):
        Memory(plan).accept(sent(plan, moved(plan, 1.01 * limit)), number)


def test_what_was_sent_last_counts() -> None:
    """A client that was sent a model of round 3 measures that of round 4 from there."""
    plan = roomy()
    limit, memory = step_limit(plan), Memory(plan)
    third = moved(plan, 1.7 * limit)
    memory.accept(sent(plan, third), 3)

    assert not accepts(memory, plan, moved(plan, 1.01 * limit, seed=1, since=third), 4)
    assert not accepts(memory, plan, moved(plan, 1.7 * limit, seed=2), 4)
    assert accepts(memory, plan, moved(plan, 0.8 * limit, seed=1, since=third), 4)


def test_another_attempt_at_a_round_brings_the_same_model() -> None:
    """The adapter before a round is one adapter."""
    plan = roomy()
    memory = Memory(plan)
    second = moved(plan, 0.5 * step_limit(plan))
    memory.accept(sent(plan, second), 2)

    assert accepts(memory, plan, second, 2)
    with pytest.raises(RefusalError, match="round 2 began with another adapter"):
        memory.accept(sent(plan, moved(plan, 1e-3, since=second)), 2)


@pytest.mark.parametrize("number", [1, 2, 4])
def test_rounds_go_forward(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """After the model of round 5 none of an earlier round is accepted, though nothing was given: round 1 least of all.

    The control takes round 1 in between, forgets what it was sent, and then begins round 5 with a model on the other side.
    """
    plan = roomy()
    away, back = (moved(plan, sign * 3 * step_limit(plan)) for sign in (0.9, -0.9))
    memory = Memory(plan)
    memory.accept(sent(plan, away), 5)

    with pytest.raises(
        RefusalError,
        match=rf"was sent the adapter of round 5, and is not sent that of round {number} after it",
    ):
        memory.accept(sent(plan, plan.initial_adapter), number)
    assert not accepts(memory, plan, back, 5)
    assert accepts(memory, plan, away, 5)

    careless = Memory(plan)
    careless.accept(sent(plan, away), 5)
    with monkeypatch.context() as patch:
        believe_anything(patch)
        careless.accept(sent(plan, plan.initial_adapter), number)
    if number == 1:
        assert accepts(careless, plan, back, 5)


def test_rows_that_nobody_trains_never_move() -> None:
    """A band that can never open is compared to the bit in every round, and is not trained."""
    tiers = {"large": {"rank": 3, "clients": 3}, "small": {"rank": 1, "clients": 5}}
    plan = make_plan(tiers=tiers, robustness={"f": 2}, rounds=9)
    rows = plan.initial_adapter.rows.copy()
    rows[2, 0] += 1e-6
    shapes: list[tuple[int, ...]] = []

    def train(adapter: Adapter, seed: int) -> Any:
        shapes.append(adapter.rows.shape)
        assert adapter.rest is not None
        return drift(adapter, seed)

    me = Participant("large-01", plan=plan, secure_sum=client_sum(plan, "large-01"), train=train, examples=10)
    session, first = make_session(plan), make_adapter(plan)
    request = StageRequest(session=session.to_bytes(), payload=b"", adapter=first.to_bytes()).to_bytes()

    assert len(plan.bands_that_open) == 1
    with pytest.raises(RefusalError, match=r"rows from 2 on .* can never open"):
        Memory(plan).accept(sent(plan, Adapter(layout=plan.layout, rows=rows)), 2)
    assert type(decode_answer(me.handle(request))) is StageReply
    assert shapes == [(1, plan.layout.row_length)]
