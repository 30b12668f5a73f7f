"""Noise that cancels over rounds: sensitivity over all patterns of participation, law, and what ends a matrix."""

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from protocols.primitives.prg import UniformStream
from rbla_secure.errors import PrivacyError
from rbla_secure.privacy.accounting import epsilon
from rbla_secure.privacy.noise import Release
from rbla_secure.privacy.noise.banded_matrix import (
    UNIT,
    MatrixNoise,
    banded_root,
    column_norm,
    inverse,
    noise_left,
    step_growth,
)
from tests.support.noise_law import has_std, tells_wrong_scales

ROUNDS, APART = 9, 3
COLUMN = banded_root(APART)
STD = 400.0
COUNT = 40_000
Real = npt.NDArray[np.float64]


def matrix(column: tuple[int, ...], rounds: int = ROUNDS) -> Real:
    """C, written down entry by entry."""
    found = np.zeros((rounds, rounds))
    for row, column_at in itertools.product(range(rounds), repeat=2):
        if 0 <= row - column_at < len(column):
            found[row, column_at] = column[row - column_at]
    return found


def patterns(apart: int, rounds: int = ROUNDS) -> list[tuple[int, ...]]:
    """Every set of rounds of one client that are so far apart."""
    return [
        chosen
        for size in range(1, rounds + 1)
        for chosen in itertools.combinations(range(rounds), size)
        if all(later - earlier >= apart for earlier, later in itertools.pairwise(chosen))
    ]


def worst(column: tuple[int, ...], apart: int) -> float:
    """Squared length of C X over k |a|^2, at its largest: over all patterns, and all signs of contributions of length 1."""
    combining, found = matrix(column), 0.0
    for chosen in patterns(apart):
        for signs in itertools.product((1, -1), repeat=len(chosen)):
            moved = combining[:, list(chosen)] @ np.array(signs)
            found = max(found, float(moved @ moved) / (len(chosen) * column_norm(column) ** 2))
    return found


def test_k_participations_move_the_sums_by_sqrt_k_columns_and_no_further() -> None:
    """Whatever rounds, as long as they are apart: never more than is accounted for, and that much is reached."""
    assert len(patterns(APART)) == 40
    assert worst(COLUMN, APART) == pytest.approx(1.0, rel=1e-12)


def test_a_band_wider_than_rounds_are_apart_is_not_covered() -> None:
    """With h = b + 2 columns of one client meet, and add up to more than is accounted for."""
    assert worst(banded_root(APART + 2), APART) > 1.2


def play(
    column: tuple[int, ...] = COLUMN,
    *,
    rounds: int = ROUNDS,
    sums: Any = lambda _: np.zeros(COUNT, dtype=np.int64),
    std: float = STD,
    seed: int = 0,
) -> Real:
    """Shape (rounds, values): what is published of sums, at noise of this spread on their combinations."""
    noise = MatrixNoise(column)
    return np.array(
        [
            noise.add(
                {0: sums(number)},
                {0: std},
                UniformStream(seed.to_bytes(8, "big") + number.to_bytes(8, "big")),
                round_number=number,
                clients=[f"c{number % len(column)}"],
            )[0]
            for number in range(1, rounds + 1)
        ]
    )


def test_the_noise_has_the_law_of_the_solved_matrix() -> None:
    """The covariance of the noise summed over rounds, of which an adapter is made, is that of A C^-1 g in every entry."""
    summed = np.cumsum(play(), axis=0)

    solved = np.tril(np.ones((ROUNDS, ROUNDS))) @ np.linalg.inv(matrix(COLUMN))
    claimed = STD**2 * solved @ solved.T
    found = summed @ summed.T / COUNT
    spread = np.sqrt(np.outer(np.diag(claimed), np.diag(claimed)) + claimed**2) / math.sqrt(COUNT)
    assert (np.abs(found - claimed) < 6 * spread).all()
    independent = STD**2 / UNIT**2 * np.minimum.outer(np.arange(1, ROUNDS + 1), np.arange(1, ROUNDS + 1))
    assert (np.abs(found - independent) > 6 * spread).any()


def test_the_law_tells_a_forgotten_column_norm() -> None:
    """In every round: the spread that is claimed is accepted, that of noise for one entry instead of a column is not."""
    for number, values in enumerate(play(std=STD * column_norm(COLUMN))):
        growth = math.sqrt(float(np.square(inverse(COLUMN, number + 1)).sum()))
        assert tells_wrong_scales(values.size)
        assert has_std(values, STD * column_norm(COLUMN) * growth)
        assert not has_std(values, STD * UNIT * growth)


