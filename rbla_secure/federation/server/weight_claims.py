"""Checks of claimed weights: sums impossible for honest clients are refused. Run by the server (weights=examples).

Behind masks a modified client adds any integer to the sum of the weights. Divided by, a forged sum of 1 / levels would make the step
thousands of times as long. An honest weight lies in [l, 1], l the plan's least weight, so over the surviving holders, whose
numbers n_b are public and of which those of a higher band hold the lower ones too,

    l n_b <= W_b <= n_b      and      l (n_b - n_a) <= W_b - W_a <= n_b - n_a     for a the next higher band that counts,

and no value of the sum exceeds n_b times the largest integer. A band outside stays closed and keeps its rows. It goes from the
highest band down, so that a client closes only bands that it holds: where two bands contradict each other, the liar holds
the lower one whichever of them it forged. (With gamma or zero padding all bands are scaled by shares of the weight of the lowest
band, so without that one nothing moves, whoever closed it.)

Guarantee: the sums that are left are those of *some* weights in [l, 1] of the same clients. (Each difference is spread evenly over
the clients that hold b and not a.) Hence W_b is off by a factor between l and 1 / l from the true one, however many clients lie: a
forged weight makes the average at most 1 / l times as long (16 by default), no coordinate of it larger than n_b bound / W_b <=
bound / l, and `step_bound.py` limits its length, forged values and all, to that of one update.
"""

from collections.abc import Mapping

import numpy as np

from protocols.ring import IntegerVector
from rbla_secure.planning.plan import Plan


def refused_claims(
    plan: Plan, sums: Mapping[int, IntegerVector], holders: Mapping[int, int]
) -> dict[int, str]:
    """Return, by band, why its sum of weights is impossible; empty where weights are not claimed.

    Args:
        plan: The terms.
        sums: By index of an opened band, the sum of the holders' integers, statistics at the end.
        holders: By the same index, how many clients the sum covers.
    """
    if not plan.weighted:
        return {}
    refused: dict[int, str] = {}
    above, claimed_above = 0, 0
    for index in sorted(sums, reverse=True):
        values, claimed = sums[index][: -plan.statistics], int(sums[index][-plan.statistics])
        count = holders[index]
        reason = (
            _beyond_the_grid(plan, values, count)
            or _fault(plan, claimed, count)
            or _fault(plan, claimed - claimed_above, count - above, "that do not hold the band above")
        )
        if reason:
            refused[index] = reason
        else:
            above, claimed_above = count, claimed
    return refused


def _beyond_the_grid(plan: Plan, values: IntegerVector, clients: int) -> str:
    largest, limit = int(np.abs(values).max(initial=0)), plan.quantizer.levels * clients
    if largest <= limit:
        return ""
    return f"a value of its sum is {largest}, more than {limit}, which {clients} honest holders can add up to"


def _fault(plan: Plan, claimed: int, clients: int, which: str = "") -> str:
    """Say why this many clients cannot have this sum of weights, in integer units; empty if they can."""
    levels = plan.quantizer.levels
    least = plan.quantizer.weight_units(plan.config.least_weight) * clients
    if least <= claimed <= levels * clients:
        return ""
    return (
        f"its {clients} holders{' ' + which if which else ''} claim a weight of {claimed / levels:.6g}, which must be in "
        f"[{least / levels:.6g}, {clients}]: one of its holders lies"
    )
