"""A privacy filter for sampled steps: a bound that holds however later runs are chosen.

The distributions of losses that :func:`rbla_secure.privacy.accounting.epsilon_of_steps` composes are those of steps whose noise
multiplier and sampling rate were fixed beforehand. Over several runs they are not: somebody may have set the noise of the
second by what the first has shown. For Gaussian mechanisms that makes no difference (Smith and Thakurta 2022, arXiv
2210.17520). For sampled ones this file has what is known to hold: a Renyi filter. Fix an order alpha and a bound B, stop before
the Renyi divergences of order alpha, each of a step as it was chosen, add up to more than B; then everything together is (alpha,
B)-Renyi differentially private (Feldman and Zrnic 2021, arXiv 2008.11193; Lecuyer 2021, arXiv 2103.01379). What
(epsilon, delta) follows grows with B, so stopping before epsilon exceeds a limit is stopping before B.

The order may depend on the first run's settings, which are fixed before the data are used, and on nothing after that. The price
is that there is one order for all: for five settings of noise 0.7 to 4 and rates 0.02 to 0.2 the figure at the limit was 8 to 15 %
above that of fixed settings where the limit is 8, and 9 to 29 % where it is 4. A limit that a single step nearly reaches
lets none through.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Final

import dp_accounting
from dp_accounting.rdp import RdpAccountant

from rbla_secure.errors import PrivacyError
from rbla_secure.privacy.accounting import SampledSteps, of_drawn

# Whole ones: the library computes their divergences in closed form (Mironov, Talwar, Zhang 2019, arXiv 1908.10530).
ORDERS: Final = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 128, 256)
_MOST_STEPS: Final = 2**40


def filtered_epsilon(history: Iterable[SampledSteps], delta: float, *, order: int) -> float:
    """The epsilon of all these steps by their divergences of one order; 0 for none, infinite without noise.

    Args:
        history: Steps, in any order.
        delta: In (0, 1).
        order: Order of the Renyi divergence, at least 2; fixed before the first step was taken.

    Raises:
        PrivacyError: `delta` or `order` is out of range.
    """
    if not 0 < delta < 1:
        raise PrivacyError(f"delta={delta} must lie in (0, 1)")
    if order < ORDERS[0]:
        raise PrivacyError(f"order={order} must be at least {ORDERS[0]}")
    accountant = RdpAccountant(
        orders=[float(order)], neighboring_relation=dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
    )
    steps: Counter[tuple[float, float]] = Counter()
    slack, variation = 0.0, 0.0
    for part in history:
        steps[part.noise_multiplier, part.sample_rate] += part.steps
        slack += part.slack
        variation += part.total_variation
    if not steps:
        return 0.0
    if not min(multiplier for multiplier, _ in steps):
        return math.inf
    for (multiplier, rate), count in sorted(steps.items()):
        event = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(multiplier))
        accountant.compose(event, count)
    return of_drawn(accountant.get_epsilon, delta, slack=slack, total_variation=variation)


def order_for(limit: float, delta: float, first: SampledSteps) -> int:
    """The order under which most steps like the first ones fit a limit.

    Args:
        limit: Epsilon, above 0.
        delta: In (0, 1).
        first: Steps of the first run; fixed before it begins.
    """
    return max(ORDERS, key=lambda order: _steps_within(limit, delta, first, order))


def _steps_within(limit: float, delta: float, first: SampledSteps, order: int) -> int:
    """How many steps like these fit a limit; 0 for none."""
    low, high = 0, 1
    while high < _MOST_STEPS and _of(first, high, delta, order) <= limit:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _of(first, middle, delta, order) <= limit else (low, middle)
    return low


def _of(first: SampledSteps, steps: int, delta: float, order: int) -> float:
    part = SampledSteps(noise_multiplier=first.noise_multiplier, sample_rate=first.sample_rate, steps=steps)
    return filtered_epsilon([part], delta, order=order)
