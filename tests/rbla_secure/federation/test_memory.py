"""A participant forgets neither which round has its input nor which models it was sent."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocols.interface import SumResult
from protocols.session import ClientId
from rbla_secure.errors import RefusalError
from rbla_secure.federation.broadcast import Broadcast, band_digests
from rbla_secure.federation.conversation import Conversation, Turn, hold
from rbla_secure.federation.memory import Memory
from rbla_secure.federation.messages import StageRefusal, StageReply, StageRequest, decode_answer
from rbla_secure.federation.participant import Participant
from rbla_secure.federation.plan import Plan
from rbla_secure.federation.round import prepare_round
from rbla_secure.federation.step_bound import step_limit
from rbla_secure.lora.adapter import Adapter
from tests.support.federations import (
    MEMBERS,
    RUN,
    InMemory,
    drift,
    make_adapter,
    make_participants,
    make_plan,
    make_session,
    open_round,
)
from tests.support.identities import client_sum

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


def sums_of(conversation: Conversation, adapter: Adapter, network: InMemory) -> SumResult | None:
    stages = conversation.stages
    for stage in stages[stages.index(conversation.input_stage) :]:
        broadcast = adapter if stage == conversation.input_stage else None
        hold(network, [Turn(conversation=conversation, stage=stage, adapter=broadcast)])
    return conversation.result(adapter)


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
    hold(network, [Turn(conversation=one, stage="mask_input", adapter=adapter)])
    again = open_round(plan, round_number=2, attempt=2)
    without = InMemory(people, silent_from={victim: "mask_input"})
    prepare_round(again, without)
    return first, sums_of(again, adapter, without), (one, again)


@PROFILES
def test_an_older_round_in_between_would_make_a_client_give_a_round_twice(
    monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    """The attack is real: with a memory of the last round alone, two sums of round 2 differ by the victim's integers."""

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


def uploaded(plan: Plan, number: int, me: Participant, *, run: bytes = RUN, attempt: int = 1) -> type:
    session = make_session(plan, round_number=number, run=run, attempt=attempt)
    request = StageRequest(session=session.to_bytes(), payload=b"", adapter=make_adapter(plan).to_bytes())
    return type(decode_answer(me.handle(request.to_bytes())))


def started(plan: Plan, folder: Path | None, name: ClientId = "small-01") -> Participant:
    """A client that has just been started."""
    memory = Memory(plan, folder)
    return Participant(
        name, plan=plan, secure_sum=client_sum(plan, name), train=drift, examples=10, memory=memory
    )


def test_a_restarted_client_remembers_what_it_gave(tmp_path: Path) -> None:
    """With a state folder no round at or below the highest one is given again, whatever the attempt or the run."""
    plan = make_plan(rounds=9)
    assert uploaded(plan, 3, started(plan, tmp_path)) is StageReply

    again = [
        uploaded(plan, number, started(plan, tmp_path), run=run, attempt=attempt)
        for number, run, attempt in ((3, RUN, 2), (2, RUN, 1), (3, bytes(16), 1), (4, RUN, 1), (4, RUN, 2))
    ]

    assert again == [StageRefusal, StageRefusal, StageRefusal, StageReply, StageRefusal]


def test_without_a_state_folder_a_restart_forgets() -> None:
    """The control: a fresh memory gives the round once more."""
    plan = make_plan()

    assert [uploaded(plan, 3, started(plan, None)) for _ in range(2)] == [StageReply, StageReply]


def test_a_memory_that_cannot_be_written_keeps_the_input_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is not written down does not leave: a full disk costs the client the round."""
    plan = make_plan()

    def full(*_arguments: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    me = started(plan, tmp_path)
    monkeypatch.setattr("rbla_secure.federation.memory.write_atomic", full)

    with pytest.raises(OSError, match="No space left"):
        uploaded(plan, 1, me)


def test_the_file_is_private_and_another_plans_is_another(tmp_path: Path) -> None:
    """One file a plan, mode 0600."""
    plan, other = make_plan(), make_plan(seed=1)
    uploaded(plan, 1, started(plan, tmp_path))

    assert uploaded(other, 1, started(other, tmp_path)) is StageReply
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:0],
        lambda data: data[:-8],
        lambda data: data.replace(b'"given":"1"', b'"given":"x"'),
    ],
)
def test_a_damaged_memory_stops_the_client(tmp_path: Path, damage: Any) -> None:
    """Without its memory a client could give a round twice: it does not start."""
    plan = make_plan()
    uploaded(plan, 1, started(plan, tmp_path))
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))

    with pytest.raises(RefusalError, match=r"is damaged .* restore it"):
        Memory(plan, tmp_path)


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

    assert len(plan.bands_that_open) == 1
    with pytest.raises(RefusalError, match=r"rows from 2 on .* can never open"):
        Memory(plan).accept(sent(plan, Adapter(layout=plan.layout, rows=rows)), 2)
    assert uploaded(plan, 1, me) is StageReply
    assert shapes == [(1, plan.layout.row_length)]


def test_a_restarted_client_remembers_the_models(tmp_path: Path) -> None:
    """The last model is durable with the last input: a restart does not widen what is believed."""
    plan = roomy()
    limit, memory = step_limit(plan), Memory(plan, tmp_path)
    fifth = moved(plan, 0.5 * limit)
    memory.accept(sent(plan, fifth), 5)
    memory.give(5)

    far = moved(plan, 3 * limit, seed=3)

    assert accepts(Memory(plan), plan, far, 6)
    assert not accepts(Memory(plan, tmp_path), plan, far, 6)
