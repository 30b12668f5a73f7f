"""How far honest rounds move the adapter: never beyond the limits, and close enough to them that they say something."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.session import ClientId
from rbla_secure.config import load_config
from rbla_secure.federation import step_bound
from rbla_secure.federation.server.previous_step import PreviousStep
from rbla_secure.federation.server.step_checks import PublicTests, StepChecks
from rbla_secure.federation.step_bound import (
    average_limits,
    over_rounds,
    single_limits,
    step_limit,
    update_limit,
)
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.planning.plan import Plan
from tests.support.defended import defended_round
from tests.support.federations import (
    InMemory,
    make_adapter,
    make_participants,
    make_plan,
)
from tests.support.identities import server_sum
from tests.support.properties import PROPERTY
from tests.support.updates import make_layout

THREE = {
    "low": {"rank": 1, "clients": 4},
    "middle": {"rank": 2, "clients": 3},
    "top": {"rank": 4, "clients": 5},
}
# Room for a whole update in one coordinate, so that lengths are what counts.
WIDE: dict[str, Any] = {"tiers": THREE, "quantization": {"bits": 16, "bound": 2.0}}


def default_plan(*overrides: str) -> Plan:
    layout = make_layout((64, 32), (32, 10))
    return Plan.build(load_config(None, overrides), layout=layout, base_digest=bytes(32))


def moved(before: Adapter, after: Adapter) -> float:
    return float(np.linalg.norm(after.rows.astype(np.float64) - before.rows))


def allowed(plan: Plan, before: Adapter, *, rounds: int = 1) -> float:
    return over_rounds(step_limit(plan), float(np.linalg.norm(before.rows)), rounds=rounds)


# --- figures ---


def test_the_default_job_moves_by_less_than_one_and_a_half_clip_norms() -> None:
    """1.5 * sqrt(1 + 3 * 2 / 5), and rounding in the seventh digit."""
    plan = default_plan()

    assert update_limit(plan) == pytest.approx(1.5, rel=1e-6)
    assert step_limit(plan) == pytest.approx(1.5 * math.sqrt(2.2), rel=5e-6)
    assert average_limits(plan).coordinates == pytest.approx((0.06,) * 4, rel=2e-6)
    # A whole update fits into no low band at 0.06 a coordinate: 2 * 138 and 4 * 138 values.
    expected = [0.06 * math.sqrt(276)] * 2 + [0.06 * math.sqrt(552), 1.5]
    assert average_limits(plan).bands == pytest.approx(expected, rel=5e-6)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("server-learning-rate=0.5",), 0.5 * 1.5 * math.sqrt(2.2)),
        (("robustness.max-step-norm=0.75",), 0.75),
        (("robustness.max-accuracy-drop=0.1",), 2 * 1.5 * math.sqrt(2.2)),
        (("weights=examples", "quantization.bound=1"), 1.5 * math.sqrt(1 + 3 * 2 / (2 + 3 / 16))),
        (("weights=examples", "quantization.bound=1", "least-weight=1"), 1.5 * math.sqrt(2.2)),
        (("gamma=2",), 1.5 * math.sqrt(2.2)),
        # Band 4 has four holders and never opens; the classes of 8 and of 16 are one.
        (("robustness.f=2", "quantization.bound=1"), 1.5 * math.sqrt(1 + 2 * 2 / 7)),
    ],
)
def test_what_a_plan_names_changes_the_limit(overrides: tuple[str, ...], expected: float) -> None:
    """The server's learning rate, the step checks, the least weight and the quorum; gamma does not."""
    assert step_limit(default_plan(*overrides)) == pytest.approx(expected, rel=2e-3)


def test_a_band_that_never_opens_does_not_move() -> None:
    """Its limit is zero, not that of an open one."""
    plan = default_plan("robustness.f=2")

    assert average_limits(plan).bands[3] == 0.0
    assert average_limits(plan).coordinates[3] == 0.0


def test_nothing_bounds_fl_trust() -> None:
    """Its reference is as long as training on public examples makes it."""
    assert step_limit(default_plan("secure-sum=plain", "robustness.filter=fl-trust")) == math.inf


