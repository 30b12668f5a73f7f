"""Noise through the whole protocol: its law on every row, in every mode, with drop-outs, and nothing beside it."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from protocols.plain import PlainInput
from rbla_secure.config.choices import Adjacency
from rbla_secure.federation.client.contribution import contribution
from rbla_secure.federation.client.participant import LocalTraining
from rbla_secure.federation.exchange import Answer, Parcel
from rbla_secure.federation.messages import StageReply, decode_answer
from rbla_secure.federation.round import RoundOutcome
from rbla_secure.federation.server.opened_totals import release
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.noise import GaussianMechanism
from rbla_secure.privacy.noise.distributed import DistributedDiscreteGaussian
from tests.support.federations import (
    BASE,
    LARGE,
    MEMBERS,
    SMALL,
    InMemory,
    answer_with,
    beginning_with,
    diverge,
    drift,
    keep_answer,
    make_adapter,
    make_config,
    make_participants,
    make_session,
    play_round,
)
from tests.support.noise_law import has_std, tells_wrong_scales
from tests.support.updates import make_layout

# Wide enough for a band's noise to tell its scale from 2/3 and 3/2 of it.
LAYOUT = make_layout((300, 200), (200, 100))
MODES = ("plain", "masking")
INPUT = {"plain": "upload", "masking": "mask_input"}


def noisy_plan(mode: str = "plain", *, privacy: Mapping[str, Any] | None = None, **changes: Any) -> Plan:
    fields = {"noise_multiplier": 1.5, "privacy": {"colluders": 0, **(privacy or {})}, **changes}
    plan = Plan.build(make_config(secure_sum=mode, **fields), layout=LAYOUT, base_digest=BASE)
    return beginning_with(plan, make_adapter(plan))


def still(adapter: Adapter, _seed: int) -> Rows:
    """Training that changes nothing: what comes out is noise."""
    return adapter.rows.copy()


def play(plan: Plan, **network: Any) -> tuple[Adapter, RoundOutcome]:
    adapter = make_adapter(plan)
    train = network.pop("train", dict.fromkeys(MEMBERS, still))
    exchange = InMemory(make_participants(plan, train=train), **network)
    return adapter, play_round(plan, adapter, exchange)


def summed_noise(plan: Plan, before: Adapter, outcome: RoundOutcome) -> dict[int, npt.NDArray[np.float64]]:
    """By band: the integers that the noise added to the sum, read off the averaged rows."""
    moved = (outcome.adapter.rows.astype(np.float64) - before.rows) * plan.quantizer.scale
    return {
        band.index: moved[band.start : band.stop][:, plan.columns] * outcome.holders[str_index(band.index)]
        for band in plan.bands
        if band.index in outcome.holders
    }


def str_index(index: int) -> int:
    return index


def mechanism_of(plan: Plan) -> GaussianMechanism:
    assert plan.mechanism is not None
    return plan.mechanism


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("upload", ["banded", "padded"])
@pytest.mark.parametrize("mechanism", ["distributed", "central"])
def test_every_row_carries_the_claimed_noise(mode: str, upload: str, mechanism: str) -> None:
    """In each band the sum's noise has the target's spread; two thirds and three halves of it are rejected."""
    plan = noisy_plan(mode, privacy={"mechanism": mechanism}, upload=upload)

    before, outcome = play(plan)

    target = math.sqrt(mechanism_of(plan).variance())
    noise = summed_noise(plan, before, outcome)
    assert sorted(noise) == [0, 1]
    for values in noise.values():
        assert tells_wrong_scales(values.size)
        assert has_std(values, target)
        assert not has_std(values, target * 2 / 3)
        assert not has_std(values, target * 3 / 2)
        assert (values != 0).mean() > 0.99


@pytest.mark.parametrize("mode", MODES)
def test_what_drops_out_takes_its_noise_along(mode: str) -> None:
    """With one of three holders gone, the thin band's noise is what two shares give, as the ledger will say."""
    plan = noisy_plan(mode, min_holders=2)

    before, outcome = play(plan, silent_from={LARGE[0]: INPUT[mode]})

    thin = summed_noise(plan, before, outcome)[1]
    assert has_std(thin, math.sqrt(2) * mechanism_of(plan).share_std(1))
    assert not has_std(thin, math.sqrt(3) * mechanism_of(plan).share_std(1))


