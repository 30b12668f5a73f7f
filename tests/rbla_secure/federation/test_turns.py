"""Rows trained in turns: what is *sent* of a band is one function for all who hold it, not only what was trained.

The attacks send one model to everybody, in which those of higher rank move far in their high rows, or diverge there. Clipped
as a whole their low rows would be gone from the sum, which would be the update of the client of the lowest rank.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from protocols.interface import SumResult
from protocols.session import ClientId
from rbla_secure.errors import PlanError, UpdateError
from rbla_secure.federation.client.contribution import contribution
from rbla_secure.federation.noise_shares import Integers
from rbla_secure.federation.server.client_updates import Decoded, decoded
from rbla_secure.federation.step_bound import average_limits, update_limit
from rbla_secure.lora.adapter import Adapter
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.noise.distributed import DistributedDiscreteGaussian
from tests.support.federations import RUN, make_config, make_plan
from tests.support.model_world import World, believe_anything, clip_all_bands_together

RANKS = (1, 2, 4, 7)
TURNS: dict[str, Any] = {"training": {"rows": "in-turns"}}


def plan_of(rank: int, **changes: Any) -> Plan:
    """One and the same federation but for one thing: `one-01` has this rank. Every rank has three others."""
    tiers = {f"rank-{each}": {"rank": each, "clients": 3} for each in RANKS}
    terms = TURNS | {"tiers": tiers | {"one": {"rank": rank, "clients": 1}}} | changes
    return make_plan(**terms)


def trained(rank: int, high: Callable[[np.ndarray], np.ndarray] = lambda rows: rows) -> np.ndarray:
    """A change of so many rows, of which the low ones are alike whatever the rank; `high` changes those from row 2 on."""
    plan = plan_of(rank)
    rows = np.random.default_rng(0).normal(0.0, 0.2, (RANKS[-1], plan.layout.row_length))
    rows[1:] = high(rows[1:])
    return rows[:rank]


def sent(rank: int, change: np.ndarray, *, weight: float = 1.0, **changes: Any) -> Integers:
    plan = plan_of(rank, **changes)
    session = plan.session(run=RUN, round_number=1, attempt=1)
    return contribution(plan, session, "one-01", change, weight=weight, noise_key=bytes(16))


def far(rows: np.ndarray) -> np.ndarray:
    return rows * 1e6


def without_end(rows: np.ndarray) -> np.ndarray:
    return np.full_like(rows, np.nan)


# Colluders are none, so that a thin band of three has noise enough; the ring has room for both.
NOISE: dict[str, Any] = {"noise_multiplier": 2.0, "privacy": {"colluders": 0}}
PER_LAYER = {"privacy": {"colluders": 0, "clipping": "per-layer"}}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weights": {"weights": "examples"},
    "one factor": {"lora": {"factors": "lora-b"}},
    "per layer": PER_LAYER,
    "noise": NOISE,
    "noise, per layer": NOISE | PER_LAYER,
    "central noise": {"noise_multiplier": 2.0, "privacy": {"mechanism": "central"}},
    "coarse": {"quantization": {"bits": 4, "bound": 0.1}},
}
# Room for the norm of a band in one coordinate, so that lengths are what counts.
WIDE: dict[str, Any] = {"quantization": {"bits": 16, "bound": 1.0}}
HIGH = pytest.mark.parametrize("high", [lambda rows: rows, far, without_end])


@pytest.mark.parametrize("variant", list(VARIANTS))
@HIGH
def test_what_a_band_sends_is_alike_at_every_rank_to_the_bit(
    high: Callable[[np.ndarray], np.ndarray], variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values, statistics and noise of a given key, whatever higher bands have learned."""
    changes = VARIANTS[variant]
    factors = make_config(**changes).lora.factors.value

    def integers(rank: int) -> Integers:
        change = trained(rank, high)
        if factors == "lora-b":
            change[:, ~plan_of(rank, **changes).columns] = 0.0
        return sent(rank, change, weight=0.5 if "weights" in changes else 1.0, **changes)

    found = {rank: integers(rank) for rank in RANKS}
    for rank in RANKS:
        for index, values in found[rank].items():
            if high is not without_end or not index:
                np.testing.assert_array_equal(values, found[RANKS[-1]][index])
            assert variant.endswith("noise") or index or values.any()

    if high is without_end and "noise_multiplier" not in changes:
        return
    clip_all_bands_together(monkeypatch)
    careless = integers(1)[0], integers(RANKS[-1])[0]
    assert not np.array_equal(*careless), "control: one clip over all rows tells ranks apart"


