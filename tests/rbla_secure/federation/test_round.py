"""One round: the adapter moves by the average over exactly those who are in it, or not at all."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from protocols.session import ClientId
from rbla_secure.federation.broadcast import band_digests
from rbla_secure.federation.client import memory
from rbla_secure.federation.client.participant import LocalTraining
from rbla_secure.federation.exchange import Answer, Parcel
from rbla_secure.federation.messages import StageRequest
from rbla_secure.federation.round import RoundOutcome
from rbla_secure.lora.adapter import Adapter
from rbla_secure.planning.plan import Plan
from rbla_secure.seeding import derive_seed
from tests.support.federations import (
    LARGE,
    MEMBERS,
    RUN,
    Deaf,
    InMemory,
    answer_with,
    change_adapter,
    diverge,
    drift,
    keep_answer,
    make_adapter,
    make_participants,
    make_plan,
    play_round,
)
from tests.support.identities import server_sum

STAGES = ("advertise_keys", "share_keys", "mask_input", "reveal_shares")
INPUT_STAGE = {"plain": "upload", "masking": "mask_input"}
MODES = ("plain", "masking")
STEP = 0.1 / 32767


def play(
    plan: Plan,
    *,
    silent_from: Mapping[ClientId, str] | None = None,
    train: Mapping[ClientId, LocalTraining] | None = None,
    **network: Any,
) -> tuple[Adapter, RoundOutcome]:
    """A first round on an adapter without zeros."""
    adapter = make_adapter(plan)
    exchange = InMemory(make_participants(plan, train=train), silent_from=silent_from, **network)
    return adapter, play_round(plan, adapter, exchange)


def silent(plan: Plan, *clients: ClientId) -> dict[ClientId, str]:
    """These fall silent when they are asked for their input."""
    return dict.fromkeys(clients, INPUT_STAGE[plan.config.secure_sum.value])


def moved_rows(before: Adapter, after: Adapter) -> list[int]:
    """The rows whose bits differ."""
    return [row for row in range(before.rank) if before.rows[row].tobytes() != after.rows[row].tobytes()]


def expected_rows(
    plan: Plan, adapter: Adapter, members: Sequence[ClientId], *, share_power: Callable[[float, str], float]
) -> Any:
    """Row by row: the mean change over the members that hold it, times a factor of their share."""
    changes = {
        client: drift(adapter.sliced(plan.ranks[client]), derive_seed(0, "training", 1, client)).astype(
            np.float64
        )
        - adapter.rows[: plan.ranks[client]]
        for client in members
    }
    rows = adapter.rows.astype(np.float64)
    letters = ["A", "A", "A", "B", "B", "A", "A", "B", "B", "B", "B"]
    for row in range(adapter.rank):
        holding = [changes[client][row] for client in members if plan.ranks[client] > row]
        factors = [share_power(len(holding) / len(members), letter) for letter in letters]
        rows[row] += np.array(factors) * np.mean(holding, axis=0)
    return rows


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("changes", "share_power"),
    [
        ({}, lambda _share, _letter: 1.0),
        ({"gamma": 1.0}, lambda share, letter: share if letter == "B" else 1.0),
        ({"gamma": 0.5}, lambda share, letter: share**0.5 if letter == "B" else 1.0),
        ({"average": "zero-pad"}, lambda share, _letter: share),
        ({"server_learning_rate": 0.5}, lambda _share, _letter: 0.5),
        (
            {"average": "fedavg", "tiers": {"lab": {"rank": 2, "clients": 4}}},
            lambda _share, _letter: 1.0,
        ),
    ],
)
def test_the_adapter_moves_by_the_average_of_the_plan(
    mode: str, changes: dict[str, Any], share_power: Callable[[float, str], float]
) -> None:
    """The next adapter is the old one plus each row's mean over its holders, by the rule that the plan names."""
    plan = make_plan(secure_sum=mode, **changes)

    before, outcome = play(plan)

    expected = expected_rows(plan, before, tuple(plan.ranks), share_power=share_power)
    assert outcome.adapter.rows == pytest.approx(expected, abs=STEP + 1e-6)
    assert outcome.survivors == tuple(plan.ranks)
    assert outcome.aborted == ""
    assert (outcome.dropped, outcome.refusals, outcome.refused_bands) == ({}, {}, {})
    assert outcome.cut_off == 0.0


