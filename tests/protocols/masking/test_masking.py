"""Masking as a whole: exact sums whoever drops out, uploads that look uniform, and masks that cancel for equals only."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.errors import BelowThresholdError
from protocols.interface import SegmentInput
from protocols.masking.masks import SegmentMasks
from protocols.masking.messages import MaskedInput
from protocols.masking.secure_sum import Masking
from protocols.ring import RingVector
from protocols.run import run_session
from protocols.session import Session
from tests.contracts.sessions import (
    LARGEST_SUM,
    MODEL,
    OTHER_MODEL,
    PROPERTY,
    Inputs,
    Play,
    foretell,
    make_inputs,
    make_session,
    names,
    plain_sum,
    same_bindings,
    segment,
    sessions,
    silences,
)
from tests.protocols.masking.parties import ReproducibleMasking, advertise, mask, share

STAGES = Masking.stages
STAY = "stay"
WORDS = 100_000

# 255 degrees of freedom: mean 255, standard deviation 22.6. Uniform bytes exceed this once in more than 10^9 draws.
UNIFORM_BELOW = 400.0


# Drop-outs.


@pytest.mark.parametrize("threshold", [3, 4])
@pytest.mark.parametrize("first", [STAY, *STAGES])
def test_every_pattern_of_drop_outs_of_four(first: str, threshold: int) -> None:
    """All 5^4 ways in which four clients stay or fall silent give the survivors' exact sums or end by name."""
    members = names(4)
    session = make_session(4, segment(0, 3, members, 3), segment(1, 2, members[1:], 3), threshold=threshold)
    inputs, bindings = make_inputs(session), same_bindings(session)
    for others in itertools.product((STAY, *STAGES), repeat=3):
        plan = dict(zip(members, (first, *others), strict=True))
        silent = {member: stage for member, stage in plan.items() if stage != STAY}
        # The rule, spelt out: enough answers at each stage, a sum over those who uploaded, a quorum per segment.
        present = [[m for m in members if m not in silent or STAGES.index(silent[m]) > at] for at in range(4)]
        uploaded = tuple(present[2])
        expected = {
            part.index: [
                sum(int(inputs[m][part.index].values[at]) for m in uploaded if m in part.members)
                for at in range(part.length)
            ]
            for part in session.segments
            if sum(m in part.members for m in uploaded) >= part.quorum
        }

        if min(map(len, present)) < threshold:
            with pytest.raises(BelowThresholdError):
                run_session(Masking(), session, inputs, bindings=bindings, silent_from=silent)
        else:
            result = run_session(Masking(), session, inputs, bindings=bindings, silent_from=silent)

            assert result.survivors == uploaded, plan
            assert {index: values.tolist() for index, values in result.sums.items()} == expected, plan
            assert set(result.refused) == {0, 1} - set(expected), plan


@settings(PROPERTY, max_examples=100)
@given(data=st.data(), session=sessions(max_members=9, max_segments=4), seed=st.integers(0, 2**32 - 1))
def test_drop_outs_of_up_to_nine(data: st.DataObject, session: Session, seed: int) -> None:
    """With segments and quorums of any shape, the outcome is the one worked out independently."""
    silent = data.draw(silences(session, STAGES))
    inputs, bindings = make_inputs(session, seed=seed), same_bindings(session)
    outcome = foretell(session, inputs, stages=STAGES, input_stage="mask_input", silent_from=silent)

    if outcome is None:
        with pytest.raises(BelowThresholdError):
            run_session(Masking(), session, inputs, bindings=bindings, silent_from=silent)
    else:
        result = run_session(Masking(), session, inputs, bindings=bindings, silent_from=silent)

        assert result.survivors == outcome.survivors
        assert {index: values.tolist() for index, values in result.sums.items()} == outcome.sums
        assert set(result.refused) == {s.index for s in session.segments} - set(outcome.open_segments)


# What an upload looks like.


def chi_squares(vector: RingVector) -> list[float]:
    """How far each of the four bytes of the words is from uniform."""
    lanes = vector.astype("<u4").view(np.uint8).reshape(-1, 4).T
    expected = len(vector) / 256
    return [float(((np.bincount(lane, minlength=256) - expected) ** 2 / expected).sum()) for lane in lanes]


