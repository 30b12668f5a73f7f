"""The filter of sampled steps: an upper bound on what steps of fixed settings spend, and that of its order by hand."""

import math

import pytest

from rbla_secure.errors import PrivacyError
from rbla_secure.privacy.accounting import SampledSteps, epsilon_of_steps
from rbla_secure.privacy.renyi_filter import ORDERS, filtered_epsilon, order_for

DELTA = 1e-5


def steps(count: int, *, noise: float = 1.0, rate: float = 0.05) -> SampledSteps:
    return SampledSteps(noise_multiplier=noise, sample_rate=rate, steps=count)


def by_hand(divergence: float, order: int) -> float:
    """From an order's divergence to epsilon (Canonne, Kamath, Steinke 2020, arXiv 2004.00010, Proposition 12)."""
    return divergence + math.log1p(-1 / order) - math.log(DELTA * order) / (order - 1)


def of_one_step(noise: float, rate: float, order: int) -> float:
    """The divergence of a Poisson-sampled Gaussian of a whole order (Mironov, Talwar, Zhang 2019, section 3.3)."""
    total = sum(
        math.comb(order, k)
        * (1 - rate) ** (order - k)
        * rate**k
        * math.exp((k * k - k) / (2 * noise * noise))
        for k in range(order + 1)
    )
    return math.log(total) / (order - 1)


@pytest.mark.parametrize("order", [2, 3, 5, 8])
def test_divergences_of_different_steps_add_up(order: int) -> None:
    """Over two settings, each by its own formula."""
    history = [steps(200), steps(40, noise=2.0, rate=0.3), steps(100)]
    total = 300 * of_one_step(1.0, 0.05, order) + 40 * of_one_step(2.0, 0.3, order)

    assert filtered_epsilon(history, DELTA, order=order) == pytest.approx(by_hand(total, order), rel=1e-9)


@pytest.mark.parametrize(("noise", "rate", "count"), [(1.0, 0.05, 1000), (1.0, 0.1, 100), (2.0, 0.05, 3000)])
def test_it_is_above_what_fixed_settings_spend_and_not_by_much(noise: float, rate: float, count: int) -> None:
    """By an eighth or so, with the order that is taken for a limit near the figure."""
    part = steps(count, noise=noise, rate=rate)
    fixed = epsilon_of_steps([part], DELTA)

    found = filtered_epsilon([part], DELTA, order=order_for(1.1 * fixed, DELTA, part))

    assert fixed < found < 1.2 * fixed


def test_the_order_is_the_one_that_lets_most_steps_through() -> None:
    """Of all that are tried; another order stops earlier."""

    def most(order: int) -> int:
        count = 0
        while filtered_epsilon([steps(count + 10)], DELTA, order=order) <= 4.0:
            count += 10
        return count

    counts = {order: most(order) for order in ORDERS[:8]}

    assert counts[order_for(4.0, DELTA, steps(1))] == max(counts.values())
    assert counts[2] < max(counts.values())


def test_nothing_costs_nothing_and_no_noise_costs_everything() -> None:
    """And what is out of range is refused."""
    assert filtered_epsilon([], DELTA, order=4) == 0.0
    assert filtered_epsilon([steps(1), steps(1, noise=0.0, rate=1.0)], DELTA, order=4) == math.inf
    with pytest.raises(PrivacyError, match="delta=0"):
        filtered_epsilon([steps(1)], 0.0, order=4)
    with pytest.raises(PrivacyError, match="order=1 must be at least 2"):
        filtered_epsilon([steps(1)], DELTA, order=1)
