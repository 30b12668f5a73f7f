"""Attacks by the sent change: formulas of the literature, row by row where ranks differ.

A *population* is the changes that an attacker measures, of unequal rank, each of shape (rank of its client,
row_length). The mean and deviation of row s are over its holders, as in the average that is attacked. Distances are
over the rows that both sides hold.

    sign flip    - x
    Gaussian     N(0, std^2)                                  Blanchard et al. 2017, arXiv 1703.02757
    IPM          - eps * mean                                 Xie et al. 2019, arXiv 1903.03936
    ALIE         mean - z * deviation                         Baruch et al. 2019, arXiv 1902.06156
    mimic        the change that deviates most, copied        Karimireddy et al. 2022, arXiv 2006.09365
    min-max      mean - gamma * deviation, gamma as large     Shejwalkar and Houmansadr 2021, NDSS
                 as the largest honest distance lets it
    scaling      (n / f) * x                                  Bagdasaryan et al. 2020, arXiv 1807.00459
    free rider   the last global step, and a little noise     Fraboni et al. 2021, arXiv 2006.11901

All arrays are float64. None of them is bounded here: clients clip what they send.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

from rbla_secure.errors import UpdateError
from rbla_secure.lora.update import UpdateRows, l2_norm

Population = Sequence[UpdateRows]

# Bisection ends when the interval has shrunk by 2^-40: far below what anything downstream can see.
_HALVINGS = 40
_LARGEST_GAMMA = 1e3


def row_mean(population: Population, rank: int) -> UpdateRows:
    """Return the mean of each of the first `rank` rows over those who hold it.

    Raises:
        UpdateError: Nobody holds one of the rows.
    """
    return np.stack([np.mean(_holders(population, row), axis=0) for row in range(rank)])


def row_deviation(population: Population, rank: int) -> UpdateRows:
    """Return the standard deviation, by coordinate, of each of the first `rank` rows over those who hold it.

    It divides by their number, not by one less, as the reference code of ALIE does: one holder deviates by zero.

    Raises:
        UpdateError: Nobody holds one of the rows.
    """
    return np.stack([np.std(_holders(population, row), axis=0) for row in range(rank)])


def sign_flip(change: UpdateRows) -> UpdateRows:
    """Return the negated honest change."""
    return -change


def gaussian(shape: tuple[int, int], *, std: float, seed: int) -> UpdateRows:
    """Return Gaussian noise with this standard deviation as a change."""
    return std * np.random.default_rng(seed).standard_normal(shape)


def inner_product(population: Population, rank: int, *, epsilon: float) -> UpdateRows:
    """Return -epsilon times the mean: the sum reverses where f * epsilon exceeds n - f (IPM)."""
    return -epsilon * row_mean(population, rank)


def little_is_enough_z(clients: int, attackers: int) -> float:
    """Return how many deviations ALIE may shift: the largest z with Phi(z) <= (n - f - s) / (n - f).

    s = floor(n / 2 + 1) - f is the number of honest clients that must be farther out than the attackers, so that these
    look like the middle of a majority. Zero where the formula would give a negative shift.

    Raises:
        UpdateError: There are no attackers, or at least half of all are: these need no such formula.
    """
    _check_minority(clients, attackers)
    supporters = clients // 2 + 1 - attackers
    honest = clients - attackers
    return max(0.0, NormalDist().inv_cdf((honest - supporters) / honest))


def little_is_enough(population: Population, rank: int, *, z: float) -> UpdateRows:
    """Return the mean minus z deviations, so little in every coordinate that honest clients are farther out (ALIE)."""
    return row_mean(population, rank) - z * row_deviation(population, rank)


def mimic(change: UpdateRows, population: Population) -> UpdateRows:
    """Return a copy of the change that deviates most from the mean: honest, but with too much influence.

    The deviation is the mean square by row, so that rank alone does not decide. Rows that the copied client does not
    hold are the attacker's own.
    """

    def deviation(other: UpdateRows) -> float:
        return float(np.mean(np.square(other - row_mean(population, len(other)))))

    copied = max(population, key=deviation)[: len(change)]
    return np.concatenate([copied, change[len(copied) :]])


def min_max(population: Population, rank: int) -> UpdateRows:
    """Return the mean minus gamma deviations, within honest distances (the paper's "inverse standard deviation").

    gamma is the largest such that no member of the population is farther from the crafted change than the two members
    farthest apart are from each other. Without any deviation the result is the mean.
    """
    known = [change[:rank] for change in population]
    limit = max((_distance(a, b) for i, a in enumerate(known) for b in known[:i]), default=0.0)
    mean, deviation = row_mean(population, rank), row_deviation(population, rank)

    def fits(gamma: float) -> bool:
        return max(_distance(mean - gamma * deviation, change) for change in known) <= limit

    # Not beyond a bound either: members of one row alone may hide all deviation from every distance.
    return mean - largest(fits, upper=_LARGEST_GAMMA) * deviation


def scaled(change: UpdateRows, *, clients: int, attackers: int) -> UpdateRows:
    """Return the change scaled so that the mean over all is what the attackers want (model replacement).

    Raises:
        UpdateError: There are no attackers, or at least half of all are.
    """
    _check_minority(clients, attackers)
    return clients / attackers * change


def free_ride(step: UpdateRows, *, noise: float, seed: int) -> UpdateRows:
    """Return the last global step plus noise of `noise` times its root mean square; zero if there was no step."""
    size = math.sqrt(float(np.mean(np.square(step))))
    return step + noise * size * np.random.default_rng(seed).standard_normal(step.shape)


def filled(change: UpdateRows, norm: float) -> UpdateRows:
    """Return the change scaled to this L2 norm, the most that the clip allows. A zero change stays zero."""
    length = l2_norm(change)
    return change * (norm / length) if length else change.copy()


def largest(fits: Callable[[float], bool], *, upper: float, halvings: int = _HALVINGS) -> float:
    """Return the largest value in [0, upper] that fits, by bisection; those that fit must be an interval from 0."""
    if fits(upper):
        return upper
    low, high = 0.0, upper
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _holders(population: Population, row: int) -> list[UpdateRows]:
    holders = [change[row] for change in population if len(change) > row]
    if not holders:
        raise UpdateError(f"row {row + 1} is held by none of {len(population)} changes")
    return holders


def _distance(one: UpdateRows, other: UpdateRows) -> float:
    shared = min(len(one), len(other))
    return l2_norm(one[:shared] - other[:shared])


def _check_minority(clients: int, attackers: int) -> None:
    if not 0 < attackers < clients / 2:
        raise UpdateError(
            f"attackers={attackers} must be at least 1 and fewer than half of {clients} clients"
        )
