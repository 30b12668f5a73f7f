"""Scores inside a rank tier: what they are for, and what happens in tiers too small to have a spread."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbla_secure.config.choices import FilterName
from rbla_secure.robustness import scores
from rbla_secure.robustness.registry import build
from rbla_secure.robustness.tiers import judged_together, pooled_spread, tier_scores
from tests.support.filtered import draw
from tests.support.properties import PROPERTY

RANKS = np.repeat([2, 4, 8, 16], 10)
F = 8
ROUNDS = 100


def rates(rejected: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """The share of a tier's clients that are rejected, over all rounds, shape (4,)."""
    return np.array([rejected[:, ranks == rank].mean() for rank in (2, 4, 8, 16)])


def rejected_by(name: FilterName, ranks: np.ndarray, *, f: int = F) -> np.ndarray:
    """Shape (rounds, clients): an attacker-free federation whose honest clients differ, round after round."""
    chosen = build(name, f=f, privacy_quorum=1)
    found = []
    for number in range(ROUNDS):
        before = {
            i: b.values.mean(axis=0) for i, b in draw(ranks.tolist(), 2 * number, signal=0.3).bands.items()
        }
        answer = chosen.apply(draw(ranks.tolist(), 2 * number + 1, signal=0.3), previous=before, seed=number)
        found.append([not verdict.accepted for verdict in answer.verdicts.values()])
    return np.array(found)


@pytest.mark.parametrize(
    "name",
    [
        FilterName.MULTI_KRUM,
        FilterName.DIVIDE_AND_CONQUER,
        FilterName.COSINE_TO_PREVIOUS,
        FilterName.TIER_DNC_COSINE,
    ],
)
def test_without_attackers_no_tier_is_rejected_much_more_than_another(name: FilterName) -> None:
    found = rates(rejected_by(name, RANKS), RANKS)

    assert found.mean() == pytest.approx(F / len(RANKS))
    assert found.max() <= 1.5 * found.min()


@pytest.mark.parametrize("name", [FilterName.DIVIDE_AND_CONQUER, FilterName.TIER_DNC_COSINE])
def test_nor_is_a_small_tier(name: FilterName) -> None:
    """The highest band opens with exactly its quorum of 2f + 1 = 17 holders; the lower tiers have 5, 8 and 10."""
    ranks = np.repeat([2, 4, 8, 16], [5, 8, 10, 17])

    found = rates(rejected_by(name, ranks), ranks)

    assert found.max() <= 1.5 * found.min()


def test_nor_are_small_tiers_by_a_score_whose_spread_follows_from_the_rank() -> None:
    """The cosine over fewer rows spreads more: in units of its own, six clients of rank 2 are rejected like twenty of rank 16."""
    ranks = np.repeat([2, 4, 8, 16], [6, 6, 8, 20])

    found = rates(rejected_by(FilterName.COSINE_TO_PREVIOUS, ranks, f=3), ranks)

    assert found.max() <= 1.5 * found.min()


def test_scores_of_unequal_ranks_that_are_not_normalized_reject_one_tier() -> None:
    """What the tiers are there for: the highest rank holds more rows, so all its scores are larger."""
    found = []
    for number in range(ROUNDS):
        updates = draw(RANKS.tolist(), number, signal=0.3)
        raw = scores.spectral(updates, updates.bands, seed=number)
        found.append(np.isin(np.arange(len(RANKS)), np.argsort(raw)[-F:]))

    of_tiers = rates(np.array(found), RANKS)

    assert of_tiers[3] > 10 * max(of_tiers[0], 1e-3)


def test_z_is_the_deviation_from_the_tiers_median_in_units_of_its_spread() -> None:
    """Two tiers whose MAD of 2 is above the pooled spread of 1.25: only their own medians and spreads count."""
    ranks = np.array([2, 2, 2, 2, 2, 4, 4, 4, 4, 4])
    raw = np.array([1.0, 1, 3, 5, 5, 101, 101, 103, 105, 123])
    found = tier_scores(raw, ranks)

    assert pooled_spread(raw, np.ones(10), judged_together(ranks)) == pytest.approx(3)
    assert found * 1.4826 * 3 == pytest.approx([-2, -2, 0, 2, 2, -2, -2, 0, 2, 20])


def test_a_tier_of_equal_scores_takes_the_spread_of_all() -> None:
    """From the medians of the others: 0 0 0 3 and 2.5 1.5 0 1.5 2.5, of which the middle one is 1.5."""
    ranks = np.array([2, 2, 2, 2, 4, 4, 4, 4, 4])
    found = tier_scores(np.array([5.0, 5, 5, 8, 10, 11, 12, 13, 14]), ranks) * 1.4826

    assert found == pytest.approx(np.array([0, 0, 0, 3, -2, -1, 0, 1, 2]) / 1.5)