def test_adaptive_clipping_is_bounded_by_the_largest_of_its_norms() -> None:
    """Four times the norm it begins with."""
    fixed = default_plan("noise-multiplier=0.5")
    adaptive = default_plan("noise-multiplier=0.5", "privacy.clipping=adaptive")

    assert update_limit(adaptive) == pytest.approx(4 * update_limit(fixed), rel=1e-2)
    # A round at a smaller norm has smaller limits, noise and all.
    one, four = (average_limits(adaptive, clip_norm=norm).total for norm in (1.5, 6.0))
    assert four == average_limits(adaptive).total == pytest.approx(4 * one, rel=0.05)


# --- the sum over bands ---


@PROPERTY
@given(data=st.data())
def test_the_overlap_bounds_every_set_of_survivors_and_open_bands(data: st.DataObject) -> None:
    """sum_i mu_i / W_i over any survivors, any weights in range and any bands that open with their quorum."""
    sizes = [data.draw(st.integers(2, 6)), *data.draw(st.lists(st.integers(1, 6), max_size=3))]
    quorum = data.draw(st.integers(1, sizes[-1]))
    plan = make_plan(
        tiers={f"t{i}": {"rank": i + 1, "clients": count} for i, count in enumerate(sizes)},
        min_holders=quorum,
        weights=data.draw(st.sampled_from(["examples", "uniform"])),
    )
    weight = st.floats(plan.least_weight, 1.0)
    present = [data.draw(st.lists(weight, max_size=n)) for n in sizes]
    opening = [i for i in range(len(sizes)) if sum(map(len, present[i:])) >= quorum]
    opened = sorted(data.draw(st.sets(st.sampled_from(opening)))) if opening else []

    found = 0.0
    for at, band in enumerate(opened):
        end = opened[at + 1] if at + 1 < len(opened) else len(sizes)
        here, total = sum(map(sum, present[band:end])), sum(map(sum, present[band:]))
        found += here / total

    assert found <= step_bound._overlap(plan) * (1 + 1e-9)


# --- whole rounds ---


def far(direction: Callable[[tuple[int, ...], np.random.Generator], Any], seed: int) -> Any:
    """Local training that goes far beyond the clip norm."""

    def train(adapter: Adapter, round_seed: int) -> Rows:
        change = direction(adapter.rows.shape, np.random.default_rng([seed, round_seed % 2**32]))
        return (adapter.rows + np.float32(1e3) * change).astype(np.float32)

    return train


def everywhere(shape: tuple[int, ...], _: np.random.Generator) -> Any:
    return np.ones(shape)


def in_the_last_row(shape: tuple[int, ...], _: np.random.Generator) -> Any:
    """Each client's highest band gets all of its update: what makes the average of all bands longest."""
    change = np.zeros(shape)
    change[-1] = 1.0
    return change


def anywhere(shape: tuple[int, ...], generator: np.random.Generator) -> Any:
    """Some rows and columns more than others."""
    shares = generator.exponential(size=(shape[0], 1)) ** 3 * generator.exponential(size=(1, shape[1])) ** 3
    return shares * generator.choice([-1.0, 1.0], p=[0.2, 0.8], size=shape)


DEFENCES: list[dict[str, Any]] = [
    {},
    {"weights": "examples", "examples_cap": 100},
    {"weights": "examples", "examples_cap": 100, "gamma": 1.0},
    {"average": "zero-pad"},
    {"upload": "padded"},
    {"server_learning_rate": 3.0},
    {"min_holders": 1},
    {"privacy": {"clipping": "per-layer"}},
    {"lora": {"factors": "lora-b"}},
    {"secure_sum": "masking", "masking": {"profile": "semi-honest"}},
    *(
        {"robustness": {"filter": name, "f": 1}}
        for name in (
            "coordinate-median",
            "trimmed-mean",
            "multi-krum",
            "geometric-median",
            "norm-bound",
            "centered-clipping",
            "divide-and-conquer",
            "cosine-to-previous",
            "tier-dnc-cosine",
        )
    ),
    {"robustness": {"filter": "krum", "f": 1}, "min_holders": 1},
    {"robustness": {"filter": "geometric-median"}, "weights": "examples", "examples_cap": 100},
    *(
        {"robustness": {"filter": name, "f": 1, "pre_step": "neighbor-mixing"}}
        for name in ("coordinate-median", "trimmed-mean", "geometric-median", "norm-bound")
    ),
    {
        "robustness": {"filter": "norm-bound", "bound": 9.0, "pre_step": "bucketing"},
        "min_holders": 2,
        "weights": "examples",
        "examples_cap": 100,
    },
    {"robustness": {"filter": "coordinate-median", "pre_step": "bucketing"}, "min_holders": 2},
    {"robustness": {"group_size": 3, "f": 0, "group_rule": "coordinate-median"}},
    {"robustness": {"group_size": 3, "f": 0, "group_rule": "trimmed-mean"}},
    {"robustness": {"group_size": 3, "f": 0}, "weights": "examples", "examples_cap": 100},
]