def test_what_is_published_is_the_sums_and_noise_that_looks_at_no_sum() -> None:
    """The same randomness beside other sums gives the same noise, to what float64 rounds: sums come back as they were."""

    def of_round(number: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng(number).integers(-(10**8), 10**8, COUNT)

    noisy, alone = play(sums=of_round), play()

    sums = np.array([of_round(number) for number in range(1, ROUNDS + 1)])
    np.testing.assert_allclose(noisy - alone, sums, rtol=0, atol=1e-6)


def test_what_is_released_is_made_of_integers() -> None:
    """Solved again, what is published are integers: the combination of the sums and discrete noise, no float before it."""
    published = play(sums=lambda number: np.full(COUNT, 7 * number, dtype=np.int64))

    released = matrix(COLUMN) @ published

    np.testing.assert_allclose(released, np.rint(released), rtol=0, atol=1e-6)


def add(noise: MatrixNoise, number: int, bands: tuple[int, ...] = (0, 1), client: str = "") -> Any:
    """A round of zeros from randomness of its own."""
    return noise.add(
        {index: np.zeros(50, dtype=np.int64) for index in bands},
        dict.fromkeys(bands, STD),
        UniformStream(number.to_bytes(16, "big")),
        round_number=number,
        clients=[client or f"c{number % APART}"],
    )


def test_a_closed_band_and_a_skipped_round_begin_a_new_matrix() -> None:
    """The next sum of the band is noised like a first one, to the bit; a band that stayed open goes on."""
    noise = MatrixNoise(COLUMN)
    add(noise, 1)
    add(noise, 2, (0,))
    went_on, begun = add(noise, 3, (0,))[0], MatrixNoise(COLUMN)

    assert not np.array_equal(went_on, add(begun, 3, (0,))[0])
    after_closing = MatrixNoise(COLUMN)
    add(after_closing, 1, (1, 0))
    add(after_closing, 2, (1,))
    assert np.array_equal(add(after_closing, 3, (0,))[0], went_on_alone(3))
    after_a_gap = MatrixNoise(COLUMN)
    add(after_a_gap, 1, (0,))
    assert np.array_equal(add(after_a_gap, 3, (0,))[0], went_on_alone(3))


def went_on_alone(number: int) -> Real:
    found: Real = add(MatrixNoise(COLUMN), number, (0,))[0]
    return found


@pytest.mark.parametrize(("number", "client"), [(3, "c1"), (3, "c2"), (2, "c9"), (1, "c9")])
def test_a_client_too_early_and_rounds_that_go_back_are_refused(number: int, client: str) -> None:
    """Before anything of it is released: the state is as it was."""
    noise, other = MatrixNoise(COLUMN), MatrixNoise(COLUMN)
    for each in (noise, other):
        add(each, 1)
        add(each, 2)

    with pytest.raises(PrivacyError, match=r"takes part in round|must come after"):
        add(noise, number, client=client)

    found, expected = add(noise, 3), add(other, 3)
    assert all(np.array_equal(found[index], expected[index]) for index in (0, 1))


@pytest.mark.parametrize(("rounds", "width"), [(1, 1), (9, 3), (30, 3), (100, 10), (40, 40)])
def test_figures_of_the_noise_are_those_of_the_matrices(rounds: int, width: int) -> None:
    """Growth of a round and what is left over rounds, against inverses that numpy finds."""
    column = banded_root(width)
    solved = np.linalg.inv(matrix(column, rounds))
    summed = np.tril(np.ones((rounds, rounds))) @ solved
    per_round = np.sqrt(np.square(solved).sum(axis=1)) * column[0]
    left = math.sqrt(float(np.square(summed).sum())) * column_norm(column)

    assert step_growth(column, rounds) == pytest.approx(float(per_round.max()), rel=1e-9)
    assert noise_left(column, rounds) == pytest.approx(left / math.sqrt(rounds * (rounds + 1) / 2), rel=1e-9)


@pytest.mark.parametrize(("rounds", "width"), [(30, 3), (30, 10), (100, 10), (100, 33), (500, 100)])
def test_sixteenths_cost_little_of_the_exact_root(rounds: int, width: int) -> None:
    """Never more than three hundredths of the noise that is left."""
    exact = [1.0]
    while len(exact) < width:
        exact.append(exact[-1] * (2 * len(exact) - 1) / (2 * len(exact)))
    column = banded_root(width)

    assert list(column) == sorted(column, reverse=True)
    assert noise_left(column, rounds) < 1.03 * noise_left(tuple(exact), rounds)  # type: ignore[arg-type]


@pytest.mark.parametrize(("rounds", "apart", "spent"), [(30, 3, 2.951), (100, 10, 1.780)])
def test_epsilon_at_equal_noise_in_the_adapter(rounds: int, apart: int, spent: float) -> None:
    """Independent noise of epsilon 4.65 leaves as much as noise that cancels does at so much less."""
    low, high = 0.1, 10.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        over = epsilon([Release(noise_multiplier=middle, slack=0.0, rho=math.nan)], 1e-5) > 4.65
        low, high = (middle, high) if over else (low, middle)

    multiplier = high / noise_left(banded_root(apart), rounds)

    found = epsilon([Release(noise_multiplier=multiplier, slack=0.0, rho=math.nan)], 1e-5)
    assert found == pytest.approx(spent, abs=1e-3)


def test_a_matrix_without_width_is_refused() -> None:
    """It would release nothing."""
    with pytest.raises(PrivacyError, match="width=0"):
        banded_root(0)
