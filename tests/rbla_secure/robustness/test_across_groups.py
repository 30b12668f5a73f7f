"""From group totals to one total: votes, quorums, lengths."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbla_secure.config.choices import AcrossRule
from rbla_secure.errors import RobustnessError
from rbla_secure.lora.update import BandTotal
from rbla_secure.robustness.across_groups import GroupTotals, filter_groups
from rbla_secure.robustness.grouping import Group
from rbla_secure.robustness.rules.coordinatewise import coordinate_median, trimmed_mean
from tests.support.filtered import average
from tests.support.properties import PROPERTY

SEEDS = st.integers(0, 2**32 - 1)


def total(value: Any, weight: float = 3.0) -> BandTotal:
    return BandTotal(weighted_sum=np.asarray(value, dtype=np.float64) * weight, weight=weight, cut_off=0.0)


def group(number: int, bands: dict[int, BandTotal], rank: int = 2) -> GroupTotals:
    name = f"rank-{rank:03d}-group-{number:03d}"
    return GroupTotals(group=Group(name=name, rank=rank, members=(f"client-{number}",)), bands=bands)


def federation(seed: int, counts: Sequence[int] = (5, 5, 5)) -> list[GroupTotals]:
    """Tiers of ranks 2, 4, 8, whose groups hold 1, 2, 3 bands of four values."""
    generator = np.random.default_rng(seed)
    return [
        group(
            i,
            {
                band: total(generator.normal(size=4), weight=generator.uniform(1, 3))
                for band in range(tier + 1)
            },
            rank=2 << tier,
        )
        for tier, count in enumerate(counts)
        for i in range(count)
    ]


def values_of(found: Sequence[GroupTotals], band: int) -> Any:
    return np.stack([average(held.bands[band]) for held in found if band in held.bands])


@PROPERTY
@given(seed=SEEDS, f=st.integers(0, 2))
def test_each_group_has_one_vote_in_each_of_its_bands(seed: int, f: int) -> None:
    found = federation(seed)

    median = filter_groups(found, f=f, rule=AcrossRule.COORDINATE_MEDIAN, norm_limit=1e9)
    trimmed = filter_groups(found, f=f, rule=AcrossRule.TRIMMED_MEAN, norm_limit=1e9)

    for band in range(3):
        votes = values_of(found, band)
        assert average(median.totals[band]) == pytest.approx(coordinate_median(votes))
        assert average(trimmed.totals[band]) == pytest.approx(trimmed_mean(votes, f=f))
        weight = sum(held.bands[band].weight for held in found if band in held.bands)
        assert median.totals[band].weight == pytest.approx(weight)


@pytest.mark.parametrize("rule", AcrossRule)
@pytest.mark.parametrize("huge", [1e30, -1e30, 1e200])
def test_spoiled_groups_within_f_move_nothing_far(rule: AcrossRule, huge: float) -> None:
    found = federation(3)
    for at in (10, 12):
        bands = {band: total(np.full(4, huge)) for band in range(3)}
        found[at] = GroupTotals(group=found[at].group, bands=bands)

    answer = filter_groups(found, f=2, rule=rule)

    assert set(answer.totals) == {0, 1, 2}
    for answered in answer.totals.values():
        assert np.abs(average(answered)).max() < 4.0


def test_half_of_the_groups_spoiled_is_too_many() -> None:
    """The check above can fail: three of five groups of the highest band."""
    found = federation(3)
    for at in (10, 11, 12):
        found[at] = GroupTotals(
            group=found[at].group, bands={band: total(np.full(4, 1e30)) for band in range(3)}
        )

    answer = filter_groups(found, f=2, rule=AcrossRule.COORDINATE_MEDIAN)

    assert np.abs(average(answer.totals[2])).max() > 1e20


def test_a_band_with_too_few_groups_stays_closed() -> None:
    answer = filter_groups(federation(1, (5, 2, 2)), f=2, rule=AcrossRule.COORDINATE_MEDIAN)

    assert set(answer.totals) == {0}
    assert answer.closed == {1: "4 groups, 5 needed against f=2", 2: "2 groups, 5 needed against f=2"}


def test_groups_without_weight_or_with_sums_that_are_no_numbers_do_not_vote() -> None:
    found = federation(1, (5, 0, 0))
    found[0] = group(0, {0: BandTotal(weighted_sum=np.zeros(4), weight=0.0, cut_off=None)})
    found[1] = group(1, {0: total([1.0, np.nan, 1.0, 1.0])})

    assert filter_groups(found, f=1, rule=AcrossRule.COORDINATE_MEDIAN).totals[0].weight == pytest.approx(
        sum(held.bands[0].weight for held in found[2:])
    )
    answer = filter_groups(found, f=2, rule=AcrossRule.COORDINATE_MEDIAN)
    assert answer.closed == {0: "3 groups, 5 needed against f=2"}


def lengths(*values: float, rank: int = 2) -> list[GroupTotals]:
    return [group(i, {0: total([value, 0.0])}, rank=rank) for i, value in enumerate(values)]


def test_a_long_group_is_rejected_and_the_reason_has_the_numbers() -> None:
    answer = filter_groups(lengths(1.0, 1.1, 0.9, 1.0, 1.6), f=1, rule=AcrossRule.COORDINATE_MEDIAN)

    verdict = answer.verdicts["rank-002-group-004"]
    assert not verdict.accepted
    assert verdict.score == pytest.approx(1.6)
    assert (
        verdict.reason == "group length: 1.60 times the median of its tier, beyond the limit 1.50, rejected"
    )
    assert average(answer.totals[0]) == pytest.approx([1.0, 0.0])
    assert sum(not v.accepted for v in answer.verdicts.values()) == 1


def test_lengths_are_compared_inside_a_tier() -> None:
    """Higher ranks hold more rows: three times as long is normal there."""
    found = [*lengths(1.0, 1.1, 0.9), *lengths(3.0, 3.3, 2.7, rank=4)]

    answer = filter_groups(found, f=2, rule=AcrossRule.COORDINATE_MEDIAN)

    assert all(verdict.accepted for verdict in answer.verdicts.values())


def test_without_an_f_lengths_are_scores_only() -> None:
    answer = filter_groups(lengths(1.0, 1.1, 0.9, 1.0, 9.0), f=0, rule=AcrossRule.COORDINATE_MEDIAN)

    assert answer.verdicts["rank-002-group-004"].accepted
    assert "beyond the limit 1.50, kept" in answer.verdicts["rank-002-group-004"].reason


def test_no_rejection_takes_a_band_below_its_quorum() -> None:
    """Each rejected group might be an honest one, and 2f + 1 must be left for the median to stand on."""
    answer = filter_groups(lengths(1.0, 1.1, 0.9, 1.0, 9.0, 8.0), f=2, rule=AcrossRule.COORDINATE_MEDIAN)

    assert [verdict.accepted for verdict in answer.verdicts.values()] == [True, True, True, True, False, True]
    assert set(answer.totals) == {0}


@pytest.mark.parametrize(
    ("found", "f", "limit", "message"),
    [
        (lengths(1.0), -1, 1.5, "f=-1"),
        (lengths(1.0), 0, 1.0, "norm_limit"),
        (lengths(1.0), 0, np.nan, "norm_limit"),
        ([*lengths(1.0), *lengths(1.0)], 0, 1.5, "one name"),
    ],
)
def test_numbers_without_meaning_are_refused(
    found: list[GroupTotals], f: int, limit: float, message: str
) -> None:
    with pytest.raises(RobustnessError, match=message):
        filter_groups(found, f=f, rule=AcrossRule.COORDINATE_MEDIAN, norm_limit=limit)


def test_no_groups_give_nothing() -> None:
    answer = filter_groups([], f=1, rule=AcrossRule.TRIMMED_MEAN)

    assert (answer.totals, answer.verdicts, answer.closed) == ({}, {}, {})
