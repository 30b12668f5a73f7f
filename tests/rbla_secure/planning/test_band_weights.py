"""Weights of rank bands in whole rounds: the clip, the noise after the division, the limits, and what is refused."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from protocols.homomorphic.services.operated import HomomorphicServices
from protocols.session import ClientId
from rbla_secure.errors import PlanError, RefusalError
from rbla_secure.federation.client.contribution import contribution
from rbla_secure.federation.client.movement import Movement
from rbla_secure.federation.server.previous_step import PreviousStep
from rbla_secure.federation.step_bound import average_limits
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.lora.update import UpdateRows
from rbla_secure.planning.band_weights import band_profiles
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.band_weights import noise_energy
from rbla_secure.privacy.noise import GaussianMechanism
from tests.rbla_secure.federation.test_private_rounds import make_plan as wide_plan
from tests.rbla_secure.federation.test_private_rounds import noise_in, play, zeros
from tests.support.defended import defended_round
from tests.support.federations import InMemory, make_adapter, make_participants, make_session, play_round
from tests.support.federations import make_plan as small_plan
from tests.support.noise_law import has_std

WEIGHTED: dict[str, Any] = {"band_weights": "holders", "rank_decay": 1.0}


def plan_of(make: Any = small_plan, *, privacy: dict[str, Any] | None = None, **changes: Any) -> Plan:
    fields = {"noise_multiplier": 1.5, **changes}
    plan: Plan = make(privacy={"colluders": 0, **WEIGHTED, **(privacy or {})}, **fields)
    return plan


@pytest.fixture
def services() -> Iterator[list[HomomorphicServices]]:
    """Those that a test has started, ended with it."""
    started: list[HomomorphicServices] = []
    yield started
    for each in started:
        each.close()


def mechanism_of(plan: Plan) -> GaussianMechanism:
    assert plan.mechanism is not None
    return plan.mechanism


def integers_of(plan: Plan, client: ClientId, change: UpdateRows) -> np.ndarray:
    """All that one client uploads, in a plan whose server adds the noise."""
    found = contribution(plan, make_session(plan), client, change, weight=1.0, noise_key=bytes(16))
    return np.concatenate([found[index] for index in sorted(found)])


def test_the_weights_of_the_small_federation() -> None:
    """Six hold row 1 and three rows 2-3: costs 1/36 and 2/9, signals 1 and 5/6; both bands by hand."""
    plan = plan_of()

    root = math.sqrt(1 / 36) + math.sqrt(2 / 9 * 5 / 6)
    low, high = (math.sqrt(math.sqrt(c / s) * (11 / 6) / root) for c, s in ((1 / 36, 1.0), (2 / 9, 5 / 6)))
    assert plan.band_weights == pytest.approx((low, high), rel=1e-6)
    assert plan.row_weights[:, 0] == pytest.approx([low, high, high], rel=1e-6)
    assert plan_of(privacy={"band_weights": "equal", "rank_decay": 0.0}).band_weights == (1.0, 1.0)


@pytest.mark.parametrize(
    ("clients", "expected"),
    [
        ((2, 2, 2, 4), {0.0: -8.3, 0.5: -21.7, 1.0: -41.0}),
        ((6, 2, 1, 1), {0.0: -21.7, 0.5: -39.1, 1.0: -59.4}),
        ((25, 25, 25, 25), {0.0: -16.6, 0.5: -32.3, 1.0: -52.0}),
    ],
)
def test_the_table_of_the_privacy_page(clients: tuple[int, ...], expected: dict[float, float]) -> None:
    """Noise energy against equal weights in per cent, by the expected fall of squared norms over rows."""
    ranks = (2, 4, 8, 16)
    tiers = {f"rank-{rank}": {"rank": rank, "clients": n} for rank, n in zip(ranks, clients, strict=True)}
    found = {}
    for decay in expected:
        plan = plan_of(privacy={"mechanism": "central", "rank_decay": decay}, tiers=tiers, min_holders=1)
        costs = [each.cost for each in band_profiles(plan.promises, plan.layout)]
        found[decay] = 100 * (noise_energy(costs, plan.band_weights) / sum(costs) - 1)

    assert found == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize("changes", [{"average": "zero-pad"}, {"gamma": 1.0, "lora": {"factors": "lora-b"}}])
def test_averages_over_everybody_need_no_weights(changes: dict[str, Any]) -> None:
    """Where every row is divided by all clients noise is the same in all of them, and without decay the weights are one."""
    plan = plan_of(privacy={"rank_decay": 0.0}, **changes)

    assert plan.band_weights == pytest.approx((1.0, 1.0), rel=1e-6)


def test_a_band_that_never_opens_has_no_part_in_the_weights() -> None:
    """Against two hostile clients a band takes five holders, and rows 2-3 have three: one band is left, of weight one."""
    assert plan_of(robustness={"f": 2}).band_weights == (1.0, 1.0)


@pytest.mark.parametrize(
    ("mode", "mechanism"),
    [
        *((mode, "distributed") for mode in ("plain", "masking", "homomorphic")),
        *((mode, "central") for mode in ("plain", "masking")),
    ],
)
def test_after_the_division_a_band_has_the_noise_of_its_weight(
    mode: str, mechanism: str, services: list[HomomorphicServices]
) -> None:
    """In every secure sum each value of band b has z C / (D_b a_b); without the division it would be another law."""
    plan = plan_of(
        wide_plan,
        privacy={"mechanism": mechanism},
        secure_sum=mode,
        quantization={"ring_bits": 20, "bits": 12, "bound": 0.1},
    )

    outcome = play(plan, services)

    std = math.sqrt(mechanism_of(plan).variance()) / plan.quantizer.scale
    energy = 0.0
    for band, weight in enumerate(plan.band_weights):
        noise = noise_in(plan, outcome, band)
        assert abs(weight - 1) > 0.15
        assert has_std(noise, std / weight)
        assert not has_std(noise, std)
        energy += float(np.square(noise / outcome.holders[band]).sum())
    costs = [each.cost for each in band_profiles(plan.promises, plan.layout)]
    assert energy == pytest.approx(std**2 * noise_energy(costs, plan.band_weights), rel=0.2)


def test_simulated_rounds_are_the_same_in_every_secure_sum(services: list[HomomorphicServices]) -> None:
    """To the byte: weights are on what is summed, whichever way it is summed."""

    def drift(adapter: Adapter, seed: int) -> Rows:
        change = np.random.default_rng(seed).uniform(-0.05, 0.05, adapter.rows.shape)
        return (adapter.rows + change).astype(np.float32)

    quantization = {"ring_bits": 20, "bound": 0.1}
    digests = {
        play(
            plan_of(wide_plan, privacy={"simulation": True}, secure_sum=mode, quantization=quantization),
            services,
            train=drift,
        ).adapter.digest()
        for mode in ("plain", "masking", "homomorphic")
    }

    assert len(digests) == 1


@pytest.mark.parametrize("clipping", ["flat", "per-layer"])
@pytest.mark.parametrize("rows", [slice(0, 1), slice(1, 3), slice(0, 3)])
def test_what_is_sent_is_no_longer_than_the_clip_norm(clipping: str, rows: slice) -> None:
    """Wherever a client moves far, the weighted integers keep the sensitivity. Clipped first and weighted after, they do not."""
    plan = plan_of(privacy={"mechanism": "central", "clipping": clipping}, quantization={"bound": 10.0})
    change = np.zeros((3, plan.layout.row_length))
    change[rows] = 5.0
    bound = mechanism_of(plan).sensitivity(plan.config.privacy.adjacency)

    sent = integers_of(plan, "large-01", change)

    length = float(np.linalg.norm(sent))
    assert 0.99 * bound < length <= bound
    if rows == slice(1, 3) and clipping == "flat":
        # The planted fault: weights behind the clip.
        clipped_first = plan.band_weights[1] * change / np.linalg.norm(change)
        assert np.linalg.norm(clipped_first) > 1.1


@pytest.mark.parametrize(
    "changes",
    [{}, {"robustness": {"group_size": 3}}, {"upload": "padded"}, {"privacy": {"clipping": "per-layer"}}],
)
def test_what_everybody_has_learned_is_what_the_average_has(changes: dict[str, Any]) -> None:
    """With next to no noise: a server that forgets to divide would stretch rows 2-3 and shorten row 1."""
    plan = plan_of(noise_multiplier=1e-5, clip_norm=50.0, **changes)
    change = np.linspace(-0.04, 0.04, plan.max_rank * plan.layout.row_length).reshape(plan.max_rank, -1)

    def learn(adapter: Adapter, seed: int) -> Rows:  # noqa: ARG001
        return (adapter.rows + change[: adapter.rank]).astype(np.float32)

    adapter = make_adapter(plan)
    people = make_participants(plan, train=dict.fromkeys(plan.ranks, learn))
    outcome = defended_round(plan, adapter, InMemory(people))

    moved = outcome.adapter.rows.astype(np.float64) - adapter.rows
    assert moved == pytest.approx(change, abs=0.002)
    undivided = plan.row_weights * change
    assert np.abs(undivided - change).max() > 0.005


def far(adapter: Adapter, seed: int) -> Rows:
    """Local training far beyond the clip norm, everyone in one direction."""
    return (adapter.rows + np.float32(1e3 if seed % 2 else -1e3)).astype(np.float32)


@pytest.mark.parametrize("mechanism", ["distributed", "central"])
def test_clients_accept_every_honest_round_and_nothing_longer(mechanism: str) -> None:
    """The limits are of weighted rows: what reaches them in one band is refused a hundredth further on."""
    plan = plan_of(privacy={"mechanism": mechanism})
    limits, adapter = average_limits(plan), make_adapter(plan)
    people = make_participants(plan, train=dict.fromkeys(plan.ranks, far))
    outcome = play_round(plan, adapter, InMemory(people))
    assert not outcome.refused_bands
    Movement(before=adapter.rows, after=outcome.adapter.rows, rounds=1).check(plan, limits)
    for band in plan.bands:
        for share in (0.99, 1.01):
            after = adapter.rows.astype(np.float64)
            after[band.start, 4] += share * limits.coordinates[band.index] / plan.band_weights[band.index]
            movement = Movement(before=adapter.rows, after=after.astype(np.float32), rounds=1)
            if share < 1:
                movement.check(plan, limits)
            else:
                with pytest.raises(RefusalError, match="has moved"):
                    movement.check(plan, limits)


def test_the_last_step_is_told_as_the_bands_carry_it() -> None:
    """What updates are held against is weighted like them."""
    plan = plan_of()
    before = make_adapter(plan)
    after = Adapter(layout=plan.layout, rows=before.rows + np.float32(0.5))
    last = PreviousStep(plan)

    last.round_ended(before, after)

    found = last.by_band()
    assert found is not None
    for index, weight in enumerate(plan.band_weights):
        assert found[index] == pytest.approx(0.5 * weight, rel=1e-5)


def test_adaptive_clipping_counts_by_the_weighted_norm() -> None:
    """An update that is short enough unweighted and too long weighted is counted as clipped."""
    privacy = {"mechanism": "central", "clipping": "adaptive", "count_noise": 3.0, "min_clip": 0.5}
    plan = plan_of(privacy=privacy, quantization={"bound": 10.0})
    session, votes = make_session(plan), []
    mechanism = plan.mechanism_of(session)
    assert mechanism is not None
    for size in (0.9, 1.1):
        change = np.zeros((3, plan.layout.row_length))
        change[1, 0] = size / plan.band_weights[1]
        found = contribution(plan, session, "large-01", change, weight=1.0, noise_key=bytes(16))
        votes.append(int(found[0][-1]))

    assert plan.band_weights[1] > 1.1
    assert votes == [mechanism.count_unit, -mechanism.count_unit]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"privacy": {"band_weights": "equal"}},
            "privacy.rank-decay=1 must be 0 with privacy.band-weights=equal",
        ),
        ({"noise_multiplier": 0.0}, "must be equal without noise-multiplier above 0"),
        ({"training": {"rows": "in-turns"}}, "must be equal with training.rows=in-turns"),
    ],
)
def test_weights_that_nothing_reads_are_refused(changes: dict[str, Any], message: str) -> None:
    """Before anything is trained, with the argument, its value and the rule."""
    with pytest.raises(PlanError, match=message):
        plan_of(**changes)


def test_weights_leave_the_mechanism_alone() -> None:
    """Sensitivity, noise and epsilon are those of equal weights: only what the numbers mean has changed."""
    weighted, equal = plan_of(), plan_of(privacy={"band_weights": "equal", "rank_decay": 0.0})

    assert weighted.mechanism == equal.mechanism
    assert weighted.digest != equal.digest
    assert zeros(weighted).digest() == zeros(equal).digest()
