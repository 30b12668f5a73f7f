"""A view is the sum that a party sees: over the holders of each row, with their noise and nobody else's."""

import numpy as np
import pytest

from rbla_secure.errors import DataError
from rbla_secure.evaluation.privacy_attacks.singletons import (
    singleton_probability,
    singleton_rows,
    singletons,
)
from rbla_secure.evaluation.privacy_attacks.views import Noise, random_groups, seen

CHANGES = [np.full((1, 2), 1.0), np.full((2, 2), 10.0), np.full((3, 2), 100.0)]


def test_a_row_is_the_sum_of_its_holders() -> None:
    """Of three clients of ranks 1, 2 and 3; a row nobody holds is zero."""
    np.testing.assert_array_equal(seen(CHANGES, rank=4)[:, 0], [111, 110, 100, 0])


def test_rows_below_the_quorum_are_not_shown() -> None:
    """Nor is their noise."""
    noise = Noise(multiplier=1.0, clip_norm=1.0, ranks=(1, 2, 3))
    generator = np.random.default_rng(0)

    np.testing.assert_array_equal(seen(CHANGES, rank=3, quorum=2)[:, 0], [111, 110, 0])
    assert not seen(CHANGES, rank=3, quorum=2, noise=noise, generator=generator)[2].any()


def test_shares_of_noise_add_up_to_the_target() -> None:
    """Over the whole cohort z C on every row; over a group as many shares as it has holders."""
    noise = Noise(multiplier=2.0, clip_norm=0.5, ranks=(1, 2, 3))
    generator = np.random.default_rng(0)
    zeros = [np.zeros((rank, 20_000)) for rank in (1, 2, 3)]

    whole = seen(zeros, rank=3, noise=noise, generator=generator).std(axis=1)
    part = seen(zeros[1:], rank=3, noise=noise, generator=generator).std(axis=1)

    np.testing.assert_allclose(whole, 1.0, rtol=0.03)
    np.testing.assert_allclose(part, [np.sqrt(2 / 3), 1.0, 1.0], rtol=0.03)
    with pytest.raises(DataError, match="generator"):
        seen(zeros, rank=3, noise=noise)


def test_groups_cover_everybody_once() -> None:
    """At least as large as asked; zero asks for one group of all."""
    generator = np.random.default_rng(0)
    groups = random_groups(40, 3, generator)

    assert sorted(np.concatenate(groups).tolist()) == list(range(40))
    assert sorted({len(group) for group in groups}) == [3, 4]
    assert [len(group) for group in random_groups(40, 0, generator)] == [40]
    with pytest.raises(DataError, match="one group of 5"):
        random_groups(4, 5, generator)


@pytest.mark.parametrize(("group", "expected"), [(1, 1.0), (2, 30 / 39), (40, 0.0)])
def test_the_chance_of_singleton_rows(group: int, expected: float) -> None:
    """Two clients of four tiers of ten differ in rank unless the second is one of nine of 39."""
    assert singleton_probability([2, 4, 8, 16] * 10, group) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("group", "published"), [(2, 0.75), (3, 0.66), (4, 0.56), (5, 0.48), (10, 0.20), (20, 0.03)]
)
def test_many_clients_of_four_ranks_come_near_draws_with_replacement(group: int, published: float) -> None:
    """They are g sum_j (1/4) ((j - 1) / 4)^(g - 1): from .75 in groups of two down to .01 to .03 in groups of twenty."""
    law = group / 4 * sum((j / 4) ** (group - 1) for j in range(4))

    assert singleton_probability([2, 4, 8, 16] * 5000, group) == pytest.approx(law, abs=0.001)
    assert law == pytest.approx(published, abs=0.015)


def test_singleton_rows_by_hand() -> None:
    """Rank 16 beside rank 4 shows twelve rows alone; two of the largest rank show none, and a quorum nothing."""
    assert singleton_rows([4, 16, 2]) == 12
    assert singleton_rows([16, 16, 2]) == 0
    assert singleton_rows([8]) == 8
    assert singleton_rows([4, 16], quorum=3) == 0


def test_singletons_of_drawn_groups() -> None:
    """Half of these groups show rows, three quarters of the holder's own."""
    ranks = np.array([4, 16, 16])
    groups = [np.array([0, 1]), np.array([1, 2])]

    found = singletons(ranks, groups, seed=0)

    assert (found.groups.value, found.groups.count) == (0.5, 2)
    assert found.rows_read is not None
    assert found.rows_read.value == 0.75
    shut = singletons(ranks, groups, quorum=3, seed=0)
    assert (shut.groups.value, shut.rows_read) == (0.0, None)
    with pytest.raises(DataError, match="group=4"):
        singleton_probability([2, 4, 8], 4)