def names(changes: dict[str, Any]) -> str:
    flat = {**changes, **changes.get("robustness", {})}
    return "-".join(str(value) for value in flat.values() if not isinstance(value, dict)) or "default"


def survivors(plan: Plan, generator: np.random.Generator) -> dict[ClientId, str]:
    """Up to a third of the cohort falls silent before its input."""
    gone = generator.choice(sorted(plan.ranks), size=int(generator.integers(0, 5)), replace=False)
    return dict.fromkeys(gone.tolist(), server_sum(plan).input_stage)


@pytest.mark.parametrize("changes", DEFENCES, ids=names)
@pytest.mark.parametrize("direction", [everywhere, in_the_last_row, anywhere])
def test_no_honest_round_exceeds_its_limit(changes: dict[str, Any], direction: Any) -> None:
    """Whatever honest clients train on, who drops out and what they weigh: nothing is refused, and the step is in bounds."""
    for bound in (0.05, 2.0):
        plan = make_plan(**{**WIDE, "quantization": {"bits": 16, "bound": bound}, **changes})
        generator = np.random.default_rng(7)
        adapter, last = make_adapter(plan), PreviousStep(plan)
        for number in range(1, 5):
            train = {name: far(direction, seed) for seed, name in enumerate(plan.ranks)}
            people = {
                name: make_participants(plan, train=train, examples=int(generator.integers(0, 150)))[name]
                for name in plan.ranks
            }
            exchange = InMemory(people, silent_from=survivors(plan, generator))

            outcome = defended_round(plan, adapter, exchange, previous_step=last, round_number=number)

            assert not any("no honest" in reason for reason in outcome.refused_bands.values())
            assert not any("claim" in reason for reason in outcome.refused_bands.values())
            assert moved(adapter, outcome.adapter) <= allowed(plan, adapter)
            last.round_ended(adapter, outcome.adapter)
            adapter = outcome.adapter


def test_the_limit_of_a_band_is_reached() -> None:
    """Clients that agree move one band by the whole limit; a hundredth less would refuse them."""
    plan = make_plan(**WIDE)

    def first_row(shape: tuple[int, ...], _: np.random.Generator) -> Any:
        change = np.zeros(shape)
        change[0] = 1.0
        return change

    people = make_participants(plan, train=dict.fromkeys(plan.ranks, far(first_row, 0)))
    adapter = make_adapter(plan)

    outcome = defended_round(plan, adapter, InMemory(people))

    assert moved(adapter, outcome.adapter) > 0.99 * average_limits(plan).bands[0]


def test_a_median_can_be_longer_than_every_update() -> None:
    """Three updates that are zero in a third of the values each, in another third: their median is nowhere zero."""
    tiers = {"a": {"rank": 1, "clients": 3}}
    plan = make_plan(
        **{**WIDE, "tiers": tiers},
        lora={"factors": "lora-b"},
        robustness={"filter": "coordinate-median", "f": 1},
    )
    columns = np.flatnonzero(plan.columns)

    def two_thirds(client: int) -> Any:
        def direction(shape: tuple[int, ...], _: np.random.Generator) -> Any:
            change = np.zeros(shape)
            change[:, columns[np.arange(len(columns)) % 3 != client]] = 1.0
            return change

        return direction

    train = {name: far(two_thirds(i), 0) for i, name in enumerate(plan.ranks)}
    adapter = make_adapter(plan)

    outcome = defended_round(plan, adapter, InMemory(make_participants(plan, train=train)))

    assert len(columns) == 6
    assert moved(adapter, outcome.adapter) == pytest.approx(math.sqrt(3 / 2), rel=1e-3)
    assert step_limit(plan) == pytest.approx(math.sqrt(2), rel=1e-3)


