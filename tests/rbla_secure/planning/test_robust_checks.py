"""Defences that could not keep their promise are refused before anything is trained, with what would do."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rbla_secure.config.choices import FilterName, PreStepName
from rbla_secure.errors import PlanError
from rbla_secure.planning.promises import Promises
from rbla_secure.planning.warnings import warnings
from rbla_secure.report.defences import band_defences
from rbla_secure.robustness.grouping import draw_groups
from tests.support.defended import TIERS, defended_round, make_plan
from tests.support.federations import InMemory, make_adapter, make_config, make_participants

SELECTING = {
    FilterName.MULTI_KRUM,
    FilterName.DIVIDE_AND_CONQUER,
    FilterName.COSINE_TO_PREVIOUS,
    FilterName.TIER_DNC_COSINE,
}
COMBINATIONS = [(name, step) for name in FilterName if name is not FilterName.NONE for step in PreStepName]


def refusal(**changes: Any) -> str:
    with pytest.raises(PlanError) as caught:
        make_plan(**changes)
    return str(caught.value)


def runs(name: FilterName, step: PreStepName, min_holders: int) -> bool:
    """Krum publishes single rows and needs 2f + 3 votes, selections need 3f + 1, where three buckets hold the last rows."""
    if step is PreStepName.BUCKETING and name in {FilterName.KRUM, *SELECTING}:
        return False
    return name is not FilterName.KRUM or min_holders == 1


CASES = [(name, step, least) for name, step in COMBINATIONS for least in (1, 3)]


@pytest.mark.parametrize(("name", "step", "min_holders"), [case for case in CASES if not runs(*case)])
def test_a_filter_that_cannot_run_is_refused(name: FilterName, step: PreStepName, min_holders: int) -> None:
    """Before the run, not in its first round."""
    text = refusal(robustness={"filter": name.value, "pre_step": step.value}, min_holders=min_holders)

    assert f"robustness.filter={name}" in text
    assert "min-holders" in text


@pytest.mark.parametrize(
    "gone", [(), ("large-01", "large-02", "small-03"), ("large-01", "large-02", "large-03")]
)
@pytest.mark.parametrize(("name", "step", "min_holders"), [case for case in CASES if runs(*case)])
def test_every_other_filter_runs(
    name: FilterName, step: PreStepName, min_holders: int, gone: tuple[str, ...]
) -> None:
    """Whoever drops out, every survivor has a verdict, and every band is open or closed with a reason."""
    plan = make_plan(robustness={"filter": name.value, "pre_step": step.value}, min_holders=min_holders)
    exchange = InMemory(make_participants(plan), silent_from=dict.fromkeys(gone, "upload"))

    outcome = defended_round(
        plan, make_adapter(plan), exchange, reference=lambda before, _: before.rows + np.float32(0.01)
    )

    assert outcome.aborted == ""
    assert outcome.judged is not None
    assert set(outcome.judged.verdicts) == set(outcome.survivors) == set(plan.ranks) - set(gone)
    assert set(outcome.holders) | set(outcome.refused_bands) == {0, 1}
    assert not set(outcome.holders) & set(outcome.refused_bands)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"robustness": {"filter": "krum"}}, ["robustness.filter=krum", "min-holders=3", "must be 1"]),
        (
            {"robustness": {"filter": "multi-krum", "f": 2}, "tiers": {"all": {"rank": 2, "clients": 6}}},
            [
                "robustness.f=2",
                "robustness.filter=multi-krum",
                "rows 1-2 has 6 holders",
                "needs 7",
                "robustness.f=1",
            ],
        ),
        (
            {"robustness": {"filter": "multi-krum", "pre_step": "bucketing"}},
            ["robustness.pre-step=bucketing", "rows 2-3 has 3 buckets of 2", "needs 5"],
        ),
        (
            {"robustness": {"filter": "trimmed-mean", "pre_step": "bucketing", "bucket_size": 5}},
            ["rows 2-3 has 1 buckets of 5", "needs 3"],
        ),
        (
            {"robustness": {"filter": "tier-dnc-cosine"}, "tiers": {"all": {"rank": 2, "clients": 3}}},
            [
                "rows 1-2 has 3 holders",
                "needs 4",
                "robustness.f=0",
                "robustness.filter=trimmed-mean",
                "1 more",
            ],
        ),
        (
            {
                "robustness": {"filter": "cosine-to-previous", "f": 2},
                "tiers": {"all": {"rank": 2, "clients": 6}},
            },
            [
                "rows 1-2 has 6 holders",
                "needs 7",
                "robustness.f=1",
                "robustness.filter=trimmed-mean",
                "1 more",
            ],
        ),
        (
            {
                "robustness": {"filter": "trimmed-mean", "f": 2, "pre_step": "neighbor-mixing"},
                "tiers": {"top": {"rank": 4, "clients": 5}, "low": {"rank": 2, "clients": 2}},
            },
            ["rows 3-4 has 5 holders", "needs 7", "robustness.f=1", "without a pre-step", "2 more"],
        ),
        ({"robustness": {"pre_step": "bucketing"}}, ["robustness.pre-step=bucketing", "robustness.filter"]),
        ({"robustness": {"f": 30}}, ["robustness.f=30", "asks for 61 holders", "nothing could ever open"]),
        *[
            (
                {"robustness": {"filter": "trimmed-mean"}, "secure_sum": mode},
                ["robustness.filter=trimmed-mean", "secure-sum=plain", hint],
            )
            for mode, hint in (("masking", "robustness.group-size"), ("homomorphic", "homomorphic.screening"))
        ],
        (
            {"robustness": {"filter": "trimmed-mean"}, "noise_multiplier": 1.0},
            ["robustness.filter=trimmed-mean", "noise-multiplier=0"],
        ),
    ],
)
def test_a_refusal_names_the_key_and_the_numbers(changes: dict[str, Any], words: list[str]) -> None:
    """Whoever reads it knows what to change."""
    text = refusal(**changes)

    assert [word for word in words if word not in text] == []


GROUPED: dict[str, Any] = {"tiers": {"all": {"rank": 2, "clients": 9}}, "secure_sum": "masking"}


@pytest.mark.parametrize(
    ("changes", "robustness", "words"),
    [
        ({"upload": "padded"}, {}, ["upload=banded"]),
        ({"secure_sum": "homomorphic"}, {}, ["secure-sum=masking or plain"]),
        ({"secure_sum": "plain"}, {"filter": "trimmed-mean"}, ["robustness.filter=none"]),
        (
            {"noise_multiplier": 1.0, "privacy": {"mechanism": "central"}},
            {},
            ["privacy.mechanism=distributed"],
        ),
        ({"noise_multiplier": 1.0, "privacy": {"clipping": "adaptive"}}, {}, ["a fixed clip"]),
        (
            {
                "noise_multiplier": 1.0,
                "privacy": {"recovered_dropout": 0.2},
                "masking": {"profile": "consistency"},
            },
            {},
            ["privacy.recovered-dropout=0"],
        ),
        ({"noise_multiplier": 1.0, "weights": "examples"}, {}, ["weights=uniform"]),
        ({}, {"group_size": 2}, ["privacy_quorum=3", "min-holders=3"]),
        ({}, {"group_size": 10}, ["fewer than group_size=10"]),
        ({}, {"f": 2}, ["2 * 2 < 3 does not hold", "robustness.f=2"]),
    ],
)
def test_groups_are_refused_where_they_keep_no_promise(
    changes: dict[str, Any], robustness: dict[str, Any], words: list[str]
) -> None:
    """By the name of the key, and of what stands against it."""
    text = refusal(**{**GROUPED, **changes}, robustness={"group_size": 3, **robustness})

    assert [word for word in ["robustness.group-size=", *words] if word not in text] == []


@pytest.mark.parametrize("f", [0, 1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2, 3, 4, 5, 6, 7])
def test_groups_stand_exactly_where_twice_f_is_less_than_their_number(f: int, groups: int) -> None:
    """One more attacker, or one group less, and the plan is refused."""
    changes: dict[str, Any] = {
        "tiers": {"all": {"rank": 1, "clients": 3 * groups}},
        "secure_sum": "masking",
        "robustness": {"f": f, "group_size": 3},
    }

    if 2 * f < groups:
        assert make_plan(**changes).segmentation.part == "group"
    else:
        assert f"2 * {f} < {groups} does not hold" in refusal(**changes) or f"robustness.f={f}" in refusal(
            **changes
        )


@pytest.mark.parametrize("sizes", [(3, 5), (4, 11), (7, 7), (3, 3)])
def test_the_sizes_of_groups_are_those_that_are_drawn(sizes: tuple[int, int]) -> None:
    """Reckoned from the configuration alone, whatever the seed: two tiers of one rank are one."""
    tiers = {
        "large": {"rank": 3, "clients": sizes[0]},
        "small": {"rank": 1, "clients": sizes[1]},
        "more": {"rank": 1, "clients": 4, "cohort": 2},
    }
    config = make_config(tiers=tiers, robustness={"group_size": 3})
    ranks = {f"large-{i}": 3 for i in range(sizes[0])} | {f"small-{i}": 1 for i in range(sizes[1] + 2)}

    drawn = draw_groups(ranks, group_size=3, seed=bytes(range(32)))

    reckoned = {str(each.band): sorted(each.groups) for each in Promises.build(config).bands}
    assert reckoned == {
        "rows 1-1": sorted(len(group.members) for group in drawn),
        "rows 2-3": sorted(len(group.members) for group in drawn if group.rank == 3),
    }


def promised_warnings(**changes: Any) -> list[str]:
    return warnings(Promises.build(make_config(**changes)))


def test_small_groups_are_warned_of() -> None:
    """What they tell of membership, and of members that collude; not where sums are large."""
    everybody = {"all": {"rank": 1, "clients": 30}}
    small = promised_warnings(tiers=everybody, secure_sum="masking", robustness={"group_size": 3})
    large = promised_warnings(
        tiers=everybody, secure_sum="masking", min_holders=6, robustness={"group_size": 6}
    )

    assert [line.split(":")[0] for line in small] == ["robustness.group-size=3"] * 2
    assert "membership AUC" in small[0]
    assert "min-holders=5 would not" in small[1]
    assert large == []


def test_the_figures_of_the_warning_are_those_that_were_measured() -> None:
    """As the table of the benchmark prints them."""
    page = (Path(__file__).parents[3] / "benchmarks/results/privacy_attacks.md").read_text(encoding="utf-8")
    (line,) = promised_warnings(tiers=TIERS, secure_sum="masking", robustness={"group_size": 3})
    rows = [row.split(" | ") for row in page.splitlines() if row.startswith("| ") and " | 0 | " in row]
    measured = {
        row[0].strip("| "): float(row[3].split()[0]) for row in rows if len(row) == 6 and "[" in row[3]
    }

    for view in (
        "plain: every change alone",
        "groups of 3, no quorum",
        "masked, or homomorphic with the key: sum over 40",
    ):
        assert f"{measured[view]:.2f}" in line


@pytest.mark.parametrize("name", sorted(SELECTING))
@pytest.mark.parametrize("f", [1, 2, 3])
def test_a_selection_is_planned_with_three_f_and_one_holders_and_refused_below(
    name: FilterName, f: int
) -> None:
    """By holders of the thinnest band that others would open; one that nobody could open is warned of, as ever."""
    least = max(3 * f + 1, 2 * f + 3 if name is FilterName.MULTI_KRUM else 0)

    def plan(top: int, **changes: Any) -> Any:
        tiers = {"top": {"rank": 4, "clients": top}, "low": {"rank": 2, "clients": 20}}
        return make_plan(tiers=tiers, robustness={"filter": name.value, "f": f}, **changes)

    assert [band.stop for band in plan(least).bands_that_open] == [2, 4]
    for holders in range(2 * f + 1, least):
        with pytest.raises(PlanError, match=rf"rows 3-4 has {holders} holders .* and needs {least}"):
            plan(holders)
    thin = plan(2 * f, min_holders=2)
    assert [band.stop for band in thin.bands_that_open] == [2]
    assert any("rows 3-4" in text and "never opens" in text for text in warnings(thin.promises))


@pytest.mark.parametrize("name", ["tier-dnc-cosine", "cosine-to-previous"])
def test_drop_outs_below_what_a_selection_needs_leave_the_band_closed(name: str) -> None:
    """Four of five holders are enough against one attacker, and three are not, though three would be for a median."""
    plan = make_plan(robustness={"filter": name})
    adapter = make_adapter(plan)

    for gone, opened in ((("large-05",), {0, 1}), (("large-04", "large-05"), {0})):
        exchange = InMemory(make_participants(plan), silent_from=dict.fromkeys(gone, "upload"))
        outcome = defended_round(plan, adapter, exchange)
        assert set(outcome.holders) == opened


def test_check_says_how_many_each_band_stands_under_this_filter() -> None:
    """Ten and five holders: four and two attackers with a median, three and one with a selection, none less with three buckets."""
    found = {
        (name, step): [
            each.largest_f
            for each in band_defences(
                Promises.build(make_config(tiers=TIERS, robustness={"filter": name, "pre_step": step}))
            )
        ]
        for name, step in (
            ("trimmed-mean", "none"),
            ("tier-dnc-cosine", "none"),
            ("trimmed-mean", "neighbor-mixing"),
            ("tier-dnc-cosine", "bucketing"),
        )
    }

    assert found == {
        ("trimmed-mean", "none"): [4, 2],
        ("tier-dnc-cosine", "none"): [3, 1],
        ("trimmed-mean", "neighbor-mixing"): [3, 1],
        ("tier-dnc-cosine", "bucketing"): [1, 0],
    }
