"""A participant answers its own plan's sessions, each once, and refuses everything else by name."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.session import Session
from rbla_secure.errors import PrivacyError
from rbla_secure.federation.client.participant import LocalTraining
from rbla_secure.federation.messages import StageRefusal, StageReply, StageRequest, decode_answer
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.seeding import derive_seed
from tests.rbla_secure.federation.client.asked import (
    ADAPTER,
    LEVELS,
    PLAN,
    participant,
    refusal,
    reply,
    request,
    sent,
)
from tests.support.federations import (
    InMemory,
    change_adapter,
    diverge,
    drift,
    make_adapter,
    make_participants,
    make_plan,
    make_session,
    play_round,
)
from tests.support.properties import PROPERTY

STEP = 0.1 / LEVELS


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