def test_krum_can_take_a_whole_update_in_every_band() -> None:
    """The rows of one client in the low band, of another in the high one: each as long as an update."""
    tiers = {"low": {"rank": 1, "clients": 6}, "top": {"rank": 2, "clients": 5}}
    plan = make_plan(**{**WIDE, "tiers": tiers}, robustness={"filter": "krum", "f": 1}, min_holders=1)
    people = make_participants(plan, train=dict.fromkeys(plan.ranks, far(in_the_last_row, 0)))
    adapter = make_adapter(plan)

    outcome = defended_round(plan, adapter, InMemory(people))

    assert outcome.refused_bands == {}
    assert moved(adapter, outcome.adapter) == pytest.approx(math.sqrt(2), rel=1e-3)
    assert moved(adapter, outcome.adapter) > 1.03 * math.sqrt(step_bound._overlap(plan))


def test_two_classes_come_near_the_limit_of_a_step() -> None:
    """The exact maximum for classes of m and n - m clients is 1 + p / (2 - p), p = m / n; the limit has p in its place."""
    plan = make_plan(tiers={"a": {"rank": 1, "clients": 6}, "b": {"rank": 2, "clients": 3}}, min_holders=3)
    share = 6 / 9

    exact = math.sqrt(1 + share / (2 - share))

    assert exact == pytest.approx(_longest(share), rel=1e-3)
    assert exact < math.sqrt(step_bound._overlap(plan)) < 1.06 * exact


def _longest(share: float) -> float:
    """By trying: the low class in band 1, the high one at any angle between the bands."""
    angles = np.linspace(0, math.pi / 2, 10_001)
    low = share + (1 - share) * np.cos(angles)
    return float(np.sqrt(low**2 + np.sin(angles) ** 2).max())


@pytest.mark.parametrize("trimmed", [None, 1, 2])
def test_the_stretch_of_a_trimmed_mean_is_the_least_that_holds(trimmed: int | None) -> None:
    """The factor v / (v - f) is never exceeded, and reached by f zeros below and ones above."""
    generator = np.random.default_rng(0)
    for v in range(5, 12):
        f = (v - 1) // 2 if trimmed is None else trimmed
        worst = np.concatenate([np.zeros(f), np.ones(v - f)])
        for values in [worst, *generator.standard_normal((200, v))]:
            kept = np.sort(values)[f : v - f]
            assert kept.mean() ** 2 <= v / (v - f) * np.square(values).mean() * (1 + 1e-12)
        assert np.sort(worst)[f : v - f].mean() ** 2 == pytest.approx(v / (v - f) * np.square(worst).mean())
    wanted = make_plan(**WIDE, robustness={"filter": "trimmed-mean", "f": 1}).config.robustness
    assert step_bound._rule(wanted, None).stretch == 3 / 2


# --- noise ---


NOISY: list[dict[str, Any]] = [
    {"noise_multiplier": 1.0},
    {"noise_multiplier": 3.0, "upload": "padded"},
    {"noise_multiplier": 1.0, "privacy": {"mechanism": "central", "colluders": 0}},
    {
        "noise_multiplier": 1.0,
        "privacy": {"mechanism": "central", "adjacency": "add-or-remove", "colluders": 0},
    },
    {"noise_multiplier": 1.0, "privacy": {"recovered_dropout": 0.3, "colluders": 0}, "secure_sum": "masking"},
    {"noise_multiplier": 1.0, "privacy": {"clipping": "adaptive", "colluders": 0}},
    {
        "noise_multiplier": 1.0,
        "privacy": {"colluders": 0},
        "robustness": {"group_size": 3},
        "secure_sum": "masking",
    },
]