@pytest.mark.parametrize("noise", [{}, NOISE])
def test_a_band_that_diverged_counts_as_zero_with_those_after_it(
    noise: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The bands below stand, the client is told and not refused; as a whole, all of the update would be lost."""
    change = trained(7)
    before = sent(7, change, **noise)
    change[2, 0] = np.inf
    kept = change.copy()
    kept[2:] = 0.0

    with caplog.at_level(logging.WARNING):
        found = sent(7, change, **noise)

    assert "one-01: training diverged in round 1: rows 3-4 and above" in caplog.text
    for index, values in sent(7, kept, **noise).items():
        np.testing.assert_array_equal(found[index], values)
    for index in (0, 1):
        np.testing.assert_array_equal(found[index], before[index])
    clip_all_bands_together(monkeypatch)
    if not noise:
        with pytest.raises(UpdateError, match="not finite"):
            sent(7, change)
    else:
        nothing = sent(7, np.zeros_like(change), **noise)
        assert np.array_equal(sent(7, change, **noise)[0], nothing[0]), "control: the low band is lost too"


@pytest.mark.parametrize("rank", RANKS)
def test_who_diverged_in_the_lowest_band_is_refused_whatever_its_rank(rank: int) -> None:
    """It has nothing to send, and a sum of zeros for it would show others."""
    change = trained(rank)
    change[0, 1] = np.nan

    with pytest.raises(UpdateError, match="not finite"):
        sent(rank, change)
    # Under noise nobody is told: it sends what a client sends that has learned nothing.
    for index, values in sent(rank, np.zeros_like(change), **NOISE).items():
        np.testing.assert_array_equal(sent(rank, change, **NOISE)[index], values)


def test_all_bands_together_are_no_longer_than_the_clip_norm() -> None:
    """C / sqrt(bands) each: the squares add up to C, whatever is clipped; and a mechanism counts what rounding adds."""
    plan = plan_of(7, **WIDE)
    integers = sent(7, trained(7) * 1e9, **WIDE)
    norms = [float(np.linalg.norm(values[:-1])) / plan.quantizer.scale for values in integers.values()]

    assert norms == pytest.approx([0.5 * plan.config.clip_norm] * 4, rel=1e-3)
    assert math.hypot(*norms) == pytest.approx(plan.config.clip_norm, rel=1e-3)
    assert update_limit(plan) >= math.hypot(*norms)


def test_each_band_is_rounded_by_a_stream_of_its_own() -> None:
    """Two bands of one row each with the same change are rounded independently."""
    unit = 0.1 / 32767
    first, second, *_ = sent(7, np.full_like(trained(7), 0.5 * unit)).values()

    assert set(first) | set(second) == {0, 1}
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("bits", [3, 16])
def test_whatever_bounds_an_update_counts_each_bands_rounding(bits: int) -> None:
    """Rounded alone, bands may together be longer than one update rounded as a whole."""
    grid = {"quantization": {"bits": bits, "bound": 1.0}}
    alone, together = plan_of(7, **grid), plan_of(7, **grid, training={"rows": "together"})
    row = alone.layout.row_length
    each = [
        alone.quantizer.rounded_norm_bound(0.5, height * row) / alone.quantizer.scale
        for height in (1, 1, 2, 3)
    ]

    assert update_limit(alone) == pytest.approx(math.hypot(*each), rel=1e-12)
    assert update_limit(alone) > update_limit(together)
    assert average_limits(alone).total > average_limits(together).total


def test_noise_is_scaled_to_all_bands_rounded_alone() -> None:
    """The sensitivity is what the bands' bounds add up to."""
    mechanism = plan_of(7, **NOISE).mechanism
    assert isinstance(mechanism, DistributedDiscreteGaussian)
    lengths = [band.length for band in mechanism.bands]
    each = [mechanism.quantizer.rounded_norm_bound(0.5, length) for length in lengths]

    assert math.sqrt(mechanism.variance()) == pytest.approx(2.0 * math.hypot(*each), rel=1e-12)
    assert mechanism.variance() > replace(mechanism, bands_alone=False).variance()


def read(plan: Plan, integers: Integers) -> Decoded:
    session = plan.session(run=RUN, round_number=1, attempt=1)
    found = decoded(plan, session, "one-01", integers)
    assert isinstance(found, Decoded)
    return found


def test_a_server_that_sees_single_updates_clips_each_band_again() -> None:
    """An honest update stays as it is, also where rounding made it longer; one band alone may not have the whole norm."""
    plan = plan_of(7, robustness={"filter": "coordinate-median"}, quantization={"bits": 4, "bound": 1.0})
    honest = sent(
        7,
        trained(7) * 1e3,
        robustness={"filter": "coordinate-median"},
        quantization={"bits": 4, "bound": 1.0},
    )
    for index, values in read(plan, honest).bands.items():
        np.testing.assert_array_equal(values, honest[index][:-1] / plan.quantizer.scale)
    cheat = {index: np.zeros_like(values) for index, values in honest.items()}
    cheat[3][:-1] = plan.quantizer.levels

    bands = read(plan, cheat).bands

    length = plan.quantizer.rounded_norm_bound(0.5, len(bands[3])) / plan.quantizer.scale
    assert np.linalg.norm(bands[3]) == pytest.approx(length)
    assert not any(bands[index].any() for index in (0, 1, 2))


@pytest.mark.parametrize("clipping", ["flat", "per-layer", "adaptive"])
def test_a_count_over_all_bands_is_refused(clipping: str) -> None:
    """It would be sent with the lowest band, and depend on the others."""
    terms = NOISE | {"privacy": {"colluders": 0, "clipping": clipping}}
    if clipping != "adaptive":
        assert plan_of(7, **terms).promises.bands_alone
        return
    with pytest.raises(
        PlanError, match=r"training\.rows=in-turns must have privacy\.clipping=flat or per-layer"
    ):
        plan_of(7, **terms)


# --- a server with one model for all ---

TIERS = {"small": {"rank": 2, "clients": 1}, "large": {"rank": 4, "clients": 6}}


def world(*, steps: int = 1) -> World:
    training = {"rows": "in-turns", "optimizer": "sgd", "learning_rate": 0.05, "steps": steps}
    return World(tiers=TIERS, training=training)


def steep(world: World, size: float) -> Adapter:
    """The seeded adapter with rows 3 and 4 that add nothing (lora_A is zero) and have gradients without measure."""
    rows = world.plan.initial_adapter.rows.copy()
    for lora_A, lora_B in world.plan.layout.columns.values():
        rows[2:, lora_A] = 0.0
        rows[2:, lora_B] = size
    return Adapter(layout=world.plan.layout, rows=rows)


def alone(world: World, result: SumResult | None, client: ClientId) -> float:
    """The cosine of what was opened of the lowest band with one client's own integers; 0 if it stayed closed."""
    if result is None or 0 not in result.sums:
        return 0.0
    own = contribution(
        world.plan, world.session, client, world.changes[client], weight=1.0, noise_key=bytes(16)
    )[0]
    total = result.sums[0]
    return float(total @ own / np.linalg.norm(total.astype(float)) / np.linalg.norm(own.astype(float)))


def test_a_model_under_which_high_rows_run_away_isolates_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody is in the sum of the lowest band; under one clip over all rows it would be the small client's update."""
    believe_anything(monkeypatch)
    careful = world()

    found = careful.play(steep(careful, 1e6))
    clip_all_bands_together(monkeypatch)
    careless = world()
    control = careless.play(steep(careless, 1e6))

    assert found is not None
    assert len(found.survivors) == len(careful.plan.ranks)
    assert alone(careless, control, "small-01") > 0.99, "control: the band opens to one update among zeros"
    assert alone(careful, found, "small-01") < 0.9


def test_a_model_under_which_high_rows_diverge_takes_no_low_row_out_of_the_sum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of higher rank send the low rows that they trained; refused as a whole, nobody would be left to sum."""
    believe_anything(monkeypatch)
    careful = world(steps=4)

    found = careful.play(steep(careful, 1e25))
    clip_all_bands_together(monkeypatch)
    careless = world(steps=4)
    control = careless.play(steep(careless, 1e25))

    assert not np.isfinite(careful.changes["large-01"][2:]).all()
    assert found is not None
    assert len(found.survivors) == len(careful.plan.ranks)
    assert alone(careful, found, "small-01") < 0.9
    assert control is None or 0 not in control.sums, "control: six of seven are gone"