@pytest.mark.parametrize(
    ("gone", "refused", "holders"),
    [
        ((), [], {0: 6, 1: 3}),
        (("small-01",), [], {0: 5, 1: 3}),
        (("large-02",), [1], {0: 5}),
        (("small-01", "small-03"), [], {0: 4, 1: 3}),
        (("large-01", "small-02"), [1], {0: 4}),
    ],
)
@pytest.mark.parametrize("changes", [{}, {"gamma": 1.0, "average": "rbla"}, {"average": "zero-pad"}])
def test_plain_and_masked_rounds_agree_to_the_bit(
    gone: tuple[ClientId, ...], refused: list[int], holders: dict[int, int], changes: dict[str, Any]
) -> None:
    """Whoever drops out, and whichever band stays closed, both modes give the same adapter byte for byte."""
    plain, masking = make_plan(secure_sum="plain", **changes), make_plan(secure_sum="masking", **changes)

    before, open_sum = play(plain, silent_from=silent(plain, *gone))
    _, masked_sum = play(masking, silent_from=silent(masking, *gone))

    assert masked_sum.adapter.to_bytes() == open_sum.adapter.to_bytes()
    assert moved_rows(before, masked_sum.adapter) == ([0] if refused else [0, 1, 2])
    for outcome in (open_sum, masked_sum):
        assert outcome.survivors == tuple(client for client in MEMBERS if client not in gone)
        assert sorted(outcome.refused_bands) == refused
        assert outcome.holders == holders
    assert open_sum.cut_off == masked_sum.cut_off


@pytest.mark.parametrize("client", ["small-02", "large-01"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_drop_out_at_any_stage_is_survived(client: ClientId, stage: str) -> None:
    """Who falls silent before its upload is out of the average, who does so after it is in: as in the clear."""
    masking, plain = make_plan(secure_sum="masking"), make_plan(secure_sum="plain")
    uploaded = stage == "reveal_shares"

    before, outcome = play(masking, silent_from={client: stage})
    _, reference = play(plain, silent_from={} if uploaded else {client: "upload"})

    assert outcome.dropped == {client: stage}
    assert (client in outcome.survivors) == uploaded
    assert outcome.adapter.to_bytes() == reference.adapter.to_bytes()
    assert 0 in moved_rows(before, outcome.adapter)
    assert outcome.refusals == {}


@pytest.mark.parametrize("stage", STAGES)
def test_below_the_threshold_nothing_happens(stage: str) -> None:
    """Three of six are fewer than four: the round ends by name, and its adapter is the one it began with."""
    plan = make_plan(secure_sum="masking")

    before, outcome = play(plan, silent_from=dict.fromkeys(MEMBERS[1:4], stage))

    assert outcome.adapter is before
    assert outcome.aborted == f"{stage}: 3 of 6 clients answered, threshold=4 are needed"
    assert outcome.survivors == ()
    assert outcome.cut_off is None
    assert outcome.dropped == dict.fromkeys(MEMBERS[1:4], stage)


def test_losses_add_up_over_the_stages() -> None:
    """One client lost at each of three stages leaves too few for the last."""
    plan = make_plan(secure_sum="masking")
    lost = dict(zip(MEMBERS, STAGES[:3], strict=False))

    before, outcome = play(plan, silent_from=lost)

    assert outcome.adapter is before
    assert outcome.aborted == "mask_input: 3 of 4 clients answered, threshold=4 are needed"
    assert outcome.dropped == lost


@pytest.mark.parametrize("mode", MODES)
def test_silence_aborts_the_round(mode: str) -> None:
    """Nobody answers: the adapter stays the same object."""
    plan = make_plan(secure_sum=mode)
    adapter = make_adapter(plan)

    outcome = play_round(plan, adapter, Deaf())

    assert outcome.adapter is adapter
    assert "0 of 6 clients answered" in outcome.aborted
    assert sorted(outcome.dropped) == list(MEMBERS)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("client", ["small-01", "large-03"])
def test_a_client_that_refuses_is_left_out(mode: str, client: ClientId) -> None:
    """A refusal is written down with its name, and the others go on as if its sender had been silent."""
    plan = make_plan(secure_sum=mode)

    _, outcome = play(plan, train={client: diverge})
    _, reference = play(plan, silent_from=silent(plan, client))

    assert list(outcome.refusals) == [client]
    assert outcome.refusals[client].startswith("UpdateError: the update is not finite")
    assert outcome.dropped == silent(plan, client)
    assert outcome.adapter.to_bytes() == reference.adapter.to_bytes()


@pytest.mark.parametrize("mode", MODES)
def test_a_round_of_refusals_is_aborted(mode: str) -> None:
    """When everybody diverges, the round says so for each and changes nothing."""
    plan = make_plan(secure_sum=mode)

    before, outcome = play(plan, train=dict.fromkeys(MEMBERS, diverge))

    assert outcome.adapter is before
    assert sorted(outcome.refusals) == list(MEMBERS)
    assert outcome.aborted


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"RS",
        b"RS\x02\x03\0\0\0\0",
        b"RS\x02\x03\xff\xff\xff\xff",
        b"\xff" * 100,
        b"RS\x02\x04\x01\0a\x01\0\n",
    ],
)
def test_garbage_costs_its_sender_the_round(mode: str, garbage: bytes) -> None:
    """Bytes that are no answer count as silence of the client they came from."""
    plan = make_plan(secure_sum=mode)
    at = INPUT_STAGE[mode]

    def deliver(client: ClientId, parcel: Parcel) -> list[Answer]:
        chosen = (client, parcel.stage) == ("small-01", at)
        return [answer_with(client, parcel, garbage if chosen else parcel.data)]

    _, outcome = play(plan, answers=deliver)
    _, reference = play(plan, silent_from=silent(plan, "small-01"))

    assert outcome.refusals["small-01"].startswith("WireError: ")
    assert outcome.dropped == {"small-01": at}
    assert outcome.adapter.to_bytes() == reference.adapter.to_bytes()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stranger", ["zzz-01", "", "small-04"])