@pytest.mark.parametrize("mode", MODES)
def test_expected_dropouts_and_colluders_are_made_up_for(mode: str) -> None:
    """Shares are larger by what is not counted on: with one colluder of three, two of them give the target."""
    plan = noisy_plan(mode, privacy={"colluders": 1})
    mechanism = mechanism_of(plan)

    before, outcome = play(plan)

    assert mechanism.share_std(1) == pytest.approx(math.sqrt(mechanism.variance() / 2))
    assert mechanism.share_std(0) == pytest.approx(math.sqrt(mechanism.variance() / 5))
    assert has_std(summed_noise(plan, before, outcome)[1], math.sqrt(3) * mechanism.share_std(1))
    provisioned = noisy_plan(mode, privacy={"expected_dropout": 0.34}, min_holders=1)
    assert [band.counted for band in mechanism_of(provisioned).bands] == [3, 1]


@pytest.mark.parametrize("mode", MODES)
def test_noise_is_fresh_and_follows_from_the_seed_in_simulations_alone(mode: str) -> None:
    """Two runs differ by their noise; marked as simulations they are the same to the bit."""
    for simulation in (False, True):
        plan = noisy_plan(mode, privacy={"simulation": simulation})
        (_, one), (_, two) = play(plan), play(plan)

        assert (one.adapter.to_bytes() == two.adapter.to_bytes()) == simulation


def test_a_simulation_is_the_same_in_all_modes() -> None:
    """Masks cancel over noisy integers as they do over others."""
    adapters = [play(noisy_plan(mode, privacy={"simulation": True}))[1].adapter.to_bytes() for mode in MODES]

    assert adapters[0] == adapters[1]


@pytest.mark.parametrize("mode", MODES)
def test_nothing_travels_beside_the_noisy_values(mode: str) -> None:
    """Weights are public and cut-off shares stay at home: a segment is as long as its rows, and the record says so."""
    plan = noisy_plan(mode)
    _, outcome = play(plan)

    lengths = [segment.length for segment in make_session(plan).segments]
    assert lengths == [LAYOUT.row_length, 2 * LAYOUT.row_length]
    assert outcome.cut_off is None
    assert outcome.unclipped is None


@pytest.mark.parametrize("mode", MODES)
def test_a_client_whose_training_diverged_adds_noise_to_nothing(mode: str) -> None:
    """Its absence would show what its data did; it takes part, and no NaN reaches the model."""
    plan = noisy_plan(mode)

    before, outcome = play(plan, train={**dict.fromkeys(MEMBERS, still), LARGE[1]: diverge})

    assert outcome.survivors == MEMBERS
    assert outcome.refusals == {}
    assert np.isfinite(outcome.adapter.rows).all()
    assert has_std(summed_noise(plan, before, outcome)[1], math.sqrt(mechanism_of(plan).variance()))


@pytest.mark.parametrize("mode", MODES)
def test_signal_comes_through_with_the_noise(mode: str) -> None:
    """A change that all clients share is what the averaged rows are centred on."""
    plan = noisy_plan(mode, clip_norm=1000.0, quantization={"bound": 10.0}, noise_multiplier=0.01)

    def steady(adapter: Adapter, _seed: int) -> Rows:
        return adapter.rows + np.float32(5.0)

    before, outcome = play(plan, train=dict.fromkeys(MEMBERS, steady))

    moved = outcome.adapter.rows - before.rows
    # Noise of 10 on each sum, divided by six and three holders.
    assert moved[0].mean() == pytest.approx(5.0, abs=6 * (10 / 6) / math.sqrt(800))
    assert moved[1:].mean() == pytest.approx(5.0, abs=6 * (10 / 3) / math.sqrt(1600))


@pytest.mark.parametrize("mode", MODES)
def test_frozen_lora_A_is_neither_sent_nor_noised(mode: str) -> None:
    """With lora.factors=lora-b the columns of lora_A keep their bits, and segments are as short as lora_B."""
    plan = noisy_plan(mode, lora={"factors": "lora-b"})

    before, outcome = play(plan)

    kept = ~plan.layout.lora_B_columns
    assert outcome.adapter.rows[:, kept].tobytes() == before.rows[:, kept].tobytes()
    assert [segment.length for segment in make_session(plan).segments] == [300, 600]
    for values in summed_noise(plan, before, outcome).values():
        assert has_std(values, math.sqrt(mechanism_of(plan).variance()))


