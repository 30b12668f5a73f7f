"""Every formula against values worked out by hand."""

import math

import numpy as np
import pytest

from rbla_secure.errors import UpdateError
from rbla_secure.evaluation.poisoning import crafted
from rbla_secure.lora.update import ClientUpdate
from rbla_secure.privacy.clipping import clip

# Three changes of ranks 2, 1 and 2, rows of two values. Row 2 has two holders.
POPULATION = [
    np.array([[1.0, 2.0], [4.0, 0.0]]),
    np.array([[3.0, 2.0]]),
    np.array([[5.0, 5.0], [0.0, 0.0]]),
]
MEAN = np.array([[3.0, 3.0], [2.0, 0.0]])
# Row 1: deviations -2, 0, 2 and -1, -1, 2. Row 2: 2, -2 and 0, 0.
DEVIATION = np.array([[math.sqrt(8 / 3), math.sqrt(2)], [2.0, 0.0]])


def test_statistics_of_a_row_are_its_holders() -> None:
    """A client that lacks a row counts as absent there, never as zero."""
    np.testing.assert_allclose(crafted.row_mean(POPULATION, 2), MEAN)
    np.testing.assert_allclose(crafted.row_deviation(POPULATION, 2), DEVIATION)
    with pytest.raises(UpdateError, match="row 3 is held by none of 3"):
        crafted.row_mean(POPULATION, 3)


def test_sign_flip_and_inner_product() -> None:
    """Minus one's own change; minus epsilon times the mean."""
    np.testing.assert_array_equal(crafted.sign_flip(POPULATION[1]), [[-3.0, -2.0]])
    np.testing.assert_allclose(crafted.inner_product(POPULATION, 2, epsilon=0.5), -0.5 * MEAN)


@pytest.mark.parametrize(
    ("clients", "attackers", "quantile"),
    [(50, 12, 24 / 38), (40, 8, 19 / 32), (5, 1, 2 / 4)],
)
def test_the_shift_of_alie_follows_n_and_f(clients: int, attackers: int, quantile: float) -> None:
    """The paper's example: n = 50 and f = 12 need s = 14 supporters, so Phi(z) = 24 / 38."""
    z = crafted.little_is_enough_z(clients, attackers)

    assert 0.5 * (1 + math.erf(z / math.sqrt(2))) == pytest.approx(quantile)


def test_alie_shifts_by_deviations() -> None:
    """Coordinates on which all agree stay."""
    crafted_rows = crafted.little_is_enough(POPULATION, 2, z=1.5)

    np.testing.assert_allclose(crafted_rows, MEAN - 1.5 * DEVIATION)
    assert crafted_rows[1, 1] == 0.0
    np.testing.assert_allclose(crafted.little_is_enough(POPULATION, 1, z=1.0), (MEAN - DEVIATION)[:1])


def test_mimic_copies_the_most_deviating() -> None:
    """Mean squares by row: (4+1+4+0)/4 = 2.25, (0+1)/2 = 0.5, (4+4+4+0)/4 = 3: the third is copied."""
    own = np.array([[9.0, 9.0], [8.0, 8.0], [7.0, 7.0]])

    copied = crafted.mimic(own, POPULATION)

    np.testing.assert_array_equal(copied, [[5.0, 5.0], [0.0, 0.0], [7.0, 7.0]])
    np.testing.assert_array_equal(crafted.mimic(own[:1], POPULATION), [[5.0, 5.0]])


def test_min_max_is_as_far_as_the_farthest_pair() -> None:
    """0 and 2 in one dimension: mean 1, deviation 1, so from 1 - gamma to 2 it is 1 + gamma = 2."""
    found = crafted.min_max([np.array([[0.0]]), np.array([[2.0]])], 1)

    np.testing.assert_allclose(found, [[0.0]], atol=1e-9)


def test_min_max_reaches_the_largest_honest_distance() -> None:
    """In many dimensions too, and of changes of unequal rank."""
    generator = np.random.default_rng(0)
    population = [generator.standard_normal((rank, 30)) for rank in (4, 4, 2, 4)]

    found = crafted.min_max(population, 4)

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        rows = min(len(a), len(b))
        return float(np.linalg.norm(a[:rows] - b[:rows]))

    limit = max(distance(a, b) for a in population for b in population)
    assert max(distance(found, change) for change in population) == pytest.approx(limit, rel=1e-9)


def test_a_population_of_one_leaves_no_room() -> None:
    """Without deviation ALIE and min-max send what the only member would have sent."""
    alone = [np.array([[1.0, -2.0]])]

    np.testing.assert_array_equal(crafted.min_max(alone, 1), alone[0])
    np.testing.assert_array_equal(crafted.little_is_enough(alone, 1, z=2.0), alone[0])


def test_model_replacement_dies_at_the_clip() -> None:
    """Longer by n / f, and after the client's clip as long as any other update."""
    change = np.array([[0.3, 0.4]])

    long = crafted.scaled(change, clients=12, attackers=3)

    np.testing.assert_allclose(long, 4 * change)
    sent = clip(ClientUpdate(rows=long, weight=1.0), clip_norm=0.5).rows
    np.testing.assert_allclose(sent, change)


def test_a_free_rider_repeats_the_last_step() -> None:
    """With noise in proportion to it; without a step it sends zeros."""
    step = np.random.default_rng(0).standard_normal((8, 500))

    sent = crafted.free_ride(step, noise=0.1, seed=3)

    assert np.std(sent - step) == pytest.approx(0.1 * np.sqrt(np.mean(step**2)), rel=0.05)
    assert not crafted.free_ride(np.zeros((2, 3)), noise=0.1, seed=3).any()


def test_gaussian_noise_has_its_deviation() -> None:
    """And follows its seed."""
    noise = crafted.gaussian((10, 1000), std=3.0, seed=1)

    assert noise.std() == pytest.approx(3.0, rel=0.05)
    np.testing.assert_array_equal(noise, crafted.gaussian((10, 1000), std=3.0, seed=1))


def test_filled_is_at_the_norm_exactly() -> None:
    """Longer or shorter; a zero change has no direction to fill."""
    np.testing.assert_allclose(crafted.filled(np.array([[3.0, 4.0]]), 1.0), [[0.6, 0.8]])
    np.testing.assert_allclose(crafted.filled(np.array([[0.03, 0.04]]), 1.0), [[0.6, 0.8]])
    assert not crafted.filled(np.zeros((1, 2)), 1.0).any()


@pytest.mark.parametrize("attackers", [0, 6, 12])
def test_formulas_with_n_and_f_need_a_minority(attackers: int) -> None:
    """Half of all clients need no formula."""
    with pytest.raises(UpdateError, match=f"attackers={attackers}"):
        crafted.little_is_enough_z(12, attackers)
    with pytest.raises(UpdateError, match=f"attackers={attackers}"):
        crafted.scaled(np.ones((1, 1)), clients=12, attackers=attackers)