def test_the_answer_of_a_stranger_changes_nothing(mode: str, stranger: ClientId) -> None:
    """An answer under a name that is not in the cohort is turned away, and the round is what it was."""
    plan = make_plan(secure_sum=mode)

    def deliver(client: ClientId, parcel: Parcel) -> list[Answer]:
        return keep_answer(stranger, parcel) + keep_answer(client, parcel)

    _, outcome = play(plan, answers=deliver)
    _, reference = play(plan)

    assert outcome.refusals[stranger].startswith("RosterError: ")
    assert outcome.survivors == MEMBERS
    assert outcome.adapter.to_bytes() == reference.adapter.to_bytes()


@pytest.mark.parametrize("mode", MODES)
def test_an_answer_under_another_members_name_changes_nothing(mode: str) -> None:
    """A client that answers for its neighbour too is noticed, and both count once, as themselves."""
    plan = make_plan(secure_sum=mode)

    def deliver(client: ClientId, parcel: Parcel) -> list[Answer]:
        forged = keep_answer("small-02", parcel) if client == "small-01" else []
        return forged + keep_answer(client, parcel)

    _, outcome = play(plan, answers=deliver)
    _, reference = play(plan)

    assert "the message is from position 4, not 5" in outcome.refusals["small-02"]
    assert outcome.survivors == MEMBERS
    assert outcome.adapter.to_bytes() == reference.adapter.to_bytes()


@pytest.mark.parametrize("mode", MODES)
def test_an_answer_delivered_twice_counts_once(mode: str) -> None:
    """A network that repeats itself does not change the sum."""
    plan = make_plan(secure_sum=mode)

    _, outcome = play(plan, answers=lambda client, parcel: keep_answer(client, parcel) * 2)
    _, reference = play(plan)

    assert outcome.dropped == {}
    assert outcome.adapter.to_bytes() == reference.adapter.to_bytes()