@pytest.mark.parametrize("victim", [drift, still])
def test_a_client_that_sends_too_much_closes_no_band_before_the_servers_noise(victim: LocalTraining) -> None:
    """In the clear it loses its own place. Against the sum alone its value is chosen so that the others' decides."""
    plan = noisy_plan("plain", privacy={"mechanism": "central"})
    reach = len(MEMBERS) * make_session(plan).input_bound

    def bend(client: str, parcel: Parcel) -> list[Answer]:
        if client != SMALL[0]:
            return keep_answer(client, parcel)
        reply = decode_answer(parcel.data)
        assert isinstance(reply, StageReply)
        found = PlainInput.from_bytes(reply.payload)
        values = found.segments[0].copy()
        values[0] = reach
        far = replace(found, segments={**found.segments, 0: values})
        return [answer_with(client, parcel, StageReply(payload=far.to_bytes()).to_bytes())]

    _, outcome = play(plan, train={**dict.fromkeys(MEMBERS, still), LARGE[0]: victim}, answers=bend)

    assert outcome.refused_bands == {}
    assert set(outcome.survivors) == set(MEMBERS) - {SMALL[0]}


ADD_OR_REMOVE: dict[str, Any] = {"mechanism": "central", "adjacency": "add-or-remove"}


@pytest.mark.parametrize("there", [5, 2, 1, 0])
def test_under_add_or_remove_every_band_opens_over_whoever_is_there(there: int) -> None:
    """Also over one or nobody, below threshold and quorum: the same noise on every row, nothing closed, nothing aborted."""
    plan = noisy_plan("plain", privacy=ADD_OR_REMOVE)
    gone = MEMBERS[: len(MEMBERS) - there]  # those that hold the thin band first

    before, outcome = play(plan, silent_from=dict.fromkeys(gone, "upload"))

    assert outcome.survivors == MEMBERS[len(gone) :]
    assert (outcome.refused_bands, outcome.aborted, outcome.cut_off) == ({}, "", None)
    moved = (outcome.adapter.rows.astype(np.float64) - before.rows) * plan.quantizer.scale
    for rows, holders in ((moved[:1], 6), (moved[1:], 3)):
        assert has_std(rows * holders, math.sqrt(mechanism_of(plan).variance()))


def out_of_bounds(found: PlainInput) -> PlainInput:
    return replace(found, segments={0: found.segments[0] + np.uint32(2**30), 1: found.segments[1]})


def of_another_model(found: PlainInput) -> PlainInput:
    return replace(found, bindings=dict.fromkeys(found.bindings, bytes(32)))


@pytest.mark.parametrize("forge", [out_of_bounds, of_another_model])
def test_under_add_or_remove_one_bad_upload_costs_its_sender_alone(forge: Any) -> None:
    """It would close a band for everybody, and with it show that its sender was there: as it does where clients add the noise."""

    def closed(privacy: dict[str, Any]) -> tuple[set[int], tuple[str, ...]]:
        def bend(client: str, parcel: Parcel) -> list[Answer]:
            if client != LARGE[0]:
                return keep_answer(client, parcel)
            reply = decode_answer(parcel.data)
            assert isinstance(reply, StageReply)
            forged = forge(PlainInput.from_bytes(reply.payload))
            return [answer_with(client, parcel, StageReply(payload=forged.to_bytes()).to_bytes())]

        plan = noisy_plan("plain", privacy={"mechanism": "central", **privacy})
        _, outcome = play(plan, answers=bend)
        return set(outcome.refused_bands), outcome.survivors

    assert closed(ADD_OR_REMOVE) == (set(), MEMBERS[1:])
    bands, survivors = closed({"mechanism": "distributed"})
    assert bands
    assert survivors == MEMBERS


