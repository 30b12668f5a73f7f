"""Sums of weights: honest ones always pass, those that pass are some honest clients', and a liar closes only its own bands."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbla_secure.federation.server.weight_claims import refused_claims
from rbla_secure.planning.plan import Plan
from tests.support.federations import make_plan
from tests.support.properties import PROPERTY

LEVELS = 32_767
PLAN = make_plan(weights="examples")
LEAST = round(PLAN.least_weight * LEVELS)
# Holders of the bands 0, 1, 2 from the bottom up: each band's hold the ones below.
HOLDERS = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(
    lambda classes: {i: sum(classes[i:]) for i in range(len(classes))}
)


def claims(
    sums: dict[int, int], holders: dict[int, int], *, plan: Plan = PLAN, value: int = 0
) -> dict[int, str]:
    """What is refused of bands of three values with these sums of weights."""
    vectors = {i: np.array([0, value, 0, claimed, 0], dtype=np.int64) for i, claimed in sums.items()}
    return refused_claims(plan, vectors, holders)


@PROPERTY
@given(holders=HOLDERS, data=st.data())
def test_honest_weights_are_never_refused(holders: dict[int, int], data: st.DataObject) -> None:
    """Whoever survives, whatever they weigh, and whichever of their bands opened."""
    weights = [data.draw(st.integers(LEAST, LEVELS)) for _ in range(holders[0])]
    opened = data.draw(st.sets(st.sampled_from(sorted(holders)), min_size=1))

    sums = {i: sum(weights[: holders[i]]) for i in opened}

    assert claims(sums, {i: holders[i] for i in opened}) == {}


@PROPERTY
@given(holders=HOLDERS, data=st.data())
def test_what_passes_is_the_sum_of_some_weights(holders: dict[int, int], data: st.DataObject) -> None:
    """Whatever is claimed, the bands that stay are explained by weights in range, one for each client."""
    sums = {i: data.draw(st.integers(-LEVELS, LEVELS * (count + 1))) for i, count in holders.items()}

    refused = claims(sums, holders)

    above, claimed_above = 0, 0
    for i in sorted(set(sums) - set(refused), reverse=True):
        clients, difference = holders[i] - above, sums[i] - claimed_above
        # Spread evenly: each of the clients that hold this band and not the one above has a weight in range.
        each, rest = divmod(difference, clients) if clients else (LEAST, difference)
        assert LEAST <= each <= each + bool(rest) <= LEVELS
        above, claimed_above = holders[i], sums[i]


@PROPERTY
@given(holders=HOLDERS, data=st.data())
def test_a_lie_about_weights_stretches_an_average_by_less_than_the_inverse_of_the_least(
    holders: dict[int, int], data: st.DataObject
) -> None:
    """A denominator that passes is between the least weight times the true one and the true one over the least weight."""
    weights = [data.draw(st.integers(LEAST, LEVELS)) for _ in range(holders[0])]
    sums = {i: data.draw(st.integers(-LEVELS, LEVELS * (count + 1))) for i, count in holders.items()}

    for i in set(sums) - set(claims(sums, holders)):
        true = sum(weights[: holders[i]])
        assert LEAST / LEVELS <= sums[i] / true <= LEVELS / LEAST


@pytest.mark.parametrize(
    ("sums", "refused"),
    [
        ((6 * LEVELS, 3 * LEVELS), []),
        ((6 * LEAST, 3 * LEAST), []),
        ((6 * LEAST - 1, 3 * LEAST), [0]),
        ((6 * LEVELS + 1, 3 * LEVELS), [0]),
        ((6 * LEVELS, 3 * LEVELS + 1), [1]),
        ((6 * LEVELS, 3 * LEAST - 1), [1]),
        ((1, 1), [0, 1]),
        ((0, 0), [0, 1]),
        ((-5, -5), [0, 1]),
        # Each is possible alone: together three clients would weigh nothing, or more than three.
        ((3 * LEVELS, 3 * LEVELS), [0]),
        ((3 * LEVELS + 3 * LEAST - 1, 3 * LEVELS), [0]),
        ((3 * LEVELS + 3 * LEAST, 3 * LEVELS), []),
        ((3 * LEVELS + 3 * LEAST + 1, 3 * LEAST), [0]),
    ],
)
def test_exactly_the_impossible_is_refused(sums: tuple[int, int], refused: list[int]) -> None:
    """At either end of each range and one beyond, alone and against the band above."""
    found = claims(dict(enumerate(sums)), {0: 6, 1: 3})

    assert sorted(found) == refused
    assert all("claim a weight of" in reason and "lies" in reason for reason in found.values())


def test_a_client_closes_only_bands_that_it_holds() -> None:
    """Whatever a client of band 0 claims there, band 1 stays open."""
    for claimed in range(-LEVELS, 7 * LEVELS, 997):
        assert 1 not in claims({0: claimed, 1: 2 * LEVELS}, {0: 6, 1: 3})


def test_values_that_so_many_holders_cannot_add_up_to_are_refused() -> None:
    """Padded clients are no holders: the sum of three is within three times the grid, whoever else uploads."""
    sums = {0: 3 * LEVELS}

    assert claims(sums, {0: 3}, value=-3 * LEVELS) == {}
    assert "more than 98301" in claims(sums, {0: 3}, value=-3 * LEVELS - 1)[0]


def test_uniform_weights_are_no_claims() -> None:
    """Nothing is added up, so nothing can be refused."""
    assert refused_claims(make_plan(), {0: np.full(12, 10**9)}, {0: 6}) == {}