def test_a_tier_with_a_smaller_spread_than_all_takes_that_of_all() -> None:
    """However near two of three are to each other, the third is measured by what clients differ by elsewhere."""
    ranks = np.array([2, 2, 2, 4, 4, 4, 4])
    others = [0.8, 1.0, 1.2, 1.4]
    found = [
        tier_scores(np.array([1.0, 1.0 + near, 1.05, *others]), ranks)[2]
        for near in (0.0, 1e-15, 1e-12, 1e-6, 1e-3)
    ]

    assert max(found) < 0.3
    assert max(found) - min(found) < 0.01


def test_units_are_those_of_deviations_and_not_of_the_median() -> None:
    """The same scores in units of two: half of every deviation where all share them, and of one client's where it alone has."""
    ranks = np.full(5, 2)
    raw = np.array([1.0, 2, 3, 4, 9])

    together = tier_scores(raw, ranks, units=np.full(5, 2.0))
    alone = tier_scores(raw, ranks, units=np.array([1, 1, 1, 1, 2.0]))

    assert together == pytest.approx(tier_scores(raw, ranks))
    assert alone[4] / alone[3] == pytest.approx(3)


@PROPERTY
@given(seed=st.integers(0, 2**32 - 1), attackers=st.integers(0, 5), size=st.floats(-1e300, 1e300))
def test_attackers_move_the_pooled_spread_by_places_and_not_by_sizes(
    seed: int, attackers: int, size: float
) -> None:
    """One tier of sixteen, any of whose scores are made up: as far as f changed scores can move two medians, one in the other."""
    generator = np.random.default_rng(seed)
    honest = generator.normal(size=16)
    group = [np.arange(16)]
    moved = np.concatenate([honest[attackers:], np.full(attackers, size)])
    ordered = np.sort(honest[attackers:])
    widest = ordered[-1] - ordered[0]

    assert pooled_spread(moved, np.ones(16), group) <= widest
    assert attackers > 5 or pooled_spread(moved, np.ones(16), group) > 0


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ([2, 2, 2, 4, 4, 4], [[0, 1, 2], [3, 4, 5]]),
        ([2, 2, 2, 4], [[0, 1, 2, 3]]),
        ([2, 4, 4, 4], [[0, 1, 2, 3]]),
        ([8, 2, 2, 2, 4, 4, 4, 8], [[1, 2, 3], [0, 4, 5, 6, 7]]),
        ([2], [[0]]),
        ([2, 4], [[0, 1]]),
    ],
)
def test_small_tiers_are_judged_with_their_neighbors(ranks: list[int], expected: list[list[int]]) -> None:
    assert [group.tolist() for group in judged_together(np.array(ranks))] == expected


def test_an_attacker_alone_in_its_tier_is_noticed() -> None:
    """Alone it would be its own median."""
    found = tier_scores(np.array([1.0, 2.0, 3.0, 4.0, 100.0]), np.array([2, 2, 2, 2, 4]))

    assert found[4] > 10
    assert np.argmax(found) == 4


@pytest.mark.parametrize("score", [0.0, 1.0, 1e300, np.inf])
def test_equal_scores_are_zero_and_not_nan(score: float) -> None:
    assert tier_scores(np.full(6, score), np.array([2, 2, 2, 4, 4, 4])).tolist() == [0.0] * 6


def test_rounding_of_equal_scores_is_no_deviation_and_a_visible_one_is() -> None:
    found = tier_scores(np.array([1.0, 1.0, 1.0, 1.0 + 1e-15, 1.5]), np.full(5, 2))

    assert found[3] < 1e-3
    assert found[4] > 1e6


def test_an_endless_score_hides_no_other() -> None:
    """The least spread follows from the median of scores, not from the largest, which an attacker can make up."""
    equal = [1.0] * 6
    found = tier_scores(np.array([*equal, 1.5, 1e300]), np.full(8, 2))

    assert found[6] > 1e6
    assert (found[:6] == 0).all()


def test_infinite_scores_come_last() -> None:
    found = tier_scores(np.array([1.0, 2.0, 3.0, 4.0, np.inf]), np.full(5, 2))

    assert np.isfinite(found).all()
    assert np.argmax(found) == 4


@PROPERTY
@given(seed=st.integers(0, 2**32 - 1), shift=st.floats(-1e3, 1e3), scale=st.floats(1e-3, 1e3))
def test_units_and_offsets_of_a_score_do_not_matter(seed: int, shift: float, scale: float) -> None:
    generator = np.random.default_rng(seed)
    ranks = np.sort(generator.choice([2, 4, 8], size=15))
    raw = generator.normal(size=15)

    assert tier_scores(scale * raw + shift, ranks) == pytest.approx(
        tier_scores(raw, ranks), rel=1e-6, abs=1e-6
    )