def test_an_answer_of_another_session_is_turned_away() -> None:
    """What a client sent in the attempt before is not taken for this one."""
    plan = make_plan(secure_sum="plain")
    participants = make_participants(plan)
    old: dict[ClientId, bytes] = {}

    def record(client: ClientId, parcel: Parcel) -> list[Answer]:
        old[client] = parcel.data
        return keep_answer(client, parcel)

    def replay(client: ClientId, parcel: Parcel) -> list[Answer]:
        return [answer_with(client, parcel, old[client] if client == "small-01" else parcel.data)]

    adapter = make_adapter(plan)
    play_round(plan, adapter, InMemory(participants, answers=record), attempt=1)

    outcome = play_round(plan, adapter, InMemory(participants, answers=replay), attempt=2)

    assert outcome.refusals["small-01"].startswith("ContextError: ")
    assert "small-01" not in outcome.survivors


@pytest.mark.parametrize(
    ("client", "row"), [("small-01", 0), ("small-01", 2), ("large-01", 0), ("large-01", 2)]
)
@pytest.mark.parametrize("mode", MODES)
def test_a_model_that_no_honest_rounds_lead_to_is_refused(mode: str, client: ClientId, row: int) -> None:
    """A client that is sent other rows, even such as it only folds in, says so and is out of the round."""
    plan = make_plan(secure_sum=mode)

    def tamper(name: ClientId, parcel: Parcel) -> bytes:
        return change_adapter(parcel.data, row=row) if name == client else parcel.data

    _, outcome = play(plan, requests=tamper)
    _, reference = play(plan, silent_from={client: INPUT_STAGE[mode]})

    assert "the one that follows from the plan's seed" in outcome.refusals[client]
    assert outcome.adapter.to_bytes() == reference.adapter.to_bytes()


def believe_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Participants that train on whatever model they are sent."""
    monkeypatch.setattr(memory, "check_plausible", lambda *_arguments, **_more: None)


@pytest.mark.parametrize(
    ("client", "row", "closed"),
    [
        ("small-01", 0, [0]),
        # Rows beyond its rank, which it folds in: what it sends in the band that it holds depends on them.
        ("small-01", 2, [0]),
        ("large-01", 0, [0, 1]),
        # Rows of the upper band alone: the lower one depends on them too.
        ("large-01", 2, [0, 1]),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_a_model_aimed_at_one_client_opens_nothing_it_holds(
    monkeypatch: pytest.MonkeyPatch, mode: str, client: ClientId, row: int, closed: list[int]
) -> None:
    """If one client is sent another model and believes it, every band that it uploads stays closed; the rest opens.

    In the clear the server compares what the clients were bound to. With masks, those of the deceived client do not
    cancel: the sum is noise, which the range of honest sums tells from a result.
    """
    believe_anything(monkeypatch)
    plan = make_plan(secure_sum=mode)

    def tamper(name: ClientId, parcel: Parcel) -> bytes:
        return change_adapter(parcel.data, row=row) if name == client else parcel.data

    before, outcome = play(plan, requests=tamper)
    _, reference = play(plan)

    kept_rows = {0: [0], 1: [1, 2]}
    kept = [each for index in closed for each in kept_rows[index]]
    assert sorted(outcome.refused_bands) == closed
    assert all("model" in reason for reason in outcome.refused_bands.values())
    for each in range(3):
        source = before if each in kept else reference.adapter
        assert outcome.adapter.rows[each].tobytes() == source.rows[each].tobytes()
    assert outcome.survivors == MEMBERS


@pytest.mark.parametrize("mode", MODES)
def test_a_model_changed_for_all_on_the_way_moves_nothing(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """When everybody alike was sent other rows than the server's own and believed them, every band stays closed."""
    believe_anything(monkeypatch)
    plan = make_plan(secure_sum=mode)

    before, outcome = play(plan, requests=lambda _client, parcel: change_adapter(parcel.data))

    assert sorted(outcome.refused_bands) == [0, 1]
    assert outcome.adapter.to_bytes() == before.to_bytes()


