"""Groups in the masked mode: whom the server sees together, and when f attackers cannot win."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbla_secure.errors import RobustnessError
from rbla_secure.lora.bands import rank_bands
from rbla_secure.robustness.grouping import (
    Group,
    check_groups,
    draw_groups,
    largest_group_size,
    weak_bands,
)
from tests.support.filtered import names
from tests.support.properties import PROPERTY

SEED = bytes(range(32))


def roster(*tiers: tuple[int, int]) -> dict[str, int]:
    """(rank, clients) per tier."""
    ranks = [rank for rank, count in tiers for _ in range(count)]
    return dict(zip(names(len(ranks)), ranks, strict=True))


@PROPERTY
@given(
    sizes=st.lists(st.integers(5, 40), min_size=1, max_size=3),
    g=st.integers(1, 5),
    seed=st.binary(min_size=32, max_size=32),
)
def test_groups_are_a_partition_inside_tiers_with_sizes_that_differ_by_one(
    sizes: list[int], g: int, seed: bytes
) -> None:
    ranks = roster(*((2 << i, size) for i, size in enumerate(sizes)))

    groups = draw_groups(ranks, group_size=g, seed=seed)

    assert sorted(member for group in groups for member in group.members) == sorted(ranks)
    assert all(ranks[member] == group.rank for group in groups for member in group.members)
    assert [group.name for group in groups] == sorted({group.name for group in groups})
    for rank, size in Counter(ranks.values()).items():
        of_tier = [len(group.members) for group in groups if group.rank == rank]
        assert min(of_tier) >= g
        assert max(of_tier) - min(of_tier) <= 1
        assert len(of_tier) == size // g


def test_the_draw_is_that_of_the_specification() -> None:
    """A known answer: whoever recomputes it finds these groups."""
    groups = draw_groups(roster((2, 7), (4, 4)), group_size=3, seed=SEED)

    assert [(group.name, group.members) for group in groups] == [
        ("rank-002-group-001", ("client-000", "client-003", "client-004", "client-006")),
        ("rank-002-group-002", ("client-001", "client-002", "client-005")),
        ("rank-004-group-001", ("client-007", "client-008", "client-009", "client-010")),
    ]


def test_another_seed_draws_other_groups_and_the_same_seed_the_same() -> None:
    ranks = roster((2, 12), (4, 12))

    assert draw_groups(ranks, group_size=3, seed=SEED) == draw_groups(ranks, group_size=3, seed=SEED)
    drawn = {draw_groups(ranks, group_size=3, seed=bytes([i]) * 32) for i in range(20)}
    assert len(drawn) == 20


def test_every_pair_meets_about_equally_often() -> None:
    """Nine clients in groups of three: each pair meets with probability 1/4."""
    met: Counter[tuple[str, str]] = Counter()
    for i in range(400):
        for group in draw_groups(roster((2, 9)), group_size=3, seed=i.to_bytes(32, "big")):
            a, b, c = group.members
            met.update([(a, b), (a, c), (b, c)])

    assert len(met) == 36
    # 100 expected, standard deviation 8.7.
    assert all(60 < count < 140 for count in met.values())


@pytest.mark.parametrize(
    ("tiers", "g", "seed", "message"),
    [
        (((2, 3), (4, 2)), 3, SEED, "the tier of rank 4 has 2 clients, fewer than group_size=3"),
        (((2, 3),), 0, SEED, "group_size=0"),
        (((2, 3),), 1, SEED[:31], "seed of 31 bytes"),
    ],
)
def test_groups_that_cannot_be_drawn_are_refused(
    tiers: tuple[tuple[int, int], ...], g: int, seed: bytes, message: str
) -> None:
    with pytest.raises(RobustnessError, match=message):
        draw_groups(roster(*tiers), group_size=g, seed=seed)


def test_the_thinnest_band_decides() -> None:
    """Forty clients in four tiers, groups of two: 20 groups, of which 5 hold the highest band."""
    ranks = roster((2, 10), (4, 10), (8, 10), (16, 10))
    groups, bands = draw_groups(ranks, group_size=2, seed=SEED), rank_bands(ranks.values())

    check_groups(groups, bands, f=2, privacy_quorum=2)
    with pytest.raises(RobustnessError) as refused:
        check_groups(groups, bands, f=3, privacy_quorum=2)
    assert str(refused.value) == (
        "groups do not stand against f=3: rows 9-16: 10 holders in 5 groups of up to 2; f=3 attackers can be in 3 of them, "
        "and 2 * 3 < 5 does not hold"
    )
    assert weak_bands(groups, bands[:3], f=4) == ()
    assert len(weak_bands(groups, bands, f=5)) == 2


@PROPERTY
@given(count=st.integers(1, 60), g=st.integers(1, 8), f=st.integers(0, 8))
def test_with_equal_groups_the_count_is_the_inequality_of_the_literature(count: int, g: int, f: int) -> None:
    """F g < n / 2; and with unequal groups nothing that passes with the largest size is refused."""
    equal = draw_groups(roster((2, count * g)), group_size=g, seed=SEED)
    band = rank_bands([2])

    assert (not weak_bands(equal, band, f=f)) == (f * g < count * g / 2)

    unequal = draw_groups(roster((2, count * g + g - 1)), group_size=g, seed=SEED)
    largest = max(len(group.members) for group in unequal)
    if f * largest < (count * g + g - 1) / 2:
        assert weak_bands(unequal, band, f=f) == ()


def test_a_sum_over_too_few_is_refused() -> None:
    ranks = roster((2, 9))
    groups = draw_groups(ranks, group_size=2, seed=SEED)

    with pytest.raises(RobustnessError, match=r"rank-002-group-\d+ has 2 members, privacy_quorum=3 needed"):
        check_groups(groups, rank_bands([2]), f=1, privacy_quorum=3)
    with pytest.raises(RobustnessError, match="f=-1"):
        check_groups(groups, rank_bands([2]), f=-1, privacy_quorum=1)


def test_a_band_without_any_group_is_weak() -> None:
    groups = (Group(name="a", rank=2, members=("x", "y", "z")),)

    assert len(weak_bands(groups, rank_bands([2, 4]), f=0)) == 1


@pytest.mark.parametrize(
    ("holders", "f", "expected"), [(40, 8, 2), (40, 4, 4), (100, 10, 4), (10, 5, 0), (10, 0, 10)]
)
def test_the_largest_group_size(holders: int, f: int, expected: int) -> None:
    assert largest_group_size(holders, f) == expected
    if expected:
        assert 2 * f < holders // expected
    assert 2 * f >= holders // (expected + 1)
