"""The in-process engine delivers bytes, and its drop-outs are faults that repeat."""

from collections import Counter

import pytest

from rbla_secure.engines.in_process import Faults, InProcess
from rbla_secure.federation.exchange import Answer, Parcel
from rbla_secure.federation.round import RoundOutcome, prepare_round
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.stopwatch import Stopwatch
from tests.support.federations import (
    MEMBERS,
    InMemory,
    keep_answer,
    make_adapter,
    make_participants,
    make_plan,
    open_round,
    play_round,
)
from tests.support.reachable import secrets_of

STAGES = ("advertise_keys", "share_keys", "mask_input", "reveal_shares")
NAMES = tuple(f"client-{number:02d}" for number in range(40))
ROUNDS = range(1, 101)


def faults(
    rate: float, *, seed: int = 0, stages: tuple[str, ...] = STAGES, input_stage: str = "mask_input"
) -> Faults:
    return Faults(rate=rate, seed=seed, stages=stages, input_stage=input_stage)


def drawn(given: Faults) -> list[int]:
    return [given.silent_from(name, number) for number in ROUNDS for name in NAMES]


def test_without_a_rate_nobody_fails() -> None:
    """At rate 0 every client answers every stage."""
    found = drawn(faults(0.0))

    assert set(found) == {len(STAGES)}


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.9])
def test_so_many_fail_as_the_rate_says(rate: float) -> None:
    """Over clients and rounds the share of failures is the rate."""
    found = drawn(faults(rate))

    share = sum(stage < len(STAGES) for stage in found) / len(found)
    # Five standard deviations of a binomial share of 4,000.
    assert abs(share - rate) < 5 * (rate * (1 - rate) / len(found)) ** 0.5


def test_failures_spread_evenly_over_the_stages() -> None:
    """Every stage, the first and the last included, is where about a quarter of the failures begin."""
    counts = Counter(stage for stage in drawn(faults(0.9)) if stage < len(STAGES))

    assert sorted(counts) == [0, 1, 2, 3]
    # 900 each are expected; five standard deviations are 130.
    assert all(abs(count - 900) < 130 for count in counts.values())


def test_failures_follow_seed_round_and_client() -> None:
    """The same seed fails the same clients in the same rounds, another seed others."""
    first, again, other = drawn(faults(0.3)), drawn(faults(0.3)), drawn(faults(0.3, seed=1))

    assert first == again != other
    by_round = [tuple(first[start : start + len(NAMES)]) for start in range(0, len(first), len(NAMES))]
    assert len(set(by_round)) == len(by_round)


@pytest.mark.parametrize("stages", [("mask_input",), (*STAGES[:3], "agree", "reveal"), STAGES[2:]])
def test_whose_input_counts_does_not_depend_on_the_protocol(stages: tuple[str, ...]) -> None:
    """With any stages the same clients fall silent before their input is sent, so modes can be compared."""
    masking, other = drawn(faults(0.3)), drawn(faults(0.3, stages=stages))

    sent = stages.index("mask_input")
    assert [stage <= 2 for stage in masking] == [stage <= sent for stage in other]


def hold(rate: float, *, round_number: int) -> tuple[Faults, RoundOutcome]:
    plan = make_plan(secure_sum="masking", rounds=20)
    given = faults(rate)
    engine = InProcess(make_participants(plan), faults=given, stopwatch=Stopwatch())
    return given, play_round(plan, make_adapter(plan), engine, round_number=round_number)


def test_a_client_is_silent_from_its_stage_on() -> None:
    """Whoever fails answers the stages before and none after."""
    outcomes = [hold(0.15, round_number=number) for number in range(1, 21)]

    seen = set()
    for number, (given, outcome) in enumerate(outcomes, start=1):
        if outcome.aborted:
            continue
        fates = {name: given.silent_from(name, number) for name in MEMBERS}
        assert outcome.dropped == {name: STAGES[at] for name, at in fates.items() if at < 4}
        assert outcome.survivors == tuple(name for name, at in fates.items() if at > 2)
        seen |= set(outcome.dropped.values())
    assert seen == set(STAGES)


def test_a_fault_silences_one_round_of_a_message() -> None:
    """Where a message holds parcels of two rounds, a client may answer the one and not the other."""
    plan = make_plan(secure_sum="masking", rounds=5)
    given = faults(0.5)
    engine = InProcess(make_participants(plan), faults=given, stopwatch=Stopwatch())
    rounds = [open_round(plan, round_number=number) for number in (4, 5)]
    parcels = [session_server.requests("advertise_keys", None) for session_server in rounds]

    answers = list(engine.send({client: [part[client] for part in parcels] for client in MEMBERS}))

    awake = {(name, number) for name in MEMBERS for number in (4, 5) if given.silent_from(name, number) > 0}
    assert {(answer.client, answer.parcel.round) for answer in answers} == awake
    assert len(answers) == len(awake)
    assert {name for name in MEMBERS if ((name, 4) in awake) != ((name, 5) in awake)}


def test_the_end_of_a_run_ends_every_participant() -> None:
    """Nobody keeps a secret of a session once the run is over."""
    plan = make_plan(secure_sum="masking")
    people = make_participants(plan)
    lasting = {name: secrets_of(one) for name, one in people.items()}
    engine = InProcess(people, faults=faults(0.0), stopwatch=Stopwatch())
    for number in (1, 2):
        prepare_round(open_round(plan, round_number=number), engine)
    held = {name: secrets_of(one) - lasting[name] for name, one in people.items()}

    engine.end()

    assert all(held.values())
    assert {name: secrets_of(one) for name, one in people.items()} == lasting


def test_the_engine_carries_the_bytes_as_they_are() -> None:
    """Its answers are those of the participants, one per request, in the order of the requests."""
    plan = make_plan()
    stopwatch = Stopwatch()
    given: list[Answer] = []

    def record(client: str, parcel: Parcel) -> list[Answer]:
        given.append(Answer(client=client, parcel=parcel))
        return keep_answer(client, parcel)

    reference = InMemory(make_participants(plan), answers=record)
    play_round(plan, make_adapter(plan), reference)
    (messages,) = reference.sent
    engine = InProcess(
        make_participants(plan),
        faults=faults(0.0, stages=("upload",), input_stage="upload"),
        stopwatch=stopwatch,
    )

    answers = list(engine.send(messages))

    assert [answer.client for answer in answers] == list(messages)
    assert answers == given
    assert stopwatch.seconds("clients") > 0


def test_a_client_that_takes_too_long_is_silent() -> None:
    """An answer has a time limit: training that never ends costs its client the round, and nobody else anything."""
    plan = make_plan(secure_sum="plain")

    def forever(adapter: Adapter, seed: int) -> Rows:  # noqa: ARG001
        while True:
            pass

    for limit, hurried in ((0.2, {"small-01": forever}), (60.0, {})):
        people = make_participants(plan, train=hurried)
        given = faults(0.0, stages=("upload",), input_stage="upload")
        engine = InProcess(people, faults=given, stopwatch=Stopwatch(), stage_seconds=limit)

        outcome = play_round(plan, make_adapter(plan), engine)

        assert [name for name in MEMBERS if name not in outcome.survivors] == list(hurried)
        assert not outcome.refusals