@pytest.mark.parametrize("mode", MODES)
def test_other_terms_for_one_client_are_refused(mode: str) -> None:
    """A client that is offered another session than the others declines, and they go on."""
    plan = make_plan(secure_sum=mode)
    other = plan.session(run=RUN, round_number=1, attempt=9, cohort=MEMBERS)

    def tamper(name: ClientId, parcel: Parcel) -> bytes:
        if name != "small-03":
            return parcel.data
        message = StageRequest.from_bytes(parcel.data)
        return StageRequest(
            session=other.to_bytes(), payload=message.payload, adapter=message.adapter
        ).to_bytes()

    _, outcome = play(plan, requests=tamper)
    _, reference = play(plan, silent_from=dict.fromkeys(["small-03"], server_sum(plan).stages[0]))

    assert outcome.refusals["small-03"].startswith("ContextError: ")
    assert outcome.adapter.to_bytes() == reference.adapter.to_bytes()


@pytest.mark.parametrize("rest", ["folded", "dropped"])
@pytest.mark.parametrize("mode", MODES)
def test_every_client_is_sent_what_the_plan_gives_it(mode: str, rest: str) -> None:
    """The adapter travels at the input stage alone: all rows, or cut to its receiver's rank with digests of the others."""
    plan = make_plan(secure_sum=mode, lora={"rest": rest})
    adapter = make_adapter(plan)
    exchange = InMemory(make_participants(plan))

    play_round(plan, adapter, exchange)

    carried = {
        (stage, client): StageRequest.from_bytes(request).adapter for stage, client, request in exchange.seen
    }
    rows = {(stage, client): len(data) // 44 for (stage, client), data in carried.items() if data}
    whole = {client: rest == "folded" or client in LARGE for client in MEMBERS}
    assert rows == {(INPUT_STAGE[mode], client): 3 if whole[client] else 1 for client in MEMBERS}
    assert all(adapter.to_bytes().startswith(data) for data in carried.values())
    digests = [
        (client, StageRequest.from_bytes(request).digests)
        for stage, client, request in exchange.seen
        if stage == INPUT_STAGE[mode]
    ]
    others = band_digests(plan, adapter)[1]
    assert digests == [(client, b"" if whole[client] else others) for client, _ in digests]


@pytest.mark.parametrize("mode", MODES)
def test_the_transcript_counts_what_crossed(mode: str) -> None:
    """Bytes up and down are those of the messages, client by client."""
    plan = make_plan(secure_sum=mode)
    up: dict[ClientId, int] = dict.fromkeys(MEMBERS, 0)
    down: dict[ClientId, int] = dict.fromkeys(MEMBERS, 0)

    def count_request(client: ClientId, parcel: Parcel) -> bytes:
        down[client] += len(parcel.data)
        return parcel.data

    def count_answer(client: ClientId, parcel: Parcel) -> list[Answer]:
        up[client] += len(parcel.data)
        return keep_answer(client, parcel)

    _, outcome = play(plan, requests=count_request, answers=count_answer)

    assert outcome.transcript.bytes_up() == up
    assert outcome.transcript.bytes_down() == down
    assert up["large-01"] > up["small-01"] > 0


def test_what_is_cut_off_is_a_mean_over_coordinates_and_holders() -> None:
    """A client with all of its values cut off counts as many times as it has values."""
    plan = make_plan(clip_norm=10.0)

    def leap(adapter: Adapter, _seed: int) -> Any:
        return adapter.rows + np.float32(0.5)

    _, outcome = play(plan, train={"large-01": leap})

    # 33 of the 6 * 11 + 3 * 22 values that were summed.
    assert outcome.cut_off == pytest.approx(33 / 132, abs=1e-4)


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_clients_without_examples_have_the_least_weight(gamma: float) -> None:
    """Equal weights cancel: a round of the least weights is a round of ones, up to the rounding of small values."""
    least, one = (make_plan(weights=name, gamma=gamma) for name in ("examples", "uniform"))
    adapter = make_adapter(least)

    outcomes = [
        play_round(plan, adapter, InMemory(make_participants(plan, examples=0))) for plan in (least, one)
    ]

    assert [outcome.refused_bands for outcome in outcomes] == [{}, {}]
    difference = outcomes[0].adapter.rows.astype(np.float64) - outcomes[1].adapter.rows
    assert np.abs(difference).max() <= 17 * STEP