@pytest.mark.parametrize("changes", NOISY, ids=range(len(NOISY)))
def test_no_noisy_round_exceeds_its_limit(changes: dict[str, Any]) -> None:
    """Clients that agree, at the clip norm, under every mechanism: with the noise on top the round is still in bounds."""
    plan = make_plan(**{**WIDE, "masking": {"profile": "semi-honest"}, **changes})
    adapter = make_adapter(plan)
    for number in range(1, 4):
        people = make_participants(plan, train=dict.fromkeys(plan.ranks, far(everywhere, 0)))

        outcome = defended_round(plan, adapter, InMemory(people), round_number=number)

        assert outcome.refused_bands == {}
        assert 0 < moved(adapter, outcome.adapter) <= allowed(plan, adapter)
        adapter = outcome.adapter


def test_the_limit_of_noise_is_some_of_its_standard_deviations() -> None:
    """Not much more than what the noise needs: the length of 16 * 138 values of noise, and 7 to 11 deviations a value."""
    plan = default_plan("noise-multiplier=4")
    limits, quiet = average_limits(plan), average_limits(default_plan())
    std = step_bound._noise_std(plan, 3, 1.5)

    assert limits.coordinates[3] - quiet.coordinates[3] == pytest.approx(8.5 * std, rel=0.1)
    assert limits.bands[3] - quiet.bands[3] == pytest.approx(std * (math.sqrt(8 * 138) + 7.45), rel=0.01)


# --- a group, several rounds, roll-backs ---


def test_the_average_of_a_group_is_at_most_one_update_long() -> None:
    """Its members hold the same bands, so over all of these together it is no longer than one of them."""
    limits = single_limits(make_plan(**WIDE, robustness={"group_size": 3}))

    assert limits.total == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_rounding_to_float32_is_in_the_limit_of_many_rounds(scale: float) -> None:
    """Rows that are large lose what a small step has in their last place; the limit knows."""
    plan = make_plan(**{**WIDE, "server_learning_rate": 1e-3})
    rows = make_adapter(plan).rows * np.float32(scale)
    first = adapter = Adapter(layout=plan.layout, rows=rows)

    for number in range(1, 6):
        people = make_participants(plan, train=dict.fromkeys(plan.ranks, far(everywhere, 0)))
        adapter = defended_round(plan, adapter, InMemory(people), round_number=number).adapter
        assert moved(first, adapter) <= allowed(plan, first, rounds=number)
    if scale > 1:
        assert allowed(plan, first) > 1.3 * step_limit(plan)


def walks(steps: int, seed: int) -> Iterator[tuple[float, float]]:
    """Steps of length one at most, and accuracies with many ties."""
    generator = np.random.default_rng(seed)
    yield from zip(
        generator.choice([-1.0, 1.0], size=steps), generator.choice([0.3, 0.5, 0.9], size=steps), strict=True
    )


@settings(PROPERTY, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_roll_back_goes_back_by_two_steps_at_most(seed: int) -> None:
    """However often, and however equal the adapters of the window are."""
    plan = make_plan(robustness={"max_accuracy_drop": 0.1})
    accuracies: dict[float, float] = {}

    def accuracy(adapter: Adapter) -> float:
        return accuracies[round(float(adapter.rows[0, 0]))]

    def at(value: float) -> Adapter:
        rows = np.zeros((plan.max_rank, plan.layout.row_length), dtype=np.float32)
        rows[0, 0] = value
        return Adapter(layout=plan.layout, rows=rows)

    accuracies[0] = 0.5
    tests = PublicTests(accuracy=accuracy, triggers=lambda _: {})
    step_checks = StepChecks(wanted=plan.config.robustness, tests=tests, first=at(0.0))
    here = at(0.0)
    for step, found in walks(200, seed):
        there = at(float(here.rows[0, 0]) + step)
        accuracies.setdefault(round(float(there.rows[0, 0])), found)
        kept, _ = step_checks.judge(here, there)
        step_checks.remember(kept)
        assert moved(here, kept) <= 2.0
        here = kept