def test_under_add_or_remove_the_denominators_are_those_of_the_plan() -> None:
    """A client that is not there changes the sum and not what it is divided by."""
    plan = noisy_plan("plain", privacy={"mechanism": "central", "adjacency": "add-or-remove"})
    session = make_session(plan)

    assert plan.denominator(session, 0, MEMBERS[1:]) == 6
    assert noisy_plan().denominator(session, 0, MEMBERS[1:]) == 5


@pytest.mark.parametrize("mode", MODES)
def test_adaptive_clipping_counts_who_was_not_clipped(mode: str) -> None:
    """One more noisy integer in the first band: its mean over rounds is the share of unclipped clients."""
    privacy = {"clipping": "adaptive", "count_noise": 1.0}
    plan = noisy_plan(mode, privacy=privacy, noise_multiplier=0.5)

    def leap(adapter: Adapter, _seed: int) -> Rows:
        return adapter.rows + np.float32(100.0)

    train = {**dict.fromkeys(MEMBERS, still), LARGE[0]: leap, LARGE[1]: leap, LARGE[2]: leap}
    shares = [play(plan, train=train)[1].unclipped for _ in range(40)]

    assert all(share is not None for share in shares)
    # Noise of 1 on the count of six clients.
    assert np.mean(np.array(shares, dtype=float)) == pytest.approx(0.5, abs=6 / 6 / math.sqrt(40))
    assert make_session(plan).segments[0].length == LAYOUT.row_length + 1


def test_zeros_in_the_place_of_a_clipped_change_turn_its_vote_round() -> None:
    """From a clipped change to one of zeros a client's integers move by no more than the sensitivity; one vote would be too little."""
    privacy = {"clipping": "adaptive", "count_noise": 1.0, "mechanism": "central"}
    plan = noisy_plan(privacy=privacy, noise_multiplier=0.9)
    session = make_session(plan)
    mechanism = plan.mechanism_of(session)
    assert mechanism is not None

    def sent(change: float) -> Any:
        rows = np.full((plan.max_rank, plan.layout.row_length), change)
        found = contribution(plan, session, LARGE[0], rows, weight=1.0, noise_key=bytes(16))
        return np.concatenate([found[index] for index in sorted(found)])

    moved = float(np.linalg.norm(sent(100.0) - sent(0.0)))

    assert moved <= mechanism.sensitivity(Adjacency.ZERO_OUT)
    once = math.hypot(
        math.sqrt(mechanism.sensitivity(Adjacency.ZERO_OUT) ** 2 - 4 * mechanism.count_unit**2),
        mechanism.count_unit,
    )
    assert moved > 1.1 * once


def test_the_clip_norm_of_a_round_is_in_its_digest() -> None:
    """Every norm of the grid has a session of its own; a norm that is not on it belongs to no session."""
    plan = noisy_plan(privacy={"clipping": "adaptive", "count_noise": 2.0})

    def session(norm: float) -> Any:
        return plan.session(run=bytes(16), round_number=1, attempt=1, cohort=MEMBERS, clip_norm=norm)

    found = [plan.clip_norm_of(session(norm)) for norm in plan.clip_norms]
    assert found == list(plan.clip_norms)
    assert plan.clip_norms[0] == 4.0
    assert plan.clip_norms[-1] == pytest.approx(1 / 16)
    with pytest.raises(Exception, match="are not the plan's"):
        plan.clip_norm_of(session(0.777))


def test_a_smaller_clip_norm_gets_less_noise_on_the_same_grid() -> None:
    """Noise follows the round's norm, the grid stays: sums of all rounds are decoded alike."""
    plan = noisy_plan(privacy={"clipping": "adaptive", "count_noise": 2.0})

    def mechanism(norm: float) -> DistributedDiscreteGaussian:
        session = plan.session(run=bytes(16), round_number=1, attempt=1, cohort=MEMBERS, clip_norm=norm)
        found = plan.mechanism_of(session)
        assert isinstance(found, DistributedDiscreteGaussian)
        return found

    large, small = mechanism(plan.clip_norms[0]), mechanism(plan.clip_norms[32])
    assert small.share_std(0) == pytest.approx(large.share_std(0) / 2, rel=1e-3)
    assert small.quantizer == large.quantizer


def test_a_release_without_noise_does_not_exist() -> None:
    """Only a plan with a mechanism divides by public denominators."""
    assert release.__annotations__["mechanism"] is GaussianMechanism