def wide_session(**terms: Any) -> Session:
    """Two clients, one long segment, the largest bound."""
    members = names(2)
    return make_session(2, segment(0, WORDS, members), input_bound=LARGEST_SUM // 2, **terms)


def constant_inputs(session: Session, value: int, binding: bytes = MODEL) -> Inputs:
    """The same value everywhere."""
    return {
        member: {
            part.index: SegmentInput(values=np.full(part.length, value, dtype=np.int64), binding=binding)
            for part in session.segments_of(member)
        }
        for member in session.members
    }


def uploads(session: Session, inputs: Inputs, seed: str = "") -> dict[str, MaskedInput]:
    """What each client uploads when its keys and seeds come from a stream."""
    play = Play(ReproducibleMasking(seed), session, inputs)
    play.play_before("mask_input")
    return {member: MaskedInput.from_bytes(reply) for member, reply in play.answers("mask_input").items()}


@pytest.mark.parametrize("value", [0, LARGEST_SUM // 2, -(LARGEST_SUM // 2)])
@pytest.mark.parametrize("member", names(2))
def test_a_masked_vector_looks_uniform(member: str, value: int) -> None:
    """Every byte of an upload is uniform, be the input all zero or all extreme."""
    session = wide_session()

    vector = uploads(session, constant_inputs(session, value))[member].segments[0]

    assert max(chi_squares(vector)) < UNIFORM_BELOW


@pytest.mark.parametrize(
    "biased",
    [
        np.zeros(WORDS, dtype=np.uint32),
        np.arange(WORDS, dtype=np.uint32),
        np.random.default_rng(0).integers(0, 2**31, WORDS, dtype=np.uint32),
        np.random.default_rng(0).integers(0, 2**32 - 2**26, WORDS, dtype=np.uint32),
    ],
    ids=["zeros", "small", "half of the ring", "all but the top sixty-fourth"],
)
def test_the_check_of_uniformity_sees_what_is_not(biased: RingVector) -> None:
    """Unmasked values, and masks that do not reach the top of the ring, fail the same threshold by far."""
    assert max(chi_squares(biased)) > 2 * UNIFORM_BELOW


DIFFERENT: dict[str, tuple[dict[str, Any], bytes]] = {
    "attempt": ({"attempt": 2}, MODEL),
    "round": ({"round": 2}, MODEL),
    "run": ({"run": bytes(16)}, MODEL),
    "configuration": ({"config_digest": bytes(32)}, MODEL),
    "model": ({}, OTHER_MODEL),
}


@pytest.mark.parametrize("what", DIFFERENT)
@pytest.mark.parametrize("member", names(2))
def test_uploads_of_two_sessions_are_unrelated(member: str, what: str) -> None:
    """The same input under the same keys and seeds is masked afresh when session or model differ: no difference leaks."""
    terms, binding = DIFFERENT[what]
    one, other = wide_session(), wide_session(**terms)

    first = uploads(one, constant_inputs(one, 7))[member].segments[0]
    second = uploads(other, constant_inputs(other, 7, binding))[member].segments[0]

    assert max(chi_squares(first - second)) < UNIFORM_BELOW
    assert np.count_nonzero(first == second) <= 3


def test_the_same_session_gives_the_same_upload() -> None:
    """With everything equal the uploads are equal, so the test above sees the difference it is about."""
    session = wide_session()

    first, second = (uploads(session, constant_inputs(session, 7)) for _ in range(2))

    assert all((first[m].segments[0] == second[m].segments[0]).all() for m in session.members)


def test_segments_of_one_upload_are_unrelated() -> None:
    """Equal values in two segments are masked by different streams, even where the seeds were equal."""
    members = names(2)
    session = make_session(2, segment(0, WORDS, members), segment(1, WORDS, members))

    upload = uploads(session, constant_inputs(session, 7))["client-01"].segments

    assert max(chi_squares(upload[0] - upload[1])) < UNIFORM_BELOW


def test_self_masks_of_two_segments_differ_for_one_seed() -> None:
    """One seed expands to unrelated masks under another segment, owner, session or model."""
    seed = bytes(32)
    masks = SegmentMasks(context=bytes(32), segment=0, binding=MODEL)
    variants = [
        (masks, 1),
        (masks, 2),
        (replace(masks, segment=1), 1),
        (replace(masks, context=b"\x01" * 32), 1),
        (replace(masks, binding=OTHER_MODEL), 1),
    ]
    vectors = [np.zeros(1000, dtype=np.uint32) for _ in variants]

    for vector, (source, owner) in zip(vectors, variants, strict=True):
        source.add_self(vector, seed, owner=owner)  # type: ignore[arg-type]

    for one, other in itertools.combinations(vectors, 2):
        assert np.count_nonzero(one == other) <= 1


def test_pairwise_masks_cancel_between_the_two() -> None:
    """What the earlier client adds towards the later one, the later one takes away, and nobody else does."""
    secret = bytes(range(32))
    masks = SegmentMasks(context=bytes(32), segment=0, binding=MODEL)
    total, third = np.zeros(1000, dtype=np.uint32), np.zeros(1000, dtype=np.uint32)

    masks.add_pairwise(total, secret, owner=3, peer=8)  # type: ignore[arg-type]
    masks.add_pairwise(third, secret, owner=3, peer=9)  # type: ignore[arg-type]
    assert np.count_nonzero(total) > 990
    masks.add_pairwise(total, secret, owner=8, peer=3)  # type: ignore[arg-type]

    assert not total.any()
    assert np.count_nonzero(third) > 990


# What does not cancel.


@pytest.mark.parametrize("odd", names(3))
def test_clients_bound_to_different_models_do_not_cancel(odd: str) -> None:
    """One client that was given another model turns the sum, where the bound lets it open at all, into noise."""
    session = make_session(3, segment(0, WORDS, names(3)), input_bound=LARGEST_SUM // 3)
    inputs = constant_inputs(session, 5)
    inputs[odd] = constant_inputs(session, 5, OTHER_MODEL)[odd]

    result = run_session(ReproducibleMasking(), session, inputs, bindings=same_bindings(session))

    assert max(chi_squares(result.sums[0].astype(np.uint32))) < UNIFORM_BELOW
    assert np.count_nonzero(result.sums[0] == 15) <= 3


@pytest.mark.parametrize("odd", names(3))
def test_noise_is_refused_where_the_bound_leaves_room(odd: str) -> None:
    """Below the ring's capacity a sum that did not cancel is recognised: the segment stays closed and says why."""
    session = make_session(3, segment(0, 10, names(3)), segment(1, 10, names(3)))
    inputs = constant_inputs(session, 5)
    inputs[odd][0] = constant_inputs(session, 5, OTHER_MODEL)[odd][0]

    result = run_session(Masking(), session, inputs, bindings=same_bindings(session))

    assert result.sums[1].tolist() == [15] * 10
    assert "leaves [-3000, 3000]" in result.refused[0]


def test_what_the_server_holds_of_a_refused_segment_is_not_its_sum() -> None:
    """The accumulator of a segment that stays closed keeps its masks: it is uniform and not the plain sum."""
    session = make_session(4, segment(0, WORDS, names(4), 3), segment(1, WORDS, names(3), 3))
    inputs = constant_inputs(session, 5)
    play = Play(ReproducibleMasking(), session, inputs)
    play.play_before("mask_input")
    play.play("mask_input", ["client-02"])
    held = play.server._stage._sums  # type: ignore[attr-defined]
    play.play_after("mask_input")

    result = play.server.result(same_bindings(session))

    assert result.sums[0].tolist() == plain_sum(
        inputs, session.segments[0], ("client-01", "client-03", "client-04")
    )
    assert set(result.refused) == {1}
    assert max(chi_squares(held[1])) < UNIFORM_BELOW
    assert np.count_nonzero(held[1] == 10) <= 3


def test_a_late_upload_stays_hidden_though_its_key_is_recovered() -> None:
    """Without its pairwise masks a late upload is still uniform; only its self mask, never revealed, gives the input."""
    session = make_session(3, segment(0, WORDS, names(3)))
    inputs = constant_inputs(session, 5)
    advertised, directory = advertise(session)
    shared, deliveries = share(session, advertised, directory)
    late = mask(session, shared, deliveries, inputs)[1][2].segments[0].copy()
    masks = SegmentMasks(context=session.context, segment=0, binding=MODEL)

    for peer in (1, 3):
        secret = advertised[2].mask_key.agree(advertised[peer].mask_key.public)
        masks.add_pairwise(late, secret, owner=peer, peer=2)
    without_pairwise = late.copy()
    masks.remove_self(late, shared[2].seeds[0], owner=2)

    assert max(chi_squares(without_pairwise)) < UNIFORM_BELOW
    assert late.tolist() == [5] * WORDS


def test_one_honest_peer_hides_an_upload() -> None:
    """With the self mask and all pairwise masks but one removed, an upload is still uniform."""
    session = make_session(3, segment(0, WORDS, names(3)))
    advertised, directory = advertise(session)
    shared, deliveries = share(session, advertised, directory)
    upload = mask(session, shared, deliveries, constant_inputs(session, 5))[1][2].segments[0].copy()
    masks = SegmentMasks(context=session.context, segment=0, binding=MODEL)

    masks.remove_self(upload, shared[2].seeds[0], owner=2)
    secret = advertised[2].mask_key.agree(advertised[1].mask_key.public)
    masks.add_pairwise(upload, secret, owner=1, peer=2)

    assert max(chi_squares(upload)) < UNIFORM_BELOW
